"""When a retrain is due, whether the challenger is better, and what a retrain may change."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from tests.support import PROJECT, QUICK, START, VITALS, Clock
from tsclust_model.config import PipelineConfig
from tsclust_model.data.roles import Roles
from tsclust_model.data.synthetic import make_hospital
from tsclust_model.errors import DataValidationError, MLflowIntegrationError, RetrainingError
from tsclust_model.metrics import RMSE
from tsclust_model.mlflow_integration.registry import (
    alias_version,
    load_generation,
    name_segment,
    segment_names,
)
from tsclust_model.mlflow_integration.storage import open_storage
from tsclust_model.models.compare import compare
from tsclust_model.monitoring.detectors import DriftWindow
from tsclust_model.monitoring.drift import DriftMonitor
from tsclust_model.results import BatchResult
from tsclust_model.training.challenge import retrain_model
from tsclust_model.training.lock import retrain_lock
from tsclust_model.training.train import Training, train_table
from tsclust_model.training.watch import AdaptiveRetrainingManager

TARGET = "length_of_stay_days"
CONFIG = PipelineConfig(
    hdbscan_params={"min_cluster_size": 15},
    lgb_timeseries_params=QUICK,
    lgb_resource_params=QUICK,
    retrain_cooldown_batches=4,
)
_numbers = count()


def rows(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[[*VITALS, TARGET]].astype(float).reset_index(drop=True)


def trained(frame: pd.DataFrame, config: PipelineConfig = CONFIG, prefix: str = "loop") -> Training:
    return train_table(rows(frame), Roles(TARGET), config, model_name=f"{prefix}-{next(_numbers)}")


def again(training: Training, config: PipelineConfig = CONFIG, reason: str = "test", **options):
    return retrain_model(
        training.generation, training.version, training.model_name, config, reason, **options
    )


def aliases(name: str) -> dict[str, str | None]:
    return {alias: alias_version(name, alias) for alias in ("champion", "challenger", "previous")}


def versions(name: str) -> int:
    return len(MlflowClient().search_model_versions(f"name = '{name}'"))


def history_files(name: str, config: PipelineConfig = CONFIG) -> dict[str, bytes]:
    folder = open_storage(config, name).history.base_dir
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


@pytest.fixture(scope="module")
def stream() -> pd.DataFrame:
    return make_hospital(1200, random_state=3)


@pytest.fixture(scope="module")
def moved() -> pd.DataFrame:
    """Admissions of a hospital that is no longer the one of `stream`."""
    return make_hospital(2400, random_state=4, drift=5.0).tail(600)


@pytest.fixture(scope="module")
def trained_once() -> list[Training]:
    return []


@pytest.fixture
def training(store, stream, trained_once) -> Training:
    """A model of the first 500 admissions: a copy, with its history, of one trained once."""
    if not trained_once:
        trained_once.append(trained(stream.head(500)))
    (first,) = trained_once
    name = f"copy-{next(_numbers)}"
    client = MlflowClient()
    version = client.copy_model_version(f"models:/{first.model_name}/1", name).version
    client.set_registered_model_alias(name, "champion", version)
    folders = [open_storage(CONFIG, found).history.base_dir for found in (first.model_name, name)]
    shutil.copytree(*folders)
    return replace(first, model_name=name)


# -- comparing ---------------------------------------------------------------------------------


def test_a_comparison_is_the_paired_difference_of_squared_errors(generation, hospital):
    worse = replace(generation, target=replace(generation.target, weight=0.0))
    frame = hospital.tail(200)
    old, new = worse.losses(frame), generation.losses(frame)
    y = frame[TARGET].to_numpy()
    predicted = generation.predict(frame)["prediction"].to_numpy(dtype=float)
    np.testing.assert_array_equal(new, (y - predicted) ** 2)
    found = compare(worse, generation, frame, 0.001)
    assert found.n_rows == 200
    assert found.champion == np.sqrt(old.mean())
    assert found.challenger == np.sqrt(new.mean())
    assert found.improvement == pytest.approx(1 - np.sqrt(new.mean() / old.mean()))
    assert found.difference == pytest.approx((old - new).mean())
    assert found.standard_error == pytest.approx((old - new).std(ddof=1) / np.sqrt(200))
    assert not found.better  # by 0.2%, which is less than chance
    assert found.reason == (
        f"RMSE {found.challenger:.4g} against the champion's {found.champion:.4g} "
        f"on 200 rows: {found.improvement:+.1%}, above the margin of 0.1% by not more than 1.002 "
        "standard errors of 200 rows"
    )


def test_the_same_model_is_not_better_than_itself(generation, hospital):
    found = compare(generation, generation, hospital.tail(50), 0.0)
    assert (found.improvement, found.difference, found.better) == (0.0, 0.0, False)
    assert "not above the margin of 0.0%" in found.reason


class Given:
    """Stands for a model whose losses are known; rows are positions."""

    metric = RMSE

    def __init__(self, losses) -> None:
        self.all = np.asarray(losses, dtype=float)

    def losses(self, rows) -> np.ndarray:
        return self.all[rows]


def judged(old, new, margin=0.0, groups=None):
    groups = None if groups is None else np.asarray(groups)
    return compare(Given(old), Given(new), np.arange(len(old)), margin, groups)


def test_a_tenth_of_a_percent_on_22_rows_is_no_improvement():
    old = np.random.default_rng(0).gamma(1.0, 4.0, 22)
    new = old * np.where(np.arange(22) % 2, 1.3, 0.7)
    new *= old.mean() * 0.999**2 / new.mean()
    found = judged(old, new)
    assert found.improvement == pytest.approx(0.001)
    assert not found.better
    assert found.reason.endswith(
        "22 rows: +0.1%, above the margin of 0.0% by not more than 1.024 standard errors of 22 rows"
    )


def test_a_challenger_must_be_better_by_the_margin_and_more_than_chance():
    rng = np.random.default_rng(1)
    old = rng.gamma(2.0, 1.0, 400)
    new = old * 0.64 + rng.normal(0, 0.1, 400)  # RMSE is about a fifth lower
    improvement = judged(old, new).improvement
    assert judged(old, new, improvement - 0.05).better
    assert not judged(old, new, improvement - 1e-6).better
    assert not judged(old, new, improvement).better
    # The rule is that of the paired differences beyond the margin.
    for margin in np.linspace(improvement - 0.05, improvement, 40):
        paired = old * (1 - margin) ** 2 - new
        expected = bool(paired.mean() > 1.00107 * paired.std(ddof=1) / 20)
        assert judged(old, new, margin).better is expected


def test_copies_of_a_patient_prove_nothing_more():
    old, new = np.array([4.0, 4.0, 4.0, 4.0, 1.0]), np.array([3.0, 3.0, 3.5, 3.0, 0.9])
    assert judged(old, new).better
    many = judged(np.repeat(old, 30), np.repeat(new, 30), groups=np.repeat(np.arange(5), 30))
    assert many.n_rows == 150
    assert many.n_units == 5
    assert many.standard_error == pytest.approx(judged(old, new).standard_error)
    two = judged(np.tile([4.0, 4.0], 50), np.tile([3.0, 3.9], 50), groups=np.tile([0, 1], 50))
    assert not two.better
    assert two.reason.endswith("not more than 1.837 standard errors of 2 ids")


@pytest.mark.parametrize(
    ("old", "new"),
    [([4.0], [1.0]), ([np.inf, 4.0, 4.0], [1.0, 1.0, 1.0]), ([4.0] * 3, [np.inf] * 3)],
)
def test_one_row_or_an_infinite_error_prove_nothing(old, new):
    assert not judged(old, new).better


def test_rows_that_cannot_be_scored_are_left_out_of_a_comparison(generation, hospital):
    frame = hospital.tail(60).reset_index(drop=True)
    frame.loc[:9, "age"] = np.nan
    found = compare(generation, generation, frame, 0.0)
    assert found.n_rows == 50
    assert found.champion == compare(generation, generation, frame[10:], 0.0).champion


def test_without_rows_nobody_is_better(generation, hospital):
    found = compare(generation, generation, hospital.head(0), 0.0)
    assert (found.n_rows, found.improvement, found.better) == (0, None, False)
    assert found.reason == "there are no labelled rows that neither model was trained on"


# -- the lock ----------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from tsclust_model.training.lock import retrain_lock
with retrain_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder() -> Iterator:
    """Hold a lock in another process: holder(path) -> the process."""
    started = []

    def hold(path: Path) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path.resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate(timeout=30)


def test_a_lock_is_held_once_and_free_afterwards(tmp_path):
    path = tmp_path / "new" / "lock"
    message = "another retrain of this model is running"
    with retrain_lock(path), pytest.raises(RetrainingError, match=message), retrain_lock(path):
        raise AssertionError("both hold it")
    with retrain_lock(path):
        pass


def test_a_lock_is_free_after_an_error(tmp_path):
    with pytest.raises(KeyError), retrain_lock(tmp_path / "lock"):
        raise KeyError
    with retrain_lock(tmp_path / "lock"):
        pass


def test_a_lock_whose_owner_was_killed_is_free(tmp_path, holder):
    path = tmp_path / "lock"
    owner = holder(path)
    with pytest.raises(RetrainingError, match="running; wait for it"), retrain_lock(path):
        raise AssertionError("both hold it")
    os.kill(owner.pid, signal.SIGKILL)
    assert owner.wait(timeout=30) == -signal.SIGKILL
    with retrain_lock(path):
        pass


def test_a_retrain_beside_another_process_is_refused_and_changes_nothing(training, holder):
    name = training.model_name
    holder(open_storage(CONFIG, name).retrain_lock)
    before = aliases(name), versions(name), history_files(name)
    manager = AdaptiveRetrainingManager(
        training.generation.reference, CONFIG, lambda reason: again(training, reason=reason)
    )
    assert manager.request_manual_retraining("a person") is False
    status = manager.get_retraining_status()
    assert status["last_refusal"] == "another retrain of this model is running; wait for it"
    assert (aliases(name), versions(name), history_files(name)) == before
    assert any("refused" in line for line in manager.get_retraining_recommendations())


def retrain_when_told(uri: str, name: str, start, answers) -> None:
    """In a process of its own: retrain `name` as a person asks for it."""
    mlflow.set_tracking_uri(uri)
    champion = load_generation(f"models:/{name}/1")
    manager = AdaptiveRetrainingManager(
        champion.reference,
        CONFIG,
        lambda reason: retrain_model(champion, "1", name, CONFIG, reason),
    )
    start.wait(60)
    answers.put((manager.request_manual_retraining("both"), manager.last_refusal))


def test_of_two_retrains_at_once_one_runs(store, training, stream):
    name = training.model_name
    open_storage(CONFIG, name).history.register(rows(stream[500:700]))
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=retrain_when_told, args=(store, name, start, answers))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    found = sorted(answers.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(30)
    assert found == [(False, "another retrain of this model is running; wait for it"), (True, "")]
    assert versions(name) == 2


# -- the manager -------------------------------------------------------------------------------


def batch_result(n: int, noise_ratio: float = 0.0) -> BatchResult:
    return BatchResult(np.zeros(n, dtype=int), np.zeros(n), {}, noise_ratio, 0.0)


@pytest.fixture
def manager(generation):
    """A manager whose retrains are counted: manager.calls holds their reasons."""
    clock, calls = Clock(), []

    def retrain(reason: str) -> None:
        calls.append(reason)
        found.start_over(generation.reference)

    config = replace(CONFIG, noise_threshold=0.3)
    found = AdaptiveRetrainingManager(generation.reference, config, retrain, clock=clock)
    found.clock, found.calls = clock, calls
    return found


@pytest.fixture(scope="module")
def usual(generation, hospital) -> np.ndarray:
    return generation.schema.encode(hospital.tail(300)).X


def test_a_schedule_is_due_when_the_interval_is_over(manager):
    week = timedelta(days=7)
    manager.clock.now += week - timedelta(seconds=1)
    assert manager.check_scheduled_retraining(week) is False
    manager.clock.now += timedelta(seconds=1)
    assert manager.check_scheduled_retraining(week) is True
    assert manager.calls == ["schedule: every 7 days, 0:00:00"]
    assert manager.check_scheduled_retraining(week) is False
    assert manager.get_retraining_status()["last_training_time"] == START + week


def test_a_schedule_survives_a_clock_that_goes_backwards(manager):
    day = timedelta(days=1)
    manager.clock.now += timedelta(hours=12)
    assert not manager.check_scheduled_retraining(day)
    manager.clock.now = START - timedelta(days=365)
    assert not manager.check_scheduled_retraining(day)
    manager.clock.now += day - timedelta(seconds=1)
    assert not manager.check_scheduled_retraining(day)
    manager.clock.now += timedelta(seconds=1)
    assert manager.check_scheduled_retraining(day)
    assert len(manager.calls) == 1


def test_a_person_gets_a_retrain_at_once(manager):
    assert manager.request_manual_retraining("new ward") is True
    assert manager.calls == ["new ward"]
    assert manager.get_retraining_status()["last_reason"] == "new ward"


def test_a_refused_retrain_is_false_and_says_why(generation):
    def refuse(reason: str) -> None:
        raise RetrainingError("not today")

    manager = AdaptiveRetrainingManager(generation.reference, CONFIG, refuse, clock=Clock())
    assert manager.request_manual_retraining("a person") is False
    assert manager.get_retraining_status()["last_refusal"] == "not today"
    assert manager.get_retraining_recommendations() == ["The last retrain was refused: not today."]


def test_usual_batches_call_for_nothing(manager, usual):
    ratio = manager.reference.noise_ratio
    for _ in range(10):
        assert manager.monitor_batch_result(batch_result(300, ratio), usual) is False
    assert manager.calls == []
    assert manager.get_retraining_recommendations() == []


def test_moved_features_call_for_a_retrain_and_the_cooldown_holds_the_next(manager, usual):
    found = [manager.monitor_batch_result(batch_result(300), usual + 30) for _ in range(8)]
    # Two of three windows; a retrain starts over, and four windows raise no alarm.
    assert found == [False, True, False, False, False, False, True, False]
    assert len(manager.calls) == 2
    assert "feature(s) moved" in manager.calls[0]
    assert manager.get_retraining_status()["cooldown_batches_left"] == 3


def test_a_batch_is_watched_in_whatever_form_it_comes(generation, usual):
    names = list(generation.schema.names)
    moved = usual + 30
    table = pd.DataFrame(moved, columns=names)
    forms = [
        moved,
        moved.tolist(),
        table,
        table[names[::-1]].assign(more="x"),
        dict(zip(names, moved.T, strict=True)),
        {"X": moved, "y": None},
        {"X": table},
    ]
    for form in forms:
        manager = AdaptiveRetrainingManager(generation.reference, CONFIG, clock=Clock())
        found = [manager.monitor_batch_result(batch_result(300), form) for _ in range(2)]
        assert found == [False, True], type(form)


def test_outcomes_beside_the_batch_are_watched(generation, usual):
    manager = AdaptiveRetrainingManager(generation.reference, CONFIG, clock=Clock())
    wrong = {"X": usual, "y": np.full(300, 1e3)}
    assert [manager.monitor_batch_result(batch_result(300), wrong) for _ in range(2)] == [
        False,
        True,
    ]
    assert "RMSE 1000 is over" in manager.drift.reason


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda X: X[:-1], "batch_data has 299 rows, batch_result 300"),
        (lambda X: X[:, 1:], r"batch_data has the shape \(300, \d+\); give \(n, "),
        (lambda X: {"beds": [1.0] * 300}, "batch_data has no column '"),
        (lambda X: None, "batch_data has the shape|is a NoneType"),
        (lambda X: "batch", "batch_data is a str, no table of numbers"),
        (lambda X: {"X": X, "y": [1.0]}, "y has 1 values for 300 rows"),
    ],
)
def test_what_is_no_batch_is_refused_in_one_line(generation, usual, form, message):
    manager = AdaptiveRetrainingManager(generation.reference, CONFIG, clock=Clock())
    with pytest.raises(DataValidationError, match=message) as caught:
        manager.monitor_batch_result(batch_result(300), form(usual))
    assert "\n" not in str(caught.value)
    assert manager.n_batches == 0


def test_much_noise_calls_for_a_retrain(manager, usual):
    noisy = batch_result(300, 0.6)
    assert [manager.monitor_batch_result(noisy, usual) for _ in range(2)] == [False, True]
    assert manager.calls[0].startswith("noise ratio 0.60 is over noise_threshold 0.30")


def test_labels_that_come_late_call_for_a_retrain_with_the_next_batch(manager, usual):
    bad = np.full(300, 100 * manager.reference.usual_loss)
    manager.record_losses(usual, bad)
    manager.record_losses(usual, bad)
    assert manager.calls == []
    assert manager.get_retraining_status()["drift_detected"] is True
    assert manager.monitor_batch_result(batch_result(300), usual) is True
    assert manager.calls[0].startswith("RMSE ")
    assert manager.monitor_batch_result(batch_result(300), usual) is False


def test_without_a_way_to_retrain_the_manager_only_says_so(generation, usual):
    manager = AdaptiveRetrainingManager(generation.reference, CONFIG, clock=Clock())
    found = [manager.monitor_batch_result(batch_result(300), usual + 30) for _ in range(2)]
    assert found == [False, True]
    (line,) = manager.get_retraining_recommendations()
    assert line.startswith("Retrain: ")
    assert "KS" in line


def test_noise_that_was_there_in_training_is_a_recommendation_with_figures(generation, usual):
    reference = replace(generation.reference, noise_ratio=0.5, usual_noise=0.55)
    manager = AdaptiveRetrainingManager(reference, CONFIG, clock=Clock())
    for _ in range(3):
        assert manager.monitor_batch_result(batch_result(300, 0.5), usual) is False
    assert manager.get_retraining_recommendations() == [
        "Mean noise of the last 3 batches is 0.50, over noise_threshold 0.30, but it was 0.50 in "
        "training: raise noise_threshold, or lower hdbscan_params.min_cluster_size at the next "
        "retrain."
    ]


def test_another_configuration_holds_from_the_next_batch_on(manager, usual):
    manager.configure(replace(CONFIG, noise_threshold=0.9))
    noisy = batch_result(300, 0.6)
    assert not any(manager.monitor_batch_result(noisy, usual) for _ in range(3))


# -- the loop ----------------------------------------------------------------------------------


def test_a_better_challenger_is_promoted_and_tagged(training, stream, moved):
    name = training.model_name
    open_storage(CONFIG, name).history.register(rows(moved))
    done = again(training, reason="the hospital moved")
    assert done.promoted
    assert done.version == "2"
    assert aliases(name) == {"champion": "2", "challenger": "2", "previous": "1"}
    tags = MlflowClient().get_model_version(name, "2").tags
    found = done.comparison
    assert tags["promoted.from"] == tags["challenged"] == "1"
    assert tags["promoted.reason"] == tags["trigger"] == "the hospital moved"
    assert tags["promoted.comparison"] == found.reason
    assert tags["promoted.rmse_champion"] == str(found.champion)
    assert tags["promoted.rmse_challenger"] == str(found.challenger)
    assert found.improvement > 0
    assert done.report["comparison"]["standard_error"] == found.standard_error
    assert done.report["comparison"]["rmse_champion"] == found.champion
    run = mlflow.get_run(done.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["phase"] == "retraining"
    assert run.data.tags["trigger"] == "the hospital moved"
    unseen = rows(make_hospital(2400, random_state=5, drift=5.0).tail(600))
    before, after = (g.losses(unseen) for g in (training.generation, done.generation))
    assert after.mean() < before.mean()


def test_models_are_compared_on_rows_neither_was_trained_on(training, stream):
    name = training.model_name
    history = open_storage(CONFIG, name).history
    batch = rows(stream[500:680])
    history.register(batch)
    done = again(training, promote=False)
    # The window is 680 rows: 544 are fitted, and of the newest 136 all are of the new batch.
    assert list(training.generation.info["trained_on"].values()) == [[0, 500]]
    assert done.generation.info["trained_on"] == training.generation.info["trained_on"] | {
        history.get_latest_version(): [0, 44]
    }
    expected = compare(training.generation, done.generation, batch[44:], 0.0)
    assert expected.n_rows == done.comparison.n_rows == 136
    assert done.comparison.champion == pytest.approx(expected.champion, rel=1e-12)
    assert done.comparison.challenger == pytest.approx(expected.challenger, rel=1e-12)


def test_rows_of_the_champion_are_left_out_of_the_comparison(training, stream):
    batch = rows(stream[500:550])
    open_storage(CONFIG, training.model_name).history.register(batch)
    done = again(training, promote=False)
    # The window is 550 rows and its newest 110 hold 60 that the champion knows.
    assert done.generation.info["n_rows"] == 440
    expected = compare(training.generation, done.generation, batch, 0.0)
    assert expected.n_rows == done.comparison.n_rows == 50
    assert done.comparison.champion == pytest.approx(expected.champion, rel=1e-12)


def test_the_window_is_the_newest_rows_and_a_batch_may_be_cut(training, stream):
    config = replace(CONFIG, expanding_window_size=300)
    open_storage(config, training.model_name).history.register(rows(stream[500:600]))
    done = again(training, config, promote=False)
    (first,) = training.generation.info["trained_on"]
    assert done.generation.info["trained_on"][first] == [300, 500]
    assert done.generation.info["n_rows"] == 240


def test_right_after_the_fit_a_challenger_has_no_rows_to_show_itself_on(training):
    done = again(training)
    assert not done.promoted
    assert done.comparison.n_rows == 0
    assert done.comparison.reason == (
        "there are no labelled rows that neither model was trained on"
    )
    assert aliases(training.model_name) == {"champion": "1", "challenger": "2", "previous": None}


def test_a_challenger_below_the_margin_is_not_promoted(training, moved):
    name = training.model_name
    config = replace(CONFIG, promotion_margin=1.0)
    open_storage(config, name).history.register(rows(moved))
    done = again(training, config)
    assert not done.promoted
    assert done.comparison.improvement > 0
    assert done.comparison.reason.endswith("not above the margin of 100.0%")
    assert aliases(name) == {"champion": "1", "challenger": "2", "previous": None}
    assert "promoted.at" not in MlflowClient().get_model_version(name, "2").tags


def test_promotion_can_be_switched_off(training, moved):
    open_storage(CONFIG, training.model_name).history.register(rows(moved))
    done = again(training, promote=False)
    assert done.comparison.better
    assert not done.promoted
    assert aliases(training.model_name)["champion"] == "1"


def test_a_champion_that_somebody_moved_meanwhile_stays(training, moved):
    name = training.model_name
    open_storage(CONFIG, name).history.register(rows(moved))
    client = MlflowClient()
    copy = client.copy_model_version(f"models:/{name}/1", name)
    client.set_registered_model_alias(name, "champion", copy.version)
    before = history_files(name)
    with pytest.raises(MLflowIntegrationError, match="was moved from version 1 to 2 meanwhile"):
        again(training)
    assert alias_version(name, "champion") == "2"
    assert alias_version(name, "previous") is None
    assert history_files(name) == before


def failing(case: str) -> PipelineConfig:
    if case == "few rows":
        return replace(CONFIG, expanding_window_size=40)
    return replace(CONFIG, hdbscan_params={"min_cluster_size": 5000})


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("few rows", "40 labelled rows are too few for a retrain, which needs 50"),
        ("one class of rows", "the challenger could not be fitted: .*min_cluster_size=5000"),
    ],
)
def test_a_failed_retrain_changes_nothing(training, case, message):
    config = failing(case)
    name = training.model_name
    before = aliases(name), versions(name), history_files(name)
    with pytest.raises(RetrainingError, match=message):
        again(training, config)
    assert (aliases(name), versions(name), history_files(name)) == before
    with retrain_lock(open_storage(config, name).retrain_lock):
        pass


def test_a_column_that_is_constant_in_the_window_is_left_out(training, stream):
    constant = rows(stream[500:900]).assign(age=50.0)
    open_storage(CONFIG, training.model_name).history.register(constant)
    with pytest.warns(UserWarning, match="left out, because they hold one value only or none: age"):
        challenger = again(training, replace(CONFIG, expanding_window_size=400)).generation
    assert "age" not in challenger.schema.names
    assert challenger.given_features == training.generation.schema.names


def test_labels_that_came_later_are_in_the_window(training, stream):
    history = open_storage(CONFIG, training.model_name).history
    batch = rows(stream[500:600])
    version_id = history.register(batch.drop(columns=TARGET))
    assert again(training, promote=False).comparison.n_rows == 0
    history.record_outcomes(version_id, {TARGET: batch[TARGET].to_numpy()})
    assert again(training, promote=False).comparison.n_rows == 100


# -- who is who after a retrain ----------------------------------------------------------------


def refitted(frame: pd.DataFrame, first: int, window: slice, **params):
    """Fit on the first rows, retrain on a later window, and return both and that window's rows.

    The newest fifth of what a retrain reads is held back, so that it reads more than the window.
    """
    read = round((window.stop - window.start) / 0.8)
    config = replace(
        CONFIG,
        hdbscan_params={"min_cluster_size": 20, "min_samples": 5} | params,
        expanding_window_size=read,
        promotion_margin=1.0,  # what is registered is the compared model, not its refit
    )
    training = trained(frame.head(first), config, "ids")
    batch = rows(frame.iloc[first : window.start + read])
    open_storage(config, training.model_name).history.register(batch)
    done = again(training, config, promote=False)
    assert done.generation.info["n_rows"] == window.stop - window.start
    return training, done, rows(frame.iloc[window])


def labels(generation, frame: pd.DataFrame) -> np.ndarray:
    return generation.assign(generation.schema.encode(frame).X).labels


@pytest.mark.parametrize("drift", [0.0, 1.5])
def test_rows_keep_their_id_through_a_refit_on_a_window_that_overlaps_by_80_percent(store, drift):
    frame = make_hospital(2500, random_state=7, drift=drift)
    training, done, window = refitted(frame, 1500, slice(300, 1800))
    old, new = training.generation, done.generation
    assert old.cluster_ids == new.cluster_ids == [0, 1, 2, 3, 4]
    assert (labels(old, window) == labels(new, window)).mean() >= 0.95
    assert new.info["lineage"]["born"] == new.info["lineage"]["retired"] == []


def test_every_surviving_segment_keeps_its_id_beside_a_birth_and_a_death(store):
    frame, kind_of = make_hospital(3000, random_state=7, dying=0.3, born=0.55, return_kind=True)
    training, done, window = refitted(frame, 1500, slice(1000, 2500))
    old, new = training.generation, done.generation
    kinds = kind_of[1000:2500]

    def segment(generation, kind: int) -> int:
        found = pd.Series(labels(generation, window)[kinds == kind])
        return int(found.mode()[0])

    surviving = {kind: segment(old, kind) for kind in (0, 1, 2, 3)}
    assert len(set(surviving.values())) == 4
    assert {kind: segment(new, kind) for kind in (0, 1, 2, 3)} == surviving
    lineage = new.info["lineage"]
    (gone,) = set(old.cluster_ids) - set(surviving.values())
    assert lineage["retired"] == [gone]
    assert lineage["born"] == [5]  # the retired number is not used again
    assert lineage["next_id"] == 6
    assert segment(new, 5) == 5
    assert new.cluster_ids == sorted([*surviving.values(), 5])


def test_a_retired_id_is_not_used_by_a_later_generation_either(store):
    frame = make_hospital(3000, random_state=7, dying=0.3, born=0.55)
    _, done, _ = refitted(frame, 1500, slice(1000, 2500))
    (gone,) = done.generation.info["lineage"]["retired"]
    name = done.model_name
    history = open_storage(CONFIG, name).history
    history.register(rows(make_hospital(1500, random_state=12)))  # obstetrics are back
    config = replace(
        CONFIG,
        hdbscan_params={"min_cluster_size": 20, "min_samples": 5},
        expanding_window_size=1500,
    )
    third = retrain_model(done.generation, done.version, name, config, "test", promote=False)
    assert gone not in third.generation.cluster_ids
    assert third.generation.info["lineage"]["born"] == [6]
    assert third.generation.info["lineage"]["retired"] == [5]


def test_names_follow_the_ids_of_segments(training, moved):
    name = training.model_name
    kept = training.generation.cluster_ids[1]
    name_segment(name, kept, "post-op, long stay")
    open_storage(CONFIG, name).history.register(rows(moved))
    done = again(training)
    assert segment_names(name) == {kept: "post-op, long stay"}
    assert str(kept) in done.generation.info["lineage"]["kept"]


def test_served_bits_of_a_registered_challenger_are_those_of_the_retrain(training, stream, moved):
    open_storage(CONFIG, training.model_name).history.register(rows(moved))
    done = again(training)
    served = load_generation(f"models:/{training.model_name}@champion")
    pd.testing.assert_frame_equal(
        served.predict(rows(stream).tail(50)),
        done.generation.predict(rows(stream).tail(50)),
        check_exact=True,
    )


def test_a_manager_learns_again_as_labelled_rows_since_the_drift_double(manager, usual):
    manager.start_over(manager.reference, learned={"n_after": 600, "n_rows": 2400})
    losses = np.full(300, manager.reference.loss_mean)
    batch = batch_result(300)
    assert manager.monitor_batch_result(batch, usual, losses) is False
    assert manager.monitor_batch_result(batch, usual) is False  # no labels
    assert manager.monitor_batch_result(batch, usual, losses) is True
    # Nobody was promoted; half as many again are tried next, in whichever process.
    state = manager.state()
    manager.start_over(manager.reference, learned={"n_after": 600, "n_rows": 2400})
    manager.restore(state)
    assert manager.monitor_batch_result(batch, usual, losses) is True
    assert manager.monitor_batch_result(batch, usual, losses) is False
    begin = "the model has learned from 600 rows since the drift, and "
    ends = [f"{n} more are labelled now" for n in (600, 900)]
    assert manager.calls == [begin + end for end in ends]


# -- what serves after a drift -----------------------------------------------------------------

PLAIN = PipelineConfig(
    hdbscan_params={"min_cluster_size": 20}, lgb_timeseries_params=QUICK | {"n_estimators": 40}
)
PLAIN_ROLES = Roles("y")


def plain(n: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    """Rows of three kinds; after the break the features are 30, and y is 100, higher."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, n)
    X = kind[:, None] * 4.0 + rng.normal(size=(n, 3))
    y = 10 + 5 * kind + 2 * X[:, 0] + rng.normal(0, 1, n) + 100 * shift
    frame = pd.DataFrame(X + 30 * shift, columns=list("abc"))
    return frame.assign(y=y)


@pytest.fixture(scope="module")
def before_break() -> pd.DataFrame:
    return plain(600, 1)


def broken(before_break: pd.DataFrame, n_after: int, **options):
    """Train before a break, add rows after it, and retrain: the retraining and the batch's id."""
    name = f"broken-{next(_numbers)}"
    training = train_table(before_break, PLAIN_ROLES, PLAIN, model_name=name)
    history = open_storage(PLAIN, name).history
    history.register(plain(100, 2))
    batch = history.register(plain(n_after, 3, 1.0))
    known = (training.generation, "1", name, PLAIN, "a break")
    done = retrain_model(*known, since=[(batch, 0)], **options)
    return done, batch


def test_what_serves_after_a_drift_is_fitted_on_every_row_and_knows_its_own_error(
    store, before_break
):
    done, batch = broken(before_break, 300)
    # The newest half of the rows since the break decides, the refit has seen them all.
    assert done.promoted
    assert done.comparison.n_rows == 150
    generation = done.generation
    assert generation.info["n_rows"] == 1000
    assert generation.info["trained_on"][batch] == [0, 300]
    tags = MlflowClient().get_model_version(done.model_name, done.version).tags
    assert tags["refitted"] == "True"
    assert tags["promoted.rmse_challenger"] == str(done.comparison.challenger)
    # A retrained model whose reference and intervals come from folds across the break cannot see
    # its own error: the folds' error is that of the break.
    across = generation.target.scores.errors["blend"]
    assert across > 5 * done.comparison.challenger
    assert generation.reference.loss_mean == pytest.approx(done.comparison.challenger**2)
    assert generation.reference.loss_rows == 150
    assert generation.reference.features.mean == pytest.approx(
        plain(300, 3, 1.0)[["a", "b", "c"]].mean().to_numpy()
    )
    later = plain(400, 4, 1.0)
    found = generation.predict(later, 0.9)
    assert np.sqrt(generation.losses(later).mean()) < 1.5 * done.comparison.challenger
    width = (found["prediction_upper"] - found["prediction_lower"]).mean()
    assert width < 6 * done.comparison.challenger
    inside = (found["prediction_lower"] <= later["y"]) & (later["y"] <= found["prediction_upper"])
    assert inside.mean() > 0.85
    # And it sees when it is wrong: three times its error alarms at once, as does the next shift.
    encoded = generation.schema.encode(later)
    monitor = DriftMonitor(generation.reference)
    losses = 9 * np.full(200, generation.reference.loss_mean)
    wrong = DriftWindow(encoded.X[:200], np.zeros(200, dtype=bool), losses)
    assert [monitor.update(wrong) for _ in range(2)] == [False, True]
    assert monitor.reason.startswith("RMSE ")
    back = generation.schema.encode(plain(200, 5)).X
    monitor = DriftMonitor(generation.reference)
    returned = DriftWindow(back, np.zeros(200, dtype=bool))
    assert [monitor.update(returned) for _ in range(2)] == [False, True]


def test_a_refit_that_may_not_serve_is_the_challenger(store, before_break):
    done, batch = broken(before_break, 300, promote=False)
    assert not done.promoted
    assert done.generation.info["trained_on"][batch] == [0, 300]
    assert aliases(done.model_name) == {"champion": "1", "challenger": "2", "previous": None}


def test_the_report_of_a_refit_is_of_rows_that_its_forecasts_have_not_seen(store, before_break):
    done, _ = broken(before_break, 300)
    assert done.report["holdout"]["rmse"] == pytest.approx(done.comparison.challenger)
    assert done.report["refitted"] is True
