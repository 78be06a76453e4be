"""The OpenAPI document, judged by openapi-spec-validator, and what the server answers held against it."""

import json

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator


@pytest.fixture(scope="module", name="document")
def the_document(server):
    """The document of the server that most tests share."""
    answer = server.get("/openapi.json")
    assert answer.status == 200 and answer.headers["content-type"] == "application/json"
    return answer.json()


def fits(document, value, schema):
    """Holds a value against a schema of the document."""
    whole = {**schema, "components": document["components"]}
    errors = [error.message for error in Draft202012Validator(whole).iter_errors(value)]
    assert not errors, errors


def operations(document):
    """Returns every operation with its path and method."""
    return [(path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()]


def test_it_is_openapi(document):
    errors = [f"{list(error.path)}: {error.message}" for error in OpenAPIV31SpecValidator(document).iter_errors()]
    assert not errors, errors


def test_every_schema_is_json_schema(document):
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_examples_fit_their_schemas_and_are_answered_as_described(document, server):
    answered = 0
    for path, _, operation in operations(document):
        if operation["tags"] != ["Models"]:
            continue
        content = operation["requestBody"]["content"]["application/json"]
        if "example" not in content:
            continue
        fits(document, content["example"], content["schema"])
        answer = server.post(path, content["example"], {"Content-Type": "application/json"})
        assert answer.status == 200, (path, content["example"], answer)
        fits(document, answer.json(), operation["responses"]["200"]["content"]["application/json"]["schema"])
        answered += 1
    assert answered > 50, "nearly every model has an example by two contracts"


def test_what_can_be_asked_is_answered_as_described(document, server):
    asked = 0
    for path, method, operation in operations(document):
        if method != "get" or operation["tags"] == ["Pages"]:
            continue
        target = path.replace("{model}", "iris").replace("{version}", "1")
        if "{" in target:
            continue
        answer = server.get(target)
        described = operation["responses"].get(str(answer.status))
        assert described is not None, (path, answer)
        of_json = described.get("content", {}).get("application/json")
        if of_json:
            fits(document, answer.json(), of_json["schema"])
        asked += 1
    assert asked > 20


@pytest.mark.parametrize("body", ["{", "[]", '{"inputs": []}', '{"instances": 3}', '{"instances": [{"petals": 1}]}'])
def test_failures_are_described_too(document, server, body):
    for path, method, operation in operations(document):
        if method != "post" or "/flowers" not in path:
            continue
        answer = server.post(path, body, {"Content-Type": "application/json"})
        described = operation["responses"][str(answer.status)]
        assert answer.status == 400, answer
        fits(document, answer.json(), described["content"]["application/json"]["schema"])


def test_a_row_that_the_schema_forbids_is_refused(document, server):
    row = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
    schema = {**document["components"]["schemas"]["flowers_Row"], "components": document["components"]}
    validator = Draft202012Validator(schema)
    for change, valid in [({}, True), ({"petal_width": "wide"}, False), ({"petal_width": None}, False), ({"colour": 1}, False)]:
        changed = {**row, **change}
        assert validator.is_valid(changed) == valid
        answer = server.post("/v1/models/flowers:predict", {"instances": [changed]})
        assert (answer.status == 200) == valid, (json.dumps(changed), answer)


def test_the_page_is_made_of_the_document(document, server):
    page = server.get("/docs", {"Accept": "text/html"}).body.decode()
    for path, _, operation in operations(document):
        assert f"<code>{path}</code>" in page and f'id="{operation["operationId"]}"' in page, path
    for name in document["components"]["schemas"]:
        assert f'id="schema-{name}"' in page, name
