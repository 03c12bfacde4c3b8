"""Criteria for language-specific neurons, held against what single ablations say (`necessity`).

A criterion is a score per neuron and language, {language: (layers, neurons)}: the higher, the more
likely the neuron is specific to that language. `criteria` collects those of the paper and of its
baselines; anything else of that form can be put beside them by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from crane_core import baselines, concentration
from crane_core.accumulators import ActiveCounts, Reader
from crane_core.concentration import Collected
from crane_core.selection import contrast_of, normalise, relative_contrast
from crane_lab.pipeline import Pipeline
from crane_lab.study import choices
from crane_lab.study.batch_quantiles import BatchQuantiles
from crane_lab.study.necessity import (
    Necessity,
)

#: language -> token windows, int64 (texts, tokens).
Texts = dict[str, Tensor]
#: language -> (layers, neurons); higher means more likely specific to that language.
Score = Mapping[str, Tensor]
Array = NDArray[np.float64]

#: Objectives in the names of criteria.
OBJECTIVES = {
    "next_token": "logit",
    "next_token_logprob": "log-probability",
    "last_max": "last maximum",
}
KINDS = ("necessity", "selectivity")
#: The name of the criterion that has a contrast of its own kind.
RELATIVE = f"{concentration.STATISTICS['mean_abs'].label}, relative contrast"
#: Criteria that are sums of something else than relevance, by the start of their names.
WITHOUT_RELEVANCE = ("gradient × activation", "Act Prob 90p", "LAPE")


# ------------------------------------------------------------------------------------ the criteria


def contrasted(score: Score) -> dict[str, Tensor]:
    """A language's score less the largest of the other languages', neuron by neuron."""
    return {x: contrast_of(score, x) for x in score}


def relative_contrasts(score: Score) -> dict[str, Tensor]:
    """`selection.relative_contrast` for every language, for scores of 0 or more."""
    return {x: relative_contrast(score, x) for x in score}


def relative_shares(score: Score) -> dict[str, Tensor]:
    """A language's score in shares of the neuron's in all languages, as `relative_contrasts`."""
    total = torch.stack(list(score.values())).sum(0)
    size = torch.maximum(total, total.nanmedian(-1, keepdim=True).values)
    return {x: torch.where(size > 0, v / size, 0.0) for x, v in score.items()}


def with_contrasts(scores: Mapping[str, Score]) -> dict[str, Score]:
    """Every criterion, each followed by its contrast between languages."""
    found: dict[str, Score] = {}
    for name, score in scores.items():
        found[name] = score
        found[f"{name}, contrast"] = contrasted(score)
    return found


def gradient_x_activation(pipeline: Pipeline, statistic: str = "mean_abs") -> dict[str, Tensor]:
    """Mean |activation × plain gradient| of every neuron, without any LRP rule, in logits.

    What `concentration`'s mean |relevance| is under AttnLRP's rules, or another statistic, on the
    same samples, with the same objective and reduction. {language: float64 (layers, neurons)}.
    """
    size = pipeline.shape["intermediate"]
    readers = {"products": Reader("intermediate", lambda: Collected(size, 0))}
    return pipeline.by_language(
        lambda x: concentration.compute(
            statistic, pipeline.collect(x, readers, "gradients", rules="gradient")["products"]
        )
    )


def act_prob_90p_scores(pipeline: Pipeline) -> dict[str, Tensor]:
    """Act Prob 90p's score: how often a neuron exceeds its own 90th percentile in a language.

    Taken on the texts that kurtosis is taken on, in two passes, since the percentile has to be
    known before it can be exceeded; {language: float64 (layers, neurons)}.
    """
    size = pipeline.shape["intermediate"]
    first = {"bars": Reader("act_fn", lambda: BatchQuantiles(size))}

    def rate(language: str) -> Tensor:
        bars = pipeline.collect(language, first, "bars")["bars"].values()
        # float32, as activations are: a bar between two of them could not be met exactly.
        second = {"over": Reader("act_fn", lambda: ActiveCounts(size, bars))}
        counts = pipeline.collect(language, second, "over-bars", quantile=0.9)["over"]
        return counts.over.double() / counts.tokens

    return pipeline.by_language(rate)


def lape_places(pipeline: Pipeline) -> dict[str, Tensor]:
    """LAPE's order as a score: minus the place at which `lape_matched` takes the neuron."""
    counts, n = pipeline.activation_counts()
    found = {}
    for x, order in baselines.lape_order(counts, n).items():
        place = torch.empty(len(order), dtype=torch.float64)
        place[order] = -torch.arange(len(order), dtype=torch.float64)
        found[x] = place.view(pipeline.shape["intermediate"])
    return found


def criteria(pipeline: Pipeline, objectives: Iterable[str] = tuple(OBJECTIVES)) -> dict[str, Score]:
    """The criteria compared in the book, by name, intermediate neurons only.

    - "kurtosis (…)": CRANE's, normalised as the settings say, for each objective;
    - the other `concentration.STATISTICS` of relevance under the settings' objective: those of
      shape normalised likewise, those of size, which has one unit in all layers, as they are;
    - "gradient × activation", "Act Prob 90p" and "LAPE".

    Each but LAPE, which compares languages already, is there alone and as a contrast, its own score
    less the largest of another language's; mean |relevance| also as `relative_contrasts`.
    """
    scores: dict[str, Score] = {}
    for objective in objectives:
        same = objective == pipeline.settings.objective
        of = pipeline if same else pipeline.changed(objective=objective)
        every = of.kurtosis("intermediate")
        kurtosis = {x: k for x, k in every.items() if isinstance(k, Tensor)}
        how = pipeline.settings.normalisation
        scores[f"kurtosis ({OBJECTIVES.get(objective, objective)})"] = normalise(kurtosis, how)
    values = choices.statistic_values(pipeline)["all"]
    for name, statistic in concentration.STATISTICS.items():
        if name == "kurtosis":
            continue
        found = {x: statistic.sign * values[x][name] for x in pipeline.settings.languages}
        if statistic.kind == "shape":
            found = {x: normalise(v, pipeline.settings.normalisation) for x, v in found.items()}
        scores[statistic.label] = found
    scores["gradient × activation"] = gradient_x_activation(pipeline)
    scores["Act Prob 90p"] = act_prob_90p_scores(pipeline)
    relative = relative_contrasts(scores[concentration.STATISTICS["mean_abs"].label])
    return {**with_contrasts(scores), RELATIVE: relative, "LAPE": lape_places(pipeline)}


# --------------------------------------------------------------------- against single ablations


def rank_agreement(
    scores: Mapping[str, Score],
    necessity: Necessity,
    value: str = "zero",
    reference: str | None = None,
    n_boot: int = 400,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Spearman's rank correlation of every criterion with necessity and with selectivity.

    Parameters
    ----------
    scores : the criteria by name. A neuron without a score (NaN) counts as the lowest.
    necessity : the single-ablation effects, with neurons set to `value`.
    reference : the criterion that others are compared with.
    n_boot, level, seed : intervals at `level` from the spread of resamples, in each of which both
        the neurons and, language by language, the groups of texts behind the effects are drawn with
        replacement, the same for all criteria.

    Returns
    -------
    One row per criterion, language (and "all", the mean over languages) and `truth` ("necessity" or
    "selectivity"): `rho`, `low`, `high`, and with a reference `ahead`, the correlation less the
    reference's, with `ahead_low` and `ahead_high`.

    Raises ValueError for a criterion without a language or of another shape, and for an unknown
    reference.
    """
    names, languages = list(scores), necessity.languages
    if reference is not None and reference not in scores:
        raise ValueError(f"unknown reference {reference!r}: there are {names}")
    given = {x: np.stack([_flat(scores[n], x, necessity, n) for n in names]) for x in languages}
    groups = {x: necessity.folds[value][x].flatten(1).numpy() for x in languages}
    effects = {x: necessity.necessity(x, value).value.flatten().numpy() for x in languages}

    def correlations(
        effects: Mapping[str, Array], neurons: NDArray[np.int64] | slice
    ) -> NDArray[np.float64]:
        """(truths, languages and their mean, criteria)."""
        found = np.empty((len(KINDS), len(languages) + 1, len(names)))
        for i, x in enumerate(languages):
            others = np.max([effects[y] for y in languages if y != x], axis=0)
            truths = np.stack([effects[x], effects[x] - others])
            found[:, i] = _correlations(truths, given[x][:, neurons])
        found[:, -1] = found[:, :-1].mean(1)
        return found

    rng = np.random.default_rng(seed)
    n_neurons = len(effects[languages[0]])
    rho = correlations(effects, slice(None))
    resampled = np.empty((n_boot, *rho.shape))
    for b in range(n_boot):
        neurons = rng.integers(n_neurons, size=n_neurons)
        drawn = {}
        for x, group in groups.items():
            texts = rng.integers(len(group), size=len(group))
            drawn[x] = group[texts].mean(0)[neurons]
        resampled[b] = correlations(drawn, neurons)
    tails = [(1 - level) / 2, (1 + level) / 2]
    # Drawing from noisy effects adds their noise a second time and pulls correlations to zero, so
    # only the spread of the resamples is used, around the estimate.
    resampled += rho - resampled.mean(0)
    low, high = np.quantile(resampled, tails, axis=0)
    table = []
    for k, kind in enumerate(KINDS):
        for i, x in enumerate([*languages, "all"]):
            for j, name in enumerate(names):
                row = {"criterion": name, "language": x, "truth": kind}
                row |= {"rho": rho[k, i, j], "low": low[k, i, j], "high": high[k, i, j]}
                if reference is not None:
                    r = names.index(reference)
                    ahead = resampled[:, k, i, j] - resampled[:, k, i, r]
                    row["ahead"] = rho[k, i, j] - rho[k, i, r]
                    row["ahead_low"], row["ahead_high"] = np.quantile(ahead, tails)
                table.append(row)
    return pd.DataFrame(table)


def attainable(reliability: pd.Series) -> pd.Series:
    """How high a criterion without any error could correlate with effects that repeat so well.

    `reliability` is `split_half`'s `all`, the correlation of two measurements that both have
    errors; against one of them it is the root.
    """
    return np.sqrt(reliability)


def split_half(necessity: Necessity, value: str = "zero") -> pd.DataFrame:
    """How well the effects agree with themselves: Spearman's correlation between halves of texts.

    One row per language and truth: `halves`, the correlation between the even and the odd groups of
    texts, and `all`, what Spearman and Brown's formula makes of it for all texts together, 0 where
    the halves do not agree: their correlation with effects measured again on as many texts.
    """
    rows = []
    for x in necessity.languages:
        halves = [
            {y: f[start::2].mean(0) for y, f in necessity.folds[value].items()} for start in (0, 1)
        ]
        for kind in KINDS:
            a, b = (
                (half[x] if kind == "necessity" else contrast_of(half, x)).flatten().numpy()
                for half in halves
            )
            r = float(_correlations(a[None], b[None])[0, 0])
            above = max(r, 0.0)  # what does not repeat sets a limit of 0
            rows.append({"language": x, "truth": kind, "halves": r, "all": 2 * above / (1 + above)})
    return pd.DataFrame(rows)


def _flat(score: Score, language: str, necessity: Necessity, name: str) -> Array:
    expected = tuple(necessity.necessity(language).value.shape)
    if language not in score or tuple(score[language].shape) != expected:
        found = tuple(score[language].shape) if language in score else "none"
        raise ValueError(
            f"criterion {name!r} has scores {found} for {language!r}; expected (layers, neurons) "
            f"{expected}"
        )
    return _filled(score[language]).numpy()


def _filled(score: Tensor) -> Tensor:
    """Flat float64 scores, undefined ones below all others."""
    flat = score.flatten().double()
    return torch.where(flat.isnan(), -torch.inf, flat)


def _correlations(a: Array, b: Array) -> Array:
    """Spearman's correlations of the rows of two arrays, (rows of a, rows of b); 0 if constant."""
    a, b = rankdata(a, axis=1), rankdata(b, axis=1)
    a -= a.mean(1, keepdims=True)
    b -= b.mean(1, keepdims=True)
    scale = np.sqrt(np.outer((a**2).sum(1), (b**2).sum(1)))
    found: Array = np.divide(a @ b.T, scale, out=np.zeros(scale.shape), where=scale > 0)
    return found


def order(score: Tensor) -> Tensor:
    """Indices into the flattened (layers, neurons), highest score first.

    Ties go to the lower layer and neuron; neurons without a score come last.
    """
    return _filled(score).argsort(descending=True, stable=True)


def precision(
    scores: Mapping[str, Score],
    necessity: Necessity,
    budgets: Sequence[int],
    value: str = "zero",
    level: float = 0.05,
) -> pd.DataFrame:
    """How many of each criterion's best neurons are selective according to single ablations.

    One row per criterion, language and budget: `significant`, the share of its top `budget` that is
    significantly selective (`Necessity.significant` at the false-discovery rate `level`), with
    `significant_chance`, the share among all neurons; `among_top`, the share that is among the
    `budget` most selective neurons, with `among_top_chance`.

    Raises ValueError for a budget below 1 or above the number of neurons.
    """
    rows = []
    for x in necessity.languages:
        hit = necessity.significant(x, "selectivity", value, level).flatten()
        best = order(necessity.selectivity(x, value).value)
        for budget in budgets:
            if not 1 <= budget <= len(hit):
                raise ValueError(f"budget {budget}: expected 1 to {len(hit)} neurons")
            top = torch.zeros(len(hit), dtype=torch.bool)
            top[best[:budget]] = True
            for name, score in scores.items():
                _flat(score, x, necessity, name)
                chosen = order(score[x])[:budget]
                rows.append(
                    {
                        "criterion": name,
                        "language": x,
                        "budget": budget,
                        "significant": float(hit[chosen].double().mean()),
                        "significant_chance": float(hit.double().mean()),
                        "among_top": float(top[chosen].double().mean()),
                        "among_top_chance": budget / len(hit),
                    }
                )
    return pd.DataFrame(rows)


# ---------------------------------------------------------------------------- whole sets of neurons


def ranking(
    agreed: pd.DataFrame, found: pd.DataFrame, damaged: pd.DataFrame, budget: int
) -> pd.DataFrame:
    """The criteria from best to worst by their rank correlation with selectivity.

    `agreed`, `found` and `damaged` are the tables of `rank_agreement`, `precision` and
    `damage.damage`. All columns are means over languages: `selectivity` and `necessity`, the rank
    correlations with `_low` and `_high`; `precision`, the share of the first `budget` neurons that
    are significantly selective; `own`, `other` and `difference`, what masking them does (nats per
    token), with `difference_se`.
    """
    of_all = agreed[agreed["language"] == "all"].set_index(["truth", "criterion"])
    columns = {
        f"{kind}{end}": of_all.loc[kind][name]
        for kind in KINDS[::-1]
        for name, end in (("rho", ""), ("low", "_low"), ("high", "_high"))
    }
    table = pd.DataFrame(columns)
    at = found[found["budget"] == budget].groupby("criterion")["significant"].mean()
    table["precision"] = at.reindex(table.index)
    here = damaged[(damaged["budget"] == budget) & (damaged["seed"] == -1)].groupby("criterion")
    for name in ("own", "other", "difference"):
        table[name] = here[name].mean().reindex(table.index)
    error = here["difference_se"].apply(lambda se: float((se**2).sum() ** 0.5 / len(se)))
    table["difference_se"] = error.reindex(table.index)
    return table.sort_values("selectivity", ascending=False, kind="stable").reset_index()
