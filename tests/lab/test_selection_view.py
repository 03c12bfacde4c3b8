"""Sets of neurons that a reader selects: the same ones as `selection.select`, and safe."""

from __future__ import annotations

import dataclasses
import itertools
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import STATIC, opened
from bs4 import BeautifulSoup
from IPython.display import HTML, Markdown
from torch import Tensor

from crane_core.neurons import jaccard
from crane_core.selection import NeuronSet, normalise, select
from crane_lab.settings import Settings
from crane_lab.show.explorable import in_single_precision
from crane_lab.show.foreign import as_data
from crane_lab.show.selection_view import RULES, selection_view
from crane_lab.study import selectable
from crane_lab.study.necessity import Estimate, Necessity

SCRIPTS = ["selection_view.js", "explorable.js"]  # in whatever order they are loaded
SHAPE = {"intermediate": (3, 20)}
LANGUAGES = ["en", "zh", "vi"]


def scores_of(kind: str, languages: int = 3) -> dict[str, Tensor]:
    """Scores that can be told apart, that are tied, or that are missing here and there."""
    draw = torch.Generator().manual_seed(languages)
    found = {}
    for x in LANGUAGES[:languages]:
        values = torch.randn(3, 20, generator=draw, dtype=torch.float64)
        if kind == "tied":
            values = (2 * values).round() / 2
        if kind != "apart":
            values[torch.rand(3, 20, generator=draw) < 0.2] = torch.nan
        found[x] = (torch.full_like(values, torch.nan) if kind == "none" else values).float()
    return found


def chosen(
    scores: dict[str, Tensor], x: str, rule: str, threshold: float, budget: int | None
) -> NeuronSet:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        single = {y: values.double() for y, values in scores.items()}
        return select(single, x, rule, threshold, budget)


# Every case is run by the script that the page has; a refusal is null.
SELECT = """<script type="application/json" id="cases">{cases}</script><pre id="found"></pre>
<script>addEventListener("load", () => {{
  const bytes = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  const floats = (text) => new Float32Array(bytes(text).buffer);
  const {{ scores, cases }} = JSON.parse(document.getElementById("cases").textContent);
  const read = scores.map((of) => of.map(floats));
  const run = ([of, ...how]) => {{
    try {{ return selectNeurons(read[of], ...how); }} catch {{ return null; }}
  }};
  document.getElementById("found").textContent = JSON.stringify(cases.map(run));
}});</script>"""


def test_the_browser_selects_what_select_does(tmp_path: Path) -> None:
    kinds = [(kind, n) for kind in ("apart", "missing", "tied", "none") for n in (2, 3)]
    scores = [scores_of(*kind) for kind in kinds]
    thresholds = (-1.5, 0.0, 0.5, 1.0, 1.05, 50.0)
    budgets = (None, 0, 1, 7, 30, 60, 61)
    cases = [
        (of, target, rule, threshold, budget)
        for of, own in enumerate(scores)
        for target in range(len(own))
        for rule, threshold, budget in itertools.product(RULES, thresholds, budgets)
    ]
    given = {
        "scores": [[in_single_precision(s) for s in own.values()] for own in scores],
        "cases": cases,
    }
    soup = opened(tmp_path, SCRIPTS, SELECT.format(cases=as_data(given)))
    found = json.loads(soup.select("#found")[0].text)
    assert len(found) == len(cases) == 20 * 3 * 6 * 7
    refused = filled = 0
    for (of, target, rule, threshold, budget), one in zip(cases, found, strict=True):
        case = (kinds[of], target, rule, threshold, budget)
        try:
            neurons = chosen(scores[of], LANGUAGES[target], rule, threshold, budget)
        except ValueError:
            assert one is None, case
            refused += 1
            continue
        expected = neurons.mask("intermediate").flatten().nonzero().flatten().tolist()
        assert one == expected, case
        filled += bool(expected)
    assert refused > 500 and filled > 500


SCORES = {
    name: {
        how: {x: normalise(values.double(), how) for x, values in scores_of(kind).items()}
        for how in ("zscore", "global")
    }
    for name, kind in {"kurtosis": "missing", "mean_abs": "tied"}.items()
}
EFFECTS = {
    x: torch.randn(3, 20, generator=torch.Generator().manual_seed(i), dtype=torch.float64) / 50
    for i, x in enumerate(LANGUAGES)
}
SETTINGS = dataclasses.replace(Settings(), languages=LANGUAGES, threshold=0.6)
SETS = {x: chosen(SCORES["kurtosis"]["zscore"], x, "contrast", 0.6, None) for x in LANGUAGES}


def view(effects: dict[str, Tensor] = EFFECTS, **changed: Any) -> str:
    settings = dataclasses.replace(SETTINGS, **changed)
    found = selection_view(SCORES, effects, SETS, settings)
    assert isinstance(found, HTML)
    return str(found.data)


def rows(soup: Any) -> list[list[str]]:
    return [[cell.text for cell in row.select("th, td")] for row in soup.select("tbody tr")]


def expected_rows(sets: dict[str, NeuronSet]) -> list[list[str]]:
    names = {"en": "English", "zh": "Chinese", "vi": "Vietnamese"}
    found = []
    for x, neurons in sets.items():
        cost = {y: float(e[neurons.mask("intermediate")].sum()) for y, e in EFFECTS.items()}
        other = max((y for y in LANGUAGES if y != x), key=lambda y: cost[y])
        counts = neurons.counts("intermediate")
        random = float((counts * EFFECTS[x].mean(1)).sum())
        same = jaccard(neurons, SETS[x])
        numbers = [f"{value:+.3f}".replace("-", "−") for value in (cost[x], random, cost[other])]
        found.append(
            [names[x], str(len(neurons)), ", ".join(map(str, counts.tolist())),
             f"{same:.2f}", *numbers[:2], f"{numbers[2]} ({names[other]})"]
        )  # fmt: skip
    return found


def test_without_scripts_there_are_a_figure_and_a_table() -> None:
    soup = BeautifulSoup(view(), "lxml")
    assert rows(soup) == expected_rows(SETS)
    picture = soup.select(".explorable-alone img")[0]
    assert str(picture["alt"]).startswith("Figure 3: every neuron's score for English against")
    assert soup.select(".explorable-fields[hidden]") and not soup.select("input, select")
    said = soup.select(".explorable-key")[0].text
    size = len(view()) / 1e6
    assert said.startswith(
        "Scores are rounded to single precision; the run's own sets are the same"
    )
    assert float(said.split("has ")[1].split(" MB")[0]) == pytest.approx(size, abs=0.02)
    assert [len(row) for row in rows(BeautifulSoup(view({}), "lxml"))] == [4, 4, 4]


def test_a_model_too_large_for_a_page() -> None:
    found = selection_view({}, EFFECTS, SETS, SETTINGS)
    assert isinstance(found, Markdown) and "too many neurons" in str(found.data)


def test_a_rule_that_the_script_does_not_know() -> None:
    shares = dataclasses.replace(SETTINGS, rule="relative", statistic="mean_abs", budget=3)
    found = selection_view(SCORES, EFFECTS, SETS, shares)
    assert isinstance(found, Markdown) and "has another" in str(found.data)


# What a reader does; the view is read after each step, and the page dumped then.
CHOOSE = """<script>addEventListener("load", async () => {
  await explorable.ready();
  const view = document.querySelector(".explorable");
  const [target, statistic, normalisation, rule] = view.querySelectorAll("select");
  const [budget, threshold] = view.querySelectorAll("input");
  const seen = [];
  const texts = (row) => [...row.children].map((cell) => cell.textContent);
  const points = (name) => Bokeh.documents[0].get_model_by_name(name).data.x.length;
  const set = (control, value, kind) => {
    if (control) {
      control.value = value;
      control.dispatchEvent(new Event(kind));
    }
    seen.push({
      rows: [...view.querySelectorAll("tbody tr")].map(texts),
      said: view.querySelector(".explorable-said").textContent, budget: budget.value,
      dots: ["all", "chosen"].map(points),
      of: view.querySelector(".selection-target th").textContent,
      invalid: budget.getAttribute("aria-invalid"),
    });
  };
  set(null);
  set(rule, "threshold", "change");
  set(threshold, "0.25", "input");
  set(normalisation, "global", "change");
  set(target, "2", "change");
  set(statistic, "mean_abs", "change");
  set(budget, "5", "input");
  set(rule, "top", "change");
  set(budget, "60", "input");
  set(rule, "contrast", "change");
  set(budget, "", "input");
  set(rule, "top", "change");
  set(budget, "-3", "input");
  set(budget, "3.7", "input");
  const made = document.body.appendChild(document.createElement("pre"));
  made.id = "seen";
  made.textContent = JSON.stringify(seen);
});</script>"""


def test_a_browser_shows_what_is_chosen(tmp_path: Path) -> None:
    soup = opened(tmp_path, SCRIPTS, view() + view({}, rule="top", budget=4) + CHOOSE)
    seen = json.loads(soup.select("#seen")[0].text)
    n = len(SETS["vi"])  # what `top` starts from, where no budget was given
    steps: list[tuple[str, str, str, float, int | None] | None] = [
        ("kurtosis", "zscore", "contrast", 0.6, None),
        ("kurtosis", "zscore", "threshold", 0.6, None),
        ("kurtosis", "zscore", "threshold", 0.25, None),
        ("kurtosis", "global", "threshold", 0.25, None),
        ("kurtosis", "global", "threshold", 0.25, None),
        ("mean_abs", "global", "threshold", 0.25, None),
        ("mean_abs", "global", "threshold", 0.25, 5),
        ("mean_abs", "global", "top", 0.25, 5),
        None,  # more than have a score
        ("mean_abs", "global", "contrast", 0.25, 60),
        ("mean_abs", "global", "contrast", 0.25, None),
        ("mean_abs", "global", "top", 0.25, n),
        None,  # less than none
        None,  # parts of neurons
    ]
    for i, (step, now) in enumerate(zip(steps, seen, strict=True)):
        x = "en" if i < 4 else "vi"
        assert now["of"] == {"en": "English", "vi": "Vietnamese"}[x]
        if step is None:
            assert now["said"].startswith("Nothing is chosen: ") and now["dots"][1] == 0
            continue
        assert now["invalid"] == "false" and "Jaccard with this run's set" in now["said"]
        statistic, how, *rest = step
        scores = {y: s.float() for y, s in SCORES[statistic][how].items()}
        sets = {y: chosen(scores, y, *rest) for y in LANGUAGES}  # type: ignore[arg-type]
        expected = expected_rows(sets)
        assert now["rows"] == expected, i
        known = torch.stack(list(scores.values())).isnan().any(0)
        drawn = int((sets[x].mask("intermediate") & ~known).sum())
        assert now["dots"] == [int((~known).sum()), drawn]
        row = expected[LANGUAGES.index(x)]
        assert now["said"].startswith(f"{row[0]}: {row[1]} of 60 neurons")
        assert row[4] in now["said"] and row[5] in now["said"]
    assert "fewer than the budget of 60" in seen[9]["said"]
    assert "chosen: only " in seen[8]["said"] and seen[8]["invalid"] == "true"
    assert seen[-3]["budget"] == str(n)
    for now, budget in zip(seen[-2:], ("−3", "3.7"), strict=True):
        assert now["invalid"] == "true" and now["said"] == (
            f"Nothing is chosen: a budget is a whole number of neurons, 0 or more, not {budget}."
        )
        assert now["rows"][0][1:] == ["–"] * 6
    first, second = soup.select(".explorable")
    assert not soup.select("[hidden], .explorable-alone, img")
    assert len(second.select("label select")) == 4 and len(second.select("label input")) == 2
    assert [row[1] for row in rows(second)] == ["4", "4", "4"]
    assert "cost" not in second.select(".explorable-said")[0].text
    assert len(first.select(".explorable-drawing[role=img][aria-label] > .bk-Figure")) == 2


def test_what_the_script_may_not_do() -> None:
    script = (STATIC / SCRIPTS[0]).read_text("utf-8")
    for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval", "http"):
        assert way not in script


# --- what is put on the page ----------------------------------------------------------------------


class Made:
    """As much of a pipeline as scores are made of."""

    def __init__(self, **changed: Any) -> None:
        self.settings = dataclasses.replace(SETTINGS, **changed)
        self.shape, self.model = SHAPE, None

    def statistic(self, site: str, name: str) -> dict[str, Tensor]:
        assert site == "intermediate"
        return {x: values.double() for x, values in scores_of("apart").items()}


def test_as_many_scores_as_a_page_takes() -> None:
    def found(most: int, **changed: Any) -> dict[str, list[str]]:
        pipeline: Any = Made(normalisation="robust", **changed)
        made = selectable.selectable_scores(pipeline, most)
        return {name: list(by) for name, by in made.items()}

    size = 3 * 20 * 3
    every = ["robust", "zscore", "ratio", "global"]
    assert found(10**6, statistic="hoyer") == dict.fromkeys(
        ["hoyer", "kurtosis", "variance", "mean_abs", "signed_mean", "participation_ratio"], every
    )
    assert len(found(10**6, statistic="gini")) == 8  # samples are kept: what sorts costs nothing
    assert list(found(9 * size)) == ["kurtosis", "variance"]
    assert found(4 * size - 1) == {"kurtosis": every[:3]}
    assert found(size - 1) == {}
    pipeline: Any = Made(statistic="participation_ratio")
    scores = selectable.selectable_scores(pipeline, 10**6)["participation_ratio"]["zscore"]
    expected = normalise(-scores_of("apart")["en"].double())
    assert torch.equal(scores["en"], expected)


def test_effects_of_this_model_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selectable, "weights_of", lambda model: "w")
    pipeline: Any = Made()
    assert selectable.shipped_effects(pipeline, tmp_path) == {}
    effects = {
        x: Estimate(e.float().double(), e.abs().float().double()) for x, e in EFFECTS.items()
    }
    folds = {"zero": {x: torch.zeros(8, 3, 20) for x in EFFECTS}}
    for model, languages in (("w", LANGUAGES), ("other", LANGUAGES), ("w", ["en", "zh"])):
        own = {"zero": {x: effects[x] for x in languages}}
        about = {"model": model}
        Necessity(own, folds, {"zero": torch.zeros(3, 20)}, 8, about).save(
            tmp_path / "necessity.safetensors"
        )
        found = selectable.shipped_effects(pipeline, tmp_path)
        if (model, languages) == ("w", LANGUAGES):
            assert torch.equal(found["vi"], effects["vi"].value)
        else:
            assert found == {}
