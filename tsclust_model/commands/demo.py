"""``tsclust demo``: makes a synthetic hospital, trains on it and registers the model."""

from __future__ import annotations

from pathlib import Path

import click

from tsclust_model.commands.train import show
from tsclust_model.config import PipelineConfig
from tsclust_model.data.roles import Roles
from tsclust_model.data.synthetic import make_hospital
from tsclust_model.data.tables import write_table
from tsclust_model.rows.task import split_newest
from tsclust_model.training.train import train_table

ROLES = Roles(
    target="length_of_stay_days",
    resources=("nursing_hours", "medication_cost"),
    time="admission_time",
    id="patient_id",
)
CONFIG = PipelineConfig(hdbscan_params={"min_cluster_size": 60, "min_samples": 5})
N_ROWS, N_NEW, HOLDOUT = 6000, 200, 0.2


def run(folder: str) -> None:
    """Train on a synthetic hospital and register the model."""
    hospital = make_hospital(N_ROWS + N_NEW)
    history, new = hospital.iloc[:N_ROWS], hospital.iloc[N_ROWS:]
    data = write_table(history, str(Path(folder) / "hospital.csv"))
    incoming = write_table(
        new.drop(columns=[ROLES.target, *ROLES.resources]), str(Path(folder) / "new_patients.csv")
    )
    _, held = split_newest(history, ROLES.time, HOLDOUT)
    holdout = write_table(held, str(Path(folder) / "holdout.csv"))
    click.echo(
        f"made {data} ({len(history)} admissions), {holdout} (its newest {len(held)}, which are "
        f"not trained on) and {incoming} ({len(new)} to score)"
    )
    training = train_table(history, ROLES, CONFIG, source=data, holdout=HOLDOUT, trigger="demo")
    show(training, incoming)
