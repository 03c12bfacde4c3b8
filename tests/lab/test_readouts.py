"""Verdicts, choices, continuations and loss matrices on made-up outcomes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_lab.show import readouts

TASKS = {"en": "knowledge_en", "zh": "knowledge_zh"}
N = 400


def outcomes(share: float, n: int = N) -> np.ndarray:
    """Right on the first share of the items."""
    return np.arange(n) < round(share * n)


def rows(method: str, target: str, seed: int, en: float, zh: float) -> pd.DataFrame:
    return pd.concat(
        pd.DataFrame(
            {
                "method": method,
                "mask_language": target,
                "seed": seed,
                "task": TASKS[x],
                "correct": outcomes(share),
            }
        )
        for x, share in (("en", en), ("zh", zh))
    )


def judge(masks: list[tuple[str, str, int, float, float]], n_neurons: int = 5) -> pd.DataFrame:
    items = pd.concat([rows("Org", "", -1, 0.8, 0.4), *(rows(*mask) for mask in masks)])
    lines = [{"method": "Org", "mask_language": "", "n_neurons": 0, "en": 0.8, "zh": 0.4}]
    f1 = {"CRANE": (0.2, 0.3, 0.4), "LAPE": (0.05, 0.06, 0.07), "Random": (0.08, 0.1, 0.15)}
    for method, target in dict.fromkeys(mask[:2] for mask in masks):
        low, middle, high = f1[method]
        lines.append(
            {"method": method, "mask_language": target, "n_neurons": n_neurons, "en": 0, "zh": 0}
            | {"langspec_f1": middle, "langspec_f1_low": low, "langspec_f1_high": high}
        )
    return readouts.verdicts(items, pd.DataFrame(lines), TASKS)


@pytest.mark.parametrize(
    ("target", "en", "zh", "absolute", "relative"),
    [
        ("en", 0.6, 0.39, "larger", "larger"),
        ("zh", 0.6, 0.39, "smaller", "smaller"),
        ("en", 0.79, 0.39, "open", "open"),  # the same drop
        ("en", 0.62, 0.28, "larger", "open"),  # 18 against 12 points, 0.225 against 0.3
        ("zh", 0.66, 0.26, "open", "larger"),  # both 14 points, of 0.4 and of 0.8
        ("en", 0.85, 0.40, "smaller", "smaller"),  # the target gains
    ],
)
def test_verdicts_tell_absolute_from_relative(
    target: str, en: float, zh: float, absolute: str, relative: str
) -> None:
    row = judge([("CRANE", target, -1, en, zh)]).iloc[0]
    assert (row["absolute"], row["relative"]) == (absolute, relative)
    start, drops = {"en": 0.8, "zh": 0.4}, {"en": 0.8 - en, "zh": 0.4 - zh}
    own = drops.pop(target)
    (other,) = drops.values()
    assert row["drop"] == pytest.approx(own)
    assert row["difference"] == pytest.approx(own - other)
    assert row["relative_drop"] == pytest.approx(own / start[target])
    assert row["difference_low"] < row["difference"] < row["difference_high"]


def test_intervals_are_those_of_paired_items() -> None:
    row = judge([("CRANE", "en", -1, 0.6, 0.4)]).iloc[0]
    # A fifth of the items is lost, none gained: a proportion of 0.2.
    error = np.sqrt(0.2 * 0.8 / (N - 1))
    assert row["drop_high"] - row["drop"] == pytest.approx(1.959964 * error)
    assert row["difference_high"] - row["difference"] == pytest.approx(1.959964 * error)


def test_a_single_item_settles_nothing() -> None:
    before = rows("Org", "", -1, 1, 1).groupby("task").head(1)
    after = before.assign(method="CRANE", mask_language="en", correct=[False, True])
    table = pd.DataFrame(
        {"method": ["Org", "CRANE"], "mask_language": ["", "en"], "n_neurons": 3, "en": 0, "zh": 0}
        | dict.fromkeys(["langspec_f1", "langspec_f1_low", "langspec_f1_high"], 0.1)
    )
    found = readouts.verdicts(pd.concat([before, after]), table, TASKS).iloc[0]
    assert (found["absolute"], found["relative"]) == ("open", "open")


def test_a_random_rows_drop_is_the_mean_and_its_interval_covers_the_masks() -> None:
    same = judge([("Random", "en", s, 0.7, 0.4) for s in range(4)]).iloc[0]
    apart = judge([("Random", "en", s, 0.7 + d, 0.4) for s, d in enumerate((-0.1, 0.1))]).iloc[0]
    assert same["drop"] == pytest.approx(0.1)
    assert apart["drop"] == pytest.approx(0.1)
    assert apart["drop_high"] - apart["drop_low"] > 2 * (same["drop_high"] - same["drop_low"])
    assert same["against_random"] == ""


def test_langspec_f1_is_held_against_the_random_masks_of_the_language() -> None:
    masks: list[tuple[str, str, int, float, float]] = [
        ("CRANE", "en", -1, 0.6, 0.4),
        ("LAPE", "en", -1, 0.8, 0.4),
        ("CRANE", "zh", -1, 0.6, 0.4),
        ("Random", "en", 0, 0.7, 0.4),
    ]
    found = judge(masks).set_index(["method", "mask_language"])["against_random"]
    assert found["CRANE", "en"] == "above"
    assert found["LAPE", "en"] == "below"
    assert found["CRANE", "zh"] == ""  # no random masks were made for zh


def test_a_table_of_one_language_is_refused() -> None:
    table = pd.DataFrame({"method": ["Org"], "mask_language": [""], "en": [0.5]})
    with pytest.raises(ValueError, match=r"scores of \['en'\].*at least two languages"):
        readouts.verdicts(rows("Org", "", -1, 0.8, 0.4), table, TASKS)


@settings(max_examples=25, deadline=None)
@given(
    damage=st.lists(st.floats(-1, 1), min_size=3, max_size=3),
    error=st.lists(st.floats(1e-6, 1), min_size=3, max_size=3),
)
def test_compare_agrees_with_its_intervals(damage: list[float], error: list[float]) -> None:
    languages = ("en", "zh", "vi")
    found = readouts._compare(
        dict(zip(languages, damage, strict=True)),
        dict(zip(languages, error, strict=True)),
        "zh",
        0.95,
    )
    assert found.other in ("en", "vi")
    if found.verdict != "smaller":
        assert found.estimate == min(damage[1] - damage[0], damage[1] - damage[2])
    else:
        assert found.high < 0
    if found.verdict == "larger":
        assert found.low > 0
    if found.high < 0:
        assert found.verdict == "smaller"


# ---------------------------------------------------------------------------------------- words


def first(found: pd.DataFrame) -> dict[str, Any]:
    return {str(key): value for key, value in found.iloc[0].items()}


def test_sentences_say_what_the_verdict_is() -> None:
    clear = judge([("CRANE", "en", -1, 0.6, 0.39), ("Random", "en", 0, 0.7, 0.4)])
    text = readouts.sentence(first(clear), {"en": "English", "zh": "Chinese"})
    assert text.startswith("**CRANE, English** (5 neurons): English drops by +20.0 points [")
    assert "In absolute and in relative terms the mask costs English clearly more than ev" in text
    assert "LangSpec-F1, 0.300 [0.200, 0.400], lies above the range of the random masks" in text
    null = judge([("CRANE", "en", -1, 0.79, 0.39)])
    text = readouts.sentence(first(null))
    assert (
        "In absolute and in relative terms the mask does not cost en clearly more than zh" in text
    )
    assert "random" not in text
    wrong = judge([("CRANE", "zh", -1, 0.5, 0.39)])
    assert "the mask costs zh clearly less than en" in readouts.sentence(first(wrong))
    mixed = judge([("CRANE", "en", -1, 0.62, 0.28)])
    assert (
        "In absolute terms the mask costs en clearly more than every other language, in relative "
        "terms it does not cost en clearly more than zh."
    ) in readouts.sentence(first(mixed))


def test_an_empty_set_says_nothing() -> None:
    found = judge([("CRANE", "en", -1, 0.8, 0.4)], n_neurons=0)
    assert "no neuron is selected" in readouts.sentence(first(found))


def test_summaries_print_null_results_as_such() -> None:
    null = judge([("CRANE", "en", -1, 0.79, 0.39), ("CRANE", "zh", -1, 0.79, 0.39)])
    assert readouts.summary(null, "CRANE") == (
        "**CRANE**: its own language loses clearly more than every other under 0 of 2 masks in "
        "absolute terms and under 0 in relative terms: a null result."
    )
    full = judge([("CRANE", "en", -1, 0.6, 0.4), ("Random", "en", 0, 0.8, 0.4)])
    assert readouts.summary(full, "CRANE").endswith(
        "under 1 in relative terms; LangSpec-F1 lies above the range of the random masks for 1: "
        "in every case what the method is for."
    )
    mixed = judge([("CRANE", "en", -1, 0.6, 0.4), ("CRANE", "zh", -1, 0.6, 0.4)])
    assert readouts.summary(mixed, "CRANE").endswith("and under 1 in relative terms.")


# --------------------------------------------------------------------------------------- losses


def test_the_loss_matrix_averages_random_masks_and_adds_their_spread() -> None:
    def line(method: str, target: str, seed: int, en: float, zh: float) -> dict[str, Any]:
        return {
            "method": method, "mask_language": target, "seed": seed, "n_neurons": 7,
            "en_change": en, "en_se": 0.03, "zh_change": zh, "zh_se": 0.04,
        }  # fmt: skip

    table = pd.DataFrame(
        [
            {"method": "Org", "mask_language": "", "seed": -1, "n_neurons": 0},
            line("CRANE", "en", -1, 0.5, 0.1),
            line("CRANE", "zh", -1, 0.2, 0.25),
            line("Random", "en", 0, 0.1, 0.3),
            line("Random", "en", 1, 0.3, 0.3),
        ]
    )
    found = readouts.loss_changes(table, ["en", "zh"]).set_index(["method", "mask_language"])
    assert found.index.tolist() == [("CRANE", "en"), ("CRANE", "zh"), ("Random", "en")]
    assert found.loc[("CRANE", "en"), "verdict"] == "larger"
    assert found.loc[("CRANE", "zh"), "verdict"] == "open"
    assert found.loc[("CRANE", "en"), "difference"] == pytest.approx(0.4)
    random = found.loc[[("Random", "en")]].iloc[0]
    assert random["en"] == pytest.approx(0.2)
    assert random["en_se"] == pytest.approx(np.hypot(0.03, 0.1))
    assert random["zh_se"] == pytest.approx(0.04)
    assert random["difference_low"] == pytest.approx(
        -0.1 - 1.959964 * np.hypot(0.04, random["en_se"])
    )


# -------------------------------------------------------------------------------------- choices


def choice_items() -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Eight items; the options stand in another order in every second one."""
    texts = {
        f"i{n}": ["a", "b", "c", "d"] if n % 2 == 0 else ["d", "c", "b", "a"] for n in range(8)
    }
    base = pd.DataFrame(
        {
            "id": list(texts),
            "task": "knowledge_en",
            "relation": "r",
            "answer": [0, 1, 2, 3, 0, 1, 2, 3],
        }
    )

    def under(method: str, target: str, seed: int, choice: list[int]) -> pd.DataFrame:
        frame = base.assign(method=method, mask_language=target, seed=seed, choice=choice)
        return frame.assign(correct=frame["choice"] == frame["answer"])

    masks = [
        under("Org", "", -1, [0, 1, 2, 3, 0, 1, 0, 0]),
        under("CRANE", "en", -1, [0, 3, 0, 3, 0, 3, 0, 3]),  # always "a"
        under("Random", "en", 0, [0, 1, 2, 3, 0, 1, 2, 3]),
        under("Random", "en", 1, [1, 0, 0, 0, 1, 0, 0, 0]),
    ]
    return pd.concat(masks, ignore_index=True), texts


def test_choices_count_what_changed() -> None:
    found = readouts.choices(*choice_items()).set_index("method")
    crane = found.loc["CRANE"]
    assert crane["right"] == 4 / 8
    assert crane["same"] == 4 / 8
    assert (crane["lost"], crane["gained"]) == (3 / 8, 1 / 8)
    assert found[["same", "lost", "gained"]].to_numpy()[0].tolist() == [1, 0, 0]
    assert found.loc["Random", "right"] == pytest.approx((1 + 0) / 2)  # the mean of two masks
    assert found.loc["Random", "mask_language"] == "en"


def test_saying_one_word_is_no_variety_even_in_two_positions() -> None:
    found = readouts.choices(*choice_items()).set_index("method")
    # Right texts: a, c, c, a, a, c, c, a: two texts equally often; "a" alone is half of that.
    assert found.loc["CRANE", "variety"] == pytest.approx(0.5)
    assert found.loc["CRANE", "position_bits"] == pytest.approx(1.0)


# ---------------------------------------------------------------------------------- continuations


def test_answer_shares_add_up_and_name_the_favourite() -> None:
    frame = pd.DataFrame(
        {
            "method": "CRANE",
            "mask_language": "zh",
            "language": ["en"] * 4 + ["zh"] * 2,
            "text": ["yes", "yes", "no", "好", "好", "坏"],
            "category": ["gold", "wrong option", "same language", "other language"] + ["gold"] * 2,
        }
    )
    found = readouts.answer_shares(frame).set_index("language")
    assert found[list(readouts.CATEGORIES)].sum(axis=1).tolist() == [1, 1]
    assert found.loc["en", "other language"] == 0.25
    assert found.loc["en", "nothing"] == 0
    assert (found.loc["en", "favourite"], found.loc["en", "favourite_share"]) == ("yes", 0.5)
    assert found["n"].tolist() == [4, 2]
    # A tie goes to the text that came first, on every machine.
    assert found.loc["zh", "favourite"] == "好"


# --- open-ended answers and transfer --------------------------------------------------------


def spoken(kept: int, n: int = 70) -> pd.DataFrame:
    rows = [("Org", "", "en", 1.0), ("Org", "", "zh", 1.0)]
    rows += [("CRANE", "en", "en", kept / n), ("CRANE", "en", "zh", 1.0)]
    return pd.DataFrame(
        [
            {"method": m, "mask_language": y, "language": x}
            | {z: share if z == x else 0.0 for z in ("en", "zh")}
            | {"none": 1 - share, "n": n}
            for m, y, x, share in rows
        ]
    )


def test_leaving_a_language_is_told_from_noise() -> None:
    names = {"en": "English", "zh": "Chinese"}
    assert "CRANE, English (80%, unmasked 100%)" in readouts.left_language(spoken(56), names)
    assert readouts.left_language(spoken(69), names).startswith("No mask makes")
    panels = readouts.spoken_panels(spoken(56), names)
    assert list(panels) == ["asked in English", "asked in Chinese"]
    assert list(panels["asked in English"].loc["CRANE · en"]) == pytest.approx([0.8, 0, 0.2])


def test_agreement_of_graders() -> None:
    rng = np.random.default_rng(0)
    one = rng.integers(1, 11, 60)
    graded = pd.DataFrame(
        {
            "language": ["en", "zh"] * 30,
            "one": one,
            "same": one,
            "higher": one + 2,
            "noise": rng.permutation(one),
        }
    )
    found = readouts.agreement(graded, ["one", "same", "higher", "noise"])
    found = found[found["language"] == "all"].set_index("graders")
    assert found.loc["one and same", "within 1"] == 1
    assert str(found.loc["one and same", "correlation"]).startswith("1.00")
    assert found.loc["one and higher", "difference"] == -2
    assert found.loc["one and higher", "within 1"] == 0 and found["answers"].eq(60).all()
    low = float(str(found.loc["one and noise", "correlation"]).split("[")[1].split(",")[0])
    assert low < 0.1
    with pytest.raises(ValueError, match="two graders"):
        readouts.agreement(graded, ["one"])


def test_own_language_leaves_other_masks_out() -> None:
    items = pd.DataFrame(
        [
            ("Org", "", "en", 8.0),
            ("CRANE", "en", "en", 2.0),
            ("CRANE", "zh", "en", 5.0),
            ("CRANE", "zh", "zh", 3.0),
        ],
        columns=["method", "mask_language", "language", "score"],
    )
    found = readouts.own_language(items, ["score"]).set_index(["method", "language"])
    assert found["score"].to_dict() == {("Org", "en"): 8, ("CRANE", "en"): 2, ("CRANE", "zh"): 3}


def test_an_answer_without_a_grade_is_left_out_of_a_verdict() -> None:
    items = pd.concat([rows("Org", "", -1, 0.8, 0.4), rows("CRANE", "en", -1, 0.6, 0.4)])
    items["grade"] = items["correct"].astype(float)
    table = pd.DataFrame(
        {
            "method": ["Org", "CRANE"],
            "mask_language": ["", "en"],
            "n_neurons": [0, 3],
            "en": [0.8, 0.6],
            "zh": [0.4, 0.4],
            **dict.fromkeys(["langspec_f1", "langspec_f1_low", "langspec_f1_high"], 0.1),
        }
    )
    whole = readouts.verdicts(items, table, TASKS, value="grade")
    assert whole.loc[0, "drop"] == pytest.approx(0.2)
    # The first half of the items lose their grade under the mask: right before and after.
    half = items.copy()
    half.loc[(half["method"] == "CRANE") & (np.arange(len(half)) % N < N // 2), "grade"] = np.nan
    found = readouts.verdicts(half, table, TASKS, value="grade")
    assert found.loc[0, "drop"] == pytest.approx(0.4)
    verdict = {str(name): found[name].to_list()[0] for name in found}
    sentence = readouts.sentence(verdict, unit=readouts.GRADE)
    assert "+0.40 grade points" in sentence


def test_tables_as_read_and_in_words() -> None:
    table = pd.DataFrame(
        {
            "method": ["Org", "CRANE"],
            "mask_language": ["", "en"],
            "n_neurons": [0, 1234],
            "en": [0.8, 0.6],
            "langspec_f1": [np.nan, 0.3],
            "langspec_f1_low": [np.nan, 0.2],
            "langspec_f1_high": [np.nan, 0.4],
            "en_low": [0.75, 0.55],
            "en_high": [0.85, 0.65],
        }
    )
    shown = readouts.shown(table, ["en"], 2)
    assert list(shown.loc[1]) == [
        *("CRANE", "en", "1,234", "0.60 [0.55,\u00a00.65]", "0.300 [0.200,\u00a00.400]")
    ]
    assert shown.loc[0, "LangSpec-F1"] == "–"
    assert readouts.drops_in_words(table, ["en"]) == "CRANE en: en +0.200; LangSpec-F1 0.300."
    seeds = pd.DataFrame({"mask_language": ["en", "en"], "langspec_f1": [0.1, 0.2]})
    null, marks = readouts.null_and_marks(table, seeds, {"en": "English"})
    assert marks == {"CRANE": {"English, n = 1,234": 0.3}}
    assert null["English, n = 1,234"].tolist() == [0.1, 0.2]
    assert "random 0.100, 0.200; CRANE 0.300" in readouts.strip_in_words(null, marks)
