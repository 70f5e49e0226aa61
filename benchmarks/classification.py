"""Does the price of electricity go up? Segments, one global model and the half-hour before.

    python benchmarks/classification.py DIR   # a folder with elec2_nsw.parquet

The 45,312 half-hours of the New South Wales electricity market (Elec2), the oldest 70% to learn
from and the newest 30% to judge on, once without and once with the class of the half-hour before as
a feature. Persistence forecasts that class; plain LightGBM is one model of the same rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd

from tsclust_model import PipelineConfig, Roles, calculate_classification_metrics
from tsclust_model.rows.evaluation import evaluate_generation
from tsclust_model.rows.fit import fit_generation
from tsclust_model.rows.table import training_data

SHARE = 0.7
CONFIG = PipelineConfig(
    hdbscan_params={"min_cluster_size": 200, "min_samples": 10},
    cluster_features=["period", "nswprice", "nswdemand", "transfer"],
    task="classification",
)
PLAIN = CONFIG.lgb_timeseries_params | {
    "objective": "binary",
    "metric": "binary_logloss",
    "num_threads": 1,
    "deterministic": True,
}


def main() -> None:
    """Measure, print a table and, last, one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where elec2_nsw.parquet is")
    path = parser.parse_args().folder / "elec2_nsw.parquet"
    if not path.exists():
        sys.exit(f"{path}: no such file; the benchmark needs it")
    frame = pd.read_parquet(path).astype({"class": int})
    before = frame["class"].shift()
    frame = frame.assign(class_before=before)[1:].reset_index(drop=True)
    cut = int(len(frame) * SHARE)
    known, unseen = frame[:cut], frame[cut:]
    y = unseen["class"].to_numpy()
    persistence = float((unseen["class_before"].to_numpy() == y).mean())
    print(f"{len(known)} rows to learn from, {len(unseen)} to judge on")
    found: dict[str, Any] = {"n_rows": len(unseen), "persistence_accuracy": persistence}
    print(f"{'':<24}{'accuracy':>10}{'log-loss':>10}{'AUC':>10}")
    print(f"{'persistence':<24}{persistence:>10.4f}")
    features = ["period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"]
    for name, columns in (("no lag", features), ("with lag", [*features, "class_before"])):
        found[name] = compared(known, unseen, columns)
        for way, figures in found[name].items():
            if isinstance(figures, dict) and "auc" in figures:
                print(f"{name + ', ' + way:<24}" + "".join(f"{v:>10.4f}" for v in figures.values()))
    print(json.dumps(found))


def compared(known: pd.DataFrame, unseen: pd.DataFrame, columns: list[str]) -> dict[str, Any]:
    """Figures of the blend, its global model, clusters alone and a plain LightGBM."""
    started = time.perf_counter()
    roles = Roles("class", tuple(columns), time="t")
    data = training_data(known, roles, CONFIG)
    generation = fit_generation(data, CONFIG, {"roles": vars(roles)}).generation
    seconds = time.perf_counter() - started
    X = generation.schema.encode(unseen).X
    labels = generation.assign(X).labels
    y = unseen["class"].to_numpy()
    plain = lgb.train(PLAIN, lgb.Dataset(data.X, data.y), 100).predict(X, num_threads=1)
    ways = {
        "plain LightGBM": np.column_stack([1 - plain, plain]),
        "global": generation.target.predict(X, labels, 0.0)[0],
        "clusters alone": generation.target.predict(X, labels, 1.0)[0],
        "served": generation.target.predict(X, labels)[0],
    }
    figures: dict[str, Any] = {
        way: calculate_classification_metrics(y, P) for way, P in ways.items()
    }
    assert figures["served"]["log_loss"] == evaluate_generation(generation, unseen)["log_loss"]
    return figures | {
        "n_clusters": len(generation.cluster_ids),
        "weight": generation.target.weight,
        "temperature": getattr(generation.target, "temperature", 1.0),
        "folds": generation.target.scores.errors,
        "fit_seconds": seconds,
    }


if __name__ == "__main__":
    main()
