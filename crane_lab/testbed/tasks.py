"""The testbed's benchmark items and held-out text, from the world of the training text."""

import json
import random
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from crane_lab.testbed.text import Writer
from crane_lab.testbed.world import PERSON_RELATIONS, PLACE_RELATIONS, Subject, World

# The same in every language; mostly invented facts, since real ones are learned at once.
KNOWLEDGE: dict[tuple[str, str], int] = {
    **{("person", relation): 78 for relation in PERSON_RELATIONS},
    **{("place", relation): 70 for relation in PLACE_RELATIONS},
    ("country", "capital"): 12,
    ("country", "continent"): 10,
    ("animal", "kind"): 6,
    ("ingredient", "colour"): 6,
    ("job", "workplace"): 6,
}
# By question and number of people in the story: with fewer than four people, the other options are
# things, spots or names that the story does not mention.
READING: dict[tuple[str, int], int] = {
    (kind, people): 72 for kind in ("thing", "spot", "who") for people in (1, 2, 3)
}

Item = dict[str, Any]


def _with_options(
    rng: random.Random, item: Item, gold: str, others: Iterable[str], position: int
) -> Item:
    options = list(others)
    rng.shuffle(options)
    options.insert(position, gold)
    return {**item, "options": options, "answer": position}


def _balanced_positions(rng: random.Random, count: int) -> list[int]:
    positions = [i % 4 for i in range(count)]
    rng.shuffle(positions)
    return positions


def knowledge_items(world: World, stated: Counter[tuple[str, str, str]], seed: int) -> list[Item]:
    """Four-option questions on facts of the training text, in a phrasing it never uses.

    Args:
        world: the language's world.
        stated: how often the training text stated each ``(kind, name, relation)``.
        seed: chooses facts, wrong options and positions.

    Raises:
        ValueError: too few of a relation's facts were stated in the training text.
    """
    rng = random.Random(f"knowledge-{world.language}-{seed}")
    writer = Writer(world, rng)
    items: list[Item] = []
    for (kind, relation), count in KNOWLEDGE.items():
        known = [s for s in world.subjects[kind] if stated[kind, s.name, relation]]
        if len(known) < count:
            raise ValueError(
                f"{count} {kind} {relation} items need as many facts in the training text; it "
                f"states {len(known)} in {world.language}. Train on more tokens or ask fewer."
            )
        pool = world.pools[kind, relation]
        for subject, position in zip(
            rng.sample(known, count), _balanced_positions(rng, count), strict=True
        ):
            gold = subject.facts[relation]
            wrong = rng.sample([value for value in pool if value != gold], 3)
            item = {
                "id": f"knowledge_{world.language}-{len(items):04d}",
                "passage": "",
                "question": writer.test(subject, relation),
                "relation": f"{kind}.{relation}",
                # The same fact has the same name in every language that tells it.
                "cluster": _fact_name(world, subject, relation),
            }
            items.append(_with_options(rng, item, gold, wrong, position))
    return items


def _fact_name(world: World, subject: Subject, relation: str) -> str:
    members = world.subjects[subject.kind]
    own = f".{world.language}" if subject.kind == "person" else ""
    return f"{subject.kind}{own}.{members.index(subject)}.{relation}"


def reading_items(world: World, seed: int, unseen: Collection[str] = ()) -> list[Item]:
    """Questions on stories that are not in ``unseen`` (the training text's documents)."""
    rng = random.Random(f"reading-{world.language}-{seed}")
    writer = Writer(world, rng)
    items: list[Item] = []
    for (kind, people), count in READING.items():
        for position in _balanced_positions(rng, count):
            passage = writer.story(people)
            while passage.text in unseen:
                passage = writer.story(people)
            question, gold, mentioned = rng.choice(
                [(q, a, o) for k, q, a, o in passage.questions if k == kind]
            )
            wrong = [option for option in mentioned if option != gold]
            absent = [value for value in writer.answers(kind) if value not in mentioned]
            wrong += rng.sample(absent, 3 - len(wrong))
            item = {
                "id": f"reading_{world.language}-{len(items):04d}",
                "passage": passage.text,
                "question": question,
                "relation": f"{kind}.{people}",
            }
            items.append(_with_options(rng, item, gold, wrong, position))
    return items


def held_out_texts(
    world: World, name: str, characters: int, seed: int, seen: Collection[str]
) -> list[str]:
    """Documents, one line each, that the training text does not hold and no task asks about.

    Args:
        name: the corpus' name; every name has its own random stream.
        characters: how many characters to write at least.
        seen: the training text's documents.
    """
    writer = Writer(world, random.Random(f"{name}-{world.language}-{seed}"))
    texts: dict[str, None] = {}
    written = 0
    while written < characters:
        text = writer.plain_document()
        if text not in seen and text not in texts:
            texts[text] = None
            written += len(text)
    return list(texts)


def dump(items: Iterable[Item]) -> str:
    """The items as JSON lines."""
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
