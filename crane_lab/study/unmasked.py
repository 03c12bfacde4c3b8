"""What the unmasked testbed can do, measured: what every mask is compared with (§4.3)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from crane_core.interventions import zero
from crane_core.windows import plain_tokens
from crane_lab.pipeline import TABLES, Pipeline
from crane_lab.study import gate
from crane_lab.testbed.text import Writer
from crane_lab.testbed.world import World
from crane_lab.texts.languages import language_names

#: What the worlds of all languages have in common.
SHARED = ("country", "animal", "ingredient", "job", "place")


def parallel_questions(worlds: Mapping[str, World]) -> dict[str, list[str]]:
    """One question with its answer for every fact about a shared thing, the same in each language.

    Raises ValueError if the languages' worlds do not share the same facts.
    """
    found = {}
    for x, world in worlds.items():
        writer = Writer(world, random.Random(0))
        found[x] = [
            f"{writer.test(subject, relation)}{writer.space}{answer}"
            for kind in SHARED
            for subject in world.subjects[kind]
            for relation, answer in subject.facts.items()
            if "test" in writer.phrases[kind][relation]
        ]
    if len({len(lines) for lines in found.values()}) > 1:
        raise ValueError(
            "the worlds are not parallel: "
            + ", ".join(f"{len(lines)} questions in {x}" for x, lines in found.items())
        )
    return found


def tokens_needed(
    tokenizer: PreTrainedTokenizerBase, same_content: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """Characters, bytes and tokens of the same lines in each language, one row per language.

    The last column relates the tokens to those of the first language.
    """
    rows = []
    for x, lines in same_content.items():
        encoded = plain_tokens(tokenizer, lines)
        n_tokens, characters = sum(map(len, encoded)), sum(map(len, lines))
        rows.append(
            {
                "language": language_names([x])[x],
                "questions": len(lines),
                "characters": characters,
                "bytes": sum(len(line.encode()) for line in lines),
                "tokens": n_tokens,
                "tokens per question": n_tokens / len(lines),
                "characters per token": characters / n_tokens,
            }
        )
    table = pd.DataFrame(rows)
    table[f"tokens relative to {next(iter(same_content))}"] = table["tokens"] / table["tokens"][0]
    return table


def by_relation(items: pd.DataFrame, languages: Sequence[str]) -> pd.DataFrame:
    """Accuracy by kind of question: `kind`, `asked`, `items per language`, and the languages."""
    table = items.assign(
        kind=items["task"].str.rsplit("_", n=1).str[0], asked=items["relation"]
    ).pivot_table(index=["kind", "asked"], columns="language", values="correct", sort=False)
    counts = items.groupby("relation", sort=False).size() // len(languages)
    table = table[list(languages)].reset_index().rename_axis(columns=None)
    table.insert(2, "items per language", table["asked"].map(counts))
    return table


def copier(items: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Reading compared with a copier, who picks any fitting word of the passage.

    A story of k people mentions k possible answers, so the copier is right in one of k items.

    Parameters
    ----------
    items : every item; `relation` ends in the number of people, such as "thing.2".
    scores : `task`, `n`, `accuracy`, `low`, `high`.

    Returns the rows of `scores` for reading tasks, with `copier`, what a copier scores, and
    `verdict`: "above", "below" or "not told apart" by the interval.
    """
    reading = items[items["task"].isin(TABLES["reading"].values())]
    people = pd.to_numeric(reading["relation"].str.rsplit(".", n=1).str[-1])
    expected = (1 / people).groupby(reading["task"]).mean()
    table = scores[scores["task"].isin(expected.index)].reset_index(drop=True)
    table["copier"] = table["task"].map(expected)
    table["verdict"] = np.select(
        [table["low"] > table["copier"], table["high"] < table["copier"]],
        ["above", "below"],
        "not told apart",
    )
    return table


def perplexity_by_language(losses: Mapping[str, Tensor], languages: Sequence[str]) -> pd.DataFrame:
    """Held-out perplexity per token from the losses of windows, {language: (windows,)}, in nats.

    `low` and `high`: 95 % interval over windows (Student's t, on the loss); NaN for one window.
    """
    rows = []
    for x in languages:
        values = losses[x].double().numpy()
        half = stats.t.ppf(0.975, max(len(values) - 1, 1)) * stats.sem(values)
        loss = values.mean()
        rows.append((x, len(values), loss, np.exp(loss), np.exp(loss - half), np.exp(loss + half)))
    return pd.DataFrame(rows, columns=["language", "windows", "loss", "perplexity", "low", "high"])


def first_masks(pipeline: Pipeline) -> pd.DataFrame:
    """What random masks of growing size do to the logits, and whether they leave a trace.

    Returns `share` of the neurons of each layer (0 first), `n_neurons`, `change`, the largest of
    any logit on one window per language, and `restored`, whether the logits are the old ones to the
    bit once the mask is lifted.
    """
    probe = torch.cat([windows[:1] for windows in pipeline.perplexity_windows.values()])
    probe = probe.to(pipeline.model.device)

    @torch.no_grad()
    def logits() -> Tensor:
        return pipeline.model(input_ids=probe).logits

    before, rows = logits(), []
    for share in (0.0, *gate.FRACTIONS):
        neurons = gate.random_neurons(pipeline.model, share, seed=gate.SEEDS[0])
        change = pipeline.logit_change(zero(neurons))
        rows.append((share, len(neurons), change, torch.equal(before, logits())))
    return pd.DataFrame(rows, columns=["share", "n_neurons", "change", "restored"])
