"""Batches' metrics: a thread writes them, and a server that is down keeps no batch waiting."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from tests.support import Server, copy_model
from tsclust_model.config import PipelineConfig
from tsclust_model.data.synthetic import make_hospital
from tsclust_model.errors import MLflowIntegrationError
from tsclust_model.mlflow_integration.metric_writer import MetricWriter
from tsclust_model.mlflow_integration.runs import ExperimentManager
from tsclust_model.pipeline import TimeSeriesClusteringPipeline

TARGET = "length_of_stay_days"
QUICK = {"num_leaves": 7, "n_estimators": 20, "learning_rate": 0.2}
CONFIG = PipelineConfig(hdbscan_params={"min_cluster_size": 15}, lgb_timeseries_params=QUICK)
NOBODY = "http://127.0.0.1:9"


def steps(run_id: str, name: str) -> list[tuple[int, float]]:
    found = MlflowClient().get_metric_history(run_id, name)
    return [(metric.step, metric.value) for metric in found]


def failed_once(writer: MetricWriter) -> bool:
    """Wait until the writer's thread has met an error; it tells nobody, so look often."""
    deadline = time.monotonic() + 60
    found = False
    while not found and time.monotonic() < deadline:
        with writer._wake:
            found = writer._wake.wait_for(lambda: writer.last_error != "", 0.02)
    return found


@pytest.fixture
def run_id(store) -> str:
    return ExperimentManager("metric-writer").make_run("batches", {"phase": "x", "absent": None})


@pytest.fixture
def writer(run_id) -> Iterator[MetricWriter]:
    found = MetricWriter(run_id, retry_seconds=0.05)
    yield found
    found.close()


def test_a_made_run_is_not_the_active_one(run_id):
    assert mlflow.active_run() is None
    run = mlflow.get_run(run_id)
    assert run.data.tags["phase"] == "x"
    assert "absent" not in run.data.tags
    assert run.info.status == "RUNNING"


def test_every_value_is_written_once_with_its_step(writer, run_id):
    for step in range(1, 31):
        writer.write({"Noise Ratio": step / 100, "a,b": 2.0}, step)
    assert writer.flush(60)
    assert writer.pending == 0
    assert steps(run_id, "noise ratio") == [(step, step / 100) for step in range(1, 31)]
    assert len(steps(run_id, "a_b")) == 30


def test_what_is_undefined_is_left_out(writer, run_id):
    writer.write({"rmse": math.nan, "noise_ratio": math.inf, "n_rows": 5}, 1)
    assert writer.flush(60)
    assert mlflow.get_run(run_id).data.metrics == {"n_rows": 5.0}


def test_more_values_than_one_request_takes_are_written(writer, run_id):
    for step in range(700):
        writer.write({"a": step, "b": step}, step)
    assert writer.flush(60)
    assert len(steps(run_id, "a")) == len(steps(run_id, "b")) == 700


def test_closing_writes_what_waits_and_ends_the_thread(run_id):
    writer = MetricWriter(run_id)
    writer.write({"a": 1.0}, 1)
    writer.close(60)
    assert not writer._thread.is_alive()
    assert steps(run_id, "a") == [(1, 1.0)]
    writer.close()


def test_a_store_that_refuses_is_tried_again(store, run_id, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(NOBODY)
    writer = MetricWriter(run_id, retry_seconds=0.05)
    writer.write({"a": 1.0, "b": 2.0}, 1)
    assert failed_once(writer)
    assert writer.pending == 2
    assert not writer.flush(0.01)
    mlflow.set_tracking_uri(store)
    assert writer.flush(60)
    assert writer.last_error == ""
    assert (steps(run_id, "a"), steps(run_id, "b")) == ([(1, 1.0)], [(1, 2.0)])
    writer.close()


def test_the_newest_values_wait_for_a_store_that_is_away_for_long(store, run_id, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(NOBODY)
    writer = MetricWriter(run_id, retry_seconds=600)
    writer.write({"a": -1.0}, 0)
    assert failed_once(writer)
    for step in range(1, 10_006):
        writer.write({"a": float(step)}, step)
    assert writer.pending == 10_000
    assert [metric.step for metric in (writer._queue[0], writer._queue[-1])] == [6, 10_005]
    started = time.monotonic()
    writer.close(30)
    assert time.monotonic() - started < 20
    assert not writer._thread.is_alive()


def test_an_error_that_is_not_mlflows_does_not_end_the_writer(run_id, writer, monkeypatch, store):
    mlflow.set_tracking_uri("nonsense://nowhere")  # mlflow raises UnsupportedModelRegistryStoreURI
    writer.write({"a": 1.0}, 1)
    assert failed_once(writer)
    mlflow.set_tracking_uri(store)
    assert writer.flush(60)
    assert steps(run_id, "a") == [(1, 1.0)]


# -- a real server that goes away and comes back -----------------------------------------------


@pytest.fixture
def server(store, store_folder, python, monkeypatch) -> Iterator[Server]:
    # mlflow's own retries (7, up to minutes) are left on, only faster.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    found = Server(store_folder, store, python)
    yield found
    found.kill()


@pytest.fixture(scope="module")
def stream() -> pd.DataFrame:
    frame = make_hospital(1000, random_state=3).select_dtypes("number").astype(float)
    return frame.drop(columns=["nursing_hours", "medication_cost"])


@pytest.fixture(scope="module")
def fitted_once() -> list[str]:
    return []


@pytest.fixture
def pipeline(store, stream, fitted_once, request) -> Iterator[TimeSeriesClusteringPipeline]:
    """A pipeline of a model of the first 500 admissions, a copy of one that is fitted once."""
    if not fitted_once:
        first = TimeSeriesClusteringPipeline(CONFIG, model_name="outage")
        first.fit_initial(*outcome(stream.head(500)))
        fitted_once.append("outage")
    name = copy_model("outage", f"outage-{request.node.name[:40]}")
    found = TimeSeriesClusteringPipeline.load(f"models:/{name}@champion", CONFIG)
    yield found
    mlflow.set_tracking_uri(store)
    found.close()


def outcome(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    return frame.drop(columns=TARGET), frame[TARGET]


def batch(stream: pd.DataFrame, number: int) -> tuple[pd.DataFrame, pd.Series]:
    return outcome(stream[450 + 50 * number : 500 + 50 * number])


def test_a_server_that_is_down_costs_no_prediction_and_gets_its_metrics_once(
    server, pipeline, stream
):
    server.start()
    mlflow.set_tracking_uri(server.url)
    results = [pipeline.process_batch(*batch(stream, 1))]
    writer = pipeline._writer
    assert writer.flush(60)
    assert results[0].degraded == ()

    server.kill()
    slowest = 0.0
    for number in (2, 3, 4):
        started = time.perf_counter()
        results.append(pipeline.process_batch(*batch(stream, number)))
        slowest = max(slowest, time.perf_counter() - started)
        assert writer.pending > 0
    assert slowest < 1.0  # mlflow's own retries take longer
    assert failed_once(writer)
    results.append(pipeline.process_batch(*batch(stream, 5)))
    assert results[-1].degraded == ("tracking",)
    assert writer.pending > 0
    assert pipeline.perform_health_check()["components"]["tracking"] == (
        f"{writer.pending} values wait for the tracking server"
    )

    server.start()
    assert writer.flush(60)
    assert writer.last_error == ""
    assert pipeline.process_batch(*batch(stream, 6)).degraded == ()
    assert writer.flush(60)
    for name in ("rmse", "noise_ratio", "processing_time", "memory_usage", "n_rows"):
        assert [step for step, _ in steps(writer.run_id, name)] == [1, 2, 3, 4, 5, 6]
    assert steps(writer.run_id, "noise_ratio")[:5] == [
        (step, result.noise_ratio) for step, result in enumerate(results, 1)
    ]


def test_a_server_that_is_down_from_the_first_batch_on_keeps_no_batch_waiting(
    store, pipeline, stream, monkeypatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    mlflow.set_tracking_uri(NOBODY)
    started = time.perf_counter()
    result = pipeline.process_batch(*batch(stream, 1))
    elapsed = time.perf_counter() - started
    assert len(result.timeseries_predictions) == 50
    assert elapsed < 1.0  # waiting for mlflow's retries takes 2 s here, and minutes by default


def test_metrics_of_batches_before_the_server_came_up_are_written_too(
    store, pipeline, stream, monkeypatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(NOBODY)
    for number in (1, 2):
        result = pipeline.process_batch(*batch(stream, number))
        assert len(result.timeseries_predictions) == 50
    mlflow.set_tracking_uri(store)
    pipeline.process_batch(*batch(stream, 3))
    writer = pipeline._writer
    assert writer.flush(60)
    assert [step for step, _ in steps(writer.run_id, "rmse")] == [1, 2, 3]


def test_without_degradation_a_server_that_is_down_raises(store, pipeline, stream, monkeypatch):
    pipeline.enable_graceful_degradation(False)
    mlflow.set_tracking_uri(NOBODY)
    pipeline.process_batch(*batch(stream, 1))  # the writer learns of it after the batch
    assert failed_once(pipeline._writer)
    with pytest.raises(MLflowIntegrationError, match="the tracking server does not answer"):
        pipeline.process_batch(*batch(stream, 2))
    assert pipeline.last_batch_result.degraded == ("tracking",)
    assert len(pipeline.last_batch_result.timeseries_predictions) == 50


def test_without_degradation_a_server_that_went_away_raises(store, pipeline, stream, monkeypatch):
    pipeline.enable_graceful_degradation(False)
    pipeline.process_batch(*batch(stream, 1))
    assert pipeline._writer.flush(60)
    mlflow.set_tracking_uri(NOBODY)
    pipeline.process_batch(*batch(stream, 2))  # the writer learns of it after the batch
    assert failed_once(pipeline._writer)
    with pytest.raises(MLflowIntegrationError, match="tracking"):
        pipeline.process_batch(*batch(stream, 3))


def test_with_mlflows_own_settings_nothing_waits_long_for_a_server_that_was_killed(
    server, pipeline, stream, monkeypatch
):
    for name in ("MAX_RETRIES", "BACKOFF_FACTOR"):  # one call of a client: 4 min 10 s
        monkeypatch.delenv(f"MLFLOW_HTTP_REQUEST_{name}")
    server.start()
    mlflow.set_tracking_uri(server.url)
    assert pipeline.process_batch(*batch(stream, 1)).degraded == ()
    assert pipeline._writer.flush(60)
    server.kill()
    times: list[float] = []

    def timed(call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        try:
            return call()
        finally:
            times.append(time.perf_counter() - started)

    timed(lambda: pipeline.process_batch(*batch(stream, 2)))
    assert failed_once(pipeline._writer)
    X, y = batch(stream, 3)
    results = [
        timed(lambda shift=shift: pipeline.process_batch(X + shift, y)) for shift in (50, 51, 52)
    ]
    assert [found.degraded for found in results] == [
        ("tracking",),
        ("tracking", "retraining"),  # drift: what cannot be run now is tried with the next batch
        ("tracking", "retraining"),
    ]
    assert all(len(found.timeseries_predictions) == 50 for found in results)
    health = timed(pipeline.perform_health_check)
    assert health["status"] in ("degraded", "drifting")
    assert health["components"]["registry"].startswith("the tracking server does not answer")
    assert timed(lambda: pipeline.diagnose_pipeline_health())["recommendations"]
    for call in (pipeline.retrain, pipeline.get_model_info, lambda: pipeline.rollback("x")):
        with pytest.raises(MLflowIntegrationError, match="the tracking server does not answer"):
            timed(call)
    timed(pipeline.close)
    assert max(times) < 10, times
    assert sum(times) < 25, times
