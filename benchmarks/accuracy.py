"""How good the forecasts are on real data, beside a published table and what is cheap.

    python benchmarks/accuracy.py                    # all three data sets
    python benchmarks/accuracy.py --only hospital    # one of them: hospital, pbs or diabetes

hospital_monthly follows the Monash protocol: the last 12 months are held out, forecasts are
rounded, MASE per series (scale: lag-12 absolute difference of the training part), then the mean;
the other rows are that paper's table. pbs_scripts_cost holds out 12 months, too; many of its series
are nearly dead, so medians count. diabetes130 holds out the newest fifth of the encounters. Every
choice is made inside the training part. "control" is the same blend with the segments shuffled.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.config import PipelineConfig
from tsclust_model.data.roles import Roles
from tsclust_model.data.tables import read_table
from tsclust_model.rows.evaluation import evaluate_generation
from tsclust_model.rows.figures import performance_figures, shuffled_control
from tsclust_model.rows.fit import fit_generation
from tsclust_model.rows.model import silent
from tsclust_model.rows.table import training_data
from tsclust_model.series.long_table import Panel, series_panel
from tsclust_model.series.output_fit import SeriesFit, fit_series

DATA = Path(__file__).parents[2] / "shared" / "data"
EXAMPLES = Path(__file__).parents[1] / "examples"
HORIZON = 12
WAYS = ("global", "cluster", "bank", "theta", "seasonal_naive")


def parted(frame: pd.DataFrame, roles: Roles) -> tuple[Panel, dict[str, np.ndarray]]:
    """The panel without its last 12 periods, and these periods by column."""
    whole = series_panel(frame, roles, gap_policy="fill")
    newest = np.sort(frame[roles.time].unique())[-HORIZON:]
    known = series_panel(frame[~frame[roles.time].isin(newest)], roles, gap_policy="fill")
    rows = pd.Index(whole.ids).get_indexer(known.ids)
    truth = {name: whole.values[name][rows, -HORIZON:] for name in known.values}
    return known, truth


def fitted(panel: Panel) -> tuple[SeriesFit, float]:
    started = time.perf_counter()
    fit = fit_series(panel, PipelineConfig(), silent)
    return fit, time.perf_counter() - started


def forecasts(panel: Panel, fit: SeriesFit, name: str) -> dict[str, np.ndarray]:
    model, labels, values = fit.models[name], fit.assignment.labels, panel.values[name]
    found = {"blend": model.forecast(values, panel.ends, {}, labels, 0.9).prediction}
    return found | model.baselines(values, panel.ends, {}, labels)


def mase(panel: Panel, name: str, truth: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """Of each series, shape (n,)."""
    values = panel.values[name]
    scale = np.nanmean(np.abs(values[:, HORIZON:] - values[:, :-HORIZON]), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nanmean(np.abs(truth - forecast), axis=1) / scale


def coverages(panel: Panel, fit: SeriesFit, truth: np.ndarray) -> dict[str, Any]:
    """Share of the held out values inside the intervals, of all and of each segment."""
    model, labels = fit.models[panel.target], fit.assignment.labels
    found: dict[str, Any] = {}
    for wanted in (0.8, 0.9, 0.95):
        made = model.forecast(panel.y, panel.ends, {}, labels, wanted)
        inside = (made.lower <= truth) & (truth <= made.upper)
        found[f"{wanted:.0%}"] = {"all": float(inside.mean())} | {
            f"segment {c} ({(labels == c).sum()})": float(inside[labels == c].mean())
            for c in np.unique(labels)
        }
    return found


def hospital() -> dict[str, Any]:
    frame = pd.read_parquet(DATA / "hospital_monthly.parquet")
    panel, truth = parted(frame, Roles(target="y", id="series_id", time="date", horizon=HORIZON))
    fit, seconds = fitted(panel)
    made = forecasts(panel, fit, "y")
    ours = {
        way: float(mase(panel, "y", truth["y"], np.round(forecast)).mean())
        for way, forecast in made.items()
    }
    paper = pd.read_csv(DATA / "monash_baselines_hospital.csv").set_index("metric")
    published = paper.loc["mean_MASE"].drop("dataset").astype(float).sort_values()
    print(f"\nhospital_monthly, mean MASE (fit {seconds:.0f} s)")
    rows = [(f"{way} (ours)", value) for way, value in ours.items()]
    for way, value in sorted([*rows, *published.items()], key=lambda row: row[1]):
        print(f"  {way:<24} {value:.4f}")
    folds = fit.scores["mase"]
    print(f"  on the folds: blend {folds['blend']:.4f}, control {folds['control']:.4f}")
    covered = coverages(panel, fit, truth["y"])
    for wanted, found in covered.items():
        shown = ", ".join(f"{name} {share:.3f}" for name, share in found.items())
        print(f"  {wanted} intervals: {shown}")
    return {"mase": ours, "published": published.to_dict(), "folds": folds, "coverage": covered}


def prescriptions() -> dict[str, Any]:
    frame = pd.read_parquet(DATA / "pbs_scripts_cost.parquet")
    keys = frame[["Concession", "Type", "ATC1", "ATC2"]].astype(str)
    frame = frame.assign(series=keys.agg(" ".join, axis=1))
    roles = Roles("Scripts", (), ("Cost",), "Month", "series", HORIZON)
    panel, truth = parted(frame, roles)
    fit, seconds = fitted(panel)
    print(f"\npbs_scripts_cost (fit {seconds:.0f} s)")
    print(f"  {'':<16}{'Scripts: median MASE':>22}{'WAPE':>8}{'Cost: median MASE':>20}{'WAPE':>8}")
    figures: dict[str, Any] = {}
    made = {name: forecasts(panel, fit, name) for name in ("Scripts", "Cost")}
    for way in ("blend", *WAYS):
        row = []
        for name in ("Scripts", "Cost"):
            found, known = made[name][way], ~np.isnan(truth[name])
            row.append(float(np.nanmedian(mase(panel, name, truth[name], found))))
            missed = np.abs(truth[name] - found)[known].sum()
            row.append(float(missed / np.abs(truth[name][known]).sum()))
        figures[way] = dict(
            zip(("scripts_mase", "scripts_wape", "cost_mase", "cost_wape"), row, strict=True)
        )
        print(f"  {way:<16}{row[0]:>22.4f}{row[1]:>8.4f}{row[2]:>20.4f}{row[3]:>8.4f}")
    print(f"  on the folds: {shown_control(fit.scores['median_mase'])} (median MASE of Scripts)")
    return figures | {"folds": fit.scores["median_mase"]}


def shown_control(folds: dict[str, float]) -> str:
    return f"blend {folds['blend']:.4f}, control {folds['control']:.4f}"


def diabetes() -> dict[str, Any]:
    config = PipelineConfig.from_yaml(EXAMPLES / "diabetes130.yaml")
    path = str(DATA / "diabetes130.parquet")
    frame = read_table(path, missing_markers=config.missing_markers).sort_values("encounter_id")
    resources = ("num_lab_procedures", "num_medications")
    roles = Roles("time_in_hospital", (), resources, "encounter_id")
    cut = len(frame) - len(frame) // 5
    known, newest = frame.iloc[:cut], frame.iloc[cut:]
    started = time.perf_counter()
    data = training_data(known, roles, config)
    fit = fit_generation(data, config, {"roles": vars(roles)})
    seconds = time.perf_counter() - started
    control = shuffled_control(fit, data, config)
    report = performance_figures(fit, newest.iloc[:0], control)["worth"]
    held = evaluate_generation(fit.generation, newest)
    print(f"\ndiabetes130, RMSE of the length of stay in days (fit {seconds:.0f} s)")
    print(f"  {'':<10}{'global':>9}{'clusters':>10}{'blend':>9}{'control':>9}")
    folds = [report[f"rmse_{way}"] for way in ("global", "cluster", "blend", "control")]
    print(f"  {'folds':<10}{folds[0]:>9.4f}{folds[1]:>10.4f}{folds[2]:>9.4f}{folds[3]:>9.4f}")
    row = [held[name] for name in ("rmse_global", "rmse_cluster", "rmse")]
    print(f"  {'held out':<10}{row[0]:>9.4f}{row[1]:>10.4f}{row[2]:>9.4f}")
    print(f"  {held['interval_coverage']:.1%} inside the {held['coverage']:.0%} intervals")
    return {"folds": report, "held_out": {k: v for k, v in held.items() if "rmse" in k}}


SETS = {"hospital": hospital, "pbs": prescriptions, "diabetes": diabetes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=sorted(SETS))
    arguments = parser.parse_args()
    wanted = [arguments.only] if arguments.only else list(SETS)
    figures: dict[str, Any] = {name: SETS[name]() for name in wanted}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"\npeak memory {peak:.0f} MiB")
    print(json.dumps(figures | {"peak_mib": peak}))


if __name__ == "__main__":
    main()
