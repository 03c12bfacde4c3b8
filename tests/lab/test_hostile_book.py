"""A book of hostile texts, built and opened: nothing is live, hidden or wider than a phone."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from bs4 import BeautifulSoup
from hostile import HOSTILE

from crane_lab.runs import Project, build_book
from crane_lab.store import ROOT
from crane_lab.texts.visible import visible

NOTEBOOK = """\
# %% [markdown]
# # What is said
#
# Mathematics of ours, $x^2$, is typeset.

# %% tags=["parameters"]
model = "x"  # checkpoint to examine
run_dir = "runs/testbed"  # where results go

# %%
import json
from pathlib import Path

import pandas as pd
from IPython.display import display

from crane_lab.show import figures, open_page
from crane_lab.show.foreign import as_code, as_markdown, prose
from crane_lab.testbed.rubric import SUBSCORES

hostile = json.loads(Path("hostile.json").read_text("utf-8"))
parts = {"score": 1.0} | dict.fromkeys(SUBSCORES, 0.5)
for name, text in hostile.items():
    explained = [{"sentence": text, "relation": text, "value": text, "true": None}]
    display(
        open_page.framed(text),
        *open_page.taken_apart({"question": text, "text": text, **parts}, explained),
        figures.table(pd.DataFrame({text: [text]}), text),
        prose(f"Its answer, “{as_markdown(text)}”, to {as_code(text)}."),
        prose(f"- forgotten: {text}"),
    )
    print(text)

# %%
lines = {text: ([0, 1], [0, 1]) for text in [*hostile.values()][:3]}
figures.show(figures.curves(lines, "x", "y", title=hostile["markup"]), alt=hostile["markup"])

# %%
import base64
import os
import traceback

key = os.environ["OPENAI_API_KEY"]
coded = base64.b64encode(f"Authorization: {key}".encode()).decode()
display(prose(f"Asked with {key}, {coded}."), figures.table(pd.DataFrame({"k": [key]}), key))
display(pd.DataFrame({"key": [key]}), key)
print(key)
try:
    raise ValueError(f"refused: {key}, {coded}")
except ValueError as error:
    traceback.print_exc()
    display(error)

# %%
display(prose(f"The model is {as_markdown(model)}."))
pd.DataFrame(hostile.items(), columns=["a", "b"])
"""

KEY = "sk-proj-Zq81hT7vLmX2cN5bRw9Yk3Jd6Fs0Pg4AqZq81hT7vLmX2cN5"
MODEL = "<img src=x onerror=window.owned=6>`{ref}`nosuch` <!-- $x$"

#: Put into a copy of the page: tells the page around it what a reader of it sees.
PROBE = """<script>
addEventListener("load", () => setTimeout(() => parent.postMessage(JSON.stringify({
  owned: window.owned || "", title: document.title,
  text: document.querySelector("article").innerText,
  lines: getComputedStyle(document.querySelector("article p")).whiteSpace,
  width: document.documentElement.scrollWidth, room: window.innerWidth,
}), "*"), 1500))
</script>"""
FRAME = """<!doctype html><meta charset="utf-8"><iframe src="probe.html" width="390" height="844">
</iframe><pre id="report"></pre><script>addEventListener("message",
event => {document.getElementById("report").textContent = event.data})</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    profiles = root / "notebooks" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "testbed.yaml").write_text("")
    (profiles / "a<b>c.yaml").write_text(yaml.safe_dump({"model": MODEL}))
    (root / "notebooks" / "01_said.py").write_text(NOTEBOOK, "utf-8")
    (root / "hostile.json").write_text(json.dumps(HOSTILE))
    (root / "book").mkdir()
    (root / "book" / "intro.md").write_text("# Start\n")
    (root / "book" / "references.bib").write_text("")
    (root / "_config.yml").write_text((ROOT / "_config.yml").read_text())
    shutil.copytree(ROOT / "book" / "_static", root / "book" / "_static")
    chapters = [{"file": name} for name in ("notebooks/01_said", "book/parameters")]
    (root / "_toc.yml").write_text(
        yaml.safe_dump({"format": "jb-book", "root": "book/intro", "chapters": chapters})
    )
    run = Project(root).run("a<b>c")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OPENAI_API_KEY", KEY)
        run.execute(progress=False)
        # Not a warning, or it would not build.
        return build_book(run) / "notebooks" / "01_said.html"


def squeezed(text: str) -> str:
    """Without blanks, and as Sphinx' quotes and dashes have it: what a reader reads."""
    text = re.sub(r"\s|\u200b", "", text)
    for ours, typed in (("“”„", '"'), ("‘’", "'"), ("–", "--"), ("—", "---"), ("…", "...")):
        for sign in ours:
            text = text.replace(sign, typed)
    return text.replace("---", "-").replace("--", "-")


def live(html: str) -> list[str]:
    """What a text of `HOSTILE` has become part of, as an element, an attribute or a comment."""
    soup = BeautifulSoup(html, "lxml")
    found = [f"script: {tag.text[:60]}" for tag in soup.find_all("script") if "owned" in tag.text]
    for tag in soup.find_all(True):
        handlers = [name for name in tag.attrs if name.startswith("on") and "owned" in tag[name]]
        found += [f"<{tag.name} {name}>" for name in handlers]
        for name in ("href", "src"):
            address = str(tag.get(name, ""))
            if "javascript:" in address or address == "x" or ".invalid" in address:
                found.append(f"<{tag.name} {name}={address}>")
        if tag.name in ("s", "strike", "unk", "svg") and "after" in tag.text:
            found.append(f"<{tag.name}>")
    return found


def test_no_page_holds_anything_live(page: Path) -> None:
    files = [*page.parent.parent.rglob("*.html")]
    assert {path.name for path in files} >= {"01_said.html", "parameters.html", "intro.html"}
    for path in files:
        if "_static" not in path.parts:
            assert live(path.read_text("utf-8")) == [], path.name
    parameters = BeautifulSoup(
        (page.parent.parent / "book" / "parameters.html").read_text(), "lxml"
    )
    assert squeezed(MODEL) in squeezed(parameters.text)
    assert "a<b>c" in parameters.text
    assert squeezed(MODEL) in squeezed(BeautifulSoup(page.read_text(), "lxml").text)


def test_no_file_holds_a_key_that_was_shown(page: Path) -> None:
    """Neither whole nor in pieces, in base64 neither: pages, search index, executed notebook."""
    coded = base64.b64encode(KEY.encode()).decode()
    pieces = [text[at : at + 12] for text in (KEY[8:], coded[12:-4]) for at in range(0, 36, 12)]
    holding = [
        (path.name, piece)
        for path in page.parents[4].rglob("*")
        if path.is_file()
        for piece in pieces
        if piece.encode() in path.read_bytes()
    ]
    assert holding == []
    assert "refused: ***" in BeautifulSoup(page.read_text("utf-8"), "lxml").text


def test_what_is_live_would_be_noticed() -> None:
    assert len(live(" ".join(HOSTILE.values()))) >= 5


def in_browser(page: Path) -> dict[str, Any]:
    """What a reader of the page sees at 390 pixels, by Chromium."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no chromium to open the page with: apt-get install chromium")
    html = page.read_text("utf-8").replace("</body>", f"{PROBE}</body>")
    (page.parent / "probe.html").write_text(html, "utf-8")
    (page.parent / "frame.html").write_text(FRAME, "utf-8")
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=20000",
    ]
    command += ["--window-size=1280,1000", "--dump-dom", (page.parent / "frame.html").as_uri()]
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=150, check=True).stdout
    report = BeautifulSoup(dumped, "lxml").find(id="report")
    assert report is not None and report.text, dumped[-2000:]
    told: dict[str, Any] = json.loads(report.text)
    return told


def test_a_browser_runs_none_of_it_and_shows_all_of_it(page: Path) -> None:
    told = in_browser(page)
    assert told["owned"] == "" and told["title"].startswith("What is said")
    read = squeezed(told["text"])
    unread = {
        name: read.count(squeezed(visible(text)))
        for name, text in HOSTILE.items()
        if read.count(squeezed(visible(text))) < 8
    }
    assert not unread
    assert told["lines"] == "normal"  # our own lines are filled
    assert told["width"] <= told["room"] == 390  # nothing makes the page wider than a phone
