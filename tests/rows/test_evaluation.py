from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.support import HOSPITAL_ROLES
from tsclust_model.data.fitted_rows import FittedRows
from tsclust_model.data.synthetic import make_hospital
from tsclust_model.errors import DataValidationError
from tsclust_model.rows.evaluation import evaluate_generation, last_values
from tsclust_model.rows.model import Generation
from tsclust_model.training.out_of_sample import apart, evaluate_apart

TARGET = "length_of_stay_days"


@pytest.fixture(scope="module")
def labelled() -> pd.DataFrame:
    """400 labelled rows the model has not seen, in no order; three cannot be scored."""
    frame = make_hospital(400, noise=0.15, random_state=9).sample(frac=1.0, random_state=1)
    frame["age"] = frame["age"].astype(float)
    frame.loc[[4, 7, 300], "age"] = [np.nan, np.inf, 1e300]
    return frame


@pytest.fixture(scope="module")
def figures(generation: Generation, labelled: pd.DataFrame) -> dict:
    return evaluate_generation(generation, labelled)


@pytest.fixture(scope="module")
def scored(generation: Generation, labelled: pd.DataFrame) -> pd.DataFrame:
    """What `predict` says of the rows it can score, beside what happened."""
    answer = generation.predict(labelled)
    answer = answer[answer["status"] == "ok"].drop(columns=["status", "cluster_source"])
    joined = answer.astype(float).assign(y=labelled[TARGET])
    return joined.assign(
        **{name: labelled[name] for name in generation.resources},
        source=generation.predict(labelled)["cluster_source"],
    )


def by_hand(y: pd.Series, forecast: pd.Series) -> dict[str, float]:
    errors = [truth - guess for truth, guess in zip(y, forecast, strict=True)]
    center = math.fsum(y) / len(y)
    squares = math.fsum(error**2 for error in errors)
    return {
        "rmse": pytest.approx(math.sqrt(squares / len(errors))),
        "mae": pytest.approx(math.fsum(map(abs, errors)) / len(errors)),
        "r2": pytest.approx(1 - squares / math.fsum((truth - center) ** 2 for truth in y)),
    }


def test_errors_are_those_of_the_forecasts_that_predict_gives(figures, scored):
    assert {name: figures[name] for name in ("rmse", "mae", "r2")} == by_hand(
        scored["y"], scored["prediction"]
    )


def test_rows_that_cannot_be_scored_are_counted_and_left_out(figures):
    assert (figures["n_rows"], figures["n_not_scored"]) == (397, 3)


def test_global_and_cluster_models_are_compared_alone(generation, labelled, scored, figures):
    X = generation.schema.encode(labelled.loc[scored.index]).X
    labels = scored["cluster"].to_numpy(int)
    everyone = generation.target.global_booster.predict(X)
    own = everyone.copy()
    for cluster, booster in generation.target.cluster_boosters.items():
        own[labels == cluster] = booster.predict(X[labels == cluster])
    assert figures["rmse_global"] == by_hand(scored["y"], everyone)["rmse"]
    assert figures["rmse_cluster"] == by_hand(scored["y"], own)["rmse"]


def test_interval_coverage_is_the_share_of_rows_within_their_bounds(figures, scored):
    inside = [
        lower <= y <= upper
        for lower, y, upper in zip(
            scored["prediction_lower"], scored["y"], scored["prediction_upper"], strict=True
        )
    ]
    assert figures["coverage"] == 0.9
    assert figures["interval_coverage"] == sum(inside) / 397


def test_the_weighted_quantile_loss_is_that_of_the_deciles_that_predict_gives(
    generation, labelled, figures
):
    deciles = [tenth / 10 for tenth in range(1, 10)]
    answer = generation.predict(labelled, quantiles=deciles)
    known = answer["status"] == "ok"
    y, losses = labelled.loc[known, TARGET], []
    for p in deciles:
        missed = y - answer.loc[known, f"q{p}"].astype(float)
        losses.append(2 * np.where(missed > 0, p * missed, (p - 1) * missed).sum() / y.sum())
    assert figures["wql"] == pytest.approx(np.mean(losses))


def test_noise_ratio_counts_rows_before_the_fallback(figures, scored):
    assert figures["noise_ratio"] == (scored["source"] == "knn").sum() / 397
    assert figures["noise_ratio"] > 0.1


def test_each_cluster_is_measured_on_its_own_rows(figures, scored):
    assert sorted(figures["clusters"]) == sorted(scored["cluster"].unique())
    for cluster, found in figures["clusters"].items():
        rows = scored[scored["cluster"] == cluster]
        assert found == by_hand(rows["y"], rows["prediction"]) | {"n_rows": len(rows)}
    assert sum(found["n_rows"] for found in figures["clusters"].values()) == 397


def test_resources_are_measured_where_they_are_there(generation, labelled, figures, scored):
    assert figures["resources"] == {
        name: by_hand(scored[name], scored[f"resource_{name}"])
        for name in ("nursing_hours", "medication_cost")
    }
    some = evaluate_generation(generation, labelled.drop(columns="nursing_hours"))
    assert some == figures | {
        "resources": {"medication_cost": figures["resources"]["medication_cost"]}
    }


def test_the_order_of_rows_does_not_matter(generation, labelled, figures):
    again = evaluate_generation(generation, labelled.sort_index())
    assert again["rmse"] == pytest.approx(figures["rmse"], rel=1e-12)
    assert again["interval_coverage"] == figures["interval_coverage"]


def test_evaluation_changes_no_table(generation, labelled):
    before = labelled.copy(deep=True)
    evaluate_generation(generation, labelled)
    pd.testing.assert_frame_equal(labelled, before)


def test_one_row_has_errors_but_no_r2(generation, labelled):
    figures = evaluate_generation(generation, labelled.loc[[0]])
    assert figures["n_rows"] == 1
    assert figures["rmse"] == figures["mae"]
    assert figures["r2"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns=TARGET), "no target column 'length_of_stay_days'"),
        (lambda f: f.assign(**{TARGET: np.nan}), "length_of_stay_days is missing or infinite in 5"),
        (lambda f: f.assign(**{TARGET: "long"}), "target column 'length_of_stay_days' is .*number"),
        (lambda f: f.drop(columns="age"), "no column 'age'"),
        (lambda f: f.assign(age=np.nan), "none of 5 rows can be scored; the first: missing: age"),
        (lambda f: f.iloc[:0], "none of 0 rows"),
    ],
)
def test_a_table_that_cannot_be_evaluated_is_refused(generation, labelled, change, message):
    with pytest.raises(DataValidationError, match=message):
        evaluate_generation(generation, change(labelled.sort_index().head(5)))


# -- rows the model was fitted on --------------------------------------------------------------


def test_rows_that_were_fitted_are_evaluated_apart(generation, hospital):
    new = make_hospital(100, random_state=11)
    new["admission_time"] += pd.Timedelta(days=4000)
    parts = apart(generation, pd.concat([hospital.head(300), new], ignore_index=True))
    report = evaluate_apart(generation, parts)
    assert (report["n_rows"], report["n_trained_on"]) == (100, 300)
    assert report["rmse"] == evaluate_generation(generation, new)["rmse"]
    fitted = evaluate_generation(generation, hospital.head(300))
    assert report["in_sample"]["rmse"] == fitted["rmse"]
    assert report["in_sample"]["rmse"] < report["rmse"]
    assert report["n_baseline_trained_on"] == 0


def test_a_table_of_fitted_rows_has_in_sample_figures_only(generation, hospital):
    report = evaluate_apart(generation, apart(generation, hospital))
    assert (report["n_rows"], report["n_trained_on"]) == (0, 1500)
    assert report["rmse"] is None
    assert report["clusters"] == {}
    assert report["in_sample"]["n_rows"] == 1500


def test_a_model_that_does_not_know_its_rows_says_so(generation, hospital):
    older = replace(generation, fitted=None)
    report = evaluate_apart(older, apart(older, hospital.head(50)))
    assert (report["n_rows"], report["n_trained_on"], report["in_sample"]) == (50, None, None)


def test_rows_of_the_baseline_are_left_out_too(generation, hospital):
    new = make_hospital(100, random_state=11)
    new["admission_time"] += pd.Timedelta(days=4000)
    keys = (HOSPITAL_ROLES.id, HOSPITAL_ROLES.time)
    other = FittedRows.of(
        generation.canonical_rows(new.head(30)),
        (*generation.schema.names, TARGET),
        keys,
        b"other",
    )
    baseline = replace(generation, fitted=other)
    rows = pd.concat([hospital.head(20), new], ignore_index=True)
    parts = apart(generation, rows, baseline)
    assert (len(parts.fresh), parts.n_trained_on, parts.n_baseline_trained_on) == (70, 20, 30)
    assert apart(generation, rows, replace(baseline, fitted=None)).n_baseline_trained_on is None


# -- what a model has to beat ------------------------------------------------------------------


def test_the_median_of_the_training_target_is_the_naive_forecast(generation, hospital, figures):
    assert generation.info["naive"] == {"median": hospital[TARGET].median()}
    assert figures["rmse"] < figures["rmse_naive"]
    assert figures["mae"] < figures["mae_naive"]


def test_the_last_value_is_the_newest_earlier_one_of_the_same_id(generation, hospital):
    frame = hospital.head(4).copy()
    frame["patient_id"] = ["a", "a", "b", "a"]
    frame["admission_time"] = pd.to_datetime(["2030-01-01", "2030-01-02", "2030-01-03", None])
    frame[TARGET] = [1.0, 2.0, 3.0, 4.0]
    found = last_values(generation, frame)
    assert found[:2].tolist()[1] == 1.0
    assert np.isnan(found[[0, 2, 3]]).all()
    known = frame.assign(admission_time=pd.Timestamp("2029-01-01"), patient_id="b")
    later = last_values(generation, frame, known.head(1))
    assert later[2] == 1.0
    assert last_values(generation, frame.drop(columns="admission_time")) is None
    ties = frame.assign(admission_time=pd.Timestamp("2030-01-01"))
    assert last_values(generation, ties) is None
