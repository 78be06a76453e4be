"""The guide's roll-outs as a user types them: one that is promoted, one that is rolled back by itself; feedback; the page."""

import json
import os
import random
import shutil
import subprocess
import threading

import numpy as np
import pytest
import tritonclient.grpc
from serving import EXAMPLES, PATIENCE, Server, request, wait_until

ROLLOUT = EXAMPLES.parent / "rollout"

FLOWERS = [[5.1, 3.5, 1.4, 0.2], [6.1, 2.8, 4.0, 1.3], [6.9, 3.1, 5.4, 2.1], [5.0, 3.4, 1.5, 0.2]]


def infer_payload(row, headers=()):
    body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": row}]}
    return request("POST", "/v2/models/iris/infer", json.dumps(body).encode(), dict(headers))


class Managed(Server):
    """A server whose traffic is managed, with a state of its own."""

    def __init__(self, folder):
        self.folder = folder
        config = folder / "outhaul.toml"
        config.write_text('[routes.iris]\ntargets = [{ to = "iris@1" }]\nfeedback = true\n')
        super().__init__(
            ROLLOUT / "models", folder / "log", "--config", str(config), "--state", f"sqlite:{folder / 'state.db'}"
        )

    def command(self, *arguments, ok=True):
        """Runs `outhaul` against this server, as a user would."""
        environment = {**os.environ, "OUTHAUL_URL": f"http://{self.http}"}
        done = subprocess.run(
            [os.environ["OUTHAUL_BINARY"], *arguments], env=environment, capture_output=True, text=True, timeout=120
        )
        assert (done.returncode == 0) is ok, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def ask(self, row, headers=()):
        answer = self.exchange(infer_payload(row, headers))
        assert answer is not None and answer.status == 200, answer
        return answer


class Load:
    """Clients that send flowers until told to stop; what failed is kept."""

    def __init__(self, server, clients=3):
        self.stop, self.failed, self.versions = threading.Event(), [], []
        self.server = server
        self.threads = [threading.Thread(target=self._send, args=(seed,)) for seed in range(clients)]

    def _send(self, seed):
        chance = random.Random(seed)
        while not self.stop.is_set():
            try:
                answer = self.server.ask(chance.choice(FLOWERS))
                self.versions.append(answer.json()["model_version"])
            except (AssertionError, OSError) as error:
                self.failed.append(repr(error))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(PATIENCE)


@pytest.fixture(scope="module")
def managed(tmp_path_factory):
    with Managed(tmp_path_factory.mktemp("traffic")) as server:
        yield server


def status(server):
    return json.loads(server.command("rollout", "status", "iris", "--output", "json"))


GUARDS = ["--guard", "error_rate<5%", "--guard", "p99<1s", "--guard", "disagreement<20%", "--mirror", "1"]


def test_the_guides_roll_outs(managed):
    assert managed.ask(FLOWERS[0]).json()["model_version"] == "1", "the newer versions in the folder take no traffic"
    assert "iris@1" in managed.command("route", "list")
    with Load(managed) as load:
        started = managed.command("rollout", "start", "iris", "--to", "2", "--steps", "50,100", "--every", "1s", *GUARDS)
        assert "iris@2" in started
        watched = managed.command("rollout", "status", "iris", "--watch")
        assert "promoted" in watched, watched
        assert managed.ask(FLOWERS[0]).json()["model_version"] == "2"

        # The third version mixes up the classes: it is rolled back by itself, and the watching command fails.
        managed.command("rollout", "start", "iris", "--to", "3", "--steps", "50,100", "--every", "1s", *GUARDS)
        watched = managed.command("rollout", "status", "iris", "--watch", ok=False)
        assert "rolled back" in watched and "disagreement" in watched, watched
        assert managed.ask(FLOWERS[0]).json()["model_version"] == "2"

        # A roll-back works after a promotion too.
        managed.command("rollout", "start", "iris", "--to", "1", "--steps", "50,100", "--every", "10m")
        wait_until(lambda: status(managed)["phase"] == "stepping", "the candidate to be ready")
        managed.command("rollout", "promote", "iris")
        assert managed.ask(FLOWERS[0]).json()["model_version"] == "1"
        managed.command("rollout", "rollback", "iris")
        assert managed.ask(FLOWERS[0]).json()["model_version"] == "2"
    assert not load.failed, load.failed[:3]
    assert len(load.versions) > 100
    journal = managed.command("rollout", "journal", "iris", "--last", "50")
    for word in ("promoted", "disagreement", "rolled back"):
        assert word in journal.lower(), journal


def test_what_is_wrong_is_told(managed):
    for arguments, expected in [
        (("start", "iris", "--to", "2", "--steps", "50,10"), "ascend"),
        (("start", "iris", "--to", "2", "--guard", "speed<1"), "is no guard"),
        (("promote", "nobody"), "nobody"),
        (("status", "nobody"), "nobody"),
    ]:
        said = managed.command("rollout", *arguments, ok=False)
        assert expected in said, said
    said = managed.command("route", "set", "other", "iris@1=0", ok=False)
    assert "weight" in said, said
    answer = managed.exchange(infer_payload(FLOWERS[0], {"x-outhaul-target": "digits@1"}))
    assert answer.status == 400 and "digits@1" in answer.body.decode()


def test_a_tester_and_a_sticky_caller_get_their_version(managed):
    managed.command("route", "set", "iris", "iris@1=1", "iris@2=1", "--sticky", "header:x-user", "--feedback")
    seen = set()
    for user in range(40):
        versions = {managed.ask(FLOWERS[0], {"x-user": str(user)}).headers["x-outhaul-variant"] for _ in range(3)}
        assert len(versions) == 1, "a caller stays"
        seen |= versions
    assert seen == {"iris@1", "iris@2"}
    answer = managed.ask(FLOWERS[0], {"x-outhaul-target": "iris@3"})
    assert answer.json()["model_version"] == "3"
    assert managed.ask(FLOWERS[0]).headers["x-outhaul-route"] == "iris"


def test_outcomes_are_joined_to_predictions(managed):
    managed.command("route", "set", "iris", "iris@2=1", "iris@3=1", "--feedback")
    truth = [0, 1, 2, 0]
    sent = []
    for number in range(200):
        row = number % 4
        identity = f"feedback-{os.getpid()}-{number}"
        managed.ask(FLOWERS[row], {"x-request-id": identity})
        sent.append({"id": identity, "label": str(truth[row])})
    body = json.dumps({"feedback": [*sent, {"id": "nobody", "reward": 1}]})
    answer = managed.post("/v1/feedback", body)
    assert answer.status == 200, answer.body.decode()
    said = answer.json()
    assert said["joined"] == 200 and said["unknown"] == ["nobody"], said
    wait_until(lambda: "iris@2 " in managed.command("route", "report", "iris"), "the report")
    report = json.loads(managed.command("route", "report", "iris", "--output", "json"))
    by_variant = {variant["variant"]: variant for variant in report["variants"]}
    assert by_variant["iris@2"]["mean"] > 0.9 and by_variant["iris@3"]["mean"] < 0.1, report
    assert managed.post("/v1/feedback", '{"id": "x", "reward": 2}').status == 400


def test_state_survives_a_restart(tmp_path):
    with Managed(tmp_path) as first:
        first.command("route", "set", "iris", "iris@2")
        first.command("rollout", "start", "iris", "--to", "3", "--steps", "50,100", "--every", "10m")
        wait_until(lambda: status(first)["phase"] == "stepping", "the candidate to be ready")
    with Managed(tmp_path) as second:
        assert status(second)["phase"] == "stepping"
        versions = {second.ask(FLOWERS[0]).json()["model_version"] for _ in range(40)}
        assert versions == {"2", "3"}, "the roll-out goes on"
        second.command("rollout", "abort", "iris")
        assert second.ask(FLOWERS[0]).json()["model_version"] == "2"


def test_the_admin_api_answers_strangers(managed):
    for method, path, body, expected in [
        ("GET", "/v1/routes/nobody", b"", 404),
        ("PUT", "/v1/routes/iris", b"{", 400),
        ("PUT", "/v1/routes/iris", b'{"targets": [], "color": 1}', 400),
        ("PUT", "/v1/routes/a%20b", b'{"targets": [{"to": "iris@1"}]}', 400),
        ("DELETE", "/v1/routes/nobody", b"", 404),
        ("POST", "/v1/rollouts/iris/jump", b"", 404),
        ("POST", "/v1/rollouts/iris", b'{"to": "iris@9", "guards": ["x"]}', 400),
        ("POST", "/v1/feedback", b"[]", 400),
        ("GET", "/v1/journal?limit=many", b"", 400),
    ]:
        answer = managed.exchange(request(method, path, body))
        assert answer.status == expected, f"{method} {path}: {answer.status} {answer.body.decode()}"


def test_the_page_shows_routes(managed):
    managed.command("route", "set", "iris", "iris@1=3", "iris@2=1")
    page = managed.exchange(request("GET", "/traffic", headers={"accept": "text/html"}))
    text = page.body.decode()
    assert page.status == 200 and "iris@1" in text and "75.0%" in text and "<script" in text


UNSURE = {
    "sepal_length": 6.1, "sepal_width": 2.8, "petal_length": 4.9, "petal_width": 1.6,
    "words": ["long", "medium", "medium", "medium"],
}


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    """The guide's pipeline, served beside the models that it is made of."""
    folder = tmp_path_factory.mktemp("pipelines") / "models"
    shutil.copytree(EXAMPLES, folder)
    shutil.copytree(EXAMPLES.parent / "pipelines" / "careful_flowers", folder / "careful_flowers")
    with Server(folder, tmp_path_factory.mktemp("pipelines-server") / "log", "--state", "off") as server:
        yield server


def test_a_pipeline_is_served_through_every_contract_like_a_model(pipelines):
    name = "careful_flowers"
    labels = []
    answer = pipelines.post(f"/v1/models/{name}:predict", json.dumps({"instances": [UNSURE]}))
    assert answer.status == 200, answer.body
    labels.append(answer.json()["predictions"][0]["label"])
    query = "query($rows: [JSON!]!) { predict_json(model: \"careful_flowers\", rows: $rows) }"
    answer = pipelines.post("/graphql", json.dumps({"query": query, "variables": {"rows": [UNSURE]}}))
    labels.append(answer.json()["data"]["predict_json"]["predictions"][0]["label"])
    message = tritonclient.grpc.InferenceServerClient(pipelines.grpc)
    metadata = message.get_model_metadata(name)
    assert metadata.platform == "ensemble" and {one.name for one in metadata.outputs} == {"label", "score"}
    inputs = []
    for column, value in UNSURE.items():
        declared = next(one for one in metadata.inputs if one.name == column)
        array = np.array([value], dtype=object if isinstance(value, list) else np.float64)
        tensor = tritonclient.grpc.InferInput(column, list(array.shape), declared.datatype)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    result = message.infer(name, inputs)
    labels.append(result.as_numpy("label").ravel()[0].decode())
    message.close()
    assert len(set(labels)) == 1 and labels[0] in {"setosa", "versicolor", "virginica"}, labels
    page = pipelines.exchange(request("GET", f"/try/{name}", headers={"accept": "text/html"}))
    assert page.status == 200 and name in page.body.decode()
