"""What runs in the executors: the model is opened once a worker, and its own `predict` called.

The sealed state of the model travels with the function, so that an executor needs no store and no
registry. This module imports neither pyspark nor mlflow.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np
import pandas as pd
import pyarrow as pa

from tsclust_model import __version__
from tsclust_model.mlflow_integration.kinds import generation_of_parts
from tsclust_model.models.base import FittedPipeline
from tsclust_model.models.state import Parts, digest, open_sealed, pack_arrays, unpack_arrays
from tsclust_model.monitoring.reference import FeatureCounts
from tsclust_model.rows.model import Generation
from tsclust_model.rows.schema import Encoded

ARROW_TYPES = {"double": pa.float64(), "long": pa.int64(), "string": pa.string()}

Batches = Iterator[pa.RecordBatch]

_OPENED: dict[str, FittedPipeline] = {}


def opened(parts: Parts) -> FittedPipeline:
    """The model of a sealed state; the last one of a worker is kept between its tasks."""
    key = digest(parts)
    if key not in _OPENED:
        open_sealed(parts)
        _OPENED.clear()
        _OPENED[key] = cast(FittedPipeline, generation_of_parts(parts))
    return _OPENED[key]


def example_digest(generation: FittedPipeline) -> str:
    """sha256 of the model's answer to its own example: equal where the same bits are computed."""
    answer = generation.predict(generation.example())
    return hashlib.sha256(answer.to_csv(float_format="%.17g").encode()).hexdigest()


def scoring(
    parts: Parts, kept: Sequence[str], quantiles: Sequence[float]
) -> Callable[[Batches], Batches]:
    """A function for ``mapInArrow``: the columns `kept` as they came, then the forecast."""

    def score(batches: Batches) -> Batches:
        generation = opened(parts)
        for batch in batches:
            answer = scored(generation, batch, quantiles)
            columns = [batch.column(name) for name in kept]
            names = [*kept, *answer.schema.names]
            yield pa.RecordBatch.from_arrays([*columns, *answer.columns], names)

    return score


def counting(parts: Parts) -> Callable[[Batches], Batches]:
    """A function for ``mapInArrow``: the `FeatureCounts` of a task's rows, as one row."""

    def count(batches: Batches) -> Batches:
        generation = cast(Generation, opened(parts))
        reference = generation.reference.features
        counts = reference.counts(np.empty((0, len(reference.names))))
        for batch in batches:
            encoded = encoded_rows(generation, batch)
            counts = counts.plus(reference.counts(encoded.X[encoded.scorable]))
        yield pa.RecordBatch.from_pydict({"counts": [packed(counts)]})

    return count


def added(batches: Batches) -> Batches:
    """For ``mapInArrow``: the sum of the rows of `counting`, where there are any."""
    counts = [unpacked(one) for batch in batches for one in batch.column(0).to_pylist()]
    if counts:
        whole = functools.reduce(FeatureCounts.plus, counts)
        yield pa.RecordBatch.from_pydict({"counts": [packed(whole)]})


def packed(counts: FeatureCounts) -> bytes:
    return pack_arrays(vars(counts))


def unpacked(content: bytes) -> FeatureCounts:
    arrays = unpack_arrays(content)
    return FeatureCounts(int(arrays.pop("n_rows")), **arrays)


def scored(
    generation: FittedPipeline, batch: pa.RecordBatch, quantiles: Sequence[float] = ()
) -> pa.RecordBatch:
    """The forecasts of a batch, by `predict` of the model."""
    frame, n_rows = _table(generation, batch)
    answer = generation.predict(frame, quantiles=quantiles).iloc[:n_rows]
    types = generation.output_types
    return pa.RecordBatch.from_arrays(
        [pa.array(answer[n], ARROW_TYPES[types.get(n, "double")]) for n in answer], list(answer)
    )


def encoded_rows(generation: Generation, batch: pa.RecordBatch) -> Encoded:
    """The rows of a batch as the model encodes them, see `scored`."""
    frame, n_rows = _table(generation, batch)
    encoded = generation.schema.encode(frame)
    return Encoded(encoded.X[:n_rows], encoded.status[:n_rows])


def _table(generation: FittedPipeline, batch: pa.RecordBatch) -> tuple[pd.DataFrame, int]:
    """The input columns of a batch, and how many of the rows are its own.

    A batch may hold strings only in a column of numbers: no table is refused for that here, each
    such row is. So one row that is well stands after the others, whose answer is not wanted.
    """
    kinds = generation.input_columns
    there = batch.select([name for name in kinds if name in batch.schema.names])
    frame = there.to_pandas().reindex(columns=list(kinds))
    strings = [field.name for field in there.schema if _holds_strings(field.type)]
    if any(kinds[name] == "double" for name in strings):
        well = generation.example().head(1)
        frame = pd.concat([frame.astype(object), well.astype(object)], ignore_index=True)
    return frame, batch.num_rows


def _holds_strings(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def readiness(parts: Parts, expected: str, paths: Sequence[str]) -> Callable[[Batches], Batches]:
    """A function for ``mapInArrow`` that tells what keeps an executor from scoring.

    Parameters
    ----------
    parts : dict of str to bytes
    expected : str
        `example_digest` of the driver.
    paths : sequence of str
        Local files of the driver that every machine has to see.
    """
    version = __version__

    def look(batches: Batches) -> Batches:
        for _ in batches:
            problem = _problem(parts, version, expected, paths)
            yield pa.RecordBatch.from_pydict({"problem": [problem]})

    return look


def _problem(parts: Parts, version: str, expected: str, paths: Sequence[str]) -> str:
    for path in paths:
        if not os.path.exists(path):
            return f"they do not see {path}; use a folder that all machines share, or a URL"
    if version != __version__:
        return f"they have tsclust_model {__version__} and this process {version}; install one"
    if example_digest(opened(parts)) != expected:
        return "they answer the model's example differently; install the same libraries there"
    return ""
