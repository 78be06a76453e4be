"""Finds and loads a model: a file, or a folder of MLflow or MLServer.

A pickle is a program that runs when it is loaded. Invariant: without the caller's word that it is trusted, no file is
loaded in a way that runs code; the native files of XGBoost and LightGBM, and skops files of known types, need no such word.
"""

import dataclasses
import json
import pathlib
import warnings

from outhaul.errors import ConversionError

PICKLES = (".pkl", ".pickle", ".joblib")
XGBOOST = (".json", ".ubj", ".bst", ".model")
LIGHTGBM = (".txt", ".lgb", ".bst")

# File names that say nothing, so that the folder's is the model's.
NAMELESS = ("model", "booster", "estimator")

# What MLServer looks for where its settings name no file.
WELL_KNOWN = ("model.joblib", "model.pickle", "model.pkl", "model.bst", "model.json", "model.ubj", "model.txt", "model.lgb")

MLSERVER = {"mlserver_sklearn": "sklearn", "mlserver_xgboost": "xgboost", "mlserver_lightgbm": "lightgbm"}


@dataclasses.dataclass
class Source:
    """The file that holds a model."""

    file: pathlib.Path
    kind: str
    name: str


def find(path, kind="auto"):
    """Returns the file that a path means, and what is told of it."""
    path = pathlib.Path(path)
    if path.is_dir():
        if (path / "MLmodel").is_file():
            source = _mlflow(path)
        elif (path / "model-settings.json").is_file():
            source = _mlserver(path)
        else:
            source = _folder(path)
    elif path.is_file():
        stem = path.resolve().parent.name if path.stem in NAMELESS else path.stem
        source = Source(path, "auto", stem)
    else:
        raise ConversionError(f"{path}: there is no such file or folder")
    if source.file.suffix == ".onnx":
        raise ConversionError(f"{source.file} is ONNX already: serve it as it is, or take it with outhaul import")
    return source if kind == "auto" else dataclasses.replace(source, kind=kind)


def _mlflow(folder):
    import yaml

    file = folder / "MLmodel"
    try:
        flavors = yaml.safe_load(file.read_text(encoding="utf-8"))["flavors"]
    except (yaml.YAMLError, OSError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ConversionError(f"{file} cannot be read: {error}") from error
    for kind, key in (("sklearn", "pickled_model"), ("xgboost", "data"), ("lightgbm", "data")):
        if kind in flavors:
            named = flavors[kind].get(key) or flavors[kind].get("model_data")
            return Source(_inside(folder, named, file), kind, folder.resolve().name)
    raise ConversionError(f"{file}: none of its flavours can be converted: {', '.join(flavors)}")


def _mlserver(folder):
    file = folder / "model-settings.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        parameters = settings.get("parameters") or {}
        module = str(settings.get("implementation", "")).partition(".")[0]
    except (OSError, ValueError, AttributeError) as error:
        raise ConversionError(f"{file} cannot be read: {error}") from error
    if module not in MLSERVER:
        raise ConversionError(f"{file}: models of {module or 'no implementation'} cannot be converted")
    name = settings.get("name") or folder.resolve().name
    uri = str(parameters.get("uri") or ".").removeprefix("/mnt/models/")
    inner = folder / uri
    if inner.is_dir():
        for known in WELL_KNOWN:
            if (inner / known).is_file():
                uri = f"{uri}/{known}"
                break
    return Source(_inside(folder, uri, file), MLSERVER[module], name)


def _inside(folder, named, place):
    """Returns a file that lies in the folder, links followed."""
    if not named:
        raise ConversionError(f"{place} names no model file")
    inner = (folder / named).resolve()
    if not inner.is_relative_to(folder.resolve()):
        raise ConversionError(f"{place}: {named!r} leads out of the folder; put the file into it")
    if not inner.is_file():
        raise ConversionError(f"{place}: there is no file {named!r} in the folder")
    return inner


def _folder(folder):
    endings = (*PICKLES, ".skops", *XGBOOST, *LIGHTGBM)
    found = [entry for entry in sorted(folder.iterdir()) if entry.is_file() and entry.suffix in endings]
    models = [entry for entry in found if entry.stem in NAMELESS] or found
    if len(models) != 1:
        names = ", ".join(entry.name for entry in models)
        raise ConversionError(f"{folder}: " + (f"which is the model? {names}" if models else "there is no model in it"))
    return Source(models[0], "auto", folder.resolve().name)


def load(source, trust):
    """Loads a model. Returns it with its kind, which is `auto` where the object itself has to tell."""
    suffix = source.file.suffix.lower()
    if suffix == ".skops":
        return _skops(source.file, trust), source.kind
    if suffix in PICKLES:
        return _pickle(source.file, trust), source.kind
    if suffix in LIGHTGBM and (source.kind == "lightgbm" or suffix not in XGBOOST and source.kind == "auto"):
        return _native("lightgbm", source.file, _lightgbm), "lightgbm"
    if suffix in XGBOOST and source.kind in ("xgboost", "auto"):
        return _native("xgboost", source.file, _xgboost), "xgboost"
    kind = "" if source.kind == "auto" else f" of {source.kind}"
    raise ConversionError(
        f"{source.file}: no model file{kind} ends in {suffix or 'nothing'}; "
        "known are .pkl, .joblib and .skops (any kind), .json and .ubj (XGBoost), .txt (LightGBM); --kind tells them apart"
    )


def _pickle(file, trust):
    if not trust:
        raise ConversionError(
            f"{file} is a pickle: loading it runs whatever code it holds. Give --trust if you made it, or trust who did. "
            "XGBoost's .json and .ubj and LightGBM's .txt files need no trust"
        )
    import joblib

    try:
        return joblib.load(file)
    except Exception as error:
        raise ConversionError(f"{file} cannot be loaded: {type(error).__name__}: {error}") from error


def _skops(file, trust):
    try:
        import skops.io
    except ImportError as error:
        raise ConversionError(f"{file} needs the package skops: pip install skops") from error
    unknown = skops.io.get_untrusted_types(file=file)
    if unknown and not trust:
        raise ConversionError(f"{file} holds types that may run code: {', '.join(unknown)}; give --trust if you trust them")
    try:
        return skops.io.load(file, trusted=unknown)
    except Exception as error:
        raise ConversionError(f"{file} cannot be loaded: {type(error).__name__}: {error}") from error


def _native(kind, file, read):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read(file)
    except ImportError as error:
        raise ConversionError(f"{file} needs {kind}: pip install './python[{kind}]'") from error
    except Exception as error:
        first = str(error).strip().split("\n")[0]
        raise ConversionError(f"{file} is no model of {kind}: {first}") from error


def _xgboost(file):
    import xgboost

    # Through memory: by its path, a file with another ending would be read as an old format.
    booster = xgboost.Booster()
    booster.load_model(bytearray(file.read_bytes()))
    best = booster.attr("best_iteration")
    if best is not None and booster.attr("scikit_learn") is not None:
        # A scikit-learn wrapper predicts with the trees up to the best iteration.
        booster = booster[: int(best) + 1]
    return booster


def _lightgbm(file):
    import lightgbm

    return lightgbm.Booster(model_str=file.read_text(encoding="utf-8"), params={"verbose": -1})
