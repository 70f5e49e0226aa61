from __future__ import annotations

import numpy as np
import pytest

from tsclust_model.config import PipelineConfig
from tsclust_model.monitoring.detectors import DriftWindow
from tsclust_model.monitoring.reference import Reference
from tsclust_model.monitoring.watch import DriftWatch, follow_up

CONFIG = PipelineConfig(retrain_cooldown_batches=4)


def draw(seed: int, shift: float = 0.0, n: int = 200) -> DriftWindow:
    X = np.random.default_rng(seed).normal(size=(n, 3)) + shift
    return DriftWindow(X, np.zeros(n, dtype=bool), source=(f"batch-{seed}", 0))


@pytest.fixture
def reference() -> Reference:
    X = np.random.default_rng(0).normal(size=(2000, 3))
    return Reference.fit(X, list("abc"), np.zeros(2000, dtype=bool), np.ones(2000))


@pytest.mark.parametrize(
    ("learned", "n_new", "n_tried", "due"),
    [
        (None, 10_000, 0, False),
        ({"n_after": 400, "n_rows": 2400}, 399, 0, False),
        ({"n_after": 400, "n_rows": 2400}, 400, 0, True),
        ({"n_after": 400, "n_rows": 2400}, 599, 400, False),
        ({"n_after": 400, "n_rows": 2400}, 600, 400, True),
        ({"n_after": 1200, "n_rows": 2400}, 10_000, 0, False),
    ],
)
def test_a_model_of_few_rows_since_a_drift_learns_again_as_they_double(
    learned, n_new, n_tried, due
):
    found = follow_up(learned, n_new, n_tried)
    assert bool(found) is due
    if due:
        assert found == (
            "the model has learned from 400 rows since the drift, "
            f"and {n_new} more are labelled now"
        )


def test_drift_is_due_until_a_retrain_answers_it(reference):
    watch = DriftWatch(reference, CONFIG)
    assert [watch.update(draw(seed, 3.0)) for seed in (1, 2, 3)] == [False, True, False]
    assert watch.due(0) == watch.reason
    assert watch.reason.startswith("3 feature(s) drifted: ")
    watch.start_over(reference)
    assert watch.due(0) == ""
    assert watch.drift.noise.pause_left == 4


def test_what_is_unanswered_stays_beside_the_next_drift(reference):
    watch = DriftWatch(reference, CONFIG)
    watch.update(draw(1, 3.0), unanswered="RMSE 3 is over 2")
    assert watch.reason == ""
    watch.update(draw(2, 3.0), unanswered="RMSE 3 is over 2")
    assert watch.reason.endswith("; RMSE 3 is over 2")


def test_a_retrain_without_a_promotion_remembers_where_drift_began_and_what_was_tried(reference):
    watch = DriftWatch(reference, CONFIG, {"n_after": 100, "n_rows": 1000})
    for seed in (1, 2):
        watch.update(draw(seed, 3.0))
    watch.start_over(reference, 120)
    assert (watch.due(179), bool(watch.due(180))) == ("", True)
    for seed in (3, 4):
        watch.update(draw(seed, 3.0))
    assert watch.drift.since == [("batch-1", 0)]


def test_a_promotion_forgets_both(reference):
    watch = DriftWatch(reference, CONFIG, {"n_after": 100, "n_rows": 1000})
    for seed in (1, 2):
        watch.update(draw(seed, 3.0))
    promoted = reference.of_losses(np.full(100, 2.0))
    watch.start_over(promoted, 120)
    assert watch.due(10_000) == ""
    assert watch.drift.reference is promoted
    for seed in (3, 4):
        watch.update(draw(seed, 3.0))
    assert watch.drift.since == [("batch-3", 0)]
