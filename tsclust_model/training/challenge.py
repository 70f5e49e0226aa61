"""Fits a challenger on the expanding window, compares it, and lets the better one serve."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.clustering.lineage import match_clusters
from tsclust_model.config import PipelineConfig
from tsclust_model.data.columns import in_time_order
from tsclust_model.data.history import DataVersioner
from tsclust_model.data.roles import Roles
from tsclust_model.data.window import Window
from tsclust_model.errors import (
    DataValidationError,
    ModelTrainingError,
    RetrainingError,
)
from tsclust_model.mlflow_integration.kinds import AnyGeneration
from tsclust_model.mlflow_integration.registry import (
    challenger_tags,
    segment_names,
)
from tsclust_model.mlflow_integration.runs import ExperimentManager, log_config
from tsclust_model.mlflow_integration.storage import open_storage, refuse_lost_rows
from tsclust_model.models.compare import Comparison, compare
from tsclust_model.monitoring.detectors import Source
from tsclust_model.report.build import build_report
from tsclust_model.report.figures import Watched
from tsclust_model.results import NOISE, Assignment, ClusteringResult, Stages, silent
from tsclust_model.rows.baseline import Baseline
from tsclust_model.rows.evaluation import evaluate_generation
from tsclust_model.rows.figures import performance_figures, shuffled_control, with_gain
from tsclust_model.rows.fit import FittedGeneration, OutOfSample, with_newest
from tsclust_model.rows.model import Generation
from tsclust_model.rows.report import fit_inputs
from tsclust_model.rows.table import TrainingData, training_data
from tsclust_model.series.figures import series_figures
from tsclust_model.series.model import SeriesGeneration
from tsclust_model.series.report import series_inputs
from tsclust_model.series.windows import (
    series_challenge,
    series_window,
    with_newest_losses,
    with_old_series_ids,
)
from tsclust_model.shown import one_line
from tsclust_model.training.lock import retrain_lock
from tsclust_model.training.publish import (
    LABELS_TAG,
    about_run,
    headline,
    publish_challenger,
    run_tags,
)
from tsclust_model.training.train import fit_logged, fit_series_logged, quality_schema

COMPARED_SHARE = 0.2
"""Newest share of the window on which champion and challenger are compared."""

FEWEST_ROWS = 50

_AFTER = " after"  # a column beside those of a window


@one_line
@dataclass(frozen=True)
class Retraining:
    """What a retrain made.

    Attributes
    ----------
    generation : Generation
        The challenger.
    clustering : ClusteringResult
        Its own numbers, before the old ids.
    model_name, version : str
        Where it is registered.
    promoted : bool
        Whether it serves now.
    comparison : Comparison
    reason : str
        What called for it.
    run_id : str
    report : dict
    """

    generation: AnyGeneration
    clustering: ClusteringResult
    model_name: str
    version: str
    promoted: bool
    comparison: Comparison
    reason: str
    run_id: str
    report: dict[str, Any]


def retrain_model(
    champion: AnyGeneration | Baseline,
    champion_version: str,
    model_name: str,
    config: PipelineConfig,
    reason: str,
    *,
    promote: bool = True,
    watched: Watched | None = None,
    since: Sequence[Source] = (),
) -> Retraining:
    """Fit a challenger on the expanding window, compare it, and let the better one serve.

    It is compared on the newest fifth of the window, without the rows the champion was trained on;
    where a drift has begun lately, on the newest half of the rows since then, so that the
    challenger has learned from the others. If it is better, it is fitted again on the whole window:
    that is what is registered and serves, watched by what the compared model showed out of sample.
    A failed retrain changes nothing.

    Parameters
    ----------
    champion : Generation or Baseline
    champion_version : str
        The version that must still be serving when the challenger takes over.
    model_name : str
    config : PipelineConfig
    reason : str
        What called for the retrain, for tags and report.
    promote : bool
        False registers the challenger and lets nobody take over.
    watched : Watched, optional
        What batches have shown, for the report.
    since : sequence of Source
        Where the drift began that calls for the retrain; see `DriftMonitor.since`.

    Raises
    ------
    RetrainingError
        Another retrain is running, or there are too few labelled rows, or the fit failed.
    MLflowIntegrationError
    """
    config = _same_task(champion, config)
    storage = open_storage(config, model_name)
    with retrain_lock(storage.retrain_lock):
        window = labelled_window(champion, storage.history, config)
        refuse_lost_rows(storage, champion.info, champion.roles.target, window)
        if len(window.frame) < FEWEST_ROWS:
            raise RetrainingError(
                f"{len(window.frame)} labelled rows are too few for a retrain, which needs "
                f"{FEWEST_ROWS}; call record_outcomes, or give y with the batches"
            )
        split = split_window(window, storage.history, champion, since)
        try:
            if isinstance(champion, SeriesGeneration):
                begun = drift_begun(window, storage.history, since)
                return _challenge_series(
                    champion, champion_version, model_name, config, reason, window, begun, promote
                )
            return _challenge(
                champion,
                champion_version,
                model_name,
                config,
                reason,
                window,
                split,
                promote,
                watched,
            )
        except (DataValidationError, ModelTrainingError) as error:
            raise RetrainingError(f"the challenger could not be fitted: {error}") from error


@dataclass(frozen=True)
class Split:
    """How a window is split for a comparison.

    Attributes
    ----------
    n_known : int
        Oldest rows, which the challenger is fitted on; it is compared on the others.
    begun : int
        Position of the first row since the drift began; 0 where that is not known.
    """

    n_known: int
    begun: int = 0


def split_window(
    window: Window,
    history: DataVersioner,
    champion: AnyGeneration | Baseline,
    since: Sequence[Source] = (),
) -> Split:
    """Split off the newest fifth; after a drift no more than half of what is new since then.

    A challenger that has seen nothing of what came after could not win.
    """
    n_rows = len(window.frame)
    newest = int(n_rows * COMPARED_SHARE)
    learned = champion.info.get("drift")
    before = [] if learned is None else [(str(learned["since"][0]), int(learned["since"][1]))]
    begun = drift_begun(window, history, since or before)
    if begun is None or n_rows - begun < FEWEST_ROWS:
        return Split(n_rows - newest)
    n_new = int(window.outside(champion.info["trained_on"])[begun:].sum())
    lately = bool(since) or (learned is not None and 2 * learned["n_after"] < learned["n_rows"])
    if lately and n_new >= FEWEST_ROWS:
        newest = min(newest, n_new // 2)
    return Split(n_rows - newest, begun)


def drift_begun(window: Window, history: DataVersioner, since: Sequence[Source]) -> int | None:
    """Position in the window of the first row since the earliest source; None without one.

    It is the window's length where no row since then has a label.
    """
    order = history.list_versions()[::-1]
    known = [source for source in since if source[0] in order]  # the others were purged
    return min((window.since(source, order) for source in known), default=None)


def labels_digest(window: Window, champion: AnyGeneration | Baseline) -> str:
    """Which labelled rows of a window the champion was not trained on, as a hash."""
    fresh = window.outside(champion.info["trained_on"])
    rows = [f"{v}:{row}" for v, row in zip(window.versions[fresh], window.rows[fresh], strict=True)]
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()[:32]


def waits_for(
    champion: AnyGeneration | Baseline,
    champion_version: str,
    model_name: str,
    config: PipelineConfig,
    since: Sequence[Source] = (),
) -> str:
    """What a retrain that drift or a low accuracy calls for has to wait for; empty for nothing.

    It needs labelled rows that the champion was not trained on, 50 of them since the drift began,
    and others than those on which a challenger has lost to this champion: the same labels would
    give the same answer again.
    """
    history = open_storage(config, model_name).history
    window = labelled_window(champion, history, config)
    if not window.outside(champion.info["trained_on"]).any():
        return "labelled rows that the champion was not trained on"
    begun = drift_begun(window, history, since)
    n_since = len(window.frame) if begun is None else len(window.frame) - begun
    # A window that cannot hold them would wait for ever: the retrain says that it is too small.
    if n_since < FEWEST_ROWS <= config.expanding_window_size:
        return f"{FEWEST_ROWS} labelled rows since the drift began ({n_since} until now)"
    last = challenger_tags(model_name)
    same = last.get(LABELS_TAG) == labels_digest(window, champion)
    if same and last.get("challenged") == champion_version:
        return "labels that no challenger was compared on yet"
    return ""


def _same_task(champion: AnyGeneration | Baseline, config: PipelineConfig) -> PipelineConfig:
    """The configuration with the champion's task: nothing else can be compared with it."""
    task = champion.task
    if config.task not in ("auto", task):
        raise RetrainingError(
            f"the champion's task is {task} and the configuration's {config.task}; train another "
            "model (tsclust train), or leave task out"
        )
    return replace(config, task=task)


def _challenge(
    champion: Generation | Baseline,
    champion_version: str,
    name: str,
    config: PipelineConfig,
    reason: str,
    window: Window,
    split: Split,
    promote: bool,
    watched: Watched | None,
) -> Retraining:
    """The run of a retrain on rows."""
    newest = window.frame.iloc[split.n_known :]
    fresh = window.outside(champion.info["trained_on"])[split.n_known :]
    experiments = ExperimentManager(config.experiment_name)
    with experiments.run("retraining", run_tags("retraining", reason, config)) as run_id:
        log_config(experiments, config)
        fit = first = _fit_rows(experiments, champion, window, split.n_known, split, config)
        with experiments.stage("Comparison") as stage:
            stage.log({"n_rows": split.n_known, "n_compared": int(fresh.sum())})
            compared, rows = fit.fitted.generation, newest[fresh]
            comparison = compare(
                champion, compared, rows, config.promotion_margin, owners(rows, champion.roles)
            )
        if comparison.better:
            with experiments.stage("Refit") as stage:
                n_rows = len(window.frame)
                fit = _fit_rows(experiments, champion, window, n_rows, split, config, silent)
                shown = _out_of_sample(compared, fit.fitted.generation, newest)
                fit = replace(fit, fitted=with_newest(fit.fitted, fit.data, fit.after, shown))
                stage.log({"n_rows": n_rows, "n_after_drift": int(fit.after.sum())})
        fitted, challenger = fit.fitted, fit.fitted.generation
        with experiments.stage("Performance-Report") as stage:
            control = shuffled_control(fitted, fit.data, config)
            report = performance_figures(fitted, fit.data, fit.known, newest.head(0), control) | {
                "holdout": evaluate_generation(compared, newest, first.known)
                if len(newest)
                else None,
                "comparison": comparison.to_dict(),
                "refitted": comparison.better,
                "lineage": challenger.info["lineage"],
                "reason": reason,
            }
            fitted = with_gain(fitted, report)
            challenger = fitted.generation
            about = about_run(name, run_id, "retraining", champion_version, "history")
            inputs = fit_inputs(
                fitted,
                fit.data,
                fit.known,
                newest,
                control.fold_losses["blend"],
                champion=champion if isinstance(champion, Generation) else None,
                evaluated=compared,
            )
            page = build_report(
                challenger,
                inputs,
                about | {"reason": reason},
                comparison=comparison,
                watched=watched,
                names=segment_names(name),
            )
            stage.log(headline(report) | {"improvement": comparison.improvement})
        version, promoted = publish_challenger(
            *(experiments, challenger, report, page, config, name, champion_version),
            *(comparison, promote, labels_digest(window, champion)),
        )
    return Retraining(
        challenger,
        fitted.clustering,
        name,
        version,
        promoted,
        comparison,
        reason,
        run_id,
        report,
    )


@one_line
@dataclass(frozen=True)
class _FittedRows:
    """A fit on rows of a window, and the rows: those `after` came since the drift began."""

    fitted: FittedGeneration
    data: TrainingData
    known: pd.DataFrame
    after: np.ndarray


def _fit_rows(
    experiments: ExperimentManager,
    champion: Generation | Baseline,
    window: Window,
    n_rows: int,
    split: Split,
    config: PipelineConfig,
    stages: Stages | None = None,
) -> _FittedRows:
    """Fit the oldest rows of a window, with the ids of the champion's segments."""
    roles = replace(champion.roles, features=tuple(champion.schema.names))
    is_after = np.arange(n_rows) >= split.begun
    known, ordering = _with_keys(window.frame.iloc[:n_rows].assign(**{_AFTER: is_after}), roles)
    known = in_time_order(known, ordering.time)
    after = known.pop(_AFTER).to_numpy(dtype=bool)
    data = training_data(known, ordering, config, gaps=True, known=champion.outcome)
    seen = champion.info.get("quality", {}).get("seen", [])
    info = {
        "quality": quality_schema(known, data.schema.names, roles, config, seen),
        "source": "history",
        "history_from": champion.info["history_from"],
    } | window.origins(n_rows)
    if isinstance(champion, Generation):
        info["given_features"] = champion.given_features
    if split.begun:
        source = [str(window.versions[split.begun]), int(window.rows[split.begun])]
        info["drift"] = {"since": source, "n_after": int(after.sum()), "n_rows": n_rows}
    fitted = fit_logged(experiments, known, data, roles, config, info, stages)
    if isinstance(champion, Generation):  # a baseline has no segments
        fitted = _with_old_ids(champion, fitted, known)
    return _FittedRows(fitted, data, known, after)


def _out_of_sample(compared: Generation, refitted: Generation, newest: pd.DataFrame) -> OutOfSample:
    """What the compared model showed on the newest rows, for the one that is fitted on them."""
    own = compared.schema.encode(newest)
    encoded = refitted.schema.encode(newest)
    rows = np.flatnonzero(own.scorable & encoded.scorable)
    y = compared.outcomes(newest)[rows]
    forecast = compared.forecast(own.X[rows], compared.coverage)
    losses = compared.row_losses(y, forecast)
    return OutOfSample(encoded.X[rows], losses, y, forecast.values)


def _challenge_series(
    champion: SeriesGeneration,
    champion_version: str,
    name: str,
    config: PipelineConfig,
    reason: str,
    window: Window,
    begun: int | None,
    promote: bool,
) -> Retraining:
    """The run of a retrain on series: the last `horizon` values of each are compared on."""
    roles = replace(champion.roles, frequency=champion.schema.frequency)
    experiments = ExperimentManager(config.experiment_name)
    with experiments.run("retraining", run_tags("retraining", reason, config)) as run_id:
        log_config(experiments, config)
        with experiments.stage("Preprocessing") as stage:
            parts = series_challenge(champion, window, config, begun)
            stage.log(parts.data.panel.gaps | {"n_compared": len(parts.held)})
        info = {
            "source": "history",
            "history_from": champion.info["history_from"],
        } | parts.window.origins(len(parts.window.frame))
        seen = champion.info.get("quality", {}).get("seen", [])
        fitted = fit_series_logged(experiments, parts.data, roles, config, info, seen)
        compared = with_old_series_ids(champion, fitted, parts.data.panel)
        fitted = replace(fitted, generation=compared)
        comparison = compare(champion, compared, parts.held, config.promotion_margin)
        challenger, panel = compared, parts.data.panel
        if comparison.better:
            with experiments.stage("Refit") as stage:
                panel = parts.whole.panel
                info |= window.origins(len(window.frame))
                again = fit_series_logged(
                    experiments, parts.whole, roles, config, info, seen, silent
                )
                challenger = with_newest_losses(
                    with_old_series_ids(champion, again, panel), compared.losses(parts.held)
                )
                fitted = replace(again, generation=challenger)
                stage.log({"n_series": len(panel), "n_periods": panel.n_periods})
        with experiments.stage("Performance-Report") as stage:
            held = parts.held if len(parts.held) else None
            report = series_figures(fitted, held, compared) | {
                "comparison": comparison.to_dict(),
                "refitted": comparison.better,
                "lineage": challenger.info["lineage"],
                "reason": reason,
            }
            page = build_report(
                challenger,
                series_inputs(challenger, panel, held, compared),
                about_run(name, run_id, "retraining", champion_version, "history")
                | {"reason": reason},
                comparison=comparison,
                names=segment_names(name),
            )
            stage.log(headline(report) | {"improvement": comparison.improvement})
        version, promoted = publish_challenger(
            *(experiments, challenger, report, page, config, name, champion_version),
            *(comparison, promote, labels_digest(window, champion)),
        )
    return Retraining(
        challenger,
        fitted.clustering,
        name,
        version,
        promoted,
        comparison,
        reason,
        run_id,
        report,
    )


def owners(frame: pd.DataFrame, roles: Roles) -> np.ndarray | None:
    """A number for the id of each row, shape (n,), one of its own where it is not known; None
    without an id."""
    if roles.id is None or roles.id not in frame:
        return None
    codes = pd.factorize(frame[roles.id].astype(object))[0]
    return np.where(codes < 0, -1 - np.arange(len(codes)), codes)


def row_hashes(frame: pd.DataFrame, roles: Roles) -> np.ndarray | None:
    """A number for the content of each row; None without an id or time that tells rows apart."""
    keys = [name for name in (roles.id, roles.time) if name is not None and name in frame]
    if not keys:
        return None
    return pd.util.hash_pandas_object(frame[sorted(frame.columns)], index=False).to_numpy()


def labelled_window(
    champion: AnyGeneration | Baseline, history: DataVersioner, config: PipelineConfig
) -> Window:
    """The newest labelled rows of the champion's own table, each of them once."""
    if isinstance(champion, SeriesGeneration):
        return series_window(champion, history, config)
    window = history.window(
        config.expanding_window_size, champion.roles.target, champion.info["history_from"]
    )
    return without_copies(window, champion.roles)


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


def _with_old_ids(
    champion: Generation, fitted: FittedGeneration, known: pd.DataFrame
) -> FittedGeneration:
    """The challenger with the ids of the champion's segments where they are the same."""
    encoded = champion.schema.encode(known)
    rows = np.flatnonzero(encoded.scorable)
    new = fitted.assignment
    own = Assignment(new.labels[rows], new.is_noise[rows], new.strength[rows])
    ids, lineage = match_clusters(
        champion.assign(encoded.X[rows]),
        own,
        champion.cluster_ids,
        champion.info["lineage"]["next_id"],
        fitted.generation.cluster_ids,
    )
    everywhere = {NOISE: NOISE} | ids
    labels = np.array([everywhere[int(label)] for label in new.labels], dtype=np.int64)
    return replace(
        fitted,
        generation=fitted.generation.renumbered(ids, lineage.to_dict()),
        assignment=replace(new, labels=labels),
    )
