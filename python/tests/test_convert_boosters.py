"""XGBoost and LightGBM: their own files and their scikit-learn classes."""

import json

import numpy as np
import pytest

pytest.importorskip("skl2onnx", reason="needs requirements-convert.txt")

import lightgbm
import pandas
import xgboost
from converted import answers, check_folder, check_served, command, numbers
from sklearn import compose, pipeline, preprocessing

import outhaul
from outhaul import trees

MATRIX, TWO, THREE, QUANTITY = numbers()
# Both libraries take missing values as they are.
LACKING = np.where(np.random.default_rng(1).random(MATRIX.shape) < 0.05, np.nan, MATRIX)
WORDS = np.array(["no", "yes"])[TWO]
NAMED = pandas.DataFrame(MATRIX, columns=["a b", "c", "d", "e"])
SMALL = {"n_estimators": 8}
QUIET = {"n_estimators": 8, "verbose": -1}

MODELS = {
    "xgboost_two": (xgboost.XGBClassifier(**SMALL), LACKING, TWO),
    "xgboost_three": (xgboost.XGBClassifier(**SMALL), LACKING, THREE),
    "xgboost_named": (xgboost.XGBClassifier(**SMALL), NAMED, TWO),
    "xgboost_quantity": (xgboost.XGBRegressor(**SMALL), LACKING, QUANTITY),
    "xgboost_counts": (xgboost.XGBRegressor(objective="count:poisson", **SMALL), MATRIX, np.abs(QUANTITY)),
    "xgboost_forest": (xgboost.XGBRFClassifier(**SMALL), MATRIX, TWO),
    "lightgbm_two": (lightgbm.LGBMClassifier(**QUIET), LACKING, WORDS),
    "lightgbm_three": (lightgbm.LGBMClassifier(**QUIET), LACKING, THREE),
    "lightgbm_named": (lightgbm.LGBMRegressor(**QUIET), NAMED, QUANTITY),
    "lightgbm_quantity": (lightgbm.LGBMRegressor(**QUIET), LACKING, QUANTITY),
    "lightgbm_counts": (lightgbm.LGBMRegressor(objective="poisson", **QUIET), MATRIX, np.abs(QUANTITY)),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_answer_like_the_original(name, tmp_path):
    model, table, target = MODELS[name]
    model.fit(table, target)
    written = outhaul.convert(model, None, tmp_path / name)
    assert (written.kind, written.rows_different) == (name.partition("_")[0], 0)
    check_folder(written)
    feeds = {"input": np.asarray(table, dtype=np.float32)}
    found = answers(written.folder, feeds)
    rounded = pandas.DataFrame(feeds["input"], columns=NAMED.columns) if table is NAMED else feeds["input"]
    if "label" in found:
        assert found["label"].tolist() == model.predict(rounded).tolist()
        np.testing.assert_allclose(found["probabilities"], model.predict_proba(rounded), atol=1e-5)
    else:
        np.testing.assert_allclose(found["prediction"].reshape(-1), model.predict(rounded), rtol=1e-5)
    check_served(written)


@pytest.mark.parametrize("ending", ["json", "ubj"])
@pytest.mark.parametrize("target", [TWO, THREE, QUANTITY], ids=["two", "three", "quantity"])
def test_files_of_xgboost_need_no_trust(ending, target, tmp_path):
    kind = xgboost.XGBRegressor if target is QUANTITY else xgboost.XGBClassifier
    model = kind(**SMALL).fit(NAMED, target)
    file = tmp_path / f"trees.{ending}"
    model.save_model(file)
    done = command(file, "--to", tmp_path / "models")
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)
    assert (written["name"], written["kind"]) == ("trees", "xgboost")
    found = answers(written["folder"], {"input": MATRIX.astype(np.float32)})
    wanted = model.predict(NAMED.astype(np.float32))
    np.testing.assert_allclose(found.get("label", found.get("prediction")).reshape(-1), wanted, rtol=1e-5)


@pytest.mark.parametrize("target", [TWO, THREE, QUANTITY], ids=["two", "three", "quantity"])
def test_files_of_lightgbm_need_no_trust(target, tmp_path):
    kind = lightgbm.LGBMRegressor if target is QUANTITY else lightgbm.LGBMClassifier
    model = kind(**QUIET).fit(MATRIX, target)
    model.booster_.save_model(tmp_path / "trees.txt")
    done = command(tmp_path / "trees.txt", "--to", tmp_path / "models")
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)
    assert written["kind"] == "lightgbm"
    found = answers(written["folder"], {"input": MATRIX.astype(np.float32)})
    wanted = model.predict(MATRIX.astype(np.float32))
    np.testing.assert_allclose(found.get("label", found.get("prediction")).reshape(-1), wanted, rtol=1e-5)


@pytest.mark.parametrize("booster", [xgboost.XGBClassifier(**SMALL), lightgbm.LGBMClassifier(**QUIET)], ids=["xgb", "lgbm"])
def test_boosters_may_end_a_pipeline(booster, tmp_path):
    frame = pandas.DataFrame(MATRIX, columns=list("abcd"))
    frame["city"] = np.array(["Ghent", "Oslo"])[THREE % 2]
    encode = compose.ColumnTransformer(
        [("numbers", "passthrough", list("abcd")), ("city", preprocessing.OneHotEncoder(), ["city"])]
    )
    model = pipeline.make_pipeline(encode, booster).fit(frame, TWO)
    check_served(outhaul.convert(model, frame, tmp_path / "pipeline"))


def test_trees_after_the_best_iteration_are_left_out(tmp_path):
    random = np.random.default_rng(5).integers(0, 2, len(MATRIX))
    held = {"eval_set": [(MATRIX[200:], random[200:])]}
    model = xgboost.XGBClassifier(n_estimators=50, early_stopping_rounds=3)
    model.fit(MATRIX[:200], random[:200], verbose=False, **held)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds(), "there is something to leave out"
    assert outhaul.convert(model, None, tmp_path / "early").rows_different == 0
    model.save_model(tmp_path / "early.ubj")
    done = command(tmp_path / "early.ubj", "--to", tmp_path / "files")
    assert done.returncode == 0, done.stderr
    found = answers(tmp_path / "files" / "early" / "1", {"input": MATRIX.astype(np.float32)})
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(MATRIX.astype(np.float32)), atol=1e-5)


def test_a_class_of_few_trees_keeps_its_label(tmp_path):
    """With all leaves positive, ONNX Runtime's trees decide at another border than the probabilities."""
    mostly = (MATRIX[:, 0] > -1.5).astype(int)
    model = lightgbm.LGBMClassifier(n_estimators=1, verbose=-1).fit(MATRIX, mostly)
    assert outhaul.convert(model, None, tmp_path / "mostly").rows_different == 0


def test_rounded_thresholds_are_found_and_corrected(tmp_path, monkeypatch):
    model = lightgbm.LGBMRegressor(**QUIET).fit(MATRIX, QUANTITY)
    with monkeypatch.context() as patched:
        patched.setattr(trees, "round_down", lambda *_: None)
        with pytest.raises(outhaul.ConversionError, match="rows differ from the original"):
            outhaul.convert(model, None, tmp_path / "trees")
    assert outhaul.convert(model, None, tmp_path / "trees").rows_different == 0


UNKNOWN = {
    "several targets": (xgboost.XGBRegressor(**SMALL), np.stack([QUANTITY, -QUANTITY], axis=1), "several targets"),
    "dropped trees": (xgboost.XGBClassifier(booster="dart", **SMALL), TWO, "booster dart"),
    "another last step": (xgboost.XGBRegressor(objective="reg:logistic", **SMALL), TWO, "objective reg:logistic"),
    # onnxmltools converts this one without a word, and wrongly.
    "averaged trees": (
        lightgbm.LGBMRegressor(boosting_type="rf", bagging_freq=1, bagging_fraction=0.5, **QUIET),
        QUANTITY,
        "rows differ from the original",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_converters_get_wrong_is_not_written(name, tmp_path):
    model, target, says = UNKNOWN[name]
    model.fit(MATRIX, target)
    with pytest.raises(outhaul.ConversionError, match=says):
        outhaul.convert(model, None, tmp_path / "models" / "wrong")
    assert not (tmp_path / "models").exists()
