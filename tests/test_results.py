from __future__ import annotations

import numpy as np

from tsclust_model.results import Assignment


def test_source_names_hdbscan_the_fallback_and_the_lack_of_clusters():
    assignment = Assignment(
        labels=np.array([2, 0, -1]),
        is_noise=np.array([False, True, True]),
        strength=np.array([0.5, 0.0, 0.0]),
    )
    assert assignment.source.tolist() == ["hdbscan", "knn", "none"]
    assert assignment.noise_ratio == 2 / 3


def test_an_empty_batch_has_no_noise():
    empty = np.empty(0)
    assert Assignment(empty.astype(int), empty.astype(bool), empty).noise_ratio == 0.0
