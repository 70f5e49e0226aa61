"""Where a model keeps its rows: found through store and tag, never by the working folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from tests.support import PROJECT
from tsclust_model.config import PipelineConfig
from tsclust_model.data.history import DataVersioner
from tsclust_model.data.roles import Roles
from tsclust_model.data.synthetic import make_hospital
from tsclust_model.errors import ConfigurationError, MLflowIntegrationError, RetrainingError
from tsclust_model.mlflow_integration.registry import STORAGE_TAG, create_model
from tsclust_model.mlflow_integration.storage import open_storage
from tsclust_model.operations.maintenance import maintain
from tsclust_model.pipeline import TimeSeriesClusteringPipeline
from tsclust_model.training.lock import retrain_lock
from tsclust_model.training.train import train_table

FEATURES = ("age", "heart_rate", "creatinine", "temperature")
ROLES = Roles("length_of_stay_days", FEATURES, (), "admission_time", "patient_id")
CONFIG = PipelineConfig(
    hdbscan_params={"min_cluster_size": 20},
    lgb_timeseries_params={"num_leaves": 7, "n_estimators": 10},
    experiment_name="storage",
    model_registry_prefix="shared-name",
)
# Nobody is promoted, so that four fifths of the window are what a challenger was fitted on.
UNMOVED = replace(CONFIG, promotion_margin=1.0)
COLUMNS = [*FEATURES, "length_of_stay_days", "admission_time", "patient_id"]


def patients(hospital: str, n: int = 300, seed: int = 1) -> pd.DataFrame:
    """Rows whose ids say which hospital they are of."""
    frame = make_hospital(n, random_state=seed)[COLUMNS]
    return frame.assign(patient_id=f"{hospital}-" + frame["patient_id"].astype(str))


@pytest.fixture
def make_store(empty_store, tmp_path, monkeypatch) -> Iterator[Callable[[str], Path]]:
    """make_store(name) -> the folder of a new embedded store."""
    monkeypatch.delenv("TSCLUST_STORAGE", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    before = mlflow.get_tracking_uri()

    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(empty_store, folder / "mlflow.db")
        return folder

    yield make
    mlflow.set_tracking_uri(before)


@contextmanager
def within(store: Path, place: Path) -> Iterator[None]:
    """A process that uses a store and was started in some folder."""
    with pytest.MonkeyPatch.context() as patch:
        place.mkdir(exist_ok=True)
        patch.chdir(place)
        mlflow.set_tracking_uri(f"sqlite:///{store}/mlflow.db")
        yield


def train(frame: pd.DataFrame, config: PipelineConfig = CONFIG):
    return train_table(frame, ROLES, config)


def ids(history: DataVersioner) -> set[str]:
    """Which hospitals' patients a folder of versions holds."""
    found = [history.load(version)[0]["patient_id"] for version in history.list_versions()]
    return {text.split("-")[0] for column in found for text in column}


# -- two of everything -------------------------------------------------------------------------


def test_two_stores_with_one_checkout_and_one_name_share_no_row(make_store, tmp_path):
    stores, checkout = [make_store("north"), make_store("south")], tmp_path / "checkout"
    places = []
    for store in stores:
        with within(store, checkout):
            train(patients(store.name, seed=len(places)))
            places.append(open_storage(CONFIG, "shared-name"))
    assert [place.folder.parent for place in places] == [s / "tsclust_storage" for s in stores]
    assert places[0].folder.name != places[1].folder.name
    with within(stores[0], checkout):
        newer = patients("north", 200, seed=7)
        done = maintain("shared-name", newer, config=UNMOVED).retraining
        assert done is not None
        own = set(open_storage(CONFIG, "shared-name").history.list_versions())
        assert set(done.generation.info["trained_on"]) <= own
        assert done.generation.info["n_rows"] == 400  # four fifths of 300 + 200
    assert [ids(place.history) for place in places] == [{"north"}, {"south"}]
    assert sorted(path.name for path in checkout.iterdir()) == ["mlruns"]
    with retrain_lock(places[0].retrain_lock), retrain_lock(places[1].retrain_lock):
        pass  # neither waits for the other


def test_two_models_of_one_store_have_folders_of_their_own(make_store, tmp_path):
    with within(make_store("store"), tmp_path / "checkout"):
        first, second = (open_storage(CONFIG, name, register=True) for name in ("a", "b"))
        first.history.register(patients("a", 20))
        assert second.history.list_versions() == []
        assert {first.folder.name[:2], second.folder.name[:2]} == {"a-", "b-"}


def test_one_loop_yaml_and_two_stores_share_no_table_and_no_monitor(make_store, tmp_path):
    """The folders that the settings name are shared; what lies in them is not."""
    places = []
    for name in ("north", "south"):
        with within(make_store(name), tmp_path / "checkout"):
            places.append(
                open_storage(
                    replace(CONFIG, history_dir=str(tmp_path / "all")),
                    "shared-name",
                    versions_dir=str(tmp_path / "all"),
                    monitoring_dir=str(tmp_path / "monitors"),
                )
            )
    first, second = places
    assert first.folder.parent == second.folder.parent == tmp_path / "all"
    assert first.data_versions == first.folder / "data"
    assert first.monitoring == tmp_path / "monitors" / first.folder.name / "monitoring"
    assert first.folder != second.folder
    assert first.monitoring != second.monitoring


# -- the name ----------------------------------------------------------------------------------


def test_the_folder_is_the_models_tag_from_wherever_it_is_opened(make_store, tmp_path):
    store = make_store("store")
    with within(store, tmp_path / "here"):
        proposed = open_storage(CONFIG, "m").folder
        registered = open_storage(CONFIG, "m", register=True).folder
        tag = MlflowClient().get_registered_model("m").tags[STORAGE_TAG]
    with within(store, tmp_path / "there"):
        again = open_storage(CONFIG, "m").folder
    assert proposed == registered == again == store / "tsclust_storage" / tag


def test_a_model_made_again_under_its_old_name_starts_anew(make_store, tmp_path):
    with within(make_store("store"), tmp_path / "here"):
        first = open_storage(CONFIG, "m", register=True).folder
        MlflowClient().delete_registered_model("m")
        assert open_storage(CONFIG, "m").folder != first
        assert open_storage(CONFIG, "m", register=True).folder != first


def test_who_registers_second_uses_the_folder_of_the_first(make_store, tmp_path):
    with within(make_store("store"), tmp_path / "here"):
        assert create_model("m", "m-1") == "m-1"
        assert create_model("m", "m-2") == "m-1"


def test_a_model_of_somebody_else_gets_one_tag_whoever_asks(make_store, tmp_path):
    with within(make_store("store"), tmp_path / "here"):
        client = MlflowClient()
        client.create_registered_model("m")
        first = open_storage(CONFIG, "m").folder
        client.delete_registered_model_tag("m", STORAGE_TAG)  # as another process had seen it
        assert open_storage(CONFIG, "m").folder == first


def test_a_tag_that_leads_out_of_the_root_is_refused(make_store, tmp_path):
    with within(make_store("store"), tmp_path / "here"):
        create_model("m", "m-1")
        MlflowClient().set_registered_model_tag("m", STORAGE_TAG, "../elsewhere")
        with pytest.raises(MLflowIntegrationError, match="of 'm' is no name of a folder"):
            open_storage(CONFIG, "m", register=True)


# -- the root ----------------------------------------------------------------------------------


def test_the_root_is_the_setting_then_the_variable_then_beside_the_store(
    make_store, tmp_path, monkeypatch
):
    store = make_store("with a space")
    with within(store, tmp_path / "here"):
        assert open_storage(CONFIG, "m").folder.parent == store / "tsclust_storage"
        monkeypatch.setenv("TSCLUST_STORAGE", str(tmp_path / "variable"))
        assert open_storage(CONFIG, "m").folder.parent == tmp_path / "variable"
        given = replace(CONFIG, history_dir=str(tmp_path / "given"))
        assert open_storage(given, "m").folder.parent == tmp_path / "given"
        relative = replace(CONFIG, history_dir="kept")
        assert open_storage(relative, "m").folder.parent == store / "kept"
        old = replace(CONFIG, history_dir="tsclust_history")  # of a model's saved configuration
        assert open_storage(old, "m").folder.parent == tmp_path / "variable"


def test_a_tracking_server_has_a_folder_of_the_users(make_store, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(tmp_path)
    make_store("none")
    found = []
    for uri in ("http://127.0.0.1:9", "http://somebody:secret@127.0.0.1:9/", "http://127.0.0.1:8"):
        mlflow.set_tracking_uri(uri)
        found.append(open_storage(CONFIG, "m").folder)
    assert found[0] == found[1]
    assert found[0].parent != found[2].parent
    assert found[0].parent.parent == tmp_path / "user" / "tsclust"
    with pytest.raises(ConfigurationError, match="history_dir is 'kept', and a tracking server"):
        open_storage(replace(CONFIG, history_dir="kept"), "m")
    assert not list(tmp_path.glob("tsclust*"))


def test_while_the_registry_is_out_the_last_known_folder_counts(make_store, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("TSCLUST_STORAGE", str(tmp_path / "root"))
    make_store("none")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    first = open_storage(CONFIG, "m").folder
    assert open_storage(CONFIG, "m").folder == first
    with pytest.raises(MLflowIntegrationError, match="the registry does not answer for 'm'"):
        open_storage(CONFIG, "m", register=True)


def test_a_root_that_cannot_be_written_is_one_line(make_store, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TSCLUST_STORAGE", str(tmp_path / "file" / "below"))
    with within(make_store("store"), tmp_path / "here"):
        with pytest.raises(
            ConfigurationError, match=r"below/\.names cannot be written \(Not a dir"
        ):
            open_storage(CONFIG, "m")
        create_model("m", "m-1")
        with pytest.raises(ConfigurationError, match=r"below/m-1 cannot be written \(Not a dir"):
            open_storage(CONFIG, "m", register=True)
        lock = open_storage(CONFIG, "m").retrain_lock
    with pytest.raises(RetrainingError, match="a retrain keeps its lock there"), retrain_lock(lock):
        pass


# -- a clone -----------------------------------------------------------------------------------


@pytest.fixture
def git_url(tmp_path, monkeypatch) -> str:
    """A URL that mlflow clones this project from, each time to another temporary folder."""
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("tsclust_model", "entrypoints"):
        shutil.copytree(PROJECT / name, source / name, ignore=ignored)
    for name in ("MLproject", "conda.yaml", "pyproject.toml", ".gitignore"):
        shutil.copy(PROJECT / name, source)
    who = ("-c", "user.name=t", "-c", "user.email=t@example.invalid")
    for words in (("init", "-q", "-b", "main"), ("add", "."), ("commit", "-q", "-m", "all")):
        subprocess.run(["git", "-C", str(source), *who, *words], check=True)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.file://{source}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://example.invalid/project.git")
    return "https://example.invalid/project.git"


def test_train_and_retrain_from_a_git_url_see_one_history(
    make_store, git_url, project, monkeypatch, capfd
):
    store = make_store("store")
    patients("a").to_csv(store / "first.csv", index=False)
    patients("b", 60, seed=5).to_csv(store / "next.csv", index=False)
    (store / "config.yaml").write_text(
        "hdbscan_params: {min_cluster_size: 20}\n"
        "lgb_timeseries_params: {num_leaves: 7, n_estimators: 10}\n"
    )
    mlflow.set_tracking_uri(f"sqlite:///{store}/mlflow.db")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    # Relative to the folder that mlflow is started in; the clone is a temporary folder.
    monkeypatch.chdir(store)
    calls = {
        "train": {
            "data": "first.csv",
            "config": "config.yaml",
            "target": "length_of_stay_days",
            "time": "admission_time",
            "id": "patient_id",
        },
        "retrain": {"data": "next.csv", "promote": "false"},
    }
    for entry, given in calls.items():
        project(entry, entry, uri=git_url, version="main", model_name="cloned", **given)
        printed = capfd.readouterr().out
        assert entry == "retrain" or "model: models:/cloned@champion, version 1" in printed
    experiment = mlflow.get_experiment_by_name("train")
    runs = MlflowClient().search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(runs) == 7  # the run of `mlflow run` and its six steps
    (folder,) = (store / "tsclust_storage").glob("cloned-*")
    assert ids(DataVersioner(folder / "history")) == {"a", "b"}
    tags = MlflowClient().get_model_version("cloned", "2").tags
    assert "on 60 rows" in tags["comparison"]


# -- rows that are gone ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained_store(empty_store, tmp_path_factory) -> Path:
    """The folder of a store with a champion of 300 rows, and 100 newer ones; copy it."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(empty_store, folder / "mlflow.db")
    before = mlflow.get_tracking_uri()
    with within(folder, folder / "checkout"):
        training = train(patients("a"))
        newer = training.generation.canonical_rows(patients("b", 100, seed=5))
        open_storage(CONFIG, "shared-name").history.register(newer)
    mlflow.set_tracking_uri(before)
    return folder


@pytest.fixture
def trained(make_store, trained_store, tmp_path) -> Iterator[DataVersioner]:
    """The history of a copy of that store, which is in use."""
    store = make_store("store")
    shutil.copytree(trained_store, store, dirs_exist_ok=True)
    with within(store, tmp_path / "here"):
        yield open_storage(CONFIG, "shared-name").history


def test_a_restart_from_another_folder_sees_the_same_history(trained, tmp_path, monkeypatch):
    before = trained.list_versions()
    pipeline = TimeSeriesClusteringPipeline.load("models:/shared-name@champion")
    batch = patients("a", 60, seed=9)
    pipeline.process_batch(batch[list(FEATURES)], batch["length_of_stay_days"])
    pipeline.close()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    nobody = replace(CONFIG, promotion_margin=1.0)  # what takes over is refitted on all rows
    again = TimeSeriesClusteringPipeline.load("models:/shared-name@champion", nobody)
    history = open_storage(CONFIG, "shared-name").history
    assert history.list_versions()[1:] == before
    assert again.retrain().generation.info["n_rows"] == 368  # four fifths of 300 + 100 + 60
    again.close()


def lose_all(history: DataVersioner) -> None:
    shutil.rmtree(history.base_dir)
    history.register(patients("b", 100, seed=5))


def lose_oldest(history: DataVersioner) -> None:
    next(history.base_dir.glob("00000001.*")).unlink()


def damage_oldest(history: DataVersioner) -> None:
    os.truncate(next(history.base_dir.glob("00000001.*")), 100)


@pytest.mark.parametrize("lose", [lose_all, lose_oldest, damage_oldest])
@pytest.mark.filterwarnings("ignore:.*set aside")
def test_a_retrain_without_the_champions_rows_stops(trained, lose):
    lose(trained)
    with pytest.raises(RetrainingError) as caught:
        maintain("shared-name")
    assert str(caught.value) == (
        "300 rows (1 of 1 batches) that the champion was trained on are not in "
        f"{trained.base_dir}; bring that folder back, or let history_dir or TSCLUST_STORAGE name "
        "where it is, or train anew (tsclust train)"
    )
    assert len(MlflowClient().search_model_versions("name = 'shared-name'")) == 1


def test_a_retrain_goes_on_without_rows_that_the_window_does_not_reach(trained):
    lose_oldest(trained)
    done = maintain("shared-name", config=replace(CONFIG, expanding_window_size=100), promote=False)
    assert done.retraining.generation.info["n_rows"] == 80


def test_a_batch_lost_amid_the_window_stops_it_though_older_rows_fill_it(trained):
    second = maintain("shared-name", promote=False).retraining
    assert second.generation.info["trained_order"] == list(reversed(trained.list_versions()))
    MlflowClient().set_registered_model_alias("shared-name", "champion", second.version)
    trained.register(patients("a", 50, seed=9))
    next(trained.base_dir.glob("00000002.*")).unlink()
    with pytest.raises(RetrainingError, match=r"20 rows \(1 of 2 batches\)"):
        maintain("shared-name", config=replace(CONFIG, expanding_window_size=100))


@pytest.mark.parametrize("everyone", [True, False])
def test_a_purge_is_no_loss(trained, everyone):
    frame, _ = trained.load(trained.list_versions()[-1])
    gone = frame["patient_id"] if everyone else frame["patient_id"].head(30)
    trained.purge(ids=list(gone), id_column="patient_id")
    left = 100 + int((~frame["patient_id"].isin(gone)).sum())
    done = maintain("shared-name", promote=False).retraining
    assert done.generation.info["n_rows"] == left - left // 5


def test_labels_that_are_gone_are_rows_that_are_gone(trained):
    batch = patients("c", 100, seed=11)
    later = trained.register(batch.drop(columns="length_of_stay_days"))
    days = batch["length_of_stay_days"].to_numpy()
    trained.record_outcomes(later, {"length_of_stay_days": days})
    trained.register(patients("d", 100, seed=12))
    second = maintain("shared-name", config=UNMOVED).retraining
    assert second.generation.info["trained_on"][later] == [0, 80]
    MlflowClient().set_registered_model_alias("shared-name", "champion", second.version)
    next(trained.base_dir.glob(f"*{later}.outcomes.parquet")).unlink()
    with pytest.raises(RetrainingError, match=r"^80 rows \(1 of 3 batches\)"):
        maintain("shared-name")


# -- models of before --------------------------------------------------------------------------


def test_a_model_of_before_takes_its_own_batches_over(trained, tmp_path):
    """As it was: no tag, and a folder that two stores have shared."""
    client, older = MlflowClient(), tmp_path / "here" / "tsclust_history" / "shared-name"
    shutil.copytree(trained.base_dir, older)
    DataVersioner(older).register(patients("south", 40, seed=8))
    shutil.rmtree(trained.base_dir.parent)
    client.delete_registered_model_tag("shared-name", STORAGE_TAG)
    with pytest.warns(UserWarning, match=r"taken over .* 1 batches .* 2 other\(s\) were left"):
        storage = open_storage(CONFIG, "shared-name")
    (batch,) = storage.history.list_versions()
    assert storage.history.sequence(batch) == 1
    assert ids(storage.history) == {"a"}
    assert len(DataVersioner(older).list_versions()) == 3
    assert maintain("shared-name", promote=False).retraining.generation.info["n_rows"] == 240


def test_a_model_of_before_whose_rows_are_nowhere_stops(trained):
    shutil.rmtree(trained.base_dir.parent)
    MlflowClient().delete_registered_model_tag("shared-name", STORAGE_TAG)
    with pytest.raises(RetrainingError, match=r"300 rows .* are not in"):
        maintain("shared-name")
