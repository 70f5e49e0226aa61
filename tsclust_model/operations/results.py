"""What the steps of the loop return, as plain data that a container hands to the next one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict, cast

from tsclust_model.data.quality import QualityProblem, QualityReport


class Figures(TypedDict):
    """What the loop says of the serving model; None where it has no such figure."""

    accuracy: float | None
    rmse: float | None
    mae: float | None
    r2: float | None
    log_loss: float | None
    auc: float | None
    mase: float | None
    wape: float | None
    rmse_naive: float | None
    mae_naive: float | None
    rmse_last_value: float | None
    mae_last_value: float | None
    log_loss_naive: float | None
    accuracy_naive: float | None
    accuracy_last_value: float | None


FIGURES = tuple(Figures.__annotations__)


def figures_of(report: Mapping[str, Any]) -> Figures:
    """The `FIGURES` among those of an evaluation; all None of an empty one."""
    return cast(Figures, {name: report.get(name) for name in FIGURES})


def score(figures: Mapping[str, Any]) -> float | None:
    """What `accuracy_min_threshold` is about: accuracy, R², or 1 - WAPE, as `FIGURES` has it."""
    if figures["wape"] is not None:
        return 1 - float(figures["wape"])
    value = figures["r2"] if figures["accuracy"] is None else figures["accuracy"]
    return None if value is None else float(value)


class Ingested(TypedDict):
    """Of `ingest`; ``pending`` are the versions not processed yet, oldest first, this one last."""

    data_version: str
    n_rows: int
    pending: list[str]


class Decision(Figures):
    """Of `check_monitor`; with ``waits`` a retrain is due, but there is nothing to learn from."""

    retrain: bool
    reasons: list[str]
    waits: bool
    drift: float | None
    message: str


class Trained(TypedDict):
    """Of `train`; ``model_version`` is the new one, or ``refused`` says why there is none.

    ``compared`` are figures of what serves now on the rows it was compared on, before it learned
    from them too; None where it has not.
    """

    retrained: bool
    promoted: bool
    model_version: str | None
    refused: str | None
    compared: dict[str, float | None] | None
    message: str


class Evaluated(Figures):
    """Of `evaluate`.

    ``n_rows`` are labelled ones, or series; ``validation_status`` is ``PASSED``, ``FAILED``, or
    None without thresholds or rows, or where the floor's score is undefined and nothing else is
    missed; ``not_evaluated`` says what was asked for and could not be evaluated.
    """

    model_version: str
    n_rows: int
    has_target: bool
    not_evaluated: list[str]
    validation_status: str | None
    failures: list[str]


class QualitySummary(TypedDict):
    """What a summary says of the quality of the data; see `QualityReport`."""

    decision: str
    problems: list[QualityProblem]
    removed: dict[str, int]
    n_rows: int
    n_kept: int


class Summary(Figures):
    """Of `record` and of `run_pipeline`, which adds ``caught_up`` and ``durations``."""

    status: str
    data_version: str
    model_version: str | None
    model_uri: str
    retrained: bool
    promoted: bool
    reasons: list[str]
    validation_status: str | None
    failures: list[str]
    not_evaluated: list[str]
    quality: QualitySummary | None
    message: str
    caught_up: NotRequired[list[str]]
    durations: NotRequired[dict[str, float]]


class Outcome(TypedDict, total=False):
    """The results of the steps that were taken, by their names."""

    check_quality: QualityReport
    check_monitor: Decision
    train: Trained
    evaluate: Evaluated
    record: Summary


def empty_summary(data_version: str, model_uri: str, status: str) -> Summary:
    """The summary of a version of which nothing is known."""
    return Summary(
        status=status,
        data_version=data_version,
        model_version=None,
        model_uri=model_uri,
        retrained=False,
        promoted=False,
        reasons=[],
        validation_status=None,
        failures=[],
        not_evaluated=[],
        quality=None,
        message="",
        **figures_of({}),
    )


def summary_of(outcome: Outcome, summary: Summary) -> Summary:
    """Fill the empty summary of a version with what its steps found."""
    quality = outcome["check_quality"]
    summary["quality"] = {
        "decision": quality["decision"],
        "problems": quality["problems"],
        "removed": quality["removed"],
        "n_rows": quality["n_rows"],
        "n_kept": quality["n_kept"],
    }
    if quality["decision"] == "block":
        worst = [item["message"] for item in quality["problems"] if item["severity"] == "block"]
        summary["status"] = "blocked"
        summary["message"] = (
            f"data version {summary['data_version']} is blocked: {'; '.join(worst)}"
        )
        return summary
    decision, training = outcome["check_monitor"], outcome.get("train")
    evaluated = outcome["evaluate"]
    message = decision["message"] if decision["waits"] else f"nothing is due: {decision['message']}"
    if training is not None:
        message = training["message"]
        summary["retrained"], summary["promoted"] = training["retrained"], training["promoted"]
    if training is not None and training["refused"] is not None:
        summary["status"] = "refused"
    elif not evaluated["has_target"]:
        summary["status"] = "no_target"
    elif evaluated["failures"]:
        summary["status"] = "below_threshold"
        message += f"; what serves misses its thresholds: {'; '.join(evaluated['failures'])}"
    summary.update(figures_of(evaluated))
    summary["validation_status"] = evaluated["validation_status"]
    summary["failures"] = evaluated["failures"]
    summary["not_evaluated"] = evaluated["not_evaluated"]
    summary["reasons"] = list(decision["reasons"])
    summary["message"] = "; ".join([message, *evaluated["not_evaluated"]])
    return summary
