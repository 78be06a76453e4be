"""The cases of testdata/conformance over a socket. Its README says what the fields mean."""

import json

import pytest
from serving import TESTDATA, request

FOLDER = TESTDATA / "conformance" / "oip_rest"
CASES = {
    f"{path.stem}: {case['name']}": case for path in sorted(FOLDER.glob("*.json")) for case in json.loads(path.read_text())
}
LENGTH = "Inference-Header-Content-Length"


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


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_case(server, case):
    expected = case["expect"]
    answer = server.exchange(payload(case))
    assert answer is not None and answer.status == expected["status"], answer
    said = answer.body.decode("utf-8", "replace") if answer.status == 200 else answer.error()
    for text in expected.get("contains", []):
        # Written as in the body, where quotes are escaped.
        assert text.replace('\\"', '"') in said
    if "json" in expected:
        length = int(answer.headers.get(LENGTH.lower(), len(answer.body)))
        assert holds(json.loads(answer.body[:length]), expected["json"]), answer
    for name, value in expected.get("headers", {}).items():
        assert name.lower() in answer.headers, answer
        assert value in ("*", answer.headers[name.lower()])


def test_there_are_cases():
    assert len(CASES) > 100
