"""The workflow of GitHub Actions runs what the Makefile has; no runner is asked here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
import yaml

from tests.support import PROJECT

WORKFLOW = yaml.safe_load((PROJECT / ".github" / "workflows" / "ci.yml").read_text())
STEPS = WORKFLOW["jobs"]["test"]["steps"]
COMMANDS = [step["run"] for step in STEPS if "run" in step]


def targets() -> set[str]:
    makefile = (PROJECT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    return set(phony.split())


def test_it_runs_the_make_targets_and_nothing_of_its_own():
    assert COMMANDS == [".ci/run", "make demo", "make docs"]
    assert {word for line in COMMANDS for word in re.findall(r"make (\w+)", line)} <= targets()


def test_its_tests_are_those_of_make_with_nothing_skipped():
    script = PROJECT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "HYPOTHESIS_PROFILE=thorough TSCLUST_NO_SKIPS=1 make test" in script.read_text()
    assert "test" in targets()


def test_it_runs_on_each_change_and_may_only_read():
    # YAML 1.1 reads the key `on` as true
    assert set(WORKFLOW[True]) == {"push", "pull_request"}
    assert WORKFLOW["permissions"] == {"contents": "read"}


def test_it_caches_wheels_and_compiled_kernels():
    (cache,) = [step["with"] for step in STEPS if step.get("uses", "").startswith("actions/cache")]
    home = WORKFLOW["jobs"]["test"]["env"]["XDG_CACHE_HOME"]
    assert cache["path"].split() == [f"{home}/pip", f"{home}/tsclust_model"]
    for name in re.findall(r"'([\w./]+)'", cache["key"]):
        assert (PROJECT / name).exists(), name


def test_its_python_is_one_the_package_supports():
    assert WORKFLOW["jobs"]["test"]["container"] == "python:3.11"
    assert 'requires-python = ">=3.11' in (PROJECT / "pyproject.toml").read_text()


@pytest.mark.parametrize("names", [(), ("python3", "python3.12")], ids=["none", "too old"])
def test_make_says_in_one_line_that_no_python_fits(tmp_path, names):
    for program in ("make", "sh"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    for name in names:  # a pyenv shim of a version that is not installed, and an old one
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    shutil.copy(PROJECT / "Makefile", tmp_path)
    made = subprocess.run(
        [str(tmp_path / "make"), ".venv/.made"],
        cwd=tmp_path,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert made.returncode != 0
    said, ended = made.stderr.splitlines()
    assert said == (
        "make: there is no Python 3.11, 3.12 or 3.13 here; install one, or name it: "
        "make PYTHON=/path/to/python3.11"
    )
    assert "Error 1" in ended


@pytest.mark.parametrize("name", ["python3.13", "python3", "python"])
def test_make_takes_the_python_that_is_there(tmp_path, name):
    for program in ("make", "sh"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    (tmp_path / name).write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / name).chmod(0o755)
    shutil.copy(PROJECT / "Makefile", tmp_path)
    made = subprocess.run(
        [str(tmp_path / "make"), "--dry-run", ".venv/.made"],
        cwd=tmp_path,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert f"{name} -m venv .venv" in made.stdout.splitlines()
