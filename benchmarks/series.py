"""How fast series are read, fitted and forecast, beside one classical model a series.

    python benchmarks/series.py              # needs statsmodels beside the package
    python benchmarks/series.py --series 2000

A model is trained on made-up wards and loaded through mlflow; one call of `predict` then forecasts
10,000 series of 84 months, as one row a series. The classical side fits and forecasts one Theta
model of statsmodels a series, on 50 of them in each turn, scaled to all. Both take turns, and the
medians count. Windows: what reading 1,000,000 pairs of series and origin takes, bases included.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from statsmodels.tsa.forecasting.theta import ThetaModel

from tsclust_model.config import PipelineConfig
from tsclust_model.data.roles import Roles
from tsclust_model.data.synthetic import make_ward_series
from tsclust_model.mlflow_integration.pyfunc import (
    PACKAGE,
    SegmentForecaster,
    requirements,
    seal_generation,
)
from tsclust_model.mlflow_integration.pyfunc import signature as signature_of
from tsclust_model.series.features import Scaling, Windows
from tsclust_model.series.fit import fit_series_generation
from tsclust_model.series.long_table import series_panel
from tsclust_model.series.schema import series_rows

HORIZON, PERIODS, CLASSICAL = 12, 84, 50
ROLES = Roles("beds", (), (), "month", "ward_id", HORIZON)


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def served(folder: Path, n_train: int) -> tuple[Any, float]:
    """A model as mlflow loads it, and the seconds that its fit took."""
    panel = series_panel(make_ward_series(n_train, PERIODS), ROLES)
    started = time.perf_counter()
    fitted = fit_series_generation(panel, ROLES, PipelineConfig(), {"roles": vars(ROLES)})
    seconds = time.perf_counter() - started
    mlflow.pyfunc.save_model(
        folder / "model",
        python_model=SegmentForecaster(seal_generation(fitted.generation)),
        code_paths=[str(PACKAGE)],
        signature=signature_of(fitted.generation),
        pip_requirements=requirements(),
    )
    return mlflow.pyfunc.load_model(str(folder / "model")), seconds


def windows(values: np.ndarray, n_pairs: int) -> float:
    """Seconds for `n_pairs` pairs of series and origin, a chunk of series at a time."""
    origins = np.arange(24, PERIODS)
    ends = np.full(len(values), PERIODS - 1)
    read = 0
    started = time.perf_counter()
    while read < n_pairs:
        chunk = values[:2000]
        made = Windows(chunk, ends[: len(chunk)], origins, 12, HORIZON, Scaling())
        series = np.repeat(np.arange(len(chunk)), len(origins))
        at = np.tile(origins, len(chunk))
        made.rows(series, at, np.ones(len(series), dtype=np.int64))
        read += len(series)
    return (time.perf_counter() - started) * n_pairs / read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    n = arguments.series
    long = make_ward_series(n, PERIODS, random_state=7)
    rows = series_rows(long, "ward_id", "month", "beds")
    values = np.array(rows["y"].tolist())
    months = pd.date_range("2020-01-01", periods=PERIODS, freq="MS")

    def classical() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for y in values[:CLASSICAL]:
                ThetaModel(pd.Series(y, months), period=12).fit().forecast(HORIZON)

    with tempfile.TemporaryDirectory() as folder:
        model, fit_seconds = served(Path(folder), 767)
        first = model.predict(rows)
        assert np.isfinite(np.stack(first["prediction"])).all()
        alone = model.predict(rows.iloc[[7]])
        np.testing.assert_array_equal(alone["prediction"].iloc[0], first["prediction"].iloc[7])
        raw = model.unwrap_python_model().generation
        sides = {
            "pyfunc": lambda: model.predict(rows),
            "below pyfunc": lambda: raw.predict(rows),
            "classical": classical,
        }
        seconds = {name: [] for name in sides}
        for _ in range(arguments.repeats):
            for name, work in sides.items():
                seconds[name].append(timed(work))
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    medians["classical"] *= n / CLASSICAL
    pairs = windows(values, 1_000_000)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"fit of 767 series of {PERIODS} months: {fit_seconds:.1f} s")
    print(f"{n} series of {PERIODS} months, forecast {HORIZON} ahead:")
    for name, found in medians.items():
        print(f"  {name:<14}{found:>9.2f} s{n / found:>12,.0f} series/s")
    ratio = medians["classical"] / medians["pyfunc"]
    print(f"  one classical model a series takes {ratio:.1f} times as long")
    print(f"1,000,000 windows (series, origin): {pairs:.1f} s; peak memory {peak:.2f} GiB")
    figures = {"fit_s": fit_seconds, "ratio": ratio, "windows_s": pairs, "peak_gib": peak}
    print(json.dumps(figures | {f"{k}_s": v for k, v in medians.items()}))


if __name__ == "__main__":
    main()
