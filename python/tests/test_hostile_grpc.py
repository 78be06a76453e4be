"""Calls over gRPC that are wrong on purpose. A caller's mistake is never INTERNAL or UNKNOWN, and the server goes on."""

import gzip
import os
import socket
import struct

import grpc
import numpy as np
import pytest
import reference
from serving import PATIENCE
from tritonclient.grpc import service_pb2, service_pb2_grpc

Code = grpc.StatusCode
SERVICE = "/inference.GRPCInferenceService/"


@pytest.fixture(scope="module")
def channel(server):
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(server.grpc, options) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel):
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def iris(raw=(struct.pack("<4f", 5.1, 3.5, 1.4, 0.2),), **fields):
    """Returns a request for `iris` with some fields of its input replaced."""
    tensor = {"name": "X", "datatype": "FP32", "shape": [1, 4], **fields}
    return service_pb2.ModelInferRequest(model_name="iris", inputs=[tensor], raw_input_contents=list(raw))


def refused(call, request, *codes):
    """Makes a call that must fail so, and returns the text."""
    with pytest.raises(grpc.RpcError) as failure:
        call(request, timeout=PATIENCE)
    assert failure.value.code() in (codes or (Code.INVALID_ARGUMENT,)), failure.value
    assert failure.value.details()
    return failure.value.details()


def test_the_request_that_the_others_are_made_from(stub):
    answer = stub.ModelInfer(iris(), timeout=PATIENCE)
    assert [output.name for output in answer.outputs] == ["label", "probabilities"]
    assert answer.raw_output_contents[0] == struct.pack("<q", 0)


RAW = {
    # name: (raw entries, fields of the input, words that the text must hold)
    "too short": ([bytes(12)], {}, ["'X'", "16", "12"]),
    "too long": ([bytes(20)], {}, ["'X'", "16", "20"]),
    "not a whole element": ([bytes(15)], {}, ["'X'"]),
    "empty": ([b""], {}, ["'X'"]),
    "missing": ([], {}, ["'X'"]),
    "one too many": ([bytes(16), bytes(16)], {}, ["raw_input_contents"]),
    "very many": ([b""] * 10_000, {}, ["raw_input_contents"]),
    "negative dimension": ([bytes(16)], {"shape": [-1, 4]}, ["'X'", "-1"]),
    "least dimension": ([bytes(16)], {"shape": [-(2**63), 4]}, ["'X'"]),
    "huge dimension": ([bytes(16)], {"shape": [2**63 - 1, 4]}, ["'X'"]),
    "product wraps to 16 bytes": ([bytes(16)], {"shape": [2**62 + 1, 4]}, ["'X'"]),
    "product wraps to 0": ([b""], {"shape": [2**32, 2**32]}, ["'X'"]),
    "bytes wrap": ([bytes(16)], {"shape": [2**62, 1]}, ["'X'"]),
    "very many dimensions": ([bytes(4)], {"shape": [1] * 10_000}, ["'X'", "dimensions"]),
    "unknown type": ([bytes(16)], {"datatype": "FP33"}, ["'X'", "FP33"]),
    "no type": ([bytes(16)], {"datatype": ""}, ["'X'"]),
    "no name": ([bytes(16)], {"name": ""}, ["name"]),
    "type of another size": ([bytes(16)], {"datatype": "FP64"}, ["'X'"]),
    "strings where numbers belong": ([bytes(16)], {"datatype": "BYTES"}, ["'X'"]),
}


@pytest.mark.parametrize(("raw", "fields", "words"), RAW.values(), ids=RAW)
def test_raw_contents_that_lie(stub, raw, fields, words):
    text = refused(stub.ModelInfer, iris(raw, **fields))
    for word in words:
        assert word in text


STRINGS = {
    "length beyond the data": b"\x05\x00\x00\x00abc",
    "length of 4 GiB": b"\xff\xff\xff\xffabc",
    "cut within the length": b"\x01\x00",
    "one too many": b"\x01\x00\x00\x00a\x01\x00\x00\x00b",
    "none at all": b"",
}


@pytest.mark.parametrize("raw", STRINGS.values(), ids=STRINGS)
def test_raw_strings_that_lie(stub, raw):
    tensor = {"name": "x", "datatype": "BYTES", "shape": [1, 1]}
    request = service_pb2.ModelInferRequest(model_name="identity_bytes", inputs=[tensor], raw_input_contents=[raw])
    assert "'x'" in refused(stub.ModelInfer, request)


TYPED = {
    "BOOL": ("bool_contents", [True, False]),
    "UINT8": ("uint_contents", [0, 255]),
    "UINT16": ("uint_contents", [0, 65535]),
    "UINT32": ("uint_contents", [0, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 2**64 - 1]),
    "INT8": ("int_contents", [-128, 127]),
    "INT16": ("int_contents", [-32768, 32767]),
    "INT32": ("int_contents", [-(2**31), 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1]),
    "FP32": ("fp32_contents", [0.5, float("-inf")]),
    "FP64": ("fp64_contents", [1e300, -0.0]),
    "BYTES": ("bytes_contents", [b"\xff\x00", b""]),
}


def typed(datatype, field, values, shape=None):
    tensor = {"name": "x", "datatype": datatype, "shape": shape or [1, len(values)], "contents": {field: values}}
    return service_pb2.ModelInferRequest(model_name=f"identity_{datatype.lower()}", inputs=[tensor])


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents(stub, datatype):
    """Clients of KServe send these in place of raw bytes. The answer is raw all the same."""
    field, values = TYPED[datatype]
    answer = stub.ModelInfer(typed(datatype, field, values), timeout=PATIENCE)
    (raw,) = answer.raw_output_contents
    if datatype == "BYTES":
        assert raw == b"".join(struct.pack("<I", len(value)) + value for value in values)
    else:
        expected = np.array(values, reference.DTYPES[datatype])
        np.testing.assert_array_equal(np.frombuffer(raw, expected.dtype), expected)


@pytest.mark.parametrize(
    ("datatype", "field", "values", "shape"),
    [
        ("UINT8", "uint_contents", [256], None),
        ("INT8", "int_contents", [-129], None),
        ("INT16", "int_contents", [40000], None),
        ("FP32", "fp64_contents", [1.0], None),
        ("FP32", "int_contents", [1], None),
        ("BYTES", "fp32_contents", [1.0], None),
        ("FP16", "fp32_contents", [1.0], None),
        ("BF16", "fp32_contents", [1.0], None),
        ("FP32", "fp32_contents", [1.0], [1, 2]),
        ("FP32", "fp32_contents", [1.0, 2.0], [1, 1]),
        ("FP32", "fp32_contents", [1.0], [-1, 1]),
        ("FP32", "fp32_contents", [1.0], [2**62, 4]),
    ],
)
def test_typed_contents_that_lie(stub, datatype, field, values, shape):
    assert "'x'" in refused(stub.ModelInfer, typed(datatype, field, values, shape))


def test_contents_in_two_fields(stub):
    request = typed("FP32", "fp32_contents", [1.0])
    request.inputs[0].contents.int_contents.append(1)
    assert "'x'" in refused(stub.ModelInfer, request)


def test_requests_that_name_nothing(stub):
    refused(stub.ModelInfer, service_pb2.ModelInferRequest())
    refused(stub.ModelInfer, service_pb2.ModelInferRequest(model_name="iris"))
    request = iris()
    request.model_version = "1 or so"
    assert "model_version" in refused(stub.ModelInfer, request)
    request = iris()
    request.outputs.add()
    refused(stub.ModelInfer, request)


def test_a_parameter_without_a_value(stub):
    request = iris()
    request.parameters["empty"].SetInParent()
    assert "empty" in refused(stub.ModelInfer, request)


def test_very_many_tensors(stub):
    request = iris()
    for _ in range(5000):
        request.inputs.add(name="X", datatype="FP32", shape=[0])
    assert "inputs" in refused(stub.ModelInfer, request)


MESSAGES = {
    "rubbish": b"\xff" * 100,
    "cut short": iris().SerializeToString()[:-5],
    "a length beyond the message": b"\x0a\xff\xff\xff\xff\x0f",
    "groups in groups": b"\xa3\x06" * 100_000,
    "not UTF-8 in a name": b"\x0a\x02\xff\xfe",
    "JSON": b'{"inputs":[]}',
    "random": os.urandom(1000),
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_bytes_that_are_no_message(channel, message):
    refused(channel.unary_unary(SERVICE + "ModelInfer"), message)


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_bytes_that_are_no_message_in_a_stream(channel, message):
    call = channel.stream_stream(SERVICE + "ModelStreamInfer")(iter([message]), timeout=PATIENCE)
    with pytest.raises(grpc.RpcError) as failure:
        next(call)
    assert failure.value.code() is Code.INVALID_ARGUMENT, failure.value


def test_a_message_beyond_the_limit(stub):
    data = bytes((64 << 20) + 4)
    request = iris([data], shape=[1, len(data) // 4])
    refused(stub.ModelInfer, request, Code.RESOURCE_EXHAUSTED, Code.OUT_OF_RANGE)


def test_a_message_that_grows_beyond_the_limit(channel, stub):
    data = bytes((64 << 20) + 4)
    request = iris([data], shape=[1, len(data) // 4])
    with pytest.raises(grpc.RpcError) as failure:
        stub.ModelInfer(request, timeout=PATIENCE, compression=grpc.Compression.Gzip)
    assert failure.value.code() in (Code.RESOURCE_EXHAUSTED, Code.OUT_OF_RANGE), failure.value


@pytest.mark.parametrize("path", [SERVICE + "Frobnicate", "/inference.NoService/ModelInfer", "/"])
def test_methods_that_do_not_exist(channel, path):
    with pytest.raises(grpc.RpcError) as failure:
        channel.unary_unary(path)(b"", timeout=PATIENCE)
    assert failure.value.code() is Code.UNIMPLEMENTED, failure.value


def test_metadata_that_is_too_large(stub):
    with pytest.raises(grpc.RpcError) as failure:
        stub.ModelInfer(iris(), timeout=PATIENCE, metadata=[("x-large", "x" * 200_000)])
    assert failure.value.code() is not Code.DEADLINE_EXCEEDED, failure.value


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """Returns a header, written without compression."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def call_head():
    """Returns the headers of a call."""
    head = b"\x83\x86" + literal(b":path", (SERVICE + "ModelInfer").encode()) + literal(b":authority", b"a")
    return head + literal(b"te", b"trailers") + literal(b"content-type", b"application/grpc")


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = frame(4, 0, 0, b"")

CONNECTIONS = {
    "HTTP/1.1": b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    "rubbish": bytes(range(256)) * 20,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "preface and rubbish": PREFACE + b"\xff" * 2000,
    "a frame of 16 MiB": PREFACE + SETTINGS + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
    "data on no stream": PREFACE + SETTINGS + frame(0, 0, 0, b"x"),
    "headers that are no HPACK": PREFACE + SETTINGS + frame(1, 5, 1, b"\xff" * 100),
    "settings of a wrong size": PREFACE + frame(4, 0, 0, b"x" * 5),
    "window that overflows": PREFACE + SETTINGS + frame(8, 0, 0, struct.pack(">I", 2**31 - 1)) * 3,
}


@pytest.mark.parametrize("payload", CONNECTIONS.values(), ids=CONNECTIONS)
def test_what_is_not_http_2(server, payload):
    with server.connect(server.grpc_port) as stream:
        stream.sendall(payload)
        stream.settimeout(PATIENCE)
        try:
            # Whatever the server says, it ends the connection.
            while stream.recv(65536):
                pass
        except ConnectionResetError:
            pass


def test_streams_that_are_opened_and_reset(server):
    """Many calls begun and given up at once ("rapid reset") do not keep others out."""
    head = b"\x83\x86\x41\x01a\x44\x01/"  # POST, http, authority a, path /
    with server.connect(server.grpc_port) as stream:
        stream.sendall(PREFACE + SETTINGS)
        try:
            for number in range(1, 4001, 2):
                stream.sendall(frame(1, 4, number, head) + frame(3, 0, number, struct.pack(">I", 8)))
        except (BrokenPipeError, ConnectionResetError):
            pass
    with socket.create_connection(("127.0.0.1", server.grpc_port), timeout=PATIENCE) as stream:
        stream.sendall(PREFACE + SETTINGS)
        assert stream.recv(9)[3] == 4, "the server's settings"


def test_a_compressed_message_that_is_damaged(server):
    """A whole HTTP/2 call by hand, because no client writes one so."""
    head = call_head() + literal(b"grpc-encoding", b"gzip")
    damaged = gzip.compress(iris().SerializeToString())[:-10]
    message = b"\x01" + struct.pack(">I", len(damaged)) + damaged
    with server.connect(server.grpc_port) as stream:
        stream.sendall(PREFACE + SETTINGS + frame(1, 4, 1, head) + frame(0, 1, 1, message))
        received = b""
        # A frame of type 1 (headers) on stream 1 is the answer.
        while not any(kind == 1 for kind in frame_kinds(received)):
            piece = stream.recv(65536)
            assert piece, "the connection was closed without an answer"
            received += piece


def frame_kinds(received):
    """Yields the types of the whole frames among the received bytes."""
    while len(received) >= 9:
        length = struct.unpack(">I", b"\x00" + received[:3])[0]
        if len(received) < 9 + length:
            return
        yield received[3]
        received = received[9 + length :]
