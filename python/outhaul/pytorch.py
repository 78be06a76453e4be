"""From a PyTorch module to a folder that Outhaul serves: export, check, write, in this order."""

import importlib.util
import pathlib
import sys
import tempfile
import warnings

import numpy as np
import onnx

from outhaul import checking, folders
from outhaul.conversion import Converted, header
from outhaul.errors import ConversionError

# Batch sizes that an exported module is checked with. 1 is where a size that was fixed by mistake shows.
BATCH_SIZES = (1, 2, 5)

# Above this, weights go into files of their own: one message of ONNX's format holds less than 2 GiB.
LARGEST_INLINE = 1_500_000_000

OPSET = 18


def export(
    module,
    example_inputs,
    path,
    *,
    name=None,
    version=None,
    input_names=None,
    output_names=None,
    dynamic_axes=None,
    batch=True,
    dynamo=None,
    tolerance=1e-4,
    force=False,
    note=None,
):
    """Exports a module, checks it against itself at several batch sizes and writes it.

    `example_inputs` is a tensor or a tuple of tensors, whose first dimension is the batch; it may be of any size in calls
    unless `batch` is false. `dynamic_axes` names further sizes that may vary, as `{"tokens": {1: "length"}}`. `path` is the
    model's own folder, such as `models/resnet`; where `name` is given, it is the folder of models. `dynamo` chooses
    PyTorch's exporter: the new one where `onnxscript` is installed, else the classic one. Returns what was written; raises
    `ConversionError` before anything is written.
    """
    import torch

    note = note or (lambda text: print(text, file=sys.stderr))
    examples = example_inputs if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    examples = tuple(examples)
    if not examples or not all(isinstance(example, torch.Tensor) for example in examples):
        raise ConversionError("example_inputs must be a tensor or a tuple of tensors")
    if batch and any(example.ndim == 0 for example in examples):
        raise ConversionError("an example without dimensions has no batch; give it one, or batch=False")
    path = pathlib.Path(path)
    models, name = (path, name) if name is not None else (path.parent, path.resolve().name)
    place = folders.Place(models, name, version, force)
    names = list(input_names or _argument_names(module, len(examples)))
    if len(names) != len(examples):
        raise ConversionError(f"{len(names)} input names for {len(examples)} inputs")
    if dynamo is None:
        dynamo = importlib.util.find_spec("onnxscript") is not None

    was_training = module.training
    module.eval()
    try:
        with torch.no_grad(), tempfile.TemporaryDirectory() as temporary:
            file = pathlib.Path(temporary) / "model.onnx"
            settings = _Settings(names, output_names, dynamic_axes or {}, batch, dynamo)
            _export(module, examples, file, settings)
            sizes = BATCH_SIZES if batch else (examples[0].shape[0] if examples[0].ndim else 1,)
            report, kept = _check(module, examples, file, settings, sizes, tolerance)
            if report.differing:
                what = "\n".join(f"  row {row}: {what}" for row, what in list(report.differing.items())[:5])
                raise ConversionError(
                    f"{len(report.differing)} of {report.rows} rows differ from the module (tolerance {tolerance:g}), "
                    f"so nothing was written\n{what}"
                )
            note(f"checked at batch sizes {', '.join(map(str, sizes))}")
            parts = dict(zip(("sample.json", "sample.answers.json"), folders.reference(*kept), strict=True))
            text = header("pytorch", type(module).__name__)
            folder = folders.write(place, lambda target: _copy(file, target), parts, text)
    finally:
        module.train(was_training)
    return Converted(name, place.version, str(folder), "pytorch", report.rows, report.largest, 0)


class _Settings:
    def __init__(self, inputs, outputs, dynamic_axes, batch, dynamo):
        self.inputs, self.outputs, self.batch, self.dynamo = inputs, outputs, batch, dynamo
        unknown = set(dynamic_axes) - set(inputs) - set(outputs or [])
        if unknown:
            raise ConversionError(f"dynamic_axes names no input or output: {', '.join(sorted(unknown))}")
        first = {0: "batch"} if batch else {}
        self.axes = {name: {**first, **_as_names(name, dynamic_axes.get(name, {}))} for name in inputs}
        self.output_axes = {name: {**first, **_as_names(name, dynamic_axes.get(name, {}))} for name in outputs or []}


def _as_names(name, axes):
    return dict(axes) if isinstance(axes, dict) else {axis: f"{name}_{axis}" for axis in axes}


def _argument_names(module, count):
    """Names inputs as the arguments of `forward` are named."""
    import inspect

    parameters = inspect.signature(module.forward).parameters.values()
    plain = [one.name for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return plain[:count] if len(plain) >= count else [f"input_{index}" for index in range(count)]


def _export(module, examples, file, settings):
    import torch

    if settings.batch:
        # A batch of one would be taken for a size that is always one.
        examples = tuple(_of_rows(example, max(2, example.shape[0])) for example in examples)
    size = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    arguments = {"input_names": settings.inputs, "output_names": settings.outputs, "opset_version": OPSET}
    arguments["external_data"] = size > LARGEST_INLINE
    if settings.dynamo:
        arguments["dynamic_shapes"] = _dynamic_shapes(module, settings)
        arguments["verbose"] = False
    else:
        axes = {**settings.axes, **settings.output_axes}
        arguments["dynamic_axes"] = {name: named for name, named in axes.items() if named}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(module, examples, str(file), dynamo=settings.dynamo, **arguments)
        onnx.checker.check_model(str(file))
        _without_origin(file)
    except Exception as error:
        first = str(error).strip().split("\n")[0]
        raise ConversionError(f"PyTorch cannot export {type(module).__name__}: {type(error).__name__}: {first}") from error


def _without_origin(file):
    """Takes out where in the user's source files each node comes from."""
    model = onnx.load(str(file), load_external_data=False)
    graphs = [model.graph, *model.functions]
    for graph in graphs:
        for part in (graph, *graph.node, *graph.value_info, *getattr(graph, "input", []), *getattr(graph, "output", [])):
            if hasattr(part, "metadata_props"):
                del part.metadata_props[:]
            if hasattr(part, "doc_string"):
                part.doc_string = ""
    file.write_bytes(model.SerializeToString())


def _dynamic_shapes(module, settings):
    import torch

    made = {}
    shapes = []
    for name in settings.inputs:
        axes = settings.axes[name]
        shapes.append({axis: made.setdefault(label, torch.export.Dim(label)) for axis, label in axes.items()})
    return tuple(shapes)


def _of_rows(example, count):
    """Takes rows of an example again and again until there are so many."""
    import torch

    return example.index_select(0, torch.arange(count, device=example.device) % example.shape[0])


def _check(module, examples, file, settings, sizes, tolerance):
    """Compares at several batch sizes; returns a report and a request with its answers."""
    session = checking.Session(str(file))
    report, kept = checking.Report(0, 0.0, {}), None
    for size in sizes:
        inputs = tuple(_varied(_of_rows(example, size)) if settings.batch else example for example in examples)
        wanted = [tensor.detach().cpu().numpy() for tensor in _flat(module(*inputs))]
        feeds = {name: tensor.detach().cpu().numpy() for name, tensor in zip(settings.inputs, inputs, strict=True)}
        found = session.run(feeds)
        if len(found) != len(wanted):
            raise ConversionError(f"the exported model has {len(found)} outputs; the module gives {len(wanted)}")
        answers = dict(zip(found, wanted, strict=True))
        for name, values in found.items():
            if values.shape != answers[name].shape:
                raise ConversionError(
                    f"at batch size {size} the output {name!r} is {list(values.shape)}; the module gives "
                    f"{list(answers[name].shape)}"
                )
        rows = {name: values.reshape(size, -1) if settings.batch else values.reshape(1, -1) for name, values in found.items()}
        part = checking.compare(rows, {name: answers[name].reshape(rows[name].shape) for name in rows}, tolerance)
        report.differing.update({report.rows + row: f"batch of {size}: {what}" for row, what in part.differing.items()})
        report = checking.Report(report.rows + part.rows, max(report.largest, part.largest), report.differing)
        if kept is None or size <= folders.SAMPLE_ROWS:
            kept = feeds, answers
    return report, kept


def _varied(example):
    """Makes the rows of floats differ from each other, so that answers of one row given to another show."""
    import torch

    if not example.is_floating_point() or example.shape[0] == 1:
        return example
    factors = 1 + 0.05 * torch.arange(example.shape[0], device=example.device, dtype=example.dtype)
    return example * factors.reshape(-1, *[1] * (example.ndim - 1))


def _flat(outputs):
    """Returns the tensors that a module gives, in order."""
    import torch

    if isinstance(outputs, torch.Tensor):
        return [outputs]
    values = outputs.values() if hasattr(outputs, "values") else outputs
    return [tensor for value in values if value is not None for tensor in _flat(value)]


def _copy(file, target):
    """Copies the model file, and external weights beside it under their own names."""
    for entry in file.parent.iterdir():
        place = target if entry == file else target.parent / entry.name
        place.write_bytes(entry.read_bytes())
