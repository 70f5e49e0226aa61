from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd
import pytest

from tests.support import HOSPITAL_CONFIG, HOSPITAL_ROLES
from tsclust_model._kernels import rows as kernels
from tsclust_model.boosting.blend import fit_outputs
from tsclust_model.boosting.output_model import OutputModel
from tsclust_model.config import PipelineConfig
from tsclust_model.data.roles import Roles
from tsclust_model.data.synthetic import make_hospital
from tsclust_model.errors import DataValidationError, MLflowIntegrationError, PredictionError
from tsclust_model.metrics import RMSE
from tsclust_model.models.state import (
    digest,
    pack_arrays,
    pack_json,
    seal,
    unpack_arrays,
    unpack_json,
)
from tsclust_model.results import NOISE, Stage
from tsclust_model.rows.fit import FittedGeneration, fit_generation
from tsclust_model.rows.model import Generation
from tsclust_model.rows.table import TrainingData, training_data

SMALL_CONFIG = PipelineConfig(
    hdbscan_params={"min_cluster_size": 20},
    lgb_timeseries_params={"n_estimators": 15, "min_data_in_bin": 5},
    lgb_resource_params={"n_estimators": 10, "min_data_in_bin": 5, "num_leaves": 7},
)
OUTPUTS = ["target", "nursing_hours", "medication_cost"]
BOUNDS = ["prediction_lower", "prediction_upper"]


def output(generation: Generation, name: str) -> OutputModel:
    return generation.target if name == "target" else generation.resources[name]


def state_digest(generation: Generation) -> str:
    return digest(seal(generation.to_parts(), "1", "2"))


def assert_same_answers(first: pd.DataFrame, second: pd.DataFrame) -> None:
    """Equal to the last bit, in every column."""
    pd.testing.assert_frame_equal(first, second, check_exact=True)


@pytest.fixture(scope="module")
def small_data() -> TrainingData:
    return training_data(make_hospital(600, random_state=5), HOSPITAL_ROLES, SMALL_CONFIG)


@pytest.fixture(scope="module")
def small(small_data: TrainingData) -> FittedGeneration:
    return fit_generation(small_data, SMALL_CONFIG, {"roles": vars(HOSPITAL_ROLES)})


@pytest.fixture(scope="module")
def batch() -> pd.DataFrame:
    """Rows the models have not seen; some are noise."""
    return make_hospital(80, noise=0.2, random_state=8)


@pytest.fixture(scope="module")
def broken_batch(batch: pd.DataFrame) -> pd.DataFrame:
    """The batch with five rows that cannot be scored."""
    frame = batch.copy()
    frame["heart_rate"] = frame["heart_rate"].astype(float)
    frame.loc[3, "age"] = np.nan
    frame.loc[10, "heart_rate"] = np.inf
    frame.loc[11, "creatinine"] = 1e300
    frame.loc[12, "ward"] = None
    frame.loc[79, ["ward", "temperature"]] = [None, -np.inf]
    return frame


@pytest.fixture(scope="module")
def imputing() -> Generation:
    """A generation that was fitted on gaps."""
    frame = make_hospital(600, random_state=6)
    rng = np.random.default_rng(6)
    for column in ("age", "creatinine", "ward"):
        frame.loc[rng.random(600) < 0.1, column] = None
    config = dataclasses.replace(SMALL_CONFIG, missing_values="impute")
    return fit_generation(training_data(frame, HOSPITAL_ROLES, config), config).generation


# A forecast


def test_the_answer_has_the_columns_and_types_of_the_contract(small, batch):
    answer = small.generation.predict(batch)
    types = {
        "prediction": "Float64",
        "prediction_lower": "Float64",
        "prediction_upper": "Float64",
        "cluster": "Int64",
        "cluster_source": None,
        "cluster_strength": "Float64",
        "cluster_weight": "Float64",
        "resource_nursing_hours": "Float64",
        "resource_medication_cost": "Float64",
        "status": None,
    }
    assert list(answer.columns) == small.generation.output_columns == list(types)
    for name, dtype in types.items():
        assert dtype is None or answer[name].dtype == dtype
    assert set(answer["status"]) == {"ok"}
    assert set(answer["cluster_source"]) == {"hdbscan", "knn"}
    assert not answer.isna().any(axis=None)


@pytest.mark.parametrize("name", OUTPUTS)
def test_models_are_those_of_plain_lightgbm_calls_on_the_same_rows(small, small_data, name):
    given = (
        SMALL_CONFIG.lgb_timeseries_params
        if name == "target"
        else (SMALL_CONFIG.lgb_resource_params)
    )
    params = {key: value for key, value in given.items() if key != "n_estimators"}
    params |= {"num_threads": 1, "deterministic": True, "force_row_wise": True}
    y = small_data.y if name == "target" else small_data.resources[name]
    model, labels = output(small.generation, name), small.assignment.labels
    clusters, sizes = np.unique(labels, return_counts=True)
    assert list(model.cluster_texts) == clusters[sizes >= 40].tolist()
    for cluster, text in {NOISE: model.global_text, **model.cluster_texts}.items():
        rows = np.full(600, True) if cluster == NOISE else labels == cluster
        data = lgb.Dataset(small_data.X[rows], y[rows], categorical_feature=[0, 1])
        booster = lgb.train(params, data, num_boost_round=given["n_estimators"])
        np.testing.assert_array_equal(
            lgb.Booster(model_str=text).predict(small_data.X), booster.predict(small_data.X)
        )


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_forecast_is_the_blend_of_its_models(generation, batch, name):
    model = output(generation, name)
    assert 0 < model.weight < 1
    X = generation.schema.encode(batch).X
    answer = generation.predict(batch)
    expected = lgb.Booster(model_str=model.global_text).predict(X)
    for cluster, text in model.cluster_texts.items():
        rows = np.flatnonzero(answer["cluster"] == cluster)
        own = lgb.Booster(model_str=text).predict(X[rows])
        expected[rows] = (1 - model.weight) * expected[rows] + model.weight * own
    column = "prediction" if name == "target" else f"resource_{name}"
    assert answer[column].tolist() == expected.tolist()
    if name == "target":
        assert set(answer["cluster_weight"]) == {model.weight}


def test_clusters_and_strengths_are_those_of_the_segmentation(generation, batch):
    answer = generation.predict(batch)
    assignment = generation.assign(generation.schema.encode(batch).X)
    assert answer["cluster"].tolist() == assignment.labels.tolist()
    assert answer["cluster_strength"].tolist() == assignment.strength.tolist()
    assert answer["cluster_source"].tolist() == assignment.source.tolist()
    noise = answer["cluster_source"] == "knn"
    np.testing.assert_array_equal(noise, assignment.is_noise)
    assert (answer["cluster_strength"][noise] == 0).all()


@pytest.mark.parametrize("chunk", [1, 7])
def test_a_row_is_scored_alone_as_in_a_batch(generation, broken_batch, chunk):
    parts = [
        generation.predict(broken_batch.iloc[i : i + chunk])
        for i in range(0, len(broken_batch), chunk)
    ]
    assert_same_answers(pd.concat(parts), generation.predict(broken_batch))


def test_rows_in_another_order_have_the_same_answers(generation, broken_batch):
    mixed = broken_batch.sample(frac=1.0, random_state=0)
    assert_same_answers(
        generation.predict(mixed), generation.predict(broken_batch).loc[mixed.index]
    )


def test_columns_may_come_in_any_order_and_with_others(generation, batch):
    mixed = batch[batch.columns[::-1]].assign(remark="x", length_of_stay_days=None)
    assert_same_answers(generation.predict(mixed), generation.predict(batch))


def test_the_index_is_kept_even_where_it_repeats(generation, batch):
    repeated = batch.set_axis([i // 2 for i in range(80)])
    answer = generation.predict(repeated)
    assert answer.index.tolist() == repeated.index.tolist()
    assert_same_answers(answer.reset_index(drop=True), generation.predict(batch))


def test_scoring_changes_no_table(generation, broken_batch):
    before = broken_batch.copy(deep=True)
    generation.predict(broken_batch)
    pd.testing.assert_frame_equal(broken_batch, before)


def test_an_empty_table_has_an_empty_answer(generation, batch):
    answer = generation.predict(batch.iloc[:0])
    assert answer.shape == (0, len(generation.output_columns))
    assert_same_answers(pd.concat([answer, generation.predict(batch)]), generation.predict(batch))


def test_scoring_from_several_threads_gives_the_same_answers(small, batch):
    fresh = Generation.from_parts(small.generation.to_parts())  # its boosters are not loaded yet
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(fresh.predict, [batch] * 8))
    for answer in answers:
        assert_same_answers(answer, small.generation.predict(batch))


def test_only_cluster_features_decide_the_segment(hospital, batch):
    config = dataclasses.replace(SMALL_CONFIG, cluster_features=["heart_rate", "age"])
    data = training_data(hospital.head(600), HOSPITAL_ROLES, config)
    generation = fit_generation(data, config).generation
    answer, changed = (
        generation.predict(frame) for frame in (batch, batch.assign(creatinine=1.0, ward="x"))
    )
    assert_same_answers(
        changed[["cluster", "cluster_strength"]], answer[["cluster", "cluster_strength"]]
    )
    # The clustered columns keep their meaning in whatever order they are named.
    assert (answer["cluster_source"] == "hdbscan").mean() > 0.5
    X = generation.schema.encode(batch).X
    names = generation.schema.names
    columns = [names.index("heart_rate"), names.index("age")]
    expected = generation.segmentation.assign(X[:, columns]).labels
    assert answer["cluster"].tolist() == expected.tolist()


# Rows that cannot be scored


def test_rows_that_cannot_be_scored_are_null_and_say_why(generation, broken_batch):
    answer = generation.predict(broken_batch)
    bad = answer[answer["status"] != "ok"]
    assert bad["status"].to_dict() == {
        3: "missing: age",
        10: "infinite: heart_rate",
        11: "out of range: creatinine",
        12: "missing: ward",
        79: "missing: ward; infinite: temperature",
    }
    assert bad.drop(columns="status").isna().all(axis=None)


def test_rows_that_cannot_be_scored_leave_the_others_alone(generation, batch, broken_batch):
    good = ~broken_batch.index.isin([3, 10, 11, 12, 79])
    assert_same_answers(generation.predict(broken_batch)[good], generation.predict(batch)[good])


def test_a_table_of_rows_that_cannot_be_scored_is_answered(generation, broken_batch):
    bad = broken_batch.loc[[3, 10, 11, 12, 79]]
    assert_same_answers(generation.predict(bad), generation.predict(broken_batch).loc[bad.index])


@pytest.mark.parametrize("value", [1e99, -1e99])
def test_a_value_far_beyond_all_others_is_noise_and_leaves_the_others_alone(
    generation, batch, value
):
    frame = batch.assign(heart_rate=batch["heart_rate"].astype(float))
    expected = generation.predict(frame).drop(index=5)
    frame.loc[5, "heart_rate"] = value
    answer = generation.predict(frame)
    assert answer.loc[5, ["status", "cluster_source"]].tolist() == ["ok", "knn"]
    assert_same_answers(answer.drop(index=5), expected)


def test_missing_values_are_medians_to_the_segments_and_gaps_to_the_models(imputing, batch):
    missing = batch.assign(age=np.nan)
    answer = imputing.predict(missing)
    assert set(answer["status"]) == {"ok"}
    median = imputing.segmentation.scaler.median[imputing.schema.cluster_features.index("age")]
    filled = imputing.predict(batch.assign(age=median))
    segment = ["cluster", "cluster_source", "cluster_strength", "cluster_weight"]
    assert_same_answers(answer[segment], filled[segment])
    X = imputing.schema.encode(missing).X
    assert np.isnan(X[:, imputing.schema.names.index("age")]).all()
    forecast, _ = imputing.target.predict(X, answer["cluster"].to_numpy(np.int64))
    assert answer["prediction"].tolist() == forecast.tolist()


def test_an_imputing_model_still_refuses_infinity(imputing, batch):
    frame = batch.assign(age=np.inf)
    assert set(imputing.predict(frame)["status"]) == {"infinite: age"}


def test_an_unseen_category_is_scored_as_a_missing_one(imputing, batch):
    assert_same_answers(
        imputing.predict(batch.assign(ward="oncology")), imputing.predict(batch.assign(ward=None))
    )


def test_an_unseen_category_is_scored_where_a_missing_one_is_not(generation, batch):
    answer = generation.predict(batch.assign(ward="oncology"))
    assert set(answer["status"]) == {"ok"}
    X = generation.schema.encode(batch).X
    X[:, generation.schema.names.index("ward")] = np.nan
    forecast, _ = generation.target.predict(X, answer["cluster"].to_numpy(np.int64))
    assert answer["prediction"].tolist() == forecast.tolist()
    assert set(generation.predict(batch.assign(ward=None))["status"]) == {"missing: ward"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="age"), "no column 'age'"),
        (lambda frame: frame.assign(age="old"), "column 'age' holds something that is not a numb"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(generation, batch, change, message):
    with pytest.raises(DataValidationError, match=message):
        generation.predict(change(batch))


# Intervals


@pytest.mark.parametrize("coverage", [0, 1, -0.1, 1.5, float("nan")])
def test_a_coverage_out_of_range_is_refused(generation, batch, coverage):
    with pytest.raises(PredictionError, match="coverage must be above 0 and below 1"):
        generation.predict(batch, coverage)


def test_the_configured_coverage_is_the_default(generation, batch):
    assert generation.coverage == 0.9
    assert_same_answers(generation.predict(batch), generation.predict(batch, 0.9))


def test_intervals_enclose_the_prediction_and_widen_with_coverage(generation, batch):
    answers = [generation.predict(batch, coverage) for coverage in (0.1, 0.5, 0.8, 0.9, 0.99)]
    for answer in answers:
        assert (answer["prediction_lower"] <= answer["prediction"]).all()
        assert (answer["prediction"] <= answer["prediction_upper"]).all()
    for narrow, wide in pairwise(answers):
        assert (wide["prediction_lower"] <= narrow["prediction_lower"]).all()
        assert (narrow["prediction_upper"] <= wide["prediction_upper"]).all()
        assert_same_answers(narrow.drop(columns=BOUNDS), wide.drop(columns=BOUNDS))


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
def test_intervals_hold_the_share_of_new_rows_they_promise(generation, coverage):
    fresh = make_hospital(3000, random_state=77)
    answer = generation.predict(fresh, coverage)
    y = fresh["length_of_stay_days"]
    inside = (answer["prediction_lower"] <= y) & (y <= answer["prediction_upper"])
    # More rather than less: the models that serve have seen more rows than those of the folds.
    assert coverage - 0.03 < inside.mean() < coverage + 0.06


# What segments are worth


def test_true_segments_are_worth_a_tenth_and_shuffled_ones_nothing():
    data = training_data(make_hospital(6000), HOSPITAL_ROLES, HOSPITAL_CONFIG)
    fitted = fit_generation(data, HOSPITAL_CONFIG)
    rmse = fitted.generation.target.scores.errors
    assert rmse["blend"] <= 0.9 * rmse["global"]
    shuffled = np.random.default_rng(0).permutation(fitted.assignment.labels)
    recipe = data.target.recipe(HOSPITAL_CONFIG, data.schema.categorical_columns)
    control = fit_outputs(data.X, {"y": data.y}, shuffled, fitted.folds, recipe, final=False)
    assert control["y"].scores.errors["blend"] == pytest.approx(rmse["global"], rel=0.01)


@pytest.mark.parametrize(("combine", "weight"), [("global", 0.0), ("cluster", 1.0)])
def test_combine_decides_which_models_are_served(small, small_data, batch, combine, weight):
    config = dataclasses.replace(SMALL_CONFIG, combine=combine)
    generation = fit_generation(small_data, config).generation
    answer = generation.predict(batch)
    X = generation.schema.encode(batch).X
    labels = answer["cluster"].to_numpy(np.int64)
    for name in OUTPUTS:
        column = "prediction" if name == "target" else f"resource_{name}"
        expected, _ = output(small.generation, name).predict(X, labels, weight)
        assert answer[column].tolist() == expected.tolist()
    has_model = answer["cluster"].isin(generation.target.cluster_texts)
    assert answer["cluster_weight"].tolist() == (has_model * weight).tolist()


def test_a_cluster_below_min_cluster_rows_is_served_by_the_global_model(small_data, batch):
    config = dataclasses.replace(SMALL_CONFIG, combine="cluster", min_cluster_rows=120)
    generation = fit_generation(small_data, config).generation
    sizes = {int(c): n for c, n in generation.info["cluster_sizes"].items()}
    large = [cluster for cluster, n in sorted(sizes.items()) if n >= 120]
    assert 0 < len(large) < len(sizes)
    answer = generation.predict(batch)
    for name in OUTPUTS:
        assert list(output(generation, name).cluster_texts) == large
    assert answer["cluster_weight"].tolist() == answer["cluster"].isin(large).astype(float).tolist()
    everyone, _ = generation.target.predict(generation.schema.encode(batch).X, np.full(80, NOISE))
    by_global = answer["cluster_weight"] == 0
    assert by_global.any()
    assert answer["prediction"][by_global].tolist() == everyone[by_global].tolist()


# Clusterings that serve little


def test_without_clusters_the_global_model_serves_and_says_none(small_data, batch):
    config = dataclasses.replace(SMALL_CONFIG, hdbscan_params={"min_cluster_size": 290})
    with pytest.warns(UserWarning, match="no cluster was found: all 600 rows are noise"):
        fitted = fit_generation(small_data, config)
    generation = Generation.from_parts(fitted.generation.to_parts())
    answer = generation.predict(batch)
    assert set(answer["status"]) == {"ok"}
    assert set(answer["cluster_source"]) == {"none"}
    assert set(answer["cluster"]) == {NOISE}
    assert set(answer["cluster_strength"]) == set(answer["cluster_weight"]) == {0.0}
    X = generation.schema.encode(batch).X
    for name in OUTPUTS:
        column = "prediction" if name == "target" else f"resource_{name}"
        booster = lgb.Booster(model_str=output(generation, name).global_text)
        assert answer[column].tolist() == booster.predict(X).tolist()
    assert generation.info["clustering"]["n_clusters"] == 0
    assert generation.info["cluster_sizes"] == {"-1": 600}
    assert set(generation.predict(generation.example())["status"]) == {"ok"}


def test_one_cluster_takes_every_row():
    rng = np.random.default_rng(0)
    near = np.repeat([0.0, 40.0], [90, 30])
    frame = pd.DataFrame(
        {"a": near + rng.normal(size=120), "b": near + rng.normal(size=120), "y": near}
    ).sample(frac=1.0, random_state=0)
    config = dataclasses.replace(
        SMALL_CONFIG,
        hdbscan_params={"min_cluster_size": 28, "max_cluster_size": 60},
        task="regression",
    )
    with pytest.warns(UserWarning, match="one cluster was found"):
        generation = fit_generation(training_data(frame, Roles("y"), config), config).generation
    answer = generation.predict(pd.DataFrame({"a": [40.0, 0.0], "b": [40.0, 0.0]}))
    assert answer["cluster"].tolist() == [0, 0]
    assert answer["cluster_source"].tolist() == ["hdbscan", "knn"]
    assert answer["status"].tolist() == ["ok", "ok"]
    assert generation.info["cluster_sizes"] == {"0": 120}


# Resources


def test_without_resources_there_are_no_resource_columns(batch):
    frame = make_hospital(300, random_state=1)
    roles = Roles("length_of_stay_days", features=("age", "heart_rate", "ward"))
    generation = fit_generation(training_data(frame, roles, SMALL_CONFIG), SMALL_CONFIG).generation
    assert generation.resources == {}
    assert list(generation.predict(batch).columns) == generation.output_columns
    assert not any(name.startswith("resource_") for name in generation.output_columns)
    assert_same_answers(
        Generation.from_parts(generation.to_parts()).predict(batch), generation.predict(batch)
    )


def test_resources_do_not_change_the_target(small, small_data, batch):
    alone = dataclasses.replace(small_data, resources={})
    generation = fit_generation(alone, SMALL_CONFIG).generation
    answer = small.generation.predict(batch)
    assert_same_answers(
        generation.predict(batch), answer.drop(columns=[c for c in answer if "resource" in c])
    )


# The example


def test_the_example_is_scorable_and_holds_clusters_and_noise(generation):
    example = generation.example()
    assert list(example.columns) == generation.schema.names
    answer = generation.predict(example)
    assert answer["status"].tolist() == ["ok"] * 3
    assert answer["cluster_source"].tolist() == ["hdbscan", "hdbscan", "knn"]
    assert answer["cluster"].tolist()[:2] == [0, 1]


def test_the_example_holds_no_training_row(generation, hospital):
    vitals = list(generation.schema.cluster_features)
    known = set(map(tuple, hospital[vitals].to_numpy(float)))
    assert not known & set(map(tuple, generation.example()[vitals].to_numpy(float)))


def test_the_example_of_a_model_that_imputes_is_scorable(imputing):
    answer = imputing.predict(imputing.example())
    assert answer["status"].tolist() == ["ok"] * 3
    assert answer["cluster_source"].tolist()[-1] == "knn"


def test_the_example_of_columns_with_large_values_holds_clusters_and_noise():
    # Seconds since 1970, of two rounds an hour apart.
    rng = np.random.default_rng(0)
    second = rng.integers(0, 2, 300)
    rounds = 1_732_082_400 + 3600 * second + rng.normal(0, 60, (2, 300))
    frame = pd.DataFrame({"seen": rounds[0], "treated": rounds[1], "y": rng.normal(size=300)})
    data = training_data(frame, Roles("y"), SMALL_CONFIG)
    generation = fit_generation(data, SMALL_CONFIG).generation
    answer = generation.predict(generation.example())
    assert answer["cluster"].tolist()[:2] == [0, 1]
    assert answer["cluster_source"].tolist() == ["hdbscan", "hdbscan", "knn"]


# State


def test_a_generation_read_back_answers_the_same_to_the_last_bit(generation, broken_batch):
    parts = generation.to_parts()
    read_back = Generation.from_parts(parts)
    assert read_back.to_parts() == parts
    assert read_back.info == json.loads(json.dumps(generation.info))
    for coverage in (None, 0.5):
        assert_same_answers(
            read_back.predict(broken_batch, coverage), generation.predict(broken_batch, coverage)
        )
    pd.testing.assert_frame_equal(read_back.example(), generation.example())


def test_two_fits_give_the_same_state(small, small_data):
    again = fit_generation(small_data, SMALL_CONFIG, {"roles": vars(HOSPITAL_ROLES)})
    assert state_digest(again.generation) == state_digest(small.generation)


@pytest.mark.parametrize("n_cores", [1, 5])
def test_the_number_of_cores_does_not_change_the_state(small, small_data, n_cores, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: n_cores)
    again = fit_generation(small_data, SMALL_CONFIG, {"roles": vars(HOSPITAL_ROLES)})
    assert state_digest(again.generation) == state_digest(small.generation)


def test_another_seed_gives_another_state(small, small_data):
    params = {"lgb_timeseries_params": SMALL_CONFIG.lgb_timeseries_params | {"random_state": 1}}
    other = fit_generation(small_data, dataclasses.replace(SMALL_CONFIG, **params))
    assert state_digest(other.generation) != state_digest(small.generation)


@pytest.mark.parametrize("part", ["schema.json", "segmentation.npz", "resource-1.json"])
def test_a_state_that_lacks_a_part_is_refused_by_name(small, part):
    parts = small.generation.to_parts()
    del parts[part]
    with pytest.raises(MLflowIntegrationError, match=f"has no part '{part}'; log the model again"):
        Generation.from_parts(parts)


def test_the_state_keeps_no_training_row_beyond_max_reference_rows(small_data, batch):
    config = dataclasses.replace(SMALL_CONFIG, max_reference_rows=150, max_fit_rows=500)
    generation = fit_generation(small_data, config).generation
    assert generation.info["fitted_rows"] == 500
    assert len(generation.segmentation.density.points) == 150
    assert len(generation.segmentation.fallback.points_) <= 150
    read_back = Generation.from_parts(generation.to_parts())
    assert_same_answers(read_back.predict(batch), generation.predict(batch))


def test_renumbered_clusters_answer_the_same_under_other_ids(generation, broken_batch):
    old = generation.cluster_ids
    ids = {cluster: 10 + 3 * cluster for cluster in old}
    other = generation.renumbered(ids, {"next_id": 99})
    assert other.cluster_ids == sorted(ids.values())
    assert other.info["lineage"] == {"next_id": 99}
    sizes = generation.info["cluster_sizes"]
    assert other.info["cluster_sizes"] == {str(ids[int(c)]): n for c, n in sizes.items()}
    scores = generation.target.scores.clusters
    assert other.target.scores.clusters == {ids[c]: found for c, found in scores.items()}
    expected = generation.predict(broken_batch)
    expected["cluster"] = expected["cluster"].map(ids, na_action="ignore").astype("Int64")
    for found in (other, Generation.from_parts(other.to_parts())):
        pd.testing.assert_frame_equal(
            found.predict(broken_batch), expected, check_exact=True, check_dtype=False
        )
    assert generation.cluster_ids == old  # the first one is what it was


def test_roles_are_read_back_as_they_were_given(generation):
    assert generation.roles == HOSPITAL_ROLES
    assert Generation.from_parts(generation.to_parts()).roles == HOSPITAL_ROLES


# The fit


def test_a_fit_reports_the_segments_of_its_rows(small, small_data):
    clustering, assignment = small.clustering, small.assignment
    noise = clustering.labels == NOISE
    np.testing.assert_array_equal(assignment.is_noise, noise)
    np.testing.assert_array_equal(assignment.labels[~noise], clustering.labels[~noise])
    assert clustering.noise_ratio == noise.mean()
    assert noise.any()
    expected = small.generation.assign(small_data.X).labels
    assert (assignment.labels == expected).mean() > 0.98


def test_info_tells_what_was_fitted(small):
    info = small.generation.info
    assert info["config"] == SMALL_CONFIG.to_dict()
    assert info["roles"] == vars(HOSPITAL_ROLES)
    assert (info["n_rows"], info["fitted_rows"]) == (600, 600)
    assert info["clustering"] == small.clustering.metrics
    clusters, sizes = np.unique(small.assignment.labels, return_counts=True)
    assert info["cluster_sizes"] == dict(zip(map(str, clusters), sizes.tolist(), strict=True))


def test_no_fold_parts_a_patient_or_trains_on_what_it_validates(small, small_data):
    assert len(small.folds) == 2
    groups = small_data.groups
    for fold in small.folds:
        assert not set(groups[fold.train]) & set(groups[fold.valid])
    valid = np.concatenate([fold.valid for fold in small.folds])
    assert len(set(valid)) == len(valid) == small.generation.target.scores.n_rows


class Recorder:
    """`Stages` that keep what they are told."""

    def __init__(self) -> None:
        self.figures: dict[str, dict[str, Any]] = {}
        self.progress: dict[str, list[tuple[int, int]]] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[Stage]:
        self.figures[name], self.progress[name] = {}, []
        recorder = self

        class Recording(Stage):
            def log(self, figures: Mapping[str, Any]) -> None:
                recorder.figures[name].update(figures)

            def progress(self, done: int, total: int) -> None:
                recorder.progress[name].append((done, total))

        yield Recording()


def test_stages_are_told_what_happens_in_order(small, small_data):
    recorder = Recorder()
    fit_generation(small_data, SMALL_CONFIG, stages=recorder)
    assert list(recorder.figures) == ["HDBSCAN", "kNN-Fallback", "TimeSeries-LGB", "Resource-LGB"]
    target = small.generation.target
    assert recorder.figures["TimeSeries-LGB"] == {
        "cluster_weight": target.weight,
        "n_cluster_models": len(target.cluster_texts),
        "fold_rows": target.scores.n_rows,
        **{f"fold_rmse_{way}": value for way, value in target.scores.errors.items()},
    }
    assert recorder.figures["HDBSCAN"] == {"fitted_rows": 600}
    fallback = recorder.figures["kNN-Fallback"]
    assert (
        fallback["fallback_rows"] == fallback["n_noise_points"] == small.assignment.is_noise.sum()
    )
    assert 0.9 < fallback["fallback_accuracy"] <= 1
    assert recorder.figures["Resource-LGB"]["n_resources"] == 2
    for name in ("TimeSeries-LGB", "Resource-LGB"):
        done, total = zip(*recorder.progress[name], strict=True)
        assert list(done) == list(range(1, total[0] + 1))
        assert set(total) == {len(done)}


def test_fitting_changes_no_training_data(small_data):
    before = [small_data.X.copy(), small_data.y.copy(), small_data.groups.copy()]
    fit_generation(small_data, SMALL_CONFIG)
    for array, copy in zip([small_data.X, small_data.y, small_data.groups], before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_generation_cannot_be_edited(generation):
    with pytest.raises(dataclasses.FrozenInstanceError):
        generation.info = {}


def test_no_request_compiles_again_what_the_first_one_compiled(generation, hospital):
    """A type the kernels have not met would cost a request seconds."""
    generation.predict(generation.example())
    compiled = [kernels.assign.signatures, kernels.forecast.signatures]
    before = [len(found) for found in compiled]
    rows = hospital[generation.schema.names].head(1200)
    read_only = rows[generation.schema.names].copy(deep=True)
    for name in generation.schema.cluster_features:
        read_only[name].to_numpy().flags.writeable = False
    texts = rows.head(3).astype(str)
    for frame in (rows, rows.head(1), rows.tail(7)[::-1], read_only, texts, texts.astype(object)):
        assert (generation.predict(frame)["status"] == "ok").all()
    assert [len(found) for found in compiled] == before


def in_format_1(generation: Generation) -> dict[str, bytes]:
    """Texts beside the scores, the fallback's own copy of its rows, no packed trees, and errors
    that could only be those of numbers."""
    parts = generation.to_parts()
    del parts["forest.npz"]
    for key in ("target", *(f"resource-{i}" for i in range(len(generation.resources)))):
        texts = unpack_json(parts.pop(f"{key}-texts.json"))
        first = {"global": texts.pop("-1"), "clusters": texts}
        content = unpack_json(parts[f"{key}.json"])
        scores = content["scores"]
        old = {name: scores[name] for name in ("n_rows", "clusters")} | {"rmse": scores["errors"]}
        parts[f"{key}.json"] = pack_json(content | first | {"scores": old})
    reference = unpack_json(parts["reference.json"])
    del reference["metric"]
    parts["reference.json"] = pack_json(reference)
    arrays = unpack_arrays(parts["segmentation.npz"])
    labels = arrays.pop("point_labels")
    inside = labels != NOISE
    known = {
        "fallback_points": arrays["density_points"][inside],
        "fallback_labels": labels[inside],
    }
    return parts | {"segmentation.npz": pack_arrays(arrays | known)}


def test_a_state_of_the_first_format_gives_the_same_answers(generation, hospital):
    found = Generation.from_parts(in_format_1(generation))
    answer = generation.predict(hospital)
    pd.testing.assert_frame_equal(found.predict(hospital), answer, check_exact=True)
    assert (answer["cluster_source"] == "knn").any()
    assert found.target.cluster_texts == generation.target.cluster_texts
    assert found.target.scores == generation.target.scores
    assert found.metric == generation.metric == RMSE


# Bounds within the support


COUNTS = Roles("visits", resources=("tests",))
LIMITS_OFF = {"clip_to_support": False, "round_intervals": False}


def counts(n_rows: int = 500) -> pd.DataFrame:
    """Visits, which are mostly 0, and tests, which are not whole."""
    rng = np.random.default_rng(9)
    X = rng.normal(size=(n_rows, 3)) + rng.choice([-4.0, 4.0], n_rows)[:, None]
    visits = rng.poisson(np.exp(0.5 * X[:, 0] - 1.0)).astype(float)
    columns = {"visits": visits, "tests": np.maximum(X[:, 1] + rng.normal(size=n_rows), 0.0)}
    return pd.DataFrame(X, columns=["a", "b", "c"]).assign(**columns)


def counted(**settings: Any) -> Generation:
    config = dataclasses.replace(SMALL_CONFIG, **settings)
    data = training_data(counts(), COUNTS, config)
    return fit_generation(data, config, {"roles": vars(COUNTS)}).generation


def test_bounds_keep_to_the_support_and_hold_the_same_outcomes():
    before, after = counted(**LIMITS_OFF), counted()
    rows = counts(1500)[500:]
    old, new = before.predict(rows), after.predict(rows)
    assert (old["prediction_lower"] < 0).mean() > 0.2
    assert (old["resource_tests"] < 0).any()
    numbers = new[["prediction", *BOUNDS, "resource_tests"]].to_numpy(float)
    assert (numbers >= 0).all()
    bounds = new[BOUNDS].to_numpy(float)
    np.testing.assert_array_equal(bounds, np.round(bounds))
    lower, upper = bounds.T
    assert ((lower <= numbers[:, 0]) & (numbers[:, 0] <= upper)).all()
    assert (new["prediction"] != new["prediction"].round()).any()  # a mean is no whole number
    held = [
        rows["visits"].between(answer["prediction_lower"], answer["prediction_upper"]).mean()
        for answer in (old, new)
    ]
    assert held[1] >= held[0]
    for column, truth in (("prediction", "visits"), ("resource_tests", "tests")):
        errors = [np.square(answer[column] - rows[truth]).mean() for answer in (old, new)]
        assert errors[1] <= errors[0]
    assert (new[BOUNDS[1]] - new[BOUNDS[0]]).mean() < (old[BOUNDS[1]] - old[BOUNDS[0]]).mean()


def test_a_state_keeps_its_support_and_an_older_one_has_none():
    generation, rows = counted(), counts(40)
    parts = generation.to_parts()
    again = Generation.from_parts(parts)
    pd.testing.assert_frame_equal(again.predict(rows), generation.predict(rows))
    for key in ("target.json", "resource-0.json"):
        content = unpack_json(parts[key])
        assert content.pop("support") == {"never_negative": True, "whole": key == "target.json"}
        parts[key] = pack_json(content)
    older = Generation.from_parts(parts)
    assert (older.predict(rows)["prediction_lower"] < 0).any()


def test_the_example_of_many_columns_is_made_at_once():
    # One by one, pandas warns of every column beyond the hundredth; warnings are errors here.
    rng = np.random.default_rng(3)
    names = [f"column_{i}" for i in range(130)]
    frame = pd.DataFrame(rng.normal(size=(60, 130)), columns=names).assign(
        y=rng.normal(size=60), kind=np.where(np.arange(60) % 2, "a", "b")
    )
    config = dataclasses.replace(SMALL_CONFIG, cluster_features=names[:3])
    data = training_data(frame, Roles("y"), config)
    with pytest.warns(UserWarning, match="no cluster was found") as told:
        generation = fit_generation(data, config, {"roles": vars(Roles("y"))}).generation
    example = generation.example()
    assert list(example.columns) == [*names, "kind"]
    assert example["kind"].tolist() == ["a"] * len(example)
    assert [str(one.filename) for one in told] == ["tsclust_model"]  # no line of our source


def test_a_loaded_model_without_its_resources_forecasts_the_target_alike(small, batch):
    loaded = Generation.from_parts(small.generation.to_parts())
    alone = dataclasses.replace(loaded, resources={})
    columns = ["prediction", "prediction_lower", "prediction_upper", "cluster_weight"]
    pd.testing.assert_frame_equal(alone.predict(batch)[columns], loaded.predict(batch)[columns])
