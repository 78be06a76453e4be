"""Starts the built server for tests, ends it, and speaks HTTP to it byte by byte.

A server that this module starts is ended by its own process id and must leave with exit code 0, without a panic in its log.
Every wait is bounded.
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sysconfig
import time

PROJECT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = PROJECT / "examples" / "models"
TESTDATA = PROJECT / "testdata"

# What one exchange on loopback may take, debug build and a busy machine included.
PATIENCE = 20.0

# Models that load nowhere; the rest of the repository must be served all the same.
BROKEN = ("truncated", "unknown_operator", "zero_bytes", "sequence_output")


def wait_until(condition, what, seconds=PATIENCE):
    """Asks until the condition holds, and returns what it gave."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"after {seconds} s still waiting: {what}"
        time.sleep(0.005)


def make_repository(folder):
    """Lays out the example models, the test models and some broken ones as a repository of models."""
    shutil.copytree(EXAMPLES, folder)

    def add(source, name, version="1"):
        place = folder / name / version
        place.mkdir(parents=True)
        shutil.copyfile(TESTDATA / "models" / f"{source}.onnx", place / "model.onnx")

    for reference in sorted((TESTDATA / "reference").glob("*.json")):
        if (TESTDATA / "models" / f"{reference.stem}.onnx").exists():
            add(reference.stem, reference.stem)
    for name in BROKEN:
        add(name, name)
    add("add_row", "two_versions", "1")
    add("scalar", "two_versions", "2")
    (folder / "two_versions" / "model.toml").write_text('versions = "all"\n')
    # A thousand additions one after the other: its time grows with the tensor. One request at a time, and a short queue.
    add("deep_graph", "slow")
    declared = "[batching]\nmax_rows = 1\n\n[instances]\ncount = 1\n\n[queue]\ncapacity = 2\n"
    (folder / "slow" / "model.toml").write_text(declared)
    return folder


def free_ports(count):
    """Returns ports of loopback that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def onnxruntime_library():
    """Returns the library inside the wheel that requirements-tests.txt pins."""
    folder = pathlib.Path(sysconfig.get_path("platlib")) / "onnxruntime" / "capi"
    found = sorted(folder.glob("libonnxruntime.so*")) + sorted(folder.glob("libonnxruntime*.dylib"))
    assert found, f"no ONNX Runtime library in {folder}"
    return found[0]


class Server:
    """One process of `outhaul serve`, ready when the constructor returns."""

    def __init__(self, models, log, *flags):
        binary = os.environ.get("OUTHAUL_BINARY")
        assert binary, "OUTHAUL_BINARY must name the built server; scripts/clients.sh sets it"
        self.http_port, self.grpc_port = free_ports(2)
        self.http = f"127.0.0.1:{self.http_port}"
        self.grpc = f"127.0.0.1:{self.grpc_port}"
        self.log_path = log
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OUTHAUL_")}
        command = [binary, "serve", str(models), "--http", self.http, "--grpc", self.grpc]
        command += ["--onnxruntime", str(onnxruntime_library()), *flags]
        with open(log, "wb") as sink:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment, cwd=log.parent
            )
        try:
            wait_until(self._ready, f"{' '.join(command)} to be ready", seconds=60)
        except BaseException:
            self.kill()
            print(self.log())
            raise

    def _ready(self):
        assert self.process.poll() is None, f"the server left with {self.process.returncode}:\n{self.log()}"
        try:
            answer = self.get("/v2/health/ready")
        except OSError:
            return False
        return answer is not None and answer.status == 200

    def log(self):
        """Returns what the server has written so far."""
        return self.log_path.read_text(errors="replace")

    def terminate(self):
        """Sends SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        """Ends it in good order, with what `stop` asserts, or, after a failure, at once."""
        if kind is None:
            self.stop()
        else:
            self.kill()

    def stop(self):
        """Ends the server and checks that it leaves in good order."""
        if self.process.poll() is None:
            self.terminate()
        try:
            code = self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server did not leave within {PATIENCE} s of SIGTERM:\n{self.log()}") from None
        assert code == 0, f"the server left with {code}:\n{self.log()}"
        assert "panicked" not in self.log(), self.log()

    def kill(self):
        """Ends the process at once, where a test has failed already."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=PATIENCE)

    def connect(self, port=None):
        """Opens a connection to the HTTP port, or to another."""
        stream = socket.create_connection(("127.0.0.1", port or self.http_port), timeout=PATIENCE)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return stream

    def exchange(self, payload, half_close=False):
        """Sends bytes on a connection of their own and returns the answer, or None where it was closed without one."""
        with self.connect() as stream:
            try:
                stream.sendall(payload)
                if half_close:
                    stream.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                # Refused before all of it was read; the answer may lie ready.
                pass
            return Reader(stream).answer()

    def get(self, path, headers=()):
        """Asks with GET."""
        return self.exchange(request("GET", path, headers=headers))

    def post(self, path, body, headers=()):
        """Asks with POST; text and values are sent as JSON, bytes as they are."""
        return self.exchange(request("POST", path, body, headers))

    def infer(self, model, body, headers=()):
        """Asks for a prediction."""
        return self.post(f"/v2/models/{model}/infer", body, headers)

    def metric(self, name, **labels):
        """Returns the sum of a metric's series that have these labels."""
        answer = self.get("/metrics")
        assert answer.status == 200
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        total = 0.0
        for line in answer.body.decode().splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(label in series for label in wanted):
                total += float(value)
        return total

    def statistics(self, model):
        """Returns the statistics of a model's version 1."""
        (statistics,) = self.get(f"/v2/models/{model}/versions/1/stats").json()["model_stats"]
        return statistics


def request(method, path, body=None, headers=(), version="HTTP/1.1"):
    """Returns the bytes of a request. Headers given here replace those that it would have had."""
    if body is not None and not isinstance(body, bytes):
        body = (body if isinstance(body, str) else json.dumps(body)).encode()
    lines = {"host": "localhost"}
    if version == "HTTP/1.1":
        lines["connection"] = "close"
    if body is not None:
        lines["content-length"] = str(len(body))
    for name, value in dict(headers).items():
        lines[name.lower()] = value
    head = f"{method} {path} {version}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return head.encode("latin-1") + b"\r\n" + (body or b"")


class Answer:
    """An HTTP answer."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        """Returns the body as Python reads it, NaN and Infinity included."""
        return json.loads(self.body)

    def error(self):
        """Returns the text of a failure in the contract's own form."""
        body = self.json()
        assert set(body) == {"error"} and isinstance(body["error"], str) and body["error"], body
        return body["error"]

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:400]!r}>"


class Reader:
    """Reads answers off a connection, one after the other."""

    def __init__(self, stream):
        self.stream = stream
        self.buffer = b""

    def _more(self):
        try:
            piece = self.stream.recv(1 << 18)
        except ConnectionResetError:
            piece = b""
        self.buffer += piece
        return bool(piece)

    def _take(self, length):
        while len(self.buffer) < length:
            assert self._more(), f"the answer was cut short: {self.buffer[:200]!r}"
        taken, self.buffer = self.buffer[:length], self.buffer[length:]
        return taken

    def _line(self):
        while b"\r\n" not in self.buffer:
            assert self._more(), f"the answer was cut short: {self.buffer[:200]!r}"
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def answer(self):
        """Returns the next answer, or None where the connection was closed instead."""
        while not self.buffer:
            if not self._more():
                return None
        version, status, *_ = self._line().decode("latin-1").split(" ")
        assert version.startswith("HTTP/1."), version
        headers = {}
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return Answer(int(status), headers, self._body(int(status), headers))

    def _body(self, status, headers):
        if status < 200 or status in (204, 304):
            return b""
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self._line(), 16):
                body += self._take(size)
                self._line()
            while self._line():
                pass
            return body
        if "content-length" in headers:
            return self._take(int(headers["content-length"]))
        while self._more():
            pass
        body, self.buffer = self.buffer, b""
        return body

    def closed(self):
        """Returns whether the other side has closed the connection without saying more."""
        return not self.buffer and not self._more()
