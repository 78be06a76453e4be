"""Turns models of other libraries into folders that Outhaul serves.

`convert` takes scikit-learn, XGBoost and LightGBM models, `export` takes PyTorch modules. Both write nothing before the
converted model has answered like the original. The command line is `python -m outhaul convert --help`.
"""

import os

# The official builds of ONNX Runtime report usage unless they are told not to before they are loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from outhaul.conversion import Converted, convert  # noqa: E402
from outhaul.errors import ConversionError  # noqa: E402
from outhaul.pytorch import export  # noqa: E402

__all__ = ["ConversionError", "Converted", "convert", "export"]
__version__ = "0.1.0"
