from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tsclust_model

pytestmark = pytest.mark.integration  # each test starts processes that compile

PACKAGE = Path(tsclust_model.__file__).parent
ALL = ("first_leaves", "core_distances", "pack_trees", "forecast", "assign")
QUICK = ("first_leaves", "pack_trees", "forecast")  # the others take long to compile

# One process: calls the kernels it is asked for and tells what came out and what was compiled.
DRIVER = '''
import json, sys
import numba
import numpy as np

settings = {name: repr(value) for name, value in vars(numba.config).items() if name.isupper()}
from tsclust_model._kernels import rows as kernels

X = np.random.default_rng(0).normal(0, 1, (300, 2))
MODEL = """
Tree=0
num_leaves=2
num_cat=0
split_feature=0
split_gain=1
threshold=0.5
decision_type=2
left_child=-1
right_child=-2
leaf_value=1 2

end of trees
"""

def first_leaves():
    from tsclust_model._kernels.search_tree import SearchTree
    return kernels.first_leaves(X, SearchTree(X).arrays)

def core_distances():
    from tsclust_model._kernels.search_tree import SearchTree
    found = np.empty(len(X))
    kernels.core_distances(X, np.arange(len(X)), SearchTree(X).arrays, 3, found)
    return found

def pack_trees():
    children = np.array([[1, -1], [-3, -2]])
    return np.concatenate(kernels.pack_trees(*children, np.array([3]), np.array([0])))

def forecast():
    from tsclust_model.boosting.packed_trees import Forest
    labels, nobody = np.zeros(5, np.int64), np.empty((1, 0), np.int64)
    return Forest.pack([MODEL]).predict(X[:5], labels, nobody, np.zeros(1, np.int64))

def assign():
    import hdbscan
    from tsclust_model.clustering.hdbscan_tree import DensityTree
    options = {"prediction_data": True, "core_dist_n_jobs": 1}
    found = hdbscan.HDBSCAN(min_cluster_size=5, min_samples=3, **options).fit(X)
    return DensityTree.from_hdbscan(found).predict(X[:9])[1]

wanted = sys.argv[1:]
results = {name: globals()[name]().tolist() for name in wanted}
stats = {name: getattr(kernels, name).stats for name in wanted}
json.dump(
    {
        "source": kernels.__file__,
        "folder": kernels.pack_trees.stats.cache_path,
        "results": results,
        "found": {name: sum(each.cache_hits.values()) for name, each in stats.items()},
        "compiled": {name: sum(each.cache_misses.values()) for name, each in stats.items()},
        "signatures": {name: len(getattr(kernels, name).signatures) for name in wanted},
        "changed": {
            name: [value, repr(getattr(numba.config, name))]
            for name, value in settings.items()
            if repr(getattr(numba.config, name)) != value
        },
    },
    sys.stdout,
)
'''


def copy_package(folder: Path) -> Path:
    """A copy of the package in a folder of its own, as in the artifact of a model."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=ignored)
    return folder


def change(package: Path, module: str, old: str, new: str) -> None:
    source = package / PACKAGE.name / module
    text = source.read_text(encoding="utf-8")
    assert old in text
    source.write_text(text.replace(old, new, 1), encoding="utf-8")


# The process has imported numba already, in another environment.
FRESH = """
import sys, warnings, numba
warnings.simplefilter("error")
sys.dont_write_bytecode = True
numba.config.reload_config()
"""


@pytest.fixture(scope="module")
def run(python: Path) -> Callable[..., dict[str, Any]]:
    """A process of its own that imports this copy, with no cache but the one given."""

    def call(package: Path, *kernels: str, before: str = "", **env: str | Path) -> dict[str, Any]:
        others = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("NUMBA_")
            and name not in ("XDG_CACHE_HOME", "HOME", "PYTHONPATH")
        }
        given = {name: str(value) for name, value in env.items()}
        process = subprocess.run(
            [str(python), "-c", FRESH + before + DRIVER, *kernels],
            env=others | {"PYTHONPATH": str(package)} | given,
            cwd=package.parent,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        report: dict[str, Any] = json.loads(process.stdout)
        assert Path(report["source"]).is_relative_to(package)
        return report

    return call


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file below a folder."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in found
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def first(
    run: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory, cache: Path
) -> dict[str, Any]:
    """The first process of all, which fills the cache, and its package before and after."""
    package = copy_package(tmp_path_factory.mktemp("first"))
    before = files(package)
    report = run(package, *QUICK, NUMBA_CACHE_DIR=cache)
    return report | {"before": before, "after": files(package), "cached": list(files(cache))}


def test_the_first_process_compiles_each_kernel_once(first, cache):
    assert first["compiled"] == dict.fromkeys(QUICK, 1)
    assert first["found"] == dict.fromkeys(QUICK, 0)
    assert first["signatures"] == dict.fromkeys(QUICK, 1)
    assert Path(first["folder"]).is_relative_to(cache)
    assert {Path(name).name.partition("-")[0] for name in first["cached"]} == {
        f"rows.{name}" for name in QUICK
    }


def test_every_kernel_is_found_where_this_process_keeps_it(run, tmp_path):
    """In the user's own cache, which the other tests have filled."""
    here: dict[str, Any] = {}
    exec(DRIVER.partition("wanted = ")[0], here)
    expected = {name: here[name]().tolist() for name in ALL}
    names = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME")
    own = {name: os.environ[name] for name in names if name in os.environ}
    report = run(copy_package(tmp_path), *ALL, **own)
    assert report["results"] == expected
    assert report["found"] == dict.fromkeys(ALL, 1)
    assert report["compiled"] == dict.fromkeys(ALL, 0)
    assert report["signatures"] == dict.fromkeys(ALL, 1)


def test_another_copy_of_the_package_compiles_nothing(run, first, cache, tmp_path):
    package = copy_package(tmp_path)
    for path in package.rglob("*.py"):
        os.utime(path, (1e9, 1e9))  # a download is as old as it likes
    before = files(package)
    kept = files(Path(first["folder"]))
    report = run(package, *QUICK, NUMBA_CACHE_DIR=cache)
    assert report["found"] == dict.fromkeys(QUICK, 1)
    assert report["compiled"] == dict.fromkeys(QUICK, 0)
    assert report["results"] == first["results"]
    assert report["folder"] == first["folder"]
    assert files(Path(first["folder"])) == kept
    assert files(package) == before


def test_nothing_is_written_beside_the_package_or_beside_its_cache_folder(first, cache):
    assert first["after"] == first["before"]
    kept = Path(first["folder"]).relative_to(cache).as_posix()
    assert all(name.startswith(f"{kept}/") for name in first["cached"])


def test_numbas_settings_stay_as_they_were(run, first, cache, tmp_path):
    assert first["changed"] == {}
    report = run(
        copy_package(tmp_path),
        "pack_trees",
        NUMBA_CACHE_DIR=cache,
        NUMBA_CACHE_LOCATOR_CLASSES="InTreeCacheLocator",
    )
    assert report["changed"] == {}
    assert report["found"] == {"pack_trees": 1}


def test_a_function_of_somebody_else_keeps_its_own_cache(run, first, cache, tmp_path):
    """Numba's own folders, named after the source's, for what is compiled later."""
    package = copy_package(tmp_path / "package")
    (package / "theirs.py").write_text(
        "import numba\n@numba.njit(cache=True)\ndef twice(x):\n    return 2 * x\n"
    )
    script = "import tsclust_model._kernels.rows, theirs; theirs.twice(2)\n"
    kept = tmp_path / "kept"
    shutil.copytree(cache, kept)
    before = {path.name for path in kept.iterdir()}
    run(package, before=script, NUMBA_CACHE_DIR=kept)
    (theirs,) = {path for path in kept.iterdir() if path.name not in before}
    assert any(path.name.startswith("theirs.twice") for path in theirs.iterdir())


def test_a_changed_kernel_has_a_folder_of_its_own(run, first, cache, tmp_path):
    """The text of the whole file counts, as numba does not see a change in a helper."""
    package = copy_package(tmp_path)
    change(package, "_kernels/rows.py", "total += outside * outside", "total -= outside * outside")
    kept = files(cache)
    report = run(package, "first_leaves", NUMBA_CACHE_DIR=cache)
    assert report["compiled"] == {"first_leaves": 1}
    assert report["results"]["first_leaves"] != first["results"]["first_leaves"]
    assert report["folder"] != first["folder"]
    assert Path(report["folder"]).parent == Path(first["folder"]).parent
    after = files(cache)
    assert {name: after[name] for name in kept} == kept
    assert files(Path(report["folder"]))


def test_another_way_to_compile_has_a_folder_of_its_own(run, first, cache, tmp_path):
    """Numba takes code that was compiled with other options for the same."""
    package = copy_package(tmp_path)
    change(package, "_kernels/cache.py", 'error_model="numpy"', 'error_model="python"')
    assert run(package, NUMBA_CACHE_DIR=cache)["folder"] != first["folder"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"NUMBA_CACHE_DIR": "a", "XDG_CACHE_HOME": "b", "HOME": "c"}, "a"),
        ({"XDG_CACHE_HOME": "b", "HOME": "c"}, "b"),
        ({"XDG_CACHE_HOME": "", "HOME": "c"}, "c/.cache"),
    ],
)
def test_the_cache_is_where_the_user_keeps_caches(run, variables, expected, tmp_path):
    given = {name: tmp_path / value if value else "" for name, value in variables.items()}
    report = run(copy_package(tmp_path / "package"), **given)
    assert Path(report["folder"]).parent == tmp_path / expected / "tsclust_model"


@pytest.mark.parametrize("name", ["NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME"])
def test_without_a_folder_to_write_to_kernels_are_compiled_in_memory(run, first, tmp_path, name):
    file = tmp_path / "file"
    file.touch()
    package = copy_package(tmp_path / "package")
    before = files(tmp_path)
    report = run(package, "pack_trees", **{name: file / "below"})
    assert report["folder"] is None
    assert report["results"] == {"pack_trees": first["results"]["pack_trees"]}
    assert report["found"] == {"pack_trees": 0}
    assert report["signatures"] == {"pack_trees": 1}
    assert files(tmp_path) == before


def test_a_package_in_an_archive_is_compiled_in_memory(run, first, tmp_path):
    """As Spark ships it."""
    copy_package(tmp_path / "package")
    archive = Path(shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path / "package"))
    report = run(archive, "pack_trees", NUMBA_CACHE_DIR=tmp_path / "cache")
    assert report["folder"] is None
    assert report["results"]["pack_trees"] == first["results"]["pack_trees"]


# Without HOME and with a user id that has no name, as in some containers.
NOBODY = """
import pwd
def nobody(uid):
    raise KeyError(uid)
pwd.getpwuid = nobody
"""


def test_a_user_without_a_home_compiles_in_memory(run, first, tmp_path):
    report = run(copy_package(tmp_path), "pack_trees", before=NOBODY)
    assert report["folder"] is None
    assert report["results"]["pack_trees"] == first["results"]["pack_trees"]


# Files can be made and not filled, as on a full disk.
FULL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
"""


def test_a_full_disk_stops_no_kernel(run, first, tmp_path):
    package, cache = copy_package(tmp_path / "package"), tmp_path / "cache"
    report = run(package, "pack_trees", before=FULL_DISK, NUMBA_CACHE_DIR=cache)
    assert report["results"]["pack_trees"] == first["results"]["pack_trees"]


@pytest.mark.parametrize(("kind", "size"), [("nbi", 0), ("nbc", 40)])
def test_a_damaged_cache_is_compiled_anew(run, first, cache, tmp_path, kind, size):
    """A machine that lost its power leaves files that are cut short."""
    kept = tmp_path / "cache"
    shutil.copytree(cache, kept)
    (damaged,) = kept.rglob(f"rows.pack_trees-*.{kind}")
    damaged.write_bytes(damaged.read_bytes()[:size])
    package = copy_package(tmp_path / "package")
    for compiled in (1, 0):  # and the next process finds it whole
        report = run(package, "pack_trees", NUMBA_CACHE_DIR=kept)
        assert report["results"]["pack_trees"] == first["results"]["pack_trees"]
        assert report["found"]["pack_trees"] == 1 - compiled
