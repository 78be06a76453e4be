"""From a fitted model to a folder that Outhaul serves: convert, check, write, in this order."""

import dataclasses
import importlib.metadata
import pathlib
import sys

import onnx

from outhaul import checking, converters, features, folders, graph, originals, samples, tables, trees
from outhaul.errors import ConversionError

KINDS = ("sklearn", "xgboost", "lightgbm")

# The package whose version a header tells, for each kind.
PACKAGES = {"sklearn": ["scikit-learn"], "xgboost": ["xgboost", "xgboost-cpu"], "lightgbm": ["lightgbm"], "pytorch": ["torch"]}


@dataclasses.dataclass
class Converted:
    """What was written."""

    name: str
    version: int
    folder: str
    kind: str
    rows_checked: int
    largest_difference: float
    rows_different: int


@dataclasses.dataclass
class Options:
    """How strictly a model is checked, and how its inputs are laid out."""

    # A number may be off by this much, or by this share of the original's where that is above 1.
    tolerance: float = 1e-4
    # Rows that may differ all the same.
    allow_different: int = 0
    # The number of features, where the model does not tell.
    features: int | None = None
    # One input for each column; `None` decides by the model.
    per_column: bool | None = None
    # Whether generated samples of XGBoost and LightGBM models have missing values.
    missing: bool = True


def convert(model, sample, path, *, name=None, version=None, kind="auto", force=False, note=None, **settings):
    """Converts a fitted model, checks it on the sample and writes it.

    `path` is the model's own folder, such as `models/iris`; where `name` is given, it is the folder of models. `sample` is
    a DataFrame, an array or rows, or `None` to generate one. Further settings are the fields of `Options`. Returns what was
    written; raises `ConversionError` before anything is written.
    """
    options = Options(**settings)
    note = note or (lambda text: print(text, file=sys.stderr))
    path = pathlib.Path(path)
    models, name = (path, name) if name is not None else (path.parent, path.resolve().name)
    place = folders.Place(models, name, version, force)
    kind = kind_of(model) if kind == "auto" else kind
    layout, rows = _layout_and_rows(model, kind, tables.from_caller(sample), options)
    converted = converters.to_onnx(model, kind, layout)
    graph.tidy(converted)
    trees.round_down(model, converted)
    if rows is None:
        missing = options.missing and kind in ("xgboost", "lightgbm")
        rows = samples.generate(layout, graph.tree_thresholds(converted), missing)
        note(f"no sample was given: checking on {len(rows)} generated rows")
    original = originals.original_of(model, kind, layout)
    answers, feeds = original.answers(rows), layout.feeds(rows)
    checking.name_outputs(converted, feeds, answers, note)
    if original.by_probability and {"label", "probabilities"} <= set(graph.output_names(converted)):
        graph.label_from_probabilities(converted, original.classes)
    content, found = _finish(converted, feeds)
    report = checking.compare(found, answers, options.tolerance)
    _judge(report, rows, options, note)

    kept = {input_name: feeds[input_name] for input_name in graph.input_names(converted)}
    parts = _parts(original, kept, found, answers, report)
    folder = folders.write(place, lambda file: file.write_bytes(content), parts, header(kind, type(model).__name__))
    return Converted(name, place.version, str(folder), kind, report.rows, report.largest, len(report.differing))


def kind_of(model):
    """Tells the library that a model is of."""
    module = type(model).__module__.partition(".")[0]
    if module in ("xgboost", "lightgbm"):
        return module
    if hasattr(model, "get_params") and (hasattr(model, "predict") or hasattr(model, "transform")):
        return "sklearn"
    raise ConversionError(
        f"{type(model).__module__}.{type(model).__name__} is no model of scikit-learn, XGBoost or LightGBM"
    )


def _layout_and_rows(model, kind, given, options):
    if type(model).__name__ == "Booster":
        count = model.num_features() if kind == "xgboost" else model.num_feature()
        names = model.feature_names if kind == "xgboost" else model.feature_name()
        names = names or [f"f{index}" for index in range(count)]
        layout = tables.Layout([tables.Column(str(name)) for name in names], per_column=False, named=False)
    else:
        width = options.features
        if width is None and given is not None and given.rows:
            width = len(given.rows[0]) if getattr(model, "n_features_in_", None) is None else None
        layout = features.layout_of(model, width, False if kind != "sklearn" else options.per_column)
    if given is None:
        return layout, None
    if kind == "sklearn" and options.per_column is None:
        _texts_in_sample(layout, given)
    return layout, given.of(layout.columns)


def _texts_in_sample(layout, given):
    """A column that holds texts in the sample is one, whatever the model tells."""
    for index, column in enumerate(layout.columns):
        values = given.column(column.name, index)
        if any(isinstance(value, str) and not tables.is_number(value) for value in values):
            column.kind, layout.per_column = tables.TEXT, True


def _finish(converted, feeds):
    """Declares shapes as they are, and returns the file's content with its answers."""
    shapes = {
        name: values.shape for name, values in checking.Session(converted.SerializeToString()).run(feeds).items()
    }
    graph.declare_shapes(converted, shapes)
    try:
        onnx.checker.check_model(converted)
    except onnx.checker.ValidationError as error:
        raise ConversionError(f"the converted model is not valid ONNX: {error}") from error
    content = converted.SerializeToString()
    return content, checking.Session(content).run_in_batches(feeds)


def _judge(report, rows, options, note):
    if not report.differing:
        return
    count = len(report.differing)
    rule = f"{count} of {report.rows} rows differ from the original (tolerance {options.tolerance:g})"
    if count <= options.allow_different:
        note(f"{rule}, which --allow-different {options.allow_different} permits:\n{report.message(rows)}")
        return
    lacking = [any(value != value for value in rows[index] if not isinstance(value, str)) for index in report.differing]
    remedy = "values are rounded to FP32, which matters at thresholds; --allow-different N permits N rows"
    if all(lacking):
        remedy = "all of them lack values; --no-missing leaves such rows out, where the model never gets any"
    elif count > report.rows / 4:
        remedy = "the converter does not know this kind of model; an objective that it knows may help"
    raise ConversionError(f"{rule}, so nothing was written; {remedy}\n{report.message(rows)}")


def _parts(original, feeds, found, answers, report):
    parts = {}
    if original.classes is not None and all("\n" not in str(label) for label in original.classes):
        parts["labels.txt"] = "".join(f"{label}\n" for label in original.classes)
    # The original's answers in the types and shapes of the converted model's.
    wanted = {name: _as(answers[name], values) for name, values in found.items()}
    rows = folders.reference_rows(feeds, wanted, report.differing)
    if len(rows):
        pick = lambda tensors: {name: values[rows] for name, values in tensors.items()}  # noqa: E731
        parts["sample.json"], parts["sample.answers.json"] = folders.reference(pick(feeds), pick(wanted))
    return parts


def _as(want, like):
    if like.dtype.kind in "OUS":
        return want.astype(str).astype(object).reshape(like.shape)
    return want.astype(like.dtype).reshape(like.shape)


def header(kind, model):
    """Returns the text of a new model.toml."""
    version = "?"
    for package in PACKAGES[kind]:
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return (
        f"# A {model} of {PACKAGES[kind][0]} {version}, converted by Outhaul's Python package.\n"
        "# The file is yours: it is not written again. docs/guide/model-toml.md tells the keys.\n"
    )
