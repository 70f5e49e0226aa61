"""``tsclust`` itself: its help, its examples, and the entry points of MLproject beside it."""

from __future__ import annotations

import importlib
import shlex
import subprocess
import sys

import click
import pytest
import yaml

import tsclust_model
from tests.support import PROJECT
from tsclust_model.commands.main import tsclust as group

ENTRY_POINTS = {"main": "demo", "compile_kfp": "compile-kfp"}
HEAVY = {"sklearn", "pandas", "numpy", "mlflow", "lightgbm", "numba", "hdbscan", "pydantic"}


def entry_points() -> dict[str, dict]:
    project = yaml.safe_load((PROJECT / "MLproject").read_text())
    assert project["conda_env"] == "conda.yaml"
    return project["entry_points"]


def test_the_commands_are_those_of_the_project_and_the_compiler():
    named = {ENTRY_POINTS.get(name, name) for name in entry_points()}
    assert set(group.commands) == named | {"compile-kfp"}


@pytest.mark.parametrize("name", group.commands)
def test_help_states_each_options_meaning_and_default_and_an_example(tsclust, name):
    command = group.commands[name]
    for option in command.params:
        if isinstance(option, click.Option):
            _, text = option.get_help_record(click.Context(command, show_default=True))
            assert option.help
            assert "[required]" in text or "[default: " in text, option.name
    shown = " ".join(tsclust(name, "--help").output.split())
    _, _, example = shown.partition("Example: tsclust ")
    words = shlex.split(example.replace("\\ ", ""))
    assert words[0] == name
    context = command.make_context(name, words[1:])
    assert context.params["working_dir"] == "."


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "tsclust_model.commands.main", "--help"],
        ["-m", "tsclust_model.commands.main", "train", "--help"],
        ["-m", "entrypoints.train", "--help"],
        ["-m", "entrypoints.train"],
    ],
    ids=" ".join,
)
def test_help_and_a_missing_option_import_nothing_heavy(words):
    code = (
        "import atexit, runpy, sys\n"
        f"atexit.register(lambda: print(sorted({HEAVY} & set(sys.modules))))\n"
        f"sys.argv = {words[1:]}\n"
        f"runpy.run_module({words[1]!r}, run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert done.returncode == (0 if "--help" in words else 2)


def test_names_may_have_underscores(tsclust):
    said = tsclust("compile_kfp", "--working_dir", "nowhere", "pipeline.yaml").output
    assert "Invalid value for '--working-dir': Directory 'nowhere' does not exist" in said


def test_a_command_that_does_not_exist_is_suggested(tsclust):
    assert "Did you mean" in tsclust("trian").output
    assert tsclust("--version").output == f"tsclust, version {tsclust_model.__version__}\n"


@pytest.mark.parametrize("name", entry_points())
def test_mlproject_passes_every_parameter_of_every_entry_point(name):
    entry = entry_points()[name]
    command = group.commands[ENTRY_POINTS.get(name, name)]
    module = importlib.import_module(f"entrypoints.{name}")
    assert command in vars(module).values()
    options = {option.name: option for option in command.params}
    declared = entry.get("parameters", {})
    assert entry["command"].startswith(f"python -m entrypoints.{name}")
    assert set(declared) == set(options) - {"folder"}
    for key, found in declared.items():
        assert f"--{key} {{{key}}}" in entry["command"]
        assert ("default" in found) != options[key].required, key
    # mlflow makes a path absolute in the folder that it is started in.
    assert declared["working_dir"] == {"type": "path", "default": "."}


def test_a_compiled_pipeline_has_an_entry_point_too():
    module = importlib.import_module("entrypoints.compile_kfp")
    assert module.compile_kfp is group.commands["compile-kfp"]
