"""Makes the saved models of this folder, each with an input and its answers to the last bit.

    python tests/saved_models/make_saved_models.py --make NAME    add a model that is not there yet
    python tests/saved_models/make_saved_models.py --check        fit each again, say what differs

The models are the past: every later build must load them and answer the same. They are never made
again so that a test passes; a wrong answer is a bug of the new build. Only a new kind of model or
a new format of its state adds one, and the version of the package rises with it, because a build
refuses the state of another build of its own version; before a release, set its development version
(0.2.0.dev1) to make one.

Answers are exact wherever numpy's exp and log have the bits they had on the machine that made them
(x86-64 with AVX-512); elsewhere the probabilities of classes may differ in the last bits.

A folder holds ``inputs.parquet``, ``answers.json`` (floats in hexadecimal), ``structure.json``
(what a state has by name) and a folder for each serialization. The rows are synthetic. The logged
copy of the package is left out, and so is whatever names the machine or the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import mlflow
import numpy as np
import pandas as pd
import yaml

from tsclust_model.config import PipelineConfig
from tsclust_model.data.roles import Roles
from tsclust_model.data.synthetic import make_hospital, make_ward_series
from tsclust_model.mlflow_integration.pyfunc import log_generation, seal_generation
from tsclust_model.models.base import FittedPipeline
from tsclust_model.models.state import unpack_arrays, unpack_json
from tsclust_model.series.schema import series_rows
from tsclust_model.training.task import task_of
from tsclust_model.training.train import train, train_table

FOLDER = Path(__file__).parent
SERIALIZATIONS = ("cloudpickle", "code")
FEW_TREES = {"num_leaves": 4, "n_estimators": 6, "learning_rate": 0.3, "min_data_in_leaf": 5}
SMALL: dict[str, Any] = {
    "hdbscan_params": {"min_cluster_size": 12, "min_samples": 4},
    "lgb_timeseries_params": FEW_TREES,
    "lgb_resource_params": FEW_TREES,
    "min_cluster_rows": 30,
}
FEATURES = ("age", "heart_rate", "temperature", "creatinine", "ward", "emergency")
HELD = 24


def cells(answer: Any) -> dict[str, Any]:
    """The type and every cell of each column: floats in hexadecimal, null as None."""
    frame = answer if isinstance(answer, pd.DataFrame) else pd.DataFrame({"prediction": answer})
    return {
        name: {"dtype": str(column.dtype), "cells": list(map(_cell, column))}
        for name, column in frame.items()
    }


def _cell(value: Any) -> Any:
    if value is None or value is pd.NA:
        return None
    if isinstance(value, np.ndarray):
        return [str(value.dtype), *map(_cell, value.tolist())]
    plain = value.item() if isinstance(value, np.generic) else value
    return plain.hex() if isinstance(plain, float) else plain


def structure(parts: Mapping[str, bytes]) -> dict[str, Any]:
    """The names in a state: its parts, the keys of JSON, and the arrays with type and axes."""
    return {name: _named(name, part) for name, part in sorted(parts.items())}


def _named(name: str, part: bytes) -> Any:
    if name.endswith(".npz"):
        arrays = sorted(unpack_arrays(part).items())
        return {key: f"{found.dtype.kind}{found.ndim}" for key, found in arrays}
    return _keys(json.loads(part) if name == "manifest.json" else unpack_json(part))


def _keys(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _keys(value) for key, value in sorted(content.items())}
    return type(content).__name__


# -- the models --------------------------------------------------------------------------------


def regression() -> tuple[FittedPipeline, pd.DataFrame]:
    """Numbers and strings with gaps, resources, patients and a time; some rows are broken."""
    rows = make_hospital(264, random_state=11)
    rng = np.random.default_rng(11)
    rows["creatinine"] = rows["creatinine"].mask(rng.random(len(rows)) < 0.1)
    rows["ward"] = rows["ward"].mask(rng.random(len(rows)) < 0.05)
    roles = Roles(
        "length_of_stay_days",
        FEATURES,
        ("nursing_hours", "medication_cost"),
        "admission_time",
        "patient_id",
    )
    trees = {"num_leaves": 3, "n_estimators": 3, "learning_rate": 0.5, "min_data_in_leaf": 4}
    weak = {"lgb_timeseries_params": trees, "lgb_resource_params": trees}  # so that segments help
    config = PipelineConfig(**SMALL | weak, missing_values="impute", planning_columns=["ward"])
    held = rows.tail(HELD)[list(FEATURES)].assign(unknown_column=1.0)[::-1]
    held = held.astype({"age": float}).assign(emergency=held["emergency"].astype(str))
    held.iloc[0, held.columns.get_loc("age")] = np.inf
    held.iloc[1, held.columns.get_loc("ward")] = "a ward of tomorrow"
    held.iloc[2, held.columns.get_loc("heart_rate")] = 1e9
    return _train(rows.head(-HELD), roles, config), held


def classes() -> tuple[FittedPipeline, pd.DataFrame]:
    """Three classes that are strings, and a resource; rows with gaps are not scored."""
    rows = make_hospital(264, random_state=12)
    days = rows["length_of_stay_days"]
    rows["stay"] = np.select([days < 3, days < 6], ["short", "some days"], "länger")
    features = ("age", "heart_rate", "oxygen_saturation", "ward")
    roles = Roles("stay", features, ("nursing_hours",), "admission_time")
    held = rows.tail(HELD)[list(features)].astype({"age": float, "oxygen_saturation": float})
    held.iloc[0, 0] = np.nan
    held.iloc[1, 3] = None
    config = PipelineConfig(**SMALL, combine="cluster", max_fit_rows=180)
    return _train(rows.head(-HELD), roles, config), held


def series() -> tuple[FittedPipeline, pd.DataFrame]:
    """Monthly series with a resource and a covariate; some are short, have gaps or nothing."""
    table = make_ward_series(36, 36, random_state=13)
    roles = Roles("beds", ("temperature",), ("nursing_hours",), "month", "ward_id", horizon=4)
    columns = ("ward_id", "month", "beds", ["nursing_hours"], ["temperature"])
    held = series_rows(table[table["ward_id"].isin(table["ward_id"].unique()[::3])], *columns)
    lists = {name: list(map(list, held[name])) for name in ("y", "nursing_hours", "temperature")}
    for found in lists.values():
        found[0], found[1] = found[0][-3:], []
    lists["y"][2][5] = lists["temperature"][3][-1] = np.nan
    held = held.assign(**{k: pd.Series(v, held.index, dtype=object) for k, v in lists.items()})
    config = PipelineConfig(**SMALL | {"hdbscan_params": {"min_cluster_size": 6, "min_samples": 3}})
    return _train(table, roles, config), held


def plans() -> tuple[FittedPipeline, pd.DataFrame]:
    """Monthly series with plans, holidays and types of wards; some rows lack what they need."""
    table = make_ward_series(66, 40, random_state=15)
    wards, number = table["ward_id"].unique(), table["ward_id"].factorize()[0]
    planned = (np.random.default_rng(15).random(len(table)) < 0.2).astype(float)
    table = table.assign(planned=planned, kind=np.array(["a", "b"])[number % 2], size=number * 10.0)
    table["beds"] += 8 * planned
    known = table["month"] < sorted(table["month"].unique())[-4]
    roles = Roles(
        *("beds", (), ("nursing_hours",), "month", "ward_id"),
        horizon=4,
        future=("planned",),
        static=("kind", "size"),
        holidays="AU",
    )
    few = {"hdbscan_params": {"min_cluster_size": 10, "min_samples": 3}, "combine": "cluster"}
    model = _train(table[known], roles, PipelineConfig(**SMALL | few))
    table.loc[~known, ["beds", "nursing_hours"]] = np.nan
    asked = table[table["ward_id"].isin(wards[::6])]
    held = series_rows(asked, model=model)
    held.at[0, "planned"] = [*held.at[0, "planned"][:-1], np.nan]
    held.at[1, "kind"], held.at[2, "size"] = "another", np.nan
    held.at[3, "last_timestamp"] += pd.DateOffset(years=20)
    for name in ("y", "nursing_hours", "planned"):
        held.at[4, name] = held.at[4, name][-7 if name == "planned" else -3 :]
    return model, held


def baseline() -> tuple[Any, pd.DataFrame]:
    """A forest of scikit-learn for classes."""
    rows = make_hospital(144, random_state=14)
    rows["long"] = np.where(rows["length_of_stay_days"] > 8, "yes", "no")
    rows["age"] = rows["age"].mask(np.random.default_rng(14).random(len(rows)) < 0.1)
    features = ("age", "heart_rate", "ward", "emergency")
    roles, config = Roles("long", features, (), "admission_time"), {"missing_values": "impute"}
    params = {"n_estimators": 2, "max_depth": 4}
    task = task_of(roles, PipelineConfig(**config), "random_forest", params)
    known = rows.head(-HELD)
    model = train(task, known, source="synthetic", holdout=0.2, model_name="saved").generation
    return model, model.canonical_rows(rows.tail(HELD))[list(features)]


MODELS: dict[str, Callable[[], tuple[Any, pd.DataFrame]]] = {
    made.__name__: made for made in (regression, classes, series, plans, baseline)
}


def _train(rows: pd.DataFrame, roles: Roles, config: PipelineConfig) -> FittedPipeline:
    trained = train_table(rows, roles, config, source="synthetic", holdout=0.1, model_name="saved")
    return trained.generation


# -- how they are kept -------------------------------------------------------------------------


def make(name: str) -> None:
    target = FOLDER / name
    if target.exists():
        raise click.ClickException(f"{name} is there; a saved model is never made again")
    with _store():
        model, inputs = MODELS[name]()
        inputs.to_parquet(_new(target) / "inputs.parquet")
        again = pd.read_parquet(target / "inputs.parquet")
        for serialization in SERIALIZATIONS:
            _keep(
                lambda m, kind=serialization: log_generation(m, kind), model, target / serialization
            )
        coverages = (
            {"": None, "0.5": 0.5} if "prediction_lower" in model.output_types else {"": None}
        )
        answers = {key: cells(model.predict(again, given)) for key, given in coverages.items()}
        _write(target / "answers.json", answers)
        _write(target / "structure.json", structure(seal_generation(model)))


def check(name: str) -> None:
    """Say which parts another fit gives otherwise than the saved one (runs and times differ)."""
    with _store():
        parts = seal_generation(MODELS[name]()[0])
    saved = {
        path.name: path.read_bytes() for path in (FOLDER / name / "code/artifacts/state").iterdir()
    }
    other = [key for key in sorted(saved | parts) if saved.get(key) != parts.get(key)]
    click.echo(f"{name}: {len(parts) - len(other)} parts are the same; others: {', '.join(other)}")
    for key in other:
        if key.endswith(".json") and key in saved and key in parts and key != "manifest.json":
            was, now = unpack_json(saved[key]), unpack_json(parts[key])
            click.echo(f"  {key}: {[k for k in was | now if was.get(k) != now.get(k)]}")


@contextlib.contextmanager
def _store() -> Any:
    """A temporary store in use, and its folder as the working folder."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        try:
            yield
        finally:
            os.chdir(before)


def _keep(log: Callable[[Any], Any], model: Any, target: Path) -> None:
    """Log a model, and keep what was logged but for the package's copy and the run."""
    with mlflow.start_run():
        logged = log(model)
    uri = logged[0] if isinstance(logged, tuple) else logged.model_uri
    shutil.copytree(mlflow.artifacts.download_artifacts(uri), target)
    shutil.rmtree(target / "code", ignore_errors=True)
    (target / "registered_model_meta").unlink(missing_ok=True)
    file = target / "MLmodel"
    about = yaml.safe_load(file.read_text())
    for key in ("artifact_path", "run_id", "model_id", "model_uuid", "model_size_bytes"):
        about.pop(key, None)
    for flavor in about["flavors"].values():
        flavor.pop("code", None)
        if "model_code_path" in flavor:
            flavor["model_code_path"] = Path(flavor["model_code_path"]).name
        if "artifacts" in flavor:
            found = flavor["artifacts"]["state"]
            (target / found["path"]).rename(target / "artifacts/state")
            found |= {"path": "artifacts/state", "uri": "state"}
    file.write_text(yaml.safe_dump(about, allow_unicode=True))


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@click.command()
@click.option("--make", "name", type=click.Choice(list(MODELS)), help="add this model")
@click.option("--check", "checked", is_flag=True, help="compare another fit with what is saved")
def main(name: str | None, checked: bool) -> None:
    """Add a saved model, or compare another fit with the saved ones."""
    if name:
        make(name)
    for each in sorted(set(MODELS) - {"baseline"}) if checked else ():
        check(each)


if __name__ == "__main__":
    main()
