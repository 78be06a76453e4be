"""What tests of the conversion share: data, and what every written folder must hold.

Nothing here needs the clients of the other tests: these run in an environment of their own (requirements-convert.txt).
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import onnxruntime
from serving import PROJECT, onnxruntime_library

TYPES = {"FP32": np.float32, "INT64": np.int64, "BYTES": object}


def numbers(rows=300, features=4):
    """Returns a matrix, two classes, three classes and a quantity."""
    random = np.random.default_rng(7)
    matrix = random.normal(size=(rows, features))
    return matrix, (matrix.sum(axis=1) > 0).astype(int), np.digitize(matrix[:, 0], [-0.5, 0.5]), matrix[:, 0] * 3 + 7


def session(folder):
    """Opens a written model."""
    path = pathlib.Path(folder) / "model.onnx"
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def answers(folder, feeds):
    """Returns what a written model answers, by output name."""
    opened = session(folder)
    return dict(zip([value.name for value in opened.get_outputs()], opened.run(None, feeds), strict=True))


def check_folder(written):
    """Checks that a version's folder is whole, and that its reference sample gives its reference answers."""
    folder = pathlib.Path(written.folder)
    assert (folder.parent / "model.toml").is_file()
    assert not [entry for entry in folder.parent.parent.iterdir() if entry.name.startswith(".")], "nothing temporary is left"
    request, wanted = (json.loads((folder / name).read_text()) for name in ("sample.json", "sample.answers.json"))
    feeds = {tensor["name"]: array(tensor) for tensor in request["inputs"]}
    found = answers(folder, feeds)
    assert list(found) == [tensor["name"] for tensor in wanted["outputs"]]
    for tensor in wanted["outputs"]:
        values = found[tensor["name"]]
        assert list(values.shape) == tensor["shape"]
        if tensor["datatype"] == "FP32":
            np.testing.assert_allclose(values, array(tensor), rtol=1e-4, atol=1e-4)
        else:
            assert values.tolist() == array(tensor).tolist()
    for value in (*session(folder).get_inputs(), *session(folder).get_outputs()):
        assert value.shape[0] == "batch", value.name
    return request, wanted


def array(tensor):
    """Returns a tensor of a request."""
    return np.array(tensor["data"], dtype=TYPES[tensor["datatype"]]).reshape(tensor["shape"])


def command(*arguments):
    """Runs the package's command line."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "python")}
    arguments = [sys.executable, "-m", "outhaul", "convert", *map(str, arguments)]
    return subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=300, check=False)


def outhaul(*arguments):
    """Runs the built binary; `None` where there is none."""
    binary = os.environ.get("OUTHAUL_BINARY")
    if not binary:
        return None
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OUTHAUL_")}
    arguments = [binary, *map(str, arguments), "--onnxruntime", str(onnxruntime_library()), "--output", "json"]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_served(written):
    """Asks the built binary, where there is one, for the reference sample: its answers are the original's."""
    folder = pathlib.Path(written.folder)
    request, wanted = (json.loads((folder / name).read_text()) for name in ("sample.json", "sample.answers.json"))
    nested = {tensor["name"]: array(tensor).tolist() for tensor in request["inputs"]}
    found = outhaul("predict", folder.parent, "--json", json.dumps(nested))
    if found is None:
        return
    for tensor in wanted["outputs"]:
        output = found["outputs"][tensor["name"]]
        assert (output["datatype"], output["shape"]) == (tensor["datatype"], tensor["shape"])
        if tensor["datatype"] == "FP32":
            np.testing.assert_allclose(np.array(output["data"]), array(tensor), rtol=1e-4, atol=1e-4)
        else:
            assert output["data"] == array(tensor).tolist()
    described = outhaul("inspect", folder.parent)
    names = [tensor["name"] for tensor in described["inputs"]]
    assert sorted(names) == sorted(nested), described
