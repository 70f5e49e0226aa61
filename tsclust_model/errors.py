"""What can go wrong, as one tree.

::

    PipelineError
    ├── ConfigurationError      a parameter that is unknown or impossible
    ├── DataValidationError     a table or array that cannot be used as it is
    ├── NotFittedError          something was asked of a part before ``fit``
    ├── ModelTrainingError      clustering or a model could not be fitted
    ├── PredictionError         fitted, but these rows cannot be predicted
    ├── MLflowIntegrationError  a store, a registry or a logged model refused
    ├── RetrainingError         the retraining loop could not do its work
    ├── DataLoadError           the table of an analysis or of the loop cannot be read
    ├── PreprocessingError      its columns cannot be cleaned, scaled or reduced as asked
    ├── ClusteringError         an algorithm refuses its parameters or these rows
    └── EvaluationError         a clustering cannot be evaluated as asked

Every message is one line: the thing, and what to do about it. No message carries a value of a
row: rows are patients.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any


class PipelineError(Exception):
    """Base class of the errors of this package."""


class ConfigurationError(PipelineError):
    """A configuration key is unknown, or its value is invalid."""


class DataValidationError(PipelineError):
    """The data cannot be used as it is; the message says what to change."""


class ModelTrainingError(PipelineError):
    """Clustering or a model could not be fitted."""


class PredictionError(PipelineError):
    """A fitted model cannot predict these rows."""


class MLflowIntegrationError(PipelineError):
    """An operation of a tracking store, the registry or a logged model failed."""


class RetrainingError(PipelineError):
    """The retraining loop could not do its work."""


class DataLoadError(PipelineError):
    """The table of an analysis or of the loop cannot be read, or lacks a column."""


class PreprocessingError(PipelineError):
    """The columns of an analysis cannot be cleaned, scaled or reduced as requested."""


class ClusteringError(PipelineError):
    """An algorithm refuses its parameters, or these rows."""


class EvaluationError(PipelineError):
    """A clustering cannot be evaluated as requested."""


if TYPE_CHECKING:
    from sklearn.exceptions import NotFittedError as _NotFitted

    class NotFittedError(PipelineError, _NotFitted): ...


def __getattr__(name: str) -> Any:
    """`NotFittedError` is one of scikit-learn's as well, which takes a second to import."""
    if name != "NotFittedError":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    import sklearn.exceptions

    members = {"__doc__": "``fit`` has not been called yet.", "__module__": __name__}
    return globals().setdefault(
        name, type(name, (PipelineError, sklearn.exceptions.NotFittedError), members)
    )


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is spelled almost like `name`, or None."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def suggestion(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for a name that is close to a known one, else nothing."""
    other = closest(name, known)
    return "" if other is None else f" (did you mean '{other}'?)"


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """``1 cluster``, ``2 clusters``: a number with its noun."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def listed(names: Iterable[object], most: int = 8) -> str:
    """Names joined for a message: the first `most`, then how many more."""
    texts = [str(name) for name in names]
    rest = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {rest} more" if rest > 0 else "")


_CAUTIONED: dict[Any, Any] = {}


def caution(message: str) -> None:
    """Warn the user in one line, without a line of our source; the same words once a process."""
    warnings.warn_explicit(message, UserWarning, "tsclust_model", 1, registry=_CAUTIONED)
