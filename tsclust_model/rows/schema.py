"""The input columns of a model of rows: learned from a table, then applied to every batch."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.config import PipelineConfig
from tsclust_model.data.columns import (
    LARGEST,
    OK,
    are_numbers,
    as_boolean,
    is_nested,
    numbers_or_not,
    require_columns,
    row_status,
    without_markers,
)
from tsclust_model.errors import ConfigurationError, DataValidationError, listed, suggestion
from tsclust_model.shown import one_line

# What people write for "missing"; used only to point at a forgotten `missing_markers`.
_LIKELY_MARKERS = frozenset(
    {"", "?", "-", "--", ".", "na", "n/a", "nan", "null", "none", "missing", "unknown", "#n/a"}
)


@dataclass(frozen=True)
class Feature:
    """One input column: its name, its kind and, for a category, the texts seen in training.

    ``kind`` is ``number``, ``category`` or ``boolean``; the position in ``categories`` is the
    code LightGBM sees, and a text that is not among them is missing.
    """

    name: str
    kind: str
    categories: tuple[str, ...] = ()

    @property
    def is_number(self) -> bool:
        return self.kind == "number"


@one_line
@dataclass(frozen=True)
class Encoded:
    """A batch as LightGBM and the clustering see it.

    `X` (float64, shape (n, n_features)) holds numbers and the codes of categories, NaN is missing;
    `status` (object, shape (n,)) is ``ok``, or why the row cannot be scored, naming columns.
    """

    X: np.ndarray
    status: np.ndarray

    @property
    def scorable(self) -> np.ndarray:
        """Mask of the rows that can be scored, shape (n,)."""
        return np.asarray(self.status == OK, dtype=bool)


@dataclass(frozen=True)
class Schema:
    """The input columns of a model, and how their values become numbers."""

    features: tuple[Feature, ...]
    cluster_features: tuple[str, ...]
    missing_values: str = "error"
    missing_markers: tuple[str, ...] = ("",)

    @cached_property
    def names(self) -> list[str]:
        return [feature.name for feature in self.features]

    @property
    def text_columns(self) -> list[str]:
        return [feature.name for feature in self.features if not feature.is_number]

    @cached_property
    def cluster_columns(self) -> np.ndarray:
        """Positions of the clustered columns in the matrix."""
        return np.array([self.names.index(name) for name in self.cluster_features])

    @property
    def categorical_columns(self) -> list[int]:
        """Positions of the categorical columns in the matrix."""
        return [i for i, feature in enumerate(self.features) if not feature.is_number]

    def encode(self, frame: pd.DataFrame) -> Encoded:
        """Turn a table into the model's matrix, one row at a time in effect.

        Extra columns are ignored and the order of columns does not matter. A column that is absent,
        duplicated, or holds strings only where the model knows numbers is a DataValidationError.
        """
        if frame.columns.tolist() != self.names:
            require_columns(frame, self.names)
            frame = frame[self.names]
        unknown, broken = np.zeros((2, *frame.shape), dtype=bool)
        ready = [
            feature.is_number and isinstance(dtype, np.dtype) and dtype.kind in "fiu"
            for feature, dtype in zip(self.features, frame.dtypes, strict=True)
        ]
        if all(ready):
            X = np.array(frame.to_numpy(np.float64), order="C")
            return Encoded(X, self._status(X, unknown, broken))
        X = np.empty(frame.shape, dtype=np.float64)
        X[:, ready] = frame.loc[:, ready].to_numpy(np.float64)
        for i in np.flatnonzero(np.logical_not(ready)):
            feature = self.features[i]
            column = frame[feature.name]
            if feature.is_number:
                X[:, i], broken[:, i] = numbers_or_not(column, self.missing_markers)
            else:
                X[:, i], unknown[:, i] = _codes(column, feature, self.missing_markers)
        return Encoded(X, self._status(X, unknown, broken))

    def _status(self, X: np.ndarray, unknown: np.ndarray, broken: np.ndarray) -> np.ndarray:
        if (np.abs(X) <= LARGEST).all():  # and none of them is NaN
            return np.full(len(X), OK, dtype=object)
        masks = {
            "not a number": broken,
            "infinite": np.isinf(X),
            "out of range": np.isfinite(X) & (np.abs(X) > LARGEST),
        }
        if self.missing_values == "error":
            masks = {"missing": np.isnan(X) & ~unknown & ~broken} | masks
        problems = {
            problem: [(self.names[i], mask[:, i]) for i in np.flatnonzero(mask.any(axis=0))]
            for problem, mask in masks.items()
        }
        return row_status(problems, len(X))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Schema:
        return cls(
            tuple(
                Feature(item["name"], item["kind"], tuple(item["categories"]))
                for item in content["features"]
            ),
            tuple(content["cluster_features"]),
            content["missing_values"],
            tuple(content["missing_markers"]),
        )


def fit_schema(
    frame: pd.DataFrame, given: list[str], left_out: Collection[str], config: PipelineConfig
) -> Schema:
    names = [name for name in given if name not in left_out]
    markers = tuple(config.missing_markers)
    features = tuple(_fit_feature(frame[name], name, markers) for name in names)
    numeric = [feature.name for feature in features if feature.is_number]
    asked = config.cluster_features
    chosen = numeric if asked is None else list(dict.fromkeys(asked))
    chosen = [name for name in chosen if name not in left_out]
    for name in chosen:
        if name not in names:
            raise ConfigurationError(
                f"cluster_features: '{name}' is not a feature{suggestion(name, names)}"
            )
        if name not in numeric:
            raise ConfigurationError(
                f"cluster_features: '{name}' is text; segments are found on numbers only"
            )
    if not chosen:
        raise DataValidationError(
            "no numeric feature to find segments on; add one, or convert a text column to numbers"
        )
    return Schema(features, tuple(chosen), config.missing_values, markers)


def _fit_feature(column: pd.Series, name: str, markers: tuple[str, ...]) -> Feature:
    """Decide the kind of a column, and for a category its texts in sorted order."""
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        raise DataValidationError(
            f"column '{name}' holds times, which are no features; make it the time column, "
            "turn it into numbers or add it to drop_columns"
        )
    if pd.api.types.is_bool_dtype(column):
        return Feature(name, "boolean", ("false", "true"))
    if pd.api.types.is_numeric_dtype(column):
        return Feature(name, "number")
    if any(map(is_nested, column)):
        raise DataValidationError(
            f"column '{name}' holds lists or mappings; spread them into columns "
            "or add it to drop_columns"
        )
    present = without_markers(column, markers).dropna()
    kind = pd.api.types.infer_dtype(present, skipna=True)
    if kind == "boolean":
        return Feature(name, "boolean", ("false", "true"))
    if isinstance(column.dtype, pd.CategoricalDtype) and kind != "empty":
        kind = "string"  # somebody has said that its numbers are names
    if kind in ("integer", "floating", "mixed-integer-float", "decimal", "empty"):
        return Feature(name, "number")
    if kind not in ("string", "categorical", "mixed-integer", "mixed"):
        raise DataValidationError(
            f"column '{name}' holds {kind} values; give numbers or texts, or add it to drop_columns"
        )
    texts = pd.Index(present.astype(str).unique()).sort_values()
    if set(texts.str.strip().str.lower()) <= {"false", "true"}:  # as the history keeps booleans
        return Feature(name, "boolean", ("false", "true"))
    looks_numeric = are_numbers(texts)
    if looks_numeric.any() and len(present) < column.notna().sum() and looks_numeric.all():
        return Feature(name, "number")  # numbers once the markers are gone
    others = set(texts[~looks_numeric].str.strip().str.lower())
    if looks_numeric.any() and others and others <= _LIKELY_MARKERS:
        raise DataValidationError(
            f"column '{name}' holds numbers and a text that seems to mean 'missing'; "
            "add that text to missing_markers"
        )
    n_numbers = int(present.astype(str).isin(texts[looks_numeric]).sum())
    if len(present) > 50 and 0.99 * len(present) <= n_numbers < len(present):
        warnings.warn(
            f"column '{name}' is taken as text, although {n_numbers} of {len(present)} values are "
            "numbers; correct the others, or add their text to missing_markers",
            stacklevel=2,
        )
    elif len(texts) > 100 and len(texts) > len(column) / 2:
        warnings.warn(
            f"column '{name}' has {len(texts)} distinct texts in {len(column)} rows and looks "
            "like an identifier; add it to drop_columns if it is one",
            stacklevel=2,
        )
    return Feature(name, "category", tuple(texts))


def refuse_broken(schema: Schema, X: np.ndarray, frame: pd.DataFrame) -> None:
    """Refuse columns that cannot be trained on, all of one kind in one line."""
    names = np.array(schema.names, dtype=object)

    def refuse(broken: Collection[bool], problem: str, remedy: str) -> None:
        if any(broken):
            columns = names[np.array(broken)]
            raise DataValidationError(f"column(s) {problem}: {listed(columns, 20)}; {remedy}")

    refuse(np.isinf(X).any(axis=0), "with infinite values", "replace them or remove the rows")
    refuse((np.abs(X) > LARGEST).any(axis=0), f"with values beyond {LARGEST:g}", "correct them")
    missing = np.isnan(X)
    if schema.missing_values == "error":
        refuse(
            missing.any(axis=0),
            f"with missing values ({int(missing.any(axis=1).sum())} of {len(frame)} rows)",
            "fill them, or set missing_values to 'impute'",
        )


def _codes(
    column: pd.Series, feature: Feature, markers: Collection[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Codes of a category column (NaN is missing) and the mask of texts not seen in training."""
    column = without_markers(column, markers)
    missing = column.isna().to_numpy()
    texts = column.astype(str)
    if feature.kind == "boolean":
        texts = texts.map(as_boolean, na_action="ignore")
    codes = pd.Index(feature.categories, dtype=object).get_indexer(pd.Index(texts, dtype=object))
    unknown = (codes < 0) & ~missing
    return np.where(missing | (codes < 0), np.nan, codes), unknown
