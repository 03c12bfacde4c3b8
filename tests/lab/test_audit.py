"""The audit of the published tables: its bounds against brute force, its findings as they are."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from crane_core.metrics import langspec_f1
from crane_core.neurons import NeuronSet
from crane_lab import audit
from crane_lab.show import figures

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "data" / "published"
LAPE_FILE = ROOT.parent / "shared/reference/lape/LLaMA-2-7B.neuron.pth"
L = audit.LANGUAGES
RANDOM_ROWS = [("Table 2", "Random", x) for x in ("en", "vi", "zh")]


@pytest.fixture(scope="module")
def tables() -> dict[str, audit.Published]:
    return audit.published(FOLDER)


def keys(frame: pd.DataFrame) -> list[tuple[str, str, str]]:
    columns = frame[["table", "method", "mask_language"]].to_numpy().tolist()
    return [(table, method, x) for table, method, x in columns]


# --- tables -------------------------------------------------------------------------------------

scores = st.integers(100, 6000).map(lambda k: k / 10_000)


@settings(deadline=None, max_examples=60)
@given(
    before=st.tuples(scores, scores, scores),
    after=st.tuples(scores, scores, scores),
    how=st.sampled_from(["max", "mean", "sum"]),
    relative=st.booleans(),
    seed=st.integers(0, 100),
)
def test_rounding_bounds_enclose_a_dense_search_and_are_reached(
    before: tuple[float, ...], after: tuple[float, ...], how: str, relative: bool, seed: int
) -> None:
    original, masked = (dict(zip(L, values, strict=True)) for values in (before, after))
    unit = 5e-5
    low, high = audit.f1_bounds(original, masked, "zh", unit, how=how, relative=relative)
    rng = np.random.default_rng(seed)
    shifts = rng.uniform(-unit, unit, size=(60, 6))
    corners = np.array(list(itertools.product((-unit, unit), repeat=6)))
    found = []
    for shift in np.vstack([shifts, corners]):
        moved = [
            dict(zip(L, np.array(values) + part, strict=True))
            for values, part in ((before, shift[:3]), (after, shift[3:]))
        ]
        found.append(langspec_f1(moved[0], moved[1], "zh", how=how, relative=relative).f1)
    assert low - 1e-12 <= min(found) and max(found) <= high + 1e-12
    assert min(found) == pytest.approx(low, abs=1e-12)
    assert max(found) == pytest.approx(high, abs=1e-12)


def test_all_values_follow_but_table_2s_random_rows(tables: dict[str, audit.Published]) -> None:
    found = audit.recompute(tables)
    assert len(found) == 30
    assert sorted(keys(found[found["verdict"] == "disagrees"])) == RANDOM_ROWS
    own = found[found["verdict"] == "agrees"]
    assert ((own["low"] <= own["recomputed"]) & (own["recomputed"] <= own["high"])).all()


def test_tables_are_read_with_their_scales(tables: dict[str, audit.Published]) -> None:
    assert [tables[n].judged for n in "1234"] == [False, True, False, True]
    assert tables["3"].original == {"en": 0.4720, "zh": 0.3492, "vi": 0.4067}
    assert tables["3"].methods == ["LAPE", "CRANE"]
    assert tables["1"].drop("CRANE", "vi")["vi"] == 0.1489
    with pytest.raises(KeyError, match="Table 4 has no row Random, en"):
        tables["4"].row("Random", "en")


def test_definition_says_what_the_scores_say(tables: dict[str, audit.Published]) -> None:
    found = audit.definition(tables)
    crane = found[found["method"] == "CRANE"]
    assert (crane["relative"] == "yes").sum() == 5
    assert (crane["absolute"] == "yes").sum() == 6
    # By hand: MMLU loses 0.1096 of 0.4579, Belebele 0.0911 of 0.3722.
    row = crane.to_dict("records")[0]
    assert (row["table"], row["mask_language"]) == ("Table 1", "en")
    assert row["relative_en"] == pytest.approx(0.1096 / 0.4579)
    assert (row["relative"], row["absolute"], row["hardest"]) == ("no", "yes", "vi")


def test_definition_is_open_where_rounding_decides(tables: dict[str, audit.Published]) -> None:
    table = tables["1"].scores.iloc[:2].copy()
    table.loc[:, ["en", "zh", "vi"]] = [[0.5, 0.5, 0.5], [0.4, 0.4001, 0.45]]
    table["mask_language"] = ["", "en"]
    made = audit.Published("1", "base", table, tables["1"].items, 0, 1, tables["1"].floor)
    row = audit.definition({"1": made}).iloc[0]
    assert (row["relative"], row["absolute"]) == ("open", "open")


# --- GRIM ---------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(n=st.integers(1, 15_000), share=st.floats(0, 1), decimals=st.integers(2, 5))
def test_grim_finds_the_count_that_was_printed(n: int, share: float, decimals: int) -> None:
    k = round(share * n)
    counts = audit.grim(round(k / n, decimals), n, decimals, high=1)
    assert k in counts
    assert all(abs(c / n - round(k / n, decimals)) <= 0.5 * 10**-decimals + 1e-12 for c in counts)


def test_grim_knows_the_impossible() -> None:
    assert audit.grim(0.2817, 900) == ()
    assert audit.grim(0.2233, 900) == (201,)
    assert audit.grim(0.5, 4, decimals=1) == (2,)
    assert audit.grim(0.1, 4, decimals=1) == ()
    assert audit.grim(0.9857, 70, low=1, high=10) == ()  # below the lowest grade
    with pytest.raises(ValueError, match="n is 0"):
        audit.grim(0.5, 0)


def test_every_printed_score_is_possible_and_sizes_are_recovered(
    tables: dict[str, audit.Published],
) -> None:
    cells = audit.grim_table(tables)
    assert cells["possible"].all()
    assert (cells.loc[cells["n"] < 10_000, "n_counts"] == 1).all()
    for language, n in (("zh", 1346), ("vi", 900)):
        values = cells.loc[(cells["language"] == language) & (cells["n"] == n), "printed"]
        assert audit.fitting_sizes(values, 2 * n - 1) == [n]
    summary = audit.grim_summary(cells)
    assert summary["possible"].tolist() == summary["distinct prints"].tolist()


def test_whole_counts_leave_only_last_digits(tables: dict[str, audit.Published]) -> None:
    found = audit.recompute_from_counts(tables)
    wrong = found[found["verdict"] == "disagrees"]
    other = wrong[[key not in RANDOM_ROWS for key in keys(wrong)]]
    assert len(wrong) - len(other) == 3
    assert other["off"].max() < 2e-4 and other["mixed"].all()


def test_one_printed_value_is_out_of_reach(tables: dict[str, audit.Published]) -> None:
    rows = {row["mask_language"]: row for row in audit.unreachable(tables["2"]).to_dict("records")}
    assert rows["vi"]["drop"] == "5/135"
    assert rows["vi"]["largest"] < 0.0751 - 5e-5
    # By brute force: no precision reaches it.
    recall = 5 / 135
    precisions = np.linspace(1e-6, 1, 10_001)
    assert (2 * precisions * recall / (precisions + recall)).max() < rows["vi"]["largest"]
    # The precision needed for the others gives back what is printed.
    for x in ("en", "zh"):
        assert rows[x]["largest"] > rows[x]["printed"]
        p, r = rows[x]["needed_precision"], rows[x]["recall"]
        assert 2 * p * r / (p + r) == pytest.approx(rows[x]["printed"])


def test_no_rule_reproduces_the_random_rows(tables: dict[str, audit.Published]) -> None:
    found = audit.hypotheses(tables)
    assert found.attrs["tried"] > 400_000
    assert found["reproduced"].max() == 1


def test_the_search_finds_a_rule_that_is_there(tables: dict[str, audit.Published]) -> None:
    """CRANE's rows follow from their scores, so the plain rule must turn up."""
    found = audit.hypotheses(tables, "2", "CRANE")
    plain = found[
        (found["reproduced"] == 3)
        & (found["unmasked"] == "Org")
        & (found["how"] == "max")
        & ~found["relative"]
        & (found["combined"] == "harmonic")
    ]
    assert "en zh vi" in set(plain["rows"])


def test_seeds_coincidence() -> None:
    assert audit.seeds_coincidence([2], 3) == {2: 0.125}


# --- noise --------------------------------------------------------------------------------------


@st.composite
def paired(draw: st.DrawFn) -> tuple[list[int], list[int], int, int]:
    low, high = draw(st.sampled_from([(0, 1), (1, 10)]))
    n = draw(st.integers(1, 25))
    items = st.lists(st.integers(low, high), min_size=n, max_size=n)
    return draw(items), draw(items), low, high


@settings(deadline=None, max_examples=150)
@given(paired())
def test_squares_enclose_every_pairing(case: tuple[list[int], list[int], int, int]) -> None:
    before, after, low, high = case
    changes = np.array(before) - np.array(after)
    least, most = audit.squares(sum(before), sum(after), len(before), low, high)
    assert least <= (changes**2).sum() <= most
    similar, opposed = audit.extreme_pairings(sum(before), sum(after), len(before), low, high)
    for pairs in (similar, opposed):
        assert pairs.sum(axis=0).tolist() == [sum(before), sum(after)]
        assert ((pairs >= low) & (pairs <= high)).all()
    assert (np.diff(similar) ** 2).sum() == least
    assert least <= (np.diff(opposed) ** 2).sum() <= most
    if high == 1:
        assert (np.diff(opposed) ** 2).sum() == most


@settings(deadline=None, max_examples=80)
@given(n=st.integers(2, 40), data=st.data())
def test_p_values_of_every_pairing_lie_in_the_bounds(n: int, data: st.DataObject) -> None:
    before, after = data.draw(st.integers(0, n)), data.draw(st.integers(0, n))
    bounds = audit.noise_bounds(before, after, n)
    # k11: right both before and after; every pairing of the two totals.
    for both in range(max(0, before + after - n), min(before, after) + 1):
        lost, won = before - both, after - both
        p = binomtest(lost, lost + won, 0.5).pvalue if lost + won else 1.0
        assert bounds.p_low - 1e-9 <= p <= bounds.p_high + 1e-9
        z = abs(lost - won) / math.sqrt(lost + won) if lost + won else 0.0
        assert bounds.z_low - 1e-9 <= z <= bounds.z_high + 1e-9


def test_noise_verdicts() -> None:
    assert audit.noise_bounds(467, 462, 1346).verdict == "cannot"  # five answers: p at least 1/16
    assert audit.noise_bounds(467, 461, 1346).verdict == "either"
    assert audit.noise_bounds(335, 201, 900).verdict == "certain"
    assert audit.noise_bounds(300, 300, 900).p_low == 1.0
    spread = audit.noise_bounds([10, 14], [10], 100)
    assert spread.z_low == 0.0
    assert spread.difference == pytest.approx(0.02)
    with pytest.raises(ValueError, match="cannot add up to 101"):
        audit.noise_bounds(101, 3, 100)
    with pytest.raises(ValueError, match="no sum is possible"):
        audit.noise_bounds([], 3, 100)
    with pytest.raises(ValueError, match="level is 95"):
        audit.noise_bounds(5, 3, 100, level=95)


def test_collateral_damage_in_table_1(tables: dict[str, audit.Published]) -> None:
    found = audit.noise_table(tables)
    own = found[
        (found["number"] == "1") & (found["method"] == "CRANE") & (found["role"] == "other")
    ]
    assert (own["verdict"] == "certain").sum() == 5
    assert not (found.loc[found["method"] == "LAPE", "verdict"] == "certain").any()


def test_closeness_and_chance(tables: dict[str, audit.Published]) -> None:
    close = audit.closeness(tables)
    one = close[close["table"] == "Table 1"].set_index("language")
    assert one["items"].to_dict() == {"en": 48, "zh": 2, "vi": -52}
    assert one["verdict"].to_dict() == {"en": "either", "zh": "cannot", "vi": "certain"}
    chance = audit.chance_table(tables)
    at = chance[chance["verdict"] != "above"]
    assert at[["table", "method", "mask_language", "language", "count"]].to_numpy().tolist() == [
        ["Table 1", "CRANE", "vi", "vi", 201]
    ]
    assert at.iloc[0]["low"] < 0.25 < at.iloc[0]["high"]


def test_f1_intervals_are_wider_when_outcomes_are_opposed(
    tables: dict[str, audit.Published],
) -> None:
    for floors in (False, True):
        tight, wide = audit.f1_intervals(tables["1"], "CRANE", "vi", floors, n_boot=300)
        assert wide.low < tight.low < tight.estimate < tight.high < wide.high
        assert tight.estimate == wide.estimate


# --- floors -------------------------------------------------------------------------------------


def test_floor_zero_is_the_papers_metric(tables: dict[str, audit.Published]) -> None:
    table = tables["1"]
    for row in table.rows():
        given_ = (table.original, row["masked"], row["mask_language"])
        assert audit.floor_corrected(*given_, dict.fromkeys(L, 0.0)) == langspec_f1(*given_)


def test_floor_corrected_by_hand() -> None:
    before, after = {"en": 0.45, "zh": 0.35}, {"en": 0.35, "zh": 0.30}
    found = audit.floor_corrected(before, after, "en", {"en": 0.25, "zh": 0.25})
    assert found.recall == pytest.approx(0.5)
    assert found.precision == pytest.approx(0.1 / 0.15)
    gone = audit.floor_corrected(before, {"en": 0.2, "zh": 0.35}, "en", {"en": 0.25, "zh": 0.25})
    assert gone.f1 == pytest.approx(1.0)  # below chance counts as chance


@pytest.mark.parametrize(
    ("floor", "message"),
    [
        ({"en": 0.25}, "no floor for"),
        ({"en": -1.0, "zh": 0.0}, "expected a number, 0 or more"),
        ({"en": 0.5, "zh": 0.25}, "nothing to lose"),
    ],
)
def test_floor_corrected_refuses(floor: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audit.floor_corrected({"en": 0.45, "zh": 0.4}, {"en": 0.4, "zh": 0.4}, "en", floor)


def test_floor_corrected_interval_holds_the_estimate() -> None:
    rng = np.random.default_rng(1)
    before = {x: rng.binomial(1, 0.6, 400).astype(float) for x in ("en", "zh")}
    after = {x: items * rng.binomial(1, 0.8, 400) for x, items in before.items()}
    floor = {"en": 0.25, "zh": 0.25}
    found = audit.floor_corrected_interval(before, after, "en", floor, n_boot=500)
    means = [{x: float(v.mean()) for x, v in arm.items()} for arm in (before, after)]
    assert found.estimate == audit.floor_corrected(means[0], means[1], "en", floor).f1
    assert found.low < found.estimate < found.high
    again = audit.floor_corrected_interval(before, after, "en", floor, n_boot=500)
    assert found == again


def test_even_damage_and_null_masks(tables: dict[str, audit.Published]) -> None:
    equal, none = dict.fromkeys(L, 0.5), dict.fromkeys(L, 0.0)
    assert audit.even_damage(equal, none, "en", [0, 1]) == pytest.approx([0, 2 / 3], abs=1e-6)
    table = tables["1"]
    best = table.scores["langspec_f1"].max()
    assert audit.even_damage(table.original, table.floor, "en", 1.0)[0] > best
    few, many = audit.null_f1(70, 0.1), audit.null_f1(14_042, 0.1)
    assert few.mean() > many.mean() > 0
    assert (audit.null_f1(70, 0.0) == 0).all()
    # The largest value there can be: the target loses everything that flips, others nothing.
    assert few.max() <= 1


def test_variants_and_leaders(tables: dict[str, audit.Published]) -> None:
    found = audit.f1_variants(tables)
    assert (found["sum"] <= found["paper"] + 1e-12).all()
    assert (found["paper"] <= found["mean"] + 1e-12).all()
    leading = audit.leaders(found, ["paper", "floor"])
    assert (leading["paper"] == "CRANE").sum() == 10
    assert leading.iloc[1].to_dict() == {
        "table": "Table 1", "mask_language": "zh", "paper": "Random", "floor": "Random",
    }  # fmt: skip


# --- claims -------------------------------------------------------------------------------------

VERDICTS = {
    "clear-separation": "cannot tell",
    "highest-everywhere": "does not",
    "larger-target-drop": "does not",
    "non-target-preserved": "does not",
    "smaller-side-effects": "does not",
    "lape-near-zero": "holds",
    "vietnamese-example": "holds",
    "definition-met": "does not",
    "matched-budgets": "cannot tell",
    "threshold-robust": "cannot tell",
    "language-not-task": "cannot tell",
    "open-ended-base": "holds",
    "chat-nlu-target": "does not",
    "chat-vietnamese": "holds",
    "open-ended-chat": "holds",
    "transfer-retained": "cannot tell",
    "stronger-than-activation": "does not",
    "metric-is-selective": "does not",
    "metric-is-relative": "does not",
    "bold-is-best": "does not",
}


def test_claims_and_their_verdicts() -> None:
    found = audit.claims_table(FOLDER)
    assert dict(zip(found["id"], found["verdict"], strict=True)) == VERDICTS
    assert audit.tally(found) == {"holds": 5, "does not": 10, "cannot tell": 5}
    assert found["evidence"].str.contains(r"\d|Lacking").all()
    evidence = found.set_index("id")["evidence"]["highest-everywhere"]
    assert "Chinese 0.0779 against 0.0337 (LAPE); one random mask has 0.1531" in evidence


def test_every_check_is_used_and_every_claim_complete() -> None:
    claims = audit.read_claims(FOLDER)
    assert {claim.check for claim in claims} == {*audit.CHECKS, *audit.PRINTED_ONLY}
    assert all(claim.section and claim.criterion.endswith(".") for claim in claims)


def test_a_claim_without_a_check_is_refused(tmp_path: Path) -> None:
    entries = yaml.safe_load((FOLDER / "claims.yaml").read_text(encoding="utf-8"))
    for change, message in (
        ({"check": "nothing"}, "no check 'nothing'"),
        ({"tables": ["5"]}, "unknown tables"),
        ({"id": entries[1]["id"]}, "an id twice"),
    ):
        (tmp_path / "claims.yaml").write_text(yaml.safe_dump([entries[0] | change, *entries[1:]]))
        with pytest.raises(ValueError, match=message):
            audit.read_claims(tmp_path)


Table = pd.DataFrame


def crane(table: Table) -> pd.Series:
    return table["method"] == "CRANE"


def possible(x: str, score: float) -> float:
    """The nearest score that is a mean of the language's items."""
    n = 70 if score > 1 else audit.tables.ITEMS[x]
    return round(round(score * n) / n, 4)


def crane_keeps(table: Table, own: float, others: float, langspec_f1: float) -> None:
    """Which share of its own language's score each of CRANE's masks leaves, and of the others'."""
    org = table.iloc[0]
    for row in table.index[crane(table)]:
        for x in L:
            share = own if x == table.loc[row, "mask_language"] else others
            table.loc[row, x] = possible(x, org[x] * share)
        table.loc[row, "langspec_f1"] = langspec_f1


def only_targets(table: Table) -> None:
    """CRANE's masks take three tenths of their own language and nothing else."""
    crane_keeps(table, 0.7, 1.0, 0.4615)


def only_others(table: Table) -> None:
    """CRANE's masks take three tenths of every other language and nothing of their own."""
    crane_keeps(table, 1.0, 0.7, 0.0)


def lape_hits(table: Table) -> None:
    """LAPE's masks take four tenths of every language."""
    for row in table.index[table["method"] == "LAPE"]:
        for x in L:
            table.loc[row, x] = possible(x, 0.6 * float(table.iloc[0][x]))
        table.loc[row, "langspec_f1"] = 0.5


def both(table: Table) -> None:
    only_targets(table)
    lape_hits(table)


def counted(equal: bool) -> Any:
    def change(table: Table) -> None:
        table["n_neurons"] = 100 if equal else np.arange(len(table))

    return change


FLIPS: list[tuple[str, Any, str, str]] = [
    ("highest-everywhere", only_others, "1", "does not"),
    ("larger-target-drop", only_others, "1", "does not"),
    ("non-target-preserved", only_targets, "1", "cannot tell"),  # one random mask is too few
    ("smaller-side-effects", both, "1", "cannot tell"),
    ("lape-near-zero", lape_hits, "1", "does not"),
    ("definition-met", only_targets, "1234", "holds"),
    ("definition-met", only_others, "1234", "does not"),
    ("matched-budgets", counted(True), "1", "holds"),
    ("matched-budgets", counted(False), "1", "does not"),
    ("open-ended-base", only_others, "2", "does not"),
    ("chat-nlu-target", only_targets, "3", "holds"),
    ("chat-vietnamese", lape_hits, "3", "does not"),
    ("open-ended-chat", only_others, "4", "does not"),
    ("stronger-than-activation", only_targets, "1234", "holds"),
    ("metric-is-selective", only_others, "1234", "does not"),
]


@pytest.mark.parametrize(("claim", "change", "numbers", "expected"), FLIPS)
def test_mutated_tables_flip_verdicts(
    claim: str, change: Any, numbers: str, expected: str, tmp_path: Path
) -> None:
    for file in FOLDER.glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for number in numbers:
        file = tmp_path / f"table{number}.csv"
        table = pd.read_csv(file).fillna({"mask_language": ""})
        half = {f"chat_{x}": x for x in L}
        table = table.rename(columns=half)
        change(table)
        table.rename(columns={v: k for k, v in half.items()} if number == "3" else {}).to_csv(
            file, index=False
        )
    found = audit.claims_table(tmp_path).set_index("id").loc[claim]
    assert found["verdict"] == expected, found["evidence"]


def test_bold_cells_exist_and_are_cranes(tables: dict[str, audit.Published]) -> None:
    cells = audit.bold_cells(FOLDER)
    assert len(cells) == 14 and not cells.duplicated().any()
    for cell in cells.to_dict("records"):
        assert cell["column"] in tables[cell["table"]].row(cell["method"], cell["mask_language"])
    found = audit.bold(tables, cells)
    assert found["bold"].sum() == 14
    assert (found.loc[found["bold"], "method"] == "CRANE").all()
    assert ((found["role"] == "other") & found["bold"]).sum() == 5


@pytest.mark.skipif(not LAPE_FILE.exists(), reason="LAPE's released sets are not here")
def test_lapes_released_sets_have_these_sizes() -> None:
    found = NeuronSet.from_lape_file(LAPE_FILE, shape=(32, 11008))
    assert {x: len(found[x]) for x in L} == audit.LAPE_RELEASED


# --- figures ------------------------------------------------------------------------------------


def test_figures_are_drawn(tables: dict[str, audit.Published]) -> None:
    noise = audit.noise_table(tables)
    variants = audit.f1_variants(tables)
    shares = [0.0, 0.5, 1.0]
    drawn = [
        figures.recomputed(audit.recompute(tables)),
        figures.noise_ranges(noise[noise["number"] == "2"]),
        figures.iso_f1({"all": variants}),
        figures.null_curves({"10 %": ([70, 900], [0.1, 0.05], [0.2, 0.1])}, {"here": 70}),
        figures.even_damage_curves(shares, {"one": {"en": [0, 0.3, 0.6]}}, {"one": {"en": 0.2}}),
    ]
    for figure in drawn:
        assert figures.png(figure).startswith(b"\x89PNG")


# --- tables of the metric card ------------------------------------------------------------------


def test_tables_are_read_as_printed() -> None:
    scores = audit.read_scores("3", FOLDER)
    assert list(scores.loc[0, ["method", "mask_language"]]) == ["Org", ""]
    assert {"base_en", "chat_vi", "langspec_f1"} <= set(scores)


def test_sizes_that_fit_all_printed_accuracies(tables: dict[str, audit.Published]) -> None:
    assert audit.benchmark_sizes(audit.grim_table(tables)) == {
        "zh": [1346, 2692],
        "vi": [900, 1800, 2700],
    }


def test_null_by_size_is_null_f1_with_a_seed_for_every_size() -> None:
    found = audit.null_by_size([70, 900], changed=[0.1, 0.2], n_masks=50, seed=3)
    assert found[["changed", "items"]].to_numpy().tolist() == [
        *([0.1, 70], [0.1, 900], [0.2, 70], [0.2, 900])
    ]
    expected = audit.null_f1(900, 0.2, n_masks=50, seed=4)
    assert found.loc[3, "mean"] == pytest.approx(expected.mean())
    assert found.loc[3, "p95"] == pytest.approx(np.quantile(expected, 0.95))


def test_even_damage_of_every_language(tables: dict[str, audit.Published]) -> None:
    table = tables["1"]
    for corrected in (False, True):
        found = audit.even_damage_by_language(table, [0.0, 1.0], corrected)
        assert list(found) == list(L)
        own = audit.even_damage(table.original, table.floor, "zh", [0.0, 1.0], corrected)
        assert found["zh"] == own.tolist()


def test_interval_table_has_every_row_and_pairing(tables: dict[str, audit.Published]) -> None:
    found = audit.interval_table(tables["2"], n_boot=20)
    assert len(found) == 9
    tight, wide = audit.f1_intervals(tables["2"], "CRANE", "zh", n_boot=20)
    (row,) = found.query("method == 'CRANE' and mask == 'zh'").to_dict("records")
    assert row["paper"] == tight.estimate
    assert (row["paper_similar_low"], row["paper_opposed_high"]) == (tight.low, wide.high)
