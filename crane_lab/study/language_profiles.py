"""Where languages' neurons are, how many there are, and what depends on script (paper 3's claims).

Languages are few and related to each other, so a test over them is generous: it takes each for an
independent case. Claims are held against all languages at hand, not against chosen ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from scipy.stats import mannwhitneyu, wilcoxon

from crane_core.neurons import NeuronSet
from crane_lab.stages.standing import corrected
from crane_lab.study.relatedness import excess_matrix
from crane_lab.texts.typology import ALONE, by_family, family_of, script_of

Sets = Mapping[str, Mapping[str, NeuronSet]]

#: The layers that count as late: the last third.
LATE = 1 / 3


def depth_shares(sets: Mapping[str, NeuronSet]) -> pd.DataFrame:
    """Share of a language's neurons in each layer: languages by family, layers from 0.

    Languages without neurons are left out.
    """
    rows = {}
    for x in by_family(list(sets)):
        counts = sets[x].counts("intermediate").double()
        if counts.sum():
            rows[x] = (counts / counts.sum()).tolist()
    return pd.DataFrame.from_dict(rows, orient="index")


def late_layers(layers: int, late: float = LATE) -> int:
    """How many of a model's layers count as late."""
    return round(layers * late)


def late_shares(sets: Sets, late: float = LATE) -> pd.DataFrame:
    """How much of the sets lies in the last layers, a row per method that has neurons.

    `languages`, `layers` counted as late; `share`, the mean over languages, its least and most
    (`low`, `high`), `chance`, the share of the layers; `more`, languages above it. Related
    languages share neurons, so that `p` is over `families`, each by the mean of its languages:
    that so many lie so far on one side (Wilcoxon's signed ranks, two-sided); `q` over the methods.
    """
    rows = []
    for method, of in sets.items():
        shares = depth_shares(of)
        if shares.empty:
            continue
        layers = shares.shape[1]
        last = late_layers(layers, late)
        # Rounded: a third of the neurons in a third of the layers is no more than chance.
        own = shares.iloc[:, layers - last :].sum(axis=1).round(12)
        chance = round(last / layers, 12)
        row = {"method": method, "languages": len(own), "layers": last, "share": own.mean()}
        row |= {"low": own.min(), "high": own.max(), "chance": chance}
        units = [family_of(str(x)) if family_of(str(x)) != ALONE else str(x) for x in own.index]
        apart = own.groupby(units).mean() - chance
        p = float(wilcoxon(apart).pvalue) if apart.any() else 1.0
        more = {"more": int((own > chance).sum()), "families": len(apart)}
        rows.append({**row, **more, "p": p})
    found = pd.DataFrame(rows)
    return found.assign(q=corrected(found["p"]))


def sizes_by_script(sets: Sets) -> pd.DataFrame:
    """Whether languages in other scripts than Latin have more neurons, a row per method.

    `latin` and `other`: languages of each kind with their median number of neurons (`latin_median`,
    `other_median`); `p` of so different ranks (Mann and Whitney, two-sided), `q` over the methods.
    Methods that give all languages the same number are left out.
    """
    rows = []
    for method, of in sets.items():
        size = {x: len(neurons) for x, neurons in of.items()}
        if len(set(size.values())) < 2:
            continue
        latin = [n for x, n in size.items() if script_of(x) == "Latn"]
        other = [n for x, n in size.items() if script_of(x) != "Latn"]
        if not latin or not other:
            continue
        row = {"method": method, "latin": len(latin), "latin_median": np.median(latin)}
        row |= {"other": len(other), "other_median": np.median(other)}
        rows.append({**row, "p": float(mannwhitneyu(latin, other).pvalue)})
    found = pd.DataFrame(rows, columns=[*_SCRIPT_COLUMNS])
    return found.assign(q=corrected(found["p"]))


_SCRIPT_COLUMNS = ("method", "latin", "latin_median", "other", "other_median", "p")


def language_tree(overlaps: pd.DataFrame, languages: list[str]) -> NDArray[np.float64]:
    """Languages joined by what they share beside chance: a linkage as scipy has it.

    Distance is how far a pair's `excess` is below the largest; average linkage.
    """
    excess = excess_matrix(overlaps, languages)
    distance = np.nanmax(excess) - excess
    np.fill_diagonal(distance, 0.0)
    tree: NDArray[np.float64] = linkage(squareform(distance), "average")
    return tree
