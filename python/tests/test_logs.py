"""What the log tells of requests."""

import json

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from conftest import IRIS
from serving import Server
from tritonclient.utils import InferenceServerException


def test_every_prediction_has_a_line_where_that_is_asked_for(models, tmp_path):
    server = Server(models / "iris", tmp_path / "log", "--log-requests", "--log-format", "json")
    try:
        assert server.infer("iris", IRIS, {"X-Request-Id": "rest-good"}).status == 200
        assert server.infer("iris", {}, {"X-Request-Id": "rest-bad"}).status == 400
        tensor = triton_grpc.InferInput("X", [1, 4], "FP32")
        tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))
        with triton_grpc.InferenceServerClient(server.grpc) as client:
            client.infer("iris", [tensor], headers={"x-request-id": "grpc-good"})
            with pytest.raises(InferenceServerException):
                client.infer("nobody", [tensor], headers={"x-request-id": "grpc-bad"})
        server.stop()
    finally:
        server.kill()
    lines = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
    told = {line["request_id"]: line for line in lines if line["message"] == "answered"}
    assert {identity: told[identity]["status"] for identity in ("rest-good", "rest-bad", "grpc-good", "grpc-bad")} == {
        "rest-good": 200, "rest-bad": 400, "grpc-good": 0, "grpc-bad": 5,
    }
    good = told["grpc-good"]
    assert (good["contract"], good["model"], good["version"]) == ("oip_grpc", "iris", 1)
    assert good["request_bytes"] > 16 and good["response_bytes"] > 20 and good["total_us"] >= good["compute_us"]


def test_predictions_have_no_line_otherwise(models, tmp_path):
    server = Server(models / "iris", tmp_path / "log", "--log-format", "json")
    try:
        assert server.infer("iris", IRIS).status == 200
        server.stop()
    finally:
        server.kill()
    assert "answered" not in server.log()
