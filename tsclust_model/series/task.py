"""Training on series."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from tsclust_model.config import CLASS_OBJECTIVES
from tsclust_model.data.columns import without_markers
from tsclust_model.data.quality_schema import QualityChecks
from tsclust_model.data.window import Window
from tsclust_model.errors import ConfigurationError
from tsclust_model.models.base import FittedModel
from tsclust_model.models.task import Findings, Prepared, Split, Task
from tsclust_model.results import Stages
from tsclust_model.series.figures import series_figures
from tsclust_model.series.fit import FittedSeries, fit_series_generation
from tsclust_model.series.long_table import require_series_roles, value_columns
from tsclust_model.series.model import SeriesGeneration
from tsclust_model.series.panel import HeldBack
from tsclust_model.series.report import series_inputs
from tsclust_model.series.windows import (
    SeriesChallenge,
    SeriesData,
    series_challenge,
    series_data,
    with_newest_losses,
    with_old_series_ids,
)
from tsclust_model.shown import one_line


@one_line
@dataclass(frozen=True)
class SeriesSplit(Split):
    """See `Split`; `parts` are the panels."""

    parts: SeriesChallenge


@one_line
@dataclass(frozen=True)
class SeriesTask(Task):
    """Segments of series, and LightGBM models beside simple forecasters."""

    has_series: ClassVar[bool] = True

    @property
    def text_columns(self) -> list[str]:
        return [self.roles.id] if self.roles.id else []

    @property
    def quality_checks(self) -> QualityChecks:
        # Copies count once, and what is missing is a gap, or yet to come.
        checks: QualityChecks = {"duplicates": False, "allow_missing": True}
        if self.config.gap_policy == "error":
            checks["max_removed_share"] = 0.0  # without a row, its series has a gap
        return checks

    def check_roles(self) -> None:
        require_series_roles(self.roles)

    def check(self, frame: pd.DataFrame) -> None:
        asked = self.config.lgb_timeseries_params["objective"] in CLASS_OBJECTIVES
        if asked or self.config.task == "classification":
            raise ConfigurationError("series are forecast as numbers; leave task or horizon out")
        value_columns(frame, self.roles)

    def prepare(self, frame: pd.DataFrame, holdout: float) -> Prepared:
        return _prepared(series_data(frame, self.roles, self.config, holdout))

    def features(self, prepared: Prepared) -> Iterable[str]:
        panel = prepared.data
        return [*panel.covariates, *panel.future, *panel.static]

    def observed(self, frame: pd.DataFrame) -> np.ndarray:
        if not self.roles.future or self.roles.target not in frame:
            return super().observed(frame)
        target = without_markers(frame[self.roles.target], self.config.missing_markers)
        return np.flatnonzero(target.notna())

    def fit(self, prepared: Prepared, info: Mapping[str, Any], stages: Stages) -> Any:
        return fit_series_generation(prepared.data, self.roles, self.config, info, stages)

    def findings(
        self,
        fit: FittedSeries,
        prepared: Prepared,
        holdout: HeldBack | None,
        *,
        first: Prepared | None = None,
        evaluated: SeriesGeneration | None = None,
        champion: FittedModel | None = None,
    ) -> Findings:
        figures = series_figures(fit, holdout, evaluated)
        inputs = series_inputs(fit.generation, prepared.data, holdout, evaluated)
        return Findings(fit, figures, inputs)

    def split(
        self, champion: SeriesGeneration, window: Window, begun: int | None, lately: bool
    ) -> SeriesSplit:
        """The last `horizon` values of each series; after a drift no more than half of those since
        then."""
        parts = series_challenge(champion, window, self.config, begun)
        return SeriesSplit(champion, window, parts.held, parts.held, parts)

    def first(self, split: SeriesSplit) -> Prepared:
        known = split.parts.window
        return _prepared(split.parts.data, known.origins(len(known.frame)))

    def whole(self, split: SeriesSplit) -> Prepared:
        return _prepared(split.parts.whole, split.window.origins(len(split.window.frame)))

    def numbered(
        self, champion: SeriesGeneration, fit: FittedSeries, prepared: Prepared
    ) -> FittedSeries:
        return replace(fit, generation=with_old_series_ids(champion, fit, prepared.data))

    def watched_by_newest(
        self, fit: FittedSeries, prepared: Prepared, compared: SeriesGeneration, split: SeriesSplit
    ) -> FittedSeries:
        losses = compared.losses(split.parts.held)
        return replace(fit, generation=with_newest_losses(fit.generation, losses))


def _prepared(data: SeriesData, info: dict[str, Any] | None = None) -> Prepared:
    panel = data.panel
    figures = panel.gaps | {"n_periods": panel.n_periods}
    known = data.rows.head(data.n_known)
    return Prepared(panel, known, data.held, figures, info or {}, rows=data.rows)
