"""Makes the example models, and BERT-shaped models of any size for benchmarks.

    python examples/make_models.py
        writes examples/models/{iris,digits,breast_cancer,iris_words}/1/model.onnx (committed, a few KB each), and flowers and
        digit_pictures, which are two of them for people; trained on
        the datasets that ship inside scikit-learn, and prints the accuracy of each on rows it was not trained on

    python examples/make_models.py bert --preset minilm --int8 --out PATH
        writes one encoder with random weights (not committed): the arithmetic of a real model, answers that mean nothing

Needs python/requirements-models.txt. Seeds are fixed: the same versions on the same machine write the same bytes.
All models are ONNX opset 17 or lower and IR version 8, old enough for any engine we know of, with the first dimension called `batch`.
"""

import argparse
import base64
import json
import logging
import math
import shutil
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPSET = 17  # the first with LayerNormalization
IR_VERSION = 8
MODELS_FOLDER = Path(__file__).resolve().parent / "models"
ROLLOUT_FOLDER = Path(__file__).parent / "rollout" / "models"
# A protobuf message cannot be larger than this; larger models need external data, which these scripts do not write.
PROTOBUF_LIMIT_BYTES = 2**31 - 1


class GraphBuilder:
    """Collects nodes and weights, naming every value, so that a model reads as a list of calls."""

    def __init__(self):
        self.nodes, self.initializers, self.counts = [], [], {}

    def weight(self, name, array):
        # `from_array` stores raw_data: little-endian bytes that an engine can use without decoding.
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, operator, *inputs, output=None, **attributes):
        count = self.counts[operator] = self.counts.get(operator, 0) + 1
        name = f"{operator}_{count}"
        self.nodes.append(helper.make_node(operator, inputs, [output or name], name=name, **attributes))
        return output or name

    def model(self, name, inputs, outputs, doc=""):
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.initializers, doc_string=doc)
        return finish(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)]))


def finish(model):
    """Gives every model the same IR version and producer."""
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "outhaul/examples/make_models.py", ""
    return model


def value(name, kind, *shape):
    return helper.make_tensor_value_info(name, kind, list(shape))


def save(model, path):
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def split(dataset):
    """(train x, test x, train y, test y): the same split everywhere, a quarter held out, each class in proportion."""
    from sklearn.model_selection import train_test_split

    return train_test_split(dataset.data, dataset.target, test_size=0.25, random_state=0, stratify=dataset.target)


# iris ---------------------------------------------------------------------------------------------------------------


def make_iris(path):
    """Logistic regression written with standard operators, so that every engine runs it.

    (skl2onnx would write ai.onnx.ml LinearClassifier, which the embedded engine does not have.)
    """
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    train_x, test_x, train_y, test_y = split(load_iris())
    classifier = LogisticRegression(max_iter=1000).fit(train_x, train_y)
    write_iris(classifier, path)
    label, probabilities = session(path).run(["label", "probabilities"], {"X": test_x.astype(np.float32)})
    np.testing.assert_allclose(probabilities, classifier.predict_proba(test_x), atol=1e-5)
    return float(np.mean(label == test_y))


def write_iris(classifier, path):
    graph = GraphBuilder()
    weights = graph.weight("weights", classifier.coef_.T.astype(np.float32))  # [feature, class]
    bias = graph.weight("bias", classifier.intercept_.astype(np.float32))  # [class]
    scores = graph.node("Gemm", "X", weights, bias)
    graph.node("ArgMax", scores, output="label", axis=1, keepdims=0)
    graph.node("Softmax", scores, output="probabilities", axis=1)
    model = graph.model(
        "iris",
        [value("X", TensorProto.FLOAT, "batch", 4)],
        [value("label", TensorProto.INT64, "batch"), value("probabilities", TensorProto.FLOAT, "batch", 3)],
        doc="Fisher's iris. X: sepal length, sepal width, petal length, petal width in cm. "
        "label: 0 setosa, 1 versicolor, 2 virginica.",
    )
    save(model, path)


def make_rollout(folder):
    """Three versions of iris for the guide's roll-outs: the first, one trained anew, one whose classes were mixed up."""
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    train_x, test_x, train_y, test_y = split(load_iris())
    mixed_up = (train_y + 1) % 3
    versions = {1: (1.0, train_y), 2: (0.8, train_y), 3: (1.0, mixed_up)}
    for version, (strength, labels) in versions.items():
        path = folder / "iris" / str(version) / "model.onnx"
        write_iris(LogisticRegression(C=strength, max_iter=1000).fit(train_x, labels), path)
        (label,) = session(path).run(["label"], {"X": test_x.astype(np.float32)})
        print(f"rollout iris {version} held-out accuracy {np.mean(label == test_y):.3f}")


# digits -------------------------------------------------------------------------------------------------------------


class Convolution:
    """3x3 convolution, padding 1, with the gradient; [batch, channel, row, column]."""

    def __init__(self, rng, channels_in, channels_out):
        self.weights = rng.normal(0, math.sqrt(2 / (9 * channels_in)), (channels_out, channels_in, 3, 3))
        self.bias = np.zeros(channels_out)

    def forward(self, x):
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        self.windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))  # [b, c, r, k, 3, 3]
        return np.einsum("bcrkij,ocij->bork", self.windows, self.weights, optimize=True) + self.bias[:, None, None]

    def backward(self, gradient):
        self.gradients = [np.einsum("bork,bcrkij->ocij", gradient, self.windows, optimize=True), gradient.sum((0, 2, 3))]
        padded = np.pad(gradient, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        return np.einsum("borkij,ocij->bcrk", windows, self.weights[:, :, ::-1, ::-1], optimize=True)


class ReluMaxPool:
    """Relu, then the largest of each 2x2 square."""

    def forward(self, x):
        b, c, rows, columns = x.shape
        squares = x.reshape(b, c, rows // 2, 2, columns // 2, 2).transpose(0, 1, 2, 4, 3, 5)
        self.squares = squares.reshape(b, c, rows // 2, columns // 2, 4)
        self.winner = self.squares.argmax(-1)[..., None]
        return np.maximum(np.take_along_axis(self.squares, self.winner, -1)[..., 0], 0)

    def backward(self, gradient):
        b, c, rows, columns = gradient.shape
        positive = np.take_along_axis(self.squares, self.winner, -1) > 0
        squares = np.zeros_like(self.squares)
        np.put_along_axis(squares, self.winner, gradient[..., None] * positive, -1)
        return squares.reshape(b, c, rows, columns, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(b, c, 2 * rows, 2 * columns)


class Linear:
    """Flattens, then multiplies and adds."""

    def __init__(self, rng, width_in, width_out):
        self.weights, self.bias = rng.normal(0, math.sqrt(1 / width_in), (width_in, width_out)), np.zeros(width_out)

    def forward(self, x):
        self.shape, self.flat = x.shape, x.reshape(len(x), -1)
        return self.flat @ self.weights + self.bias

    def backward(self, gradient):
        self.gradients = [self.flat.T @ gradient, gradient.sum(0)]
        return (gradient @ self.weights.T).reshape(self.shape)


def train_digits(x, y, epochs=40, batch=64):
    """Trains conv-relu-pool, conv-relu-pool, linear with Adam (Kingma and Ba 2015, algorithm 1) on cross entropy."""
    rng = np.random.default_rng(0)
    layers = [Convolution(rng, 1, 8), ReluMaxPool(), Convolution(rng, 8, 16), ReluMaxPool(), Linear(rng, 64, 10)]
    learnt = [layer for layer in layers if hasattr(layer, "weights")]
    parameters = [array for layer in learnt for array in (layer.weights, layer.bias)]
    first, second, step = [np.zeros_like(p) for p in parameters], [np.zeros_like(p) for p in parameters], 0
    for epoch in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x), batch):
            rows = order[start : start + batch]
            scores = x[rows]
            for layer in layers:
                scores = layer.forward(scores)
            exponents = np.exp(scores - scores.max(1, keepdims=True))
            gradient = exponents / exponents.sum(1, keepdims=True)
            gradient[np.arange(len(rows)), y[rows]] -= 1
            gradient /= len(rows)
            for layer in reversed(layers):
                gradient = layer.backward(gradient)
            step += 1
            rate = 3e-3 * (1 - epoch / epochs) * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            for i, g in enumerate(g for layer in learnt for g in layer.gradients):
                first[i] = 0.9 * first[i] + 0.1 * g
                second[i] = 0.999 * second[i] + 0.001 * g * g
                parameters[i] -= rate * first[i] / (np.sqrt(second[i]) + 1e-8)
    return learnt


def make_digits(path):
    from sklearn.datasets import load_digits

    train_x, test_x, train_y, test_y = split(load_digits())
    train_x, test_x = train_x.reshape(-1, 1, 8, 8), test_x.reshape(-1, 1, 8, 8)
    first, second, head = train_digits(train_x / 16, train_y)

    graph = GraphBuilder()
    hidden = "image"
    # The division by 16 moves into the first weights, so that callers send pixels as the dataset has them.
    for i, (weights, bias) in enumerate([(first.weights / 16, first.bias), (second.weights, second.bias)], start=1):
        weights = graph.weight(f"conv{i}_weights", weights.astype(np.float32))
        bias = graph.weight(f"conv{i}_bias", bias.astype(np.float32))
        hidden = graph.node("Conv", hidden, weights, bias, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        hidden = graph.node("Relu", hidden)
        hidden = graph.node("MaxPool", hidden, kernel_shape=[2, 2], strides=[2, 2])
    hidden = graph.node("Flatten", hidden, axis=1)
    weights = graph.weight("head_weights", head.weights.astype(np.float32))
    scores = graph.node("Gemm", hidden, weights, graph.weight("head_bias", head.bias.astype(np.float32)))
    graph.node("Softmax", scores, output="probabilities", axis=1)
    model = graph.model(
        "digits",
        [value("image", TensorProto.FLOAT, "batch", 1, 8, 8)],
        [value("probabilities", TensorProto.FLOAT, "batch", 10)],
        doc="Handwritten digits. image: [channel, row, column], ink from 0 to 16. probabilities: one per digit 0..9.",
    )
    save(model, path)
    (probabilities,) = session(path).run(None, {"image": test_x.astype(np.float32)})
    return float(np.mean(probabilities.argmax(1) == test_y))


# breast_cancer and iris_words, through skl2onnx ---------------------------------------------------------------------


def convert(classifier, name, input_name, input_type, doc):
    """skl2onnx's graph with our names: outputs `label` and `probabilities`, `batch` on every first dimension."""
    from skl2onnx import convert_sklearn

    model = convert_sklearn(
        classifier,
        name,
        initial_types=[(input_name, input_type)],
        target_opset={"": OPSET, "ai.onnx.ml": 3},
        options={"zipmap": False},
    )
    assert [output.name for output in model.graph.output] == ["label", "probabilities"]
    for tensor in [*model.graph.input, *model.graph.output]:
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"
    model.graph.doc_string = doc
    return finish(model)


def make_breast_cancer(path):
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import GradientBoostingClassifier

    train_x, test_x, train_y, test_y = split(load_breast_cancer())
    # Trees compare in FP32 once exported; train on the same numbers so that no row falls on the other side of a split.
    train_x, test_x = train_x.astype(np.float32), test_x.astype(np.float32)
    classifier = GradientBoostingClassifier(n_estimators=60, max_depth=3, random_state=0).fit(train_x, train_y)
    doc = "Wisconsin breast cancer. X: the 30 measurements in the dataset's order. label: 0 malignant, 1 benign."
    save(convert(classifier, "breast_cancer", "X", FloatTensorType([None, 30]), doc), path)
    label, probabilities = session(path).run(["label", "probabilities"], {"X": test_x})
    np.testing.assert_allclose(probabilities, classifier.predict_proba(test_x), atol=1e-5)
    return float(np.mean(label == test_y))


IRIS_WORDS = ["short", "medium", "long"]


def words(measurements, thirds):
    """Each measurement as a word, by the thirds of its column."""
    columns = [np.digitize(column, third) for column, third in zip(measurements.T, thirds.T, strict=True)]
    return np.array(IRIS_WORDS, dtype=object)[np.stack(columns, axis=1)]


def make_iris_words(path):
    from skl2onnx.common.data_types import StringTensorType
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    dataset = load_iris()
    train_x, test_x, train_y, test_y = split(dataset)
    thirds = np.quantile(train_x, [1 / 3, 2 / 3], axis=0)
    train_x, test_x = words(train_x, thirds), words(test_x, thirds)
    train_y, test_y = dataset.target_names[train_y].astype(object), dataset.target_names[test_y].astype(object)
    # An unknown word counts as no word: `handle_unknown` must not make a caller's typo an engine failure.
    encoder = OneHotEncoder(categories=[IRIS_WORDS] * 4, handle_unknown="ignore")
    classifier = make_pipeline(encoder, LogisticRegression(max_iter=1000)).fit(train_x, train_y)
    doc = (
        "Fisher's iris in words. words: sepal length, sepal width, petal length, petal width, each short, medium or long. "
        "label: setosa, versicolor or virginica."
    )
    save(convert(classifier, "iris_words", "words", StringTensorType([None, 4]), doc), path)
    label, probabilities = session(path).run(["label", "probabilities"], {"words": test_x})
    np.testing.assert_allclose(probabilities, classifier.predict_proba(test_x), atol=1e-5)
    return float(np.mean(label == test_y))


def make_examples(folder):
    makers = {"iris": make_iris, "digits": make_digits, "breast_cancer": make_breast_cancer, "iris_words": make_iris_words}
    for name, make in makers.items():
        path = folder / name / "1" / "model.onnx"
        accuracy = make(path)
        print(f"{name:14} {path.stat().st_size:7,} bytes  held-out accuracy {accuracy:.3f}")
    make_flowers(folder)
    make_digit_pictures(folder)


# The same models for people: named columns and pictures in, labels out -----------------------------------------------


def make_flowers(folder):
    """iris with its columns' names and its classes' names."""
    copy_model(folder / "iris", folder / "flowers")
    columns = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    rows = [[5.1, 3.5, 1.4, 0.2], [6.1, 2.8, 4.0, 1.3], [6.9, 3.1, 5.4, 2.1]]
    (folder / "flowers" / "model.toml").write_text(f"""\
# iris, asked by the names of its columns (in cm) and answered with the names of its classes.
[transform]
input  = {{ kind = "rows", columns = {json.dumps(columns)} }}
output = {{ kind = "classification", output = "probabilities", activation = "none", labels = ["setosa", "versicolor", "virginica"] }}
""")
    write_sample(folder / "flowers", [dict(zip(columns, row)) for row in rows])


def make_digit_pictures(folder):
    """digits, asked with a picture of white ink on black."""
    from sklearn.datasets import load_digits

    copy_model(folder / "digits", folder / "digit_pictures")
    (folder / "digit_pictures" / "model.toml").write_text("""\
# digits, asked with a picture: white ink on black, any size. The model wants ink from 0 to 16.
[transform]
input  = { kind = "image", channels = "gray", scale = 0.06274509803921569 }
output = { kind = "classification", activation = "none" }
""")
    images = load_digits().images[[0, 3, 27]]
    pictures = [np.kron(np.minimum(image / 16 * 255, 255).astype(np.uint8), np.ones((8, 8), np.uint8)) for image in images]
    write_sample(folder / "digit_pictures", [{"image": {"b64": base64.b64encode(png(picture)).decode()}} for picture in pictures])


def copy_model(source, target):
    (target / "1").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / "1" / "model.onnx", target / "1" / "model.onnx")


def write_sample(folder, rows):
    (folder / "sample.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def png(picture):
    """A PNG file of a picture `[row, column]` of bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = picture.shape
    lines = b"".join(b"\0" + line.tobytes() for line in picture)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")


# BERT-shaped encoders -----------------------------------------------------------------------------------------------

PRESETS = {
    # The shape of all-MiniLM-L6-v2 and of bert-base-uncased.
    "minilm": dict(layers=6, hidden=384, heads=12, intermediate=1536, vocab=30522, max_position=512),
    "bert-base": dict(layers=12, hidden=768, heads=12, intermediate=3072, vocab=30522, max_position=512),
    # Nine tenths of its bytes are MatMul weights, which engines re-pack at load: the case that shows whether copies of a
    # model share them.
    "weights-250mb": dict(layers=8, hidden=768, heads=12, intermediate=3072, vocab=8000, max_position=512),
}


def bert_model(layers, hidden, heads, intermediate, vocab, max_position, seed=0):
    """An encoder as `transformers` exports BERT, with mean pooling over the tokens that the mask keeps.

    Post-norm layers, Gelu in its Erf form, weights drawn from N(0, 0.02) as BERT starts out.
    Comments give shapes; b batch, s sequence, d hidden, h heads.
    """
    if hidden % heads:
        raise SystemExit(f"--hidden {hidden} is not a multiple of --heads {heads}")
    rng = np.random.default_rng(seed)
    graph = GraphBuilder()
    head_width = hidden // heads

    def constant(name, array, kind=np.float32):
        return graph.weight(name, np.array(array, dtype=kind))

    def random(name, *shape):
        return graph.weight(name, rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02))

    def linear(name, x, width_in, width_out):
        product = graph.node("MatMul", x, random(f"{name}.weight", width_in, width_out))
        return graph.node("Add", product, random(f"{name}.bias", width_out))

    def layer_norm(name, x):
        scale = graph.weight(f"{name}.scale", np.ones(hidden, np.float32))
        return graph.node("LayerNormalization", x, scale, random(f"{name}.bias", hidden), axis=-1, epsilon=1e-12)

    zero, one, two = (constant(f"index_{i}", [i], np.int64) for i in (0, 1, 2))
    one_and_two = constant("axes_1_2", [1, 2], np.int64)
    head_shape = constant("head_shape", [0, 0, heads, head_width], np.int64)  # 0 keeps the dimension
    hidden_shape = constant("hidden_shape", [0, 0, hidden], np.int64)
    half, unit, root_two = constant("half", 0.5), constant("unit", 1.0), constant("root_two", math.sqrt(2))
    attention_scale = constant("attention_scale", 1 / math.sqrt(head_width))
    masked_score = constant("masked_score", -10000.0)

    def attention(name, x, mask):
        def head_view(part, order):
            split_heads = graph.node("Reshape", linear(f"{name}.{part}", x, hidden, hidden), head_shape)
            return graph.node("Transpose", split_heads, perm=order)

        query, keys = head_view("query", [0, 2, 1, 3]), head_view("key", [0, 2, 3, 1])  # [b, h, s, w], [b, h, w, s]
        scores = graph.node("Mul", graph.node("MatMul", query, keys), attention_scale)  # [b, h, s, s]
        shares = graph.node("Softmax", graph.node("Add", scores, mask), axis=-1)
        mixed = graph.node("MatMul", shares, head_view("value", [0, 2, 1, 3]))
        joined = graph.node("Reshape", graph.node("Transpose", mixed, perm=[0, 2, 1, 3]), hidden_shape)  # [b, s, d]
        return linear(f"{name}.output", joined, hidden, hidden)

    def gelu(x):
        erf = graph.node("Erf", graph.node("Div", x, root_two))
        return graph.node("Mul", graph.node("Mul", x, graph.node("Add", erf, unit)), half)

    positions = graph.node("Slice", random("position_table", max_position, hidden), zero,
                           graph.node("Shape", "input_ids", start=1, end=2), zero)  # [s, d]
    embedded = graph.node("Add", graph.node("Gather", random("word_table", vocab, hidden), "input_ids"),
                          graph.node("Gather", random("type_table", 2, hidden), "token_type_ids"))
    x = layer_norm("embeddings", graph.node("Add", embedded, positions))  # [b, s, d]

    kept = graph.node("Cast", "attention_mask", to=TensorProto.FLOAT)  # [b, s]
    dropped = graph.node("Sub", unit, graph.node("Unsqueeze", kept, one_and_two))
    mask = graph.node("Mul", dropped, masked_score)  # [b, 1, 1, s]
    for i in range(layers):
        x = layer_norm(f"layer{i}.attention", graph.node("Add", x, attention(f"layer{i}.attention", x, mask)))
        wide = gelu(linear(f"layer{i}.up", x, hidden, intermediate))
        x = layer_norm(f"layer{i}.output", graph.node("Add", x, linear(f"layer{i}.down", wide, intermediate, hidden)))

    kept = graph.node("Unsqueeze", kept, two)  # [b, s, 1]
    total = graph.node("ReduceSum", graph.node("Mul", x, kept), one, keepdims=0)  # [b, d]
    count = graph.node("Max", graph.node("ReduceSum", kept, one, keepdims=0), constant("smallest_count", 1e-9))
    graph.node("Div", total, count, output="embedding")

    tokens = [value(name, TensorProto.INT64, "batch", "sequence")
              for name in ("input_ids", "attention_mask", "token_type_ids")]
    return graph.model("bert", tokens, [value("embedding", TensorProto.FLOAT, "batch", hidden)],
                       doc="BERT-shaped encoder with random weights, for measuring speed and memory.")


def quantise(model, path, per_channel):
    """Dynamic quantisation as ONNX Runtime does it: INT8 weights, activations scaled at run time."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # It advises shape inference beforehand for every model; these have all the shapes it needs.
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        full = Path(folder) / "full.onnx"
        full.write_bytes(model.SerializeToString())
        quantize_dynamic(full, path, per_channel=per_channel, weight_type=QuantType.QInt8)
    quantised = finish(onnx.load(path))
    # The quantiser leaves an import of ai.onnx.ml that nothing uses.
    used = {node.domain for node in quantised.graph.node}
    imports = [entry for entry in quantised.opset_import if entry.domain in used]
    del quantised.opset_import[:]
    quantised.opset_import.extend(imports)
    return quantised


def check_bert(path, hidden, vocab, max_position):
    """Runs two lengths; padding that the mask drops must not change the embedding."""
    encoder = session(path)
    rng = np.random.default_rng(1)
    length = min(16, max_position // 2)
    ids = rng.integers(0, vocab, (2, length), dtype=np.int64)
    feeds = dict(input_ids=ids, attention_mask=np.ones_like(ids), token_type_ids=np.zeros_like(ids))
    padded = {name: np.pad(array, ((0, 0), (0, length))) for name, array in feeds.items()}
    (short,), (long,) = encoder.run(None, feeds), encoder.run(None, padded)
    assert short.shape == long.shape == (2, hidden), (short.shape, long.shape)
    assert np.isfinite(short).all()
    return float(np.abs(short - long).max())


def make_bert(arguments):
    shape = dict(PRESETS[arguments.preset])
    shape.update({key: getattr(arguments, key) for key in shape if getattr(arguments, key) is not None})
    if arguments.hidden is not None and arguments.intermediate is None:
        shape["intermediate"] = 4 * arguments.hidden
    model = bert_model(**shape, seed=arguments.seed)
    weight_bytes = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if weight_bytes > PROTOBUF_LIMIT_BYTES:
        raise SystemExit(f"the weights would take {weight_bytes:,} bytes; one ONNX file holds {PROTOBUF_LIMIT_BYTES:,}")
    path = Path(arguments.out)
    if path.suffix != ".onnx":
        path = path / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    if arguments.int8:
        model = quantise(model, path, arguments.per_channel)
    path.write_bytes(model.SerializeToString(deterministic=True))
    difference = check_bert(path, shape["hidden"], shape["vocab"], shape["max_position"])
    kind = "int8" if arguments.int8 else "fp32"
    print(f"{path}  {kind}  {path.stat().st_size:,} bytes  {shape}")
    # In int8 this is not rounding: DynamicQuantizeLinear takes one scale over the whole tensor, padding included.
    print(f"padding changed the embedding by at most {difference:.2g}")
    if not arguments.int8 and difference > 1e-4:
        raise SystemExit("masked tokens changed the answer")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command")
    bert = commands.add_parser("bert", help="write a BERT-shaped encoder with random weights")
    bert.add_argument("--out", required=True, help="a file ending in .onnx, or a folder to write 1/model.onnx in")
    bert.add_argument("--preset", choices=PRESETS, default="minilm", help="shape to start from (default %(default)s)")
    bert.add_argument("--layers", type=int, help="encoder layers")
    bert.add_argument("--hidden", type=int, help="width of a token")
    bert.add_argument("--heads", type=int, help="attention heads; must divide the width")
    bert.add_argument("--intermediate", type=int, help="width of the feed-forward layer (four times --hidden if that is given)")
    bert.add_argument("--vocab", type=int, help="rows of the word table")
    bert.add_argument("--max-position", type=int, help="longest sequence")
    bert.add_argument("--int8", action="store_true", help="quantise dynamically: INT8 weights")
    bert.add_argument("--per-channel", action="store_true", help="with --int8, one scale per output column")
    bert.add_argument("--seed", type=int, default=0, help="of the random weights (default %(default)s)")
    arguments = parser.parse_args()
    if arguments.command == "bert" and arguments.per_channel and not arguments.int8:
        bert.error("--per-channel needs --int8")
    return arguments


def main():
    arguments = parse_arguments()
    if arguments.command == "bert":
        make_bert(arguments)
    else:
        make_examples(MODELS_FOLDER)
        make_rollout(ROLLOUT_FOLDER)


if __name__ == "__main__":
    main()
