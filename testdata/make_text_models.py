"""Makes three tiny models of texts, and the answers that they must give.

    python testdata/make_text_models.py

writes testdata/text_models/{tiny-embedder,tiny-reranker,tiny-classifier}, each a folder that is served as it is:
`1/model.onnx` (BERT-shaped: embeddings, one layer of attention, hidden size 16; random weights from a fixed seed),
`tokenizer.json` (WordPiece, trained here on the sentences below), `model.toml`, and `sample.json`, and
testdata/text_models/reference.json: texts with their token ids and answers. These are computed without our code: the
tokens by the few lines of `Tokenizer` here, the rest by ONNX Runtime and numpy. They mean nothing, being random, but they
are the same for everybody.

Needs python/requirements-models.txt.
"""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

FOLDER = Path(__file__).resolve().parent / "text_models"
OPSET = 17
IR_VERSION = 8

VOCABULARY = 320
HIDDEN = 16
HEADS = 2
INNER = 32
MAX_TOKENS = 64

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CORPUS = """
A model server answers questions that programs ask. It loads models, keeps them in memory and runs them. The cat sits on the
mat. A dog sleeps under the table and dreams of a long walk. Berlin is the capital of Germany, and Paris is the capital of
France. The weather is fine today, but tomorrow it may rain. I love this film: the story is wonderful and the actors are
great. I hate this film: the story is terrible and the actors are bad. How many people live in Berlin? Berlin has a population
of about three and a half million people. What does a cat eat? Cats eat fish and meat. Numbers such as 1, 2, 3, 4, 5, 6, 7, 8,
9 and 0 are read as they are written. The quick brown fox jumps over the lazy dog. Text goes in and meaning comes out. A row
of a request is answered as if it were alone. Paris has many museums, and the Louvre is the largest. The service was slow, the
food was cold, but the waiter was friendly. An embedding is a list of numbers that stands for the meaning of a text.
"""

TEXTS = {
    "tiny-embedder": ["The cat sits on the mat.", "A dog sleeps under the table!", "zebra?", "Berlin, Paris", "a" * 80],
    "tiny-classifier": ["I love this film", "I hate this film", "The weather is fine today.", "7"],
}
QUERY = "How many people live in Berlin?"
DOCUMENTS = ["Berlin has a population of about three and a half million people.", "Cats eat fish and meat.", "Paris has many museums."]
LABELS = ["negative", "neutral", "positive"]


# tokens --------------------------------------------------------------------------------------------------------------


def words(text):
    """Lower case, parted at spaces and punctuation, as BertPreTokenizer does for ASCII."""
    return re.findall(r"[a-z0-9]+|[^\sa-z0-9]", text.lower())


def train():
    """Merges the neighbours seen most often until the vocabulary is full, as WordPiece vocabularies are made."""
    seen = Counter(words(CORPUS))
    letters = sorted({letter for word in seen for letter in word} | set("abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'-()"))
    tokens = SPECIAL + letters + ["##" + letter for letter in letters if letter.isalnum()]
    parted = {word: [word[0], *("##" + letter for letter in word[1:])] for word in seen}
    while len(tokens) < VOCABULARY:
        pairs = Counter()
        for word, parts in parted.items():
            for pair in zip(parts, parts[1:]):
                pairs[pair] += seen[word]
        if not pairs:
            break
        # The first in order among those seen equally often, so that every run gives the same.
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merged = left + right.removeprefix("##")
        if merged not in tokens:
            tokens.append(merged)
        for parts in parted.values():
            place = 0
            while place + 1 < len(parts):
                if (parts[place], parts[place + 1]) == (left, right):
                    parts[place : place + 2] = [merged]
                place += 1
    return {token: index for index, token in enumerate(tokens)}


class Tokenizer:
    """What `tokenizer.json` says, in a few lines, for ASCII."""

    def __init__(self, vocabulary):
        self.vocabulary = vocabulary

    def pieces(self, word):
        """The longest known beginning first."""
        found, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in self.vocabulary:
                    found.append(self.vocabulary[piece])
                    start = end
                    break
            else:
                return [self.vocabulary["[UNK]"]]
        return found if len(word) <= 100 else [self.vocabulary["[UNK]"]]

    def encode(self, text, pair=None):
        """Ids and segments; a text that is too long loses its end."""
        parts = [[piece for word in words(each) for piece in self.pieces(word)] for each in (text, pair) if each is not None]
        special = 1 + len(parts)
        while sum(map(len, parts)) > MAX_TOKENS - special:
            max(parts, key=len).pop()
        ids, segments = [self.vocabulary["[CLS]"]], [0]
        for segment, part in enumerate(parts):
            ids += [*part, self.vocabulary["[SEP]"]]
            segments += [segment] * (len(part) + 1)
        return ids, segments

    def file(self):
        """The Hugging Face form."""

        def special(name):
            return {"SpecialToken": {"id": name, "type_id": 0}}

        def sequence(name, segment):
            return {"Sequence": {"id": name, "type_id": segment}}

        def token(name):
            return {"id": name, "ids": [self.vocabulary[name]], "tokens": [name]}

        ending = {"SpecialToken": {"id": "[SEP]", "type_id": 1}}
        single = [special("[CLS]"), sequence("A", 0), special("[SEP]")]
        return {
            "version": "1.0",
            "truncation": {"direction": "Right", "max_length": MAX_TOKENS, "strategy": "LongestFirst", "stride": 0},
            "padding": None,
            "added_tokens": [
                {
                    "id": self.vocabulary[name],
                    "content": name,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": True,
                }
                for name in SPECIAL
            ],
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": True,
                "strip_accents": None,
                "lowercase": True,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": single,
                "pair": [*single, sequence("B", 1), ending],
                "special_tokens": {name: token(name) for name in ("[CLS]", "[SEP]")},
            },
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": {
                "type": "WordPiece",
                "unk_token": "[UNK]",
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": self.vocabulary,
            },
        }


# graphs --------------------------------------------------------------------------------------------------------------


class Graph:
    """Nodes and weights, as PyTorch exports a BERT."""

    def __init__(self, seed, vocabulary):
        self.random = np.random.default_rng(seed)
        self.nodes, self.weights = [], []
        self.vocabulary = vocabulary

    def add(self, operator, inputs, output, **attributes):
        self.nodes.append(helper.make_node(operator, inputs.split(), [output], name=output, **attributes))
        return output

    def constant(self, name, array):
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, name, *shape, spread=0.4):
        # Three digits, so that the file says exactly what is meant.
        return self.constant(name, np.round(self.random.normal(0, spread, shape), 3).astype(np.float32))

    def linear(self, of, name, inner, outer, spread=0.4):
        self.weight(f"{name}.weight", inner, outer, spread=spread)
        self.weight(f"{name}.bias", outer, spread=0.1)
        self.add("MatMul", f"{of} {name}.weight", f"{name}.product")
        return self.add("Add", f"{name}.product {name}.bias", name)

    def norm(self, of, name):
        self.constant(f"{name}.gamma", np.ones(HIDDEN, np.float32))
        self.weight(f"{name}.beta", HIDDEN, spread=0.05)
        return self.add("LayerNormalization", f"{of} {name}.gamma {name}.beta", name, axis=-1, epsilon=1e-12)

    def embeddings(self):
        self.weight("words", self.vocabulary, HIDDEN, spread=1.0)
        self.weight("positions", 1, MAX_TOKENS, HIDDEN, spread=0.2)
        self.weight("segments", 2, HIDDEN, spread=0.2)
        for name, number in (("zero", [0]), ("one", [1])):
            self.constant(name, np.array(number, np.int64))
        self.constant("second", np.array(1, np.int64))
        self.add("Gather", "words input_ids", "words.rows", axis=0)
        self.add("Gather", "segments token_type_ids", "segments.rows", axis=0)
        self.add("Shape", "input_ids", "sizes")
        self.add("Gather", "sizes second", "length.scalar", axis=0)
        self.add("Unsqueeze", "length.scalar zero", "length")
        self.add("Slice", "positions zero length one", "positions.rows")
        self.add("Add", "words.rows segments.rows", "embedded")
        self.add("Add", "embedded positions.rows", "placed")
        return self.norm("placed", "embeddings")

    def attention(self, of):
        width = HIDDEN // HEADS
        self.constant("apart", np.array([0, 0, HEADS, width], np.int64))
        self.constant("together", np.array([0, 0, HIDDEN], np.int64))
        self.constant("axes", np.array([1, 2], np.int64))
        self.constant("whole", np.array(1, np.float32))
        self.constant("far", np.array(-10000, np.float32))
        self.constant("root", np.array(np.sqrt(width), np.float32))
        self.add("Unsqueeze", "attention_mask axes", "mask.wide")
        self.add("Cast", "mask.wide", "mask.float", to=TensorProto.FLOAT)
        self.add("Sub", "whole mask.float", "mask.inverse")
        self.add("Mul", "mask.inverse far", "mask")
        for name, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
            self.linear(of, name, HIDDEN, HIDDEN)
            self.add("Reshape", f"{name} apart", f"{name}.apart")
            self.add("Transpose", f"{name}.apart", f"{name}.heads", perm=order)
        self.add("MatMul", "query.heads key.heads", "scores.raw")
        self.add("Div", "scores.raw root", "scores.scaled")
        self.add("Add", "scores.scaled mask", "scores")
        self.add("Softmax", "scores", "attention", axis=-1)
        self.add("MatMul", "attention value.heads", "seen.heads")
        self.add("Transpose", "seen.heads", "seen.apart", perm=[0, 2, 1, 3])
        self.add("Reshape", "seen.apart together", "seen")
        self.linear("seen", "attended", HIDDEN, HIDDEN)
        self.add("Add", f"attended {of}", "attended.sum")
        return self.norm("attended.sum", "attended.norm")

    def encoder(self):
        attended = self.attention(self.embeddings())
        self.linear(attended, "inner", HIDDEN, INNER)
        # GELU by erf, as exporters write it.
        self.constant("sqrt2", np.array(np.sqrt(2), np.float32))
        self.constant("half", np.array(0.5, np.float32))
        self.add("Div", "inner sqrt2", "inner.scaled")
        self.add("Erf", "inner.scaled", "inner.erf")
        self.add("Add", "inner.erf whole", "inner.above")
        self.add("Mul", "inner inner.above", "inner.double")
        self.add("Mul", "inner.double half", "inner.gelu")
        self.linear("inner.gelu", "outer", INNER, HIDDEN)
        self.add("Add", f"outer {attended}", "outer.sum")
        return self.norm("outer.sum", "last_hidden_state")

    def head(self, classes):
        """The first token, through tanh, to classes."""
        self.constant("first", np.array(0, np.int64))
        self.add("Gather", "last_hidden_state first", "cls", axis=1)
        self.linear("cls", "pooled", HIDDEN, HIDDEN)
        self.add("Tanh", "pooled", "pooled.tanh")
        return self.linear("pooled.tanh", "logits", HIDDEN, classes, spread=1.0)

    def model(self, name, output):
        ids = ["input_ids", "attention_mask", "token_type_ids"]
        inputs = [helper.make_tensor_value_info(each, TensorProto.INT64, ["batch", "sequence"]) for each in ids]
        graph = helper.make_graph(self.nodes, name, inputs, [output], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = IR_VERSION
        model.producer_name = "outhaul/testdata/make_text_models.py"
        onnx.checker.check_model(model, full_check=True)
        return model


def floats(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def embedder(vocabulary):
    graph = Graph(1, vocabulary)
    graph.encoder()
    return graph.model("tiny-embedder", floats("last_hidden_state", "batch", "sequence", HIDDEN))


def with_head(name, seed, classes, vocabulary):
    graph = Graph(seed, vocabulary)
    graph.encoder()
    graph.head(classes)
    return graph.model(name, floats("logits", "batch", classes))


# answers -------------------------------------------------------------------------------------------------------------


class Runs:
    """One model under ONNX Runtime, one text at a time."""

    def __init__(self, model):
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def __call__(self, ids, segments):
        feed = {"input_ids": [ids], "attention_mask": [[1] * len(ids)], "token_type_ids": [segments]}
        return self.session.run(None, {name: np.array(rows, np.int64) for name, rows in feed.items()})[0][0].astype(np.float64)


def numbers(array):
    return [round(float(number), 7) for number in array]


def embeddings(run, tokenizer):
    for text in TEXTS["tiny-embedder"]:
        ids, segments = tokenizer.encode(text)
        mean = run(ids, segments).mean(axis=0)
        yield {"text": text, "ids": ids, "embedding": numbers(mean / np.linalg.norm(mean))}


def scores(run, tokenizer):
    for text in DOCUMENTS:
        ids, segments = tokenizer.encode(QUERY, text)
        (logit,) = run(ids, segments)
        yield {"query": QUERY, "text": text, "ids": ids, "score": round(float(1 / (1 + np.exp(-logit))), 7)}


def classes(run, tokenizer):
    for text in TEXTS["tiny-classifier"]:
        ids, segments = tokenizer.encode(text)
        powers = np.exp(run(ids, segments))
        probabilities = powers / powers.sum()
        label = LABELS[int(probabilities.argmax())]
        yield {"text": text, "ids": ids, "label": label, "probabilities": numbers(probabilities)}


# folders -------------------------------------------------------------------------------------------------------------

INPUT = 'input = { kind = "text", tokenizer = "tokenizer.json" }'
OUTPUTS = {
    "tiny-embedder": 'output = { kind = "embedding", pooling = "mean", normalize = true }',
    "tiny-reranker": 'output = { kind = "rerank" }',
    "tiny-classifier": f'output = {{ kind = "classification", labels = {json.dumps(LABELS)} }}',
}
SAMPLES = {
    "tiny-embedder": [{"text": text} for text in TEXTS["tiny-embedder"][:2]],
    "tiny-reranker": [{"query": QUERY, "text": text} for text in DOCUMENTS],
    "tiny-classifier": [{"text": text} for text in TEXTS["tiny-classifier"]],
}


def write_json(path, value):
    """Two levels are indented; what lies below stands on one line."""

    def text(value, level):
        marks = "{}" if isinstance(value, dict) else "[]"
        if level == 2 or not isinstance(value, dict | list) or not value:
            return json.dumps(value, ensure_ascii=False)
        keys = [json.dumps(key) + ": " for key in value] if marks == "{}" else [""] * len(value)
        items = value.values() if marks == "{}" else value
        lines = [" " * (level + 1) + key + text(item, level + 1) for key, item in zip(keys, items)]
        return marks[0] + "\n" + ",\n".join(lines) + "\n" + " " * level + marks[1]

    path.write_text(text(value, 0) + "\n")


def main():
    vocabulary = train()
    tokenizer = Tokenizer(vocabulary)
    size = len(vocabulary)
    models = {
        "tiny-embedder": embedder(size),
        "tiny-reranker": with_head("tiny-reranker", 2, 1, size),
        # The first seed but one whose answers to the texts above have all three labels.
        "tiny-classifier": with_head("tiny-classifier", 12, len(LABELS), size),
    }
    for name, model in models.items():
        folder = FOLDER / name
        (folder / "1").mkdir(parents=True, exist_ok=True)
        onnx.save(model, folder / "1" / "model.onnx")
        write_json(folder / "tokenizer.json", tokenizer.file())
        write_json(folder / "sample.json", SAMPLES[name])
        (folder / "model.toml").write_text(f"# Written by testdata/make_text_models.py.\n[transform]\n{INPUT}\n{OUTPUTS[name]}\n")
    reference = {
        "made_by": "testdata/make_text_models.py",
        "made_with": {"numpy": np.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
        "embeddings": list(embeddings(Runs(models["tiny-embedder"]), tokenizer)),
        "scores": list(scores(Runs(models["tiny-reranker"]), tokenizer)),
        "classes": list(classes(Runs(models["tiny-classifier"]), tokenizer)),
    }
    write_json(FOLDER / "reference.json", reference)


if __name__ == "__main__":
    main()
