"""Loading, unloading and listing models by request, and versions by their labels: tritonclient against a server in explicit mode."""

import shutil

import numpy as np
import pytest
from clients import MODULES, Client
from serving import EXAMPLES, TESTDATA, Server, wait_until
from tritonclient.utils import InferenceServerException

ROW = np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)


def add(folder, model, version, source):
    """Puts a model of testdata into a repository as one version."""
    place = folder / model / str(version)
    place.mkdir(parents=True)
    shutil.copyfile(TESTDATA / "models" / f"{source}.onnx", place / "model.onnx")


@pytest.fixture(scope="module")
def explicit(tmp_path_factory):
    """A server that loads what it is told to load: `iris` at its start, the rest on request."""
    home = tmp_path_factory.mktemp("explicit")
    models = home / "models"
    shutil.copytree(EXAMPLES / "iris", models / "iris")
    add(models, "adder", 1, "add_row")
    add(models, "adder", 2, "add_row")
    (models / "adder" / "model.toml").write_text('versions = "all"\n\n[labels]\nstable = 1\ncanary = 2\n')
    add(models, "damaged", 1, "unknown_operator")
    flags = ["--mode", "explicit", "--load-model", "iris", "--state", f"sqlite://{home / 'state.sqlite'}"]
    with Server(models, home / "log", *flags) as server:
        # Files that were copied a moment ago are left alone until they are sure to be whole.
        wait_until(lambda: server.get("/v2/models/iris/ready").status == 200, "iris to be loaded")
        yield server


@pytest.fixture(scope="module", params=list(MODULES), name="caller")
def any_caller(request, explicit):
    """Each of the four clients in turn, connected to the server in explicit mode."""
    client = Client(request.param, explicit)
    yield client
    client.close()


@pytest.fixture(autouse=True)
def only_iris_is_loaded(explicit):
    """Every test begins with the models that the server began with."""
    yield
    for model in ("adder", "damaged"):
        explicit.post(f"/v2/repository/models/{model}/unload", "")


def index(client):
    """Returns the index's lines by model and version."""
    listed = client.describe("get_model_repository_index")
    lines = listed if client.is_http else listed.get("models", [])
    return {(line["name"], line.get("version", "")): line for line in lines}


def refused(client, method, *arguments, **options):
    """Makes a call that must fail, and returns its status and text."""
    with pytest.raises(InferenceServerException) as failure:
        client.call(method, *arguments, **options)
    return failure.value.status(), failure.value.message()


def added(client, version=""):
    """Asks `adder`, and returns the version that answered."""
    x = client.input("x", "FP32", np.zeros((1, 4), np.float32))
    return client.response(client.call("infer", "adder", [x], model_version=version))["model_version"]


def test_a_model_is_loaded_and_unloaded(caller):
    assert caller.call("is_model_ready", "iris")
    assert not caller.call("is_model_ready", "adder")
    assert index(caller)["adder", "1"]["state"] == "UNAVAILABLE"
    with pytest.raises(InferenceServerException):
        added(caller)

    caller.call("load_model", "adder")
    assert caller.call("is_model_ready", "adder")
    assert index(caller)["adder", "2"]["state"] == "READY"
    assert added(caller) == "2"

    caller.call("unload_model", "adder", unload_dependents=True)
    assert not caller.call("is_model_ready", "adder")
    assert index(caller)["adder", "2"]["state"] == "UNAVAILABLE"
    assert caller.call("is_model_ready", "iris"), "the others stay"


def test_a_label_is_as_good_as_a_number(caller):
    caller.call("load_model", "adder")
    for version, expected in {"stable": "1", "canary": "2", "1": "1", "2": "2", "": "2"}.items():
        assert added(caller, version) == expected, version
        assert caller.call("is_model_ready", "adder", version)
    metadata = caller.describe("get_model_metadata", "adder", "stable")
    assert metadata["versions"] == ["1"]
    status, text = refused(caller, "get_model_metadata", "adder", "nightly")
    assert status in ("404", "StatusCode.NOT_FOUND") and "'nightly'" in text


def test_a_model_that_cannot_be_loaded_says_why(caller):
    status, text = refused(caller, "load_model", "damaged")
    assert status in ("409", "StatusCode.FAILED_PRECONDITION"), status
    assert "Frobnicate" in text
    line = index(caller)["damaged", "1"]
    assert line["state"] == "UNAVAILABLE" and "Frobnicate" in line["reason"]


def test_a_model_that_is_not_there(caller):
    for method in ("load_model", "unload_model"):
        status, text = refused(caller, method, "nobody")
        assert status in ("404", "StatusCode.NOT_FOUND"), status
        assert "'nobody'" in text


def test_what_would_be_loaded_from_the_request_is_refused(caller):
    for options, name in [
        ({"config": '{"max_batch_size": 8}'}, "'config'"),
        ({"config": "{}", "files": {"file:1/model.onnx": b"onnx"}}, "of a load request is not supported"),
    ]:
        status, text = refused(caller, "load_model", "adder", **options)
        assert status in ("400", "StatusCode.UNIMPLEMENTED"), status
        assert name in text
    assert not caller.call("is_model_ready", "adder")


def test_one_version_is_loaded_and_the_index_tells_of_it(explicit):
    answer = explicit.post("/v2/repository/models/adder/load", {"parameters": {"version": 1}})
    assert answer.status == 200 and answer.body == b"", answer
    lines = {(line["name"], line["version"]): line for line in explicit.post("/v2/repository/index", "{}").json()}
    first = lines["adder", "1"]
    assert first["state"] == "READY" and first["standing"] == "ready"
    assert first["labels"] == ["stable"] and first["engine"] == "onnxruntime"
    assert first["memory_bytes"] is None or first["memory_bytes"] >= 0
    assert first["source"]


def test_new_versions_are_found_by_a_load(caller, explicit, tmp_path):
    models = explicit.log_path.parent / "models"
    name = f"grown_{caller.kind.replace('.', '_')}"
    add(models, name, 1, "add_row")
    caller.call("load_model", name)
    assert caller.call("is_model_ready", name, "1")
    # Put into its place as a whole, as whoever deploys should.
    add(tmp_path, name, 2, "add_row")
    (tmp_path / name / "2").rename(models / name / "2")

    def newer():
        caller.call("load_model", name)
        return caller.call("is_model_ready", name, "2")

    wait_until(newer, "version 2 to be loaded")
    caller.call("unload_model", name)
