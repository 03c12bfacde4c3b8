"""Which people a document of the testbed is about, to divide a language's text by them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from crane_lab.testbed.world import build


def surnames(language: str, texts: Sequence[str], seed: int = 0) -> list[str | None]:
    """The surname of the person whom each text names first; None where it names nobody.

    Raises ValueError for a language that is none of the testbed's.
    """
    world = build(language, seed)
    lasts = world.phrases["names"]["last"]
    of = {
        person.name: max(
            (last for last in lasts if person.name.startswith(last) or person.name.endswith(last)),
            key=len,
        )
        for person in world.subjects["person"]
    }
    pattern = re.compile("|".join(map(re.escape, sorted(of, key=len, reverse=True))))
    found = (pattern.search(text) for text in texts)
    return [of[match.group()] if match else None for match in found]


def by_people(
    language: str, texts: Sequence[str], parts: int = 3, seed: int = 0
) -> list[int | None]:
    """Parts of a language's texts in which no two have a surname in common.

    Surnames are dealt out so that the parts have about as much text; texts about nobody are in no
    part.
    """
    names = surnames(language, texts, seed)
    size: Counter[str] = Counter()
    for name, text in zip(names, texts, strict=True):
        if name is not None:
            size[name] += len(text)
    filled, part = [0] * parts, {}
    for name, amount in sorted(size.items(), key=lambda item: (-item[1], item[0])):
        part[name] = filled.index(min(filled))
        filled[part[name]] += amount
    return [None if name is None else part[name] for name in names]
