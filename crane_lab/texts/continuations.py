"""Which of four sentences follows: questions from paragraphs of real text, in any language.

An item shows the beginning of a paragraph. The right option is the sentence that follows, the wrong
ones are sentences that follow in other places of the same language's text, about as long. So every
sentence is as often right as its neighbours, and the score must come from what went before.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OPTIONS = 4
#: Characters of an option, and of what is shown before it at most. What is written in Chinese
#: characters, Kana or Hangul says the same in about half of that.
LENGTH, SHOWN = (30, 110), 240
#: How far apart paragraphs are numbered that are on different pages.
FAR = 40
#: Sentences that share so much of their parts of four characters could stand for each other.
SIMILAR = 0.4
#: How often a sentence may be a wrong option.
USES = 5

_DENSE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_FULL_STOP = re.compile("(?<=[。！？])(?![」』”’）)])")
#: A stop with what closes behind it, and then what opens a sentence.
_STOP = re.compile(r"""[.!?؟।…]["”’»“)\]]*(\s+)(?=["“„«(\[¿¡]*[^\W\d_])""")
#: Words before a full stop that ends no sentence, letter case left aside.
_SHORT = frozenset(
    (
        *("approx", "ca", "cf", "dr", "ed", "etc", "ex", "fig", "mr", "mrs", "nr", "no", "núm"),
        *("num", "osv", "pag", "pág", "resp", "sec", "st", "vol", "vs", "bzw", "evtl", "ggf"),
        *("inkl", "usw", "vgl", "sog", "bl", "bv", "enz", "mln", "np", "tzn", "itp", "itd", "tj"),
        *("tzv", "napr", "např", "atd", "tzn", "pl", "stb", "ill", "kb", "vö", "напр", "см"),
        *("рис", "др", "пр", "див", "рис", "тощо", "örn", "vb", "vd", "bkz", "mesela", "dll"),
        *("dsb", "dst", "hal", "feks", "jf", "mv", "bla", "dvs", "bl.a", "κλπ", "π.χ", "δηλ"),
    )
)
#: Signs of addresses, commands and tables, which no language is needed for.
_CODE = re.compile(r"https?:|www\.|[@<>{}=|\\#$~*_]|/\w+/|\d{4,}")


@dataclass(frozen=True)
class Continuation:
    """A sentence that can be asked for and what goes before it in its paragraph."""

    paragraph: int
    before: str
    sentence: str


def split_sentences(text: str) -> list[str]:
    """The sentences of a paragraph, by its full stops, question and exclamation marks.

    Behind these a sentence begins with a letter, a large one where the script has two kinds. A full
    stop behind a single letter, an abbreviation or a word with a stop in it ends none.
    """
    found, start = [], 0
    for part in _FULL_STOP.split(text):
        start = 0
        for match in _STOP.finditer(part):
            first = re.search(r"[^\W\d_]", part[match.end() :])
            large = first is None or not first[0].islower()
            if large and not (match[0][0] == "." and _no_end(part[start : match.start()])):
                found.append(part[start : match.start(1)])
                start = match.end(1)
        found.append(part[start:])
    return [sentence.strip() for sentence in found if sentence.strip()]


def _no_end(before: str) -> bool:
    """Whether a full stop behind these words belongs to the last one."""
    word = before.split()[-1].strip("(\"“„«'").casefold() if before.split() else ""
    return len(word) < 2 or word in _SHORT or bool(re.fullmatch(r"(\w{1,3}\.)+\w{1,3}", word))


def _scaled(text: str) -> int:
    """The length of a text, in characters of an alphabet."""
    return len(text) + len(_DENSE.findall(text))


def _fits(sentence: str) -> bool:
    ends = sentence.rstrip('"”’»)」』）')[-1:] in ".!?。！？؟।"
    opens = sentence.lstrip('"“„«(¿¡「『（')[:1]
    return (
        LENGTH[0] <= _scaled(sentence) <= LENGTH[1]
        and ends
        and opens.isalpha()
        and not opens.islower()
        and not _CODE.search(sentence)
    )


def continuations(paragraph: int, text: str, gap: str = " ") -> list[Continuation]:
    """The sentences of a paragraph that can be asked for, with the sentences before each.

    Of those before, as many as fit into `SHOWN` characters, at least one; `gap` stands between.
    """
    sentences, found = split_sentences(text), []
    for index in range(1, len(sentences)):
        shown = [sentences[index - 1]]
        for earlier in reversed(sentences[: index - 1]):
            if _scaled(gap.join([earlier, *shown])) > SHOWN:
                break
            shown.insert(0, earlier)
        before = gap.join(shown)
        if _fits(sentences[index]) and LENGTH[0] <= _scaled(before) <= SHOWN:
            found.append(Continuation(paragraph, before, sentences[index]))
    return found


def continuation_items(
    texts: Mapping[str, Mapping[int, str]], gaps: Mapping[str, str], most: int, seed: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """`{language: items}` as `crane_lab.engines.tasks` reads them, two per paragraph at most.

    Parameters
    ----------
    texts : the paragraphs of each language by number, the same number for translations.
    gaps : what stands between two sentences: a space, or nothing.
    most : items per language; what can be asked for in more languages comes first.

    Deterministic given the texts and the seed, and independent of the languages' order.
    """
    candidates = {x: _candidates(own, gaps[x]) for x, own in texts.items()}
    shared = Counter(place for own in candidates.values() for place in own)
    draw = random.Random(seed)
    order = sorted(shared)
    draw.shuffle(order)
    # Second sentences of a paragraph only where first ones are too few.
    order.sort(key=lambda place: (place[1], -shared[place]))
    return {
        x: _items(x, [own[place] for place in order if place in own][:most], f"{seed} {x}")
        for x, own in candidates.items()
    }


def _candidates(texts: Mapping[int, str], gap: str) -> dict[tuple[int, int], Continuation]:
    """What can be asked for, by paragraph and how many come behind it; like no other's sentence."""
    found: dict[tuple[int, int], Continuation] = {}
    parts: list[set[str]] = []
    for number, text in sorted(texts.items()):
        for rank, place in enumerate(reversed(continuations(number, text, gap)[-2:])):
            own = _parts(place.sentence)
            if not any(len(own & other) > SIMILAR * len(own | other) for other in parts):
                found[number, rank] = place
                parts.append(own)
    return found


def _parts(sentence: str) -> set[str]:
    n = 2 if _DENSE.search(sentence) else 4
    return {sentence[i : i + n] for i in range(len(sentence) - n + 1)}


def _items(language: str, asked: Sequence[Continuation], seed: str) -> list[dict[str, Any]]:
    draw, used = random.Random(seed), Counter[str]()
    chosen: list[tuple[Continuation, list[Continuation]]] = []
    for place in sorted(asked, key=lambda place: (place.paragraph, place.before)):
        far = [x for x in asked if abs(x.paragraph - place.paragraph) >= FAR]
        length = _scaled(place.sentence)
        far.sort(key=lambda x: (abs(_scaled(x.sentence) - length), x.sentence))
        wrong = [x for x in far if used[x.sentence] < USES][: OPTIONS - 1]
        if len(wrong) == OPTIONS - 1:
            used.update(x.sentence for x in wrong)
            chosen.append((place, draw.sample(wrong, len(wrong))))
    answers = [index % OPTIONS for index in range(len(chosen))]
    draw.shuffle(answers)
    return [
        {
            "id": f"continuation_{language}-{number:04d}",
            "passage": "",
            "question": place.before,
            "relation": "next",
            "cluster": f"paragraph-{place.paragraph}",
            "options": [x.sentence for x in (*wrong[:answer], place, *wrong[answer:])],
            "answer": answer,
        }
        for number, ((place, wrong), answer) in enumerate(zip(chosen, answers, strict=True))
    ]
