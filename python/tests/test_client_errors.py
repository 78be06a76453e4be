"""What clients are told of their own mistakes: the status, and a text that says what was expected and what came."""

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

STATUS = {
    "invalid": ("400", "StatusCode.INVALID_ARGUMENT"),
    "unknown": ("404", "StatusCode.NOT_FOUND"),
    "not ready": ("503", "StatusCode.UNAVAILABLE"),
}


def refused(client, kind, method, *arguments, **options):
    """Makes a call that must fail so, and returns the text."""
    with pytest.raises(InferenceServerException) as failure:
        client.call(method, *arguments, **options)
    assert failure.value.status() == STATUS[kind][0 if client.is_http else 1], failure.value
    assert failure.value.message()
    return failure.value.message()


def x(client, shape=(1, 4), dtype=np.float32, name="X", datatype="FP32"):
    return client.input(name, datatype, np.zeros(shape, dtype))


@pytest.mark.parametrize(("model", "version"), [("no_such_model", ""), ("no_such_model", "1"), ("iris", "9")])
@pytest.mark.parametrize("method", ["infer", "get_model_metadata", "get_model_config", "get_inference_statistics"])
def test_unknown_models(client, method, model, version):
    arguments = [[x(client)]] if method == "infer" else []
    text = refused(client, "unknown", method, model, *arguments, model_version=version)
    # The examples of tritonclient match these words.
    assert text.startswith("Request for unknown model")
    assert f"'{model}'" in text
    if model == "iris":
        assert version in text


@pytest.mark.parametrize("model", ["", "../iris", "iris ", "IRIS", "m" * 1000, "caf\u00e9", "a\x00b"])
def test_names_that_no_model_has(client, model):
    with pytest.raises(InferenceServerException) as failure:
        client.call("infer", model, [x(client)])
    allowed = ("400", "404", "405") if client.is_http else ("StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND")
    assert failure.value.status() in allowed, failure.value


def test_a_model_that_failed_to_load(client):
    text = refused(client, "not ready", "infer", "unknown_operator", [x(client)])
    assert "unknown_operator" in text and "Frobnicate" in text


@pytest.mark.parametrize("version", ["abc", "-1", "1.0", "99999999999999999999"])
def test_versions_that_are_no_number(client, version):
    with pytest.raises(InferenceServerException) as failure:
        client.call("infer", "iris", [x(client)], model_version=version)
    allowed = ("400", "404") if client.is_http else ("StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND")
    assert failure.value.status() in allowed, failure.value


def test_version_0_is_the_latest(client):
    # ovmsclient asks for it always.
    result = client.call("infer", "iris", [x(client)], model_version="0")
    assert client.response(result)["model_version"] == "1"


def test_the_wrong_type(client):
    text = refused(client, "invalid", "infer", "iris", [x(client, dtype=np.float64, datatype="FP64")])
    assert "'X'" in text and "FP64" in text and "FP32" in text


@pytest.mark.parametrize("shape", [(4,), (1, 5), (1, 4, 1), (), (4, 1), (0,)])
def test_the_wrong_shape(client, shape):
    text = refused(client, "invalid", "infer", "iris", [x(client, shape)])
    assert "'X'" in text
    assert "4]" in text, "the expected shape is named"
    assert f"[{', '.join(map(str, shape))}]" in text or f"[{','.join(map(str, shape))}]" in text, text


@pytest.mark.parametrize("rows", [1, 3])
def test_a_fixed_batch_is_neither_filled_up_nor_cut(client, rows):
    text = refused(client, "invalid", "infer", "fixed_batch", [x(client, (rows, 3), name="x")])
    assert "'x'" in text


def test_an_unknown_input(client):
    text = refused(client, "invalid", "infer", "iris", [x(client, name="Z")])
    assert "'Z'" in text and "X" in text


def test_an_input_too_many(client):
    text = refused(client, "invalid", "infer", "iris", [x(client), x(client, name="Z")])
    assert "'Z'" in text


def test_the_same_input_twice(client):
    text = refused(client, "invalid", "infer", "iris", [x(client), x(client)])
    assert "'X'" in text and "twice" in text


def test_a_missing_input(client):
    metadata = client.describe("get_model_metadata", "two_inputs")
    first, second = (tensor["name"] for tensor in metadata["inputs"])
    shape = [abs(int(size)) for size in metadata["inputs"][0]["shape"]]
    text = refused(client, "invalid", "infer", "two_inputs", [x(client, shape, name=first)])
    assert f"'{second}'" in text and "FP32" in text


def test_no_input_at_all(client):
    text = refused(client, "invalid", "infer", "iris", [])
    assert "'X'" in text or "inputs" in text


def test_an_unknown_output(client):
    text = refused(client, "invalid", "infer", "iris", [x(client)], outputs=[client.output("logits")])
    assert "'logits'" in text and "probabilities" in text


def test_the_same_output_twice(client):
    text = refused(client, "invalid", "infer", "iris", [x(client)], outputs=[client.output("label"), client.output("label")])
    assert "'label'" in text and "twice" in text


def test_inputs_whose_rows_differ(client):
    metadata = client.describe("get_model_metadata", "two_inputs")
    names = [tensor["name"] for tensor in metadata["inputs"]]
    columns = [abs(int(tensor["shape"][1])) for tensor in metadata["inputs"]]
    inputs = [x(client, (rows, size), name=name) for rows, size, name in zip((1, 2), columns, names, strict=True)]
    refused(client, "invalid", "infer", "two_inputs", inputs)


def test_a_value_that_the_model_refuses_is_the_callers_mistake(client):
    """`sequence` looks its tokens up in a table of 16: the model itself fails on token 99."""
    tokens = client.input(*sequence_input(client), np.full((1, 3), 99, np.int64))
    with pytest.raises(InferenceServerException) as failure:
        client.call("infer", "sequence", [tokens])
    assert failure.value.message()
    good = client.input(*sequence_input(client), np.full((1, 3), 1, np.int64))
    assert client.call("infer", "sequence", [good]) is not None


def sequence_input(client):
    (tensor,) = client.describe("get_model_metadata", "sequence")["inputs"]
    return tensor["name"], tensor["datatype"]


def test_a_callers_bad_neighbour_does_not_matter(server, client):
    """A request that the model fails on is answered alone: others that may share its batch are not harmed."""
    import concurrent.futures

    from clients import Client

    name, datatype = sequence_input(client)

    def ask(number):
        own = Client("grpc" if number % 2 else "http", server)
        try:
            token = 99 if number % 3 == 0 else number % 16
            own.call("infer", "sequence", [own.input(name, datatype, np.full((1, 3), token, np.int64))])
            return token != 99
        except InferenceServerException:
            return token == 99
        finally:
            own.close()

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert all(pool.map(ask, range(24)))


@pytest.mark.parametrize("timeout", [-1])
def test_a_timeout_that_is_none(client, timeout):
    text = refused(client, "invalid", "infer", "iris", [x(client)], timeout=timeout)
    assert "timeout" in text


def test_shared_memory_is_refused_rather_than_ignored(client):
    tensor = client.module.InferInput("X", [1, 4], "FP32")
    tensor.set_shared_memory("region", 16)
    with pytest.raises(InferenceServerException, match="shared memory") as failure:
        client.call("infer", "iris", [tensor])
    assert failure.value.status() in ("400", "StatusCode.UNIMPLEMENTED", "StatusCode.INVALID_ARGUMENT")


@pytest.mark.parametrize("method", ["load_model", "unload_model"])
def test_repository_control_of_an_unknown_model(client, method):
    text = refused(client, "unknown", method, "no_such_model")
    assert text.startswith("Request for unknown model") and "'no_such_model'" in text
    assert client.call("is_model_ready", "iris")


@pytest.mark.parametrize("method", ["get_trace_settings", "get_log_settings", "get_system_shared_memory_status"])
def test_extensions_that_are_not_offered(client, method):
    with pytest.raises(InferenceServerException) as failure:
        client.call(method)
    assert failure.value.status() in ("404", "405", "501", "StatusCode.UNIMPLEMENTED"), failure.value
