"""Makes the answers that rows, categories, dates and classification are held to.

    "$(sh scripts/venv.sh rows testdata/transform/rows/requirements.txt)/bin/python" testdata/transform/rows/make_rows.py

writes answers.json beside this file: what scikit-learn's encoders, pandas' dates and scipy's softmax and expit make of
the same values. In it null is NaN, and infinite numbers are the strings "inf" and "-inf".
"""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
import sklearn
from scipy.special import expit, softmax
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

ANSWERS = Path(__file__).resolve().parent / "answers.json"
CITIES = ["Paris", "Rome", "Oslo", "New York"]
SIZES = ["small", "medium", "large"]

TABLE = pd.DataFrame(
    {
        "age": [41.5, np.nan, -3.0, 1e-3, np.inf, 0.1],
        "member": [1.0, 0.0, np.nan, 1.0, 0.0, 0.0],
        "city": ["Oslo", "Paris", "New York", "Rome", "Atlantis", "Oslo"],
        "size": ["large", "small", "medium", "huge", "small", ""],
        "when": ["1999-12-31", "2024-02-29", "1970-01-01", "2026-03-31", "1969-07-20", "2100-01-01"],
    }
)


def days(texts):
    return (pd.to_datetime(texts, utc=True) - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)


def table():
    """A table as a ColumnTransformer hands it to a model: unknown cities are zeros, unknown and missing sizes -1."""
    frame = TABLE.assign(when=days(TABLE["when"]), size=TABLE["size"].replace("", None))
    encode = ColumnTransformer(
        [
            ("numbers", "passthrough", ["age", "member"]),
            ("city", OneHotEncoder(categories=[CITIES], handle_unknown="ignore", sparse_output=False), ["city"]),
            (
                "size",
                OrdinalEncoder(categories=[SIZES], handle_unknown="use_encoded_value", unknown_value=-1),
                ["size"],
            ),
            ("when", "passthrough", ["when"]),
        ]
    )
    known = pd.DataFrame({"age": 0.0, "member": 0.0, "city": CITIES[:3], "size": SIZES, "when": 0.0})
    packed = encode.fit(known).transform(frame)
    return {
        "columns": {name: TABLE[name].tolist() for name in TABLE},
        "cities": CITIES,
        "sizes": SIZES,
        "packed": np.asarray(packed, dtype=np.float64).tolist(),
    }


def dates():
    cases = [
        (None, "ISO8601", ["2024-02-29", "1969-07-20T20:17:40Z", "2026-03-31T23:30:00.250-02:00", "1900-01-01T05:00:00"]),
        ("%d.%m.%Y", None, ["29.02.2024", "31.12.1999", "01.01.1970", "05.03.1899"]),
        ("%d.%m.%Y %H:%M", None, ["29.02.2024 23:59", "31.12.1999 00:00"]),
        ("%m/%d/%y %I:%M %p", None, ["07/14/24 09:14 PM", "01/02/70 12:00 AM"]),
        ("%Y-%m-%dT%H:%M:%S%z", None, ["2024-07-14T01:00:00+0530", "2024-01-01T00:30:00+0100"]),
        ("%Y%m%d", None, ["20240714", "19691231"]),
        ("%d %b %Y", None, ["14 Jul 2024", "09 Feb 1970"]),
    ]
    answers = []
    for ours, theirs, texts in cases:
        # One by one: pandas 2.3 applies the offset of one text to the next one that has none.
        times = pd.Series([pd.to_datetime(text, format=theirs or ours, utc=True) for text in texts])
        seconds = (times - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
        units = {
            "seconds": seconds,
            "days": seconds / 86400,
            "year": times.dt.year,
            "month": times.dt.month,
            "day": times.dt.day,
            "weekday": times.dt.dayofweek,
            "hour": times.dt.hour,
        }
        numbers = {unit: values.astype(float).tolist() for unit, values in units.items()}
        answers.append({"format": ours, "texts": texts, **numbers})
    return answers


def scores():
    random = np.random.default_rng(20240714)
    usual = random.normal(scale=5, size=(4, 7))
    extreme = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [88.0, 89.0, 90.0], [-np.inf, 0.0, 1.0], [3.0, 3.0, 1.0]])
    wide = random.normal(size=(1, 300))
    single = random.normal(scale=8, size=(6, 1))
    answers = []
    for activation, function in [("softmax", lambda given: softmax(given, axis=1)), ("sigmoid", expit)]:
        for given in [usual, extreme, wide]:
            for kind in [np.float32, np.float64, np.float16]:
                # Reference in FP64 of exactly the numbers that the type holds.
                held = given.astype(kind).astype(np.float64)
                held = held[np.isfinite(held).all(axis=1) | (kind != np.float16)]
                if given is wide and kind is not np.float32:
                    continue
                result = function(held)
                answers.append(
                    {
                        "activation": activation,
                        "kind": np.dtype(kind).name,
                        "given": held.tolist(),
                        "probabilities": result.tolist(),
                        # By the numbers given, which tell apart what rounds to the same probability.
                        "first_three": np.argsort(-held, axis=1, kind="stable")[:, :3].tolist(),
                    }
                )
    held = single.astype(np.float32).astype(np.float64)
    both = np.concatenate([expit(-held), expit(held)], axis=1)
    binary = {"given": held.tolist(), "probabilities": both.tolist(), "best": both.argmax(axis=1).tolist()}
    return {"classes": answers, "binary": binary}


def plain(value):
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def main():
    modules = {"numpy": np, "pandas": pd, "scikit-learn": sklearn, "scipy": scipy}
    answers = {
        "made_with": {name: module.__version__ for name, module in modules.items()},
        "table": table(),
        "dates": dates(),
        "scores": scores(),
    }
    ANSWERS.write_text(json.dumps(plain(answers), allow_nan=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
