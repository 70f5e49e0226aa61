"""The operations loop: what a scheduler calls with one YAML.

    ingest -> check_quality -> check_monitor -> train -> evaluate -> record

Each step is a function of the path of the YAML and plain data, and keeps what it makes on disk or
in MLflow, so that the steps may run in one process (`run_pipeline`) or one container each. A
version of the data is dealt with once `record` has written it down; until then the next call takes
it up.
"""

from __future__ import annotations

import functools
import glob
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from tsclust_model.data.quality import SCHEMA_CHECKS, validate_data_quality
from tsclust_model.data.tables import mixed_as_texts, read_table
from tsclust_model.errors import (
    DataLoadError,
    DataValidationError,
    MLflowIntegrationError,
    PipelineError,
    RetrainingError,
)
from tsclust_model.mlflow_integration.registry import CHAMPION, PREVIOUS, alias_version, answers
from tsclust_model.mlflow_integration.runs import ExperimentManager, error_handler
from tsclust_model.mlflow_integration.thresholds import (
    below_floor,
    failed_thresholds,
    tag_validation,
    undefined_floor,
)
from tsclust_model.models.base import LIGHTGBM, MODEL_TYPE_TAG
from tsclust_model.operations.logs import logging_to
from tsclust_model.operations.maintenance import Observation, maintain, observe
from tsclust_model.operations.settings import LoopSettings, load_settings, mlflow_variables
from tsclust_model.operations.workspace import (
    FIGURES,
    Model,
    Unseen,
    Workspace,
    figures,
    score,
    score_name,
)
from tsclust_model.rows.baseline import Baseline
from tsclust_model.series.model import SeriesGeneration
from tsclust_model.series.panel import HeldBack
from tsclust_model.training.baselines import BaselineTraining, retrain_baseline, train_baseline
from tsclust_model.training.challenge import Retraining, labelled_window, retrain_model, waits_for
from tsclust_model.training.lock import retrain_lock
from tsclust_model.training.train import train_table

GOOD = ("done", "unchanged")
"""Statuses with which nothing is wrong."""

PROCESSED = ("done", "below_threshold", "no_target")
"""Statuses of data that went through all steps; the same data need not do so again."""

STEPS = ("ingest", "check_quality", "check_monitor", "train", "evaluate", "record")

_CLOSING = {"step": "pipeline", "closing": True}

OnStep = Callable[[str, Mapping[str, Any]], None]

_Step = Callable[..., Any]


def _step(function: _Step) -> _Step:
    """A step as it is called: with the path of the YAML in the place of its workspace."""

    @functools.wraps(function)
    def run(config_path: str | Path, *arguments: Any) -> dict[str, Any]:
        settings = _load_config(config_path)
        with mlflow_variables(settings.mlflow):
            return function(Workspace(settings), *arguments)

    return run


def run_pipeline(
    config_path: str | Path, *, on_step: OnStep | None = None, closing_line: bool = True
) -> dict[str, Any]:
    """Ingest, check, retrain if needed, evaluate and record; safe to call at any time.

    What each step did is logged as the section ``logging`` says (``console: off`` for silence).

    Parameters
    ----------
    config_path : path
        YAML of `operations.settings.LoopSettings`; the environment is laid over it. A relative
        ``data.path`` is found from the working folder, or else from the folder of the YAML.
    on_step : callable, optional
        Called with the name and the result of each step as it ends.
    closing_line : bool
        Whether the lines for people end with the message (or the error); False for a caller who
        prints it. JSON lines have it in any case.

    Returns
    -------
    dict
        ``status``: ``done``, ``below_threshold`` (what serves misses a threshold or the floor, even
        after a retrain), ``no_target`` (the target's column has vanished, so that nothing can be
        evaluated), ``unchanged`` (this data was dealt with before, and nothing was missing),
        ``blocked`` (by its quality), ``refused`` (a retrain was due and could not be done) or
        ``deferred`` (MLflow does not answer: the data is kept, and the next call goes on).
        ``data_version``,
        ``model_version`` and ``model_uri`` (what serves), ``retrained``, ``promoted``, ``reasons``
        (list), ``accuracy``, ``rmse``, ``mae``, ``r2``, ``log_loss``, ``auc``, ``mase`` and
        ``wape`` (None where undefined), ``validation_status``, ``failures`` (thresholds that are
        not met), ``not_evaluated`` (what was asked for and could not be evaluated, and why),
        ``quality``, ``caught_up`` (versions that an earlier call had left),
        ``durations`` {step: seconds} and ``message``.

    Raises
    ------
    FileNotFoundError
        There is no such YAML.
    PipelineError
        The settings or the data cannot be used, or a step failed; the champion is untouched.
    """
    settings = _load_config(config_path)
    with _setup_logging(settings, closing_line) as log:
        ingested: dict[str, Any] = {}

        def told(name: str, result: Mapping[str, Any]) -> None:
            if name == "ingest":
                ingested.update(result)
            own = name == "record" and result["data_version"] == ingested["data_version"]
            _log_step(log, name, result, closing=own)
            if on_step is not None:
                on_step(name, result)

        try:
            summary = _run(config_path, settings, told)
        except PipelineError as error:
            details = {"error": type(error).__name__}
            log.error("%s", error, extra=_CLOSING | {"details": details})
            raise
        level = logging.INFO if is_good(summary) else logging.ERROR
        log.log(level, "%s", summary["message"], extra=_CLOSING | {"details": summary})
    return summary


def is_good(summary: Mapping[str, Any]) -> bool:
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


@contextmanager
def _setup_logging(settings: LoopSettings, closing_line: bool) -> Iterator[logging.Logger]:
    """The logger that the section ``logging`` asks for, while the block runs."""
    with logging_to(settings.logging, closing_line) as log:
        yield log


def _log_step(log: logging.Logger, name: str, result: Mapping[str, Any], *, closing: bool) -> None:
    """A record of a step's result, without the long lists in it."""
    details = {key: v for key, v in result.items() if key not in ("removed_rows", "quality")}
    extra = {"step": name, "details": details, "closing": closing}
    log.info("%s", result.get("message", "done"), extra=extra)


def _run(config_path: str | Path, settings: LoopSettings, on_step: OnStep) -> dict[str, Any]:
    """All steps for the versions that wait, this data's last."""
    work = Workspace(settings)
    durations: dict[str, float] = {}

    def took(name: str, started: float, result: Mapping[str, Any]) -> None:
        durations[name] = durations.get(name, 0.0) + time.perf_counter() - started
        on_step(name, result)

    def handle(version: str) -> dict[str, Any]:
        """One version through all steps, in a run of its own."""
        outcome: dict[str, Any] = {}
        experiments = ExperimentManager(work.config.experiment_name)
        with experiments.run("pipeline", {"phase": "pipeline", "data_version": version}):
            for name in STEPS[1:]:
                started = time.perf_counter()
                outcome = advance(name, config_path, version, outcome)
                if name in outcome:
                    took(name, started, outcome[name])
        return dict(outcome["record"])

    with mlflow_variables(settings.mlflow), _only_one(work):
        started = time.perf_counter()
        with error_handler("ingest"):
            found = ingest(config_path)
        took("ingest", started, found)
        current = found["data_version"]
        try:
            done = dealt_with(config_path, current)
            left = found["pending"] if done is None else found["pending"][:-1]
            summaries = [handle(version) for version in left]
            summary = done or summaries.pop()
        except MLflowIntegrationError:
            if answers():
                raise
            summary, summaries = _deferred(work, current), []
    caught_up = [item["data_version"] for item in summaries]
    return summary | {"caught_up": caught_up, "durations": durations}


def _only_one(work: Workspace) -> AbstractContextManager[None]:
    return retrain_lock(work.folder / ".loop.lock", "run of this loop is active")


def advance(
    step: str, config_path: str | Path, data_version: str, outcome: Mapping[str, Any]
) -> dict[str, Any]:
    """Take one of the `STEPS` after ``ingest``, if what the steps before it found calls for it.

    Parameters
    ----------
    step : str
    config_path : path
    data_version : str
    outcome : mapping
        The results of the steps that were taken, by their names; empty before the first.

    Returns
    -------
    dict
        `outcome`, and the result of this step, unless there was nothing to do: blocked data is only
        recorded, and without a reason nothing is trained.
    """
    blocked = "check_quality" in outcome and outcome["check_quality"]["decision"] == "block"
    if blocked and step != "record":
        return dict(outcome)
    arguments: list[Any] = []
    if step == "train":
        if not outcome["check_monitor"]["retrain"]:
            return dict(outcome)
        arguments = [outcome["check_monitor"]["reasons"]]
    elif step == "evaluate":
        arguments = [outcome.get("train", {}).get("compared")]
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
    return dict(outcome) | {step: result}


@_step
def dealt_with(work: Workspace, data_version: str) -> dict[str, Any] | None:
    """What to say of a version that was recorded under these settings, with the same champion."""
    found = [r for r in work.monitor().records() if r["data_version"] == data_version]
    if not found or "summary" not in found[-1] or found[-1]["settings"] != work.digest:
        return None
    last, when = found[-1]["summary"], found[-1]["recorded_at"]
    if last["status"] not in PROCESSED or last["model_version"] != alias_version(
        work.name, CHAMPION
    ):
        return None
    message = f"nothing to do: data version {data_version} was dealt with at {when}"
    left = last.get("not_evaluated", [])
    if last["status"] != "done":
        why = "; ".join(last["failures"] or left) or "no outcomes"
        message += f", and is still {last['status']}: {why}"
    elif left:
        message += f"; {'; '.join(left)}"
    return dict(last) | {
        "status": "unchanged" if last["status"] == "done" else last["status"],
        "retrained": False,
        "promoted": False,
        "reasons": [],
        "message": message,
    }


@_step
def ingest(work: Workspace) -> dict[str, Any]:
    """Read the data and keep it as a version.

    Returns
    -------
    dict
        ``data_version``, ``n_rows``, and ``pending``: the versions that are not dealt with yet,
        oldest first, this one last.

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
    known = {record["data_version"] for record in work.monitor().records()}
    older = reversed(work.versions.list_versions())
    left = [found for found in older if found not in known and found != version]
    return {"data_version": version, "n_rows": len(frame), "pending": [*left, version]}


@_step
def check_quality(work: Workspace, data_version: str) -> dict[str, Any]:
    """Hold a version against the schema of the champion; see `validate_data_quality`.

    The report is kept, and the later steps read the rows that it leaves.
    """
    version = alias_version(work.name, CHAMPION)
    schema = None
    if version is not None:
        champion = work.model(version)
        work.require_horizon(champion)
        schema = champion.info.get("quality")
    data, asked = work.settings.data, work.settings.quality.model_dump()
    if data.horizon and work.config.gap_policy == "error":
        asked["max_removed_share"] = 0.0  # without a row, its series has a gap
    frame, _ = work.versions.load(data_version)
    report = validate_data_quality(
        frame,
        "ingest",
        schema=schema,
        time=data.time,
        # Copies count once in series, and what is missing there is a gap, or yet to come.
        duplicates=bool(data.time or data.id) and not data.horizon,
        allow_missing=bool(data.horizon) or work.config.missing_values == "impute",
        markers=work.config.missing_markers,
        **asked,
    )
    work.keep_report(data_version, report)
    return dict(report)


@_step
def check_monitor(work: Workspace, data_version: str) -> dict[str, Any]:
    """Ask whether a retrain is due: no model yet, too low an accuracy, drift.

    Returns
    -------
    dict
        ``retrain``, ``reasons`` (list), ``waits`` (a retrain is due, but nothing to learn from),
        ``drift``, ``message`` and the `FIGURES` of the champion on these rows.
    """
    version = alias_version(work.name, CHAMPION)
    if version is None:
        first = work.monitor().decide(None, None, no_model_yet=True)
        found: dict[str, Any] = dict.fromkeys(FIGURES)
        return _decision(first.reasons, "", None, "there is no model yet") | found
    champion = work.model(version)
    seen = _observed(work, champion, version, data_version)
    found = figures(champion, work.unseen(champion, data_version))
    monitor = work.monitor(champion)
    if not monitor.drift_path.exists():  # the model was trained by somebody else
        work.remember_means(champion, data_version)
    shown = work.feature_means(champion, data_version)
    decision = monitor.decide(score(found), shown.means, n_samples=shown.n_samples)
    own, wanted = _model_type(champion), work.settings.training.model_type
    other = "" if own == wanted else f"training.model_type is {wanted}, the champion's is {own}"
    # The cooldown after a retrain holds for the monitor's reasons as for the detectors'.
    due = () if seen.pause else decision.reasons
    reasons = [*due, *filter(None, [seen.reason, other])]
    held = f" ({'; '.join(decision.reasons)})" if seen.pause and decision.reasons else ""
    obstacle = _obstacle(work.report(data_version), seen.n_fresh)
    if not other:  # labels on which a challenger has lost would say the same again
        obstacle = obstacle or seen.waits_for
    return _decision(reasons, obstacle, decision.drift, seen.message + held) | found


@_step
def train(work: Workspace, data_version: str, reasons: Sequence[str]) -> dict[str, Any]:
    """Train the first model, or a challenger for the champion.

    Returns
    -------
    dict
        ``retrained``, ``promoted``, ``model_version`` (the new one), ``refused`` (why there is
        none), ``compared`` (figures of what serves now on the rows it was compared on, before it
        learned from them too; None where it has not) and ``message``.
    """
    why = "; ".join(reasons)
    version, compared = alias_version(work.name, CHAMPION), None
    try:
        if version is None:
            new, promoted, message = _first(work, data_version, why)
        else:
            new, promoted, message, compared = _next(work, work.model(version), version, why)
    except RetrainingError as error:
        return {
            "retrained": False,
            "promoted": False,
            "model_version": None,
            "refused": str(error),
            "compared": None,
            "message": f"a retrain was due ({why}), but {error}",
        }
    work.remember_means(work.model(new), data_version)
    return {
        "retrained": True,
        "promoted": promoted,
        "model_version": new,
        "refused": None,
        "compared": compared,
        "message": message,
    }


@_step
def evaluate(
    work: Workspace, data_version: str, compared: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Judge the serving model on the rows of a version that it was not trained on.

    A model that was promoted has learned from all of them; then the figures are those that it was
    promoted by, of the fit that had not seen them.

    Parameters
    ----------
    compared : mapping, optional
        Of the step `train`.

    Returns
    -------
    dict
        ``model_version``, ``n_rows`` (labelled ones, or series), the `FIGURES`,
        ``has_target`` (whether the version has its column), ``validation_status`` (``PASSED``,
        ``FAILED``, or None without thresholds or rows, or where the floor's score is undefined and
        nothing else is missed), ``failures`` and ``not_evaluated`` (sentences on what was asked
        for and could not be evaluated).
    """
    version = alias_version(work.name, CHAMPION)
    if version is None:
        raise MLflowIntegrationError(
            f"'{work.name}' has no @{CHAMPION}; run the loop from its start"
        )
    champion = work.model(version)
    rows = work.unseen(champion, data_version)
    found, n_rows = figures(champion, rows), len(rows)
    if compared is not None and not n_rows:
        found = {name: compared.get(name) for name in FIGURES}
        n_rows = int(compared["n_rows"])
    status, failures, open_questions = None, [], []
    monitoring = work.settings.monitoring
    floor = monitoring.accuracy_min_threshold
    asked = bool(monitoring.thresholds) or floor is not None
    if n_rows and asked:
        missed = _failures(work, found, rows, version) if monitoring.thresholds else []
        reached, name = score(found), score_name(champion)
        failures = [*missed, *below_floor(floor, reached, name)]
        open_questions = undefined_floor(floor, reached, name, n_rows)
        if failures or not open_questions:
            status = tag_validation(work.name, version, failures)
    has_target = work.has_target(data_version)
    if not has_target:
        open_questions = [work.target_gone(champion, data_version)]
    elif asked and not n_rows:
        open_questions = work.without_outcomes(data_version)
    return {
        "model_version": version,
        "n_rows": n_rows,
        "has_target": has_target,
        "not_evaluated": open_questions,
        **found,
        "validation_status": status,
        "failures": failures,
    }


@_step
def record(work: Workspace, data_version: str, outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Write down that a version is dealt with: in the run, and in the monitor's metrics.

    Parameters
    ----------
    outcome : mapping
        What the steps returned, by their names (see `advance`).

    Returns
    -------
    dict
        The summary of `run_pipeline`, without durations.
    """
    summary = _summary(work, data_version, outcome)
    quality = {f"quality_{key}": v for key, v in outcome["check_quality"]["metrics"].items()}
    tags = {
        "phase": "pipeline",
        "status": summary["status"],
        "data_version": data_version,
        "reasons": "; ".join(summary["reasons"]),
        "hospital_profile_id": work.config.hospital_profile_id,
    }
    experiments = ExperimentManager(work.config.experiment_name)
    with experiments.active_or_new("pipeline", tags):
        experiments.log_metrics(quality | {key: summary[key] for key in FIGURES})
    work.monitor().record_metrics(
        score(summary),
        data_version,
        summary["model_version"],
        {"summary": summary, "settings": work.digest},
    )
    return summary


_STEP: dict[str, _Step] = {
    "check_quality": check_quality,
    "check_monitor": check_monitor,
    "train": train,
    "evaluate": evaluate,
    "record": record,
}


def _observed(work: Workspace, champion: Model, version: str, data_version: str) -> Observation:
    """What the champion's own detectors say; a baseline has none."""
    frame = work.rows(data_version)
    if not isinstance(champion, Baseline):
        return observe(work.name, frame, work.config)
    work.unseen(champion, data_version)  # the rows join the history
    window = labelled_window(champion, work.storage.history, work.config)
    n_fresh = int(window.outside(champion.info["trained_on"]).sum())
    wanted = waits_for(champion, version, work.name, work.config)
    return Observation(f"{len(frame)} rows and no drift", "", n_fresh, waits_for=wanted)


def _model_type(model: Model) -> str:
    return str(model.info[MODEL_TYPE_TAG]) if isinstance(model, Baseline) else LIGHTGBM


def _first(work: Workspace, data_version: str, why: str) -> tuple[str, bool, str]:
    """Train the first model: its version, that it serves, and a message."""
    training, frame = work.settings.training, work.rows(data_version)
    shared: dict[str, Any] = {
        "source": work.settings.data.path,
        "holdout": training.holdout,
        "model_name": work.name,
        "trigger": why,
    }
    if training.model_type == LIGHTGBM:
        version = train_table(frame, work.roles, work.config, **shared).version
    else:
        kind = (training.model_type, training.params)
        version = train_baseline(frame, work.roles, work.config, *kind, **shared).version
    return version, True, f"trained ({why}): version {version}"


def _next(
    work: Workspace, champion: Model, version: str, why: str
) -> tuple[str, bool, str, dict[str, Any] | None]:
    """Train a challenger: its version, whether it serves, a message, and see `train`."""
    training, config = work.settings.training, work.config
    done: Retraining | BaselineTraining | None
    if training.model_type != LIGHTGBM:
        assert not isinstance(champion, SeriesGeneration)  # the settings have been checked
        kind = (training.model_type, training.params)
        done = retrain_baseline(
            champion, version, work.name, config, *kind, why, promote=training.promote
        )
    elif isinstance(champion, Baseline):
        done = retrain_model(champion, version, work.name, config, why, promote=training.promote)
    else:
        done = maintain(work.name, config=config, reason=why, promote=training.promote).retraining
    assert done is not None
    assert done.comparison is not None
    outcome = "is @champion now" if done.promoted else "stays @challenger"
    message = f"retrained ({why}): version {done.version} {outcome}; {done.comparison.reason}"
    return done.version, done.promoted, message, _compared(done) if done.promoted else None


def _compared(done: Retraining | BaselineTraining) -> dict[str, Any]:
    """Figures of a new model on the rows it was compared on, before it was fitted on them."""
    held = done.held if isinstance(done, BaselineTraining) else done.report["holdout"]
    return {name: held[name] for name in ("n_rows", *FIGURES) if name in held}


def _failures(work: Workspace, found: Mapping[str, Any], rows: Unseen, version: str) -> list[str]:
    """Thresholds that are not met; changes are against ``@previous``, if there is one."""
    wanted = {
        name: fields.model_dump(exclude_none=True)
        for name, fields in work.settings.monitoring.thresholds.items()
    }
    before = alias_version(work.name, PREVIOUS)
    if before is not None and before != version:
        previous = work.model(before)
        if previous.roles.horizon == work.settings.data.horizon:
            both = _neither_fitted(work, previous, rows) if len(rows) else rows
            if len(both):
                now = found if len(both) == len(rows) else figures(work.model(version), both)
                return failed_thresholds(wanted, now, figures(previous, both))
    changes = ("min_absolute_change", "min_relative_change")
    alone = {
        name: {key: value for key, value in fields.items() if key not in changes}
        for name, fields in wanted.items()
        if "threshold" in fields
    }
    return failed_thresholds(alone, found)


def _neither_fitted(work: Workspace, previous: Model, rows: Unseen) -> Unseen:
    """Those of the rows that another model was not fitted on either."""
    if isinstance(rows, HeldBack):
        mask = previous.fitted_part(rows) if isinstance(previous, SeriesGeneration) else None
        return rows if mask is None else rows.only(~mask)
    assert not isinstance(previous, SeriesGeneration)
    return work.without_fitted(previous, rows)


def _obstacle(report: Mapping[str, Any], n_fresh: int) -> str:
    """What a retrain has to wait for; empty for nothing."""
    changed = [p["message"] for p in report["problems"] if p["check"] in SCHEMA_CHECKS]
    if changed:  # with quality.mode warn such data goes on, but no champion learns from it
        return f"data of the known schema: {'; '.join(changed)}"
    return "" if n_fresh else "labelled rows that the champion was not trained on"


def _decision(
    reasons: Sequence[str], waits_for: str, drift: float | None, message: str
) -> dict[str, Any]:
    waits = bool(reasons and waits_for)
    if waits:
        message = f"a retrain is due ({'; '.join(reasons)}) and waits for {waits_for}"
    return {
        "retrain": bool(reasons) and not waits,
        "reasons": [] if waits else list(reasons),
        "waits": waits,
        "drift": drift,
        "message": message,
    }


def _empty_summary(work: Workspace, data_version: str, status: str) -> dict[str, Any]:
    return {
        "status": status,
        "data_version": data_version,
        "model_version": None,
        "model_uri": f"models:/{work.name}@{CHAMPION}",
        "retrained": False,
        "promoted": False,
        "reasons": [],
        **dict.fromkeys(FIGURES),
        "validation_status": None,
        "failures": [],
        "not_evaluated": [],
        "quality": None,
    }


def _summary(work: Workspace, data_version: str, outcome: Mapping[str, Any]) -> dict[str, Any]:
    quality = outcome["check_quality"]
    summary = _empty_summary(work, data_version, "done") | {
        "model_version": alias_version(work.name, CHAMPION),
        "quality": {
            key: quality[key] for key in ("decision", "problems", "removed", "n_rows", "n_kept")
        },
    }
    if quality["decision"] == "block":
        worst = [item["message"] for item in quality["problems"] if item["severity"] == "block"]
        message = f"data version {data_version} is blocked: {'; '.join(worst)}"
        return summary | {"status": "blocked", "message": message}
    decision, training = outcome["check_monitor"], outcome.get("train")
    message = decision["message"] if decision["waits"] else f"nothing is due: {decision['message']}"
    if training is not None:
        message = training["message"]
        summary |= {key: training[key] for key in ("retrained", "promoted")}
        if training["refused"] is not None:
            summary["status"] = "refused"
    shown = (*FIGURES, "validation_status", "failures", "not_evaluated")
    judged = {key: outcome["evaluate"][key] for key in shown}
    if summary["status"] == "done" and not outcome["evaluate"]["has_target"]:
        summary["status"] = "no_target"
    elif summary["status"] == "done" and judged["failures"]:
        summary["status"] = "below_threshold"
        message += f"; what serves misses its thresholds: {'; '.join(judged['failures'])}"
    message = "; ".join([message, *judged["not_evaluated"]])
    return summary | judged | {"reasons": list(decision["reasons"]), "message": message}


def _deferred(work: Workspace, data_version: str) -> dict[str, Any]:
    return _empty_summary(work, data_version, "deferred") | {
        "message": (
            f"MLflow does not answer; data version {data_version} is kept, nothing was changed, "
            "and the next call goes on from here"
        )
    }
