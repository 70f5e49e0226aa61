from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from tsclust_model.datasets import make_hospital
from tsclust_model.errors import DataValidationError
from tsclust_model.evaluation import evaluate_generation
from tsclust_model.generation import Generation

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
