"""From a fitted model to an ONNX graph: skl2onnx and onnxmltools, with the cases that they would get wrong refused.

What comes out is not trusted: `outhaul.checking` compares it with the original.
"""

import json
import logging
import warnings

from outhaul.errors import ConversionError
from outhaul.tables import TEXT, WHOLE

# Old enough for every engine that we know of.
OPSET = {"": 17, "ai.onnx.ml": 3}
IR_VERSION = 8

# The newest that onnxmltools writes.
BOOSTER_OPSET = 15

# What onnxmltools takes for regressions without a last step, which these have.
UNKNOWN_OBJECTIVES = ("reg:logistic", "binary:logitraw", "binary:hinge")


def to_onnx(model, kind, layout):
    """Converts a model of one kind, with inputs as the layout has them."""
    converters = {"sklearn": _sklearn, "xgboost": _xgboost, "lightgbm": _lightgbm}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("skl2onnx").setLevel(logging.ERROR)
        try:
            converted = converters[kind](model, layout)
        except ImportError as error:
            raise ConversionError(f"a package is missing: {error}; install with: pip install './python[{kind}]'") from error
        except ConversionError:
            raise
        except Exception as error:
            # Converters raise whatever comes, with advice over many lines.
            first = str(error).strip().split("\n")[0]
            name = type(model).__name__
            raise ConversionError(f"this {name} cannot be converted: {type(error).__name__}: {first}") from error
    converted.ir_version = min(converted.ir_version, IR_VERSION)
    return converted


def _sklearn(model, layout):
    from skl2onnx import convert_sklearn
    from skl2onnx.common import data_types

    _register_boosters()
    types = {TEXT: data_types.StringTensorType, WHOLE: data_types.Int64TensorType}
    initial = [
        (name, types.get(kind, data_types.FloatTensorType)([None, width])) for name, kind, width in layout.inputs()
    ]
    # `flatten_transform` shapes what `transform` gives, and no prediction; the converter wants it off.
    inner = (model, *model.get_params(deep=True).values())
    voting = [one for one in inner if type(one).__name__ == "VotingClassifier" and one.flatten_transform]
    try:
        for one in voting:
            one.flatten_transform = False
        return convert_sklearn(model, initial_types=initial, target_opset=OPSET)
    finally:
        for one in voting:
            one.flatten_transform = True


def _register_boosters():
    """Lets pipelines hold models of XGBoost and LightGBM, where those are installed."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common import shape_calculator

    zipmap = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
    of_classes = shape_calculator.calculate_linear_classifier_output_shapes
    of_numbers = shape_calculator.calculate_linear_regressor_output_shapes
    try:
        import xgboost
        from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost

        update_registered_converter(
            xgboost.XGBClassifier, "OuthaulXGBClassifier", of_classes, convert_xgboost, options=zipmap
        )
        update_registered_converter(xgboost.XGBRegressor, "OuthaulXGBRegressor", of_numbers, convert_xgboost)
    except ImportError:
        pass
    try:
        import lightgbm
        from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm

        update_registered_converter(
            lightgbm.LGBMClassifier, "OuthaulLGBMClassifier", of_classes, convert_lightgbm, options=zipmap
        )
        update_registered_converter(
            lightgbm.LGBMRegressor, "OuthaulLGBMRegressor", of_numbers, convert_lightgbm, options={"split": None}
        )
    except ImportError:
        pass


def _matrix_type(layout):
    from onnxmltools.convert.common.data_types import FloatTensorType

    ((name, _, width),) = layout.inputs()
    return [(name, FloatTensorType([None, width]))]


def _xgboost(model, layout):
    import onnxmltools

    booster = xgboost_booster(model)
    learner = json.loads(booster.save_config())["learner"]
    objective, kind = learner["objective"]["name"], learner["gradient_booster"]["name"]
    if kind != "gbtree" or objective.startswith(("rank:", "survival:")) or objective in UNKNOWN_OBJECTIVES:
        raise ConversionError(f"the converter knows no XGBoost model of booster {kind} and objective {objective}")
    if int(learner["learner_model_param"].get("num_target", 1)) > 1:
        raise ConversionError("XGBoost models of several targets cannot be converted; train one for each")
    if "c" in (booster.feature_types or []):
        raise ConversionError("XGBoost's own categorical features cannot be converted; encode them before, in a pipeline")
    booster = booster.copy()
    # The converter takes no other names than f0, f1 and so on, which is what no names mean.
    booster.feature_names = None
    return onnxmltools.convert_xgboost(booster, initial_types=_matrix_type(layout), target_opset=BOOSTER_OPSET)


def xgboost_booster(model):
    """Returns the trees that a model predicts with: those up to the best iteration where training stopped early."""
    if type(model).__name__ == "Booster":
        return model
    booster = model.get_booster()
    best = booster.attr("best_iteration")
    return booster[: int(best) + 1] if best is not None else booster


def _lightgbm(model, layout):
    import onnxmltools

    booster = model if type(model).__name__ == "Booster" else model.booster_
    if booster.pandas_categorical:
        raise ConversionError("LightGBM's pandas categories cannot be converted; encode them before, in a pipeline")
    return onnxmltools.convert_lightgbm(
        model, initial_types=_matrix_type(layout), target_opset=BOOSTER_OPSET, zipmap=False
    )
