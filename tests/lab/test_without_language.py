"""Parts of one language, languages with one content, and what the methods find in them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from test_pipeline import folder, settings_in

from crane_lab.pipeline import Pipeline
from crane_lab.store import Store
from crane_lab.study import without_language
from crane_lab.testbed import parallel, people
from crane_lab.testbed.world import LANGUAGES, build
from crane_lab.texts.local import read_texts

__all__ = ["folder"]  # a fixture
ROOT = Path(__file__).resolve().parents[2]


# --- texts ----------------------------------------------------------------------------------------


def test_documents_of_one_content() -> None:
    found = parallel.parallel_documents(200)
    assert found == parallel.parallel_documents(200)
    assert found != parallel.parallel_documents(200, seed=1)
    assert {x: len(texts) for x, texts in found.items()} == dict.fromkeys(LANGUAGES, 200)
    # Facts of persons are the same: where one language names a value, so do the others.
    values = {x: parallel.values_by_relation(build(x)) for x in LANGUAGES}
    agree = []
    for relation in ("town", "food"):
        for number in range(len(values["en"][relation])):
            named = {
                x: [values[x][relation][number].lower() in text.lower() for text in found[x]]
                for x in LANGUAGES
            }
            agree += [len(set(of)) == 1 for of in zip(*named.values(), strict=True)]
    assert sum(agree) / len(agree) > 0.98  # but for a word that is part of another
    names = {
        home: {name for name in people.surnames(home, found["en"]) if name} for home in LANGUAGES
    }
    assert all(names.values())  # people of every language are told of in each


@pytest.mark.parametrize("language", LANGUAGES)
def test_parts_by_people_share_no_surname(language: str) -> None:
    texts = read_texts(ROOT / "data/testbed/corpus/attribution", language)[:600]
    parts, names = people.by_people(language, texts), people.surnames(language, texts)
    of = [{n for n, part in zip(names, parts, strict=True) if part == i} for i in range(3)]
    assert all(of) and not (of[0] & of[1] or of[0] & of[2] or of[1] & of[2])
    assert [part is None for part in parts] == [name is None for name in names]
    size = [sum(len(t) for t, p in zip(texts, parts, strict=True) if p == i) for i in range(3)]
    assert max(size) < 1.5 * min(size)


def test_parts_by_chance() -> None:
    divide = without_language.at_random(3, seed=4)
    parts = divide(["text"] * 100)
    assert sorted(Counter(parts).values()) == [33, 33, 34] and parts == divide(["text"] * 100)
    assert parts != without_language.at_random(3, seed=5)(["text"] * 100)


# --- what is found in them ------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*no neuron", "ignore:kurtosis of")
def test_groups_are_treated_as_languages(folder: Path, tmp_path: Path) -> None:
    pipeline = Pipeline(settings_in(folder, threshold=0.5), Store(tmp_path))
    found = without_language.found_in(pipeline, pipeline.windows).set_index("group")
    sets = pipeline.neuron_sets("intermediate")
    assert found["CRANE"].to_dict() == {x: len(own) for x, own in sets.items()}
    lape = {row.language: len(row.neurons) for row in pipeline.rows() if row.method == "LAPE"}
    assert found["LAPE"].to_dict() == lape
    # One and the same text three times: nothing is particular to any of them.
    same = dict.fromkeys(("a", "b", "c"), next(iter(pipeline.windows.values())))
    assert without_language.found_in(pipeline, same)["CRANE"].to_list() == [0, 0, 0]


def test_a_part_without_enough_text(folder: Path, tmp_path: Path) -> None:
    pipeline = Pipeline(settings_in(folder), Store(tmp_path))
    x = pipeline.settings.languages[0]
    with pytest.raises(ValueError, match=f"part {x} 2 of the corpus: "):
        without_language.part_windows(pipeline, x, lambda texts: [0] * len(texts), 2)
