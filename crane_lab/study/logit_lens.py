"""What a model would say after each layer (the logit lens), in which language.

The residual stream after a layer goes through the last norm and the head, as if no layer came
after it. After the last layer that is the model's own prediction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crane_core.families import decoder
from crane_lab.engines.prompting import opened, spelled
from crane_lab.pipeline import Pipeline
from crane_lab.study.steering import ForcedQuestion
from crane_lab.tuning.items import UNSPACED

FILE = "logit_lens.csv"


@torch.no_grad()
def lens_logits(model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    """Logits at the last token after each layer, float32 (layers, vocabulary), on the CPU.

    Row i is what the last norm and the head make of the stream after layer i.
    """
    kept: list[Tensor] = []
    layers = decoder(model).layers
    hooks = [
        layer.register_forward_hook(
            lambda module, args, out: kept.append(
                (out if isinstance(out, Tensor) else out[0])[0, -1]
            )
        )
        for layer in layers
    ]
    try:
        model.base_model(input_ids=torch.tensor([list(ids)], device=model.device))
    finally:
        for hook in hooks:
            hook.remove()
    states = decoder(model).norm(torch.stack(kept))
    found = model.get_output_embeddings()(states).float()
    capped = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    if capped:
        found = torch.tanh(found / capped) * capped
    return found.cpu()


def require_comparable(questions: Collection[str], pivot: str = "en") -> None:
    """Raise ValueError for fewer than three languages, or without `pivot`."""
    if pivot not in questions or len(questions) < 3:
        raise ValueError(f"{list(questions)}: expected {pivot!r} and two languages or more")


def lens_table(
    pipeline: Pipeline,
    questions: Mapping[str, Sequence[ForcedQuestion]],
    pivot: str = "en",
    others: Sequence[str] = ("fr", "de"),
) -> pd.DataFrame:
    """How likely a right answer's first token is after each layer, in several languages.

    One row per language of the question, question and layer, with natural logarithms of
    probabilities: of the likeliest first token of a right answer in that language, `own`, in
    `pivot`, and in the first of `others` (or of all) that is neither, `other`; `mismatched` is
    `pivot`'s answer to the next question, what English alone would bring. A question is left out if
    two of its answers begin with the same token, which says nothing about language.

    Raises ValueError for fewer than three languages, or without `pivot`.
    """
    require_comparable(questions, pivot)
    tokenizer, rows = pipeline.tokenizer, []
    for x, asked in questions.items():
        if x == pivot:
            continue
        third = next(y for y in (*others, *questions) if y not in (x, pivot))
        prompts = opened(tokenizer, [f"Q: {question.question}\nA:" for question in asked])
        for number, (prompt, question) in enumerate(zip(prompts, asked, strict=True)):
            answers = {
                "own": question,
                "pivot": questions[pivot][number],
                "other": questions[third][number],
                "mismatched": questions[pivot][(number + 1) % len(asked)],
            }
            firsts = {kind: _first_tokens(tokenizer, one.words) for kind, one in answers.items()}
            sets = list(firsts.values())
            if not all(sets) or any(a & b for a, b in combinations(sets, 2)):
                continue
            likely = lens_logits(pipeline.model, prompt).log_softmax(-1)
            for layer, row in enumerate(likely):
                found = {kind: float(row[sorted(of)].max()) for kind, of in firsts.items()}
                rows.append({"language": x, "question": question.id, "layer": layer, **found})
    columns = ["language", "question", "layer", "own", "pivot", "other", "mismatched"]
    return pd.DataFrame(rows, columns=columns)


def _first_tokens(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> set[int]:
    """The first tokens of words as they follow on `A:`; of a bare space, the one after it."""
    found = set()
    for word in words:
        written = word if UNSPACED.search(word) else f" {word}"
        ids = spelled(tokenizer, [written])[0]
        told = [token for token in ids if str(tokenizer.decode([token])).strip()]
        found |= set(told[:1])
    return found
