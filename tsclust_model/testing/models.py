"""Checks of a model around its answers: labelled rows, what it says of itself, its state."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.config import PipelineConfig
from tsclust_model.data.columns import OK
from tsclust_model.errors import (
    DataValidationError,
    MLflowIntegrationError,
    listed,
)
from tsclust_model.metrics import METRICS
from tsclust_model.mlflow_integration.private_replies import RequestError
from tsclust_model.mlflow_integration.pyfunc import SegmentForecaster
from tsclust_model.models.state import MANIFEST, digest
from tsclust_model.results import NOISE
from tsclust_model.testing.checking import (
    HUGE,
    STRING,
    check,
    refusal,
    require,
    require_same,
    with_cell,
)
from tsclust_model.testing.subjects import Subject

_LONGEST_REPR = 300
_OF_PYTHON = {"builtins", "copyreg", "_codecs"}

# -- labelled rows ---------------------------------------------------------------------------------


@check()
def canonical_rows_are_idempotent(subject: Subject) -> None:
    """What the history keeps is kept as it is."""
    once = subject.canonical_rows(subject.table)
    require_same(subject.canonical_rows(once), once, "the table")


@check()
def canonical_rows_are_the_same_of_a_csv(subject: Subject) -> None:
    """A table that was written as csv and read again is the same to the history."""
    text = subject.table.to_csv(index=False)
    strings = dict.fromkeys(subject.model.text_columns, str)
    known = {name: kind for name, kind in strings.items() if name in subject.table}
    table = pd.read_csv(io.StringIO(text), dtype=known)
    expected = subject.canonical_rows(subject.table)
    require_same(subject.canonical_rows(table), expected, "the table of the csv")


@check()
def canonical_rows_leave_the_table_as_it_is(subject: Subject) -> None:
    """Order and other columns of the caller's table do not matter, and it is not changed."""
    before = subject.table.copy(deep=True)
    expected = subject.canonical_rows(subject.table)
    other = subject.table.iloc[:, ::-1].assign(**{" other": STRING})
    require_same(subject.canonical_rows(other), expected, "the table with other columns")
    require_same(subject.table, before, "the caller's table")


@check()
def losses_are_one_a_row_and_never_negative(subject: Subject) -> None:
    """NaN is a row that cannot be scored."""
    losses = subject.losses(subject.holdout)
    require(losses.shape == (len(subject.holdout),), "losses have another shape")
    require(losses.dtype == np.float64, "losses are not float64")
    require((losses[~np.isnan(losses)] >= 0).all(), "a loss is negative")


@check()
def losses_depend_on_their_row_alone(subject: Subject) -> None:
    """Splitting a holdout changes no loss."""
    losses, n = subject.losses(subject.holdout), len(subject.holdout)
    for rows in (np.arange(n // 2), np.arange(n)[::-1], np.arange(0)):
        losses_of_part = subject.losses(subject.part(subject.holdout, rows))
        require(losses_of_part.tobytes() == losses[rows].tobytes(), "a loss differs")


@check("cases")
def a_row_that_cannot_be_scored_has_no_loss(subject: Subject) -> None:
    """Its loss is NaN, and the others' are as without it."""
    losses = subject.losses(with_cell(subject.holdout, subject.number, lambda _: HUGE))
    expected = subject.losses(subject.holdout)[1:]
    require(np.isnan(losses[0]) and losses[1:].tobytes() == expected.tobytes(), "losses differ")


@check()
def losses_agree_with_the_evaluation(subject: Subject) -> None:
    """The metric of the mean loss is the figure that `evaluate` gives."""
    metric = subject.model.metric
    losses = subject.losses(subject.holdout)
    figure = subject.evaluate(subject.holdout)[metric.name]
    expected = metric.of(float(np.nanmean(losses)))
    require(np.isclose(figure, expected, rtol=1e-9, atol=1e-12), f"{metric.name} differs")


@check()
def losses_agree_with_the_report(subject: Subject) -> None:
    """The report's evidence has the loss of each row that can be scored."""
    losses = subject.losses(subject.holdout)
    reported = subject.report_losses(subject.holdout)
    expected = losses[~np.isnan(losses)]
    require(reported.tobytes() == expected.tobytes(), "the report's losses differ")


@check()
def an_evaluation_is_strict_json(subject: Subject) -> None:
    """Counts, the metric, also of the global model alone, and shares between 0 and 1."""
    figures = subject.evaluate(subject.holdout)
    json.dumps(figures, allow_nan=False)
    name = subject.model.metric.name
    missing = {name, f"{name}_global", f"{name}_cluster", "n_rows", "n_not_scored"} - set(figures)
    require(not missing, f"the evaluation lacks {listed(sorted(missing))}")
    require(0 < figures["n_rows"] <= len(subject.holdout), "n_rows is another")
    for share in ("noise_ratio", "interval_coverage"):
        require(0 <= figures.get(share, 0) <= 1, f"{share} is outside 0 to 1")


@check()
def an_evaluation_of_no_rows_is_refused(subject: Subject) -> None:
    """There is nothing to compare: a `DataValidationError`."""
    nothing = subject.part(subject.holdout, np.arange(0))
    refusal(DataValidationError, lambda: subject.evaluate(nothing))


@check()
def the_model_knows_which_rows_it_was_fitted_on(subject: Subject) -> None:
    """`trained_on` is a mask, or None; what is made of the example is never among them."""
    seen = subject.model.fitted_part(subject.holdout)
    if seen is not None:
        require(seen.dtype == bool and len(seen) == len(subject.holdout), "it is no mask")
        own = subject.evaluated(subject.labelled_example())
        require(not subject.model.fitted_part(own).any(), "a row of the example was fitted")


@check()
def drift_is_measured_on_columns_of_the_reference(subject: Subject) -> None:
    """The window has the reference's columns, and distances that are numbers."""
    X, features = subject.drift_rows(), subject.model.reference.features
    require(X.shape[1] == len(features.names), "the window has other columns")
    require(not np.isnan(features.distances(X)).any(), "a distance is NaN")
    require(subject.model.metric is METRICS[subject.model.reference.metric], "another metric")


@check()
def segments_of_the_report_are_the_models(subject: Subject) -> None:
    """Each row of a picture has an id of the model, and no id of a row unless asked for."""
    segments = subject.segments()
    require(set(segments.served) <= {NOISE, *subject.model.cluster_ids}, "another id occurs")
    require(set(segments.labels) <= set(segments.served) | {NOISE}, "labels and served disagree")
    column, config = subject.model.roles.id, subject.model.info["config"]
    if column in subject.table and not config.get("show_ids", False):
        named = set(map(str, segments.sample_ids)) & set(map(str, subject.table[column]))
        require(not named, "the report names rows by their id")


# -- what a model says of itself -------------------------------------------------------------------


@check()
def the_signature_has_the_columns_of_the_schema(subject: Subject) -> None:
    """The columns that are needed are inputs, and the example has them all."""
    names = list(subject.model.schema.names)
    require([name for name in subject.inputs if name in names] == names, "inputs differ")
    require(list(subject.model.example()) == list(subject.inputs), "the example's columns differ")


@check("cases")
def target_and_resources_are_no_inputs(subject: Subject) -> None:
    """What is predicted is never a feature."""
    roles = subject.model.roles
    leaked = set(subject.inputs) & {roles.target, *roles.resources}
    require(not leaked, f"an input is predicted: {listed(sorted(leaked))}")


@check()
def the_example_can_be_scored(subject: Subject) -> None:
    """Two rows or more, all of them ``ok``."""
    example = subject.model.example()
    require(len(example) >= 2, "the example has fewer than two rows")
    require((subject.predict(example)["status"] == OK).all(), "a row is not ok")


@check("cases")
def the_example_is_no_row_of_the_table(subject: Subject) -> None:
    """The example is made up: no row of a given table shows in it."""
    if subject.is_given:
        names = list(subject.model.schema.names)
        both = pd.merge(subject.canonical_rows(subject.model.example())[names], subject.rows)
        require(both.empty, "a row of the table is in the example")


@check()
def the_info_is_strict_json(subject: Subject) -> None:
    """With the configuration, the roles and the counts that reports and retraining read."""
    info = subject.model.info
    json.dumps(info, allow_nan=False)
    missing = {"config", "roles", "n_rows", "cluster_sizes", "clustering", "lineage"} - set(info)
    require(not missing, f"the info lacks {listed(sorted(missing))}")
    PipelineConfig.from_dict(info["config"])


@check()
def the_model_shows_itself_in_one_line(subject: Subject) -> None:
    """`repr` is short, whatever the model holds."""
    line = repr(subject.model)
    require("\n" not in line, "repr has several lines")
    require(len(line) <= _LONGEST_REPR, f"repr has {len(line)} characters")


@check()
def the_model_cannot_be_edited(subject: Subject) -> None:
    """Retraining makes another model; no attribute can be set."""
    try:
        subject.model.info = subject.model.info
    except dataclasses.FrozenInstanceError:
        return
    raise AssertionError("an attribute could be set")


# -- the state -------------------------------------------------------------------------------------


@check()
def parts_round_trip_to_equal_bytes(subject: Subject) -> None:
    """`from_parts` reads what `to_parts` wrote, and writes it again."""
    parts = subject.model.to_parts()
    again = type(subject.model).from_parts(parts).to_parts()
    require(set(again) == set(parts), "other parts")
    differing = [name for name in parts if again[name] != parts[name]]
    require(not differing, f"other bytes in: {listed(differing)}")


@check()
def a_model_of_parts_gives_equal_bits(subject: Subject) -> None:
    """The state is all there is to a model."""
    opened = subject.open(subject.seal())
    require_same(opened.predict(subject.rows), subject.answer)
    require(opened.roles == subject.model.roles, "the roles differ")
    require(opened.cluster_ids == subject.model.cluster_ids, "the ids of segments differ")


@check()
def sealing_twice_gives_one_digest(subject: Subject) -> None:
    """The digest names the state."""
    require(digest(subject.seal()) == digest(subject.seal()), "the digest differs")


@check()
def a_changed_part_is_found(subject: Subject) -> None:
    """One bit in any part, the manifest too, is an `MLflowIntegrationError`."""
    sealed = subject.seal()
    for name, part in sealed.items():
        changed = bytearray(part)
        changed[len(changed) // 2] ^= 1
        other = sealed | {name: bytes(changed)}
        text = refusal(MLflowIntegrationError, partial(subject.open, other))
        require(name == MANIFEST or name in text, f"part {name} is not named")


@check()
def a_part_too_few_or_too_many_is_found(subject: Subject) -> None:
    """The manifest lists every part, and no other is read."""
    sealed = subject.seal()
    for name in sealed:
        fewer = {key: part for key, part in sealed.items() if key != name}
        refusal(MLflowIntegrationError, partial(subject.open, fewer))
    refusal(MLflowIntegrationError, lambda: subject.open(sealed | {"extra": b""}))


@check()
def the_pickle_holds_plain_data(subject: Subject) -> None:
    """No class of scikit-learn, hdbscan, LightGBM or numpy is in the logged object."""
    pickled, modules = pickle.dumps(SegmentForecaster(subject.seal())), set()

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            modules.add(module.split(".")[0])
            return super().find_class(module, name)

    Reader(io.BytesIO(pickled)).load()
    require(modules <= {"tsclust_model", *_OF_PYTHON}, f"it holds {listed(sorted(modules))}")


def _require_equal_after_mlflow(subject: Subject, serialization: str) -> None:
    loaded = subject.reload(serialization)
    require_same(loaded.predict(subject.rows), subject.answer, "the loaded model's answer")
    example = subject.model.example()
    require_same(loaded.predict(example), subject.predict(example), "that to the example")


@check()
def saved_as_a_pickle_and_loaded_it_gives_equal_bits(subject: Subject) -> None:
    """mlflow saves and loads the model, and serves the same answers (``cloudpickle``)."""
    _require_equal_after_mlflow(subject, "cloudpickle")


@check()
def saved_as_code_and_loaded_it_gives_equal_bits(subject: Subject) -> None:
    """The same as models-from-code, without a pickle (``code``)."""
    _require_equal_after_mlflow(subject, "code")


@check()
def the_served_model_refuses_in_mlflows_terms(subject: Subject) -> None:
    """What the model refuses is a `RequestError` of one line: 400, and no row in the reply."""
    served = SegmentForecaster(subject.seal())
    served.load_context(None)
    require_same(served.predict(None, subject.rows), subject.answer)
    rows = subject.rows.drop(columns=subject.number)
    text = refusal(RequestError, lambda: served.predict(None, rows))
    require(subject.number in text, "the message does not name the column")
    refusal(RequestError, lambda: served.predict(None, subject.rows, {"coverage": 2.0}))
