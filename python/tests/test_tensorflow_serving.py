"""TensorFlow Serving's gRPC services, asked by the official stubs of tensorflow-serving-api, unmodified.

scripts/tensorflow-stubs.sh fetches the stubs. The cases of testdata/conformance/tensorflow_grpc are data; its README says what the
fields mean.
"""

import asyncio
import json
import shutil
import subprocess
import sys
import threading

import grpc
import ml_dtypes
import numpy as np
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from reference import NAMES, cases
from serving import EXAMPLES, PATIENCE, PROJECT, TESTDATA, Server, make_repository
from test_conformance import holds

STUBS = subprocess.run(
    ["sh", str(PROJECT / "scripts" / "tensorflow-stubs.sh"), sys.executable], check=True, capture_output=True, text=True
).stdout.strip()
sys.path.insert(0, STUBS)

from tensorflow.core.example import example_pb2  # noqa: E402
from tensorflow.core.framework import tensor_pb2, types_pb2  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

FOLDER = TESTDATA / "conformance" / "tensorflow_grpc"
CASES = {
    f"{path.stem}: {case['name']}": case for path in sorted(FOLDER.glob("*.json")) for case in json.loads(path.read_text())
}
REQUESTS = {
    "Predict": predict_pb2.PredictRequest,
    "Classify": classification_pb2.ClassificationRequest,
    "Regress": regression_pb2.RegressionRequest,
    "MultiInference": inference_pb2.MultiInferenceRequest,
    "GetModelMetadata": get_model_metadata_pb2.GetModelMetadataRequest,
    "GetModelStatus": get_model_status_pb2.GetModelStatusRequest,
    "HandleReloadConfigRequest": model_management_pb2.ReloadConfigRequest,
}

# The type of each of numpy's, and the field where TensorFlow keeps its elements.
TYPES = {
    np.dtype(np.float32): ("DT_FLOAT", "float_val"),
    np.dtype(np.float64): ("DT_DOUBLE", "double_val"),
    np.dtype(np.float16): ("DT_HALF", "half_val"),
    np.dtype(ml_dtypes.bfloat16): ("DT_BFLOAT16", "half_val"),
    np.dtype(np.int8): ("DT_INT8", "int_val"),
    np.dtype(np.int16): ("DT_INT16", "int_val"),
    np.dtype(np.int32): ("DT_INT32", "int_val"),
    np.dtype(np.int64): ("DT_INT64", "int64_val"),
    np.dtype(np.uint8): ("DT_UINT8", "int_val"),
    np.dtype(np.uint16): ("DT_UINT16", "int_val"),
    np.dtype(np.uint32): ("DT_UINT32", "uint32_val"),
    np.dtype(np.uint64): ("DT_UINT64", "uint64_val"),
    np.dtype(np.bool_): ("DT_BOOL", "bool_val"),
    np.dtype(np.object_): ("DT_STRING", "string_val"),
}
OF_NUMBER = {types_pb2.DataType.Value(name): (dtype, field) for dtype, (name, field) in TYPES.items()}


def tensor_proto(array, content):
    """Does what tf.make_tensor_proto does: numbers as bytes where `content`, else in the field of their type."""
    name, field = TYPES[array.dtype]
    message = tensor_pb2.TensorProto(dtype=name)
    for size in array.shape:
        message.tensor_shape.dim.add(size=size)
    flat = array.reshape(-1)
    if field == "string_val":
        message.string_val.extend(flat.tolist())
    elif content:
        message.tensor_content = array.tobytes()
    elif field == "half_val":
        message.half_val.extend(flat.view(np.uint16).tolist())
    else:
        getattr(message, field).extend(flat.tolist())
    return message


def ndarray(message):
    """Does what tf.make_ndarray does."""
    dtype, field = OF_NUMBER[message.dtype]
    shape = [dim.size for dim in message.tensor_shape.dim]
    values = getattr(message, field)
    if field == "half_val":
        return np.array(values, np.uint16).view(dtype).reshape(shape)
    return np.array(list(values), dtype).reshape(shape)


class Stubs:
    """Both services on one channel."""

    def __init__(self, channel):
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(channel)

    def call(self, method, request, **options):
        """Calls a method of either service."""
        stub = getattr(self.prediction, method, None) or getattr(self.model, method)
        return stub(request, timeout=PATIENCE, **options)


SPECIES = """
[transform]
input = { kind = "rows", columns = ["sepal_length", "sepal_width", "petal_length", "petal_width"] }

[transform.output]
kind = "classification"
output = "probabilities"
activation = "none"
labels = ["setosa", "versicolor", "virginica"]
"""


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    """A server that also has the model of iris with its columns and classes declared."""
    home = tmp_path_factory.mktemp("tensorflow")
    models = make_repository(home / "models")
    shutil.copytree(EXAMPLES / "iris" / "1", models / "species" / "1")
    (models / "species" / "model.toml").write_text(SPECIES)
    with Server(models, home / "log") as serving:
        yield serving


@pytest.fixture(scope="module")
def channel(serving):
    with grpc.insecure_channel(serving.grpc) as channel:
        yield channel


@pytest.fixture(scope="module")
def stubs(channel):
    return Stubs(channel)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_case(stubs, case):
    request = json_format.ParseDict(case["request"], REQUESTS[case["method"]]())
    expected = case["expect"]
    try:
        answer = stubs.call(case["method"], request)
    except grpc.RpcError as error:
        assert error.code().name == expected["code"], error
        for text in expected["contains"]:
            assert text in error.details()
    else:
        assert expected["code"] == "OK", answer
        said = json_format.MessageToDict(answer, preserving_proto_field_name=True)
        assert holds(said, expected["json"]), json.dumps(said, indent=1)


def test_there_are_cases():
    assert len(CASES) > 50


@pytest.mark.parametrize("content", [True, False], ids=["content", "values"])
@pytest.mark.parametrize("model", [name for name in NAMES if (TESTDATA / "models" / f"{name}.onnx").exists()])
def test_the_models_answer_as_the_reference_says(stubs, model, content):
    """Every type, both ways of sending a tensor."""
    for case in cases(model):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = model
        for tensor in case.inputs:
            request.inputs[tensor.name].CopyFrom(tensor_proto(tensor.array, content))
        answer = stubs.prediction.Predict(request, timeout=PATIENCE)
        assert set(answer.outputs) == {output.name for output in case.outputs}
        for output in case.outputs:
            case.check(output, ndarray(answer.outputs[output.name]))


def species(rows=1):
    """Returns a request of so many rows of one flower."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "species"
    row = np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)
    request.inputs["X"].CopyFrom(tensor_proto(np.repeat(row, rows, axis=0), True))
    return request


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_calls(serving, compression):
    with grpc.insecure_channel(serving.grpc, compression=compression) as channel:
        answer = Stubs(channel).prediction.Predict(species(1000), timeout=PATIENCE)
    assert list(answer.outputs["label"].string_val) == [b"setosa"] * 1000


def test_the_callers_id_comes_back(stubs):
    _, call = stubs.prediction.Predict.with_call(species(), timeout=PATIENCE, metadata=[("x-request-id", "mine")])
    assert ("x-request-id", "mine") in call.initial_metadata()


def test_a_deadline_is_kept(server, slow):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "slow"
    request.inputs["v0"].CopyFrom(tensor_proto(slow.array(1), True))
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as failure:
        Stubs(channel).prediction.Predict(request, timeout=0.2)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_many_threads(stubs):
    """Calls at the same time are batched, and each gets its own answer."""
    failures = []

    def ask(rows):
        for _ in range(10):
            answer = stubs.prediction.Predict(species(rows), timeout=PATIENCE)
            if len(answer.outputs["label"].string_val) != rows:
                failures.append(rows)

    threads = [threading.Thread(target=ask, args=[rows]) for rows in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_an_asyncio_client(serving):
    async def ask():
        async with grpc.aio.insecure_channel(serving.grpc) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            return await asyncio.gather(*[stub.Predict(species(2), timeout=PATIENCE) for _ in range(20)])

    assert all(list(answer.outputs["label"].string_val) == [b"setosa"] * 2 for answer in asyncio.run(ask()))


def test_an_example_that_another_program_serialised(stubs):
    """Examples are stored as bytes; read back, they are sent as they are."""
    example = example_pb2.Example()
    values = {"sepal_length": 6.5, "sepal_width": 3.2, "petal_length": 5.1, "petal_width": 2.0}
    for name, value in values.items():
        example.features.feature[name].float_list.value.append(value)
    stored = example.SerializeToString()
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "species"
    request.input.example_list.examples.add().ParseFromString(stored)
    answer = stubs.prediction.Classify(request, timeout=PATIENCE)
    classes = answer.result.classifications[0].classes
    assert max(classes, key=lambda one: one.score).label == "virginica"


def test_calls_are_counted(serving, stubs):
    def count(outcome):
        return serving.metric("outhaul_call_duration_seconds_count", contract="tensorflow_grpc", outcome=outcome)

    answered = count("ok")
    stubs.prediction.Predict(species(), timeout=PATIENCE)
    refused = count("caller_error")
    with pytest.raises(grpc.RpcError):
        stubs.prediction.Predict(predict_pb2.PredictRequest(), timeout=PATIENCE)
    assert count("ok") == answered + 1
    assert count("caller_error") == refused + 1


@pytest.mark.parametrize("service", ["tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"])
def test_health_and_reflection_know_the_services(channel, service):
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert service in ProtoReflectionDescriptorDatabase(channel).get_services()


def test_our_definitions_agree_with_the_official_ones(channel):
    """Every message and field that reflection tells of has the official number, type and label."""
    ours = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    official = prediction_service_pb2.DESCRIPTOR.pool
    seen = set()

    def compare(mine):
        if mine.full_name in seen:
            return
        seen.add(mine.full_name)
        theirs = official.FindMessageTypeByName(mine.full_name)
        for field in mine.fields:
            other = theirs.fields_by_number.get(field.number)
            assert other is not None and other.name == field.name, f"{mine.full_name}.{field.name}"
            told = [(one.type, one.is_repeated, one.containing_oneof and one.containing_oneof.name) for one in (field, other)]
            assert told[0] == told[1], f"{mine.full_name}.{field.name}: {told}"
            if field.message_type:
                compare(field.message_type)
            if field.enum_type:
                names = field.enum_type.values_by_name
                for name, value in names.items():
                    assert other.enum_type.values_by_name[name].number == value.number

    for services in (prediction_service_pb2, model_service_pb2):
        ((_, service),) = services.DESCRIPTOR.services_by_name.items()
        mine = ours.FindServiceByName(service.full_name)
        theirs = {method.name: method for method in service.methods}
        assert {method.name for method in mine.methods} == set(theirs)
        for method in mine.methods:
            assert method.input_type.full_name == theirs[method.name].input_type.full_name
            compare(method.input_type)
            compare(method.output_type)
    compare(ours.FindMessageTypeByName("tensorflow.serving.SignatureDefMap"))
    assert len(seen) > 35
