"""Series through training and retraining: rows that are kept, what is fitted, what is held back."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tsclust_model.clustering.lineage import match_clusters
from tsclust_model.config import PipelineConfig
from tsclust_model.data.columns import as_numbers, without_markers
from tsclust_model.data.history import DataVersioner
from tsclust_model.data.roles import Roles
from tsclust_model.data.window import Window
from tsclust_model.errors import ConfigurationError, DataValidationError, listed
from tsclust_model.monitoring.reference import MIN_ROWS
from tsclust_model.series.evaluation import held_lengths, newest_origins
from tsclust_model.series.frequency import Frequency
from tsclust_model.series.long_table import (
    id_texts,
    naive_times,
    series_panel,
    static_values,
    value_columns,
)
from tsclust_model.series.panel import HeldBack, Panel, standing_alone
from tsclust_model.shown import one_line

if TYPE_CHECKING:
    from tsclust_model.series.fit import FittedSeries
    from tsclust_model.series.model import SeriesGeneration

# Beside the values of a window: 1 where the champion was not trained on the row.
_FRESH = " fresh"

_EVERYTHING = 2**62


@one_line
@dataclass(frozen=True)
class SeriesData:
    """A long table, ready to be fitted.

    Attributes
    ----------
    panel : Panel
        What is fitted, on its calendar.
    rows : DataFrame
        Its rows of the long table, for the history; those held back follow them.
    n_known : int
        How many of the rows are fitted.
    held : HeldBack or None
        What is only evaluated on.
    """

    panel: Panel
    rows: pd.DataFrame
    n_known: int
    held: HeldBack | None = None


def series_data(
    frame: pd.DataFrame, roles: Roles, config: PipelineConfig, holdout: float = 0.0
) -> SeriesData:
    """Check a long table, and hold its newest periods back where `holdout` is above 0.

    Warns, before any work, of series that are left out, and of values that stand alone.

    Raises
    ------
    DataValidationError, ConfigurationError
    """
    panel = series_panel(frame, roles, config.gap_policy, config.missing_markers)
    rows = canonical_series_rows(frame, replace(roles, frequency=panel.frequency.name), config)
    _warn_of_values_alone(panel)
    _warn_of_constant(panel, rows)
    if not holdout:
        _warn_of_left_out(panel.gaps, 0)
        return SeriesData(panel, rows, len(rows))
    known, held = newest_origins(panel, holdout)
    if not len(known):
        raise ConfigurationError(
            f"holdout {holdout:g} leaves no period of any series to fit; lower it, or the horizon"
        )
    _warn_of_left_out(panel.gaps, len(panel) - len(known))
    later = _after_the_fit(rows, panel, held_lengths(panel, holdout), roles)
    ordered = pd.concat([rows[~later], rows[later]], ignore_index=True)
    return SeriesData(known, ordered, int((~later).sum()), held)


def _warn_of_left_out(gaps: Mapping[str, int], n_short: int) -> None:
    reasons = {
        "with gaps (gap_policy 'drop')": gaps["dropped"],
        "without a value": gaps["without_values"],
        "no longer than what holdout keeps back (the horizon at least)": n_short,
    }
    left_out = sum(reasons.values())
    if left_out:
        n_series = sum(gaps[kind] for kind in ("n_series", "dropped", "without_values"))
        why = "; ".join(f"{n} {reason}" for reason, n in reasons.items() if n)
        warnings.warn(
            f"{left_out} of {n_series} series are left out of the training: {why}", stacklevel=3
        )


def _warn_of_values_alone(panel: Panel) -> None:
    """Name the values that nothing is learned from, by column, series and time."""
    places = [
        (name, int(row), int(column))
        for name in (panel.target, *panel.resources)
        for row, column in np.argwhere(standing_alone(panel.values[name], panel.frequency.season))
    ]
    if not places:
        return
    named = [f"{name} of {panel.ids[row]} at {panel.time_of(row, at)}" for name, row, at in places]
    warnings.warn(
        "nothing is learned from values farther from all others of their series than ten times "
        f"their range: {listed(named)}; correct slips",
        stacklevel=3,
    )


def _warn_of_constant(panel: Panel, rows: pd.DataFrame) -> None:
    """Name the covariates that say nothing."""
    names = [*panel.covariates, *panel.future, *panel.static]
    constant = [name for name in names if rows[name].nunique(dropna=False) < 2]
    if constant:
        warnings.warn(
            f"covariates that hold one value only say nothing: {listed(constant)}; leave them out",
            stacklevel=3,
        )


def _after_the_fit(rows: pd.DataFrame, panel: Panel, held: np.ndarray, roles: Roles) -> np.ndarray:
    """Mask of the rows that are not fitted: the last `held` periods of each series of a panel."""
    place = pd.Index(panel.ids).get_indexer(rows[str(roles.id)])
    last = panel.frequency.ordinals(panel.last_times) - held
    periods = panel.frequency.ordinals(rows[str(roles.time)].to_numpy())
    return np.asarray((place < 0) | (periods > last[place]), dtype=bool)


def canonical_series_rows(
    frame: pd.DataFrame, roles: Roles, config: PipelineConfig
) -> pd.DataFrame:
    """The columns a model of series knows, each as one type, oldest period first.

    Ids are texts, times have no zone, values are float64 (static ones may be texts); rows without a
    value are left out.
    """
    names = value_columns(frame, roles)
    frequency = Frequency.parse(str(roles.frequency))
    times = naive_times(frame[roles.time], str(roles.time), roles.frequency)
    kept = times.wall if frequency.is_daily_or_longer else times.utc
    columns: dict[str, Any] = {
        str(roles.id): [str(name) for name in id_texts(frame[roles.id])],
        str(roles.time): frequency.shown(kept),
    }
    for name in names:
        columns[name] = as_numbers(frame[name], config.missing_markers)
    for name in roles.static:
        columns[name] = static_values(without_markers(frame[name], config.missing_markers))
    rows = pd.DataFrame(columns)
    rows = rows[rows[roles.target].notna()].drop_duplicates([str(roles.id), str(roles.time)])
    order = np.lexsort((rows[roles.id], rows[roles.time]))
    return rows.iloc[order].reset_index(drop=True)


def _ranks_from_the_end(rows: pd.DataFrame, id: str) -> np.ndarray:
    """How many newer rows each row's series has; rows are oldest first."""
    return rows.iloc[::-1].groupby(id, sort=False).cumcount().to_numpy()[::-1]


def series_window(
    champion: SeriesGeneration,
    history: DataVersioner,
    config: PipelineConfig,
    until: str | None = None,
) -> Window:
    """The newest `expanding_window_size` periods of every series, each of them once.

    Where exports overlap, the newest value of a period counts (figures are revised), and the oldest
    copy says whether a model was trained on it. Versions newer than `until` are left out.
    """
    roles, schema = champion.roles, champion.schema
    since = champion.info["history_from"]
    window = history.window(_EVERYTHING, roles.target, since)
    versions = history.list_versions()
    if until in versions[1:]:
        older = np.isin(window.versions, versions[versions.index(until) :])
        frame = window.frame[older].reset_index(drop=True)
        window = Window(frame, window.versions[older], window.rows[older])
    if not len(window.frame):
        return window
    frame = window.frame
    keys = pd.DataFrame(
        {
            "id": frame[schema.id],
            "period": schema.calendar.ordinals(frame[schema.time].to_numpy()),
        }
    )
    number = keys.groupby(["id", "period"], sort=False).ngroup().to_numpy()
    positions = np.arange(len(frame))
    first, last = np.empty((2, number.max() + 1), dtype=np.int64)
    last[number] = positions
    first[number[::-1]] = positions[::-1]
    order = np.argsort(keys["period"].to_numpy()[last], kind="stable")
    first, last = first[order], last[order]
    newest = frame.iloc[last].reset_index(drop=True)
    kept = _ranks_from_the_end(newest, schema.id) < config.expanding_window_size
    return Window(
        newest[kept].reset_index(drop=True), window.versions[first][kept], window.rows[first][kept]
    )


def up_to_batch(
    champion: SeriesGeneration, history: DataVersioner, batch_id: str, config: PipelineConfig
) -> Window:
    """The window of the series of a batch, up to its newest period; the batch is part of it."""
    rows, _ = history.load(batch_id)
    window = series_window(champion, history, config)
    id, time = champion.schema.id, champion.schema.time
    known = window.frame[id].isin(rows[id]) & (window.frame[time] <= rows[time].max())
    kept = known.to_numpy()
    return Window(
        window.frame[kept].reset_index(drop=True), window.versions[kept], window.rows[kept]
    )


@one_line
@dataclass(frozen=True)
class SeriesChallenge:
    """What a challenger is fitted on, and where it meets the champion.

    Attributes
    ----------
    data : SeriesData
        All but the last `horizon` values of each series; where a drift has begun lately, all but
        half of the values since then.
    held : HeldBack
        Those; NaN where the champion was trained on them.
    window : Window
        The rows that are fitted.
    whole : SeriesData
        All of it: what a better challenger is fitted on again.
    """

    data: SeriesData
    held: HeldBack
    window: Window
    whole: SeriesData


def series_unseen(champion: SeriesGeneration, window: Window, config: PipelineConfig) -> HeldBack:
    """The last `horizon` values of each series; NaN where the champion was trained on them.

    Series of which nothing is left are left out; it is empty where none varies, so that there is no
    scale to judge errors by.
    """
    panel, marks = _marked(champion, window, window.outside(champion.info["trained_on"]), config)
    held = _only_fresh(panel, marks, champion.schema.horizon)
    return held if champion.can_evaluate(held) else held.take(np.arange(0))


def series_challenge(
    champion: SeriesGeneration,
    window: Window,
    config: PipelineConfig,
    begun: int | None = None,
) -> SeriesChallenge:
    """Split a window into what the challenger is fitted on and what both are compared on.

    Parameters
    ----------
    champion : SeriesGeneration
    window : Window
    config : PipelineConfig
    begun : int, optional
        Position of the first row since the drift began.

    Raises
    ------
    DataValidationError
    """
    schema = champion.schema
    panel, marks = _marked(champion, window, window.outside(champion.info["trained_on"]), config)
    drop = schema.horizon
    if begun is not None and begun < len(window.frame):
        n_since = int(window.frame.iloc[begun:].groupby(schema.id).size().max())
        drop = min(drop, max(n_since // 2, 1))
    held = _only_fresh(panel, marks, drop)
    used = _ranks_from_the_end(window.frame, schema.id) >= drop
    fitted = Window(
        window.frame[used].reset_index(drop=True), window.versions[used], window.rows[used]
    )
    known = panel.known(drop)
    if not len(known):
        raise DataValidationError(
            f"no series of the window is longer than the horizon of {schema.horizon}; raise "
            "expanding_window_size, or give longer series"
        )
    data = SeriesData(known, fitted.frame, len(fitted.frame))
    whole = SeriesData(panel, window.frame, len(window.frame))
    return SeriesChallenge(data, held, fitted, whole)


def _marked(
    champion: SeriesGeneration, window: Window, mask: np.ndarray, config: PipelineConfig
) -> tuple[Panel, np.ndarray]:
    """A window on its calendar, and 1 in the same places where its row is in `mask`."""
    schema = champion.schema
    features = (*schema.covariates, _FRESH)
    roles = replace(champion.roles, frequency=schema.frequency, features=features)
    frame = window.frame.assign(**{_FRESH: mask.astype(np.float64)})
    panel = series_panel(frame, roles, config.gap_policy, config.missing_markers)
    marks = panel.values.pop(_FRESH)
    return replace(panel, covariates=schema.covariates), marks


def series_batch(
    champion: SeriesGeneration, window: Window, batch_id: str, config: PipelineConfig
) -> tuple[np.ndarray, np.ndarray]:
    """What a batch shows of the series it continues.

    Returns
    -------
    shapes : ndarray of float64, shape (m, n_shapes)
        Of the series that have new periods, at their new end.
    losses : ndarray of float64, shape (m,)
        Scaled absolute error of the champion's forecasts of the new periods, made just before
        them; NaN for a new series.
    """
    if not len(window.frame):
        return np.empty((0, 0)), np.empty(0)
    panel, marks = _marked(champion, window, window.versions == batch_id, config)
    old = (marks != 1) & ~np.isnan(panel.y)
    columns = np.arange(panel.n_periods)
    last = np.where(~np.isnan(panel.y), columns, -1).max(axis=1)
    new = last - np.where(old, columns, -1).max(axis=1)
    changed = panel.take(new > 0)
    held = changed.held_back(np.minimum(new[new > 0], changed.lengths), champion.schema.horizon)
    losses = np.full(len(changed), np.nan)
    losses[np.searchsorted(changed.ids.astype(str), held.panel.ids.astype(str))] = champion.losses(
        held
    )
    shapes = champion.shapes(changed.right_aligned())
    known = ~np.isnan(shapes).any(axis=1)
    return shapes[known], losses[known]


def _only_fresh(panel: Panel, marks: np.ndarray, horizon: int) -> HeldBack:
    """The last `horizon` values of each series, NaN where they are not marked with 1."""
    beside = replace(panel, values=panel.values | {_FRESH: marks}).held_back(horizon, horizon)
    beside.panel.values.pop(_FRESH)
    new = beside.truth.pop(_FRESH) == 1
    return beside.only(new)


def with_old_series_ids(champion: SeriesGeneration, fitted: FittedSeries, known: Panel) -> Any:
    """The challenger with the ids of the champion's segments where they hold the same series."""
    ids, lineage = match_clusters(
        champion.assign(known.right_aligned()),
        fitted.assignment,
        champion.cluster_ids,
        champion.info["lineage"]["next_id"],
        fitted.generation.cluster_ids,
    )
    return fitted.generation.renumbered(ids, lineage.to_dict())


def with_newest_losses(refitted: SeriesGeneration, losses: np.ndarray) -> SeriesGeneration:
    """A refitted generation whose accuracy is watched by what the compared one showed.

    Losses, shape (n,), of series up to where that one ended; fewer than 50 say too little.
    """
    known = losses[~np.isnan(losses)]
    if len(known) < MIN_ROWS:
        return refitted
    return replace(refitted, reference=refitted.reference.of_losses(known))
