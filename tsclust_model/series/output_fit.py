"""Fits what forecasts series: segments, LightGBM corrections, shares and intervals.

Every choice is made at rolling origins inside the training panel, nothing is split at random:

- a fold's models see what was known at its origin, and are evaluated on the horizon after it;
- origins lie on the calendar; a series that ended a horizon or more before the others has them
  counted from its own end, so that every series that is long enough takes part;
- the number of trees is the one the folds like best;
- the shares of the ways to forecast are ``prior * (loss / best) ** -p``, see `Backtest.shares`
  (``clipped`` in the scores is the share of losses above 10, ``clipped_mase`` the mean with this
  limit; ``mase`` is the plain mean);
- intervals are quantiles of the folds' residuals, by a width of each forecast (`Widths`).

Values that stand alone in their series (see `series.panel.standing_alone`) take no part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from typing import Any

import lightgbm as lgb
import numpy as np

from tsclust_model.boosting.boosters import (
    model_threads,
    rows_by_cluster,
    train_boosters,
)
from tsclust_model.boosting.intervals import StepCalibration, Support
from tsclust_model.boosting.packed_trees import is_packable
from tsclust_model.clustering.engine import Segmentation
from tsclust_model.config import PipelineConfig
from tsclust_model.errors import DataValidationError, ModelTrainingError, caution
from tsclust_model.results import NOISE, Assignment, ClusteringResult, Stages
from tsclust_model.series.backtest import Backtest
from tsclust_model.series.covariates import Covariates
from tsclust_model.series.examples import Examples, make_examples, rolling_origins
from tsclust_model.series.features import shape_features
from tsclust_model.series.output_model import WAYS, SeriesModel
from tsclust_model.series.panel import LARGEST_LOSS, Panel
from tsclust_model.series.schema import SeriesSchema
from tsclust_model.series.segments import FEWEST_SERIES, assign_shapes, fit_segments
from tsclust_model.series.widths import Widths
from tsclust_model.shown import one_line

_PARAMS = {
    "objective": "l1",
    "learning_rate": 0.08,
    "num_leaves": 15,
    "min_data_in_leaf": 150,
    "feature_fraction": 0.4,
    "lambda_l2": 5.0,
}

_ROUNDS = (10, 20, 30, 40, 60, 80, 100, 150)

_WIDENED, _ENOUGH_HORIZONS = 0.3, 2.0
_MORE_ROUNDS = (200, 300)  # tried with a longer season, where the folds like the most of these

_FEWEST_ROWS, _CLUSTER_ROWS = 300, 1_500

_MOST_SERIES = 20_000

_FEWEST_EVALUATED = 0.1  # of the series, at the newest origin

# Models are not served with more cases out of reach, or an error above the best base's by more.
_MOST_REPLACED, _MOST_TIMES_WORSE = 0.05, 2.0


@one_line
@dataclass(frozen=True)
class SeriesFit:
    """What comes of a fit of series.

    Attributes
    ----------
    segmentation : Segmentation
        On the series' shapes.
    clustering : ClusteringResult
        Of the series that are long enough to have a shape.
    assignment : Assignment
        Segment of each training series at its end; -1 without a shape.
    models : dict of str to SeriesModel
        The target's first, then the resources'.
    scores : dict
        JSON-ready: errors and gains of each way of forecasting at the rolling origins.
    shapes : ndarray of float64, shape (m, n_shapes)
        Shapes of series at the folds' origins.
    losses : ndarray of float64, shape (m,)
        Mean absolute scaled error of the forecasts of the target made there, at most 10.
    """

    segmentation: Segmentation
    clustering: ClusteringResult
    assignment: Assignment
    models: dict[str, SeriesModel]
    scores: dict[str, Any]
    shapes: np.ndarray
    losses: np.ndarray


def fit_series(
    panel: Panel, config: PipelineConfig, stages: Stages, schema: SeriesSchema | None = None
) -> SeriesFit:
    """Fit segments and models of a panel of series.

    Parameters
    ----------
    panel : Panel
        On one calendar.
    config : PipelineConfig
        LightGBM parameters that differ from the defaults, which are made for rows, are laid over
        those of series.
    stages : callable
        See `tsclust_model.results.Stages`.

    Raises
    ------
    DataValidationError
        Too few series, or too few periods for two rolling origins.
    ModelTrainingError
        LightGBM or hdbscan refused the data or its parameters.
    """
    if len(panel) < FEWEST_SERIES:
        raise DataValidationError(
            f"{len(panel)} series are too few to find segments in; give {FEWEST_SERIES} or more"
        )
    panel, season = panel.without_alone().with_own_ends(), panel.frequency.season
    folds = rolling_origins(panel.n_periods, panel.horizon, season)
    _warn_of_untested(panel, panel.n_periods - folds[0], folds[0])
    segments, assignment = fit_segments(panel, config, stages)
    sampled = _some_series(panel, config.random_state)
    labels = {None: assignment.labels[sampled]} | {
        fold: assign_shapes(
            segments.segmentation, shape_features(panel.y[sampled, :fold], season)
        ).labels
        for fold in folds
    }
    part = panel.take(sampled)
    covariates = Covariates() if schema is None else schema.covariates_of(part)
    outputs: dict[str, _FittedOutput] = {}
    with model_threads() as threads:
        for name in (panel.target, *panel.resources):
            is_target = name == panel.target
            with stages("TimeSeries-LGB" if is_target else "Resource-LGB") as stage:
                fit = _OutputFit(threads, part, name, folds, labels, config, covariates)
                outputs[name] = fit.fit(changed_params(config, is_target))
                prefix = "" if is_target else f"{name}_"
                mase = outputs[name].scores["mase"]
                stage.log({f"{prefix}mase_{way}": value for way, value in mase.items()})
    target = outputs[panel.target]
    _warn_of_few(target.scores["folds"][-1]["n_series"], len(part))
    shapes = target.backtest.shapes(part)
    known = ~np.isnan(shapes).any(axis=1)
    resources = {name: outputs[name].scores for name in panel.resources}
    return SeriesFit(
        segments.segmentation,
        segments.result,
        assignment,
        {name: output.model for name, output in outputs.items()},
        target.scores | {"resources": resources, "origins": list(folds)},
        shapes[known],
        target.losses[known],
    )


def _warn_of_untested(panel: Panel, tested: int, first: int) -> None:
    if tested < panel.horizon:
        caution(
            f"only {tested} of the {panel.horizon} steps of the horizon could be tested: the "
            f"longest series has {panel.n_periods} periods; errors are of those steps and later "
            f"ones have their intervals; give horizon {tested} or less, or "
            f"{first + panel.horizon} periods or more"
        )


def _warn_of_few(n_evaluated: int, n_series: int) -> None:
    if n_evaluated < max(FEWEST_SERIES, _FEWEST_EVALUATED * n_series):
        caution(
            f"only {n_evaluated} of {n_series} series have values before and after the newest "
            "rolling origin, so shares and intervals hang on these few; give longer series, or "
            "lower the horizon"
        )


def changed_params(config: PipelineConfig, is_target: bool) -> dict[str, Any]:
    """The LightGBM parameters that differ from the defaults of `PipelineConfig`."""
    name = "lgb_timeseries_params" if is_target else "lgb_resource_params"
    defaults = getattr(PipelineConfig(), name)
    own = {k: v for k, v in getattr(config, name).items() if defaults.get(k) != v}
    return own | {"seed": config.random_state}


def _some_series(panel: Panel, random_state: int) -> np.ndarray:
    """Positions of all series, or of a seeded sample, sorted."""
    if len(panel) <= _MOST_SERIES:
        return np.arange(len(panel))
    rng = np.random.default_rng(random_state)
    return np.sort(rng.choice(len(panel), _MOST_SERIES, replace=False))


@one_line
@dataclass(frozen=True)
class _FittedOutput:
    model: SeriesModel
    scores: dict[str, Any]
    backtest: Backtest
    losses: np.ndarray

    @property
    def problem(self) -> str | None:
        """Why its models may not be served, after their forecasts of the folds; None if they
        may."""
        mase, replaced = self.scores["mase"], self.scores["replaced"]
        if replaced > _MOST_REPLACED:
            return f"{replaced:.0%} of their forecasts on the folds leave the reach of their series"
        best = min(mase[way] for way in (*WAYS[2:], "seasonal_naive"))
        if not mase["blend"] <= _MOST_TIMES_WORSE * best:
            return (
                f"their error on the folds (MASE {mase['blend']:.3g}) is more than "
                f"{_MOST_TIMES_WORSE:g} times that of the best simple forecast ({best:.3g})"
            )
        return None


class _OutputFit:
    """The fit of one output: models, shares, intervals and scores.

    Parameters
    ----------
    labels : mapping of int or None to ndarray of int64, shape (n_series,)
        Segments of the series as they were at each fold's origin, and (None) at the end.
    """

    def __init__(
        self,
        threads: Executor,
        panel: Panel,
        name: str,
        folds: tuple[int, ...],
        labels: Mapping[Any, np.ndarray],
        config: PipelineConfig,
        covariates: Covariates,
    ) -> None:
        self._threads, self._panel, self._name = threads, panel, name
        self._labels, self._config = labels, config
        clip, seed = config.clip_to_support, config.random_state
        self._examples = make_examples(panel, name, folds, seed, clip=clip, covariates=covariates)

    def fit(self, params: Mapping[str, Any]) -> _FittedOutput:
        """LightGBM models whose forecasts of the folds leave all reason are left out, with a
        warning: the bases serve alone then."""
        examples, labels = self._examples, self._labels
        if len(examples.known_at(examples.folds[0])) < _FEWEST_ROWS:
            return self._bases_alone()
        corrections = _Corrections(self._threads, examples, params)
        rounds, everywhere = corrections.everywhere()
        if self._config.combine == "global":
            backtest = Backtest.of(examples, everywhere, everywhere, labels)
            texts = corrections.kept(rounds, np.full_like(labels[None], NOISE))
            return self._checked(backtest, texts, rounds)
        own = corrections.in_segments(rounds, everywhere, labels)
        backtest = Backtest.of(examples, everywhere, own, labels)
        fitted = self._checked(backtest, corrections.kept(rounds, labels[None]), rounds)
        if fitted.model.texts:
            control = self._control(corrections, rounds, everywhere)
            fitted.scores["mase"]["control"] = float(control.mean())
            fitted.scores["median_mase"]["control"] = float(np.median(control))
            fitted.scores["gain"] = backtest.gain(fitted.losses, control)
        return fitted

    def _checked(
        self, backtest: Backtest, texts: Mapping[int, tuple[str, ...]], rounds: int
    ) -> _FittedOutput:
        fitted = self._put_together(backtest, texts, rounds)
        if fitted.problem is None:
            return fitted
        caution(
            f"the LightGBM models of '{self._name}' are left out, and the exponential filters and "
            "Theta forecast alone; check lgb_timeseries_params and the values: "
            f"{fitted.problem}"
        )
        alone = self._bases_alone()
        return replace(alone, scores=alone.scores | {"left_out": fitted.problem})

    def _bases_alone(self) -> _FittedOutput:
        """The output without LightGBM models."""
        examples = self._examples
        bank = {fold: examples.rows.bank[examples.evaluated_at(fold)] for fold in examples.folds}
        return self._put_together(Backtest.of(examples, bank, bank, self._labels), {}, 0)

    def _put_together(
        self, backtest: Backtest, texts: Mapping[int, tuple[str, ...]], rounds: int
    ) -> _FittedOutput:
        """Shares, intervals and scores of models, from what they forecast at the folds."""
        examples, panel, config = self._examples, self._panel, self._config
        rows, values = examples.evaluated_rows, panel.values[self._name]
        shares = backtest.shares(texts, config.combine)
        found, ces_share = backtest.served(shares)
        served, replaced = rows.within_reach(found, backtest.case)
        residuals, weights = backtest.truth - served, backtest.weights[backtest.case]
        folds = backtest.origins[backtest.case]
        widths = Widths.fit(rows.signs, residuals, weights, folds)
        calibration = StepCalibration.fit(
            self._widened() * residuals / widths.of(rows.signs, rows.spread),
            examples.steps[examples.n_train :],
            backtest.labels[backtest.case],
            weights,
            panel.horizon,
        )
        losses = backtest.way_losses | {
            "blend": backtest.losses(served),
            "seasonal_naive": backtest.losses(rows.naive),
        }
        whole = Support.of(values[~np.isnan(values)], whole=config.round_intervals).whole
        model = SeriesModel(
            texts,
            shares,
            calibration,
            panel.frequency.season,
            panel.horizon,
            examples.scaling.on_logs,
            examples.scaling.usual,
            examples.scaling.least,
            whole,
            widths,
            examples.scaling.longer,
            examples.scaling.prior,
            examples.scaling.filters,
            ces_share,
        )
        scores = backtest.scores(losses, shares, rounds)
        scores |= {"replaced": float(replaced.mean()), "ces_share": ces_share}
        return _FittedOutput(model, scores, backtest, np.minimum(losses["blend"], LARGEST_LOSS))

    def _widened(self) -> float:
        """Factor of all widths where the folds hold fewer than two whole horizons.

        It was chosen on eight panels of 36 periods (hospital, pbs, m1): 76% of their outcomes
        were inside 80% intervals without it and 80% with it. On 13 others (NN5, M4 hourly,
        simulated counts) it was 83% and 87%: rather too wide than too narrow.
        """
        examples = self._examples
        tested = sum(int(examples.steps[examples.evaluated_at(f)].max()) for f in examples.folds)
        return 1.0 + _WIDENED * max(0.0, _ENOUGH_HORIZONS - tested / self._panel.horizon)

    def _control(
        self, corrections: _Corrections, rounds: int, everywhere: Mapping[int, np.ndarray]
    ) -> np.ndarray:
        """Losses of the same blend with the segments shuffled among the series."""
        rng = np.random.default_rng(self._config.random_state)
        order = rng.permutation(len(self._labels[None]))
        shuffled = {fold: labels[order] for fold, labels in self._labels.items()}
        own = corrections.in_segments(rounds, everywhere, shuffled)
        backtest = Backtest.of(self._examples, everywhere, own, shuffled)
        shares = backtest.shares({NOISE, *backtest.labels.tolist()}, self._config.combine)
        return backtest.losses(backtest.served(shares)[0])


class _Corrections:
    """LightGBM models of what the bases miss: of the folds, which choose, and those that stay.

    Parameters
    ----------
    params : mapping
        LightGBM parameters, laid over those of series.
    """

    def __init__(self, threads: Executor, examples: Examples, params: Mapping[str, Any]) -> None:
        self._threads, self._examples = threads, examples
        settings: dict[str, Any] = _PARAMS | dict(params)
        self._rounds: tuple[int, ...] = _ROUNDS
        if "n_estimators" in settings:
            self._rounds = (int(settings["n_estimators"]),)
        smallest = min(int(settings["min_data_in_leaf"]), max(20, examples.n_train // 100))
        self._settings = settings | {"min_data_in_leaf": smallest}

    def _train(self, rows: np.ndarray, rounds: int) -> list[lgb.Booster]:
        """A model of each base's error."""
        settings = self._settings | {"n_estimators": rounds}
        targets = {name: y[rows] for name, y in self._examples.targets.items()}
        X = self._examples.rows.X[rows]
        codes = range(X.shape[1] - self._examples.n_categories, X.shape[1])
        boosters = train_boosters(X, targets, settings, codes)
        return [booster for _, booster in boosters]

    def _corrected(
        self, boosters: Sequence[lgb.Booster], rows: np.ndarray, rounds: int
    ) -> np.ndarray:
        """The mean of the two corrected bases, scaled, shape (len(rows),)."""
        bases = self._examples.rows
        corrections = [
            booster.predict(bases.X[rows], num_iteration=rounds, num_threads=1)
            for booster in boosters
        ]
        return bases.corrected_base(self._examples.scaling.longer)[rows] + np.mean(
            corrections, axis=0
        )

    def everywhere(self) -> tuple[int, dict[int, np.ndarray]]:
        """The number of trees that the folds like best, and their forecasts with it."""
        examples = self._examples

        def forecasts(fold: int) -> list[np.ndarray]:
            boosters = self._train(examples.known_at(fold), self._rounds[-1])
            rows = examples.evaluated_at(fold)
            return [self._corrected(boosters, rows, rounds) for rounds in self._rounds]

        def error(fold: int, i: int) -> float:
            return float(np.abs(examples.truth[examples.evaluated_at(fold)] - made[fold][i]).mean())

        made = dict(zip(examples.folds, self._threads.map(forecasts, examples.folds), strict=True))
        errors = [
            np.mean([error(fold, i) for fold in examples.folds]) for i in range(len(self._rounds))
        ]
        best = int(np.argmin(errors))
        likes_most = self._rounds == _ROUNDS and best == len(_ROUNDS) - 1
        if likes_most and examples.scaling.longer:
            self._rounds = _MORE_ROUNDS
            return self.everywhere()
        return self._rounds[best], {fold: made[fold][best] for fold in examples.folds}

    def in_segments(
        self, rounds: int, everywhere: Mapping[int, np.ndarray], labels: Mapping[Any, np.ndarray]
    ) -> dict[int, np.ndarray]:
        """Forecasts of the segments' own models, those of all series where there are none."""
        examples = self._examples
        jobs: list[tuple[int, np.ndarray, Future[Any]]] = []
        for fold in examples.folds:
            train, evaluated = examples.known_at(fold), examples.evaluated_at(fold)
            own, asked = (labels[fold][examples.series[rows]] for rows in (train, evaluated))
            for cluster, part in _large(own):
                rows = np.flatnonzero(asked == cluster)
                if len(rows):
                    job = self._threads.submit(self._train, train[part], rounds)
                    jobs.append((fold, rows, job))
        found = {fold: everywhere[fold].copy() for fold in examples.folds}
        for fold, rows, job in jobs:
            evaluated = examples.evaluated_at(fold)[rows]
            found[fold][rows] = self._corrected(job.result(), evaluated, rounds)
        return found

    def kept(self, rounds: int, labels: np.ndarray) -> dict[int, tuple[str, ...]]:
        """The models that stay, fitted on all rows, as texts; -1 is that of all series."""
        train = self._examples.known_at(None)
        large = _large(labels[self._examples.series[train]])
        jobs = {
            cluster: self._threads.submit(self._train, rows, rounds)
            for cluster, rows in [(NOISE, train), *((c, train[part]) for c, part in large)]
        }
        texts = {
            cluster: tuple(str(booster.model_to_string()) for booster in job.result())
            for cluster, job in jobs.items()
        }
        if not all(is_packable(text) for found in texts.values() for text in found):
            raise ModelTrainingError(
                "series need LightGBM models that are plain sums of trees; take linear_tree, "
                "boosting_type 'rf' and the like, and the objective, out of the LightGBM parameters"
            )
        return texts


def _large(labels: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """The segments with enough rows for a model of their own, and these rows."""
    return [
        (cluster, rows)
        for cluster, rows in rows_by_cluster(labels)
        if cluster != NOISE and len(rows) >= _CLUSTER_ROWS
    ]
