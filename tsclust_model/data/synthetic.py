"""Synthetic tables: a hospital, for the demo, the tests and the benchmarks; a binary target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import make_classification

from tsclust_model.errors import ConfigurationError
from tsclust_model.results import NOISE

_VITALS = (
    *("age", "heart_rate", "systolic_pressure", "temperature"),
    *("oxygen_saturation", "creatinine", "c_reactive_protein", "body_mass_index"),
)

_DECIMALS = (0, 0, 0, 1, 1, 2, 0, 1)

_SATURATION = _VITALS.index("oxygen_saturation")

# What noise patients are drawn from: anything a ward may see, in no pattern.
_LOWEST = np.array([18, 40, 80, 35.0, 78, 40, 1, 15], dtype=float)

_HIGHEST = np.array([99, 170, 210, 41.0, 100, 400, 300, 50], dtype=float)

_FIRST_DAY = pd.Timestamp("2024-01-01")

_DAYS = 730


@dataclass(frozen=True)
class _Kind:
    """A kind of patient: where its vitals lie, how spread, and what drives its stay.

    `effects` is how many days the stay changes over one standard deviation of each vital.
    """

    ward: str
    share: float
    center: tuple[float, ...]
    spread: tuple[float, ...]
    emergency: float
    stay: float
    effects: tuple[float, ...]
    nursing: float
    cost: float


_KINDS = (
    _Kind("surgery", 0.26, (48, 74, 126, 36.7, 98, 75, 6, 25),
          (5, 4, 6, 0.2, 0.5, 6, 2, 2.0), 0.10,
          5.0, (1.1, 0.7, -0.9, 0, 0.6, 0, 0.7, -0.6), 3.5, 220),
    _Kind("cardiology", 0.22, (69, 104, 158, 36.8, 94, 110, 14, 29),
          (4, 6, 8, 0.2, 1.0, 10, 4, 2.0), 0.70,
          8.0, (-0.9, 1.2, 0.7, 0, -0.8, 0.6, 0, 0.7), 5.0, 480),
    _Kind("pneumology", 0.20, (62, 98, 118, 38.7, 88, 95, 130, 24),
          (7, 6, 7, 0.4, 1.6, 10, 22, 2.5), 0.85,
          9.5, (0.7, -0.8, 0.9, 1.2, 0, -0.7, -0.9, 0), 4.5, 350),
    _Kind("geriatrics", 0.18, (86, 80, 138, 36.6, 95, 165, 22, 22),
          (3, 5, 9, 0.2, 1.0, 18, 6, 1.5), 0.45,
          12.0, (-0.7, 0.6, -1.0, 0, 1.0, 1.4, 0, -0.8), 6.5, 260),
    _Kind("obstetrics", 0.14, (29, 86, 112, 36.9, 98.5, 58, 9, 31),
          (3, 4, 5, 0.2, 0.4, 5, 3, 1.8), 0.30,
          5.0, (0.8, -0.6, 0, -0.7, 0.7, 0.9, 0, 0.8), 4.0, 180),
)  # fmt: skip

# The kind that `born` lets appear: young trauma patients.
_NEWCOMER = _Kind(
    "trauma", 0.16, (31, 122, 96, 36.2, 92, 88, 60, 24),
    (4, 7, 6, 0.3, 1.2, 8, 15, 2.0), 0.98,
    9.0, (0, 1.0, -1.1, 0, 0, 0, 0.8, 0), 7.5, 620,
)  # fmt: skip


def make_hospital(
    n_rows: int = 5000,
    *,
    noise: float = 0.06,
    drift: float = 0.0,
    born: float | None = None,
    dying: float | None = None,
    random_state: int = 42,
    return_kind: bool = False,
) -> Any:
    """Two years of admissions to a synthetic hospital, oldest first.

    Five kinds of patients of different density (surgery, cardiology, pneumology, geriatrics,
    obstetrics), and noise patients without a pattern. In each kind the stay depends on other vital
    signs, or in another direction, so that segments help.

    Parameters
    ----------
    n_rows : int
        Admissions; 10 or more.
    noise : float
        Share of noise patients, 0 to 1.
    drift : float
        Shift of every kind's vital signs by the last day, in their standard deviations; it starts
        half-way.
    born : float, optional
        Share of the period (0 to 1) after which a sixth kind (trauma) appears.
    dying : float, optional
        Share of the period (0 to 1) after which obstetrics patients stop coming.
    random_state : int
    return_kind : bool
        Return the true kinds too; they are not a column, so that no model learns from them.

    Returns
    -------
    frame : DataFrame
        ``patient_id`` (some come again), ``admission_time``, ``ward``, ``emergency``, eight
        vitals, ``length_of_stay_days`` (target), and two resources: ``nursing_hours`` and
        ``medication_cost`` (euros), all of the whole stay.
    kind : ndarray of int64, shape (n_rows,)
        Only with `return_kind`: the kind of each row, -1 is noise.
    """
    for name, value in (("noise", noise), ("born", born), ("dying", dying)):
        if value is not None and not 0 <= value <= 1:
            raise ConfigurationError(f"{name} is {value!r}; it must be a share from 0 to 1")
    if n_rows < 10:
        raise ConfigurationError(f"n_rows is {n_rows}; make 10 or more")
    rng = np.random.default_rng(random_state)
    age_of_row = np.sort(rng.random(n_rows))  # 0 is the first day, 1 the last
    kind = _draw_kinds(rng, age_of_row, noise, born, dying)

    moved = drift * np.clip(2 * age_of_row - 1, 0, 1)
    frame = _admissions(rng, kind, moved, age_of_row)
    return (frame, kind) if return_kind else frame


def generate_synthetic_data(
    n_samples: int = 1000, n_features: int = 10, random_state: int = 42
) -> pd.DataFrame:
    """A synthetic table with a binary target.

    Parameters
    ----------
    n_samples : int
        Rows; 10 or more.
    n_features : int
        Columns of numbers; 2 or more. About half of them tell something of the target.
    random_state : int

    Returns
    -------
    DataFrame
        ``feature_0``, ``feature_1``, ... and ``target``, 0 or 1.
    """
    for name, value, least in (("n_samples", n_samples, 10), ("n_features", n_features, 2)):
        if value < least:
            raise ConfigurationError(f"{name} is {value}; make {least} or more")
    X, y = make_classification(
        n_samples,
        n_features,
        n_informative=max(2, (n_features + 1) // 2),
        n_redundant=0,
        n_clusters_per_class=1,
        class_sep=1.5,
        random_state=random_state,
    )
    names = [f"feature_{i}" for i in range(n_features)]
    return pd.DataFrame(X, columns=names).assign(target=y.astype(np.int64))


# Kinds of wards: level, yearly growth, months of the peak, height of the season, noise (shares).
_WARDS = (
    ("pneumology", 60.0, 0.01, 0, 0.35, 0.05),
    ("surgery", 45.0, 0.06, 5, 0.08, 0.04),
    ("geriatrics", 80.0, -0.04, 0, 0.15, 0.03),
    ("allergology", 25.0, 0.02, 4, 0.60, 0.08),
)


def make_ward_series(
    n_series: int = 60, n_periods: int = 60, *, random_state: int = 42
) -> pd.DataFrame:
    """Occupied beds of synthetic wards by month: a long table of series.

    Four kinds of wards with different season, growth and noise.

    Parameters
    ----------
    n_series, n_periods : int
        Wards, and months from January 2020 on; 1 or more each.
    random_state : int

    Returns
    -------
    DataFrame
        ``ward_id``, ``month``, ``beds`` (target), ``nursing_hours`` (a resource) and
        ``temperature`` (a covariate, degrees Celsius), oldest month of the first ward first.
    """
    if n_series < 1 or n_periods < 1:
        raise ConfigurationError("n_series and n_periods must be 1 or more")
    rng = np.random.default_rng(random_state)
    months = np.arange(n_periods)
    phase = 2 * np.pi * months / 12
    temperature = 10 - 9 * np.cos(phase) + rng.normal(0, 1.5, n_periods)
    wards = []
    for number in range(n_series):
        name, level, growth, peak, height, noise = _WARDS[number % len(_WARDS)]
        size = level * rng.uniform(0.6, 1.6)
        season = 1 + height * rng.uniform(0.8, 1.2) * np.cos(phase - 2 * np.pi * peak / 12)
        trend = 1 + growth * rng.uniform(0.7, 1.3) * months / 12
        beds = np.maximum(size * season * trend * (1 + noise * rng.normal(size=n_periods)), 0)
        wards.append(
            pd.DataFrame(
                {
                    "ward_id": f"{name}-{number:03d}",
                    "month": pd.date_range("2020-01-01", periods=n_periods, freq="MS"),
                    "beds": np.round(beds, 0) + 0.0,
                    "nursing_hours": np.round(beds * 5.5 * rng.normal(1, 0.03, n_periods), 1),
                    "temperature": np.round(temperature, 1) + 0.0,
                }
            )
        )
    return pd.concat(wards, ignore_index=True)


def _admissions(
    rng: np.random.Generator, kind: np.ndarray, moved: np.ndarray, age_of_row: np.ndarray
) -> pd.DataFrame:
    """The admission of each row, by its kind."""
    n_rows = len(kind)
    kinds = (*_KINDS, _NEWCOMER)
    deviation = rng.normal(size=(n_rows, len(_VITALS)))
    vitals = rng.uniform(_LOWEST, _HIGHEST, size=(n_rows, len(_VITALS)))
    names = np.array([item.ward for item in kinds], dtype=object)
    wards = names[rng.integers(0, len(_KINDS), n_rows)]
    emergency = rng.random(n_rows) < 0.5
    stay = 4.0 + 0.05 * vitals[:, 0]
    nursing_rate, cost_rate = np.full(n_rows, 5.0), np.full(n_rows, 350.0)
    for number, item in enumerate(kinds):
        rows = kind == number
        vitals[rows] = item.center + (deviation[rows] + moved[rows, None]) * item.spread
        # Some patients lie on another kind's ward: the ward alone does not tell the kind.
        wards[rows] = np.where(rng.random(rows.sum()) < 0.8, item.ward, wards[rows])
        emergency[rows] = rng.random(rows.sum()) < item.emergency
        stay[rows] = item.stay + deviation[rows] @ np.array(item.effects)
        nursing_rate[rows], cost_rate[rows] = item.nursing, item.cost
    vitals[:, _SATURATION] = np.minimum(vitals[:, _SATURATION], 100.0)
    stay = np.maximum(stay + rng.normal(0, 0.25, n_rows), 0.5)
    nursing = stay * nursing_rate * (1 + 0.3 * emergency) * rng.normal(1, 0.05, n_rows)
    cost = 150 + stay * cost_rate * rng.normal(1, 0.08, n_rows)
    minutes = pd.to_timedelta((age_of_row * _DAYS * 1440).astype(int), unit="min")
    rounded = (  # as a chart is; "+ 0.0" keeps "-0.0" out
        np.round(vitals[:, i], decimals) + 0.0 for i, decimals in enumerate(_DECIMALS)
    )
    return pd.DataFrame(
        {
            "patient_id": _patients(rng, n_rows),
            "admission_time": _FIRST_DAY + minutes,
            "ward": wards.astype(str),
            "emergency": emergency,
            **dict(zip(_VITALS, rounded, strict=True)),
            "length_of_stay_days": np.round(stay, 2),
            "nursing_hours": np.round(np.maximum(nursing, 0.5), 1),
            "medication_cost": np.round(np.maximum(cost, 10), 2),
        }
    )


def _draw_kinds(
    rng: np.random.Generator,
    age_of_row: np.ndarray,
    noise: float,
    born: float | None,
    dying: float | None,
) -> np.ndarray:
    """The kind of each row: its position among the kinds, or -1 for noise."""
    shares = np.tile([item.share for item in (*_KINDS, _NEWCOMER)], (len(age_of_row), 1))
    shares[:, -1] *= age_of_row >= (2.0 if born is None else born)
    shares[:, -2] *= age_of_row < (2.0 if dying is None else dying)
    bounds = (shares / shares.sum(axis=1, keepdims=True)).cumsum(axis=1)
    kind = np.minimum((rng.random(len(bounds))[:, None] > bounds).sum(axis=1), len(_KINDS))
    return np.where(rng.random(len(kind)) < noise, NOISE, kind)


def _patients(rng: np.random.Generator, n_rows: int) -> list[str]:
    """A patient for each admission; about one admission in six is a patient seen before."""
    numbers = np.arange(n_rows)
    again = np.flatnonzero(rng.random(n_rows) < 1 / 6)
    numbers[again] = rng.integers(0, np.maximum(again, 1))
    return [f"P{number:06d}" for number in numbers]
