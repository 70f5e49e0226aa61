"""Models that earlier builds saved: each loads, answers the same to the last bit, and is kept."""

from __future__ import annotations

import hashlib
import json
import pickletools
import zlib
from pathlib import Path
from typing import Any

import cloudpickle
import lightgbm as lgb
import mlflow
import numpy as np
import pandas as pd
import pytest
from packaging.version import Version

import tsclust_model
from tests.saved_models.make_saved_models import cells, structure
from tsclust_model.errors import MLflowIntegrationError
from tsclust_model.mlflow_integration.pyfunc import (
    SegmentForecaster,
    code_digest,
    open_generation,
    read_parts,
    seal_generation,
)
from tsclust_model.mlflow_integration.registry import load_fitted, load_generation
from tsclust_model.mlflow_integration.sealed_models import open_model, seal_model
from tsclust_model.models.state import (
    MANIFEST,
    Parts,
    digest,
    pack_arrays,
    seal,
    unpack_arrays,
)

FOLDER = Path(__file__).parent
MODELS = sorted(path.parent for path in FOLDER.glob("*/*/MLmodel"))
GENERATIONS = [path for path in MODELS if path.parent.name != "baseline"]
STATES = [path for path in GENERATIONS if path.name == "code"]

pytestmark = pytest.mark.filterwarnings(
    "ignore:Trying to unpickle estimator:sklearn.exceptions.InconsistentVersionWarning"
)


def each(folders: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "folder", folders, ids=lambda path: path.relative_to(FOLDER).as_posix()
    )


def inputs(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder.parent / "inputs.parquet")


def answers(folder: Path) -> dict[str, Any]:
    """By the coverage that was asked for; the one without a name is the model's own."""
    return json.loads((folder.parent / "answers.json").read_text(encoding="utf-8"))


def params(coverage: str) -> dict[str, float] | None:
    return {"coverage": float(coverage)} if coverage else None


def is_numpy_as_of_the_answers() -> bool:
    """Whether exp and log have the bits they had there: other processors differ in the last one."""
    x = np.linspace(0.001, 1, 5001)
    found = hashlib.sha256(np.exp(-9 * x).tobytes() + np.log(x).tobytes())
    return found.hexdigest()[:16] == "9e27cf3ad537d3d1"


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Equal to the last bit; probabilities, which are exponentials, where numpy's are."""
    assert list(found) == list(expected)
    for name, column in expected.items():
        if not name.startswith("probability_") or is_numpy_as_of_the_answers():
            assert found[name] == column
            continue
        assert found[name]["dtype"] == column["dtype"]
        for one, other in zip(found[name]["cells"], column["cells"], strict=True):
            assert (one is None) == (other is None)
            if other is not None:
                np.testing.assert_array_max_ulp(float.fromhex(one), float.fromhex(other), 16)


def manifest(parts: Parts) -> dict[str, Any]:
    return json.loads(parts[MANIFEST])


def test_every_kind_and_serialization_is_here():
    assert [path.relative_to(FOLDER).as_posix() for path in MODELS] == [
        "baseline/skops",
        "classes/cloudpickle",
        "classes/code",
        "plans/cloudpickle",
        "plans/code",
        "regression/cloudpickle",
        "regression/code",
        "series/cloudpickle",
        "series/code",
    ]


# -- answers -----------------------------------------------------------------------------------


@each(MODELS)
def test_a_saved_model_answers_the_same_to_the_last_bit(folder, monkeypatch):
    if folder.name == "code":  # for servers with pickle switched off
        monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    model = mlflow.pyfunc.load_model(str(folder))
    for coverage, expected in answers(folder).items():
        assert_same(cells(model.predict(inputs(folder), params(coverage))), expected)


@each(GENERATIONS)
def test_a_row_of_its_own_answers_as_among_others(folder):
    model = mlflow.pyfunc.load_model(str(folder))
    rows, expected = inputs(folder), answers(folder)[""]
    for i in range(0, len(rows), 5):
        own = {name: {**column, "cells": [column["cells"][i]]} for name, column in expected.items()}
        assert_same(cells(model.predict(rows.iloc[[i]])), own)


@each(MODELS)
def test_the_answers_are_worth_holding(folder):
    """Segments, the fallback, their own models, resources and rows that are not scored."""
    found = answers(folder)[""]
    if folder.parent.name == "baseline":
        assert set(found["prediction"]["cells"]) == {"no", "yes"}
        return
    assert set(found["cluster_source"]["cells"]) >= {None, "hdbscan", "knn"}
    assert len(set(found["cluster"]["cells"]) - {None, -1}) >= 2
    assert {type(w) for w in found["cluster_weight"]["cells"]} == {str, type(None)}
    assert {float.fromhex(w) > 0 for w in found["cluster_weight"]["cells"] if w} == {True, False}
    assert "resource_nursing_hours" in found
    assert found["prediction"]["cells"].count(None) == sum(
        status.startswith(("missing", "infinite", "after the last year"))
        for status in found["status"]["cells"]
    )


def test_the_loop_reads_a_saved_baseline():
    folder = FOLDER / "baseline/skops"
    model = load_fitted(str(folder))
    found = cells(model.predict(inputs(folder)))
    assert found["prediction"]["cells"] == answers(folder)[""]["prediction"]["cells"]
    assert set(found["status"]["cells"]) == {"ok"}
    assert model.outcome.classes == ("no", "yes")
    assert model.roles.features == ("age", "heart_rate", "ward", "emergency")
    assert model.info["trained_on"] == {"a2cf89399c001d2f": [0, 96]}


# -- what is inside ----------------------------------------------------------------------------


def boosters(found: dict[int, Any]) -> list[Any]:
    return [b for each in found.values() for b in (each if isinstance(each, tuple) else [each])]


@each(GENERATIONS)
def test_the_python_model_shows_its_parts_by_name(folder):
    model = mlflow.pyfunc.load_model(str(folder)).unwrap_python_model()
    assert type(model) is SegmentForecaster
    n_features = len(model.scaler.mean)
    assert model.clustering.points.shape[1] == n_features
    known = {cluster for cluster in model.clustering.label.tolist() if cluster != -1}
    assert set(model.fallback.labels_.tolist()) == known
    resources = {"nursing_hours", "medication_cost"}
    resources &= {name.removeprefix("resource_") for name in answers(folder)[""]}
    assert set(model.resource_models) == resources
    assert set(model.global_models) == {"target", *resources}
    for models in (model.timeseries_models, *model.resource_models.values()):
        assert models.keys() <= known
        assert all(isinstance(b, lgb.Booster) and b.num_trees() for b in boosters(models))
    assert all(b.num_trees() for b in boosters(model.global_models))
    assert model.timeseries_models


@each(GENERATIONS)
def test_both_serializations_hold_one_state(folder):
    model = mlflow.pyfunc.load_model(str(folder))
    saved = read_parts(folder.parent / "code/artifacts/state")
    assert model.unwrap_python_model().parts == saved
    assert model.metadata.metadata["state_sha256"] == digest(saved)
    assert digest(saved) == hashlib.sha256(saved[MANIFEST]).hexdigest()


@each(STATES)
def test_a_state_has_these_parts_keys_and_arrays(folder):
    """Field names of dataclasses are among them: a field that is renamed is another format."""
    expected = json.loads((folder.parent / "structure.json").read_text(encoding="utf-8"))
    generation = load_generation(str(folder))
    generation.predict(inputs(folder))  # nothing that is kept for speed may get into the state
    assert structure(read_parts(folder / "artifacts/state")) == expected
    assert structure(seal_generation(generation)) == expected
    assert structure(seal_model(generation)) == expected


@each(STATES)
def test_a_state_that_is_read_and_written_again_is_the_same_to_the_last_bit(folder):
    saved = read_parts(folder / "artifacts/state")
    for generation in (load_generation(str(folder)), open_model(saved)):
        again = seal_generation(generation)
        assert manifest(again) == {
            "format": manifest(saved)["format"],
            "package_version": tsclust_model.__version__,
            "code_digest": code_digest(),
            "sha256": {
                name: hashlib.sha256(_repacked(name, part)).hexdigest()
                for name, part in saved.items()
                if name != MANIFEST
            },
        }


def _repacked(name: str, part: bytes) -> bytes:
    """The same content as this machine packs it (zlib, and the headers that Python gives a zip
    file, differ): the bytes themselves, as a rule."""
    if name.endswith(".npz"):
        return pack_arrays(unpack_arrays(part))
    return zlib.compress(zlib.decompress(part), 1)


@each(STATES)
def test_renumbering_to_the_same_ids_changes_no_model(folder):
    generation = load_generation(str(folder))
    ids = {cluster: cluster for cluster in generation.cluster_ids}
    again = generation.renumbered(ids, generation.info["lineage"])
    assert_same(cells(again.predict(inputs(folder))), answers(folder)[""])


# -- pickles and builds ------------------------------------------------------------------------


def named_in(pickle: bytes) -> set[str]:
    """The globals that a pickle imports."""
    found, texts = set(), []
    for code, argument, _ in pickletools.genops(pickle):
        if isinstance(argument, str):
            texts.append(argument)
        if code.name == "STACK_GLOBAL":
            found.add(".".join(texts[-2:]))
        elif code.name == "GLOBAL":
            found.add(str(argument).replace(" ", "."))
    return found


@each([path for path in GENERATIONS if path.name == "cloudpickle"])
def test_a_pickle_names_the_model_where_saved_models_look_for_it(folder):
    saved = (folder / "python_model.pkl").read_bytes()
    parts = mlflow.pyfunc.load_model(str(folder)).unwrap_python_model().parts
    expected = {"tsclust_model.pyfunc.SegmentForecaster"}
    assert named_in(saved) == named_in(cloudpickle.dumps(SegmentForecaster(parts))) == expected


@each(STATES)
def test_a_state_of_another_build_is_read_if_its_version_is_older(folder):
    saved = read_parts(folder / "artifacts/state")
    own = Version(tsclust_model.__version__)
    assert manifest(saved)["code_digest"] != code_digest()
    assert Version(manifest(saved)["package_version"]) < own
    rest = {name: part for name, part in saved.items() if name != MANIFEST}
    for version in (str(own), "999.0"):
        with pytest.raises(MLflowIntegrationError, match="load the model in a process of its own"):
            open_generation(seal(rest, version, "another build"))
        open_generation(seal(rest, version, code_digest()))


# -- the files ---------------------------------------------------------------------------------


def test_the_folder_is_small_and_names_no_machine():
    files = [path for path in FOLDER.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) < 1_500_000
    for path in files:
        content = path.read_bytes()
        if path.parent.name == "state" and path.name != MANIFEST:
            content += zlib.decompress(content)
        if path.suffix != ".py":
            assert not [word for word in (b"/tmp/", b"/work/", b"/home/") if word in content], path


def test_answers_keep_every_bit():
    floats = np.array([0.1, -0.0, np.nan, np.inf, 5e-324])
    kept = cells(pd.DataFrame({"x": floats, "n": pd.array([1, None, 3, 4, 5], "Int64")}))
    assert kept["n"] == {"dtype": "Int64", "cells": [1, None, 3, 4, 5]}
    again = np.array([float.fromhex(cell) for cell in kept["x"]["cells"]])
    assert again.tobytes() == floats.tobytes()
