"""gRPC health and reflection, as their own client packages ask for them."""

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from serving import PATIENCE

INFERENCE = "inference.GRPCInferenceService"
Status = health_pb2.HealthCheckResponse


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


@pytest.mark.parametrize("name", ["", INFERENCE, "iris"])
def test_health(channel, name):
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE)
    assert answer.status == Status.SERVING


def test_health_of_what_does_not_exist(channel):
    with pytest.raises(grpc.RpcError) as failure:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=PATIENCE)
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND


def test_watching_health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=PATIENCE)
    assert next(watch).status == Status.SERVING
    watch.cancel()
    unknown = stub.Watch(health_pb2.HealthCheckRequest(service="nothing"), timeout=PATIENCE)
    assert next(unknown).status == Status.SERVICE_UNKNOWN
    unknown.cancel()


def test_reflection_lists_the_services(channel):
    services = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert {INFERENCE, "grpc.health.v1.Health"} <= services


def test_a_call_made_of_reflection_alone(channel):
    """A generic client knows nothing but what the server tells of its messages."""
    from google.protobuf.message_factory import GetMessageClass

    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    service = pool.FindServiceByName(INFERENCE)
    methods = {method.name: method for method in service.methods}
    assert {"ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer", "ModelStreamInfer",
            "ModelConfig", "ModelStatistics", "RepositoryIndex"} <= set(methods)
    method = methods["ModelMetadata"]
    request, answer = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    call = channel.unary_unary(f"/{INFERENCE}/{method.name}", request.SerializeToString, answer.FromString)
    metadata = call(request(name="iris"), timeout=PATIENCE)
    assert [tensor.name for tensor in metadata.inputs] == ["X"]
