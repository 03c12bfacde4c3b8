"""Table 1 at other budgets: what is shipped, how it is read, and what a page shows of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browser import STATIC, opened
from bs4 import BeautifulSoup
from hostile import HOSTILE
from test_pipeline import folder, settings_in

from crane_core.metrics import langspec_f1
from crane_lab.pipeline import Pipeline
from crane_lab.show.budget_view import LABELS, _text, budget_view, budgets_in_words
from crane_lab.stages.outcomes import Reading
from crane_lab.store import Store
from crane_lab.study import task_budgets
from crane_lab.study.task_budgets import MEASURED, TaskBudgets, by_share

__all__ = ["folder"]  # a fixture
SCRIPTS = ["budget_view.js", "explorable.js"]  # in whatever order they are loaded
NAMES = {"en": "English", "zh": "Chinese", "vi": "Vietnamese"}
START = {"en": 0.8, "zh": 0.6, "vi": 0.5}
SHARES, TOTAL = (0.01, 0.1, 0.5), 200


def shipped() -> pd.DataFrame:
    """A table as `ship_task_budgets` writes it, with numbers that differ everywhere."""
    rows = [{"share": 0.0, "method": "Org", "mask_language": "", "seed": -1, "n_neurons": 0,
             **START}]  # fmt: skip
    for i, share in enumerate(SHARES):
        size = {"share": share, "n_neurons": round(TOTAL * share)}
        for j, method in enumerate(("CRANE", "LAPE matched", "relative")):
            for k, x in enumerate(NAMES):
                lost = {y: 0.01 * (i + 1) * (1 + j) * (3 if x == y else 1) for y in NAMES}
                after = {y: START[y] - lost[y] for y in NAMES}
                after["vi" if x != "vi" else "en"] -= 0.003 * k
                rows.append(
                    {**size, "method": method, "mask_language": x, "seed": -1,
                     **after,
                     **{f"{y}_change": lost[y] - 0.05 for y in NAMES},
                     "langspec_f1_low": 0.01, "langspec_f1_high": 0.9}
                )  # fmt: skip
        for seed in range(4):
            lost = {y: 0.01 * (i + 1) * seed * (k + 1) / 2 for k, y in enumerate(NAMES)}
            rows.append(
                {**size, "method": "Random", "mask_language": "", "seed": seed,
                 **{y: START[y] - lost[y] for y in NAMES},
                 **{f"{y}_change": lost[y] for y in NAMES}}
            )  # fmt: skip
    return pd.DataFrame(rows)


FOUND = by_share(shipped(), list(NAMES), Reading())


def view(names: dict[str, str] = NAMES) -> str:
    return str(budget_view(FOUND, names, TOTAL).data)


def test_masks_are_read_as_table_1_reads_them() -> None:
    table = shipped()
    assert len(FOUND) == 3 * 3 * 3
    for row in FOUND.to_dict("records"):
        at = table[table["share"] == row["share"]]
        named = (at["method"] == row["method"]) & (at["mask_language"] == row["mask_language"])
        (own,) = at[named].to_dict("records")
        x = row["mask_language"]
        f1 = langspec_f1(START, {y: own[y] for y in NAMES}, x)
        assert row["langspec_f1"] == pytest.approx(f1.f1)
        assert row["own_drop"] == pytest.approx(f1.relative_drops[x])
        rest = {y: drop for y, drop in f1.relative_drops.items() if y != x}
        assert row["other_drop"] == pytest.approx(max(rest.values()))
        assert row["other_language"] == max(rest, key=rest.__getitem__)
        assert row["difference"] == pytest.approx(
            own[f"{x}_change"] - max(own[f"{y}_change"] for y in NAMES if y != x)
        )
        masks = at[at["method"] == "Random"].to_dict("records")
        null = [langspec_f1(START, {y: one[y] for y in NAMES}, x).f1 for one in masks]
        assert row["langspec_f1_null_most"] == pytest.approx(max(null))
        assert row["langspec_f1_null_below"] == sum(one < row["langspec_f1"] for one in null)
        assert row["null_masks"] == 4


def test_other_readings_give_others() -> None:
    relative = by_share(shipped(), list(NAMES), Reading("mean", True))
    assert not relative["langspec_f1"].equals(FOUND["langspec_f1"])
    assert relative["own_drop"].equals(FOUND["own_drop"])


def row_of(method: str, x: str, share: float = 0.1) -> dict[Any, Any]:
    at = FOUND[(FOUND["method"] == method) & (FOUND["mask_language"] == x)]
    (row,) = at[at["share"] == share].to_dict("records")
    return row


def texts(row: object) -> list[str]:
    return [cell.text for cell in row.select("th, td")]  # type: ignore[attr-defined]


def test_without_scripts_there_are_all_budgets() -> None:
    soup = BeautifulSoup(view(), "lxml")
    rows = [texts(row) for row in soup.select("tbody tr")]
    assert len(rows) == 3 * 3 * (3 + 1) and not soup.select("tbody tr[hidden]")
    one = row_of("LAPE matched", "zh")
    (shown,) = (r for r in rows if r[:3] == ["20", "Chinese", "LAPE matched"])
    assert shown[3] == f"{one['langspec_f1']:.3f} [0.010, 0.900]"
    assert shown[4] == f"{one['langspec_f1_null_below']} of 4"
    assert shown[5] == f"{one['own_drop']:+.1%}".replace("%", " %")
    assert shown[7] == f"{one['own_loss']:+.3f}".replace("-", "−")
    (random,) = (r for r in rows if r[:3] == ["20", "Chinese", "Random"])
    assert random[3] == (
        f"{one['langspec_f1_null_mean']:.3f} [{one['langspec_f1_null_least']:.3f}, "
        f"{one['langspec_f1_null_most']:.3f}]"
    )
    assert soup.select(".explorable-fields[hidden]") and not soup.select("input, select")
    (figure,) = soup.select(".explorable-alone img")
    assert "a curve per method" in str(figure["alt"])
    with pytest.raises(ValueError, match="no budgets"):
        budget_view(FOUND.iloc[:0], NAMES, TOTAL)


# What a reader does; the page is dumped after it. A slider's keys are the
# browser's own: what they do is `stepUp`, and an event.
CHOOSE = """<script>addEventListener("load", async () => {
  await explorable.ready();
  const view = document.querySelector(".explorable");
  const [slider] = view.querySelectorAll("input[type=range]");
  const [measure] = view.querySelectorAll("select");
  const panels = Bokeh.documents.map((one) => (name) => one.get_model_by_name(name));
  const seen = [];
  const see = () => seen.push({
    said: view.querySelector(".explorable-said").textContent,
    value: slider.getAttribute("aria-valuetext"),
    rows: [...view.querySelectorAll("tbody tr:not([hidden])")].map((row) =>
      [...row.children].map((cell) => cell.textContent)),
    curves: panels.flatMap((of) => [0, 1, 2].map((i) => Array.from(of(`method ${i}`).data.y))),
    bands: panels.filter((of) => of("random").data.x.length).length,
    at: panels.map((of) => of("budget").location),
    ends: panels.map((of) => [of("values").start, of("values").end]),
    unit: panels[0]("axis").axis_label,
    focus: document.activeElement === slider,
  });
  see();
  slider.focus();
  slider.stepDown();
  slider.dispatchEvent(new Event("input"));
  see();
  measure.value = "5";
  measure.dispatchEvent(new Event("change"));
  see();
  const made = document.body.appendChild(document.createElement("pre"));
  made.id = "seen";
  made.textContent = JSON.stringify(seen);
});</script>"""


def test_a_browser_shows_the_budget_that_is_chosen(tmp_path: Path) -> None:
    soup = opened(tmp_path, SCRIPTS, view() + CHOOSE)
    first, lower, loss = json.loads(soup.select("#seen")[0].text)
    assert (
        first["value"] == "100 neurons, 50 % of all" and lower["value"] == "20 neurons, 10 % of all"
    )
    assert {row[0] for row in first["rows"]} == {"100"} and len(first["rows"]) == 12
    assert {row[0] for row in lower["rows"]} == {"20"} and lower["focus"]
    one = row_of("CRANE", "en")
    assert f"LangSpec-F1. English: CRANE {one['langspec_f1']:.2f}, " in lower["said"]
    assert f"random {one['langspec_f1_null_mean']:.2f} (" in lower["said"]
    assert loss["said"].startswith(f"20 neurons, 10 % of all; {LABELS['difference']}. English")
    assert f"CRANE {one['difference']:.3f}".replace("-", "−") in loss["said"]
    assert len(first["curves"]) == 9 and first["bands"] == 3
    assert first["curves"] == lower["curves"] != loss["curves"]
    assert list(LABELS) == list(MEASURED)
    assert not soup.select(".explorable-fields[hidden], .explorable-alone, img")
    assert lower["at"] == [20, 20, 20] and first["at"] == [100, 100, 100]
    assert [of["unit"] for of in (first, loss)] == ["LangSpec-F1", "nats per token"]
    drawings = soup.select(".explorable-drawing[role=img]:has(.bk-Figure)")
    assert len(drawings) == 3 and all(len(str(one["aria-label"])) < 600 for one in drawings)


def test_an_axis_has_zero_and_all_values(tmp_path: Path) -> None:
    """And what is rounded to 0 has no minus."""
    low = FOUND.copy()
    low["difference"] = [0.5, *[-0.0004] * (len(FOUND) - 1)]
    low[[f"difference_null_{end}" for end in ("mean", "least", "most")]] = 0.1
    found = budget_view(low, NAMES, TOTAL)
    soup = opened(tmp_path, SCRIPTS, str(found.data) + CHOOSE)
    _, _, loss = json.loads(soup.select("#seen")[0].text)
    assert loss["ends"][0] == pytest.approx([-0.0004, 0.5 + 0.05 * 0.5004])
    assert "LAPE matched 0.000, " in loss["said"] and "−" not in loss["said"]
    wide = FOUND.assign(difference=[0.5, -0.5] + [0.0] * (len(FOUND) - 2))
    soup = opened(tmp_path, SCRIPTS, str(budget_view(wide, NAMES, TOTAL).data) + CHOOSE)
    (least, most), *_ = json.loads(soup.select("#seen")[0].text)[2]["ends"]
    assert least == -0.5 and most == pytest.approx(0.55)
    assert _text("own_loss", -0.0004) == "+0.000" and _text("own_drop", -0.0004) == "+0.0 %"


def test_names_do_no_harm(tmp_path: Path) -> None:
    html = view(NAMES | {"zh": HOSTILE["script"]})
    assert html.count("<script") == html.count("</script") == 1
    soup = opened(tmp_path, SCRIPTS, html)
    assert not soup.select("img, s, b, iframe, a")
    assert soup.title is not None and soup.title.text == "as it was"
    script = (STATIC / SCRIPTS[0]).read_text("utf-8")
    for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval", "http"):
        assert way not in script


def test_shipped_budgets_are_those_of_the_exploration() -> None:
    """Other masks of the same candidates were measured on the same windows before."""
    table = pd.read_csv("data/criterion/task_budgets.csv")
    found = by_share(table.fillna({"mask_language": ""}), list(NAMES), Reading())
    explored = pd.read_csv("data/criterion/explored_budgets.csv")
    for method, candidate in task_budgets.COMPARED.items():
        own = explored[explored["candidate"] == candidate.name]
        both = found[found["method"] == method].merge(
            own, left_on=["share", "mask_language"], right_on=["share", "language"]
        )
        assert len(both) == 3 * 3  # shares that both have
        for name in ("own", "other"):
            assert both[f"{name}_loss"].to_list() == pytest.approx(both[name].to_list(), abs=2e-5)
    assert (found["null_masks"] == TaskBudgets().draws).all()
    assert sorted(found["share"].unique()) == list(TaskBudgets().shares)


def test_what_is_said_counts_masks_beyond_random_ones() -> None:
    said = str(budgets_in_words(FOUND, NAMES).data)
    own = FOUND[FOUND["method"] == "CRANE"]
    beyond = int((own["langspec_f1_null_below"] == 4).sum())
    assert f"**CRANE**: {beyond} of 9 masks have a larger" in said
    assert said.startswith("From 2 to 100 neurons, in 3 languages, each mask beside 4 random")


def test_budgets_are_measured_and_read_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_in(folder, random_seeds=(0,), task_limit=2, n_perplexity=4)
    pipeline = Pipeline(settings, Store(tmp_path / "store"))
    task_budgets.ship_task_budgets(pipeline, TaskBudgets((0.05, 0.2), draws=2), tmp_path)
    table = task_budgets.read_task_budgets(pipeline, tmp_path)
    assert table is not None
    languages = pipeline.settings.languages
    masks = table[table["share"] > 0]
    assert len(table) == 1 + 2 * (len(languages) * 3 + 2)
    assert set(masks.groupby("share")["n_neurons"].nunique()) == {1}
    assert masks[[f"{x}_change" for x in languages]].notna().all().all()
    found = by_share(table, languages, pipeline.reading)
    assert len(found) == 2 * 3 * len(languages) and (found["null_masks"] == 2).all()
    monkeypatch.setattr(task_budgets, "weights_of", lambda model: "of another")
    assert task_budgets.read_task_budgets(pipeline, tmp_path) is None
    with pytest.raises(FileNotFoundError, match="--budgets"):
        task_budgets.read_task_budgets(pipeline, tmp_path / "nowhere")
