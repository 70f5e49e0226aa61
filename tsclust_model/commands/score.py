"""``tsclust score``: a table in, a table of forecasts out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import click
import pandas as pd
from tqdm import tqdm

from tsclust_model.boosting.quantiles import checked_quantiles
from tsclust_model.data.columns import OK
from tsclust_model.data.tables import read_table, write_table
from tsclust_model.errors import ConfigurationError
from tsclust_model.mlflow_integration.registry import load_generation
from tsclust_model.models.base import FittedPipeline
from tsclust_model.series.model import REPLACED, SET_ASIDE


def run(
    data: str,
    model_uri: str,
    output: str,
    quantiles: tuple[str, ...] = (),
    engine: str = "local",
) -> None:
    """Write the forecast of each row, beside its id and time where the table has them."""
    if engine == "spark":
        _score_on_spark(data, model_uri, output, quantiles)
        return
    asked = checked_quantiles(quantiles)
    generation = load_generation(model_uri)
    frame = read_table(data, generation.schema.text_columns, generation.schema.missing_markers)
    table, forecasts = generation.scored_table(frame, lambda rows: score(generation, rows, asked))
    write_table(table, output)
    unit = generation.unit
    status = forecasts["status"]
    replaced = int(status.str.startswith(REPLACED).sum())
    without = int(status.str.startswith(SET_ASIDE).sum())
    refused = int((status != OK).sum()) - replaced - without
    source = forecasts["cluster_source"]
    alone = (source == "none") & (status == OK)
    _tell(output, len(forecasts), refused, unit)
    if replaced:
        click.echo(f"{replaced} {unit} got the {REPLACED}")
    if without:
        click.echo(f"{without} {unit}: {SET_ASIDE} (column 'status' says which)")
    _tell_sources((source == "knn").mean(), alone.mean())


def _score_on_spark(data: str, model_uri: str, output: str, quantiles: tuple[str, ...]) -> None:
    try:
        from tsclust_model.spark.score import score_table
        from tsclust_model.spark.session import open_session
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "engine spark needs one more package: pip install 'tsclust-model[spark]'"
        ) from error
    scored = score_table(open_session(), model_uri, data, output, quantiles)
    if scored.batch is None:
        click.echo(f"{output}: every partition is there already; nothing was scored")
        return
    rows = scored.batch.rows
    _tell(output, rows["rows"], rows["refused"], "rows")
    _tell_sources(rows["knn"] / rows["rows"], rows["none"] / rows["rows"])
    for reason in scored.drift:
        click.echo(f"drifted: {reason}")


def _tell(output: str, n_cases: int, n_refused: int, unit: str) -> None:
    click.echo(f"{output}: {n_cases} {unit}, {n_refused} not scored (column 'status' says why)")


def _tell_sources(noise: float, alone: float) -> None:
    click.echo(f"{noise:.1%} noise, served by the nearest segment (cluster_source 'knn')")
    if alone:
        click.echo(
            f"{alone:.1%} without a segment, served by the global model (cluster_source 'none')"
        )


def score(
    generation: FittedPipeline, frame: pd.DataFrame, quantiles: Sequence[float] = ()
) -> pd.DataFrame:
    """The forecasts of a table, made `batch_size` rows at a time.

    A table with strings in a column of numbers is one part: whether the column is of the wrong
    type, or a few of its cells are, only the whole of it tells.
    """
    numbers = [name for name, kind in generation.input_columns.items() if kind == "double"]
    is_plain = all(pd.api.types.is_numeric_dtype(frame[n]) for n in numbers if n in frame)
    size = generation.info["config"]["batch_size"] if is_plain else max(len(frame), 1)
    parts = [generation.predict(part, quantiles=quantiles) for part in _chunks(frame, size)]
    return pd.concat(parts)


def _chunks(frame: pd.DataFrame, size: int) -> Iterator[pd.DataFrame]:
    starts = tqdm(
        range(0, len(frame), size), desc="score", leave=False, disable=not sys.stderr.isatty()
    )
    for start in starts:
        yield frame.iloc[start : start + size]
