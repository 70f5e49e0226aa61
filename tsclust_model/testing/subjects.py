"""What checks ask of a model: the one place where its kind matters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.mlflow_integration.pyfunc import (
    open_generation,
    reloaded,
    seal_generation,
)
from tsclust_model.mlflow_integration.registry import load_generation
from tsclust_model.models.evidence import SegmentRows
from tsclust_model.models.state import Parts
from tsclust_model.results import Evaluation
from tsclust_model.rows.model import Generation
from tsclust_model.series.model import SeriesGeneration
from tsclust_model.series.panel import LARGEST_LOSS, HeldBack
from tsclust_model.series.schema import series_rows

MOST_ROWS = 200
_BASIS = "the rows that a check was given"


class Subject(ABC):
    """A fitted model, and rows to check it on.

    Parameters
    ----------
    model : object
    frame : DataFrame, optional
        As for training; without a target it is labelled with the model's own predictions. Default:
        made of the model's example.

    Attributes
    ----------
    table : DataFrame
        Labelled, as for training.
    """

    def __init__(self, model: Any, frame: pd.DataFrame | None = None) -> None:
        self.model = model
        self.is_given = frame is not None
        self.table = self.labelled_example() if frame is None else self.labelled(frame)

    @property
    def traits(self) -> frozenset[str]:
        """What the model has, of what not every model has."""
        model, strings = self.model, "string" in self.numbers_and_strings.values()
        arrays = model.output_types["prediction"] == "array"
        has = {
            "intervals": "prediction_lower" in model.output_columns,
            "classes": model.task == "classification",
            "segments": bool(model.cluster_ids),
            "resources": bool(model.resources),
            "strings": strings,
            "horizon": arrays,
            "cases": not arrays,
        }
        return frozenset(name for name, holds in has.items() if holds)

    @cached_property
    def answer(self) -> pd.DataFrame:
        """What the model says of `rows`."""
        return self.predict(self.rows)

    def predict(
        self, rows: pd.DataFrame, coverage: float | None = None, quantiles: Sequence[float] = ()
    ) -> pd.DataFrame:
        asked = (quantiles,) if quantiles else ()
        return self.model.predict(rows, coverage, *asked)

    @property
    def inputs(self) -> dict[str, str]:
        """Columns of the signature and their types."""
        return dict(self.model.input_columns)

    @property
    def outputs(self) -> dict[str, str]:
        return dict(self.model.output_types)

    @property
    def numbers_and_strings(self) -> dict[str, str]:
        """Columns that a row must have, without its keys, and their types."""
        return {name: self.inputs[name] for name in self.model.schema.names if name in self.inputs}

    @property
    def number(self) -> str:
        """A column of numbers, or of lists of them."""
        types = self.numbers_and_strings.items()
        return next(name for name, kind in types if kind in ("double", "array"))

    def seal(self) -> Parts:
        return seal_generation(self.model)

    def open(self, parts: Mapping[str, bytes]) -> Any:
        return open_generation(dict(parts))

    def reload(self, serialization: str) -> Any:
        """The model after mlflow has saved and loaded it."""
        return reloaded(self.model, serialization)

    @cached_property
    def holdout(self) -> Any:
        """Labelled rows as `losses`, `evaluate` and `trained_on` take them."""
        return self.evaluated(self.table)

    def evaluated(self, table: pd.DataFrame) -> Any:
        """A table as `losses` and `evaluate` take it."""
        return self.model.cases(table)

    def part(self, holdout: Any, rows: np.ndarray) -> Any:
        """Some cases of a holdout, by position."""
        return holdout.take(rows)

    def canonical_rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table as the history keeps it."""
        return self.model.canonical_rows(table)

    def labelled_example(self) -> pd.DataFrame:
        return self.model.labelled_example()

    def segments(self) -> SegmentRows:
        """Rows and segments for the report."""
        return self.model.segments(self.table)

    def losses(self, holdout: Any) -> np.ndarray:
        return self.model.losses(holdout)

    def evaluate(self, holdout: Any) -> Evaluation:
        return self.model.evaluate(holdout)

    @cached_property
    @abstractmethod
    def rows(self) -> pd.DataFrame:
        """Rows as `predict` takes them, with the types of the signature."""

    @abstractmethod
    def labelled(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The first rows of a table; with the model's own predictions where it has no target."""

    @abstractmethod
    def drift_rows(self) -> np.ndarray:
        """What drift is measured on, shape (n, n_columns)."""

    @abstractmethod
    def report_losses(self, holdout: Any) -> np.ndarray:
        """The losses that a report of a holdout is made of, shape (n_scored,)."""


class CaseSubject(Subject):
    """A model of one row per case."""

    @cached_property
    def rows(self) -> pd.DataFrame:
        return self.canonical_rows(self.table)[self.model.schema.names]

    def labelled(self, frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.head(MOST_ROWS).reset_index(drop=True)
        target = self.model.roles.target
        if target in frame:
            return frame
        answer = self.predict(frame)["prediction"]
        known = answer.notna()
        return frame[known].assign(**{target: answer[known].to_numpy()}).reset_index(drop=True)

    def evaluated(self, table: pd.DataFrame) -> pd.DataFrame:
        return self.model.cases(self.canonical_rows(table))

    def drift_rows(self) -> np.ndarray:
        return self.model.schema.encode(self.rows).X

    def report_losses(self, holdout: pd.DataFrame) -> np.ndarray:
        return self.model.evidence(holdout, _BASIS).losses["blend"]


class SeriesSubject(Subject):
    """A model of series; its table is long, one row a series and period."""

    @cached_property
    def rows(self) -> pd.DataFrame:
        return series_rows(self.table, model=self.model)

    def labelled(self, frame: pd.DataFrame) -> pd.DataFrame:
        ids = frame[self.model.schema.id]
        return frame[ids.isin(ids.unique()[:MOST_ROWS])].reset_index(drop=True)

    def drift_rows(self) -> np.ndarray:
        shapes = self.model.shapes(self.model.panel(self.table).right_aligned())
        return shapes[~np.isnan(shapes).any(axis=1)]

    def report_losses(self, holdout: HeldBack) -> np.ndarray:
        evidence = self.model.evidence(holdout, _BASIS)
        losses = np.empty(0) if evidence is None else evidence.losses["blend"]
        return np.minimum(losses, LARGEST_LOSS)


_SUBJECTS = {Generation.kind: CaseSubject, SeriesGeneration.kind: SeriesSubject}


def subject_of(model: Any, frame: pd.DataFrame | None = None) -> Subject:
    """A model as the checks take it: a URI, what mlflow loaded, a generation, or a subject."""
    if isinstance(model, Subject):
        return model
    if isinstance(model, str):
        model = load_generation(model)
    elif hasattr(model, "unwrap_python_model"):  # mlflow has wrapped it
        model = model.unwrap_python_model().generation
    return _SUBJECTS[model.kind](model, frame)
