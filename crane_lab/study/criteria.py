"""Criteria for language-specific neurons, held against what single ablations say (`necessity`).

A criterion is a score per neuron and language, {language: (layers, neurons)}: the higher, the more
likely the neuron is specific to that language. `criteria` collects those of the paper and of its
baselines; anything else of that form can be put beside them by name.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from crane_core import baselines, models
from crane_core import concentration as statistics
from crane_core.attribution import neuron_relevance
from crane_core.kernels import fast_linear
from crane_core.masking import masked
from crane_core.selection import NeuronSet, margins, normalise
from crane_lab.engines import evaluation
from crane_lab.pipeline import Pipeline
from crane_lab.store import Store, source_digest, write_table
from crane_lab.study import choices
from crane_lab.study.necessity import (
    Necessity,
    mean_activations,
    measure,
    single_effects,
    tensor_digest,
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


# ------------------------------------------------------------------------------------ the criteria


def contrasted(score: Score) -> dict[str, Tensor]:
    """A language's score less the largest of the other languages', neuron by neuron."""
    found = {}
    for x in score:
        own, others = margins(score, x)
        found[x] = own - others
    return found


def with_contrasts(scores: Mapping[str, Score]) -> dict[str, Score]:
    """Every criterion, each followed by its contrast between languages."""
    found: dict[str, Score] = {}
    for name, score in scores.items():
        found[name] = score
        found[f"{name}, contrast"] = contrasted(score)
    return found


def gradient_x_activation(pipeline: Pipeline) -> dict[str, Tensor]:
    """Mean |activation × plain gradient| of every neuron, without any LRP rule, in logits.

    What `statistics`' mean |relevance| is under AttnLRP's rules, on the same samples, with the same
    objective and reduction. {language: float64 (layers, neurons)}.
    """
    s = pipeline.settings

    def compute() -> dict[str, Tensor]:
        sums = {}
        for x, windows in pipeline.windows.items():
            total = torch.zeros(pipeline.shape["intermediate"], dtype=torch.float64)
            batches = windows.split(s.batch_size)
            for ids in tqdm(batches, desc=f"gradient × activation, {x}", unit="batch"):
                product = neuron_relevance(
                    pipeline.model, ids, None, s.objective, rules="gradient", reduction=s.reduction
                )
                total += product.double().abs().sum(0).cpu()
            sums[x] = total / len(windows)
        return sums

    key = {
        "model": models.fingerprint(pipeline.model),
        "texts": {x: tensor_digest(windows) for x, windows in pipeline.windows.items()},
        "objective": s.objective,
        "reduction": s.reduction,
        "batch_size": s.batch_size,
        "code": source_digest("crane_core.attribution"),
    }
    found = pipeline.store.tensors("gradient_x_activation", key, compute)
    return {x: found[x] for x in s.languages}


def act_prob_90p(pipeline: Pipeline) -> dict[str, Tensor]:
    """Act Prob 90p's score: how often a neuron exceeds its own 90th percentile in a language.

    Taken on the texts that kurtosis is taken on; {language: float64 (layers, neurons)}.
    """
    s = pipeline.settings

    def compute() -> dict[str, Tensor]:
        found = {}
        for x, windows in pipeline.windows.items():
            batches = [(ids, torch.ones_like(ids)) for ids in windows.split(s.batch_size)]
            with fast_linear():
                bars = baselines.activation_quantiles(pipeline.model, batches)
                counts, tokens = baselines.activation_counts(pipeline.model, batches, bars)
            found[x] = counts.double() / tokens
        return found

    key = {
        "model": models.fingerprint(pipeline.model),
        "texts": {x: tensor_digest(windows) for x, windows in pipeline.windows.items()},
        "batch_size": s.batch_size,
        "code": source_digest("crane_core.baselines"),
    }
    found = pipeline.store.tensors("act_prob", key, compute)
    return {x: found[x] for x in s.languages}


def lape(pipeline: Pipeline) -> dict[str, Tensor]:
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
    - the other `statistics` of the relevance of the settings' objective: those of shape normalised
      likewise, those of size, which has one unit in all layers, as they are;
    - "gradient × activation", "Act Prob 90p" and "LAPE".

    Each but LAPE, which compares languages already, is there alone and as a contrast, its own score
    less the largest of another language's.
    """
    scores: dict[str, Score] = {}
    for objective in objectives:
        settings = dataclasses.replace(pipeline.settings, objective=objective)
        of = pipeline if settings == pipeline.settings else Pipeline(settings, pipeline.store)
        kurtosis = {x: k for x, k in of.kurtosis().items() if isinstance(k, Tensor)}
        how = pipeline.settings.normalisation
        scores[f"kurtosis ({OBJECTIVES.get(objective, objective)})"] = normalise(kurtosis, how)
    values = choices.statistic_values(pipeline)["all"]
    for name, statistic in statistics.STATISTICS.items():
        if name == "kurtosis":
            continue
        found = {x: statistic.sign * values[x][name] for x in pipeline.settings.languages}
        if statistic.kind == "shape":
            found = {x: normalise(v, pipeline.settings.normalisation) for x, v in found.items()}
        scores[statistic.label] = found
    scores["gradient × activation"] = gradient_x_activation(pipeline)
    scores["Act Prob 90p"] = act_prob_90p(pipeline)
    return {**with_contrasts(scores), "LAPE": lape(pipeline)}


# --------------------------------------------------------------------- against single ablations


def agreement(
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


def reliability(necessity: Necessity, value: str = "zero") -> pd.DataFrame:
    """How well the effects agree with themselves: Spearman's correlation between halves of texts.

    One row per language and truth: `halves`, the correlation between the even and the odd groups of
    texts, and `all`, what Spearman and Brown's formula makes of it for all texts together: about as
    high as a criterion's correlation with them could be.
    """
    rows = []
    for x in necessity.languages:
        halves = [
            {y: f[start::2].mean(0) for y, f in necessity.folds[value].items()} for start in (0, 1)
        ]
        for kind in KINDS:
            a, b = (
                (half[x] if kind == "necessity" else _selective(half, x)).flatten().numpy()
                for half in halves
            )
            r = float(_correlations(a[None], b[None])[0, 0])
            rows.append({"language": x, "truth": kind, "halves": r, "all": 2 * r / (1 + r)})
    return pd.DataFrame(rows)


def _selective(effects: Mapping[str, Tensor], language: str) -> Tensor:
    others = [effect for x, effect in effects.items() if x != language]
    return effects[language] - torch.stack(others).amax(0)


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


def neuron_set(chosen: Tensor, model: PreTrainedModel) -> NeuronSet:
    """Intermediate neurons given as indices into the flattened (layers, neurons)."""
    shape = models.shape(model)
    mask = torch.zeros(shape["intermediate"], dtype=torch.bool)
    mask.view(-1)[chosen] = True
    return NeuronSet({"intermediate": mask}, shape)


def random_orders(model: PreTrainedModel, seeds: Sequence[int]) -> dict[int, Tensor]:
    """All intermediate neurons in random order, one order per seed, the same for all languages."""
    layers, width = models.shape(model)["intermediate"]
    return {
        seed: torch.randperm(layers * width, generator=torch.Generator().manual_seed(seed))
        for seed in seeds
    }


def greedy_order(
    model: PreTrainedModel,
    texts: Mapping[str, Tensor],
    target: str,
    shortlist: Tensor,
    steps: Sequence[int],
    batch_size: int = 16,
) -> Tensor:
    """A set built up by its own effect: the best known ceiling for damage to one language alone.

    In every round each neuron left on the shortlist is ablated (to zero) on top of the set found so
    far, and its worth is the target's loss then less the largest increase of another language's,
    both against the untouched model. The best are taken together until the set has the next size
    of `steps`. It is greedy and takes many at a time, so the best set may be better.

    Parameters
    ----------
    texts : language -> texts that effects are measured on.
    shortlist : indices into the flattened (layers, neurons) to choose from.
    steps : sizes of the set after each round, increasing.

    Returns the neurons in the order in which they were taken, int64 (steps[-1],); within a round
    the best first.

    Raises ValueError if the steps do not increase or ask for more than the shortlist.
    """
    if list(steps) != sorted(set(steps)) or not steps or not 0 < steps[-1] <= len(shortlist):
        raise ValueError(
            f"steps {list(steps)}: expected increasing sizes up to the {len(shortlist)} listed"
        )
    width = models.shape(model)["intermediate"][1]
    taken: list[int] = []
    rest = [int(i) for i in shortlist]
    start: dict[str, float] = {}
    for size in tqdm(steps, desc=f"greedy set, {target}", unit="round"):
        gain: dict[str, Tensor] = {}
        with masked(model, neuron_set(torch.tensor(taken, dtype=torch.long), model)):
            for x, windows in texts.items():
                worth = torch.empty(len(rest), dtype=torch.float64)
                for layer in sorted({i // width for i in rest}):
                    places = [k for k, i in enumerate(rest) if i // width == layer]
                    untouched, found = single_effects(
                        model, windows, layer, [rest[k] % width for k in places], [0.0], batch_size
                    )
                    start.setdefault(x, float(untouched.mean()))
                    worth[places] = found[0].mean(1) - start[x]
                gain[x] = worth
        best = order(_selective(gain, target))[: size - len(taken)].tolist()
        taken += [rest[k] for k in best]
        kept = set(best)
        rest = [i for k, i in enumerate(rest) if k not in kept]
    return torch.tensor(taken)


def set_effects(
    model: PreTrainedModel,
    sets: Sequence[NeuronSet],
    texts: Mapping[str, Tensor],
    known: pd.DataFrame | None = None,
    store: Store | None = None,
) -> pd.DataFrame:
    """What zeroing whole sets does to each language's loss on texts.

    Parameters
    ----------
    sets : the sets; the empty one changes nothing.
    texts : language -> int64 (texts, tokens).
    known : rows of an earlier result on the same model and texts (see `effects_key`); a set that
        is there is not measured again.
    store : where the losses of each set are kept.

    Returns
    -------
    One row per set: `digest`, `n_neurons`, and for every language `<language>`, the mean loss
    increase in nats per token, and `<language>_se`, its standard error over texts.
    """
    key = effects_key(model, texts)
    columns = [name for x in texts for name in (x, f"{x}_se")]
    store = store or Store()

    def losses(neurons: NeuronSet) -> dict[str, Tensor]:
        def compute() -> dict[str, Tensor]:
            with masked(model, neurons):
                return {x: evaluation.perplexity(model, w).losses for x, w in texts.items()}

        code = source_digest("crane_lab.engines.evaluation", "crane_core.masking")
        return store.tensors(
            "set_losses", {"of": key, "neurons": neurons.digest(), "code": code}, compute
        )

    found: dict[Any, dict[Any, float]] = {}
    if known is not None and len(known) and set(known["key"]) == {key}:
        for row in known.to_dict("records"):
            found[str(row["digest"])] = {name: float(row[name]) for name in columns}
    start: dict[str, Tensor] = {}
    rows = []
    for neurons in tqdm(sets, desc="masking sets", unit="set"):
        digest = neurons.digest()
        if digest not in found:
            start = start or losses(NeuronSet.empty(neurons.shape))
            after = losses(neurons)
            found[digest] = {}
            for x in texts:
                change = after[x].double() - start[x].double()
                found[digest][x] = float(change.mean())
                found[digest][f"{x}_se"] = float(change.std() / len(change) ** 0.5)
        effects = {name: found[digest][name] for name in columns}
        rows.append({"digest": digest, "n_neurons": len(neurons), **effects, "key": key})
    return pd.DataFrame(rows)


def effects_key(model: PreTrainedModel, texts: Mapping[str, Tensor]) -> str:
    """What `set_effects` depend on besides the set, as a short digest: model and texts."""
    parts = [models.fingerprint(model), *(f"{x} {tensor_digest(texts[x])}" for x in texts)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def damage(
    orders: Mapping[tuple[str, str, int], Tensor],
    budgets: Sequence[int],
    model: PreTrainedModel,
    texts: Mapping[str, Tensor],
    known: pd.DataFrame | None = None,
    store: Store | None = None,
) -> pd.DataFrame:
    """Damage curves: what the first neurons of an order do to every language, budget by budget.

    `orders`: (criterion, language, seed) -> indices into the flattened (layers, neurons); budgets
    longer than an order are left out. Returns `set_effects`' rows with `criterion`, `language`,
    `seed` (-1 unless random) and `budget`; `own` and `own_se`, the masked language's increase;
    `other`, the largest of another language's; `difference` of the two with `difference_se`.
    """
    rows = [(*k, b) for k, chosen in orders.items() for b in budgets if b <= len(chosen)]
    sets = [neuron_set(orders[name, x, seed][:budget], model) for name, x, seed, budget in rows]
    table = set_effects(model, sets, texts, known, store)
    keys = pd.DataFrame(rows, columns=["criterion", "language", "seed", "budget"])
    table = pd.concat([keys, table], axis=1)
    derived = []
    for row in table.to_dict("records"):
        x = row["language"]
        other = max((y for y in texts if y != x), key=lambda y: row[y])
        derived.append(
            {
                "own": row[x],
                "own_se": row[f"{x}_se"],
                "other": row[other],
                "difference": row[x] - row[other],
                "difference_se": float(np.hypot(row[f"{x}_se"], row[f"{other}_se"])),
            }
        )
    return pd.concat([table, pd.DataFrame(derived)], axis=1)


def predicted(
    table: pd.DataFrame, orders: Mapping[tuple[str, str, int], Tensor], necessity: Necessity
) -> pd.DataFrame:
    """The sum of single effects of each set of `damage`, beside what the whole set does.

    `damage`'s rows with `predicted`, the summed necessity (to zero) for the masked language of the
    set's neurons, and `ratio`, measured / predicted (NaN where the sum is not above 0).
    """
    sums = []
    for row in table.to_dict("records"):
        chosen = orders[row["criterion"], row["language"], row["seed"]][: row["budget"]]
        effect = necessity.necessity(row["language"], "zero").value.flatten()
        sums.append(float(effect[chosen].sum()))
    found = table.assign(predicted=sums)
    return found.assign(ratio=found["own"] / found["predicted"].where(found["predicted"] > 0))


def ranking(
    agreed: pd.DataFrame, found: pd.DataFrame, damaged: pd.DataFrame, budget: int
) -> pd.DataFrame:
    """The criteria from best to worst by their rank correlation with selectivity.

    `agreed`, `found` and `damaged` are the tables of `agreement`, `precision` and `damage`. All
    columns are means over languages: `selectivity` and `necessity`, the rank correlations with
    `_low` and `_high`; `precision`, the share of the first `budget` neurons that are significantly
    selective; `own`, `other` and `difference`, what masking them does (nats per token), with
    `difference_se`.
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


# ------------------------------------------------------------------------------- the gold standard

#: Windows left out between the texts that rank neurons and those that damage is measured on, so
#: that no document has a part in both.
GAP = 3


def held_out(pipeline: Pipeline, n_ranking: int, n_damage: int) -> tuple[Texts, Texts]:
    """Held-out texts, `{language: (n, window)}`, to measure single effects on, and others.

    Both come from the perplexity corpus, whose documents are neither in the training text nor in
    the corpus that criteria are computed on; the second begin `GAP` windows after the first.
    """
    s = pipeline.settings
    total = n_ranking + GAP + n_damage
    windows = pipeline.perplexity_corpus.windows(
        pipeline.tokenizer, s.languages, total, s.window, s.seed
    )
    return (
        {x: w[:n_ranking] for x, w in windows.items()},
        {x: w[n_ranking + GAP :] for x, w in windows.items()},
    )


@dataclass(frozen=True)
class GoldStandard:
    """What single ablations say, with a set built up greedily by its own effect.

    Attributes
    ----------
    necessity : the effects of all single ablations.
    greedy : language -> neurons in the order of `greedy_order`; empty where there was no search.
    sets : effects of whole sets that are known already, for `damage`.
    """

    necessity: Necessity
    greedy: Mapping[str, Tensor]
    sets: pd.DataFrame | None


FILES = ("necessity.safetensors", "necessity_greedy.csv", "necessity_sets.csv")


def gold_standard(
    pipeline: Pipeline,
    texts: Texts,
    folder: str | Path,
    recompute: bool = False,
    n_greedy: int = 32,
    shortlist: int = 256,
    steps: Sequence[int] = (16, 32, 64, 128, 256),
) -> GoldStandard:
    """Read the shipped effects of single ablations, or measure them (`recompute`) and save them.

    Parameters
    ----------
    pipeline : model and settings. Neurons are set to zero, and to their mean over the tokens of all
        languages' texts that criteria are computed on (`Pipeline.windows`), pooled.
    texts : what effects are measured on, `held_out`'s first.
    folder : where `FILES` are read from, or written to.
    n_greedy, shortlist, steps : the greedy search runs on the first `n_greedy` texts, over the
        `shortlist` neurons that are most selective alone and as many that come first by the
        contrast of mean |relevance|, up to the sizes `steps`.

    Raises FileNotFoundError if there are no files, and ValueError if they belong to another model
    or to other texts.
    """
    s, folder = pipeline.settings, Path(folder)
    source = {
        "model": models.fingerprint(pipeline.model),
        "texts": pipeline.perplexity_corpus.fingerprint(s.languages),
        "n_texts": len(texts[s.languages[0]]),
        "window": s.window,
        "seed": s.seed,
    }
    few = {x: w[:n_greedy] for x, w in texts.items()}
    key = effects_key(pipeline.model, few)
    effects, greedy, sets = (folder / name for name in FILES)
    if recompute:
        mean_of = pipeline.corpus.fingerprint(s.languages)
        about = {**source, "mean_over": mean_of, "mean_n_samples": s.n_samples}
        size = pipeline.shape["intermediate"]
        set_to = {
            "zero": torch.zeros(size),
            "mean": mean_activations(pipeline.model, pipeline.windows),
        }
        measured = measure(pipeline.model, texts, set_to, about, pipeline.store)
        measured.save(effects)
        measured = Necessity.load(effects)  # so that reading and measuring give the same
        rows = []
        values = choices.statistic_values(pipeline)["all"]
        magnitude = contrasted({x: values[x]["mean_abs"] for x in s.languages})
        for x in s.languages:
            firsts = [order(v)[:shortlist] for v in (measured.selectivity(x).value, magnitude[x])]
            listed = torch.cat(firsts).unique()
            taken = greedy_order(pipeline.model, few, x, listed, steps).tolist()
            rows += [(x, i, *divmod(n, size[1]), key) for i, n in enumerate(taken)]
        columns = ["language", "place", "layer", "neuron", "key"]
        write_table(pd.DataFrame(rows, columns=columns), greedy)
    found = Necessity.load(effects)
    found.require_source(source)
    if not greedy.is_file():
        return GoldStandard(found, {}, pd.read_csv(sets) if sets.is_file() else None)
    table = pd.read_csv(greedy)
    if set(table["key"]) != {key}:
        raise ValueError(f"{greedy} belongs to another model or to other texts; recompute it")
    width = pipeline.shape["intermediate"][1]
    orders = {
        str(x): torch.tensor((own["layer"] * width + own["neuron"]).to_list())
        for x, own in table.groupby("language", sort=False)
    }
    return GoldStandard(found, orders, pd.read_csv(sets) if sets.is_file() else None)


def known_sets(damaged: pd.DataFrame) -> pd.DataFrame:
    """The effects of each set in `damage`'s table once, as `set_effects` takes them for `known`."""
    named = ["criterion", "language", "seed", "budget"]
    named += ["own", "own_se", "other", "difference", "difference_se"]
    return damaged.drop(columns=named).drop_duplicates("digest", ignore_index=True)
