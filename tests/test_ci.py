"""The workflow of GitHub Actions runs what the Makefile has; no runner is asked here."""

from __future__ import annotations

import os
import re

import yaml
from conftest import PROJECT

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
    assert "TSCLUST_NO_SKIPS=1 make test" in script.read_text()
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
