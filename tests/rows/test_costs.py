from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tsclust_model.data.history import DataVersioner
from tsclust_model.rows.batches import batch_frame, chunked_forecast, scorable_matrix
from tsclust_model.rows.costs import (
    BatchCosts,
    measured_costs,
    resident_megabytes,
    sums_by_cluster,
)


def test_resources_are_summed_over_the_rows_of_each_cluster():
    labels = np.array([2, 0, 2, -1])
    hours = np.array([1.0, 2.0, 4.0, 8.0])
    assert sums_by_cluster(labels, {"hours": hours, "cost": 10 * hours}) == {
        -1: {"hours": 8.0, "cost": 80.0},
        0: {"hours": 2.0, "cost": 20.0},
        2: {"hours": 5.0, "cost": 50.0},
    }


def test_without_resources_each_cluster_shows_what_its_rows_cost():
    costs = BatchCosts((0.75, 0.25), (3.0, 2.0))
    assert costs.of(3) == {"processing_time": 1.5, "memory_usage": 9.0}
    assert sums_by_cluster(np.array([1, 0, 1]), {}, costs) == {
        0: {"processing_time": 0.5, "memory_usage": 3.0},
        1: {"processing_time": 1.0, "memory_usage": 6.0},
    }


def test_costs_are_a_line_through_two_measured_batches(generation):
    # Of 64 rows 3 s and 2 s, of 2,048 rows 6 s and 9 s: the shorter counts.
    # The first of each, and the last, whose memory is traced, are left out.
    ends = iter([0, 9, 0, 3, 0, 2, 0, 1, 0, 9, 0, 6, 0, 8, 0, 1])
    costs = measured_costs(target_alone(generation), 1000, lambda: next(ends))
    assert costs.of(64)["processing_time"] == pytest.approx(2.0)
    assert costs.of(2048)["processing_time"] == pytest.approx(6.0)
    assert costs.seconds == pytest.approx((2 - 64 * 4 / 1984, 4 / 1984))


@pytest.mark.parametrize("n_rows", [100, 10_000])
def test_the_memory_of_a_batch_is_foreseen_by_what_it_takes(generation, hospital, tmp_path, n_rows):
    alone = target_alone(generation)
    costs = measured_costs(alone, 1000)
    frame = batch_frame(hospital.sample(n_rows, replace=True, random_state=1), alone)
    tracemalloc.start()  # the oracle
    chunked_forecast(alone, scorable_matrix(alone, frame), 1000)
    DataVersioner(tmp_path).register(alone.canonical_rows(frame))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 1 / 3 < costs.of(n_rows)["memory_usage"] / (peak / 2**20) < 3


def test_measuring_leaves_a_users_tracing_on(generation):
    tracemalloc.start()
    measured_costs(target_alone(generation), 1000)
    assert tracemalloc.is_tracing()
    tracemalloc.stop()
    measured_costs(target_alone(generation), 1000)
    assert not tracemalloc.is_tracing()


def target_alone(generation):
    return replace(generation, resources={})


def test_the_resident_memory_is_the_systems_figure():
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    assert resident_megabytes() == pytest.approx(kilobytes / 1024, rel=0.05)
