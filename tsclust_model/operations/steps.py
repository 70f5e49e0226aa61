"""The operations loop: what a scheduler calls with one YAML.

    ingest -> check_quality -> check_monitor -> train -> evaluate -> record

Each step is a function of the path of the YAML and plain data, and keeps what it makes on disk or
in MLflow, so that the steps may run in one process (`run_pipeline`) or one container each. A
version of the data is processed once `record` has written it down; until then the next call takes
it up.
"""

from __future__ import annotations

import functools
import glob
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from tsclust_model.data.quality import QualityReport, validate_data_quality
from tsclust_model.data.tables import mixed_as_texts, read_table
from tsclust_model.errors import (
    DataLoadError,
    DataValidationError,
    MLflowIntegrationError,
    PipelineError,
    RetrainingError,
)
from tsclust_model.mlflow_integration.registry import CHAMPION, alias_version, answers
from tsclust_model.mlflow_integration.runs import ExperimentManager, error_handler
from tsclust_model.mlflow_integration.thresholds import (
    below_floor,
    tag_validation,
    undefined_floor,
)
from tsclust_model.operations.champion import (
    challenger,
    figures_on,
    first_model,
    missed_thresholds,
    observed,
    obstacle_to_learning,
)
from tsclust_model.operations.logs import logging_to
from tsclust_model.operations.results import (
    Decision,
    Evaluated,
    Ingested,
    Outcome,
    Summary,
    Trained,
    empty_summary,
    figures_of,
    score,
    summary_of,
)
from tsclust_model.operations.settings import LoopSettings, load_settings, mlflow_variables
from tsclust_model.operations.workspace import Workspace
from tsclust_model.training.lock import retrain_lock

GOOD = ("done", "unchanged")
"""Statuses with which nothing is wrong."""

PROCESSED = ("done", "below_threshold", "no_target")
"""Statuses of data that went through all steps; the same data need not do so again."""

STEPS = ("ingest", "check_quality", "check_monitor", "train", "evaluate", "record")

_CLOSING = {"step": "pipeline", "closing": True}

OnStep = Callable[[str, Mapping[str, Any]], None]

_Result = TypeVar("_Result")


def _step(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """A step as it is called: with the path of the YAML in the place of its workspace."""

    @functools.wraps(function)
    def run(config_path: str | Path, *arguments: Any) -> _Result:
        settings = _load_config(config_path)
        with mlflow_variables(settings.mlflow):
            return function(Workspace(settings), *arguments)

    return run


def run_pipeline(
    config_path: str | Path, *, on_step: OnStep | None = None, closing_line: bool = True
) -> Summary:
    """Ingest, check, retrain if needed, evaluate and record; safe to call at any time.

    What each step did is logged as the section ``logging`` says (``console: off`` for silence).

    Parameters
    ----------
    config_path : path
        YAML of `operations.settings.LoopSettings`; the environment is laid over it. A relative
        ``data.path`` is of the working folder, or else of the folder of the YAML.
    on_step : callable, optional
        Called with the name and the result of each step as it ends.
    closing_line : bool
        Whether lines for people end with the message; False for a caller who prints it.

    Returns
    -------
    dict
        ``status``: ``done``, ``below_threshold`` (what serves misses a threshold or the floor, even
        after a retrain), ``no_target`` (the target's column has vanished, so that nothing can be
        evaluated), ``unchanged`` (this data was processed before, and nothing was missing),
        ``blocked`` (by its quality), ``refused`` (a retrain was due and could not be done) or
        ``deferred`` (MLflow does not answer: the data is kept, and the next call goes on).
        ``data_version``, ``model_version`` and ``model_uri`` (what serves), ``retrained``,
        ``promoted``, ``reasons`` (list), the `results.FIGURES` (None where undefined),
        ``validation_status``, ``failures`` (thresholds that are not met), ``not_evaluated`` (what
        could not be evaluated, and why), ``quality``, ``caught_up`` (versions that an earlier call
        had left), ``durations`` {step: seconds} and ``message``.

    Raises
    ------
    FileNotFoundError
        There is no such YAML.
    PipelineError
        The settings or the data cannot be used, or a step failed; the champion is untouched.
    """
    settings = _load_config(config_path)
    with logging_to(settings.logging, closing_line) as log:
        ingested: dict[str, Any] = {}

        def told(name: str, result: Mapping[str, Any]) -> None:
            if name == "ingest":
                ingested.update(result)
            own = name == "record" and result["data_version"] == ingested["data_version"]
            details = {k: v for k, v in result.items() if k not in ("removed_rows", "quality")}
            extra = {"step": name, "details": details, "closing": own}
            log.info("%s", result.get("message", "done"), extra=extra)
            if on_step is not None:
                on_step(name, result)

        try:
            summary = _run(config_path, settings, told)
        except PipelineError as error:
            log.error("%s", error, extra=_CLOSING | {"details": {"error": type(error).__name__}})
            raise
        level = logging.INFO if is_good(summary) else logging.ERROR
        log.log(level, "%s", summary["message"], extra=_CLOSING | {"details": summary})
    return summary


def is_good(summary: Summary | Mapping[str, Any]) -> bool:
    """Whether nothing is wrong: nothing was blocked, refused or put off, no threshold missed."""
    return summary["status"] in GOOD and summary["validation_status"] != "FAILED"


def _load_config(config_path: str | Path) -> LoopSettings:
    """The settings of a YAML file; a relative ``data.path`` is found from the working folder, or
    else from the folder of the YAML."""
    settings = load_settings(config_path)
    path = _placed(settings.data.path, Path(config_path).absolute().parent)
    return settings.model_copy(update={"data": settings.data.model_copy(update={"path": path})})


def _placed(path: str, folder: Path) -> str:
    beside = str(folder / path)
    is_local = "://" not in path and not Path(path).is_absolute()
    return beside if is_local and not glob.glob(path) and glob.glob(beside) else path


def _run(config_path: str | Path, settings: LoopSettings, on_step: OnStep) -> Summary:
    """All steps for the versions that wait, this data's last."""
    work = Workspace(settings)
    durations: dict[str, float] = {}

    def took(name: str, started: float, result: Mapping[str, Any]) -> None:
        durations[name] = durations.get(name, 0.0) + time.perf_counter() - started
        on_step(name, result)

    def process(version: str) -> Summary:
        """One version through all steps, in a run of its own."""
        outcome: Outcome = {}
        experiments = ExperimentManager(work.config.experiment_name)
        with experiments.run("pipeline", {"phase": "pipeline", "data_version": version}):
            for name in STEPS[1:]:
                started = time.perf_counter()
                outcome = advance(name, config_path, version, outcome)
                if name in outcome:
                    took(name, started, cast(Mapping[str, Any], outcome)[name])
        return outcome["record"]

    lock = retrain_lock(work.folder / ".loop.lock", "run of this loop is active")
    with mlflow_variables(settings.mlflow), lock:
        started = time.perf_counter()
        with error_handler("ingest"):
            ingested = ingest(config_path)
        took("ingest", started, ingested)
        current, summaries = ingested["data_version"], list[Summary]()
        try:
            summary = processed(config_path, current)
            pending = ingested["pending"] if summary is None else ingested["pending"][:-1]
            summaries = [process(version) for version in pending]
            summary = summary or summaries.pop()
        except MLflowIntegrationError:
            if answers():
                raise
            summary, summaries = _deferred(work, current), []
    summary["caught_up"] = [item["data_version"] for item in summaries]
    summary["durations"] = durations
    return summary


def advance(step: str, config_path: str | Path, data_version: str, outcome: Outcome) -> Outcome:
    """Take one of the `STEPS` after ``ingest``, if what the steps before it found calls for it.

    Parameters
    ----------
    step : str
    config_path : path
    data_version : str
    outcome : mapping
        See `tsclust_model.operations.results.Outcome`; empty before the first step.

    Returns
    -------
    dict
        `outcome`, and the result of this step, unless there was nothing to do: blocked data is only
        recorded, and without a reason nothing is trained.
    """
    blocked = "check_quality" in outcome and outcome["check_quality"]["decision"] == "block"
    untrained = step == "train" and not blocked and not outcome["check_monitor"]["retrain"]
    if untrained or (blocked and step != "record"):
        return outcome
    arguments: list[Any] = []
    if step == "train":
        arguments = [outcome["check_monitor"]["reasons"]]
    elif step == "evaluate":
        arguments = [outcome["train"]["compared"] if "train" in outcome else None]
    elif step == "record":
        arguments = [outcome]
    try:
        with error_handler(step):
            result = _STEP[step](config_path, data_version, *arguments)
    except MLflowIntegrationError:
        raise  # perhaps only for now
    except PipelineError as error:
        # Or this version would stand in the way of every later one.
        work = Workspace(_load_config(config_path))
        failed = {"failed": type(error).__name__, "settings": work.digest}
        work.monitor().record_metrics(None, data_version, None, failed)
        raise
    return cast(Outcome, {**outcome, step: result})


@_step
def processed(work: Workspace, data_version: str) -> Summary | None:
    """What to say of a version that was recorded under these settings, with the same champion."""
    records = [r for r in work.monitor().records() if r["data_version"] == data_version]
    if not records or "summary" not in records[-1] or records[-1]["settings"] != work.digest:
        return None
    last, when = records[-1]["summary"], records[-1]["recorded_at"]
    serving = alias_version(work.name, CHAMPION)
    if last["status"] not in PROCESSED or last["model_version"] != serving:
        return None
    message = f"nothing to do: data version {data_version} was processed at {when}"
    left = last.get("not_evaluated", [])
    if last["status"] != "done":
        why = "; ".join(last["failures"] or left) or "no outcomes"
        message += f", and is still {last['status']}: {why}"
    elif left:
        message += f"; {'; '.join(left)}"
    status = "unchanged" if last["status"] == "done" else last["status"]
    done = {"retrained": False, "promoted": False, "reasons": [], "message": message}
    return cast(Summary, dict(last) | done | {"status": status})


# Kubeflow pipelines that an earlier build has compiled call it by this name.
dealt_with = processed


@_step
def ingest(work: Workspace) -> Ingested:
    """Read the data and keep it as a version.

    Raises
    ------
    DataLoadError
        The table cannot be read.
    """
    data = work.settings.data
    try:
        frame = read_table(data.path, data.text_columns, work.config.missing_markers)
        version = work.versions.register(mixed_as_texts(frame))
    except DataValidationError as error:
        raise DataLoadError(f"data: {error}") from error
    done = {record["data_version"] for record in work.monitor().records()} | {version}
    older = [other for other in reversed(work.versions.list_versions()) if other not in done]
    return Ingested(data_version=version, n_rows=len(frame), pending=[*older, version])


@_step
def check_quality(work: Workspace, data_version: str) -> QualityReport:
    """Hold a version against the schema of the champion; see `validate_data_quality`.

    The report is kept, and the later steps read the rows that it leaves.
    """
    version = alias_version(work.name, CHAMPION)
    schema = None
    if version is not None:
        champion = work.model(version)
        work.require_horizon(champion)
        schema = champion.info.get("quality")
    asked = work.settings.quality.model_dump() | dict(work.task.quality_checks)
    frame, _ = work.versions.load(data_version)
    rows = work.task.observed(frame)
    report = validate_data_quality(
        frame.iloc[rows].reset_index(drop=True),
        "ingest",
        schema=schema,
        time=work.roles.time,
        markers=work.config.missing_markers,
        **asked,
    )
    report["removed_rows"] = rows[report["removed_rows"]].tolist()
    work.keep_report(data_version, report)
    return report


@_step
def check_monitor(work: Workspace, data_version: str) -> Decision:
    """Ask whether a retrain is due: no model yet, too low an accuracy, drift."""
    version = alias_version(work.name, CHAMPION)
    if version is None:
        first = work.monitor().decide(None, None, no_model_yet=True)
        return Decision(
            retrain=True,
            reasons=list(first.reasons),
            waits=False,
            drift=None,
            message="there is no model yet",
            **figures_of({}),
        )
    champion = work.model(version)
    seen = observed(work, champion, version, data_version)
    batch_id = work.register(champion, data_version)
    figures = figures_on(champion, work.out_of_sample(champion, batch_id))
    monitor = work.monitor(champion)
    if not monitor.drift_path.exists():  # the model was trained by somebody else
        work.remember_means(champion, batch_id)
    shown = work.feature_means(champion, batch_id)
    decision = monitor.decide(score(figures), shown.means, n_samples=shown.n_samples)
    own, wanted = champion.model_type, work.settings.training.model_type
    other = "" if own == wanted else f"training.model_type is {wanted}, the champion's is {own}"
    # The cooldown after a retrain holds for the monitor's reasons as for the detectors'.
    due = () if seen.pause else decision.reasons
    reasons = [*due, *filter(None, [seen.reason, other])]
    paused = f" ({'; '.join(decision.reasons)})" if seen.pause and decision.reasons else ""
    message = seen.message + paused
    obstacle = obstacle_to_learning(work.report(data_version), seen.n_fresh)
    if not other:  # labels on which a challenger has lost would say the same again
        obstacle = obstacle or seen.waits_for
    waits = bool(reasons and obstacle)
    if waits:
        message = f"a retrain is due ({'; '.join(reasons)}) and waits for {obstacle}"
    return Decision(
        retrain=bool(reasons) and not waits,
        reasons=[] if waits else reasons,
        waits=waits,
        drift=decision.drift,
        message=message,
        **figures,
    )


@_step
def train(work: Workspace, data_version: str, reasons: Sequence[str]) -> Trained:
    """Train the first model, or a challenger for the champion."""
    why = "; ".join(reasons)
    version = alias_version(work.name, CHAMPION)
    try:
        if version is None:
            trained = first_model(work, data_version, why)
        else:
            trained = challenger(work, work.model(version), version, why)
    except RetrainingError as error:
        return Trained(
            retrained=False,
            promoted=False,
            model_version=None,
            refused=str(error),
            compared=None,
            message=f"a retrain was due ({why}), but {error}",
        )
    new = work.model(str(trained["model_version"]))
    serving = new if trained["promoted"] else work.model(str(version))
    work.remember_means(new, work.register(serving, data_version))
    return trained


@_step
def evaluate(
    work: Workspace, data_version: str, compared: Mapping[str, Any] | None = None
) -> Evaluated:
    """Evaluate the serving model on the rows of a version that it was not trained on.

    A model that was promoted has learned from all of them; then the figures are those that it was
    promoted by, of the fit that had not seen them.

    Parameters
    ----------
    compared : mapping, optional
        Of the step `train`.
    """
    version = alias_version(work.name, CHAMPION)
    if version is None:
        raise MLflowIntegrationError(
            f"'{work.name}' has no @{CHAMPION}; run the loop from its start"
        )
    champion = work.model(version)
    cases = work.out_of_sample(champion, work.register(champion, data_version))
    figures, n_rows = figures_on(champion, cases), len(cases)
    if compared is not None and not n_rows:
        figures, n_rows = figures_of(compared), int(compared["n_rows"])
    status, failures, open_questions = None, list[str](), list[str]()
    monitoring = work.settings.monitoring
    floor = monitoring.accuracy_min_threshold
    asked = bool(monitoring.thresholds) or floor is not None
    if n_rows and asked:
        missed = missed_thresholds(work, figures, cases, version) if monitoring.thresholds else []
        reached, name = score(figures), champion.score_name
        failures = [*missed, *below_floor(floor, reached, name)]
        open_questions = undefined_floor(floor, reached, name, n_rows)
        if failures or not open_questions:
            status = tag_validation(work.name, version, failures)
    has_target = work.has_target(data_version)
    if not has_target:
        open_questions = [work.target_gone(champion, data_version)]
    elif asked and not n_rows:
        open_questions = work.without_outcomes(data_version)
    return Evaluated(
        model_version=version,
        n_rows=n_rows,
        has_target=has_target,
        not_evaluated=open_questions,
        **figures,
        validation_status=status,
        failures=failures,
    )


@_step
def record(work: Workspace, data_version: str, outcome: Outcome) -> Summary:
    """Write down that a version was processed: in the run, and in the monitor's metrics."""
    empty = empty_summary(data_version, _model_uri(work), "done")
    empty["model_version"] = alias_version(work.name, CHAMPION)
    summary = summary_of(outcome, empty)
    quality = {f"quality_{key}": v for key, v in outcome["check_quality"]["metrics"].items()}
    tags: dict[str, str | None] = {"phase": "pipeline", "status": summary["status"]}
    tags |= {"data_version": data_version, "reasons": "; ".join(summary["reasons"])}
    tags |= {"hospital_profile_id": work.config.hospital_profile_id}
    experiments = ExperimentManager(work.config.experiment_name)
    with experiments.active_or_new("pipeline", tags):
        experiments.log_metrics(quality | cast("dict[str, float]", figures_of(summary)))
    work.monitor().record_metrics(
        score(summary),
        data_version,
        summary["model_version"],
        {"summary": summary, "settings": work.digest},
    )
    return summary


_STEP: dict[str, Callable[..., Any]] = {
    "check_quality": check_quality,
    "check_monitor": check_monitor,
    "train": train,
    "evaluate": evaluate,
    "record": record,
}


def _model_uri(work: Workspace) -> str:
    return f"models:/{work.name}@{CHAMPION}"


def _deferred(work: Workspace, data_version: str) -> Summary:
    summary = empty_summary(data_version, _model_uri(work), "deferred")
    summary["message"] = (
        f"MLflow does not answer; data version {data_version} is kept, nothing was changed, "
        "and the next call goes on from here"
    )
    return summary
