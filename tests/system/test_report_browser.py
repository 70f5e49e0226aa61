"""The report in a real browser: by itself, in light and dark, on a phone, and in mlflow's pages."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from tsclust_model.report.page import SECTIONS

CHROMIUM, DRIVER = shutil.which("chromium"), "/usr/bin/chromedriver"

pytestmark = [
    pytest.mark.usefixtures("store"),
    pytest.mark.skipif(
        CHROMIUM is None or not os.access(DRIVER, os.X_OK),
        reason="there is no chromium with its driver (Debian: chromium chromium-driver)",
    ),
]

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
AXE = """
const [done] = arguments;
axe.run(document, {runOnly: {type: "tag", values: ["wcag2a", "wcag2aa", "best-practice"]}})
  .then(done, error => done({error: String(error)}));
"""
DESKTOP, PHONE = 1280, 390


@pytest.fixture(scope="module", autouse=True)
def server(store_folder: Path, python: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A real ``mlflow ui`` on the store, which starts while the first tests run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(python), "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"]
    with (store_folder / "ui.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--backend-store-uri", f"sqlite:///{store_folder}/mlflow.db"],
            cwd=store_folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
            # Eight processes for jobs that nobody sends.
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
        yield f"http://127.0.0.1:{port}", process
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(registered, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("page")
    path = mlflow.artifacts.download_artifacts(
        run_id=registered.run_id, artifact_path="performance-report.html", dst_path=str(folder)
    )
    return Path(path).as_uri()


def look(browser: Any, page: str, width: int = DESKTOP, dark: bool = False) -> None:
    """Open a page on a screen of a width, in light or dark."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get("about:blank")
    browser.get_log("browser")  # what another page said before
    browser.get(page)


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_every_section_is_shown_and_nothing_is_wrong_or_too_wide(browser, page, width):
    look(browser, page, width)
    for name, _ in SECTIONS:
        section = browser.find_element("css selector", f"section#{name}")
        assert section.is_displayed()
        assert section.find_element("css selector", "h2").text
        assert section.size["height"] > 60
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    pictures = browser.execute_script(
        "return Array.from(document.images, i => [i.complete, i.naturalWidth, i.width])"
    )
    assert len(pictures) == 6
    for complete, natural, shown in pictures:
        assert complete
        assert 0 < shown <= min(natural, width)
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_contrasts_and_texts_for_pictures_keep_the_rules_of_axe(browser, page, width, dark):
    import axe_selenium_python

    look(browser, page, width, dark)
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(16, 22, 28)" if dark else "rgb(244, 246, 248)")
    script = Path(axe_selenium_python.__file__).parent / "node_modules/axe-core/axe.min.js"
    browser.execute_script(script.read_text())
    found = browser.execute_async_script(AXE)
    assert found["violations"] == []
    assert {rule["id"] for rule in found["passes"]} >= {"color-contrast", "image-alt", "region"}
    unnamed = "return document.querySelectorAll('svg:not([role=img][aria-label])').length"
    assert browser.execute_script(unnamed) == 0


def test_on_paper_nothing_is_dark(browser, page):
    look(browser, page, dark=True)
    media = {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    style = "return getComputedStyle(document.querySelector('{}')).{}"
    assert browser.execute_script(style.format("body", "backgroundColor")) == "rgb(255, 255, 255)"
    assert browser.execute_script(style.format(".pictures img", "filter")) == "none"
    assert browser.execute_script(style.format("nav", "display")) == "none"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 300
    while time.monotonic() < until:
        assert process.poll() is None, "mlflow ui ended; see ui.log"
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            continue
    raise AssertionError("mlflow ui does not answer")


def test_the_report_is_on_the_runs_page_in_mlflow(browser, server, registered):
    from selenium.webdriver.support.ui import WebDriverWait

    ui, process = server
    wait_for(ui, process)
    experiment = mlflow.get_run(registered.run_id).info.experiment_id
    path = f"#/experiments/{experiment}/runs/{registered.run_id}/artifacts"
    look(browser, f"{ui}/{path}/performance-report.html")
    wait = WebDriverWait(browser, 60)
    frame = wait.until(lambda b: b.find_elements("css selector", "iframe"))[0]
    browser.switch_to.frame(frame)
    wait.until(lambda b: b.find_elements("css selector", "section#next"))
    shown = [
        section.get_attribute("id") for section in browser.find_elements("tag name", "section")
    ]
    assert shown == [name for name, _ in SECTIONS]
    heading = browser.find_element("tag name", "h1").text
    browser.switch_to.default_content()
    assert heading == "Performance report: length_of_stay_days"
