"""Holds a converted model's answers against the original's, row by row.

A row differs where a label is another, or a number is further from the original's than
`tolerance * max(1, |original|)`. Both NaN is equal.
"""

import dataclasses

import numpy as np
import onnxruntime

from outhaul import graph
from outhaul.errors import ConversionError

# Rows that are run together. More than one batch, of different sizes, is run where the sample is large enough.
BATCH = 100

# Rows that are told of.
SHOWN = 5


@dataclasses.dataclass
class Report:
    """What the comparison found."""

    rows: int
    largest: float
    # Indexes of rows, with what differs in each.
    differing: dict

    def message(self, sample):
        """Returns the rows that differ, for people."""
        lines = []
        for index, what in list(self.differing.items())[:SHOWN]:
            values = ", ".join(f"{value!r}" if isinstance(value, str) else f"{value:.9g}" for value in sample[index][:12])
            more = ", ..." if len(sample[index]) > 12 else ""
            lines.append(f"  row {index} [{values}{more}]: {what}")
        if len(self.differing) > SHOWN:
            lines.append(f"  and {len(self.differing) - SHOWN} more")
        return "\n".join(lines)


class Session:
    """A converted model in ONNX Runtime."""

    def __init__(self, content):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ConversionError(f"ONNX Runtime does not load the converted model: {error}") from error
        self.names = [value.name for value in self.session.get_outputs()]
        self.wanted = {value.name for value in self.session.get_inputs()}

    def run(self, feeds):
        """Runs all rows at once."""
        feeds = {name: values for name, values in feeds.items() if name in self.wanted}
        try:
            return dict(zip(self.names, self.session.run(None, feeds), strict=True))
        except Exception as error:
            raise ConversionError(f"ONNX Runtime fails to run the converted model: {error}") from error

    def run_in_batches(self, feeds):
        """Runs rows in batches, one row alone first."""
        count = len(next(iter(feeds.values())))
        edges = [0, 1, *range(1 + BATCH, count, BATCH), count]
        parts = [
            self.run({name: values[start:end] for name, values in feeds.items()})
            for start, end in zip(edges, edges[1:], strict=False)
            if end > start
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.names}


def name_outputs(model, feeds, answers, note):
    """Gives outputs the names of the answers that they are held against; drops outputs that nothing can be held against."""
    for output in graph.output_names(model):
        name = _counterpart(output, answers)
        if name is None or not graph.is_tensor(model, output) or name in _named(model, output):
            note(f"the output {output!r} has no counterpart in the original and is left out")
            graph.drop_output(model, output)
        else:
            graph.rename(model, output, name)
    if not graph.output_names(model):
        raise ConversionError("the converted model has no output that the original has too")
    found = Session(model.SerializeToString()).run(feeds)
    for name, values in found.items():
        wanted = answers[name]
        if values.ndim == wanted.ndim == 3 and values.shape[:2] == (wanted.shape[1], wanted.shape[0]):
            graph.rows_first(model, name)
        elif name == "scores" and wanted.ndim == 1 and values.ndim == 2 and values.shape[1] == 2:
            # Two classes have one decision value, of which ONNX gives the negative too.
            distances = np.abs(values - wanted.reshape(-1, 1)).mean(axis=0)
            graph.one_column(model, name, int(np.argmin(distances)))


def _named(model, but):
    return [name for name in graph.output_names(model) if name != but]


def _counterpart(output, answers):
    lower = output.lower()
    if "label" in lower:
        candidates = ["label"]
    elif "probabilit" in lower:
        last = lower.rpartition("_")[2]
        candidates = [f"probabilities_{last}"] if last.isdigit() else ["probabilities", "scores"]
    elif "score" in lower:
        candidates = ["scores"]
    else:
        candidates = ["prediction", "transformed"]
    return next((name for name in candidates if name in answers), None)


def compare(found, answers, tolerance):
    """Compares outputs with the original's answers."""
    rows = len(next(iter(found.values())))
    differing, largest = {}, 0.0
    for name, got in found.items():
        want, got = _flat(name, answers[name], got)
        if want.dtype.kind in "OUSb" or got.dtype.kind in "OUSb" or name == "label":
            equal = _texts(want) == _texts(got)
        else:
            want, got = want.astype(np.float64), got.astype(np.float64)
            same = (want == got) | (np.isnan(want) & np.isnan(got))
            with np.errstate(invalid="ignore"):
                distance = np.where(same, 0.0, np.abs(got - want))
            distance = np.where(np.isnan(distance), np.inf, distance)
            largest = max(largest, float(distance.max(initial=0.0)))
            equal = distance <= tolerance * np.maximum(1.0, np.abs(np.where(np.isfinite(want), want, 0.0)))
        for index in np.flatnonzero(~equal.all(axis=1)):
            place = int(np.flatnonzero(~equal[index])[0])
            what = f"{name} is {_brief(got[index][place])} and should be {_brief(want[index][place])}"
            differing.setdefault(int(index), what)
    return Report(rows, largest, dict(sorted(differing.items())))


def _brief(value):
    return f"{value:.9g}" if isinstance(value, (float, np.floating)) else repr(getattr(value, "item", lambda: value)())


def _flat(name, want, got):
    """Brings both into `[row, element]`."""
    if len(want) != len(got):
        raise ConversionError(f"the output {name!r} has {len(got)} rows for {len(want)}")
    want, got = want.reshape(len(want), -1), got.reshape(len(got), -1)
    if want.shape != got.shape:
        raise ConversionError(f"the output {name!r} has {got.shape[1]} values a row; the original has {want.shape[1]}")
    return want, got


def _texts(values):
    """Labels as texts: 1, 1.0 and True are one class, which each library writes in its own way."""
    def text(value):
        value = getattr(value, "item", lambda: value)()
        if isinstance(value, (bool, int, float)) and value == value and abs(value) != float("inf"):
            return str(int(value)) if value == int(value) else repr(value)
        return str(value)

    return np.array([[text(value) for value in row] for row in values], dtype=object)
