"""A stream of batches: what watching costs, what drift does, and whether memory grows.

    python benchmarks/stream.py               # monitoring's cost, detection, recovery, growth
    python benchmarks/stream.py --real DIR    # diabetes130 and elec2_nsw from a folder of parquet

The cost is the ratio of the medians of 1,000-row batches with and without monitoring, taken in
turn from two pipelines on the same model; their forecasts are asserted to be equal.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import statistics
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model import PipelineConfig, TimeSeriesClusteringPipeline, make_hospital
from tsclust_model.data.roles import Roles
from tsclust_model.mlflow_integration.registry import load_generation
from tsclust_model.rows.fit import fit_generation
from tsclust_model.rows.table import training_data
from tsclust_model.training.challenge import Retraining

VITALS = ["age", "heart_rate", "systolic_pressure", "temperature", "oxygen_saturation",
          "creatinine", "c_reactive_protein", "body_mass_index"]  # fmt: skip
TARGET = "length_of_stay_days"
CONFIG = PipelineConfig(hdbscan_params={"min_cluster_size": 60, "min_samples": 5})


class Unwatched(TimeSeriesClusteringPipeline):
    """The same pipeline without its monitoring: no metrics, no detectors, no retrains."""

    def _watch(self, *_: Any) -> None:
        pass


def rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def fitted(config: PipelineConfig, hospital: pd.DataFrame) -> TimeSeriesClusteringPipeline:
    pipeline = TimeSeriesClusteringPipeline(config)
    pipeline.fit_initial(hospital[VITALS], hospital[TARGET])
    return pipeline


def cost_of_monitoring(n_batches: int = 60) -> dict[str, float]:
    watched = fitted(CONFIG, make_hospital(5000))
    # A history of its own: a batch that is there already would not be written again.
    apart = replace(CONFIG, history_dir="apart")
    unwatched = Unwatched.load("models:/timeseries-clustering@champion", apart)
    sides = [("with", watched), ("without", unwatched)]
    times: dict[str, list[float]] = {"with": [], "without": []}
    for seed in range(n_batches):
        batch = make_hospital(1000, random_state=100 + seed)
        answers = []
        for name, pipeline in sides if seed % 2 else sides[::-1]:
            started = time.perf_counter()
            result = pipeline.process_batch(batch[VITALS])
            times[name].append(time.perf_counter() - started)
            answers.append(result.timeseries_predictions)
        assert np.array_equal(*answers)
    watched.close()
    medians = {name: statistics.median(found[5:]) for name, found in times.items()}
    return {
        "batches_per_s_with": 1 / medians["with"],
        "batches_per_s_without": 1 / medians["without"],
        "monitoring_cost": medians["with"] / medians["without"] - 1,
    }


def detection() -> dict[str, Any]:
    """Windows of 250 rows from a hospital whose vitals jump by 2 standard deviations at once."""
    before, after = make_hospital(7000), make_hospital(7000, drift=2.0, random_state=7).tail(1500)
    pipeline = fitted(CONFIG, before.head(5000))
    stream = pd.concat([before.tail(2000), after])
    retrains: list[int] = []
    for number, start in enumerate(range(0, len(stream), 250)):
        batch = stream.iloc[start : start + 250]
        version = pipeline.current_model_version
        pipeline.process_batch(batch[VITALS], batch[TARGET])
        if pipeline.current_model_version != version:
            retrains.append(number)
    pipeline.close()
    first = next((number for number in retrains if number >= 8), None)
    return {"retrains": len(retrains), "delay_windows": None if first is None else first - 7}


def growth(n_batches: int = 5000) -> dict[str, float]:
    """Resident memory at batch 500 and at the end, of small batches without retrains."""
    config = PipelineConfig(
        hdbscan_params=CONFIG.hdbscan_params, retrain_cooldown_batches=10 * n_batches
    )
    pipeline = fitted(config, make_hospital(3000))
    pool = make_hospital(20_000, random_state=5)
    rng = np.random.default_rng(0)
    at_500 = 0.0
    for number in range(1, n_batches + 1):
        batch = pool.iloc[rng.integers(0, len(pool), 100)]
        pipeline.process_batch(batch[VITALS], batch[TARGET])
        if number == 500:
            at_500 = rss_mib()
    pipeline.close()
    return {"rss_500_mib": at_500, "rss_end_mib": rss_mib(), "growth": rss_mib() / at_500 - 1}


def recovery(size: int = 200, n_rows: int = 5200) -> dict[str, Any]:
    """From the third batch of 200 on, features are 3 sd and the outcome is 100 higher.

    What serves after each batch is asked about 3,000 other rows, beside a fresh fit on the rows
    since the break that it has seen, and beside one on 2,000 of them.
    """
    rng = np.random.default_rng(0)
    centers = rng.normal(0, 4, (4, 6))

    def rows(n: int, shift: np.ndarray | float) -> pd.DataFrame:
        kind = rng.integers(0, 4, n)
        X = centers[kind] + rng.normal(size=(n, 6))
        y = 20 + 5 * kind + 3 * X[:, 0] + 4 * np.sin(X[:, 1]) + rng.normal(0, 2, n)
        moved = pd.DataFrame(X + shift, columns=[f"x{i}" for i in range(6)])
        return moved.assign(y=y + 100 * bool(np.any(shift)))

    config = PipelineConfig(hdbscan_params={"min_cluster_size": 30})
    before = rows(2000, 0.0)
    shift = 3 * before.drop(columns="y").std().to_numpy()
    asked, after = rows(3000, shift), rows(2000, shift)

    def rmse(model: Any) -> float:
        return float(np.sqrt(np.nanmean(model.losses(asked))))

    def fresh(frame: pd.DataFrame) -> float:
        roles = Roles("y")
        data = training_data(frame, roles, config)
        return rmse(fit_generation(data, config, {"roles": vars(roles)}).generation)

    pipeline, reachable = TimeSeriesClusteringPipeline(config), fresh(after)
    pipeline.fit_initial(before.drop(columns="y"), before["y"])
    seen: list[pd.DataFrame] = []
    alarm, recovered, ratios = None, None, []
    for number in range(1, n_rows // size + 1):
        batch = rows(size, shift if number * size > 400 else 0.0)
        seen += [batch] if number * size > 400 else []
        before_it = pipeline.current_model_version
        pipeline.process_batch(batch.drop(columns="y"), batch["y"])
        if alarm is None and pipeline.current_model_version != before_it:
            alarm = number
        if alarm is not None:
            served = rmse(load_generation(f"models:/{config.registered_model_name}@champion"))
            ratios.append(served / reachable)
            if recovered is None and served <= 1.2 * fresh(pd.concat(seen)):
                recovered = number
    pipeline.close()
    return {
        "alarm_batch": alarm,
        "recovered_batch": recovered,  # to 1.2 times a fresh fit on the rows since the break
        "fresh_rmse_2000": reachable,
        "first_ratio_to_2000": ratios[0] if ratios else None,
        "last_ratio_to_2000": ratios[-1] if ratios else None,
    }


def real_stream(
    name: str, frame: pd.DataFrame, target: str, features: list[str], config: PipelineConfig,
    n_fit: int, size: int,
) -> dict[str, Any]:  # fmt: skip
    """Fit on the first rows, stream the rest, and compare first and last champion on the end."""
    pipeline = TimeSeriesClusteringPipeline(config)
    pipeline.fit_initial(frame[features][:n_fit], frame[target][:n_fit])
    retrains: list[Retraining] = []
    n_rows = 0
    for start in range(n_fit, len(frame), size):
        batch = frame.iloc[start : start + size]
        before = pipeline.last_retraining
        n_rows += len(pipeline.process_batch(batch[features], batch[target]).cluster_assignments)
        done = pipeline.last_retraining
        if done is not None and done is not before:
            retrains.append(done)
            outcome = "promoted" if done.promoted else "not promoted"
            print(f"  {name} row {start}: {done.reason} -> {outcome}: {done.comparison.reason}")
    pipeline.close()
    last = frame.tail(5 * size)
    rmse = [
        float(np.sqrt(np.nanmean(load_generation(uri).losses(last))))
        for uri in (
            f"models:/{config.registered_model_name}/1",
            f"models:/{config.registered_model_name}@champion",
        )
    ]
    assert n_rows == len(frame) - n_fit, "a batch was lost"
    assert all(done.reason for done in retrains)
    return {
        "rows": n_rows,
        "retrains": len(retrains),
        "promoted": sum(done.promoted for done in retrains),
        "rmse_first": rmse[0],
        "rmse_last": rmse[1],
    }


def diabetes(folder: Path) -> dict[str, Any]:
    frame = pd.read_parquet(folder / "diabetes130.parquet").sort_values("encounter_id")
    dropped = ["encounter_id", "patient_nbr", "examide", "citoglipton", "time_in_hospital",
               "num_lab_procedures", "num_medications"]  # fmt: skip
    counts = frame.head(len(frame) // 4).nunique()
    features = [c for c in frame if c not in dropped and counts[c] > 1]
    config = PipelineConfig(
        hdbscan_params={"min_cluster_size": 400, "min_samples": 10},
        missing_values="impute",
        missing_markers=["", "?"],
        expanding_window_size=30_000,
        model_registry_prefix="diabetes-stream",
    )
    n_fit = int(0.4 * len(frame))
    return real_stream("diabetes130", frame, "time_in_hospital", features, config, n_fit, 2000)


def electricity(folder: Path) -> dict[str, Any]:
    frame = pd.read_parquet(folder / "elec2_nsw.parquet").sort_values("t")
    frame["next_price"] = frame["nswprice"].shift(-1)
    frame = frame.dropna(subset=["next_price"])
    features = ["period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"]
    config = PipelineConfig(
        hdbscan_params={"min_cluster_size": 200, "min_samples": 10},
        expanding_window_size=40_000,
        promotion_margin=0.01,
        model_registry_prefix="electricity-stream",
    )
    n_fit = int(0.4 * len(frame))
    return real_stream("elec2_nsw", frame, "next_price", features, config, n_fit, 336)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--real", type=Path, help="folder of diabetes130 and elec2_nsw")
    parser.add_argument("--batches", type=int, default=5000)
    arguments = parser.parse_args()
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    real = None if arguments.real is None else arguments.real.resolve()
    parts: dict[str, Any] = {}
    if real is not None:
        tasks = {"diabetes130": lambda: diabetes(real), "elec2_nsw": lambda: electricity(real)}
    else:
        tasks = {
            "monitoring": cost_of_monitoring,
            "detection": detection,
            "recovery": recovery,
            "growth": lambda: growth(arguments.batches),
        }
    for name, task in tasks.items():
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
            parts[name] = task()
        print(f"{name:<12}", "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
                                       for k, v in parts[name].items()))  # fmt: skip
    print(json.dumps({"benchmark": "stream", **parts}))


if __name__ == "__main__":
    main()
