"""How good a generation is on labelled rows, beside its own global model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tsclust_model.boosting.boosters import rows_by_cluster
from tsclust_model.data.columns import outcome
from tsclust_model.errors import DataValidationError
from tsclust_model.metrics import calculate_model_metrics
from tsclust_model.results import Evaluation

if TYPE_CHECKING:
    from tsclust_model.rows.model import Generation


def evaluate_generation(
    generation: Generation, frame: pd.DataFrame, known: pd.DataFrame | None = None
) -> Evaluation:
    """Compare forecasts with what happened.

    Parameters
    ----------
    generation : Generation
    frame : DataFrame
        The model's columns, and its target; resources are compared where they are there.
    known : DataFrame, optional
        Further labelled rows, among which the last value before a row is looked for.

    Returns
    -------
    dict
        ``n_rows``, ``n_not_scored``, ``rmse``, ``mae``, ``r2`` (of what is served; of classes
        ``accuracy``, ``log_loss`` and ``auc``), the metric of the ``_global`` model alone and of
        each ``_cluster`` alone, ``coverage`` (wanted), ``interval_coverage`` (reached, 0 to 1) and
        ``wql`` (see `weighted_quantile_loss`; classes have none of the three),
        `Target.naive_figures`, ``noise_ratio``, ``resources`` {name: metrics} and ``clusters``
        {cluster: metrics}.

    Raises
    ------
    DataValidationError
        The target is absent or missing, a column does not fit, or no row can be scored.
    """
    y = generation.outcomes(frame)
    encoded = generation.schema.encode(frame)
    scored = encoded.scorable
    if not scored.any():
        why = f"; the first: {encoded.status[0]}" if len(frame) else ""
        raise DataValidationError(f"none of {len(frame)} rows can be scored{why}")
    X, y, outcome = encoded.X[scored], y[scored], generation.outcome
    last, naive = last_values(generation, frame, known), generation.info.get("naive")
    forecast = generation.forecast(X, generation.coverage)
    labels, metric = forecast.assignment.labels, generation.metric.name
    alone = {
        f"{metric}_{way}": outcome.figures(y, generation.target.predict(X, labels, weight)[0])
        for way, weight in (("global", 0.0), ("cluster", 1.0))
    }
    return {
        "n_rows": len(y),
        "n_not_scored": int((~scored).sum()),
        **outcome.figures(y, forecast.values),
        **{name: figures[metric] for name, figures in alone.items()},
        **outcome.naive_figures(naive, outcome.codes(y), None if last is None else last[scored]),
        **outcome.interval_figures(y, forecast.bounds, generation.coverage),
        **outcome.quantile_figures(generation.target, y, forecast.values, labels),
        "noise_ratio": forecast.assignment.noise_ratio,
        "resources": {
            name: _known_metrics(frame.loc[scored, name], values)
            for name, values in forecast.resources.items()
            if name in frame
        },
        "clusters": {
            cluster: outcome.figures(y[rows], forecast.values[rows]) | {"n_rows": len(rows)}
            for cluster, rows in rows_by_cluster(labels)
        },
    }


def last_values(
    generation: Generation, frame: pd.DataFrame, known: pd.DataFrame | None = None
) -> np.ndarray | None:
    """The outcome before each row, shape (n,), as `Target.naive_losses` takes it.

    It is that of the newest labelled row with an earlier time, of the same id where the model
    knows one; NaN where there is none. None without a time, or where no row has one.

    Parameters
    ----------
    generation : Generation
    frame : DataFrame
        Rows with the target where it is known.
    known : DataFrame, optional
        Further rows to look among.
    """
    roles = generation.roles
    if roles.time is None or roles.time not in frame:
        return None
    columns = {"time": roles.time, "y": roles.target}
    if roles.id is not None and roles.id in frame:
        columns["id"] = roles.id
    tables = [frame] if known is None else [known, frame]
    rows = [_keyed(generation, table, columns) for table in tables]
    answers = pd.concat(rows, ignore_index=True).dropna()
    asked = rows[-1].drop(columns="y").dropna().sort_values("time", kind="stable")
    earlier = pd.merge_asof(
        asked.reset_index(names="row"),
        answers.sort_values("time", kind="stable"),
        on="time",
        by="id" if "id" in columns else None,
        allow_exact_matches=False,
    )
    last = np.full(len(frame), np.nan)
    last[earlier["row"].to_numpy()] = earlier["y"].to_numpy(np.float64)
    return None if np.isnan(last).all() else last


def _keyed(generation: Generation, frame: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """Time, outcome as a number and id of a table, by these names; what it lacks is missing."""
    rows = generation.canonical_rows(frame)
    keyed = pd.DataFrame({key: rows.get(name) for key, name in columns.items()}, index=rows.index)
    return keyed.assign(y=generation.outcome.known_codes(keyed["y"]))


def _known_metrics(column: pd.Series, forecast: np.ndarray) -> dict[str, float | None]:
    """The metrics of a resource on the rows where it is known."""
    known = column.notna().to_numpy()
    truth = outcome(column[known].to_frame(), str(column.name), "resource column")
    return calculate_model_metrics(truth, forecast[known])
