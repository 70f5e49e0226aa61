"""The rows a report is made of: errors, totals and groups, on tables small enough to check."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from tests.support import HOSPITAL_CONFIG, HOSPITAL_ROLES
from tsclust_model.boosting.segment_gain import mean_error
from tsclust_model.config import PipelineConfig
from tsclust_model.data.columns import in_time_order
from tsclust_model.data.synthetic import make_hospital
from tsclust_model.metrics import LOG_LOSS, RMSE
from tsclust_model.models.evidence import OutputRows, Pool
from tsclust_model.report.groups import segment_changes, shown_groups
from tsclust_model.rows.evaluation import evaluate_generation
from tsclust_model.rows.fit import fit_generation
from tsclust_model.rows.model import Generation
from tsclust_model.rows.report import (
    fold_evidence,
    frame_evidence,
    frame_segments,
    row_groups,
    training_segments,
)
from tsclust_model.rows.table import training_data

TARGET = HOSPITAL_ROLES.target


@pytest.fixture(scope="module")
def new_rows() -> pd.DataFrame:
    return make_hospital(300, random_state=21)


@pytest.fixture(scope="module")
def on_new_rows(generation: Generation, new_rows: pd.DataFrame):
    return frame_evidence(generation, new_rows, ["ward"], "new rows")


def test_the_error_of_a_root_is_that_of_the_delta_method(on_new_rows):
    losses = np.array([1.0, 4.0, 9.0, 2.0])
    assert on_new_rows.metric is RMSE
    assert on_new_rows.value(losses) == 2.0
    spread = math.sqrt(sum((loss - 4.0) ** 2 for loss in losses) / 3 / 4)
    assert on_new_rows.error(losses) == pytest.approx(spread / 4)
    plain = replace(on_new_rows, metric=LOG_LOSS)
    assert (plain.value(losses), plain.error(losses)) == (4.0, pytest.approx(spread))
    assert on_new_rows.error(losses[:1]) is None


def test_folds_that_disagree_make_the_error_larger_than_rows_do():
    values, parts = np.array([1.0, 1.1, 3.0, 3.1]), np.array([0, 0, 1, 1])
    assert mean_error(values, parts) == pytest.approx(np.std([1.05, 3.05], ddof=1) / math.sqrt(2))
    assert mean_error(np.array([1.0, 3.0, 1.0, 3.0]), parts) == pytest.approx(
        np.std([1.0, 3.0, 1.0, 3.0], ddof=1) / 2
    )


def test_a_total_has_the_variance_of_its_rows_and_of_what_they_share():
    truth = np.array([2.0, 4.0, 6.0, np.nan])
    prediction = np.array([1.0, 5.0, 6.5, 9.0])
    pools = [Pool(0.5, 4.0, 8), Pool(0.0, 1.0, 4)]
    variance = np.array([4.0, 4.0, 1.0, 1.0])
    rows = OutputRows(
        truth, prediction, prediction, prediction, variance, np.array([0, 0, 1, 1]), pools
    )
    total = rows.total(np.ones(4, dtype=bool), 0.9)
    # two rows of the first pool, one of the second; the last row's outcome is not known
    expected_variance = (4 + 4 + 1) + 4 * (0.25 + 4 / 8) + 1 * (0 + 1 / 4)
    half = norm.ppf(0.95) * math.sqrt(expected_variance)
    assert total == {
        "n_rows": 3,
        "expected": 12.5,
        "lower": pytest.approx(12.5 - half),
        "upper": pytest.approx(12.5 + half),
        "actual": 12.0,
    }


def test_evidence_of_a_table_agrees_with_the_evaluation(generation, new_rows, on_new_rows):
    report = evaluate_generation(generation, new_rows)
    for way, name in (("blend", "rmse"), ("global", "rmse_global"), ("cluster", "rmse_cluster")):
        value = on_new_rows.value(on_new_rows.losses[way])
        assert value == pytest.approx(report[name], rel=1e-12)
    target = on_new_rows.target
    inside = (target.lower <= target.truth) & (target.truth <= target.upper)
    assert inside.mean() == report["interval_coverage"]
    assert list(on_new_rows.outputs) == [TARGET, "nursing_hours", "medication_cost"]
    assert on_new_rows.groups["ward"].tolist() == new_rows["ward"].tolist()


def test_evidence_of_the_folds_agrees_with_the_fits_scores(fitted, hospital_data, hospital):
    evidence = fold_evidence(fitted, hospital_data, hospital, ["ward", "absent"])
    scores = fitted.generation.target.scores
    assert len(evidence.labels) == scores.n_rows
    for way, error in scores.errors.items():
        assert evidence.value(evidence.losses[way]) == pytest.approx(error, rel=1e-12)
    for name in fitted.generation.resources:
        output = evidence.outputs[name]
        error = fitted.generation.resources[name].scores.errors["blend"]
        assert np.sqrt(np.mean((output.truth - output.prediction) ** 2)) == pytest.approx(error)
    assert list(evidence.groups) == ["ward"]
    assert np.bincount(evidence.parts).tolist() == [len(fold.valid) for fold in fitted.folds]


def test_intervals_of_a_fold_come_from_the_other_folds(fitted, hospital_data, hospital):
    target = fold_evidence(fitted, hospital_data, hospital, []).target
    first = np.concatenate([np.full(len(f.valid), i) for i, f in enumerate(fitted.folds)]) == 0
    rows = np.concatenate([fold.valid for fold in fitted.folds])
    residuals = hospital_data.y[rows] - fitted.generation.target.fold_values
    labels = fitted.assignment.labels[rows]
    cluster = labels[first][0]
    others = np.sort(residuals[~first & (labels == cluster)])
    others = others if len(others) >= 100 else np.sort(residuals[~first])
    n = len(others)
    low = others[max(int(np.floor((n + 1) * 0.05 + 1e-9)) - 1, 0)]
    assert target.lower[0] == target.prediction[0] + min(low, 0.0)


def test_the_intervals_of_totals_hold_about_what_they_say():
    config = PipelineConfig(
        hdbscan_params={"min_cluster_size": 40, "min_samples": 5},
        lgb_timeseries_params={"n_estimators": 30, "learning_rate": 0.15},
        lgb_resource_params={"n_estimators": 30},
    )
    inside = []
    for seed in range(3):
        table = make_hospital(1600, random_state=seed)
        known, new = table[:1100], table[1100:]
        found = fit_generation(
            training_data(known, HOSPITAL_ROLES, config), config, {"roles": vars(HOSPITAL_ROLES)}
        )
        evidence = frame_evidence(found.generation, new, ["ward"], "")
        wards = evidence.groups["ward"]
        for output in evidence.outputs.values():
            for ward in np.unique(wards):
                total = output.total(wards == ward, 0.9)
                inside.append(total["lower"] <= total["actual"] <= total["upper"])
    assert len(inside) == 45
    assert sum(inside) >= 37  # 40.5 are expected; below 37 is a chance of one in fifty


def test_classes_have_a_total_each_and_know_what_was_right(hospital):
    table = hospital.assign(stay=np.where(hospital[TARGET] > 7, "long", "short")).drop(
        columns=[TARGET]
    )
    roles = replace(HOSPITAL_ROLES, target="stay", resources=("nursing_hours",))
    data = training_data(table, roles, HOSPITAL_CONFIG)
    found = fit_generation(data, HOSPITAL_CONFIG, {"roles": vars(roles)})
    evidence = fold_evidence(found, data, in_time_order(table, roles.time), [])
    assert list(evidence.resources) == ["nursing_hours"]
    assert evidence.metric.label == "log-loss"
    assert evidence.value(evidence.losses["blend"]) == pytest.approx(
        found.generation.target.scores.errors["blend"]
    )
    assert (
        evidence.target.probabilities.argmax(axis=1) == evidence.target.codes
    ).mean() == found.generation.target.scores.served["accuracy"]
    everyone = np.ones(len(evidence.labels), dtype=bool)
    long, short = (evidence.outputs[f"stay: {name}"] for name in ("long", "short"))
    totals = [output.total(everyone, 0.9) for output in (long, short)]
    assert sum(total["expected"] for total in totals) == pytest.approx(len(everyone))
    p = evidence.target.probabilities[:, 0]
    half = norm.ppf(0.95) * math.sqrt((p * (1 - p)).sum())
    assert totals[0]["upper"] - totals[0]["expected"] == pytest.approx(half)
    again = frame_evidence(found.generation, table, [], "the same rows")
    assert (again.target.codes == found.generation.outcome.codes(table["stay"])).all()


def test_numbers_are_parted_at_rounded_quartiles_and_texts_are_not():
    frame = pd.DataFrame(
        {
            "age": [float(i) + 0.123 for i in range(40)],
            "sex": ["f", None] * 20,
            "floor": [1, 2] * 20,
            "urgent": [True, False] * 20,
        }
    )
    found = row_groups(frame, ["age", "sex", "floor", "urgent", "absent", "age"])
    assert list(found) == ["age", "sex", "floor", "urgent"]
    names, counts = np.unique(found["age"], return_counts=True)
    assert set(names) == {"up to 9.9", "9.9 to 20", "20 to 29", "above 29"}
    assert counts.sum() == 40
    assert found["sex"][:2].tolist() == ["f", "(missing)"]
    assert found["floor"][:2].tolist() == ["1", "2"]
    assert found["urgent"][:2].tolist() == ["True", "False"]


def test_small_groups_are_put_together_so_that_no_difference_gives_them_away():
    values = np.repeat(["a", "b", "c", "d"], [40, 20, 12, 3])
    groups = shown_groups(values)
    assert [(g.name, int(g.rows.sum())) for g in groups] == [
        *(("a", 40), ("b", 20), ("2 others together", 15)),
    ]
    assert [g.name for g in shown_groups(np.repeat(["a", "b"], [12, 3]))] == ["2 others together"]
    assert shown_groups(np.repeat(["a"], 9)) == []
    assert shown_groups(np.empty(0, dtype=object)) == []


def test_beyond_twenty_groups_the_rest_is_one():
    values = np.repeat(np.arange(200), 12)
    groups = shown_groups(values, {0: "frail"})
    assert len(groups) == 21
    assert groups[0].name == "frail"
    assert groups[1].name == "segment 1"
    assert (groups[-1].name, groups[-1].merged) == ("180 others together", 180)
    assert sum(int(g.rows.sum()) for g in groups) == len(values)


def test_who_moved_is_counted_and_small_flows_are_not_shown():
    old = np.repeat([0, 0, 1, 1], [30, 12, 20, 4])
    new = np.repeat([0, 5, 1, 0], [30, 12, 20, 4])
    assert segment_changes(old, new) == {
        "n_rows": 66,
        "changed": 16,
        "flows": [
            {"from": 0, "to": 0, "rows": 30},
            {"from": 1, "to": 1, "rows": 20},
            {"from": 0, "to": 5, "rows": 12},
        ],
        "other_rows": 4,
    }


def test_segments_of_the_training_are_those_of_the_fit(fitted, hospital_data, hospital):
    rows = training_segments(fitted, hospital_data, hospital["patient_id"].tolist())
    assert (rows.labels == fitted.clustering.labels).all()
    assert rows.original[:, 0].tolist() == hospital["age"].tolist()
    assert rows.X.mean(axis=0) == pytest.approx(0, abs=1e-9)
    assert rows.sample_ids[:2] == hospital["patient_id"].tolist()[:2]


def test_segments_of_a_table_leave_out_what_cannot_be_scored(generation, new_rows):
    broken = new_rows.assign(age=new_rows["age"].astype(float)).drop(columns=["patient_id"])
    broken.loc[3, "age"] = np.nan
    rows = frame_segments(generation, broken)
    assert len(rows.labels) == 299
    assert rows.sample_ids[2:4] == ["row 2", "row 4"]
