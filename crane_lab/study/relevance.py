"""Relevance looked at before anything is made of it: what it explains, and what the rules change.

Measurements of notebooks 01 and 01b on a model and a few windows (§3.2); `conservation` has those
of Eq. 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import spearmanr
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crane_core.attribution import (
    OBJECTIVES,
    RULES,
    neuron_relevance,
    objective_values,
    token_relevance,
)
from crane_core.moments import StreamingMoments
from crane_lab.engines.prompting import opened
from crane_lab.engines.tasks import load_tasks
from crane_lab.pipeline import TABLES

#: A step conserves if the largest error, relative to absolute relevance, stays below this.
LOSSLESS = 1e-5
#: The quantiles of relevance at the input over the output, by name.
QUANTILES = {"5 %": 0.05, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95}


def median_and_range(values: ArrayLike, form: str = ".3f") -> str:
    """Median and the range of the middle 90 % as text."""
    low, middle, high = np.nanquantile(np.asarray(values, dtype=float), (0.05, 0.5, 0.95))
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def by_step(measured: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What each kind of step passes on, under AttnLRP's rules and under the plain gradient.

    `measured` has what `conservation.conservation` returns for each of `RULES`. Returns one row per
    kind of step, with `conserves`: "yes" or "no" (`LOSSLESS`).
    """
    rows = []
    for step, table in measured["attnlrp"].groupby("step", sort=False):
        plain = measured["gradient"].query("step == @step")["share"]
        rows.append(
            {
                "step": step,
                "n": len(table),
                "share due": table["due"].iloc[0],
                "share passed on": median_and_range(table["share"]),
                "largest error": table["error"].max(),
                "conserves": "yes" if table["error"].max() < LOSSLESS else "no",
                # The stream's relevance is close to zero then, and a ratio to it means nothing.
                "plain gradient": np.nan if "stream" in str(step) else plain.median(),
            }
        )
    return pd.DataFrame(rows)


def input_over_output(
    model: PreTrainedModel, windows: Mapping[str, Tensor], objective: str, batch_size: int
) -> pd.DataFrame:
    """Relevance of all input tokens over the output: `language`, `rules`, `n`, `QUANTILES`."""
    rows = []
    for x, ids in windows.items():
        batches = ids.split(batch_size)
        values = torch.cat([objective_values(model, b, objective=objective) for b in batches])
        for rules in RULES:
            sums = torch.cat(
                [
                    token_relevance(model, b, objective=objective, rules=rules).double().sum(1)
                    for b in batches
                ]
            )
            quantiles = np.quantile((sums / values.double()).numpy(), list(QUANTILES.values()))
            rows.append((x, rules, len(values), *quantiles))
    return pd.DataFrame(rows, columns=["language", "rules", "n", *QUANTILES])


# --- which words it looked at ---------------------------------------------------------------------


@dataclass(frozen=True)
class Explained:
    """The relevance of a prompt's tokens for one token of an answer."""

    ids: list[int]  # the tokens seen
    relevance: NDArray[np.float64]  # (tokens,), in logits
    token: str  # what is explained
    answer: str  # what it belongs to
    probability: float  # that the model gives to the token
    rank: int  # of the token among all, 1 for the most probable


def explained(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    answer: str,
    others: Sequence[str] = (),
) -> Explained:
    """Relevance of a prompt's tokens for its answer.

    Explained is the token by which the answer parts from all the other options: its first one, or
    a later one if they begin alike.
    """
    start, ids, *rest = opened(tokenizer, [prompt + text for text in ("", answer, *others)])
    column = len(start)
    while column < len(ids) - 1 and any(x[: column + 1] == ids[: column + 1] for x in rest):
        column += 1
    seen = torch.tensor([ids[: column + 1]])
    relevance = token_relevance(model, seen, target=column)[0, :column]
    with torch.no_grad():
        probabilities = model(input_ids=seen[:, :column]).logits[0, -1].softmax(-1)
    probability = probabilities[ids[column]]
    return Explained(
        ids[:column],
        relevance.double().numpy(),
        str(tokenizer.decode([ids[column]])).strip(),
        answer.strip(),
        float(probability),
        int((probabilities > probability).sum()) + 1,
    )


def reading_questions(
    languages: Sequence[str], folder: str, relation: str = "thing.2"
) -> dict[str, tuple[str, str, list[str]]]:
    """Of each language's reading task the first item of a kind: prompt, right option, wrong ones.

    Without an item of the kind, the first of the task.
    """
    names = {x: TABLES["reading"][x] for x in languages}
    tasks, found = load_tasks(list(names.values()), folder), {}
    for x, name in names.items():
        task = tasks[name]
        docs = list(task.dataset["test"])
        doc = next((doc for doc in docs if doc["relation"] == relation), docs[0])
        options = [task.config.target_delimiter + option for option in doc["options"]]
        right = options.pop(doc["answer"])
        found[x] = (task.doc_to_text(doc), right, options)
    return found


# --- from tokens to neurons -----------------------------------------------------------------------


def covered(relevance: Tensor) -> NDArray[np.float64]:
    """Share of a layer's |relevance| that its first neurons have, largest first.

    Takes and returns (layers, neurons).
    """
    ordered = relevance.abs().sort(dim=1, descending=True).values
    return (ordered.cumsum(1) / ordered.sum(1, keepdim=True)).numpy()


def by_layer(relevance: Tensor, output: float) -> pd.DataFrame:
    """Sums of one window's relevance (layers, neurons), layer by layer, beside the output."""
    sums = relevance.sum(1).numpy()
    return pd.DataFrame(
        {
            "layer": range(len(relevance)),
            "sum": sums,
            "positive": relevance.clamp(min=0).sum(1).numpy(),
            "negative": relevance.clamp(max=0).sum(1).numpy(),
            "sum / output": sums / output,
            "neurons for half of |R|": (covered(relevance) < 0.5).sum(1) + 1,
        }
    )


def at_both_sites(
    model: PreTrainedModel, ids: Tensor, objective: str, batch_size: int
) -> tuple[dict[str, Tensor], float]:
    """Kurtosis at site `intermediate` and at `gate`, `up` and `down`; how far halves are off.

    The second value is the largest difference of a gate or up output's relevance from half the
    intermediate unit's, relative to the largest relevance of its batch.
    """
    streams: dict[str, StreamingMoments] = {}
    apart = 0.0
    for batch in ids.split(batch_size):
        found = {
            "intermediate": neuron_relevance(model, batch, objective=objective),
            **neuron_relevance(model, batch, objective=objective, site="projections"),
        }
        whole = found["intermediate"]
        for site in ("gate", "up"):
            off = (found[site] - whole / 2).abs().max() / whole.abs().max()
            apart = max(apart, off.item())
        for site, values in found.items():
            streams.setdefault(site, StreamingMoments(values.shape[1:])).update(values)
    return {site: stream.kurtosis() for site, stream in streams.items()}, apart


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation along the last dimension."""
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))


def _under_both(
    model: PreTrainedModel, ids: Tensor, objective: str, batch_size: int
) -> Iterator[dict[str, Tensor]]:
    for batch in ids.split(batch_size):
        yield {
            rules: neuron_relevance(model, batch, objective=objective, rules=rules)
            for rules in RULES
        }


def rules_against_gradient(
    model: PreTrainedModel, windows: Mapping[str, Tensor], objective: str, batch_size: int
) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    """AttnLRP's relevance against the plain gradient's, over the neurons of each layer.

    Returns
    -------
    A table with one row per layer: "relevance, <x>", Pearson's r over windows as
    `median_and_range`, and "kurtosis, <x>", Spearman's rank correlation of the neurons' kurtosis
    under the one and under the other. And r itself, {language: (windows, layers)}.
    """
    agreement, columns = {}, {}
    for x, ids in windows.items():
        found: list[Tensor] = []
        streams: dict[str, StreamingMoments] = {}
        for scores in _under_both(model, ids, objective, batch_size):
            found.append(correlation(*scores.values()))
            for rules, values in scores.items():
                streams.setdefault(rules, StreamingMoments(values.shape[1:])).update(values)
        agreement[x] = torch.cat(found)
        columns[f"relevance, {x}"] = [median_and_range(r, ".2f") for r in agreement[x].T]
        columns[f"kurtosis, {x}"] = [
            spearmanr(a.numpy(), b.numpy(), nan_policy="omit").statistic
            for a, b in zip(*(stream.kurtosis() for stream in streams.values()), strict=True)
        ]
    table = pd.DataFrame(columns)
    table.insert(0, "layer", range(len(table)))
    return table, agreement


def by_objective(model: PreTrainedModel, ids: Tensor, most: int = 20) -> pd.DataFrame:
    """Neuron relevance of one window, (1, tokens), under each objective, beside `next_token`.

    Returns `objective`, `explained` (the output), `sum` over all neurons, `correlation` with
    `next_token`'s relevance, and `shared` among the `most` largest of both.
    """
    found = {name: neuron_relevance(model, ids, objective=name)[0].flatten() for name in OBJECTIVES}
    default = found["next_token"]
    first = set(default.abs().topk(most).indices.tolist())
    return pd.DataFrame(
        [
            {
                "objective": name,
                "explained": objective_values(model, ids, objective=name).item(),
                "sum": values.sum().item(),
                "correlation": correlation(values, default).item(),
                "shared": len(first & set(values.abs().topk(most).indices.tolist())),
            }
            for name, values in found.items()
        ]
    )
