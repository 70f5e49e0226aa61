"""A model of 500 admissions that is retrained, and what comes after them."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pandas as pd
import pytest
from mlflow import MlflowClient

from tests.training.retrains import CONFIG, NUMBERS, trained
from tsclust_model.data.synthetic import make_hospital
from tsclust_model.mlflow_integration.storage import open_storage
from tsclust_model.training.train import Training


@pytest.fixture(scope="session")
def stream() -> pd.DataFrame:
    return make_hospital(1200, random_state=3)


@pytest.fixture(scope="session")
def moved() -> pd.DataFrame:
    """Admissions of a hospital that is no longer the one of `stream`."""
    return make_hospital(2400, random_state=4, drift=5.0).tail(600)


@pytest.fixture(scope="session")
def trained_once() -> list[Training]:
    return []


@pytest.fixture
def training(store, stream, trained_once) -> Training:
    """A model of the first 500 admissions: a copy, with its history, of one trained once."""
    if not trained_once:
        trained_once.append(trained(stream.head(500)))
    (first,) = trained_once
    name = f"copy-{next(NUMBERS)}"
    client = MlflowClient()
    version = client.copy_model_version(f"models:/{first.model_name}/1", name).version
    client.set_registered_model_alias(name, "champion", version)
    folders = [open_storage(CONFIG, found).history.base_dir for found in (first.model_name, name)]
    shutil.copytree(*folders)
    return replace(first, model_name=name)
