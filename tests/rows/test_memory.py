from __future__ import annotations

from pathlib import Path

import pytest

from tsclust_model.config import PipelineConfig
from tsclust_model.errors import ConfigurationError
from tsclust_model.rows.memory import free_bytes, needed_bytes, require_memory

MIB = 2**20
MEMINFO = "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable:    4000 kB\n"


@pytest.mark.parametrize(
    ("n_rows", "n_columns", "max_fit_rows", "measured"),
    [
        (50_000, 11, 200_000, 183),
        (100_000, 11, 20_000, 251),
        (100_000, 41, 20_000, 517),
        (100_000, 14, 20_000, 278),
        (400_000, 11, 20_000, 560),
        (200_000, 11, 200_000, 472),
        (100_000, 41, 100_000, 668),
    ],
)
def test_the_estimate_is_near_what_was_measured(n_rows, n_columns, max_fit_rows, measured):
    assert needed_bytes(n_rows, n_columns, max_fit_rows) / MIB == pytest.approx(measured, rel=0.35)
    assert needed_bytes(n_rows, n_columns, max_fit_rows) / MIB > measured


def system(root: Path, **files: str) -> Path:
    for name, content in {"proc/meminfo": MEMINFO, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 4000 * 1024),
        ({"memory.max": "3000000\n", "memory.current": "1000000\n"}, 2_000_000),
        ({"memory.max": "max\n", "memory.current": "1000000\n"}, 4000 * 1024),
        ({"memory.max": "1000\n", "memory.current": "2000\n"}, 0),
        (
            {"memory/memory.limit_in_bytes": "3000", "memory/memory.usage_in_bytes": "1000"},
            2000,
        ),
        (
            {"memory/memory.limit_in_bytes": f"{2**63}", "memory/memory.usage_in_bytes": "1"},
            4000 * 1024,
        ),
    ],
)
def test_a_container_may_have_less_than_the_machine(tmp_path: Path, files, expected: int):
    root = system(tmp_path, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    assert free_bytes(root) == expected


def test_without_linux_nothing_is_known(tmp_path: Path):
    assert free_bytes(tmp_path) is None


def test_a_table_that_fits_is_taken():
    require_memory(1000, 10, PipelineConfig(), free=needed_bytes(1000, 10, 200_000))


def test_a_table_that_is_too_large_is_refused_with_a_remedy():
    with pytest.raises(
        ConfigurationError,
        match=r"^training on 100000000 rows of 30 columns needs about 275.2 GiB of memory and "
        r"2.0 GiB are free; train on fewer rows or columns \(drop_columns\)$",
    ):
        require_memory(100_000_000, 30, PipelineConfig(), free=2 * 2**30)


def test_where_a_smaller_sample_is_enough_its_size_is_said():
    free = needed_bytes(200_000, 10, 150_000)
    with pytest.raises(ConfigurationError, match=r"; lower max_fit_rows to (\d+), or") as caught:
        require_memory(200_000, 10, PipelineConfig(), free=free)
    said = int(str(caught.value).split("max_fit_rows to ")[1].split(",")[0])
    assert said == pytest.approx(150_000, abs=2)
    require_memory(200_000, 10, PipelineConfig(max_fit_rows=said), free=free)
