"""A training, the pipeline and the commands on tables of polars and Delta Lake."""

from __future__ import annotations

import json
from pathlib import Path

import deltalake
import numpy as np
import pandas as pd
import polars as pl
from mlflow import MlflowClient

from tests.support import VITALS
from tests.training.retrains import CONFIG, TARGET, rows
from tsclust_model.mlflow_integration.registry import load_generation
from tsclust_model.pipeline import TimeSeriesClusteringPipeline


def test_a_pipeline_lives_on_polars(store: str, hospital: pd.DataFrame):
    table = rows(hospital)
    first, later = table.head(500), table.iloc[500:600].reset_index(drop=True)
    plain = TimeSeriesClusteringPipeline(CONFIG, model_name="lives-on-pandas")
    given = TimeSeriesClusteringPipeline(CONFIG, model_name="lives-on-polars")
    names = list(VITALS)
    expected = plain.fit_initial(first[names], first[TARGET])
    taken = pl.from_pandas(first)
    result = given.fit_initial(taken.select(names), taken[TARGET])
    np.testing.assert_array_equal(result.labels, expected.labels)
    batch = pl.from_pandas(later)
    done = given.process_batch(batch.select(names), batch[TARGET])
    known = plain.process_batch(later[names], later[TARGET])
    np.testing.assert_array_equal(done.timeseries_predictions, known.timeseries_predictions)
    assert done.version_id == known.version_id
    assert done.degraded == known.degraded == ()
    assert load_generation("models:/lives-on-polars@champion").roles.target == TARGET
    plain.close()
    given.close()


def test_a_run_names_the_version_of_delta_that_it_was_trained_on(
    store: str, store_folder: Path, hospital: pd.DataFrame, tsclust
):
    table = rows(hospital).head(500)
    deltalake.write_deltalake("stays", table.head(250))
    deltalake.write_deltalake("stays", table.tail(250), mode="append")
    Path("quick.yaml").write_text(CONFIG.to_yaml())
    told = tsclust("train", data="stays", target=TARGET, config="quick.yaml", model_name="delta")
    assert told.exit_code == 0, told.output
    deltalake.write_deltalake("stays", table.head(10), mode="append")
    client = MlflowClient()
    version = client.get_model_version_by_alias("delta", "champion")
    run = client.get_run(version.run_id)
    (used,) = run.inputs.dataset_inputs
    assert json.loads(used.dataset.source) == {"path": "stays", "delta_table_version": 1}
    assert used.dataset.source_type == "delta_table"
    model = load_generation("models:/delta@champion")
    assert model.info["source"] == "stays@v1"
    assert model.info["n_rows"] == 500
    told = tsclust("evaluate", data="stays", model_uri="models:/delta@champion")
    assert told.exit_code == 0, told.output
    latest = client.search_runs([run.info.experiment_id], "tags.phase = 'evaluation'")[0]
    (used,) = latest.inputs.dataset_inputs
    assert json.loads(used.dataset.source)["delta_table_version"] == 2
