"""Whether another language answers when languages are taken away, beside random sets."""

from __future__ import annotations

import numpy as np
import pandas as pd

from crane_lab.show import fallback_pages as page
from crane_lab.study.fallback import UNTOLD
from crane_lab.study.fallback_effects import kept_language
from crane_lab.study.many_languages import LAPE
from crane_lab.study.taught import RANDOM


def made(own: list[dict[str, int]], random: list[dict[str, int]]) -> pd.DataFrame:
    """Answers by step and language of a method and of one random set, and of another order."""
    rows = []
    for method, seed, steps in ((LAPE, -1, own), (f"{RANDOM} as {LAPE}", 0, random)):
        for step, counts in enumerate(steps):
            for language in ("en", "fr", UNTOLD):
                row = {"method": method, "order": "the paper's", "step": step, "seed": seed}
                row |= {"language": language, "answers": counts.get(language, 0), "asked": "en"}
                rows.append(row)
    drawn = [{**row, "order": "drawn 0", "answers": 0} for row in rows if row["method"] == LAPE]
    return pd.DataFrame([*rows, *drawn])


def test_another_language_that_takes_over_is_seen() -> None:
    steps = [{"en": 10}, {"en": 1, "fr": 9}]
    found = kept_language(made(steps, [{"en": 10}, {"en": 9, "fr": 1}]))
    assert list(found["kept"]) == [10, 1] and list(found["to"]) == [0, 9]
    assert np.isnan(found["p"][0]) and found["q"][1] < 0.01
    assert found["other"][1] == "fr" and found["random_to"][1] == 1
    page.kept_language_table(found)


def test_a_model_that_breaks_does_not_fall_back() -> None:
    broken = kept_language(made([{"en": 10}, {"en": 0, UNTOLD: 10}], [{"en": 10}, {"en": 10}]))
    assert broken["kept"][1] == 0 and broken["q"][1] == 1
    alike = kept_language(made([{"en": 10}, {"fr": 10}], [{"en": 10}, {"fr": 10}]))
    assert alike["q"][1] == 1


def test_a_method_without_random_sets_is_left_out() -> None:
    table = made([{"en": 10}], [{"en": 10}])
    found = kept_language(table[table["method"] == LAPE])
    assert found.empty and "q" in found
