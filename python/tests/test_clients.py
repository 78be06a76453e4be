"""What every client of tritonclient gets right with a server of its own protocol: http, http.aio, grpc and grpc.aio."""

import concurrent.futures

import ml_dtypes
import numpy as np
import pytest
import reference
from clients import Client
from serving import BROKEN
from tritonclient.utils import InferenceServerException

IRIS_ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [5.0, 2.0, 3.5, 1.0], [6.5, 3.2, 5.1, 2.0]], np.float32)


def test_the_server_lives_and_is_ready(client):
    assert client.call("is_server_live") is True
    assert client.call("is_server_ready") is True


@pytest.mark.parametrize(
    ("model", "version", "ready"),
    [("iris", "", True), ("iris", "1", True), ("iris", "9", False), ("no_such_model", "", False), ("truncated", "", False)],
)
def test_readiness_of_models(client, model, version, ready):
    assert client.call("is_model_ready", model, model_version=version) is ready


def test_server_metadata(client):
    metadata = client.describe("get_server_metadata")
    assert metadata["name"] == "outhaul"
    assert metadata["version"]
    assert {"classification", "model_configuration", "model_repository", "statistics"} <= set(metadata["extensions"])
    assert "binary_tensor_data" in metadata["extensions"]


def tensors(described):
    return [(t["name"], t["datatype"], [int(size) for size in t.get("shape", [])]) for t in described]


def test_model_metadata(client):
    metadata = client.describe("get_model_metadata", "iris")
    assert metadata["name"] == "iris"
    assert metadata["versions"] == ["1"]
    assert metadata["platform"].endswith("_onnx")
    assert tensors(metadata["inputs"]) == [("X", "FP32", [-1, 4])]
    assert tensors(metadata["outputs"]) == [("label", "INT64", [-1]), ("probabilities", "FP32", [-1, 3])]
    scalar = client.describe("get_model_metadata", "scalar", model_version="1")
    assert [shape for _, _, shape in tensors(scalar["inputs"] + scalar["outputs"])] == [[], []]


def test_metadata_lists_the_versions(client):
    metadata = client.describe("get_model_metadata", "two_versions")
    assert sorted(metadata["versions"]) == ["1", "2"]


def test_model_config(client):
    config = client.describe("get_model_config", "iris")
    config = config if client.is_http else config["config"]
    assert config["name"] == "iris"
    assert config["max_batch_size"] > 1
    (tensor,) = config["input"]
    # Without the batch, as Triton writes it.
    assert (tensor["name"], tensor["data_type"], [int(size) for size in tensor["dims"]]) == ("X", "TYPE_FP32", [4])
    assert [tensor["name"] for tensor in config["output"]] == ["label", "probabilities"]
    unbatched = client.describe("get_model_config", "fixed_batch")
    unbatched = unbatched if client.is_http else unbatched["config"]
    assert unbatched.get("max_batch_size", 0) == 0
    assert [int(size) for size in unbatched["input"][0]["dims"]] == [2, 3]


def test_statistics_count_requests_rows_and_failures(client):
    def statistics():
        answer = client.describe("get_inference_statistics", "two_versions", model_version="1")
        (model,) = answer["model_stats"]
        assert (model["name"], model["version"]) == ("two_versions", "1")
        success = model.get("inference_stats", {}).get("success", {})
        return [int(n) for n in (model.get("inference_count", 0), model.get("execution_count", 0), success.get("count", 0))]

    before = statistics()
    (case, *_) = reference.cases("add_row")
    (tensor,) = case.inputs
    rows = tensor.array.shape[0]
    client.call("infer", "two_versions", [client.input(tensor.name, tensor.datatype, tensor.array)], model_version="1")
    after = statistics()
    assert [a - b for a, b in zip(after, before, strict=True)] == [rows, 1, 1]


def test_statistics_of_all_models(client):
    models = client.describe("get_inference_statistics")["model_stats"]
    names = {model["name"] for model in models}
    assert {"iris", "identity_fp32", "slow"} <= names
    assert not names & set(BROKEN)


def test_repository_index(client):
    index = client.describe("get_model_repository_index")
    index = index if client.is_http else index["models"]
    states = {(entry["name"], entry.get("version", "")): entry["state"] for entry in index}
    assert states["iris", "1"] == "READY"
    assert states["two_versions", "1"] == states["two_versions", "2"] == "READY"
    for name in BROKEN:
        (entry,) = [entry for entry in index if entry["name"] == name]
        assert entry["state"] == "UNAVAILABLE"
        assert entry["reason"], "an unavailable model says why"
    (frobnicate,) = [entry["reason"] for entry in index if entry["name"] == "unknown_operator"]
    assert "Frobnicate" in frobnicate


@pytest.mark.parametrize("model", reference.NAMES)
def test_answers_equal_the_reference(client, model):
    for case in reference.cases(model):
        inputs = [client.input(tensor.name, tensor.datatype, tensor.array) for tensor in case.inputs]
        result = client.call("infer", model, inputs)
        assert client.response(result)["model_name"] == model
        for output in case.outputs:
            case.check(output, result.as_numpy(output.name))


@pytest.mark.parametrize("model", [name for name in reference.NAMES if name != "identity_bf16"])
def test_answers_as_json_equal_the_reference(http_client, model):
    for case in reference.cases(model):
        inputs = [http_client.input(tensor.name, tensor.datatype, tensor.array, binary=False) for tensor in case.inputs]
        outputs = [http_client.output(output.name, binary=False) for output in case.outputs]
        result = http_client.call("infer", model, inputs, outputs=outputs)
        for output in case.outputs:
            assert "data" in result.get_output(output.name)
            case.check(output, result.as_numpy(output.name))


def test_bf16_is_answered_as_json(http_client):
    # As an input the client sends BF16 as binary data only.
    for case in reference.cases("identity_bf16"):
        (tensor,), (output,) = case.inputs, case.outputs
        inputs = [http_client.input("x", "BF16", tensor.array)]
        result = http_client.call("infer", "identity_bf16", inputs, outputs=[http_client.output("y", binary=False)])
        case.check(output, result.as_numpy("y"))


def test_binary_and_json_in_one_request(http_client):
    (case, *_) = reference.cases("two_inputs")
    for first_binary in (True, False):
        forms = (first_binary, not first_binary)
        inputs = [
            http_client.input(tensor.name, tensor.datatype, tensor.array, binary=binary)
            for tensor, binary in zip(case.inputs, forms, strict=True)
        ]
        outputs = [http_client.output(output.name, binary=binary) for output, binary in zip(case.outputs, forms, strict=True)]
        result = http_client.call("infer", "two_inputs", inputs, outputs=outputs)
        for output, binary in zip(case.outputs, forms, strict=True):
            assert ("data" in result.get_output(output.name)) is not binary
            case.check(output, result.as_numpy(output.name))


def test_inputs_come_in_any_order_and_outputs_in_the_order_asked_for(client):
    (case, *_) = reference.cases("two_inputs")
    inputs = [client.input(tensor.name, tensor.datatype, tensor.array) for tensor in reversed(case.inputs)]
    wanted = [output.name for output in reversed(case.outputs)]
    result = client.call("infer", "two_inputs", inputs, outputs=[client.output(name) for name in wanted])
    assert [output["name"] for output in client.response(result)["outputs"]] == wanted
    for output in case.outputs:
        case.check(output, result.as_numpy(output.name))


def iris(client, rows=IRIS_ROWS):
    return [client.input("X", "FP32", rows)]


def test_one_output_of_two(client):
    result = client.call("infer", "iris", iris(client), outputs=[client.output("probabilities")])
    assert [output["name"] for output in client.response(result)["outputs"]] == ["probabilities"]
    assert result.as_numpy("label") is None
    assert result.as_numpy("probabilities").shape == (3, 3)


@pytest.mark.parametrize("request_id", ["", "a", "42", 'quote" and \\ and \u00fc', "x" * 500])
def test_the_request_id_comes_back(client, request_id):
    result = client.call("infer", "iris", iris(client), request_id=request_id)
    assert client.response(result).get("id", "") == request_id


def test_the_version_that_answered_is_named(client):
    (tensor,) = reference.cases("add_row")[0].inputs
    array = client.input(tensor.name, tensor.datatype, tensor.array)
    result = client.call("infer", "two_versions", [array], model_version="1")
    assert client.response(result)["model_version"] == "1"
    case = reference.cases("scalar")[0]
    (tensor,), (output,) = case.inputs, case.outputs
    # The latest where none is asked for.
    result = client.call("infer", "two_versions", [client.input(tensor.name, tensor.datatype, tensor.array)])
    assert client.response(result)["model_version"] == "2"
    case.check(output, result.as_numpy(output.name))


def test_parameters_of_the_caller_do_no_harm(client):
    parameters = {"text": "caf\u00e9", "whole": -3, "yes": True, "real": 0.5}
    options = {"priority": 1, "sequence_id": 7, "sequence_start": True, "sequence_end": True, "timeout": 60_000_000}
    result = client.call("infer", "iris", iris(client), parameters=parameters, **options)
    assert result.as_numpy("label").tolist() == [0, 1, 2]


def test_the_answer_tells_how_its_time_was_spent(client):
    result = client.call("infer", "iris", iris(client))
    parameters = client.response(result)["parameters"]
    assert {"queue_us", "assemble_us", "compute_us", "split_us", "batch_rows"} <= set(parameters)


@pytest.mark.parametrize(
    ("model", "dtype"),
    [("fp16", np.float16), ("bf16", ml_dtypes.bfloat16), ("fp32", np.float32), ("fp64", np.float64)],
)
def test_what_is_no_number_stays_as_it_is(client, model, dtype):
    array = np.array([[np.nan, np.inf, -np.inf, -0.0, 1.5]], dtype)
    forms = [True, False] if client.is_http else [True]
    for binary in forms:
        # The client sends BF16 as binary data only.
        tensor = client.input("x", model.upper(), array, binary=binary or model == "bf16")
        result = client.call("infer", f"identity_{model}", [tensor], outputs=[client.output("y", binary=binary)])
        received = result.as_numpy("y")
        assert received.dtype == array.dtype
        assert np.isnan(received[0, 0])
        assert received[0, 1:].astype(float).tolist() == [np.inf, -np.inf, 0.0, 1.5]
        assert np.signbit(received[0, 3])


def test_strings_are_bytes(client):
    array = np.array([[b"", b"\x00", b"a\x00b", b"\xff\xfe\x80", "gr\u00fc\u00dfe".encode(), b"x" * 100_000]], np.object_)
    result = client.call("infer", "identity_bytes", [client.input("x", "BYTES", array)])
    received = result.as_numpy("y")
    assert received.shape == array.shape
    assert received.tolist() == array.tolist()


def test_strings_that_are_no_text_are_not_answered_as_json(http_client):
    array = np.array([[b"fine", b"\xff"]], np.object_)
    with pytest.raises(InferenceServerException) as failure:
        http_client.call(
            "infer",
            "identity_bytes",
            [http_client.input("x", "BYTES", array)],
            outputs=[http_client.output("y", binary=False)],
        )
    assert failure.value.status() == "400"
    assert "UTF-8" in failure.value.message() and "'y'" in failure.value.message()


@pytest.mark.parametrize("columns", [1, 2_621_440], ids=["4 B", "10 MiB"])
def test_large_tensors(client, columns):
    array = np.random.default_rng(7).standard_normal((1, columns), np.float32)
    result = client.call("infer", "identity_fp32", [client.input("x", "FP32", array)])
    np.testing.assert_array_equal(result.as_numpy("y"), array)


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (1000, 4)])
def test_numbers_of_rows(client, shape):
    rows = np.tile(IRIS_ROWS[0], (shape[0], 1)).astype(np.float32)
    result = client.call("infer", "iris", iris(client, rows))
    assert result.as_numpy("label").shape == (shape[0],)
    assert result.as_numpy("probabilities").shape == (shape[0], 3)
    assert not result.as_numpy("label").any()


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_classification(client, count):
    probabilities = client.call("infer", "iris", iris(client)).as_numpy("probabilities")
    result = client.call("infer", "iris", iris(client), outputs=[client.output("probabilities", class_count=count)])
    classes = result.as_numpy("probabilities")
    assert classes.shape == (3, min(count, 3))
    for row, ranked in zip(probabilities, classes, strict=True):
        order = np.argsort(-row, kind="stable")[: len(ranked)]
        for index, text in zip(order, ranked, strict=True):
            value, position, *_ = text.decode().split(":")
            assert int(position) == index
            assert float(value) == pytest.approx(row[index], abs=1e-6)


def test_classification_as_json(http_client):
    output = http_client.output("probabilities", binary=False, class_count=1)
    result = http_client.call("infer", "iris", iris(http_client), outputs=[output])
    described = result.get_output("probabilities")
    assert described["datatype"] == "BYTES"
    assert described["shape"] == [3, 1]
    assert [text.split(":")[1] for text in described["data"]] == ["0", "1", "2"]


def test_what_has_no_classes_is_refused(client):
    words = client.input("x", "BYTES", np.array([[b"a", b"b"]], np.object_))
    with pytest.raises(InferenceServerException, match="'y'"):
        client.call("infer", "identity_bytes", [words], outputs=[client.output("y", class_count=1)])


@pytest.mark.parametrize("form", ["binary", "json"])
@pytest.mark.parametrize("response", [None, "gzip", "deflate"])
@pytest.mark.parametrize("request_", [None, "gzip", "deflate"])
def test_compression_over_http(http_client, request_, response, form):
    binary = form == "binary"
    # Large enough to be compressed and to compress well.
    array = np.zeros((1, 20_000), np.float32)
    array[0, ::1000] = 1.5
    result = http_client.call(
        "infer",
        "identity_fp32",
        [http_client.input("x", "FP32", array, binary=binary)],
        outputs=[http_client.output("y", binary=binary)],
        request_compression_algorithm=request_,
        response_compression_algorithm=response,
    )
    np.testing.assert_array_equal(result.as_numpy("y"), array)


@pytest.mark.parametrize("accepted", ["gzip, deflate, br, zstd", "zstd, gzip", "gzip, deflate", "deflate, br"])
def test_what_libraries_accept_in_a_clients_name(http_client, accepted):
    """aiohttp sends such a header by itself; the client above it unpacks gzip and deflate of predictions, and nothing else."""
    array = np.zeros((1, 20_000), np.float32)
    headers = {"Accept-Encoding": accepted}
    inputs = [http_client.input("x", "FP32", array)]
    result = http_client.call("infer", "identity_fp32", inputs, headers=headers)
    np.testing.assert_array_equal(result.as_numpy("y"), array)
    assert len(http_client.call("get_model_repository_index", headers=headers)) > 20


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression_over_grpc(grpc_client, algorithm):
    array = np.zeros((1, 20_000), np.float32)
    array[0, ::1000] = 1.5
    inputs = [grpc_client.input("x", "FP32", array)]
    result = grpc_client.call("infer", "identity_fp32", inputs, compression_algorithm=algorithm)
    np.testing.assert_array_equal(result.as_numpy("y"), array)


def test_threads_each_get_their_own_answers(server):
    """Eight threads and two kinds of client at once; every answer belongs to its request."""

    def work(thread):
        client = Client("grpc" if thread % 2 else "http", server)
        try:
            for turn in range(40):
                array = np.full((1 + turn % 3, 4), 100 * thread + turn, np.float32)
                identity = f"{thread}-{turn}"
                result = client.call("infer", "add_row", [client.input("x", "FP32", array)], request_id=identity)
                assert client.response(result)["id"] == identity
                np.testing.assert_array_equal(result.as_numpy("y"), array + np.float32([1, 10, 100, 1000]))
        finally:
            client.close()
        return True

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
