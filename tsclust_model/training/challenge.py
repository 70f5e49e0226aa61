"""Fits a challenger on the expanding window, compares it, and lets the better one serve."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tsclust_model.config import PipelineConfig
from tsclust_model.data.history import DataVersioner
from tsclust_model.data.window import Window
from tsclust_model.errors import DataValidationError, ModelTrainingError, RetrainingError
from tsclust_model.mlflow_integration.registry import (
    challenger_tags,
    segment_names,
    set_challenger,
    set_champion,
)
from tsclust_model.mlflow_integration.runs import ExperimentManager, log_config
from tsclust_model.mlflow_integration.storage import open_storage, refuse_lost_rows
from tsclust_model.models.base import LIGHTGBM, FittedModel
from tsclust_model.models.compare import Comparison, compare
from tsclust_model.models.task import FEWEST_ROWS, Findings, Prepared, Split, Task
from tsclust_model.monitoring.detectors import Source
from tsclust_model.report.build import build_report
from tsclust_model.report.figures import Watched
from tsclust_model.report.schema import Figures
from tsclust_model.results import ClusteringResult, Stages, silent
from tsclust_model.shown import one_line
from tsclust_model.training.lock import retrain_lock
from tsclust_model.training.publish import about_run, headline, publish, run_tags
from tsclust_model.training.task import task_of
from tsclust_model.training.train import fit_logged

LABELS_TAG = "compared.labels"
"""Tag of a challenger: which labels it was compared on, as a hash."""


@one_line
@dataclass(frozen=True)
class Retraining:
    """What a retrain made.

    Attributes
    ----------
    generation : Generation, SeriesGeneration or Baseline
        The challenger.
    clustering : ClusteringResult or None
        Its own numbers, before the old ids; None of a model without segments.
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

    generation: Any
    clustering: ClusteringResult | None
    model_name: str
    version: str
    promoted: bool
    comparison: Comparison
    reason: str
    run_id: str
    report: dict[str, Any]


@one_line
@dataclass(frozen=True)
class Champion:
    """The model that serves.

    Attributes
    ----------
    model : FittedModel
    version : str
        The version that must still be serving when a challenger takes over.
    name : str
        The registered model.
    """

    model: FittedModel
    version: str
    name: str


def retrain_model(
    champion: FittedModel,
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
    champion : FittedModel
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
    serving = Champion(champion, champion_version, model_name)
    task = challenger_task(champion, config)
    return retrain(task, serving, reason, promote=promote, watched=watched, since=since)


def challenger_task(
    champion: FittedModel,
    config: PipelineConfig,
    model_type: str = LIGHTGBM,
    params: Mapping[str, Any] | None = None,
) -> Task:
    """The task of a challenger, with the champion's columns and kind of target: nothing else can
    be compared with it.

    Raises
    ------
    RetrainingError
        The configuration asks for another kind of target.
    """
    if config.task not in ("auto", champion.task):
        raise RetrainingError(
            f"the champion's task is {champion.task} and the configuration's {config.task}; train "
            "another model (tsclust train), or leave task out"
        )
    same = replace(config, task=champion.task)
    return task_of(champion.table_roles, same, model_type, params)


def retrain(
    task: Task,
    champion: Champion,
    reason: str,
    *,
    promote: bool = True,
    watched: Watched | None = None,
    since: Sequence[Source] = (),
) -> Retraining:
    """`retrain_model` of a task, which may be that of a scikit-learn estimator."""
    storage, model = open_storage(task.config, champion.name), champion.model
    with retrain_lock(storage.retrain_lock):
        window = model.labelled_window(storage.history, task.config)
        refuse_lost_rows(storage, model.info, model.roles.target, window)
        if len(window.frame) < FEWEST_ROWS:
            raise RetrainingError(
                f"{len(window.frame)} labelled rows are too few for a retrain, which needs "
                f"{FEWEST_ROWS}; call record_outcomes, or give y with the batches"
            )
        learned = model.info.get("drift")
        before = [] if learned is None else [(str(learned["since"][0]), int(learned["since"][1]))]
        begun = drift_begun(window, storage.history, since or before)
        lately = bool(since) or (learned is not None and 2 * learned["n_after"] < learned["n_rows"])
        try:
            return _Challenge(task, champion, reason, window, watched).run(begun, lately, promote)
        except (DataValidationError, ModelTrainingError) as error:
            raise RetrainingError(f"the challenger could not be fitted: {error}") from error


@one_line
@dataclass(frozen=True)
class _Challenge:
    """The run of a retrain."""

    task: Task
    champion: Champion
    reason: str
    window: Window
    watched: Watched | None

    def run(self, begun: int | None, lately: bool, promote: bool) -> Retraining:
        task, champion, config = self.task, self.champion, self.task.config
        experiments = ExperimentManager(config.experiment_name)
        with experiments.run("retraining", run_tags("retraining", self.reason, config)) as run_id:
            log_config(experiments, config)
            with experiments.stage("Preprocessing") as stage:
                split = task.split(champion.model, self.window, begun, lately)
                first = prepared = task.first(split)
                stage.log(first.figures | {"n_compared": len(split.compared)})
            fit = self._fit(experiments, first)
            compared = fit.generation
            comparison = self._compare(experiments, split, compared)
            if comparison.better:
                with experiments.stage("Refit") as stage:
                    prepared = task.whole(split)
                    fit = self._fit(experiments, prepared, silent)
                    fit = task.watched_by_newest(fit, prepared, compared, split)
                    stage.log(prepared.figures)
            with experiments.stage("Performance-Report") as stage:
                findings = task.findings(
                    fit,
                    prepared,
                    split.newest if len(split.newest) else None,
                    first=first,
                    evaluated=compared,
                    champion=champion.model,
                )
                challenger = findings.fit.generation
                report = self._report(findings, comparison)
                page = self._page(findings, comparison, run_id)
                stage.log(headline(report) | {"improvement": comparison.improvement})
            experiments.log_metrics(comparison.figures | {"improvement": comparison.improvement})
            told = self._told(comparison)
            version = publish(experiments, challenger, report, page, config, champion.name, told)
            promoted = self._promote(version, comparison, promote)
        return Retraining(
            challenger,
            fit.clustering,
            champion.name,
            version,
            promoted,
            comparison,
            self.reason,
            run_id,
            report,
        )

    def _fit(
        self, experiments: ExperimentManager, prepared: Prepared, stages: Stages | None = None
    ) -> Any:
        """A fit with the ids of the champion's segments."""
        model = self.champion.model
        info = {"source": "history", "history_from": model.info["history_from"]}
        seen = model.info.get("quality", {}).get("seen", [])
        fit = fit_logged(experiments, self.task, prepared, info, seen, stages)
        return self.task.numbered(model, fit, prepared)

    def _compare(
        self, experiments: ExperimentManager, split: Split, compared: FittedModel
    ) -> Comparison:
        with experiments.stage("Comparison") as stage:
            champion, margin = self.champion.model, self.task.config.promotion_margin
            stage.log({"n_compared": len(split.compared)})
            groups = champion.groups(split.compared)
            return compare(champion, compared, split.compared, margin, groups)

    def _report(self, findings: Findings, comparison: Comparison) -> dict[str, Any]:
        return findings.figures | {
            "comparison": comparison.to_dict(),
            "refitted": comparison.better,
            "lineage": findings.fit.generation.info.get("lineage"),
            "reason": self.reason,
        }

    def _page(self, findings: Findings, comparison: Comparison, run_id: str) -> Figures | None:
        if findings.inputs is None:
            return None
        name, version = self.champion.name, self.champion.version
        return build_report(
            findings.fit.generation,
            findings.inputs,
            about_run(name, run_id, "retraining", version, "history") | {"reason": self.reason},
            comparison=comparison,
            watched=self.watched,
            names=segment_names(name),
        )

    def _told(self, comparison: Comparison) -> dict[str, Any]:
        """The tags of the challenger."""
        told = {
            "challenged": self.champion.version,
            "trigger": self.reason,
            LABELS_TAG: labels_digest(self.window, self.champion.model),
            "refitted": comparison.better,
            "comparison": comparison.reason,
        }
        return told | comparison.figures

    def _promote(self, version: str, comparison: Comparison, promote: bool) -> bool:
        """Let the challenger serve if it is better; whether it does."""
        name, champion = self.champion.name, self.champion.version
        set_challenger(name, version)
        promoted = promote and comparison.better
        if promoted:
            figures = {"comparison": comparison.reason} | comparison.figures
            set_champion(name, version, self.reason, expected=champion, figures=figures)
        return promoted


def drift_begun(window: Window, history: DataVersioner, since: Sequence[Source]) -> int | None:
    """Position in the window of the first row since the earliest source; None without one.

    It is the window's length where no row since then has a label.
    """
    order = history.list_versions()[::-1]
    known = [source for source in since if source[0] in order]  # the others were purged
    return min((window.since(source, order) for source in known), default=None)


def labels_digest(window: Window, champion: FittedModel) -> str:
    """Which labelled rows of a window the champion was not trained on, as a hash."""
    fresh = window.outside(champion.info["trained_on"])
    rows = [f"{v}:{row}" for v, row in zip(window.versions[fresh], window.rows[fresh], strict=True)]
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()[:32]


def waits_for(
    champion: FittedModel,
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
    window = champion.labelled_window(history, config)
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
