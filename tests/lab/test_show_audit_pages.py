"""What notebook 07 shows of the audit, of the published tables and of ones that differ."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest
from page_outputs import alt, caption, cells

from crane_lab import audit
from crane_lab.show import audit_pages as page


@pytest.fixture(scope="module")
def tables() -> dict[str, audit.Published]:
    return audit.published()


@pytest.fixture(scope="module")
def checked(tables: dict[str, audit.Published]) -> pd.DataFrame:
    return audit.recompute(tables)


def test_rows_that_do_not_follow_are_named(checked: pd.DataFrame) -> None:
    text = alt(page.recomputed_figure(checked))
    assert "27 rows lie inside. Outside: Table 2 Random en, 0.4406 printed and 0.4514" in text
    assert page.recomputed_in_words(checked).data.startswith("**27 of 30** printed values follow")
    read = cells(page.wrong_table(checked))
    assert len(read) == 3 and "verdict" not in read
    assert read.loc[0, "difference"] == "-0.0108"
    none = checked.assign(verdict="agrees")
    assert "**30 of 30**" in page.recomputed_in_words(none).data


def test_grim_says_where_it_says_nothing(tables: dict[str, audit.Published]) -> None:
    grid = audit.grim_table(tables)
    summary = audit.grim_summary(grid)
    assert "GRIM over all tables" in caption(page.grim_summary_table(summary))
    text = page.grim_in_words(grid, summary, {"zh": [1346, 2692], "vi": [900]}).data
    assert text.startswith("**All 102 printed scores are possible.** No score is in doubt.")
    assert "For English that says nothing: with 14,042 questions" in text
    assert "are 1,346 (Chinese) and 900 (Vietnamese), with their multiples" in text
    # One impossible score, and sizes that are no multiples of one another.
    grid.loc[5, "possible"] = False
    text = page.grim_in_words(grid, summary, {"zh": [1346, 1350], "vi": [900]}).data
    row = grid.loc[5]
    assert text.startswith(
        f"1 scores are impossible: Table 1 {row['method']} {row['mask_language']} "
        f"{row['language']} {row['printed']}."
    )
    assert "the only ones" not in text


def test_last_digits(tables: dict[str, audit.Published], checked: pd.DataFrame) -> None:
    exact = audit.recompute_from_counts({"1": tables["1"], "2": tables["2"]})
    text = page.last_digits(exact, checked).data
    assert "of 18 values follow to the last digit. Besides the rows above, 3 are off by" in text
    assert "Table 1 LAPE en (0.0013, not 0.0012 to 0.0015)" in text
    assert "Table 1 Random vi (0.0603, not 0.0604)" in text
    assert "Random en (0.4406" not in text  # named above it
    fine = page.last_digits(exact.assign(verdict="agrees"), checked).data
    assert fine == "From whole counts 18 of 18 values follow to the last digit. "


def test_random_rows(tables: dict[str, audit.Published]) -> None:
    reach = audit.unreachable(tables["2"])
    assert "needed precision" in cells(page.reach_table(reach))
    assert page.beyond_reach(reach)["mask_language"].tolist() == ["vi"]
    tried = pd.DataFrame({"how": ["max", "sum"], "reproduced": [1, 1]})
    tried.attrs["tried"] = 1234
    text = page.random_rows_in_words(reach, tried).data
    assert text.startswith("**0.0751 (Vietnamese) cannot be reached at all**: with a recall of 5/")
    assert "We tried 1,234 ways" in text and "None reproduces all three; the most that any" in text
    found = tried.assign(reproduced=[1, 3])
    found.attrs["tried"] = 2
    assert "At least one reproduces all three: {'how': 'sum'" in (
        page.random_rows_in_words(reach, found).data
    )
    nothing = tried.iloc[:0]
    nothing.attrs["tried"] = 2
    assert "any rule reproduces is 0" in page.random_rows_in_words(reach, nothing).data


def test_definition(tables: dict[str, audit.Published]) -> None:
    meets = audit.definition(tables)
    read = cells(page.definition_table(meets))
    assert list(read)[3:] == [*audit.LANGUAGES, "largest relative", "hardest", "largest absolute"]
    text = page.definition_in_words(meets).data
    assert "5 of 12 rows of CRANE (6 in absolute terms)" in text
    assert "those for Vietnamese meet it in 3 of 4 tables" in text
    assert "Vietnamese is the language that suffers most under 9 of CRANE's 12 masks" in text


def test_noise(tables: dict[str, audit.Published]) -> None:
    noise = audit.noise_table(tables)
    text = alt(page.noise_figure(noise, "1"))
    assert text.startswith("Table 1: for every mask and language the smallest and largest number")
    assert "CRANE vi, vi: 5.8 to 11.6, certain." in text
    read = cells(page.noise_counts(noise))
    assert list(read) == ["table", "method", "role", "certain", "either", "cannot"]
    text = page.noise_in_words(noise).data
    assert text.startswith(
        "Of CRANE's drops in Table 1, 5 of 6 in languages that were *not* masked"
    )
    assert "6.7 points of zh under the mask for en" in text
    assert text.endswith("changes in all tables, 0 are certain, and 11 cannot be told from noise.")


def test_chance(tables: dict[str, audit.Published], checked: pd.DataFrame) -> None:
    chance = audit.chance_table(tables)
    assert cells(page.near_chance_table(chance)).loc[0, "score"] == "0.2233"
    text = page.chance_in_words(chance, checked).data
    assert text.startswith("1 of 51 accuracies cannot be told from guessing: Table 1, CRANE vi, vi")
    assert text.endswith(
        "Table 1 CRANE vi is also the row with the highest LangSpec-F1 of Table 1."
    )
    other = chance.assign(verdict="above")
    assert page.chance_in_words(other, checked).data == "All 51 accuracies are above guessing."
    other.loc[other["method"].eq("LAPE").idxmax(), "verdict"] = "at"
    assert "highest LangSpec-F1" not in page.chance_in_words(other, checked).data


def test_closeness(tables: dict[str, audit.Published]) -> None:
    close = audit.closeness(tables)
    assert cells(page.closeness_table(close)).loc[0, "items"] == "+48"
    text = page.closeness_in_words(close, tables["1"]).data
    assert "English (11.0 and 10.6 points)" in text and "in Chinese cannot be told" in text
    assert "by 52 of 900 questions, which is certain to exceed noise." in text
    text = page.closeness_in_words(close.assign(verdict="either"), tables["1"]).data
    assert "in Chinese may be told" in text and "which may or may not exceed noise." in text


def test_claims() -> None:
    claims = pd.DataFrame(
        [("A", "holds", "x"), ("B", "does not", "y"), ("C", "cannot tell", "z")],
        columns=["claim", "verdict", "criterion"],
    ).assign(section="5", evidence="numbers")
    assert page.claims_in_words(claims).data.startswith("Of 3 claims **1** hold, **1** do not")
    read = cells(page.claims_by_verdict(claims))
    assert read["verdict"].to_list() == ["does not hold", "cannot tell", "holds"]
    assert page.claim_criteria(claims).data == (
        '<details class="folded"><summary>By which criterion</summary>'
        "\n\n- *B* — y\n- *C* — z\n- *A* — x\n\n"
        "</details>"
    )


def test_the_audit_in_short(tables: dict[str, audit.Published], checked: pd.DataFrame) -> None:
    claims = pd.DataFrame({"verdict": ["holds", "holds", "cannot tell"]})
    short = page.audit_in_short(
        audit.grim_table(tables),
        checked,
        audit.unreachable(tables["2"]),
        claims,
        audit.definition(tables),
        audit.noise_table(tables),
    ).data
    assert short.startswith("- 102 of 102 scores are possible means")
    assert "27 of 30 LangSpec-F1 follow from them. 3 do not, and 1 of these cannot" in short
    assert "Of 3 claims of the text, 2 hold in its own tables, 0 do not, and for 1 they" in short
    assert "in 3 of 4 tables. What is not: that other languages are spared (5 of 6" in short


def test_a_table_says_its_own_number_of_questions(tables: dict[str, audit.Published]) -> None:
    table = dataclasses.replace(tables["1"], items={"en": 1, "zh": 2, "vi": 33})
    text = page.closeness_in_words(audit.closeness(tables), table).data
    assert "of 33 questions" in text
