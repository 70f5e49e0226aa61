"""One Spark for all tests of this folder.

``make test`` takes two threads; continuous integration takes two executors of their own processes
(``TSCLUST_SPARK=local-cluster[2,1,1024]``), which costs three times as long.
"""

from __future__ import annotations

import os
import shutil
import sys
import warnings

import pytest


@pytest.fixture(scope="session")
def spark():
    """A session on the master that TSCLUST_SPARK names, or on ``local[2]``."""
    sql = pytest.importorskip("pyspark.sql", reason="pyspark is not installed: the extra 'spark'")
    if shutil.which("java") is None:
        pytest.skip("there is no Java, which Spark needs")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        session = (
            sql.SparkSession.builder.master(os.environ.get("TSCLUST_SPARK", "local[2]"))
            .config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.sql.shuffle.partitions", "2")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.driver.host", "127.0.0.1")
            .getOrCreate()
        )
    yield session
    session.stop()


@pytest.fixture
def cluster(spark) -> None:
    """The session has executors that can be killed."""
    if not spark.conf.get("spark.master").startswith("local-cluster"):
        pytest.skip("threads cannot be killed: TSCLUST_SPARK=local-cluster[2,1,1024] has executors")
