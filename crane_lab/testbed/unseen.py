"""NLI and reading with spans, about what the testbed's training never told.

What XNLI and XQuAD ask, in the words of the testbed: a few sentences about somebody, and whether a
statement follows from them (`nli`), or which words of a story answer a question (`qa`). The items
are translations of each other: the i-th is about the same facts in every language, under names of
that language. Parts share no story, and people of `nli` are in one part only and in no training
text. Labels of `nli` follow the facts that sentences are made from (data/unseen/README.md).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

from crane_lab.testbed.parallel import values_by_relation
from crane_lab.testbed.text import Writer
from crane_lab.testbed.world import LANGUAGES, PERSON_RELATIONS, Subject, World, build

#: The labels of `nli`, in XNLI's order.
LABELS = ("entailment", "neutral", "contradiction")
#: Items of each part, and which share of the unnamed people is in it.
PARTS = {"train": 3000, "validation": 300, "test": 600}
_PEOPLE = {"train": 0.6, "validation": 0.1, "test": 0.3}
#: Sentences of a premise; how many people a story has, in turn; what is asked of it.
_TOLD, _IN_STORY, _ASKED = 3, (1, 2, 3), ("thing", "spot", "who")

Item = dict[str, Any]
#: (gender, given name, last name), as places in the lists that all languages have.
_Name = tuple[str, int, int]


#: What is said of somebody: relation, which value, which phrasing, whether under a pronoun.
_Said = tuple[str, int, int, bool]


@dataclass(frozen=True)
class _Told:
    """Somebody, and what is said of them."""

    name: _Name
    facts: tuple[_Said, ...]


def unseen_items(task: str, part: str, seed: int = 0) -> dict[str, list[Item]]:
    """The items of one part of `nli` or `qa`, by language.

    `nli` items have `premise`, `hypothesis` and `label` (a place in `LABELS`), each label as often
    as the others; hypotheses are drawn alike for all labels, so that by themselves they tell
    nothing. `qa` items have `passage`, a story of one to three people, `question` and `answer`,
    which stands in the passage, beside what is told of the others.

    Raises ValueError for an unknown task or part.
    """
    for name, given, known in (("task", task, tuple(_MAKERS)), ("part", part, tuple(PARTS))):
        if given not in known:
            raise ValueError(f"unknown {name} {given!r}: expected one of {known}")
    return _MAKERS[task](seed)[part]


@cache
def _worlds() -> dict[str, World]:
    return {x: build(x) for x in LANGUAGES}


@cache
def _nli(seed: int) -> dict[str, dict[str, list[Item]]]:
    """`nli` by part and language."""
    values = {x: values_by_relation(world) for x, world in _worlds().items()}
    sizes = {relation: len(values["en"][relation]) for relation in PERSON_RELATIONS}
    every: dict[str, dict[str, list[Item]]] = {}
    for part, names in _unnamed(_worlds()).items():
        found = every[part] = {x: [] for x in LANGUAGES}
        rng = random.Random(f"unseen-nli-{part}-{seed}")
        labels = [i % len(LABELS) for i in range(PARTS[part])]
        rng.shuffle(labels)
        for number, label in enumerate(labels):
            told, said = _hypothesis(rng, rng.choice(names), sizes, label)
            for x, world in _worlds().items():
                teller = _Teller(world, values[x])
                found[x].append(
                    {
                        "id": f"nli_{x}-{part}-{number:04d}",
                        "premise": teller.text([told]),
                        "hypothesis": teller.sentence(told.name, said),
                        "label": label,
                    }
                )
    return every


@cache
def _qa(seed: int) -> dict[str, dict[str, list[Item]]]:
    """`qa` by part and language."""
    every: dict[str, dict[str, list[Item]]] = {}
    rng, seen = random.Random(f"unseen-qa-{seed}"), set[str]()
    for part, n in PARTS.items():
        found = every[part] = {x: [] for x in LANGUAGES}
        while len(found["en"]) < n:
            number = len(found["en"])
            kind, which, draw = rng.choice(_ASKED), rng.randrange(1000), rng.random()
            for x, world in _worlds().items():
                # The same draws from lists of the same lengths: one story in every language.
                writer = Writer(world, random.Random(draw))
                story = writer.story(_IN_STORY[number % len(_IN_STORY)])
                if x == "en" and story.text in seen:
                    break
                seen.add(story.text)
                asked = [question for question in story.questions if question[0] == kind]
                _, question, answer, _ = asked[which % len(asked)]
                item = {"passage": story.text, "question": question, "answer": answer}
                found[x].append({"id": f"qa_{x}-{part}-{number:04d}", **item})
    return every


_MAKERS = {"nli": _nli, "qa": _qa}


def _unnamed(worlds: Mapping[str, World]) -> dict[str, list[_Name]]:
    """Names that no language's training text has, by part; the same in every run."""
    people = {x: {s.name for s in world.subjects["person"]} for x, world in worlds.items()}
    lists = worlds["en"].phrases["names"]
    free = [
        name
        for name in product(
            ("female", "male"), range(len(lists["female"])), range(len(lists["last"]))
        )
        if not any(_full_name(world, name) in people[x] for x, world in worlds.items())
    ]
    random.Random("unseen-people").shuffle(free)
    parts, start = {}, 0
    for part, share in _PEOPLE.items():
        end = start + round(share * len(free))
        parts[part], start = free[start:end], end
    return parts


def _full_name(world: World, name: _Name) -> str:
    gender, given, last = name
    names = world.phrases["names"]
    first, families = names[gender][given], names["last"]
    if world.language == "zh":
        return str(families[last] + first)
    if world.language == "en":
        return f"{first} {families[last]}"
    middles = names[f"middle_{gender}"]  # a fourth of the family names, and four of these
    return f"{families[last // len(middles)]} {middles[last % len(middles)]} {first}"


def _hypothesis(
    rng: random.Random, name: _Name, sizes: Mapping[str, int], label: int
) -> tuple[_Told, _Said]:
    """A premise, and a statement that follows from it, does not, or contradicts it."""
    relations = rng.sample(PERSON_RELATIONS, len(PERSON_RELATIONS))
    told, untold = relations[:_TOLD], relations[_TOLD:]
    premise = _told(rng, name, told, sizes)
    relation = rng.choice(untold if LABELS[label] == "neutral" else told)
    phrasing = rng.randrange(1000)
    value = rng.randrange(sizes[relation])
    for said, true, in_premise, _ in premise.facts:
        if said != relation:
            continue
        if LABELS[label] == "entailment":
            value = true
        elif value == true:
            value = (true + 1 + rng.randrange(sizes[relation] - 1)) % sizes[relation]
        phrasing = _another(rng, in_premise)
    return premise, (relation, value, phrasing, False)


def _another(rng: random.Random, phrasing: int, fewest: int = 4) -> int:
    """A phrasing that differs from one in every language; none has fewer than `fewest`."""
    return phrasing + rng.randrange(1, fewest)


def _told(
    rng: random.Random, name: _Name, relations: Sequence[str], sizes: Mapping[str, int]
) -> _Told:
    order = rng.sample(relations, len(relations))
    return _Told(
        name,
        tuple(
            (relation, rng.randrange(sizes[relation]), rng.randrange(1000), i > 0)
            for i, relation in enumerate(order)
        ),
    )


class _Teller:
    """Says in one language what was drawn for all."""

    def __init__(self, world: World, values: Mapping[str, Sequence[str]]) -> None:
        self.world, self.values = world, values
        self.writer = Writer(world, random.Random(0))  # nothing is drawn from it

    def sentence(self, name: _Name, said: _Said) -> str:
        relation, value, phrasing, pronoun = said
        told = self.values[relation][value]
        person = Subject("person", _full_name(self.world, name), name[0], {relation: told})
        phrasings = self.world.phrases["person"][relation]["say"]
        template = phrasings[phrasing % len(phrasings)]
        if "{p}" in template.lower() and not pronoun:  # "in Anna's free time she", not "Anna"
            short = self.world.phrases["pronouns"][name[0]]["subject"]
            template = template.replace("{s}", short)
        return self.writer.phrase(template, person, told, pronoun)

    def text(self, people: Sequence[_Told]) -> str:
        return self.writer.space.join(
            self.sentence(told.name, said) for told in people for said in told.facts
        )
