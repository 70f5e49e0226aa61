"""The parts of the clustering analysis: one fit for all algorithms, validity, the sweep."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.cluster import DBSCAN
from sklearn.datasets import make_circles, make_moons
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_info

from tsclust_model.analysis import algorithms as clusterers
from tsclust_model.analysis.algorithms import by_size, fit_clustering
from tsclust_model.analysis.indices import (
    agreement,
    connectivity,
    density_validity,
    modularity,
    nearest_rows,
    rand_matrix,
)
from tsclust_model.analysis.parameters import knee, nearest_others, transferred, whole_parameters
from tsclust_model.analysis.sweep import Candidate, candidates, sweep
from tsclust_model.analysis.tendency import clustering_tendency
from tsclust_model.clustering.profiles import isolation_scores


@pytest.fixture(scope="module")
def pairs() -> np.ndarray:
    """Two far groups of 60 and 40 rows."""
    middle = np.repeat([[0.0, 0.0], [20.0, 0.0]], [60, 40], axis=0)
    return np.random.default_rng(1).normal(middle, 1.0)


PAIR_LABELS = np.repeat([0, 1], [60, 40])


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_density_validity_of_300_columns_does_not_depend_on_the_unit(unit):
    X = np.random.default_rng(0).normal(size=(200, 300))
    X[:100] += 3
    found = density_validity(X * unit, np.repeat([0, 1], 100))
    assert found == pytest.approx(0.5651034250539997, rel=1e-9)


def test_clusters_are_numbered_from_the_largest():
    assert by_size(np.array([7, 2, 2, -1, 5, 2, 5])).tolist() == [2, 0, 0, -1, 1, 0, 1]
    assert by_size(np.array([4, 9, 4, 9])).tolist() == [0, 1, 0, 1]
    assert by_size(np.array([-1, -1])).tolist() == [-1, -1]


def test_the_knee_is_furthest_below_the_chord():
    assert knee(np.array([1.0, 1.0, 1.0, 2.0, 10.0])) == 2.0
    assert knee(np.zeros(4)) == 1.0


@pytest.mark.parametrize("algorithm", ["spectral", "hierarchical", "optics", "dbscan", "hdbscan"])
def test_above_its_limit_an_algorithm_fits_a_sample_and_assigns_the_rest(
    pairs, algorithm, monkeypatch
):
    monkeypatch.setitem(clusterers.LARGEST_FIT, algorithm, 50)
    found = fit_clustering(
        pairs, algorithm, {}, 2 if algorithm in ("spectral", "hierarchical") else None
    )
    assert found.n_fitted == 50
    inside = found.labels >= 0
    assert inside.mean() > 0.7
    for cluster in np.unique(found.labels[inside]):
        assert len(np.unique(PAIR_LABELS[found.labels == cluster])) == 1
    assert (found.confidence[~inside] == 0).all()


def test_confidence_of_kmeans_is_half_on_the_border_and_one_in_the_centre():
    X = np.array([[0.0], [0.0], [1.0], [2.0], [2.0]])
    found = fit_clustering(X, "kmeans", {}, 2)
    assert found.inertia == pytest.approx(2 / 3)
    assert found.confidence[[0, 4]].max() == pytest.approx(1.0)
    assert found.confidence[2] == pytest.approx((4 / 3) / 2 if found.labels[2] else 0.6, abs=0.1)


def test_confidence_of_a_mixture_is_its_posterior(pairs):
    found = fit_clustering(pairs, "gaussian_mixture", {}, 2)
    assert found.confidence.min() == pytest.approx(1.0)


@pytest.mark.parametrize(("n_columns", "eps", "min_samples"), [(2, 0.2, 5), (2, 0.1, 1), (6, 1, 8)])
def test_dbscan_has_the_labels_of_scikit_learn(n_columns, eps, min_samples):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(600, n_columns)) * np.where(rng.random((600, 1)) < 0.4, 0.2, 1.5)
    X[::3, 0] += 4.0
    X[:40] = X[40:80]  # copies of rows
    found = fit_clustering(X, "dbscan", {"eps": eps, "min_samples": min_samples})
    expected = DBSCAN(eps=eps, min_samples=min_samples).fit_predict(X)
    assert found.n_clusters > 1
    np.testing.assert_array_equal(found.labels, by_size(expected))


@pytest.mark.parametrize("n_columns", [2, 20])
def test_nearest_others_are_those_of_all_pairs(n_columns):
    X = np.random.default_rng(0).normal(size=(80, n_columns))
    X[:12] = X[0]  # more copies than neighbours
    apart = np.sqrt(((X[:, None] - X[None]) ** 2).sum(axis=2))
    np.fill_diagonal(apart, np.inf)
    rows = np.array([70, 3, 41])
    distances, positions = nearest_others(X, 5, rows)
    np.testing.assert_allclose(distances, np.sort(apart[rows])[:, :5], atol=1e-7)
    np.testing.assert_array_equal(positions[0], np.argsort(apart[70])[:5])
    assert set(positions[1]) <= set(range(12)) - {3}


def test_parameters_mean_the_same_to_fewer_rows(pairs):
    rows = pairs[::2]
    found = transferred({"min_cluster_size": 20, "min_samples": 5}, pairs, rows, 0)
    assert found == {"min_cluster_size": 10, "min_samples": 5}
    thinner = transferred({"eps": 0.5, "min_samples": 5}, pairs, rows, 0)["eps"]
    assert 0.5 < thinner < 1.5
    assert transferred({"n_clusters": 200}, pairs, rows, 0) == {"n_clusters": 49}


def test_counts_written_as_5_0_are_counts():
    given = {"n_init": 10.0, "max_iter": 300.0, "tol": 1.0}
    assert str(whole_parameters("kmeans", given)) == "{'n_init': 10, 'max_iter': 300, 'tol': 1.0}"
    assert str(whole_parameters("dbscan", {"eps": 1.0, "min_samples": 5.0})) == (
        "{'eps': 1.0, 'min_samples': 5}"
    )
    shares = whole_parameters("optics", {"min_samples": 0.5, "min_cluster_size": 1.0})
    assert str(shares) == "{'min_samples': 0.5, 'min_cluster_size': 1.0}"


def test_dbcv_is_high_for_the_true_groups_and_low_for_a_cut(pairs):
    assert density_validity(pairs, PAIR_LABELS) > 0.8
    assert density_validity(pairs, np.arange(100) % 2) < 0
    assert density_validity(pairs, np.zeros(100, dtype=int)) is None
    assert density_validity(pairs, np.full(100, -1)) is None


def test_dbcv_of_copies_of_a_row_is_no_assertion():
    for seed in (640, 860, 980):  # hdbscan's index stops on these
        rng = np.random.default_rng(seed)
        width, n = int(rng.integers(1, 11)), int(rng.integers(10, 60))
        rows = rng.normal(size=(int(rng.integers(3, 8)), width))
        X = rows[rng.integers(0, len(rows), n)]
        found = density_validity(X, (X[:, 0] > np.median(X[:, 0])).astype(int))
        assert found is None or -1 <= found <= 1


def test_connectivity_counts_neighbours_in_the_same_cluster(pairs):
    neighbours = nearest_rows(pairs)
    assert neighbours.shape == (100, 10)
    assert connectivity(PAIR_LABELS, neighbours) == 1.0
    assert modularity(PAIR_LABELS, neighbours) == pytest.approx(1 - 0.6**2 - 0.4**2)
    noise = np.where(PAIR_LABELS == 1, -1, 0)
    assert connectivity(noise, neighbours) == pytest.approx(0.6)
    assert connectivity(np.full(100, -1), neighbours) == 0.0


@settings(max_examples=50)
@given(st.integers(2, 30).flatmap(lambda n: arrays(np.int64, (3, n), elements=st.integers(-1, 4))))
def test_the_rand_matrix_is_sklearns_index_of_each_pair(labels):
    found = rand_matrix(list(labels))
    for i in range(3):
        for j in range(3):
            assert found[i, j] == pytest.approx(adjusted_rand_score(labels[i], labels[j]))


def test_agreement_asks_other_families_only():
    a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    found = agreement(rand_matrix([a, a, b]), ["kmeans", "ward", "ward"])
    assert found.tolist() == pytest.approx([1.0, 1.0, adjusted_rand_score(a, b)])
    assert agreement(rand_matrix([a, b]), ["kmeans", "kmeans"]).tolist() == [0.0, 0.0]


def test_the_sweep_contains_rings_and_says_why_some_are_not_ranked():
    X, ring = make_circles(240, noise=0.03, factor=0.4, random_state=0)
    advice = sweep(X * 3)
    exact = [item for item in advice.evaluated if adjusted_rand_score(item.labels, ring) == 1.0]
    assert {"single", "hdbscan", "spectral"} <= {c.candidate.family for c in exact}
    assert max(item.stability for item in exact if item.score is not None) == 1.0
    assert advice.best is advice.evaluated[0]
    reasons = {item.excluded for item in advice.evaluated if item.score is None}
    assert None not in reasons
    scores = [item.score for item in advice.evaluated if item.score is not None]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 for score in scores)


@pytest.mark.parametrize("seed", [0, 1])
def test_single_clouds_have_no_groups_and_moons_have(seed):
    rng = np.random.default_rng(seed)
    assert not clustering_tendency(rng.uniform(size=(300, 2))).present
    assert not clustering_tendency(rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4))).present
    moons = make_moons(300, noise=0.05, random_state=seed)[0]
    found = clustering_tendency(moons)
    assert found.present
    assert found == clustering_tendency(moons)
    assert found.figures["valley"] > found.bounds["normal"]["valley"]


def test_a_budget_tries_each_family_first(pairs):
    advice = sweep(pairs, time_budget=1e-9)
    assert len(advice.evaluated) == 1
    assert not advice.complete
    whole = sweep(pairs, watch=lambda tried: tried[:8])
    assert {item.candidate.family for item in whole.evaluated} == {
        *("kmeans", "gaussian_mixture", "spectral", "ward", "average", "single"),
        *("hdbscan", "dbscan"),
    }


def test_the_sweep_runs_in_one_thread(pairs):
    def threads(tried: list[Candidate]) -> list[Candidate]:
        seen.extend(pool["num_threads"] for pool in threadpool_info())
        return tried[:1]

    seen: list[int] = []
    sweep(pairs, watch=threads)
    assert set(seen) == {1}


def test_candidates_depend_on_the_number_of_rows():
    numbers = {c.n_clusters for c in candidates(40)}
    assert numbers == {None, 2, 3, 4, 5}
    assert {c.n_clusters for c in candidates(40, 7)} == {7}
    assert {c.n_clusters for c in candidates(12)} == {None, 2, 3}
    shares = Candidate("hdbscan", size_share=0.05, min_samples=5)
    assert shares.parameters(np.zeros((400, 1)), 0) == {"min_cluster_size": 20, "min_samples": 5}


def test_isolation_scores_are_between_0_and_1_and_highest_far_away(pairs):
    scores = isolation_scores(np.vstack([pairs, [[500.0, 500.0]]]), 0)
    assert scores.argmax() == 100
    assert 0 < scores.min() <= scores.max() <= 1
