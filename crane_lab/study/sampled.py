"""Single ablations of a sample of neurons, where a model has too many to ablate them all.

The sample has two parts. Neurons drawn at random, as many in every layer, stand for all neurons:
what is estimated from them alone is about the model. The first neurons of every criterion are there
to be judged themselves; together with the random ones they are a *selected* sample, in which
criteria agree more, or less, than they do over all neurons.

Effects are measured in two phases. What the loss's gradient says of an ablation (`first_order`) is
had for many texts at little cost; the true effect is measured on some of these texts. The estimate
is the mean of the first over all texts, plus the mean of their difference where both are known:
unbiased whatever the gradient is worth, and the less noisy the closer the two are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from crane_core.concentration import STATISTICS
from crane_lab.stages.keys import model_key
from crane_lab.store import Store, source_digest
from crane_lab.study import nearby, necessity
from crane_lab.study.criteria import (
    KINDS,
    OBJECTIVES,
    RELATIVE,
    Score,
    order,
    rank_agreement,
    split_half,
)
from crane_lab.study.necessity import (
    FOLDS,
    Estimate,
    Necessity,
    require_linear_head,
    tensor_digest,
    texts_each,
)

RANDOM = "random"
#: Neurons in one stored piece: what an interruption costs at most.
CHUNK = 32
#: Texts in one stored piece of the first phase.
TEXTS = 8


def main_criteria(objective: str = "next_token") -> list[str]:
    """Names of the criteria whose first neurons are ablated; CRANE's default score comes first."""
    labels = [STATISTICS[name].label for name in ("mean_abs", "signed_mean")]
    return [
        f"kurtosis ({OBJECTIVES.get(objective, objective)}), contrast",
        f"{labels[0]}, contrast",
        RELATIVE,
        f"{labels[1]}, contrast",
        "gradient × activation, contrast",
        "Act Prob 90p, contrast",
        "LAPE",
    ]


# ------------------------------------------------------------------------------------- the sample


def choose(
    scores: Mapping[str, Score],
    names: Sequence[str],
    n_top: int = 60,
    n_random: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """The neurons to ablate, and why each of them.

    Parameters
    ----------
    scores : the criteria by name.
    names : those whose first neurons are wanted.
    n_top : so many of each of them in each language.
    n_random : so many drawn from each layer, whatever the criteria say.

    Returns
    -------
    One row per neuron and reason: `layer`, `neuron`, `criterion` (or "random"), `language` (or "")
    and `place`, the neuron's in that order, from 1.

    Raises ValueError for an unknown criterion, and for more neurons than there are.
    """
    if unknown := [name for name in names if name not in scores]:
        raise ValueError(f"unknown criterion {unknown[0]!r}: there are {list(scores)}")
    layers, width = next(iter(next(iter(scores.values())).values())).shape
    if not 1 <= n_top <= layers * width or not 1 <= n_random <= width:
        raise ValueError(
            f"n_top is {n_top} and n_random {n_random}: expected 1 to {layers * width} neurons of "
            f"the model, and 1 to {width} of a layer"
        )
    rows: list[tuple[Any, ...]] = []
    generator = torch.Generator().manual_seed(seed)
    for layer in range(layers):
        drawn = torch.randperm(width, generator=generator)[:n_random].tolist()
        rows += [(layer, i, RANDOM, "", place) for place, i in enumerate(drawn, 1)]
    for name in names:
        for x, score in scores[name].items():
            for place, i in enumerate(order(score)[:n_top].tolist(), 1):
                rows.append((*divmod(i, width), name, x, place))
    return pd.DataFrame(rows, columns=["layer", "neuron", "criterion", "language", "place"])


def neurons_of(sample: pd.DataFrame) -> pd.DataFrame:
    """The neurons of a sample once each, `layer` and `neuron`, by layer and number."""
    once = sample[["layer", "neuron"]].drop_duplicates()
    return once.sort_values(["layer", "neuron"], ignore_index=True)


def _drawn(sample: pd.DataFrame, neurons: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of a sample's neurons were drawn at random, bool (neurons,)."""
    return is_in(neurons, sample[sample["criterion"] == RANDOM])


def is_in(neurons: pd.DataFrame, part: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of `neurons` are in `part`, rows of a sample; bool (neurons,)."""
    wanted = set(zip(part["layer"], part["neuron"], strict=True))
    return np.array([pair in wanted for pair in zip(*neurons.to_numpy().T, strict=True)])


# ------------------------------------------------------------------------------------ the effects


def two_phase(exact: Tensor, first: Tensor, chosen: Tensor) -> tuple[Estimate, Tensor]:
    """Mean effects from many approximate values and some exact ones.

    Parameters
    ----------
    exact : the exact effects on the texts `chosen`, (chosen, neurons).
    first : the approximate ones on all texts, (texts, neurons).
    chosen : indices of texts.

    Returns the estimates with their errors and degrees of freedom (Satterthwaite), (neurons,), and
    the same estimate from each of `FOLDS` groups of texts alone, (folds, neurons).
    """
    first, exact = first.double(), exact.double()
    apart = exact - first[chosen]
    n, m = len(first), len(exact)
    both = ((apart - apart.mean(0)) * (first[chosen] - first[chosen].mean(0))).sum(0) / (m - 1)
    many = ((first.var(0) + 2 * both) / n).clamp(min=0)
    few = apart.var(0) / m
    variance = many + few
    freedom = variance.square() / (many.square() / (n - 1) + few.square() / (m - 1))
    folds = [
        first[part].mean(0) + apart[torch.isin(chosen, part)].mean(0)
        for part in torch.arange(n).tensor_split(FOLDS)
    ]
    value = first.mean(0) + apart.mean(0)
    return Estimate(value, variance.sqrt(), freedom.nan_to_num(m - 1)), torch.stack(folds)


def chosen_texts(n_texts: int, n_exact: int) -> Tensor:
    """Indices of the texts for the second phase: the first few of each of `FOLDS` groups.

    Raises ValueError unless both numbers are multiples of `FOLDS`, and the second not the larger.
    """
    if n_texts % FOLDS or n_exact % FOLDS or not 0 < n_exact <= n_texts:
        raise ValueError(
            f"{n_exact} of {n_texts} texts: expected multiples of {FOLDS}, the first at most the "
            "second"
        )
    groups = torch.arange(n_texts).view(FOLDS, -1)
    return groups[:, : n_exact // FOLDS].flatten()


def measure_sample(
    model: PreTrainedModel,
    texts: Mapping[str, Tensor],
    neurons: pd.DataFrame,
    set_to: Mapping[str, Tensor],
    n_exact: int,
    source: Mapping[str, Any],
    store: Store | None = None,
) -> Necessity:
    """Effects of ablating each neuron of a sample alone, on every language's loss.

    Parameters
    ----------
    texts : language -> held-out texts, int64 (texts, tokens), as many for every language.
    neurons : as `neurons_of` returns them.
    set_to : name -> the constants (layers, neurons), such as "zero" and "mean".
    n_exact : on so many of the texts the true effect is measured; all: nothing is approximated but
        the softmax's normaliser (`nearby`).
    source : what identifies model and texts, as JSON, to be carried along.
    store : where finished pieces are kept; several processes with one store share the work.

    Returns the effects as of a model with one layer, (1, len(neurons)), in the order of `neurons`.

    Raises ValueError as `texts_each`, `chosen_texts` and `require_linear_head` do.
    """
    n = texts_each(texts)
    require_linear_head(model)
    chosen = chosen_texts(n, n_exact)
    store = store or Store()
    key = {
        "model": model_key(model),
        "code": source_digest(nearby.__name__, necessity.__name__),
    }
    constants = {v: tensor_digest(tensor) for v, tensor in set_to.items()}
    layers = torch.tensor(neurons["layer"].to_list())
    numbers = torch.tensor(neurons["neuron"].to_list())
    first = {x: torch.empty(len(set_to), n, len(neurons)) for x in texts}
    exact = {x: torch.empty(len(set_to), n_exact, len(neurons), dtype=torch.double) for x in texts}
    near: dict[str, nearby.Nearby] = {}

    def approximate(x: str, start: int) -> None:
        windows = texts[x][start : start + TEXTS]
        about = {**key, "texts": tensor_digest(windows), "constants": constants}
        found = store.tensors(
            "first_order", about, lambda: {"i": nearby.first_order(model, windows, set_to)}
        )["i"]
        first[x][:, start : start + TEXTS] = found[:, :, layers, numbers]

    def measured(v: int, x: str, layer: int, columns: list[int]) -> None:
        windows, value = texts[x][chosen], list(set_to.values())[v][layer]
        own = numbers[columns].tolist()

        def compute() -> dict[str, Tensor]:
            if x not in near:
                near[x] = nearby.near_texts(model, windows)
            return {"i": nearby.increases(model, windows, layer, own, value, near[x])}

        about = {
            **key,
            "texts": tensor_digest(windows),
            "layer": layer,
            "neurons": own,
            "constants": tensor_digest(value[own]),
        }
        exact[x][v][:, columns] = store.tensors("sampled", about, compute)["i"].t()

    pieces = [(x, start) for x in texts for start in range(0, n, TEXTS)]
    bar = tqdm(pieces, desc="gradients of the loss", unit="piece")
    store.together(partial(approximate, *piece) for piece in bar)
    places = {int(i): torch.nonzero(layers == i).flatten().split(CHUNK) for i in layers.unique()}
    work = [
        (v, x, layer, part.tolist())
        for v in range(len(set_to))
        for x in texts
        for layer, parts in places.items()
        for part in parts
    ]
    bar = tqdm(work, desc="ablating single neurons", unit="piece")
    store.together(partial(measured, *piece) for piece in bar)
    effects: dict[str, dict[str, Estimate]] = {name: {} for name in set_to}
    folds: dict[str, dict[str, Tensor]] = {name: {} for name in set_to}
    for x in texts:
        for v, name in enumerate(set_to):
            found, groups = two_phase(exact[x][v], first[x][v], chosen)
            parts = (found.value, found.error, found.freedom)
            effects[name][x] = Estimate(*(None if p is None else p[None] for p in parts))  # type: ignore[arg-type]
            folds[name][x] = groups[:, None]
    values = {name: tensor[layers, numbers][None] for name, tensor in set_to.items()}
    return Necessity(effects, folds, values, n, source)


def part_of_effects(found: Necessity, which: Tensor) -> Necessity:
    """The effects of some neurons of a sample; `which` is a mask or indices."""
    effects = {
        v: {
            x: Estimate(
                e.value[:, which],
                e.error[:, which],
                None if e.freedom is None else e.freedom[:, which],
            )
            for x, e in own.items()
        }
        for v, own in found.effects.items()
    }
    folds = {v: {x: f[..., which] for x, f in own.items()} for v, own in found.folds.items()}
    set_to = {v: tensor[:, which] for v, tensor in found.set_to.items()}
    return Necessity(effects, folds, set_to, found.n_texts, found.source)


# ------------------------------------------------------------------------------------- the tables


def single_effects_table(
    sample: pd.DataFrame, neurons: pd.DataFrame, found: Necessity, level: float = 0.05
) -> pd.DataFrame:
    """One row per neuron of a sample: why it is there, and what its ablation does.

    `layer`, `neuron`, `random` (whether it was drawn), for every criterion the languages for which
    it is among the first, and for every value and language `<value>_<language>`, the increase in
    nats per token, with `_se`, and `_selective`, whether it is significantly selective at the
    false-discovery rate `level` (drawn neurons are tested together, and so are all others).
    """
    drawn = _drawn(sample, neurons)
    table = neurons.assign(random=drawn)
    parts = [torch.from_numpy(part) for part in (drawn, ~drawn) if part.any()]
    taken = sample[sample["criterion"] != RANDOM]
    for name, own in taken.groupby("criterion", sort=False):
        languages = own.groupby(["layer", "neuron"])["language"].agg(" ".join)
        pairs = pd.MultiIndex.from_frame(neurons[["layer", "neuron"]])
        table[str(name)] = languages.reindex(pairs, fill_value="").to_numpy()
    columns = {}
    for value in found.values:
        for x in found.languages:
            effect = found.necessity(x, value)
            columns[f"{value}_{x}"] = effect.value[0].numpy()
            columns[f"{value}_{x}_se"] = effect.error[0].numpy()
            selective = torch.zeros(len(neurons), dtype=torch.bool)
            for part in parts:
                alone = part_of_effects(found, part)
                selective[part] = alone.significant(x, KINDS[1], value, level)[0]
            columns[f"{value}_{x}_selective"] = selective.numpy()
    return pd.concat([table, pd.DataFrame(columns)], axis=1)


def sampled_correlations(
    scores: Mapping[str, Score],
    sample: pd.DataFrame,
    neurons: pd.DataFrame,
    found: Necessity,
    reference: str,
    n_boot: int = 400,
    seed: int = 0,
) -> pd.DataFrame:
    """`criteria.rank_agreement` at every value, over the random part and over the whole sample.

    Its rows with `set_to` and `part`: "random", which stands for all neurons of the model, or
    "sample", which was selected by the criteria themselves; `n`, the neurons.
    """
    drawn = torch.from_numpy(_drawn(sample, neurons))
    layers, numbers = (torch.tensor(neurons[c].to_list()) for c in ("layer", "neuron"))
    tables = []
    for part, which in ((RANDOM, drawn), ("sample", torch.ones_like(drawn))):
        own = part_of_effects(found, which)
        of = {
            name: {x: score[x][layers, numbers][which][None] for x in found.languages}
            for name, score in scores.items()
        }
        for value in found.values:
            table = rank_agreement(of, own, value, reference, n_boot, seed=seed)
            tables.append(table.assign(set_to=value, part=part, n=int(which.sum())))
    return pd.concat(tables, ignore_index=True)


def ceiling(sample: pd.DataFrame, neurons: pd.DataFrame, found: Necessity) -> pd.DataFrame:
    """How well the effects of the random part repeat: `criteria.split_half`, with `set_to`."""
    own = part_of_effects(found, torch.from_numpy(_drawn(sample, neurons)))
    tables = [split_half(own, value).assign(set_to=value) for value in found.values]
    return pd.concat(tables, ignore_index=True)


def precision_of_tops(
    sample: pd.DataFrame,
    neurons: pd.DataFrame,
    found: Necessity,
    level: float = 0.05,
    n_boot: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """How selective the first neurons of each criterion are, beside neurons drawn at random.

    One row per value, criterion and language; "random" is the random part. `n`, the neurons;
    `selectivity`, their mean in nats per token, and `ahead`, how far it is above that of random
    neurons in the same layers (the random part, each layer weighted by how many of the criterion's
    neurons are in it), each with `_low` and `_high` (95 %, neurons and groups of texts resampled
    together);
    `significant`, the share that is significantly selective (false-discovery rate `level`, over the
    whole sample), with `_low` and `_high` (Wilson).
    """
    rng = np.random.default_rng(seed)
    names = list(dict.fromkeys(sample["criterion"]))
    tops = {
        (name, x): is_in(
            neurons, sample[(sample["criterion"] == name) & sample["language"].isin([x, ""])]
        ).nonzero()[0]
        for name in names
        for x in found.languages
    }
    layers = neurons["layer"].to_numpy()
    drawn = _drawn(sample, neurons)
    in_layer = {layer: np.flatnonzero(drawn & (layers == layer)) for layer in np.unique(layers)}
    rows = []
    for value in found.values:
        for x in found.languages:
            hit = found.significant(x, KINDS[1], value, level)[0].numpy()
            mean = found.selectivity(x, value).value[0].numpy()
            groups = {y: f[:, 0].numpy() for y, f in found.folds[value].items()}
            for name in names:
                own = tops[name, x]
                beside = [
                    (np.mean(layers[own] == layer), in_layer[layer])
                    for layer in np.unique(layers[own])
                ]
                again = np.empty((n_boot, 2))
                for b in range(n_boot):
                    texts = {
                        y: g[rng.integers(len(g), size=len(g))].mean(0) for y, g in groups.items()
                    }
                    others = np.max([e for y, e in texts.items() if y != x], axis=0)
                    lead = texts[x] - others
                    again[b, 0] = lead[rng.choice(own, len(own))].mean()
                    again[b, 1] = sum(w * lead[rng.choice(i, len(i))].mean() for w, i in beside)
                at = mean[own].mean()
                level_of = sum(w * mean[i].mean() for w, i in beside)
                # Of the resamples only the spread, as in `rank_agreement`.
                here = again[:, 0] - again[:, 0].mean() + at
                gap = again[:, 0] - again[:, 1]
                gap += at - level_of - gap.mean()
                share = binomtest(int(hit[own].sum()), len(own)).proportion_ci(method="wilson")
                low, high = np.quantile(here, [0.025, 0.975])
                row = {"set_to": value, "criterion": name, "language": x, "n": len(own)}
                row |= {"selectivity": at, "selectivity_low": low, "selectivity_high": high}
                if name != RANDOM:
                    low, high = np.quantile(gap, [0.025, 0.975])
                    row |= {"ahead": at - level_of, "ahead_low": low, "ahead_high": high}
                row |= {"significant": hit[own].mean(), "significant_low": share.low}
                rows.append(row | {"significant_high": share.high})
    return pd.DataFrame(rows)
