"""What masking whole sets does, curve by curve, and the set built up by its own effect.

`gold_standard` reads (or measures) single ablations and the greedy search that criteria are held
against; `damage` masks the first neurons of every criterion's order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from crane_core import models
from crane_core.interventions import zero
from crane_core.masking import masked
from crane_core.selection import NeuronSet, contrast_of
from crane_lab.pipeline import Pipeline
from crane_lab.stages.keys import model_key, weights_of
from crane_lab.stages.losses import held_out_losses
from crane_lab.store import Store, source_digest, write_table
from crane_lab.study import choices
from crane_lab.study.criteria import Score, contrasted, order
from crane_lab.study.necessity import (
    Necessity,
    measure,
    single_effects,
    tensor_digest,
)

#: language -> token windows, int64 (texts, tokens).
Texts = dict[str, Tensor]


#: What orders of measured effects are called.
SINGLE, GREEDY = "single effects", "greedy search"


def random_orders(model: PreTrainedModel, seeds: Sequence[int]) -> dict[int, Tensor]:
    """All intermediate neurons in random order, one order per seed, the same for all languages."""
    layers, width = models.shape(model)["intermediate"]
    return {
        seed: torch.randperm(layers * width, generator=torch.Generator().manual_seed(seed))
        for seed in seeds
    }


@torch.no_grad()
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
        with masked(model, NeuronSet.from_flat(taken, models.shape(model))):
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
        best = order(contrast_of(gain, target))[: size - len(taken)].tolist()
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
            return held_out_losses(model, texts, zero(neurons), store.note)

        about = {
            "model": model_key(model),
            "texts": {x: tensor_digest(w) for x, w in texts.items()},
            "intervention": zero(neurons).digest(),
            "code": source_digest(held_out_losses.__module__),
        }
        return store.tensors("set_losses", about, compute)

    found: dict[Any, dict[Any, float]] = {}
    if known is not None and len(known) and set(known["key"]) == {key}:
        for row in known.to_dict("records"):
            found[str(row["digest"])] = {name: float(row[name]) for name in columns}
    new = {digest: one for one in sets if (digest := one.digest()) not in found}
    if new:
        wanted = [NeuronSet.empty(sets[0].shape), *new.values()]
        bar = tqdm(wanted, desc="masking sets", unit="set")
        start, *measured = store.together(partial(losses, one) for one in bar)
        for digest, after in zip(new, measured, strict=True):
            found[digest] = {}
            for x in texts:
                change = after[x].double() - start[x].double()
                found[digest][x] = float(change.mean())
                found[digest][f"{x}_se"] = float(change.std() / len(change) ** 0.5)
    rows = []
    for neurons in sets:
        digest = neurons.digest()
        effects = {name: found[digest][name] for name in columns}
        rows.append({"digest": digest, "n_neurons": len(neurons), **effects, "key": key})
    return pd.DataFrame(rows)


def effects_key(model: PreTrainedModel, texts: Mapping[str, Tensor]) -> str:
    """What `set_effects` depend on besides the set, as a short digest: model and texts."""
    parts = [weights_of(model), *(f"{x} {tensor_digest(texts[x])}" for x in texts)]
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
    shape = models.shape(model)
    sets = [
        NeuronSet.from_flat(orders[name, x, seed][:budget], shape) for name, x, seed, budget in rows
    ]
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


def orders_of(
    pipeline: Pipeline, scores: Mapping[str, Score], gold: GoldStandard, seeds: Sequence[int]
) -> dict[tuple[str, str, int], Tensor]:
    """The orders that `damage` follows, by (criterion, language, seed; -1 unless random).

    Every criterion's, that of measured selectivity, the greedy search's where there was one, and
    random ones.
    """
    languages = pipeline.settings.languages
    found = {(name, x, -1): order(of[x]) for name, of in scores.items() for x in languages}
    random = random_orders(pipeline.model, seeds)
    for x in languages:
        found[SINGLE, x, -1] = order(gold.necessity.selectivity(x).value)
        if x in gold.greedy:
            found[GREEDY, x, -1] = gold.greedy[x]
        found |= {("random order", x, number): neurons for number, neurons in random.items()}
    return found


FILES = ("necessity.safetensors", "necessity_greedy.csv", "necessity_sets.csv")


def ablations(
    pipeline: Pipeline, texts: Texts, about: Mapping[str, Any] | None = None
) -> Necessity:
    """Every single ablation, to zero and to the neuron's mean; kept in the store piece by piece."""
    set_to = {
        "zero": torch.zeros(pipeline.shape["intermediate"]),
        "mean": pipeline.neuron_values["mean"],
    }
    return measure(pipeline.model, texts, set_to, about or {}, pipeline.store)


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
        "model": weights_of(pipeline.model),
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
        ablations(pipeline, texts, about).save(effects)
        measured = Necessity.load(effects)  # so that reading and measuring give the same
        rows = []
        values = choices.statistic_values(pipeline)["all"]
        magnitude = contrasted({x: values[x]["mean_abs"] for x in s.languages})
        for x in s.languages:
            firsts = [order(v)[:shortlist] for v in (measured.selectivity(x).value, magnitude[x])]
            listed = torch.cat(firsts).unique()
            taken = greedy_order(pipeline.model, few, x, listed, steps).tolist()
            width = pipeline.shape["intermediate"][1]
            rows += [(x, i, *divmod(n, width), key) for i, n in enumerate(taken)]
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
