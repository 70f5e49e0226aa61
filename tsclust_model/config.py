"""The configuration: one validated, immutable dataclass, from Python, a dict or YAML."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tsclust_model.config_files import read_yaml
from tsclust_model.errors import ConfigurationError, suggestion

NAME_PATTERN = re.compile(r"(?!\.|.*\.\.)[A-Za-z0-9._-]{1,64}")
"""Names that users give: models, versions, profiles; they stand in paths."""

NAME_CHARACTERS = "A-Z a-z 0-9 . _ -, no dot first and no .. anywhere"

_HDBSCAN_DEFAULTS: dict[str, Any] = {
    "min_cluster_size": 5,
    "min_samples": 3,
    "cluster_selection_epsilon": 0.0,
    "prediction_data": True,
    "cluster_selection_method": "eom",
}
_TIMESERIES_DEFAULTS: dict[str, Any] = {
    "objective": "regression",
    "metric": "rmse",
    "boosting_type": "gbdt",
    "num_leaves": 31,
    "learning_rate": 0.05,
    "feature_fraction": 0.9,
    "bagging_fraction": 0.8,
    "bagging_freq": 5,
    "verbose": -1,
    "random_state": 42,
}
_RESOURCE_DEFAULTS: dict[str, Any] = _TIMESERIES_DEFAULTS | {
    "num_leaves": 15,
    "learning_rate": 0.1,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.7,
}
_KNN_DEFAULTS: dict[str, Any] = {
    "n_neighbors": 5,
    "weights": "distance",
    "algorithm": "auto",
    "metric": "euclidean",
}

_PRESETS: dict[str, dict[str, Any]] = {
    "small": {
        "hdbscan_params": {
            "min_cluster_size": 8,
            "min_samples": 3,
            "cluster_selection_epsilon": 0.1,
        },
        "lgb_timeseries_params": {"num_leaves": 15, "learning_rate": 0.08, "n_estimators": 50},
        "noise_threshold": 0.25,
        "batch_size": 50,
        "expanding_window_size": 1000,
    },
    "large": {
        "hdbscan_params": {
            "min_cluster_size": 100,
            "min_samples": 30,
            "cluster_selection_epsilon": 0.0,
        },
        "lgb_timeseries_params": {"num_leaves": 127, "learning_rate": 0.03, "n_estimators": 200},
        "noise_threshold": 0.35,
        "batch_size": 2000,
        "expanding_window_size": 30000,
    },
    "medical": {
        "hdbscan_params": {
            "min_cluster_size": 25,
            "min_samples": 10,
            "cluster_selection_epsilon": 0.1,
        },
        "lgb_timeseries_params": {
            "num_leaves": 50,
            "learning_rate": 0.04,
            "n_estimators": 150,
            "lambda_l1": 0.1,
            "lambda_l2": 0.1,
        },
        "noise_threshold": 0.25,
        "batch_size": 200,
        "expanding_window_size": 8000,
    },
}

# A rule is (test, what the value must be). Tests are only asked about values of the right kind.
_Rule = tuple[Any, str]


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < 1e300  # so not infinite, not NaN, and a float can hold it


def _integer(low: int, high: float = math.inf) -> _Rule:
    text = f"a whole number of at least {low}" + ("" if high == math.inf else f", at most {high}")
    return (
        lambda value: (
            isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        ),
        text,
    )


def _number(low: float, high: float, closed: bool = True) -> _Rule:
    if closed:
        return (lambda v: _is_number(v) and low <= v <= high), f"a number from {low:g} to {high:g}"
    return (
        lambda v: _is_number(v) and low < v < high
    ), f"a number above {low:g} and below {high:g}"


def _one_of(*choices: Any) -> _Rule:
    return (lambda value: value in choices), "one of " + ", ".join(map(repr, choices))


def _optional(rule: _Rule) -> _Rule:
    test, text = rule
    return (lambda value: value is None or test(value)), f"{text}, or null"


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and NAME_PATTERN.fullmatch(value) is not None


def _is_name_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


_BOOLEAN: _Rule = _one_of(True, False)
_ANY: _Rule = (lambda value: True), "anything"
_NON_NEGATIVE: _Rule = (lambda value: _is_number(value) and value >= 0), "a number of at least 0"
_POSITIVE: _Rule = (lambda value: _is_number(value) and value > 0), "a number above 0"
_FRACTION: _Rule = (
    (lambda value: _is_number(value) and 0 < value <= 1),
    "a number above 0, at most 1",
)
_NAME: _Rule = (
    _is_name,
    f"1 to 64 characters of {NAME_CHARACTERS}",
)
_NAME_LIST: _Rule = (_is_name_list, "a list of texts")

# Metrics of scikit-learn's search trees that need no further arguments.
_METRICS = (
    "euclidean",
    "l2",
    "manhattan",
    "l1",
    "cityblock",
    "chebyshev",
    "infinity",
    "minkowski",
    "p",
    "canberra",
    "braycurtis",
    "hamming",
)

_HDBSCAN_RULES: dict[str, _Rule] = {
    "min_cluster_size": _integer(2),
    "min_samples": _optional(_integer(1)),
    "cluster_selection_epsilon": _NON_NEGATIVE,
    "cluster_selection_epsilon_max": _POSITIVE,
    "cluster_selection_persistence": _NON_NEGATIVE,
    "cluster_selection_method": _one_of("eom", "leaf"),
    "prediction_data": (
        lambda value: value is True,
        "true: without it new rows cannot be assigned",
    ),
    "allow_single_cluster": (
        lambda value: value is False,
        "false: with it hdbscan assigns new rows differently from the rows it was fitted on",
    ),
    "max_cluster_size": _integer(0),
    "metric": (
        lambda value: value in _METRICS,
        "the name of a metric with a search tree (not 'precomputed'): " + ", ".join(_METRICS),
    ),
    "p": _optional(_POSITIVE),
    "alpha": _POSITIVE,
    "algorithm": _one_of(
        "best", "generic", "prims_kdtree", "prims_balltree", "boruvka_kdtree", "boruvka_balltree"
    ),
    "leaf_size": _integer(1),
    "approx_min_span_tree": _BOOLEAN,
    "gen_min_span_tree": _BOOLEAN,
    "core_dist_n_jobs": (
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value != 0,
        "a whole number other than 0",
    ),
    "match_reference_implementation": _BOOLEAN,
}

_OBJECTIVES = (
    "regression",
    "regression_l1",
    "mae",
    "l1",
    "l2",
    "mse",
    "rmse",
    "huber",
    "fair",
    "poisson",
    "quantile",
    "mape",
    "gamma",
    "tweedie",
)

CLASS_OBJECTIVES = ("binary", "multiclass")
"""Objectives of LightGBM that make the target's numbers classes."""


def _each(names: str, rule: _Rule) -> dict[str, _Rule]:
    return dict.fromkeys(names.split(), rule)


# LightGBM's parameters and their aliases; it ignores a misspelt name without a word.
_LGB_RULES: dict[str, _Rule] = {
    "objective": _one_of(*_OBJECTIVES),
    "num_leaves": _integer(2, 131072),
    "max_bin": _integer(2),
    "max_depth": _integer(-1),
    "tweedie_variance_power": _number(1, 2),
    **_each("boosting_type boosting", _one_of("gbdt", "dart", "goss", "rf")),
    **_each(
        "random_state seed bagging_freq subsample_freq drop_seed feature_fraction_seed "
        "bagging_seed data_random_seed extra_seed objective_seed",
        _integer(0),
    ),
    **_each(
        "n_estimators num_iterations num_boost_round num_rounds num_trees min_data_in_bin "
        "min_data_per_group max_cat_threshold max_cat_to_onehot bin_construct_sample_cnt",
        _integer(1),
    ),
    **_each("learning_rate shrinkage_rate eta alpha fair_c", _POSITIVE),
    **_each(
        "feature_fraction colsample_bytree feature_fraction_bynode colsample_bynode "
        "bagging_fraction subsample top_rate other_rate",
        _FRACTION,
    ),
    **_each(
        "lambda_l1 reg_alpha lambda_l2 reg_lambda linear_lambda min_gain_to_split min_split_gain "
        "min_data_in_leaf min_child_samples min_sum_hessian_in_leaf min_child_weight cat_l2 "
        "cat_smooth path_smooth drop_rate skip_drop poisson_max_delta_step max_drop",
        _NON_NEGATIVE,
    ),
    **_each(
        "extra_trees xgboost_dart_mode uniform_drop linear_tree boost_from_average reg_sqrt "
        "zero_as_missing use_missing feature_pre_filter enable_bundle",
        _BOOLEAN,
    ),
    **_each(
        "metric verbose verbosity max_delta_step monotone_constraints "
        "monotone_constraints_method monotone_penalty feature_contri interaction_constraints",
        _ANY,
    ),
}

# A default under one name would win over a value given under another: LightGBM takes the first.
_ALIASES = {
    alias: canonical
    for canonical, aliases in {
        "n_estimators": "num_iterations num_boost_round num_rounds num_trees",
        "learning_rate": "shrinkage_rate eta",
        "boosting_type": "boosting",
        "random_state": "seed",
        "verbose": "verbosity",
        "feature_fraction": "colsample_bytree",
        "feature_fraction_bynode": "colsample_bynode",
        "bagging_fraction": "subsample",
        "bagging_freq": "subsample_freq",
        "lambda_l1": "reg_alpha",
        "lambda_l2": "reg_lambda",
        "min_gain_to_split": "min_split_gain",
        "min_data_in_leaf": "min_child_samples",
        "min_sum_hessian_in_leaf": "min_child_weight",
    }.items()
    for alias in aliases.split()
}

_KNN_RULES: dict[str, _Rule] = {
    "n_neighbors": _integer(1),
    "weights": _one_of("distance", "uniform"),
    "algorithm": (
        lambda value: value in ("auto", "kd_tree", "ball_tree"),
        "'auto', 'kd_tree' or 'ball_tree' ('brute' makes a row's answer depend on its batch)",
    ),
    "metric": (
        lambda value: value in _METRICS,
        "the name of a metric with a search tree: " + ", ".join(_METRICS),
    ),
    "leaf_size": _integer(1),
    "p": (lambda value: _is_number(value) and value >= 1, "a number of at least 1: no metric else"),
}

_SECTIONS: dict[str, tuple[dict[str, Any], dict[str, _Rule]]] = {
    "hdbscan_params": (_HDBSCAN_DEFAULTS, _HDBSCAN_RULES),
    "lgb_timeseries_params": (
        _TIMESERIES_DEFAULTS,
        _LGB_RULES | {"objective": _one_of(*_OBJECTIVES, *CLASS_OBJECTIVES)},
    ),
    "lgb_resource_params": (_RESOURCE_DEFAULTS, _LGB_RULES),
    "knn_params": (_KNN_DEFAULTS, _KNN_RULES),
}

_RULES: dict[str, _Rule] = {
    "task": _one_of("auto", "regression", "classification"),
    "noise_threshold": _number(0, 1),
    "batch_size": _integer(1),
    "expanding_window_size": _integer(1),
    "experiment_name": _NAME,
    "model_registry_prefix": _NAME,
    "hospital_profile_id": _optional(_NAME),
    "cluster_features": _optional((lambda v: _is_name_list(v) and len(v) > 0, "a list of columns")),
    "min_cluster_rows": _integer(1),
    "max_fit_rows": _integer(10),
    "max_reference_rows": _optional(_integer(10)),
    "missing_values": _one_of("error", "impute"),
    "missing_markers": _NAME_LIST,
    "drop_columns": _NAME_LIST,
    "audit_columns": _NAME_LIST,
    "planning_columns": _NAME_LIST,
    "gap_policy": _one_of("error", "fill", "drop"),
    "combine": _one_of("blend", "cluster", "global"),
    "coverage": _number(0, 1, closed=False),
    "clip_to_support": _BOOLEAN,
    "round_intervals": _BOOLEAN,
    "serialization": _one_of("cloudpickle", "code"),
    "promotion_margin": _number(0, 1),
    "retrain_cooldown_batches": _integer(0),
    "history_dir": _optional(
        (lambda value: isinstance(value, str) and value != "", "the path of a folder")
    ),
    "show_ids": (lambda value: isinstance(value, bool), "true or false"),
    "row_hashes": (lambda value: isinstance(value, bool), "true or false"),
    "random_state": _integer(0, 2**32 - 1),
}


def _checked(key: str, value: Any, rule: _Rule) -> None:
    test, text = rule
    if not test(value):
        raise ConfigurationError(f"{key} is {value!r}; it must be {text}")


def _section(name: str, given: Any) -> dict[str, Any]:
    """One of the parameter dicts, laid over its defaults and checked key by key."""
    defaults, rules = _SECTIONS[name]
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{name} is {type(given).__name__}; it must be a mapping")
    params: dict[str, Any] = {}
    for key, value in given.items():
        if key not in rules:
            raise ConfigurationError(f"{name} has no key '{key}'{suggestion(str(key), rules)}")
        plain = _plain(value)
        _checked(f"{name}.{key}", plain, rules[key])
        canonical = str(_ALIASES.get(key, key))
        if canonical in params:
            raise ConfigurationError(f"{name} sets '{canonical}' twice, under two names; keep one")
        params[canonical] = plain
    return defaults | params


def _plain(value: Any) -> Any:
    """A copy without numpy: its numbers become Python's, its arrays lists."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value


def _check_objective(task: str, objective: str) -> None:
    """Refuse an objective of the other task; the default one goes with any."""
    other = {
        "regression": CLASS_OBJECTIVES,
        "classification": tuple(name for name in _OBJECTIVES if name != "regression"),
    }
    if objective in other.get(task, ()):
        raise ConfigurationError(
            f"lgb_timeseries_params.objective is '{objective}' and task is '{task}'; "
            "leave one of them out"
        )


@dataclass(frozen=True)
class PipelineConfig:
    """All settings, validated on creation.

    A partial dict is merged into the defaults (``hdbscan_params={'min_cluster_size': 25}`` keeps
    the rest). An unknown key or an invalid value raises a `ConfigurationError` that names it.
    The instance is immutable: ``dataclasses.replace(config, noise_threshold=0.4)`` makes
    another one.

    Parameters
    ----------
    hdbscan_params : dict
        Arguments of ``hdbscan.HDBSCAN``; ``prediction_data`` is always on.
    lgb_timeseries_params, lgb_resource_params : dict
        LightGBM parameters of the target's and of the resources' models. Threads and
        determinism cannot be set.
    knn_params : dict
        Arguments of the nearest-neighbour fallback for noise rows.
    task : {'auto', 'regression', 'classification'}
        Whether the target is a number or a class. 'auto': strings, booleans and categories are
        classes, as are numbers with the objective 'binary' or 'multiclass'.
    noise_threshold : float, 0.3
        Noise ratio (0 to 1) above which a batch counts as drifted.
    batch_size : int, 1000
        Rows scored at a time; results do not depend on it.
    expanding_window_size : int, 10000
        Newest labelled rows that a retrain reads; for series, the newest periods of each.
    experiment_name, model_registry_prefix, hospital_profile_id : str
        Where runs and versions go: the registered model is ``<prefix>``, or
        ``<prefix>-<hospital_profile_id>``.
    cluster_features : list of str or None
        Columns used for clustering; None means all numeric features.
    min_cluster_rows : int, 40
        A cluster with fewer labelled rows uses the global model.
    max_fit_rows : int, 200000
        With more rows, HDBSCAN fits on a seeded sample and the rest is assigned.
    max_reference_rows : int or None
        Scaled training rows kept in the model for its neighbour search; None keeps all.
    missing_values : {'error', 'impute'}
        'impute' gives the clustering medians and LightGBM the gap.
    missing_markers : list of str, [""]
        Strings that mean "missing".
    drop_columns : list of str
        Columns that are never features.
    audit_columns : list of str
        The report shows errors for each group of these columns: does the model serve some people
        worse? They need not be features; ``drop_columns`` keeps them out of the model.
    planning_columns : list of str
        The report shows totals for each group of these columns, such as the ward.
    show_ids : bool, False
        Whether reports name typical rows and series by their ids, which may identify patients;
        otherwise by their number in the table, oldest first.
    gap_policy : {'error', 'fill', 'drop'}
        What happens to series that lack periods: an error that names them, a straight line
        between the neighbours, or the series is left out.
    combine : {'blend', 'cluster', 'global'}
        How global and cluster models are combined; 'blend' uses a cluster's model where it helps.
    coverage : float, 0.9
        Default coverage of the prediction intervals, above 0 and below 1.
    clip_to_support : bool, True
        Forecasts and bounds of a target or resource that was never negative are not negative.
    round_intervals : bool, True
        Bounds of a target of whole numbers are whole numbers; the forecast remains a mean.
    serialization : {'cloudpickle', 'code'}
        'code' logs models-from-code, for servers that do not allow pickle.
    promotion_margin : float, 0.0
        Share of the champion's error that a challenger must save.
    retrain_cooldown_batches : int, 10
        Batches after a retrain in which drift does not start another.
    history_dir : str or None
        Root of the storage folders, one for each registered model; relative to the folder of an
        embedded store. None means ``TSCLUST_STORAGE``, else ``tsclust_storage`` beside an embedded
        store, else for a tracking server a folder in the user's home.
    row_hashes : bool, True
        Whether the model contains salted hashes of its training rows, so that an evaluation can
        leave them out; whoever has the model and a row can tell whether it was trained on.
    random_state : int, 42
        Seed of every sample the package draws.

    Examples
    --------
    >>> config = PipelineConfig(hdbscan_params={"min_cluster_size": 25})
    >>> config.hdbscan_params["min_samples"], config.hdbscan_params["prediction_data"]
    (3, True)
    """

    hdbscan_params: dict[str, Any] = field(default_factory=dict)
    lgb_timeseries_params: dict[str, Any] = field(default_factory=dict)
    lgb_resource_params: dict[str, Any] = field(default_factory=dict)
    knn_params: dict[str, Any] = field(default_factory=dict)
    task: str = "auto"
    noise_threshold: float = 0.3
    batch_size: int = 1000
    expanding_window_size: int = 10000
    experiment_name: str = "TimeSeries-Clustering-Pipeline"
    model_registry_prefix: str = "timeseries-clustering"
    hospital_profile_id: str | None = None
    cluster_features: list[str] | None = None
    min_cluster_rows: int = 40
    max_fit_rows: int = 200_000
    max_reference_rows: int | None = None
    missing_values: str = "error"
    missing_markers: list[str] = field(default_factory=lambda: [""])
    drop_columns: list[str] = field(default_factory=list)
    audit_columns: list[str] = field(default_factory=list)
    planning_columns: list[str] = field(default_factory=list)
    show_ids: bool = False
    gap_policy: str = "error"
    combine: str = "blend"
    coverage: float = 0.9
    clip_to_support: bool = True
    round_intervals: bool = True
    serialization: str = "cloudpickle"
    promotion_margin: float = 0.0
    retrain_cooldown_batches: int = 10
    history_dir: str | None = None
    row_hashes: bool = True
    random_state: int = 42

    def __post_init__(self) -> None:
        for name in _SECTIONS:
            object.__setattr__(self, name, _section(name, getattr(self, name)))
        for name, rule in _RULES.items():
            value = _plain(getattr(self, name))
            _checked(name, value, rule)
            object.__setattr__(self, name, value)
        _check_objective(self.task, self.lgb_timeseries_params["objective"])

    @property
    def registered_model_name(self) -> str:
        """``<model_registry_prefix>``, or ``<prefix>-<hospital_profile_id>``."""
        return "-".join(filter(None, (self.model_registry_prefix, self.hospital_profile_id)))

    def to_dict(self) -> dict[str, Any]:
        """All fields as a plain, deep-copied dict."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any]) -> PipelineConfig:
        """The configuration of a mapping; its key ``preset`` names a preset to start from.

        Raises
        ------
        ConfigurationError
            An unknown key or an invalid value, named.
        """
        if not isinstance(config_dict, Mapping):
            raise ConfigurationError(
                f"the configuration is {type(config_dict).__name__}; it must be a mapping"
            )
        given = dict(config_dict)
        preset = given.pop("preset", None)
        known = [item.name for item in dataclasses.fields(cls)]
        for key in given:
            if key not in known:
                raise ConfigurationError(
                    f"unknown configuration key '{key}'{suggestion(str(key), known)}"
                )
        return cls(**given) if preset is None else cls.preset(preset, **given)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> PipelineConfig:
        """A preset, ``small``, ``large`` or ``medical``, with `changes` merged into it."""
        _checked("preset", name, _one_of(*_PRESETS))
        values: dict[str, Any] = dict(_PRESETS[name])
        for key, value in changes.items():
            if isinstance(values.get(key), Mapping) and isinstance(value, Mapping):
                given = {_ALIASES.get(name, name) for name in value}
                kept = {k: v for k, v in values[key].items() if k not in given}
                values[key] = kept | dict(value)
            else:
                values[key] = value
        return cls(**values)

    @classmethod
    def from_yaml(cls, path: str | Path) -> PipelineConfig:
        """The configuration of a YAML file.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ConfigurationError
            The file is not YAML, or contains an unknown key or an invalid value.
        """
        content = read_yaml(path)
        return cls.from_dict({} if content is None else content)

    def to_yaml(self) -> str:
        """The configuration as YAML text that `from_yaml` reads back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)
