"""Runs whose process was killed: they stay RUNNING for ever unless somebody closes them.

Every run of this package is tagged with the process it belongs to. The next run that starts in the
same experiment closes those whose process is gone, with the models they were about to log. A run
of a process that may be alive is never closed: on this machine the process table says so, of
another machine nothing is known but the run's age.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import LoggedModelStatus, Run

from tsclust_model.mlflow_integration.stores import tolerated

CLOSED_TAG = "closed.reason"

_HOST, _SPACE, _PID, _START = "process.host", "process.space", "process.pid", "process.start"

_LONGEST_HOURS = 48  # no training takes as long

_ENDLESS = "batch-processing"

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def process_tags() -> dict[str, str]:
    """Tags that say whose a run is: this process, told from any other that had its number.

    ``process.host``, ``process.pid``, ``process.space`` (the boot of the machine and the
    container, whose process numbers these are) and ``process.start`` (clock ticks since the boot);
    the last two are empty on systems without ``/proc``.
    """
    pid = os.getpid()
    return {
        _HOST: socket.gethostname(),
        _SPACE: _space(),
        _PID: str(pid),
        _START: _start(pid) or "",
    }


def close_stale_runs(experiment_id: str) -> list[str]:
    """Close the runs of this package whose process is gone, and return their ids.

    Such a run becomes KILLED with a tag ``closed.reason``; models that it had not finished to log
    become FAILED. A process on another machine counts as gone 48 hours after the run began, and
    never if the run belongs to a pipeline that processes batches, which has no end.
    """
    client = mlflow.MlflowClient()
    closed = []
    # Not ours to close, or the store is away: what follows says so where it matters.
    with tolerated():
        for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
            reason = _why_stale(run)
            if reason:
                _fail_models(client, experiment_id, run.info.run_id)
                client.set_tag(run.info.run_id, CLOSED_TAG, reason)
                client.set_terminated(run.info.run_id, "KILLED")
                closed.append(str(run.info.run_id))
    return closed


def _why_stale(run: Run) -> str:
    """Why nobody works on a run any more; empty if somebody may, or it is not ours."""
    tags: Mapping[str, str] = run.data.tags
    if _PID not in tags:
        return ""
    process = f"process {tags[_PID]} on {tags[_HOST]}"
    if tags[_SPACE] and tags[_SPACE] == _space():
        return "" if _is_alive(int(tags[_PID]), tags[_START]) else f"{process} is gone"
    hours = (time.time() - run.info.start_time / 1000) / 3600
    if tags.get("phase") == _ENDLESS or hours < _LONGEST_HOURS:
        return ""
    return f"{process} cannot be seen from here, and began {hours:.0f} hours ago"


def _is_alive(pid: int, start: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, and perhaps hidden from us below
        pass
    began = _start(pid)
    return began is None or began == start


def _start(pid: int) -> str | None:
    """When a process began; empty for one that has ended already, None if that is hidden."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    return "" if state in "ZX" else rest[18]


def _space() -> str:
    try:
        return f"{_BOOT.read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _fail_models(client: Any, experiment_id: str, run_id: str) -> None:
    for model in client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
        if model.status == LoggedModelStatus.PENDING:  # the store's filter does not see it
            client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
