from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tsclust_model.config import PipelineConfig
from tsclust_model.errors import ConfigurationError

HDBSCAN = {
    "min_cluster_size": 5,
    "min_samples": 3,
    "cluster_selection_epsilon": 0.0,
    "prediction_data": True,
    "cluster_selection_method": "eom",
}
TIMESERIES = {
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
DEFAULTS = {
    "hdbscan_params": HDBSCAN,
    "lgb_timeseries_params": TIMESERIES,
    "lgb_resource_params": TIMESERIES
    | {
        "num_leaves": 15,
        "learning_rate": 0.1,
        "feature_fraction": 0.8,
        "bagging_fraction": 0.7,
    },
    "knn_params": {
        "n_neighbors": 5,
        "weights": "distance",
        "algorithm": "auto",
        "metric": "euclidean",
    },
    "task": "auto",
    "noise_threshold": 0.3,
    "batch_size": 1000,
    "expanding_window_size": 10000,
    "experiment_name": "TimeSeries-Clustering-Pipeline",
    "model_registry_prefix": "timeseries-clustering",
    "hospital_profile_id": None,
    "cluster_features": None,
    "min_cluster_rows": 40,
    "max_fit_rows": 200_000,
    "max_reference_rows": None,
    "missing_values": "error",
    "missing_markers": [""],
    "drop_columns": [],
    "audit_columns": [],
    "planning_columns": [],
    "show_ids": False,
    "gap_policy": "error",
    "combine": "blend",
    "coverage": 0.9,
    "clip_to_support": True,
    "round_intervals": True,
    "serialization": "cloudpickle",
    "promotion_margin": 0.0,
    "retrain_cooldown_batches": 10,
    "history_dir": None,
    "row_hashes": True,
    "random_state": 42,
}
SECTIONS = ("hdbscan_params", "lgb_timeseries_params", "lgb_resource_params", "knn_params")
# One value for each field that is not its default.
CHANGED = {
    "hdbscan_params": {"min_cluster_size": 25, "min_samples": None, "metric": "manhattan"},
    "lgb_timeseries_params": {"objective": "quantile", "alpha": 0.7, "max_depth": 4},
    "lgb_resource_params": {"n_estimators": 30, "monotone_constraints": [1, 0, -1]},
    "knn_params": {"n_neighbors": 9, "weights": "uniform"},
    "task": "regression",
    "noise_threshold": 0.4,
    "batch_size": 7,
    "expanding_window_size": 500,
    "experiment_name": "stays",
    "model_registry_prefix": "los",
    "hospital_profile_id": "st.mary-2_b",
    "cluster_features": ["age", "Größe"],
    "min_cluster_rows": 10,
    "max_fit_rows": 1000,
    "max_reference_rows": 100,
    "missing_values": "impute",
    "missing_markers": ["?", "NA", ""],
    "drop_columns": ["name"],
    "audit_columns": ["sex"],
    "planning_columns": ["ward"],
    "show_ids": True,
    "gap_policy": "fill",
    "combine": "global",
    "coverage": 0.5,
    "clip_to_support": False,
    "round_intervals": False,
    "serialization": "code",
    "promotion_margin": 0.02,
    "retrain_cooldown_batches": 0,
    "history_dir": "elsewhere",
    "row_hashes": False,
    "random_state": 7,
}


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_defaults_are_those_of_the_contract():
    assert PipelineConfig().to_dict() == DEFAULTS


@pytest.mark.parametrize("section", SECTIONS)
def test_a_partial_section_is_laid_over_its_defaults(section: str):
    config = PipelineConfig(**{section: CHANGED[section]})
    assert config.to_dict() == DEFAULTS | {section: DEFAULTS[section] | CHANGED[section]}


@pytest.mark.parametrize(
    ("preset", "hdbscan", "timeseries", "rest"),
    [
        (
            "small",
            {"min_cluster_size": 8, "min_samples": 3, "cluster_selection_epsilon": 0.1},
            {"num_leaves": 15, "learning_rate": 0.08, "n_estimators": 50},
            {"noise_threshold": 0.25, "batch_size": 50, "expanding_window_size": 1000},
        ),
        (
            "large",
            {"min_cluster_size": 100, "min_samples": 30, "cluster_selection_epsilon": 0.0},
            {"num_leaves": 127, "learning_rate": 0.03, "n_estimators": 200},
            {"noise_threshold": 0.35, "batch_size": 2000, "expanding_window_size": 30000},
        ),
        (
            "medical",
            {"min_cluster_size": 25, "min_samples": 10, "cluster_selection_epsilon": 0.1},
            {
                "num_leaves": 50,
                "learning_rate": 0.04,
                "n_estimators": 150,
                "lambda_l1": 0.1,
                "lambda_l2": 0.1,
            },
            {"noise_threshold": 0.25, "batch_size": 200, "expanding_window_size": 8000},
        ),
    ],
)
def test_a_preset_is_the_defaults_with_the_values_of_the_contract(
    preset: str, hdbscan: dict, timeseries: dict, rest: dict
):
    expected = (
        DEFAULTS
        | rest
        | {"hdbscan_params": HDBSCAN | hdbscan, "lgb_timeseries_params": TIMESERIES | timeseries}
    )
    assert PipelineConfig.preset(preset).to_dict() == expected
    assert PipelineConfig.from_dict({"preset": preset}).to_dict() == expected


def test_changes_are_laid_over_a_preset_key_by_key():
    config = PipelineConfig.preset("medical", hdbscan_params={"min_samples": 4}, batch_size=9)
    assert config.hdbscan_params["min_samples"] == 4
    assert config.hdbscan_params["min_cluster_size"] == 25
    assert config.batch_size == 9
    assert config.expanding_window_size == 8000


def test_a_changed_preset_leaves_the_preset_as_it_was():
    before = PipelineConfig.preset("small").to_dict()
    changed = PipelineConfig.preset("small", lgb_timeseries_params={"num_leaves": 3})
    changed.lgb_timeseries_params["num_leaves"] = 4
    assert PipelineConfig.preset("small").to_dict() == before


@pytest.mark.parametrize("name", ["tiny", "", 3, ["small"]])
def test_an_unknown_preset_is_refused_and_the_known_ones_are_named(name: Any):
    with pytest.raises(ConfigurationError, match=r"preset is .*'small', 'large', 'medical'"):
        PipelineConfig.from_dict({"preset": name})


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("noise_treshold", r"'noise_treshold' \(did you mean 'noise_threshold'\?\)$"),
        ("hdbscan", r"'hdbscan' \(did you mean 'hdbscan_params'\?\)$"),
        ("zzz", "'zzz'$"),
        (3, "'3'$"),
    ],
)
@pytest.mark.parametrize("start", [{}, {"preset": "small"}])
def test_an_unknown_key_is_refused_with_the_key_it_may_have_meant(key: Any, hint: str, start: dict):
    with pytest.raises(ConfigurationError, match=f"unknown configuration key {hint}"):
        PipelineConfig.from_dict(start | {key: 1})


def test_an_unknown_argument_is_refused_with_the_one_it_may_have_meant():
    expected = r"^unknown configuration key 'hdbscan_parms' \(did you mean 'hdbscan_params'\?\)$"
    with pytest.raises(ConfigurationError, match=expected):
        PipelineConfig(hdbscan_parms={})
    with pytest.raises(ConfigurationError, match=expected):
        dataclasses.replace(PipelineConfig(), hdbscan_parms={})


@pytest.mark.parametrize(
    ("section", "key", "hint"),
    [
        ("hdbscan_params", "min_clustersize", r" \(did you mean 'min_cluster_size'\?\)"),
        ("lgb_timeseries_params", "num_leafs", r" \(did you mean 'num_leaves'\?\)"),
        ("lgb_resource_params", "learning_rat", r" \(did you mean 'learning_rate'\?\)"),
        ("knn_params", "n_neighbours", r" \(did you mean 'n_neighbors'\?\)"),
        ("knn_params", "zzz", ""),
    ],
)
def test_an_unknown_key_of_a_section_is_refused_with_the_key_it_may_have_meant(
    section: str, key: str, hint: str
):
    with pytest.raises(ConfigurationError, match=f"^{section} has no key '{key}'{hint}$"):
        PipelineConfig(**{section: {key: 1}})


@pytest.mark.parametrize("key", ["num_threads", "n_jobs", "deterministic", "force_row_wise"])
def test_what_is_managed_for_lightgbm_cannot_be_set(key: str):
    with pytest.raises(ConfigurationError, match=f"lgb_timeseries_params has no key '{key}'"):
        PipelineConfig(lgb_timeseries_params={key: 1})


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("value", [None, [], "min_samples: 3", 5])
def test_a_section_that_is_no_mapping_is_refused(section: str, value: Any):
    kind = type(value).__name__
    with pytest.raises(ConfigurationError, match=f"{section} is {kind}; it must be a mapping"):
        PipelineConfig(**{section: value})


@pytest.mark.parametrize("content", [None, [], "batch_size: 3", 5])
def test_a_configuration_that_is_no_mapping_is_refused(content: Any):
    with pytest.raises(ConfigurationError, match=r"the configuration is .*; it must be a mapping"):
        PipelineConfig.from_dict(content)


@pytest.mark.parametrize(
    ("key", "values", "rule"),
    [
        ("noise_threshold", [-0.1, 1.1, "0.3", None, True, math.nan, math.inf], "from 0 to 1"),
        ("batch_size", [0, -1, 1.5, "5", None, True], "a whole number of at least 1"),
        ("expanding_window_size", [0, 2.0], "a whole number of at least 1"),
        ("experiment_name", ["", ".x", "a b", "a/b", "a\n", "x" * 65, None, 5], "1 to 64 char"),
        ("model_registry_prefix", ["", "..", "a@b", "%2e", None], "1 to 64 char"),
        ("hospital_profile_id", ["", "ä", "a:b", 12], "1 to 64 .*, or null"),
        ("cluster_features", [[], "age", [1], {"age": 1}], "a list of columns, or null"),
        ("min_cluster_rows", [0, 1.0, None], "a whole number of at least 1"),
        ("max_fit_rows", [9, None, "all"], "a whole number of at least 10"),
        ("max_reference_rows", [9, 0, 10.5], "a whole number of at least 10, or null"),
        ("missing_values", ["drop", None, True, []], "one of 'error', 'impute'"),
        ("missing_markers", ["?", [None], None, 5], "a list of texts"),
        ("drop_columns", ["name", [1], None], "a list of texts"),
        ("combine", ["mean", None, ["blend"]], "one of 'blend', 'cluster', 'global'"),
        ("coverage", [0, 1, -0.1, 90, "0.9", None, math.nan], "above 0 and below 1"),
        ("serialization", ["pickle", None], "one of 'cloudpickle', 'code'"),
        ("promotion_margin", [-0.01, 1.01, None], "a number from 0 to 1"),
        ("retrain_cooldown_batches", [-1, 0.5, None], "a whole number of at least 0"),
        ("row_hashes", [1, "yes", None], "true or false"),
        ("random_state", [-1, 2**32, None, 1.0], "at least 0, at most 4294967295"),
    ],
)
def test_an_impossible_value_is_refused_with_its_key_and_the_rule(
    key: str, values: list[Any], rule: str
):
    for value in values:
        with pytest.raises(ConfigurationError, match=f"^{key} is .*; it must be .*{rule}"):
            PipelineConfig(**{key: value})


@pytest.mark.parametrize(
    ("section", "key", "values", "rule"),
    [
        ("hdbscan_params", "min_cluster_size", [1, 2.5, True, None], "at least 2"),
        ("hdbscan_params", "min_samples", [0, 1.5, "3"], "at least 1, or null"),
        ("hdbscan_params", "cluster_selection_epsilon", [-0.1, None, math.nan], "at least 0"),
        ("hdbscan_params", "cluster_selection_method", ["dbscan", None], "'eom', 'leaf'"),
        ("hdbscan_params", "prediction_data", [False, None, 1], "true: without it new rows"),
        ("hdbscan_params", "allow_single_cluster", [True, None], "false: with it hdbscan"),
        ("hdbscan_params", "metric", ["precomputed", None, 2], "not 'precomputed'"),
        ("hdbscan_params", "core_dist_n_jobs", [0, 1.5, True], "other than 0"),
        ("hdbscan_params", "algorithm", ["brute"], "one of 'best'"),
        ("hdbscan_params", "alpha", [0, -1, math.inf], "a number above 0"),
        ("hdbscan_params", "leaf_size", [0], "at least 1"),
        ("hdbscan_params", "approx_min_span_tree", ["yes", None], "one of True, False"),
        ("lgb_timeseries_params", "objective", ["softmax", "regresion", None], "one of 'regress"),
        ("lgb_resource_params", "objective", ["binary", "multiclass"], "one of 'regress"),
        ("lgb_timeseries_params", "num_leaves", [1, 131073, 31.0], "at least 2, at most 131072"),
        ("lgb_timeseries_params", "learning_rate", [0, -0.1, "0.1"], "a number above 0"),
        ("lgb_timeseries_params", "boosting_type", ["xgb"], "'gbdt', 'dart', 'goss', 'rf'"),
        ("lgb_timeseries_params", "n_estimators", [0, 10.5], "at least 1"),
        ("lgb_resource_params", "feature_fraction", [0, 1.1, None], "above 0, at most 1"),
        ("lgb_resource_params", "bagging_fraction", [0, 2], "above 0, at most 1"),
        ("lgb_resource_params", "bagging_freq", [-1, 0.5], "at least 0"),
        ("lgb_resource_params", "lambda_l2", [-1, None], "a number of at least 0"),
        ("lgb_resource_params", "tweedie_variance_power", [0.9, 2.1], "from 1 to 2"),
        ("lgb_resource_params", "linear_tree", ["true"], "one of True, False"),
        ("knn_params", "n_neighbors", [0, 2.5, None], "at least 1"),
        ("knn_params", "weights", ["gaussian", None], "'distance', 'uniform'"),
        ("knn_params", "algorithm", ["brute", None], "'auto', 'kd_tree' or 'ball_tree'"),
        ("knn_params", "metric", [None, 2], "the name of a metric"),
        ("knn_params", "p", [0, -1], "a number of at least 1"),
    ],
)
def test_an_impossible_value_of_a_section_is_refused_with_its_key_and_the_rule(
    section: str, key: str, values: list[Any], rule: str
):
    for value in values:
        with pytest.raises(ConfigurationError, match=rf"^{section}\.{key} is .*must be .*{rule}"):
            PipelineConfig(**{section: {key: value}})


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("hdbscan_params", "metric", "euclidian"),
        ("knn_params", "metric", "euclidian"),
        ("lgb_timeseries_params", "max_depth", "deep"),
    ],
)
def test_a_misspelt_value_is_refused_before_anything_is_trained(section: str, key: str, value: str):
    with pytest.raises(ConfigurationError, match=rf"{section}\.{key} is '{value}'"):
        PipelineConfig(**{section: {key: value}})


def test_a_number_beyond_floating_point_is_refused():
    with pytest.raises(ConfigurationError, match=r"noise_threshold is .*from 0 to 1"):
        PipelineConfig(noise_threshold=10**400)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("noise_threshold", 0),
        ("noise_threshold", 1),
        ("coverage", 1e-9),
        ("experiment_name", "x" * 64),
        ("experiment_name", "-a.b_c"),
        ("random_state", 2**32 - 1),
        ("hospital_profile_id", "7"),
        ("missing_markers", []),
    ],
)
def test_the_edge_of_a_rule_is_allowed(key: str, value: Any):
    assert getattr(PipelineConfig(**{key: value}), key) == value


def test_numbers_of_numpy_are_numbers():
    config = PipelineConfig(
        batch_size=np.int64(5),
        coverage=np.float64(0.5),
        hdbscan_params={"min_cluster_size": np.int32(25)},
    )
    plain = PipelineConfig(
        batch_size=5, coverage=0.5, hdbscan_params={"min_cluster_size": 25}
    ).to_dict()
    assert config.to_dict() == plain


def test_a_float_of_numpy_can_be_written_as_yaml():
    config = PipelineConfig(coverage=np.float64(0.5))
    assert yaml.safe_load(config.to_yaml())["coverage"] == 0.5


@pytest.mark.parametrize(
    ("alias", "name", "value"),
    [
        ("subsample", "bagging_fraction", 0.5),
        ("subsample_freq", "bagging_freq", 0),
        ("colsample_bytree", "feature_fraction", 0.5),
        ("eta", "learning_rate", 0.3),
        ("shrinkage_rate", "learning_rate", 0.3),
    ],
)
def test_a_value_given_under_an_alias_is_the_one_lightgbm_uses(alias: str, name: str, value: float):
    params = PipelineConfig(lgb_timeseries_params={alias: value}).lgb_timeseries_params
    # LightGBM ignores the alias where both are there.
    assert params.get(name, params.get(alias)) == value


@pytest.mark.parametrize("alias", ["num_trees", "num_iterations", "num_boost_round"])
def test_rounds_given_under_an_alias_replace_those_of_a_preset(alias: str):
    params = PipelineConfig.preset("small", lgb_timeseries_params={alias: 7}).lgb_timeseries_params
    assert params.get("n_estimators", params.get(alias)) == 7


def test_a_configuration_cannot_be_edited():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PipelineConfig().batch_size = 5


def test_replace_makes_a_checked_copy():
    config = PipelineConfig(hdbscan_params={"min_cluster_size": 25})
    changed = dataclasses.replace(config, noise_threshold=0.4)
    assert changed.noise_threshold == 0.4
    assert changed.hdbscan_params["min_cluster_size"] == 25
    assert config.noise_threshold == 0.3
    with pytest.raises(ConfigurationError, match="noise_threshold is 4"):
        dataclasses.replace(config, noise_threshold=4)


def test_the_dicts_and_lists_given_are_not_changed():
    given = {
        "preset": "small",
        "hdbscan_params": {"min_samples": 4},
        "missing_markers": ["?"],
    }
    config = PipelineConfig.from_dict(given)
    config.hdbscan_params["min_samples"] = 5
    config.missing_markers.append("NA")
    assert given == {
        "preset": "small",
        "hdbscan_params": {"min_samples": 4},
        "missing_markers": ["?"],
    }


def test_to_dict_is_a_deep_copy():
    config = PipelineConfig(**CHANGED)
    copy = config.to_dict()
    copy["lgb_resource_params"]["monotone_constraints"].clear()
    copy["drop_columns"].clear()
    assert config == PipelineConfig(**CHANGED)


def test_a_tuple_of_columns_becomes_a_list():
    config = PipelineConfig(
        cluster_features=("a", "b"), missing_markers=("?",), drop_columns=("c",)
    )
    assert config.cluster_features == ["a", "b"]
    assert config.missing_markers == ["?"]
    assert config.drop_columns == ["c"]


def test_two_configurations_share_no_default():
    first, second = PipelineConfig(), PipelineConfig()
    first.knn_params["n_neighbors"] = 1
    first.missing_markers.append("?")
    assert second.to_dict() == DEFAULTS


@pytest.mark.parametrize(
    ("profile", "name"), [(None, "timeseries-clustering"), ("north", "timeseries-clustering-north")]
)
def test_the_registered_name_is_the_prefix_and_the_profile(profile: str | None, name: str):
    assert PipelineConfig(hospital_profile_id=profile).registered_model_name == name


def test_a_dict_goes_there_and_back():
    config = PipelineConfig(**CHANGED)
    assert PipelineConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("values", [{}, CHANGED])
def test_yaml_goes_there_and_back(values: dict[str, Any], tmp_path: Path):
    config = PipelineConfig(**values)
    assert PipelineConfig.from_yaml(write(tmp_path, config.to_yaml())) == config


def test_every_field_is_changed_in_the_round_trips():
    assert CHANGED.keys() == DEFAULTS.keys()
    assert all(CHANGED[key] != DEFAULTS[key] for key in DEFAULTS)


def test_a_yaml_file_may_be_partial_and_start_from_a_preset(tmp_path: Path):
    path = write(tmp_path, "preset: large\nhdbscan_params:\n  min_samples: 4\n")
    assert PipelineConfig.from_yaml(str(path)) == PipelineConfig.preset(
        "large", hdbscan_params={"min_samples": 4}
    )


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n"])
def test_an_empty_yaml_file_is_the_defaults(text: str, tmp_path: Path):
    assert PipelineConfig.from_yaml(write(tmp_path, text)) == PipelineConfig()


def test_broken_yaml_is_refused_with_its_line(tmp_path: Path):
    path = write(tmp_path, "batch_size: 5\ncoverage: [0.9\nrandom_state: 3\n")
    with pytest.raises(ConfigurationError, match=r"config\.yaml is not valid YAML at line 3"):
        PipelineConfig.from_yaml(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- batch_size\n", "the configuration is list"),
        ("batch_size\n", "the configuration is str"),
        ("bach_size: 5\n", "did you mean 'batch_size'"),
        ("batch_size: five\n", "batch_size is 'five'"),
        ("hdbscan_params:\n", "hdbscan_params is NoneType"),
        ("a: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
    ],
)
def test_yaml_that_is_no_configuration_is_refused(text: str, message: str, tmp_path: Path):
    with pytest.raises(ConfigurationError, match=message):
        PipelineConfig.from_yaml(write(tmp_path, text))


def test_a_yaml_file_that_is_not_utf8_is_refused(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_bytes("drop_columns: [Größe]\n".encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"config\.yaml is not valid YAML"):
        PipelineConfig.from_yaml(path)


def test_a_missing_yaml_file_is_a_missing_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        PipelineConfig.from_yaml(tmp_path / "nowhere.yaml")
