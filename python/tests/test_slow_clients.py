"""Clients that send a byte now and then to hold a connection open, against a server that has little patience."""

import socket
import time

import pytest
from conftest import IRIS
from serving import PATIENCE, Reader, Server, request, wait_until
from test_hostile_grpc import PREFACE, SETTINGS, call_head, frame, frame_kinds

# What the server gives, in seconds. Between two bytes a client lets less pass than any of them.
HEAD_TIME = 0.6
BODY_TIME = 1.0
IDLE_TIME = 1.5
PAUSE = 0.1

# The server looks at the clock now and then, and the machine may be busy.
TOLERANCE = 5


@pytest.fixture(scope="module")
def hasty(models, tmp_path_factory):
    """A server that soon gives a slow client up."""
    log = tmp_path_factory.mktemp("hasty") / "log"
    limits = {"--head-timeout": HEAD_TIME, "--body-timeout": BODY_TIME, "--idle-timeout": IDLE_TIME}
    flags = [part for flag, seconds in limits.items() for part in (flag, f"{int(seconds * 1000)}ms")]
    with Server(models / "iris", log, *flags) as server:
        yield server


def trickle(server, start, port=None):
    """Sends the start of a request and then a byte now and then; returns how long that went well, and what came back."""
    began, received = time.monotonic(), b""
    with server.connect(port) as stream:
        stream.settimeout(PAUSE)
        try:
            stream.sendall(start)
            while True:
                assert time.monotonic() - began < PATIENCE, "a slow client is still connected"
                try:
                    piece = stream.recv(65536)
                except TimeoutError:
                    stream.sendall(b"x")
                    continue
                if not piece:
                    break
                received += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
    return time.monotonic() - began, received


def test_a_head_that_trickles(hasty):
    lasted, received = trickle(hasty, b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\nx-slow: ")
    assert HEAD_TIME <= lasted <= HEAD_TIME + TOLERANCE
    assert received == b""


def test_a_body_that_trickles(hasty):
    start = request("POST", "/v2/models/iris/infer", b"{", {"Content-Length": "100000"})
    lasted, received = trickle(hasty, start)
    assert BODY_TIME <= lasted <= BODY_TIME + TOLERANCE
    assert received.startswith(b"HTTP/1.1 408")
    assert b'{"error":' in received


def test_a_grpc_connection_that_trickles(hasty):
    lasted, received = trickle(hasty, b"PRI * HTTP/2.0\r\n", hasty.grpc_port)
    # The first bytes of HTTP/2 are few: a byte at a time they may all have come, and are then wrong.
    assert lasted <= HEAD_TIME + TOLERANCE
    assert len(received) < 200


def test_a_grpc_message_that_trickles(hasty):
    """A whole call by hand whose message never ends; no client writes one so."""
    began, received = time.monotonic(), b""
    with hasty.connect(hasty.grpc_port) as stream:
        stream.sendall(PREFACE + SETTINGS + frame(1, 4, 1, call_head()) + frame(0, 0, 1, b"\x00\x00\x01\x00\x00"))
        stream.settimeout(PAUSE)
        # A frame of type 1 (headers) is the answer.
        while 1 not in frame_kinds(received):
            assert time.monotonic() - began < PATIENCE, "a slow call is still open"
            try:
                piece = stream.recv(65536)
                assert piece, "the connection was closed without an answer"
                received += piece
            except TimeoutError:
                stream.sendall(frame(0, 0, 1, b"x"))
    assert BODY_TIME <= time.monotonic() - began <= BODY_TIME + TOLERANCE


def test_a_connection_that_is_left_open(hasty):
    began = time.monotonic()
    with hasty.connect() as stream:
        stream.sendall(request("POST", "/v2/models/iris/infer", IRIS, {"Connection": None}))
        reader = Reader(stream)
        assert reader.answer().status == 200
        assert reader.closed()
    assert IDLE_TIME <= time.monotonic() - began <= IDLE_TIME + TOLERANCE


def test_an_answer_that_nobody_reads(hasty):
    """More answers than the buffers of both sockets hold, and none is read."""
    many = request("GET", "/metrics", headers={"Connection": None}) * 50
    with hasty.connect() as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deadline = time.monotonic() + PATIENCE
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while time.monotonic() < deadline:
                stream.sendall(many)


def test_slow_clients_leave_no_trace(hasty):
    """All connections but the one that asks are closed."""
    wait_until(lambda: hasty.metric("outhaul_connections_open") == 1, "slow clients' connections to be closed")
