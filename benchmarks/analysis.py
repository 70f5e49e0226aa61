"""The clustering analysis against labels it has never seen, and its memory on a large table.

    python benchmarks/analysis.py                    # adjusted Rand on 18 labelled problems
    python benchmarks/analysis.py --problems uci     # only those whose name starts so
    python benchmarks/analysis.py --large            # 1,000,000 x 10: kmeans, mixture, hdbscan
    python benchmarks/analysis.py --speed            # requests with their defaults, CPU seconds
    python benchmarks/analysis.py --tendency         # "no groups": its mistakes on single clouds

Each algorithm runs with its defaults on standardised columns, then `auto`, which ranks its sweep
without labels. The oracle knows the labels and takes the best of the seven for each problem. Rows
of label 0 are noise and do not count. `--large` and `--speed` run each request in a process of its
own; `--speed` ends with failure where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from tsclust_model.analysis.analyze import analyze
from tsclust_model.analysis.tendency import clustering_tendency

PROBLEMS = Path(__file__).parents[2] / "shared" / "data" / "clustering_labelled.parquet"
ALGORITHMS = (
    *("kmeans", "gaussian_mixture", "hierarchical", "spectral"),
    *("dbscan", "hdbscan", "optics"),
)
LARGE = ("kmeans", "gaussian_mixture", "hdbscan")
# algorithm, rows, columns, and the bar in CPU seconds
SPEED = (("kmeans", 10_000, 20, 10.0), ("dbscan", 100_000, 10, 60.0))
QUIET = {
    "evaluation_configuration": {
        "cross_validation": False,
        "silhouette_analysis": False,
        "cluster_validation": False,
    },
    "visualization_configuration": {"generate_plots": False},
}


def labels_of(table: pd.DataFrame, algorithm: str, seed: int) -> tuple[np.ndarray, str]:
    request = {
        "clustering_data": {"data_source": "table"},
        "clustering_configuration": {"algorithm": algorithm, "random_state": seed},
    }
    found = analyze(request | QUIET, table)["clustering_results"]
    rows = found["clusters"]["cluster_assignments"]
    info = found["model_info"]
    chosen = f"{info['algorithm']}, {info['n_clusters']}"
    return np.array([row["cluster_id"] for row in rows]), chosen


def compare(path: Path, only: str, seed: int) -> None:
    problems = pd.read_parquet(path)
    names = [name for name in problems["dataset"].unique() if name.startswith(only)]
    print(f"{'':<17}" + "".join(f"{name[:11]:>12}" for name in (*ALGORITHMS, "auto", "oracle")))
    table: dict[str, dict[str, float]] = {}
    for name in names:
        part = problems[problems["dataset"] == name]
        X = pd.DataFrame(np.stack(part["x"].to_numpy()).astype(float))
        labels = part["label"].to_numpy()
        known = labels > 0
        scores: dict[str, float] = {}
        for algorithm in (*ALGORITHMS, "auto"):
            found, chosen = labels_of(X, algorithm, seed)
            scores[algorithm] = float(adjusted_rand_score(labels[known], found[known]))
        scores["oracle"] = max(scores[algorithm] for algorithm in ALGORITHMS)
        table[name] = scores
        cells = "".join(f"{value:>12.3f}" for value in scores.values())
        print(f"{name:<17}{cells}   {chosen}", flush=True)
    means = {
        column: statistics.mean(scores[column] for scores in table.values())
        for column in (*ALGORITHMS, "auto", "oracle")
    }
    print(f"{'mean':<17}" + "".join(f"{value:>12.3f}" for value in means.values()))
    print(json.dumps({"benchmark": "analysis", "seed": seed, "mean": means, "problems": table}))


def one_large(algorithm: str, n_rows: int, n_columns: int) -> None:
    X, _ = make_blobs(n_rows, n_columns, centers=8, cluster_std=2.0, random_state=0)
    table = pd.DataFrame(X, columns=[f"x{i}" for i in range(n_columns)])
    start, cpu = time.perf_counter(), time.process_time()
    request = {
        "clustering_data": {"data_source": "table"},
        "clustering_configuration": {"algorithm": algorithm},
    }
    found = analyze(request, table)
    json.dumps(found, allow_nan=False)
    figures = {
        "algorithm": algorithm,
        "n_clusters": found["clustering_results"]["model_info"]["n_clusters"],
        "wall_s": round(time.perf_counter() - start, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    print(json.dumps(figures))


def alone(algorithm: str, n_rows: int, n_columns: int) -> dict:
    """What `one_large` prints, from a process of its own."""
    asked = ["--one", algorithm, "--rows", str(n_rows), "--columns", str(n_columns)]
    done = subprocess.run(
        [sys.executable, __file__, *asked], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def speed() -> bool:
    """Whether every bar is reached."""
    measured = []
    print(f"{'':<10}{'rows':>9}{'columns':>9}{'clusters':>10}{'CPU s':>8}{'bar':>7}{'wall s':>8}")
    for algorithm, n_rows, n_columns, bar in SPEED:
        row = alone(algorithm, n_rows, n_columns)
        row |= {"n_rows": n_rows, "n_columns": n_columns, "bar_cpu_s": bar}
        measured.append(row)
        print(
            f"{algorithm:<10}{n_rows:>9,}{n_columns:>9}{row['n_clusters']:>10}"
            f"{row['cpu_s']:>8}{bar:>7.0f}{row['wall_s']:>8}",
            flush=True,
        )
    print(json.dumps({"benchmark": "analysis_speed", "measured": measured}))
    return all(row["cpu_s"] <= row["bar_cpu_s"] for row in measured)


def tendency(repeats: int) -> None:
    """How often one cloud is said to have groups."""
    wrong: dict[str, int] = {}
    for n_rows, n_columns in ((30, 2), (400, 2), (400, 8)):
        for kind in ("uniform", "normal"):
            name = f"{kind} {n_rows} x {n_columns}"
            rng = np.random.default_rng(0)
            wrong[name] = sum(
                clustering_tendency(
                    rng.uniform(size=(n_rows, n_columns))
                    if kind == "uniform"
                    else rng.normal(size=(n_rows, n_columns)),
                    seed,
                ).present
                for seed in range(repeats)
            )
            print(f"{name:<18}{wrong[name]:>4} of {repeats} have groups", flush=True)
    print(json.dumps({"benchmark": "analysis_tendency", "repeats": repeats, "wrong": wrong}))


def large(n_rows: int, algorithms: tuple[str, ...]) -> None:
    measured = []
    for algorithm in algorithms:
        measured.append(alone(algorithm, n_rows, 10))
        print(
            "{algorithm:<18}{n_clusters:>3} clusters {wall_s:>8} s   peak {peak_gib} GiB".format(
                **measured[-1]
            ),
            flush=True,
        )
    print(json.dumps({"benchmark": "analysis_large", "n_rows": n_rows, "measured": measured}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=PROBLEMS)
    parser.add_argument("--problems", default="", help="prefix of the problems' names")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--tendency", action="store_true")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--algorithms", nargs="+", default=LARGE)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=10, help=argparse.SUPPRESS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one_large(arguments.one, arguments.rows, arguments.columns)
    elif arguments.speed:
        sys.exit(0 if speed() else 1)
    elif arguments.tendency:
        tendency(arguments.repeats)
    elif arguments.large:
        large(arguments.rows, tuple(arguments.algorithms))
    else:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["CLUSTERING_MODEL_CACHE"] = folder  # one sweep a problem
            compare(arguments.data, arguments.problems, arguments.seed)
