"""Generated samples: rows that try what a model tells apart.

They hold random values in the range of each column, and for trees the values at which they branch, the nearest FP32 below
and the nearest above: rounding at thresholds is where converted trees usually go wrong.
"""

import numpy as np

from outhaul.tables import TEXT, WHOLE

ROWS = 256
MOST_AT_THRESHOLDS = 384
WITH_MISSING = 32


def generate(layout, thresholds, missing):
    """Returns rows for a layout. `missing` says whether some of them lack values. The same model gives the same rows."""
    random = np.random.default_rng(0)
    if not layout.per_column:
        for feature, value in thresholds:
            layout.columns[feature].widen(value, value)
    rows = [list(row) for row in zip(*[_values(column, ROWS, random) for column in layout.columns], strict=True)]
    if not layout.per_column and thresholds:
        rows += _at_thresholds(rows, thresholds, random)
    if missing:
        lacking = [list(row) for row in rows[:WITH_MISSING]]
        for row in lacking:
            for index in np.flatnonzero(random.random(len(row)) < 0.3):
                row[index] = np.nan
        rows += [*lacking, [np.nan] * len(layout.columns)]
    return rows


def _at_thresholds(rows, thresholds, random):
    chosen = [(feature, np.float32(value)) for feature, value in thresholds]
    if 3 * len(chosen) > MOST_AT_THRESHOLDS:
        picked = random.choice(len(chosen), MOST_AT_THRESHOLDS // 3, replace=False)
        chosen = [chosen[index] for index in picked]
    added = []
    for feature, value in chosen:
        for near in (np.nextafter(value, np.float32(-np.inf)), value, np.nextafter(value, np.float32(np.inf))):
            row = list(rows[random.integers(len(rows))])
            row[feature] = float(near)
            added.append(row)
    return added


def _values(column, count, random):
    if column.kind == TEXT:
        return _texts(column, count, random)
    if column.categories:
        picked = random.integers(len(column.categories), size=count)
        return [column.categories[index] for index in picked]
    if column.low is not None:
        around = max(column.high - column.low, abs(column.high) * 1e-3, 1e-6) * 0.2
        values = random.uniform(column.low - around, column.high + around, count)
    else:
        # Nothing is known: small, middle and large values.
        values = random.normal(size=count) * random.choice([1.0, 10.0, 100.0], count)
    if column.kind == WHOLE:
        return [int(value) for value in np.round(values)]
    return [float(value) for value in values.astype(np.float32)]


def _texts(column, count, random):
    if column.words:
        words = [*column.words, "elsewhere"]
        return [" ".join(random.choice(words, random.integers(1, 8))) for _ in range(count)]
    known = list(map(str, column.categories or ["text"]))
    if column.others:
        known.append("none of these")
    return [known[index] for index in random.integers(len(known), size=count)]
