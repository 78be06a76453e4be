"""boto3's sagemaker-runtime, unmodified but for the endpoint's URL; and a multi-model endpoint as SageMaker drives it."""

import io
import json
import shutil

import boto3
import numpy as np
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from serving import EXAMPLES, TESTDATA, Server, request

ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]


def client_of(server):
    return boto3.client(
        "sagemaker-runtime",
        region_name="eu-west-1",
        endpoint_url=f"http://{server.http}",
        aws_access_key_id="none",
        aws_secret_access_key="none",
        config=Config(retries={"total_max_attempts": 1}),
    )


@pytest.fixture(scope="module")
def invoke(server):
    """Returns what calls the endpoint, and gives the answer's type and bytes."""
    client = client_of(server)

    def invoke(model, body, content_type=None, accept=None, **more):
        media = {"ContentType": content_type, "Accept": accept}
        more |= {name: value for name, value in media.items() if value}
        answer = client.invoke_endpoint(EndpointName="any", TargetModel=model, Body=body, **more)
        return answer["ContentType"], answer["Body"].read()

    return invoke


@pytest.fixture(scope="module")
def expected(server):
    """Labels and probabilities, as the Open Inference Protocol tells them."""
    tensor = {"name": "X", "datatype": "FP32", "shape": [2, 4], "data": ROWS}
    outputs = server.infer("iris", {"inputs": [tensor]}).json()["outputs"]
    found = {output["name"]: np.array(output["data"]).reshape(output["shape"]) for output in outputs}
    return found["label"].tolist(), found["probabilities"].tolist()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_rows_of_json(invoke, expected):
    for body in ({"instances": ROWS}, {"instances": [{"X": row} for row in ROWS]}, ROWS):
        content_type, answer = invoke("iris", json.dumps(body), "application/json")
        assert content_type == "application/json"
        predictions = json.loads(answer)["predictions"]
        assert [row["label"] for row in predictions] == expected[0]
        assert [row["probabilities"] for row in predictions] == expected[1]
    # Without a type, as boto3 sends it where nobody says otherwise.
    assert json.loads(invoke("iris", json.dumps({"instances": ROWS}))[1])["predictions"] == predictions


def test_whole_tensors_of_json(invoke, expected):
    _, answer = invoke("iris", json.dumps({"inputs": {"X": ROWS}}), "application/json")
    outputs = json.loads(answer)["outputs"]
    assert (outputs["label"], outputs["probabilities"]) == expected
    tensor = {"name": "X", "datatype": "FP32", "shape": [2, 4], "data": ROWS}
    _, answer = invoke("iris", json.dumps({"inputs": [tensor]}), "application/json")
    assert {output["name"] for output in json.loads(answer)["outputs"]} == {"label", "probabilities"}


def test_lines_of_json(invoke, expected):
    body = "\n".join(map(json.dumps, ROWS)) + "\n"
    content_type, answer = invoke("iris", body, "application/jsonlines")
    assert content_type == "application/jsonlines"
    assert [json.loads(line)["label"] for line in answer.splitlines()] == expected[0]
    content_type, answer = invoke("iris", body, "application/jsonlines", "application/json")
    assert [row["label"] for row in json.loads(answer)["predictions"]] == expected[0]


def test_lines_of_values(invoke, expected):
    body = "".join(",".join(map(str, row)) + "\n" for row in ROWS)
    content_type, answer = invoke("iris", body, "text/csv")
    assert content_type == "text/csv"
    lines = [[float(value) for value in line.split(b",")] for line in answer.splitlines()]
    assert [line[0] for line in lines] == expected[0]
    assert [line[1:] for line in lines] == [pytest.approx(row) for row in expected[1]]
    _, answer = invoke("iris", body, "text/csv", "text/csv;header=present")
    assert answer.splitlines()[0].startswith(b"label,probabilities_0")


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "uint8"])
def test_arrays(invoke, dtype):
    array = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], dtype)
    content_type, answer = invoke("add_row", npy(array), "application/x-npy", "application/x-npy")
    assert content_type == "application/x-npy"
    result = np.load(io.BytesIO(answer))
    assert result.dtype == np.float32
    assert result.tolist() == (array + [1.0, 10.0, 100.0, 1000.0]).tolist()


def test_one_output_of_several_as_an_array(invoke, expected):
    body = npy(np.array(ROWS))
    _, answer = invoke("iris", body, "application/x-npy", "application/x-npy", CustomAttributes="output=probabilities")
    assert np.load(io.BytesIO(answer)).tolist() == [pytest.approx(row) for row in expected[1]]
    # Left open, the answer is JSON, which holds them all.
    content_type, answer = invoke("iris", body, "application/x-npy")
    assert content_type == "application/json"
    assert [row["label"] for row in json.loads(answer)["predictions"]] == expected[0]


def test_a_body_that_is_the_value(invoke):
    _, answer = invoke("identity_bytes", "grüße".encode(), "text/plain")
    assert json.loads(answer) == {"predictions": [["grüße"]]}
    _, answer = invoke("identity_bytes", b"\xff\x00", "application/octet-stream")
    assert json.loads(answer) == {"predictions": [[{"b64": "/wA="}]]}


@pytest.mark.parametrize(
    ("model", "body", "content_type", "accept", "status", "message"),
    [
        ("nobody", "[]", "application/json", None, 404, "'nobody'"),
        ("iris", "[[1,2,3,4]]", "application/xml", None, 415, "'application/xml' is not read here"),
        ("iris", "[[1,2,3,4]]", "application/json", "image/png", 406, "'image/png'"),
        ("iris", "[[1,2,3,4],[1,2,3]]", "application/json", None, 400, "row 1: 'X'"),
        ("iris", "[1,2,3,4]\n\n[1,2,3,\"a\"]\n", "application/jsonlines", None, 400, "row 1 (line 3): 'X'[3] must be a number"),
        ("iris", "1,2,3,4\n1,2,three,4\n", "text/csv", None, 400, "row 1 (line 2): 'X'[2]"),
        ("iris", "no array", "application/x-npy", None, 400, "NPY"),
        ("iris", "[[1,2,3,4]]", "application/json", "application/x-npy", 400, "several outputs"),
        ("identity_bytes", b"\xff", "text/plain", None, 400, "not UTF-8"),
    ],
)
def test_what_boto3_raises_says_what_is_wrong(invoke, model, body, content_type, accept, status, message):
    with pytest.raises(ClientError) as caught:
        invoke(model, body, content_type, accept)
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert response["Error"]["Code"] == "ValidationError"
    assert message in response["Error"]["Message"]


def test_the_ping(server):
    answer = server.get("/ping")
    assert (answer.status, answer.body) == (200, b"")


class Many:
    """SageMaker's part: it puts models below a folder, and has the container load and unload them."""

    def __init__(self, server, base):
        self.server, self.base = server, base

    def put(self, name, model):
        folder = self.base / name / "model"
        folder.mkdir(parents=True)
        if model.is_dir():
            shutil.copytree(model, folder, dirs_exist_ok=True)
        else:
            shutil.copyfile(model, folder / "model.onnx")
        return folder

    def load(self, name, folder):
        return self.server.post("/models", {"model_name": name, "url": str(folder)})

    def listed(self):
        return [model["modelName"] for model in self.server.get("/models").json()["models"]]

    def delete(self, name):
        return self.server.exchange(request("DELETE", f"/models/{name}"))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    base = tmp_path_factory.mktemp("opt-ml-models")
    log = tmp_path_factory.mktemp("many") / "log"
    with Server(TESTDATA / "text_models" / "tiny-embedder", log, "--sagemaker-models-dir", str(base)) as server:
        yield Many(server, base)


def test_models_come_and_go(many, expected):
    flowers = many.put("a1b2", EXAMPLES / "iris")
    answer = many.load("flowers", flowers)
    assert (answer.status, answer.body) == (200, b"")
    assert many.load("flowers", flowers).status == 409
    assert many.listed() == ["flowers", "tiny-embedder"]
    assert many.server.get("/models/flowers").json() == {"modelName": "flowers", "modelUrl": str(flowers)}
    answer = many.server.post("/models/flowers/invoke", {"instances": ROWS})
    assert [row["label"] for row in answer.json()["predictions"]] == expected[0]
    # Through boto3 as well, by the name of the archive that SageMaker unpacked.
    answer = client_of(many.server).invoke_endpoint(
        EndpointName="any", TargetModel="flowers.tar.gz", ContentType="application/json", Body=json.dumps(ROWS)
    )
    assert [row["label"] for row in json.load(answer["Body"])["predictions"]] == expected[0]

    assert many.delete("flowers").status == 200
    assert many.listed() == ["tiny-embedder"]
    assert many.server.get("/models/flowers").status == 404
    assert many.delete("flowers").status == 404
    assert many.server.post("/models/flowers/invoke", {"instances": ROWS}).status == 404
    assert many.load("flowers", flowers).status == 200
    assert many.delete("flowers").status == 200


def test_a_model_of_texts_comes_with_its_transform(many):
    folder = many.put("c3d4", TESTDATA / "text_models" / "tiny-classifier")
    assert many.load("moods", folder).status == 200
    answer = many.server.post("/models/moods/invoke", "I love this film", {"content-type": "text/plain"})
    assert answer.json()["predictions"][0]["label"] == "negative"
    assert many.delete("moods").status == 200


def test_what_cannot_be_loaded_leaves_nothing_behind(many):
    broken = many.put("e5f6", TESTDATA / "models" / "truncated.onnx")
    for _ in range(2):
        answer = many.load("broken", broken)
        assert answer.status == 400 and "broken" in answer.json()["error"], answer
    assert many.load("outside", EXAMPLES / "iris").status == 403
    assert many.load("missing", many.base / "nothing").status == 400
    assert many.listed() == ["tiny-embedder"]
    assert many.server.get("/ping").status == 200
