"""What every fitted model says of itself, and columns whose nulls survive Spark."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.clustering.engine import (
    Segmentation,
)
from tsclust_model.data.class_labels import ClassTarget
from tsclust_model.data.fitted_rows import FittedPeriods, FittedRows
from tsclust_model.data.roles import Roles
from tsclust_model.results import NOISE


class NullableLong(pd.arrays.IntegerArray):
    """Whole numbers whose nulls survive mlflow's ``spark_udf``.

    It casts every long column to int64 and every string column to numpy's str, which have no null;
    these columns decline while they hold one.
    """

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        keep = getattr(dtype, "kind", None) == "i" and self.isna().any()
        return self if keep else super().astype(dtype, copy=copy)


class NullableText(pd.arrays.StringArray):
    """Texts whose nulls survive in the same way."""

    def __init__(self, values: Any, *, dtype: pd.StringDtype | None = None, copy: bool = False):
        # Without a dtype pandas 3.1 takes the array for one of Arrow: `isin` and `str` then fail.
        own = dtype or pd.StringDtype("python")
        super().__init__(values, dtype=own, copy=copy)  # type: ignore[call-arg]

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        keep = getattr(dtype, "kind", None) == "U" and self.isna().any()
        return self if keep else super().astype(dtype, copy=copy)


class FittedPipeline:
    """What a fitted pipeline says of itself, whatever its rows are.

    Attributes
    ----------
    schema : Schema or SeriesSchema
    segmentation : Segmentation
    resources : dict
        A model for each resource.
    info : dict
        What a reader should know, as JSON.
    fitted : FittedRows, FittedPeriods or None
        Which rows, or periods of series, it was fitted on; None is unknown.
    """

    schema: Any
    segmentation: Segmentation
    resources: dict[str, Any]
    info: dict[str, Any]
    fitted: FittedRows | FittedPeriods | None

    @property
    def roles(self) -> Roles:
        """Which column of a training table is what."""
        found: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in self.info["roles"].items()
        }
        return Roles(**found)

    @property
    def reported_columns(self) -> list[str]:
        """Columns that reports group by; they need not be features."""
        config = self.info["config"]
        found = [*config.get("planning_columns", ()), *config.get("audit_columns", ())]
        return list(dict.fromkeys(found))

    @property
    def coverage(self) -> float:
        """Default coverage of the intervals, above 0 and below 1."""
        return float(self.info["config"]["coverage"])

    @property
    def classes(self) -> ClassTarget | None:
        """The classes of the target; None if it is a number."""
        return None

    @property
    def text_columns(self) -> list[str]:
        """Columns of a labelled table that must be read as texts."""
        found = self.classes
        own = [found.name] if found is not None and found.kind != "number" else []
        return [*self.schema.text_columns, *own]

    @property
    def output_columns(self) -> list[str]:
        """Names of the columns that `predict` returns, in order."""
        bounds = ["prediction_lower", "prediction_upper"]
        return [
            "prediction",
            *(bounds if self.classes is None else self.classes.columns),
            "cluster",
            "cluster_source",
            "cluster_strength",
            "cluster_weight",
            *(f"resource_{name}" for name in self.resources),
            "status",
        ]

    @property
    def cluster_ids(self) -> list[int]:
        """Ids of the segments, sorted."""
        return sorted(int(c) for c in np.unique(self.segmentation.density.label) if c != NOISE)
