"""Verdicts, losses, choices and answers on made-up outcomes: what masks amount to, in numbers."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_verdicts import TASKS, N, judge, random_masks, rows

from crane_core import metrics
from crane_core.interventions import zero
from crane_core.selection import NeuronSet
from crane_lab.show import readouts
from crane_lab.stages import comparisons
from crane_lab.stages.outcomes import Row


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
    found = comparisons.verdicts(pd.concat([before, after]), table, TASKS).iloc[0]
    assert (found["absolute"], found["relative"]) == ("open", "open")


def test_a_random_rows_drop_is_the_mean_and_its_interval_covers_the_masks() -> None:
    same = judge([("Random", "en", s, 0.7, 0.4) for s in range(4)]).iloc[0]
    apart = judge([("Random", "en", s, 0.7 + d, 0.4) for s, d in enumerate((-0.1, 0.1))]).iloc[0]
    assert same["drop"] == pytest.approx(0.1)
    assert apart["drop"] == pytest.approx(0.1)
    assert apart["drop_high"] - apart["drop_low"] > 2 * (same["drop_high"] - same["drop_low"])
    assert same["against_random"] == ""


def test_sets_are_held_against_random_masks_of_their_own() -> None:
    masks: list[tuple[str, str, int, float, float]] = [
        ("CRANE", "en", -1, 0.6, 0.4),
        ("LAPE", "en", -1, 0.6, 0.4),
        ("CRANE", "zh", -1, 0.8, 0.2),
    ]
    hit = random_masks().assign(knowledge_en=lambda table: table["knowledge_en"] - 0.25)
    nulls = {("CRANE", "en"): random_masks(), ("LAPE", "en"): hit}
    found = judge(masks, nulls=nulls).set_index(["method", "mask_language"])
    assert found["absolute_items"].to_list() == ["larger"] * 3
    # LAPE's own random masks take as much from English; Chinese has no random masks.
    assert found["absolute"].to_list() == ["larger", "open", "open"]
    assert found["relative"].to_list() == ["larger", "open", "open"]
    assert found["against_random"].to_list() == ["above", "within", ""]
    first: Any = found.loc[("CRANE", "en")]
    assert first["difference_percentile"] == 100 and first["difference_null_masks"] == 200
    assert first["difference_p"] == pytest.approx(1 / 201)
    assert first["difference_q"] == pytest.approx(2 / 201)  # of two rows that have a null
    drops = 0.8 - nulls["CRANE", "en"]["knowledge_en"]
    others = 0.4 - nulls["CRANE", "en"]["knowledge_zh"]
    assert first["difference_null_mean"] == pytest.approx((drops - others).mean())
    f1 = [
        metrics.langspec_f1({"en": 0.8, "zh": 0.4}, {"en": en, "zh": zh}, "en").f1
        for en, zh in nulls["CRANE", "en"].to_numpy()
    ]
    assert first["langspec_f1_null_high"] == pytest.approx(np.quantile(f1, 0.95))
    few = {key: table.head(10) for key, table in nulls.items()}
    told = judge(masks, nulls=few).set_index(["method", "mask_language"])
    assert told["against_random"].to_list() == ["open", "open", ""]  # ten masks decide nothing
    asked_for_none = judge(masks, nulls={})
    assert set(asked_for_none["absolute"]) == {"open"}


def test_a_table_of_one_language_is_refused() -> None:
    table = pd.DataFrame({"method": ["Org"], "mask_language": [""], "en": [0.5]})
    with pytest.raises(ValueError, match=r"scores of \['en'\].*at least two languages"):
        comparisons.verdicts(rows("Org", "", -1, 0.8, 0.4), table, TASKS)


@settings(max_examples=25, deadline=None)
@given(
    damage=st.lists(st.floats(-1, 1), min_size=3, max_size=3),
    error=st.lists(st.floats(1e-6, 1), min_size=3, max_size=3),
)
def test_compare_agrees_with_its_intervals(damage: list[float], error: list[float]) -> None:
    languages = ("en", "zh", "vi")
    found = comparisons._compare(
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
    whole = comparisons.verdicts(items, table, TASKS, value="grade")
    assert whole.loc[0, "drop"] == pytest.approx(0.2)
    # The first half of the items lose their grade under the mask: right before and after.
    half = items.copy()
    half.loc[(half["method"] == "CRANE") & (np.arange(len(half)) % N < N // 2), "grade"] = np.nan
    found = comparisons.verdicts(half, table, TASKS, value="grade")
    assert found.loc[0, "drop"] == pytest.approx(0.4)
    verdict = {str(name): found[name].to_list()[0] for name in found}
    sentence = readouts.sentence(verdict, unit=readouts.GRADE)
    assert "+0.40 grade points" in sentence


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
    found = comparisons.loss_changes(table, ["en", "zh"]).set_index(["method", "mask_language"])
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
    masks = pd.DataFrame({"en": np.linspace(-0.5, 0.35, 200), "zh": 0.0})
    nulls = {("CRANE", "en"): masks}
    held = comparisons.loss_changes(table, ["en", "zh"], nulls=nulls).iloc[0]
    assert held["verdict"] == "larger" and held["percentile"] == 100
    wide = comparisons.loss_changes(table, ["en", "zh"], nulls={("CRANE", "en"): 3 * masks}).iloc[0]
    assert wide["verdict_items"] == "larger" and wide["verdict"] == "open"


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
    found = comparisons.choice_shares(*choice_items()).set_index("method")
    crane = found.loc["CRANE"]
    assert crane["right"] == 4 / 8
    assert crane["same"] == 4 / 8
    assert (crane["lost"], crane["gained"]) == (3 / 8, 1 / 8)
    assert found[["same", "lost", "gained"]].to_numpy()[0].tolist() == [1, 0, 0]
    assert found.loc["Random", "right"] == pytest.approx((1 + 0) / 2)  # the mean of two masks
    assert found.loc["Random", "mask_language"] == "en"


def test_saying_one_word_is_no_variety_even_in_two_positions() -> None:
    found = comparisons.choice_shares(*choice_items()).set_index("method")
    # Right texts: a, c, c, a, a, c, c, a: two texts equally often; "a" alone is half of that.
    assert found.loc["CRANE", "variety"] == pytest.approx(0.5)
    assert found.loc["CRANE", "position_bits"] == pytest.approx(1.0)


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
    found = comparisons.answer_shares(frame).set_index("language")
    assert found[list(comparisons.CATEGORIES)].sum(axis=1).tolist() == [1, 1]
    assert found.loc["en", "other language"] == 0.25
    assert found.loc["en", "nothing"] == 0
    assert (found.loc["en", "favourite"], found.loc["en", "favourite_share"]) == ("yes", 0.5)
    assert found["n"].tolist() == [4, 2]
    # A tie goes to the text that came first, on every machine.
    assert found.loc["zh", "favourite"] == "好"


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
    found = comparisons.grader_agreement(graded, ["one", "same", "higher", "noise"])
    found = found[found["language"] == "all"].set_index("graders")
    assert found.loc["one and same", "within 1"] == 1
    assert str(found.loc["one and same", "correlation"]).startswith("1.00")
    assert found.loc["one and higher", "difference"] == -2
    assert found.loc["one and higher", "within 1"] == 0 and found["answers"].eq(60).all()
    low = float(str(found.loc["one and noise", "correlation"]).split("[")[1].split(",")[0])
    assert low < 0.1
    with pytest.raises(ValueError, match="two graders"):
        comparisons.grader_agreement(graded, ["one"])


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
    found = comparisons.own_language(items, ["score"]).set_index(["method", "language"])
    assert found["score"].to_dict() == {("Org", "en"): 8, ("CRANE", "en"): 2, ("CRANE", "zh"): 3}


# ------------------------------------------------------------------------- rows, sites and readings


def test_of_random_masks_the_first_is_taken() -> None:
    neurons = NeuronSet.from_pairs([(0, 1)], {"intermediate": (1, 4)})
    masks = [Row("CRANE", "en", zero(neurons)), Row("Random", "en", zero(neurons), 3)]
    masks += [Row("Random", "en", zero(neurons), 4), Row("Random", "zh", zero(neurons), 3)]
    assert comparisons.one_of_each(masks) == [masks[0], masks[1], masks[3]]


def test_tables_of_two_sites_have_the_unmasked_row_once() -> None:
    table = pd.DataFrame(
        {"method": ["Org", "Random", "Random"], "mask_language": ["", "en", "en"], "en": 0.5}
    )
    seeds = table.assign(seed=[-1, 0, 1])
    found = comparisons.both_sites({"intermediate": seeds, "projections": seeds})
    assert found["site"].tolist() == ["", *["intermediate"] * 2, *["projections"] * 2]
    assert found.columns[-1] == "site"
    assert len(comparisons.both_sites({"intermediate": table, "projections": table})) == 3


def test_languages_hit_most_and_ahead() -> None:
    masks: list[tuple[str, str, int, float, float]] = [
        ("CRANE", "en", -1, 0.6, 0.4),
        ("CRANE", "zh", -1, 0.6, 0.4),
        ("LAPE", "en", -1, 0.8, 0.4),
        ("LAPE", "zh", -1, 0.8, 0.1),
    ]
    found = judge(masks)
    assert comparisons.hit_most(found) == {"en"}
    assert comparisons.hit_most(found, "LAPE") == {"zh"}
    assert comparisons.ahead(found, "CRANE", "LAPE") == ["en", "zh"]
    assert comparisons.ahead(found, "LAPE", "CRANE") == []


def test_readings_of_a_table() -> None:
    table = pd.DataFrame(
        [("Org", "", 0.8, 0.4, 0.6), ("CRANE", "zh", 0.7, 0.2, 0.6)],
        columns=["method", "mask_language", "en", "zh", "vi"],
    )
    readings: dict[str, comparisons.Reading] = {
        "max": metrics.langspec_f1,
        "mean": partial(metrics.langspec_f1, how="mean"),
    }
    (row,) = comparisons.f1_readings(table, ["en", "zh", "vi"], readings).to_dict("records")
    # Recall one half; precision 0.2 of 0.3, or of 0.25.
    expected = {"mask": "zh", "method": "CRANE", "max": 4 / 7, "mean": 8 / 13}
    assert row == pytest.approx(expected)


def test_own_tasks_average_over_a_languages_tasks() -> None:
    tasks = {"knowledge": {"en": "knowledge_en"}, "reading": {"en": "reading_en", "zh": "r_zh"}}
    shares = {"same": 1.0, "lost": 0.0, "gained": 0.0, "position_bits": 2.0, "variety": 1.0}
    chosen = pd.DataFrame(
        [
            ("Org", "", "knowledge_en", 0.5),
            ("Org", "", "reading_en", 0.7),
            ("CRANE", "en", "knowledge_en", 0.2),
            ("CRANE", "en", "reading_en", 0.4),
            ("CRANE", "en", "r_zh", 0.9),
        ],
        columns=["method", "mask_language", "task", "right"],
    ).assign(**shares)
    found = comparisons.own_tasks(chosen, tasks)
    assert found[["method", "language"]].to_numpy().tolist() == [["Org", "en"], ["CRANE", "en"]]
    assert found["right"].tolist() == pytest.approx([0.6, 0.3])


# -------------------------------------------------------------------------------------- answers


def answered(*texts: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [f"i{n}" for n in range(len(texts))],
            "answer": "right",
            "text": texts,
            "category": ["gold" if text == "right" else "wrong option" for text in texts],
        }
    )


def test_answers_are_labelled_and_compared() -> None:
    before, after = answered("right", "a", "b"), answered("right", "right", "c")
    labelled = comparisons.labelled({("Org", ""): before, ("CRANE", "en"): after})
    assert labelled["method"].tolist() == ["Org"] * 3 + ["CRANE"] * 3
    assert labelled["mask_language"].tolist() == [""] * 3 + ["en"] * 3
    # Rows are compared by their place, whatever their labels.
    changed = comparisons.changed_answers(before, after.set_axis([7, 8, 9]), 1)
    assert changed.to_dict("records") == [
        {"item": "i1", "right answer": "right", "unmasked": "a", "masked": "right", "now": "gold"}
    ]
    assert len(comparisons.changed_answers(before, after)) == 2
    assert comparisons.changed_answers(before, before).empty


@pytest.mark.parametrize(("now", "leaves"), [(0.12, False), (0.4, True), (0.0, False)])
def test_leaving_a_language_needs_more_than_noise(now: float, leaves: bool) -> None:
    assert comparisons.leaves_language(now, 0.1, 50) is leaves


def test_masks_under_which_answers_leave() -> None:
    spoken = pd.DataFrame(
        [
            ("Org", "", "en", 1.0),
            ("CRANE", "en", "en", 0.8),
            ("LAPE", "en", "en", 0.99),
            ("CRANE", "zh", "en", 0.0),
        ],
        columns=["method", "mask_language", "language", "en"],
    ).assign(n=100)
    assert comparisons.leaving(spoken).to_dict("records") == [
        {"method": "CRANE", "language": "en", "now": 0.8, "before": 1.0}
    ]
