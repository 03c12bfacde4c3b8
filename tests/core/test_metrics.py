"""LangSpec-F1 (Eq. 3-5) and intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crane_core.metrics import (
    AGGREGATES,
    drop_interval,
    langspec_f1,
    langspec_f1_difference,
    langspec_f1_interval,
)

ORIGINAL = {"en": 0.8, "zh": 0.5, "vi": 0.4}
MASKED = {"en": 0.6, "zh": 0.1, "vi": 0.45}

scores = st.fixed_dictionaries({x: st.floats(0, 1) for x in ("en", "zh", "vi")})


def test_equations_by_hand():
    result = langspec_f1(ORIGINAL, MASKED, "zh")
    assert result.target == "zh"
    assert result.precision == pytest.approx(0.4 / (0.4 + 0.2))
    assert result.recall == pytest.approx(0.4 / 0.5)
    assert result.f1 == pytest.approx(2 * (2 / 3) * 0.8 / (2 / 3 + 0.8))
    assert result.drops == pytest.approx({"en": 0.2, "zh": 0.4, "vi": -0.05})
    assert result.relative_drops == pytest.approx({"en": 0.25, "zh": 0.8, "vi": -0.125})


def test_other_aggregates_and_relative_drops():
    masked = {"en": 0.6, "zh": 0.1, "vi": 0.3}
    expected = {"max": 0.2, "mean": 0.15, "sum": 0.3}
    for how, others in expected.items():
        assert langspec_f1(ORIGINAL, masked, "zh", how=how).precision == pytest.approx(
            0.4 / (0.4 + others)
        )
    relative = langspec_f1(ORIGINAL, masked, "zh", relative=True)
    assert relative.precision == pytest.approx(0.8 / (0.8 + 0.25))
    assert relative.recall == pytest.approx(0.8)


def test_gains_count_as_nothing():
    unchanged = langspec_f1(ORIGINAL, ORIGINAL, "en")
    assert (unchanged.precision, unchanged.recall, unchanged.f1) == (0, 0, 0)
    gained = langspec_f1(ORIGINAL, {"en": 0.9, "zh": 0.5, "vi": 0.4}, "en")
    assert gained.f1 == 0 and gained.drops["en"] < 0
    assert langspec_f1(ORIGINAL, {"en": 0.0, "zh": 0.6, "vi": 0.5}, "en").f1 == pytest.approx(1)


def test_a_score_of_zero_cannot_drop():
    result = langspec_f1({"en": 0, "zh": 1}, {"en": 0, "zh": 1}, "en")
    assert result.f1 == 0 and np.isnan(result.relative_drops["en"])


@given(scores, scores, st.sampled_from(["en", "zh", "vi"]))
def test_bounds_and_order(original, masked, target):
    results = {how: langspec_f1(original, masked, target, how=how) for how in AGGREGATES}
    for result in results.values():
        assert 0 <= result.precision <= 1 and 0 <= result.recall <= 1 and 0 <= result.f1 <= 1
        assert result.f1 <= max(result.precision, result.recall) + 1e-12
    assert results["sum"].f1 <= results["max"].f1 <= results["mean"].f1
    if masked[target] >= original[target]:
        assert results["max"].f1 == 0


@given(scores, scores, st.floats(0, 1))
def test_more_damage_elsewhere_never_helps(original, masked, factor):
    worse = {**masked, "vi": masked["vi"] * factor}
    assert langspec_f1(original, worse, "en").f1 <= langspec_f1(original, masked, "en").f1 + 1e-12


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("which", ["original", "masked"])
def test_scores_that_are_no_scores(bad, which):
    given_scores = {"original": ORIGINAL, "masked": MASKED}
    given_scores[which] = {**given_scores[which], "zh": bad}
    with pytest.raises(ValueError, match=f"{which} score of 'zh' is {bad}"):
        langspec_f1(given_scores["original"], given_scores["masked"], "en")


def test_missing_languages_and_unknown_options():
    without = {"en": 0.5, "zh": 0.5}
    with pytest.raises(ValueError, match="masked scores lack 'vi'"):
        langspec_f1(ORIGINAL, without, "en")
    with pytest.raises(ValueError, match="original scores lack 'vi'"):
        langspec_f1(without, ORIGINAL, "en")
    with pytest.raises(ValueError, match="target 'fr'"):
        langspec_f1(ORIGINAL, MASKED, "fr")
    with pytest.raises(ValueError, match="two languages"):
        langspec_f1({"en": 1}, {"en": 1}, "en")
    with pytest.raises(ValueError, match="'median'"):
        langspec_f1(ORIGINAL, MASKED, "en", how="median")
    for epsilon in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="epsilon"):
            langspec_f1(ORIGINAL, MASKED, "en", epsilon=epsilon)


# --- intervals ------------------------------------------------------------------------------


def outcomes(seed, accuracy, n=400):
    return (np.random.default_rng(seed).random(n) < accuracy).astype(int)


def masked_outcomes(seed, items, flip):
    lost = np.random.default_rng(seed).random(len(items)) < flip
    return np.where(lost, 0, items)


ITEMS = {"en": outcomes(0, 0.7), "zh": outcomes(1, 0.6, 300), "vi": outcomes(2, 0.6, 500)}
AFTER = {
    "en": masked_outcomes(3, ITEMS["en"], 0.1),
    "zh": masked_outcomes(4, ITEMS["zh"], 0.5),
    "vi": masked_outcomes(5, ITEMS["vi"], 0.05),
}


def test_interval_holds_the_estimate_and_repeats():
    before, after = ({x: v.mean() for x, v in items.items()} for items in (ITEMS, AFTER))
    interval = langspec_f1_interval(ITEMS, AFTER, "zh", n_boot=500)
    assert interval.estimate == pytest.approx(langspec_f1(before, after, "zh").f1)
    assert interval.low < interval.estimate < interval.high
    assert interval == langspec_f1_interval(ITEMS, AFTER, "zh", n_boot=500)
    assert interval != langspec_f1_interval(ITEMS, AFTER, "zh", n_boot=500, seed=1)
    wider = langspec_f1_interval(ITEMS, AFTER, "zh", n_boot=500, level=0.99)
    assert wider.low < interval.low < interval.high < wider.high


def test_interval_is_the_plain_bootstrap_over_items():
    rng = np.random.default_rng(0)
    plain = []
    for _ in range(3000):
        picks = {x: rng.integers(0, len(v), len(v)) for x, v in ITEMS.items()}
        before, after = ({x: v[picks[x]].mean() for x, v in s.items()} for s in (ITEMS, AFTER))
        plain.append(langspec_f1(before, after, "zh").f1)
    low, high = np.quantile(plain, [0.025, 0.975])
    interval = langspec_f1_interval(ITEMS, AFTER, "zh", n_boot=3000)
    assert interval.low == pytest.approx(low, abs=0.01)
    assert interval.high == pytest.approx(high, abs=0.01)


def test_pairing_matters():
    items = outcomes(0, 0.5, 1000)
    assert drop_interval(items, items) == drop_interval(items, items, seed=9)
    same = drop_interval(items, items)
    assert same.low == same.high == 0
    unpaired = drop_interval(items, items[::-1])
    assert unpaired.high - unpaired.low > 0.08


def test_clusters_are_drawn_whole():
    # Ten questions on each of 40 passages, all right or all wrong: 40 outcomes, not 400.
    before = np.repeat(outcomes(0, 0.7, 40), 10)
    after = np.repeat(masked_outcomes(1, before[::10], 0.5), 10)
    passages = [f"p{i // 10}" for i in range(400)]
    apart = drop_interval(before, after, n_boot=3000)
    together = drop_interval(before, after, n_boot=3000, clusters=passages)
    by_passage = drop_interval(before[::10], after[::10], n_boot=3000)
    assert together.estimate == apart.estimate
    assert (together.low, together.high) == (by_passage.low, by_passage.high)
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_a_fact_in_two_languages_is_drawn_once():
    # The same outcomes in both languages: drawn together, both drops are always equal, so that
    # precision is one half in every resample and F1 varies with recall alone.
    before, after = ITEMS["zh"].astype(float), AFTER["zh"].astype(float)
    first, second = ({"en": x, "zh": x} for x in (before, after))
    facts = [str(i) for i in range(len(before))]
    joint = langspec_f1_interval(first, second, "en", clusters={"en": facts, "zh": facts})
    rng = np.random.default_rng(0)
    plain = []
    for _ in range(2000):
        picks = rng.integers(0, len(before), len(before))
        recall = 1 - after[picks].sum() / before[picks].sum()
        plain.append(recall / (0.5 + recall))
    assert (joint.low, joint.high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.01)
    apart = langspec_f1_interval(first, second, "en")
    assert apart.high - apart.low > joint.high - joint.low


def test_items_alone_are_clusters_of_one():
    own = {x: [f"{x}{i}" for i in range(len(v))] for x, v in ITEMS.items()}
    assert langspec_f1_interval(ITEMS, AFTER, "zh", clusters=own) == langspec_f1_interval(
        ITEMS, AFTER, "zh"
    )
    with pytest.raises(ValueError, match="1 clusters for the 500 items of 'vi'"):
        langspec_f1_interval(ITEMS, AFTER, "zh", clusters={**own, "vi": ["a"]})


def test_drop_interval_covers_as_often_as_it_says():
    covered = 0
    for seed in range(200):
        before = outcomes(seed, 0.7, 200)
        after = masked_outcomes(seed + 1000, before, 0.3)
        interval = drop_interval(before, after, n_boot=300, level=0.9, seed=seed)
        covered += interval.low <= 0.21 <= interval.high
    assert 0.84 <= covered / 200 <= 0.96


def test_wrong_outcomes():
    with pytest.raises(ValueError, match="masked scores lack 'vi'"):
        langspec_f1_interval(ITEMS, {"en": [1], "zh": [1]}, "en")
    with pytest.raises(ValueError, match=r"'vi' have shapes \(500,\) and \(1,\)"):
        langspec_f1_interval(ITEMS, {**AFTER, "vi": [1]}, "en")
    with pytest.raises(ValueError, match="no outcomes for 'zh'"):
        langspec_f1_interval({**ITEMS, "zh": []}, {**AFTER, "zh": []}, "en")
    bad = AFTER["en"].astype(float)
    for value in (np.nan, -1):
        bad[7] = value
        with pytest.raises(ValueError, match="item 7 of 'en'"):
            langspec_f1_interval(ITEMS, {**AFTER, "en": bad}, "en")
    with pytest.raises(ValueError, match="n_boot"):
        langspec_f1_interval(ITEMS, AFTER, "en", n_boot=0)
    with pytest.raises(ValueError, match="level is 95"):
        drop_interval([1], [0], level=95)


def test_differences_are_paired():
    rng = np.random.default_rng(0)
    before = {x: (rng.random(400) < 0.8).astype(float) for x in ("en", "zh")}
    after = {x: before[x] * (rng.random(400) < keep) for x, keep in (("en", 0.5), ("zh", 0.9))}
    worse = {**after, "en": after["en"] * (rng.random(400) < 0.9)}
    same = langspec_f1_difference((before, after), (before, after), "en", 200)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)
    found = langspec_f1_difference((before, after), (before, worse), "en", 500)
    first, second = (langspec_f1_interval(before, m, "en", 500) for m in (after, worse))
    assert found.estimate == pytest.approx(second.estimate - first.estimate)
    assert 0 < found.low < found.estimate < found.high
    # What the two have in common cancels: the interval is shorter than that of independent runs.
    assert found.high - found.low < np.hypot(first.high - first.low, second.high - second.low)
