"""What a batch costs here: measured once, when a model is fitted or loaded."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial as bound
from pathlib import Path

import numpy as np
import pandas as pd

from tsclust_model.data.history import DataVersioner
from tsclust_model.rows.batches import batch_frame, chunked_forecast, scorable_matrix
from tsclust_model.rows.model import Generation

_MEASURED_ROWS = (64, 2048)


@dataclass(frozen=True)
class BatchCosts:
    """What a batch costs: what is fixed, and what comes with each row.

    Attributes
    ----------
    seconds : tuple of float
        Of `process_batch`'s work up to the result (its `processing_time`).
    megabytes : tuple of float
        The most that Python and numpy hold for it at once, beyond what the process holds anyway.
    """

    seconds: tuple[float, float]
    megabytes: tuple[float, float]

    def of(self, n_rows: int) -> dict[str, float]:
        """``processing_time`` (s) and ``memory_usage`` (MB) of a batch of so many rows."""
        return {
            "processing_time": self.seconds[0] + n_rows * self.seconds[1],
            "memory_usage": self.megabytes[0] + n_rows * self.megabytes[1],
        }


def sums_by_cluster(
    labels: np.ndarray,
    resources: Mapping[str, np.ndarray],
    costs: BatchCosts | None = None,
) -> dict[int, dict[str, float]]:
    """Sums over the rows of each cluster: of the resources, or of what the batch costs.

    What is fixed in a batch's costs is shared by its rows.
    """
    clusters, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums: dict[str, np.ndarray]
    if costs is not None:
        shares = counts / len(labels)
        sums = {k: shares * np.float64(value) for k, value in costs.of(len(labels)).items()}
    else:
        sums = {
            name: np.bincount(inverse, weights=values, minlength=len(clusters))
            for name, values in resources.items()
        }
    return {
        int(cluster): {name: float(values[i]) for name, values in sums.items()}
        for i, cluster in enumerate(clusters)
    }


def measured_costs(
    generation: Generation,
    batch_size: int,
    timer: Callable[[], float] = time.perf_counter,
) -> BatchCosts:
    """What a batch costs here, measured on two of synthetic rows.

    They take the way of `process_batch`, into a history of their own in the system's folder for
    temporary files.

    Parameters
    ----------
    generation : Generation
        Without resources.
    batch_size : int
        As in `process_batch`.
    timer : callable
        Gives seconds.
    """
    rng = np.random.default_rng(0)
    seconds, megabytes = [], []
    with tempfile.TemporaryDirectory() as folder:
        history = DataVersioner(folder)

        def run(rows: pd.DataFrame) -> float:
            started = timer()
            frame = batch_frame(rows, generation)
            X = scorable_matrix(generation, frame)
            sums_by_cluster(chunked_forecast(generation, X, batch_size).assignment.labels, {})
            history.register(generation.canonical_rows(frame))
            return timer() - started

        for n_rows in _MEASURED_ROWS:
            # The first call parses the models; each batch is another, or it would not be kept.
            batches = [_synthetic_rows(generation, n_rows, rng) for _ in range(4)]
            run(batches[0])
            seconds.append(min(run(batches[1]), run(batches[2])))
            megabytes.append(_peak_megabytes(bound(run, batches[3])))
    return BatchCosts(_line(seconds), _line(megabytes))


def resident_megabytes() -> float:
    """MB of memory that this process holds now; its peak where /proc is absent."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)
    return pages * resource.getpagesize() / 2**20


def _synthetic_rows(generation: Generation, n_rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """The generation's example over and over, its clustered columns shaken so that rows differ."""
    example = generation.example()
    frame = pd.concat([example] * (n_rows // len(example) + 1), ignore_index=True).head(n_rows)
    names = list(generation.schema.cluster_features)
    shaken = frame[names] + rng.normal(size=(n_rows, len(names))) * (
        0.1 * generation.segmentation.scaler.scale
    )
    return frame.assign(**shaken)


def _peak_megabytes(call: Callable[[], object]) -> float:
    """The most memory that Python and numpy hold at once for a call, in MB."""
    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        call()
        return (tracemalloc.get_traced_memory()[1] - before) / 2**20
    finally:
        if not tracing:
            tracemalloc.stop()


def _line(values: Sequence[float]) -> tuple[float, float]:
    """What is fixed, and what comes with each row, of values measured at `_MEASURED_ROWS`."""
    few, many = _MEASURED_ROWS
    a_row = max(values[1] - values[0], 0.0) / (many - few)
    return max(values[0] - few * a_row, 0.0), a_row
