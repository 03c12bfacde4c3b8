"""LangSpec-F1 with drops that a reader moves: the numbers of `crane_core.metrics`, and safe."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from browser import STATIC, opened
from bs4 import BeautifulSoup
from hostile import HOSTILE

from crane_core.metrics import AGGREGATES, langspec_f1
from crane_lab.show.foreign import as_data
from crane_lab.show.langspec_view import langspec_view, random_scores
from crane_lab.stages.outcomes import Reading
from crane_lab.texts.visible import visible

SCRIPTS = ["langspec_view.js", "explorable.js"]  # in whatever order they are loaded
NAMES = {"en": "English", "zh": "Chinese", "vi": "Vietnamese"}
TABLE = pd.DataFrame(
    [
        ("Org", "", 0.8, 0.6, 0.5),
        ("LAPE", "en", 0.8, 0.7, 0.5),
        ("CRANE", "zh", 0.7, 0.3, 0.45),
        ("CRANE", "vi", 0.9, 0.6, 0.5),
    ],
    columns=["method", "mask_language", *NAMES],
)
RANDOM = {
    key: pd.DataFrame(np.random.default_rng(i).uniform(0.4, 0.8, (n, 3)), columns=list(NAMES))
    for i, (key, n) in enumerate(
        {("CRANE", "en"): 5, ("CRANE", "zh"): 40, ("CRANE", "vi"): 0, ("LAPE", "en"): 7,
         ("unused", "en"): 9, ("LAPE", "ar"): 9}.items()
    )
}  # fmt: skip
READING = Reading("mean", True)


def view(
    names: dict[str, str] = NAMES, table: pd.DataFrame = TABLE, reading: Reading = READING
) -> str:
    return str(langspec_view(table, names, RANDOM, reading).data)


def cases() -> list[dict[str, Any]]:
    """Scores before and after with all readings: gains, no change, nothing to lose, two to six."""
    rng = np.random.default_rng(0)
    found = []
    for how, relative, kind in itertools.product(AGGREGATES, (False, True), range(200)):
        n = int(rng.integers(2, 7))
        before, after = rng.uniform(0, 1 if kind % 2 else 10, (2, n))
        if kind % 5 == 0:
            before = before.round(1)
            after = after.round(1)
        if kind % 7 == 0:
            after = np.where(rng.random(n) < 0.5, before, after)
            before = np.where(rng.random(n) < 0.3, 0.0, before)
        target, epsilon = int(rng.integers(n)), [1e-8, 1e-3][kind % 2]
        found.append({"before": before.tolist(), "after": after.tolist(), "target": target,
                      "epsilon": epsilon, "how": how, "relative": relative})  # fmt: skip
    return found


COMPUTE = """<script type="application/json" id="cases">{cases}</script><pre id="found"></pre>
<script>addEventListener("load", () => {{
  const cases = JSON.parse(document.getElementById("cases").textContent);
  document.getElementById("found").textContent = JSON.stringify(cases.map((c) =>
    langspecF1(c.before, c.after, c.target, c.epsilon, c.how, c.relative)));
}});</script>"""


def test_the_browser_computes_what_metrics_does(tmp_path: Path) -> None:
    given = cases()
    soup = opened(tmp_path, SCRIPTS, COMPUTE.format(cases=as_data(given)))
    found = json.loads(soup.select("#found")[0].text)
    assert len(found) == len(given) == 1200
    for case, one in zip(given, found, strict=True):
        names = [str(i) for i in range(len(case["before"]))]
        expected = langspec_f1(
            dict(zip(names, case["before"], strict=True)),
            dict(zip(names, case["after"], strict=True)),
            str(case["target"]),
            case["epsilon"],
            case["how"],
            case["relative"],
        )
        for name in ("precision", "recall", "f1"):
            assert one[name] == pytest.approx(getattr(expected, name), rel=1e-12, abs=1e-15), case


def test_without_scripts_there_is_a_table() -> None:
    soup = BeautifulSoup(view(), "lxml")
    rows = [[cell.text for cell in row.select("th, td")] for row in soup.select("tr")]
    assert rows[0] == [
        "mask", "drop of English", "drop of Chinese", "drop of Vietnamese", "precision", "recall",
        "LangSpec-F1", "random masks of its size below",
    ]  # fmt: skip
    start, after = ({x: float(TABLE[x][i]) for x in NAMES} for i in (0, 2))
    found = langspec_f1(start, after, "zh", how="mean", relative=True)
    below = sum(
        langspec_f1(start, dict(zip(NAMES, one, strict=True)), "zh", how="mean", relative=True).f1
        < found.f1
        for one in RANDOM["CRANE", "zh"].to_numpy().tolist()
    )
    assert 0 < below <= 40
    assert rows[2] == [
        "CRANE · Chinese", "0.100", "0.300", "0.050",
        *(f"{n:.3f}" for n in (found.precision, found.recall, found.f1)), f"{below} of 40",
    ]  # fmt: skip
    assert rows[1][2] == "−0.100" and rows[1][-1].endswith(" of 7") and rows[3][-1] == "–"
    other = BeautifulSoup(view(table=TABLE.replace("LAPE", "Random")), "lxml")
    assert other.select("tbody tr")[0].text.endswith(" of 5, CRANE's size")
    assert soup.select(".explorable-fields[hidden]") and not soup.select("input, select")
    (figure,) = soup.select(".explorable-alone img")
    assert "19 in 20" in str(figure["alt"])
    assert soup.select("details[open]") and "MB of data" in soup.text


def test_random_masks_are_the_null_or_the_tables_own() -> None:
    tasks = {"en": "knowledge_en", "zh": "knowledge_zh"}
    null = pd.DataFrame({"seed": [7], "knowledge_en": [0.5], "knowledge_zh": [0.25], "more": [0]})
    seeds = pd.DataFrame({"mask_language": ["zh", "en"], "en": [0.1, 0.2], "zh": [0.3, 0.4]})
    nulls = {("CRANE", "en"): null, ("LAPE", "zh"): null, ("LAPE", "ar"): null}
    found = random_scores(nulls, seeds, tasks)
    assert set(found) == {("CRANE", "en"), ("CRANE", "zh"), ("LAPE", "zh")}
    for key in ("CRANE", "en"), ("LAPE", "zh"):
        assert found[key].to_dict("list") == {"en": [0.5], "zh": [0.25]}
    assert found["CRANE", "zh"].to_dict("list") == {"en": [0.1], "zh": [0.3]}
    assert not len(random_scores({}, pd.DataFrame(), tasks)["CRANE", "en"])


def test_a_table_without_masks_is_refused() -> None:
    with pytest.raises(ValueError, match="no masks"):
        view(table=TABLE[:1])


# What a reader does, in the page's first view; the page is dumped after it.
MOVE = """<script>addEventListener("load", async () => {
  await explorable.ready();
  const view = document.querySelector(".explorable");
  const [start, masked, how, drop] = view.querySelectorAll("select");
  const sliders = view.querySelectorAll("input");
  const said = [];
  const drawn = (name) => Bokeh.documents[0].get_model_by_name(name).data;
  const set = (control, value, kind) => {
    control.value = value;
    control.dispatchEvent(new Event(kind));
    said.push([view.querySelector(".explorable-said").textContent, start.value, masked.value,
      ...["random", "limits"].map((name) => drawn(name).x.length),
      view.querySelector("input").getAttribute("aria-valuetext"),
      drawn("bars").value[2]]);
  };
  set(drop, "", "change");
  set(how, "max", "change");
  set(sliders[0], "-5", "input");
  set(sliders[1], "100", "input");
  set(masked, "0", "change");
  set(start, "2", "change");
  set(start, "0", "change");
  set(sliders[0], "50", "input");
  set(masked, "1", "change");
  set(start, "2", "change");
  const made = document.body.appendChild(document.createElement("pre"));
  made.id = "said";
  made.textContent = JSON.stringify(said);
});</script>"""


def test_a_browser_shows_what_is_moved(tmp_path: Path) -> None:
    soup = opened(tmp_path, SCRIPTS, view() + view(reading=Reading()) + MOVE)
    said = json.loads(soup.select("#said")[0].text)
    absolute, largest, gain, gone, other, again, lape, moved, masked, last = said
    # drops of 0.1, 0.3 and 0.05 from 0.8, 0.6 and 0.5
    assert absolute[0].startswith(
        "Mask for Chinese: its drop is 0.300, that of the other languages (their mean) 0.075. "
        "Precision 0.800, recall 0.500, LangSpec-F1 0.615: more than "
    )
    assert absolute[1:6] == ["1", "1", 120, 3, "0.100 of 0.800, 13 %"]
    assert "(their largest) 0.100. Precision 0.750" in largest[0]
    assert "0.050. Precision 0.857, recall 0.500" in gain[0]
    assert gain[1] == "" and gain[5] == "−0.040 of 0.800, −5 %, a gain: counts as 0"
    assert "Precision 0.923, recall 1.000, LangSpec-F1 0.960" in gone[0]
    assert gone[6] == pytest.approx(0.96, abs=1e-3)
    assert other[0].startswith("Mask for English: its drop is 0.000, ")
    # Too few random masks for a mark.
    assert "0 of 5 random masks as large as CRANE's set" in other[0]
    assert other[2:5] == ["0", 15, 0]
    assert again[0].endswith("Precision 0.000, recall 0.000, LangSpec-F1 0.000.")
    assert again[1:5] == ["2", "2", 0, 0] == last[1:5]
    # Random masks of LAPE's own size, of CRANE's where LAPE has none; the mask's drop is a tie of
    # those that take nothing either.
    start = {x: float(TABLE[x][0]) for x in NAMES}
    null = [
        langspec_f1(start, dict(zip(NAMES, one, strict=True)), "en", relative=False).f1
        for one in RANDOM["LAPE", "en"].to_numpy().tolist()
    ]
    ties = null.count(0.0)
    same = f" and the same as {ties}" if ties else ""
    assert lape[0].endswith(f": more than 0 of 7 random masks as large as LAPE's set{same}.")
    assert lape[1:5] == ["0", "0", 21, 0] and moved[3] == 21 and "LAPE's set" in moved[0]
    assert masked[2:4] == ["1", 120] and "of 40 random masks as large as CRANE's set" in masked[0]
    first, second = soup.select(".explorable")
    assert "no random masks" in first.select(".explorable-key")[0].text
    # The other one is as it was: read as printed, from CRANE's first row.
    assert "LangSpec-F1 0.600" in second.select(".explorable-said")[0].text
    assert not soup.select("[hidden], details[open], .explorable-alone, img")
    assert len(second.select("label select")) == 4 and len(second.select("label input")) == 3
    assert second.select(".explorable-drawing[role=img][aria-label] > .bk-Figure")


@pytest.mark.parametrize("kind", ["script", "picture", "ends", "markup"])
def test_names_do_no_harm(kind: str, tmp_path: Path) -> None:
    names = NAMES | {"zh": HOSTILE[kind]}
    html = view(names=names)
    assert html.count("<script") == html.count("</script") == 1
    soup = opened(tmp_path, SCRIPTS, html)
    assert not soup.select("img, s, b, iframe, a")
    assert soup.title is not None and soup.title.text == "as it was"
    assert visible(HOSTILE[kind]) in [option.text for option in soup.select("option")]


def test_what_the_scripts_may_not_do() -> None:
    for name in SCRIPTS:
        script = (STATIC / name).read_text("utf-8")
        for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval", "http"):
            assert way not in script, name
