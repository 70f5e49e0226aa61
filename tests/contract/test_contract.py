"""Every kind of model keeps the contract of `tsclust_model.testing`, and its checks find faults."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from tests.support import HOSPITAL_ROLES, STAY_ROLES, WARD_ROLES
from tsclust_model import PipelineConfig, check_model, make_hospital, make_ward_series, model_checks
from tsclust_model.data.roles import Roles
from tsclust_model.errors import ConfigurationError, DataValidationError, MLflowIntegrationError
from tsclust_model.mlflow_integration.pyfunc import log_generation
from tsclust_model.rows.baseline import FOREST, LOGISTIC, Baseline, about_baseline, fit_baseline
from tsclust_model.rows.fit import fit_generation
from tsclust_model.rows.model import Generation
from tsclust_model.rows.table import training_data
from tsclust_model.series.fit import fit_series_generation
from tsclust_model.series.long_table import series_panel
from tsclust_model.series.model import SeriesGeneration
from tsclust_model.testing import ModelCheckError
from tsclust_model.testing.checking import CHECKS
from tsclust_model.testing.subjects import CaseSubject, Subject, subject_of

CALLS = itertools.count(1)
QUICK = {"num_leaves": 7, "n_estimators": 15, "learning_rate": 0.2}
SERIES_CONFIG = PipelineConfig(lgb_timeseries_params=QUICK, lgb_resource_params=QUICK)
CONFIG = replace(SERIES_CONFIG, hdbscan_params={"min_cluster_size": 20})
GAPS = replace(CONFIG, missing_values="impute")
NO_SEGMENTS = replace(CONFIG, hdbscan_params={"min_cluster_size": 450})
PLAIN_ROLES = replace(HOSPITAL_ROLES, resources=())
STEP_ROLES = Roles("beds", (), (), "month", "ward_id", 4)
PLAN_ROLES = replace(STEP_ROLES, future=("planned",), static=("kind",), holidays="AU")

CASES = {"cases", "strings"}
TRAITS = {
    "regression": CASES | {"intervals", "segments"},
    "classes": CASES | {"classes", "segments", "resources"},
    "resources": CASES | {"intervals", "segments", "resources"},
    "no_segments": CASES | {"intervals"},
    "series": {"intervals", "segments", "horizon"},
    "series_with_covariate": {"intervals", "segments", "horizon", "resources"},
    "series_with_plans": {"intervals", "segments", "horizon", "strings"},
    "baseline": CASES,
    "baseline_of_classes": CASES | {"classes"},
}
"""What each kind has (`Subject.traits`): which checks apply is known before anything is fitted."""

LACKING = {
    "it has no coverage to refuse": (
        "an_impossible_coverage_is_refused",
        "the_served_model_refuses_in_mlflows_terms",
    ),
    "it has no segments, and no columns that say so": (
        "segments_have_ids_of_the_model",
        "sources_say_where_strength_and_weight_come_from",
        "the_ids_of_segments_are_counted_and_never_new",
        "strengths_and_weights_lie_between_0_and_1",
        "renumbering_segments_changes_ids_only",
        "segments_of_the_report_are_the_models",
    ),
    "its figures know no global model": ("an_evaluation_is_strict_json",),
    "it has no evidence for the report": ("losses_agree_with_the_report",),
    "it has no reference of drift": ("drift_is_measured_on_columns_of_the_reference",),
    "its info says nothing of segments": ("the_info_is_strict_json",),
    "skops writes the time into a file": (
        "parts_round_trip_to_equal_bytes",
        "a_model_of_parts_gives_equal_bits",
        "sealing_twice_gives_one_digest",
    ),
}
LACKING_OF_KIND: dict[str, dict[str, tuple[str, ...]]] = {
    "baseline": {},
    "baseline_of_classes": {
        "predict gives no probabilities": (
            "probabilities_sum_to_one",
            "the_likeliest_class_is_the_prediction",
        ),
    },
}
EXPECTED_FAILURES = {
    kind: {name: why for why, names in (LACKING | own).items() for name in names}
    for kind, own in LACKING_OF_KIND.items()
}
"""What is known to fail, and why; a check that passes although it is listed fails the test."""


class BaselineSubject(CaseSubject):
    """A scikit-learn baseline: what is written here is what it lacks of the others' interface."""

    model: Baseline

    @property
    def traits(self) -> frozenset[str]:
        return frozenset(CASES | {"classes"} if self.model.outcome.classes else CASES)


# -- models -------------------------------------------------------------------------------------


def of_cases(frame: pd.DataFrame, roles: Roles, config: PipelineConfig) -> Generation:
    data = training_data(frame, roles, config)
    return fit_generation(data, config, {"roles": vars(roles)}).generation


def of_series(frame: pd.DataFrame, roles: Roles) -> SeriesGeneration:
    panel = series_panel(frame, roles, "error", ("",))
    info = {"roles": vars(replace(roles, frequency=panel.frequency.name))}
    return fit_series_generation(panel, roles, SERIES_CONFIG, info).generation


def of_baseline(frame: pd.DataFrame, roles: Roles, model_type: str) -> Baseline:
    data = training_data(frame, roles, CONFIG)
    params = {"n_estimators": 10} if model_type == FOREST else {}
    estimator = fit_baseline(data, frame, model_type, params)
    info = about_baseline(data, roles, CONFIG, model_type)
    return Baseline(estimator, data.schema, data.target, info)


def without_segments(frame: pd.DataFrame, roles: Roles) -> Generation:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no cluster was found")
        return of_cases(frame, roles, NO_SEGMENTS)


def with_gaps(frame: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    frame = frame.copy()
    for name in ("age", "creatinine", "ward"):
        frame.loc[rng.random(len(frame)) < 0.1, name] = None
    return frame


def with_plans(frame: pd.DataFrame) -> pd.DataFrame:
    """Wards with a plan of every month and their kind; the last four months have no outcome yet."""
    planned = np.random.default_rng(2).integers(0, 3, len(frame)).astype(float)
    later = frame["month"] > frame["month"].unique()[-5]
    beds = (frame["beds"] + 3 * planned).mask(later)
    return frame.assign(beds=beds, planned=planned, kind=frame["ward_id"].str[:4])


def of_stays(frame: pd.DataFrame) -> pd.DataFrame:
    days = frame["length_of_stay_days"]
    stay = np.select([days < 3, days < 6], ["short", 'say "mid"\n day'], "länger, 日本")
    return frame.drop(columns=["length_of_stay_days", "medication_cost"]).assign(stay=stay)


@pytest.fixture(scope="session")
def admissions() -> pd.DataFrame:
    return make_hospital(500, random_state=3)


@pytest.fixture(scope="session")
def later() -> pd.DataFrame:
    """Admissions that no model was fitted on."""
    return make_hospital(40, noise=0.2, random_state=4)


@pytest.fixture(scope="session")
def beds() -> pd.DataFrame:
    return make_ward_series(20, 40, random_state=5)


@pytest.fixture(scope="session")
def subjects(admissions, later, beds) -> Callable[[str], Subject]:
    """The subject of a kind, whose model is fitted when it is first asked for."""
    few = beds[beds["ward_id"].isin(beds["ward_id"].unique()[:5])]
    make: dict[str, Callable[[], Subject]] = {
        "regression": lambda: subject_of(of_cases(admissions, PLAIN_ROLES, CONFIG), later),
        "classes": lambda: subject_of(
            of_cases(of_stays(with_gaps(admissions)), STAY_ROLES, GAPS),
            of_stays(with_gaps(later)),
        ),
        "resources": lambda: subject_of(of_cases(admissions, HOSPITAL_ROLES, CONFIG)),
        "no_segments": lambda: subject_of(without_segments(admissions, PLAIN_ROLES), later),
        "series": lambda: subject_of(of_series(beds, STEP_ROLES)),
        "series_with_covariate": lambda: subject_of(of_series(beds, WARD_ROLES), few),
        "series_with_plans": lambda: subject_of(of_series(with_plans(beds), PLAN_ROLES)),
        "baseline": lambda: BaselineSubject(of_baseline(admissions, PLAIN_ROLES, FOREST), later),
        "baseline_of_classes": lambda: BaselineSubject(
            of_baseline(of_stays(admissions), STAY_ROLES, LOGISTIC), of_stays(later)
        ),
    }
    return functools.cache(lambda kind: make[kind]())


# -- the contract ---------------------------------------------------------------------------------


def applicable(kind: str) -> list[str]:
    return [name for name, check in CHECKS.items() if check.needs <= TRAITS[kind]]


def test_the_contract_has_40_checks_or_more_and_each_says_what_it_checks():
    assert len(CHECKS) >= 40
    for kind in set(TRAITS) - set(EXPECTED_FAILURES):
        assert len(applicable(kind)) >= 40
    for name, check in CHECKS.items():
        assert check.run.__doc__, name


@pytest.mark.parametrize("kind", TRAITS)
def test_the_traits_of_a_kind_are_those_of_its_model(kind, subjects):
    assert subjects(kind).traits == TRAITS[kind]


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in TRAITS for name in applicable(kind)]
)
def test_the_contract(kind, name, subjects):
    known = EXPECTED_FAILURES.get(kind, {})
    dict(model_checks(subjects(kind), expected_failures=known))[name]()


# -- faults that the checks must find -------------------------------------------------------------


def altered(model: Any, **members: Any) -> Any:
    """The same model as a subclass with other members."""
    kind = type("Altered", (type(model),), members)
    return kind(**{item.name: getattr(model, item.name) for item in fields(model)})


def answers(change: Callable[[pd.DataFrame, pd.DataFrame, float | None], Any]) -> dict[str, Any]:
    """A `predict` whose answer is changed, given the rows and the coverage."""

    def predict(self: Any, frame: pd.DataFrame, coverage: float | None = None) -> Any:
        answer = super(type(self), self).predict(frame, coverage)
        return change(answer, frame, coverage)

    return {"predict": predict}


def asks(change: Callable[[pd.DataFrame], pd.DataFrame]) -> dict[str, Any]:
    """A `predict` that scores other rows than it was given."""

    def predict(self: Any, frame: pd.DataFrame, coverage: float | None = None) -> Any:
        return super(type(self), self).predict(change(frame), coverage)

    return {"predict": predict}


def centred(answer: pd.DataFrame, *_: Any) -> pd.DataFrame:
    return answer.assign(prediction=answer["prediction"] - answer["prediction"].mean())


def edits_the_rows(answer: pd.DataFrame, frame: pd.DataFrame, _: Any) -> pd.DataFrame:
    frame["age"] = 0.0
    return answer


def nan_for_null(answer: pd.DataFrame, *_: Any) -> pd.DataFrame:
    values = answer["prediction"].to_numpy(np.float64, na_value=np.nan)
    array = pd.arrays.FloatingArray(values, np.zeros(len(values), dtype=bool))
    return answer.assign(prediction=array)


def quotes_the_row(answer: pd.DataFrame, frame: pd.DataFrame, _: Any) -> pd.DataFrame:
    told = [f"{why}: {age}" for why, age in zip(answer["status"], frame["age"], strict=True)]
    return answer.assign(status=answer["status"].where(answer["status"] == "ok", told))


def jitters(answer: pd.DataFrame, *_: Any) -> pd.DataFrame:
    return answer.assign(prediction=answer["prediction"] + np.random.random() * 1e-9)


def counts_calls(answer: pd.DataFrame, *_: Any) -> pd.DataFrame:
    return answer.assign(prediction=answer["prediction"] + next(CALLS))


def warns(answer: pd.DataFrame, *_: Any) -> pd.DataFrame:
    warnings.warn("a row is odd", stacklevel=2)
    return answer


def narrows(self: Any, frame: pd.DataFrame, coverage: float | None = None) -> pd.DataFrame:
    return Generation.predict(self, frame, None if coverage is None else 1 - coverage)


def fills_ages(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(age=rows["age"].fillna(60.0))


def takes_any_table(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(age=rows.get("age", 60.0))


def by_position(self: Any, frame: pd.DataFrame, coverage: float | None = None) -> pd.DataFrame:
    names = self.schema.names
    known = frame.set_axis(names, axis=1) if set(frame) == set(names) else frame
    return Generation.predict(self, known, coverage)


def one_buffer(self: Any, frame: pd.DataFrame, coverage: float | None = None) -> pd.DataFrame:
    kept = self.info.setdefault("kept", {})
    key = (id(frame), coverage)
    if key not in kept:
        kept[key] = Generation.predict(self, frame, coverage)
    return kept[key]


def swapped_bounds(answer: pd.DataFrame, *_: Any) -> pd.DataFrame:
    names = {"prediction_lower": "prediction", "prediction": "prediction_lower"}
    return answer.rename(columns=names)[list(answer)]


def least_likely(answer: pd.DataFrame, *_: Any) -> pd.DataFrame:
    return answer.assign(prediction=answer["prediction"].iloc[::-1].to_numpy())


def of_all_series(answer: pd.DataFrame, *_: Any) -> pd.DataFrame:
    total = answer["prediction"].dropna().sum()
    return answer.assign(prediction=[c if c is None else c + total for c in answer["prediction"]])


def too_long(answer: pd.DataFrame, *_: Any) -> pd.DataFrame:
    return answer.assign(prediction=[np.append(cell, 0.0) for cell in answer["prediction"]])


def absolute(self: Any, frame: pd.DataFrame) -> np.ndarray:
    return np.sqrt(Generation.losses(self, frame))


def shifted_by_a_unit(self: Any, frame: pd.DataFrame) -> pd.DataFrame:
    rows = Generation.canonical_rows(self, frame)
    return rows.assign(age=rows["age"] + 1)


def with_a_new_salt(self: Any) -> dict[str, bytes]:
    return Generation.to_parts(self) | {"salt": str(next(CALLS)).encode()}


def without_resources(self: Any) -> dict[str, bytes]:
    return Generation.to_parts(replace(self, resources={}))


def forgets_the_sizes(self: Any, ids: Any, lineage: Any) -> Generation:
    other = Generation.renumbered(self, ids, lineage)
    return replace(other, info=other.info | {"cluster_sizes": self.info["cluster_sizes"]})


FAULTS = {
    "splitting_a_batch_changes_no_row": ("regression", answers(centred)),
    "a_row_alone_gets_the_answer_it_has_in_company": ("series", answers(of_all_series)),
    "the_rows_are_not_changed": ("regression", answers(edits_the_rows)),
    "the_index_of_the_rows_is_kept": (
        "regression",
        answers(lambda answer, *_: answer.reset_index(drop=True)),
    ),
    "the_answer_is_strict_json": ("regression", answers(nan_for_null)),
    "a_status_names_columns_and_no_value": ("regression", answers(quotes_the_row)),
    "predicting_twice_gives_equal_bits": ("regression", answers(counts_calls)),
    "predicting_is_silent_and_draws_no_random_numbers": ("regression", answers(jitters)),
    "two_threads_get_equal_bits": ("regression", answers(counts_calls)),
    "editing_an_answer_changes_no_later_one": ("regression", {"predict": one_buffer}),
    "a_prediction_lies_in_its_interval": ("regression", answers(swapped_bounds)),
    "a_wider_coverage_gives_wider_intervals": ("regression", {"predict": narrows}),
    "an_impossible_coverage_is_refused": (
        "regression",
        {"predict": lambda self, frame, coverage=None: Generation.predict(self, frame)},
    ),
    "segments_have_ids_of_the_model": (
        "regression",
        answers(lambda answer, *_: answer.assign(cluster=answer["cluster"] + 1)),
    ),
    "strengths_and_weights_lie_between_0_and_1": (
        "regression",
        answers(lambda answer, *_: answer.assign(cluster_weight=1.5)),
    ),
    "the_answer_is_a_table_of_the_documented_columns": (
        "regression",
        answers(lambda answer, *_: answer.iloc[:, ::-1]),
    ),
    "the_answer_has_the_columns_and_types_of_the_signature": (
        "regression",
        answers(lambda answer, *_: answer.astype({"cluster": "Float64"})),
    ),
    "the_order_of_columns_does_not_matter": ("regression", {"predict": by_position}),
    "a_missing_column_is_named": ("regression", asks(takes_any_table)),
    "a_missing_value_is_scored_or_named": ("regression", asks(fills_ages)),
    "the_likeliest_class_is_the_prediction": ("classes", answers(least_likely)),
    "probabilities_sum_to_one": (
        "classes",
        answers(lambda answer, *_: answer.assign(probability_short=0.5)),
    ),
    "arrays_have_the_length_of_the_horizon": ("series", answers(too_long)),
    "losses_agree_with_the_evaluation": ("regression", {"losses": absolute}),
    "canonical_rows_are_idempotent": ("regression", {"canonical_rows": shifted_by_a_unit}),
    "sealing_twice_gives_one_digest": ("regression", {"to_parts": with_a_new_salt}),
    "a_model_of_parts_gives_equal_bits": ("resources", {"to_parts": without_resources}),
    "renumbering_segments_changes_ids_only": ("regression", {"renumbered": forgets_the_sizes}),
    "the_model_knows_which_rows_it_was_fitted_on": (
        "regression",
        {"fitted_part": lambda self, frame: np.full(len(frame), True)},
    ),
    "the_model_shows_itself_in_one_line": ("regression", {"__repr__": lambda self: "a\nb"}),
    "the_model_cannot_be_edited": ("regression", {"__setattr__": object.__setattr__}),
}
"""A fault by the check that must find it: the kind of the model and what is wrong with it."""


@pytest.mark.parametrize("name", FAULTS)
def test_a_check_finds_its_fault(name, subjects):
    kind, members = FAULTS[name]
    sound = subjects(kind)
    faulty = altered(replace(sound.model, info=dict(sound.model.info)), **members)
    checks = dict(model_checks(faulty, sound.table if sound.is_given else None))
    with pytest.raises((AssertionError, DataValidationError)):
        checks[name]()


def test_the_example_may_not_be_a_row_of_the_table(subjects, later):
    sound = subjects("regression")
    faulty = altered(sound.model, example=lambda self: later[self.schema.names].head(2))
    with pytest.raises(ModelCheckError) as caught:
        check_model(faulty, later)
    assert "the_example_is_no_row_of_the_table" in caught.value.failures


# -- the public functions -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classes", "series_with_covariate"])
def test_a_model_is_checked_without_rows_or_labels(kind, subjects):
    subject = subjects(kind)
    check_model(subject.model)
    if kind == "classes":
        check_model(subject.model, subject.table.drop(columns="stay"))


def test_a_model_may_be_a_uri_or_what_mlflow_loaded(store, subjects):
    with mlflow.start_run():
        uri = log_generation(subjects("regression").model, "code").model_uri
    check_model(uri)
    names = [name for name, _ in model_checks(mlflow.pyfunc.load_model(uri))]
    assert names == [name for name, _ in model_checks(subjects("regression"))]
    with pytest.raises(MLflowIntegrationError):
        check_model("models:/nobody@champion")


def test_the_error_names_checks_and_columns_and_never_a_value(subjects, later):
    def crashes(self: Any, frame: pd.DataFrame, coverage: float | None = None) -> Any:
        if len(frame) == 1:
            raise ValueError(f"cannot score {frame.to_dict()}")
        answer = Generation.predict(self, frame, coverage)
        return answer.assign(prediction=answer["prediction"][::-1].to_numpy())

    with pytest.raises(AssertionError) as caught:
        check_model(altered(subjects("regression").model, predict=crashes), later)
    text = str(caught.value)
    assert "a_row_alone_gets_the_answer_it_has_in_company (ValueError)" in text
    assert "the_order_of_rows_changes_their_order_only (the answer differs in: prediction)" in text
    assert "\n" not in text
    for value in (*later["age"].astype(str), *later["patient_id"], "Jane Doe"):
        assert value not in text


def test_an_expected_failure_is_strict(subjects):
    faulty = altered(subjects("regression").model, __repr__=lambda self: "a\nb")
    known = {"the_model_shows_itself_in_one_line": "it is long"}
    check_model(faulty, expected_failures=known)
    with pytest.raises(ModelCheckError) as caught:
        check_model(subjects("regression"), expected_failures=known)
    assert caught.value.failures == {
        "the_model_shows_itself_in_one_line": (
            "it passes, although it is expected to fail: it is long"
        )
    }


def test_an_expected_failure_of_no_check_is_refused(subjects):
    with pytest.raises(ConfigurationError, match="no check of this model is named arrays"):
        check_model(
            subjects("regression"),
            expected_failures={"arrays_have_the_length_of_the_horizon": "it has no arrays"},
        )
