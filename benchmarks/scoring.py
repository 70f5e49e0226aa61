"""Scoring against the composition of the libraries that a user would write, bit for bit.

    python benchmarks/scoring.py                     # trained on 50,000 rows: 1 and 1,000 rows
    python benchmarks/scoring.py --train 200000      # and 50,000 rows
    python benchmarks/scoring.py --duplicates        # approximate_predict on rounded data

Both sides hold the same fitted objects: one scaler, one HDBSCAN, one kNN fallback, and for one
target and three resources a global and 50 cluster models. Every pair of runs is interleaved, and
the outputs are asserted to be equal.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hdbscan
import lightgbm as lgb
import numpy as np
import pandas as pd
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from training import N_FEATURES, configuration, make_data

from tsclust_model._kernels import rows as kernels
from tsclust_model._kernels.search_tree import in_parts
from tsclust_model.boosting.intervals import Calibration
from tsclust_model.boosting.output_model import Ensemble, FoldScores, NumberModel
from tsclust_model.clustering.engine import Scaler, Segmentation
from tsclust_model.clustering.hdbscan_tree import DensityTree
from tsclust_model.monitoring.reference import Reference
from tsclust_model.rows.model import Generation

WEIGHT = 0.5
Labelled = tuple[np.ndarray, np.ndarray]


@dataclass
class Plain:
    """The composition as a user writes it."""

    scaler: StandardScaler
    clusterer: hdbscan.HDBSCAN
    fallback: KNeighborsClassifier
    everyone: dict[str, lgb.LGBMRegressor]
    own: dict[str, dict[int, lgb.LGBMRegressor]]

    @classmethod
    def fit(cls, n_rows: int) -> tuple[Plain, Any]:
        data, config = make_data(n_rows), configuration(n_rows)
        scaler = StandardScaler().fit(data.X)
        Z = scaler.transform(data.X)
        clusterer = hdbscan.HDBSCAN(**config.hdbscan_params, core_dist_n_jobs=1).fit(Z)
        labels = clusterer.labels_.copy()
        noise = labels == -1
        fallback = KNeighborsClassifier(weights="distance").fit(Z[~noise], labels[~noise])
        if noise.any():
            labels[noise] = fallback.predict(Z[noise])
        outcomes = {"target": (data.y, config.lgb_timeseries_params)} | {
            name: (y, config.lgb_resource_params) for name, y in data.resources.items()
        }
        everyone, own = {}, {}
        for name, (y, params) in outcomes.items():
            everyone[name] = lgb.LGBMRegressor(**params).fit(data.X, y)
            own[name] = {
                int(c): lgb.LGBMRegressor(**params, n_jobs=1).fit(
                    data.X[labels == c], y[labels == c]
                )
                for c in np.unique(labels)
            }
        return cls(scaler, clusterer, fallback, everyone, own), data

    def assign(self, X: np.ndarray) -> Labelled:
        Z = self.scaler.transform(X)
        labels, strength = hdbscan.approximate_predict(self.clusterer, Z)
        noise = labels == -1
        if noise.any():
            labels[noise] = self.fallback.predict(Z[noise])
        return labels, strength

    def forecast(self, X: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        forecasts = {}
        for name, model in self.everyone.items():
            forecast = model.predict(X)
            for cluster in np.unique(labels):
                rows = labels == cluster
                own = self.own[name][cluster].predict(X[rows])
                forecast[rows] = (1 - WEIGHT) * forecast[rows] + WEIGHT * own
            forecasts[name] = forecast
        return forecasts

    def forecast_by_booster(self, X: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        forecasts = {}
        for name, model in self.everyone.items():
            forecast = model.booster_.predict(X)
            for cluster in np.unique(labels):
                rows = labels == cluster
                own = self.own[name][cluster].booster_.predict(X[rows])
                forecast[rows] = (1 - WEIGHT) * forecast[rows] + WEIGHT * own
            forecasts[name] = forecast
        return forecasts

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        X = frame.to_numpy(np.float64)
        labels, strength = self.assign(X)
        return pd.DataFrame(
            {"cluster": labels, "strength": strength} | self.forecast(X, labels), index=frame.index
        )

    def packed(self, data: Any) -> Generation:
        """The same fitted objects as our model."""
        scaler = Scaler(np.median(data.X, axis=0), self.scaler.mean_, self.scaler.scale_)
        density = DensityTree.from_hdbscan(self.clusterer)
        labels = self.clusterer.labels_.astype(np.int64)
        knn_params = {"n_neighbors": 5, "weights": "distance"}
        outputs = {
            name: NumberModel(
                texts={-1: model.booster_.model_to_string()}
                | {c: found.booster_.model_to_string() for c, found in self.own[name].items()},
                weight=WEIGHT,
                scores=FoldScores(1, {}, {}),
                calibration=Calibration({-1: np.linspace(-1, 1, 101)}),
            )
            for name, model in self.everyone.items()
        }
        target = outputs.pop("target")
        none = np.zeros(2, dtype=bool)
        reference = Reference.fit(data.X[:2], data.schema.names, none, np.ones(2))
        segmentation = Segmentation.build(scaler, density, labels, knn_params)
        info = {"config": {"coverage": 0.9}}
        return Generation(data.schema, segmentation, data.target, target, outputs, reference, info)


def rows_like(data: Any, n: int, noise: float, seed: int = 1) -> np.ndarray:
    """New rows near training rows, and a share of rows that are far from all of them."""
    rng = np.random.default_rng(seed)
    X = data.X[rng.integers(0, len(data.X), n)] + rng.normal(0, 0.1, (n, N_FEATURES))
    outside = rng.permutation(n)[: int(noise * n)]
    X[outside] = rng.uniform(-14, 14, (len(outside), N_FEATURES))
    return X


def settle(work: Callable[[], Any], seconds: float = 0.03) -> None:
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        work()


def race(sides: dict[str, Callable[[], Any]], repeats: int) -> dict[str, Any]:
    """Median wall and CPU time of each side, interleaved, and ratios to the first.

    Each timed call follows others of the same side that are not timed: LightGBM's threads spin
    for a while after the other side's work.
    """
    for work in sides.values():
        work()
    wall: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, work in sides.items():
            settle(work)
            start, used = time.perf_counter(), time.process_time()
            work()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - used)
    first = next(iter(sides))
    return {
        name: {
            "wall_ms": 1e3 * statistics.median(wall[name]),
            "speed": statistics.median(wall[first]) / statistics.median(wall[name]),
            "cpu_speed": statistics.median(cpu[first]) / max(statistics.median(cpu[name]), 1e-9),
        }
        for name in sides
    }


def show(title: str, found: dict[str, Any]) -> None:
    print(title)
    for name, figures in found.items():
        print(
            f"  {name:<28}{figures['wall_ms']:>12.2f} ms{figures['speed']:>9.2f}x"
            f"{figures['cpu_speed']:>9.2f}x cpu"
        )


def assert_equal(plain: pd.DataFrame, ours: pd.DataFrame) -> None:
    np.testing.assert_array_equal(plain["cluster"], ours["cluster"].to_numpy(np.int64))
    for mine, name in [
        ("cluster_strength", "strength"),
        ("prediction", "target"),
        *((f"resource_r{i}", f"r{i}") for i in range(3)),
    ]:
        np.testing.assert_array_equal(ours[mine].to_numpy(np.float64), plain[name])


def floor(generation: Generation, X: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    """The least that such a model can do: one tree query a row, and the packed trees."""
    density = generation.segmentation.density
    search = density._search
    Z = generation.segmentation.scaler.transform(X)
    found = np.empty(len(X))
    ensemble = Ensemble([generation.target, *generation.resources.values()])

    def work() -> None:
        k = density.min_samples + 2
        order = search.by_neighbourhood(Z)
        in_parts(lambda rows: kernels.core_distances(Z, rows, search.arrays, k, found), order)
        ensemble.predict(X, labels)

    return work


def compare(n_train: int, sizes: list[int], repeats: int) -> dict[str, Any]:
    plain, data = Plain.fit(n_train)
    generation = plain.packed(data)
    names = data.schema.names
    result: dict[str, Any] = {}
    for n in sizes:
        times = repeats if n <= 1_000 else max(1, repeats // 5)
        for noise in (0.0, 0.2) if n > 1 else (0.0,):
            X = rows_like(data, n, noise)
            frame = pd.DataFrame(X, columns=names)
            expected = plain.predict(frame)
            assert_equal(expected, generation.predict(frame))
            found = race(
                {
                    "plain": lambda frame=frame: plain.predict(frame),
                    "ours": lambda frame=frame: generation.predict(frame),
                },
                times if n > 1 else 20 * repeats,
            )
            title = f"{n} rows, {noise:.0%} noise, trained on {n_train}"
            show(title, found)
            result[title] = found
            if n == 1:
                continue
            labels = expected["cluster"].to_numpy(np.int64)
            against = race(
                {
                    "floor": floor(generation, X, labels),
                    "ours": lambda X=X: generation.forecast(X, 0.9),
                },
                5 * repeats if n <= 1_000 else repeats,
            )
            show(f"{title}: one tree query and the packed trees", against)
            result[f"{title}, floor"] = against
    return result | alone(plain, data, generation, repeats)


def alone(plain: Plain, data: Any, generation: Any, repeats: int) -> dict[str, Any]:
    """HDBSCAN and LightGBM by themselves."""
    result: dict[str, Any] = {}
    n_train = len(data.X)
    Z = plain.scaler.transform(rows_like(data, 5_000, 0.0))
    density = generation.segmentation.density
    for mine, theirs in zip(
        density.predict(Z), hdbscan.approximate_predict(plain.clusterer, Z), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    found = race(
        {
            "approximate_predict": lambda: hdbscan.approximate_predict(plain.clusterer, Z),
            "ours": lambda: density.predict(Z),
        },
        max(1, repeats // 3),
    )
    show(f"5000 rows, HDBSCAN alone, trained on {n_train}", found)
    result["approximate_predict"] = found
    X = rows_like(data, 1_000, 0.0)
    labels = generation.assign(X).labels
    ensemble = Ensemble([generation.target, *generation.resources.values()])
    found = race(
        {
            "LGBMRegressor": lambda: plain.forecast(X, labels),
            "Booster": lambda: plain.forecast_by_booster(X, labels),
            "ours": lambda: ensemble.predict(X, labels),
        },
        repeats,
    )
    show("1000 rows, LightGBM alone", found)
    result["lightgbm"] = found
    return result


def duplicates(n_train: int, repeats: int) -> dict[str, Any]:
    """HDBSCAN alone on rows of which most are copies of others."""
    rng = np.random.default_rng(0)
    centers = rng.integers(0, 40, (8, 5))
    X = np.round(centers[rng.integers(0, 8, n_train)] + rng.normal(0, 0.7, (n_train, 5)))
    new = np.round(centers[rng.integers(0, 8, 5_000)] + rng.normal(0, 0.9, (5_000, 5)))
    clusterer = hdbscan.HDBSCAN(
        min_cluster_size=n_train // 200, min_samples=5, prediction_data=True, core_dist_n_jobs=1
    ).fit(X)
    density = DensityTree.from_hdbscan(clusterer)
    for mine, theirs in zip(
        density.predict(new), hdbscan.approximate_predict(clusterer, new), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    found = race(
        {
            "approximate_predict": lambda: hdbscan.approximate_predict(clusterer, new),
            "ours": lambda: density.predict(new),
        },
        max(1, repeats // 3),
    )
    distinct = len(np.unique(X, axis=0))
    show(f"5000 rows, {n_train} trained on of which {distinct} are distinct", found)
    return {"duplicates": found}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--rows", type=int, nargs="*")
    parser.add_argument("--duplicates", action="store_true")
    arguments = parser.parse_args()
    # sklearn warns that LGBMRegressor was fitted with names it made up itself.
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    if arguments.duplicates:
        answer = duplicates(arguments.train, arguments.repeats)
    else:
        sizes = arguments.rows or ([1, 1_000] if arguments.train < 200_000 else [50_000])
        answer = compare(arguments.train, sizes, arguments.repeats)
    print(json.dumps({"benchmark": "scoring", "n_train": arguments.train} | answer))
