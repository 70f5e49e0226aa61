"""The pages: they build, and what they say of settings, names and messages is what the code has."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tsclust_model
from tests.messages import GAP, fixed_part, messages
from tests.support import PROJECT
from tsclust_model.config import PipelineConfig
from tsclust_model.operations.settings import LoopSettings, load_settings

DOCS = PROJECT / "docs"
CONFIGURATION = (DOCS / "configuration_guide.md").read_text()
TROUBLESHOOTING = (DOCS / "troubleshooting_guide.md").read_text()
SOURCES = sorted([*PROJECT.glob("tsclust_model/**/*.py"), *PROJECT.glob("entrypoints/*.py")])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built pages."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_pages_build_without_a_warning_and_fetch_nothing(site):
    fetched = re.compile(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
    for page in site.glob("*.html"):
        assert not fetched.findall(page.read_text()), page.name


def test_every_public_name_is_on_the_page_of_the_api(site):
    page = (site / "api_documentation.html").read_text()
    homes = tsclust_model._HOMES
    missing = [f"::: tsclust_model.{home}.{name}" for name, home in homes.items()]
    missing = [line for line in missing if f'id="{line[4:]}"' not in page]
    assert not missing, "add to docs/api_documentation.md:\n" + "\n\n".join(missing)


def test_the_page_of_the_api_holds_public_names_only():
    shown = re.findall(r"^::: ([\w.]+)$", (DOCS / "api_documentation.md").read_text(), re.MULTILINE)
    assert sorted(shown) == sorted(
        f"tsclust_model.{home}.{name}" for name, home in tsclust_model._HOMES.items()
    )


def plain(value: Any) -> str:
    return f"`{json.dumps(value)}`"


def documented_defaults() -> dict[str, str]:
    """Every setting, and its default as the guide must show it."""
    found = {}
    for item in dataclasses.fields(PipelineConfig):
        default = getattr(PipelineConfig(), item.name)
        if isinstance(default, dict):
            found[item.name] = "see below"
            found |= {f"{item.name}.{key}": plain(value) for key, value in default.items()}
        else:
            found[item.name] = plain(default)
    for section, section_field in LoopSettings.model_fields.items():
        for key, key_field in getattr(section_field.annotation, "model_fields", {}).items():
            required = key_field.is_required()
            found[f"{section}.{key}"] = "required" if required else plain(key_field.default)
    return found


@pytest.mark.parametrize(("name", "default"), documented_defaults().items())
def test_a_setting_stands_in_the_guide_with_its_default(name, default):
    assert f"\n| `{name}` | {default} | " in CONFIGURATION


def test_the_guide_names_no_setting_that_does_not_exist():
    shown = re.findall(r"^\| `([\w.]+)` \| ", CONFIGURATION, re.MULTILINE)
    assert sorted(shown) == sorted(documented_defaults())


def test_the_loop_of_the_guide_can_be_loaded(tmp_path, monkeypatch):
    (text,) = re.findall(r"```yaml\n(.*?)```", CONFIGURATION, flags=re.DOTALL)
    path = tmp_path / "pipeline.yaml"
    path.write_text(text + "quality: {mode: off, checks: {added: off}}\n")
    monkeypatch.setenv("TSCLUST_DATA__PATH", "new.csv")
    settings = load_settings(path)
    assert (settings.data.path, settings.data.id) == ("new.csv", "patient_id")
    assert settings.pipeline.hdbscan_params["min_samples"] == 10  # the preset's
    assert settings.mlflow.tracking_uri == "sqlite:///mlflow.db"
    # YAML reads a plain off as false
    assert (settings.quality.mode, settings.quality.checks) == ("off", {"added": "off"})


def known_messages() -> dict[str, str]:
    """The messages with something fixed in them, and where one is raised."""
    return {
        message: f"{path.parent.name}/{path.name}:{line}"
        for path in SOURCES
        for line, message in messages(path, SOURCES)
        if " " in fixed_part(message)
    }


def entries() -> list[str]:
    """The messages that the guide explains: each a list item that begins with one."""
    return [" ".join(text.split()) for text in re.findall(r"^- `([^`]+)`", TROUBLESHOOTING, re.M)]


def test_every_message_the_code_can_raise_is_in_the_troubleshooting_guide():
    shown = "\n".join(entries())
    missing = [
        f"- `{message}`: <cause; remedy>   ({place})"
        for message, place in known_messages().items()
        if fixed_part(message) not in shown
    ]
    assert not missing, "add to docs/troubleshooting_guide.md:\n" + "\n".join(missing)


def test_the_troubleshooting_guide_explains_no_message_that_is_gone():
    known = "\n".join(known_messages())
    stale = [entry for entry in entries() if fixed_part(entry) not in known]
    assert not stale, "remove or correct in docs/troubleshooting_guide.md:\n" + "\n".join(stale)


def test_every_entry_says_what_to_do_and_stands_once():
    explained = re.findall(r"^- `[^`]+`:\s+\S", TROUBLESHOOTING, re.MULTILINE)
    assert len(explained) == len(entries()) == len(set(entries()))


def test_messages_follow_f_strings_helpers_and_conditions(tmp_path):
    source = tmp_path / "module.py"
    source.write_text(
        "def refuse(problem):\n"
        "    raise ValueError(f'the rows {problem}; drop them')\n"
        "def check(n, many):\n"
        "    refuse('are too few' if n else f'are {n} too many')\n"
        "    kind = 'batch'\n"
        "    raise ValueError(f'no {kind} of ' + str(n))\n"
        "def bug():\n"
        "    raise TypeError('never')\n"
    )
    assert sorted(text for _, text in messages(source)) == [
        f"no batch of {GAP}",
        "the rows are too few; drop them",
        f"the rows are {GAP} too many; drop them",
    ]


def test_the_glossary_has_an_entry_for_each_term_it_refers_to_in_order():
    page = re.sub(r"`[^`]*`", "", (DOCS / "glossary.md").read_text())
    terms = [term.lower() for term in re.findall(r"^\*\*(.+?)\*\*", page, re.MULTILINE)]
    assert terms == sorted(set(terms), key=lambda term: term.replace("-", " "))
    referred = set(re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", page)) - {"italics"}
    assert {term.lower().removesuffix("s") for term in referred} <= {
        term.removesuffix("s") for term in terms
    }


NOT_OURS = (
    *("made-up", "unseen", "judged?", "judges", "parted", "held back", "everyone", "gates?"),
    *("doors?", "floors?", "slips?", "dealt with", "a row a", "a case a", "worth"),
)


@pytest.mark.parametrize(
    "path", [PROJECT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda p: p.name
)
def test_a_page_speaks_the_words_of_the_field(path):
    text = re.sub(r"```.*?```|`[^`]*`", "", path.read_text(), flags=re.DOTALL)  # without code
    assert re.findall(rf"\b(?:{'|'.join(NOT_OURS)})\b", text) == []


def test_the_page_on_architecture_shows_every_folder_of_the_package():
    page = (DOCS / "architecture.md").read_text()
    rooms = {path.parent.name for path in PROJECT.glob("tsclust_model/*/__init__.py")}
    assert len(rooms) > 10
    assert [room for room in sorted(rooms) if f"{room}/" not in page] == []
