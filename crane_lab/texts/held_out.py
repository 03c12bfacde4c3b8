"""Paragraphs of a parallel corpus that nothing was read from, by number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from crane_lab.texts.local import read_texts
from crane_lab.texts.parallel import paragraphs_of


def held_out_paragraphs(folder: str | Path, languages: Iterable[str]) -> dict[str, dict[int, str]]:
    """The held-out paragraphs of a parallel corpus by number, the same for translations.

    Raises ValueError for a corpus without `paragraphs.json`, and as `read_texts` does.
    """
    found = {}
    for language in languages:
        known = paragraphs_of(folder, language)
        if known is None:
            raise ValueError(f"{folder} has no paragraphs.json, which says what is held out")
        lines = zip(known.ids, read_texts(folder, language, deduplicate=False), strict=True)
        found[language] = {number: text for number, text in lines if number in known.held_out}
    return found


def translations(
    paragraphs: Mapping[str, Mapping[int, str]], n: int, source: str = "en", longest: int = 160
) -> dict[str, list[str]]:
    """As many paragraphs of every language, translations of each other, spread over the corpus.

    Only those that have at most `longest` characters in `source`, since they are to be written out.

    Raises ValueError if that are fewer than `n`.
    """
    common = sorted(set.intersection(*(set(own) for own in paragraphs.values())))
    short = [number for number in common if len(paragraphs[source][number]) <= longest]
    if len(short) < n:
        raise ValueError(
            f"{len(short)} held-out paragraphs of at most {longest} characters are there in all of "
            f"{', '.join(paragraphs)}: expected {n}"
        )
    chosen: Sequence[int] = [short[place * len(short) // n] for place in range(n)]
    return {x: [own[number] for number in chosen] for x, own in paragraphs.items()}
