"""The MLproject entry points: thin click commands, each also ``python -m entrypoints.<name>``."""

from __future__ import annotations

import functools
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from tsclust_model.config import PipelineConfig
from tsclust_model.errors import PipelineError

DATA_HELP = "path, glob or URL of csv, tsv, parquet, json, xlsx or hdf5"

# `mlflow run` starts a command in the project's folder. A parameter of type path is made absolute
# in the folder of the user, so this one tells it; the demo and paths in settings follow it, too.
_WORKING_DIR = click.option(
    "--working-dir",
    "--working_dir",
    default=".",
    type=click.Path(exists=True, file_okay=False),
    help="folder that relative paths start from",
)


def command(function: Callable[..., None]) -> click.Command:
    """A click command whose user's mistakes end in one line and a non-zero exit."""

    @functools.wraps(function)
    def run(working_dir: str, **options: Any) -> None:
        _be_quiet()
        if working_dir != ".":
            os.chdir(working_dir)
        try:
            function(**options)
        except (PipelineError, FileNotFoundError) as error:
            raise click.ClickException(" ".join(_one_line(error).split())) from error

    # A list of its own: click takes the options out of the one that it is given.
    run.__dict__["__click_params__"] = list(getattr(function, "__click_params__", []))
    return click.command(context_settings={"show_default": True})(_WORKING_DIR(run))


def split_names(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """``a, b`` as ('a', 'b'); an empty text as ()."""
    return tuple(name.strip() for name in value.split(",") if name.strip())


def optional(ctx: click.Context, param: click.Parameter, value: str) -> str | None:
    """An empty text, which is how ``mlflow run`` passes "not given", as None."""
    return value or None


def load_config(path: str | None) -> PipelineConfig:
    return PipelineConfig() if path is None else PipelineConfig.from_yaml(path)


def only_local(engine: str) -> None:
    if engine != "local":
        raise click.UsageError(
            f"engine '{engine}' is not there yet; use 'local', or mlflow.pyfunc.spark_udf "
            "to score in Spark (README, 'Spark')"
        )


def beside(figures: Mapping[str, Any], prefix: str, wape: float | None = None) -> str:
    """MASE of the simple forecasts of series, and the WAPE of what is served."""
    simple = (("base", "bank"), ("Theta", "theta"), ("seasonal naive", "seasonal_naive"))
    line = "   ".join(f"{label} {figures[f'mase_{way}']:.4g}" for label, way in simple)
    return f"{prefix}{line}" + ("" if wape is None else f"   (WAPE served {wape:.2%})")


def naive_line(figures: Mapping[str, Any], prefix: str = "") -> str:
    """What rows' figures have to beat (`calculate_naive_metrics`), in one line; or nothing."""
    shown = (
        ("naive (median)", (("RMSE", "rmse_naive"), ("MAE", "mae_naive"))),
        ("naive (classes' shares)", (("log-loss", "log_loss_naive"),)),
        ("commonest class", (("right", "accuracy_naive"),)),
        ("last value", (("RMSE", "rmse_last_value"), ("MAE", "mae_last_value"))),
        ("class before", (("right", "accuracy_last_value"),)),
    )
    parts = []
    for label, wanted in shown:
        found = [
            f"{name} {figures[key]:.1%}" if name == "right" else f"{name} {figures[key]:.4g}"
            for name, key in wanted
            if figures.get(key) is not None
        ]
        if found:
            parts.append(f"{label} {' '.join(found)}")
    return prefix + "   ".join(parts) if parts else ""


def held_line(figures: Mapping[str, Any]) -> str:
    """MAE and R2 of evaluated rows (of classes nothing), and what they have to beat."""
    shown = [
        f"{label} {figures[name]:.4g}"
        for name, label in (("mae", "MAE"), ("r2", "R2"))
        if figures.get(name) is not None
    ]
    return "   ".join([*shown, *filter(None, [naive_line(figures)])])


def fold_line(worth: Mapping[str, Any]) -> str:
    """The same of the folds of a training."""
    own = {name: worth.get(f"{name}_blend") for name in ("mae", "r2")}
    return held_line(dict(worth) | own)


def in_shell(*words: str) -> str:
    """A command as the user types it."""
    return shlex.join(words)


def activation() -> str | None:
    """What a shell has to run before it finds this environment's programs, if anything."""
    in_venv = sys.prefix != sys.base_prefix
    if not in_venv or os.environ.get("VIRTUAL_ENV") == sys.prefix:
        return None
    return shlex.join([".", os.path.relpath(Path(sys.prefix) / "bin" / "activate")])


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
