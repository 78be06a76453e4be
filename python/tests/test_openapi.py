"""The OpenAPI document, judged by openapi-spec-validator, and what the server answers held against it."""

import json

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from test_pages import browser, one, start, until  # noqa: F401 (browser is a fixture)


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


def test_the_page_is_searched_and_read_by_keyboard(browser, server):  # noqa: F811
    browser.get(f"http://{server.http}/docs")
    shown = lambda: [entry.get_attribute("id") for entry in browser.find_elements(By.CSS_SELECTOR, "[data-entry]:not([hidden])")]
    everything = len(shown())
    one(browser, "body").send_keys("/")
    browser.switch_to.active_element.send_keys("flowers predict")
    until(browser, lambda: "predict_flowers" in shown() and len(shown()) < everything / 4, "the entries to be filtered")
    assert "live" not in shown() and f"of {everything}" in one(browser, "#found").text
    one(browser, "#predict_flowers summary").send_keys(Keys.ENTER)
    call = until(browser, lambda: one(browser, "#predict_flowers [data-call]").text, "the operation to open")
    assert call.startswith(f"curl -s 'http://{server.http}/v1/models/flowers:predict'")
    one(browser, "#search").send_keys(Keys.ESCAPE)
    until(browser, lambda: len(shown()) == everything, "everything to be there again")
    browser.get(f"http://{server.http}/docs#schema-flowers_Row")
    until(browser, lambda: one(browser, "#schema-flowers_Row").get_attribute("open"), "the linked schema to open")
    problems = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not problems


def test_the_page_fits_a_phone(server):
    phone = start(500)
    try:
        # The narrowest that Chromium's window gets; the rest is by the page's own width.
        phone.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True})
        phone.get(f"http://{server.http}/docs#infer_flowers")
        until(phone, lambda: one(phone, "#infer_flowers").get_attribute("open"), "the operation to open")
        assert phone.execute_script("return document.documentElement.scrollWidth") <= 360
    finally:
        phone.quit()
