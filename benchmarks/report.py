"""What a report costs: figures, pictures and page of 100,000 rows in 50 segments, and of 200.

    python benchmarks/report.py
    python benchmarks/report.py --rows 10000 --segments 200

The fit is not counted. The peak of memory is that of the whole process while the report is made,
with the table and the fitted model in it.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import make_blobs

from tsclust_model.config import PipelineConfig
from tsclust_model.data.roles import Roles
from tsclust_model.report.advice import next_steps
from tsclust_model.report.build import build_report
from tsclust_model.report.page import render
from tsclust_model.rows.figures import shuffled_control
from tsclust_model.rows.fit import fit_generation
from tsclust_model.rows.report import fit_inputs
from tsclust_model.rows.table import training_data

MOST_SECONDS, MOST_MIB, MOST_BYTES = 20.0, 1536.0, 3_000_000


def make_table(n_rows: int, n_segments: int, seed: int = 0) -> pd.DataFrame:
    """Ten numbers in blobs, a ward, an id, a target and two resources that depend on the blob."""
    rng = np.random.default_rng(seed)
    X, kind = make_blobs(n_rows, 10, centers=n_segments, cluster_std=0.6, random_state=seed)
    effect = rng.normal(size=(n_segments, 10))
    stay = 20 + (X * effect[kind]).sum(axis=1) / 10 + rng.normal(0, 0.5, n_rows)
    table = pd.DataFrame(X, columns=[f"feature_{i}" for i in range(10)])
    return table.assign(
        ward=np.array([f"ward {i}" for i in range(12)])[rng.integers(0, 12, n_rows)],
        patient=[f"P{i:07d}" for i in range(n_rows)],
        stay=stay,
        hours=stay * 5 + rng.normal(0, 1, n_rows),
        cost=stay * 300 + rng.normal(0, 100, n_rows),
    )


def peak_mib() -> float:
    """Most memory since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def measure(n_rows: int, n_segments: int) -> dict[str, float]:
    config = PipelineConfig(
        hdbscan_params={"min_cluster_size": max(n_rows // n_segments // 4, 5), "min_samples": 5},
        lgb_timeseries_params={"n_estimators": 50},
        lgb_resource_params={"n_estimators": 50},
        audit_columns=["ward", "feature_0"],
        planning_columns=["ward"],
    )
    roles = Roles("stay", resources=("hours", "cost"), id="patient")
    table = make_table(n_rows, n_segments)
    cut = n_rows * 9 // 10
    known, unseen = table[:cut], table[cut:].reset_index(drop=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        data = training_data(known, roles, config)
        fitted = fit_generation(data, config, {"roles": vars(roles)})
    control = shuffled_control(fitted, data, config).fold_losses["blend"]
    forget_peak()
    started = time.perf_counter()
    inputs = fit_inputs(fitted, data, known, unseen, control)
    figures = build_report(fitted.generation, inputs, {"phase": "training"})
    drawn = time.perf_counter()
    page = render(figures)
    done = time.perf_counter()
    assert figures["next"] == next_steps(figures)
    return {
        "rows": n_rows,
        "segments": figures["segments"]["n_segments"],
        "figures_seconds": drawn - started,
        "page_seconds": done - drawn,
        "seconds": done - started,
        "peak_mib": peak_mib(),
        "page_bytes": len(page.encode()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--segments", type=int, default=50)
    arguments = parser.parse_args()
    found = measure(arguments.rows, arguments.segments)
    for name, value in found.items():
        print(f"{name:>16}  {value:,.2f}" if isinstance(value, float) else f"{name:>16}  {value:,}")
    kept = (
        found["seconds"] < MOST_SECONDS
        and found["peak_mib"] < MOST_MIB
        and found["page_bytes"] < MOST_BYTES
    )
    print(f"within {MOST_SECONDS:g} s, {MOST_MIB:g} MiB and {MOST_BYTES:,} bytes: {kept}")
    print(json.dumps({k: round(v, 3) for k, v in found.items()} | {"kept": kept}))


if __name__ == "__main__":
    main()
