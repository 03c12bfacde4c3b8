"""Alternative texts: what a figure shows and its main finding, short enough to be heard at once.

A screen reader reads such a text in one go, without a way to skip within it. What a figure draws is
said in full as long as that is short; otherwise its ends are, and where all values can be read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

#: An alternative text has fewer characters than this.
LONGEST = 600
#: So many of either end are said, if there is room.
ENDS = 3


def in_short(
    lead: str,
    entries: Iterable[tuple[str, float]],
    where: str,
    *,
    by: str = "",
    longest: int = LONGEST,
) -> str:
    """A text of less than `longest` characters: `lead`, and of what is drawn as much as fits.

    Parameters
    ----------
    lead : what the figure shows, as sentences of their own.
    entries : what is drawn, each in words, with the number that says how it compares. All are said
        in their order if there is room; otherwise those with the largest and the smallest numbers,
        in the order of these. One without a number (NaN) is no end.
    where : the file or table with all of them, such as "table1.csv".
    by : what the numbers are, if it is not the only one in the entries: "LangSpec-F1".
    """
    every = list(entries)
    whole = f"{lead} {'; '.join(text for text, _ in every)}".rstrip(" .") + "."
    if len(whole) < longest:
        return whole
    ranked = [text for text, value in sorted(every, key=_descending) if not math.isnan(value)]
    best = _ends(lead, ranked, 0, len(every), where, by)
    for count in range(1, min(2 * ENDS, len(ranked)) + 1):
        more = _ends(lead, ranked, count, len(every), where, by)
        if len(more) >= longest:
            break
        best = more
    return best if len(best) < longest else f"{best[: longest - 2]}…"


def _descending(entry: tuple[str, float]) -> float:
    return -entry[1] if not math.isnan(entry[1]) else math.inf


def _ends(lead: str, ranked: list[str], count: int, total: int, where: str, by: str) -> str:
    """The lead, `count` of the ranked entries from both ends in turn, and where all are."""
    top, low = (count + 1) // 2, count // 2
    measure = f" by {by}" if by else ""
    parts = [lead]
    if top:
        word = "largest" if lead.endswith(":") else "Largest"
        parts.append(f"{word}{measure}: {'; '.join(ranked[:top])}.")
    if low:
        parts.append(f"Smallest{measure}: {'; '.join(ranked[-low:])}.")
    parts.append(f"All {total}: {where}.")
    return " ".join(parts)
