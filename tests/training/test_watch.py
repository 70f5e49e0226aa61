"""When a retrain is due."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from tests.support import START, Clock
from tests.training.retrains import CONFIG
from tsclust_model.errors import DataValidationError, RetrainingError
from tsclust_model.results import BatchResult
from tsclust_model.training.watch import AdaptiveRetrainingManager


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
    assert "feature(s) drifted" in manager.calls[0]
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


def test_noise_that_was_not_there_in_training_asks_for_outcomes_and_a_retrain(generation, usual):
    reference = replace(generation.reference, noise_ratio=0.07, usual_noise=0.1)
    manager = AdaptiveRetrainingManager(reference, CONFIG, clock=Clock())
    assert manager.monitor_batch_result(batch_result(300, 0.5), usual) is False
    assert manager.get_retraining_recommendations() == [
        "Noise of the last batch is 0.50, over noise_threshold 0.30, and it was 0.07 in training: "
        "record the outcomes of these rows, and a retrain can find segments for them."
    ]


def test_another_configuration_holds_from_the_next_batch_on(manager, usual):
    manager.configure(replace(CONFIG, noise_threshold=0.9))
    noisy = batch_result(300, 0.6)
    assert not any(manager.monitor_batch_result(noisy, usual) for _ in range(3))


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
