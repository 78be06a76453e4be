"""Samples, and how their columns become the inputs of a model.

A model takes one matrix where all of its columns are numbers, else one input for each column. A sample keeps the values as
they were given, for the original; `Layout.feeds` gives what callers would send, where numbers are FP32.
"""

import csv
import dataclasses
import json
import pathlib

import numpy as np

from outhaul.errors import ConversionError

# The name of the one input of a model that takes a matrix.
MATRIX = "input"

NUMBER, WHOLE, TEXT = "number", "whole", "text"

MISSING = {"", "nan", "na", "null", "none"}


@dataclasses.dataclass
class Column:
    """One column of the table that a model was made for, and what is known of its values."""

    name: str
    kind: str = NUMBER
    low: float | None = None
    high: float | None = None
    # The values that an encoder knows.
    categories: list | None = None
    # Whether the encoder takes other values too.
    others: bool = False
    # Texts such as a vectorizer reads.
    words: list | None = None

    def widen(self, low, high):
        """Takes values into the range."""
        if np.isfinite(low) and np.isfinite(high):
            self.low = float(low) if self.low is None else min(self.low, float(low))
            self.high = float(high) if self.high is None else max(self.high, float(high))


@dataclasses.dataclass
class Layout:
    """The columns in order, and whether each is an input of its own."""

    columns: list
    per_column: bool
    # Whether the original was made with a DataFrame, and is asked with one.
    named: bool

    def inputs(self):
        """Returns the names of inputs, with their kind and width."""
        if self.per_column:
            return [(column.name, column.kind, 1) for column in self.columns]
        return [(MATRIX, NUMBER, len(self.columns))]

    def feeds(self, rows):
        """Returns the tensors that callers would send for these rows."""
        if not self.per_column:
            return {MATRIX: matrix(rows)}
        types = {NUMBER: np.float32, WHOLE: np.int64, TEXT: object}
        return {
            column.name: np.array([row[index] for row in rows], dtype=types[column.kind]).reshape(-1, 1)
            for index, column in enumerate(self.columns)
        }

    def original(self, rows):
        """Returns the rows in the form that the original takes."""
        if not self.named:
            if not self.per_column:
                # Exactly the values that the sample gives; a generated one holds nothing that FP32 does not.
                return np.array([[_number(value) for value in row] for row in rows], dtype=np.float64)
            return np.array(rows, dtype=object)
        import pandas

        table = {}
        for index, column in enumerate(self.columns):
            values = [row[index] for row in rows]
            table[column.name] = values if column.kind == TEXT else np.array(values, dtype=_native(column.kind))
        return pandas.DataFrame(table)


def matrix(rows):
    """Returns rows of numbers as FP32, `[batch, feature]`."""
    return np.array([[_number(value) for value in row] for row in rows], dtype=np.float32)


def _native(kind):
    return np.int64 if kind == WHOLE else np.float64


def _number(value):
    return np.nan if value is None else value


def read_sample(path):
    """Reads a .csv, .npy or .json file. Returns the names of its columns, or `None`, and its rows."""
    path = pathlib.Path(path)
    readers = {".csv": _read_csv, ".npy": _read_npy, ".json": _read_json}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConversionError(f"{path}: a sample is a .csv, .npy or .json file")
    try:
        names, rows = reader(path)
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise ConversionError(f"{path}: the sample cannot be read: {error}") from error
    return Sample(names, rows)


@dataclasses.dataclass
class Sample:
    """Rows as they were given, with the names of their columns where there are some."""

    names: list | None
    rows: list

    def of(self, columns):
        """Returns the rows in the order of a model's columns, with values of their kinds."""
        if not self.rows:
            raise ConversionError("the sample has no rows")
        for index, row in enumerate(self.rows):
            if len(row) != len(self.names or columns):
                raise ConversionError(f"the sample's row {index} has {len(row)} columns, not {len(self.names or columns)}")
        order = self._order(columns)
        return [
            [_value(row[place], column.kind) for place, column in zip(order, columns, strict=True)] for row in self.rows
        ]

    def column(self, name, index):
        """Returns the values of one column, by its name where the sample has names."""
        place = self.names.index(name) if self.names and name in self.names else index
        return [row[place] for row in self.rows if place < len(row)]

    def _order(self, columns):
        """Finds the columns by their names; where no name is known, by their order."""
        names = self.names or []
        missing = [column.name for column in columns if column.name not in names]
        if not missing:
            return [names.index(column.name) for column in columns]
        if len(missing) < len(columns) or names and len(names) != len(columns):
            raise ConversionError(f"the sample has no column {', '.join(map(repr, missing))}")
        return list(range(len(columns)))


def _value(value, kind):
    """Brings one value into the kind of its column."""
    if isinstance(value, np.generic):
        value = value.item()
    if kind == TEXT:
        return "" if value is None else str(value)
    if value is None or isinstance(value, str) and value.strip().lower() in MISSING:
        return np.nan
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ConversionError(f"the sample's value {value!r} is not a number") from None
    return int(number) if kind == WHOLE and number == int(number) else number


def _read_csv(path):
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = [line for line in csv.reader(file) if line]
    if not lines:
        raise ValueError("it is empty")
    # A first line that is all numbers is data.
    header = not all(is_number(cell) for cell in lines[0])
    return (lines[0], lines[1:]) if header else (None, lines)


def is_number(cell):
    """Returns whether a text is a number or stands for a missing one."""
    try:
        float(cell)
    except ValueError:
        return cell.strip().lower() in MISSING
    return True


def _read_npy(path):
    # Without pickles: those would run code.
    values = np.load(path, allow_pickle=False)
    names = list(values.dtype.names) if values.dtype.names else None
    if values.ndim != (1 if names else 2):
        raise ValueError(f"its shape is {list(values.shape)}; [rows, columns] is needed")
    return names, [list(row) for row in values.tolist()]


def _read_json(path):
    values = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(values, dict) and isinstance(values.get("inputs"), list):
        return _from_request(values["inputs"])
    if isinstance(values, list) and values and all(isinstance(row, dict) for row in values):
        names = list(values[0])
        return names, [[row.get(name) for name in names] for row in values]
    if isinstance(values, list) and values and all(isinstance(row, list) for row in values):
        return None, values
    raise ValueError("it is neither a list of rows, a list of objects nor a request with inputs")


def _from_request(inputs):
    """Reads an OIP request: one matrix, or a column for each input."""
    tensors = [(tensor["name"], np.array(tensor["data"], dtype=object).reshape(tensor["shape"])) for tensor in inputs]
    if len(tensors) == 1 and tensors[0][1].ndim == 2 and tensors[0][0] == MATRIX:
        return None, tensors[0][1].tolist()
    columns = [tensor.reshape(tensor.shape[0], -1)[:, 0].tolist() for _, tensor in tensors]
    return [name for name, _ in tensors], [list(row) for row in zip(*columns, strict=True)]


def from_caller(sample):
    """Takes what a caller of the library gives: a DataFrame, an array or rows."""
    if sample is None or isinstance(sample, Sample):
        return sample
    if hasattr(sample, "columns") and hasattr(sample, "to_numpy"):
        names = [str(name) for name in sample.columns]
        values = [sample.iloc[:, index].tolist() for index in range(len(names))]
        return Sample(names, [list(row) for row in zip(*values, strict=True)])
    values = np.asarray(sample)
    if values.ndim != 2:
        raise ConversionError(f"the sample's shape is {list(values.shape)}; [rows, columns] is needed")
    return Sample(None, values.tolist())
