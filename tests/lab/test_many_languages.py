"""Sets of many languages, from parts of their text and from text that lost something."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pipeline import folder, settings_in

from crane_core.neurons import NeuronSet
from crane_lab.pipeline import Pipeline
from crane_lab.show import languages_pages as page
from crane_lab.store import Store
from crane_lab.study import many_languages as many
from crane_lab.study.language_profiles import (
    depth_shares,
    language_tree,
    late_shares,
    sizes_by_script,
)
from crane_lab.study.relatedness import language_overlaps
from crane_lab.texts.controls import romanised, shuffled
from crane_lab.texts.names import full_names
from crane_lab.texts.typology import by_family, family_of

__all__ = ["folder"]  # a fixture
CHOICE = many.Choice(rate=0.1, share=0.05, parts=2)
SHAPE = {"intermediate": (6, 100)}


@pytest.fixture(scope="module")
def pipeline(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    settings = settings_in(folder, n_samples=12, batch_size=4)
    return Pipeline(settings, Store(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def shipped(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("languages") / "new"
    many.ship_languages(pipeline, CHOICE, out, romanised=["zh", "fr"], shuffled=["en"])
    return out


@given(st.text(st.characters(codec="utf-8")), st.integers(0, 3))
def test_what_is_shuffled_has_the_same_letters(text: str, seed: int) -> None:
    found = shuffled(text, seed)
    letters = (Counter("".join(t.split())) for t in (text, found))
    assert next(letters) == next(letters)
    assert found == shuffled(text, seed)


@settings(deadline=None)  # tables of letters are read when they are first met
@given(st.text(st.characters(codec="utf-8")))
def test_what_is_romanised_is_ascii(text: str) -> None:
    assert romanised(text).isascii()


def test_words_and_unspaced_writing_change_their_order() -> None:
    assert shuffled("one two three four five six seven") != "one two three four five six seven"
    assert shuffled("一二三四五六七八九十") != "一二三四五六七八九十"
    assert " " not in shuffled("一二三四五六七八九十")
    assert romanised("Привет") == "Privet"


def test_shuffled_text_is_another_text() -> None:
    text = "The quick brown fox jumps over the lazy dog while nobody is looking."
    assert len({shuffled(text, seed) for seed in range(5)} - {text}) == 5
    korean = "한국어 문장에 한자 世 하나가 있어도 낱말은 낱말이다"
    assert sorted(shuffled(korean).split()) == sorted(korean.split())


def test_parts_together_are_the_whole(pipeline: Pipeline) -> None:
    parts = many.read_parts(pipeline, "en", 2)
    whole = many.merged(parts)
    assert whole["relevance"].count == 12
    assert [part["relevance"].count for part in parts] == [6, 6]  # left as they were
    own = pipeline.collected("en")
    torch.testing.assert_close(whole["active"].over, own["active"].over)
    torch.testing.assert_close(
        whole["relevance"].sum_abs, own["intermediate"].sum_abs, rtol=1e-5, atol=1e-8
    )
    assert torch.equal(
        many.read_parts(pipeline, "en", 2)[1]["relevance"].sum_abs, parts[1]["relevance"].sum_abs
    )


def test_lape_takes_more_at_a_higher_rate_and_is_itself_at_the_same(
    pipeline: Pipeline, shipped: Path
) -> None:
    choices = pd.read_csv(shipped / many.LAPE_CHOICES)
    assert set(choices["rate"]) == {*many.RATES, CHOICE.rate} and set(choices["among"]) == {3}
    taken = choices.groupby("rate")["neurons"].sum()
    assert taken.is_monotonic_increasing and taken.iloc[-1] > taken.iloc[0]
    sets, _ = many.read_sets(shipped)
    same = choices[choices["rate"] == CHOICE.rate]
    assert dict(zip(same["language"], same["neurons"], strict=True)) == {
        x: len(own) for x, own in sets[many.LAPE].items()
    }
    assert (same["jaccard"].dropna() == 1).all() and same["jaccard"].notna().any()
    assert choices["late"].dropna().between(0, 1).all()
    assert "Jaccard" in page.lape_choices_table(choices).to_html()
    assert "sets among" in page.lape_seven_table(choices).to_html()


def test_what_is_shipped_is_read_and_shown(pipeline: Pipeline, shipped: Path) -> None:
    sets, about = many.read_sets(shipped)
    kept = {x: many.merged(many.read_parts(pipeline, x, 2)) for x in pipeline.settings.languages}
    assert sets == many.sets_of(pipeline, kept, CHOICE) and list(sets) == list(many.METHODS)
    n = round(0.05 * np.prod(pipeline.shape["intermediate"]))
    assert {len(own) for own in sets[many.RELEVANCE_SHARED].values()} == {n}
    for method in (many.CRANE, many.RELEVANCE):  # contrasts
        own = list(sets[method].values())
        assert not any(len(a & b) for a, b in combinations(own, 2))
    assert "12 windows" in page.languages_made_in_words(about).data
    assert "Vietnamese" in page.languages_table(sets).to_html()


def test_a_control_replaces_its_language_alone(pipeline: Pipeline, shipped: Path) -> None:
    found = pd.read_csv(shipped / many.CONTROLS)
    assert set(zip(found["language"], found["control"], strict=True)) == {
        ("zh", "none"), ("zh", "romanised"), ("en", "none"), ("en", "shuffled"),
    }  # fmt: skip
    assert "romanised" in page.controls_figure(found).data
    assert list(vars(page.controls_table(found))["data"]["text"].unique()) == [
        "romanised",
        "shuffled",
    ]
    stable = pd.read_csv(shipped / many.STABILITY)
    assert stable["jaccard"].between(0, 1).all() and set(stable["windows"]) == {6}
    page.stability_table(stable)
    said = str(page.stability_in_words(stable).data)
    assert said.count("with 6 windows each") == stable["method"].nunique()
    twice = pd.concat([stable.assign(jaccard=0.4), stable.assign(jaccard=0.9, windows=12)])
    assert "0.90 with 12 windows each (0.40 with 6)." in page.stability_in_words(twice).data
    twice["jaccard"] = 0.02
    assert "most neurons of such a set" in page.stability_in_words(twice).data


def test_bad_input_is_refused_before_anything_is_read(pipeline: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="12 windows in 5 parts"):
        many.read_parts(pipeline, "en", 5)
    with pytest.raises(ValueError, match="unknown control 'reversed'"):
        many.read_parts(pipeline, "en", 2, "reversed")
    with pytest.raises(FileNotFoundError, match=r"crane_lab\.cli\.languages"):
        many.read_sets(tmp_path)


def made_up(late: bool) -> dict[str, NeuronSet]:
    rng = np.random.default_rng(0)
    found = {}
    for x in ("en", "de", "nl", "fr", "it", "es", "ru", "uk", "zh", "ja", "ko", "ar"):
        first, many_of = (400, 30) if late else (0, 40)
        own = rng.choice(np.arange(first, 600), many_of + (x in "ru uk zh ja ko ar"), replace=False)
        found[x] = NeuronSet.from_pairs([divmod(int(i), 100) for i in own], SHAPE)
    return found


def test_late_sets_are_told_from_even_ones() -> None:
    found = late_shares({"late": made_up(True), "even": made_up(False)}).set_index("method")
    assert found["share"]["late"] == 1 and found["q"]["late"] < 0.05
    assert found["more"]["late"] == 12
    assert abs(found["share"]["even"] - 1 / 3) < 0.05 and found["q"]["even"] > 0.05
    assert list(depth_shares(made_up(True)).sum(axis=1).round(9)) == [1.0] * 12


def test_sizes_by_script() -> None:
    found = sizes_by_script({"x": made_up(True)}).iloc[0]
    assert (found["latin"], found["other"]) == (6, 6)
    assert found["other_median"] == found["latin_median"] + 1 and found["p"] < 0.01
    same = {x: NeuronSet.from_pairs([(0, 0)], SHAPE) for x in ("en", "zh")}
    assert sizes_by_script({"x": same}).empty


def test_families_stand_together_and_the_tree_joins_what_shares() -> None:
    assert by_family(["zh", "ja", "ru", "en", "uk", "de"]) == ["en", "de", "ru", "uk", "zh", "ja"]
    assert family_of("ja") == "none of these" and full_names(["nl", "xx"])["nl"] == "Dutch"
    sets = made_up(False)
    sets["ja"] = sets["ko"]
    languages = list(sets)
    overlaps = language_overlaps(sets)
    tree = language_tree(overlaps, languages)
    assert {languages[int(i)] for i in tree[0, :2]} == {"ja", "ko"}
    html = page.language_tree_figure(overlaps, languages, "x").data
    assert "Japanese with Korean" in html or "Korean with Japanese" in html
    assert "x. Most: " in page.overlap_figure(overlaps, languages, "x").data


@pytest.mark.parametrize(
    ("name", "value"), [("share", 0.0), ("share", 1.5), ("rate", float("nan"))]
)
def test_what_is_no_share_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}: expected more than 0 and at most 1"):
        many.Choice(**{name: value})  # type: ignore[arg-type]
