"""Would other texts give the same answer? Kurtosis from random parts of the windows, compared.

Windows are run in blocks of consecutive ones, so that a document that was cut mostly stays on one
side. The moments of blocks can be merged in any grouping: no single value is kept, and relevance is
computed once.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor
from tqdm import tqdm

from crane_core.accumulators import Reader
from crane_core.moments import StreamingMoments
from crane_core.selection import NeuronSet, SelectionWarning, normalise, overlap, select
from crane_lab.pipeline import Pipeline
from crane_lab.stages.blocks import BlockMoments

#: language -> moments of consecutive blocks of its windows.
Blocks = Mapping[str, Sequence[StreamingMoments]]
#: language -> normalised kurtosis (layers, neurons) of each of its parts.
Parts = dict[str, list[Tensor]]


def block_moments(
    default: Pipeline, n_windows: int, block: int
) -> dict[str, list[StreamingMoments]]:
    """Moments of relevance over consecutive blocks of `n_windows` windows, by language."""
    longer = default.changed(n_samples=n_windows, batch_size=block)
    size = longer.shape["intermediate"]
    readers = {"blocks": Reader("intermediate", lambda: BlockMoments(size))}
    return longer.by_language(lambda x: longer.collect(x, readers, "blocks")["blocks"].moments)


def dealt(
    blocks: Blocks, count: int, sizes: Sequence[int], split: int
) -> Iterator[dict[str, list[Tensor]]]:
    """Kurtosis from `count` parts of each language's blocks, dealt at random, as the parts grow.

    Parameters
    ----------
    blocks : language -> moments of its blocks.
    count : parts that the blocks of a language are dealt into.
    sizes : blocks in a part, in ascending order; larger parts contain the smaller ones.
    split : seed of the dealing.

    Yields for each size {language: [(layers, neurons) of each part]}. Raises ValueError if there
    are too few blocks.
    """
    fewest = min(len(found) for found in blocks.values())
    if count * max(sizes) > fewest or min(sizes) < 1:
        raise ValueError(
            f"{count} parts of {list(sizes)} blocks cannot be dealt from {fewest} blocks"
        )
    rng = np.random.default_rng(split)
    order = {x: rng.permutation(len(found)) for x, found in blocks.items()}
    parts = {
        x: [StreamingMoments(found[0].shape) for _ in range(count)] for x, found in blocks.items()
    }
    done = 0
    for size in sizes:
        for x, found in blocks.items():
            for number, part in enumerate(parts[x]):
                for i in order[x][count * done + number : count * size : count]:
                    part.merge(found[i])
        done = size
        yield {x: [part.kurtosis() for part in dealt_to] for x, dealt_to in parts.items()}


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's correlation within each layer, (layers,); neurons with a NaN are left out."""
    return torch.tensor(
        [float(spearmanr(u, v, nan_policy="omit").statistic) for u, v in zip(a, b, strict=True)]
    )


def between_languages(scores: Mapping[str, Tensor]) -> pd.DataFrame:
    """Rank correlation of every two languages' scores, within layers and averaged over them."""
    table = {
        b: {a: float(rank_correlation(scores[a], scores[b]).mean()) for a in scores} for b in scores
    }
    return pd.DataFrame(table)


def compared(a: NeuronSet, b: NeuronSet) -> tuple[float, float]:
    """Jaccard of two sets, and what two random sets with their counts per layer would have.

    The second is the ratio of expected numbers. NaN if both sets are empty.
    """
    found = overlap(a, b)
    either = len(a) + len(b) - found.expected_within_layers
    return found.jaccard, found.expected_within_layers / either if either else float("nan")


# --- as the texts grow ----------------------------------------------------------------------------


def split_half_reliability(
    default: Pipeline,
    counts: Sequence[int] = (30, 60, 150, 300, 600, 1500),
    block: int = 30,
    n_splits: int = 50,
) -> pd.DataFrame:
    """How far two halves of the texts agree, as they grow.

    Blocks of `block` consecutive windows are dealt at random into two halves of `counts` windows
    each, `n_splits` times.

    Returns
    -------
    Rows with `n` (windows per half), `language`, `measure`, `mean`, `low`, `high` (2.5 and 97.5 %
    of the splits; those of large halves share most of their texts). Measures: "spearman" of
    kurtosis between halves within a layer, averaged over layers; "spearman, layer k"; "spearman,
    other language": half A of this language against half B of the others; "jaccard" of the sets
    selected from the halves and "chance", what random sets of their sizes would have; "neurons".

    Raises ValueError for counts that are no multiples of `block`.
    """
    if any(n % block for n in counts):
        raise ValueError(f"counts {list(counts)} must be multiples of the block, {block} windows")
    counts = sorted(counts)
    blocks = block_moments(default, 2 * max(counts), block)
    languages, s = default.settings.languages, default.settings
    rows: list[dict[str, Any]] = []
    for split in tqdm(range(n_splits), desc="splits"):
        grown = dealt(blocks, 2, [n // block for n in counts], split)
        for n, kurtosis in zip(counts, grown, strict=True):
            scores = {x: [normalise(k, s.normalisation) for k in kurtosis[x]] for x in languages}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SelectionWarning)
                sets = {
                    (x, h): select(
                        {y: scores[y][h] for y in languages},
                        x,
                        s.rule,
                        s.threshold,
                        s.budget,
                        shape=default.shape,
                    )
                    for x in languages
                    for h in (0, 1)
                }
            for x in languages:
                rho = rank_correlation(kurtosis[x][0], kurtosis[x][1])
                others = [
                    float(rank_correlation(kurtosis[x][0], kurtosis[y][1]).mean())
                    for y in languages
                    if y != x
                ]
                jaccard, chance = compared(sets[x, 0], sets[x, 1])
                measured = {
                    "spearman": float(rho.mean()),
                    **{f"spearman, layer {k}": float(r) for k, r in enumerate(rho)},
                    "spearman, other language": float(np.mean(others)),
                    "jaccard": jaccard,
                    "chance": chance,
                    "neurons": (len(sets[x, 0]) + len(sets[x, 1])) / 2,
                }
                rows += [
                    {"n": n, "language": x, "measure": measure, "value": value}
                    for measure, value in measured.items()
                ]
    grouped = pd.DataFrame(rows).groupby(["n", "language", "measure"], sort=False)["value"]
    found = grouped.agg(
        mean="mean", low=lambda v: v.quantile(0.025), high=lambda v: v.quantile(0.975)
    )
    return found.reset_index()


# --- at one size ----------------------------------------------------------------------------------


def parts(blocks: Blocks, count: int, n_splits: int, how: str = "zscore") -> list[Parts]:
    """Normalised kurtosis of `count` random parts of all windows, for each of `n_splits` splits.

    Each part holds as many whole blocks as fit (`blocks_per_part`). Errors as for `dealt`.
    """
    found = []
    for split in range(n_splits):
        (kurtosis,) = dealt(blocks, count, [blocks_per_part(blocks, count)], split)
        found.append({x: [normalise(k, how) for k in kurtosis[x]] for x in blocks})
    return found


def blocks_per_part(blocks: Blocks, count: int) -> int:
    """How many whole blocks each of `count` equally large parts holds."""
    return min(len(found) for found in blocks.values()) // count


def halves_agreement(splits: Sequence[Parts]) -> pd.DataFrame:
    """Rank correlation of the first part of each language with the second part of every other.

    Returns rows with `split`, `a`, `b` (languages) and `rho`, within layers, averaged over them.
    """
    rows = [
        {"split": number, "a": a, "b": b, "rho": float(rank_correlation(x[0], y[1]).mean())}
        for number, split in enumerate(splits)
        for a, x in split.items()
        for b, y in split.items()
    ]
    return pd.DataFrame(rows)


def selected_again(splits: Sequence[Parts], threshold: float) -> pd.DataFrame:
    """Which neurons the rule `contrast` selects from the first parts, and from the second again.

    Returns one row per language, means over splits: `first`, `second` (sizes of the sets),
    `both`, `jaccard` and `chance`, what random sets of these sizes in these layers would share.
    """
    rows = []
    for split in splits:
        first, second = (
            _selected({x: part[number] for x, part in split.items()}, threshold)
            for number in (0, 1)
        )
        for x in split:
            found = overlap(first[x], second[x])
            rows.append(
                {
                    "language": x,
                    "first": len(first[x]),
                    "second": len(second[x]),
                    "both": found.shared,
                    "jaccard": found.jaccard,
                    "chance": found.expected_within_layers,
                }
            )
    return pd.DataFrame(rows).groupby("language", sort=False).mean().reset_index()


def without_languages(splits: Sequence[Parts], threshold: float) -> pd.DataFrame:
    """How many neurons `contrast` selects if the parts of *one* language pose as languages.

    Parameters
    ----------
    splits : as `parts` returns them, with as many parts as languages.

    Returns
    -------
    `language`, `selected` (per target, mean over splits), `low`, `high` (over splits). The first
    row, with language "", is for the real languages, by the first part of each.
    """
    selected: dict[str, list[float]] = {"": []}
    for split in splits:
        posing = {x: {str(i): k for i, k in enumerate(found)} for x, found in split.items()}
        for x, scores in {"": {x: found[0] for x, found in split.items()}, **posing}.items():
            sizes = [len(found) for found in _selected(scores, threshold).values()]
            selected.setdefault(x, []).append(float(np.mean(sizes)))
    return pd.DataFrame(
        [
            {"language": x, "selected": float(np.mean(n)), "low": min(n), "high": max(n)}
            for x, n in selected.items()
        ]
    )


def _selected(scores: Mapping[str, Tensor], threshold: float) -> dict[str, NeuronSet]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SelectionWarning)  # an empty set is a result here
        return {x: select(scores, x, threshold=threshold) for x in scores}
