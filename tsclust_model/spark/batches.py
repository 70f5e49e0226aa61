"""What a batch that Spark scored says together: counts, noise and drift, and no row of it.

Parts are counted in the executors, where the rows are, and added there.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812  # its name in the docs of Spark

from tsclust_model.data.columns import OK
from tsclust_model.models.base import FittedPipeline
from tsclust_model.models.state import Parts
from tsclust_model.monitoring.detectors import NoiseDrift
from tsclust_model.monitoring.reference import MIN_ROWS, FeatureCounts
from tsclust_model.shown import one_line
from tsclust_model.spark.executors import added, counting, packed, unpacked

_PARTS = 4
"""Sums that reach this process, however many tasks there were."""


@one_line
@dataclass(frozen=True)
class BatchCounts:
    """Sums over the rows of a batch.

    Attributes
    ----------
    rows : Counter
        ``rows`` in all, ``refused`` (with a status that is not ``ok``), and of the others ``knn``
        (noise) and ``none`` by their cluster_source.
    clusters : Counter
        Rows by the id of their segment.
    features : FeatureCounts
        Of the rows that are ``ok``.
    """

    rows: Counter[str]
    clusters: Counter[str]
    features: FeatureCounts

    def plus(self, other: BatchCounts) -> BatchCounts:
        """Both together."""
        features = self.features.plus(other.features)
        return BatchCounts(self.rows + other.rows, self.clusters + other.clusters, features)

    @property
    def noise_ratio(self) -> float:
        """Share of noise, 0 to 1, in the rows that were scored, before the fallback."""
        return self.rows["knn"] / max(self.rows["rows"] - self.rows["refused"], 1)

    def drift(self, generation: FittedPipeline) -> list[str]:
        """What has drifted from the rows the model was trained on, with figures.

        The batch counts as one window, see `tsclust_model.monitoring.detectors`.
        """
        n = self.features.n_rows
        if n < MIN_ROWS:
            return []
        reference = generation.reference
        noise = NoiseDrift(reference, threshold=generation.config.noise_threshold)
        told = [noise.told(n, self.rows["knn"])]
        return [reason for reason in (*told, *reference.features.shifted(self.features)) if reason]

    def to_json(self) -> dict[str, Any]:
        """What the history of the output keeps."""
        return {
            "rows": self.rows["rows"],
            "refused": self.rows["refused"],
            "noise_ratio": self.noise_ratio,
            "clusters": dict(sorted(self.clusters.items())),
        }

    def to_state(self) -> dict[str, Any]:
        """As JSON; `from_state` reads it back."""
        features = packed(self.features).hex()
        return {"rows": self.rows, "clusters": self.clusters, "features": features}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> BatchCounts:
        features = unpacked(bytes.fromhex(state["features"]))
        return cls(Counter(state["rows"]), Counter(state["clusters"]), features)


def counted(
    spark: SparkSession, folder: str, frames: Sequence[DataFrame], parts: Parts
) -> BatchCounts:
    """The counts of forecasts in a folder, and of the tables that they were made of."""
    answers = spark.read.parquet(folder)
    by_segment = answers.groupBy("cluster", "cluster_source").agg(
        F.count(F.lit(1)).alias("rows"), F.count_if(F.col("status") != OK).alias("refused")
    )
    rows: Counter[str] = Counter()
    clusters: Counter[str] = Counter()
    for row in by_segment.collect():
        rows.update({"rows": row["rows"], "refused": row["refused"]})
        if row["cluster_source"] is not None:
            rows[row["cluster_source"]] += row["rows"]
            clusters[str(row["cluster"])] += row["rows"]
    features = [
        unpacked(bytes(row["counts"]))
        for frame in frames
        for row in frame.mapInArrow(counting(parts), "counts binary")
        .repartition(_PARTS)
        .mapInArrow(added, "counts binary")
        .collect()
    ]
    return BatchCounts(rows, clusters, functools.reduce(FeatureCounts.plus, features))
