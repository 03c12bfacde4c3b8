"""The same documents in every language: the same people, things and facts, in the same order.

The testbed's corpora tell of other people in each language, so that what is particular to a corpus
may be its language or whom it is about. Here every document is written in all languages. People
keep their names, and each language's people come up equally often in all of them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from crane_lab.testbed.text import Writer
from crane_lab.testbed.world import LANGUAGES, PERSON_RELATIONS, Subject, World, build

#: Kinds of documents and how often each is drawn, as in plain text, stories left out: their people
#: have no facts to agree on.
KINDS = (("person", 36), ("place", 10), ("lesson", 8))
#: Subjects of a lesson, which are real and shared.
TAUGHT = ("country", "animal", "ingredient", "job")


def parallel_documents(n: int, seed: int = 0, world_seed: int = 0) -> dict[str, list[str]]:
    """`n` documents in each of the testbed's languages; the i-th says the same in all of them."""
    rng = random.Random(f"parallel-{seed}")
    worlds = {x: build(x, world_seed) for x in LANGUAGES}
    writers = {x: Writer(worlds[x], random.Random(f"parallel-{x}-{seed}")) for x in LANGUAGES}
    people = _people(worlds)
    found: dict[str, list[str]] = {x: [] for x in LANGUAGES}
    for _ in range(n):
        kind = rng.choices([name for name, _ in KINDS], [often for _, often in KINDS])[0]
        if kind == "lesson":
            of = rng.choice(TAUGHT)
            places = rng.sample(range(len(worlds["en"].subjects[of])), 3)
            told = [(i, rng.choice(list(worlds["en"].subjects[of][i].facts))) for i in places]
            for x, writer in writers.items():
                own = worlds[x].subjects[of]
                found[x].append(writer.space.join(writer.say(own[i], r) for i, r in told))
            continue
        subjects = people if kind == "person" else _things(worlds, kind)
        one = rng.choice(subjects)
        relations = list(one["en"].facts)
        rng.shuffle(relations)
        chosen = relations[: rng.randint(2, len(relations))]
        pronouns = [i > 0 and rng.random() < 0.6 for i in range(len(chosen))]
        for x, writer in writers.items():
            said = zip(chosen, pronouns, strict=True)
            found[x].append(writer.space.join(writer.say(one[x], r, p) for r, p in said))
    return found


def _things(worlds: Mapping[str, World], kind: str) -> Sequence[Mapping[str, Subject]]:
    every = zip(*(worlds[x].subjects[kind] for x in LANGUAGES), strict=True)
    return [dict(zip(LANGUAGES, subjects, strict=True)) for subjects in every]


def _people(worlds: Mapping[str, World]) -> Sequence[Mapping[str, Subject]]:
    """As many people of each language, as every language tells of them."""
    values = {x: values_by_relation(worlds[x]) for x in LANGUAGES}
    least = min(len(worlds[x].subjects["person"]) for x in LANGUAGES)
    found = []
    for home in LANGUAGES:
        for person in worlds[home].subjects["person"][:least]:
            at = {r: values[home][r].index(person.facts[r]) for r in PERSON_RELATIONS}
            found.append(
                {
                    x: replace(person, facts={r: values[x][r][i] for r, i in at.items()})
                    for x in LANGUAGES
                }
            )
    return found


def values_by_relation(world: World) -> dict[str, list[str]]:
    """What each relation of a person can be, in an order that all languages share."""
    i, entities = world.index, world.entities
    return {
        "town": [place.name for place in world.subjects["place"]],
        "job": [job.name for job in world.subjects["job"]],
        "food": [dish[i] for dish in entities["dishes"]],
        "pet": [pet[i] for pet in entities["pets"]],
        "hobby": [hobby[i] for hobby in entities["hobbies"]],
    }
