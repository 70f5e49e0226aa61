"""What segments are credited with: only what they save beyond shuffled ones."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from tests.support import HOSPITAL_CONFIG, HOSPITAL_ROLES
from tsclust_model.boosting.segment_gain import SegmentGain, gain_sentence, mean_error, segment_gain
from tsclust_model.config import PipelineConfig
from tsclust_model.data.roles import Roles
from tsclust_model.rows.figures import performance_figures, shuffled_control
from tsclust_model.rows.fit import fit_generation
from tsclust_model.rows.table import training_data
from tsclust_model.training.publish import headline

QUICK = {"n_estimators": 25}


def test_the_gain_is_a_share_of_the_global_error_beyond_the_control():
    everyone = np.array([4.0, 4.0, 4.0, 4.0])
    served = np.array([1.0, 1.0, 1.0, 1.0])
    control = np.array([4.0, 2.25, 4.0, 2.25])
    gain = segment_gain(everyone, served, control, root=True)
    root = math.sqrt(3.125)
    spread = math.sqrt(4 * 0.875**2 / 3 / 4)  # of the mean of 3, 1.25, 3, 1.25
    assert gain.saved == pytest.approx(0.5)
    assert gain.control == pytest.approx(1 - root / 2)
    assert gain.beyond == pytest.approx((root - 1) / 2)
    assert gain.error == pytest.approx(spread / (root + 1) / 2)
    assert gain.earned
    plain = segment_gain(everyone, served, control, root=False, only_segments=False)
    assert plain == SegmentGain(
        None, None, pytest.approx(2.125 / 4), pytest.approx(spread / 4), True
    )


def test_nothing_is_a_share_of_no_error():
    none = np.zeros(3)
    assert segment_gain(none, none, none, root=True) is None
    assert segment_gain(none[:0], none[:0], none[:0], root=True) is None
    assert segment_gain(none + 1, none, none, root=True).error == 0.0


def test_rows_of_a_patient_and_of_a_fold_go_together():
    values = np.array([1.0, 1.0, 0.0, 0.0])
    rows = math.sqrt(1 / 3) / 2
    assert mean_error(values) == pytest.approx(rows)
    assert mean_error(values, units=np.arange(4)) == pytest.approx(rows)
    assert mean_error(values, units=np.array([7, 7, 9, 9])) == pytest.approx(0.5)
    assert mean_error(values, parts=np.array([0, 0, 1, 1])) == pytest.approx(0.5)
    assert mean_error(values, parts=np.zeros(4), units=np.zeros(4)) == pytest.approx(rows)
    assert mean_error(values[:1]) is None


@pytest.mark.parametrize(
    ("folds", "spread", "earned"),
    [
        ((2.0, 2.0), 1.0, True),
        ((2.0, 0.5), 1.0, True),  # both gain
        ((3.0, -0.1), 1.0, False),  # they disagree
        ((2.0, 2.0), 20.0, False),  # within two standard errors over rows
    ],
)
def test_a_gain_is_earned_over_rows_and_in_both_folds(folds, spread, earned):
    rows = np.tile([-1.0, 1.0], 20) * spread
    control = 100 + np.concatenate([fold + rows for fold in folds])
    served = np.full(80, 100.0)
    gain = segment_gain(served, served, control, root=False, parts=np.repeat([0, 1], 40))
    assert gain.beyond == pytest.approx(np.mean(folds) / 100)
    assert gain.earned is earned


@pytest.mark.parametrize(
    ("gain", "weight", "sentence"),
    [
        (
            SegmentGain(0.172, 0.001, 0.171, 0.009, True),
            1.0,
            "Segments save 17.2% of the error, 17.1% ± 0.9% beyond shuffled segments",
        ),
        (
            SegmentGain(0.006, 0.005, 0.001, 0.002, False),
            0.25,
            "Segments do not improve the forecast here: they save 0.6% of the error and shuffled "
            "segments 0.5%, a difference of 0.1% ± 0.2%; use them to describe",
        ),
        (
            SegmentGain(0.126, 0.0, 0.126, 0.07, False),
            0.5,
            "Segments may improve the forecast here, but it is not certain: they save 12.6% of the "
            "error and shuffled segments 0.0%, a difference of 12.6% ± 7.0%; use them to describe",
        ),
        (
            SegmentGain(0.0, 0.005, -0.005, 0.002, False),
            0.0,
            "Segments do not improve the forecast here: they have weight 0; use them to describe",
        ),
        (
            SegmentGain(None, None, 0.031, 0.01, True),
            0.2,
            "Segments save 3.1% ± 1.0% of the error beyond shuffled segments",
        ),
        (
            SegmentGain(None, None, 0.001, 0.01, False),
            0.1,
            "Segments do not improve the forecast here: they save 0.1% ± 1.0% of the error beyond "
            "shuffled segments; use them to describe",
        ),
        (
            SegmentGain(0.1, 0.0, 0.1, None, False),
            0.5,
            "Segments do not improve the forecast here: they save 10.0% of the error and shuffled "
            "segments 0.0%; use them to describe",
        ),
    ],
)
def test_what_segments_are_credited_with_in_words(gain, weight, sentence):
    assert gain_sentence(gain.to_dict(), weight) == sentence


def trained(frame: pd.DataFrame, roles: Roles, config: PipelineConfig):
    data = training_data(frame, roles, config)
    fitted = fit_generation(data, config, {"roles": vars(roles)})
    control = shuffled_control(fitted, data, config)
    return performance_figures(fitted, data, frame, frame[:0], control)


def test_real_segments_are_credited(hospital):
    report = trained(hospital[:1500], HOSPITAL_ROLES, HOSPITAL_CONFIG)
    gain, folds = report["gain"], report["folds"]
    assert gain["earned"]
    assert gain["saved"] == pytest.approx(1 - folds["rmse_blend"] / folds["rmse_global"])
    assert gain["control"] == pytest.approx(1 - folds["rmse_control"] / folds["rmse_global"])
    assert gain["beyond"] > 0.02
    assert headline(report)["fold_saved_beyond_control"] == gain["beyond"]
    assert headline(report)["fold_saved_beyond_control_error"] == gain["error"]


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_segments_that_are_noise_are_not_credited(task):
    # One gaussian and a line: what a blend saves here, shuffled segments save as well.
    rng = np.random.default_rng(2)
    X = rng.normal(size=(900, 3))
    y = X @ [1.0, -0.5, 0.3] + rng.normal(0, 0.5, 900)
    frame = pd.DataFrame(X, columns=["a", "b", "c"]).assign(
        y=y if task == "regression" else np.where(y > 0, "yes", "no")
    )
    config = PipelineConfig(
        hdbscan_params={"min_cluster_size": 8, "min_samples": 1},
        lgb_timeseries_params=QUICK,
        combine="blend",
    )
    config = dataclasses.replace(config, min_cluster_rows=20)
    report = trained(frame, Roles("y"), config)
    assert report["clustering"]["n_clusters"] >= 2
    gain = report["gain"]
    assert not gain["earned"]
    assert "do not improve" in gain_sentence(gain, report["folds"]["cluster_weight"])
