"""The openai package, unmodified, against tiny models of texts; and reranking, which has no client of its own.

The models and the answers to compare with are made by testdata/make_text_models.py, without our code.
"""

import asyncio
import json

import numpy as np
import openai
import pytest
from serving import TESTDATA, Server

TEXT_MODELS = TESTDATA / "text_models"
REFERENCE = json.loads((TEXT_MODELS / "reference.json").read_text())
EMBEDDINGS = REFERENCE["embeddings"]
SCORES = REFERENCE["scores"]
MODEL = "tiny-embedder"

# Sums of floats in another order than the reference's, and its seven digits.
CLOSE = {"abs": 2e-6}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A server of the models of texts."""
    with Server(TEXT_MODELS, tmp_path_factory.mktemp("texts") / "log") as server:
        yield server


@pytest.fixture(scope="module")
def client(texts):
    with openai.OpenAI(base_url=f"http://{texts.http}/v1", api_key="none", max_retries=0) as client:
        yield client


def vectors(answer):
    """Returns the vectors in order, having checked that they are told so."""
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    assert answer.object == "list" and all(item.object == "embedding" for item in answer.data)
    return [item.embedding for item in answer.data]


def test_texts_in_one_call(client):
    answer = client.embeddings.create(model=MODEL, input=[case["text"] for case in EMBEDDINGS])
    for vector, case in zip(vectors(answer), EMBEDDINGS, strict=True):
        assert vector == pytest.approx(case["embedding"], **CLOSE), case["text"]
    assert answer.model == MODEL
    tokens = sum(len(case["ids"]) for case in EMBEDDINGS)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == tokens


def test_one_text(client):
    case = EMBEDDINGS[0]
    (vector,) = vectors(client.embeddings.create(model=MODEL, input=case["text"]))
    assert vector == pytest.approx(case["embedding"], **CLOSE)


def test_a_text_is_answered_as_if_it_were_alone(client):
    inputs = [case["text"] for case in EMBEDDINGS] * 20
    together = vectors(client.embeddings.create(model=MODEL, input=inputs))
    alone = {text: vectors(client.embeddings.create(model=MODEL, input=text))[0] for text in set(inputs)}
    assert together == [alone[text] for text in inputs]


def test_numbers_and_base64_are_the_same(client):
    # What the client asks for on its own is Base64.
    packed = vectors(client.embeddings.create(model=MODEL, input="zebra?"))
    written = vectors(client.embeddings.create(model=MODEL, input="zebra?", encoding_format="float"))
    assert (np.array(packed, np.float32) == np.array(written, np.float32)).all()
    raw = client.embeddings.with_raw_response.create(model=MODEL, input="zebra?", encoding_format="base64")
    assert isinstance(raw.http_response.json()["data"][0]["embedding"], str)


def test_fewer_dimensions_have_length_one_again(client):
    case = EMBEDDINGS[1]
    (vector,) = vectors(client.embeddings.create(model=MODEL, input=case["text"], dimensions=4))
    first = case["embedding"][:4]
    length = sum(number * number for number in first) ** 0.5
    assert vector == pytest.approx([number / length for number in first], abs=1e-5)


@pytest.mark.parametrize("together", [False, True])
def test_tokens_in_place_of_texts(client, together):
    lists = [case["ids"] for case in EMBEDDINGS]
    if together:
        answer = client.embeddings.create(model=MODEL, input=lists)
        found = vectors(answer)
        assert answer.usage.prompt_tokens == sum(map(len, lists))
    else:
        found = [vectors(client.embeddings.create(model=MODEL, input=ids))[0] for ids in lists]
    for vector, case in zip(found, EMBEDDINGS, strict=True):
        assert vector == pytest.approx(case["embedding"], **CLOSE), case["text"]


def test_the_asynchronous_client(texts):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"http://{texts.http}/v1", api_key="none") as client:
            calls = (client.embeddings.create(model=MODEL, input=case["text"]) for case in EMBEDDINGS)
            return await asyncio.gather(*calls)

    for answer, case in zip(asyncio.run(ask()), EMBEDDINGS, strict=True):
        assert vectors(answer)[0] == pytest.approx(case["embedding"], **CLOSE)


def test_models_are_listed_and_described(client):
    names = {model.id for model in client.models.list()}
    assert names == {"tiny-embedder", "tiny-reranker", "tiny-classifier"}
    model = client.models.retrieve(MODEL)
    assert model.id == MODEL and model.object == "model"


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model="nobody", input="a")
    assert caught.value.code == "model_not_found"
    assert "'nobody'" in caught.value.message
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"input": ""}, "'input' must not be empty"),
        ({"input": ["a", ""]}, "'input[1]' must not be empty"),
        ({"input": []}, "'input' must not be empty"),
        ({"input": ["a"] * 2049}, "more than 2048 inputs"),
        ({"input": "a", "dimensions": 17}, "'dimensions' must be at most 16"),
        ({"input": [2, 320]}, "320"),
        ({"input": [2] * 65}, "65"),
        ({"input": "a", "model": "tiny-classifier"}, "is a classification model"),
        ({"input": "a", "encoding_format": "hex"}, "'encoding_format'"),
    ],
)
def test_a_mistake_is_a_bad_request(client, request_, message):
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(**{"model": MODEL, **request_})
    assert message in caught.value.message
    assert caught.value.type == "invalid_request_error"


RERANK = {"model": "tiny-reranker", "query": SCORES[0]["query"]}
TEXTS = [case["text"] for case in SCORES]
BEST_FIRST = sorted(range(len(SCORES)), key=lambda index: -SCORES[index]["score"])


def test_documents_are_reranked(texts):
    answer = texts.post("/v1/rerank", {**RERANK, "documents": TEXTS, "return_documents": True, "top_n": 2}).json()
    assert [result["index"] for result in answer["results"]] == BEST_FIRST[:2]
    for result in answer["results"]:
        case = SCORES[result["index"]]
        assert result["relevance_score"] == pytest.approx(case["score"], **CLOSE)
        assert result["document"] == {"text": case["text"]}
    assert answer["model"] == "tiny-reranker" and answer["id"]
    assert answer["usage"]["total_tokens"] == sum(len(case["ids"]) for case in SCORES)


def test_texts_are_reranked(texts):
    answer = texts.post("/rerank", {**RERANK, "texts": TEXTS}).json()
    assert [result["index"] for result in answer] == BEST_FIRST
    assert all(set(result) == {"index", "score"} for result in answer)
    raw = texts.post("/rerank", {**RERANK, "texts": TEXTS, "raw_scores": True, "return_text": True}).json()
    for result, bounded in zip(raw, answer, strict=True):
        assert 1 / (1 + 2.718281828459045 ** -result["score"]) == pytest.approx(bounded["score"], abs=1e-5)
        assert result["text"] == TEXTS[result["index"]]


def test_what_does_not_rerank_says_so(texts):
    answer = texts.post("/v1/rerank", {**RERANK, "model": MODEL, "documents": TEXTS})
    assert answer.status == 400
    assert "is an embedding model, and /v1/rerank takes a reranking model" in answer.json()["error"]["message"]
    answer = texts.post("/rerank", {**RERANK, "texts": [1]})
    assert answer.status == 400
    assert answer.json() == {"error": "'texts[0]' must be a string, got a number", "error_type": "Validation"}
