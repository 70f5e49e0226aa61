"""The processes of a session on ``local-cluster``."""

from __future__ import annotations

import os
import subprocess


def executors() -> list[int]:
    """Processes of this session's executors."""
    found = subprocess.run(["ps", "-ewwo", "pid,ppid,args"], capture_output=True, text=True).stdout
    lines = [line.split(None, 2) for line in found.splitlines()[1:]]
    parents = {int(pid): int(parent) for pid, parent, _ in lines}

    def is_ours(pid: int) -> bool:
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    name = "CoarseGrainedExecutorBackend"
    return [int(pid) for pid, _, args in lines if name in args and is_ours(int(pid))]
