"""How good the forecasts are on real data, beside published tables and what is cheap.

    python benchmarks/accuracy.py                            # all data sets
    python benchmarks/accuracy.py --only fev --seeds 1 2 3   # one of them, the mean of three seeds

| set | protocol |
|---|---|
| hospital | Monash archive: the last 12 months, forecasts rounded, mean MASE |
| fev | fev-bench's task `hospital`: 12 months at four cutoffs, MASE of the median and SQL |
| gift | GIFT-Eval's `hospital/M/short`: the last 12 months, MASE and WQL |
| m1, m4_hourly, nn5 | the last 18 months, 48 hours, 56 days of each series; MASE and WQL |
| pbs | the last 12 months of prescriptions and cost; medians, as many series are nearly dead |
| diabetes | the newest fifth of the encounters, RMSE |

MASE is per series (scale: absolute difference over a season of what is known), then the mean; what
a gap hides is neither evaluated nor part of the scale. Every choice is made inside the training
part, on folds whose figures are printed; "control" is the same blend with the segments shuffled.
Settings are the defaults.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from forecast_scores import QUANTILES, mase, seasonal_error, sql, wql

from tsclust_model.config import PipelineConfig
from tsclust_model.data.roles import Roles
from tsclust_model.data.tables import read_table
from tsclust_model.results import silent
from tsclust_model.rows.evaluation import evaluate_generation
from tsclust_model.rows.figures import performance_figures, shuffled_control
from tsclust_model.rows.fit import fit_generation
from tsclust_model.rows.table import training_data
from tsclust_model.series.covariates import Covariates
from tsclust_model.series.fit import fit_series_generation
from tsclust_model.series.long_table import Panel, series_panel
from tsclust_model.series.output_fit import SeriesFit, fit_series

DATA = Path(__file__).parents[2] / "shared" / "data"
EXAMPLES = Path(__file__).parents[1] / "examples"
HORIZON = 12
WAYS = ("global", "cluster", "bank", "theta", "regression", "seasonal_naive")
CONFIG = PipelineConfig()


@dataclass(frozen=True)
class SeriesSet:
    """A data set of series and the protocol of a published table.

    `cutoffs` are the periods before the end at which the windows begin; `published` is a table of
    `shared/data`, and its column that names the models.
    """

    file: str
    horizon: int
    season: int
    cutoffs: tuple[int, ...]
    published: str | None
    rounded: bool = False
    shown: int = 6

    def panels(self) -> tuple[Panel, Panel, Roles]:
        """The panel with gaps filled, which is fitted, and with gaps left, which is the truth."""
        frame = pd.read_parquet(DATA / f"{self.file}.parquet")[["series_id", "date", "y"]]
        roles = Roles(target="y", id="series_id", time="date", horizon=self.horizon)
        panel = series_panel(frame, roles, gap_policy="fill")
        known = frame.dropna()
        column = panel.frequency.ordinals(known["date"].to_numpy()) + panel.n_periods - 1
        row = pd.Index(panel.ids).get_indexer(known["series_id"])
        values = np.full(panel.y.shape, np.nan)
        values[row, column - panel.ends[row]] = known["y"]
        return panel, replace(panel, values={"y": values}), roles

    def table(self) -> pd.DataFrame:
        """The published rows: MASE, SQL and WQL by model, the best first."""
        if self.published is None:
            return pd.DataFrame({"MASE": pd.Series(dtype=float)})
        found = pd.read_csv(DATA / f"{self.published}.csv")
        if "metric" in found:  # Monash's has a column a model
            means = found.set_index("metric").loc["mean_MASE"].drop("dataset").astype(float)
            found = pd.DataFrame({"model": means.index, "MASE": means.to_numpy()})
        known = [name for name in ("MASE", "SQL", "WQL") if name in found]
        return found.set_index("model")[known].sort_values("MASE")


SERIES = {
    "hospital": SeriesSet(
        "hospital_monthly", 12, 12, (12,), "monash_baselines_hospital", rounded=True, shown=12
    ),
    "fev": SeriesSet("hospital_monthly", 12, 12, (48, 36, 24, 12), "baselines_fev_bench_hospital"),
    "gift": SeriesSet("hospital_monthly", 12, 12, (12,), "baselines_gift_eval_hospital"),
    "m1": SeriesSet("m1_monthly", 18, 12, (18,), "baselines_zero_shot_m1_monthly"),
    "m4_hourly": SeriesSet("m4_hourly", 48, 24, (48,), "baselines_gift_eval_m4_hourly"),
    "nn5": SeriesSet("nn5_daily", 56, 7, (56,), None),
}


def window(which: SeriesSet, cutoff: int, seed: int) -> dict[str, Any]:
    """Figures of one window, of all that is known before its cutoff."""
    panel, raw, roles = which.panels()
    config = replace(CONFIG, random_state=seed)
    started = time.perf_counter()
    fitted = fit_series_generation(panel.known(cutoff), roles, config)
    seconds = time.perf_counter() - started
    generation, held = fitted.generation, panel.held_back(cutoff, which.horizon)
    target = generation.forecast(held.panel, CONFIG.coverage, QUANTILES.tolist()).target
    quantiles = target.quantiles
    ways = {"blend": target.prediction}
    ways |= generation.baselines(held.panel, generation.assign(held.panel).labels)
    if which.rounded:
        ways = {way: np.round(found) for way, found in ways.items()}
    held = raw.held_back(cutoff, which.horizon)
    scale = seasonal_error(held.panel.y, which.season)
    inside = (quantiles[0] <= held.y) & (held.y <= quantiles[-1])
    scores = generation.info["scores"]
    folds = dict(scores["mase"])
    return {
        "mase": {way: float(np.nanmean(mase(held.y, made, scale))) for way, made in ways.items()},
        "sql": float(np.nanmean(sql(held.y, quantiles, scale))),
        "wql": wql(held.y, quantiles),
        "inside_80": float(inside[~np.isnan(held.y)].mean()),
        "segments": scores["gain"],
        "folds": folds | {f"share_{way}": share for way, share in scores["shares"]["-1"].items()},
        "fit_s": seconds,
    }


def mean_of(parts: Sequence[Any]) -> Any:
    """The mean of figures, key by key; of those that all parts have."""
    if not isinstance(parts[0], dict):
        known = [part for part in parts if part is not None and not isinstance(part, dict)]
        return float(np.mean(known)) if known else None
    shared = [key for key in parts[0] if all(key in part for part in parts)]
    return {key: mean_of([part[key] for part in parts]) for key in shared}


def series_set(name: str, seeds: Sequence[int]) -> dict[str, Any]:
    which = SERIES[name]
    windows = [window(which, cutoff, seed) for seed in seeds for cutoff in which.cutoffs]
    ours = mean_of(windows)
    rows = which.table()
    for way, value in ours["mase"].items():
        rows.loc[f"{way} (ours)", "MASE"] = value
    for column in {"SQL", "WQL"} & set(rows) or {"SQL", "WQL"}:
        rows.loc["blend (ours)", column] = ours[column.lower()]
    rows = rows.sort_values("MASE")
    rank = np.arange(len(rows)) < which.shown
    print(f"\n{name} ({which.file}; a fit takes {ours['fit_s']:.0f} s; seeds {list(seeds)})")
    print(rows[rank | rows.index.str.endswith("(ours)")].round(4).to_string(na_rep="-"))
    per_seed = [w["mase"]["blend"] for w in windows]
    print(f"  MASE of the windows, seed by seed: {', '.join(f'{v:.4f}' for v in per_seed)}")
    print(f"  inside the 80% intervals: {ours['inside_80']:.1%}")
    for found in windows[: len(which.cutoffs)]:
        print(f"  {segment_gain(found['segments'])}")
    print("  on the folds: " + ", ".join(f"{k} {v:.4f}" for k, v in ours["folds"].items()))
    return ours | {"windows": windows, "published": rows["MASE"].to_dict()}


def parted(frame: pd.DataFrame, roles: Roles) -> tuple[Panel, dict[str, np.ndarray]]:
    """The panel without its last 12 periods, and these periods by column."""
    whole = series_panel(frame, roles, gap_policy="fill")
    newest = np.sort(frame[roles.time].unique())[-HORIZON:]
    known = series_panel(frame[~frame[roles.time].isin(newest)], roles, gap_policy="fill")
    rows = pd.Index(whole.ids).get_indexer(known.ids)
    truth = {name: whole.values[name][rows, -HORIZON:] for name in known.values}
    return known, truth


def forecasts(panel: Panel, fit: SeriesFit, name: str) -> dict[str, np.ndarray]:
    model, labels, values = fit.models[name], fit.assignment.labels, panel.values[name]
    none = Covariates()
    found = {"blend": model.forecast(values, panel.ends, none, labels, 0.9).prediction}
    return found | model.baselines(values, panel.ends, none, labels)


def prescriptions() -> dict[str, Any]:
    frame = pd.read_parquet(DATA / "pbs_scripts_cost.parquet")
    keys = frame[["Concession", "Type", "ATC1", "ATC2"]].astype(str)
    frame = frame.assign(series=keys.agg(" ".join, axis=1))
    roles = Roles("Scripts", (), ("Cost",), "Month", "series", HORIZON)
    panel, truth = parted(frame, roles)
    started = time.perf_counter()
    fit = fit_series(panel, CONFIG, silent)
    seconds = time.perf_counter() - started
    scale = {name: seasonal_error(panel.values[name], HORIZON) for name in truth}
    print(f"\npbs_scripts_cost (fit {seconds:.0f} s)")
    print(f"  {'':<16}{'Scripts: median MASE':>22}{'WAPE':>8}{'Cost: median MASE':>20}{'WAPE':>8}")
    figures: dict[str, Any] = {}
    made = {name: forecasts(panel, fit, name) for name in ("Scripts", "Cost")}
    for way in ("blend", *WAYS):
        row = []
        for name in ("Scripts", "Cost"):
            found, known = made[name][way], ~np.isnan(truth[name])
            with_truth = known.any(axis=1)
            errors = mase(truth[name][with_truth], found[with_truth], scale[name][with_truth])
            row.append(float(np.nanmedian(errors)))
            missed = np.abs(truth[name] - found)[known].sum()
            row.append(float(missed / np.abs(truth[name][known]).sum()))
        figures[way] = dict(
            zip(("scripts_mase", "scripts_wape", "cost_mase", "cost_wape"), row, strict=True)
        )
        print(f"  {way:<16}{row[0]:>22.4f}{row[1]:>8.4f}{row[2]:>20.4f}{row[3]:>8.4f}")
    print(f"  on the folds: {shown_control(fit.scores['median_mase'])} (median MASE of Scripts)")
    print(f"  {segment_gain(fit.scores['gain'])}")
    return figures | {"folds": fit.scores["median_mase"], "segments": fit.scores["gain"]}


def segment_gain(found: dict[str, Any] | None) -> str:
    """What the segments save beyond shuffled ones on the folds, beside its standard error."""
    if found is None or found["error"] is None:
        return "segments: no comparison with shuffled ones"
    return f"segments beyond shuffled ones: {found['beyond']:.4f} (error {found['error']:.4f})"


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
    report = performance_figures(fit, newest.iloc[:0], control)["folds"]
    held = evaluate_generation(fit.generation, newest)
    print(f"\ndiabetes130, RMSE of the length of stay in days (fit {seconds:.0f} s)")
    print(f"  {'':<10}{'global':>9}{'clusters':>10}{'blend':>9}{'control':>9}")
    folds = [report[f"rmse_{way}"] for way in ("global", "cluster", "blend", "control")]
    print(f"  {'folds':<10}{folds[0]:>9.4f}{folds[1]:>10.4f}{folds[2]:>9.4f}{folds[3]:>9.4f}")
    row = [held[name] for name in ("rmse_global", "rmse_cluster", "rmse")]
    print(f"  {'held out':<10}{row[0]:>9.4f}{row[1]:>10.4f}{row[2]:>9.4f}")
    print(f"  {held['interval_coverage']:.1%} inside the {held['coverage']:.0%} intervals")
    return {"folds": report, "held_out": {k: v for k, v in held.items() if "rmse" in k}}


ROWS = {"pbs": prescriptions, "diabetes": diabetes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=[*SERIES, *ROWS], metavar="SET")
    parser.add_argument("--seeds", nargs="+", type=int, default=[CONFIG.random_state])
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    for name in arguments.only or [*SERIES, *ROWS]:
        figures[name] = series_set(name, arguments.seeds) if name in SERIES else ROWS[name]()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"\npeak memory {peak:.0f} MiB")
    print(json.dumps(figures | {"peak_mib": peak}))


if __name__ == "__main__":
    main()
