"""NLI and reading with spans, about people of the testbed's world whom its training never named.

What XNLI and XQuAD ask, in the words of the testbed: a few sentences about somebody, and whether a
statement follows from them (`nli`), or which words of them answer a question (`qa`). The items are
translations of each other: the i-th is about the same facts in every language, under names of that
language. Parts share no person, and so no story.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
#: Sentences of a premise, and about each of the two people of a passage.
_TOLD, _TOLD_OF_EACH = 3, 3

Item = dict[str, Any]
#: (gender, given name, last name), as places in the lists that all languages have.
_Name = tuple[str, int, int]


@dataclass(frozen=True)
class _Told:
    """Somebody, and what is said of them: (relation, which value, which phrasing, pronoun)."""

    name: _Name
    facts: tuple[tuple[str, int, int, bool], ...]


def unseen_items(part: str, seed: int = 0, world_seed: int = 0) -> dict[str, list[Item]]:
    """The items of one part by task, `nli_<language>` and `qa_<language>`.

    `nli` items have `premise`, `hypothesis` and `label` (a place in `LABELS`), each label as often
    as the others; hypotheses are drawn alike for all labels, so that by themselves they tell
    nothing. `qa` items have `passage`, `question` and `answer`, which stands in the passage; the
    passage says the same kind of thing about somebody else, too.

    Raises ValueError for an unknown part.
    """
    if part not in PARTS:
        raise ValueError(f"unknown part {part!r}: expected one of {tuple(PARTS)}")
    worlds = {x: build(x, world_seed) for x in LANGUAGES}
    values = {x: values_by_relation(world) for x, world in worlds.items()}
    names = _unnamed(worlds)[part]
    rng = random.Random(f"unseen-{part}-{seed}")
    found: dict[str, list[Item]] = {f"{t}_{x}": [] for t in ("nli", "qa") for x in LANGUAGES}
    sizes = {relation: len(values["en"][relation]) for relation in PERSON_RELATIONS}
    labels = [i % len(LABELS) for i in range(PARTS[part])]
    rng.shuffle(labels)
    for number, label in enumerate(labels):
        told, relation, value, phrasing = _hypothesis(rng, rng.choice(names), sizes, label)
        both, asked, phrased = _asked(rng, rng.sample(names, 2), sizes)
        for x, world in worlds.items():
            teller = _Teller(world, values[x])
            found[f"nli_{x}"].append(
                {
                    "id": f"nli_{x}-{part}-{number:04d}",
                    "premise": teller.text([told]),
                    "hypothesis": teller.sentence(told.name, (relation, value, phrasing, False)),
                    "label": label,
                }
            )
            answer = next(v for r, v, _, _ in both[0].facts if r == asked)
            # Whoever is asked about comes first in half of the passages.
            order = both if number % 2 else both[::-1]
            found[f"qa_{x}"].append(
                {
                    "id": f"qa_{x}-{part}-{number:04d}",
                    "passage": teller.text(order),
                    "question": teller.question(both[0].name, asked, phrased),
                    "answer": values[x][asked][answer],
                }
            )
    return found


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
) -> tuple[_Told, str, int, int]:
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
    return premise, relation, value, phrasing


def _another(rng: random.Random, phrasing: int, fewest: int = 4) -> int:
    """A phrasing that differs from one in every language; none has fewer than `fewest`."""
    return phrasing + rng.randrange(1, fewest)


def _asked(
    rng: random.Random, names: Sequence[_Name], sizes: Mapping[str, int]
) -> tuple[list[_Told], str, int]:
    """Two people of whom the same kinds of things are told; one of these is asked of the first."""
    relations = rng.sample(PERSON_RELATIONS, _TOLD_OF_EACH)
    asked = rng.choice(relations)
    first = _told(rng, names[0], relations, sizes)
    true = next(value for relation, value, _, _ in first.facts if relation == asked)
    while True:
        other = _told(rng, names[1], relations, sizes)
        if (asked, true) not in {(relation, value) for relation, value, _, _ in other.facts}:
            return [first, other], asked, rng.randrange(1000)


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

    def sentence(self, name: _Name, said: tuple[str, int, int, bool]) -> str:
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

    def question(self, name: _Name, relation: str, phrasing: int) -> str:
        person = Subject("person", _full_name(self.world, name), name[0], {})
        phrasings = self.world.phrases["person"][relation]["ask"]
        return self.writer.phrase(phrasings[phrasing % len(phrasings)], person)
