"""Greedy decoding in batches, whatever the prompts are and whatever ends an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from crane_core.kernels import fast_linear
from crane_lab.engines.prompting import turn_end

#: After so many tokens, rows that have ended leave their batch: a row costs the same ended or not.
SEGMENT = 8
#: Token ids, prompt by prompt.
Prompts = Sequence[Sequence[int]]


def end_tokens(configured: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a text: the checkpoint's, the tokenizer's and its chat template's."""
    ids = configured.eos_token_id
    found = {*(ids if isinstance(ids, list) else [ids]), tokenizer.eos_token_id}
    return sorted(token for token in found | {turn_end(tokenizer)} if token is not None)


class _Stop(StoppingCriteria):
    """Ends each row on its own, and keeps how many tokens it had by then.

    One criterion for all reasons. transformers' own search for stop strings looks at the prompt,
    too, and costs more than a step of a small model; here only a row whose newest token could
    complete a stop string (`suspects`) is read.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        ends: Tensor,
        stop: tuple[str, ...],
        suspects: Tensor | None,
        start: int,
        limits: Tensor,
    ):
        self.tokenizer, self.stop, self.suspects = tokenizer, stop, suspects
        self.ends, self.start, self.limits = ends, start, limits
        self.lengths = torch.zeros_like(limits)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        new = input_ids.shape[1] - self.start
        last = input_ids[:, -1]
        over = (self.lengths > 0) | (self.limits <= new) | torch.isin(last, self.ends)
        if self.suspects is not None:
            for row in (self.suspects[last] & ~over).nonzero()[:, 0].tolist():
                text = self.tokenizer.decode(input_ids[row, self.start :], skip_special_tokens=True)
                over[row] = any(string in text for string in self.stop)
        self.lengths = torch.where(over & (self.lengths == 0), new, self.lengths)
        return over


class _Numbers(LogitsProcessor):
    """Refuses logits that are no numbers: the largest of them would be any token."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if scores.amax(dim=-1).isnan().any():  # the largest is NaN if any is
            raise ValueError(
                f"the model's logits ({str(scores.dtype).removeprefix('torch.')}) are not numbers: "
                "values overflow in its type, or its weights are damaged; take bfloat16 or "
                "float32, or check the weights"
            )
        return scores


class Greedy:
    """Greedy continuations by `generate` of transformers, in batches padded on the left.

    Parameters
    ----------
    model, tokenizer : as `crane_core.models.load` returns them; a mask that is on counts.
    ends : the tokens that end a continuation.
    stop : strings that end it.
    repetition_penalty : see `crane_lab.engines.generation.Decoding`; 1 is none.
    batch_size : prompts that are decoded together; in float32 the result does not depend on it.

    Nothing of the model's own generation settings is used. Raises ValueError for a batch size
    below 1, and, when it decodes, for logits that are no numbers.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        ends: Sequence[int],
        stop: Sequence[str] = (),
        repetition_penalty: float = 1.0,
        batch_size: int = 64,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.model, self.tokenizer = model, tokenizer
        self.ends, self.stop = list(ends), tuple(stop)
        self.repetition_penalty, self.batch_size = float(repetition_penalty), batch_size
        vocabulary = model.config.get_text_config().vocab_size
        self._suspects = self._completing(vocabulary) if self.stop else None

    def _completing(self, vocabulary: int) -> Tensor:
        """Which tokens can complete a stop string, bool (vocabulary,): those with its last sign."""
        signs = {string[-1] for string in self.stop}
        if any(not sign.isascii() or sign.isspace() for sign in signs):
            return torch.ones(vocabulary, dtype=torch.bool)  # a token alone need not show them
        texts = self.tokenizer.batch_decode([[token] for token in range(len(self.tokenizer))])
        found = torch.zeros(max(vocabulary, len(texts)), dtype=torch.bool)
        found[: len(texts)] = torch.tensor([not signs.isdisjoint(text) for text in texts])
        return found

    def tokens(
        self,
        prompts: Prompts,
        limits: Sequence[int],
        done: Callable[[int], object] = lambda n: None,
    ) -> list[list[int]]:
        """The tokens generated for each prompt, in their order, at most as many as its limit.

        What ended one is included. `done` is told of every batch how many prompts it had.
        """
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        tokens: list[list[int]] = [[] for _ in prompts]
        with self._settings() as settings:
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                rows = self._batch(
                    [prompts[index] for index in batch],
                    [limits[index] for index in batch],
                    settings,
                )
                for index, row in zip(batch, rows, strict=True):
                    tokens[index] = row
                done(len(batch))
        return tokens

    @contextmanager
    def _settings(self) -> Iterator[GenerationConfig]:
        """Settings that hold alone: `generate` fills gaps from the model's own otherwise."""
        kept = self.model.generation_config
        settings = GenerationConfig(
            do_sample=False,
            repetition_penalty=self.repetition_penalty,
            return_dict_in_generate=True,
        )
        self.model.generation_config = settings
        try:
            with (
                torch.no_grad(),
                fast_linear() if self.model.device.type == "cpu" else nullcontext(),
            ):
                yield settings
        finally:
            self.model.generation_config = kept

    def _batch(
        self, prompts: Prompts, limits: Sequence[int], settings: GenerationConfig
    ) -> list[list[int]]:
        device = self.model.device
        width = max(len(ids) for ids in prompts)
        # Padded with the row's own first token: the repetition penalty counts the whole row, and
        # so counts nothing that the prompt does not hold.
        padded = [[ids[0]] * (width - len(ids)) + list(ids) for ids in prompts]
        mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
        rows, seen = torch.tensor(padded, device=device), torch.tensor(mask, device=device)
        room = torch.tensor(limits, device=device)
        suspects = None if self._suspects is None else self._suspects.to(device)
        ends = torch.tensor(self.ends, dtype=torch.long, device=device)
        found: list[list[int]] = [[] for _ in prompts]
        going, cache = torch.arange(len(prompts), device=device), None
        while len(going):
            stop = _Stop(self.tokenizer, ends, self.stop, suspects, width, room[going])
            so_far = rows.shape[1] - width
            settings.max_new_tokens = min(SEGMENT, int(room[going].max()) - so_far)
            output: Any = self.model.generate(
                input_ids=rows,
                attention_mask=seen,
                past_key_values=cache,
                generation_config=settings,
                logits_processor=LogitsProcessorList([_Numbers()]),
                stopping_criteria=StoppingCriteriaList([stop]),
            )
            rows, cache = output.sequences, output.past_key_values
            for row in (stop.lengths > 0).nonzero()[:, 0].tolist():
                found[int(going[row])] = rows[row, width : width + int(stop.lengths[row])].tolist()
            left = (stop.lengths == 0).nonzero()[:, 0]
            seen = torch.cat([seen, seen.new_ones(len(rows), rows.shape[1] - seen.shape[1])], dim=1)
            if 0 < len(left) < len(going):
                cache.batch_select_indices(left)
            going, rows, seen = going[left], rows[left], seen[left]
        return found
