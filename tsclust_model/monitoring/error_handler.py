"""Errors: counted, kept, and whether a call goes on without the part that failed."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tsclust_model.errors import (
    ConfigurationError,
    DataValidationError,
    NotFittedError,
    PipelineError,
)
from tsclust_model.monitoring.metrics import Clock, utc_now
from tsclust_model.results import ErrorStatistics

_RECORDS = 1_000


@dataclass(frozen=True)
class ErrorRecord:
    """An error as it is kept: our own messages name no row's values, others' are left out.

    Attributes
    ----------
    error_type : str
        Class of the error; of one of ours that translates a foreign one, the foreign class.
    message : str
    component : str
        What failed.
    timestamp : datetime
        UTC.
    severity : str
        ``warning`` where the batch went on without the component, ``error`` where it raised.
    """

    error_type: str
    message: str
    component: str
    timestamp: datetime
    severity: str


class ErrorHandler:
    """Counts errors, keeps the last 1,000, and decides whether a batch continues without a part.

    Graceful degradation is on until it is turned off.

    Parameters
    ----------
    clock : callable, optional
        Gives the time (UTC).
    """

    def __init__(self, *, clock: Clock = utc_now) -> None:
        self._clock = clock
        self._recent: deque[ErrorRecord] = deque(maxlen=_RECORDS)
        self._by_type: Counter[str] = Counter()
        self._by_component: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._open: dict[str, datetime] = {}
        self._failures: dict[str, Exception] = {}
        self.graceful_degradation = True

    def handle_error(self, error: BaseException, context: Mapping[str, Any] | str) -> bool:
        """Keep an error.

        Parameters
        ----------
        error : exception
        context : mapping with the key ``component``, or its value

        Returns
        -------
        bool
            Whether to go on without that component: graceful degradation is on.
        """
        component = context if isinstance(context, str) else str(context.get("component", ""))
        self._keep(error, component, "warning" if self.graceful_degradation else "error")
        return self.graceful_degradation

    @contextmanager
    def refusals(self, component: str) -> Iterator[None]:
        """Around a call: input that is refused is counted apart, another of our errors is kept.

        Either goes on to the caller.
        """
        try:
            yield
        except (DataValidationError, NotFittedError, ConfigurationError) as error:
            self._refused[type(error).__name__] += 1
            raise
        except PipelineError as error:
            self._keep(error, component, "error")
            raise

    @contextmanager
    def whole_call(self) -> Iterator[dict[str, Exception]]:
        """Collect what fails in its parts; without degradation the first raises at the end."""
        outer, failures = self._failures, dict[str, Exception]()
        self._failures = failures
        try:
            yield failures
        finally:
            self._failures = outer
        if failures and not self.graceful_degradation:
            raise next(iter(failures.values()))

    @contextmanager
    def part(self, component: str, meaning: PipelineError | None = None) -> Iterator[None]:
        """A part of a call whose failure costs no result.

        Results come first, whatever a callback, a disk, a server or a broken model raises;
        `meaning` is the error that is kept for it, by default the error itself.
        """
        try:
            yield
        except Exception as error:
            if meaning is not None:
                meaning.__cause__ = error
            self.failed(meaning or error, component)
        else:
            if component not in self._failures:
                self.resolve(component)

    def failed(self, error: Exception, component: str) -> None:
        """Keep the error of a part of the call that is running."""
        self.handle_error(error, component)
        self._failures.setdefault(component, error)

    def resolve(self, component: str) -> None:
        """Say that a component works (again): its errors stay, but are open no longer."""
        self._open.pop(component, None)

    def open_components(self, time_window: timedelta) -> list[str]:
        """Components that failed in the last `time_window` and have not worked since."""
        since = self._clock() - time_window
        return [component for component, when in self._open.items() if when >= since]

    def get_error_statistics(self) -> ErrorStatistics:
        """``total_errors``, ``by_type``, ``by_component``, ``refused_calls`` and
        ``graceful_degradation``.

        A call that was refused for its input raised to its caller; it is no error of the pipeline
        and only counted in ``refused_calls``, by type.
        """
        return {
            "total_errors": self._by_type.total(),
            "by_type": dict(self._by_type),
            "by_component": dict(self._by_component),
            "refused_calls": dict(self._refused),
            "graceful_degradation": self.graceful_degradation,
        }

    def recent(self, limit: int = 10) -> Iterator[ErrorRecord]:
        """The newest errors, newest first."""
        return (record for record, _ in zip(reversed(self._recent), range(limit), strict=False))

    def clear_error_history(self) -> None:
        """Forget errors and counts."""
        for kept in (self._recent, self._by_type, self._by_component, self._refused, self._open):
            kept.clear()

    def enable_graceful_degradation(self, enable: bool = True) -> None:
        """Continue without a part that fails (the default), or raise its error."""
        self.graceful_degradation = enable

    def _keep(self, error: BaseException, component: str, severity: str) -> None:
        now, name = self._clock(), type(_foreign(error)).__name__
        message = str(error) if isinstance(error, PipelineError) else f"{name} in {component}"
        self._recent.append(ErrorRecord(name, message, component, now, severity))
        self._by_type[name] += 1
        self._by_component[component] += 1
        self._open[component] = now


def _foreign(error: BaseException) -> BaseException:
    """The foreign error that one of ours translates, or the error itself."""
    cause = error
    while isinstance(cause, PipelineError) and cause.__cause__ is not None:
        cause = cause.__cause__
    return error if isinstance(cause, PipelineError) else cause
