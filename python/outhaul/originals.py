"""What the original answers, under the names that a converted model's outputs get.

- `label`: the class, cluster or verdict; `[batch]`, or `[batch, output]` for models of several outputs
- `probabilities`: `[batch, class]`, or `[batch, output, class]`; `probabilities_0` and so on where outputs come apart
- `scores`: decision values or distances
- `prediction`: numbers of a regression
- `transformed`: what a transformer gives
"""

import numpy as np

from outhaul.errors import ConversionError


class Original:
    """A model of another library, asked in its own way."""

    def __init__(self, kind, model, answers, classes):
        self.kind, self.model, self._answers = kind, model, answers
        # The classes in the order of the probabilities' last axis, where there are some.
        self.classes = classes
        # Whether the label is always the class of highest probability, as boosted trees have it.
        last = model.steps[-1][1] if hasattr(model, "steps") else model
        boosted = type(last).__module__.startswith(("xgboost", "lightgbm"))
        self.by_probability = boosted and classes is not None

    def answers(self, rows):
        """Returns what the original answers, by output name."""
        try:
            return {name: np.asarray(values) for name, values in self._answers(rows).items()}
        except ImportError as error:
            raise ConversionError(f"a package is missing: {error}; install with: pip install './python[{self.kind}]'") from error
        except Exception as error:
            raise ConversionError(f"the original fails on the sample: {error}; give one that suits it") from error


def original_of(model, kind, layout):
    """Wraps a model by its kind."""
    if kind == "xgboost" and type(model).__name__ == "Booster":
        return _of_xgboost(model, layout)
    if kind == "lightgbm" and type(model).__name__ == "Booster":
        return _of_lightgbm(model, layout)
    classes = getattr(model, "classes_", None)
    one_list = isinstance(classes, np.ndarray) and classes.ndim == 1
    names = classes.tolist() if one_list and _is(model, "classifier") else None
    return Original(kind, model, lambda rows: _estimator(model, layout.original(rows)), names)


def _is(model, what):
    from sklearn import base

    if what == "classifier":
        return base.is_classifier(model)
    if what == "regressor":
        return base.is_regressor(model)
    return base.is_clusterer(model) if what == "clusterer" else base.is_outlier_detector(model)


def _estimator(model, data):
    """Asks a fitted estimator, as scikit-learn names its methods."""
    answers = {}
    if not hasattr(model, "predict"):
        if not hasattr(model, "transform"):
            raise ConversionError(f"{type(model).__name__} has neither predict nor transform")
        transformed = model.transform(data)
        return {"transformed": transformed.toarray() if hasattr(transformed, "toarray") else transformed}
    if _is(model, "classifier"):
        answers["label"] = model.predict(data)
        if hasattr(model, "predict_proba"):
            answers.update(_probabilities(model.predict_proba(data)))
        elif hasattr(model, "decision_function"):
            answers["scores"] = model.decision_function(data)
    elif _is(model, "clusterer"):
        answers["label"] = model.predict(data)
        if hasattr(model, "transform"):
            answers["scores"] = model.transform(data)
    elif _is(model, "outlier detector"):
        answers["label"] = model.predict(data)
        answers["scores"] = model.decision_function(data)
    elif hasattr(model, "predict_proba"):
        # Mixtures are density estimators to scikit-learn.
        answers["label"] = model.predict(data)
        answers.update(_probabilities(model.predict_proba(data)))
    else:
        answers["prediction"] = model.predict(data)
    return answers


def _probabilities(found):
    if not isinstance(found, list):
        return {"probabilities": found}
    # One array for each output; outputs of fewer classes are filled up with zeros where all are in one tensor.
    most = max(values.shape[1] for values in found)
    filled = [np.pad(values, ((0, 0), (0, most - values.shape[1]))) for values in found]
    apart = {f"probabilities_{index}": values for index, values in enumerate(found)}
    return {"probabilities": np.stack(filled, axis=1), **apart}


def _of_xgboost(booster, layout):
    import json

    import xgboost

    learner = json.loads(booster.save_config())["learner"]
    objective = learner["objective"]["name"]
    count = int(learner["learner_model_param"]["num_class"])

    def answers(rows):
        data = xgboost.DMatrix(layout.original(rows), feature_names=booster.feature_names)
        if objective in ("multi:softmax", "multi:softprob"):
            margin = booster.predict(data, output_margin=True)
            return _of_classes(_softmax(margin.astype(np.float64)))
        found = booster.predict(data)
        return _of_classes(np.stack([1 - found, found], axis=1)) if objective == "binary:logistic" else {"prediction": found}

    classes = list(range(max(count, 2))) if objective.startswith(("multi:", "binary:logistic")) else None
    return Original("xgboost", booster, answers, classes)


def _of_lightgbm(booster, layout):
    objective = str(booster.dump_model(num_iteration=1).get("objective", "")).split(" ")[0]

    def answers(rows):
        found = booster.predict(layout.original(rows))
        if objective == "binary":
            return _of_classes(np.stack([1 - found, found], axis=1))
        return _of_classes(found) if objective == "multiclass" else {"prediction": found}

    count = {"binary": 2, "multiclass": booster.num_model_per_iteration()}.get(objective)
    return Original("lightgbm", booster, answers, list(range(count)) if count else None)


def _of_classes(probabilities):
    # A tie goes to the class that comes first, as both libraries have it: above one half is the second.
    return {"label": np.argmax(probabilities, axis=1), "probabilities": probabilities}


def _softmax(margin):
    grown = np.exp(margin - margin.max(axis=1, keepdims=True))
    return grown / grown.sum(axis=1, keepdims=True)
