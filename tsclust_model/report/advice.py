"""What to do next, in sentences that name a number, from the figures of a report alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_CHANCE = 2.0  # standard errors

_MANY_SEGMENTS = 200


def next_steps(figures: Mapping[str, Any]) -> list[str]:
    """Sentences that name a figure and an action, the most urgent first.

    Parameters
    ----------
    figures : mapping
        Of `report_figures`.
    """
    found = [
        *_on_generations(figures),
        *_on_drift(figures),
        *_on_segments(figures),
        *_on_worth(figures),
        *_on_subgroups(figures),
        *_on_intervals(figures),
    ]
    return found or ["Nothing stands out: no figure of this report calls for an action."]


def _on_generations(figures: Mapping[str, Any]) -> list[str]:
    generations = figures["generations"]
    comparison = generations and generations["comparison"]
    if not comparison or comparison.get("improvement") is None:
        return []
    saved, n_rows = comparison["improvement"], comparison["n_rows"]
    if comparison["better"]:
        moves = generations["moves"]
        moved = ""
        if moves and moves["n_rows"]:
            share = moves["moved"] / moves["n_rows"]
            moved = f"; {share:.0%} of the rows are in another segment, so tell who plans by them"
        return [
            f"Let the new generation serve: it saves {saved:.1%} of {n_rows} rows' error{moved}."
        ]
    return [
        f"Keep the old generation: the new one saves {saved:.1%} on {n_rows} unseen rows, which is "
        f"not above the margin of {comparison['margin']:.1%}."
    ]


def _on_drift(figures: Mapping[str, Any]) -> list[str]:
    drift, found = figures["drift"], []
    newest = drift["newest"]
    if newest and newest["moved"]:
        found.append(
            f"Look at {len(newest['moved'])} feature(s) that moved in the newest "
            f"{newest['n_rows']} rows, first {newest['moved'][0]}; retrain if the change stays."
        )
    if newest:
        noise, limit = newest["noise_ratio"], drift["noise_threshold"]
        usual = drift["reference"]["usual_noise"]
        if noise > max(limit, usual):
            found.append(
                f"Retrain: {noise:.1%} of the newest {newest['n_rows']} rows are noise, over the "
                f"threshold of {limit:.0%} and the {usual:.1%} of training."
            )
    if drift["alerts"]:
        found.append(f"Look at {len(drift['alerts'])} alert(s), the newest: {drift['alerts'][-1]}.")
    return found


def _on_segments(figures: Mapping[str, Any]) -> list[str]:
    segments, settings = figures["segments"], figures["model"]["settings"]
    size, n_found = settings["min_cluster_size"] or 0, segments["n_segments"]
    if n_found == 0:
        return [
            f"Lower hdbscan_params.min_cluster_size from {size} to {max(size // 2, 2)}, or choose "
            f"other cluster_features: no segment was found in {segments['n_rows']} rows."
        ]
    found = []
    if n_found > _MANY_SEGMENTS:
        needed = -(-segments["n_rows"] // _MANY_SEGMENTS)
        found.append(
            f"Raise hdbscan_params.min_cluster_size from {size} to {needed}: {n_found} segments "
            "are more than anyone can plan by."
        )
    if segments["noise_ratio"] > settings["noise_threshold"]:
        found.append(
            f"Lower hdbscan_params.min_cluster_size from {size} to {max(size // 2, 2)}, or cluster "
            f"on fewer columns: {segments['noise_ratio']:.0%} of the rows are noise."
        )
    small = [item for item in segments["found"] if not item["own_model"]]
    rows_are_cases = not figures["model"]["horizon"]
    if small and rows_are_cases and figures["worth"] and figures["worth"]["weight"]:
        rows = sum(item["rows"] for item in small)
        found.append(
            f"{len(small)} segment(s) with {rows} rows are served by the global model, because "
            f"they are under {settings['min_cluster_rows']} rows: wait for more, or lower "
            "min_cluster_rows."
        )
    return found


def _on_worth(figures: Mapping[str, Any]) -> list[str]:
    worth = figures["worth"]
    if not worth or not figures["segments"]["n_segments"]:
        return []
    ways = {item["way"]: item for item in worth["tables"][0]["ways"]}
    label = figures["measure"]["label"]
    everyone, alone = ways.get("global"), ways.get("cluster")
    if worth["weight"] == 0 and everyone and alone and alone["value"]:
        change = alone["value"] / everyone["value"] - 1
        return [
            f"Read segments as description: they have weight 0 in the forecast, because their own "
            f"models alone have {change:+.1%} of the global {label} {everyone['value']:.4g}. Other "
            "cluster_features may make them worth more."
        ]
    gain = worth["gain"]
    if gain is None:  # of an older build, or all by the global model
        return []
    if gain["earned"]:
        return [f"Plan by segments. {gain['sentence']}, at weight {worth['weight']:.2g}."]
    return [f"{gain['sentence']}."]


def _on_subgroups(figures: Mapping[str, Any]) -> list[str]:
    return [
        f"Check {column['column']} = {group['group']}: its error is {group['ratio']:.2f} times "
        f"everybody else's on {group['n_rows']} rows; give more such rows, or features that tell "
        "about them."
        for column in figures["subgroups"]
        for group in column["groups"]
        if group["worse"]
    ]


def _on_intervals(figures: Mapping[str, Any]) -> list[str]:
    accuracy = figures["accuracy"]
    if not accuracy or accuracy["all"].get("interval_coverage") is None:
        return []
    wanted, found = accuracy["coverage"], accuracy["all"]["interval_coverage"]
    n_rows = accuracy["all"]["n_rows"]
    error = math.sqrt(wanted * (1 - wanted) / max(n_rows, 1))
    if wanted - found <= max(_CHANCE * error, 0.02):
        return []
    return [
        f"Retrain, or ask for wider intervals: {found:.1%} of {n_rows} rows are inside their "
        f"{wanted:.0%} intervals."
    ]
