"""Writes a converted model as a folder that Outhaul serves.

Invariant: a version is there whole or not at all. Everything is written into a folder whose name starts with a dot, which
Outhaul passes over, and then renamed.
"""

import json
import os
import pathlib
import re
import shutil
import tempfile

import numpy as np

from outhaul.errors import ConversionError

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")

# Rows of the reference sample.
SAMPLE_ROWS = 8

DATATYPES = {
    "float32": "FP32", "float64": "FP64", "float16": "FP16", "int64": "INT64", "int32": "INT32", "int16": "INT16",
    "int8": "INT8", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "bool": "BOOL",
    "object": "BYTES",
}  # fmt: skip


class Place:
    """Where a version goes."""

    def __init__(self, models, name, version=None, force=False):
        if not NAME.fullmatch(name):
            raise ConversionError(
                f"{name!r} is not a model name: use 1 to 128 letters, digits, '-', '_' or '.', not starting with a dot; "
                "give another with --name"
            )
        self.folder, self.name, self.force = pathlib.Path(models) / name, name, force
        self.version = self._next() if version is None else version
        if not 1 <= self.version < 2**64:
            raise ConversionError(f"{version} is not a version: a whole number from 1 up")
        self.path = self.folder / str(self.version)
        if self.path.exists() and not force:
            raise ConversionError(
                f"{self.path} is there already; a version does not change, so give another number or none, or --force"
            )
        if (self.folder / "model.onnx").exists():
            raise ConversionError(f"{self.folder} holds model.onnx without versions; move it to {self.folder / '1'} first")

    def _next(self):
        entries = self.folder.iterdir() if self.folder.is_dir() else []
        numbers = [int(entry.name) for entry in entries if re.fullmatch("[0-9]{1,19}", entry.name)]
        return max(numbers, default=0) + 1


def write(place, save_model, parts, header):
    """Writes a version. `save_model` is called with the path of the model file; `parts` are further files, by name.

    `model.toml` is written where there is none: it is the user's from then on.
    """
    models = place.folder.parent
    try:
        models.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=models) as temporary:
            version = pathlib.Path(temporary) / "new" / str(place.version)
            version.mkdir(parents=True)
            save_model(version / "model.onnx")
            for name, text in parts.items():
                (version / name).write_text(text, encoding="utf-8")
            for file in version.iterdir():
                _flush(file)
            (version.parent / "model.toml").write_text(header, encoding="utf-8")
            _put(place, version, pathlib.Path(temporary))
    except OSError as error:
        raise ConversionError(f"{place.path} cannot be written: {error}") from error
    return place.path


def _put(place, version, temporary):
    if not place.folder.exists():
        os.rename(version.parent, place.folder)
        return
    if not (place.folder / "model.toml").exists():
        os.rename(version.parent / "model.toml", place.folder / "model.toml")
    if place.path.exists():
        os.rename(place.path, temporary / "old")
    os.rename(version, place.path)
    if (temporary / "old").exists():
        shutil.rmtree(temporary / "old")


def _flush(file):
    with open(file, "rb") as handle:
        os.fsync(handle.fileno())


def reference(feeds, outputs):
    """Returns the texts of sample.json, a request, and sample.answers.json, the original's answers to it."""
    request = {"inputs": [_tensor(name, values) for name, values in feeds.items()]}
    answers = {"outputs": [_tensor(name, values) for name, values in outputs.items()]}
    return json.dumps(request, indent=1) + "\n", json.dumps(answers, indent=1) + "\n"


def reference_rows(feeds, outputs, differing):
    """Returns the indexes of a few rows that the original and the converted model answer alike, without missing values."""
    count = len(next(iter(feeds.values())))
    whole = np.ones(count, dtype=bool)
    for values in (*feeds.values(), *outputs.values()):
        if values.dtype.kind == "f":
            whole &= np.isfinite(values.reshape(count, -1)).all(axis=1)
    whole[list(differing)] = False
    return np.flatnonzero(whole)[:SAMPLE_ROWS]


def _tensor(name, values):
    datatype = DATATYPES["object" if values.dtype.kind in "OUS" else values.dtype.name]
    data = [_plain(value) for value in values.reshape(-1)]
    return {"name": name, "shape": list(values.shape), "datatype": datatype, "data": data}


def _plain(value):
    if isinstance(value, np.floating):
        # The shortest decimal that gives the same FP32.
        return float(str(value))
    return value.item() if isinstance(value, np.generic) else value
