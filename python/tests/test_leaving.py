"""SIGTERM: requests in flight are answered, new connections are refused, and the exit code is 0."""

import os
import queue
import signal
import subprocess
import time

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from conftest import Slow
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving import PATIENCE, Reader, Server, request, wait_until


# A request that is to take seconds is as large as that takes on this machine: 63 MiB for five seconds on one of ours, where
# the default limit of 64 MiB refused it now and then.
ANY_SIZE = ("--max-body-bytes", "1GiB")


@pytest.fixture
def leaving(models, tmp_path):
    """A server of its own for each test that ends one."""
    server = Server(models / "slow", tmp_path / "log", "--drain-timeout", "20s", *ANY_SIZE)
    yield server
    server.kill()


def refuses(server, port):
    """Returns whether a new connection is refused."""
    try:
        with server.connect(port) as stream:
            # One that the operating system had accepted already is closed without an answer.
            stream.sendall(request("GET", "/v2/health/live"))
            return Reader(stream).answer() is None and None
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return None


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_requests_in_flight_are_answered(leaving, sign):
    slow = Slow(leaving)
    answers = queue.Queue()
    with triton_grpc.InferenceServerClient(leaving.grpc) as client:
        # One request runs, one waits over HTTP and one over gRPC.
        running, behind = slow.keep_busy(1.0)
        tensor = triton_grpc.InferInput("v0", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.zeros((1, 2), np.float32))
        client.async_infer("slow", [tensor], lambda result, error: answers.put((result, error)))
        wait_until(lambda: slow.waiting() == 2, "both to wait")
        leaving.process.send_signal(sign)
        wait_until(lambda: refuses(leaving, leaving.http_port), "HTTP connections to be refused")
        wait_until(lambda: refuses(leaving, leaving.grpc_port), "gRPC connections to be refused")
        assert leaving.process.poll() is None, "the server left before its requests were answered"
        for stream in (running, behind):
            with stream:
                assert Reader(stream).answer().status == 200
        result, error = answers.get(timeout=PATIENCE)
        assert error is None, error
        assert result.as_numpy(result.get_response().outputs[0].name).tolist() == [[1000.0, 1000.0]]
        assert leaving.process.wait(PATIENCE) == 0
    leaving.stop()


def test_idle_connections_do_not_hold_it_up(leaving):
    silent, silent_grpc = leaving.connect(), leaving.connect(leaving.grpc_port)
    kept = leaving.connect()
    kept.sendall(request("GET", "/v2/health/live", headers={"Connection": None}))
    reader = Reader(kept)
    assert reader.answer().status == 200
    channel = grpc.insecure_channel(leaving.grpc)
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    with triton_grpc.InferenceServerClient(leaving.grpc) as streaming:
        streaming.start_stream(lambda result, error: None)
        assert streaming.is_server_live()
        leaving.terminate()
        # Well before the drain's limit of 20 s.
        assert leaving.process.wait(5) == 0
    assert reader.closed()
    channel.close()
    for stream in (silent, silent_grpc, kept):
        stream.close()
    leaving.stop()


def test_half_a_head_does_not_hold_it_up(leaving):
    half = leaving.connect()
    half.sendall(b"GET /v2/health")
    preface = leaving.connect(leaving.grpc_port)
    preface.sendall(b"PRI * HTTP/2.0\r\n\r\nSM")
    wait_until(lambda: leaving.metric("outhaul_connections_open") >= 3, "the server to see them")
    leaving.terminate()
    # Well before the limit of a head and of the drain.
    assert leaving.process.wait(5) == 0
    half.close()
    preface.close()
    leaving.stop()


def test_half_a_request_holds_it_up_no_longer_than_the_limit(models, tmp_path):
    server = Server(models / "iris", tmp_path / "log", "--drain-timeout", "1s")
    try:
        head, body, grpc_preface = server.connect(), server.connect(), server.connect(server.grpc_port)
        head.sendall(b"GET /v2/health")
        body.sendall(request("POST", "/v2/models/iris/infer", b"{", {"Content-Length": "100"}))
        grpc_preface.sendall(b"PRI * HTTP/2.0\r\n\r\nSM")
        wait_until(lambda: server.metric("outhaul_connections_open") >= 3, "the server to see them")
        began = time.monotonic()
        server.terminate()
        assert server.process.wait(PATIENCE) == 0
        assert time.monotonic() - began < 4
        server.stop()
        for stream in (head, body, grpc_preface):
            stream.close()
    finally:
        server.kill()


def test_a_request_that_takes_too_long_does_not_hold_it_up_for_ever(models, tmp_path):
    server = Server(models / "slow", tmp_path / "log", "--drain-timeout", "200ms", *ANY_SIZE)
    try:
        slow = Slow(server)
        running, behind = slow.keep_busy(5.0)
        began = time.monotonic()
        server.terminate()
        code = server.process.wait(PATIENCE)
        assert time.monotonic() - began < 2.5, "the drain's limit does not hold"
        assert code >= 0, f"ended by signal {-code}"
        assert "panicked" not in server.log()
        for stream in (running, behind):
            stream.close()
    finally:
        server.kill()


def test_a_second_server_on_the_same_port_says_so(leaving, models, tmp_path):
    command = [os.environ["OUTHAUL_BINARY"], "serve", str(models / "iris"), "--http", leaving.http, "--grpc", "off"]
    second = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False, text=True)
    assert second.returncode not in (0, 101)
    assert leaving.http in second.stderr
    assert "panicked" not in second.stderr
    leaving.stop()
