"""HTTP without a client library: what a caller writes by hand, in a shell or in another language."""

import gzip
import http.client
import json
import math
import socket
import urllib.error
import urllib.request
import zlib

import numpy as np
import pytest
from conftest import IRIS
from reference import DTYPES, cases
from serving import PATIENCE, Reader, request

INFER = "/v2/models/iris/infer"


def test_without_a_content_type(server):
    connection = http.client.HTTPConnection(server.http, timeout=PATIENCE)
    connection.request("POST", INFER, body=json.dumps(IRIS))
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    body = json.load(answer)
    connection.close()
    assert body["model_name"] == "iris" and body["model_version"] == "1"
    label, probabilities = body["outputs"]
    assert label == {"name": "label", "datatype": "INT64", "shape": [1], "data": [0]}
    assert sum(probabilities["data"]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "application/x-www-form-urlencoded", "text/plain",
     "application/octet-stream", "nonsense"],
)
def test_the_body_decides_and_not_its_type(server, content_type):
    answer = server.post(INFER, IRIS, {"Content-Type": content_type})
    assert answer.status == 200, answer


def test_urllib(server):
    with urllib.request.urlopen(f"http://{server.http}{INFER}", json.dumps(IRIS).encode(), PATIENCE) as answer:
        assert json.load(answer)["outputs"][0]["data"] == [0]
    with pytest.raises(urllib.error.HTTPError) as failure:
        urllib.request.urlopen(f"http://{server.http}/v2/models/none/infer", json.dumps(IRIS).encode(), PATIENCE)
    assert failure.value.code == 404
    assert json.load(failure.value)["error"].startswith("Request for unknown model")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/iris/ready", {"name": "iris", "ready": True}),
        ("/v2/models/iris/versions/1/ready", {"name": "iris", "ready": True}),
    ],
)
def test_states_are_json_for_kserve(server, path, body):
    answer = server.get(path)
    assert answer.status == 200
    assert answer.json() == body


def test_a_request_as_kserve_writes_it(server):
    body = {
        "id": "e9b2c6f4",
        "inputs": [{"name": "X", "shape": [2, 4], "datatype": "FP32", "parameters": None,
                    "data": [[5.1, 3.5, 1.4, 0.2], [6.5, 3.2, 5.1, 2.0]]}],
        "outputs": None,
        "parameters": {},
    }
    answer = server.post(INFER, body, {"Content-Type": "application/json", "Accept": "*/*"})
    assert answer.status == 200, answer
    assert answer.json()["id"] == "e9b2c6f4"
    assert answer.json()["outputs"][0]["data"] == [0, 2]


def tensor(datatype, data, shape=None, **more):
    return {"inputs": [{"name": "x", "datatype": datatype, "shape": shape or [1, len(data)], "data": data, **more}]}


@pytest.mark.parametrize("datatype", sorted(DTYPES))
def test_every_type_as_json(server, datatype):
    for case in cases(f"identity_{datatype.lower()}"):
        (given,) = case.inputs
        as_text = datatype == "BYTES"
        data = [text.decode() if as_text else text for text in given.array.flatten().tolist()]
        answer = server.infer(f"identity_{datatype.lower()}", tensor(datatype, data, list(given.array.shape)))
        assert answer.status == 200, answer
        (output,) = answer.json()["outputs"]
        assert output["datatype"] == datatype
        assert output["shape"] == list(given.array.shape)
        # Floats are written in the shortest form of their own type.
        assert output["data"] == data if as_text else np.array(output["data"], given.array.dtype).tobytes() == given.array.tobytes()


def test_fields_in_any_order_and_data_before_its_type(server):
    body = ('{"outputs":[{"parameters":{"binary_data":false},"name":"y"}],"extra":{"a":[1,{}]},'
            '"inputs":[{"data":[[1,2],[3,4]],"shape":[2,2],"note":null,"datatype":"INT32","name":"x"}],"id":"7"}')
    answer = server.infer("identity_int32", body)
    assert answer.status == 200, answer
    assert answer.json()["id"] == "7"
    assert answer.json()["outputs"][0]["data"] == [1, 2, 3, 4]


def test_white_space_and_escapes(server):
    body = '\r\n\t { "inputs" : [ { "name" : "\\u0078" , "datatype" : "BYTES" , "shape" : [ 1 , 2 ] ,\n"data" : [ "\\ud83d\\ude00\\u0000" , "\\"\\\\" ] } ] } \n'
    answer = server.infer("identity_bytes", body)
    assert answer.status == 200, answer
    assert answer.json()["outputs"][0]["data"] == ["\U0001f600\x00", '"\\']


def test_scalars(server):
    for data in ("[21.0]", "21.0"):
        body = '{"inputs":[{"name":"x","datatype":"FP32","shape":[],"data":%s}]}' % data
        answer = server.infer("scalar", body)
        assert answer.status == 200, answer
        (output,) = answer.json()["outputs"]
        assert output["shape"] == [] and output["data"] == [43.0]


def test_what_json_has_no_number_for(server):
    for data in ("[NaN, Infinity, -Infinity]", '["NaN", "Infinity", "-Infinity"]'):
        body = '{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":%s}]}' % data
        answer = server.infer("identity_fp32", body)
        assert answer.status == 200, answer
        nan, inf, negative = answer.json()["outputs"][0]["data"]
        assert math.isnan(nan) and inf == math.inf and negative == -math.inf


def test_floats_come_back_in_their_shortest_form(server):
    answer = server.infer("identity_fp32", tensor("FP32", [0.1, 16777217, 1e-45, 3.4028234663852886e38]))
    assert answer.json()["outputs"][0]["data"] == [0.1, 16777216, 1e-45, 3.4028235e38]


def test_the_request_id_header(server):
    assert server.post(INFER, IRIS, {"X-Request-Id": "abc-123"}).headers["x-request-id"] == "abc-123"
    own = {server.post(INFER, IRIS).headers["x-request-id"] for _ in range(3)}
    assert len(own) == 3, "an id that nobody gave is made up, and each is another"
    failed = server.post("/v2/models/none/infer", IRIS, {"X-Request-Id": "abc-123"})
    assert failed.status == 404 and failed.headers["x-request-id"] == "abc-123"


BIG = tensor("FP32", [0.0] * 5000)


@pytest.mark.parametrize(
    ("coding", "decode"), [("gzip", gzip.decompress), ("zstd", None)]
)
def test_compressed_answers(server, coding, decode):
    answer = server.infer("identity_fp32", BIG, {"Accept-Encoding": coding})
    assert answer.status == 200
    assert answer.headers["content-encoding"] == coding
    if decode:
        assert json.loads(decode(answer.body))["outputs"][0]["data"] == [0.0] * 5000
    else:
        assert answer.body.startswith(b"\x28\xb5\x2f\xfd"), "the magic number of Zstandard"


@pytest.mark.parametrize("accepted", [None, "identity", "br", "deflate", "gzip;q=0", "*;q=0.1, gzip;q=0, deflate;q=0, zstd;q=0"])
def test_answers_that_must_not_be_compressed(server, accepted):
    answer = server.infer("identity_fp32", BIG, {"Accept-Encoding": accepted})
    assert answer.status == 200
    assert answer.headers.get("content-encoding", "identity") == "identity"
    assert answer.json()["outputs"][0]["data"] == [0.0] * 5000


@pytest.mark.parametrize(("coding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("GZIP", gzip.compress)])
def test_compressed_requests(server, coding, encode):
    answer = server.infer("identity_fp32", encode(json.dumps(BIG).encode()), {"Content-Encoding": coding})
    assert answer.status == 200, answer


def test_a_chunked_request(server):
    body = json.dumps(IRIS).encode()
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(body[at : at + 7]), body[at : at + 7]) for at in range(0, len(body), 7))
    head = request("POST", INFER, headers={"Transfer-Encoding": "chunked"})
    assert server.exchange(head + pieces + b"0\r\n\r\n").status == 200


def test_a_client_that_asks_before_it_sends(server):
    """`Expect: 100-continue`, as curl does with bodies of some size."""
    body = json.dumps(IRIS).encode()
    head = request("POST", INFER, headers={"Expect": "100-continue", "Content-Length": str(len(body))})
    with server.connect() as stream:
        stream.sendall(head)
        reader = Reader(stream)
        assert reader.answer().status == 100
        stream.sendall(body)
        assert reader.answer().status == 200


def test_one_connection_serves_many_requests(server):
    with server.connect() as stream:
        reader = Reader(stream)
        for _ in range(20):
            stream.sendall(request("POST", INFER, IRIS, {"Connection": None}))
            assert reader.answer().status == 200
        # A mistake does not cost the connection.
        stream.sendall(request("POST", INFER, "{", {"Connection": None}))
        assert reader.answer().status == 400
        stream.sendall(request("POST", INFER, IRIS, {"Connection": None}))
        assert reader.answer().status == 200


def test_requests_sent_without_waiting_are_answered_in_order(server):
    bodies = [tensor("INT32", [number], id=None) | {"id": str(number)} for number in range(30)]
    with server.connect() as stream:
        stream.sendall(b"".join(request("POST", "/v2/models/identity_int32/infer", body, {"Connection": None}) for body in bodies))
        reader = Reader(stream)
        for number in range(30):
            answer = reader.answer().json()
            assert answer["id"] == str(number)
            assert answer["outputs"][0]["data"] == [number]


def test_http_1_0(server):
    with server.connect() as stream:
        stream.sendall(request("POST", INFER, IRIS, version="HTTP/1.0"))
        reader = Reader(stream)
        assert reader.answer().status == 200
        assert reader.closed()


def test_http_2_without_asking(server):
    """The first bytes of HTTP/2: either it is spoken, or the connection ends; it is not left hanging."""
    with server.connect() as stream:
        stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        first = stream.recv(9)
        assert first == b"" or first[3] == 4 or first.startswith(b"HTTP/1.1 4")


def test_metrics(server):
    answer = server.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert server.metric("outhaul_request_duration_seconds_count", model="iris", outcome="ok") > 0
    assert b"no_such_model" not in answer.body, "callers make no series"


def test_a_connection_that_is_only_opened(server):
    for _ in range(20):
        with server.connect():
            pass
    with server.connect() as stream:
        stream.shutdown(socket.SHUT_WR)
        assert Reader(stream).closed()
