"""Training on rows: LightGBM with segments, or an estimator of scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.clustering.lineage import match_clusters
from tsclust_model.data.columns import in_time_order
from tsclust_model.data.quality_schema import QualityChecks
from tsclust_model.data.roles import Roles
from tsclust_model.data.window import Window
from tsclust_model.errors import ConfigurationError, suggestion
from tsclust_model.models.base import LIGHTGBM, FittedModel
from tsclust_model.models.task import COMPARED_SHARE, FEWEST_ROWS, Findings, Prepared, Split, Task
from tsclust_model.results import NOISE, Assignment, Stages
from tsclust_model.rows.baseline import Baseline, about_baseline, fit_baseline
from tsclust_model.rows.cases import RowsModel
from tsclust_model.rows.figures import performance_figures, shuffled_control, with_gain
from tsclust_model.rows.fit import FittedGeneration, OutOfSample, fit_generation, with_newest
from tsclust_model.rows.memory import require_memory
from tsclust_model.rows.model import Generation
from tsclust_model.rows.report import fit_inputs
from tsclust_model.rows.table import training_data
from tsclust_model.shown import one_line

_AFTER = " after"  # a column beside those of a window


@one_line
@dataclass(frozen=True)
class RowsSplit(Split):
    """See `Split`.

    Attributes
    ----------
    n_known : int
        Oldest rows, which the challenger is fitted on at first.
    begun : int
        Position of the first row since the drift began; 0 where that is not known.
    """

    champion: RowsModel
    n_known: int
    begun: int


@one_line
@dataclass(frozen=True)
class RowsTask(Task):
    """Segments and LightGBM models of rows."""

    @property
    def quality_checks(self) -> QualityChecks:
        return {
            "duplicates": bool(self.roles.time or self.roles.id),
            "allow_missing": self.config.missing_values == "impute",
        }

    def check(self, frame: pd.DataFrame) -> None:
        if self.roles.frequency is not None:
            raise ConfigurationError("frequency is of series; give a horizon too, or leave it out")
        require_memory(*frame.shape, self.config)

    def prepare(self, frame: pd.DataFrame, holdout: float) -> Prepared:
        known, later = split_newest(frame, self.roles.time, holdout)
        if len(known) < 2 <= len(frame):
            raise ConfigurationError(
                f"holdout {holdout:g} leaves {len(known)} of {len(frame)} rows; lower it"
            )
        data = training_data(known, self.roles, self.config)
        self._warn_of_absent(frame)
        figures = {"n_rows": len(known), "n_holdout": len(later), "n_features": data.X.shape[1]}
        rows = pd.concat([known, later])
        return Prepared(data, known, later if len(later) else None, figures, rows=rows)

    def _warn_of_absent(self, frame: pd.DataFrame) -> None:
        """Say which columns the report cannot group by."""
        columns = list(map(str, frame.columns))
        for key in ("planning_columns", "audit_columns"):
            for name in getattr(self.config, key):
                if name not in columns:
                    hint = suggestion(name, columns)
                    warnings.warn(
                        f"{key} names '{name}', which the data does not have{hint}", stacklevel=4
                    )

    def fit(self, prepared: Prepared, info: Mapping[str, Any], stages: Stages) -> Any:
        return fit_generation(prepared.data, self.config, info, stages)

    def findings(
        self,
        fit: FittedGeneration,
        prepared: Prepared,
        holdout: pd.DataFrame | None,
        *,
        first: Prepared | None = None,
        evaluated: Generation | None = None,
        champion: FittedModel | None = None,
    ) -> Findings:
        data, known = prepared.data, prepared.known
        control = shuffled_control(fit, data, self.config)
        figures = performance_figures(fit, data, known, known.head(0), control)
        judge, before = evaluated or fit.generation, first or prepared
        if holdout is not None:
            figures["holdout"] = judge.evaluate(holdout, before.known)
        fit = with_gain(fit, figures)
        inputs = fit_inputs(
            *(fit, data, known, known.head(0) if holdout is None else holdout),
            control.fold_losses["blend"],
            champion=champion if isinstance(champion, Generation) else None,
            evaluated=evaluated,
        )
        return Findings(fit, figures, inputs)

    def split(
        self, champion: RowsModel, window: Window, begun: int | None, lately: bool
    ) -> RowsSplit:
        """The newest fifth; after a drift no more than half of what is new since then."""
        n_rows, fresh = len(window.frame), window.outside(champion.info["trained_on"])
        n_newest = int(n_rows * COMPARED_SHARE)
        if begun is None or n_rows - begun < FEWEST_ROWS:
            begun = 0
        else:
            n_new = int(fresh[begun:].sum())
            if lately and n_new >= FEWEST_ROWS:
                n_newest = min(n_newest, n_new // 2)
        n_known = n_rows - n_newest
        newest = window.frame.iloc[n_known:]
        return RowsSplit(champion, window, newest, newest[fresh[n_known:]], n_known, begun)

    def first(self, split: RowsSplit) -> Prepared:
        return self._oldest(split, split.n_known)

    def whole(self, split: RowsSplit) -> Prepared:
        return self._oldest(split, len(split.window.frame))

    def _oldest(self, split: RowsSplit, n_rows: int) -> Prepared:
        """The oldest rows of a window."""
        champion, window = split.champion, split.window
        is_after = np.arange(n_rows) >= split.begun
        frame = window.frame.iloc[:n_rows].assign(**{_AFTER: is_after})
        known, ordering = _with_keys(frame, self.roles)
        known = in_time_order(known, ordering.time)
        after = known.pop(_AFTER).to_numpy(dtype=bool)
        data = training_data(known, ordering, self.config, gaps=True, known=champion.outcome)
        info = window.origins(n_rows)
        if isinstance(champion, Generation):
            info["given_features"] = champion.given_features
        if split.begun:
            source = [str(window.versions[split.begun]), int(window.rows[split.begun])]
            info["drift"] = {"since": source, "n_after": int(after.sum()), "n_rows": n_rows}
        figures = {"n_rows": n_rows, "n_after_drift": int(after.sum())}
        return Prepared(data, known, None, figures, info, after)

    def history_rows(self, model: RowsModel, prepared: Prepared) -> pd.DataFrame:
        return model.canonical_rows(prepared.rows)

    def numbered(
        self, champion: FittedModel, fit: FittedGeneration, prepared: Prepared
    ) -> FittedGeneration:
        if not isinstance(champion, Generation):  # a baseline has no segments
            return fit
        encoded = champion.schema.encode(prepared.known)
        rows = np.flatnonzero(encoded.scorable)
        new = fit.assignment
        ids, lineage = match_clusters(
            champion.assign(encoded.X[rows]),
            Assignment(new.labels[rows], new.is_noise[rows], new.strength[rows]),
            champion.cluster_ids,
            champion.info["lineage"]["next_id"],
            fit.generation.cluster_ids,
        )
        everywhere = {NOISE: NOISE} | ids
        labels = np.array([everywhere[int(label)] for label in new.labels], dtype=np.int64)
        return replace(
            fit,
            generation=fit.generation.renumbered(ids, lineage.to_dict()),
            assignment=replace(new, labels=labels),
        )

    def watched_by_newest(
        self, fit: FittedGeneration, prepared: Prepared, compared: Generation, split: RowsSplit
    ) -> FittedGeneration:
        assert prepared.after is not None
        shown = _out_of_sample(compared, fit.generation, split.newest)
        return with_newest(fit, prepared.data, prepared.after, shown)


@one_line
@dataclass(frozen=True)
class FittedBaseline:
    """A fitted baseline as a `Fit`."""

    generation: Baseline
    clustering: None = None


@one_line
@dataclass(frozen=True)
class BaselineTask(RowsTask):
    """A scikit-learn estimator of rows.

    Attributes
    ----------
    model_type : {'logistic', 'random_forest'}
    params : mapping
        Arguments of the estimator.
    """

    model_type: str = LIGHTGBM
    params: Mapping[str, Any] = field(default_factory=dict)

    def fit(self, prepared: Prepared, info: Mapping[str, Any], stages: Stages) -> Any:
        data = prepared.data
        estimator = fit_baseline(
            data, prepared.known, self.model_type, self.params, self.config.random_state
        )
        about = about_baseline(data, self.roles, self.config, self.model_type)
        return FittedBaseline(Baseline(estimator, data.schema, data.target, dict(info) | about))

    def findings(
        self,
        fit: Any,
        prepared: Prepared,
        holdout: pd.DataFrame | None,
        *,
        first: Prepared | None = None,
        evaluated: Any = None,
        champion: FittedModel | None = None,
    ) -> Findings:
        figures = None if holdout is None else (evaluated or fit.generation).evaluate(holdout)
        return Findings(fit, {"clustering": {}, "folds": {}, "gain": None, "holdout": figures})

    def numbered(self, champion: FittedModel, fit: Any, prepared: Prepared) -> Any:
        return fit

    def watched_by_newest(self, fit: Any, prepared: Prepared, compared: Any, split: Any) -> Any:
        return fit


def split_newest(
    frame: pd.DataFrame, time: str | None, share: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table in time order, split into the older rows and the newest `share` (0 to 1)."""
    ordered = in_time_order(frame, time)
    cut = len(ordered) - int(len(ordered) * share)
    return ordered.iloc[:cut], ordered.iloc[cut:].reset_index(drop=True)


def _with_keys(known: pd.DataFrame, roles: Roles) -> tuple[pd.DataFrame, Roles]:
    """Rows whose id is not known are groups of their own; without every time, arrival counts."""
    if roles.time is not None and (roles.time not in known or known[roles.time].isna().any()):
        roles = replace(roles, time=None)
    if roles.id is not None:
        absent = pd.Series(np.nan, index=known.index, dtype=object)
        ids = known.get(roles.id, absent).astype(object)
        own = pd.Series([f"row {i}" for i in range(len(known))], index=known.index, dtype=object)
        known = known.assign(**{roles.id: ids.where(ids.notna(), own).astype(str)})
    return known, roles


def _out_of_sample(compared: Generation, refitted: Generation, newest: Any) -> OutOfSample:
    """What the compared model showed on the newest rows, for the one that is fitted on them."""
    own = compared.schema.encode(newest)
    encoded = refitted.schema.encode(newest)
    rows = np.flatnonzero(own.scorable & encoded.scorable)
    y = compared.outcomes(newest)[rows]
    forecast = compared.forecast(own.X[rows], compared.coverage)
    losses = compared.row_losses(y, forecast)
    return OutOfSample(encoded.X[rows], losses, y, forecast.values)
