"""Thresholds of converted trees, rounded so that FP32 values branch as they do in the original.

scikit-learn and LightGBM compare `value <= threshold` in FP64; ONNX does it in FP32. For a value of FP32 that is the same
where the threshold is rounded down, but converters round to the nearest, and a value that lies exactly there goes the
wrong way. XGBoost compares in FP32 itself.
"""

import numpy as np
from onnx import helper

# Where estimators keep those that they are made of.
INNER = (
    "estimators_", "estimator_", "estimator", "steps", "transformers_", "transformer_list", "calibrated_classifiers_",
    "final_estimator_", "best_estimator_",
)  # fmt: skip

# Values up to this far from zero are zeros to LightGBM.
ZERO = float(np.float32(1e-35))


def round_down(model, converted):
    """Corrects the thresholds of a converted model's trees that were rounded up."""
    corrected = {}
    for feature, threshold in _thresholds(model):
        nearest = np.float32(threshold)
        if float(nearest) > threshold:
            corrected[feature, nearest] = np.nextafter(nearest, np.float32(-np.inf))
    for node in converted.graph.node:
        if not corrected or not node.op_type.startswith("TreeEnsemble"):
            continue
        found = {attribute.name: attribute for attribute in node.attribute}
        if not {"nodes_values", "nodes_modes", "nodes_featureids"} <= set(found):
            continue
        modes, values = found["nodes_modes"].strings, np.array(found["nodes_values"].floats, dtype=np.float32)
        for index, (mode, feature) in enumerate(zip(modes, found["nodes_featureids"].ints, strict=True)):
            if mode == b"BRANCH_LEQ":
                values[index] = corrected.get((feature, values[index]), values[index])
        found["nodes_values"].CopyFrom(helper.make_attribute("nodes_values", values.tolist()))


def _thresholds(model):
    """Gives feature and threshold of every branch of every tree inside a model."""
    if model is None or isinstance(model, (str, int, float)):
        return
    if isinstance(model, (list, tuple, np.ndarray)):
        for one in model:
            yield from _thresholds(one)
        return
    if hasattr(model, "tree_"):
        tree = model.tree_
        branches = tree.children_left != tree.children_right
        yield from zip(tree.feature[branches].tolist(), tree.threshold[branches].tolist(), strict=True)
    for predictors in getattr(model, "_predictors", None) or []:
        for predictor in predictors:
            branches = predictor.nodes[predictor.nodes["is_leaf"] == 0]
            yield from zip(branches["feature_idx"].tolist(), branches["num_threshold"].tolist(), strict=True)
    if type(model).__module__.startswith("lightgbm"):
        booster = model if type(model).__name__ == "Booster" else model.booster_
        for tree in booster.dump_model()["tree_info"]:
            yield from _of_lightgbm(tree["tree_structure"])
        return
    for attribute in INNER:
        yield from _thresholds(getattr(model, attribute, None))


def _of_lightgbm(tree):
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if "split_feature" in node:
            if node["decision_type"] == "<=":
                threshold = float(node["threshold"])
                if threshold == -ZERO:
                    # The value at the border is a zero already, which lies above.
                    threshold = np.nextafter(threshold, -np.inf)
                yield node["split_feature"], threshold
            waiting += [node["left_child"], node["right_child"]]
