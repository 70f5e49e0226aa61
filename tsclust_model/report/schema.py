"""What ``performance-report.json`` holds: the figures of a report, by section of the page."""

from __future__ import annotations

from typing import Any, TypedDict

from tsclust_model.clustering.profiles import Characteristic
from tsclust_model.models.evidence import Column, MethodTable, Total
from tsclust_model.results import LineageFigures


class Segment(TypedDict):
    """A segment; profile, differences and representatives are empty of fewer than ten rows."""

    id: int
    name: str
    rows: int
    share: float
    fallback_rows: int
    strength: float
    own_model: bool
    profile: list[Characteristic]
    differences: list[float]
    representatives: list[Any]


class Segments(TypedDict):
    """All segments, the largest first (`shown`), and those beyond the twentieth together."""

    n_rows: int
    n_segments: int
    noise_rows: int
    noise_ratio: float
    features: list[str]
    silhouette: float | None
    least_rows: int | None
    shown: list[Segment]
    rest: dict[str, Any]


class MeasureShown(TypedDict):
    """What errors are counted by, and what is shown beside it."""

    name: str
    label: str
    unit: str
    columns: list[Column]


class Credit(TypedDict):
    """What the segments save beyond shuffled ones; see `boosting.segment_gain.SegmentGain`."""

    saved: float | None
    control: float | None
    beyond: float
    error: float | None
    earned: bool
    sentence: str


class Gain(TypedDict):
    """The methods on each kind of rows; `saved` is of what is served on the last of them."""

    tables: list[MethodTable]
    saved: float | None
    credit: Credit | None
    weight: float
    combine: str
    n_own_models: int


class GroupTotals(TypedDict):
    """Totals of a group of rows by output; None where too few outcomes are known."""

    group: str
    merged: int
    n_rows: int
    outputs: dict[str, Total | None]


class TotalsBy(TypedDict):
    column: str
    groups: list[GroupTotals]


class Totals(TypedDict):
    """Sums of each output over all rows, by segment, and by the planning columns."""

    basis: str
    coverage: float
    outputs: list[str]
    all: GroupTotals | None
    by: list[TotalsBy]


class _Scores(TypedDict, total=False):
    merged: int
    weight: float
    ratio: float | None
    worse: bool
    mae: float | None
    r2: float | None
    bias: float | None
    interval_coverage: float | None
    accuracy: float | None
    auc: float | None


class GroupErrors(_Scores):
    """Errors of a group of rows, and the target's scores."""

    group: str
    n_rows: int
    value: float | None
    error: float | None
    resources: dict[str, dict[str, float | None] | None]


class Subgroups(TypedDict):
    column: str
    groups: list[GroupErrors]


class Accuracy(TypedDict):
    """Errors of what is served, of all rows and by segment."""

    basis: str
    coverage: float
    all: GroupErrors
    segments: list[GroupErrors]
    resources: list[str]
    quantile_losses: dict[str, float | None]


Importance = TypedDict("Importance", {"feature": str, "global": float, "served": float})

Flow = TypedDict("Flow", {"from": int, "to": int, "rows": int})


class Changes(TypedDict):
    """How many rows changed their segment (`changed`), and the largest flows."""

    n_rows: int
    changed: int
    flows: list[Flow]
    other_rows: int


class Newest(TypedDict):
    n_rows: int
    noise_ratio: float
    drifted: list[str]


class Drift(TypedDict):
    """Noise and drifted features (`drifted`) of newer rows, and what batches have shown."""

    reference: dict[str, float]
    noise_threshold: float
    newest: Newest | None
    history: dict[str, list[float]]
    thresholds: dict[str, float]
    alerts: list[str]


class Generations(TypedDict):
    comparison: dict[str, Any] | None
    lineage: LineageFigures
    moves: Changes | None


class Picture(TypedDict):
    """A PNG in base64, with a caption and a text for those who do not see it."""

    name: str
    section: str
    caption: str
    alt: str
    png: str


class Figures(TypedDict):
    """All figures of a report."""

    format: int
    package: str
    smallest_group: int
    model: dict[str, Any]
    segments: Segments
    measure: MeasureShown | None
    gain: Gain | None
    totals: Totals | None
    subgroups: list[Subgroups]
    accuracy: Accuracy | None
    importance: list[Importance]
    drift: Drift
    generations: Generations | None
    next: list[str]
    pictures: list[Picture]
