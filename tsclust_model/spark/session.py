"""The Spark session: its settings while a command runs, and its errors in one line.

Nothing here uses `sparkContext`, which a session of Spark Connect does not have.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from tsclust_model.errors import PipelineError

_SETTINGS = {
    # times keep their instant, whatever the zone of the cluster
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # pandas before 3 writes nanoseconds, which Spark otherwise refuses
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    # a partition "01" is not the number 1
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    # rows a worker holds at a time; many small batches cost each cluster's models again
    "spark.sql.execution.arrow.maxRecordsPerBatch": "50000",
}

_OURS = re.compile(r"tsclust_model\.errors\.\w+: (.+)")

_ABSENT = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")


def open_session() -> SparkSession:
    """The active session, or one as ``SPARK_REMOTE``, ``spark-submit`` or spark-defaults say."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("tsclust")
    with _without_warning():
        return builder.config("spark.ui.showConsoleProgress", "false").getOrCreate()


@contextmanager
def settings(spark: SparkSession) -> Iterator[None]:
    """Our settings of SQL for the block; the session's own come back after it."""
    before = {key: spark.conf.get(key, None) for key in _SETTINGS}
    for key, value in _SETTINGS.items():
        spark.conf.set(key, value)
    try:
        with _without_warning():
            yield
    finally:
        for key, own in before.items():
            if own is None:
                spark.conf.unset(key)
            else:
                spark.conf.set(key, own)


@contextmanager
def _without_warning() -> Iterator[None]:
    """Leave out that Spark's pandas functions, which nothing here calls, are behind pandas 3."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas")
        yield


@contextmanager
def translated(what: str, into: type[PipelineError]) -> Iterator[None]:
    """Errors of Spark as one of ours: a line that quotes no row."""
    try:
        yield
    except (PySparkException, Py4JError) as error:
        raise into(f"{what}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = str(error)
    if own := _OURS.search(text):
        return own.group(1)
    if absent := _ABSENT.search(text):
        return (
            f"the Python of the executors has no module '{absent.group(1)}'; install there what "
            "this process has (pip install 'tsclust-model[spark]'), or set PYSPARK_PYTHON"
        )
    condition = error.getCondition() if isinstance(error, PySparkException) else None
    return f"{condition or type(error).__name__}; the log of Spark has the rest"
