"""How far languages are from each other, by descent, place, grammar, sounds and script.

Distances are URIEL's vectors' (`crane_lab.cli.typology`, data/typology); that of scripts is 0 or 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crane_lab.store import ROOT
from crane_lab.texts.languages import FLORES

FILE = "data/typology/distances.csv"
#: Families with more than one language of data/texts; the others stand by themselves.
FAMILIES = {
    "Germanic": ("en", "de", "nl", "af", "sv", "da", "no"),
    "Romance": ("fr", "it", "es", "ca", "pt", "ro"),
    "Slavic": ("ru", "uk", "pl", "cs"),
    "Uralic": ("fi", "hu"),
    "Sino-Tibetan": ("zh", "bo"),
}
ALONE = "none of these"
KINDS = ("genetic", "geographic", "syntactic", "phonological", "script")


def language_distances(
    languages: Sequence[str], kind: str, file: str | Path = ROOT / FILE
) -> NDArray[np.float64]:
    """Distances between languages, (languages, languages), symmetric with a zero diagonal.

    `kind` is one of `KINDS`: one less the cosine of URIEL's vectors, or for "script" whether two
    languages are written in different ones.

    Raises ValueError for an unknown kind, a language that comes twice, or one without a distance,
    saying which are known.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of distance {kind!r}: expected one of {KINDS}")
    table = pd.read_csv(file)
    known = sorted({*table["a"], *table["b"]})
    if twice := [x for x in languages if list(languages).count(x) > 1]:
        raise ValueError(f"{twice[0]!r} comes twice: expected each language once")
    if missing := [x for x in languages if x not in known]:
        raise ValueError(f"no distance of {missing[0]!r} is known: expected some of {known}")
    found = np.zeros((len(languages), len(languages)))
    of = (
        {}
        if kind == "script"
        else dict(zip(zip(table["a"], table["b"], strict=True), table[kind], strict=True))
    )
    for i, a in enumerate(languages):
        for j, b in enumerate(languages):
            if kind == "script":
                found[i, j] = float(script_of(a) != script_of(b))
            elif i != j:
                found[i, j] = of[min(a, b), max(a, b)]
    return found


def script_of(language: str) -> str:
    """The script that a language is written in, by its ISO 15924 code, such as "Latn".

    Raises ValueError for a language that is not listed.
    """
    if language not in FLORES:
        raise ValueError(f"the script of {language!r} is not known: expected one of {list(FLORES)}")
    return FLORES[language].partition("_")[2]


def family_of(language: str) -> str:
    """One of `FAMILIES`, or `ALONE`."""
    return next((name for name, of in FAMILIES.items() if language in of), ALONE)


def by_family(languages: Sequence[str]) -> list[str]:
    """Languages family by family in the order of `FAMILIES`, those alone last, by script."""
    families = [*FAMILIES, ALONE]
    listed = [x for of in FAMILIES.values() for x in of]
    order = {x: n for n, x in enumerate(listed)}
    return sorted(
        languages,
        key=lambda x: (families.index(family_of(x)), order.get(x, 0), script_of(x), x),
    )
