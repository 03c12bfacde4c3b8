"""Equation 1 on a real model: which steps hand on all the relevance they receive (§3.2).

AttnLRP's rules are local, so conservation is a question to each step by itself: what its output
has received, against what its inputs get from it. Softmax conserves nothing, so the whole does not
either. What is explained here is always the sum of the true next tokens' logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from crane_core import models
from crane_core.attribution import RULES, attnlrp


@dataclass(frozen=True)
class _Trace:
    """A forward pass whose tensors still know how they came about."""

    seen: dict[str, tuple[Tensor, Tensor]]  # name of a module -> what it read and put out
    stream: list[Tensor]  # the residual stream wherever a norm reads it, embeddings first
    start: Tensor  # (samples, tokens, hidden): the embeddings
    logits: Tensor  # (samples, tokens, vocabulary)
    explained: Tensor  # (samples,)


def _traced(model: PreTrainedModel, input_ids: Tensor, rules: str) -> _Trace:
    if rules not in RULES:
        raise ValueError(f"unknown rules {rules!r}; known: {', '.join(map(repr, RULES))}")
    if input_ids.dim() != 2 or input_ids.shape[0] < 1 or input_ids.shape[1] < 2:
        raise ValueError(
            "expected token ids (samples >= 1, tokens >= 2) without padding; got shape "
            f"{tuple(input_ids.shape)}"
        )
    ids = input_ids.to(model.device)
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Any, output: Tensor) -> None:
            seen[name] = (args[0] if args else kwargs["hidden_states"], output)

        return hook

    watched = {*models.norms(model), *(site.mlp for site in models.mlp_sites(model))}
    names = {module: name for name, module in model.named_modules()}
    with attnlrp(model) if rules == "attnlrp" else nullcontext(), ExitStack() as hooks:
        for module, name in names.items():
            if module in watched or isinstance(module, nn.Linear):
                handle = module.register_forward_hook(keep(name), with_kwargs=True)
                hooks.callback(handle.remove)
        start = model.get_input_embeddings()(ids).detach().requires_grad_()
        logits = model(inputs_embeds=start, use_cache=False).logits
    explained = logits[:, :-1].gather(-1, ids[:, 1:, None])[..., 0].sum(1)
    stream = [seen[names[norm]][0] for norm in models.stream_norms(model)]
    return _Trace(seen, stream, start, logits, explained)


def _steps(
    model: PreTrainedModel, trace: _Trace
) -> Iterator[tuple[str, float, list[Tensor], Tensor]]:
    """What a step is, the share that is due to its inputs, the inputs, and its output."""
    modules = dict(model.named_modules())
    norms, mlps = models.norms(model), [site.mlp for site in models.mlp_sites(model)]
    for name, (read, put_out) in trace.seen.items():
        module = modules[name]
        kind = "gated MLP" if module in mlps else "RMS norm" if module in norms else "linear layer"
        yield kind, 1.0, [read], put_out
    for name in [name for name in trace.seen if name.endswith(".o_proj")]:
        # The uniform rule: half to the values, half to what softmax made of queries and keys.
        query, key, value = (trace.seen[f"{name.removesuffix('o_proj')}{x}_proj"][1] for x in "qkv")
        mixed = trace.seen[name][0]
        yield "attention: values", 0.5, [value], mixed
        yield "attention: queries and keys, through softmax", 0.5, [query, key], mixed
    for position, (before, after) in enumerate(pairwise(trace.stream)):
        part = "attention" if position % 2 == 0 else "MLP"
        yield f"residual stream, across {part}", 1.0, [before], after
    if models.caps_logits(model):
        head = next(n for n, module in modules.items() if module is model.get_output_embeddings())
        yield "soft cap of the logits", 1.0, [trace.seen[head][1]], trace.logits
    yield "whole model: logits to embeddings", 1.0, [trace.start], trace.logits


def _relevance(activation: Tensor, gradient: Tensor) -> Tensor:
    """Relevance of each sample, summed over everything else."""
    return (activation * gradient).detach().flatten(1).double().sum(1)


def conservation(model: PreTrainedModel, input_ids: Tensor, rules: str = "attnlrp") -> pd.DataFrame:
    """How much of the relevance of a step's output its inputs receive, step by step (Eq. 1).

    Parameters
    ----------
    model : a causal language model whose layers alternate attention and gated MLP.
    input_ids : (samples, tokens) without padding.
    rules : "attnlrp", or "gradient" for the plain gradient.

    Returns a table with one row per step and sample: `step`, its kind; `due`, the share of the
    output's relevance that conservation gives to these inputs; `share`, what they receive; `error`,
    the difference relative to the sum of the output's absolute relevance, which is never close to
    zero. A bias keeps its own share, so a linear layer that has one does not conserve.

    Raises ValueError for unknown rules or malformed ids, and as `models.mlp_sites` does.
    """
    trace = _traced(model, input_ids, rules)
    steps = list(_steps(model, trace))
    outputs = [output for *_, output in steps]
    arrived = torch.autograd.grad(trace.explained.sum(), outputs, retain_graph=True)
    tables = []
    for (kind, due, inputs, output), gradient in zip(steps, arrived, strict=True):
        passed = torch.autograd.grad(output, inputs, gradient, retain_graph=True)
        has = _relevance(output, gradient)
        gets = torch.stack([_relevance(*x) for x in zip(inputs, passed, strict=True)]).sum(0)
        error = (gets - due * has).abs() / _relevance(output.abs(), gradient.abs())
        columns = {"share": (gets / has).cpu().numpy(), "error": error.cpu().numpy()}
        tables.append(pd.DataFrame({"step": kind, "due": due, **columns}))
    return pd.concat(tables, ignore_index=True)


def stream_shares(model: PreTrainedModel, input_ids: Tensor, rules: str = "attnlrp") -> Tensor:
    """Relevance of the residual stream relative to what is explained (Eq. 1), float64.

    Parameters and errors as for `conservation`. Returns (samples, positions): the embeddings, and
    the stream after each layer's attention and after its MLP. All ones would be conservation.
    """
    trace = _traced(model, input_ids, rules)
    gradients = torch.autograd.grad(trace.explained.sum(), trace.stream)
    sums = [_relevance(*pair) for pair in zip(trace.stream, gradients, strict=True)]
    return (torch.stack(sums, dim=1) / trace.explained.detach().double()[:, None]).cpu()
