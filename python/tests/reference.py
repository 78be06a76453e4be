"""Inputs and the answers that testdata/reference holds for them, as numpy arrays."""

import json

import ml_dtypes
import numpy as np

from serving import TESTDATA

DTYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}

NAMES = sorted(path.stem for path in (TESTDATA / "reference").glob("*.json"))


class Tensor:
    """A named tensor."""

    def __init__(self, name, datatype, array):
        self.name, self.datatype, self.array = name, datatype, array

    @classmethod
    def of_json(cls, tensor):
        """Makes a tensor of what the reference file holds."""
        data = tensor["data"]
        if tensor["datatype"] == "BYTES":
            data = [text.encode() for text in data]
        array = np.array(data, dtype=DTYPES[tensor["datatype"]]).reshape(tensor["shape"])
        return cls(tensor["name"], tensor["datatype"], array)


class Case:
    """One request to a model and its answer."""

    def __init__(self, name, case, tolerance):
        self.name = name
        self.inputs = [Tensor.of_json(tensor) for tensor in case["inputs"]]
        self.outputs = [Tensor.of_json(tensor) for tensor in case["outputs"]]
        self.tolerance = tolerance

    def check(self, output, received):
        """Compares one output with what the reference says."""
        place = f"case '{self.name}', output '{output.name}'"
        assert received is not None, f"{place} is missing"
        assert received.shape == output.array.shape, place
        if output.datatype == "BYTES":
            texts = [text.encode() if isinstance(text, str) else text for text in received.flatten()]
            assert texts == list(output.array.flatten()), place
            return
        assert received.dtype == output.array.dtype, place
        if output.array.dtype.kind in "biu":
            np.testing.assert_array_equal(received, output.array, place)
            return
        np.testing.assert_allclose(
            received.astype(np.float64),
            output.array.astype(np.float64),
            rtol=self.tolerance["relative"],
            atol=self.tolerance["absolute"],
            err_msg=place,
        )


def cases(name):
    """Returns the cases of a model."""
    reference = json.loads((TESTDATA / "reference" / f"{name}.json").read_text())
    return [Case(case["name"], case, reference["tolerance"]) for case in reference["cases"]]
