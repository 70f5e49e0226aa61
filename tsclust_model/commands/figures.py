"""Figures of a training or an evaluation, as lines of the screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def change(figure: float, before: float) -> str:
    """How much a figure has changed, as ``+0.1%``; a change that rounds to nothing is 0.0%."""
    share = round(figure / before - 1, 3)
    return f"{share:+.1%}" if share else "0.0%"


def beside(figures: Mapping[str, Any], prefix: str, wape: float | None = None) -> str:
    """MASE of the simple forecasts of series, and the WAPE of what is served; empty of rows."""
    simple = {"base": "mase_bank", "Theta": "mase_theta", "seasonal naive": "mase_seasonal_naive"}
    shown = [f"{label} {figures[key]:.4g}" for label, key in simple.items() if key in figures]
    if not shown:
        return ""
    line = "   ".join(shown)
    return f"{prefix}{line}" + ("" if wape is None else f"   (WAPE served {wape:.2%})")


def naive_line(figures: Mapping[str, Any], prefix: str = "") -> str:
    """The naive forecasts of rows (`Target.naive_figures`) in one line, or nothing."""
    shown = (
        ("naive (median)", (("RMSE", "rmse_naive"), ("MAE", "mae_naive"))),
        ("naive (classes' shares)", (("log-loss", "log_loss_naive"),)),
        ("most common class", (("accuracy", "accuracy_naive"),)),
        ("last value", (("RMSE", "rmse_last_value"), ("MAE", "mae_last_value"))),
        ("previous class", (("accuracy", "accuracy_last_value"),)),
    )
    parts = []
    for label, wanted in shown:
        figures_shown = [
            f"{name} {figures[key]:.1%}" if name == "accuracy" else f"{name} {figures[key]:.4g}"
            for name, key in wanted
            if figures.get(key) is not None
        ]
        if figures_shown:
            parts.append(f"{label} {' '.join(figures_shown)}")
    return prefix + "   ".join(parts) if parts else ""


def held_line(figures: Mapping[str, Any]) -> str:
    """MAE and R2 of evaluated rows (of classes nothing), and what they have to beat."""
    shown = [
        f"{label} {figures[name]:.4g}"
        for name, label in (("mae", "MAE"), ("r2", "R2"))
        if figures.get(name) is not None
    ]
    return "   ".join([*shown, *filter(None, [naive_line(figures)])])


def interval_line(figures: Mapping[str, Any], of: str = "") -> str:
    """How many outcomes are inside their intervals, and the losses of quantiles; not of classes."""
    if figures.get("interval_coverage") is None:
        return ""
    losses = [
        f"   {name.upper()} {figures[name]:.4g}"
        for name in ("wql", "sql")
        if figures.get(name) is not None
    ]
    inside, wanted = figures["interval_coverage"], figures["coverage"]
    return f"{inside:.1%} {of}inside the {wanted:.0%} intervals{''.join(losses)}"


def fold_line(folds: Mapping[str, Any]) -> str:
    """The same of the folds of a training."""
    own = {name: folds.get(f"{name}_blend") for name in ("mae", "r2")}
    return held_line(dict(folds) | own)
