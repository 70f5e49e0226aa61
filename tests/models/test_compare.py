"""Whether the challenger is better than the champion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tsclust_model.metrics import RMSE
from tsclust_model.models.compare import compare

TARGET = "length_of_stay_days"


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
