"""Requests over HTTP that are wrong on purpose. Each gets a 4xx in the contract's own form, and the server goes on.

That the server goes on is checked after every test, by `server_goes_on` in conftest.py.
"""

import gzip
import json
import os
import time
import zlib

import pytest
from conftest import IRIS, answered
from serving import Reader, request

INFER = "/v2/models/iris/infer"


def tensor(**fields):
    """Returns a request for `iris` with some fields of its input replaced; None leaves a field out."""
    whole = {"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [5.1, 3.5, 1.4, 0.2], **fields}
    return {"inputs": [{key: value for key, value in whole.items() if value is not None}]}


def refused(answer, *expected):
    """Checks a failure's status and form, and returns its text."""
    assert answer is not None, "the connection was closed without an answer"
    assert answer.status in (expected or (400,)), answer
    assert answer.headers["content-type"] == "application/json"
    return answer.error()


MALFORMED = {
    "nothing": b"",
    "blank": b" \n",
    "cut short": b'{"inputs":[{"name":"X","da',
    "one brace": b"{",
    "trailing comma": b'{"inputs":[],}',
    "single quotes": b"{'inputs':[]}",
    "two objects": json.dumps(IRIS).encode() * 2,
    "rubbish behind": json.dumps(IRIS).encode() + b"x",
    "not JSON": b"hello",
    "a number": b"1",
    "a string": b'"inputs"',
    "null": b"null",
    "a list": b"[]",
    "a comment": b'{/* */"inputs":[]}',
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(IRIS).encode(),
    "UTF-16": json.dumps(IRIS).encode("utf-16"),
    "not UTF-8": b'{"inputs":[{"name":"\xff","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}',
    "not UTF-8 in a skipped field": b'{"skipped":"\xc3\x28"}',
    "half a surrogate": b'{"id":"\\ud800","inputs":[]}',
    "bad escape": b'{"id":"\\x41","inputs":[]}',
    "line feed in a string": b'{"id":"a\nb","inputs":[]}',
    "NUL": b"\x00",
    "random": os.urandom(2000),
    "gzip without saying so": gzip.compress(json.dumps(IRIS).encode()),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_what_is_not_json(server, body):
    refused(server.post(INFER, body))


DEEP = {
    "lists": b"[" * 100_000,
    "objects": b'{"a":' * 100_000,
    "closed lists": b"[" * 100_000 + b"]" * 100_000,
    "in a skipped field": b'{"skipped":' + b"[" * 100_000 + b"]" * 100_000 + b',"inputs":[]}',
    "in the data": b'{"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
    "in data before its type": b'{"inputs":[{"data":' + b"[" * 100_000 + b"]" * 100_000
    + b',"name":"X","datatype":"FP32","shape":[1,4]}]}',
    "in parameters": b'{"parameters":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b'},"inputs":[]}',
    "in the shape": b'{"inputs":[{"name":"X","shape":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
}


@pytest.mark.parametrize("body", DEEP.values(), ids=DEEP)
def test_deep_nesting(server, body):
    refused(server.post(INFER, body))


WRONG = {
    # name: (request, words that the text must hold)
    "no inputs": ({}, ["inputs"]),
    "inputs are null": ({"inputs": None}, ["inputs"]),
    "inputs are an object": ({"inputs": {"X": [1]}}, ["inputs"]),
    "an input is a number": ({"inputs": [1]}, ["inputs[0]"]),
    "no name": (tensor(name=None), ["name"]),
    "name is a number": (tensor(name=1), ["name"]),
    "name is empty": (tensor(name=""), ["name"]),
    "name is very long": (tensor(name="n" * 100_000), ["name"]),
    "no type": (tensor(datatype=None), ["datatype"]),
    "unknown type": (tensor(datatype="FP33"), ["'X'", "FP33"]),
    "type in lower case": (tensor(datatype="fp32"), ["'X'", "fp32"]),
    "no shape": (tensor(shape=None), ["shape"]),
    "shape is a number": (tensor(shape=4), ["shape"]),
    "shape of strings": (tensor(shape=["1", "4"]), ["shape"]),
    "shape of floats": (tensor(shape=[1.0, 4.0]), ["shape"]),
    "negative dimension": (tensor(shape=[-1, 4]), ["'X'", "-1"]),
    "two negative dimensions": (tensor(shape=[-1, -4]), ["'X'", "-1"]),
    "dimension beyond 64 bits": (tensor(shape=[2**64, 4]), ["shape"]),
    "dimension beyond all bits": (tensor(shape=[10**400, 4]), ["shape"]),
    "huge shape": (tensor(shape=[2**62, 4]), ["'X'"]),
    "product wraps to 4": (tensor(shape=[2**62 + 1, 4]), ["'X'"]),
    "product wraps to 0": (tensor(shape=[2**32, 2**32]), ["'X'"]),
    "huge and empty": (tensor(shape=[2**62, 2**62, 0], data=[]), ["'X'"]),
    "terabytes promised": (tensor(shape=[2**40, 4]), ["'X'"]),
    "very many dimensions": (tensor(shape=[1] * 10_000), ["dimensions"]),
    "no data": (tensor(data=None), ["'X'", "data"]),
    "data is null": ({"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": None}]}, ["'X'"]),
    "data is an object": (tensor(data={"0": 1}), ["'X'"]),
    "data is a string": (tensor(data="1234"), ["'X'"]),
    "too little data": (tensor(data=[1, 2, 3]), ["'X'", "4", "3"]),
    "too much data": (tensor(data=[1, 2, 3, 4, 5]), ["'X'", "4", "5"]),
    "no element": (tensor(data=[]), ["'X'"]),
    "ragged": (tensor(shape=[2, 2], data=[[1, 2], [3]]), ["'X'"]),
    "transposed": (tensor(shape=[1, 4], data=[[1], [2], [3], [4]]), ["'X'"]),
    "nested too deep": (tensor(data=[[[1, 2, 3, 4]]]), ["'X'"]),
    "half nested": (tensor(shape=[2, 2], data=[[1, 2], 3, 4]), ["'X'"]),
    "null element": (tensor(data=[1, 2, 3, None]), ["'X'", "null"]),
    "string element": (tensor(data=[1, 2, 3, "4"]), ["'X'", "element 3"]),
    "boolean element": (tensor(data=[1, 2, 3, True]), ["'X'", "element 3"]),
    "data and binary data": (tensor(parameters={"binary_data_size": 16}), ["'X'", "binary_data_size"]),
    "id is a number": ({**IRIS, "id": 1}, ["id"]),
    "parameters are a list": ({**IRIS, "parameters": []}, ["parameters"]),
    "a parameter is an object": ({**IRIS, "parameters": {"a": {}}}, ["parameters"]),
    "timeout is text": ({**IRIS, "parameters": {"timeout": "soon"}}, ["timeout"]),
    "outputs are an object": ({**IRIS, "outputs": {}}, ["outputs"]),
    "an output without a name": ({**IRIS, "outputs": [{}]}, ["outputs[0]"]),
    "no classes": ({**IRIS, "outputs": [{"name": "probabilities", "parameters": {"classification": 0}}]}, ["classification"]),
    "binary_data is text": ({**IRIS, "outputs": [{"name": "label", "parameters": {"binary_data": "yes"}}]}, ["binary_data"]),
    "very many inputs": ({"inputs": IRIS["inputs"] * 5000}, ["inputs"]),
    "very many outputs": ({**IRIS, "outputs": [{"name": "label"}] * 5000}, ["outputs"]),
}


@pytest.mark.parametrize(("body", "words"), WRONG.values(), ids=WRONG)
def test_what_is_json_and_no_request(server, body, words):
    text = refused(server.post(INFER, body))
    for word in words:
        assert word in text
    assert len(text) < 2000, "the text does not repeat what it was sent at length"


TWICE = {
    "inputs": b'{"inputs":[],"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}',
    "name": b'{"inputs":[{"name":"X","name":"X","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}',
    "datatype": b'{"inputs":[{"name":"X","datatype":"FP32","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}',
    "shape": b'{"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"shape":[1,4],"data":[1,2,3,4]}]}',
    "data": b'{"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"data":[1,2,3,4],"data":[1,2,3,4]}]}',
    "id": b'{"id":"a","id":"b","inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}',
    "parameters": b'{"parameters":{},"parameters":{},"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}',
}


@pytest.mark.parametrize(("field", "body"), TWICE.items(), ids=TWICE)
def test_fields_that_are_given_twice(server, field, body):
    text = refused(server.post(INFER, body))
    assert field in text and "twice" in text


@pytest.mark.parametrize(
    ("datatype", "element"),
    [
        ("INT8", "128"), ("INT8", "-129"), ("UINT8", "256"), ("UINT8", "-1"), ("INT16", "32768"), ("UINT16", "65536"),
        ("INT32", "2147483648"), ("UINT32", "4294967296"), ("INT64", "9223372036854775808"), ("UINT64", "18446744073709551616"),
        ("UINT64", "-1"), ("INT64", "1" * 5000), ("INT32", "1.5"), ("INT32", "1e10"), ("INT32", "NaN"), ("INT32", "true"),
        ("FP16", "65520"), ("FP32", "1e39"), ("FP64", "1e999"), ("BF16", "3.5e38"), ("FP32", '"1"'), ("BOOL", "2"),
        ("BOOL", '"true"'), ("BYTES", "1"), ("BYTES", "null"), ("FP32", "01"), ("FP32", "+1"), ("FP32", ".5"), ("FP32", "1."),
        ("FP32", "nan"), ("FP32", "--1"), ("FP32", "0x10"),
    ],
)
def test_elements_that_do_not_fit_their_type(server, datatype, element):
    body = '{"inputs":[{"name":"x","datatype":"%s","shape":[1,1],"data":[%s]}]}' % (datatype, element)
    refused(server.infer(f"identity_{datatype.lower()}", body))


def binary(head, tail, header=None):
    """Returns a body of JSON and binary data, and its header."""
    head = head if isinstance(head, bytes) else json.dumps(head).encode()
    return head + tail, {"Inference-Header-Content-Length": str(len(head) if header is None else header)}


def binary_iris(size):
    return tensor(data=None, parameters={"binary_data_size": size})


@pytest.mark.parametrize(
    "header", ["100000", "-1", "-9223372036854775808", "18446744073709551615", "99999999999999999999999", "x", "", "1.5", "0x10", "1 2"]
)
def test_a_header_length_that_lies(server, header):
    body, headers = binary(binary_iris(16), bytes(16), header)
    text = refused(server.post(INFER, body, headers))
    assert "inference-header-content-length" in text.lower()


@pytest.mark.parametrize("header", [0, 1, 10])
def test_a_header_length_that_cuts_the_json(server, header):
    body, headers = binary(binary_iris(16), bytes(16), header)
    refused(server.post(INFER, body, headers))


def test_a_header_length_given_twice(server):
    body, headers = binary(binary_iris(16), bytes(16))
    length = headers["Inference-Header-Content-Length"]
    payload = request("POST", INFER, body, headers)
    payload = payload.replace(b"\r\n\r\n", f"\r\nInference-Header-Content-Length: {length}1\r\n\r\n".encode(), 1)
    refused(server.exchange(payload))


BINARY = {
    # name: (binary_data_size, bytes that follow, words that the text must hold)
    "more is declared than sent": (17, 16, ["'X'"]),
    "less is declared than sent": (12, 16, ["'X'"]),
    "right, with bytes left over": (16, 20, ["left over"]),
    "nothing is sent": (16, 0, ["'X'"]),
    "negative": (-1, 16, ["'X'", "-1"]),
    "very negative": (-(2**63), 16, ["'X'"]),
    "huge": (2**63 - 1, 16, ["'X'"]),
    "beyond 64 bits": (2**64 + 16, 16, ["binary_data_size"]),
    "a string": ("16", 16, ["binary_data_size"]),
    "a float": (16.0, 16, ["binary_data_size"]),
    "null": (None, 16, []),
}


@pytest.mark.parametrize(("size", "sent", "words"), BINARY.values(), ids=BINARY)
def test_binary_sizes_that_lie(server, size, sent, words):
    text = refused(server.post(INFER, *binary(binary_iris(size), bytes(sent))))
    for word in words:
        assert word in text


def test_binary_data_without_the_header(server):
    text = refused(server.post(INFER, binary_iris(16)))
    assert "Inference-Header-Content-Length" in text


@pytest.mark.parametrize("shape", [[2**61, 1], [2**62, 4], [-1, 4], [1, -4], [2**32, 2**32]])
def test_binary_shapes_that_lie(server, shape):
    head = tensor(shape=shape, data=None, parameters={"binary_data_size": 16})
    assert "'X'" in refused(server.post(INFER, *binary(head, bytes(16))))


STRINGS = {
    "length beyond the data": b"\x05\x00\x00\x00abc",
    "length of 4 GiB": b"\xff\xff\xff\xffabc",
    "cut within the length": b"\x01\x00",
    "one too many": b"\x01\x00\x00\x00a\x01\x00\x00\x00b",
    "none at all": b"",
}


@pytest.mark.parametrize("data", STRINGS.values(), ids=STRINGS)
def test_binary_strings_that_lie(server, data):
    head = {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(data)}}]}
    assert "'x'" in refused(server.infer("identity_bytes", *binary(head, data)))


@pytest.mark.parametrize("byte", [2, 255])
def test_a_binary_bool_that_is_neither(server, byte):
    """Either refused, or taken as true; never carried into the engine as it is."""
    head = {"inputs": [{"name": "x", "datatype": "BOOL", "shape": [1, 1], "parameters": {"binary_data_size": 1}}]}
    answer = server.infer("identity_bool", *binary(head, bytes([byte])))
    assert answer.status in (200, 400), answer
    if answer.status == 200:
        assert answer.json()["outputs"][0]["data"] == [True]


@pytest.mark.parametrize("length", ["-1", "abc", "18446744073709551616", "1e3", "", "0x10", "10, 20"])
def test_a_content_length_that_is_none(server, length):
    payload = request("POST", INFER, IRIS, {"Content-Length": length})
    answer = server.exchange(payload)
    assert answer is None or answer.status in (400, 413), answer


def test_two_content_lengths(server):
    payload = request("POST", INFER, IRIS).replace(b"\r\n\r\n", b"\r\ncontent-length: 7\r\n\r\n", 1)
    answer = server.exchange(payload)
    assert answer is None or answer.status == 400, answer


def test_a_content_length_that_is_too_short(server):
    """What is left over is the start of another request, which it is not."""
    body = json.dumps(IRIS).encode()
    with server.connect() as stream:
        stream.sendall(request("POST", INFER, body, {"Content-Length": str(len(body) - 10), "Connection": None}))
        reader = Reader(stream)
        assert reader.answer().status == 400
        second = reader.answer()
        assert second is None or second.status == 400
        assert reader.closed()


def test_a_content_length_that_is_too_long(server):
    """The client closes its side before all has come: the body is cut short."""
    body = json.dumps(IRIS).encode()
    answer = server.exchange(request("POST", INFER, body, {"Content-Length": str(len(body) + 10)}), half_close=True)
    assert answer is None or answer.status == 400, answer


def test_a_client_that_is_gone_within_its_body(server):
    for _ in range(10):
        with server.connect() as stream:
            stream.sendall(request("POST", INFER, b"{", {"Content-Length": "1000000"}))


@pytest.mark.parametrize("chunk", [b"zz\r\nabc\r\n", b"-1\r\n\r\n", b"ffffffffffffffffff\r\nabc", b"3\r\nabcdef\r\n0\r\n\r\n"])
def test_chunks_that_lie(server, chunk):
    head = request("POST", INFER, headers={"Transfer-Encoding": "chunked"})
    answer = server.exchange(head + chunk, half_close=True)
    assert answer is None or answer.status == 400, answer


@pytest.mark.parametrize("length", [64 * 1024 + 1, 10**6, 10**12, 2**63 - 1])
def test_a_declared_length_beyond_the_limit(small_server, length):
    """Refused by what it says, before it is sent."""
    answer = small_server.exchange(request("POST", INFER, b"", {"Content-Length": str(length)}))
    assert "65536" in refused(answer, 413)


def test_a_body_beyond_the_limit(small_server):
    body = b" " * 65_536 + json.dumps(IRIS).encode()
    refused(small_server.post(INFER, body), 413)
    chunks = (b"8000\r\n" + b" " * 0x8000 + b"\r\n") * 3 + b"0\r\n\r\n"
    refused(small_server.exchange(request("POST", INFER, headers={"Transfer-Encoding": "chunked"}) + chunks), 413)
    exact = json.dumps(IRIS).encode().ljust(65_536)
    assert small_server.post(INFER, exact).status == 200


@pytest.mark.parametrize(("coding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_body_that_grows_beyond_the_limit(small_server, coding, encode):
    bomb = encode(b" " * 20_000_000)
    assert len(bomb) < 65_536
    refused(small_server.post(INFER, bomb, {"Content-Encoding": coding}), 413)


GOOD = gzip.compress(json.dumps(IRIS).encode())


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("gzip", b"not gzip", 400),
        ("gzip", GOOD[:-6], 400),
        ("gzip", GOOD[:15], 400),
        ("gzip", GOOD[:-8] + b"\x00" * 8, 400),
        ("gzip", b"", 400),
        ("deflate", b"\x00", 400),
        ("zstd", b"\x28\xb5\x2f\xfd", 400),
        ("br", b"x", 415),
        ("nonsense", b"x", 415),
    ],
)
def test_damaged_compression(server, coding, body, status):
    refused(server.post(INFER, body, {"Content-Encoding": coding}), status)


def test_a_head_that_is_too_large(server):
    answer = server.exchange(request("GET", "/v2/health/live", headers={"X-Large": "x" * 1_000_000}))
    assert answer.status == 431, answer


def test_too_many_headers(server):
    answer = server.exchange(request("GET", "/v2/health/live", headers={f"X-{n}": "y" for n in range(1000)}))
    assert answer.status == 431, answer


def test_a_path_that_is_too_long(server):
    answer = server.exchange(request("GET", "/" + "x" * 1_000_000))
    assert answer.status in (414, 431), answer


HEADS = {
    "rubbish": b"\x00\x01\x02\x03\r\n\r\n",
    "random": bytes(range(128, 256)) * 8 + b"\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "HTTP/0.9": b"GET /v2/health/live\r\n\r\n",
    "HTTP/3.0": b"GET /v2/health/live HTTP/3.0\r\nhost: a\r\n\r\n",
    "space in a header": b"GET /v2/health/live HTTP/1.1\r\nho st: a\r\n\r\n",
    "NUL in a header": b"GET /v2/health/live HTTP/1.1\r\nhost: a\x00b\r\n\r\n",
    "folded header": b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\n b\r\n\r\n",
    "no path": b"GET  HTTP/1.1\r\nhost: a\r\n\r\n",
    "chunked, but not at the end": b"POST /v2/models/iris/infer HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("payload", HEADS.values(), ids=HEADS)
def test_what_is_not_http(server, payload):
    with server.connect() as stream:
        stream.sendall(payload)
        answer = Reader(stream).answer()
    assert answer is None or answer.status in (400, 501, 505), answer


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", INFER, "POST"),
        ("PUT", INFER, "POST"),
        ("DELETE", "/v2/models/iris", "GET"),
        ("POST", "/v2/health/ready", "GET"),
        ("POST", "/v2", "GET"),
        ("GET", "/v2/repository/index", "POST"),
        ("TRACE", INFER, "POST"),
        ("FROBNICATE", INFER, "POST"),
    ],
)
def test_the_wrong_method(server, method, path, allowed):
    answer = server.exchange(request(method, path, b""))
    refused(answer, 405)
    assert allowed in answer.headers["allow"]


@pytest.mark.parametrize(
    "path",
    ["/v2/nothing", "/v2/models", "/v2/models/", "/v2/models/iris/", "/v2/models/iris/nothing", "/v2/models/iris/versions",
     "/v2/models/iris/infer/more", "/v3", "//v2", "/V2/health/live", "/v2/models//infer"],
)
def test_paths_that_lead_nowhere(server, path):
    refused(server.get(path), 404, 405)


TRAVERSAL = [
    "..", "%2e%2e", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%2f..%2fetc%2fpasswd", "..%5c..%5cetc", "iris%2f..%2firis", "%2fetc%2fpasswd",
    "%00", "iris%00", "iris%00.onnx", "%ff%fe", "%", "%zz", "%2", "iris%20", "%c0%ae%c0%ae", "a" * 10_000, ".", "iris;x=1", "~root", "$HOME",
]


@pytest.mark.parametrize("name", TRAVERSAL)
def test_names_that_climb_out(server, name):
    for path in (f"/v2/models/{name}", f"/v2/models/{name}/ready", f"/v2/models/{name}/config"):
        answer = server.get(path)
        assert answer.status in (400, 404), answer
        assert b"root:" not in answer.body
    answer = server.post(f"/v2/models/{name}/infer", IRIS)
    assert answer.status in (400, 404), answer


@pytest.mark.parametrize("path", ["/../../../../etc/passwd", "/v2/models/../../../etc/passwd", "/v2/../v2/../../etc/passwd"])
def test_paths_that_climb_out(server, path):
    answer = server.get(path)
    assert answer.status in (400, 404), answer
    assert b"root:" not in answer.body


@pytest.mark.parametrize("version", ["abc", "-1", "1.0", "%31x", "99999999999999999999", "..", "%2e%2e"])
def test_versions_that_are_none(server, version):
    refused(server.post(f"/v2/models/iris/versions/{version}/infer", IRIS), 400, 404)


@pytest.mark.parametrize("value", ["0", "-1", "soon", "1.5", "99999999999999999999999"])
def test_a_timeout_header_that_is_none(server, value):
    assert "x-request-timeout-ms" in refused(server.post(INFER, IRIS, {"X-Request-Timeout-Ms": value}))


@pytest.mark.parametrize("value", ["", "00", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 5000, "ff-1-1-1"])
def test_a_damaged_trace_is_ignored(server, value):
    assert server.post(INFER, IRIS, {"Traceparent": value}).status == 200


@pytest.mark.parametrize("value", ["", "x" * 10_000, "a b", "\xe9", "<script>"])
def test_a_request_id_that_is_none_is_replaced(server, value):
    answer = server.post(INFER, IRIS, {"X-Request-Id": value})
    assert answer.status == 200
    assert answer.headers["x-request-id"] not in ("", value)


def test_many_hostile_requests_at_once(server):
    """Connections that each send half a request do not keep others out."""
    streams = []
    try:
        for number in range(200):
            stream = server.connect()
            stream.sendall(request("POST", INFER, IRIS)[: 20 + number])
            streams.append(stream)
        started = time.monotonic()
        assert server.infer("iris", IRIS).status == 200
        assert time.monotonic() - started < 5
    finally:
        for stream in streams:
            stream.close()


def test_more_connections_than_allowed(small_server):
    """Those beyond the limit wait; they are served once others leave."""
    streams = [small_server.connect() for _ in range(64)]
    for stream in streams:
        stream.sendall(request("POST", INFER, IRIS, {"Connection": None}))
    for stream in streams:
        assert Reader(stream).answer().status == 200
    with small_server.connect() as late:
        late.sendall(request("POST", INFER, IRIS))
        time.sleep(0.1)
        assert not answered(late), "beyond the limit"
        streams.pop().close()
        assert Reader(late).answer().status == 200
    for stream in streams:
        stream.close()
