"""Synthetic music-therapy sessions: what was played, and the therapy it belonged to.

    python examples/music_therapy/make_sessions.py --week 1 --output sessions.csv

Week 1 has 400 sessions, later weeks 120. `--shift` changes the tempo (another therapist's taste).
"""

from __future__ import annotations

import click
import numpy as np
import pandas as pd

# For each therapy: its share, and mean and spread of the music played in it.
THERAPIES = {
    "relaxation": (0.35, {"tempo": (66, 6), "energy": (0.22, 0.06), "valence": (0.55, 0.08)}),
    "activation": (0.30, {"tempo": (128, 9), "energy": (0.80, 0.07), "valence": (0.74, 0.08)}),
    "mourning": (0.20, {"tempo": (74, 6), "energy": (0.30, 0.06), "valence": (0.20, 0.06)}),
    "rhythm": (0.15, {"tempo": (104, 7), "energy": (0.64, 0.07), "valence": (0.50, 0.10)}),
}
FIRST = pd.Timestamp("2026-01-05")


def make_sessions(week: int, shift: float = 0.0, seed: int = 7) -> pd.DataFrame:
    """Sessions of one week (1, 2, ...), oldest first.

    Parameters
    ----------
    week : int
    shift : float
        Beats per minute added to every tempo.
    seed : int

    Returns
    -------
    DataFrame
        ``session``, ``started_at``, ``setting``, ``tempo`` (beats per minute), ``energy``,
        ``valence``, ``loudness`` (dB), ``minutes`` and the target ``therapy``.
    """
    rng = np.random.default_rng([seed, week])
    n = 400 if week == 1 else 120
    names = list(THERAPIES)
    therapy = rng.choice(names, n, p=[THERAPIES[name][0] for name in names])
    music = {
        column: np.array([rng.normal(*THERAPIES[name][1][column]) for name in therapy])
        for column in ("tempo", "energy", "valence")
    }
    minutes = np.sort(rng.integers(0, 7 * 24 * 60, n))
    return pd.DataFrame(
        {
            "session": [f"S{week:03d}-{i:04d}" for i in range(n)],
            "started_at": FIRST + pd.to_timedelta(7 * 24 * 60 * (week - 1) + minutes, unit="min"),
            "setting": rng.choice(["alone", "group"], n, p=[0.6, 0.4]),
            "tempo": np.round(music["tempo"] + shift, 1),
            "energy": np.round(np.clip(music["energy"], 0, 1), 3),
            "valence": np.round(np.clip(music["valence"], 0, 1), 3),
            "loudness": np.round(-18 + 12 * music["energy"] + rng.normal(0, 1.5, n), 1),
            "minutes": rng.integers(20, 61, n),
            "therapy": therapy,
        }
    )


@click.command()
@click.option("--week", default=1, help="1, 2, ...")
@click.option("--shift", default=0.0, help="beats per minute added to every tempo")
@click.option("--output", default="sessions.csv")
def main(week: int, shift: float, output: str) -> None:
    """Write one week of synthetic sessions."""
    sessions = make_sessions(week, shift)
    sessions.to_csv(output, index=False)
    click.echo(f"{output}: {len(sessions)} sessions of week {week}")


if __name__ == "__main__":
    main()
