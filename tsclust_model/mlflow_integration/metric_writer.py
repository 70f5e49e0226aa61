"""Writes metrics behind the work, so that a slow server never stands in its way."""

from __future__ import annotations

import atexit
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

import mlflow
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from tsclust_model.errors import MLflowIntegrationError
from tsclust_model.mlflow_integration.stores import require_server

_METRICS_A_WRITE = 500

_GATHER_SECONDS = 1.0

_MOST_WAITING = 10_000


class MetricWriter:
    """Metrics of batches, written by a thread of its own, so that no batch waits for a server.

    What cannot be written is tried again; the newest 10,000 values wait at most. mlflow keeps one
    value for each (name, step, timestamp), so a write whose answer was lost does no harm when it
    is repeated.

    Parameters
    ----------
    run : str or callable
        Id of the run, or what makes one and returns its id; a run that was made here is ended by
        `close`.
    retry_seconds : float
        Pause after a failed write.
    """

    def __init__(self, run: str | Callable[[], str], retry_seconds: float = 1.0) -> None:
        self.run_id = run if isinstance(run, str) else None
        self._make_run = None if isinstance(run, str) else run
        self.retry_seconds = retry_seconds
        self.last_error = ""
        self._queue: deque[Metric] = deque()
        self._writing = 0
        self._wake = threading.Condition()
        self._closing = False
        self._hurry = False
        self._thread = threading.Thread(target=self._work, name="metric-writer", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def write(self, metrics: Mapping[str, float], step: int) -> None:
        """Queue metrics; returns at once."""
        now = time.time_ns() // 1_000_000
        with self._wake:
            self._queue.extend(
                Metric(metric_name(name), float(value), now, step)
                for name, value in metrics.items()
                if math.isfinite(value)
            )
            self._trim()
            self._wake.notify_all()

    @property
    def pending(self) -> int:
        """Values that are not written yet."""
        with self._wake:
            return len(self._queue) + self._writing

    def flush(self, seconds: float) -> bool:
        """Wait until everything is written, for `seconds` at most; whether it was."""
        with self._wake:
            self._hurry = True
            self._wake.notify_all()
            return self._wake.wait_for(lambda: not self._queue and not self._writing, seconds)

    def close(self, seconds: float = 5.0) -> None:
        """Write what is queued, for `seconds` at most, and stop."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join(seconds)
        atexit.unregister(self.close)

    def _trim(self) -> None:
        while len(self._queue) > _MOST_WAITING:
            self._queue.popleft()

    def _next(self) -> list[Metric]:
        """Wait for values, and take them off the queue; none means to stop."""
        with self._wake:
            self._wake.wait_for(lambda: self._queue or self._closing)
            # One write for the batches of a second: each costs the scoring thread some of its time.
            self._wake.wait_for(lambda: self._hurry or self._closing, _GATHER_SECONDS)
            self._hurry = False
            taken = [self._queue.popleft() for _ in range(min(len(self._queue), _METRICS_A_WRITE))]
            self._writing = len(taken)
            return taken

    def _work(self) -> None:
        while batch := self._next():
            try:
                self._write(batch)
                error = ""
            except (MlflowException, MLflowIntegrationError, OSError) as failure:
                error = type(failure).__name__
            with self._wake:
                self.last_error = error
                self._writing = 0
                if error:
                    self._queue.extendleft(reversed(batch))
                    self._trim()
                    if self._closing:
                        return
                    self._wake.wait_for(lambda: self._closing, self.retry_seconds)
                self._wake.notify_all()
        if self._make_run is not None and self.run_id is not None:
            with contextlib.suppress(MlflowException, OSError):  # it stays RUNNING, as after a kill
                mlflow.MlflowClient().set_terminated(self.run_id)

    def _write(self, batch: list[Metric]) -> None:
        require_server()
        if self.run_id is None and self._make_run is not None:
            self.run_id = self._make_run()
        mlflow.MlflowClient().log_batch(str(self.run_id), metrics=batch)


def metric_name(name: str) -> str:
    """`name` as mlflow takes it for a metric: other characters become ``_``, and lower case."""
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name).lower()
