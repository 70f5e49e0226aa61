"""A model of 500 admissions that is retrained, and what comes after them."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from tests.support import copy_model
from tests.training.retrains import NUMBERS, trained
from tsclust_model.data.synthetic import make_hospital
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
    return replace(first, model_name=copy_model(first.model_name, f"copy-{next(NUMBERS)}"))
