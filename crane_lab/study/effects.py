"""What a mask does: to the next words of a sentence, and to the loss on held-out text (§3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crane_core import baselines
from crane_core.masking import masked
from crane_core.selection import NeuronSet
from crane_lab.engines.decoding import Greedy, end_tokens
from crane_lab.engines.prompting import opened
from crane_lab.pipeline import Pipeline


@torch.no_grad()
def next_logits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> Tensor:
    """Logits of the token after a prompt, (vocabulary,)."""
    ids = torch.tensor(opened(tokenizer, [prompt]), device=model.device)
    return model(input_ids=ids, use_cache=False).logits[0, -1].cpu()


@torch.no_grad()
def continuation(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, tokens: int = 8
) -> str:
    """What the model goes on with, by the most probable token each time."""
    decoder = Greedy(model, tokenizer, end_tokens(model.generation_config, tokenizer))
    (found,) = decoder.tokens(opened(tokenizer, [prompt]), [tokens])
    return str(tokenizer.decode(found, skip_special_tokens=True))


@dataclass(frozen=True)
class Continued:
    """A sentence as the model goes on with it under one mask."""

    mask: str  # its name
    n_neurons: int
    logits: Tensor  # of the next token, (vocabulary,)
    text: str


def continued(pipeline: Pipeline, prompt: str, masks: Mapping[str, NeuronSet]) -> list[Continued]:
    """A prompt without a mask, which is called "none", and under each of the masks."""
    model, tokenizer, found = pipeline.model, pipeline.tokenizer, []
    for name, neurons in {"none": NeuronSet.empty(pipeline.shape), **masks}.items():
        with masked(model, neurons):
            logits = next_logits(model, tokenizer, prompt)
            text = continuation(model, tokenizer, prompt)
        found.append(Continued(name, len(neurons), logits, text))
    return found


def normal_interval(values: Tensor) -> tuple[float, float, float]:
    """Mean of some values and its 95 % interval (normal; NaN for one value)."""
    found = values.double().numpy()
    mean = float(found.mean())
    error = 1.96 * found.std(ddof=1) / np.sqrt(len(found)) if len(found) > 1 else np.nan
    return mean, mean - error, mean + error


def loss_effects(
    pipeline: Pipeline, sets: Mapping[str, NeuronSet], seeds: Sequence[int]
) -> pd.DataFrame:
    """What each language's mask does to each language's held-out loss, beside random masks.

    Returns
    -------
    One row per masked language and language of the text: `mask_language`, `n_neurons`,
    `text_language`, `loss` without a mask (nats per token), `change` under the mask with its 95 %
    interval over windows (`change_low`, `change_high`, paired, normal; NaN for one window), and
    mean and range of the change under random masks with as many neurons in each layer, one per seed
    (`random_mean`, `random_low`, `random_high`).
    """
    original = pipeline.losses()
    rows = []
    for x, neurons in sets.items():
        masks = [neurons, *(baselines.random_matched(neurons, seed) for seed in seeds)]
        under = pipeline.store.together(
            partial(pipeline.losses, pipeline.masking(found)) for found in masks
        )
        for text in pipeline.settings.languages:
            before = original[text]
            change, *control = [(losses[text] - before).double() for losses in under]
            means = [float(random.mean()) for random in control]
            mean, low, high = normal_interval(change)
            rows.append(
                {
                    "mask_language": x,
                    "n_neurons": len(neurons),
                    "text_language": text,
                    "loss": before.double().mean().item(),
                    "change": mean,
                    "change_low": low,
                    "change_high": high,
                    "random_mean": np.mean(means),
                    "random_low": np.min(means),
                    "random_high": np.max(means),
                }
            )
    return pd.DataFrame(rows)


def judged(effects: pd.DataFrame) -> pd.DataFrame:
    """Per mask, whether its own language loses more than under random masks, and than the others.

    Parameters
    ----------
    effects : as `loss_effects` returns them.

    Returns
    -------
    The row of `effects` for the masked language's own text, with `against`: "more" or "less" than
    every random mask, else "within" their range; `most`, the language that is hurt most, with
    `most_change`; and `clear`, whether its interval lies above those of all others. One row per
    language, those without neurons included.
    """
    rows = []
    for x, found in effects.groupby("mask_language", sort=False):
        own = found[found["text_language"] == x].iloc[0]
        most = found.iloc[int(found["change"].to_numpy().argmax())]
        others = found[found["text_language"] != most["text_language"]]
        against = "within"
        if own["change"] > own["random_high"]:
            against = "more"
        elif own["change"] < own["random_low"]:
            against = "less"
        rows.append(
            {
                **own.to_dict(),
                "against": against,
                "most": most["text_language"],
                "most_change": most["change"],
                "clear": bool((most["change_low"] > others["change_high"]).all()),
            }
        )
    return pd.DataFrame(rows)
