"""Fits what forecasts series: segments, LightGBM corrections, shares and intervals.

Every choice is made at rolling origins inside the training panel, nothing is split at random:

- a fold's models see what was known at its origin, and are judged on the horizon after it;
- origins lie on the calendar; a series that ended a horizon or more before the others has them
  counted from its own end, so that every series that is long enough takes part;
- the number of trees is the one the folds like best;
- the shares of the ways to forecast are ``prior * (loss / best) ** -20``, a loss of one series
  counting as 10 at most (``clipped`` in the scores is the share of those above, ``clipped_mase``
  the mean with this limit; ``mase`` is the plain mean);
- intervals are quantiles of the folds' residuals.

Values that stand alone in their series (see `series.panel.standing_alone`) take no part.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from typing import Any

import lightgbm as lgb
import numpy as np

from tsclust_model.boosting.boosters import model_threads, train_boosters
from tsclust_model.boosting.intervals import StepCalibration, Support
from tsclust_model.boosting.packed_trees import is_packable
from tsclust_model.boosting.segment_gain import segment_gain
from tsclust_model.clustering.engine import Segmentation
from tsclust_model.config import PipelineConfig
from tsclust_model.errors import DataValidationError, ModelTrainingError, caution
from tsclust_model.results import NOISE, Assignment, ClusteringResult, Stages
from tsclust_model.series.examples import Examples, make_examples, rolling_origins
from tsclust_model.series.features import shape_features
from tsclust_model.series.output_model import WAYS, SeriesModel, blended
from tsclust_model.series.panel import LARGEST_LOSS, Panel
from tsclust_model.series.segments import FEWEST_SERIES, assign_shapes, fit_segments
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

_FEWEST_ROWS, _CLUSTER_ROWS = 300, 1_500

_MOST_SERIES = 20_000

# Segments have to earn their place: on real series they seldom beat the models of all series.
_PRIORS = {"global": 0.4, "cluster": 0.1, "bank": 0.3, "theta": 0.2}

_SHARPNESS = 20.0

_SHRUNK_BY = 100

_FEWEST_JUDGED = 0.1  # of the series, at the newest origin

# Models are not served with more cases out of reach, or an error above the best base's by more.
_MOST_REPLACED, _MOST_TIMES_WORSE = 0.05, 2.0


@one_line
@dataclass(frozen=True)
class SeriesFit:
    """What a fit of series has found.

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
        JSON-ready: what each way of forecasting was worth at the rolling origins.
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


class _Fits:
    """The models of one output: of the folds first, which choose, and then the ones that stay.

    Parameters
    ----------
    examples : Examples
    labels : mapping of int or None to ndarray of int64, shape (n_series,)
        Segments of the series as they were at each fold's origin, and (None) at the end.
    params : mapping
        LightGBM parameters, laid over those of the recipe.
    """

    def __init__(
        self,
        threads: Executor,
        examples: Examples,
        labels: Mapping[int | None, np.ndarray],
        params: Mapping[str, Any],
    ) -> None:
        self._threads, self._examples, self._labels = threads, examples, labels
        settings: dict[str, Any] = _PARAMS | dict(params)
        self._rounds = (int(settings["n_estimators"]),) if "n_estimators" in settings else _ROUNDS
        smallest = min(int(settings["min_data_in_leaf"]), max(20, examples.n_train // 100))
        self._settings = settings | {"min_data_in_leaf": smallest}
        self.enough = len(examples.known_at(examples.folds[0])) >= _FEWEST_ROWS

    def _train(self, rows: np.ndarray, rounds: int) -> list[lgb.Booster]:
        """A model of each base's error."""
        settings = self._settings | {"n_estimators": rounds}
        targets = {name: y[rows] for name, y in self._examples.targets.items()}
        found = train_boosters(self._examples.rows.X[rows], targets, settings)
        return [booster for _, booster in found]

    def _corrected(
        self, boosters: Sequence[lgb.Booster], rows: np.ndarray, rounds: int
    ) -> np.ndarray:
        """The mean of the two corrected bases, scaled, shape (len(rows),)."""
        bases = self._examples.rows
        corrections = [
            booster.predict(bases.X[rows], num_iteration=rounds, num_threads=1)
            for booster in boosters
        ]
        return (bases.bank[rows] + bases.naive[rows]) / 2 + np.mean(corrections, axis=0)

    def everywhere(self) -> tuple[int, dict[int, np.ndarray]]:
        """The number of trees that the folds like best, and their forecasts with it."""
        examples = self._examples

        def forecasts(fold: int) -> list[np.ndarray]:
            boosters = self._train(examples.known_at(fold), self._rounds[-1])
            rows = examples.judged_at(fold)
            return [self._corrected(boosters, rows, rounds) for rounds in self._rounds]

        found = dict(zip(examples.folds, self._threads.map(forecasts, examples.folds), strict=True))
        losses = [
            np.mean(
                [
                    np.abs(examples.truth[examples.judged_at(fold)] - found[fold][i]).mean()
                    for fold in examples.folds
                ]
            )
            for i in range(len(self._rounds))
        ]
        best = int(np.argmin(losses))
        return self._rounds[best], {fold: found[fold][best] for fold in examples.folds}

    def in_segments(
        self, rounds: int, everyone: Mapping[int, np.ndarray], labels: Mapping[Any, np.ndarray]
    ) -> dict[int, np.ndarray]:
        """Forecasts of the segments' own models, those of all series where there are none."""
        examples = self._examples
        jobs: list[tuple[int, np.ndarray, Future[Any]]] = []
        for fold in examples.folds:
            train, judged = examples.known_at(fold), examples.judged_at(fold)
            own, judged_own = (labels[fold][examples.series[rows]] for rows in (train, judged))
            for cluster in _large(own):
                rows = np.flatnonzero(judged_own == cluster)
                if len(rows):
                    job = self._threads.submit(self._train, train[own == cluster], rounds)
                    jobs.append((fold, rows, job))
        found = {fold: everyone[fold].copy() for fold in examples.folds}
        for fold, rows, job in jobs:
            judged = examples.judged_at(fold)[rows]
            found[fold][rows] = self._corrected(job.result(), judged, rounds)
        return found

    def kept(self, rounds: int) -> dict[int, tuple[str, ...]]:
        """The models that stay, fitted on all rows, as texts; -1 is that of all series."""
        train = self._examples.known_at(None)
        own = self._labels[None][self._examples.series[train]]
        rows = {NOISE: train} | {cluster: train[own == cluster] for cluster in _large(own)}
        jobs = {
            cluster: self._threads.submit(self._train, part, rounds)
            for cluster, part in rows.items()
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


def _large(labels: np.ndarray) -> list[int]:
    clusters, counts = np.unique(labels, return_counts=True)
    large = clusters[counts >= _CLUSTER_ROWS]
    return [int(cluster) for cluster in large if cluster != NOISE]


@one_line
@dataclass(frozen=True)
class _Judged:
    """Forecasts of one output at the folds, and how good each was for its series.

    Attributes
    ----------
    ways : ndarray of float64, shape (4, m)
        Scaled forecasts of `WAYS`.
    case : ndarray of int64, shape (m,)
        Series and fold of each row, numbered.
    labels : ndarray of int64, shape (n_cases,)
        Segment of the series of each case at its origin.
    weights : ndarray of float64, shape (n_cases,)
        How much each case counts, by its fold.
    """

    examples: Examples
    ways: np.ndarray
    case: np.ndarray
    labels: np.ndarray
    weights: np.ndarray

    def losses(self, forecast: np.ndarray) -> np.ndarray:
        """Mean absolute scaled error of each case, shape (n_cases,)."""
        missed = np.abs(self.examples.truth[self.examples.n_train :] - forecast)
        return np.bincount(self.case, missed) / np.bincount(self.case)


def _judged(
    examples: Examples, everyone: np.ndarray, own: np.ndarray, labels: Mapping[Any, np.ndarray]
) -> _Judged:
    rows = slice(examples.n_train, None)
    series, origins = examples.series[rows], examples.origins[rows]
    keys = series * (origins.max() + 1) + origins
    found, case = np.unique(keys, return_inverse=True)
    who, when = np.divmod(found, origins.max() + 1)
    segments = np.array([labels[int(o)][s] for s, o in zip(who, when, strict=True)], dtype=np.int64)
    bases = examples.rows
    ways = np.array([everyone, own, bases.bank[rows], bases.theta[rows]])
    weights = np.array([examples.weight_of(int(fold)) for fold in when])
    return _Judged(examples, ways, case, segments, weights)


def _shares(
    losses: Mapping[str, np.ndarray],
    labels: np.ndarray,
    case_weights: np.ndarray,
    own: Collection[int],
    combine: str,
) -> dict[int, tuple[float, ...]]:
    """Shares of the ways: of series without a segment (-1), and of each segment.

    ``prior * (loss / best) ** -20``; a segment's log ratios are shrunk towards those of all series
    by ``n / (n + 100)``. `own` are the segments with models of their own, and -1 if there is any
    model at all.
    """
    clipped = {way: np.minimum(found, LARGEST_LOSS) for way, found in losses.items()}
    models = _PRIORS["global"] + _PRIORS["cluster"] if NOISE in own else 0.0
    priors = _PRIORS | {"global": models, "cluster": 0.0}

    def logs(rows: np.ndarray) -> np.ndarray:
        means = np.array(
            [np.average(clipped[way][rows], weights=case_weights[rows]) for way in WAYS]
        )
        return np.log(np.maximum(means, 1e-12) / max(means.min(), 1e-12))

    def shares(ratios: np.ndarray, prior: Mapping[str, float]) -> tuple[float, ...]:
        weights = np.array([prior[way] for way in WAYS]) * np.exp(-_SHARPNESS * ratios)
        return tuple(float(share) for share in weights / weights.sum())

    everyone = logs(np.ones(len(labels), dtype=bool))
    found = {NOISE: shares(everyone, priors)}  # where no judged series was without a segment
    with_own = {
        "blend": _PRIORS,
        "cluster": priors | {"global": 0.0, "cluster": priors["global"]},
        "global": priors,
    }[combine]
    for cluster in np.unique(labels):
        rows = labels == cluster
        n = int(rows.sum())
        ratios = (n * logs(rows) + _SHRUNK_BY * everyone) / (n + _SHRUNK_BY)
        found[int(cluster)] = shares(
            ratios, with_own if cluster != NOISE and int(cluster) in own else priors
        )
    return found


def fit_series(panel: Panel, config: PipelineConfig, stages: Stages) -> SeriesFit:
    """Fit segments and models of a panel of series.

    Parameters
    ----------
    panel : Panel
        On one calendar.
    config : PipelineConfig
        LightGBM parameters that differ from the defaults, which are made for rows, are laid over
        those of series.
    stages : callable
        See `tsclust_model.rows.model.Stages`.

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
    models, scores, shapes, losses = {}, {}, np.empty((0, 0)), np.empty(0)
    with model_threads() as threads:
        for name in (panel.target, *panel.resources):
            is_target = name == panel.target
            with stages("TimeSeries-LGB" if is_target else "Resource-LGB") as stage:
                params = changed_params(config, is_target)
                fitted = _fit_output(threads, part, name, folds, labels, params, config)
                models[name], scores[name] = fitted.model, fitted.scores
                prefix = "" if is_target else f"{name}_"
                stage.log({f"{prefix}mase_{k}": v for k, v in fitted.scores["mase"].items()})
            if is_target:
                shapes, losses = _shapes_and_losses(part, fitted)
    _warn_of_few(scores[panel.target]["folds"][-1]["n_series"], len(part))
    own = scores.pop(panel.target) | {"resources": scores, "origins": list(folds)}
    return SeriesFit(
        segments.segmentation, segments.result, assignment, models, own, shapes, losses
    )


def _warn_of_untested(panel: Panel, tested: int, first: int) -> None:
    if tested < panel.horizon:
        caution(
            f"only {tested} of the {panel.horizon} steps of the horizon could be tested: the "
            f"longest series has {panel.n_periods} periods; errors are of those steps and later "
            f"ones have their intervals; give horizon {tested} or less, or "
            f"{first + panel.horizon} periods or more"
        )


def _warn_of_few(n_judged: int, n_series: int) -> None:
    if n_judged < max(FEWEST_SERIES, _FEWEST_JUDGED * n_series):
        caution(
            f"only {n_judged} of {n_series} series have values before and after the newest rolling "
            "origin, so shares and intervals hang on these few; give longer series, or lower the "
            "horizon"
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
    judged: _Judged
    losses: np.ndarray


def _fit_output(
    threads: Executor,
    panel: Panel,
    name: str,
    folds: tuple[int, ...],
    labels: Mapping[Any, np.ndarray],
    params: Mapping[str, Any],
    config: PipelineConfig,
) -> _FittedOutput:
    """Models, shares, intervals and scores of one output.

    LightGBM models whose forecasts of the folds leave all reason are left out, with a warning: the
    bases serve alone then.
    """
    clip = config.clip_to_support
    examples = make_examples(panel, name, folds, config.random_state, clip=clip)
    fits = _Fits(threads, examples, labels, params)
    if not fits.enough:
        return _bases_alone(panel, name, examples, labels, config)
    rounds, everyone = fits.everywhere()
    own = everyone
    if config.combine != "global":
        own = fits.in_segments(rounds, everyone, labels)
    judged = _judged(examples, _in_order(examples, everyone), _in_order(examples, own), labels)
    texts = fits.kept(rounds)
    if config.combine == "global":
        texts = {cluster: found for cluster, found in texts.items() if cluster == NOISE}
    fitted = _put_together(panel, name, judged, texts, rounds, config)
    problem = _out_of_reason(fitted)
    if problem is not None:
        caution(
            f"the LightGBM models of '{name}' are left out, and the exponential filters and Theta "
            f"forecast alone; check lgb_timeseries_params and the values: {problem}"
        )
        alone = _bases_alone(panel, name, examples, labels, config)
        return replace(alone, scores=alone.scores | {"left_out": problem})
    if config.combine != "global":
        control = _control(fits, judged, rounds, everyone, labels, config)
        fitted.scores["mase"]["control"] = float(control.mean())
        fitted.scores["median_mase"]["control"] = float(np.median(control))
        fitted.scores["gain"] = _gain(judged, fitted.losses, control)
    return fitted


def _bases_alone(
    panel: Panel,
    name: str,
    examples: Examples,
    labels: Mapping[Any, np.ndarray],
    config: PipelineConfig,
) -> _FittedOutput:
    """An output without LightGBM models."""
    bank = examples.judged_rows.bank
    return _put_together(panel, name, _judged(examples, bank, bank, labels), {}, 0, config)


def _put_together(
    panel: Panel,
    name: str,
    judged: _Judged,
    texts: Mapping[int, tuple[str, ...]],
    rounds: int,
    config: PipelineConfig,
) -> _FittedOutput:
    """Shares, intervals and scores of models, from what they forecast at the folds."""
    examples, rows = judged.examples, judged.examples.judged_rows
    values = panel.values[name]
    losses = dict(zip(WAYS, map(judged.losses, judged.ways), strict=True))
    shares = _shares(losses, judged.labels, judged.weights, texts, config.combine)
    served, replaced = rows.within_reach(
        blended(judged.ways, _share_table(shares, judged.labels[judged.case])), judged.case
    )
    truth, steps = examples.truth[examples.n_train :], examples.steps[examples.n_train :]
    calibration = StepCalibration.fit(
        (truth - served) / rows.spread,
        *(steps, judged.labels[judged.case], judged.weights[judged.case]),
        panel.horizon,
    )
    losses |= {"blend": judged.losses(served), "seasonal_naive": judged.losses(rows.naive)}
    model = SeriesModel(
        *(texts, shares, calibration, panel.frequency.season, panel.horizon),
        *(examples.never_negative, examples.usual_scale, examples.least_scale),
        Support.of(values[~np.isnan(values)], whole=config.round_intervals).whole,
    )
    scores = _scores(judged, losses, shares, rounds) | {"replaced": float(replaced.mean())}
    return _FittedOutput(model, scores, judged, np.minimum(losses["blend"], LARGEST_LOSS))


def _out_of_reason(fitted: _FittedOutput) -> str | None:
    """Why models may not be served, after their forecasts of the folds; None if they may."""
    mase, replaced = fitted.scores["mase"], fitted.scores["replaced"]
    if replaced > _MOST_REPLACED:
        return f"{replaced:.0%} of their forecasts on the folds leave the reach of their series"
    best = min(mase[way] for way in ("bank", "theta", "seasonal_naive"))
    if not mase["blend"] <= _MOST_TIMES_WORSE * best:
        return (
            f"their error on the folds (MASE {mase['blend']:.3g}) is more than "
            f"{_MOST_TIMES_WORSE:g} times that of the best simple forecast ({best:.3g})"
        )
    return None


def _in_order(examples: Examples, by_fold: Mapping[int, np.ndarray]) -> np.ndarray:
    """Forecasts of the folds in the order of the judged rows."""
    found = np.empty(len(examples.truth) - examples.n_train)
    for fold, forecast in by_fold.items():
        found[examples.judged_at(fold) - examples.n_train] = forecast
    return found


def _share_table(shares: Mapping[int, tuple[float, ...]], labels: np.ndarray) -> np.ndarray:
    known, inverse = np.unique(labels, return_inverse=True)
    return np.array([shares[int(label)] for label in known])[inverse]


def _control(
    fits: _Fits,
    judged: _Judged,
    rounds: int,
    everyone: Mapping[int, np.ndarray],
    labels: Mapping[Any, np.ndarray],
    config: PipelineConfig,
) -> np.ndarray:
    """Losses of the same blend with the segments shuffled among the series."""
    rng = np.random.default_rng(config.random_state)
    order = rng.permutation(len(labels[None]))
    shuffled = {fold: found[order] for fold, found in labels.items()}
    examples = judged.examples
    own = fits.in_segments(rounds, everyone, shuffled)
    other = _judged(examples, judged.ways[0], _in_order(examples, own), shuffled)
    losses = dict(zip(WAYS, map(other.losses, other.ways), strict=True))
    shares = _shares(
        losses, other.labels, other.weights, {NOISE, *other.labels.tolist()}, config.combine
    )
    return other.losses(blended(other.ways, _share_table(shares, other.labels[other.case])))


def _scores(
    judged: _Judged,
    losses: Mapping[str, np.ndarray],
    shares: Mapping[int, tuple[float, ...]],
    rounds: int,
) -> dict[str, Any]:
    """JSON-ready figures: mean and median MASE of each way, and of what is served by segment."""
    served = losses["blend"]
    gain = losses["global"] - served
    n = len(served)
    return {
        "gain": None,  # without a control
        "n_forecasts": n,
        "folds": [_fold_sizes(judged.examples, fold) for fold in judged.examples.folds],
        "n_trees": rounds,
        "mase": {way: float(found.mean()) for way, found in losses.items()},
        "median_mase": {way: float(np.median(found)) for way, found in losses.items()},
        "clipped": {way: float((found > LARGEST_LOSS).mean()) for way, found in losses.items()},
        "n_series_clipped": len(np.unique(_cases(judged)[0][served > LARGEST_LOSS])),
        "clipped_mase": {
            way: float(np.minimum(found, LARGEST_LOSS).mean()) for way, found in losses.items()
        },
        "gain_over_global": {
            "mean": float(gain.mean()),
            "standard_error": float(gain.std(ddof=1) / np.sqrt(n)) if n > 1 else None,
        },
        "shares": {str(c): dict(zip(WAYS, found, strict=True)) for c, found in shares.items()},
        "cluster_weight": float(_share_table(shares, judged.labels)[:, 1].mean()),
        "clusters": {
            int(cluster): {
                "mase": float(served[judged.labels == cluster].mean()),
                "n_forecasts": int((judged.labels == cluster).sum()),
            }
            for cluster in np.unique(judged.labels)
        },
    }


def _fold_sizes(examples: Examples, fold: int) -> dict[str, int]:
    """How many series a fold has, and values that are forecast."""
    rows = examples.judged_at(fold)
    return {
        "origin": fold,
        "n_series": len(np.unique(examples.series[rows])),
        "n_forecasts": len(rows),
    }


def _gain(judged: _Judged, served: np.ndarray, control: np.ndarray) -> dict[str, Any] | None:
    """What the segments save beyond shuffled ones; no series loses more than the largest loss."""
    series, origins = _cases(judged)
    everyone = judged.losses(judged.ways[WAYS.index("global")])
    found = segment_gain(
        *(np.minimum(losses, LARGEST_LOSS) for losses in (everyone, served, control)),
        root=False,
        parts=origins,
        units=series,
        only_segments=False,  # bank and Theta are blended in, too
    )
    return None if found is None else found.to_dict()


def _cases(judged: _Judged) -> tuple[np.ndarray, np.ndarray]:
    """Series and origin of each case, shape (n_cases,) each."""
    _, first = np.unique(judged.case, return_index=True)
    rows = judged.examples.n_train + first
    return judged.examples.series[rows], judged.examples.origins[rows]


def _shapes_and_losses(panel: Panel, fitted: _FittedOutput) -> tuple[np.ndarray, np.ndarray]:
    """Shapes of the judged series at their origins, and how well they were forecast."""
    judged = fitted.judged
    series, origins = _cases(judged)
    shapes = np.empty((len(series), 0))
    for fold in judged.examples.folds:
        own = origins == fold
        found = shape_features(panel.y[series[own], :fold], panel.frequency.season)
        if not shapes.shape[1]:
            shapes = np.full((len(series), found.shape[1]), np.nan)
        shapes[own] = found
    known = ~np.isnan(shapes).any(axis=1)
    return shapes[known], fitted.losses[known]
