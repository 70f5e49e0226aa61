"""Trainings and retrains of a synthetic hospital, for the tests of this folder."""

from __future__ import annotations

from itertools import count

import pandas as pd
from mlflow import MlflowClient

from tests.support import QUICK, VITALS
from tsclust_model.config import PipelineConfig
from tsclust_model.data.roles import Roles
from tsclust_model.mlflow_integration.registry import alias_version
from tsclust_model.mlflow_integration.storage import open_storage
from tsclust_model.training.challenge import retrain_model
from tsclust_model.training.train import Training, train_table

TARGET = "length_of_stay_days"
CONFIG = PipelineConfig(
    hdbscan_params={"min_cluster_size": 15},
    lgb_timeseries_params=QUICK,
    lgb_resource_params=QUICK,
    retrain_cooldown_batches=4,
)
NUMBERS = count()


def rows(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[[*VITALS, TARGET]].astype(float).reset_index(drop=True)


def trained(frame: pd.DataFrame, config: PipelineConfig = CONFIG, prefix: str = "loop") -> Training:
    return train_table(rows(frame), Roles(TARGET), config, model_name=f"{prefix}-{next(NUMBERS)}")


def again(training: Training, config: PipelineConfig = CONFIG, reason: str = "test", **options):
    return retrain_model(
        training.generation, training.version, training.model_name, config, reason, **options
    )


def aliases(name: str) -> dict[str, str | None]:
    return {alias: alias_version(name, alias) for alias in ("champion", "challenger", "previous")}


def versions(name: str) -> int:
    return len(MlflowClient().search_model_versions(f"name = '{name}'"))


def history_files(name: str, config: PipelineConfig = CONFIG) -> dict[str, bytes]:
    folder = open_storage(config, name).history.base_dir
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
