"""The way of a newcomer through the book, in a browser: from the first page to a run of their own.

The pages are those of the last run of `smoke`, as `make test` builds them before the tests begin.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlparse

import nbformat
import pytest
from bs4 import BeautifulSoup
from driven import Driven, driven
from test_accessible import BUILT, PAGES

from crane_core.neurons import NeuronSet
from crane_lab.cli.main import command_line
from crane_lab.cli.options import the_run
from crane_lab.parameter import NoSuchPathError
from crane_lab.runs import Project
from crane_lab.store import ROOT

COMMAND = re.compile(r"^make book NOTEBOOK=[^#\n]+", re.M)
SAID = "document.querySelector({!r}).textContent"


#: What is painted in the first drawing of a page, as a number; a drawing has roots of its own.
PAINTED = """(() => {
  const canvases = (root) => [...root.querySelectorAll("*")].flatMap((one) =>
    one.localName === "canvas" ? [one] : one.shadowRoot ? canvases(one.shadowRoot) : []);
  const [canvas] = canvases(document.querySelector(".explorable-drawing"));
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.reduce((sum, value, i) => (sum * 31 + value) % 1000003, 7);
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    if not PAGES:
        pytest.skip("no pages: `make book PROFILE=smoke` builds them")
    with driven(tmp_path_factory.mktemp("browser")) as page:
        yield page


def seen(browser: Driven, selector: str) -> bool:
    """Whether the first element of a selector is there and takes up room."""
    found = f"document.querySelector({selector!r})"
    script = f"(({found})?.checkVisibility({{ visibilityProperty: true }}) ?? false)"
    return bool(browser.said(f"{script} && {found}.getClientRects()[0]?.height > 0"))


@pytest.mark.parametrize("width", [1280, 390])
def test_from_the_first_page_to_a_solved_exercise(width: int, browser: Driven) -> None:
    """First page, a door, a quick question, a hint, a solution, the download, an explorable."""
    browser.opened(BUILT / "index.html", width, ending="/book/intro.html")
    browser.clicked("#three-doors a[href$='/04_table1.html']")
    browser.arrived("/04_table1.html")

    assert browser.said(SAID.format(".quick-said")) == ""
    browser.clicked(".quick-question label input")
    said = browser.said(SAID.format(".quick-said"))
    assert said.startswith(("Right. ", "Not this one. ")) and len(said) > 30

    hint = "details.sd-dropdown"
    assert not seen(browser, f"{hint} .sd-card-body p, {hint} .sd-summary-content p")
    browser.clicked(f"{hint} summary")
    assert seen(browser, f"{hint} .sd-card-body p, {hint} .sd-summary-content p")

    solution = ".solution.dropdown section"
    assert not seen(browser, f"{solution} p")
    browser.clicked(".solution.dropdown .admonition-title")
    browser.until(
        f"getComputedStyle(document.querySelector('{solution} p')).visibility === 'visible'"
    )
    assert seen(browser, f"{solution} p")

    link = "a.btn-download-source-button"
    assert not seen(browser, link)
    browser.clicked(".dropdown-download-buttons button")
    browser.until(f"document.querySelector({link!r}).checkVisibility()")
    target = Path(unquote(urlparse(browser.said(f"document.querySelector({link!r}).href")).path))
    assert target.name == "04_table1.ipynb" and target.is_relative_to(BUILT)
    notebook = nbformat.read(target, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    assert any("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells)
    assert browser.said("typeof Bokeh") == "undefined"  # nothing is drawn here

    browser.clicked(".bd-article a[href^='04d_drops_and_budgets']")
    browser.arrived("/04d_drops_and_budgets.html")
    slider = ".langspec-view input[type='range']"
    browser.until(f"!!document.querySelector({slider!r})")
    assert seen(browser, slider)
    before, painted = browser.said(SAID.format(".langspec-view")), browser.said(PAINTED)
    browser.clicked(slider)
    browser.pressed("End")
    after = browser.until(
        f"{SAID.format('.langspec-view')} !== {before!r} && {SAID.format('.langspec-view')}"
    )
    assert re.findall(r"\d\.\d+", after) != re.findall(r"\d\.\d+", before)
    browser.until(f"{PAINTED} !== {painted}")


def commands(html: str) -> list[str]:
    """The lines of a page that make one notebook, as they would be copied."""
    blocks = [block.get_text() for block in BeautifulSoup(html, "lxml").select("pre, td code")]
    return [
        found.strip() for block in blocks for found in COMMAND.findall(block.replace("\\\n", " "))
    ]


def as_make_runs_it(command: str) -> list[str]:
    """The arguments of `crane` that the Makefile makes of a command; nothing is run."""
    made, name, *variables = shlex.split(command)
    assert (made, name) == ("make", "book")
    dry = [made, "--dry-run", "--no-print-directory", name, *variables]
    said = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in said.splitlines() if "/crane book " in line]
    return shlex.split(line)[1:]


def test_commands_on_pages_are_understood() -> None:
    if not PAGES:
        pytest.skip("no pages: `make book PROFILE=smoke` builds them")
    texts = [page.read_text("utf-8") for page in PAGES]
    found = {command for text in texts if "NOTEBOOK=" in text for command in commands(text)}
    assert len(found) >= 5
    for command in found:
        options = command_line().parse_args(as_make_runs_it(command))
        assert Project().find(options.notebook)
        with suppress(NoSuchPathError):  # of a reader's own folder
            the_run(options)


def test_a_threshold_of_ones_own() -> None:
    """What `book/rerun.md` shows, with another parameter put in."""
    if not PAGES:
        pytest.skip("no pages: `make book PROFILE=smoke` builds them")
    first = commands((BUILT / "book" / "rerun.html").read_text("utf-8"))[0]
    own = re.sub(r"NOTEBOOK=\d+", "NOTEBOOK=03", re.sub(r"-p \w+ \w+", "-p threshold 1.5", first))
    options = command_line().parse_args(as_make_runs_it(own))
    run = the_run(options)
    assert run.received(run.project.find(options.notebook))["threshold"] == 1.5
    with pytest.raises(ValueError, match="treshold"):
        the_run(command_line().parse_args(as_make_runs_it(own.replace("threshold", "treshold"))))


def test_sets_of_ones_own_threshold() -> None:
    """The same command under `smoke`, run: a higher threshold leaves fewer neurons."""
    before = Project().run("smoke")
    if not PAGES or not before.is_current(before.project.find("03")):
        pytest.skip("no finished run: `make book PROFILE=smoke` makes it")
    command = "make book PROFILE=smoke NOTEBOOK=03 PARAMS='-p threshold 1.5'"
    options = command_line().parse_args(as_make_runs_it(command))
    run = the_run(options)
    try:
        assert run.execute([run.project.find(options.notebook)], progress=False) == 1
        for x in run.parameters["languages"]:
            name = Path("results") / f"neurons_{x}.safetensors"
            own, theirs = (NeuronSet.load(of.directory / name) for of in (run, before))
            assert 0 < len(own) < len(theirs)
    finally:
        shutil.rmtree(run.directory, ignore_errors=True)
