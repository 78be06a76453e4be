"""Models in a bucket: moto's server speaks S3 on loopback, boto3 puts models there, `outhaul serve s3://...` serves them."""

import os
import signal
import subprocess
import sys

import boto3
import pytest
from botocore.config import Config
from conftest import IRIS
from serving import EXAMPLES, PATIENCE, TESTDATA, Server, free_ports, wait_until

BUCKET = "bucket"

# A bucket tells nobody of changes: it is looked at this often.
POLLING = ("--poll-interval", "200ms", "--settle", "1s")

# Every example model.
MODELS = sorted(folder.name for folder in EXAMPLES.iterdir() if folder.is_dir())


class Bucket:
    """moto's server in a process of its own, with one bucket."""

    def __init__(self, log, **environment):
        self.log_path = log
        (self.port,) = free_ports(1)
        self.endpoint = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with open(log, "wb") as sink:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env={**os.environ, **environment},
                cwd=log.parent,
            )
        wait_until(self._listens, "moto to listen", seconds=60)
        self.client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="writer",
            aws_secret_access_key="secret",
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=PATIENCE, read_timeout=PATIENCE),
        )
        self.client.create_bucket(Bucket=BUCKET)

    def _listens(self):
        assert self.process.poll() is None, self.log_path.read_text(errors="replace")
        return f"Running on {self.endpoint}" in self.log_path.read_text(errors="replace")

    def put(self, key, content):
        """Puts an object."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def put_model(self, name, version, source, prefix="models"):
        """Puts a model file as one version of a model."""
        self.put(f"{prefix}/{name}/{version}/model.onnx", source.read_bytes())

    def stop(self):
        """Ends the server at once; it keeps nothing on disk."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=PATIENCE)


@pytest.fixture(name="bucket")
def a_bucket(tmp_path, monkeypatch):
    """A bucket with the example models under `models/`, and the environment that leads there."""
    bucket = Bucket(tmp_path / "moto")
    use(bucket, monkeypatch)
    for path in sorted(EXAMPLES.rglob("*")):
        if path.is_file():
            bucket.put(f"models/{path.relative_to(EXAMPLES).as_posix()}", path.read_bytes())
    yield bucket
    bucket.stop()


def use(bucket, monkeypatch):
    """Sets what a user of a store that speaks S3 sets."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.endpoint)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-logged")


def serve(url, tmp_path, *flags):
    """Starts a server on a URL, with a cache and a state of its own."""
    state = f"sqlite://{tmp_path / 'state.sqlite'}"
    return Server(url, tmp_path / "log", "--cache-dir", str(tmp_path / "cache"), "--state", state, *POLLING, *flags)


def ready(server, model, version):
    """Returns whether a version of a model is ready."""
    return server.get(f"/v2/models/{model}/versions/{version}/ready").status == 200


def infer_label(server):
    """Asks `iris` for a prediction and returns the label."""
    answer = server.infer("iris", IRIS)
    assert answer.status == 200, answer
    return {output["name"]: output["data"] for output in answer.json()["outputs"]}["label"]


def test_models_of_a_bucket_are_served(bucket, tmp_path):
    with serve(f"s3://{BUCKET}/models", tmp_path) as server:
        wait_until(lambda: ready(server, "iris", 1), "iris to be ready")
        assert infer_label(server) == [0]
        for model in ("breast_cancer", "digits", "iris_words"):
            wait_until(lambda model=model: ready(server, model, 1), f"{model} to be ready")
        assert "not-to-be-logged" not in server.log()


def test_a_new_version_in_the_bucket_takes_over_and_a_removed_model_goes(bucket, tmp_path):
    with serve(f"s3://{BUCKET}/models", tmp_path) as server:
        wait_until(lambda: ready(server, "iris", 1), "iris 1 to be ready")
        bucket.put_model("iris", 2, EXAMPLES / "iris" / "1" / "model.onnx")
        bucket.put_model("added", 1, TESTDATA / "models" / "add_row.onnx")
        wait_until(lambda: ready(server, "iris", 2), "iris 2 to be ready")
        wait_until(lambda: ready(server, "added", 1), "the added model to be ready")
        assert infer_label(server) == [0]
        bucket.client.delete_object(Bucket=BUCKET, Key="models/added/1/model.onnx")
        wait_until(lambda: not ready(server, "added", 1), "the removed model to go")
        assert infer_label(server) == [0]


def test_a_store_that_fails_for_a_while_changes_nothing(bucket, tmp_path):
    with serve(f"s3://{BUCKET}/models", tmp_path) as server:
        wait_until(lambda: ready(server, "iris", 1), "iris to be ready")
        # It does not answer, and what is loaded stays.
        bucket.process.send_signal(signal.SIGSTOP)
        for _ in range(20):
            assert infer_label(server) == [0]
        bucket.process.send_signal(signal.SIGCONT)
        bucket.put_model("iris", 2, EXAMPLES / "iris" / "1" / "model.onnx")
        wait_until(lambda: ready(server, "iris", 2), "iris 2 to be ready", seconds=60)
        # It is gone for good, and what is loaded stays.
        bucket.stop()
        wait_until(lambda: "Connection refused" in server.log(), "the failure in the log")
        assert infer_label(server) == [0]


def test_a_killed_server_starts_again_from_its_cache(bucket, tmp_path):
    server = serve(f"s3://{BUCKET}/models", tmp_path)
    for model in MODELS:
        wait_until(lambda model=model: ready(server, model, 1), f"{model} to be ready")
    server.kill()
    with serve(f"s3://{BUCKET}/models", tmp_path) as server:
        wait_until(lambda: ready(server, "iris", 1), "iris to be ready again")
        assert infer_label(server) == [0]
        # The killed process's folder went, and nothing was fetched twice.
        assert len(list((tmp_path / "cache" / "tmp").iterdir())) == 1
        assert len(list((tmp_path / "cache" / "versions").iterdir())) == len(MODELS)
    requests = bucket.log_path.read_text()
    for model in MODELS:
        assert requests.count(f"GET /{BUCKET}/models/{model}/1/model.onnx ") == 1, requests


def refusal(url, tmp_path):
    """Serves what cannot be served and returns what the server says of it."""
    log = tmp_path / "log"
    try:
        server = serve(url, tmp_path)
    except AssertionError:
        return log.read_text()
    try:
        wait_until(lambda: "s3://" in server.log(), "the reason in the log")
        return server.log()
    finally:
        server.kill()


def test_a_bucket_that_is_not_there_is_named(bucket, tmp_path):
    said = refusal("s3://no-such-bucket/models", tmp_path)
    assert "s3://no-such-bucket/models" in said, said
    assert "The specified bucket does not exist (NoSuchBucket); check the URL" in said, said


def test_wrong_credentials_are_named(tmp_path, monkeypatch):
    # The bucket is made by the one call that needs no rights.
    bucket = Bucket(tmp_path / "moto", INITIAL_NO_AUTH_ACTION_COUNT="1")
    try:
        use(bucket, monkeypatch)
        said = refusal(f"s3://{BUCKET}/models", tmp_path)
    finally:
        bucket.stop()
    assert f"s3://{BUCKET}/models" in said, said
    assert "access was refused" in said and "check AWS_ACCESS_KEY_ID" in said, said
    assert "not-to-be-logged" not in said, said


def test_credentials_in_a_url_are_refused_and_not_repeated(tmp_path):
    said = refusal("s3://key:not-to-be-logged@bucket/models", tmp_path)
    assert "credentials in a URL end up in logs" in said, said
    assert "not-to-be-logged" not in said, said
