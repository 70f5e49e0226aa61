"""How a command runs: in which folder, how loud, and how a user's mistake ends."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tsclust_model.errors import PipelineError

_TYPED_IN = "tsclust_model.typed_in"


def work(name: str, working_dir: str, options: Mapping[str, Any]) -> None:
    """Run a command in `working_dir`; a user's mistake ends in one line and a non-zero exit."""
    click.get_current_context().meta[_TYPED_IN] = Path.cwd()
    if working_dir != ".":
        os.chdir(working_dir)
    run = _imported(name).run
    _be_quiet()  # mlflow sets its loggers when it is imported
    try:
        run(**options)
    except (PipelineError, FileNotFoundError) as error:
        raise click.ClickException(" ".join(_one_line(error).split())) from error


def _imported(name: str) -> Any:
    """The module of a command.

    It brings two million objects that stay: the collector leaves them alone, which saves a fifth
    of a short command.
    """
    gc.disable()
    try:
        return importlib.import_module(f"tsclust_model.commands.{name}")
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
        gc.enable()


def typed_in() -> Path:
    """The folder that the command was started in, before ``--working-dir``."""
    context = click.get_current_context(silent=True)
    return Path.cwd() if context is None else context.meta.get(_TYPED_IN, Path.cwd())


def _one_line(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        path = str(error.filename)
        where = "" if os.path.isabs(path) else f" (looked for {os.path.abspath(path)})"
        return f"{path}: no such file; check the path{where}"
    return str(error)


def _be_quiet() -> None:
    """Leave the screen to the progress bars and the last lines; our own warnings stay."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    warnings.formatwarning = lambda message, *_, **__: f"Warning: {message}\n"
