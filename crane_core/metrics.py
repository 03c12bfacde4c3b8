"""LangSpec-F1 and the uncertainty of what it is made of (paper §3.5, Eq. 3-5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: How the drops of the non-target languages enter Eq. 3; numpy's names of the operations.
AGGREGATES = ("max", "mean", "sum")
EPSILON = 1e-8

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LangSpecF1:
    """What masking one language's neurons did (Eq. 3-5).

    Attributes
    ----------
    target : the language whose neurons were masked.
    precision : share of the damage that fell on the target (Eq. 3), 0 to 1.
    recall : share of the target's score that was lost (Eq. 4), 0 to 1.
    f1 : harmonic mean of the two (Eq. 5), 0 to 1.
    drops : language -> original - masked score, in the scores' unit; negative for a gain, which
        Eq. 3-5 count as 0.
    relative_drops : language -> drop / original score; NaN where the original is 0.
    """

    target: str
    precision: float
    recall: float
    f1: float
    drops: Mapping[str, float]
    relative_drops: Mapping[str, float]


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval around it, at confidence `level`."""

    estimate: float
    low: float
    high: float
    level: float


def langspec_f1(
    original: Mapping[str, float],
    masked: Mapping[str, float],
    target: str,
    epsilon: float = EPSILON,
    how: str = "max",
    relative: bool = False,
) -> LangSpecF1:
    """LangSpec-F1 of one mask (Eq. 3-5).

    Parameters
    ----------
    original, masked : language -> score without and with the mask, 0 or more and in one unit.
    target : the language whose neurons were masked.
    epsilon : the small constant of Eq. 3-5, above 0.
    how : the non-target languages' drops enter Eq. 3 by their "max" (the paper), "mean" or "sum".
    relative : take each drop relative to its language's original score in Eq. 3, as §3.1 and §3.4
        word it; Eq. 3 itself takes absolute drops.

    Raises ValueError for a score that is negative, NaN or infinite, languages that differ between
    the two or are fewer than two, an unknown target or `how`, or an epsilon that is not positive.
    """
    _check_languages(original, masked, target)
    _check_options(epsilon, how)
    for label, scores in (("original", original), ("masked", masked)):
        for language, score in scores.items():
            if not np.isfinite(score) or score < 0:
                raise ValueError(
                    f"{label} score of {language!r} is {score}: expected a number, 0 or more"
                )
    languages = list(original)
    before = np.array([float(original[language]) for language in languages])
    after = np.array([float(masked[language]) for language in languages])
    i = languages.index(target)
    precision, recall, f1 = _equations(before, after, i, epsilon, how, relative)
    drops = before - after
    positive = before > np.finfo(np.float64).tiny
    shares = np.divide(drops, before, out=np.full_like(drops, np.nan), where=positive)
    return LangSpecF1(
        target,
        float(precision),
        float(recall),
        float(f1),
        dict(zip(languages, drops.tolist(), strict=True)),
        dict(zip(languages, shares.tolist(), strict=True)),
    )


def langspec_f1_interval(
    original: Mapping[str, ArrayLike],
    masked: Mapping[str, ArrayLike],
    target: str,
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    epsilon: float = EPSILON,
    how: str = "max",
    relative: bool = False,
    clusters: Mapping[str, Sequence[str]] | None = None,
    floor: Mapping[str, float] | None = None,
) -> Interval:
    """Percentile interval of LangSpec-F1 from the outcomes of single items, by paired bootstrap.

    Items are drawn again with replacement within each language, always together with their outcome
    under the mask. Items that belong together are drawn together: questions on one passage, or the
    same fact asked for in several languages. What the interval leaves out is the choice of neurons
    and of the tasks.

    Parameters
    ----------
    original, masked : language -> outcomes (items,), such as 1 for right and 0 for wrong, in the
        same order of items with and without the mask. Languages may differ in items.
    target, epsilon, how, relative : as for `langspec_f1`.
    n_boot : resamples.
    level : confidence, between 0 and 1.
    seed : of the resampling; the same seed gives the same interval.
    clusters : language -> each item's cluster, across languages where a name recurs. Default: every
        item is on its own.
    floor : language -> mean score from which every mean is counted. Default: 0.

    Raises ValueError as `langspec_f1` does, for outcomes that do not pair up, for no items, and for
    clusters that are not one per item.
    """
    _check_languages(original, masked, target)
    _check_options(epsilon, how)
    languages = list(original)
    floors = np.array([(floor or {}).get(x, 0.0) for x in languages])
    pairs = {x: _paired(original[x], masked[x], x) for x in languages}
    rng = np.random.default_rng(seed)
    resampled = _resampled_means(pairs, clusters, n_boot, level, rng)
    estimate, f1 = (
        _equations(
            np.maximum(means[..., 0] - floors, 0.0),
            np.maximum(means[..., 1] - floors, 0.0),
            languages.index(target),
            epsilon,
            how,
            relative,
        )[2]
        for means in (_means(pairs), resampled)
    )
    return _percentiles(float(estimate), f1, level)


def langspec_f1_difference(
    first: tuple[Mapping[str, ArrayLike], Mapping[str, ArrayLike]],
    second: tuple[Mapping[str, ArrayLike], Mapping[str, ArrayLike]],
    target: str,
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    clusters: Mapping[str, Sequence[str]] | None = None,
) -> Interval:
    """LangSpec-F1 of `second` less that of `first`, with a percentile interval by paired bootstrap.

    Parameters
    ----------
    first, second : (original, masked) outcomes as in `langspec_f1_interval`, all four on the same
        items in the same order, which are drawn again together.
    target, n_boot, level, seed, clusters : as there.

    Raises ValueError as `langspec_f1_interval` does.
    """
    for original, masked in (first, second):
        _check_languages(original, masked, target)
    languages = list(first[0])
    groups = {
        x: np.hstack([_paired(original[x], masked[x], x) for original, masked in (first, second)])
        for x in languages
    }
    rng = np.random.default_rng(seed)
    difference = []
    for means in (_means(groups), _resampled_means(groups, clusters, n_boot, level, rng)):
        a, b = (
            _equations(
                means[..., i], means[..., i + 1], languages.index(target), EPSILON, "max", False
            )[2]
            for i in (0, 2)
        )
        difference.append(b - a)
    return _percentiles(float(difference[0]), difference[1], level)


def drop_interval(
    original: ArrayLike,
    masked: ArrayLike,
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    clusters: Sequence[str] | None = None,
) -> Interval:
    """Percentile interval of one language's drop, original - masked mean, by paired bootstrap.

    Parameters as for `langspec_f1_interval`, with the outcomes (items,) of one language.
    """
    name = "this language"
    pairs = _paired(original, masked, name)
    together = None if clusters is None else {name: clusters}
    rng = np.random.default_rng(seed)
    means = _resampled_means({name: pairs}, together, n_boot, level, rng)
    drops = means[..., 0] - means[..., 1]
    return _percentiles(float(pairs[:, 0].mean() - pairs[:, 1].mean()), drops, level)


def mean_interval(
    outcomes: ArrayLike,
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    clusters: Sequence[str] | None = None,
) -> Interval:
    """Percentile interval of a mean score, by bootstrap over items or clusters of them.

    Parameters as for `langspec_f1_interval`, with the outcomes (items,) of one language.
    """
    return drop_interval(outcomes, np.zeros_like(outcomes), n_boot, level, seed, clusters)


def _equations(
    before: Array, after: Array, target: int, epsilon: float, how: str, relative: bool
) -> tuple[Array, Array, Array]:
    """Eq. 3-5 on scores (..., languages): precision, recall and F1, each (...)."""
    drops = np.maximum(before - after, 0.0)
    recall = drops[..., target] / (before[..., target] + epsilon)
    if relative:
        drops = drops / (before + epsilon)
    own, rest = drops[..., target], np.delete(drops, target, axis=-1)
    others = getattr(np, how)(rest, axis=-1)
    precision = own / (own + others + epsilon)
    return precision, recall, 2 * precision * recall / (precision + recall + epsilon)


def _paired(original: ArrayLike, masked: ArrayLike, language: str) -> Array:
    """Outcomes as (items, 2), checked."""
    before, after = (np.asarray(x, dtype=np.float64) for x in (original, masked))
    if before.ndim != 1 or before.shape != after.shape:
        raise ValueError(
            f"outcomes of {language!r} have shapes {before.shape} and {after.shape}: expected one "
            f"number per item, for the same items with and without the mask"
        )
    if before.size == 0:
        raise ValueError(f"no outcomes for {language!r}: an interval needs items")
    pairs = np.stack([before, after], axis=1)
    if not np.isfinite(pairs).all() or (pairs < 0).any():
        item = int(np.argwhere(~(np.isfinite(pairs) & (pairs >= 0)).all(axis=1))[0, 0])
        raise ValueError(
            f"outcome of item {item} of {language!r} is {pairs[item].tolist()} (original, masked): "
            f"expected numbers, 0 or more"
        )
    return pairs


def _means(groups: Mapping[str, Array]) -> Array:
    """Means of outcomes (items, k) per language, (languages, k)."""
    return np.array([own.mean(axis=0) for own in groups.values()])


def _resampled_means(
    groups: Mapping[str, Array],
    clusters: Mapping[str, Sequence[str]] | None,
    n_boot: int,
    level: float,
    rng: np.random.Generator,
) -> Array:
    """Means of `n_boot` resamples of outcomes (items, k) per language, (n_boot, languages, k)."""
    if n_boot < 1:
        raise ValueError(f"n_boot is {n_boot}: expected at least 1 resample")
    _check_level(level)
    names: list[object] = []
    for language, own in groups.items():
        labels = range(len(own)) if clusters is None else clusters[language]
        if len(labels) != len(own):
            raise ValueError(
                f"{len(labels)} clusters for the {len(own)} items of {language!r}: expected one "
                "for each item"
            )
        names += [(language, label) if clusters is None else label for label in labels]
    index = {name: i for i, name in enumerate(dict.fromkeys(names))}
    cluster = np.array([index[name] for name in names])
    column = np.repeat(np.arange(len(groups)), [len(own) for own in groups.values()])
    # Per cluster and language: summed outcomes, and items.
    values = np.concatenate(list(groups.values()))
    sums = np.zeros((len(index), len(groups), values.shape[1] + 1))
    np.add.at(sums, (cluster, column), np.column_stack([values, np.ones(len(values))]))
    # Drawing how often each distinct cluster occurs is the same as drawing clusters, and
    # right-or-wrong outcomes have few distinct ones. Clusters that span the same languages with as
    # many items are drawn among themselves, which keeps every language's number of items.
    distinct, counts = np.unique(sums.reshape(len(index), -1), axis=0, return_counts=True)
    distinct = distinct.reshape(len(distinct), *sums.shape[1:])
    kinds = np.unique(distinct[..., -1], axis=0, return_inverse=True)[1].reshape(-1)
    total = np.zeros((n_boot, *sums.shape[1:]))
    for kind in range(kinds.max() + 1):
        own, share = distinct[kinds == kind], counts[kinds == kind]
        draws = rng.multinomial(share.sum(), share / share.sum(), size=n_boot)
        total += np.tensordot(draws, own, axes=1)
    resampled: Array = total[..., :-1] / total[..., -1:]
    return resampled


def _percentiles(estimate: float, resampled: Array, level: float) -> Interval:
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: expected a confidence between 0 and 1")


def _check_languages(
    original: Mapping[str, object], masked: Mapping[str, object], target: str
) -> None:
    for name, given, other in (("masked", masked, original), ("original", original, masked)):
        if lacking := [language for language in other if language not in given]:
            raise ValueError(f"{name} scores lack {lacking[0]!r}: there are {list(given)}")
    if target not in original:
        raise ValueError(f"no scores for target {target!r}: there are {list(original)}")
    if len(original) < 2:
        raise ValueError(f"LangSpec-F1 needs at least two languages, got {list(original)}")


def _check_options(epsilon: float, how: str) -> None:
    if how not in AGGREGATES:
        raise ValueError(f"unknown how {how!r}: expected one of {AGGREGATES}")
    if not 0 < epsilon < np.inf:
        raise ValueError(f"epsilon is {epsilon}: expected a small positive number")
