"""``score`` with ``engine=spark``: parquet or a table in, parquet of forecasts out."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812  # its name in the docs of Spark
from pyspark.sql.types import DoubleType, LongType, StringType, StructField, StructType

from tsclust_model.boosting.quantiles import checked_quantiles
from tsclust_model.data.columns import require_columns
from tsclust_model.errors import DataValidationError, PredictionError, listed
from tsclust_model.mlflow_integration.pyfunc import seal_generation
from tsclust_model.mlflow_integration.registry import load_generation, version_uri
from tsclust_model.models.base import FittedPipeline
from tsclust_model.models.state import MANIFEST, Parts
from tsclust_model.shown import one_line
from tsclust_model.spark.batches import BatchCounts, counted
from tsclust_model.spark.executors import example_digest, readiness, scoring
from tsclust_model.spark.output import Output
from tsclust_model.spark.session import settings, translated
from tsclust_model.spark.source import Partition, Source, open_source, quoted, spark_path

VERSION, TIME = "model_version", "scored_at"
"""Columns beside the forecast: the URI of the version, and when it was asked (UTC)."""

_TYPES: dict[str, Any] = {"double": DoubleType(), "long": LongType(), "string": StringType()}

_MOST_JOBS = 20
"""A call that fails loses at most this part of its work: a job is whole or not there."""

_PROBES = 8
"""Tasks that look at the executors, of a cluster: nobody says how many there are."""


@one_line
@dataclass(frozen=True)
class Scored:
    """What a call has scored.

    Attributes
    ----------
    batch : BatchCounts or None
        None where every partition was there already.
    drift : list of str
        What has drifted in these rows from those the model was trained on.
    """

    batch: BatchCounts | None
    drift: list[str]


def score_table(
    spark: SparkSession, model_uri: str, data: str, output: str, quantiles: Sequence[Any] = ()
) -> Scored:
    """Score a folder of parquet or a table, and write a folder of parquet with its partitions.

    A call that failed is taken up by the next one with the same arguments, and partitions that are
    there are not scored again.

    Parameters
    ----------
    spark : SparkSession
        Classic or of Spark Connect.
    model_uri : str
        A model of rows.
    data : str
        A folder of parquet, one file of it, or a table of Spark's catalog.
    output : str
        A folder that all machines see; there is nothing or an output of the same model.
    quantiles : sequence of float or str
        Further columns, see `Generation.predict`.

    Returns
    -------
    Scored

    Raises
    ------
    DataValidationError, MLflowIntegrationError, PredictionError
        `output` is not there then, or as it was before.
    """
    asked = checked_quantiles(quantiles)
    uri = version_uri(model_uri)
    generation = load_generation(uri).for_executors(uri)
    _refuse_nested(data, output)
    with settings(spark), translated("Spark cannot score", PredictionError):
        source = open_source(spark, data)
        kept = _kept_columns(generation, source, asked)
        _check_columns(generation, source)
        parts = seal_generation(generation)
        about = {"model": uri, "state_sha256": _state_digest(parts), "quantiles": list(asked)}
        place = Output(output, about)
        done = place.done()
        missing = [key for key in source.partitions if key not in done]
        if missing:
            check_executors(spark, parts, generation, place.shared_files)
        for job in _jobs(missing):
            names = list(dict.fromkeys([*generation.input_columns, *kept]))
            frames = source.read(job, names)
            answer = _answers(frames, generation, scoring(parts, kept, asked), kept, asked)
            with place.job() as (folder, state):
                _write(answer, folder, source, uri)
                batch = counted(spark, folder, frames, parts)
                _refuse_lost(source, job, batch.rows["rows"], output)
                state.update(batch.to_state())
        batches = [BatchCounts.from_state(state) for state in place.kept()]
        if not batches:
            place.drop()
            return Scored(None, [])
        whole = functools.reduce(BatchCounts.plus, batches)
        drift = whole.drift(generation)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        place.finish({"at": now, "model": uri} | whole.to_json() | {"drift": drift})
        return Scored(whole, drift)


def check_executors(
    spark: SparkSession, parts: Parts, generation: FittedPipeline, paths: Sequence[str]
) -> None:
    """Refuse at once what the executors cannot do: import, see the output, give the same bits.

    Raises
    ------
    PredictionError
    """
    look = readiness(parts, example_digest(generation), paths)
    is_local = str(spark.conf.get("spark.master", "")).startswith("local[")
    n_tasks = 1 if is_local else _PROBES
    tasks = spark.range(0, n_tasks, 1, n_tasks)
    with translated("the executors cannot score", PredictionError):
        answers = tasks.mapInArrow(look, "problem string").distinct().collect()
    problems = sorted(row["problem"] for row in answers if row["problem"])
    if problems:
        raise PredictionError(f"the executors cannot score: {problems[0]}")


def _state_digest(parts: Parts) -> str:
    """sha256 of the state without the code that has sealed it."""
    sums = json.loads(parts[MANIFEST])["sha256"]
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def _refuse_nested(data: str, output: str) -> None:
    inner, outer = (f"{spark_path(path)}/" for path in (output, data))
    if inner.startswith(outer) or outer.startswith(inner):
        raise DataValidationError(
            f"{output} and {data} lie in one another; name an output outside of the data"
        )


def _kept_columns(
    generation: FittedPipeline, source: Source, quantiles: Sequence[float]
) -> list[str]:
    """The columns beside the forecast: id and time, or all; and those of the partitions.

    Rows of Spark have no order, so without an id or a time only their content tells them apart.
    """
    own = {name.lower() for name in (*generation.answer_columns(quantiles), VERSION, TIME)}
    keys = [generation.roles.id, generation.roles.time]
    found = [name for name in keys if name is not None and name in source.columns]
    taken = [name for name in (*found, *source.partition_by) if name.lower() in own]
    if taken:
        raise DataValidationError(
            f"columns of the forecasts are the name of {listed(taken)}; rename it in the data"
        )
    others = [name for name in source.columns if name.lower() not in own]
    return list(dict.fromkeys([*(found or others), *source.partition_by]))


def _check_columns(generation: FittedPipeline, source: Source) -> None:
    """Refuse absent columns, and files whose columns are of another type, before any work."""
    names = list(generation.input_columns)
    require_columns(pd.DataFrame(columns=source.columns), names)
    for path, table in source.empty_tables():
        there = table.select([name for name in names if name in table.schema.names])
        nested = [field.name for field in there.schema if pa.types.is_nested(field.type)]
        if nested:
            raise DataValidationError(
                f"{path}: column(s) {listed(nested)} hold lists or mappings; spread them into "
                "columns, as in training"
            )
        try:
            generation.schema.encode(there.to_pandas().reindex(columns=names))
        except DataValidationError as error:
            raise DataValidationError(f"{path}: {error}") from error


def _jobs(partitions: Sequence[Partition]) -> Iterator[list[Partition]]:
    """The partitions in up to `_MOST_JOBS` parts."""
    n_jobs = min(len(partitions), _MOST_JOBS)
    for positions in np.array_split(np.arange(len(partitions)), n_jobs) if n_jobs else ():
        yield [partitions[i] for i in positions]


def _answers(
    frames: Sequence[DataFrame],
    generation: FittedPipeline,
    score: Any,
    kept: Sequence[str],
    quantiles: Sequence[float],
) -> DataFrame:
    """The forecasts of tables whose columns differ, as one table."""
    types = generation.output_types
    own = [
        StructField(name, _TYPES[types.get(name, "double")])
        for name in generation.answer_columns(quantiles)
    ]
    fields = _common_types(frames, kept)
    answers = []
    for frame in frames:
        ready = frame
        for name, kind in fields.items():
            column = quoted(name) if name in frame.columns else F.lit(None)
            ready = ready.withColumn(name, column.cast(kind))
        schema = StructType([*(StructField(n, kind) for n, kind in fields.items()), *own])
        answers.append(ready.mapInArrow(score, schema))
    union = answers[0]
    for answer in answers[1:]:
        union = union.union(answer)
    return union


def _common_types(frames: Iterable[DataFrame], names: Sequence[str]) -> dict[str, Any]:
    """The type of each column; a string where the tables do not agree."""
    found: dict[str, list[Any]] = {name: [] for name in names}
    for frame in frames:
        for field in frame.schema.fields:
            if field.name in found and field.dataType not in found[field.name]:
                found[field.name].append(field.dataType)
    return {name: own[0] if len(own) == 1 else StringType() for name, own in found.items()}


def _write(answer: DataFrame, folder: str, source: Source, uri: str) -> None:
    now = F.lit(datetime.now(UTC))
    told = answer.withColumn(VERSION, F.lit(uri)).withColumn(TIME, now)
    told.write.mode("overwrite").partitionBy(*source.partition_by).parquet(folder)


def _refuse_lost(source: Source, job: Sequence[Partition], n_rows: int, output: str) -> None:
    """Refuse a job whose files this process does not see: each machine wrote on its own disk."""
    if source.n_rows is not None:
        expected = sum(source.n_rows[key] for key in job)
        if n_rows != expected:
            raise PredictionError(
                f"{output} holds {n_rows} of {expected} rows; use a folder that all machines "
                "share, or a URL, and leave the data as it is meanwhile"
            )
