"""What forecasts one output of series: two LightGBM corrections, two bases, and their shares.

All of it is scaled so that an absolute error is a MASE (see `series.features`). Two models
learn what the bank of exponential filters and the seasonal naive forecast miss (the regression,
where there is a longer season); the mean of the two corrected forecasts counts, once from models of
all series and once from those of the segment. With the bank, Theta and the regression themselves
that makes five ways to forecast, averaged by their `shares`. Where a series is long enough, complex
exponential smoothing has a share of all that.
`tsclust_model.series.output_fit` fits them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import lightgbm as lgb
import numpy as np

from tsclust_model.boosting.intervals import (
    StepCalibration,
    Support,
    probabilities_of,
    renumbered_keys,
)
from tsclust_model.boosting.packed_trees import Forest
from tsclust_model.models.state import Parts, pack_arrays, pack_json, unpack_arrays, unpack_json
from tsclust_model.results import NOISE
from tsclust_model.series.base_forecasts import RegressionPrior
from tsclust_model.series.ces import ces_forecasts
from tsclust_model.series.covariates import Covariates
from tsclust_model.series.features import NO_FLOOR, Rows, Scaling, Windows
from tsclust_model.series.panel import opened, without_alone
from tsclust_model.series.widths import Widths, ends_beyond, stands_still
from tsclust_model.shown import one_line

WAYS = ("global", "cluster", "bank", "theta", "regression")
"""The ways to forecast, in the order of shares."""

_BASES = 2  # models of a segment: what the bank misses, what the seasonal naive forecast misses


@one_line
@dataclass(frozen=True)
class SeriesForecast:
    """Forecasts of some series.

    Attributes
    ----------
    prediction, lower, upper : ndarray of float64, shape (n, horizon)
        Units of the series.
    weight : ndarray of float64, shape (n,)
        Share (0 to 1) of the segment's own models.
    replaced : ndarray of bool, shape (n,)
        The forecast had left the series' reach, and is the seasonal naive one instead.
    set_aside : ndarray of bool, shape (n,)
        The series has values that stand alone, and is forecast without them.
    quantiles : ndarray of float64, shape (n_probabilities, n, horizon)
        Those that were asked for, in that order.
    """

    prediction: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    weight: np.ndarray
    replaced: np.ndarray
    set_aside: np.ndarray
    quantiles: np.ndarray


@one_line
@dataclass(frozen=True)
class SeriesModel:
    """Everything that forecasts one output: the target, or a resource.

    Attributes
    ----------
    texts : mapping of int to sequence of str
        LightGBM models of the two bases' errors: of each segment that is large enough, and of all
        series (-1). Empty where there were too few rows for any.
    shares : mapping of int to sequence of float
        Share (0 to 1, sum 1) of each of `WAYS`, for each segment and (-1) for series without one.
    calibration : StepCalibration
        Of scaled residuals as multiples of the forecasts' `widths`.
    season, horizon : int
    never_negative : bool
        No value of the training panel was below 0; so is no forecast, but of series that were.
    whole : bool
        All values were whole numbers; so are the bounds (see `Support`).
    usual_scale, least_scale : float
        See `tsclust_model.series.features.Scaling`.
    widths : Widths
    longer_season : int
        See `tsclust_model.series.features.Scaling`, as for `prior` and `filters`.
    prior : RegressionPrior or None
    filters : ndarray of float64, shape (2, 90), or None
    ces_share : float
        Share (0 to 1) of complex exponential smoothing, of series that are long enough.
    packed : Forest or None
        What packing the texts gave when they were written; None packs them when asked.
    """

    texts: Mapping[int, tuple[str, ...]]
    shares: Mapping[int, tuple[float, ...]]
    calibration: StepCalibration
    season: int
    horizon: int
    never_negative: bool
    usual_scale: float
    least_scale: float = NO_FLOOR
    whole: bool = False
    widths: Widths = field(default_factory=Widths)
    longer_season: int = 0
    prior: RegressionPrior | None = None
    filters: np.ndarray | None = None
    ces_share: float = 0.0
    packed: Forest | None = field(default=None, repr=False, compare=False)

    @property
    def _n_ways(self) -> int:
        """Models of older builds have no regression."""
        return len(self.shares[NOISE])

    @property
    def cluster_boosters(self) -> dict[int, tuple[lgb.Booster, ...]]:
        """Models of each segment that is large enough, one for each base they correct."""
        own = {cluster: texts for cluster, texts in self.texts.items() if cluster != NOISE}
        return {cluster: _parsed(texts) for cluster, texts in own.items()}

    @property
    def global_booster(self) -> tuple[lgb.Booster, ...]:
        """Models of all series, one for each base; none where there were too few rows."""
        return _parsed(self.texts.get(NOISE, ()))

    def forecast(
        self,
        values: np.ndarray,
        ends: np.ndarray,
        covariates: Covariates,
        labels: np.ndarray,
        coverage: float,
        probabilities: Sequence[float] = (),
    ) -> SeriesForecast:
        """Forecast the periods after the last column.

        Nothing leaves the reach of a series: twice the range of its known values, and ten times
        its scale, beyond them. A forecast that does becomes the seasonal naive one. Values that
        stand alone (see `series.panel.standing_alone`) are not looked at, for none of it.

        Quantiles never cross; that of 0.5 is the prediction, and ``lower`` and ``upper`` of a
        coverage ``c`` are those of ``(1 - c) / 2`` and ``(1 + c) / 2``.

        Parameters
        ----------
        values : ndarray of float64, shape (n, n_periods)
            Right-aligned: NaN before a series begins, none after.
        ends : ndarray of int64, shape (n,)
            Number of the period of the last column.
        covariates : Covariates
        labels : ndarray of int64, shape (n,)
            Segments; -1 is none.
        coverage : float
            Of the intervals, above 0 and below 1.
        probabilities : sequence of float
            Of the quantiles, above 0 and below 1, in any order.
        """
        values, alone = self.cleaned(values)
        rows, ways = self._ways(values, ends, covariates, labels)
        shares = self._shares_of(labels)
        case = np.repeat(np.arange(len(values)), self.horizon)
        mixed, ces_weight = self._with_ces(rows, blended(ways, shares[case]), values)
        scaled, replaced = rows.within_reach(mixed, case)
        has_widths = self._has_widths
        still = stands_still(values, self.season) & has_widths
        scaled = np.where(still[case], rows.naive, scaled)
        prediction = self._in_units(rows, scaled, values)
        asked = (*probabilities_of(coverage), *probabilities)
        width = self._width(rows, scaled, values)
        bounds = (
            self._in_units(rows, rows.clipped(scaled + width * offset.ravel()), values)
            for offset in self.calibration.offsets(labels, asked)
        )
        support = Support(whole=self.whole)
        lower, upper, *quantiles = (
            support.quantile(prediction, found, probability, nearest=has_widths)
            for found, probability in zip(bounds, asked, strict=True)
        )
        return SeriesForecast(
            prediction,
            lower,
            upper,
            np.where(replaced | still, 0.0, shares[:, WAYS.index("cluster")] * (1 - ces_weight)),
            replaced,
            np.asarray(alone.any(axis=1)),
            np.array(quantiles).reshape(len(probabilities), *prediction.shape),
        )

    def _with_ces(
        self, rows: Rows, blend: np.ndarray, values: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The blend with complex exponential smoothing, and its weight in each series, (n,)."""
        n, n_periods = values.shape
        if not self.ces_share:
            return blend, np.zeros(n)
        steps = np.tile(np.arange(1, self.horizon + 1), n)
        series, origins = np.repeat(np.arange(n), self.horizon), np.full(len(steps), n_periods)
        found = ces_forecasts(values, series, origins, steps, self.season, self.horizon)
        scaled = replace(found, forecast=rows.scaled(found.forecast))
        return scaled.mixed(blend, self.ces_share), self.ces_share * found.trust[:: self.horizon]

    def _width(self, rows: Rows, scaled: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Widths of forecasts, shape (n * horizon,).

        After a last value beyond all others nobody knows which level will last: the old and the new
        one are within reach of the interval.
        """
        width = self.widths.of(rows.signs, rows.spread)
        jumped = np.repeat(ends_beyond(values, self.season), self.horizon)
        if not self.widths.weights or not jumped.any():
            return width
        last = rows.scaled(np.repeat(values[:, -1], self.horizon))
        apart = np.maximum(np.abs(last - scaled), np.abs(rows.naive - scaled))
        return np.where(jumped, np.maximum(width, apart), width)

    def baselines(
        self,
        values: np.ndarray,
        ends: np.ndarray,
        covariates: Covariates,
        labels: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """What else would have been forecast, shape (n, horizon) each.

        ``global``, ``cluster`` (the segments' models alone), ``bank``, ``theta`` and
        ``seasonal_naive``; the parameters are those of `forecast`.
        """
        values, _ = self.cleaned(values)
        rows, ways = self._ways(values, ends, covariates, labels)
        found = dict(zip(WAYS, ways, strict=False)) | {"seasonal_naive": rows.naive}
        return {name: self._in_units(rows, scaled, values) for name, scaled in found.items()}

    def cleaned(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What a series is forecast from, and the mask of the values that stand alone.

        Fits keep the zeros before a series began: at an origin before that, nobody knew of it.
        """
        values, alone = without_alone(values, self.season)
        return (opened(values) if self._has_widths else values), alone

    @property
    def _has_widths(self) -> bool:
        """False of models of older builds, which answer as they did."""
        return bool(self.widths.weights)

    def _ways(
        self,
        values: np.ndarray,
        ends: np.ndarray,
        covariates: Covariates,
        labels: np.ndarray,
    ) -> tuple[Rows, np.ndarray]:
        """The rows of every series and step, and the ways' scaled forecasts, (5, n * horizon)."""
        n, n_periods = values.shape
        origins = np.array([n_periods])
        scaling = Scaling(
            self.never_negative,
            self.usual_scale,
            self.least_scale,
            self.longer_season,
            self.prior,
            self.filters,
        )
        windows = Windows(values, ends, origins, self.season, self.horizon, scaling, covariates)
        series = np.repeat(np.arange(n), self.horizon)
        steps = np.tile(np.arange(1, self.horizon + 1), n)
        rows = windows.rows(series, np.full(len(series), n_periods), steps)
        everyone, own = self._corrected(rows, np.repeat(labels, self.horizon))
        ways = np.array([everyone, own, rows.bank, rows.theta, rows.regression])
        return rows, ways[: self._n_ways]

    def _corrected(self, rows: Rows, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Forecasts of the models of all series, and of the segments' own where there are any."""
        if not self.texts:
            return rows.bank, rows.bank
        clusters = np.array(sorted(cluster for cluster in self.texts if cluster != NOISE), int)
        places = np.searchsorted(clusters, labels)
        places[np.append(clusters, NOISE)[places] != labels] = len(clusters)
        models = np.full((len(clusters) + 1, _BASES), NOISE)
        models[:-1] = _BASES + np.arange(_BASES * len(clusters)).reshape(-1, _BASES)
        sums = self._forest.predict(rows.X, places, models, np.arange(_BASES))
        base = rows.corrected_base(self.longer_season)
        everyone = base + sums[:_BASES].mean(axis=0)
        own = np.where(places < len(clusters), base + sums[_BASES:].mean(axis=0), everyone)
        return everyone, own

    @cached_property
    def _forest(self) -> Forest:
        """The models of all series first, then segment by segment."""
        texts = [text for _, texts in sorted(self.texts.items()) for text in texts]
        return Forest.pack(texts) if self.packed is None else self.packed

    def _shares_of(self, labels: np.ndarray) -> np.ndarray:
        """Shares of the ways for each series, shape (n, 5)."""
        known, inverse = np.unique(labels, return_inverse=True)
        table = [self.shares.get(int(label), self.shares[NOISE]) for label in known]
        return np.array(table).reshape(-1, self._n_ways)[inverse]

    def _in_units(self, rows: Rows, scaled: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Shape (n, horizon), within the support; a series with values below 0 has its own."""
        found = (rows.level + rows.scale * scaled).reshape(-1, self.horizon)
        if not self.never_negative:
            return found
        is_negative = np.fmin.reduce(known, axis=1) < 0
        return np.where(is_negative[:, None], found, Support(self.never_negative).clipped(found))

    def renumbered(self, ids: Mapping[int, int]) -> SeriesModel:
        """The same models under other segment ids."""
        return replace(
            self,
            texts=renumbered_keys(self.texts, ids),
            shares=renumbered_keys(self.shares, ids),
            calibration=self.calibration.renumbered(ids),
            packed=None,
        )

    def to_parts(self, key: str) -> Parts:
        """The model as parts of plain bytes, whose names begin with `key`."""
        values: dict[str, Any] = {
            "shares": {str(cluster): list(found) for cluster, found in self.shares.items()},
            "counts": {str(cluster): n for cluster, n in self.calibration.counts.items()},
            "season": self.season,
            "horizon": self.horizon,
            "never_negative": self.never_negative,
            "whole": self.whole,
            "usual_scale": self.usual_scale,
            "least_scale": self.least_scale,
        }
        if self.widths.weights:
            values |= {"symmetry": self.calibration.symmetry, "widths": asdict(self.widths)}
        if self.longer_season:
            values["longer_season"] = self.longer_season
        if self.prior is not None:
            values["prior"] = self.prior.to_dict()
        if self.filters is not None:
            values["filters"] = self.filters.tolist()
        if self.ces_share:
            values["ces_share"] = self.ces_share
        residuals = {str(c): found for c, found in self.calibration.residuals.items()}
        texts = {str(cluster): list(found) for cluster, found in self.texts.items()}
        return {
            f"{key}.json": pack_json(values),
            f"{key}.npz": pack_arrays(residuals),
            f"{key}-texts.json": pack_json(texts),
            f"{key}-forest.npz": pack_arrays(self._forest.to_arrays() if self.texts else {}),
        }

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes], key: str) -> SeriesModel:
        """The model of parts that have been checked (`state.open_sealed`)."""
        values = unpack_json(parts[f"{key}.json"])
        residuals = unpack_arrays(parts[f"{key}.npz"])
        texts = unpack_json(parts[f"{key}-texts.json"])
        forest = unpack_arrays(parts[f"{key}-forest.npz"]) if texts else None
        return cls(
            {int(cluster): tuple(found) for cluster, found in texts.items()},
            {int(cluster): tuple(found) for cluster, found in values["shares"].items()},
            StepCalibration(
                {int(cluster): found for cluster, found in residuals.items()},
                {int(cluster): n for cluster, n in values["counts"].items()},
                values.get("symmetry", 0.0),
            ),
            values["season"],
            values["horizon"],
            values["never_negative"],
            values["usual_scale"],
            values.get("least_scale", NO_FLOOR),
            values.get("whole", False),  # older builds round no bounds
            Widths.from_dict(values.get("widths", {})),
            values.get("longer_season", 0),
            RegressionPrior.from_dict(values.get("prior")),
            np.array(values["filters"]) if "filters" in values else None,
            values.get("ces_share", 0.0),
            None if forest is None else Forest.from_arrays(forest),
        )


def _parsed(texts: Iterable[str]) -> tuple[lgb.Booster, ...]:
    return tuple(lgb.Booster(model_str=text) for text in texts)


def blended(ways: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The ways' forecasts, shape (5, m), averaged by the shares of each row, shape (m, 5)."""
    return (ways * shares.T).sum(axis=0)
