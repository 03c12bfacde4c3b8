"""Candidates for a better criterion: how they score, what masking them does, how it is judged."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from test_pipeline import folder, settings_in

from crane_core.interventions import zero
from crane_lab.pipeline import Pipeline
from crane_lab.show import merit_pages
from crane_lab.store import ROOT, Store
from crane_lab.study import candidates, confirmation, exploration, merit
from crane_lab.study.candidates import Candidate, worded
from crane_lab.study.fallback import FallbackPlan

__all__ = ["folder"]  # a fixture


@pytest.fixture(scope="module")
def pipeline(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    settings = settings_in(folder, random_seeds=(0,), task_limit=2, n_perplexity=4)
    return Pipeline(settings, Store(tmp_path_factory.mktemp("store")))


def test_every_candidate_has_a_name_of_its_own_and_can_be_read_back() -> None:
    names = [one.name for one in candidates.EXPLORED]
    assert len(names) == len(set(names))
    assert set(candidates.FEW) <= set(candidates.EXPLORED)
    for one in candidates.EXPLORED:
        assert Candidate.of(json.loads(json.dumps(one.as_dict()))) == one


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"statistic": "median"}, "unknown statistic 'median'"),
        ({"statistic": "mean_abs", "form": "ratio"}, "unknown form 'ratio'"),
        ({"statistic": "mean_abs", "spread": "layer"}, "unknown spread"),
        ({"statistic": "mean_abs", "scale": "zscore"}, "an amount of 0 or more"),
        ({"statistic": "signed_mean"}, "an amount of 0 or more"),
        ({"statistic": "mean_abs", "form": "share", "floor": 0.2}, "floor 0.5 alone"),
        ({"statistic": "mean_abs", "colour": "red"}, "no 'colour'"),
    ],
)
def test_what_cannot_be_a_candidate_is_refused(given: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Candidate.of(given)


def test_forms_by_hand() -> None:
    amounts = {"mean_abs": {"en": torch.tensor([[3.0, 1.0]]), "zh": torch.tensor([[1.0, 3.0]])}}
    for form, wanted in (
        ("alone", [3.0, 1.0]),
        ("difference", [2.0, -2.0]),
        ("relative", [0.5, -0.5]),
        ("share", [0.75, 0.25]),
    ):
        found = candidates.candidate_scores(Candidate("mean_abs", form), amounts)
        assert found["en"].flatten().tolist() == wanted
    ratio = candidates.candidate_scores(Candidate("mean_abs", "difference", scale="ratio"), amounts)
    assert ratio["en"].flatten().tolist() == [1.0, -1.0]


@given(seed=st.integers(0, 2**16), layers=st.integers(1, 4), width=st.integers(1, 7))
def test_a_budget_is_spread_over_layers(seed: int, layers: int, width: int) -> None:
    score = torch.randn((layers, width), generator=torch.Generator().manual_seed(seed))
    everywhere = candidates.ordered(Candidate("mean_abs"), score)
    assert score.flatten()[everywhere].diff().le(0).all()
    each = candidates.ordered(Candidate("mean_abs", spread="each layer"), score)
    assert sorted(each.tolist()) == list(range(score.numel()))
    for place in range(width):  # the best of every layer, then the second of every layer
        part = each[place * layers : (place + 1) * layers]
        assert sorted((part // width).tolist()) == list(range(layers))
        rest = score.clone().sort(dim=1, descending=True).values[:, place]
        assert sorted(score.flatten()[part].tolist()) == sorted(rest.tolist())
    assert int(each[0]) == int(everywhere[0])


def changes(own: float, other: float, n: int = 50, spread: float = 0.0) -> dict:
    noise = spread * np.linspace(-1, 1, n)
    return {"en": own + noise, "zh": other + noise, "vi": np.full(n, -1.0)}


def test_the_figure_of_merit_is_a_mean_over_the_logarithm_of_budgets() -> None:
    given = {
        ("x", "en", 0.001): changes(0.0, 0.0),
        ("x", "en", 0.01): changes(1.0, 0.05),
        ("x", "en", 0.1): changes(3.0, 2.0),
    }
    found = merit.merits(given, n_boot=50).set_index("language")
    assert found.loc["en", "merit"] == pytest.approx((0 / 2 + 0.95 + 1 / 2) / 2)
    assert found.loc["en", "low"] == pytest.approx(found.loc["en", "merit"])  # no spread, no doubt
    assert found["little_harm"].tolist() == [1.0, 1.0]  # at the last budget another loses too much
    assert found["merit"].nunique() == 1
    with pytest.raises(ValueError, match="two or more"):
        merit.merits({("x", "en", 0.01): changes(1.0, 0.0)})


def test_intervals_are_those_of_the_mean_over_windows() -> None:
    given = {("x", "en", 0.01): changes(1.0, 0.2, spread=0.5)}
    (row,) = merit.differences(given).to_dict("records")
    error = 0.5 * np.linspace(-1, 1, 50).std() / np.sqrt(50) * np.sqrt(2)
    assert row["difference"] == pytest.approx(0.8) and row["other_language"] == "zh"
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert merit.differences(given).equals(merit.differences(given))


def test_masks_are_at_work_and_random_ones_have_their_layers(pipeline: Pipeline) -> None:
    few = (Candidate("mean_abs"), candidates.CRANE)
    sets = merit.candidate_sets(pipeline, few, (0.05, 0.2))
    found = merit.changes_of(pipeline, sets)
    key = (few[0].name, "en", 0.2)
    after, before = pipeline.losses(zero(sets[key])), pipeline.losses()
    assert np.allclose(found[key]["en"], (after["en"] - before["en"]).double().numpy())
    assert any(np.abs(own).max() > 0 for of in found.values() for own in of.values())
    chosen = {own: of for own, of in sets.items() if own[-1] == 0.2}
    table, added = merit.in_nulls(pipeline, chosen, found, draws=3)
    assert len(table) == len(chosen) and (table["null_masks"] == 3).all()
    differing = merit.differences(found).query("share == 0.2")["difference"]
    assert np.allclose(table["difference"], differing)
    assert len(added) == 3 * len(chosen)
    areas = merit.merits_in_nulls(pipeline, sets, found, draws=3)
    own = merit.merits(found, n_boot=2).query("language != 'all'")
    assert np.allclose(areas["merit"], own["merit"])
    drawn = merit.changes_of(pipeline, merit.random_sets(sets, 3))
    (name, x), random = ("mean_abs, relative, floor 0.5", "zh"), []
    for draw in range(3):
        curve = [
            drawn[name, x, share, draw]["zh"].mean()
            - max(drawn[name, x, share, draw][y].mean() for y in ("en", "vi"))
            for share in (0.05, 0.2)
        ]
        random.append(sum(curve) / 2)  # of two budgets the mean
    row = areas[(areas["candidate"] == name) & (areas["language"] == x)].iloc[0]
    assert row["null_mean"] == pytest.approx(np.mean(random))
    assert row["percentile"] == pytest.approx(100 * np.mean([v < row["merit"] for v in random]))
    with pytest.raises(ValueError, match="budget 2"):
        merit.candidate_sets(pipeline, few, (2,))


def test_an_exploration_is_shipped_and_the_same_again(pipeline: Pipeline, tmp_path: Path) -> None:
    few = (Candidate("mean_abs"), Candidate("lape_order", "alone"))
    plan = exploration.Exploration(few, (0.05, 0.2), 0.2, draws=2)
    exploration.ship_exploration(pipeline, plan, tmp_path / "one")
    tables = exploration.read_exploration(tmp_path / "one")
    nulls = {exploration.NULLS, exploration.MERIT_NULLS}
    assert set(tables) == {exploration.BUDGETS, exploration.MERITS, *nulls}
    merits = tables[exploration.MERITS]
    assert set(merits["language"]) == {*pipeline.settings.languages, "all"}
    made = json.loads((tmp_path / "one" / "explored_nulls.json").read_text())
    assert made["inputs"]["draws"] == 2 and len(made["inputs"]["candidates"]) == 2
    exploration.ship_exploration(pipeline, plan, tmp_path / "two")
    for name in tables:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    with pytest.raises(FileNotFoundError, match=r"crane_lab\.cli\.criterion"):
        exploration.read_exploration(tmp_path)
    with pytest.raises(ValueError, match="expected one of"):
        exploration.Exploration(beside=0.3)


def test_shipped_explorations_hold_together() -> None:
    for data in ("data/criterion",):
        if not (Path(data) / exploration.MERITS).is_file():
            continue
        tables = exploration.read_exploration(data)
        budgets = tables[exploration.BUDGETS]
        again = (
            budgets.assign(log=np.log(budgets["share"]))
            .groupby(["candidate", "language"])[["share", "difference"]]
            .apply(
                lambda own: merit.over_budgets(
                    own["share"].to_list(), own["difference"].to_numpy()[:, None]
                ).item()
            )
        )
        merits = tables[exploration.MERITS].set_index(["candidate", "language"])["merit"]
        assert np.allclose(again, merits[again.index], atol=2e-6)
        assert len(budgets) == len(budgets.drop_duplicates(["candidate", "language", "share"]))


def test_candidates_are_known_by_their_names_on_a_real_model() -> None:
    damaged = pd.read_csv(ROOT / "data" / "gemma" / "criteria_damage.csv")
    plan = confirmation.read_plan(ROOT / confirmation.PLAN)
    merits = exploration.curve_merits(damaged[damaged["seed"] == -1])
    found = exploration.as_candidates(merits, plan.candidates)
    lacking = {one.name for one in plan.candidates} - set(found["candidate"])
    assert lacking == {Candidate("gradient_x_activation").name}
    lape = merits[merits["candidate"] == "LAPE"].set_index("language")["merit"]
    same = found[found["candidate"] == "lape_order, alone"].set_index("language")["merit"]
    assert same.equals(lape)


def test_the_same_is_held_against_random_masks_here_as_in_the_plan() -> None:
    assert set(candidates.HELD) == set(confirmation.read_plan(ROOT / confirmation.PLAN).candidates)


def test_shipped_confirmations_are_of_the_plan() -> None:
    if not (ROOT / "data" / "criterion" / confirmation.OUTCOMES).is_file():
        return
    plan = confirmation.read_plan(ROOT / confirmation.PLAN)
    tables = confirmation.read_confirmed(ROOT / "data" / "criterion")
    for name in tables:
        made = json.loads((ROOT / "data" / "criterion" / name).with_suffix(".json").read_text())
        assert made["inputs"]["plan"] == plan.digest
    again = confirmation.hypothesis_outcomes(
        plan, tables[confirmation.MERITS], tables[confirmation.NULLS]
    )
    pd.testing.assert_frame_equal(again, tables[confirmation.OUTCOMES], atol=2e-6)
    assert set(tables[confirmation.MERITS]["language"]) == {*plan.languages, "all"}


# --- confirmation ---------------------------------------------------------------------------------


LAPE = {"statistic": "lape_order", "form": "alone"}
MERIT = {"figure": "merit", "main": {"statistic": "mean_abs"}, "against": [LAPE]}


def plan_in(folder: Path, **changes: object) -> Path:
    """A plan for the tiny model, as a file."""
    given = {
        "questions": [
            {
                "figure": "merit",
                "main": {"statistic": "mean_abs"},
                "against": [LAPE, candidates.CRANE.as_dict()],
            },
            {"figure": "little_harm", "main": {"statistic": "mean_abs"}, "against": [LAPE]},
        ],
        "languages": ["en", "zh"],
        "windows": 8,
        "held_out": 3,
        "shares": [0.05, 0.2],
        "beside": 0.2,
        "draws": 19,
        "seed": 1,
        **changes,
    }
    file = folder / "plan.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in given.items() if v is not None}))
    return file


def test_a_plan_has_a_digest_of_all_it_says(tmp_path: Path) -> None:
    plan = confirmation.read_plan(plan_in(tmp_path))
    assert plan.mains == [Candidate("mean_abs")] and len(plan.candidates) == 3
    assert plan.questions[0].against[1] == candidates.CRANE
    assert plan.digest == confirmation.read_plan(plan_in(tmp_path)).digest
    assert plan.digest != confirmation.read_plan(plan_in(tmp_path, seed=2)).digest


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": None}, "expected the fields"),
        ({"colour": "red"}, "expected the fields"),
        ({"languages": ["en"]}, "two or more"),
        ({"beside": 0.5}, "is none of"),
        ({"draws": 3}, "a null needs 19"),
        ({"questions": [{"figure": "merit"}]}, "a question in .*: expected the fields"),
        ({"questions": [{**MERIT, "main": {"statistic": "median"}}]}, "unknown statistic"),
        ({"questions": [{**MERIT, "figure": "area"}]}, "unknown figure 'area'"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(tmp_path: Path, changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        confirmation.read_plan(plan_in(tmp_path, **changes))


def test_a_confirmation_is_of_one_plan(pipeline: Pipeline, tmp_path: Path) -> None:
    plan = confirmation.read_plan(plan_in(tmp_path))
    confirmation.confirm(pipeline, plan, tmp_path / "out")
    found = pd.read_csv(tmp_path / "out" / confirmation.OUTCOMES)
    assert len(found) == 3 + 2
    made = json.loads((tmp_path / "out" / "confirmed_outcomes.json").read_text())
    assert made["inputs"]["plan"] == plan.digest
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    confirmation.confirm(pipeline, plan, tmp_path / "out")
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    tables = confirmation.read_confirmed(tmp_path / "out")
    merits, nulls = tables[confirmation.MERITS], tables[confirmation.NULLS]
    names, candidates = {"en": "English", "zh": "Chinese"}, [one.name for one in plan.candidates]
    both = merit_pages.by_language_tables(
        {"first": (merits, names, None), "again": (merits, names, nulls)}, candidates
    )
    html = both[0].to_html()
    of = nulls[(nulls["candidate"] == plan.mains[0].name) & (nulls["language"] == "zh")]
    assert html.count(f"] ({of['percentile'].item():.0f})") >= 1 and html.count(">first<") == 2
    own = merits[(merits["candidate"] == plan.mains[0].name) & (merits["language"] == "zh")]
    assert f"{own['merit'].item():.2f}".replace("-", "−") in html.replace("-", "−")
    assert f"{own['little_harm'].item():.2f}" in both[1].to_html()
    outcomes = tables[confirmation.OUTCOMES]
    said = str(merit_pages.outcomes_in_words(outcomes, merits, plan).data)
    for outcome, count in outcomes["outcome"].value_counts().items():
        assert f"{outcome} {count}" in said
    mean = merits[(merits["candidate"] == plan.mains[0].name) & (merits["language"] == "all")]
    short = str(merit_pages.confirmed_in_short(merits, plan).data)
    assert f"{mean['merit'].item():.2f} [{mean['low'].item():.2f}, " in short
    html = merit_pages.nulls_table(nulls, "here").to_html()
    above = int((nulls["percentile"] == 100).sum())
    assert f"{above} of 2" in html and "0.050" in html
    html = merit_pages.explored_and_confirmed({"here": merits}, plan).to_html()
    assert all(escape(worded(one.name)) in html for one in plan.candidates)
    with pytest.raises(FileNotFoundError, match="--confirm"):
        confirmation.read_confirmed(tmp_path)
    other = confirmation.read_plan(plan_in(tmp_path, shares=[0.1, 0.2]))
    with pytest.raises(FileExistsError, match="another plan"):
        confirmation.confirm(pipeline, other, tmp_path / "out")


def test_outcomes_say_what_came_out(tmp_path: Path) -> None:
    plan = confirmation.read_plan(plan_in(tmp_path))
    names = [one.name for one in plan.candidates]
    languages = [f"l{i}" for i in range(8)]
    ahead = np.linspace(0.8, 1.2, 8)
    merits = pd.DataFrame(
        [
            {"candidate": name, "language": x, "merit": value, "low": low, "high": value + 1}
            | {"little_harm": 0.0}
            for name, values, low in (
                (names[0], ahead, 0.1),
                (names[1], 0 * ahead, -1),
                (names[2], 2.5 * ahead, 0.1),
            )
            for x, value in zip([*languages, "all"], [*values, values.mean()], strict=True)
        ]
    )
    nulls = pd.DataFrame(
        {"candidate": names[0], "language": languages, "q": [0.01] * 6 + [0.5] * 2, "q_low": 0.9}
    )
    found = confirmation.hypothesis_outcomes(plan, merits, nulls).set_index("hypothesis")["outcome"]
    # The second figure is the same everywhere: a test without spread cannot tell.
    wanted = ["confirmed", "not confirmed", "cannot tell", "confirmed", "cannot tell"]
    assert found.to_list() == wanted
    corrected = confirmation.hypothesis_outcomes(plan, merits, nulls)["p"]
    assert corrected.iloc[0] == pytest.approx(min(1, 3 * scipy_t(ahead)), abs=2e-6)


def scipy_t(values: np.ndarray) -> float:
    """Two-sided p of a paired t test, written out."""
    t = values.mean() / (values.std(ddof=1) / np.sqrt(len(values)))
    return float(2 * stats.t.sf(abs(t), len(values) - 1))


def test_the_page_has_the_plan_that_is_there() -> None:
    plan = confirmation.read_plan(ROOT / confirmation.PLAN)
    page = (ROOT / "book" / "set_down.md").read_text(encoding="utf-8")
    assert f"`{plan.digest}`" in page
    looked_at = set(exploration.Exploration().shares)
    assert not looked_at & set(plan.shares)
    assert not {"en", "zh", "vi", "fr", "de", "ko", "ru", "ja", *FallbackPlan().order} & set(
        plan.languages
    )


# --- the page -------------------------------------------------------------------------------------


def test_the_page_says_who_leads_by_which_figure() -> None:
    given = {
        (name, x, share): changes(own, other)
        for name, own, other in (("harmful", 3.0, 2.0), ("mild | one", 0.5, 0.01))
        for x in ("en", "zh")
        for share in (0.01, 0.1)
    }
    given = {
        k: v if k[1] == "en" else {**v, "en": v["zh"], "zh": v["en"]} for k, v in given.items()
    }
    found = merit.merits(given, n_boot=20)
    said = merit_pages.leading_in_words(found, ["harmful", "mild | one"]).data
    first, second = said.strip().splitlines()
    assert "“harmful” leads with 1.00" in first and "0.49 (place 2)" in first
    assert "leads with 0.50" in second and "“harmful” 0.00 (place 2)" in second
    names = {"en": "English", "zh": "Chinese", "vi": "Vietnamese"}
    assert "img" in merit_pages.merits_figure(found, names).data
    assert "[+1.000, +1.000]" in merit_pages.merits_table(found, "…").to_html()


def test_curves_without_windows_have_the_same_figures() -> None:
    rows = [
        {"criterion": "x", "language": x, "share": share, "own": own, "other": other}
        | {"difference": own - other}
        for x in ("en", "zh")
        for share, own, other in ((0.001, 0.0, 0.0), (0.01, 1.0, 0.05), (0.1, 3.0, 2.0))
    ]
    found = exploration.curve_merits(pd.DataFrame(rows)).set_index("language")
    assert found["merit"].tolist() == pytest.approx([(0.95 + 0.5) / 2] * 3)
    assert found["little_harm"].tolist() == [1.0] * 3
    assert "low" not in found
    shown = merit_pages.merits_table(found.reset_index(), "…").to_html()
    assert "+0.725" in shown and "[" not in shown.partition("<tbody>")[2]


def test_outcomes_are_shown_as_they_are(tmp_path: Path) -> None:
    plan = confirmation.read_plan(plan_in(tmp_path))
    said = merit_pages.questions_in_words(plan).data
    assert plan.digest in said and "budgets 5 %, 20 %" in said
    table = pd.DataFrame(
        [
            {"hypothesis": "a", "estimate": 0.5, "low": 0.1, "high": 0.9, "p": 0.01}
            | {"languages": 8, "outcome": "confirmed"},
            {"hypothesis": "b", "estimate": 6, "low": None, "high": None, "p": None}
            | {"languages": 8, "outcome": "cannot tell"},
        ]
    )
    shown = merit_pages.outcomes_table(table.astype({"low": float, "high": float})).to_html()
    assert "+0.500 [+0.100, +0.900]" in shown and "6 of 8 languages" in shown
