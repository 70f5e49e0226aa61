"""Training against the plain sequential composition of the same libraries.

    python benchmarks/training.py            # 50,000 x 10, 50 clusters, interleaved repeats
    python benchmarks/training.py --memory   # peak memory of training on 200,000 x 10

Both sides fit the same models: HDBSCAN, a kNN fallback, and for one target and three resources a
global and 50 cluster models, on two time-ordered folds and on all rows. The plain side is what a
user writes: `hdbscan.HDBSCAN(prediction_data=True)` and `LGBMRegressor` one after another, with
the libraries' defaults. The errors of both sides on the folds must agree.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
import warnings

import hdbscan
import lightgbm as lgb
import numpy as np
from sklearn.datasets import make_blobs
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from tsclust_model.boosting.folds import time_ordered_folds
from tsclust_model.config import PipelineConfig
from tsclust_model.rows.fit import fit_generation
from tsclust_model.rows.schema import Feature, Schema
from tsclust_model.rows.table import TrainingData
from tsclust_model.rows.targets import NumberTarget

N_FEATURES, N_CLUSTERS, N_RESOURCES = 10, 50, 3


def make_data(n_rows: int, seed: int = 0) -> TrainingData:
    """Blobs in time order whose outcomes depend on other features in each blob."""
    rng = np.random.default_rng(seed)
    X, blob = make_blobs(
        n_rows, N_FEATURES, centers=N_CLUSTERS, center_box=(-12, 12), random_state=seed
    )
    effects = rng.normal(size=(1 + N_RESOURCES, N_CLUSTERS, N_FEATURES))
    outcomes = [(X * effect[blob]).sum(axis=1) + rng.normal(0, 0.5, n_rows) for effect in effects]
    names = tuple(f"x{i}" for i in range(N_FEATURES))
    schema = Schema(tuple(Feature(name, "number") for name in names), names)
    resources = {f"r{i}": values for i, values in enumerate(outcomes[1:])}
    return TrainingData(schema, X, NumberTarget("y"), outcomes[0], resources)


def configuration(n_rows: int) -> PipelineConfig:
    return PipelineConfig(hdbscan_params={"min_cluster_size": n_rows // 500, "min_samples": 5})


def plain(data: TrainingData, config: PipelineConfig) -> dict[str, float]:
    """The composition as a user writes it; returns the fold error of the blended target."""
    scaler = StandardScaler().fit(data.X)
    X = scaler.transform(data.X)
    clusterer = hdbscan.HDBSCAN(**config.hdbscan_params).fit(X)
    labels = clusterer.labels_.copy()
    noise = labels == -1
    fallback = KNeighborsClassifier(weights="distance").fit(X[~noise], labels[~noise])
    if noise.any():
        labels[noise] = fallback.predict(X[noise])
    outcomes = {"target": (data.y, config.lgb_timeseries_params)} | {
        name: (values, config.lgb_resource_params) for name, values in data.resources.items()
    }
    errors, models = {}, {}
    folds = time_ordered_folds(len(data.y))
    for name, (y, params) in outcomes.items():
        everyone, own, truth = [], [], []
        for fold in folds:
            whole = lgb.LGBMRegressor(**params).fit(data.X[fold.train], y[fold.train])
            forecast = whole.predict(data.X[fold.valid])
            everyone.append(forecast)
            clustered = forecast.copy()
            for cluster in np.unique(labels):
                train = fold.train[labels[fold.train] == cluster]
                valid = labels[fold.valid] == cluster
                model = lgb.LGBMRegressor(**params).fit(data.X[train], y[train])
                clustered[valid] = model.predict(data.X[fold.valid][valid])
            own.append(clustered)
            truth.append(y[fold.valid])
        y_all, g, c = map(np.concatenate, (truth, everyone, own))
        errors[name] = min(
            float(np.sqrt(np.mean((y_all - (1 - w) * g - w * c) ** 2)))
            for w in (0, 0.25, 0.5, 0.75, 1)
        )
        models[name, -1] = lgb.LGBMRegressor(**params).fit(data.X, y)
        for cluster in np.unique(labels):
            rows = labels == cluster
            models[name, cluster] = lgb.LGBMRegressor(**params).fit(data.X[rows], y[rows])
    assert len(models) == (1 + N_CLUSTERS) * len(outcomes)
    return errors


def ours(data: TrainingData, config: PipelineConfig) -> dict[str, float]:
    generation = fit_generation(data, config).generation
    outputs = {"target": generation.target} | generation.resources
    assert all(len(model.clusters) == N_CLUSTERS for model in outputs.values())
    return {name: model.scores.errors["blend"] for name, model in outputs.items()}


def timed(function, *arguments) -> tuple[float, float, dict[str, float]]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = function(*arguments)
    return time.perf_counter() - wall, time.process_time() - cpu, result


def compare(n_rows: int, repeats: int) -> None:
    data = make_data(n_rows)
    config = configuration(n_rows)
    sides = {"plain": plain, "ours": ours}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    errors: dict[str, dict[str, float]] = {}
    for _ in range(repeats):
        for name, function in sides.items():
            wall, used, errors[name] = timed(function, data, config)
            seconds[name].append(wall)
            cpu[name].append(used)
    print(f"{n_rows} x {N_FEATURES}, {N_CLUSTERS} clusters, 1 target + {N_RESOURCES} resources")
    print(f"{'':<20}{'wall s':>8}{'cpu s':>8}{'speed':>8}{'fold RMSE / plain':>20}")
    result = {}
    for name in sides:
        wall = statistics.median(seconds[name])
        ratio = statistics.median(
            a / b for a, b in zip(seconds["plain"], seconds[name], strict=True)
        )
        error = statistics.mean(errors[name][key] / errors["plain"][key] for key in errors["plain"])
        print(
            f"{name:<20}{wall:>8.1f}{statistics.median(cpu[name]):>8.1f}{ratio:>7.2f}x{error:>20.4f}"
        )
        result[name] = {"wall_s": wall, "speed": ratio, "rmse_ratio": error}
    # The same models, up to LightGBM's order of sums and the choice of the weight.
    assert abs(result["ours"]["rmse_ratio"] - 1) < 0.005
    print(json.dumps({"benchmark": "training", "repeats": repeats, **result}))


def memory(n_rows: int) -> None:
    data = make_data(n_rows)
    start = time.perf_counter()
    ours(data, configuration(n_rows))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{n_rows} x {N_FEATURES}: {time.perf_counter() - start:.0f} s, peak {peak:.2f} GiB")
    print(json.dumps({"benchmark": "training_memory", "n_rows": n_rows, "peak_gib": peak}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    # sklearn warns that LGBMRegressor was fitted with names it made up itself.
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    if arguments.memory:
        memory(arguments.rows or 200_000)
    else:
        compare(arguments.rows or 50_000, arguments.repeats)
