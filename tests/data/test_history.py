from __future__ import annotations

import multiprocessing
import random
import re
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.data.batches import batch
from tsclust_model.data.digest import content_digest
from tsclust_model.data.history import DataVersioner
from tsclust_model.data.tables import read_table
from tsclust_model.data.window import Window
from tsclust_model.errors import ConfigurationError, DataValidationError

SECRET = "P-SECRET-0815"
SPAWN = multiprocessing.get_context("spawn")


def batch_file(history: DataVersioner, version_id: str) -> Path:
    (found,) = history.base_dir.glob(f"*.{version_id}.parquet")
    return found


def files_with(folder: Path, text: str) -> list[str]:
    """Every file below the folder, hidden ones too, whose bytes hold the text."""
    return [
        path.name
        for path in sorted(folder.rglob("*"))
        if path.is_file() and text.encode() in path.read_bytes()
    ]


def contents(folder: Path) -> dict[str, int]:
    """Names of a folder's files, and their bytes."""
    return {path.name: path.stat().st_size for path in folder.iterdir()}


@pytest.fixture
def history(tmp_path: Path) -> DataVersioner:
    return DataVersioner(tmp_path / "history")


# One batch, one version


def test_nothing_is_written_before_the_first_batch(history: DataVersioner):
    assert history.list_versions() == []
    assert history.get_latest_version() is None
    assert history.window(10, "y").frame.empty
    assert not history.base_dir.exists()


def test_the_same_batch_twice_counts_once(history: DataVersioner):
    first = history.register(batch(1))
    assert history.register(batch(1), version_id="again") == first
    assert history.list_versions() == [first]


def test_the_default_id_is_the_start_of_the_content_hash(history: DataVersioner):
    assert history.register(batch(1)) == content_digest(batch(1))[:16]


def test_index_and_column_order_are_no_content(history: DataVersioner):
    first = history.register(batch(1))
    other = batch(1)[["y", "age", "visits", "patient_id"]].set_axis([7, 8, 9])
    assert history.register(other) == first


@pytest.mark.parametrize("change", ["value", "row order", "name", "fewer rows"])
def test_other_content_is_another_version(history: DataVersioner, change: str):
    first = history.register(batch(1))
    other = {
        "value": batch(1).assign(visits=[0, 1, 3]),
        "row order": batch(1)[::-1],
        "name": batch(1).rename(columns={"age": "years"}),
        "fewer rows": batch(1)[:2],
    }[change]
    assert history.list_versions() == [first]
    second = history.register(other)
    assert history.list_versions() == [second, first]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_batch_read_from_a_file_is_the_batch_it_was(
    history: DataVersioner, tmp_path: Path, suffix: str
):
    first = history.register(batch(1))
    path = tmp_path / f"batch.{suffix}"
    getattr(batch(1), f"to_{suffix}")(path, index=False)
    assert history.register(read_table(str(path))) == first
    assert history.list_versions() == [first]


def test_registering_changes_nothing_in_the_callers_table(history: DataVersioner):
    given = batch(1).set_axis([5, 6, 7])
    history.register(given)
    pd.testing.assert_frame_equal(given, batch(1).set_axis([5, 6, 7]))


def test_versions_are_listed_newest_first_also_by_another_process(history: DataVersioner):
    ids = [history.register(batch(number)) for number in range(12)]
    assert history.list_versions() == ids[::-1]
    assert DataVersioner(history.base_dir).get_latest_version() == ids[-1]


def test_a_loaded_version_is_the_batch_and_what_is_known_of_it(history: DataVersioner):
    before = datetime.now(UTC)
    version_id = history.register(batch(1), version_id="monday")
    frame, metadata = history.load("monday")
    pd.testing.assert_frame_equal(frame, batch(1))
    assert version_id == "monday"
    registered_at = metadata.pop("registered_at")
    assert before <= datetime.fromisoformat(registered_at) <= datetime.now(UTC)
    assert metadata == {
        "version_id": "monday",
        "hash": content_digest(batch(1)),
        "n_rows": 3,
    }


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["a", None], dtype="str"),
        pd.Series(["a", "b"], dtype="category"),
        pd.Series([1, None], dtype="Int64"),
        pd.Series([0.1, np.nan], dtype="float32"),
        pd.Series([True, False]),
        pd.Series([2**64 - 1, 1], dtype="uint64"),
        pd.Series([np.inf, -0.0]),
        pd.Series([None, None], dtype=object),
        pd.to_datetime(pd.Series(["1600-01-01", "2024-02-29"])),
        pd.to_datetime(pd.Series(["2024-01-01", "2024-02-29"])).dt.tz_localize("Europe/Berlin"),
    ],
    ids=lambda column: str(column.dtype),
)
def test_a_column_of_any_type_comes_back_as_it_was(history: DataVersioner, column: pd.Series):
    given = pd.DataFrame({"x": column})
    frame, _ = history.load(history.register(given))
    pd.testing.assert_frame_equal(frame, given)


def test_a_column_of_mixed_types_is_refused_without_quoting_a_value(history: DataVersioner):
    mixed = pd.DataFrame({"ward": pd.Series([1, SECRET], dtype=object)})
    with pytest.raises(DataValidationError, match="ward") as caught:
        history.register(mixed)
    assert SECRET not in str(caught.value)
    assert history.list_versions() == []


def test_an_empty_batch_is_refused(history: DataVersioner):
    with pytest.raises(DataValidationError, match="an empty batch cannot be registered"):
        history.register(batch(1)[:0])


@pytest.mark.parametrize(
    "version_id",
    [
        *["", ".", "..", ".hidden", "../up", "a/b", "/tmp/x", "a\\b", "a b", "a\n", "a\0", "é"],
        *["a" * 65, "monday.outcomes", "a..b", "a.."],
    ],
)
def test_an_id_that_could_leave_the_folder_or_mean_labels_is_refused(
    history: DataVersioner, version_id: str
):
    with pytest.raises(DataValidationError, match="cannot be used; give 1 to 64 characters"):
        history.register(batch(1), version_id=version_id)
    assert list(history.base_dir.parent.rglob("*")) == []


@pytest.mark.parametrize("version_id", ["a", "A-1_b.c", "x.parquet", "a" * 64, "1"])
def test_any_other_id_is_kept(history: DataVersioner, version_id: str):
    assert history.register(batch(1), version_id=version_id) == version_id
    assert history.list_versions() == [version_id]
    pd.testing.assert_frame_equal(history.load(version_id)[0], batch(1))


def test_an_id_that_other_content_has_is_refused(history: DataVersioner):
    history.register(batch(1), version_id="monday")
    with pytest.raises(DataValidationError, match="version 'monday' holds other content"):
        history.register(batch(2), version_id="monday")
    pd.testing.assert_frame_equal(history.load("monday")[0], batch(1))


def test_known_content_can_be_loaded_under_a_further_name(history: DataVersioner):
    first = history.register(batch(1).drop(columns="y"))
    other = history.register(batch(2), version_id="tuesday")
    assert history.register(batch(1).drop(columns="y"), version_id="monday") == first
    assert history.register(batch(1).drop(columns="y"), version_id="monday") == first
    assert history.register(batch(2), version_id="tuesday") == other
    assert history.list_versions() == ["tuesday", first]  # content counts once
    history.record_outcomes("monday", {"y": np.ones(3)})
    frame, metadata = DataVersioner(history.base_dir).load("monday")
    assert frame["y"].tolist() == [1.0] * 3
    pd.testing.assert_frame_equal(frame, history.load(first)[0])
    assert metadata["version_id"] == first
    assert history.sequence("monday") == history.sequence(first) == 1
    with pytest.raises(DataValidationError, match="version 'monday' holds other content"):
        history.register(batch(3), version_id="monday")
    with pytest.raises(DataValidationError, match="version 'monday' holds other content"):
        history.register(batch(2), version_id="monday")


def test_a_further_name_follows_a_purge_and_goes_with_its_version(history: DataVersioner):
    rows = patients("A", SECRET)
    first = history.register(rows)
    history.register(rows, version_id="monday")
    history.purge(ids=[SECRET], id_column="patient_id")
    assert history.load("monday")[0]["patient_id"].tolist() == ["A"]
    history.purge(ids=["A"], id_column="patient_id")
    assert contents(history.base_dir) == {f"{first}.purged": 0}
    assert history.register(batch(2), version_id="monday") == "monday" != first


@pytest.mark.parametrize("version_id", ["nobody", "../history", ""])
def test_a_version_that_is_not_there_is_said_so(history: DataVersioner, version_id: str):
    history.register(batch(1))
    with pytest.raises(DataValidationError, match=f"there is no version '{version_id}'"):
        history.load(version_id)


# Hash algorithms


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512", "blake2b"])
def test_the_hash_is_of_the_algorithm_asked_for(tmp_path: Path, algorithm: str):
    history = DataVersioner(tmp_path, hash_algorithm=algorithm)
    version_id = history.register(batch(1))
    frame, metadata = history.load(version_id)
    pd.testing.assert_frame_equal(frame, batch(1))
    assert metadata["hash"] == content_digest(batch(1), algorithm)


@pytest.mark.parametrize("algorithm", ["sha512", "sha3_256"])
def test_a_folder_has_one_hash_algorithm(history: DataVersioner, algorithm: str):
    version_id = history.register(batch(1))
    history.register(batch(2))
    batch_file(history, version_id).write_bytes(b"")  # says nothing
    with pytest.raises(
        ConfigurationError,
        match=f"the versions of .*history have hash_algorithm 'sha256', not '{algorithm}'; open",
    ):
        DataVersioner(history.base_dir, hash_algorithm=algorithm)
    assert len(history.list_versions()) == 2


@pytest.mark.parametrize("algorithm", ["sha265", "shake_128", ""])
def test_a_hash_algorithm_that_is_none_is_refused(tmp_path: Path, algorithm: str):
    with pytest.raises(ConfigurationError, match=f"there is no hash_algorithm '{algorithm}'"):
        DataVersioner(tmp_path, hash_algorithm=algorithm)


# Several writers, and writers that die


def _register_many(folder: str, worker: int, order: list[int]) -> list[str]:
    history = DataVersioner(folder)
    own = [history.register(batch(100 * (worker + 1) + i)) for i in range(3)]
    return own + [history.register(batch(i)) for i in order]


@pytest.mark.integration
def test_four_processes_at_once_lose_no_batch_and_count_the_same_one_once(tmp_path: Path):
    orders = [random.Random(worker).sample(range(6), 6) for worker in range(4)]
    with SPAWN.Pool(4) as pool:
        tasks = [(str(tmp_path), worker, order) for worker, order in enumerate(orders)]
        returned = pool.starmap(_register_many, tasks, chunksize=1)
    shared = {content_digest(batch(i))[:16] for i in range(6)}
    assert all(set(ids[3:]) == shared for ids in returned)
    expected = shared | {version_id for ids in returned for version_id in ids[:3]}
    history = DataVersioner(tmp_path)
    listed = history.list_versions()
    assert len(listed) == 6 + 4 * 3
    assert set(listed) == expected
    assert sum(len(history.load(version_id)[0]) for version_id in listed) == 18 * 3
    assert len(history.window(1000, "y").frame) == 18 * 3


def test_threads_that_register_the_same_batch_at_once_count_it_once(history: DataVersioner):
    barrier = threading.Barrier(8)

    def register(number: int) -> str:
        barrier.wait()
        return history.register(batch(number, 2000))

    with ThreadPoolExecutor(8) as threads:
        for number in range(5):
            ids = list(threads.map(register, [number] * 8))
            assert ids == [content_digest(batch(number, 2000))[:16]] * 8
    assert len(history.list_versions()) == 5


def _record_many(folder: str, version_id: str) -> None:
    history = DataVersioner(folder)
    for i in range(150):
        history.record_outcomes(version_id, {"stay": np.full(3, float(i))})


@pytest.mark.integration
def test_a_reader_meets_whole_labels_while_another_process_replaces_them(history: DataVersioner):
    version_id = history.register(batch(1))
    history.record_outcomes(version_id, {"stay": np.full(3, -1.0)})
    for i in range(1000):  # a long history, in which looking takes its time
        (history.base_dir / f"note-{i}").touch()
    writer = SPAWN.Process(target=_record_many, args=(str(history.base_dir), version_id))
    writer.start()
    seen = []
    try:
        while writer.is_alive():
            stay = history.load(version_id)[0]["stay"]
            assert stay.nunique() == 1
            seen.append(stay[0])
    finally:
        writer.join()
    assert writer.exitcode == 0
    assert seen == sorted(seen)
    assert history.load(version_id)[0]["stay"].tolist() == [149.0] * 3


_WRITERS = """
import os, random, signal, sys, multiprocessing, numpy as np
sys.path.insert(0, sys.argv[2])
from tests.data.batches import batch
from tsclust_model.data.history import DataVersioner

def write(start, told):
    history = DataVersioner(sys.argv[1])
    log = os.open(sys.argv[1] + ".log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number in range(start, start + 100_000):
        version_id = history.register(batch(number, 40), f"v{number}")
        os.write(log, (version_id + "\\n").encode())
        if number == start:
            os.write(told, b".")

context, rng = multiprocessing.get_context("fork"), random.Random(5)
for turn in range(30):
    first, told = os.pipe()
    writer = context.Process(target=write, args=(100_000 * turn, told))
    writer.start()
    os.close(told)
    if turn < 20:  # on a machine of any speed these confirm a batch before they are killed
        assert os.read(first, 1) == b"."
        writer.join(timeout=rng.uniform(0, 0.05))
    else:
        writer.join(timeout=rng.uniform(0.005, 0.12))
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    os.close(first)
"""


@pytest.mark.integration
def test_a_writer_killed_at_any_moment_leaves_whole_files_and_every_batch_it_confirmed(
    tmp_path: Path,
):
    folder = tmp_path / "history"
    code = [sys.executable, "-c", _WRITERS, str(folder), str(Path(__file__).parents[2])]
    subprocess.run(code, check=True, timeout=60)
    confirmed = Path(f"{folder}.log").read_text().split()
    history = DataVersioner(folder)
    listed = history.list_versions()
    assert len(confirmed) >= 20
    assert set(confirmed) <= set(listed)
    assert len(listed) <= len(confirmed) + 30
    for version_id in listed:
        expected = batch(int(version_id[1:]), 40)
        pd.testing.assert_frame_equal(history.load(version_id)[0], expected)


# Files that were changed on disk

RAW = Callable[[bytes], bytes]
CORRUPTIONS: dict[str, RAW] = {
    "flipped byte": lambda raw: raw[:40] + bytes([raw[40] ^ 1]) + raw[41:],
    "flipped byte in the footer": lambda raw: raw[:-6] + bytes([raw[-6] ^ 255]) + raw[-5:],
    "another type in its metadata": lambda raw: raw.replace(b'"float64"', b'"gloat64"'),
    "truncated": lambda raw: raw[: len(raw) // 2],
    "last byte gone": lambda raw: raw[:-1],
    "empty": lambda raw: b"",
    "zeros": lambda raw: bytes(len(raw)),
    "text": lambda raw: b"hello",
}


def test_the_corruptions_of_these_tests_change_the_file(history: DataVersioner):
    raw = batch_file(history, history.register(batch(1))).read_bytes()
    assert all(corrupt(raw) != raw for corrupt in CORRUPTIONS.values())


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corrupt_file_is_set_aside_with_a_warning_that_counts_its_rows(
    history: DataVersioner, kind: str
):
    good, bad = history.register(batch(1)), history.register(batch(2, 5))
    path = batch_file(history, bad)
    path.write_bytes(CORRUPTIONS[kind](path.read_bytes()))
    with (
        pytest.warns(UserWarning, match="its 5 rows are set aside"),
        pytest.raises(DataValidationError, match=f"version '{bad}' was changed on disk"),
    ):
        history.load(bad)
    assert history.list_versions() == [good]
    assert [item.name for item in (history.base_dir / "corrupt").iterdir()] == [path.name]
    pd.testing.assert_frame_equal(history.window(10, "y").frame, batch(1))
    # It can be registered again.
    assert history.register(batch(2, 5)) == bad
    pd.testing.assert_frame_equal(history.load(bad)[0], batch(2, 5))


def test_two_files_whose_contents_were_swapped_are_both_set_aside(history: DataVersioner):
    paths = [batch_file(history, history.register(batch(i, 3 + i))) for i in (1, 2)]
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents[::-1], strict=True):
        path.write_bytes(content)
    with pytest.warns(UserWarning, match="rows are set aside") as caught:
        assert history.window(10, "y").frame.empty
    texts = " ".join(str(item.message) for item in caught)
    assert re.findall(r"its (\d+) rows", texts) == ["5", "4"]
    assert history.list_versions() == []


def test_no_flipped_bit_changes_what_is_read(history: DataVersioner):
    version_id = history.register(batch(1))
    path = batch_file(history, version_id)
    raw = path.read_bytes()
    silent = []
    for position in range(0, len(raw), 5):
        path.write_bytes(
            raw[:position] + bytes([raw[position] ^ 1 << position % 8]) + raw[position + 1 :]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                frame, _ = history.load(version_id)
            except DataValidationError:
                continue
        if not frame.equals(batch(1)):
            silent.append(position)
    assert silent == []


def test_a_changed_time_of_registration_is_not_read_silently(history: DataVersioner):
    version_id = history.register(batch(1))
    path = batch_file(history, version_id)
    raw = path.read_bytes()
    year = raw.index(b"20", raw.index(b"registered_at"))
    path.write_bytes(raw[:year] + b"19" + raw[year + 2 :])
    with (
        pytest.warns(UserWarning, match="its 3 rows are set aside"),
        pytest.raises(DataValidationError, match="was changed on disk"),
    ):
        history.load(version_id)


def test_a_window_leaves_a_corrupt_batch_out_and_reaches_further_back(history: DataVersioner):
    ids = [history.register(batch(i)) for i in range(3)]
    batch_file(history, ids[1]).write_bytes(b"")
    with pytest.warns(UserWarning, match="its 3 rows are set aside"):
        window = history.window(5, "y")
    assert window.frame["y"].tolist() == [1.0, 2.0, 200.0, 201.0, 202.0]


def test_corrupt_labels_are_set_aside_and_the_batch_is_read_without_them(history: DataVersioner):
    version_id = history.register(batch(1).drop(columns="y"))
    history.record_outcomes(version_id, {"y": np.ones(3)})
    batch_file(history, version_id + ".outcomes").write_bytes(b"")
    with pytest.warns(UserWarning, match="its 3 rows are set aside"):
        frame, _ = history.load(version_id)
    assert list(frame) == ["patient_id", "age", "visits"]
    assert history.window(10, "y").frame.empty


def test_what_is_no_batch_in_the_folder_is_left_alone(history: DataVersioner):
    version_id = history.register(batch(1))
    names = ["README", "batch.parquet", "00000002.3.xyz.a.parquet", ".hidden.parquet"]
    for name in names:
        (history.base_dir / name).write_text("mine")
    assert history.list_versions() == [version_id]
    assert len(history.window(10, "y").frame) == 3
    assert [(history.base_dir / name).read_text() for name in names] == ["mine"] * 4


# Labels that come later


@pytest.fixture
def unlabelled(history: DataVersioner) -> str:
    return history.register(batch(1).drop(columns="y"))


def test_labels_that_come_later_join_their_batch(history: DataVersioner, unlabelled: str):
    assert history.window(10, "y").frame.empty
    history.record_outcomes(unlabelled, {"y": [4.0, 5.0, 6.0], "cost": np.array([7, 8, 9])})
    expected = batch(1).assign(y=[4.0, 5.0, 6.0], cost=[7, 8, 9])
    frame, metadata = history.load(unlabelled)
    pd.testing.assert_frame_equal(frame, expected)
    assert metadata["hash"] == content_digest(batch(1).drop(columns="y"))
    pd.testing.assert_frame_equal(history.window(10, "y").frame, expected)
    assert history.list_versions() == [unlabelled]


def test_labels_recorded_twice_are_those_of_the_second_call(
    history: DataVersioner, unlabelled: str
):
    for i in range(12):
        history.record_outcomes(unlabelled, {"y": np.full(3, float(i))})
    assert history.load(unlabelled)[0]["y"].tolist() == [11.0] * 3
    assert len(list(history.base_dir.iterdir())) == 2


def test_labels_replace_those_that_the_batch_came_with(history: DataVersioner):
    version_id = history.register(batch(1).assign(y=np.nan))
    history.record_outcomes(version_id, {"y": [1.0, np.nan, 3.0]})
    window = history.window(10, "y")
    assert window.frame["y"].tolist() == [1.0, 3.0]
    assert window.rows.tolist() == [0, 2]


def test_the_same_labels_for_two_batches_stay_with_each(history: DataVersioner):
    ids = [history.register(batch(i).drop(columns="y"), name) for i, name in ((1, "a"), (2, "a.b"))]
    for version_id in ids:
        history.record_outcomes(version_id, {"y": np.ones(3)})
    assert history.list_versions() == ["a.b", "a"]
    assert history.window(10, "y").frame["y"].tolist() == [1.0] * 6


@pytest.mark.parametrize("n_labels", [0, 2, 4])
def test_labels_of_the_wrong_length_are_refused(
    history: DataVersioner, unlabelled: str, n_labels: int
):
    with pytest.raises(DataValidationError, match=f"{n_labels} outcomes for the 3 rows of version"):
        history.record_outcomes(unlabelled, {"y": np.zeros(n_labels)})
    assert "y" not in history.load(unlabelled)[0]


def test_labels_for_a_version_that_is_not_there_are_refused(history: DataVersioner):
    with pytest.raises(DataValidationError, match="there is no version 'nobody'"):
        history.record_outcomes("nobody", {"y": np.zeros(3)})


# The window


@pytest.mark.parametrize("n_rows", [0, 1, 7, 8, 25, 10_000])
def test_the_window_is_the_end_of_all_labelled_rows_in_order(history: DataVersioner, n_rows: int):
    rng = np.random.default_rng(4)
    frames = {}
    for i in range(8):
        frame = batch(i, int(rng.integers(3, 12)))
        frame.loc[rng.random(len(frame)) < 0.3, "y"] = np.nan
        if i == 3:
            frame["y"] = np.nan
        if i == 5:
            frame = frame.drop(columns="y")
        frames[history.register(frame)] = frame
    every = pd.concat(frames.values(), keys=frames, names=["version", "row"])
    labelled = every.dropna(subset="y").reset_index()
    expected = labelled.iloc[max(len(labelled) - n_rows, 0) :].reset_index(drop=True)
    window = history.window(n_rows, "y")
    assert window.versions.tolist() == expected["version"].tolist()
    assert window.rows.tolist() == expected["row"].tolist()
    if n_rows:
        pd.testing.assert_frame_equal(window.frame, expected.drop(columns=["version", "row"]))


def test_a_window_that_cuts_a_batch_keeps_its_newest_rows(history: DataVersioner):
    ids = [history.register(batch(i, 5)) for i in range(2)]
    window = history.window(7, "y")
    assert window.frame["y"].tolist() == [3.0, 4.0, 100.0, 101.0, 102.0, 103.0, 104.0]
    assert window.versions.tolist() == [ids[0]] * 2 + [ids[1]] * 5
    assert window.rows.tolist() == [3, 4, 0, 1, 2, 3, 4]


def test_a_window_does_not_reach_back_before_the_sequence_it_is_given(history: DataVersioner):
    ids = [history.register(batch(i)) for i in range(3)]
    assert [history.sequence(version_id) for version_id in ids] == [1, 2, 3]
    assert history.window(100, "y", since=2).versions.tolist() == [ids[1]] * 3 + [ids[2]] * 3
    assert history.window(100, "y", since=4).frame.empty


WINDOW = Window(
    pd.DataFrame({"y": range(6)}),
    np.array(["a", "a", "b", "b", "b", "c"], dtype=object),
    np.array([7, 9, 0, 1, 4, 2]),
)


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (0, {}),
        (1, {"a": [7, 8]}),
        (2, {"a": [7, 10]}),
        (4, {"a": [7, 10], "b": [0, 2]}),
        (6, {"a": [7, 10], "b": [0, 5], "c": [2, 3]}),
    ],
)
def test_ranges_span_the_oldest_rows_of_each_version(n: int, expected: dict[str, list[int]]):
    assert WINDOW.ranges(n) == expected


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ({}, [True] * 6),
        ({"a": [7, 9]}, [False, True, True, True, True, True]),
        ({"b": [1, 5], "c": [0, 2]}, [True, True, True, False, False, True]),
        ({"a": [0, 99], "b": [0, 99], "c": [2, 3], "z": [0, 9]}, [False] * 6),
    ],
)
def test_outside_are_the_rows_in_none_of_the_ranges(
    ranges: dict[str, list[int]], expected: list[bool]
):
    assert WINDOW.outside(ranges).tolist() == expected


@pytest.mark.parametrize("n", range(7))
def test_the_rows_of_the_ranges_are_never_outside_them(n: int):
    assert not WINDOW.outside(WINDOW.ranges(n))[:n].any()


def test_rows_a_model_was_trained_on_stay_inside_its_ranges_after_a_purge(history: DataVersioner):
    history.register(batch(1, 10))
    trained = history.window(5, "y").ranges(5)
    history.purge(ids=["P001-0", "P001-1"], id_column="patient_id")
    window = history.window(10, "y")
    outside = window.frame["y"][window.outside(trained)].tolist()
    assert outside == [102.0, 103.0, 104.0]


# Purging


def patients(*names: str, number: int = 1) -> pd.DataFrame:
    return batch(number, len(names)).assign(patient_id=names)


def test_a_purged_patient_is_in_no_file_and_the_labels_stay_with_their_rows(
    history: DataVersioner,
):
    history.register(patients("A", SECRET, "B", SECRET), "both")
    history.register(patients(SECRET, number=2), "only")
    history.register(patients("A", number=3), "other")
    for version_id, n_rows in (("both", 4), ("only", 1)):
        history.record_outcomes(version_id, {"stay": np.arange(n_rows) + 10.0})
        history.record_outcomes(version_id, {"stay": np.arange(n_rows) + 0.5})
    at = history.load("both")[1]["registered_at"]
    assert len(files_with(history.base_dir, SECRET)) == 2
    removed = history.purge(ids=[SECRET], id_column="patient_id")
    assert removed == {"both": 2, "only": 1}
    assert files_with(history.base_dir, SECRET) == []
    assert history.list_versions() == ["other", "both"]
    frame, metadata = history.load("both")
    assert frame["patient_id"].tolist() == ["A", "B"]
    assert frame["y"].tolist() == [100.0, 102.0]
    assert frame["stay"].tolist() == [0.5, 2.5]
    assert (metadata["n_rows"], metadata["registered_at"]) == (2, at)
    assert history.window(10, "y").frame["y"].tolist() == [100.0, 102.0, 300.0]
    assert history.purge(ids=[SECRET], id_column="patient_id") == {}
    # Nothing but its name is left of the version that went whole, and its labels neither.
    assert contents(history.base_dir)["only.purged"] == 0
    assert sorted(path.name.split(".")[3] for path in history.base_dir.glob("*.parquet")) == [
        "both",
        "both",
        "other",
    ]
    assert len(contents(history.base_dir)) == 4


def test_numbers_as_ids_and_versions_without_the_column(history: DataVersioner):
    history.register(batch(1, 5), "with")
    history.register(batch(2, 5).drop(columns="visits"), "without")
    with pytest.warns(UserWarning, match="version 'without' has no column 'visits': its 5 rows"):
        assert history.purge(ids={3, 4, 77}, id_column="visits") == {"with": 2}
    assert history.load("with")[0]["visits"].tolist() == [0, 1, 2]
    assert len(history.load("without")[0]) == 5


def test_one_text_as_ids_is_refused(history: DataVersioner):
    history.register(batch(1))
    with pytest.raises(DataValidationError, match="ids is one text"):
        history.purge(ids="P000001", id_column="patient_id")


def test_purging_no_ids_removes_nothing(history: DataVersioner):
    history.register(batch(1))
    assert history.purge(ids=[], id_column="patient_id") == {}
    assert len(history.window(10, "y").frame) == 3


def test_two_versions_that_become_the_same_by_a_purge_lose_a_later_patient_both(
    history: DataVersioner,
):
    history.register(patients("A", SECRET), "first")
    history.register(patients("A", SECRET, "B"), "second")
    history.purge(ids=["B"], id_column="patient_id")
    history.purge(ids=[SECRET], id_column="patient_id")
    assert files_with(history.base_dir, SECRET) == []


def test_a_purge_reaches_the_copy_that_a_second_writer_made_at_the_same_time(
    history: DataVersioner,
):
    version_id = history.register(patients("A", SECRET))
    path = batch_file(history, version_id)
    # What a writer leaves that registered another batch first and this one at the same moment.
    shutil.copy(path, path.with_name(path.name.replace("00000001.", "00000002.")))
    assert history.list_versions() == [version_id]
    history.purge(ids=[SECRET], id_column="patient_id")
    assert files_with(history.base_dir, SECRET) == []
    assert history.list_versions() == [version_id]
    assert history.load(version_id)[0]["patient_id"].tolist() == ["A"]


def test_a_purge_reaches_what_a_killed_writer_left(history: DataVersioner):
    path = batch_file(history, history.register(patients("A", SECRET)))
    shutil.copy(path, path.with_name(f".{path.name}.4194305"))
    history.purge(ids=[SECRET], id_column="patient_id")
    assert files_with(history.base_dir, SECRET) == []


def test_a_purge_reaches_files_that_were_set_aside(history: DataVersioner):
    version_id = history.register(patients("A", SECRET))
    path = batch_file(history, version_id)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="its 2 rows are set aside"):
        history.window(10, "y")
    assert len(files_with(history.base_dir, SECRET)) == 1
    history.purge(ids=[SECRET], id_column="patient_id")
    assert files_with(history.base_dir, SECRET) == []


@pytest.mark.parametrize("written", ["labels", "labels and batch"])
def test_a_purge_killed_between_its_files_can_be_read_and_done_again(
    history: DataVersioner, tmp_path: Path, written: str
):
    history.register(patients("A", SECRET, "B"), "v")
    history.record_outcomes("v", {"stay": np.array([0.5, 1.5, 2.5])})
    done = DataVersioner(shutil.copytree(history.base_dir, tmp_path / "done"))
    done.purge(ids=[SECRET], id_column="patient_id")
    # The folder as it is when the process dies before it deletes the old files.
    shutil.copy(batch_file(done, "v.outcomes"), history.base_dir)
    if written == "labels and batch":
        shutil.copy(batch_file(done, "v"), history.base_dir)
    assert history.list_versions() == ["v"]
    stay = history.load("v")[0].set_index("patient_id")["stay"]
    assert stay.drop(SECRET, errors="ignore").to_dict() == {"A": 0.5, "B": 2.5}
    assert history.window(10, "y").frame["patient_id"].is_unique
    history.purge(ids=[SECRET], id_column="patient_id")
    assert files_with(history.base_dir, SECRET) == []
    assert history.list_versions() == ["v"]
    assert history.load("v")[0]["stay"].tolist() == [0.5, 2.5]


ZONES = [UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-11))]


@pytest.mark.parametrize("zone", ZONES, ids=str)
def test_a_purge_by_time_removes_the_versions_registered_before_it(
    history: DataVersioner, zone: timezone
):
    history.register(patients("A", SECRET), "old")
    history.record_outcomes("old", {"stay": np.zeros(2)})
    between = datetime.now(zone).isoformat()
    history.register(batch(2), "new")
    assert history.purge(before=between) == {"old": 2}
    assert history.list_versions() == ["new"]
    assert files_with(history.base_dir, SECRET) == []
    (kept,) = history.base_dir.glob("*.new.parquet")
    assert set(contents(history.base_dir)) == {kept.name, "old.purged"}
    assert contents(history.base_dir)["old.purged"] == 0


@pytest.mark.parametrize(("before", "removed"), [("2020-01-01", {}), ("2999-12-31", {"a": 3})])
def test_a_purge_by_day_reads_the_day_as_its_start(
    history: DataVersioner, before: str, removed: dict[str, int]
):
    history.register(batch(1), "a")
    assert history.purge(before=before) == removed


@pytest.mark.parametrize("before", ["yesterday", "1/1/2020", "", "2020-13-01"])
def test_a_purge_before_what_is_no_time_is_refused_and_removes_nothing(
    history: DataVersioner, before: str
):
    history.register(batch(1), "a")
    with pytest.raises(DataValidationError, match="before"):
        history.purge(before=before)
    assert history.list_versions() == ["a"]


@pytest.mark.parametrize("given", [{}, {"ids": ["A"], "before": "2020-01-01", "id_column": "p"}])
def test_a_purge_is_by_ids_or_by_time(history: DataVersioner, given: dict):
    with pytest.raises(DataValidationError, match="purge takes either ids or before"):
        history.purge(**given)


def test_a_purge_by_ids_needs_their_column(history: DataVersioner):
    with pytest.raises(DataValidationError, match="purge by ids needs id_column"):
        history.purge(ids=["A"])
