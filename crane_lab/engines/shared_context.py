"""Log-likelihoods of many requests, what they have in common computed once (§4.3).

`SharedContextLM` is lm-eval's `HFLM` with one difference: where `HFLM` runs the whole prompt once
per option, requests that begin alike are laid out as a tree and every shared token is computed
once. The log-likelihoods are the same to 1e-5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crane_core import families
from crane_core.kernels import inference
from crane_lab.engines.prompting import opened, spelled
from crane_lab.engines.tasks import quiet
from crane_lab.engines.vocabulary import in_pieces, summed_up
from crane_lab.memory import Memory

#: Requests tokenised and laid out at a time.
_PORTION = 4096
#: Logits computed at a time; beyond so many tokens of vocabulary, pieces of it (`vocabulary`).
_LOGITS, _LARGE = 2**27, 2**16


# ------------------------------------------------------------------ requests packed as prefix trees


@dataclass(frozen=True)
class _Batch:
    """Rows of equal padded length; each row is a prefix tree in depth-first order.

    Node i may look at node j if j is i or an ancestor of i: j <= i < ends[j].
    """

    input_ids: Tensor  # (rows, length)
    position_ids: Tensor  # (rows, length): depth in the tree, a token's position in its text
    ends: Tensor  # (rows, length): one past a node's last descendant
    nodes: Tensor  # (nodes,): flat indices of the nodes whose next-token logits are read
    pick: Tensor  # (tokens,): for every scored token, which of `nodes` predicts it
    targets: Tensor  # (tokens,): the scored tokens
    owners: Tensor  # (tokens,): the request a scored token belongs to

    def only(self, rows: Tensor) -> _Batch:
        """The batch of consecutive rows."""
        n, length = self.input_ids.shape
        if len(rows) == n:
            return self
        first = int(rows[0])
        kept = (self.nodes // length >= first) & (self.nodes // length < first + len(rows))
        place = kept.cumsum(0) - 1
        scored = kept[self.pick]
        return _Batch(
            self.input_ids[rows],
            self.position_ids[rows],
            self.ends[rows],
            self.nodes[kept] - first * length,
            place[self.pick[scored]],
            self.targets[scored],
            self.owners[scored],
        )


@dataclass(frozen=True)
class Packed:
    """Requests as token ids, laid out in batches; made by `SharedContextLM.pack`."""

    pairs: tuple[tuple[str, str], ...]
    batches: tuple[_Batch, ...]
    max_length: int
    longest: int
    tokens: int
    truncated: int  # requests that are longer than the model allows and lost their beginning


class _Row:
    """A prefix tree that grows by texts given in lexicographic order."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.depths: list[int] = []
        self.ends: list[int] = []
        self.path: list[int] = []  # nodes of the text added last
        self.scored: list[tuple[int, int, int]] = []  # node, target token, request

    def shared(self, inputs: Sequence[int]) -> int:
        """How many leading tokens `inputs` shares with the text added last."""
        n = 0
        for node, token in zip(self.path, inputs, strict=False):
            if self.ids[node] != token:
                break
            n += 1
        return n

    def add(self, inputs: Sequence[int], targets: Sequence[int], request: int) -> None:
        shared, size = self.shared(inputs), len(self.ids)
        self._close(shared)
        self.path += range(size, size + len(inputs) - shared)
        self.ids += inputs[shared:]
        self.depths += range(shared, len(inputs))
        self.ends += [0] * (len(inputs) - shared)
        predicting = self.path[len(inputs) - len(targets) :]
        self.scored += [
            (node, token, request) for node, token in zip(predicting, targets, strict=True)
        ]

    def _close(self, depth: int) -> None:
        for node in self.path[depth:]:
            self.ends[node] = len(self.ids)
        del self.path[depth:]

    def finish(self) -> _Row:
        self._close(0)
        return self


def _rows(
    sequences: Sequence[tuple[list[int], list[int]]], row_tokens: int, first: int = 0
) -> list[_Row]:
    """Prefix trees for `(inputs, targets)`, cut where little would be shared or a row gets long.

    Requests are numbered from `first`.
    """
    row = _Row()
    rows = [row]
    for request in sorted(range(len(sequences)), key=lambda index: sequences[index][0]):
        inputs, targets = sequences[request]
        shared = row.shared(inputs)
        fits = len(row.ids) + len(inputs) - shared <= max(row_tokens, 2 * len(inputs))
        if row.ids and not (fits and 4 * shared >= len(inputs)):
            row.finish()
            row = _Row()
            rows.append(row)
        row.add(inputs, targets, first + request)
    row.finish()
    return rows


def _batch(rows: Sequence[_Row]) -> _Batch:
    length = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    positions = torch.zeros_like(ids)
    # A padding token sees itself alone: a row of the mask without any entry would give NaN.
    ends = torch.arange(1, length + 1).repeat(len(rows), 1)
    scored: list[tuple[int, int, int]] = []
    for index, row in enumerate(rows):
        n = len(row.ids)
        ids[index, :n] = torch.tensor(row.ids)
        positions[index, :n] = torch.tensor(row.depths)
        ends[index, :n] = torch.tensor(row.ends)
        scored += [(index * length + node, token, owner) for node, token, owner in row.scored]
    flat, targets, owners = torch.tensor(scored).unbind(1)
    nodes, pick = flat.unique(return_inverse=True)
    return _Batch(ids, positions, ends, nodes, pick, targets.clone(), owners.clone())


# ---------------------------------------------------------------------------------- the model


class SharedContextLM(HFLM):
    """lm-eval's `HFLM` on a model in memory, computing what requests have in common once.

    Requests that begin with the same tokens (an item's options after their prompt, several
    questions after their passage) become one row of the batch, in which a token attends to its own
    ancestors only and is placed at its position in its own text. Vocabulary logits are computed
    where an option's token is predicted and nowhere else. Log-likelihoods and greedy flags are
    `HFLM`'s to 1e-5 in float32.

    Where a tree cannot be run (an attention implementation that takes no mask, a sliding window
    shorter than the texts, a family whose logits are more than the output embedding of the last
    hidden state) `HFLM`'s own way is used.

    Parameters
    ----------
    model : a causal language model in memory; a mask that is on when requests are scored counts.
    tokenizer : its tokenizer.
    packed : requests packed earlier, by this tokenizer and with this maximum length.
    batch_tokens : tokens in one forward pass, padding included, unless one row alone is longer.
    row_tokens : length up to which requests are joined in one row.

    `note` is told if a batch did not fit into memory and was run in parts.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        packed: Packed | None = None,
        batch_tokens: int = 2048,
        row_tokens: int = 256,
        **kwargs: Any,
    ) -> None:
        self._encodings: dict[str, list[int]] = {}
        with quiet():
            super().__init__(
                pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=16, **kwargs
            )
        if self.prefix_token_id is None:
            raise ValueError(
                "the tokenizer has neither a beginning- nor an end-of-sequence token, one of which "
                "opens a text without context in lm-eval; set eos_token in tokenizer_config.json"
            )
        self.packed = packed
        self.batch_tokens = batch_tokens
        self.row_tokens = row_tokens
        self.note: Callable[[str], object] = lambda text: None

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **kwargs: Any,
    ) -> list[int]:
        """As in `HFLM`, remembering what `pack` has encoded in bulk.

        But special tokens that a text spells are text, and none ends it: a prompt goes on.
        """
        if add_special_tokens is None and string in self._encodings:
            found = self._encodings[string]
        else:
            found = self._encoded([string], add_special_tokens)[0]
        return found[-left_truncate_len:] if left_truncate_len else found

    def _encoded(self, texts: list[str], opens: bool | None = None) -> list[list[int]]:
        opens = self.add_bos_token if opens is None else opens
        return (spelled if opens is False else opened)(self.tokenizer, texts)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Sum of log-probabilities and greedy flag of each request's continuation."""
        pairs = tuple(request.args for request in requests)
        if self.packed is None or self.packed.pairs != pairs:
            self.packed = self.pack(pairs)
        if not self._runs_trees(self.packed.longest):
            return super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        logprobs, greedy = self._score(self.packed)
        return list(zip(logprobs.tolist(), greedy.tolist(), strict=True))

    def pack(self, pairs: Sequence[tuple[str, str]]) -> Packed:
        """Tokenise `(context, continuation)` pairs as `HFLM` does and lay them out in batches.

        Raises ValueError for a continuation that is empty or longer than the model allows.
        """
        rows: list[_Row] = []
        longest = truncated = 0
        # In portions: the encodings of a whole few-shot benchmark would fill gigabytes.
        for first in range(0, len(pairs), _PORTION):
            portion = pairs[first : first + _PORTION]
            sequences, cut = self._sequences(portion)
            longest = max(longest, *(len(inputs) for inputs, _ in sequences))
            truncated += cut
            rows += _rows(sequences, self.row_tokens, first)
        rows.sort(key=lambda row: -len(row.ids))
        batches, start = [], 0
        while start < len(rows):
            size = max(1, self.batch_tokens // len(rows[start].ids))
            batches.append(_batch(rows[start : start + size]))
            start += size
        return Packed(
            pairs=tuple(pairs),
            batches=tuple(batches),
            max_length=self.max_length,
            longest=longest,
            tokens=sum(len(row.ids) for row in rows),
            truncated=truncated,
        )

    def _sequences(
        self, pairs: Sequence[tuple[str, str]]
    ) -> tuple[list[tuple[list[int], list[int]]], int]:
        """What the model reads and what it is to predict, per pair, and how many were too long."""
        self._encode_in_bulk(pairs)
        sequences, truncated = [], 0
        for context, continuation in pairs:
            if context:
                prompt, targets = self._encode_pair(context, continuation)
            else:
                targets = self.tok_encode(continuation, add_special_tokens=False)
                prompt = [self.prefix_token_id]
                if targets[:1] == prompt:
                    targets = targets[1:]
            if not 0 < len(targets) <= self.max_length:
                raise ValueError(
                    f"continuation {continuation!r} has {len(targets)} tokens after "
                    f"{context[-40:]!r}; expected 1 to {self.max_length}"
                )
            text = prompt + targets
            truncated += len(text) > self.max_length + 1
            sequences.append((text[-(self.max_length + 1) : -1], targets))
        self._encodings.clear()
        return sequences, truncated

    def _encode_in_bulk(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Encode what `_encode_pair` will ask for in one call, much faster than one by one."""
        texts = {text for context, rest in pairs for text in (context.rstrip(), context + rest)}
        plain = sorted(text for text in texts if text)
        self._encodings = dict(zip(plain, self._encoded(plain), strict=True))

    def _runs_trees(self, longest: int) -> bool:
        config = self.model.config.get_text_config()
        window = getattr(config, "sliding_window", None)
        return (
            config._attn_implementation in ("eager", "sdpa")
            and (window is None or longest <= window)
            and families.linear_head(self.model)
        )

    @inference()
    def _score(self, packed: Packed) -> tuple[Tensor, Tensor]:
        """Log-likelihood and greedy flag per request, float32 and bool `(requests,)`."""
        logprobs = torch.zeros(len(packed.pairs), device=self.device)
        misses = torch.zeros(len(packed.pairs), dtype=torch.long, device=self.device)
        for batch in packed.batches:
            rows = torch.arange(len(batch.input_ids))
            for owners, logprob, miss in Memory().run(
                lambda part, batch=batch: self._score_batch(batch.only(part)),  # type: ignore[misc]
                rows,
                self.note,
            ):
                logprobs.index_add_(0, owners, logprob)
                misses.index_add_(0, owners, miss)
        return logprobs, misses == 0

    def _score_batch(self, batch: _Batch) -> tuple[Tensor, Tensor, Tensor]:
        """For every scored token: its request, its log-probability, and whether another is top."""
        model, device = self.model, self.device
        ends = batch.ends.to(device)
        index = torch.arange(ends.shape[1], device=device)
        sees = (index <= index[:, None]) & (index[:, None] < ends[:, None, :])
        mask = torch.zeros(sees.shape, dtype=model.dtype, device=device)
        mask.masked_fill_(~sees, torch.finfo(model.dtype).min)
        hidden = model.base_model(
            input_ids=batch.input_ids.to(device),
            attention_mask=mask[:, None],
            position_ids=batch.position_ids.to(device),
            use_cache=False,
        ).last_hidden_state
        hidden = hidden.flatten(0, 1)[batch.nodes.to(device)]
        pick, targets, owners = (
            part.to(device) for part in (batch.pick, batch.targets, batch.owners)
        )
        logprob, miss = _scored(model.get_output_embeddings(), hidden, pick, targets)
        return owners, logprob, miss


def _scored(
    head: nn.Module, states: Tensor, pick: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-probability of every target, and 1 where another token is likelier, else 0.

    `pick` says which of the states (nodes, hidden) predicts each target.
    """
    tokens = len(head.get_parameter("weight"))
    size = max(1, _LOGITS // tokens)
    logprob = torch.empty(len(pick), device=states.device)
    miss = torch.empty(len(pick), dtype=torch.long, device=states.device)
    if tokens <= _LARGE:
        for start in range(0, len(states), size):
            logits = head(states[start : start + size]).float()
            own = ((pick >= start) & (pick < start + size)).nonzero()[:, 0]
            node, target = pick[own] - start, targets[own]
            logprob[own] = logits[node, target] - logits.logsumexp(-1)[node]
            miss[own] = (logits.argmax(-1)[node] != target).long()
        return logprob, miss
    total = best = states.new_full((len(states),), -torch.inf, dtype=torch.float32)
    token = torch.zeros(len(states), dtype=torch.long, device=states.device)
    for first, logits in in_pieces(head, states):
        top = logits.max(1)
        token = torch.where(top.values > best, top.indices + first, token)
        best = torch.maximum(best, top.values)
        total = summed_up(total, logits, top.indices)
        own = ((targets >= first) & (targets < first + logits.shape[1])).nonzero()[:, 0]
        logprob[own] = logits[pick[own], targets[own] - first]
    return logprob - total[pick], (token[pick] != targets).long()
