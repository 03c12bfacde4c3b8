"""Overlaps of many languages, beside chance and beside distances between them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crane_core.neurons import NeuronSet
from crane_lab.study.relatedness import (
    distances_together,
    excess_matrix,
    language_overlaps,
    mantel_tests,
)
from crane_lab.study.sharing import within_pool
from crane_lab.texts.typology import language_distances

SHAPE = {"intermediate": (4, 500)}
LANGUAGES = ["de", "nl", "sv", "da", "fr", "it", "es", "pt", "ru", "pl", "zh", "ja"]


def drawn(rng: np.random.Generator, n: int = 100) -> set[int]:
    return set(rng.choice(2000, n, replace=False).tolist())


def sets_of(related: bool) -> dict[str, NeuronSet]:
    """Random sets; if `related`, a family's languages have a third of theirs in common."""
    rng = np.random.default_rng(0)
    families = {"g": LANGUAGES[:4], "r": LANGUAGES[4:8], "s": LANGUAGES[8:10]}
    found = {}
    common = {name: drawn(rng, 40) for name in families}
    for x in LANGUAGES:
        own = drawn(rng)
        for name, members in families.items():
            if related and x in members:
                own |= common[name]
        found[x] = NeuronSet.from_pairs([divmod(i, 500) for i in sorted(own)], SHAPE)
    return found


def test_related_languages_that_share_are_found_and_others_are_not() -> None:
    for related in (True, False):
        overlaps = language_overlaps(sets_of(related))
        assert len(overlaps) == len(LANGUAGES) * (len(LANGUAGES) - 1) // 2
        tests = mantel_tests(overlaps, LANGUAGES, permutations=499).set_index("distance")
        assert (float(tests["q"]["genetic"]) < 0.05) == related
        assert (overlaps["q"] < 0.05).any() == related
        if related:
            assert float(tests["rho"]["genetic"]) < -0.3


def test_the_same_seed_gives_the_same() -> None:
    overlaps = language_overlaps(sets_of(True))
    one = mantel_tests(overlaps, LANGUAGES, ["syntactic"], 99, seed=1)
    two = mantel_tests(overlaps, LANGUAGES, ["syntactic"], 99, seed=1)
    pd.testing.assert_frame_equal(one, two)


def test_an_excess_is_of_the_pair_whatever_the_order() -> None:
    overlaps = language_overlaps(sets_of(True))
    found = excess_matrix(overlaps, LANGUAGES[::-1])
    assert np.isnan(found.diagonal()).all()
    assert found[0, 1] == found[1, 0] == overlaps.iloc[-1]["excess"]


def test_too_little_is_refused() -> None:
    some = dict(list(sets_of(False).items())[:3])
    with pytest.raises(ValueError, match="too few to permute"):
        mantel_tests(language_overlaps(some), list(some))
    with pytest.raises(ValueError, match="two languages"):
        language_overlaps({"de": some["de"], "nl": NeuronSet.empty(SHAPE)})


def test_a_distance_that_is_the_same_for_all_has_no_correlation() -> None:
    latin = ["de", "nl", "sv", "da"]
    assert not language_distances(latin, "script").any()
    tests = mantel_tests(language_overlaps(sets_of(True)), latin, ["script"], 99)
    assert tests["rho"].isna().all() and tests["q"].isna().all()


def test_of_distances_that_go_together_the_one_that_counts_is_found() -> None:
    found = distances_together(
        language_overlaps(sets_of(True)), LANGUAGES, ["genetic", "script"], 499
    ).set_index("distance")
    assert found["q"]["genetic"] < 0.05 and found["slope"]["genetic"] < -0.2
    assert found["p"]["script"] > 0.05  # though kin are written alike, mostly
    assert (found["inflation"] > 1).all()
    nothing = distances_together(language_overlaps(sets_of(False)), LANGUAGES, permutations=199)
    assert (nothing["q"] > 0.05).all()
    again = distances_together(language_overlaps(sets_of(False)), LANGUAGES, permutations=199)
    pd.testing.assert_frame_equal(nothing, again)
    with pytest.raises(ValueError, match="too few to permute"):
        distances_together(language_overlaps(sets_of(True)), LANGUAGES[:3])


def test_sets_from_one_pool_share_by_chance_what_the_pool_makes_them_share() -> None:
    rng = np.random.default_rng(1)
    pool = sorted(drawn(rng, 60))
    sets = {
        x: NeuronSet.from_pairs(
            [divmod(int(i), 500) for i in rng.choice(pool, 30, replace=False)], SHAPE
        )
        for x in LANGUAGES
    }
    found = language_overlaps(sets)
    assert found["shared"].mean() > 8 * found["chance"].mean()
    assert found["shared"].mean() == pytest.approx(found["pool_chance"].mean(), rel=0.1)
    assert not (found["q"] < 0.05).any() and found["excess"].abs().mean() < 1.5
    outside = NeuronSet.from_pairs([(0, 1), (0, 2)], SHAPE)
    with pytest.raises(ValueError, match="outside the pool"):
        within_pool(outside, outside, NeuronSet.from_pairs([(0, 1)], SHAPE))
