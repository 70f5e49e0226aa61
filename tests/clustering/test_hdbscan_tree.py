from __future__ import annotations

from dataclasses import replace
from typing import Any

import hdbscan
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.clustering.oracle import approximate_predict, fit, knows_its_own_clusters
from tsclust_model.clustering.hdbscan_tree import DensityTree
from tsclust_model.results import NOISE


def assert_same_as_hdbscan(clusterer: hdbscan.HDBSCAN, X: np.ndarray) -> None:
    labels, strength = DensityTree.from_hdbscan(clusterer).predict(X)
    expected_labels, expected_strength = approximate_predict(clusterer, X)
    np.testing.assert_array_equal(labels, expected_labels)
    np.testing.assert_array_equal(strength, expected_strength)


def blobs(seed: int, sizes: tuple[int, ...], spread: float = 0.3) -> np.ndarray:
    """Round clusters in two dimensions, 10 apart on a diagonal."""
    rng = np.random.default_rng(seed)
    parts = [rng.normal(10 * i, spread, (size, 2)) for i, size in enumerate(sizes)]
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def clustered() -> hdbscan.HDBSCAN:
    rng = np.random.default_rng(1)
    X = np.concatenate([blobs(1, (150, 90, 60), spread=1.0), rng.uniform(-5, 25, (30, 2))])
    return fit(X, min_cluster_size=15, min_samples=5)


@pytest.fixture(scope="module")
def tree(clustered: hdbscan.HDBSCAN) -> DensityTree:
    return DensityTree.from_hdbscan(clustered)


@pytest.fixture(scope="module")
def new_rows() -> np.ndarray:
    return np.random.default_rng(2).uniform(-8, 28, (400, 2))


@st.composite
def random_models(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, Any], np.ndarray]:
    """Rows with ties and duplicates, parameters, and rows to predict."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, n_features = draw(st.integers(6, 80)), draw(st.integers(1, 3))
    places = rng.integers(0, 7, (draw(st.integers(1, 5)), n_features))
    X = places[rng.integers(0, len(places), n)] + rng.normal(0, 0.5, (n, n_features))
    decimals = draw(st.sampled_from([0, 1, 15]))
    X = np.round(X, decimals)
    X = np.concatenate([X, X[rng.integers(0, n, draw(st.integers(0, n)))]])
    new = np.round(rng.uniform(-3, 10, (20, n_features)), decimals)
    params: dict[str, Any] = {
        "min_cluster_size": draw(st.integers(2, 8)),
        "min_samples": draw(st.none() | st.integers(1, 6)),
        "cluster_selection_method": draw(st.sampled_from(["eom", "leaf"])),
        "cluster_selection_epsilon": draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])),
        "max_cluster_size": draw(st.sampled_from([0, 0, 20])),
        "metric": draw(
            st.sampled_from(["euclidean", "manhattan", "chebyshev", "minkowski", "canberra"])
        ),
    }
    if params["metric"] == "minkowski":
        params["p"] = draw(st.sampled_from([1, 2, 3]))
    assume(len(X) >= 2 * (params["min_samples"] or params["min_cluster_size"]))
    return X, params, np.concatenate([X, new])


@given(random_models())
def test_prediction_is_hdbscans_to_the_last_bit(model):
    X, params, rows = model
    clusterer = fit(X, **params)
    np.testing.assert_array_equal(
        DensityTree.from_hdbscan(clusterer).core_distances,
        clusterer.prediction_data_.core_distances,
    )
    assume(knows_its_own_clusters(clusterer))
    assert_same_as_hdbscan(clusterer, rows)


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_no_prediction_data_of_hdbscans_is_needed(metric, new_rows):
    X = blobs(5, (80, 50, 40), spread=1.0)
    params = {"min_cluster_size": 10, "min_samples": 4, "metric": metric}
    expected = DensityTree.from_hdbscan(fit(X, **params)).predict(new_rows)
    found = DensityTree.from_hdbscan(fit(X, **params, prediction_data=False)).predict(new_rows)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"cluster_selection_method": "leaf"},
        {"cluster_selection_epsilon": 2.0},
        {"min_samples": None},
        {"min_samples": 1},
        {"algorithm": "generic"},
        {"algorithm": "prims_balltree"},
        {"metric": "manhattan"},
        {"metric": "chebyshev"},
        {"metric": "minkowski", "p": 1},
        {"metric": "minkowski", "p": 3},
        {"metric": "braycurtis"},
    ],
    ids=str,
)
def test_each_parameter_predicts_as_hdbscan_does(params, new_rows):
    X = np.abs(np.concatenate([blobs(5, (80, 50, 40), spread=1.0), new_rows[:20]]))
    clusterer = fit(X, **{"min_cluster_size": 10, "min_samples": 4} | params)
    assert knows_its_own_clusters(clusterer)
    assert clusterer.labels_.max() > 0
    assert_same_as_hdbscan(clusterer, np.concatenate([X, new_rows]))


@pytest.mark.parametrize(
    ("seed", "epsilon"),
    [
        (98, 0.0),  # hdbscan knows its own clusters here
        (99, 0.0),  # here it does not, and swaps two of them
        (19, 1.0),  # nor here, where it takes half of the clustered rows for noise
    ],
)
def test_fitted_rows_are_predicted_to_be_in_the_clusters_they_were_fitted_in(seed, epsilon):
    rng = np.random.default_rng(seed)
    places = rng.integers(0, 5, (4, 2))[rng.integers(0, 4, 120)]
    X = np.round(places + rng.normal(0, 0.4, (120, 2)), 1)
    clusterer = fit(X, min_cluster_size=5, min_samples=3, cluster_selection_epsilon=epsilon)
    labels, _ = DensityTree.from_hdbscan(clusterer).predict(X)
    clustered = clusterer.labels_ != NOISE
    found = clustered & (labels != NOISE)
    np.testing.assert_array_equal(labels[found], clusterer.labels_[found])
    assert found.sum() > 0.9 * clustered.sum()  # an edge may become noise


@pytest.mark.parametrize(
    ("metric", "tree_class"), [("manhattan", "kd_tree"), ("canberra", "ball_tree")]
)
def test_the_class_of_tree_that_decides_ties_is_hdbscans(metric, tree_class):
    clusterer = fit(blobs(5, (20, 20)) + 50, min_cluster_size=5, min_samples=3, metric=metric)
    found = DensityTree.from_hdbscan(clusterer)
    assert (found.tree_class, found.metric) == (tree_class, metric)
    assert type(found._tree) is type(clusterer.prediction_data_.tree)


def test_one_cluster_is_found_again():
    clusterer = fit(blobs(3, (60, 20)), min_cluster_size=10, max_cluster_size=40)
    assert set(clusterer.labels_) == {NOISE, 0}
    tree = DensityTree.from_hdbscan(clusterer)
    labels, strength = tree.predict(np.array([[10.0, 10.0], [0.0, 0.0]]))
    assert labels.tolist() == [0, NOISE]
    assert strength[0] > 0.5
    assert strength[1] == 0.0


def test_without_a_cluster_every_row_is_noise(new_rows):
    clusterer = fit(blobs(4, (30,)), min_cluster_size=25)
    labels, strength = DensityTree.from_hdbscan(clusterer).predict(new_rows)
    assert labels.tolist() == [NOISE] * len(new_rows)
    assert strength.tolist() == [0.0] * len(new_rows)


def test_a_duplicate_has_its_cluster_and_no_strength():
    X = np.repeat([[0.0, 0.0], [5.0, 5.0]], 20, axis=0)
    clusterer = fit(X, min_cluster_size=5, min_samples=3)
    labels, strength = DensityTree.from_hdbscan(clusterer).predict(X[[0, 39]])
    assert labels.tolist() == clusterer.labels_[[0, 39]].tolist()
    assert strength.tolist() == [0.0, 0.0]


def test_strength_is_a_share_and_zero_for_noise_alone(tree, new_rows):
    labels, strength = tree.predict(new_rows)
    assert ((strength >= 0) & (strength <= 1)).all()
    np.testing.assert_array_equal(strength == 0, labels == NOISE)


@pytest.mark.parametrize("chunk", [1, 7])
def test_a_row_is_predicted_alone_as_in_a_batch(tree, new_rows, chunk):
    parts = [tree.predict(new_rows[i : i + chunk]) for i in range(0, len(new_rows), chunk)]
    labels, strength = tree.predict(new_rows)
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), labels)
    np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), strength)


def test_types_do_not_depend_on_the_number_of_rows(tree, new_rows):
    for rows in (new_rows, new_rows[:1], new_rows[:0]):
        labels, strength = tree.predict(rows)
        assert (labels.dtype, strength.dtype) == (np.int64, np.float64)
        assert labels.shape == strength.shape == (len(rows),)


def test_prediction_changes_neither_the_rows_nor_the_tree(clustered, new_rows):
    tree = DensityTree.from_hdbscan(clustered)
    rows = new_rows.copy()
    first = tree.predict(rows)
    np.testing.assert_array_equal(rows, new_rows)
    np.testing.assert_array_equal(tree.predict(rows), first)


def test_a_row_too_far_to_measure_is_noise(tree):
    labels, strength = tree.predict(np.array([[1e300, -1e300], [0.0, 0.0]]))
    assert labels[0] == NOISE
    assert labels[1] != NOISE
    assert strength[0] == 0.0


def test_a_point_left_out_is_predicted_as_by_a_tree_without_it(tree):
    rows = np.arange(len(tree.points))
    expected = []
    for row in rows:
        others = {
            name: np.delete(getattr(tree, name), row, axis=0)
            for name in ("points", "core_distances", "point_cluster", "point_lambda")
        }
        expected.append(replace(tree, **others).predict(tree.points[[row]])[0][0])
    labels = tree.predict_left_out(rows)
    assert labels.tolist() == expected
    assert (labels != tree.predict(tree.points[rows])[0]).any()


def test_without_a_cluster_a_point_left_out_is_noise():
    tree = DensityTree.from_hdbscan(fit(blobs(4, (30,)), min_cluster_size=25))
    assert tree.predict_left_out(np.array([0, 29])).tolist() == [NOISE, NOISE]


@pytest.mark.parametrize("n_points", [10, 99, 329])
def test_a_sample_keeps_exactly_as_many_points_and_each_cluster_its_share(tree, n_points):
    sample, kept = tree.sample(n_points, 0)
    assert len(kept) == len(set(kept)) == n_points
    np.testing.assert_array_equal(kept, np.sort(kept))
    for name in ("points", "core_distances", "point_cluster", "point_lambda"):
        np.testing.assert_array_equal(getattr(sample, name), getattr(tree, name)[kept])
    share = n_points / len(tree.points)
    sizes = np.bincount(tree.point_cluster)
    off = np.bincount(sample.point_cluster, minlength=len(sizes)) - share * sizes
    assert np.abs(off).max() < 1


def test_a_sample_needs_neighbours_in_proportion(tree):
    assert tree.min_samples == 5
    assert tree.sample(198, 0)[0].min_samples == 3  # 0.6 of 330 points
    assert tree.sample(10, 0)[0].min_samples == 1


def test_a_sample_as_large_as_the_tree_is_the_tree(tree):
    for n_points in (330, 1000):
        sample, kept = tree.sample(n_points, 0)
        assert sample is tree
        np.testing.assert_array_equal(kept, np.arange(330))


def test_a_sample_depends_on_its_seed_alone(tree):
    np.testing.assert_array_equal(tree.sample(50, 1)[1], tree.sample(50, 1)[1])
    assert (tree.sample(50, 1)[1] != tree.sample(50, 2)[1]).any()


def test_a_sample_predicts_most_rows_as_all_points_do(tree, new_rows):
    labels, _ = tree.predict(new_rows)
    sampled, _ = tree.sample(110, 0)[0].predict(new_rows)
    assert (labels == sampled).mean() > 0.9
