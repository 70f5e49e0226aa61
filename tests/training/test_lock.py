"""One retrain of a model at a time, whichever process it is in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ON_PATH, PROJECT
from tests.training.retrains import CONFIG, again, aliases, history_files, rows, versions
from tsclust_model.errors import RetrainingError
from tsclust_model.mlflow_integration.storage import open_storage
from tsclust_model.training.lock import retrain_lock
from tsclust_model.training.watch import AdaptiveRetrainingManager

HOLD = """
import sys
from pathlib import Path
from tsclust_model.training.lock import retrain_lock
with retrain_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder() -> Iterator:
    """Hold a lock in another process: holder(path) -> the process."""
    started = []

    def hold(path: Path) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path.resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate(timeout=30)


def test_a_lock_is_held_once_and_free_afterwards(tmp_path):
    path = tmp_path / "new" / "lock"
    message = "another retrain of this model is running"
    with retrain_lock(path), pytest.raises(RetrainingError, match=message), retrain_lock(path):
        raise AssertionError("both hold it")
    with retrain_lock(path):
        pass


def test_a_lock_is_free_after_an_error(tmp_path):
    with pytest.raises(KeyError), retrain_lock(tmp_path / "lock"):
        raise KeyError
    with retrain_lock(tmp_path / "lock"):
        pass


def test_a_lock_whose_owner_was_killed_is_free(tmp_path, holder):
    path = tmp_path / "lock"
    owner = holder(path)
    with pytest.raises(RetrainingError, match="running; wait for it"), retrain_lock(path):
        raise AssertionError("both hold it")
    os.kill(owner.pid, signal.SIGKILL)
    assert owner.wait(timeout=30) == -signal.SIGKILL
    with retrain_lock(path):
        pass


def test_a_retrain_beside_another_process_is_refused_and_changes_nothing(training, holder):
    name = training.model_name
    holder(open_storage(CONFIG, name).retrain_lock)
    before = aliases(name), versions(name), history_files(name)
    manager = AdaptiveRetrainingManager(
        training.generation.reference, CONFIG, lambda reason: again(training, reason=reason)
    )
    assert manager.request_manual_retraining("a person") is False
    status = manager.get_retraining_status()
    assert status["last_refusal"] == "another retrain of this model is running; wait for it"
    assert (aliases(name), versions(name), history_files(name)) == before
    assert any("refused" in line for line in manager.get_retraining_recommendations())


RETRAIN_WHEN_TOLD = """
import json, sys
from tests.training.retrains import CONFIG
from tsclust_model.mlflow_integration.registry import load_generation
from tsclust_model.training.challenge import retrain_model
from tsclust_model.training.watch import AdaptiveRetrainingManager
name = sys.argv[1]
champion = load_generation(f"models:/{name}/1")
manager = AdaptiveRetrainingManager(
    champion.reference, CONFIG, lambda reason: retrain_model(champion, "1", name, CONFIG, reason)
)
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps([manager.request_manual_retraining("both"), manager.last_refusal]))
"""


def test_of_two_retrains_at_once_one_runs(training, stream, python):
    name = training.model_name
    open_storage(CONFIG, name).history.register(rows(stream[500:700]))
    workers = [
        subprocess.Popen(
            [python, "-c", RETRAIN_WHEN_TOLD, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": ON_PATH},
        )
        for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    found = sorted(json.loads(worker.communicate(timeout=60)[0]) for worker in workers)
    assert found == [[False, "another retrain of this model is running; wait for it"], [True, ""]]
    assert versions(name) == 2
