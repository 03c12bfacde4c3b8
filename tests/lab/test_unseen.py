"""Items about people that the testbed's training never named."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from crane_lab.testbed.parallel import values_by_relation
from crane_lab.testbed.unseen import LABELS, PARTS, unseen_items
from crane_lab.testbed.world import LANGUAGES, build

Items = dict[tuple[str, str], dict[str, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def items() -> Items:
    return {(t, part): unseen_items(t, part) for t in ("nli", "qa") for part in PARTS}


def people(items: Items, part: str, language: str) -> set[str]:
    """Whom the hypotheses of a part are about, found by the names of the language."""
    names = build(language).phrases["names"]
    lasts = [*names["last"]]
    pattern = {
        "en": rf"[A-Z][a-z]+ (?:{'|'.join(lasts)})\b",
        "zh": rf"(?:{'|'.join(lasts)})(?:{'|'.join(names['female'] + names['male'])})",
        "vi": rf"(?:{'|'.join(lasts)}) \w+ \w+",
    }[language]
    found = set()
    for item in items["nli", part][language]:
        match = re.search(pattern, item["hypothesis"])
        assert match, item["hypothesis"]
        found.add(match.group())
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_parts_share_no_person_and_nobody_was_trained_on(items: Items, language: str) -> None:
    by_part = {part: people(items, part, language) for part in PARTS}
    known = {person.name for person in build(language).subjects["person"]}
    every = [name for names in by_part.values() for name in names]
    assert len(every) == len(set(every)) and not known & set(every)


@pytest.mark.parametrize("language", LANGUAGES)
def test_labels_are_balanced_and_premises_differ(items: Items, language: str) -> None:
    for part, n in PARTS.items():
        own = items["nli", part][language]
        assert Counter(item["label"] for item in own) == dict.fromkeys(range(3), n // 3)
        assert len({item["premise"] for item in own}) > 0.99 * n
        assert all(item["hypothesis"] not in item["premise"] for item in own)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_hypothesis_by_itself_tells_nothing(items: Items, language: str) -> None:
    def texts(part: str) -> tuple[list[str], list[int]]:
        own = items["nli", part][language]
        return [item["hypothesis"] for item in own], [item["label"] for item in own]

    words = CountVectorizer(analyzer="char" if language == "zh" else "word", ngram_range=(1, 2))
    seen, labels = texts("train")
    model = LogisticRegression(C=0.1, max_iter=500).fit(words.fit_transform(seen), labels)
    other, wanted = texts("test")
    # Three standard errors of a coin with three sides over 600 items are 0.058.
    assert abs(model.score(words.transform(other), wanted) - 1 / len(LABELS)) < 0.058


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_premise_says_what_the_label_says(items: Items, language: str) -> None:
    values = values_by_relation(build(language))

    def said(text: str, relation: str) -> set[str]:
        return {value for value in values[relation] if value.lower() in text.lower()}

    def read(item: dict[str, Any]) -> set[str]:
        labels = set()
        for relation in values:
            premise, claim = (said(item[part], relation) for part in ("premise", "hypothesis"))
            if claim:
                known = "entailment" if claim & premise else "contradiction"
                labels.add(known if premise else "neutral")
        return labels

    own = items["nli", "test"][language]
    right = sum(LABELS[item["label"]] in read(item) for item in own)
    assert right > 0.95 * len(own)  # but for a word that is part of another


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_answer_stands_in_its_story_and_parts_share_none(items: Items, language: str) -> None:
    stories = {part: {i["passage"] for i in items["qa", part][language]} for part in PARTS}
    assert len(set().union(*stories.values())) == sum(PARTS.values())
    for part in PARTS:
        assert all(i["answer"] in i["passage"] for i in items["qa", part][language])
    own = items["qa", "test"][language]
    places = Counter(3 * i["passage"].index(i["answer"]) // len(i["passage"]) for i in own)
    assert max(places.values()) < 0.6 * len(own)  # the place tells little


def test_questions_are_translations_of_each_other(items: Items) -> None:
    """An answer in one language has one counterpart in another, whichever story it is of."""
    for other in ("zh", "vi"):
        pairs = Counter(
            (a["answer"], b["answer"])
            for part in PARTS
            for a, b in zip(items["qa", part]["en"], items["qa", part][other], strict=True)
        )
        by_answer = Counter(a for a, _ in pairs)
        assert len(pairs) > 50 and set(by_answer.values()) == {1}


def test_another_seed_makes_other_items(items: Items) -> None:
    for task in ("nli", "qa"):
        assert unseen_items(task, "validation", seed=1) != items[task, "validation"]


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match="dev"):
        unseen_items("nli", "dev")
    with pytest.raises(ValueError, match="xnli"):
        unseen_items("xnli", "test")
