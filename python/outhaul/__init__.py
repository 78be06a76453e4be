"""Turns models of other libraries into folders that Outhaul serves.

`convert` takes scikit-learn, XGBoost and LightGBM models, `export` takes PyTorch modules. Both write nothing before the
converted model has answered like the original. The command line is `python -m outhaul convert --help`.
"""

from outhaul.conversion import Converted, convert
from outhaul.errors import ConversionError
from outhaul.pytorch import export

__all__ = ["ConversionError", "Converted", "convert", "export"]
__version__ = "0.1.0"
