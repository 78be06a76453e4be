"""PyTorch modules: exported by both of its exporters, checked at several batch sizes, written. Skipped without PyTorch."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("skl2onnx", reason="needs requirements-convert.txt")

import onnx
from converted import answers, check_folder, check_served

import outhaul


class Images(torch.nn.Module):
    """Layers that behave differently in training."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.5), torch.nn.Flatten(), torch.nn.Linear(144, 5)
        )

    def forward(self, image):
        """Returns logits."""
        return self.inner(image)


class Texts(torch.nn.Module):
    """Two inputs, two outputs, two sizes that vary."""

    def __init__(self):
        super().__init__()
        self.words, self.last = torch.nn.Embedding(50, 8), torch.nn.Linear(8, 3)

    def forward(self, tokens, mask):
        """Returns logits and the mean of the words."""
        pooled = (self.words(tokens) * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        return {"logits": self.last(pooled), "pooled": pooled}


class Random(torch.nn.Module):
    """Never answers the same."""

    def forward(self, x):
        """Returns anything."""
        return x + torch.rand_like(x)


@pytest.fixture(params=[True, False], ids=["dynamo", "classic"])
def dynamo(request):
    """Which of PyTorch's exporters."""
    if request.param:
        pytest.importorskip("onnxscript")
    return request.param


def test_the_batch_is_of_any_size(dynamo, tmp_path):
    module = Images().train()
    example = torch.rand(1, 3, 8, 8)
    written = outhaul.export(module, example, tmp_path / "images", dynamo=dynamo)
    assert (written.name, written.version, written.kind, written.rows_checked) == ("images", 1, "pytorch", 8)
    assert module.training, "the module is left as it was"
    check_folder(written)
    images = torch.rand(7, 3, 8, 8)
    (found,) = answers(written.folder, {"image": images.numpy()}).values()
    np.testing.assert_allclose(found, module.eval()(images).detach().numpy(), atol=1e-5)
    check_served(written)


def test_further_sizes_may_vary(dynamo, tmp_path):
    module = Texts()
    example = torch.randint(0, 50, (2, 7)), torch.ones(2, 7)
    axes = {"tokens": {1: "length"}, "mask": {1: "length"}}
    written = outhaul.export(
        module, example, tmp_path, name="texts", output_names=["logits", "pooled"], dynamic_axes=axes, dynamo=dynamo
    )
    tokens, mask = torch.randint(0, 50, (3, 4)), torch.ones(3, 4)
    found = answers(written.folder, {"tokens": tokens.numpy(), "mask": mask.numpy()})
    wanted = module(tokens, mask)
    assert list(found) == ["logits", "pooled"]
    for name, values in found.items():
        np.testing.assert_allclose(values, wanted[name].detach().numpy(), atol=1e-5)
    assert [tensor["name"] for tensor in json.loads(Path(written.folder, "sample.json").read_text())["inputs"]] == [
        "tokens",
        "mask",
    ]
    check_served(written)


def test_nothing_of_the_users_machine_is_written(dynamo, tmp_path):
    written = outhaul.export(Images(), torch.rand(2, 3, 8, 8), tmp_path / "images", dynamo=dynamo)
    model = onnx.load(Path(written.folder, "model.onnx"))
    assert str(Path(__file__).parent) not in str(model)


def test_an_export_that_answers_differently_is_not_written(dynamo, tmp_path):
    with pytest.raises(outhaul.ConversionError, match="8 of 8 rows differ from the module"):
        outhaul.export(Random(), torch.rand(2, 3), tmp_path / "models" / "random", dynamo=dynamo)
    assert not (tmp_path / "models").exists()


def test_a_fixed_batch_stays_fixed(dynamo, tmp_path):
    written = outhaul.export(Images(), torch.rand(2, 3, 8, 8), tmp_path / "images", batch=False, dynamo=dynamo)
    model = onnx.load(Path(written.folder, "model.onnx"))
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2


def test_examples_must_be_tensors(tmp_path):
    with pytest.raises(outhaul.ConversionError, match="a tensor or a tuple of tensors"):
        outhaul.export(Images(), [1, 2], tmp_path / "images")
    with pytest.raises(outhaul.ConversionError, match="2 input names for 1 inputs"):
        outhaul.export(Images(), torch.rand(1, 3, 8, 8), tmp_path / "images", input_names=["a", "b"])
