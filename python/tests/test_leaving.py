"""SIGTERM: requests in flight are answered, new connections are refused, and the exit code is 0."""

import os
import queue
import signal
import subprocess

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from conftest import Slow
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving import PATIENCE, Reader, Server, request, wait_until


@pytest.fixture
def leaving(models, tmp_path):
    """A server of its own for each test that ends one."""
    server = Server(models / "slow", tmp_path / "log", "--drain-timeout", "20s")
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
    silent = leaving.connect()
    kept = leaving.connect()
    kept.sendall(request("GET", "/v2/health/live", headers={"Connection": None}))
    reader = Reader(kept)
    assert reader.answer().status == 200
    half = leaving.connect()
    half.sendall(b"GET /v2/health")
    channel = grpc.insecure_channel(leaving.grpc)
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    with triton_grpc.InferenceServerClient(leaving.grpc) as streaming:
        streaming.start_stream(lambda result, error: None)
        leaving.terminate()
        # Well before the drain's limit of 20 s.
        assert leaving.process.wait(10) == 0
    assert reader.closed()
    channel.close()
    for stream in (silent, kept, half):
        stream.close()
    leaving.stop()


def test_a_request_that_takes_too_long_does_not_hold_it_up_for_ever(models, tmp_path):
    server = Server(models / "slow", tmp_path / "log", "--drain-timeout", "200ms")
    try:
        slow = Slow(server)
        running, behind = slow.keep_busy(3.0)
        server.terminate()
        code = server.process.wait(PATIENCE)
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
