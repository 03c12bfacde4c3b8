"""How far languages are from each other, made anew: data/typology.

    pip install --no-deps --target FOLDER lang2vec==1.1.2
    python -m crane_lab.cli.typology --lang2vec FOLDER/lang2vec/data

Reads URIEL's vectors as lang2vec 1.1.2 carries them (Littell et al., 2017; CC BY-SA 4.0), as
arrays; no code of the package is run. Distances are one less the cosine of two languages' vectors:
of the family tree's branches that they belong to, of their place on the globe, and of syntactic and
phonological features, predicted where no source has them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from crane_lab.cli.options import exit_status
from crane_lab.store import write_table
from crane_lab.texts.languages import FLORES
from crane_lab.texts.typology import FILE

#: Kind of distance -> file of vectors, and how the features' names begin.
SOURCES = {
    "genetic": ("family_features", ""),
    "geographic": ("geocoord_features", ""),
    "syntactic": ("feature_predictions", "S_"),
    "phonological": ("feature_predictions", "P_"),
}
#: Languages of data/texts.
LANGUAGES = (
    *("af", "ar", "bo", "ca", "cs", "da", "de", "el", "en", "es", "fi", "fr", "hi", "hu", "id"),
    *("it", "ja", "ko", "mt", "nl", "no", "pl", "pt", "ro", "ru", "sv", "tr", "uk", "vi", "zh"),
)
#: URIEL has macrolanguages where FLORES has one of their members.
_OF_URIEL = {"ar": "ara", "zh": "zho", "no": "nor"}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status (1 after an error, which is printed)."""
    parser = argparse.ArgumentParser(prog="python -m crane_lab.cli.typology", description=__doc__)
    parser.add_argument("--lang2vec", required=True, help="the package's folder `data`")
    parser.add_argument("--out", default=FILE, help="table to write")
    options = parser.parse_args(arguments)
    return exit_status(lambda: _write(Path(options.lang2vec), Path(options.out)))


def _write(source: Path, out: Path) -> None:
    write_table(distances_of(source, LANGUAGES).round(4), out)


def distances_of(source: Path, languages: Sequence[str]) -> pd.DataFrame:
    """One row per pair of languages: `a`, `b` and a column per kind of distance.

    Raises FileNotFoundError if a file of vectors is not there, and ValueError for a language that
    URIEL does not know.
    """
    found = pd.DataFrame(list(combinations(sorted(languages), 2)), columns=["a", "b"])
    for kind, (name, begins) in SOURCES.items():
        with np.load(source / f"{name}.npz", allow_pickle=False) as file:
            codes, features = file["langs"].tolist(), file["feats"]
            chosen = [str(feature).startswith(begins) for feature in features]
            vectors = {}
            for x in languages:
                code = _OF_URIEL.get(x, FLORES[x].partition("_")[0])
                if code not in codes:
                    raise ValueError(f"{x!r} ({code}) is not among URIEL's languages")
                vectors[x] = file["data"][codes.index(code), chosen, 0].astype(float)
        lengths = {x: float(np.linalg.norm(vector)) for x, vector in vectors.items()}
        found[kind] = [
            1 - float(vectors[a] @ vectors[b]) / (lengths[a] * lengths[b])
            for a, b in zip(found["a"], found["b"], strict=True)
        ]
    return found


if __name__ == "__main__":
    sys.exit(main())
