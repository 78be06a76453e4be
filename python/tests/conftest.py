"""One server for the whole session, and what tests ask of it."""

import json
import select
import time

import numpy as np
import pytest
from clients import MODULES, Client
from serving import PATIENCE, Server, make_repository, request


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A repository of models in a temporary folder."""
    return make_repository(tmp_path_factory.mktemp("repository") / "models")


@pytest.fixture(scope="session")
def server(models, tmp_path_factory):
    """The server that most tests share."""
    with Server(models, tmp_path_factory.mktemp("server") / "log") as server:
        yield server


@pytest.fixture(scope="session")
def small_server(models, tmp_path_factory):
    """A server with narrow limits, for tests that reach them."""
    log = tmp_path_factory.mktemp("small") / "log"
    with Server(models / "iris", log, "--max-body-bytes", "64KiB", "--max-connections", "64") as server:
        yield server


@pytest.fixture(scope="session", params=list(MODULES), name="client")
def any_client(request, server):
    """Each of the four clients in turn."""
    client = Client(request.param, server)
    yield client
    client.close()


@pytest.fixture(scope="session", params=["http", "http.aio"])
def http_client(request, server):
    """Each of the two HTTP clients in turn."""
    client = Client(request.param, server)
    yield client
    client.close()


@pytest.fixture(scope="session", params=["grpc", "grpc.aio"])
def grpc_client(request, server):
    """Each of the two gRPC clients in turn."""
    client = Client(request.param, server)
    yield client
    client.close()


IRIS = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [5.1, 3.5, 1.4, 0.2]}]}


@pytest.fixture(autouse=True)
def server_goes_on(server):
    """Whatever a test did, the server answers correctly after it."""
    yield
    assert server.process.poll() is None, f"the server left with {server.process.returncode}:\n{server.log()}"
    answer = server.infer("iris", IRIS)
    assert answer is not None and answer.status == 200, answer
    outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
    assert outputs["label"] == [0]


class Slow:
    """The model `slow`, whose one instance can be kept busy for about as long as a test asks."""

    def __init__(self, server):
        self.server = server
        # Requests that the last `keep_busy` sent in vain and that were answered.
        self.replaced = 0
        self.rows_per_second = 10_000 / self.seconds(10_000)
        # Once more with enough to measure well.
        rows = int(self.rows_per_second * 0.15)
        self.rows_per_second = rows / self.seconds(rows)

    def seconds(self, rows):
        """Returns how long the model computes a tensor of this size."""
        answer = self.server.exchange(self.payload(rows))
        assert answer.status == 200, answer
        length = int(answer.headers["inference-header-content-length"])
        return json.loads(answer.body[:length])["parameters"]["compute_us"] / 1e6

    def array(self, seconds):
        """Returns an input that takes about this long."""
        return np.zeros((max(int(self.rows_per_second * seconds), 1), 2), np.float32)

    def payload(self, rows, headers=(), parameters=None):
        """Returns the bytes of an HTTP request."""
        tensor = {"name": "v0", "datatype": "FP32", "shape": [rows, 2]}
        tensor["parameters"] = {"binary_data_size": 8 * rows}
        parameters = {"binary_data_output": True, **(parameters or {})}
        head = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
        body = head + bytes(8 * rows)
        headers = {"Inference-Header-Content-Length": str(len(head)), **dict(headers)}
        return request("POST", "/v2/models/slow/infer", body, headers)

    def send(self, seconds, headers=(), parameters=None):
        """Sends a request that takes about this long and returns its connection."""
        stream = self.server.connect()
        stream.sendall(self.payload(len(self.array(seconds)), headers, parameters))
        return stream

    def waiting(self):
        """Returns how many requests wait for the instance."""
        return self.server.metric("outhaul_queue_depth", model="slow")

    def keep_busy(self, seconds):
        """Returns two connections: the first one's request runs for about this long, the second one's waits behind it."""
        running = self.send(seconds)
        # Small and sent later, this may still come first and be answered; then another takes its place. Seen once, a request
        # that waits may be the large one behind the small one; that passes within a millisecond.
        behind, self.replaced, seen = self.send(0), 0, 0
        deadline = time.monotonic() + PATIENCE
        while seen < 4:
            assert time.monotonic() < deadline and not answered(running), "no request came to wait behind the running one"
            if answered(behind):
                behind.close()
                self.replaced += 1
                behind = self.send(0)
            seen = seen + 1 if self.waiting() == 1 and not answered(behind) else 0
            time.sleep(0.005)
        return running, behind


def answered(stream):
    """Returns whether there is something to read, without waiting."""
    return bool(select.select([stream], [], [], 0)[0])


@pytest.fixture(scope="session")
def slow(server):
    """The model that can be kept busy."""
    return Slow(server)
