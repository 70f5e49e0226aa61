"""The operations loop on a long table of series: months of wards, and what goes wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from tsclust_model import ModelMonitor, run_pipeline
from tsclust_model.data.synthetic import make_ward_series
from tsclust_model.errors import ConfigurationError, DataValidationError
from tsclust_model.metrics import NAIVE_FIGURES
from tsclust_model.mlflow_integration.storage import ModelStorage
from tsclust_model.operations.results import FIGURES
from tsclust_model.operations.settings import load_settings
from tsclust_model.operations.workspace import Workspace


class Wards:
    """A folder with a YAML and a file that the next months replace."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.settings: dict[str, Any] = {
            "data": {
                "path": str(folder / "wards.csv"),
                "versions_dir": str(folder / "data"),
                "target": "beds",
                "features": ["temperature"],
                "resources": ["nursing_hours"],
                "time": "month",
                "id": "ward_id",
                "horizon": 3,
            },
            "model": {
                "model_registry_prefix": name,
                "history_dir": str(folder / "history"),
                "hdbscan_params": {"min_cluster_size": 5},
                "lgb_timeseries_params": {"n_estimators": 20},
                "lgb_resource_params": {"n_estimators": 20},
            },
            "monitoring": {
                "dir": str(folder / "monitoring"),
                "drift_min_samples": 24,
                "accuracy_min_threshold": 0.6,
                "thresholds": {"mase": {"threshold": 2.0, "greater_is_better": False}},
            },
        }

    def export(self, frame: pd.DataFrame) -> dict[str, Any]:
        frame.to_csv(self.folder / "wards.csv", index=False)
        (self.folder / "wards.yaml").write_text(yaml.safe_dump(self.settings))
        return run_pipeline(self.folder / "wards.yaml")

    @property
    def storage(self) -> ModelStorage:
        return Workspace(load_settings(self.folder / "wards.yaml")).storage

    @property
    def batches(self) -> list[str]:
        return self.storage.history.list_versions()


@pytest.fixture
def wards(store, tmp_path, request) -> Wards:
    return Wards(tmp_path, request.node.name[:40])


@pytest.fixture(scope="module")
def beds() -> pd.DataFrame:
    return make_ward_series(24, 57, random_state=3)


def months(beds: pd.DataFrame, first: str, last: str) -> pd.DataFrame:
    return beds[beds["month"].between(first, last)]


def judged(summary: dict[str, Any]) -> tuple[Any, ...]:
    """Status, reasons without their figures, version and validation."""
    reasons = [re.sub(r"\d+(\.\d+)?", "#", reason) for reason in summary["reasons"]]
    return summary["status"], reasons, summary["model_version"], summary["validation_status"]


NOTHING: tuple[Any, ...] = ("done", [], "1", "PASSED")
BAD = {
    "gone": (lambda f: f.drop(columns="beds"), "column 'beds' is gone"),
    "unit": (
        lambda f: f.assign(beds=f["beds"] * 1000),
        "column 'beds' is 1000 times what it was: was its unit changed?",
    ),
    "broken": (
        lambda f: f.assign(beds=f["beds"].mask(np.arange(len(f)) == 4, 1e7)),
        "column 'beds' is far outside the known range in 1% of the rows",
    ),
    "contradiction": (
        lambda f: pd.concat([f, f.head(1).assign(beds=f["beds"].iloc[0] + 1)]),
        "1% of the rows give a series another value for a period that it already has",
    ),
}


def test_months_of_wards_go_through_the_loop(wards, beds):
    first = wards.export(months(beds, "2020-01", "2023-06"))
    assert judged(first) == ("done", ["no model yet"], "1", "PASSED")
    unknown = {name for name in FIGURES if first[name] is None}
    assert unknown == {"accuracy", "r2", "log_loss", "auc", *NAIVE_FIGURES}
    again = wards.export(months(beds, "2020-01", "2023-06"))
    assert (again["status"], again["mase"]) == ("unchanged", first["mase"])

    # An export that overlaps the one before, copies of rows, and then the newest months alone.
    overlap = months(beds, "2020-01", "2023-09")
    assert judged(wards.export(pd.concat([overlap, overlap.head(5)]))) == NOTHING
    only_new = wards.export(months(beds, "2023-10", "2023-12"))
    assert judged(only_new) == NOTHING
    assert only_new["message"].startswith("nothing is due: batch ")
    newest = ModelMonitor(wards.storage.monitoring).get_latest_accuracy()
    assert newest == pytest.approx(1 - only_new["wape"])

    before, later = wards.batches, months(beds, "2024-01", "2024-09")
    for change, expected in BAD.values():
        summary = wards.export(change(months(beds, "2024-01", "2024-03")))
        assert judged(summary) == ("blocked", [], "1", None)
        version = summary["data_version"]
        assert summary["message"] == f"data version {version} is blocked: {expected}"
    assert wards.batches == before

    # The wards are emptied and filled at random: neither season nor level goes on.
    noise = np.random.default_rng(0).uniform(0.05, 1.95, len(later))
    changed = wards.export(later.assign(beds=(later["beds"] * noise).round()))
    reasons = ["forecast accuracy # is under #", "drift of the feature means # is over #"]
    assert changed["reasons"][0].endswith(" is under 0.6")
    assert changed["retrained"]
    assert judged(changed)[:2] == ("below_threshold", reasons)
    tags = MlflowClient().get_model_version(wards.name, "2").tags
    assert tags["trigger"] == "; ".join(changed["reasons"])
    assert "mase_challenger" in tags

    wards.settings["data"]["horizon"] = 6
    with pytest.raises(
        ConfigurationError,
        match=f"'{wards.name}' was trained with horizon 3 .* data.horizon is 6; set it so, or take",
    ):
        wards.export(later)


def test_gaps_that_are_filled_let_broken_rows_go(wards, beds):
    wards.settings["model"]["gap_policy"] = "fill"
    wards.settings["monitoring"]["accuracy_min_threshold"] = 0.999
    wards.export(months(beds, "2020-01", "2023-06"))
    later = months(beds, "2023-07", "2023-12")
    summary = wards.export(BAD["broken"][0](later))
    assert summary["quality"]["removed"] == {"range": 1}
    assert judged(summary)[:2] == ("below_threshold", ["forecast accuracy # is under #"])
    assert summary["retrained"]
    # The schema of the challenger is as strict as that of the champion before it.
    gone = wards.export(months(beds, "2024-01", "2024-03").drop(columns="nursing_hours"))
    assert gone["message"].endswith("is blocked: column 'nursing_hours' is gone")


def test_a_first_table_that_is_no_series_fails_the_step(wards, beds):
    with pytest.raises(DataValidationError, match="the data has no column 'beds'"):
        wards.export(beds.drop(columns="beds"))


def test_plans_kinds_and_holidays_go_through_the_loop(wards, beds):
    rng = np.random.default_rng(4)
    planned = rng.integers(0, 4, len(beds)).astype(float)
    known = beds.assign(planned=planned, kind=beds["ward_id"].str[:4])
    known["beds"] += 10 * planned
    wards.settings["data"] |= {"future": ["planned"], "static": ["kind"], "holidays": "AU"}

    def export(first: str, last: str) -> dict[str, Any]:
        """An export to a month, and the plans of the three months after it."""
        until = str(pd.Period(last) + 3)
        frame = months(known, first, until)
        unknown = frame["month"] > last
        outcomes = frame[["beds", "nursing_hours", "temperature"]].mask(unknown, axis=0)
        return wards.export(frame.assign(**outcomes))

    assert judged(export("2020-01", "2023-06")) == ("done", ["no model yet"], "1", "PASSED")
    wards.settings["monitoring"]["accuracy_min_threshold"] = 0.999  # no model reaches it
    again = export("2023-04", "2023-12")
    assert again["retrained"]
    assert again["mase"] < 0.5
    newest, _ = wards.storage.history.load(wards.batches[0])
    assert {"planned", "kind"} <= set(newest)
    assert newest["month"].max() == pd.Timestamp("2023-12-01")
    assert newest["planned"].notna().all()
    wards.settings["data"]["static"] = []
    with pytest.raises(ConfigurationError, match="was trained with static kind, and data"):
        export("2023-07", "2023-12")
