from __future__ import annotations

import numpy as np
import pytest

from tsclust_model.boosting.quantiles import checked_quantiles, quantile_column
from tsclust_model.errors import PredictionError
from tsclust_model.metrics import quantile_losses, weighted_quantile_loss


def test_rising_probabilities_are_numbers_whatever_holds_them():
    for asked in ([0.1, 0.5], (0.1, 0.5), np.array([0.1, 0.5]), ["0.1", " 0.5"]):
        assert checked_quantiles(asked) == (0.1, 0.5)
    assert checked_quantiles([]) == ()
    assert [quantile_column(p) for p in checked_quantiles([0.025, 0.5])] == ["q0.025", "q0.5"]


@pytest.mark.parametrize(
    "asked",
    [
        [float("inf")],
        [float("nan")],
        [0.0, 0.5],
        [0.5, 1.0],
        [-0.1],
        [90],
        [0.9, 0.1],
        [0.5, 0.5],
        ["median"],
        "0.5",
        [True],
        [None],
        [[0.1], [0.5]],
        0.5,
        np.linspace(0.001, 0.999, 100),
    ],
    ids=str,
)
def test_other_quantiles_are_refused_in_one_line(asked):
    with pytest.raises(PredictionError) as caught:
        checked_quantiles(asked)
    assert str(caught.value) == (
        "quantiles must be up to 99 numbers above 0 and below 1 that rise, such as 0.1, 0.5, 0.9"
    )


def test_the_quantile_loss_of_the_median_is_the_absolute_error():
    y = np.array([1.0, 4.0, np.nan])
    losses = quantile_losses(y, np.array([[2.0, 2.0, 2.0]]), [0.5])
    np.testing.assert_array_equal(losses, [1.0, 2.0, np.nan])
    assert weighted_quantile_loss(y, losses) == 3 / 5
    assert weighted_quantile_loss(np.zeros(2), np.ones(2)) is None


def test_quantile_losses_are_the_mean_over_the_quantiles():
    losses = quantile_losses(np.array([10.0]), np.array([[8.0], [13.0]]), [0.1, 0.9])
    np.testing.assert_allclose(losses, [(2 * 0.1 * 2 + 2 * 0.1 * 3) / 2])
