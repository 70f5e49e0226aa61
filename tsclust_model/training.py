"""A table in, one registered MLflow model out; and again, when the data has moved on."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.baselines import Baseline
from tsclust_model.classification import ClassModel, fold_blend_classes
from tsclust_model.config import CLASS_OBJECTIVES, PipelineConfig
from tsclust_model.drift import Source
from tsclust_model.errors import (
    ConfigurationError,
    DataValidationError,
    ModelTrainingError,
    RetrainingError,
    suggestion,
)
from tsclust_model.evaluation import evaluate_generation
from tsclust_model.forecasting import OutputModel, fold_blend
from tsclust_model.generation import (
    FittedGeneration,
    Generation,
    OutOfSample,
    fit_generation,
    with_newest,
)
from tsclust_model.history import DataVersioner, Window
from tsclust_model.lineage import match_clusters
from tsclust_model.metrics import METRICS, calculate_model_metrics
from tsclust_model.pyfunc import log_generation
from tsclust_model.quality import infer_quality_schema
from tsclust_model.registry import (
    CHAMPION,
    alias_version,
    challenger_tags,
    check_model_name,
    describe_version,
    register,
    segment_names,
    set_challenger,
    set_champion,
    tag_training_data,
    tag_version,
)
from tsclust_model.report import model_card
from tsclust_model.report_figures import Watched
from tsclust_model.report_rows import fold_naive_losses
from tsclust_model.reporting import fit_report, log_report, now, series_report
from tsclust_model.results import NOISE, Assignment, ClusteringResult
from tsclust_model.retraining import Comparison, compare, retrain_lock
from tsclust_model.segment_gain import segment_gain
from tsclust_model.series_fitting import FittedSeries, fit_series_generation
from tsclust_model.series_generation import AnyGeneration, SeriesGeneration
from tsclust_model.series_table import value_columns
from tsclust_model.series_training import (
    SeriesData,
    series_challenge,
    series_data,
    series_figures,
    series_window,
    with_newest_losses,
    with_old_series_ids,
)
from tsclust_model.shown import one_line
from tsclust_model.stages import Stages, silent
from tsclust_model.storage import open_storage, refuse_lost_rows
from tsclust_model.tables import content_digest
from tsclust_model.tracking import (
    ArtifactManager,
    ExperimentManager,
    log_config,
    log_input,
    translated,
)
from tsclust_model.validation import (
    Roles,
    TrainingData,
    in_time_order,
    training_data,
)

COMPARED_SHARE = 0.2
"""Newest share of the window on which champion and challenger are compared."""

FEWEST_ROWS = 50

LABELS_TAG = "compared.labels"
"""Tag of a challenger: which labels it was compared on, as a hash."""

_AFTER = " after"  # a column beside those of a window


@one_line
@dataclass(frozen=True)
class Training:
    """What a training made.

    Attributes
    ----------
    generation : Generation
    clustering : ClusteringResult
    model_name, version : str
        The registered version.
    replaced : str or None
        The version that was ``@champion`` before.
    run_id : str
    report : dict
        The figures that are logged as ``report.json``.
    """

    generation: AnyGeneration
    clustering: ClusteringResult
    model_name: str
    version: str
    replaced: str | None
    run_id: str
    report: dict[str, Any]

    @property
    def model_uri(self) -> str:
        return f"models:/{self.model_name}@{CHAMPION}"


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


def train_table(
    frame: pd.DataFrame,
    roles: Roles,
    config: PipelineConfig | None = None,
    *,
    source: str = "memory",
    holdout: float = 0.0,
    model_name: str | None = None,
    trigger: str = "manual",
) -> Training:
    """Fit, evaluate, log and register a model of a table; it becomes ``@champion``.

    Parameters
    ----------
    frame : DataFrame
        One row a case; see `Roles` for its columns.
    roles : Roles
    config : PipelineConfig, optional
    source : str
        Where the table came from, for the record.
    holdout : float
        Newest share of the rows (0 to below 1) that is never fitted, only evaluated on.
    model_name : str, optional
        Registered model; default: that of the configuration.
    trigger : str
        Who asked for the training, for the run's tag.

    Returns
    -------
    Training

    Raises
    ------
    DataValidationError, ConfigurationError, ModelTrainingError, MLflowIntegrationError
        The run is marked FAILED and nothing is registered.
    """
    config = config or PipelineConfig()
    name = check_model_name(model_name or config.registered_model_name)
    if not 0 <= holdout < 1:
        raise ConfigurationError(f"holdout is {holdout!r}; it must be a share from 0 to below 1")
    asked = config.lgb_timeseries_params["objective"] in CLASS_OBJECTIVES
    if roles.horizon and (asked or config.task == "classification"):
        raise ConfigurationError("series are forecast as numbers; leave task or horizon out")
    if roles.horizon:
        return _train_series(frame, roles, config, source, holdout, name, trigger)
    if roles.frequency is not None:
        raise ConfigurationError("frequency is of series; give a horizon too, or leave it out")
    experiments = ExperimentManager(config.experiment_name)
    with experiments.run("training", run_tags("training", trigger, config)) as run_id:
        log_config(experiments, config)
        with experiments.stage("Preprocessing") as stage:
            known, unseen = split_newest(frame, roles.time, holdout)
            if len(known) < 2 <= len(frame):
                raise ConfigurationError(
                    f"holdout {holdout:g} leaves {len(known)} of {len(frame)} rows; lower it"
                )
            data = training_data(known, roles, config)
            _warn_of_absent(frame, config)
            n_features = data.X.shape[1]
            stage.log({"n_rows": len(known), "n_holdout": len(unseen), "n_features": n_features})
        info = {
            "source": source,
            "quality": quality_schema(known, data.schema.names, roles, config, list(frame)),
        }
        fitted = _fit(experiments, known, data, roles, config, info)
        with experiments.stage("Performance-Report") as stage:
            control = shuffled_control(fitted, data, config)
            report = performance_figures(fitted, data, known, unseen, control)
            fitted = _with_gain(fitted, report)
            about = _told(name, run_id, "training", alias_version(name, CHAMPION), source)
            page = fit_report(fitted, data, known, unseen, about, control.fold_losses["blend"])
            stage.log(headline(report))
        # Only now: a training that fails leaves no patients behind.
        fitted = replace(
            fitted, generation=_with_history(fitted.generation, known, unseen, config, name)
        )
        version = _publish(experiments, fitted.generation, report, page, config, name)
        replaced = set_champion(name, version, f"training ({trigger})")
    return Training(fitted.generation, fitted.clustering, name, version, replaced, run_id, report)


def _warn_of_absent(frame: pd.DataFrame, config: PipelineConfig) -> None:
    """Say which columns the report cannot group by."""
    columns = list(map(str, frame.columns))
    for key in ("planning_columns", "audit_columns"):
        for name in getattr(config, key):
            if name not in columns:
                hint = suggestion(name, columns)
                warnings.warn(
                    f"{key} names '{name}', which the data does not have{hint}", stacklevel=3
                )


def _train_series(
    frame: pd.DataFrame,
    roles: Roles,
    config: PipelineConfig,
    source: str,
    holdout: float,
    name: str,
    trigger: str,
) -> Training:
    """`train_table` of a long table of series."""
    value_columns(frame, roles)  # a role that is forgotten needs no run
    experiments = ExperimentManager(config.experiment_name)
    with experiments.run("training", run_tags("training", trigger, config)) as run_id:
        log_config(experiments, config)
        with experiments.stage("Preprocessing") as stage:
            data = series_data(frame, roles, config, holdout)
            stage.log(data.panel.gaps | {"n_periods": data.panel.n_periods})
        fitted = _fit_series(experiments, data, roles, config, {"source": source}, list(frame))
        with experiments.stage("Performance-Report") as stage:
            report = series_figures(fitted, data.held)
            about = _told(name, run_id, "training", alias_version(name, CHAMPION), source)
            page = series_report(fitted.generation, data.panel, data.held, about)
            stage.log(headline(report))
        history = open_storage(config, name, register=True).history
        batch_id = history.register(data.rows)
        ours = {
            "trained_on": {batch_id: [0, data.n_known]},
            "history_from": history.sequence(batch_id),
        }
        generation = replace(fitted.generation, info=fitted.generation.info | ours)
        version = _publish(experiments, generation, report, page, config, name)
        replaced = set_champion(name, version, f"training ({trigger})")
    return Training(generation, fitted.clustering, name, version, replaced, run_id, report)


def _fit_series(
    experiments: ExperimentManager,
    data: SeriesData,
    roles: Roles,
    config: PipelineConfig,
    info: Mapping[str, Any],
    seen: Iterable[Any],
    stages: Stages | None = None,
) -> FittedSeries:
    known = data.rows.head(data.n_known)
    sha256 = content_digest(known)
    log_input(known, str(info["source"]), sha256, "training", roles.target)
    quality = quality_schema(known, data.panel.covariates, roles, config, seen)
    own = {"roles": asdict(roles), "data_sha256": sha256, "quality": quality}
    told, steps = dict(info) | own, stages or experiments.stage
    return fit_series_generation(data.panel, roles, config, told, steps)


def _with_history(
    generation: Generation,
    known: pd.DataFrame,
    unseen: pd.DataFrame,
    config: PipelineConfig,
    name: str,
) -> Generation:
    """Keep the rows of a first training, and say in the generation which they were."""
    history = open_storage(config, name, register=True).history
    rows = generation.canonical_rows(pd.concat([known, unseen]))
    batch_id = history.register(rows)
    ours = {
        "trained_on": {batch_id: [0, len(known)]},
        "history_from": history.sequence(batch_id),
    }
    return replace(generation, info=generation.info | ours)


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
    task = "regression" if champion.classes is None else "classification"
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
            fitted = _with_gain(fitted, report)
            challenger = fitted.generation
            about = _told(name, run_id, "retraining", champion_version, "history")
            page = fit_report(
                fitted,
                fit.data,
                fit.known,
                newest,
                about | {"reason": reason},
                control.fold_losses["blend"],
                champion=champion if isinstance(champion, Generation) else None,
                comparison=comparison,
                watched=watched,
                names=segment_names(name),
                evaluated=compared,
            )
            stage.log(headline(report) | {"improvement": comparison.improvement})
        version, promoted = _publish_challenger(
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
    data = training_data(known, ordering, config, gaps=True, known=champion.classes)
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
    fitted = _fit(experiments, known, data, roles, config, info, stages)
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
    residuals = None if compared.classes is not None else y - forecast.prediction
    return OutOfSample(encoded.X[rows], compared.row_losses(y, forecast), residuals)


def quality_schema(
    known: pd.DataFrame,
    features: Iterable[str],
    roles: Roles,
    config: PipelineConfig,
    seen: Iterable[Any],
) -> dict[str, Any]:
    """The schema that new rows are checked against; `seen` are the table's own columns.

    Outcomes of rows may come later; a series is made of them.
    """
    outcomes = (roles.target, *roles.resources)
    found = infer_quality_schema(
        known,
        columns=[name for name in (*features, *outcomes, roles.time, roles.id) if name],
        optional=() if roles.horizon else outcomes,
        time=roles.time,
        id=roles.id,
        unique=roles.horizon > 0,
        markers=config.missing_markers,
    )
    return found | {"seen": sorted({*found["seen"], *map(str, seen)})}


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
        fitted = _fit_series(experiments, parts.data, roles, config, info, seen)
        compared = with_old_series_ids(champion, fitted, parts.data.panel)
        fitted = replace(fitted, generation=compared)
        comparison = compare(champion, compared, parts.held, config.promotion_margin)
        challenger, panel = compared, parts.data.panel
        if comparison.better:
            with experiments.stage("Refit") as stage:
                panel = parts.whole.panel
                info |= window.origins(len(window.frame))
                again = _fit_series(experiments, parts.whole, roles, config, info, seen, silent)
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
            page = series_report(
                *(challenger, panel, held),
                _told(name, run_id, "retraining", champion_version, "history") | {"reason": reason},
                comparison=comparison,
                names=segment_names(name),
                evaluated=compared,
            )
            stage.log(headline(report) | {"improvement": comparison.improvement})
        version, promoted = _publish_challenger(
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


def _publish_challenger(
    experiments: ExperimentManager,
    challenger: AnyGeneration,
    report: Mapping[str, Any],
    page: dict[str, Any],
    config: PipelineConfig,
    name: str,
    champion_version: str,
    comparison: Comparison,
    promote: bool,
    labels: str,
) -> tuple[str, bool]:
    """Register the challenger, and let it serve if it is better: its version, and whether."""
    version = _publish(experiments, challenger, report, page, config, name)
    set_challenger(name, version)
    reason = str(report["reason"])
    figures = {"comparison": comparison.reason} | comparison.figures
    told = {"challenged": champion_version, "trigger": reason, LABELS_TAG: labels}
    tag_version(name, version, told | {"refitted": comparison.better} | figures)
    promoted = promote and comparison.better
    if promoted:
        set_champion(name, version, reason, expected=champion_version, figures=figures)
    return version, promoted


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


def _fit(
    experiments: ExperimentManager,
    known: pd.DataFrame,
    data: TrainingData,
    roles: Roles,
    config: PipelineConfig,
    info: Mapping[str, Any],
    stages: Stages | None = None,
) -> FittedGeneration:
    sha256 = content_digest(known)
    log_input(known, str(info["source"]), sha256, "training", roles.target)
    own = {"roles": asdict(roles), "data_sha256": sha256}
    return fit_generation(data, config, dict(info) | own, stages or experiments.stage)


def _publish(
    experiments: ExperimentManager,
    generation: AnyGeneration,
    report: Mapping[str, Any],
    page: dict[str, Any],
    config: PipelineConfig,
    name: str,
) -> str:
    """Log figures, report and model under the active run; returns the registered version."""
    experiments.log_metrics(headline(report))
    ArtifactManager(config.hospital_profile_id).save_report(report, "report.json")
    with translated("the model cannot be logged"):
        logged = log_generation(generation, config.serialization)
    version = register(logged.model_uri, name, (logged.metadata or {})["state_sha256"])
    tag_training_data(name, str(version.version), generation.info["trained_on"])
    page["model"]["version"] = str(version.version)
    describe_version(name, str(version.version), model_card(page))
    log_report(page)
    return str(version.version)


def _told(
    name: str, run_id: str, phase: str, replaced: str | None, source: str
) -> dict[str, str | None]:
    """What the report of a fit says of where it is; the version is not known yet."""
    told = {"phase": phase, "source": source, "model_name": name, "version": "", "run_id": run_id}
    return told | {"replaced": replaced, "made_at": now()}


def run_tags(phase: str, trigger: str, config: PipelineConfig) -> dict[str, str | None]:
    """The tags of a run that trains."""
    return {
        "phase": phase,
        "trigger": trigger,
        "hospital_profile_id": config.hospital_profile_id,
    }


def split_newest(
    frame: pd.DataFrame, time: str | None, share: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table in time order, parted into the older rows and the newest `share` (0 to 1)."""
    ordered = in_time_order(frame, time)
    cut = len(ordered) - int(len(ordered) * share)
    return ordered.iloc[:cut], ordered.iloc[cut:].reset_index(drop=True)


def shuffled_control(
    fitted: FittedGeneration, data: TrainingData, config: PipelineConfig
) -> OutputModel | ClassModel:
    """The blend on the folds with the segments shuffled among the rows: worth nothing."""
    labels = np.random.default_rng(config.random_state).permutation(fitted.assignment.labels)
    fits = (data.X, data.y, labels, fitted.folds, config.lgb_timeseries_params)
    settings: dict[str, Any] = {
        "categorical": data.schema.categorical_columns,
        "min_cluster_rows": config.min_cluster_rows,
    }
    if data.classes is None:
        return fold_blend(*fits, **settings, clip=config.clip_to_support)
    return fold_blend_classes(*fits, data.classes, **settings)


def performance_figures(
    fitted: FittedGeneration,
    data: TrainingData,
    known: pd.DataFrame,
    unseen: pd.DataFrame,
    control: OutputModel | ClassModel,
) -> dict[str, Any]:
    """What was found and what it is worth, as JSON-ready figures.

    `known` is the table of `data`, in the same order; `unseen` was not fitted.

    ``worth`` holds errors on the folds: of the global model, of clusters alone, of the blend that
    is served, and of a control, the same blend with the labels shuffled among the rows. ``gain`` is
    what the segments save beyond the control, and its standard error over rows, folds and whose
    rows they are.
    """
    generation = fitted.generation
    scores, losses = generation.target.scores, generation.target.fold_losses
    rows = np.concatenate([fold.valid for fold in fitted.folds])
    gain = segment_gain(
        *(losses["global"], losses["blend"], control.fold_losses["blend"]),
        root=METRICS[scores.metric].squared,
        parts=np.repeat(np.arange(len(fitted.folds)), [len(fold.valid) for fold in fitted.folds]),
        units=None if data.groups is None else data.groups[rows],
    )
    return {
        "clustering": fitted.clustering.metrics,
        "cluster_sizes": generation.info["cluster_sizes"],
        "worth": {
            f"{scores.metric}_{way}": value
            for way, value in (scores.errors | {"control": control.scores.errors["blend"]}).items()
        }
        | {f"{name}_blend": value for name, value in scores.served.items()}
        | _fold_metrics(fitted, data, known)
        | {"cluster_weight": generation.target.weight},
        "gain": None if gain is None else gain.to_dict(),
        "clusters": {str(cluster): figures for cluster, figures in scores.clusters.items()},
        "resources": {
            name: {f"rmse_{way}": value for way, value in model.scores.errors.items()}
            | {"cluster_weight": model.weight}
            for name, model in generation.resources.items()
        },
        "holdout": evaluate_generation(generation, unseen, known) if len(unseen) else None,
    }


def _fold_metrics(
    fitted: FittedGeneration, data: TrainingData, known: pd.DataFrame
) -> dict[str, float | None]:
    """MAE and R² of what is served on the folds, and the metric of naive forecasts there."""
    target = fitted.generation.target
    rows = np.concatenate([fold.valid for fold in fitted.folds] or [np.empty(0, dtype=np.int64)])
    metric = fitted.generation.metric
    found: dict[str, float | None] = {}
    if isinstance(target, OutputModel) and len(target.residuals) == len(rows):
        own = calculate_model_metrics(data.y[rows], data.y[rows] - target.residuals)
        found = {f"{name}_blend": own[name] for name in ("mae", "r2")}
    return found | {
        f"{metric.name}_{way}": metric.of(losses.mean())
        for way, losses in fold_naive_losses(fitted, data, known).items()
    }


def _with_gain(fitted: FittedGeneration, report: Mapping[str, Any]) -> FittedGeneration:
    """The fit whose generation says what its segments save beyond shuffled ones."""
    info = fitted.generation.info | {"segment_gain": report["gain"]}
    return replace(fitted, generation=replace(fitted.generation, info=info))


def headline(report: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a report that a run shows as metrics."""
    figures = {
        k: report["clustering"][k] for k in ("n_clusters", "noise_ratio", "silhouette_score")
    }
    figures |= {f"fold_{name}": value for name, value in report["worth"].items()}
    if report["gain"] is not None:
        figures["fold_saved_beyond_control"] = report["gain"]["beyond"]
        figures["fold_saved_beyond_control_error"] = report["gain"]["error"]
    for name, value in (report["holdout"] or {}).items():
        if not isinstance(value, dict):
            figures[f"holdout_{name}"] = value
    return figures
