"""What a fitted scikit-learn model tells of the columns it takes: their names, their kinds and the range of their values.

Nothing here must be right for a conversion to be right: it steers which values a generated sample tries, and which
columns are texts.
"""

import numpy as np

from outhaul.errors import ConversionError
from outhaul.tables import NUMBER, TEXT, WHOLE, Column, Layout

# Attributes of fitted estimators that hold rows in the space of their input, `[row, feature]`.
ROWS = ("support_vectors_", "_fit_X", "cluster_centers_", "theta_", "means_", "X_train_")


def layout_of(model, features, per_column):
    """Returns the layout of a fitted scikit-learn model. `per_column` is `None` where it is to be decided here."""
    names = getattr(model, "feature_names_in_", None)
    count = len(names) if names is not None else getattr(model, "n_features_in_", features)
    if count is None:
        raise ConversionError(
            "the model does not say how many features it takes; give --sample, or --features with their number"
        )
    if features is not None and features != count:
        raise ConversionError(f"--features is {features}, but the model takes {count}")
    named = names is not None
    columns = [Column(str(name)) for name in (names if named else [f"feature_{index}" for index in range(count)])]
    by_name = _walk(model, columns)
    mixed = any(column.kind != NUMBER for column in columns)
    if per_column is None:
        per_column = mixed or by_name
    if mixed and not per_column:
        texts = ", ".join(column.name for column in columns if column.kind != NUMBER)
        raise ConversionError(f"columns that are no numbers need an input each: {texts}")
    return Layout(columns, per_column, named)


def _walk(estimator, columns):
    """Notes what an estimator tells of these columns; returns whether it picks columns by their names."""
    by_name = False
    steps = getattr(estimator, "steps", None)
    if steps is not None:
        # What comes after the first step sees other columns.
        inner = [step for _, step in steps if step is not None and step != "passthrough"]
        return _walk(inner[0], columns) if inner else False
    for attribute in ("estimator", "best_estimator_", "regressor_"):
        wrapped = getattr(estimator, attribute, None)
        if wrapped is not None and hasattr(wrapped, "get_params"):
            by_name |= _walk(wrapped, columns)
    if hasattr(estimator, "transformers_"):
        for _, transformer, chosen in estimator.transformers_:
            picked = _pick(chosen, columns)
            if hasattr(transformer, "get_params"):
                _walk(transformer, picked)
            by_name = True
        return by_name
    for _, member in getattr(estimator, "transformer_list", []):
        if hasattr(member, "get_params"):
            by_name |= _walk(member, columns)
    _note(estimator, columns)
    return by_name


def _pick(chosen, columns):
    if isinstance(chosen, slice):
        return columns[chosen]
    if isinstance(chosen, (str, int, np.integer)):
        chosen = [chosen]
    chosen = list(chosen)
    if chosen and isinstance(chosen[0], (bool, np.bool_)):
        return [column for column, taken in zip(columns, chosen, strict=True) if taken]
    by_name = {column.name: column for column in columns}
    return [by_name[which] if isinstance(which, str) else columns[which] for which in chosen]


def _note(estimator, columns):
    categories = getattr(estimator, "categories_", None)
    if categories is not None and len(categories) == len(columns):
        for column, known in zip(columns, categories, strict=True):
            _note_categories(column, known)
            column.others = getattr(estimator, "handle_unknown", "error") in ("ignore", "use_encoded_value")
    if hasattr(estimator, "vocabulary_"):
        for column in columns:
            column.kind, column.words = TEXT, sorted(map(str, estimator.vocabulary_))[:200]
    statistics = getattr(estimator, "statistics_", None)
    if statistics is not None and np.asarray(statistics).dtype.kind in "OU":
        for column, value in zip(columns, statistics, strict=False):
            if isinstance(value, str):
                column.kind, column.categories = TEXT, column.categories or [value]
    for low, high in _ranges(estimator):
        if len(low) == len(columns):
            for column, one, other in zip(columns, low, high, strict=True):
                column.widen(one, other)


def _note_categories(column, known):
    known = [value for value in np.asarray(known).tolist() if value is not None and value == value]
    column.categories = known
    if any(isinstance(value, str) for value in known):
        column.kind = TEXT
    elif known and all(isinstance(value, int) for value in known):
        column.kind = WHOLE


def _ranges(estimator):
    """Gives lowest and highest values of all features, from whatever the estimator keeps of its training."""
    middle = getattr(estimator, "mean_", None)
    if middle is None:
        middle = getattr(estimator, "center_", None)
    scale = getattr(estimator, "scale_", None)
    if middle is not None and scale is not None and np.shape(middle) == np.shape(scale) != ():
        yield middle - 3 * scale, middle + 3 * scale
    if hasattr(estimator, "data_min_") and hasattr(estimator, "data_max_"):
        yield estimator.data_min_, estimator.data_max_
    for attribute in ROWS:
        rows = getattr(estimator, attribute, None)
        if isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.dtype.kind == "f":
            yield rows.min(axis=0), rows.max(axis=0)
