"""Where forecasts are made and moved to, on a disk and on a store without folders or renames."""

from __future__ import annotations

from collections.abc import Iterator

import fsspec
import pytest

from tsclust_model.errors import DataValidationError

pytest.importorskip("pyspark", reason="pyspark is not installed: the extra 'spark'")

from tsclust_model.spark.output import HISTORY, Output

ABOUT = {"model": "models:/m/1", "quantiles": []}


@pytest.fixture(params=["disk", "memory"])
def target(request, tmp_path) -> Iterator[str]:
    yield str(tmp_path / "scored") if request.param == "disk" else f"memory://{tmp_path}/scored"
    fsspec.filesystem("memory").store.clear()


def write(folder: str, *names: str) -> None:
    """What a job of Spark leaves."""
    for name in (*names, "_SUCCESS"):
        with fsspec.open(f"{folder}/{name}", "wb", auto_mkdir=True) as file:
            file.write(name.encode())


def files(target: str) -> set[str]:
    system, root = fsspec.core.url_to_fs(target)
    return {path.removeprefix(f"{root}/") for path in system.find(root)}


def lose(output: Output) -> None:
    with output.job() as (folder, _):
        write(folder, "month=2/c.parquet")
        raise RuntimeError("lost")


def test_jobs_are_beside_the_folder_until_all_are_whole(target):
    output = Output(target, ABOUT)
    with output.job() as (folder, kept):
        write(folder, "month=1/a.parquet", "month=__HIVE_DEFAULT_PARTITION__/b.parquet")
        kept["n"] = 1
    with pytest.raises(RuntimeError, match="lost"):
        lose(output)
    assert files(target) == set()
    again = Output(target, ABOUT)
    assert again.done() == {("1",), (None,)}
    with again.job() as (folder, kept):
        write(folder, "month=2/c.parquet", "month=2/d.parquet")
        kept["n"] = 2
    assert again.kept() == [{"n": 1}, {"n": 2}]
    again.finish({"n": 3})
    moved = {"month=1/a.parquet", "month=2/c.parquet", "month=2/d.parquet"}
    moved |= {"month=__HIVE_DEFAULT_PARTITION__/b.parquet", "_SUCCESS", "_tsclust.json", HISTORY}
    assert files(target) == moved
    assert files(f"{target}.partial") == set()


def test_a_move_that_was_killed_is_completed(target):
    output = Output(target, ABOUT)
    with output.job() as (folder, _):
        write(folder, "a.parquet")
    output.finish({"n": 1})
    more = Output(target, ABOUT)
    with more.job() as (folder, _):
        write(folder, "month=1/b.parquet", "month=1/c.parquet")
    # Of two files one was moved.
    system, root = fsspec.core.url_to_fs(target)
    system.makedirs(f"{root}/month=1", exist_ok=True)
    system.mv(f"{root}.partial/job-0/month=1/b.parquet", f"{root}/month=1/b.parquet")
    last = Output(target, ABOUT)
    assert last.done() == {(), ("1",)}
    last.finish({"n": 2})
    found = {name for name in files(target) if name.endswith(".parquet")}
    assert found == {"a.parquet", "month=1/b.parquet", "month=1/c.parquet"}
    with fsspec.open(f"{target}/{HISTORY}") as file:
        assert file.read() == b'[{"n": 1}, {"n": 2}]'


def test_what_is_not_ours_stays(target):
    write(target, "somebodys.parquet")
    with pytest.raises(DataValidationError, match="exists and is not an output of this model"):
        Output(target, ABOUT)
    write(f"{target}-2.partial", "somebodys.parquet")
    with pytest.raises(DataValidationError, match="partial exists and is not ours"):
        Output(f"{target}-2", ABOUT)
    assert files(target) == files(f"{target}-2.partial") == {"somebodys.parquet", "_SUCCESS"}


def test_what_another_version_has_begun_is_begun_again(target):
    with Output(target, ABOUT).job() as (folder, _):
        write(folder, "a.parquet")
    assert Output(target, ABOUT | {"model": "models:/m/2"}).done() == set()
