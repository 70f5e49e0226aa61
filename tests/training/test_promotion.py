"""The registry's aliases, names of segments and what a version was trained on."""

from __future__ import annotations

from itertools import count

import mlflow
import pytest
from mlflow import MlflowClient

from tsclust_model.errors import ConfigurationError, MLflowIntegrationError
from tsclust_model.mlflow_integration.registry import (
    alias_version,
    name_and_version,
    name_segment,
    rollback,
    segment_names,
    set_challenger,
    set_champion,
    tag_version,
    training_data_tags,
    versions_trained_on,
)

pytestmark = pytest.mark.usefixtures("store")
_numbers = count()


@pytest.fixture
def name(store) -> str:
    """A registered model with three versions and no alias; the registry needs no real model."""
    found = f"promoted-{next(_numbers)}"
    client = MlflowClient()
    client.create_registered_model(found)
    for _ in range(3):
        client.create_model_version(found, "file:///nowhere")
    return found


def aliases(name: str) -> dict[str, str | None]:
    return {alias: alias_version(name, alias) for alias in ("champion", "challenger", "previous")}


def tags(name: str, version: str) -> dict[str, str]:
    return MlflowClient().get_model_version(name, version).tags


def test_the_champion_moves_if_the_expected_one_still_serves(name):
    set_champion(name, "1", "first")
    assert set_champion(name, "2", "better", expected="1", figures={"rmse": 1.5}) == "1"
    assert aliases(name) == {"champion": "2", "challenger": None, "previous": "1"}
    found = tags(name, "2")
    assert found.pop("promoted.at").startswith("20")
    assert found == {
        "promoted.from": "1",
        "promoted.reason": "better",
        "promoted.rmse": "1.5",
    }


def test_somebody_who_moved_the_champion_meanwhile_wins(name):
    set_champion(name, "1", "first")
    set_champion(name, "3", "somebody else")
    before = tags(name, "2")
    with pytest.raises(
        MLflowIntegrationError,
        match=f"@champion of '{name}' was moved from version 1 to 3 meanwhile; compare with",
    ):
        set_champion(name, "2", "late", expected="1")
    assert aliases(name) == {"champion": "3", "challenger": None, "previous": "1"}
    assert tags(name, "2") == before


def test_a_champion_that_was_taken_away_is_a_move_too(name):
    with pytest.raises(MLflowIntegrationError, match="moved from version 1 to None meanwhile"):
        set_champion(name, "2", "late", expected="1")
    assert aliases(name) == {"champion": None, "challenger": None, "previous": None}


def test_promoting_the_champion_again_keeps_the_previous_one(name):
    set_champion(name, "1", "first")
    set_champion(name, "2", "second")
    set_champion(name, "2", "again")
    assert aliases(name) == {"champion": "2", "challenger": None, "previous": "1"}


def test_a_challenger_moves_nothing_else(name):
    set_champion(name, "1", "first")
    set_challenger(name, "2")
    assert aliases(name) == {"champion": "1", "challenger": "2", "previous": None}


@pytest.mark.parametrize("move", [set_challenger, lambda *a: set_champion(*a, "reason")])
def test_a_version_that_is_not_there_is_refused(name, move):
    with pytest.raises(MLflowIntegrationError, match="cannot be"):
        move(name, "99")
    assert aliases(name)["champion"] is None


def test_rollback_lets_previous_and_champion_change_places(name):
    set_champion(name, "1", "first")
    set_champion(name, "2", "second")
    assert rollback(name, "it forecasts nonsense") == "1"
    assert aliases(name) == {"champion": "1", "challenger": None, "previous": "2"}
    found = tags(name, "1")
    assert found["promoted.reason"] == "rollback: it forecasts nonsense"
    assert found["promoted.from"] == "2"
    assert rollback(name, "it did not") == "2"


def test_without_a_previous_version_nothing_is_rolled_back(name):
    set_champion(name, "1", "first")
    with pytest.raises(MLflowIntegrationError, match=f"'{name}' has no @previous version"):
        rollback(name, "reason")
    assert aliases(name) == {"champion": "1", "challenger": None, "previous": None}


def test_segment_names_are_kept_by_id_and_the_last_one_counts(name):
    assert segment_names(name) == {}
    name_segment(name, 3, "post-op, short stay")
    name_segment(name, 12, "Wöchnerinnen")
    name_segment(name, 3, "post-op, long stay")
    assert segment_names(name) == {3: "post-op, long stay", 12: "Wöchnerinnen"}


@pytest.mark.parametrize("text", ["", "x" * 201, "two\nlines", "tab\there"])
def test_a_segment_name_is_one_short_line(name, text):
    with pytest.raises(ConfigurationError, match="one line of 1 to 200 characters"):
        name_segment(name, 1, text)
    assert segment_names(name) == {}


@pytest.mark.parametrize("call", [lambda n: name_segment(n, 1, "a"), segment_names])
def test_segments_of_an_absent_model_are_refused_in_one_line(call):
    with pytest.raises(MLflowIntegrationError, match="nobody") as caught:
        call("nobody")
    assert "\n" not in str(caught.value)


def test_versions_are_found_by_the_batches_they_were_trained_on(name):
    many = [f"{i:016x}" for i in range(200)]  # more than one tag may hold
    tag_version(name, "1", training_data_tags(many))
    tag_version(name, "3", training_data_tags(["a" * 16, many[199]]))
    assert versions_trained_on(name, [many[0]]) == ["1"]
    assert versions_trained_on(name, [many[199], "f" * 16]) == ["1", "3"]
    assert versions_trained_on(name, ["a" * 16]) == ["3"]
    assert versions_trained_on(name, ["f" * 16]) == []
    assert versions_trained_on(name, []) == []


def test_the_longest_version_ids_fit_into_the_tags(name):
    ids = [f"{i:064d}" for i in range(130)]
    tag_version(name, "2", training_data_tags(ids))
    assert all(versions_trained_on(name, [version]) == ["2"] for version in (ids[0], ids[-1]))


def test_versions_are_in_the_order_they_were_made(name):
    for _ in range(8):
        MlflowClient().create_model_version(name, "file:///nowhere")
    for version in ("11", "2", "9"):
        tag_version(name, version, training_data_tags(["b" * 16]))
    assert versions_trained_on(name, ["b" * 16]) == ["2", "9", "11"]


def test_a_uri_is_a_name_and_a_version(name):
    set_champion(name, "2", "second")
    assert name_and_version(f"models:/{name}@champion") == (name, "2")
    assert name_and_version(f"models:/{name}/1") == (name, "1")


@pytest.mark.parametrize(
    "uri",
    ["models:/nobody@champion", "models:/only-a-name", "runs:/0/model", "models:/", "models:/a/"],
)
def test_a_uri_that_names_no_version_is_refused(uri):
    with pytest.raises(MLflowIntegrationError, match="names no registered version; use models:/<"):
        name_and_version(uri)


def test_a_store_that_does_not_answer_is_not_a_champion_that_was_moved(name, monkeypatch):
    set_champion(name, "1", "first")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(MLflowIntegrationError, match=r"^(?!.*was moved)"):
        set_champion(name, "2", "late", expected="1")
