"""A page opened in a real browser: what is on it after its scripts have run."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from crane_lab.show.explorable import SCRIPT
from crane_lab.store import ROOT

STATIC = ROOT / "book" / "_static"
#: For pages that draw or wait: time passes at once, and then the page is read.
PATIENT = ("--virtual-time-budget=20000",)


def opened(folder: Path, scripts: Sequence[str], body: str) -> BeautifulSoup:
    """A page with scripts of `book/_static` in its head, as it is once it has been loaded.

    `folder`: where the page and the browser's profile are put. Skips the test without Chromium.
    """
    page = "<!doctype html><meta charset=utf-8><title>as it was</title>"
    page += f'<script src="{SCRIPT.as_uri()}"></script>' if "explorable.js" in scripts else ""
    page += "".join(f"<script>{(STATIC / name).read_text('utf-8')}</script>" for name in scripts)
    return loaded(folder, page + body, PATIENT)


def loaded(
    folder: Path, html: str, options: Sequence[str] = (), timeout: int = 120
) -> BeautifulSoup:
    """Any page, as it is once it has been loaded with more options of the browser."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no chromium to open the page with: apt-get install chromium")
    (folder / "page.html").write_text(html, "utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", *options]
    command += [f"--user-data-dir={folder / 'profile'}", (folder / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=True)
    return BeautifulSoup(done.stdout, "lxml")
