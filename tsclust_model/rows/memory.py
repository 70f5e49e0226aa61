"""Whether a training fits into memory, estimated before any work is done."""

from __future__ import annotations

from pathlib import Path

from tsclust_model.config import PipelineConfig
from tsclust_model.errors import ConfigurationError

# Bytes beyond what the process holds already. Whole trainings (table, fit, report, history) of
# 50,000 to 400,000 rows of 10 and 40 columns peak at 76 to 94% of the sum.
_BASE, _PER_ROW, _PER_CELL = 150 * 2**20, 100, 95
_PER_CLUSTERED_ROW, _PER_CLUSTERED_CELL = 200, 45

_GIB = 2**30


def needed_bytes(n_rows: int, n_columns: int, max_fit_rows: int) -> int:
    """What a training on a table needs at its peak, beside the table itself.

    Parameters
    ----------
    n_rows, n_columns : int
        Shape of the table.
    max_fit_rows : int
        Most rows that HDBSCAN is fitted on.
    """
    every, clustered = _PER_ROW + n_columns * _PER_CELL, _of_clustered_row(n_columns)
    return _BASE + n_rows * every + min(n_rows, max_fit_rows) * clustered


def _of_clustered_row(n_columns: int) -> int:
    return _PER_CLUSTERED_ROW + n_columns * _PER_CLUSTERED_CELL


def free_bytes(root: Path = Path("/")) -> int | None:
    """Memory that a process can still have: the machine's, or its container's where that is less.

    None where the system does not say (no Linux).
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable"))
    return min([int(kilobytes) * 1024, *_containers(root / "sys/fs/cgroup")])


def _containers(folder: Path) -> list[int]:
    """What the limits of control groups leave, of version 2 or 1."""
    left = []
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most, now = (folder / limit).read_text().strip(), (folder / used).read_text()
        except OSError:
            continue
        if most != "max":
            left.append(max(int(most) - int(now), 0))
    return left


def require_memory(
    n_rows: int, n_columns: int, config: PipelineConfig, free: int | None = None
) -> None:
    """Refuse a table whose training would not fit into memory.

    Parameters
    ----------
    n_rows, n_columns : int
    config : PipelineConfig
    free : int, optional
        Bytes; default: what is free now.

    Raises
    ------
    ConfigurationError
    """
    free = free_bytes() if free is None else free
    needed = needed_bytes(n_rows, n_columns, config.max_fit_rows)
    if free is None or needed <= free:
        return
    clustered = min(n_rows, config.max_fit_rows)
    enough = clustered - (needed - free) // _of_clustered_row(n_columns) - 1
    remedy = "train on fewer rows or columns (drop_columns)"
    if enough >= clustered // 10:
        remedy = f"lower max_fit_rows to {enough}, or {remedy}"
    raise ConfigurationError(
        f"training on {n_rows} rows of {n_columns} columns needs about {needed / _GIB:.1f} GiB of "
        f"memory and {free / _GIB:.1f} GiB are free; {remedy}"
    )
