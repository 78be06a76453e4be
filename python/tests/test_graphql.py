"""gql, unmodified: it reads the schema by introspection, checks queries against it, and sends them."""

import pytest
from gql import Client, GraphQLRequest, gql
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.exceptions import TransportQueryError
from graphql import GraphQLError, GraphQLInputObjectType, GraphQLList, build_schema, get_named_type, print_schema
from selenium.webdriver.common.keys import Keys
from test_pages import answer, browser, one, until  # noqa: F401 (browser is a fixture)

SETOSA = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


@pytest.fixture(scope="module", name="graphql")
def a_client(server):
    """The client with the server's schema, which it asks for itself."""
    return Client(transport=AIOHTTPTransport(f"http://{server.http}/graphql"), fetch_schema_from_transport=True)


def ask(client, query, **variables):
    """Returns the data of an answer."""
    return client.execute(GraphQLRequest(gql(query).document, variable_values=variables))


def test_typed_rows_are_predicted(graphql):
    query = """
      query Predict($rows: [FlowersRow!]!) {
        predict {
          flowers(rows: $rows) { model version rows { label score probabilities } time { compute } }
          again: flowers(rows: $rows) { rows { label } }
          iris(rows: {X: [6.7, 3.0, 5.2, 2.3]}) { rows { label probabilities } }
        }
      }"""
    predict = ask(graphql, query, rows=[SETOSA, {**SETOSA, "petal_length": 5.2, "petal_width": 2.3}])["predict"]
    flowers = predict["flowers"]
    assert (flowers["model"], flowers["version"]) == ("flowers", 1)
    assert [row["label"] for row in flowers["rows"]] == ["setosa", "virginica"]
    for row in flowers["rows"]:
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert row["score"] == max(row["probabilities"])
    assert flowers["time"]["compute"] > 0
    assert predict["again"]["rows"] == [{"label": "setosa"}, {"label": "virginica"}]
    assert predict["iris"]["rows"][0]["label"] == 2


def test_the_client_finds_mistakes_by_the_schema_alone(graphql):
    with pytest.raises(GraphQLError, match="petals"):
        ask(graphql, "{ predict { flowers(rows: [{petals: 1}]) { version } } }")


def test_models_tell_what_they_are(graphql):
    query = "{ server { name ready } models { name version state field inputs { name dataType content } statistics { rows } } }"
    answer = ask(graphql, query)
    assert answer["server"] == {"name": "outhaul", "ready": True}
    models = {(model["name"], model["version"]): model for model in answer["models"]}
    assert models["flowers", 1]["inputs"][0] == {"name": "sepal_length", "dataType": "FP64", "content": "number"}
    assert models["truncated", 1]["state"] == "failed" and models["truncated", 1]["inputs"] is None
    assert models["scalar", 1]["field"] is None


def test_an_error_has_a_place_and_a_code_and_the_rest_is_answered(graphql):
    query = """
      query($rows: [JSON!]!) {
        good: predict_json(model: "flowers", rows: $rows)
        bad: predict_json(model: "flowers", rows: [{petals: 1}])
      }"""
    with pytest.raises(TransportQueryError) as failed:
        ask(graphql, query, rows=[SETOSA])
    (error,) = failed.value.errors
    assert (error["path"], error["extensions"]) == (["bad"], {"code": "INVALID_INPUT"})
    assert "row 0: 'petals'" in error["message"]
    good = failed.value.data["good"]
    assert good["predictions"][0]["label"] == "setosa" and failed.value.data["bad"] is None


def test_the_file_and_introspection_are_one_schema(graphql, server):
    ask(graphql, "{ server { name } }")
    answer = server.get("/graphql/schema.graphql")
    written = build_schema(answer.body.decode())
    assert print_schema(written) == print_schema(graphql.schema)
    row = written.type_map["FlowersRow"]
    assert isinstance(row, GraphQLInputObjectType) and list(row.fields) == list(SETOSA)
    rows = written.type_map["Predict"].fields["flowers"].args["rows"].type
    assert isinstance(rows.of_type, GraphQLList) and get_named_type(rows) is row


def test_queries_are_counted_under_their_own_contract(graphql, server):
    before = server.metric("outhaul_call_duration_seconds_count", contract="graphql")
    ask(graphql, "{ server { name } }")
    after = server.metric("outhaul_call_duration_seconds_count", contract="graphql")
    assert after > before


def test_a_browser_tries_a_query(browser, server):  # noqa: F811
    browser.get(f"http://{server.http}/graphql")
    query = one(browser, "#query")
    query.clear()
    query.send_keys("query($r: [IrisRow!]!) { predict { iris(rows: $r) { rows { label } } } }")
    variables = one(browser, "#variables")
    variables.clear()
    variables.send_keys('{"r": [{"X": [5.1, 3.5, 1.4, 0.2]}]}', Keys.CONTROL, Keys.ENTER)
    until(browser, lambda: '"label": 0' in answer(browser), "the answer to be shown")
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
