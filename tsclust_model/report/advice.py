"""What to do next, in sentences that name a number, from the figures of a report alone."""

from __future__ import annotations

import math

from tsclust_model.report.schema import Figures

_CHANCE = 2.0  # standard errors

_MANY_SEGMENTS = 200


def next_steps(figures: Figures) -> list[str]:
    """Sentences that name a figure and an action, the most urgent first."""
    advice = [
        *_on_generations(figures),
        *_on_drift(figures),
        *_on_segments(figures),
        *_on_gain(figures),
        *_on_subgroups(figures),
        *_on_intervals(figures),
    ]
    return advice or ["Nothing stands out: no figure of this report calls for an action."]


def _on_generations(figures: Figures) -> list[str]:
    generations = figures["generations"]
    comparison = generations and generations["comparison"]
    if not generations or not comparison or comparison.get("improvement") is None:
        return []
    saved, n_rows = comparison["improvement"], comparison["n_rows"]
    if not comparison["better"]:
        return [
            f"Keep the old generation: the new one saves {saved:.1%} on {n_rows} out-of-sample "
            f"rows, which is not above the margin of {comparison['margin']:.1%}."
        ]
    moves, changed = generations["moves"], ""
    if moves and moves["n_rows"]:
        share = moves["changed"] / moves["n_rows"]
        changed = f"; {share:.0%} of the rows are in another segment, so tell who plans by them"
    return [f"Let the new generation serve: it saves {saved:.1%} of {n_rows} rows' error{changed}."]


def _on_drift(figures: Figures) -> list[str]:
    drift, advice = figures["drift"], []
    newest = drift["newest"]
    if newest and newest["drifted"]:
        advice.append(
            f"Look at {len(newest['drifted'])} feature(s) that drifted in the newest "
            f"{newest['n_rows']} rows, first {newest['drifted'][0]}; retrain if the change stays."
        )
    if newest:
        noise, limit = newest["noise_ratio"], drift["noise_threshold"]
        usual = drift["reference"]["usual_noise"]
        if noise > max(limit, usual):
            advice.append(
                f"Retrain: {noise:.1%} of the newest {newest['n_rows']} rows are noise, over the "
                f"threshold of {limit:.0%} and the {usual:.1%} of training."
            )
    if drift["alerts"]:
        advice.append(
            f"Look at {len(drift['alerts'])} alert(s), the newest: {drift['alerts'][-1]}."
        )
    return advice


def _on_segments(figures: Figures) -> list[str]:
    segments, settings = figures["segments"], figures["model"]["settings"]
    size, n_found = settings["min_cluster_size"] or 0, segments["n_segments"]
    if n_found == 0:
        return [
            f"Lower hdbscan_params.min_cluster_size from {size} to {max(size // 2, 2)}, or choose "
            f"other cluster_features: no segment was found in {segments['n_rows']} rows."
        ]
    advice = []
    if n_found > _MANY_SEGMENTS:
        needed = -(-segments["n_rows"] // _MANY_SEGMENTS)
        advice.append(
            f"Raise hdbscan_params.min_cluster_size from {size} to {needed}: {n_found} segments "
            "are more than anyone can plan by."
        )
    if segments["noise_ratio"] > settings["noise_threshold"]:
        advice.append(
            f"Lower hdbscan_params.min_cluster_size from {size} to {max(size // 2, 2)}, or cluster "
            f"on fewer columns: {segments['noise_ratio']:.0%} of the rows are noise."
        )
    small = [item for item in segments["shown"] if not item["own_model"]]
    least, gain = segments["least_rows"], figures["gain"]
    if small and least is not None and gain and gain["weight"]:
        rows = sum(item["rows"] for item in small)
        advice.append(
            f"{len(small)} segment(s) with {rows} rows are served by the global model, because "
            f"they are under {least} rows: wait for more, or lower min_cluster_rows."
        )
    return advice


def _on_gain(figures: Figures) -> list[str]:
    gain = figures["gain"]
    if not gain or not figures["segments"]["n_segments"]:
        return []
    ways = {item["way"]: item for item in gain["tables"][0]["ways"]}
    label = figures["measure"] and figures["measure"]["label"]
    before, alone = (ways[m]["value"] if m in ways else None for m in ("global", "cluster"))
    if gain["weight"] == 0 and before and alone:
        return [
            f"Read segments as description: they have weight 0 in the forecast, because their own "
            f"models alone have {alone / before - 1:+.1%} of the global {label} {before:.4g}. "
            "Other cluster_features may gain more."
        ]
    credit = gain["credit"]
    if credit is None:  # of an older build, or all by the global model
        return []
    if credit["earned"]:
        return [f"Plan by segments. {credit['sentence']}, at weight {gain['weight']:.2g}."]
    return [f"{credit['sentence']}."]


def _on_subgroups(figures: Figures) -> list[str]:
    return [
        f"Check {column['column']} = {group['group']}: its error is {group['ratio']:.2f} times "
        f"that of all others on {group['n_rows']} rows; give more such rows, or features that tell "
        "about them."
        for column in figures["subgroups"]
        for group in column["groups"]
        if group["worse"]
    ]


def _on_intervals(figures: Figures) -> list[str]:
    accuracy = figures["accuracy"]
    covered = accuracy and accuracy["all"].get("interval_coverage")
    if not accuracy or covered is None:
        return []
    wanted = accuracy["coverage"]
    n_rows = accuracy["all"]["n_rows"]
    error = math.sqrt(wanted * (1 - wanted) / max(n_rows, 1))
    if wanted - covered <= max(_CHANCE * error, 0.02):
        return []
    return [
        f"Retrain, or ask for wider intervals: {covered:.1%} of {n_rows} rows are inside their "
        f"{wanted:.0%} intervals."
    ]
