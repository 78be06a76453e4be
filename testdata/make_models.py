"""Makes the models and reference answers that every engine is held to.

    python testdata/make_models.py

writes testdata/models/*.onnx (small, committed), testdata/reference/*.json (inputs, and the outputs that ONNX Runtime
computes for them) and testdata/README.md (what each model is for). Reference answers of the example models are written
too, so run examples/make_models.py first.

Every answer is also compared with `onnx.reference`, the slow evaluator of the ONNX project, so that a fault of ONNX
Runtime does not become our reference unseen. Every file that should be refused is offered to ONNX Runtime to see that it
is. Needs python/requirements-models.txt.
"""

import ctypes
import json
import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx.reference
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
FOLDER = Path(__file__).resolve().parent
EXAMPLES = "../examples/models"

# Open Inference Protocol data type -> ONNX element type, numpy type.
DATA_TYPES = {
    "BOOL": (TensorProto.BOOL, np.bool_),
    "UINT8": (TensorProto.UINT8, np.uint8),
    "UINT16": (TensorProto.UINT16, np.uint16),
    "UINT32": (TensorProto.UINT32, np.uint32),
    "UINT64": (TensorProto.UINT64, np.uint64),
    "INT8": (TensorProto.INT8, np.int8),
    "INT16": (TensorProto.INT16, np.int16),
    "INT32": (TensorProto.INT32, np.int32),
    "INT64": (TensorProto.INT64, np.int64),
    "FP16": (TensorProto.FLOAT16, np.float16),
    "BF16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    "FP32": (TensorProto.FLOAT, np.float32),
    "FP64": (TensorProto.DOUBLE, np.float64),
    "BYTES": (TensorProto.STRING, np.object_),
}
NUMPY_TO_NAME = {np.dtype(kind): name for name, (_, kind) in DATA_TYPES.items()}


@dataclass
class Tolerance:
    """How far another engine's answer may be from ONNX Runtime's: |a - b| <= absolute + relative * |b|."""

    reason: str
    absolute: float = 0.0
    relative: float = 0.0


EXACT_COPY = Tolerance("values are only copied")
EXACT_INTEGERS = Tolerance("integer arithmetic is exact")
EXACT_FLOATS = Tolerance("inputs are chosen so that every step is exactly representable")
SUM_ORDER = Tolerance("a sum of floats depends on the order of its terms", absolute=1e-6, relative=1e-6)
EXP_AND_ORDER = Tolerance("exp and the order of a sum differ between implementations", absolute=1e-6, relative=1e-5)


@dataclass
class Served:
    """A model that must answer; `cases` are named feeds."""

    purpose: str
    model: onnx.ModelProto | str  # a path where the file is made elsewhere
    cases: dict[str, dict[str, np.ndarray]]
    tolerance: Tolerance


@dataclass
class Unanswered:
    """A file without reference answers: refused at load, or (when `loads`) loaded by ONNX Runtime but of no use to a caller."""

    purpose: str
    contents: bytes
    loads: bool = False


# building models ----------------------------------------------------------------------------------------------------


def value(name, kind, *shape):
    return helper.make_tensor_value_info(name, kind, list(shape))


def floats(name, *shape):
    return value(name, TensorProto.FLOAT, *shape)


def constant(name, array):
    return numpy_helper.from_array(np.ascontiguousarray(array) if np.ndim(array) else np.asarray(array), name)


def node(operator, inputs, outputs, **attributes):
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def model(name, nodes, inputs, outputs, constants=(), opsets=()):
    graph = helper.make_graph(nodes, name, inputs, outputs, list(constants))
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET), *opsets])
    built.ir_version = IR_VERSION
    built.producer_name = "outhaul/testdata/make_models.py"
    return built


def f32(values):
    return np.array(values, dtype=np.float32)


def i64(values):
    return np.array(values, dtype=np.int64)


# models that answer -------------------------------------------------------------------------------------------------


def extremes(name):
    """[2, 3] of one data type, with the ends of its range."""
    kind = DATA_TYPES[name][1]
    if name == "BOOL":
        return np.array([[True, False, True], [False, False, True]])
    if name == "BYTES":
        # Empty, several bytes per character, a null character, quotes; all UTF-8, because JSON must hold them.
        return np.array([["outhaul", "", "grüße"], ["日本語", "a\x00b", '"quoted" \\ line\n']], dtype=object)
    if name in ("FP16", "BF16", "FP32", "FP64"):
        limits = ml_dtypes.finfo(kind)
        # Largest, smallest normal, smallest subnormal, negative zero, and a value that a narrower type would round.
        values = [limits.max, limits.min, limits.smallest_normal, limits.smallest_subnormal, -0.0, 1 + float(limits.eps)]
    else:
        limits = np.iinfo(kind)
        values = [limits.min, limits.max, 0, 1, limits.max - 1, limits.max // 2]
    return np.array([kind(v) for v in values], dtype=kind).reshape(2, 3)


def identity(name):
    element, kind = DATA_TYPES[name]
    x, y = value("x", element, "batch", "n"), value("y", element, "batch", "n")
    rows = extremes(name)
    return Served(
        f"{name} goes in and comes out unchanged, {'empty, null and multi-byte' if name == 'BYTES' else 'ends of its range'} "
        "included; both dimensions vary",
        model(f"identity_{name.lower()}", [node("Identity", "x", "y")], [x], [y]),
        {"two rows": {"x": rows}, "one value": {"x": rows[:1, :1]}, "no rows": {"x": rows[:0]}, "no columns": {"x": rows[:, :0]}},
        EXACT_COPY,
    )


def int8_mlp(rng):
    """Dynamically quantised 8 -> 16 -> 4; rows share the scale that DynamicQuantizeLinear takes over the whole batch."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    def random(name, *shape):
        return constant(name, f32(np.round(rng.normal(0, 0.5, shape), 3)))

    full = model(
        "int8_mlp",
        [
            node("MatMul", "x w1", "product1", name="first"),
            node("Add", "product1 b1", "hidden"),
            node("Relu", "hidden", "positive"),
            node("MatMul", "positive w2", "product2", name="second"),
            node("Add", "product2 b2", "y"),
        ],
        [floats("x", "batch", 8)],
        [floats("y", "batch", 4)],
        [random("w1", 8, 16), random("b1", 16), random("w2", 16, 4), random("b2", 4)],
    )
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "full.onnx", Path(folder) / "int8.onnx"
        onnx.save(full, source)
        # 7-bit weights: on processors without VNNI the 8-bit product saturates, and the answer would depend on the machine.
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, reduce_range=True)
        quantised = onnx.load(target)
    quantised.ir_version, quantised.producer_name = IR_VERSION, "outhaul/testdata/make_models.py"
    del quantised.opset_import[:], quantised.metadata_props[:]
    quantised.opset_import.append(helper.make_opsetid("", OPSET))

    rows = f32(np.round(rng.normal(0, 1, (4, 8)), 3))
    rows[3] *= 10  # stretches the shared scale, so that the other rows answer otherwise than alone
    cases = {"four rows": {"x": rows}, "first row alone": {"x": rows[:1]}, "last row alone": {"x": rows[3:]}}
    check_no_rounding_ties(quantised, cases)
    return Served(
        "DynamicQuantizeLinear and MatMulInteger: a row's answer depends on the rows beside it (compare the cases), so this "
        "model must not be batched by default",
        quantised,
        cases,
        Tolerance("integer products are exact and no activation lies near a rounding tie; only the float scales round",
                  absolute=1e-5, relative=1e-5),
    )


def check_no_rounding_ties(quantised, cases):
    """Sees that no quantised activation is so near to a half that another engine's last bit could round it elsewhere."""
    exposed = onnx.ModelProto.FromString(quantised.SerializeToString())
    quantisers = [n for n in exposed.graph.node if n.op_type == "DynamicQuantizeLinear"]
    assert len(quantisers) == 2, [n.op_type for n in exposed.graph.node]
    known = {tensor.name for tensor in [*exposed.graph.input, *exposed.graph.output]}
    wanted = {name for n in quantisers for name in (n.input[0], n.output[1])} - known
    exposed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in sorted(wanted))
    running = open_session(exposed.SerializeToString())
    names = [output.name for output in running.get_outputs()]
    for feeds in cases.values():
        values = dict(zip(names, running.run(None, feeds), strict=True)) | feeds
        for n in quantisers:
            scaled = values[n.input[0]] / values[n.output[1]]
            assert np.abs(np.abs(scaled % 1) - 0.5).min() > 1e-4, "choose another seed"


def loop_and_if():
    """y = 4x when the sum of x is positive, else -4x, with the fourfold by a Loop and the sign by an If."""
    unknown = floats("body_sum", None, None)
    body = helper.make_graph(
        [node("Identity", "go", "still_go"), node("Add", "sum x", "body_sum")],
        "body",
        [value("turn", TensorProto.INT64), value("go", TensorProto.BOOL), floats("sum", None, None)],
        [value("still_go", TensorProto.BOOL), unknown],
    )
    keep = helper.make_graph([node("Identity", "fourfold", "kept")], "keep", [], [floats("kept", None, None)])
    negate = helper.make_graph([node("Neg", "fourfold", "negated")], "negate", [], [floats("negated", None, None)])
    nodes = [
        node("Loop", "turns start x", "fourfold", body=body),
        node("ReduceSum", "x", "total", keepdims=0),
        node("Greater", "total zero", "positive"),
        node("If", "positive", "y", then_branch=keep, else_branch=negate),
    ]
    constants = [constant("turns", i64(3)), constant("start", np.array(True)), constant("zero", f32(0))]
    return model("loop_if", nodes, [floats("x", "batch", 3)], [floats("y", "batch", 3)], constants)


def served_models():
    rng = np.random.default_rng(0)
    row3 = floats("x", "batch", 3)
    rows = f32([[1, 2, 3], [-4, 5.5, 6], [0.25, -8, 9]])

    models = {f"identity_{name.lower()}": identity(name) for name in DATA_TYPES}
    models["scalar"] = Served(
        "rank 0 in and out: y = 2x + 1; the shape is [] and there is no batch dimension",
        model("scalar", [node("Mul", "x two", "double"), node("Add", "double one", "y")], [floats("x")], [floats("y")],
              [constant("two", f32(2)), constant("one", f32(1))]),
        {"three": {"x": f32(3)}, "negative": {"x": f32(-0.5)}},
        EXACT_FLOATS,
    )
    models["no_batch"] = Served(
        "a vector of exactly 3 in, its sum out as a scalar: nothing to batch along",
        model("no_batch", [node("ReduceSum", "x", "y", keepdims=0)], [floats("x", 3)], [floats("y")]),
        {"sum": {"x": f32([1, 2, 3.5])}},
        EXACT_FLOATS,
    )
    models["fixed_batch"] = Served(
        "shape [2, 3] exactly: one row or three must be refused, or filled up and cut, never sent as they are",
        model("fixed_batch", [node("Mul", "x two", "y")], [floats("x", 2, 3)], [floats("y", 2, 3)], [constant("two", f32(2))]),
        {"two rows": {"x": rows[:2]}},
        EXACT_FLOATS,
    )
    models["add_row"] = Served(
        "y = x + [1, 10, 100, 1000]: the plainest model that batches",
        model("add_row", [node("Add", "x row", "y")], [floats("x", "batch", 4)], [floats("y", "batch", 4)],
              [constant("row", f32([1, 10, 100, 1000]))]),
        {"one row": {"x": f32([[1, 2, 3, 4]])}, "two rows": {"x": f32([[0, 0, 0, 0], [-1, -10, -100, -1000]])},
         "no rows": {"x": np.zeros((0, 4), np.float32)}},
        EXACT_FLOATS,
    )
    models["two_inputs"] = Served(
        "two inputs, two outputs (sum, difference): order and names, and asking for one output by name",
        model("two_inputs", [node("Add", "a b", "sum"), node("Sub", "a b", "difference")],
              [floats("a", "batch", 3), floats("b", "batch", 3)], [floats("sum", "batch", 3), floats("difference", "batch", 3)]),
        {"three rows": {"a": rows, "b": rows[::-1]}, "one row": {"a": rows[:1], "b": rows[1:2]}},
        EXACT_FLOATS,
    )
    models["sequence"] = Served(
        "INT64 tokens [batch, seq] -> Gather -> mean over seq -> [batch, 8]: two varying dimensions; padding seq would change "
        "the answer; a token outside -16..15 fails at run",
        model("sequence", [node("Gather", "table tokens", "embedded"), node("ReduceMean", "embedded", "y", axes=[1], keepdims=0)],
              [value("tokens", TensorProto.INT64, "batch", "seq")], [floats("y", "batch", 8)],
              [constant("table", f32(np.round(rng.normal(0, 1, (16, 8)), 3)))]),
        {"one short": {"tokens": i64([[3]])}, "two of five": {"tokens": i64([[0, 1, 2, 3, 4], [15, 15, 7, 0, 9]])},
         "counted from the end": {"tokens": i64([[-1, -16]])}},
        SUM_ORDER,
    )
    models["int8_mlp"] = int8_mlp(rng)
    models["mix_rows"] = Served(
        "subtracts the mean over axis 0: rows mix, so batching two callers would change both answers",
        model("mix_rows", [node("ReduceMean", "x", "mean", axes=[0], keepdims=1), node("Sub", "x mean", "y")],
              [row3], [floats("y", "batch", 3)]),
        {"three rows": {"x": rows}, "one row": {"x": rows[:1]}},
        SUM_ORDER,
    )
    models["softmax_axis0"] = Served(
        "Softmax over axis 0: rows mix through an operator that is harmless on the last axis",
        model("softmax_axis0", [node("Softmax", "x", "y", axis=0)], [row3], [floats("y", "batch", 3)]),
        {"three rows": {"x": rows}, "one row": {"x": rows[:1]}},
        EXP_AND_ORDER,
    )
    big = i64([[3_000_000_000, -3_000_000_000], [65_536, 0]])
    models["int64_arithmetic"] = Served(
        "x * x in INT64: wrong in an engine that narrows to 32 bits",
        model("int64_arithmetic", [node("Mul", "x x", "y")], [value("x", TensorProto.INT64, "batch", "n")],
              [value("y", TensorProto.INT64, "batch", "n")]),
        {"beyond 32 bits": {"x": big}, "within 32 bits": {"x": i64([[2, -3, 46_340]])}},
        EXACT_INTEGERS,
    )
    models["int64_constant_big"] = Served(
        "adds the constant 2^40: an engine that narrows can see at load that it cannot do this",
        model("int64_constant_big", [node("Add", "x big", "y")], [value("x", TensorProto.INT64, "batch", "n")],
              [value("y", TensorProto.INT64, "batch", "n")], [constant("big", i64(2**40))]),
        {"small": {"x": i64([[0, 1], [-1, 7]])}},
        EXACT_INTEGERS,
    )
    models["int_divide_const"] = Served(
        "x / 3 in INT64: no request can make this the one division that ends the process (compare int_divide)",
        model("int_divide_const", [node("Div", "x three", "y")], [value("x", TensorProto.INT64, "batch", "n")],
              [value("y", TensorProto.INT64, "batch", "n")], [constant("three", i64(3))]),
        {"multiples": {"x": i64([[9, -9, 0], [3_000_000, -3, 6]])}},
        EXACT_INTEGERS,
    )
    models["fp64_math"] = Served(
        "sqrt(x) * (1 + 1e-12) in FP64: wrong by 1e-8 in an engine that narrows to FP32",
        model("fp64_math", [node("Sqrt", "x", "root"), node("Mul", "root factor", "y")],
              [value("x", TensorProto.DOUBLE, "batch", "n")], [value("y", TensorProto.DOUBLE, "batch", "n")],
              [constant("factor", np.array(1 + 1e-12))]),
        {"roots": {"x": np.array([[2.0, 3.0, 1e300], [1e-300, 0.0, 4.0]])}},
        Tolerance("sqrt and product are each correctly rounded; one unit in the last place is left to a fused form", relative=2.3e-16),
    )
    models["string_upper"] = Served(
        "StringNormalizer to upper case; strings in one dimension [n], which is not a batch. The locale is C, where only ASCII "
        "has upper case: any other would have to be installed on the machine",
        model("string_upper", [node("StringNormalizer", "x", "y", case_change_action="UPPER", is_case_sensitive=1, locale="C")],
              [value("x", TensorProto.STRING, "n")], [value("y", TensorProto.STRING, "n")]),
        {"words": {"x": np.array(["outhaul", "Main Sail", "x1"], dtype=object)}},
        EXACT_COPY,
    )
    models["deep_graph"] = Served(
        "2,000 nodes in a chain, Add 1 and Identity in turn (y = x + 1000): a walk over the graph must not recurse per node",
        model("deep_graph",
              [node("Add", f"v{i} one", f"v{i + 1}") if i % 2 == 0 else node("Identity", f"v{i}", f"v{i + 1}") for i in range(2000)],
              [floats("v0", "batch", 2)], [floats("v2000", "batch", 2)], [constant("one", f32(1))]),
        {"two rows": {"v0": f32([[0, 1], [-500, 0.5]])}},
        EXACT_FLOATS,
    )
    models["loop_if"] = Served(
        "Loop and If with subgraphs that use outer values: 4x when the sum of x is positive, else -4x; rows mix through the sum",
        loop_and_if(),
        {"positive": {"x": rows}, "negative": {"x": -rows[1:2]}},
        EXACT_FLOATS,
    )
    models["optional_input"] = Served(
        "`bias` is an input with a default (an initializer of the same name): callers may leave it out",
        model("optional_input", [node("Add", "x bias", "y")], [row3, floats("bias", 3)], [floats("y", "batch", 3)],
              [constant("bias", f32([10, 20, 30]))]),
        {"default": {"x": rows}, "given": {"x": rows, "bias": f32([0.5, 0, -1])}},
        EXACT_FLOATS,
    )
    return models


def example_models():
    from sklearn.datasets import load_breast_cancer, load_digits, load_iris

    iris, digits, cancer = load_iris().data, load_digits().data, load_breast_cancer().data
    iris = f32(iris[[0, 60, 110, 149]])
    digits = f32(digits[[0, 1, 2, 3, 4]]).reshape(-1, 1, 8, 8)
    cancer = f32(cancer[[0, 19, 100, 101, 568]])
    words = np.array([["short", "long", "short", "short"], ["medium", "short", "medium", "medium"],
                      ["long", "medium", "long", "long"], ["tall", "medium", "long", "long"]], dtype=object)

    def cases(name, rows):
        return {"all rows": {name: rows}, "one row": {name: rows[1:2]}, "no rows": {name: rows[:0]}}

    def path(name):
        return f"{EXAMPLES}/{name}/1/model.onnx"

    return {
        "iris": Served("example: standard operators, two outputs of different types", path("iris"), cases("X", iris), EXP_AND_ORDER),
        "digits": Served("example: convolutions", path("digits"), cases("image", digits), EXP_AND_ORDER),
        "breast_cancer": Served("example: trees (ai.onnx.ml)", path("breast_cancer"), cases("X", cancer), EXP_AND_ORDER),
        "iris_words": Served("example: strings in, a string label out; `tall` is a word it never saw", path("iris_words"),
                             cases("words", words), EXP_AND_ORDER),
    }


# files to refuse ----------------------------------------------------------------------------------------------------


def field_bytes(number, contents):
    """One length-delimited protobuf field."""
    if isinstance(contents, str):
        contents = contents.encode()
    return varint(number << 3 | 2) + varint(len(contents)) + contents


def varint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*out, n])


def deep_nesting(levels):
    """An If inside an If inside ...: encoded by hand, because protobuf libraries refuse to write it.

    Field numbers are those of onnx.proto: ModelProto.graph 7, GraphProto.node 1, NodeProto.attribute 5, AttributeProto.g 6.
    """
    graph = field_bytes(2, "g")
    for _ in range(levels):
        attribute = field_bytes(1, "then_branch") + field_bytes(6, graph) + varint(20 << 3) + varint(5)
        graph = field_bytes(1, field_bytes(4, "If") + field_bytes(5, attribute)) + field_bytes(2, "g")
    return varint(1 << 3) + varint(IR_VERSION) + field_bytes(7, graph) + field_bytes(8, varint(2 << 3) + varint(OPSET))


def add_tensor(name, tensor):
    """A model that adds one ready-made, perhaps dishonest, tensor to x.

    x and y leave both dimensions open, so that only the tensor itself is wrong.
    """
    tensor.name, tensor.data_type = "w", TensorProto.FLOAT
    x, y = floats("x", None, None), floats("y", None, None)
    return model(name, [node("Add", "x w", "y")], [x], [y], [tensor]).SerializeToString()


def external(location):
    tensor = TensorProto(dims=[4], data_location=TensorProto.EXTERNAL)
    for key, text in [("location", location), ("offset", "0"), ("length", "16")]:
        tensor.external_data.add(key=key, value=text)
    return tensor


def unanswered_models():
    whole = model("truncated", [node("Add", "x row", "y")], [floats("x", "batch", 64)], [floats("y", "batch", 64)],
                  [constant("row", np.zeros(64, np.float32))]).SerializeToString()
    sixteen_bytes = f32([1, 2, 3, 4]).tobytes()
    x, y = floats("x", "batch", 4), floats("y", "batch", 4)
    return {
        "unknown_operator": Unanswered(
            "a node of domain `com.example`, operator `Frobnicate`: the error must name both",
            model("unknown_operator", [node("Frobnicate", "x", "y", name="the_odd_one", domain="com.example")], [x], [y],
                  opsets=[helper.make_opsetid("com.example", 1)]).SerializeToString()),
        "sequence_output": Unanswered(
            "the output is a sequence of tensors (SplitToSequence), which no wire contract of ours can carry",
            model("sequence_output", [node("SplitToSequence", "x", "y", axis=0)], [x],
                  [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, [None, 4])]).SerializeToString(), loads=True),
        "int_divide": Unanswered(
            "x / d in INT64, both from the request: the least integer by -1 ends the process of ONNX Runtime on x86, so the "
            "server must not serve it with that engine",
            model("int_divide", [node("Div", "x d", "y", name="quotient")],
                  [value("x", TensorProto.INT64, "batch"), value("d", TensorProto.INT64, "batch")],
                  [value("y", TensorProto.INT64, "batch")]).SerializeToString(), loads=True),
        "truncated": Unanswered("a good model cut in half", whole[: len(whole) // 2]),
        "not_onnx": Unanswered("512 random bytes", np.random.default_rng(7).bytes(512)),
        "zero_bytes": Unanswered("an empty file, which is a valid protobuf message without a graph", b""),
        "negative_dim": Unanswered("an initializer with dims [-1, 4]", add_tensor("negative_dim", TensorProto(dims=[-1, 4], raw_data=sixteen_bytes))),
        "initializer_lies": Unanswered("dims [4, 4] and only 16 of the 64 bytes", add_tensor("initializer_lies", TensorProto(dims=[4, 4], raw_data=sixteen_bytes))),
        "initializer_overflow": Unanswered(
            "dims [2^62, 4]: the product wraps to 0 in 64 bits", add_tensor("initializer_overflow", TensorProto(dims=[2**62, 4]))),
        "initializer_huge": Unanswered(
            "dims [2^40] with no data: 4 TiB that must not be allocated", add_tensor("initializer_huge", TensorProto(dims=[2**40]))),
        "external_missing": Unanswered("weights in a file that does not exist", add_tensor("external_missing", external("missing.bin"))),
        "external_escape": Unanswered(
            "weights in `../../etc/passwd`: a model must not read outside its own folder", add_tensor("external_escape", external("../../etc/passwd"))),
        "external_absolute": Unanswered("weights in `/etc/passwd`", add_tensor("external_absolute", external("/etc/passwd"))),
        "cycle": Unanswered(
            "two nodes that need each other's output",
            model("cycle", [node("Add", "x b", "a"), node("Identity", "a", "b"), node("Identity", "a", "y")], [x], [y]).SerializeToString()),
        "undefined_value": Unanswered(
            "a node reads a value that nothing makes", model("undefined_value", [node("Add", "x nowhere", "y")], [x], [y]).SerializeToString()),
        "deep_nesting": Unanswered("If inside If, 2,000 deep: a parser or a walk that recurses must stop before its stack does", deep_nesting(2000)),
    }


# running and writing ------------------------------------------------------------------------------------------------


def open_session(source):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(session, feeds):
    """Outputs by name."""
    names = [output.name for output in session.get_outputs()]
    if any(array.dtype == ml_dtypes.bfloat16 for array in feeds.values()):
        return dict(zip(names, run_bf16(session, feeds), strict=True))
    return {name: np.asarray(answer) for name, answer in zip(names, session.run(None, feeds), strict=True)}


def run_bf16(session, feeds):
    """ONNX Runtime's Python does not know numpy's BF16, so values go in and out through memory as 16-bit words."""
    answers = session.run_with_ort_values(None, {
        name: onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), TensorProto.BFLOAT16)
        for name, array in feeds.items()
    })
    for answer in answers:
        assert answer.element_type() == TensorProto.BFLOAT16
        count = int(np.prod(answer.shape()))
        words = ctypes.string_at(answer.data_ptr(), 2 * count) if count else b""
        yield np.frombuffer(words, dtype=ml_dtypes.bfloat16).reshape(answer.shape())


def cross_check(name, graph, feeds, answers, tolerance):
    """Compares with the ONNX project's evaluator, which needs inputs with defaults spelt out."""
    defaults = {i.name: numpy_helper.to_array(i) for i in graph.graph.initializer if i.name in {x.name for x in graph.graph.input}}
    expected = onnx.reference.ReferenceEvaluator(graph).run(list(answers), defaults | feeds)
    for (output, answer), other in zip(answers.items(), expected, strict=True):
        other = np.asarray(other)
        assert answer.shape == other.shape, (name, output, answer.shape, other.shape)
        if answer.dtype.kind in "fV":
            np.testing.assert_allclose(answer.astype(np.float64), other.astype(np.float64), atol=tolerance.absolute,
                                       rtol=tolerance.relative, err_msg=f"{name}.{output}")
        else:
            assert (answer == other).all(), (name, output, answer, other)


def tensor_json(name, array):
    datatype = NUMPY_TO_NAME[array.dtype]
    flat = array.reshape(-1)
    if datatype == "FP32":
        # The shortest decimal that names this FP32 and no other, instead of the digits of its FP64 neighbour.
        data = [float(str(v)) for v in flat]
    elif datatype in ("FP16", "BF16"):
        data = [float(v) for v in flat]
    else:
        data = flat.tolist()
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": data}


def write_reference(name, entry):
    path = entry.model if isinstance(entry.model, str) else f"models/{name}.onnx"
    graph = onnx.load(FOLDER / path)
    session = open_session(str(FOLDER / path))
    lines = []
    for case, feeds in entry.cases.items():
        answers = run(session, feeds)
        if (name, case) not in NOT_CROSS_CHECKED:
            cross_check(name, graph, feeds, answers, entry.tolerance)
        tensors = {
            "name": case,
            "inputs": [tensor_json(input_name, array) for input_name, array in feeds.items()],
            "outputs": [tensor_json(output_name, array) for output_name, array in answers.items()],
        }
        lines.append("    " + json.dumps(tensors, ensure_ascii=False, allow_nan=False))
    tolerance = {"absolute": entry.tolerance.absolute, "relative": entry.tolerance.relative, "reason": entry.tolerance.reason}
    made_with = {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__, "numpy": np.__version__}
    text = (
        "{\n"
        f'  "model": {json.dumps(path)},\n'
        f'  "made_with": {json.dumps(made_with)},\n'
        f'  "tolerance": {json.dumps(tolerance)},\n'
        '  "cases": [\n' + ",\n".join(lines) + "\n  ]\n}\n"
    )
    json.loads(text)
    (FOLDER / "reference" / f"{name}.json").write_text(text, encoding="utf-8")


# Cases that `onnx.reference` cannot evaluate; found by running it.
NOT_CROSS_CHECKED = {
    ("digits", "no rows"),  # its Flatten cannot reshape nothing
    ("breast_cancer", "no rows"),  # its trees cannot map over nothing
    ("iris_words", "no rows"),  # its Normalizer cannot reshape nothing
}


def write_readme(served, unanswered):
    def table(rows):
        return "\n".join(f"| `{name}` | {entry.purpose} |" for name, entry in rows.items())

    made = {name: entry for name, entry in served.items() if not isinstance(entry.model, str)}
    examples = {name: entry for name, entry in served.items() if isinstance(entry.model, str)}
    refused = {name: entry for name, entry in unanswered.items() if not entry.loads}
    useless = {name: entry for name, entry in unanswered.items() if entry.loads}
    (FOLDER / "README.md").write_text(f"""# Test models

Written by `testdata/make_models.py`, this page included; edit the script, not the files.

- `models/*.onnx`: one model for each thing an engine, a scheduler or a repository can get wrong.
- `reference/*.json`: inputs, and the outputs that ONNX Runtime computes for them, also compared with `onnx.reference`.
  Made again on another processor they may differ in the last digit.
  `model` is a path relative to this folder; `made_with` has the versions; data is flat; FP16 and BF16 are written as
  numbers, BYTES as UTF-8 text. An answer agrees when |ours - reference| <= absolute + relative * |reference|.
  NaN and infinities are left to tests in code, because JSON cannot say them.

## Models that must answer

| model | what it is for |
|---|---|
{table(made)}

An engine that cannot compute one of these exactly must refuse it at load, naming the node and an engine that can.

## Example models with reference answers

| model | what it is for |
|---|---|
{table(examples)}

## Models that load and cannot be served

| model | what it is for |
|---|---|
{table(useless)}

## Files that must be refused at load, with the rest of the folder still served

ONNX Runtime {onnxruntime.__version__} refuses all of these.

| file | what it is for |
|---|---|
{table(refused)}
""", encoding="utf-8")


def main():
    logging.getLogger().setLevel(logging.ERROR)  # the quantiser advises pre-processing
    onnxruntime.set_default_logger_severity(4)
    served, unanswered = served_models(), unanswered_models()
    for folder in ("models", "reference"):
        (FOLDER / folder).mkdir(exist_ok=True)

    for name, entry in served.items():
        onnx.checker.check_model(entry.model, full_check=True)
        (FOLDER / "models" / f"{name}.onnx").write_bytes(entry.model.SerializeToString(deterministic=True))
    served |= example_models()
    for name, entry in served.items():
        write_reference(name, entry)
    print(f"{len(served)} models answer; references written")

    for name, entry in unanswered.items():
        path = FOLDER / "models" / f"{name}.onnx"
        path.write_bytes(entry.contents)
        try:
            open_session(str(path))
            refusal = None
        except Exception as error:  # ONNX Runtime has one exception class per status code, with no common base
            refusal = str(error).replace(str(FOLDER), "testdata").splitlines()[0]
        assert (refusal is None) == entry.loads, (name, refusal)
        print(f"{name:22} {'loads' if refusal is None else 'refused: ' + refusal[:150]}")
    write_readme(served, unanswered)
    # A renamed model must not leave its old files behind.
    for path in [*(FOLDER / "models").iterdir(), *(FOLDER / "reference").iterdir()]:
        if path.stem not in served and path.stem not in unanswered:
            path.unlink()


if __name__ == "__main__":
    main()
