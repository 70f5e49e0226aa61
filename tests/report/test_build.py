"""The figures of a report, its page and its cards, down to what hostile names do to them."""

from __future__ import annotations

import copy
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from scipy.stats import norm

from tests.support import HOSPITAL_CONFIG, HOSPITAL_ROLES, PLAN_ROLES, planned_wards
from tsclust_model.config import PipelineConfig
from tsclust_model.data.roles import Roles
from tsclust_model.data.synthetic import make_hospital
from tsclust_model.mlflow_integration.storage import open_storage
from tsclust_model.models.compare import compare
from tsclust_model.report.advice import next_steps
from tsclust_model.report.build import build_report
from tsclust_model.report.figures import Watched
from tsclust_model.report.page import (
    SECTIONS,
    model_card,
    number,
    plain_figures,
    render,
    run_note,
    signed,
)
from tsclust_model.rows.evaluation import evaluate_generation
from tsclust_model.rows.figures import performance_figures, shuffled_control, with_gain
from tsclust_model.rows.fit import fit_generation
from tsclust_model.rows.report import fit_inputs, frame_segments, period, table_inputs
from tsclust_model.rows.table import training_data
from tsclust_model.series.long_table import series_panel
from tsclust_model.series.report import series_evidence, series_inputs
from tsclust_model.training.challenge import retrain_model
from tsclust_model.training.train import train_table

ABOUT = {"phase": "training", "made_at": "2026-01-01 00:00 UTC", "model_name": "m", "version": "1"}
HOSTILE = '<script>alert("x")</script>\n\'"&{{ 7 * 7 }}\u202eשלום'
CONFIG = replace(
    HOSPITAL_CONFIG, audit_columns=["ward", "age"], planning_columns=["ward", "emergency"]
)


class Page(HTMLParser):
    """Ids, texts, tags and pictures of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.pictures += [found] if tag == "img" else []

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def labelled(hospital: pd.DataFrame):
    """A fit with columns to report by, its rows, and rows it has not seen."""
    known, unseen = hospital[:1200], hospital[1200:].reset_index(drop=True)
    data = training_data(known, HOSPITAL_ROLES, CONFIG)
    return fit_generation(data, CONFIG, {"roles": vars(HOSPITAL_ROLES)}), data, known, unseen


@pytest.fixture(scope="module")
def figures(labelled) -> dict[str, Any]:
    fitted, data, known, unseen = labelled
    control = shuffled_control(fitted, data, CONFIG)
    fitted = with_gain(fitted, performance_figures(fitted, data, known, unseen, control))
    inputs = fit_inputs(fitted, data, known, unseen, control.fold_losses["blend"])
    return build_report(fitted.generation, inputs, ABOUT, names={0: "lung"})


@pytest.fixture(scope="module")
def page(figures: dict[str, Any]) -> str:
    return render(figures)


def all_texts(found: Any) -> list[str]:
    if isinstance(found, dict):
        return [text for value in found.values() for text in all_texts(value)]
    if isinstance(found, list):
        return [text for value in found for text in all_texts(value)]
    return [found] if isinstance(found, str) else []


def test_the_page_has_every_section_and_stands_alone(page):
    read = Page(page)
    assert [name for name in read.ids if not name.endswith("-h")] == [name for name, _ in SECTIONS]
    assert len(page) < 3_000_000
    assert "script" not in read.tags
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", page)
    assert not re.search(r"url\(|@import|https?://", page)
    assert all(picture["alt"] for picture in read.pictures)
    assert len(read.pictures) == 6


def test_the_figures_are_json_and_the_page_shows_them(figures, page):
    plain = plain_figures(figures)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert all(
        set(picture) == {"name", "section", "caption", "alt"} for picture in plain["pictures"]
    )
    text = Page(page).text
    assert number(figures["accuracy"]["all"]["value"]) in text
    for table in figures["gain"]["tables"]:
        for way in table["ways"]:
            assert number(way["value"]) in text
    assert number(figures["totals"]["all"]["outputs"]["nursing_hours"]["expected"]) in text


def test_segments_are_described_by_what_sets_them_apart(figures, labelled):
    fitted, _, known, _ = labelled
    segments = figures["segments"]
    labels = fitted.clustering.labels
    assert [item["rows"] for item in segments["shown"]] == sorted(
        np.bincount(labels[labels >= 0]).tolist(), reverse=True
    )
    assert segments["noise_rows"] == int((labels == -1).sum())
    lung = next(item for item in segments["shown"] if item["name"] == "lung")
    members = known[labels == lung["id"]]
    assert len(lung["profile"]) == 3
    for item in lung["profile"]:
        column = known[item["feature"]].astype(float)
        mean = members[item["feature"]].mean()
        assert item["mean"] == pytest.approx(mean)
        assert item["difference"] == pytest.approx((mean - column.mean()) / column.std(ddof=0))
    apart = [abs(item["difference"]) for item in lung["profile"]]
    assert apart == sorted(apart, reverse=True)
    assert len(lung["representatives"]) > 0
    assert set(lung["representatives"]) <= {
        f"row {i}" for i in np.flatnonzero(labels == lung["id"])
    }
    assert lung["strength"] == pytest.approx(
        fitted.assignment.strength[labels == lung["id"]].mean()
    )


def test_worth_is_shown_on_the_folds_with_a_control_and_on_what_was_held_out(figures, labelled):
    fitted, _, _, unseen = labelled
    folds, held = figures["gain"]["tables"]
    simple = ["naive", "last_value"]
    own = ["global", "cluster", "blend"]
    assert [way["way"] for way in folds["ways"]] == [*own, "control", *simple]
    assert [way["way"] for way in held["ways"]] == [*own, *simple]
    naive = fitted.generation.info["naive"]["median"]
    truth = unseen["length_of_stay_days"].to_numpy()
    assert held["ways"][3]["value"] == pytest.approx(np.sqrt(np.square(truth - naive).mean()))
    ways = {way["way"]: way for way in folds["ways"]}
    errors = fitted.generation.target.scores.errors
    assert ways["blend"]["value"] == pytest.approx(errors["blend"])
    assert ways["blend"]["saved"] == pytest.approx(1 - errors["blend"] / errors["global"])
    paired = fitted.generation.target.fold_losses
    gain = paired["global"] - paired["blend"]
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    assert ways["blend"]["saved_error"] >= error / 2 / paired["global"].mean() * (1 - 1e-12)
    assert abs(ways["control"]["saved"]) <= 2 * ways["control"]["saved_error"] + 1e-12
    losses = fitted.generation.losses(unseen)
    blend = held["ways"][2]
    assert blend["value"] == pytest.approx(np.sqrt(losses.mean()))
    assert blend["error"] == pytest.approx(
        losses.std(ddof=1) / np.sqrt(len(losses)) / 2 / np.sqrt(losses.mean())
    )


def test_rows_have_mae_and_r2_beside_the_rmse(figures, labelled):
    fitted, _, _, unseen = labelled
    everyone = figures["accuracy"]["all"]
    expected = evaluate_generation(fitted.generation, unseen)
    assert everyone["mae"] == pytest.approx(expected["mae"])
    assert everyone["r2"] == pytest.approx(expected["r2"])
    shown = [column["label"] for column in figures["measure"]["columns"]]
    assert shown == ["MAE", "R²", "Mean error", "In intervals"]
    card = model_card(figures)
    assert f"MAE {number(everyone['mae'])}, R² {number(everyone['r2'])}" in card
    assert "by the median of the training rows, " in card


def test_totals_by_the_chosen_columns_add_up(figures, labelled):
    _, _, _, unseen = labelled
    totals = figures["totals"]
    assert [by["column"] for by in totals["by"]] == ["segment", "ward", "emergency"]
    for by in totals["by"]:
        assert sum(group["n_rows"] for group in by["groups"]) == 300
        actual = sum(group["outputs"]["medication_cost"]["actual"] for group in by["groups"])
        assert actual == pytest.approx(unseen["medication_cost"].sum())
    ward = next(group for group in totals["by"][1]["groups"] if group["group"] == "surgery")
    own = unseen[unseen["ward"] == "surgery"]
    assert ward["n_rows"] == len(own)
    assert ward["outputs"]["length_of_stay_days"]["actual"] == pytest.approx(
        own["length_of_stay_days"].sum()
    )


def test_a_group_that_is_served_worse_is_found_and_named(labelled):
    fitted, _, _, unseen = labelled
    odd = unseen["ward"] == "cardiology"
    worse = unseen.assign(
        length_of_stay_days=unseen["length_of_stay_days"] + np.where(odd, 4.0, 0.0)
    )
    found = build_report(fitted.generation, table_inputs(fitted.generation, worse), ABOUT)
    column = found["subgroups"][0]
    group = next(group for group in column["groups"] if group["group"] == "cardiology")
    losses = fitted.generation.losses(worse)
    assert group["value"] == pytest.approx(np.sqrt(losses[odd].mean()))
    assert group["ratio"] == pytest.approx(np.sqrt(losses[odd].mean() / losses[~odd].mean()))
    assert [g["group"] for g in column["groups"] if g["worse"]] == ["cardiology"]
    (step,) = [text for text in found["next"] if "cardiology" in text]
    assert step.startswith(f"Check ward = cardiology: its error is {group['ratio']:.2f} times")
    assert "served worse" in Page(render(found)).text
    assert "served worse: ward = cardiology" in model_card(found)


def test_importance_is_the_share_of_gain_blended_by_weight_and_size(figures, labelled):
    target = labelled[0].generation.target
    names = labelled[0].generation.schema.names
    gains = target.global_booster.feature_importance("gain")
    found = {item["feature"]: item for item in figures["importance"]}
    for name, gain in zip(names, gains / gains.sum(), strict=True):
        assert found[name]["global"] == pytest.approx(gain)
    assert sum(item["served"] for item in figures["importance"]) == pytest.approx(1)
    served = [item["served"] for item in figures["importance"]]
    assert served == sorted(served, reverse=True)
    assert target.weight > 0
    assert any(item["served"] != item["global"] for item in figures["importance"])


def test_no_row_is_in_the_figures(figures, labelled):
    _, _, known, unseen = labelled
    plain = json.dumps(plain_figures(figures))
    for name in ("length_of_stay_days", "medication_cost", "nursing_hours"):
        values = pd.concat([known[name], unseen[name]])
        for value in values.sample(200, random_state=0):
            assert f" {value}," not in plain
    ids = set(known["patient_id"]) | set(unseen["patient_id"])
    assert not [text for text in all_texts(plain_figures(figures)) if text in ids]


def test_typical_rows_are_named_by_id_only_if_asked(labelled):
    fitted, data, known, unseen = labelled
    asked = fitted.generation.info["config"] | {"show_ids": True}
    generation = replace(fitted.generation, info=fitted.generation.info | {"config": asked})
    inputs = fit_inputs(replace(fitted, generation=generation), data, known, unseen)
    figures = build_report(generation, inputs, ABOUT)
    typical = {id for item in figures["segments"]["shown"] for id in item["representatives"]}
    assert typical
    assert typical <= set(known["patient_id"])
    assert frame_segments(generation, known).sample_ids[:2] == known["patient_id"].tolist()[:2]
    assert frame_segments(fitted.generation, known).sample_ids[:2] == ["row 0", "row 1"]
    assert "Typical rows are given by id only." in render(figures)


def hostile(found: Any, names: tuple[str, ...] = ()) -> Any:
    """The same figures with a hostile text before every text of a user, also in keys."""
    if isinstance(found, dict):
        fixed = {"format", "section", "png", "phase", "way", "name", "label", "rows_are"}
        return {
            HOSTILE + k if k in names else k: v
            if k in fixed and isinstance(v, str)
            else hostile(v, names)
            for k, v in found.items()
        }
    if isinstance(found, list):
        return [hostile(item, names) for item in found]
    return HOSTILE + found if isinstance(found, str) else found


def test_hostile_names_are_shown_as_text(figures):
    wicked = hostile(figures, (HOSPITAL_ROLES.target, *HOSPITAL_ROLES.resources))
    wicked["segments"]["shown"][0]["name"] = HOSTILE
    page = render(wicked)
    read = Page(page)
    assert "script" not in read.tags
    assert "<script" not in page
    assert html.escape("<script>") in page
    assert "{{ 7 * 7 }}" in page
    assert " ".join(HOSTILE.split()) in read.text
    assert {name for name, _ in SECTIONS} <= set(read.ids)
    for text in (model_card(wicked), run_note(wicked)):
        assert "<script" not in text
        assert "](" not in text


def test_a_table_with_hostile_columns_is_reported(tmp_path):
    table = make_hospital(400, random_state=1)
    names = {"age": HOSTILE, "creatinine": "$x_1$ 世界", "ward": "<b>ward</b>"}
    table = table.rename(columns=names)
    table["<b>ward</b>"] = table["<b>ward</b>"].replace({"surgery": HOSTILE})
    config = replace(CONFIG, audit_columns=["<b>ward</b>"], planning_columns=["<b>ward</b>"])
    data = training_data(table, HOSPITAL_ROLES, config)
    fitted = fit_generation(data, config, {"roles": vars(HOSPITAL_ROLES)})
    inputs = fit_inputs(fitted, data, table, table[:0])
    page = render(build_report(fitted.generation, inputs, ABOUT, names={0: HOSTILE}))
    read = Page(page)
    assert "b" not in read.tags or "<b>ward" not in page
    assert "<script" not in page
    assert " ".join(HOSTILE.split()) in read.text


@pytest.mark.parametrize(
    ("size", "config"),
    [
        (200, {"hdbscan_params": {"min_cluster_size": 190, "min_samples": 5}}),
        (200, {"hdbscan_params": {"min_cluster_size": 30, "min_samples": 5}, "combine": "global"}),
    ],
    ids=["all noise", "without a weight"],
)
@pytest.mark.filterwarnings("ignore:no cluster was found")
@pytest.mark.filterwarnings("ignore:one cluster was found")
def test_a_model_without_worthy_segments_is_reported(size, config):
    settings = PipelineConfig(**config)
    table = make_hospital(size, random_state=2)
    roles = Roles("length_of_stay_days", time="admission_time", id="patient_id")
    data = training_data(table, roles, settings)
    fitted = fit_generation(data, settings, {"roles": vars(roles)})
    inputs = fit_inputs(fitted, data, table, table[:0])
    figures = build_report(fitted.generation, inputs, ABOUT)
    read = Page(render(figures))
    assert {name for name, _ in SECTIONS} <= set(read.ids)
    assert figures["accuracy"]["resources"] == []
    assert (figures["gain"]["saved"], figures["gain"]["weight"]) == (0.0, 0.0)
    if figures["segments"]["n_segments"] == 0:
        assert "No segment was found: all 200 rows are noise" in read.text
        assert figures["next"][0].startswith("Lower hdbscan_params.min_cluster_size from 190 to 95")


def test_nothing_known_of_accuracy_is_said(labelled):
    fitted, _, known, _ = labelled
    figures = build_report(
        fitted.generation, table_inputs(fitted.generation, known, known[:0]), ABOUT
    )
    text = Page(render(figures)).text
    assert text.count("no row with a known outcome was forecast out of sample") == 3
    assert "Not measured" in model_card(figures)


def test_two_hundred_segments_are_shown_in_twenty_and_a_sum(figures):
    many = copy.deepcopy(figures)
    first = many["segments"]["shown"][0]
    many["segments"]["shown"] = [first | {"id": i, "name": f"segment {i}"} for i in range(200)]
    many["segments"] |= {"n_segments": 200, "rest": {"n": 180, "rows": 1800, "share": 0.9}}
    read = Page(render(many))
    assert "180 smaller segments together 1,800" in read.text
    assert "segment 19 " in read.text
    assert "segment 20 " not in read.text


def test_batches_and_alerts_are_shown(labelled):
    fitted, _, _, unseen = labelled
    watched = Watched(
        {"noise_ratio": [0.1, 0.5], "rmse": [1.0]},
        {"noise_ratio": 0.3},
        ["noise_ratio 0.5 is over its threshold 0.3 (critical)"],
    )
    inputs = table_inputs(fitted.generation, unseen)
    figures = build_report(fitted.generation, inputs, ABOUT, watched=watched)
    read = Page(render(figures))
    assert "1 alert noise_ratio 0.5 is over its threshold" in read.text
    assert [p["name"] for p in figures["pictures"]][-1] == "batches"
    assert any(text.startswith("Look at 1 alert(s)") for text in figures["next"])


def test_moved_features_are_named(labelled):
    fitted, _, _, unseen = labelled
    moved = unseen.assign(creatinine=unseen["creatinine"] + 300)
    figures = build_report(fitted.generation, table_inputs(fitted.generation, moved), ABOUT)
    assert figures["drift"]["newest"]["drifted"][0].startswith("creatinine (KS ")
    assert "1 feature(s) drifted" in Page(render(figures)).text
    assert any("creatinine (KS" in text for text in figures["next"])


def test_a_comparison_says_what_is_saved_and_how_surely(labelled):
    fitted, _, _, unseen = labelled
    generation = fitted.generation
    worse = replace(generation, target=replace(generation.target, weight=0.0))
    comparison = replace(compare(worse, generation, unseen, 0.01), better=True)
    inputs = table_inputs(generation, unseen)
    figures = build_report(generation, inputs, ABOUT, comparison=comparison)
    found = figures["generations"]["comparison"]
    assert (found["old"], found["new"]) == (comparison.champion, comparison.challenger)
    assert found["improvement_error"] == pytest.approx(
        comparison.standard_error / 2 / comparison.champion**2
    )
    assert (
        f"Let the new generation serve: it saves {found['improvement']:.1%}" in figures["next"][0]
    )
    assert "the new one is better" in Page(render(figures)).text


def test_advice_is_to_do_nothing_when_nothing_stands_out(figures):
    quiet = copy.deepcopy(figures)
    quiet["gain"] = quiet["accuracy"] = None
    quiet["subgroups"] = []
    assert next_steps(quiet) == [
        "Nothing stands out: no figure of this report calls for an action."
    ]


def test_numbers_for_people():
    assert [number(v) for v in (None, 0, 7, 1234, 0.12345, 12.3456, 98765.4, 0.00001)] == [
        *("–", "0", "7", "1,234", "0.1235", "12.35", "98,765", "1.0e-05"),
    ]
    assert [signed(v) for v in (None, 0.25, -3.14159)] == ["–", "+0.25", "−3.14"]


def test_the_period_is_given_in_days():
    frame = pd.DataFrame({"t": ["2026-01-31T23:59:58", "2026-02-02"], "n": [3.0, 1.5]})
    assert period(frame, "t") == ["2026-01-31", "2026-02-02"]
    assert period(frame, "n") == ["1.5", "3"]
    assert period(frame, None) is period(frame[:0], "t") is None


@pytest.mark.usefixtures("store")
def test_a_training_logs_page_figures_note_and_card(registered):
    client = MlflowClient()
    run = client.get_run(registered.run_id)
    names = {item.path for item in client.list_artifacts(registered.run_id)}
    assert {"performance-report.html", "performance-report.json"} <= names
    uri = f"runs:/{registered.run_id}/performance-report.json"
    figures = mlflow.artifacts.load_dict(uri)
    assert figures["model"]["version"] == registered.version
    assert figures["model"]["n_holdout"] == 300
    assert figures["accuracy"]["all"]["value"] == pytest.approx(
        registered.report["holdout"]["rmse"]
    )
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith("Training of hospital, version 1. RMSE ")
    card = client.get_model_version("hospital", registered.version).description
    assert "**Privacy.** The model holds 1,200 scaled training rows" in card
    assert "max_reference_rows" in card
    assert "**Intended use.**" in card


@pytest.mark.usefixtures("store")
def test_a_column_to_report_by_that_is_not_there_is_named(hospital):
    config = replace(CONFIG, audit_columns=["wart"], lgb_timeseries_params={"n_estimators": 5})
    with pytest.warns(UserWarning, match="audit_columns names 'wart'.*did you mean 'ward'"):
        train_table(
            hospital[:300],
            replace(HOSPITAL_ROLES, resources=()),
            config,
            model_name="report-absent",
        )


@pytest.mark.usefixtures("store")
def test_a_retrain_reports_who_moved_and_keeps_the_columns_it_reports_by(hospital, tmp_path):
    config = replace(
        CONFIG,
        history_dir=str(tmp_path),
        drop_columns=["ward"],
        lgb_timeseries_params={"n_estimators": 20},
        lgb_resource_params={"n_estimators": 10},
    )
    roles = replace(HOSPITAL_ROLES, resources=())
    table = hospital.drop(columns=["nursing_hours", "medication_cost"])
    first = train_table(table[:700], roles, config, model_name="report-retrain")
    history_rows = make_hospital(700, random_state=31).drop(
        columns=["nursing_hours", "medication_cost"]
    )
    open_storage(config, "report-retrain").history.register(
        first.generation.canonical_rows(history_rows)
    )
    done = retrain_model(first.generation, first.version, "report-retrain", config, "because")
    figures = mlflow.artifacts.load_dict(f"runs:/{done.run_id}/performance-report.json")
    assert "ward" not in figures["model"]["features"]
    assert figures["totals"]["by"][1]["column"] == "ward"
    generations = figures["generations"]
    assert generations["comparison"]["reason"] == done.comparison.reason
    assert generations["moves"]["n_rows"] == figures["model"]["n_rows"]
    ids = {item["id"] for item in figures["segments"]["shown"]}
    assert ids == set(done.generation.cluster_ids)
    assert figures["model"]["reason"] == "because"


@pytest.mark.usefixtures("store")
def test_classes_are_reported_by_log_loss_and_what_was_right(registered_classes):
    uri = f"runs:/{registered_classes.run_id}/performance-report.json"
    figures = mlflow.artifacts.load_dict(uri)
    assert figures["measure"]["name"] == "log_loss"
    assert [column["label"] for column in figures["measure"]["columns"]] == ["Right", "AUC"]
    held = registered_classes.report["holdout"]
    everyone = figures["accuracy"]["all"]
    assert everyone["value"] == pytest.approx(held["log_loss"])
    assert everyone["accuracy"] == pytest.approx(held["accuracy"])
    assert everyone["auc"] == pytest.approx(held["auc"])
    ways = {way["way"]: way["value"] for way in figures["gain"]["tables"][0]["ways"]}
    folds = registered_classes.report["folds"]
    assert ways == {
        way: pytest.approx(folds[f"log_loss_{way}"])
        for way in ("global", "cluster", "blend", "control", "naive")
    }
    classes = registered_classes.generation.outcome
    totals = figures["totals"]["all"]["outputs"]
    names = {f"{classes.name}: {text}" for text in classes.classes}
    assert names <= set(totals)
    assert sum(totals[name]["expected"] for name in names) == pytest.approx(everyone["n_rows"])
    pictures = [picture["name"] for picture in figures["pictures"]]
    assert "confusion" in pictures
    assert "residuals" not in pictures
    page = mlflow.artifacts.load_text(uri.replace(".json", ".html"))
    read = Page(page)
    assert {name for name, _ in SECTIONS} <= set(read.ids)
    assert f"{everyone['accuracy']:.1%} of the rows: the likeliest class was right" in read.text


@pytest.mark.usefixtures("store")
def test_series_are_reported_by_mase_with_forecasts_and_intervals(registered_wards):
    uri = f"runs:/{registered_wards.run_id}/performance-report.json"
    figures = mlflow.artifacts.load_dict(uri)
    held = registered_wards.report["holdout"]
    everyone = figures["accuracy"]["all"]
    assert figures["measure"]["label"] == "MASE"
    assert everyone["value"] == pytest.approx(held["mase"])
    assert everyone["interval_coverage"] == pytest.approx(held["interval_coverage"])
    assert everyone["n_rows"] == held["n_rows"] - held["n_not_scored"]
    rolling, unseen = figures["gain"]["tables"]
    assert rolling["basis"] == "rolling origins inside the training series"
    ways = {way["way"]: way["value"] for way in rolling["ways"]}
    assert ways["control"] == pytest.approx(registered_wards.report["folds"]["mase_control"])
    ways = {way["way"]: way["value"] for way in unseen["ways"]}
    assert ways["seasonal_naive"] == pytest.approx(held["mase_seasonal_naive"])
    assert figures["gain"]["credit"]["beyond"] == registered_wards.report["gain"]["beyond"]
    sentence = figures["gain"]["credit"]["sentence"]
    assert "shuffled segments" in sentence or "weight 0" in sentence
    assert sentence in model_card(figures)
    assert figures["model"]["rows_are"] == "series"
    assert figures["model"]["covariates"] == "temperature (known up to the last period)"
    assert [picture["name"] for picture in figures["pictures"]][-1] == "forecasts"
    read = Page(mlflow.artifacts.load_text(uri.replace(".json", ".html")))
    assert {name for name, _ in SECTIONS} <= set(read.ids)
    assert "sums over those periods" in read.text


def test_the_covariates_of_series_are_named(plan_model):
    panel = series_panel(planned_wards(), PLAN_ROLES)
    figures = build_report(plan_model, series_inputs(plan_model, panel, None), ABOUT)
    named = "planned (known for the future); kind, size (one value for each series); holidays (AU)"
    assert f"Covariates {named}" in Page(render(figures)).text
    assert figures["model"]["covariates"] == named


def test_the_total_of_a_series_adds_up_its_known_steps(ward_model, wards):
    panel = series_panel(wards, replace(ward_model.roles, frequency=ward_model.schema.frequency))
    held = panel.held_back(ward_model.schema.horizon, ward_model.schema.horizon)
    held.y[0, 1:] = np.nan
    evidence = series_evidence(ward_model, held, "held back")
    found = ward_model.forecast(held.panel, ward_model.coverage).target
    target = evidence.target
    assert target.truth[0] == held.y[0, 0]
    assert target.prediction[0] == found.prediction[0, 0]
    assert target.truth[1] == pytest.approx(held.y[1].sum())
    deviation = (found.upper[1] - found.lower[1]).sum() / 2 / norm.ppf(0.95)
    assert target.variance[1] == pytest.approx(deviation**2)
    assert evidence.losses["blend"] == pytest.approx(ward_model.losses(held), abs=1e-12)


def test_advice_card_and_page_credit_segments_beyond_the_shuffled_ones_only(figures):
    gain = figures["gain"]["credit"]
    assert gain["earned"]
    sentence = (
        f"Segments save {gain['saved']:.1%} of the error, {gain['beyond']:.1%} ± "
        f"{gain['error']:.1%} beyond shuffled segments"
    )
    assert gain["sentence"] == sentence
    assert any(text.startswith(f"Plan by segments. {sentence}") for text in figures["next"])
    assert sentence in model_card(figures)
    assert sentence in Page(render(figures)).text
    assert "less than one global model" not in model_card(figures)


def test_segments_that_save_no_more_than_shuffled_ones_are_for_description(figures):
    sentence = (
        "Segments do not improve the forecast here: they save 0.6% of the error and shuffled "
        "segments 0.5%, a difference of 0.1% ± 0.2%; use them to describe"
    )
    gain = {"saved": 0.006, "control": 0.005, "beyond": 0.001, "error": 0.002, "earned": False}
    shown = figures["gain"] | {"credit": gain | {"sentence": sentence}}
    other = figures | {"gain": shown}
    other["next"] = next_steps(other)
    assert f"{sentence}." in other["next"]
    assert not any(text.startswith("Plan by segments") for text in other["next"])
    assert f"{sentence}." in model_card(other)
    read = Page(render(other)).text
    assert sentence in read
    assert "0.0% of the error saved by segments beyond shuffled ones: no more than chance" in read


def test_a_model_of_an_older_build_has_no_credit(figures):
    other = figures | {"gain": figures["gain"] | {"credit": None}}
    other["next"] = next_steps(other)
    assert not any("segments save" in text.lower() for text in other["next"])
    assert "save" not in model_card(other).split("**Limits.**")[0]
    assert "beyond shuffled" not in Page(render(other)).text
