"""What a model would say after each layer (the logit lens), in which language.

The residual stream after a layer goes through the last norm and the head, as if no layer came
after it. After the last layer that is the model's own prediction, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crane_core.families import decoder
from crane_lab.engines.prompting import opened, spelled
from crane_lab.pipeline import Pipeline
from crane_lab.study.steering import ForcedQuestion

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
        logits = model(input_ids=torch.tensor([list(ids)], device=model.device)).logits[0, -1]
    finally:
        for hook in hooks:
            hook.remove()
    states = decoder(model).norm(torch.stack(kept))
    found = model.get_output_embeddings()(states).float()
    capped = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    if capped:
        found = torch.tanh(found / capped) * capped
    return torch.cat([found[:-1], logits[None].float()]).cpu()


def lens_table(
    pipeline: Pipeline, questions: Mapping[str, Sequence[ForcedQuestion]], pivot: str = "en"
) -> pd.DataFrame:
    """How likely a right answer's first token is after each layer, in two languages.

    One row per language of the question, question and layer: `own` and `pivot`, the probabilities
    of the likeliest first token of a right answer in that language and in `pivot`. Answers that
    begin with the same token in both say nothing about language and are left out.
    """
    tokenizer, rows = pipeline.tokenizer, []
    for x, asked in questions.items():
        if x == pivot:
            continue
        prompts = opened(tokenizer, [f"Q: {question.question}\nA:" for question in asked])
        for prompt, question, other in zip(prompts, asked, questions[pivot], strict=True):
            firsts = [_first_tokens(tokenizer, one.answers) for one in (question, other)]
            if firsts[0] & firsts[1] or not all(firsts):
                continue
            likely = lens_logits(pipeline.model, prompt).softmax(-1)
            for layer, row in enumerate(likely):
                own, there = (float(row[sorted(of)].max()) for of in firsts)
                about = {"language": x, "question": question.id, "layer": layer}
                rows.append({**about, "own": own, "pivot": there})
    return pd.DataFrame(rows, columns=["language", "question", "layer", "own", "pivot"])


def _first_tokens(tokenizer: PreTrainedTokenizerBase, answers: Sequence[str]) -> set[int]:
    """What an answer can begin with: after a space or not, with a capital or not; no bare space."""
    written = [
        f"{space}{start}{answer[1:]}"
        for answer in answers
        for space in (" ", "")
        for start in dict.fromkeys((answer[0], answer[0].upper()))
    ]
    firsts = {ids[0] for ids in spelled(tokenizer, written) if ids}
    return {token for token in firsts if str(tokenizer.decode([token])).strip()}
