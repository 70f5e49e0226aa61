"""What a retrain may change, and what serves after it."""

from __future__ import annotations

from dataclasses import replace

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from tests.support import QUICK
from tests.training.retrains import (
    CONFIG,
    NUMBERS,
    TARGET,
    again,
    aliases,
    history_files,
    rows,
    trained,
    versions,
)
from tsclust_model.config import PipelineConfig
from tsclust_model.data.roles import Roles
from tsclust_model.data.synthetic import make_hospital
from tsclust_model.errors import MLflowIntegrationError, RetrainingError
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
from tsclust_model.training.challenge import retrain_model
from tsclust_model.training.lock import retrain_lock
from tsclust_model.training.train import train_table


@pytest.fixture(scope="module")
def made() -> dict[str, tuple]:
    """What several tests look at, by name: each is made by the first that asks."""
    return {}


@pytest.fixture
def promoted(store, request, moved, made) -> tuple:
    """A training with a named segment and its retrain after the hospital moved."""
    if "promoted" not in made:
        training = request.getfixturevalue("training")
        name_segment(training.model_name, training.generation.cluster_ids[1], "post-op, long stay")
        open_storage(CONFIG, training.model_name).history.register(rows(moved))
        made["promoted"] = training, again(training, reason="the hospital moved")
    return made["promoted"]


def test_a_better_challenger_is_promoted_and_tagged(promoted):
    training, done = promoted
    name = training.model_name
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


@pytest.fixture
def succeeded(store, made) -> tuple:
    """A kind of row that dies and one that is born; `refitted` of them, and the kinds."""
    if "succeeded" not in made:
        frame, kind_of = make_hospital(3000, random_state=7, dying=0.3, born=0.55, return_kind=True)
        kinds = kind_of[1000:2500]
        made["succeeded"] = *refitted(frame, 1500, slice(1000, 2500)), kinds
    return made["succeeded"]


def test_every_surviving_segment_keeps_its_id_beside_a_birth_and_a_death(succeeded):
    training, done, window, kinds = succeeded
    old, new = training.generation, done.generation

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


def test_a_retired_id_is_not_used_by_a_later_generation_either(succeeded):
    _, done, _, _ = succeeded
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


def test_names_follow_the_ids_of_segments(promoted):
    training, done = promoted
    kept = training.generation.cluster_ids[1]
    assert segment_names(training.model_name) == {kept: "post-op, long stay"}
    assert str(kept) in done.generation.info["lineage"]["kept"]


def test_served_bits_of_a_registered_challenger_are_those_of_the_retrain(promoted, stream):
    training, done = promoted
    served = load_generation(f"models:/{training.model_name}@champion")
    pd.testing.assert_frame_equal(
        served.predict(rows(stream).tail(50)),
        done.generation.predict(rows(stream).tail(50)),
        check_exact=True,
    )


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
    name = f"broken-{next(NUMBERS)}"
    training = train_table(before_break, PLAIN_ROLES, PLAIN, model_name=name)
    history = open_storage(PLAIN, name).history
    history.register(plain(100, 2))
    batch = history.register(plain(n_after, 3, 1.0))
    known = (training.generation, "1", name, PLAIN, "a break")
    done = retrain_model(*known, since=[(batch, 0)], **options)
    return done, batch


@pytest.fixture
def refitted_once(store, before_break, made) -> tuple:
    if "broken" not in made:
        made["broken"] = broken(before_break, 300)
    return made["broken"]


def test_what_serves_after_a_drift_is_fitted_on_every_row_and_knows_its_own_error(refitted_once):
    done, batch = refitted_once
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


def test_the_report_of_a_refit_is_of_rows_that_its_forecasts_have_not_seen(refitted_once):
    done, _ = refitted_once
    assert done.report["holdout"]["rmse"] == pytest.approx(done.comparison.challenger)
    assert done.report["refitted"] is True
