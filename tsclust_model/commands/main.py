"""``tsclust``: the commands, their options and examples.

What a command does is the `run` of the module of its name. It is imported when the command runs, so
that ``--help`` does not wait for pandas, MLflow and scikit-learn.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from tsclust_model import __version__
from tsclust_model.commands.running import work

Declaration = Callable[..., Any]

# --model_uri as well as --model-uri: parameters of an MLproject have underscores.
_SETTINGS = {
    "show_default": True,
    "token_normalize_func": lambda name: name.replace("_", "-"),
    "max_content_width": 100,
}
_DATA = "path, glob or URL of csv, tsv, parquet, json, xlsx or hdf5"
_OWN_DEFAULTS = "the defaults of PipelineConfig"


@click.group(context_settings=_SETTINGS, epilog="Options and an example: tsclust COMMAND --help")
@click.version_option(__version__, prog_name="tsclust")
def tsclust() -> None:
    """Segments by density, a forecast for each of them, and one MLflow model around both."""


def command(example: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a declaration a command of `tsclust`, which runs the `run` of its module."""

    def declare(declaration: Callable[..., None]) -> click.Command:
        name = declaration.__name__

        @functools.wraps(declaration)
        def call(working_dir: str, **options: Any) -> None:
            work(name, working_dir, options)

        made = tsclust.command(
            name.replace("_", "-"),
            context_settings=_SETTINGS,
            epilog=f"\b\nExample:\n  {example}",
        )(call)
        made.params.append(_working_dir())
        return made

    return declare


def _working_dir() -> click.Option:
    """The user's folder, which only a parameter of type path tells under ``mlflow run``."""
    return click.Option(
        ["--working-dir"],
        default=".",
        show_default="this folder",
        type=click.Path(exists=True, file_okay=False),
        help="folder that relative paths and the embedded store start from",
    )


def _optional(name: str, help: str, default: str) -> Callable[[Declaration], Declaration]:
    """An option whose empty string, which is how ``mlflow run`` passes "not given", is None."""
    return click.option(
        name, default="", show_default=default, callback=lambda *given: given[2] or None, help=help
    )


def _names(name: str, help: str, default: str) -> Callable[[Declaration], Declaration]:
    """An option of names: ``a, b`` is ('a', 'b')."""
    return click.option(name, default="", show_default=default, callback=_split, help=help)


def _split(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _only_local(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if value != "local":
        raise click.UsageError(
            f"engine '{value}' is not there yet; use 'local', or mlflow.pyfunc.spark_udf "
            "to score in Spark (README, 'Spark')"
        )
    return value


_engine = click.option(
    "--engine",
    default="local",
    type=click.Choice(["local", "spark"]),
    callback=_only_local,
    expose_value=False,
    help="where it runs; spark is reserved for a later version",
)
_model_uri = click.option("--model-uri", required=True, help="the model: models:/<name>@champion")
_model_name = _optional("--model-name", "registered model", "that of the settings")


@command("tsclust demo")
@click.option("--folder", default="demo", help="where the synthetic tables are written")
def demo() -> None:
    """Train on a synthetic hospital and register the model."""


@command(
    "tsclust train --data stays.csv --target days --time admitted --id patient \\\n"
    "    --holdout 0.2 --model-name stays"
)
@click.option("--data", required=True, help=_DATA)
@click.option("--target", required=True, help="column to predict")
@_names("--features", "input columns, separated by commas", "all others; of series none")
@_names("--resources", "further columns to predict, separated by commas", "none")
@_optional("--time", "column that orders the rows", "the order of the rows")
@_optional("--id", "column that says whose row it is", "none")
@click.option(
    "--horizon", default=0, help="periods of a series to predict; 0 predicts each row's own target"
)
@_optional("--frequency", "length of a period of a series: MS, W, D, h, period/12 ...", "guessed")
@click.option(
    "--holdout", default=0.0, help="newest share that is not trained on, only evaluated on"
)
@_names("--drop-columns", "columns not to use, separated by commas", "those of the settings")
@click.option(
    "--task",
    default="",
    show_default="that of the settings",
    type=click.Choice(["", "auto", "regression", "classification"]),
    metavar="[auto|regression|classification]",
    help="what the target is",
)
@_optional("--config", "YAML file of PipelineConfig", _OWN_DEFAULTS)
@_model_name
@_engine
def train() -> None:
    """Find segments and fit their models.

    They are registered as one MLflow model, whose newest version is @champion.
    """


@command("tsclust retrain --data newest.csv --model-name stays --if-due true")
@_optional("--data", f"new rows: {_DATA}", "none: with the rows that are kept")
@_model_name
@click.option("--reason", default="Manual request", help="why, for the record")
@click.option("--if-due", default=False, type=bool, help="only if the data has drifted")
@click.option("--promote", default=True, type=bool, help="let the challenger serve if it is better")
@_optional("--config", "YAML file of PipelineConfig", "that of the champion")
@_engine
def retrain() -> None:
    """Add rows to a model's history and retrain it.

    A challenger is fitted and compared with the champion; with --if-due only after drift. A
    scheduler may call it at any time: rows that were added before count once.
    """


@command("tsclust evaluate --data newest.csv --model-uri models:/stays@champion")
@click.option("--data", required=True, help=_DATA)
@_model_uri
@_optional("--baseline-uri", "model to compare with on the same rows", "none")
@click.option(
    "--fail-on-regression",
    default=False,
    type=bool,
    help="exit 1 if the error is above the baseline's, or without one 1% above the global model's",
)
@_optional(
    "--config",
    "YAML file of `tsclust pipeline`, whose monitoring.thresholds decide instead: exit 1 if one is "
    "missed",
    "none",
)
def evaluate() -> None:
    """Compare forecasts with what happened.

    Only rows that the model was not trained on count.
    """


@command("tsclust score --data new.csv --model-uri models:/stays@champion --output scored.csv")
@click.option("--data", required=True, help=_DATA)
@_model_uri
@click.option("--output", required=True, help="path or URL of a .parquet or .csv file to write")
@_engine
def score() -> None:
    """Write the forecast of each row.

    Id and time stand beside it where the table has them.
    """


@command("tsclust analyze --request request.json --output analysis --promote-to-config train.yaml")
@click.option("--request", required=True, help="JSON file; docs/analysis.md has the fields")
@click.option(
    "--output",
    required=True,
    help="folder of result.json and the plots, or a file that ends in .json",
)
@_optional(
    "--promote-to-config",
    "YAML file to write: settings that train on the recommended clustering",
    "none",
)
def analyze() -> None:
    """Say which clustering suits a table."""


@command("tsclust pipeline --config pipeline.yaml")
@click.option("--config", required=True, help="YAML file; docs/configuration_guide.md has the keys")
@click.option("--json", default=False, type=bool, help="print JSON only")
def pipeline() -> None:
    """Run the whole operations loop.

    Ingest, check, retrain if needed, evaluate and record; exit 1 if a person has to look. A
    scheduler may call it at any time.
    """


@command("tsclust compile-kfp pipeline.yaml -o pipeline.kfp.yaml")
@click.argument("config")
@click.option("-o", "--output", default="pipeline.kfp.yaml", help="compiled pipeline to write")
@click.option(
    "--image", default=f"tsclust-model:{__version__}", help="image of every step; it must have kfp"
)
@click.option("--claim", default="tsclust-data", help="PersistentVolumeClaim the steps share")
@click.option("--mount", default="/var/lib/tsclust", help="where it is mounted in every step")
def compile_kfp() -> None:
    """Compile the loop for Kubeflow Pipelines.

    CONFIG is the YAML file of `tsclust pipeline`.
    """


if __name__ == "__main__":
    tsclust()
