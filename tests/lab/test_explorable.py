"""Views on a page as it is built, with Bokeh's script beside it: loaded once, or not there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from browser import PATIENT, STATIC, loaded
from test_budget_view import view as budget_view
from test_langspec_view import view as langspec_view

from crane_lab.show.explorable import SCRIPT

SCRIPTS = ("langspec_view.js", "explorable.js", "budget_view.js")


def built(folder: Path) -> Any:
    """A page with two kinds of views, and one of them twice."""
    (folder / "_static").mkdir()
    for name in SCRIPTS:
        shutil.copy(STATIC / name, folder / "_static")
    scripts = "".join(f'<script src="_static/{name}"></script>' for name in SCRIPTS)
    (folder / "pages").mkdir()
    page = f"<!doctype html><meta charset=utf-8>{scripts}".replace("_static", "../_static")
    return loaded(folder / "pages", page + langspec_view() + budget_view() * 2, PATIENT)


def test_one_script_draws_all_views(tmp_path: Path) -> None:
    shutil.copy(SCRIPT, tmp_path)
    soup = built(tmp_path)
    assert len(soup.select("script[src*=bokeh]")) == 1
    views = soup.select(".explorable")
    assert [len(one.select(".explorable-drawing > .bk-Figure")) for one in views] == [1, 3, 3]
    assert not soup.select("[hidden]:not(tr), .explorable-missing")


@pytest.mark.parametrize("there", ["nothing", "something else"])
def test_without_it_views_are_as_without_scripts(there: str, tmp_path: Path) -> None:
    if there == "something else":
        (tmp_path / SCRIPT.name).write_text("globalThis.Bokeh = {};", "utf-8")
    soup = built(tmp_path)
    said = [one.text for one in soup.select(".explorable > .explorable-missing")]
    assert len(said) == 3 and all("could not be drawn" in text for text in said)
    assert len(soup.select(".explorable-drawings[hidden]")) == 3
    assert len(soup.select(".explorable-fields[hidden]")) == 3
    assert soup.select("details[open] tbody tr") and len(soup.select("tbody tr:not([hidden])")) > 50
