"""Paragraphs of one text in many languages: aligned, cleaned, told apart, kept in two parts.

A paragraph has a number, the same in every language it is found in. Where a translation's section
has other blocks than the English one, or a paragraph is far longer or shorter than it should be,
the paragraph has a number of its own.

Pages, with all of their paragraphs in every language, are either for attribution or held out. What
is nearly the same as another paragraph is left out in every language, so no text is in both parts.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from crane_lab.texts.fidelity import fidelity, untold
from crane_lab.texts.manuals import Block, is_prose

#: The language that all others are translated from.
FIRST = "en"
#: One page in so many is held out.
PAGES = 3
#: A paragraph may be so many times longer or shorter, compared with its language's usual ratio.
STRETCH = 1.8
#: Shingles' length in characters, and from which share in common two paragraphs are one.
SHINGLE, SAME = 5, 0.6
#: Languages that short texts are mistaken for, so that neither is a reason to doubt the other.
CLOSE = ({"da", "no", "sv"}, {"id", "ms"}, {"es", "pt", "ca", "it", "fr", "ro"}, {"nl", "af", "de"})


class Place(NamedTuple):
    """Where a paragraph stands: its page, and the section and number on it.

    `own` is the language whose paragraph has no counterpart, "" for one that others share.
    """

    page: str
    section: str
    number: int
    own: str = ""


def is_held_out(page: str) -> bool:
    """Whether a page's paragraphs are for perplexity and tasks; by its name alone."""
    return hashlib.sha256(page.encode()).digest()[0] % PAGES == 0


def placed(
    page: str, language: str, blocks: Sequence[Block], first: Sequence[Block]
) -> list[Place]:
    """Where each block of a translated page stands in the page it is translated from.

    A section whose blocks are of other kinds, or in other order, has places of its own.
    """
    own, others = _kinds(blocks), _kinds(first)
    seen: Counter[str] = Counter()
    found = []
    for block in blocks:
        shared = own[block.section] == others.get(block.section)
        number = seen[block.section]
        found.append(Place(page, block.section, number, "" if shared else language))
        seen[block.section] += 1
    return found


def _kinds(blocks: Iterable[Block]) -> dict[str, list[str]]:
    found = defaultdict(list)
    for block in blocks:
        found[block.section].append(block.kind)
    return found


def paragraphs(
    pages: Mapping[str, Mapping[str, Sequence[Block]]],
) -> dict[str, dict[Place, str]]:
    """Running prose by language and place, of one source.

    `pages` is `{language: {page: blocks}}` with the first language among them; pages that it lacks
    are left out.
    """
    return {
        language: {
            place: block.text
            for page, blocks in pages[FIRST].items()
            if page in own
            for place, block in zip(
                placed(page, language, own[page], blocks), own[page], strict=True
            )
            if block.text and is_prose(block.text, block.code)
        }
        for language, own in pages.items()
    }


def unstretched(texts: Mapping[str, Mapping[Place, str]]) -> dict[str, dict[Place, str]]:
    """With places of their own for paragraphs far longer or shorter than the first language's.

    They hold more or less than it does. What is usual is the median ratio of the language.
    """
    first = texts[FIRST]
    found = {}
    for language, own in texts.items():
        ratios = {x: np.log(len(own[x]) / len(first[x])) for x in own.keys() & first.keys()}
        usual = np.median(list(ratios.values())) if ratios else 0.0
        far = {x for x, ratio in ratios.items() if abs(ratio - usual) > np.log(STRETCH)}
        found[language] = {
            place._replace(own=language) if place in far else place: text
            for place, text in own.items()
        }
    return found


def in_their_language(
    texts: Mapping[str, Mapping[Place, str]], among: Sequence[str]
) -> dict[str, dict[Place, str]]:
    """Without paragraphs in another language: what translators left in English above all.

    Told by py3langid among `among` without languages `CLOSE` to the one expected, by the letters
    where it does not know a language. What reads the same as in English is left out as well.
    """
    unknown = untold(list(among))
    english = {_plain(text) for text in texts[FIRST].values()}
    found = {}
    for language, own in texts.items():
        close = set().union(*(group for group in CLOSE if language in group)) - {language, FIRST}
        candidates = [x for x in among if x not in close and x not in unknown]
        kept = {
            place: text
            for place, text in own.items()
            if language == FIRST or _plain(text) not in english
        }
        if language in unknown:
            found[language] = {x: text for x, text in kept.items() if not _is_latin(text)}
            continue
        rows = fidelity(list(kept.values()), [language] * len(kept), candidates)
        right = rows["in_language"].tolist()
        found[language] = {
            x: text for (x, text), yes in zip(kept.items(), right, strict=True) if yes
        }
    return found


def _is_latin(text: str) -> bool:
    letters = [character for character in text if character.isalpha()]
    return 2 * sum(character < "\u0250" for character in letters) > len(letters)


def _plain(text: str) -> str:
    """A text without what differs between near-duplicates: case, digits, signs, spaces."""
    return re.sub(r"[\W\d_]+", "", text.casefold())


def repeated(texts: Mapping[str, Mapping[Place, str]]) -> set[Place]:
    """Places to leave out in every language, so that no two that are left are nearly the same.

    Paragraphs are nearly the same if they share `SAME` of their shingles (Jaccard) in any language.
    Of each group, the place with the most languages is kept, the first of several.
    """
    counts = Counter(place for own in texts.values() for place in own)
    order = {place: number for number, place in enumerate(counts)}
    pairs: list[tuple[int, int]] = []
    for own in texts.values():
        numbers = [order[place] for place in own]
        pairs += [(numbers[a], numbers[b]) for a, b in near_duplicates(list(own.values()))]
    if not pairs:
        return set()
    rows, columns = np.array(pairs).T
    shape = (len(order), len(order))
    graph = sparse.coo_array((np.ones(len(pairs)), (rows, columns)), shape)
    _, groups = connected_components(graph, directed=False)
    places = list(order)
    kept: dict[int, Place] = {}
    for place, group in zip(places, groups, strict=True):
        if group not in kept or counts[place] > counts[kept[group]]:
            kept[group] = place
    return set(places) - set(kept.values())


def near_duplicates(texts: Sequence[str], same: float = SAME) -> list[tuple[int, int]]:
    """Pairs of texts with so much in common, by their places in `texts`: (first, second)."""
    numbers: dict[str, int] = {}
    rows, columns = [], []
    for row, text in enumerate(texts):
        plain = _plain(text)
        last = max(1, len(plain) - SHINGLE + 1)
        shingles = {plain[start : start + SHINGLE] for start in range(last)}
        columns += [numbers.setdefault(x, len(numbers)) for x in sorted(shingles)]
        rows += [row] * len(shingles)
    shape = (len(texts), len(numbers))
    table = sparse.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape)
    sizes = np.diff(table.indptr)
    found = []
    for start in range(0, len(texts), 256):
        common = (table[start : start + 256] @ table.T).tocoo()
        a, b = common.row + start, common.col
        alike = common.data >= same * (sizes[a] + sizes[b] - common.data)
        found += [(int(x), int(y)) for x, y in zip(a[alike], b[alike], strict=True) if x < y]
    return sorted(found)


def most_shared(texts: Mapping[str, Mapping[Place, str]], most: int) -> dict[str, dict[Place, str]]:
    """At most so many paragraphs of a language, those that the most languages have.

    They are taken in one order from all sources, each in proportion to its size, and held-out ones
    up to one in `PAGES`. The first language keeps all that another one has.
    """
    counts = Counter(place for own in texts.values() for place in own)
    by_source = defaultdict(list)
    for place in sorted(counts, key=lambda place: (-counts[place], place)):
        by_source[source_of(place)].append(place)
    rank = {
        place: number / len(places)
        for places in by_source.values()
        for number, place in enumerate(places)
    }
    found: dict[str, dict[Place, str]] = {}
    for language, own in texts.items():
        ranked = sorted(own, key=lambda place: (rank[place], place))
        held_out = [place for place in ranked if is_held_out(place.page)][: most // PAGES]
        others = [place for place in ranked if not is_held_out(place.page)]
        kept = {*held_out, *others[: most - most // PAGES]}
        found[language] = {place: text for place, text in own.items() if place in kept}
    wanted = {place for language, own in found.items() if language != FIRST for place in own}
    found[FIRST] = {place: text for place, text in texts[FIRST].items() if place in wanted}
    return found


def source_of(place: Place) -> str:
    """The source that a place's page is from: its name up to the first slash."""
    return place.page.partition("/")[0]


class Numbered(NamedTuple):
    """`lines` and their `ids` by language, in document order; which of the ids are `held_out`."""

    lines: dict[str, list[str]]
    ids: dict[str, list[int]]
    held_out: list[int]


def numbered(texts: Mapping[str, Mapping[Place, str]], order: Mapping[str, int]) -> Numbered:
    """Give every place a number, in document order: `order` is that of the pages."""

    def key(place: Place) -> tuple[object, ...]:
        section = tuple(int(part) for part in place.section.split("."))
        return order[place.page], section, place.number, place.own

    places = sorted({place for own in texts.values() for place in own}, key=key)
    number = {place: index for index, place in enumerate(places)}
    lines: dict[str, list[str]] = {}
    ids: dict[str, list[int]] = {}
    for language, own in texts.items():
        mine = sorted(own, key=number.__getitem__)
        lines[language] = [own[place] for place in mine]
        ids[language] = [number[place] for place in mine]
    held_out = [index for place, index in number.items() if is_held_out(place.page)]
    return Numbered(lines, ids, held_out)
