"""Nothing shows a row: not at a prompt, in a log, or in a traceback."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

import tsclust_model
from tsclust_model.training.train import Training

SECRET = 987654.25
SMALL = {"str", "int", "float", "bool", "datetime", "Path", "bytes"}
SETTINGS = {
    *(
        "PipelineConfig",
        "Roles",
        "ClassLabels",
        "ClassTarget",
        "NumberTarget",
        "Lineage",
        "Feature",
        "Schema",
        "SeriesSchema",
    ),
    *("FoldScores", "RetrainDecision", "Watched", "_Kind", "BatchCosts", "Check"),
}
"""They hold names, settings and figures, which are worth reading whole."""


def dataclasses_of_the_package() -> Iterator[type]:
    for module in pkgutil.walk_packages(tsclust_model.__path__, "tsclust_model."):
        if module.name.endswith("models_from_code"):  # it runs where a model is logged
            continue
        content = vars(importlib.import_module(module.name))
        for value in content.values():
            if (
                isinstance(value, type)
                and dataclasses.is_dataclass(value)
                and value.__module__ == module.name
            ):
                yield value


def holds_more(cls: type) -> bool:
    """Whether a field is more than a number or a short text."""
    return any(
        part.strip() not in SMALL | {"None"}
        for field in dataclasses.fields(cls)
        for part in str(field.type).split("|")
    )


LARGE = sorted(
    (c for c in dataclasses_of_the_package() if holds_more(c) and not inspect.isabstract(c)),
    key=lambda cls: cls.__name__,
)


CONTENTS = [
    np.full((3, 2), SECRET),
    pd.DataFrame({"x": [SECRET] * 3}),
    pd.Series([SECRET] * 3),
    {"row": SECRET},
    [SECRET, str(SECRET)],
    (str(SECRET),),
]


@pytest.mark.parametrize(
    "cls", [c for c in LARGE if c.__name__ not in SETTINGS], ids=lambda cls: cls.__name__
)
def test_a_repr_is_one_line_without_a_row(cls: type):
    for content in CONTENTS:
        shown = object.__new__(cls)
        for field in dataclasses.fields(cls):
            object.__setattr__(shown, field.name, content)
        for text in (repr(shown), str(shown)):
            assert str(SECRET) not in text
            assert "\n" not in text
            assert text.startswith(f"{cls.__name__}(")
            assert len(text) <= 300


def test_a_training_shows_what_it_made(registered: Training):
    text = repr(registered)
    assert text.startswith("Training(generation=Generation, clustering=ClusteringResult, ")
    assert "model_name='hospital', version='1'" in text
    assert repr(registered.clustering).startswith("ClusteringResult(labels=array(1200), ")
