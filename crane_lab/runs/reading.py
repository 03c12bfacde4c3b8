"""How long the notebooks take to read, added up from what each says at its top."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: What the first page has in the place of the time for all of them.
READING_TIME = "<!-- reading time -->"
_SAID = re.compile(r"\*\*It takes\*\* (.+?) to read\b")
_MINUTES = {
    "ten minutes": 10,
    "fifteen minutes": 15,
    "a quarter of an hour": 15,
    "twenty minutes": 20,
    "half an hour": 30,
    "forty minutes": 40,
    "three quarters of an hour": 45,
    "an hour": 60,
}
_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def minutes_to_read(source: str) -> int:
    """Return the minutes that a notebook's source says reading it takes.

    Raises ValueError if it does not say so, or in words that are not known here.
    """
    found = _SAID.search(re.sub(r"\s*\n# ?", " ", source))
    if not found or found[1] not in _MINUTES:
        raise ValueError(
            "a notebook says how long it takes at its top, as `**It takes** half an hour to read`, "
            f"in one of: {', '.join(_MINUTES)}; got {found[1] if found else 'nothing'}"
        )
    return _MINUTES[found[1]]


def reading_time(sources: Iterable[str]) -> str:
    """Return how long it takes to read all notebooks, in words, such as `about nine hours`."""
    hours = max(1, round(sum(map(minutes_to_read, sources)) / 60))
    count = _WORDS[hours] if hours < len(_WORDS) else str(hours)
    return f"about {count} hour{'s' * (hours > 1)}"
