"""What all models of one row per case have in common: segments, or scikit-learn's estimators."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from pandas.arrays import FloatingArray

from tsclust_model.config import PipelineConfig
from tsclust_model.data.columns import in_time_order
from tsclust_model.data.fitted_rows import FittedRows
from tsclust_model.data.roles import Roles
from tsclust_model.metrics import RMSE
from tsclust_model.models.base import FittedModel, NullableText
from tsclust_model.rows.schema import Schema
from tsclust_model.rows.table import canonical_rows
from tsclust_model.rows.targets import Target

if TYPE_CHECKING:
    from tsclust_model.data.history import DataVersioner
    from tsclust_model.data.window import Window


class RowsModel(FittedModel):
    """A fitted model whose cases are rows of a table.

    Attributes
    ----------
    schema : Schema
    outcome : Target
        What is forecast: a number, or a class.
    fitted : FittedRows or None
        Which rows it was fitted on; None is unknown.
    """

    kind: ClassVar[str] = "rows"
    unit: ClassVar[str] = "rows"
    resource_metric: ClassVar[str] = RMSE.name
    why_not_scored: ClassVar[str] = "the column 'status' of score says why"

    schema: Schema
    outcome: Target
    fitted: FittedRows | None

    @property
    def task(self) -> str:
        return self.outcome.task

    @property
    def score_name(self) -> str:
        return self.outcome.score_name

    @property
    def table_roles(self) -> Roles:
        return replace(self.roles, features=tuple(self.schema.names))

    @property
    def text_columns(self) -> list[str]:
        return [*self.schema.text_columns, *self.outcome.string_columns]

    @property
    def input_columns(self) -> dict[str, str]:
        return {f.name: "double" if f.is_number else "string" for f in self.schema.features}

    def outcomes(self, frame: pd.DataFrame) -> np.ndarray:
        """What happened, shape (n,); see `Target.outcomes`."""
        return self.outcome.outcomes(frame, self.schema.missing_markers)

    def canonical_rows(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rows as the history keeps them; see `tsclust_model.rows.table.canonical_rows`."""
        return canonical_rows(frame, self.schema, self.roles, self.outcome, self.reported_columns)

    def checked_rows(self, frame: pd.DataFrame, config: PipelineConfig) -> pd.DataFrame:
        ordered = in_time_order(frame, self.roles.time)
        self.schema.encode(ordered)
        return self.canonical_rows(ordered)

    def labelled_window(self, history: DataVersioner, config: PipelineConfig) -> Window:
        window = history.window(
            config.expanding_window_size, self.roles.target, self.info["history_from"]
        )
        return without_copies(window, self.roles)

    def out_of_sample(
        self, history: DataVersioner, batch_id: str, config: PipelineConfig
    ) -> pd.DataFrame:
        rows, _ = history.load(batch_id)
        start, stop = self.info["trained_on"].get(batch_id, (0, 0))
        rows = pd.concat([rows.iloc[:start], rows.iloc[stop:]], ignore_index=True)
        target = self.roles.target
        if target not in rows:
            return rows.head(0)
        # A file that grows brings old rows again in every version of it.
        labelled = rows[rows[target].notna()].reset_index(drop=True)
        fitted = self.fitted_part(labelled, history)
        assert fitted is not None  # with a history it is known
        fresh = self.part(labelled, ~fitted)
        return fresh if fresh.empty else self.part(fresh, self.schema.encode(fresh).scorable)

    def feature_values(
        self, history: DataVersioner, batch_id: str, config: PipelineConfig
    ) -> dict[str, np.ndarray]:
        X = self.schema.encode(history.load(batch_id)[0]).X
        features = enumerate(self.schema.features)
        return {feature.name: X[:, i] for i, feature in features if feature.is_number}

    def cases(self, table: pd.DataFrame) -> pd.DataFrame:
        self.outcomes(table)
        self.schema.encode(table)
        return table

    def fitted_part(
        self, cases: pd.DataFrame, history: DataVersioner | None = None
    ) -> np.ndarray | None:
        fitted = self.fitted
        if fitted is None and history is not None:
            fitted = _fitted_by_history(self, history)
        return None if fitted is None else fitted.contains(self.canonical_rows(cases))

    def part(self, cases: pd.DataFrame, mask: Any) -> pd.DataFrame:
        return cases[np.broadcast_to(mask, len(cases))].reset_index(drop=True)

    def groups(self, cases: pd.DataFrame) -> np.ndarray | None:
        id = self.roles.id
        if id is None or id not in cases:
            return None
        codes = pd.factorize(cases[id].astype(object))[0]
        return np.where(codes < 0, -1 - np.arange(len(codes)), codes)


def spread(values: np.ndarray, scored: np.ndarray, filler: Any = 0) -> np.ndarray:
    """Values of the scored rows among all rows, shape (n,)."""
    if len(values) == len(scored):
        return values
    full = np.full(len(scored), filler, dtype=values.dtype)
    full[scored] = values
    return full


def number_column(values: np.ndarray, scored: np.ndarray) -> FloatingArray:
    """Values of the scored rows as a column; the others are null."""
    return FloatingArray(spread(values, scored), ~scored)


def answer_column(values: np.ndarray, scored: np.ndarray) -> FloatingArray | NullableText:
    """Numbers or strings of the scored rows as a column; the others are null."""
    is_string = values.dtype == object
    return (
        NullableText(spread(values, scored, pd.NA)) if is_string else number_column(values, scored)
    )


def _fitted_by_history(model: RowsModel, history: DataVersioner) -> FittedRows:
    """Of a model that carries no hashes; batches that are forgotten are left out."""
    there = set(history.list_versions())
    parts = [
        history.load(batch)[0].iloc[start:stop]
        for batch, (start, stop) in model.info["trained_on"].items()
        if batch in there
    ]
    columns = (*model.schema.names, model.roles.target)
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return FittedRows.of(rows, columns, (model.roles.id, model.roles.time), b"")


def without_copies(window: Window, roles: Roles) -> Window:
    """The window without rows that an older batch holds already (an export that overlaps).

    The older copy stays, because it says whether a model was trained on the row.
    """
    hashes = row_hashes(window.frame, roles)
    if hashes is None:
        return window
    first = dict(zip(hashes[::-1], window.versions[::-1], strict=True))
    kept = np.array(
        [first[h] == version for h, version in zip(hashes, window.versions, strict=True)]
    )
    return replace(
        window,
        frame=window.frame[kept].reset_index(drop=True),
        versions=window.versions[kept],
        rows=window.rows[kept],
    )


def row_hashes(frame: pd.DataFrame, roles: Roles) -> np.ndarray | None:
    """A number for the content of each row; None without an id or time that tells rows apart."""
    keys = [name for name in (roles.id, roles.time) if name is not None and name in frame]
    if not keys:
        return None
    return pd.util.hash_pandas_object(frame[sorted(frame.columns)], index=False).to_numpy()


def new_rows(
    model: RowsModel,
    history: DataVersioner,
    batch_id: str,
    frame: pd.DataFrame,
    batches: Collection[str],
) -> np.ndarray:
    """Mask of the rows of a batch that were not shown before, shape (n,).

    An export that grows brings the rows that the model was fitted on again, and those of the batch
    before. Without an id or a time, equal rows are rows of their own.
    """
    new = np.ones(len(frame), dtype=bool)
    own = row_hashes(frame, model.roles)
    if own is None:
        return new
    fitted = model.fitted_part(frame) if model.roles.target in frame else None
    if fitted is not None:
        new &= ~fitted
    versions = history.list_versions()
    for before in versions[versions.index(batch_id) + 1 :][:1]:
        if before in batches:
            shown = row_hashes(history.load(before)[0], model.roles)
            new &= ~np.isin(own, () if shown is None else shown)
    return new
