"""The configuration: one validated, immutable dataclass, from Python, a dict or YAML."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import yaml
from pydantic import Field

from tsclust_model.config_files import (
    Columns,
    Count,
    Coverage,
    Flag,
    Folder,
    Fraction,
    Names,
    NonNegative,
    Positive,
    Rules,
    SampleSize,
    Seed,
    Share,
    Switch,
    WholeNumber,
    always,
    must,
    one_of,
    plain,
    read_yaml,
    told,
)
from tsclust_model.errors import ConfigurationError, suggestion

Config = TypeVar("Config")

Params = dict[str, Any]
"""Arguments that a library takes, by name."""

NAME_PATTERN = re.compile(r"(?!\.|.*\.\.)[A-Za-z0-9._-]{1,64}")
"""Names that users give: models, versions, profiles; they stand in paths."""

NAME_CHARACTERS = "A-Z a-z 0-9 . _ -, no dot first and no .. anywhere"

_HDBSCAN_DEFAULTS: Params = {
    "min_cluster_size": 5,
    "min_samples": 3,
    "cluster_selection_epsilon": 0.0,
    "prediction_data": True,
    "cluster_selection_method": "eom",
}
_TIMESERIES_DEFAULTS: Params = {
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
_RESOURCE_DEFAULTS: Params = _TIMESERIES_DEFAULTS | {
    "num_leaves": 15,
    "learning_rate": 0.1,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.7,
}
_KNN_DEFAULTS: Params = {
    "n_neighbors": 5,
    "weights": "distance",
    "algorithm": "auto",
    "metric": "euclidean",
}

_PRESETS: dict[str, Params] = {
    name: {
        "hdbscan_params": {
            "min_cluster_size": size, "min_samples": samples, "cluster_selection_epsilon": epsilon
        },
        "lgb_timeseries_params": lgb,
        "noise_threshold": noise,
        "batch_size": batch,
        "expanding_window_size": window,
    }
    for name, (size, samples, epsilon), (noise, batch, window), lgb in (
        ("small", (8, 3, 0.1), (0.25, 50, 1000),
         {"num_leaves": 15, "learning_rate": 0.08, "n_estimators": 50}),
        ("large", (100, 30, 0.0), (0.35, 2000, 30000),
         {"num_leaves": 127, "learning_rate": 0.03, "n_estimators": 200}),
        ("medical", (25, 10, 0.1), (0.25, 200, 8000),
         {"num_leaves": 50, "learning_rate": 0.04, "n_estimators": 150,
          "lambda_l1": 0.1, "lambda_l2": 0.1}),
    )
}  # fmt: skip

Name = Annotated[
    str,
    must(NAME_PATTERN.fullmatch),
    Field(description=f"1 to 64 characters of {NAME_CHARACTERS}"),
]

# Metrics of scikit-learn's search trees that need no further arguments.
_METRICS = (
    *("euclidean", "l2", "manhattan", "l1", "cityblock", "chebyshev", "infinity"),
    *("minkowski", "p", "canberra", "braycurtis", "hamming"),
)


_HDBSCAN_RULES: dict[str, Any] = {
    "min_cluster_size": Annotated[int, Field(ge=2)],
    "min_samples": Count | None,
    "cluster_selection_epsilon": NonNegative,
    "cluster_selection_epsilon_max": Positive,
    "cluster_selection_persistence": NonNegative,
    "cluster_selection_method": Literal["eom", "leaf"],
    "prediction_data": always(True, "without it new rows cannot be assigned"),
    "allow_single_cluster": always(
        False, "with it hdbscan assigns new rows differently from the rows it was fitted on"
    ),
    "max_cluster_size": WholeNumber,
    "metric": told(
        Literal[_METRICS],
        "the name of a metric with a search tree (not 'precomputed'): " + ", ".join(_METRICS),
    ),
    "p": Positive | None,
    "alpha": Positive,
    "algorithm": Literal[
        "best", "generic", "prims_kdtree", "prims_balltree", "boruvka_kdtree", "boruvka_balltree"
    ],
    "leaf_size": Count,
    "approx_min_span_tree": Switch,
    "gen_min_span_tree": Switch,
    "core_dist_n_jobs": told(int, "a whole number other than 0", must(bool)),
    "match_reference_implementation": Switch,
}

_OBJECTIVES = (
    *("regression", "regression_l1", "mae", "l1", "l2", "mse", "rmse", "huber", "fair", "poisson"),
    *("quantile", "mape", "gamma", "tweedie"),
)

CLASS_OBJECTIVES = ("binary", "multiclass")
"""Objectives of LightGBM that make the target's numbers classes."""


def _each(names: str, rule: Any) -> dict[str, Any]:
    return dict.fromkeys(names.split(), rule)


# LightGBM's parameters and their aliases; it ignores a misspelt name without a word.
_LGB_RULES: dict[str, Any] = {
    "objective": Literal[_OBJECTIVES],
    "num_leaves": Annotated[int, Field(ge=2, le=131072)],
    "max_bin": Annotated[int, Field(ge=2)],
    "max_depth": Annotated[int, Field(ge=-1)],
    "tweedie_variance_power": Annotated[float, Field(ge=1, le=2)],
    **_each("boosting_type boosting", Literal["gbdt", "dart", "goss", "rf"]),
    **_each(
        "random_state seed bagging_freq subsample_freq drop_seed feature_fraction_seed "
        "bagging_seed data_random_seed extra_seed objective_seed",
        WholeNumber,
    ),
    **_each(
        "n_estimators num_iterations num_boost_round num_rounds num_trees min_data_in_bin "
        "min_data_per_group max_cat_threshold max_cat_to_onehot bin_construct_sample_cnt",
        Count,
    ),
    **_each("learning_rate shrinkage_rate eta alpha fair_c", Positive),
    **_each(
        "feature_fraction colsample_bytree feature_fraction_bynode colsample_bynode "
        "bagging_fraction subsample top_rate other_rate",
        Fraction,
    ),
    **_each(
        "lambda_l1 reg_alpha lambda_l2 reg_lambda linear_lambda min_gain_to_split min_split_gain "
        "min_data_in_leaf min_child_samples min_sum_hessian_in_leaf min_child_weight cat_l2 "
        "cat_smooth path_smooth drop_rate skip_drop poisson_max_delta_step max_drop",
        NonNegative,
    ),
    **_each(
        "extra_trees xgboost_dart_mode uniform_drop linear_tree boost_from_average reg_sqrt "
        "zero_as_missing use_missing feature_pre_filter enable_bundle",
        Switch,
    ),
    **_each(
        "metric verbose verbosity max_delta_step monotone_constraints "
        "monotone_constraints_method monotone_penalty feature_contri interaction_constraints",
        Any,
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

_KNN_RULES: dict[str, Any] = {
    "n_neighbors": Count,
    "weights": Literal["distance", "uniform"],
    "algorithm": told(
        Literal["auto", "kd_tree", "ball_tree"],
        "'auto', 'kd_tree' or 'ball_tree' ('brute' makes a row's answer depend on its batch)",
    ),
    "metric": told(
        Literal[_METRICS], "the name of a metric with a search tree: " + ", ".join(_METRICS)
    ),
    "leaf_size": Count,
    "p": told(Annotated[float, Field(ge=1)], "a number of at least 1: no metric else"),
}


_SECTIONS: dict[str, tuple[Params, Rules]] = {
    "hdbscan_params": (_HDBSCAN_DEFAULTS, Rules(_HDBSCAN_RULES)),
    "lgb_timeseries_params": (
        _TIMESERIES_DEFAULTS,
        Rules(_LGB_RULES | {"objective": Literal[(*_OBJECTIVES, *CLASS_OBJECTIVES)]}),
    ),
    "lgb_resource_params": (_RESOURCE_DEFAULTS, Rules(_LGB_RULES)),
    "knn_params": (_KNN_DEFAULTS, Rules(_KNN_RULES)),
}

_PRESET = Rules({"preset": Literal[tuple(_PRESETS)]})


def _section(name: str, given: Any) -> Params:
    """One of the parameter dicts, laid over its defaults and checked key by key."""
    defaults, rules = _SECTIONS[name]
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{name} is {type(given).__name__}; it must be a mapping")
    for key in given:
        if key not in rules.types:
            raise ConfigurationError(
                f"{name} has no key '{key}'{suggestion(str(key), rules.types)}"
            )
    values = plain(given)
    rules.check(values, f"{name}.")
    params: Params = {}
    for key, value in values.items():
        canonical = str(_ALIASES.get(key, key))
        if canonical in params:
            raise ConfigurationError(f"{name} sets '{canonical}' twice, under two names; keep one")
        params[canonical] = value
    return defaults | params


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


def _require_known(names: Iterable[str]) -> None:
    known = [item.name for item in dataclasses.fields(PipelineConfig)]
    for name in names:
        if name not in known:
            hint = suggestion(str(name), known)
            raise ConfigurationError(f"unknown configuration key '{name}'{hint}")


def _refusing_unknown(config: type[Config]) -> type[Config]:
    """Let the constructor name an unknown argument as `from_dict` does, not in a TypeError."""
    construct: Any = config.__init__

    @functools.wraps(construct)
    def named(self: Any, *values: Any, **given: Any) -> None:
        _require_known(given)
        construct(self, *values, **given)

    setattr(config, "__init__", named)  # noqa: B010 (mypy)
    return config


@_refusing_unknown
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

    hdbscan_params: Params = field(default_factory=dict)
    lgb_timeseries_params: Params = field(default_factory=dict)
    lgb_resource_params: Params = field(default_factory=dict)
    knn_params: Params = field(default_factory=dict)
    task: Annotated[str, one_of("auto", "regression", "classification")] = "auto"
    noise_threshold: Share = 0.3
    batch_size: Count = 1000
    expanding_window_size: Count = 10000
    experiment_name: Name = "TimeSeries-Clustering-Pipeline"
    model_registry_prefix: Name = "timeseries-clustering"
    hospital_profile_id: Name | None = None
    cluster_features: Columns | None = None
    min_cluster_rows: Count = 40
    max_fit_rows: SampleSize = 200_000
    max_reference_rows: SampleSize | None = None
    missing_values: Annotated[str, one_of("error", "impute")] = "error"
    missing_markers: Names = field(default_factory=lambda: [""])
    drop_columns: Names = field(default_factory=list)
    audit_columns: Names = field(default_factory=list)
    planning_columns: Names = field(default_factory=list)
    show_ids: Flag = False
    gap_policy: Annotated[str, one_of("error", "fill", "drop")] = "error"
    combine: Annotated[str, one_of("blend", "cluster", "global")] = "blend"
    coverage: Coverage = 0.9
    clip_to_support: Switch = True
    round_intervals: Switch = True
    serialization: Annotated[str, one_of("cloudpickle", "code")] = "cloudpickle"
    promotion_margin: Share = 0.0
    retrain_cooldown_batches: WholeNumber = 10
    history_dir: Folder | None = None
    row_hashes: Flag = True
    random_state: Seed = 42

    def __post_init__(self) -> None:
        for name in _SECTIONS:
            object.__setattr__(self, name, _section(name, getattr(self, name)))
        values = {name: plain(getattr(self, name)) for name in _FIELDS.types}
        _FIELDS.check(values)
        for name, value in values.items():
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
        _require_known(given)
        return cls(**given) if preset is None else cls.preset(preset, **given)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> PipelineConfig:
        """A preset, ``small``, ``large`` or ``medical``, with `changes` merged into it."""
        _PRESET.check({"preset": name})
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


_FIELDS = Rules(
    {
        name: kind
        for name, kind in get_type_hints(PipelineConfig, include_extras=True).items()
        if name not in _SECTIONS
    }
)
