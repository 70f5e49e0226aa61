from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.types import DataType
from mlflow.types.schema import Array

from tests.support import PROJECT
from tsclust_model.errors import MLflowIntegrationError
from tsclust_model.mlflow_integration import pyfunc
from tsclust_model.mlflow_integration.private_replies import RequestError
from tsclust_model.mlflow_integration.pyfunc import (
    SegmentForecaster,
    code_digest,
    log_generation,
    model_arguments,
    open_generation,
    seal_generation,
    source_digest,
    without_pickle_warning,
)
from tsclust_model.models.state import MANIFEST, digest
from tsclust_model.series.schema import series_rows

PREDICT = """
import json, sys, mlflow, pandas as pd
uris, paths = sys.argv[1::2], sys.argv[2::2]
models = [mlflow.pyfunc.load_model(uri) for uri in uris]
rows, series = (m.predict(pd.read_parquet(path)) for m, path in zip(models, paths))
import tsclust_model
forecasts = [cell.tolist() for cell in series["prediction"]]
answer = [rows["prediction"].tolist(), rows["cluster"].tolist(), forecasts]
print(json.dumps([tsclust_model.__file__, *answer]))
"""


@pytest.fixture
def rows(hospital: pd.DataFrame, generation) -> pd.DataFrame:
    frame = hospital[generation.schema.names].head(40)
    return frame.assign(emergency=frame["emergency"].astype(str))


@pytest.fixture(scope="module")
def logged_once() -> dict[str, str]:
    """URIs of the logged models by their serialization."""
    return {}


@pytest.fixture
def logged(store: str, generation, logged_once, request) -> str:
    if request.param not in logged_once:
        with mlflow.start_run():
            logged_once[request.param] = log_generation(generation, request.param).model_uri
    return logged_once[request.param]


# The finder of an editable install is a .pth file of site-packages.
WITHOUT_PROJECT = f"""
import sys
assert not any(name.startswith("tsclust_model") for name in sys.modules)
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
sys.path[:] = [p for p in sys.path if p not in ("", {str(PROJECT)!r})]
"""


@pytest.fixture
def run_elsewhere(python, tmp_path) -> Callable[..., str]:
    """Run code in a process of its own and another folder, without this project on its path."""

    def call(code: str, *arguments: str, **environment: str) -> str:
        done = subprocess.run(
            [python, "-c", WITHOUT_PROJECT + code, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | environment,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip().splitlines()[-1]

    return call


@pytest.mark.parametrize("logged", ["cloudpickle", "code"], indirect=True)
def test_both_kinds_load_in_a_fresh_process_without_the_package_installed(
    logged, rows, generation, ward_model, series_frame, run_elsewhere, tmp_path, request
):
    serialization = request.node.callspec.params["logged"]
    with mlflow.start_run():
        of_series = log_generation(ward_model, serialization).model_uri
    arguments = []
    for name, uri, frame in (("rows", logged, rows), ("series", of_series, series_frame)):
        frame.to_parquet(tmp_path / name)
        arguments += [uri, str(tmp_path / name)]
    forbidden = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    environment = forbidden if serialization == "code" else {}
    answer = run_elsewhere(PREDICT, *arguments, **environment)
    home, prediction, cluster, forecasts = json.loads(answer)
    expected = generation.predict(rows)
    assert home.endswith("artifacts/code/tsclust_model/__init__.py")
    assert prediction == expected["prediction"].tolist()
    assert cluster == expected["cluster"].tolist()
    assert forecasts == [cell.tolist() for cell in ward_model.predict(series_frame)["prediction"]]


@pytest.mark.parametrize("logged", ["cloudpickle"], indirect=True)
def test_the_python_model_shows_its_parts_by_name(logged, generation):
    model = mlflow.pyfunc.load_model(logged).unwrap_python_model()
    clusters = sorted(generation.target.cluster_texts)
    assert model.scaler.mean.tolist() == generation.segmentation.scaler.mean.tolist()
    assert len(model.clustering.points) == generation.info["n_rows"]
    assert set(model.fallback.labels_) <= set(clusters)
    assert sorted(model.timeseries_models) == clusters
    assert set(model.resource_models) == {"nursing_hours", "medication_cost"}
    assert set(model.global_models) == {"target", "nursing_hours", "medication_cost"}
    assert model.timeseries_models[clusters[0]].num_trees() == 100


@pytest.mark.parametrize("logged", ["cloudpickle"], indirect=True)
def test_the_signature_declares_numbers_categories_and_the_coverage(logged, generation):
    signature = mlflow.models.get_model_info(logged).signature
    kinds = {item.name: item.type.name for item in signature.inputs.inputs}
    assert kinds["ward"] == kinds["emergency"] == "string"
    assert {kinds[name] for name in generation.schema.cluster_features} == {"double"}
    assert signature.outputs.input_names() == generation.output_columns
    defaults = {parameter.name: parameter.default for parameter in signature.params.params}
    assert defaults == {"coverage": 0.9, "quantiles": []}


@pytest.mark.parametrize("logged", ["cloudpickle"], indirect=True)
def test_the_input_example_is_scorable_and_holds_a_noise_row(logged):
    info = mlflow.models.Model.load(logged)
    example = info.load_input_example(mlflow.artifacts.download_artifacts(logged))
    scored = mlflow.pyfunc.load_model(logged).predict(example)
    assert set(scored["status"]) == {"ok"}
    assert "knn" in set(scored["cluster_source"])


@pytest.mark.parametrize("logged", ["cloudpickle"], indirect=True)
def test_requirements_are_pinned_and_the_code_comes_along(logged):
    folder = Path(mlflow.artifacts.download_artifacts(logged))
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in lines)
    assert {line.split("==")[0] for line in lines} >= {"mlflow", "hdbscan", "lightgbm"}
    assert (folder / "code" / "tsclust_model" / "pyfunc.py").exists()


def test_the_pickle_holds_plain_data_only(generation):
    text = pickle.dumps(SegmentForecaster(seal_generation(generation)))
    for library in (b"sklearn", b"hdbscan", b"lightgbm", b"numpy"):
        assert library not in text[:10_000]


def test_predict_is_pure(generation, rows):
    model = SegmentForecaster(seal_generation(generation))
    model.load_context(None)
    before = rows.copy(deep=True)
    first = model.predict(None, rows)
    pd.testing.assert_frame_equal(first, model.predict(None, rows), check_exact=True)
    pd.testing.assert_frame_equal(rows, before)


@pytest.mark.parametrize("coverage", [0.0, 1.0, -1.0, 7.0, float("nan")])
def test_an_impossible_coverage_is_a_request_error(generation, rows, coverage):
    model = SegmentForecaster(seal_generation(generation))
    model.load_context(None)
    with pytest.raises(RequestError, match="coverage must be above 0 and below 1"):
        model.predict(None, rows, {"coverage": coverage})


def test_every_changed_part_is_found_before_it_is_parsed(generation):
    sealed = seal_generation(generation)
    for name in sealed:
        changed = bytearray(sealed[name])
        changed[len(changed) // 2] ^= 1
        with pytest.raises(MLflowIntegrationError, match="state"):
            open_generation(sealed | {name: bytes(changed)})
    for name in set(sealed) - {MANIFEST}:
        lacking = {key: part for key, part in sealed.items() if key != name}
        with pytest.raises(MLflowIntegrationError, match=f"part '{name}'"):
            open_generation(lacking)


def test_a_state_of_a_newer_format_names_the_version_it_needs(generation):
    sealed = seal_generation(generation)
    manifest = json.loads(sealed[MANIFEST]) | {"format": 99, "package_version": "9.0"}
    with pytest.raises(MLflowIntegrationError, match=r"format 99.*tsclust_model 9\.0"):
        open_generation(sealed | {MANIFEST: json.dumps(manifest).encode()})


def test_a_newer_build_reads_the_state_of_an_older_one(generation, rows, monkeypatch):
    sealed = seal_generation(generation)
    monkeypatch.setattr(pyfunc, "__version__", "999.0")
    monkeypatch.setattr(pyfunc, "code_digest", lambda: "another build")
    pd.testing.assert_frame_equal(
        open_generation(sealed).predict(rows), generation.predict(rows), check_exact=True
    )


def test_the_digest_of_a_build_covers_its_sub_packages_by_relative_name(tmp_path):
    (tmp_path / "rows").mkdir()
    for name in ("model.py", "rows/model.py"):
        (tmp_path / name).write_text(f"# {name}")
    digests = [source_digest(tmp_path)]
    (tmp_path / "rows/model.py").write_text("# changed")
    digests.append(source_digest(tmp_path))
    (tmp_path / "rows").rename(tmp_path / "series")
    digests.append(source_digest(tmp_path))
    assert len(set(digests)) == 3
    (tmp_path / "notes.txt").write_text("no source")
    assert source_digest(tmp_path) == digests[-1]


def test_the_digest_of_this_build_is_that_of_the_whole_package():
    assert code_digest() == source_digest(PROJECT / "tsclust_model")


TWO_VERSIONS = """
import json, sys, mlflow, pandas as pd
frame = pd.read_parquet(sys.argv[3])
first = mlflow.pyfunc.load_model(sys.argv[1])
try:
    mlflow.pyfunc.load_model(sys.argv[2])
except Exception as error:
    print(json.dumps([first.predict(frame)["prediction"].tolist(), str(error)]))
"""


@pytest.mark.parametrize("logged", ["cloudpickle"], indirect=True)
def test_a_second_build_in_one_process_refuses_instead_of_running_the_firsts_code(
    logged, rows, generation, run_elsewhere, tmp_path
):
    """mlflow issue 12395: two code_paths with one module name run the code that came first."""
    rows.to_parquet(tmp_path / "rows.parquet")
    first = Path(mlflow.artifacts.download_artifacts(logged, dst_path=str(tmp_path / "first")))
    second = tmp_path / "second"
    shutil.copytree(first, second)
    changed = second / "code" / "tsclust_model" / "rows" / "model.py"
    changed.write_text(changed.read_text() + "\n# another build\n")
    relog = (
        "import sys, cloudpickle; sys.path.insert(0, sys.argv[1] + '/code')\n"
        "from tsclust_model.mlflow_integration import pyfunc\n"
        "path = sys.argv[1] + '/python_model.pkl'\n"
        "model = cloudpickle.load(open(path, 'rb'))\n"
        "from tsclust_model.rows.model import Generation\n"
        "from tsclust_model.models.state import seal\n"
        "parts = {k: v for k, v in model.parts.items() if k != 'manifest.json'}\n"
        "model.parts = seal(parts, pyfunc.__version__, pyfunc.code_digest())\n"
        "cloudpickle.dump(model, open(path, 'wb'))\n"
        "print('relogged')\n"
    )
    assert run_elsewhere(relog, str(second)) == "relogged"
    arguments = (str(first), str(second), str(tmp_path / "rows.parquet"))
    answer = json.loads(run_elsewhere(TWO_VERSIONS, *arguments))
    assert answer[0] == generation.predict(rows)["prediction"].tolist()
    assert "load the model in a process of its own" in answer[1]


def test_two_models_of_one_build_in_one_process_behave_as_themselves(
    store, generation, hospital, rows
):
    from tests.support import HOSPITAL_CONFIG, HOSPITAL_ROLES
    from tsclust_model.rows.fit import fit_generation
    from tsclust_model.rows.table import training_data

    data = training_data(hospital.head(900), HOSPITAL_ROLES, HOSPITAL_CONFIG)
    other = fit_generation(data, HOSPITAL_CONFIG, {"roles": vars(HOSPITAL_ROLES)}).generation
    uris = []
    for item in (generation, other):
        with mlflow.start_run():
            uris.append(log_generation(item).model_uri)
    models = [mlflow.pyfunc.load_model(uri) for uri in uris]
    for model, item in zip(models, (generation, other), strict=True):
        pd.testing.assert_frame_equal(model.predict(rows), item.predict(rows), check_exact=True)
    assert digest(seal_generation(generation)) != digest(seal_generation(other))


def test_rows_of_the_answer_follow_the_index_of_the_request(generation, rows):
    shuffled = rows.sample(frac=1, random_state=0)
    answer = generation.predict(shuffled)
    assert answer.index.tolist() == shuffled.index.tolist()
    np.testing.assert_array_equal(
        answer.sort_index()["prediction"], generation.predict(rows)["prediction"]
    )


@pytest.fixture(scope="module")
def series_frame(wards) -> pd.DataFrame:
    return series_rows(wards, "ward_id", "month", "beds", ["nursing_hours"], ["temperature"])


@pytest.fixture
def ward_pyfunc(store, registered_wards):
    return mlflow.pyfunc.load_model(registered_wards.model_uri)


def test_the_signature_of_series_declares_arrays_and_the_example_fits_it(
    ward_pyfunc, registered_wards
):
    signature = ward_pyfunc.metadata.signature
    lists = Array(DataType.double)
    assert {item.name: item.type for item in signature.inputs.inputs} == {
        "series_id": DataType.string,
        "last_timestamp": DataType.datetime,
        "y": lists,
        "nursing_hours": lists,
        "temperature": lists,
    }
    outputs = {item.name: item.type for item in signature.outputs.inputs}
    assert list(outputs) == registered_wards.generation.output_columns
    assert outputs["prediction_lower"] == outputs["resource_nursing_hours"] == lists
    answer = ward_pyfunc.predict(ward_pyfunc.input_example)
    assert set(answer["status"]) == {"ok"}


def test_a_model_of_series_gives_the_same_bits_through_mlflow(
    ward_pyfunc, series_frame, ward_model
):
    found = ward_pyfunc.predict(series_frame, params={"coverage": 0.5})
    expected = ward_model.predict(series_frame, 0.5)
    for name in ("prediction", "prediction_lower", "prediction_upper", "resource_nursing_hours"):
        np.testing.assert_array_equal(np.stack(list(found[name])), np.stack(list(expected[name])))
    assert found["cluster"].tolist() == expected["cluster"].tolist()


def refused(frame: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """What mlflow refuses, and the remedy that the README tells."""
    whole = frame["y"].map(lambda y: [round(v) for v in y])
    return {
        "whole numbers": (
            frame.assign(y=whole),
            frame.assign(y=whole.map(lambda y: [*map(float, y)])),
        ),
        "tuples": (frame.assign(y=frame["y"].map(tuple)), frame),
        "a null cell": (
            frame.assign(y=pd.Series([None, *frame["y"][1:]], dtype=object)),
            frame.assign(y=pd.Series([[], *frame["y"][1:]], dtype=object)),
        ),
        "zoned times": (
            frame.assign(last_timestamp=frame["last_timestamp"].dt.tz_localize("Europe/Berlin")),
            frame,
        ),
        "whole-number ids": (frame.assign(series_id=range(len(frame))), frame),
    }


@pytest.mark.parametrize(
    "case", ["whole numbers", "tuples", "a null cell", "zoned times", "whole-number ids"]
)
def test_mlflow_refuses_what_the_readme_says_and_takes_the_remedy(ward_pyfunc, series_frame, case):
    bad, good = refused(series_frame.head(3))[case]
    with pytest.raises(MlflowException):
        ward_pyfunc.predict(bad)
    assert len(ward_pyfunc.predict(good)) == 3


def test_the_parts_of_a_model_of_series_have_names(ward_pyfunc, ward_model):
    model = ward_pyfunc.unwrap_python_model()
    assert sorted(model.timeseries_models) == sorted(c for c in ward_model.target.texts if c != -1)
    assert set(model.resource_models) == {"nursing_hours"}
    assert set(model.global_models) == {"target", "nursing_hours"}
    assert len(model.scaler.mean) == 3


def test_a_changed_part_of_a_state_of_series_is_found(ward_model):
    sealed = seal_generation(ward_model)
    for name in sealed:
        changed = bytearray(sealed[name])
        changed[len(changed) // 2] ^= 1
        with pytest.raises(MLflowIntegrationError, match="state"):
            open_generation(sealed | {name: bytes(changed)})


def test_logging_a_model_says_nothing_of_pickles(generation, tmp_path, caplog):
    parts, arguments = model_arguments(generation)
    with caplog.at_level("INFO", logger="mlflow"), without_pickle_warning():
        mlflow.pyfunc.save_model(
            tmp_path / "model", python_model=SegmentForecaster(parts), **arguments
        )
    assert "CloudPickle" not in caplog.text
    assert not logging.getLogger("mlflow.pyfunc").filters


def test_where_the_model_is_defined_its_name_for_pickles_is_imported_too():
    """Without it cloudpickle would write the class itself, which no later build reads."""
    code = "import sys, tsclust_model.mlflow_integration.pyfunc as p; "
    code += "assert sys.modules['tsclust_model.pyfunc'].SegmentForecaster is p.SegmentForecaster"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT)
