"""The server without ONNX Runtime: what its own engine serves, it answers as the reference says; the rest it refuses to load."""

import pytest
import reference
from clients import Client
from serving import BROKEN, Server
from tritonclient.utils import InferenceServerException


@pytest.fixture(scope="module")
def embedded(models, tmp_path_factory):
    with Server(models, tmp_path_factory.mktemp("embedded") / "log", "--engine", "embedded") as server:
        yield server


@pytest.fixture(scope="module")
def index(embedded):
    """The state of each model, by name."""
    return {entry["name"]: entry for entry in embedded.post("/v2/repository/index", {}).json()}


def test_it_serves_the_plain_models(index):
    for name in ("iris", "digits", "add_row", "identity_fp32", "two_inputs", "scalar"):
        assert index[name]["state"] == "READY", index[name]


def test_what_it_cannot_run_names_an_engine_that_can(index):
    refused = [entry for name, entry in index.items() if entry["state"] != "READY" and name not in BROKEN]
    assert "breast_cancer" in [entry["name"] for entry in refused], "it has no trees"
    for entry in refused:
        assert "onnxruntime" in entry["reason"].lower().replace(" ", ""), entry


@pytest.mark.parametrize("name", reference.NAMES)
def test_its_answers_equal_the_reference(embedded, index, name):
    if index[name]["state"] != "READY":
        pytest.skip(index[name]["reason"])
    client = Client("grpc", embedded)
    answered = 0
    try:
        for case in reference.cases(name):
            inputs = [client.input(tensor.name, tensor.datatype, tensor.array) for tensor in case.inputs]
            try:
                result = client.call("infer", name, inputs)
            except InferenceServerException as failure:
                # Values that it cannot hold exactly, such as INT64 beyond 32 bits.
                assert failure.status() == "StatusCode.UNIMPLEMENTED", failure
                assert "exactly" in failure.message() and "onnxruntime" in failure.message()
                continue
            answered += 1
            for output in case.outputs:
                case.check(output, result.as_numpy(output.name))
    finally:
        client.close()
    assert answered > 0
