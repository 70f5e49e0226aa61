from __future__ import annotations

import pytest

from tsclust_model.monitoring.health import Health


@pytest.mark.parametrize(
    ("problems", "status"),
    [
        ({}, "healthy"),
        ({"alerts": "noise_ratio 1 is over its threshold 0.5"}, "degraded"),
        ({"alerts": "x", "drift": "3 feature(s) drifted"}, "drifting"),
        ({"model": "not fitted", "drift": "3 feature(s) drifted"}, "not_fitted"),
    ],
)
def test_the_status_is_that_of_the_worst_part(problems, status):
    assert Health(**problems).status == status


def test_parts_without_a_problem_are_ok_and_the_others_get_advice():
    health = Health(registry="version 1 serves here", drift="3 feature(s) drifted")
    assert health.components == {
        "model": "ok",
        "registry": "version 1 serves here",
        "tracking": "ok",
        "drift": "3 feature(s) drifted",
        "alerts": "ok",
        "errors": "ok",
    }
    assert health.advice == ["Look at registry: version 1 serves here."]
