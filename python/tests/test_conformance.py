"""The cases of testdata/conformance over a socket. Its README says what the fields mean."""

import json

import pytest
from serving import TESTDATA, Server, request

ROOT = TESTDATA / "conformance"
LENGTH = "Inference-Header-Content-Length"

# Contracts that are not HTTP's; their folders have READMEs and tests of their own.
ELSEWHERE = {"tensorflow_grpc"}


def text_of(error):
    """Returns the text of `{"error": "..."}`."""
    assert set(error) == {"error"} and isinstance(error["error"], str) and error["error"], error
    return error["error"]


def message_of(error):
    """Returns the text of `{"error": {"message": "...", ...}}`."""
    assert set(error) == {"error"} and error["error"]["message"], error
    return error["error"]["message"]


def either_of(error):
    """Returns the text of either form: a model's path answers TensorFlow Serving's clients and OpenAI's."""
    return text_of(error) if isinstance(error["error"], str) else message_of(error)


# The form of each contract's errors. Those that are not here are compared as they are written.
ERRORS = {"oip_rest": text_of, "tensorflow_rest": either_of, "vertex": message_of, "azure": message_of}

FOLDERS = sorted(folder.name for folder in ROOT.iterdir() if folder.is_dir() and folder.name not in ELSEWHERE)
CASES = {
    f"{contract}/{path.stem}: {case['name']}": (contract, case)
    for contract in FOLDERS
    for path in sorted((ROOT / contract).glob("*.json"))
    for case in json.loads(path.read_text())
}


@pytest.fixture(scope="module")
def asked(models, tmp_path_factory):
    """The server that the cases assume."""
    routes = ["--vertex-predict-route", "/vertex/predict", "--vertex-health-route", "/vertex/health"]
    # A second place of models.
    routes.append(str(TESTDATA / "text_models"))
    with Server(models, tmp_path_factory.mktemp("contracts") / "log", "--default-model", "flowers", *routes) as server:
        yield server


def part(text):
    """Returns the bytes of one part of a body."""
    if isinstance(text, str):
        return text.encode()
    if "hex" in text:
        return bytes.fromhex(text["hex"])
    return text["repeat"].encode() * text["times"]


def payload(case):
    """Returns the bytes of the request."""
    body = case.get("body")
    parts = [part(piece) for piece in ([] if body is None else body if isinstance(body, list) else [body])]
    headers = dict(case.get("headers", {}))
    if headers.get(LENGTH) == "auto":
        headers[LENGTH] = str(len(parts[0]))
    return request(case.get("method", "POST"), case["path"], None if body is None else b"".join(parts), headers)


def holds(answer, expected):
    """Returns whether JSON holds at least what is expected."""
    if isinstance(expected, dict):
        return isinstance(answer, dict) and all(key in answer and holds(answer[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return isinstance(answer, list) and len(answer) == len(expected) and all(map(holds, answer, expected))
    if isinstance(expected, float):
        return answer == pytest.approx(expected, rel=1e-5)
    return answer == expected


def said(contract, answer):
    """Returns the text that a case compares: the body, or the words of an error in the contract's form."""
    if answer.status < 400 or contract not in ERRORS:
        return answer.body.decode("utf-8", "replace")
    # What is no path of a contract is answered as the whole server answers.
    form = text_of if answer.status == 405 else ERRORS[contract]
    return form(answer.json())


@pytest.mark.parametrize("asking", CASES.values(), ids=CASES)
def test_case(asked, asking):
    contract, case = asking
    expected = case["expect"]
    answer = asked.exchange(payload(case))
    assert answer is not None and answer.status == expected["status"], answer
    words = said(contract, answer)
    for text in expected.get("contains", []):
        # Written as in the body, where quotes are escaped.
        assert text.replace('\\"', '"') in words or text in words, words
    if "json" in expected:
        length = int(answer.headers.get(LENGTH.lower(), len(answer.body)))
        assert holds(json.loads(answer.body[:length]), expected["json"]), answer
    for name, value in expected.get("headers", {}).items():
        assert name.lower() in answer.headers, answer
        assert value in ("*", answer.headers[name.lower()])


def test_there_are_cases():
    for contract, least in {"oip_rest": 100, "tensorflow_rest": 70, "vertex": 15, "azure": 20, "openai": 40, "rerank": 30, "sagemaker": 70}.items():
        count = sum(1 for other, _ in CASES.values() if other == contract)
        assert count >= least, f"{contract} has {count} cases"
