"""What the clusters are like: centres, statistics, profiles, features, outliers.

Every function takes a `Prepared` table and the labels, and returns plain values that go into the
result as they are. Formulas are in docs/analysis.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypedDict

import numpy as np
from scipy.stats import entropy
from sklearn.ensemble import IsolationForest
from sklearn.feature_selection import mutual_info_classif
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors

from tsclust_model.results import NOISE
from tsclust_model.shown import one_line

IMPORTANCE_ROWS = 10_000

DENSITY_ROWS = 1_000

REPRESENTATIVES = 5

_DENSITY_NEIGHBOURS = 5

OUTLIER_SCORE = 0.6


class SampleCluster(TypedDict):
    sample_id: int | str
    cluster_id: int
    confidence: float


class Center(TypedDict):
    cluster_id: int
    center_coordinates: list[float]
    cluster_size: int


class Statistics(TypedDict):
    """A cluster in the clustering space; None where undefined."""

    cluster_id: int
    size: int
    density: float | None
    compactness: float
    separation: float | None


class Importance(TypedDict):
    feature: str
    importance: float


class Characteristic(TypedDict):
    """A feature in a cluster and in all rows; `difference` in standard deviations of all rows."""

    feature: str
    mean: float
    standard_deviation: float
    overall_mean: float
    difference: float


class Profile(TypedDict):
    """What sets a cluster apart, most first, and its most central rows."""

    cluster_id: int
    share: float
    characteristics: list[Characteristic]
    representative_samples: list[Any]


class Outliers(TypedDict):
    outliers: list[Any]
    outlier_scores: list[float]
    method: str


@one_line
@dataclass(frozen=True)
class Prepared:
    """What is clustered, and what became of the rest.

    Attributes
    ----------
    X : ndarray of float64, shape (n, n_dimensions)
        Scaled and reduced rows: the clustering space.
    original : ndarray of float64, shape (n, n_features)
        The same rows in their own units.
    features : list of str
        The columns of `original`.
    sample_ids : list of int or str, length n
        Position of each row in the table, or its value in ``id_column``.
    inlier : ndarray of bool, shape (n,)
        Rows that are clustered; the others were left out by ``outlier_detection``.
    target : ndarray or None, shape (n,)
        Codes of the known classes, -1 where there is none.
    statistics : dict
        The ``data_statistics`` of the result.
    notes : tuple of str
    """

    X: np.ndarray
    original: np.ndarray
    features: list[str]
    sample_ids: list[Any]
    inlier: np.ndarray
    target: np.ndarray | None
    statistics: dict[str, Any]
    notes: tuple[str, ...]


def isolation_scores(X: np.ndarray, random_state: int) -> np.ndarray:
    """How easily a row is isolated, 0 to 1 (Liu et al. 2008, eq. 2), shape (n,)."""
    forest = IsolationForest(random_state=random_state).fit(X)
    return np.clip(-np.asarray(forest.score_samples(X)), 0.0, 1.0)


class Profiled(Protocol):
    """Rows that profiles are made of; see `Prepared`."""

    @property
    def X(self) -> np.ndarray: ...  # noqa: N802
    @property
    def original(self) -> np.ndarray: ...
    @property
    def features(self) -> list[str]: ...
    @property
    def sample_ids(self) -> list[Any]: ...


def assignments(
    sample_ids: list[Any], labels: np.ndarray, confidence: np.ndarray
) -> list[SampleCluster]:
    """``sample_id``, ``cluster_id`` and ``confidence`` of each row."""
    return [
        {"sample_id": sample, "cluster_id": cluster, "confidence": sure}
        for sample, cluster, sure in zip(
            sample_ids, labels.tolist(), confidence.tolist(), strict=True
        )
    ]


def centers(data: Prepared, labels: np.ndarray) -> list[Center]:
    """The mean of each cluster's rows in the units of the table, in the order of the features."""
    return [
        {
            "cluster_id": cluster,
            "center_coordinates": data.original[rows].mean(axis=0).tolist(),
            "cluster_size": len(rows),
        }
        for cluster, rows in enumerate(_members(labels))
    ]


def statistics(data: Prepared, labels: np.ndarray, random_state: int) -> list[Statistics]:
    """Size, density, compactness and separation of each cluster, in the clustering space."""
    members = _members(labels)
    if not members:
        return []
    middles = np.array([data.X[rows].mean(axis=0) for rows in members])
    between = pairwise_distances(middles)
    np.fill_diagonal(between, np.inf)
    return [
        {
            "cluster_id": cluster,
            "size": len(rows),
            "density": _density(data.X[rows], random_state),
            "compactness": float(
                np.sqrt(((data.X[rows] - middles[cluster]) ** 2).sum(axis=1).mean())
            ),
            "separation": float(between[cluster].min()) if len(members) > 1 else None,
        }
        for cluster, rows in enumerate(members)
    ]


def feature_importance(data: Prepared, labels: np.ndarray, random_state: int) -> list[Importance]:
    """Share of the clusters' entropy that each feature alone tells, most first; noise left out."""
    inside = np.flatnonzero(labels != NOISE)
    if len(inside) > IMPORTANCE_ROWS:
        rng = np.random.default_rng(random_state)
        inside = np.sort(rng.choice(inside, IMPORTANCE_ROWS, replace=False))
    known = labels[inside]
    shares = np.zeros(len(data.features))
    if len(np.unique(known)) > 1:
        neighbours = min(3, len(inside) - 1)
        told = mutual_info_classif(
            data.original[inside],
            known,
            discrete_features=False,
            n_neighbors=neighbours,
            random_state=random_state,
        )
        shares = np.clip(told / entropy(np.bincount(known)), 0.0, 1.0)
    order = np.argsort(-shares, kind="stable")
    return [{"feature": data.features[i], "importance": float(shares[i])} for i in order]


def profiles(data: Profiled, labels: np.ndarray) -> list[Profile]:
    """Each cluster's features, those that set it apart most first, and its most central rows."""
    mean, deviation = data.original.mean(axis=0), data.original.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    described: list[Profile] = []
    for cluster, rows in enumerate(_members(labels)):
        own = data.original[rows]
        away = (own.mean(axis=0) - mean) / deviation
        described.append(
            {
                "cluster_id": cluster,
                "share": len(rows) / len(labels),
                "characteristics": [
                    {
                        "feature": data.features[i],
                        "mean": float(own[:, i].mean()),
                        "standard_deviation": float(own[:, i].std()),
                        "overall_mean": float(mean[i]),
                        "difference": float(away[i]),
                    }
                    for i in np.argsort(-np.abs(away), kind="stable")
                ],
                "representative_samples": _representatives(data, rows),
            }
        )
    return described


def outlier_analysis(data: Prepared, labels: np.ndarray, random_state: int) -> Outliers:
    """Rows that are noise, were left out before, or (else) are easily isolated; and all scores."""
    scores = isolation_scores(data.X, random_state)
    if (labels == NOISE).any():
        isolated, method = labels == NOISE, "rows in no cluster (noise, or left out before)"
    else:
        isolated, method = scores > OUTLIER_SCORE, f"isolation forest score above {OUTLIER_SCORE}"
    return {
        "outliers": [data.sample_ids[i] for i in np.flatnonzero(isolated)],
        "outlier_scores": scores.tolist(),
        "method": method,
    }


def _members(labels: np.ndarray) -> list[np.ndarray]:
    """Rows of each cluster, by its number."""
    order = np.argsort(labels, kind="stable")
    inside = order[np.searchsorted(labels[order], 0) :]
    if not inside.size:
        return []
    return np.split(inside, np.flatnonzero(np.diff(labels[inside])) + 1)


def _density(members: np.ndarray, random_state: int) -> float | None:
    """One over the mean distance to the fifth nearest other member; None where undefined."""
    neighbours = min(_DENSITY_NEIGHBOURS, len(members) - 1)
    if neighbours < 1:
        return None
    queries = members
    if len(members) > DENSITY_ROWS:
        rng = np.random.default_rng(random_state)
        queries = members[rng.choice(len(members), DENSITY_ROWS, replace=False)]
    # The query itself is the first of its neighbours.
    search = NearestNeighbors(n_neighbors=neighbours + 1).fit(members)
    mean = float(search.kneighbors(queries)[0][:, -1].mean())
    return 1 / mean if mean > 0 else None


def _representatives(data: Profiled, rows: np.ndarray) -> list[Any]:
    distances = ((data.X[rows] - data.X[rows].mean(axis=0)) ** 2).sum(axis=1)
    nearest = np.argsort(distances, kind="stable")[:REPRESENTATIVES]
    return [data.sample_ids[i] for i in rows[nearest]]
