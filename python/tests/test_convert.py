"""scikit-learn models: converted, checked against the original, written, and answered alike by ONNX Runtime and the server."""

import json
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("skl2onnx", reason="needs requirements-convert.txt")

import joblib
import pandas
from converted import answers, check_folder, check_served, command, numbers
from sklearn import (
    cluster,
    compose,
    decomposition,
    ensemble,
    feature_extraction,
    linear_model,
    multioutput,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    svm,
)

import outhaul
from outhaul import converters, samples, trees

MATRIX, TWO, THREE, QUANTITY = numbers()
WORDS = np.array(["no", "yes"])[TWO]
BOTH = np.stack([TWO, THREE], axis=1)
PAIR = np.stack([QUANTITY, -QUANTITY], axis=1)

# The model, what it learns, and the outputs that it must have.
MODELS = {
    "logistic_words": (linear_model.LogisticRegression(), WORDS, ["label", "probabilities"]),
    "logistic_three": (linear_model.LogisticRegression(), THREE, ["label", "probabilities"]),
    "support_vectors": (svm.SVC(), TWO, ["label", "scores"]),
    "forest": (ensemble.RandomForestClassifier(20, random_state=0), THREE, ["label", "probabilities"]),
    "forest_two_labels": (ensemble.RandomForestClassifier(5, random_state=0), BOTH, ["label", "probabilities"]),
    "histogram_boosting": (ensemble.HistGradientBoostingClassifier(max_iter=5), TWO, ["label", "probabilities"]),
    "neighbors": (neighbors.KNeighborsClassifier(), TWO, ["label", "probabilities"]),
    "network": (neural_network.MLPClassifier((8,), max_iter=30, random_state=0), THREE, ["label", "probabilities"]),
    "bayes": (naive_bayes.GaussianNB(), THREE, ["label", "probabilities"]),
    "each_label": (
        multioutput.MultiOutputClassifier(linear_model.LogisticRegression()),
        BOTH,
        ["label", "probabilities_0", "probabilities_1"],
    ),
    "ridge": (linear_model.Ridge(), QUANTITY, ["prediction"]),
    "ridge_pair": (linear_model.Ridge(), PAIR, ["prediction"]),
    "forest_pair": (ensemble.RandomForestRegressor(20, random_state=0), PAIR, ["prediction"]),
    "boosting": (ensemble.GradientBoostingRegressor(n_estimators=10), QUANTITY, ["prediction"]),
    "scaled": (pipeline.make_pipeline(preprocessing.StandardScaler(), svm.SVR()), QUANTITY, ["prediction"]),
    "clusters": (cluster.KMeans(3, random_state=0), None, ["label", "scores"]),
    "components": (decomposition.PCA(2), None, ["transformed"]),
    "outliers": (ensemble.IsolationForest(n_estimators=5, random_state=0), None, ["label", "scores"]),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_answer_like_the_original(name, tmp_path):
    model, target, outputs = MODELS[name]
    model.fit(MATRIX, target)
    written = outhaul.convert(model, None, tmp_path / name)
    assert (written.name, written.version, written.kind) == (name, 1, "sklearn")
    assert written.rows_checked >= samples.ROWS and written.rows_different == 0
    _, wanted = check_folder(written)
    assert [tensor["name"] for tensor in wanted["outputs"]] == outputs
    found = answers(written.folder, {"input": MATRIX.astype(np.float32)})
    if "label" in found:
        labels = model.predict(MATRIX.astype(np.float32) if name != "clusters" else MATRIX)
        assert found["label"].reshape(labels.shape).tolist() == labels.tolist()
    if "probabilities" in found and target is not None and target.ndim == 1:
        wanted = model.predict_proba(MATRIX.astype(np.float32))
        np.testing.assert_allclose(found["probabilities"], wanted, atol=1e-4)
    if "prediction" in found:
        predicted = model.predict(MATRIX.astype(np.float32))
        np.testing.assert_allclose(found["prediction"].reshape(predicted.shape), predicted, rtol=1e-4)
    check_served(written)


def test_labels_are_the_classes_in_the_order_of_the_probabilities(tmp_path):
    model = linear_model.LogisticRegression().fit(MATRIX, WORDS)
    written = outhaul.convert(model, MATRIX[:20], tmp_path / "words")
    assert Path(written.folder, "labels.txt").read_text() == "no\nyes\n"
    assert written.rows_checked == 20
    assert "LogisticRegression of scikit-learn" in (tmp_path / "words" / "model.toml").read_text()


def table():
    """A table with texts and whole numbers, and a pipeline for it."""
    random = np.random.default_rng(3)
    frame = pandas.DataFrame(MATRIX[:, :2], columns=["length", "width"])
    frame["city"] = np.array(["Ghent", "Oslo", "Turin"])[random.integers(0, 3, len(frame))]
    frame["rooms"] = random.integers(1, 5, len(frame))
    encode = preprocessing.OneHotEncoder(handle_unknown="ignore")
    columns = compose.ColumnTransformer(
        [("scale", preprocessing.StandardScaler(), ["length", "width"]), ("encode", encode, ["city", "rooms"])]
    )
    model = pipeline.Pipeline([("columns", columns), ("model", linear_model.LogisticRegression())])
    return frame, model


@pytest.mark.parametrize("given", [True, False])
def test_a_pipeline_with_texts_has_an_input_for_each_column(given, tmp_path):
    frame, model = table()
    model.fit(frame, WORDS)
    written = outhaul.convert(model, frame if given else None, tmp_path / "houses")
    request, _ = check_folder(written)
    kinds = {tensor["name"]: tensor["datatype"] for tensor in request["inputs"]}
    assert kinds == {"length": "FP32", "width": "FP32", "city": "BYTES", "rooms": "INT64"}
    feeds = {
        "length": frame[["length"]].to_numpy(np.float32),
        "width": frame[["width"]].to_numpy(np.float32),
        "city": frame[["city"]].to_numpy(object),
        "rooms": frame[["rooms"]].to_numpy(np.int64),
    }
    assert answers(written.folder, feeds)["label"].tolist() == model.predict(frame).tolist()
    check_served(written)


def test_a_table_of_numbers_is_one_matrix(tmp_path):
    frame = pandas.DataFrame(MATRIX, columns=["a", "b", "c", "d"])
    model = linear_model.LogisticRegression().fit(frame, TWO)
    # The columns are found by their names.
    written = outhaul.convert(model, frame[["d", "c", "b", "a"]], tmp_path / "plain")
    request, _ = check_folder(written)
    assert [(tensor["name"], tensor["shape"][1]) for tensor in request["inputs"]] == [("input", 4)]
    np.testing.assert_allclose(np.array(request["inputs"][0]["data"][:4]), MATRIX[0], rtol=1e-6)


def test_texts_are_vectorized(tmp_path):
    # Turning letters into small ones needs a locale of the system, which not every machine has.
    texts = np.array(["the sea is calm", "a storm at sea", "calm weather", "storm and rain"] * 10)
    vectorize = feature_extraction.text.CountVectorizer(lowercase=False)
    columns = compose.ColumnTransformer([("text", vectorize, "text")])
    model = pipeline.make_pipeline(columns, linear_model.LogisticRegression())
    frame = pandas.DataFrame({"text": texts})
    model.fit(frame, [1, 0, 1, 0] * 10)
    written = outhaul.convert(model, frame, tmp_path / "texts")
    check_folder(written)


def test_a_wrong_conversion_is_not_written(tmp_path, monkeypatch, capsys):
    model = linear_model.Ridge().fit(MATRIX, QUANTITY)
    honest = converters.to_onnx

    def shifted(*arguments):
        converted = honest(*arguments)
        for node in converted.graph.node:
            for attribute in node.attribute:
                if attribute.name == "intercepts":
                    attribute.floats[0] += 0.01
        for constant in converted.graph.initializer:
            if len(constant.dims) == 1 and constant.data_type == onnx.TensorProto.FLOAT:
                values = onnx.numpy_helper.to_array(constant) + np.float32(0.01)
                constant.CopyFrom(onnx.numpy_helper.from_array(values, constant.name))
        return converted

    monkeypatch.setattr(converters, "to_onnx", shifted)
    with pytest.raises(outhaul.ConversionError, match="[0-9]+ of 256 rows differ .* nothing was written"):
        outhaul.convert(model, None, tmp_path / "models" / "ridge")
    assert not (tmp_path / "models").exists()
    # It is a question of tolerance.
    assert outhaul.convert(model, None, tmp_path / "models" / "ridge", tolerance=0.02).largest_difference > 0.009


def test_rounded_thresholds_are_found_and_corrected(tmp_path, monkeypatch):
    model = ensemble.RandomForestClassifier(5, random_state=0).fit(MATRIX, BOTH)
    with monkeypatch.context() as patched:
        patched.setattr(trees, "round_down", lambda *_: None)
        with pytest.raises(outhaul.ConversionError, match=r"[0-9]+ of [0-9]+ rows differ .* thresholds") as failure:
            outhaul.convert(model, None, tmp_path / "forest")
        count = int(str(failure.value).split()[0])
        written = outhaul.convert(model, None, tmp_path / "forest", allow_different=count)
        assert written.rows_different == count
        with pytest.raises(outhaul.ConversionError):
            outhaul.convert(model, None, tmp_path / "forest", allow_different=count - 1)
    assert outhaul.convert(model, None, tmp_path / "forest").rows_different == 0


def test_a_version_does_not_change_and_model_toml_is_the_users(tmp_path):
    model = linear_model.Ridge().fit(MATRIX, QUANTITY)
    assert outhaul.convert(model, None, tmp_path, name="ridge").version == 1
    manifest = tmp_path / "ridge" / "model.toml"
    manifest.write_text("engine = 'onnxruntime'\n")
    assert outhaul.convert(model, None, tmp_path, name="ridge").version == 2
    with pytest.raises(outhaul.ConversionError, match="is there already"):
        outhaul.convert(model, None, tmp_path, name="ridge", version=2)
    before = (tmp_path / "ridge" / "2").stat().st_ino
    written = outhaul.convert(model, None, tmp_path, name="ridge", version=2, force=True)
    assert (tmp_path / "ridge" / "2").stat().st_ino != before
    assert manifest.read_text() == "engine = 'onnxruntime'\n"
    check_folder(written)
    with pytest.raises(outhaul.ConversionError, match="is not a model name"):
        outhaul.convert(model, None, tmp_path, name="a/b")


def test_what_cannot_be_converted_says_so(tmp_path):
    target = compose.TransformedTargetRegressor(linear_model.Ridge(), func=np.log1p, inverse_func=np.expm1)
    target.fit(MATRIX, np.abs(QUANTITY))
    with pytest.raises(outhaul.ConversionError, match="TransformedTargetRegressor cannot be converted"):
        outhaul.convert(target, None, tmp_path / "target")
    with pytest.raises(outhaul.ConversionError, match="no model of scikit-learn, XGBoost or LightGBM"):
        outhaul.convert({"a": 1}, None, tmp_path / "dictionary")
    model = linear_model.Ridge().fit(MATRIX, QUANTITY)
    with pytest.raises(outhaul.ConversionError, match="row 0 has 3 columns, not 4"):
        outhaul.convert(model, MATRIX[:, :3], tmp_path / "ridge")


class Exploding:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_not_loaded_without_trust(tmp_path):
    trace = tmp_path / "trace"
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(Exploding(trace)))
    done = command(tmp_path / "bad.pkl", "--to", tmp_path / "models")
    assert (done.returncode, done.stdout) == (1, "")
    assert "loading it runs whatever code it holds. Give --trust" in done.stderr
    assert not trace.exists() and not (tmp_path / "models").exists()


def test_the_command_line_says_what_it_wrote(tmp_path):
    frame, model = table()
    joblib.dump(model.fit(frame, WORDS), tmp_path / "houses.joblib")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    models = tmp_path / "models"
    done = command(tmp_path / "houses.joblib", "--to", models, "--sample", tmp_path / "rows.csv", "--trust")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    written = json.loads(line)
    difference = written.pop("largest_difference")
    assert 0 <= difference < 1e-4
    assert written == {
        "name": "houses",
        "version": 1,
        "folder": str(models / "houses" / "1"),
        "kind": "sklearn",
        "rows_checked": 300,
        "rows_different": 0,
    }


@pytest.mark.parametrize("ending", ["npy", "json", "csv"])
def test_samples_come_in_three_forms(ending, tmp_path):
    joblib.dump(linear_model.Ridge().fit(MATRIX, QUANTITY), tmp_path / "ridge.pkl")
    sample = tmp_path / f"rows.{ending}"
    rows = MATRIX[:9].astype(np.float32)
    if ending == "npy":
        np.save(sample, rows)
    elif ending == "json":
        sample.write_text(json.dumps(rows.tolist()))
    else:
        np.savetxt(sample, rows, delimiter=",")
    done = command(tmp_path / "ridge.pkl", "--to", tmp_path / "models", "--sample", sample, "--trust", "--version", "7")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows_checked"] == 9
    # What was written is a sample too.
    again = ("--sample", tmp_path / "models" / "ridge" / "7" / "sample.json", "--name", "again")
    done = command(tmp_path / "ridge.pkl", "--to", tmp_path / "models", *again, "--trust")
    assert done.returncode == 0, done.stderr


def test_folders_of_mlflow_and_mlserver_are_understood(tmp_path):
    model = linear_model.LogisticRegression().fit(MATRIX, WORDS)
    flow, server = tmp_path / "flow", tmp_path / "server"
    for folder in (flow, server):
        folder.mkdir()
    joblib.dump(model, flow / "model.pkl")
    (flow / "MLmodel").write_text("flavors:\n  sklearn:\n    pickled_model: model.pkl\n")
    joblib.dump(model, server / "model.joblib")
    settings = {"name": "words", "implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": "./model.joblib"}}
    (server / "model-settings.json").write_text(json.dumps(settings))
    for folder, name in ((flow, "flow"), (server, "words")):
        done = command(folder, "--to", tmp_path / "models", "--trust")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["name"] == name
    (flow / "MLmodel").write_text("flavors:\n  sklearn:\n    pickled_model: ../server/model.joblib\n")
    done = command(flow, "--to", tmp_path / "models", "--trust")
    assert done.returncode == 1 and "leads out of the folder" in done.stderr


def test_skops_files_of_known_types_need_no_trust(tmp_path):
    import skops.io

    skops.io.dump(linear_model.Ridge().fit(MATRIX, QUANTITY), tmp_path / "ridge.skops")
    done = command(tmp_path / "ridge.skops", "--to", tmp_path / "models")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("none.pkl", "there is no such file or folder"),
        ("model.onnx", "is ONNX already"),
        ("notes.md", "no model file ends in .md"),
        ("empty.json", "is no model of xgboost"),
        ("empty.txt", "is no model of lightgbm"),
    ],
)
def test_files_that_are_no_models_say_so(file, says, tmp_path):
    if file != "none.pkl":
        (tmp_path / file).write_text("{}")
    done = command(tmp_path / file, "--to", tmp_path / "models")
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "models").exists()
