"""Relevance of every MLP neuron for what the model predicts (§3.2, Algorithm 1 lines 1-9).

AttnLRP (Achtibat et al., 2024) is a choice of local rules under which gradient x input *is* the
relevance (their "efficient" form). The rules are lxt's own functions; what is done here is to bind
them to the instances of one model for a while, to read activation x gradient at the neurons, and
to do no more work than that takes:

- no gradient of a parameter is computed, and the backward pass ends at the first scored neuron;
- a batch is one forward and one backward pass, because samples do not see each other;
- each layer's scores are summed over tokens as soon as the backward pass reaches it;
- on a CPU the linear layers run on the faster of the libraries PyTorch carries;
- `next_token` needs one logit per position, so the other logits are never computed.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from types import MethodType, ModuleType
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from crane_core import families
from crane_core.kernels import fast_linear
from crane_core.windows import first_column, scored_tokens

SITES: dict[str, tuple[str, ...]] = {
    "intermediate": ("intermediate",),
    "projections": ("gate", "up", "down"),
}
#: Every place where relevance can be read.
POINTS = ("intermediate", "gate", "up", "down")
RULES = ("attnlrp", "gradient")
SCORES = ("activation_x_gradient", "weight_gradient_sum")
REDUCTIONS = ("sum", "mean")

_ATTENTION = "crane_attnlrp_"


def _import_lxt_patches() -> Any:
    """lxt's rules as forward functions, without the model registry lxt imports beside them.

    `lxt.efficient.models` imports every family lxt supports, and two of them fail beside
    transformers 5. A stand-in is put in its place for the length of the import only; lxt's own
    `monkey_patch` still finds the real registry (or its real import error) when it is called.
    """
    registry = "lxt.efficient.models"
    if "lxt.efficient" in sys.modules or registry in sys.modules:
        return importlib.import_module("lxt.efficient.patches")

    def get_default_map(module: ModuleType) -> Any:
        return importlib.import_module(registry).get_default_map(module)

    stand_in = ModuleType(registry)
    stand_in.__dict__["get_default_map"] = get_default_map
    sys.modules[registry] = stand_in
    try:
        with warnings.catch_warnings():  # lxt warns that zennit, for vision models, is absent
            warnings.simplefilter("ignore")
            return importlib.import_module("lxt.efficient.patches")
    finally:
        del sys.modules[registry]


lxt = _import_lxt_patches()


# --- AttnLRP on one model -----------------------------------------------------------------------

_active: WeakSet[PreTrainedModel] = WeakSet()
#: Models whose forward pass was found to be the same under the rules.
_tried: WeakSet[PreTrainedModel] = WeakSet()


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """`model` in evaluation mode and without parameter gradients; both as before on exit."""
    learning = [p for p in model.parameters() if p.requires_grad]
    training = [m for m in model.modules() if m.training]
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        model.eval()
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True


class _SoftCaps(TorchFunctionMode):
    """The identity rule on `torch.tanh`, of which soft caps c * tanh(x / c) are made.

    lxt has no rule for them. As an element-wise non-linearity of one input they pass all relevance
    on (Eq. 9 of AttnLRP), as activation functions do.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.tanh:
            return lxt.identity_rule_implicit(torch.tanh, *args)
        return func(*args, **(kwargs or {}))


def _soft_capped_forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    with _SoftCaps():
        return type(self).forward(self, *args, **kwargs)


def _gemma_norm(self: Any, x: Tensor) -> Tensor:
    """What Gemma's norms divide by, under the identity rule, as lxt has it for Gemma 3."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps).detach()


#: kind of RMS norm -> the method to replace, and its replacement.
_NORM_RULES: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "llama": ("forward", lxt.rms_norm_forward),
    "gemma": ("_norm", _gemma_norm),
}


def _eager_attention(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The eager attention of the module's own family, which transformers registers nowhere."""
    with _SoftCaps() if kwargs.get("softcap") else nullcontext():
        return sys.modules[type(module).__module__].eager_attention_forward(module, *args, **kwargs)


def _attention(implementation: str) -> str:
    """Register attention as `implementation` computes it, with lxt's rule; return its name.

    The rule only scales the gradients of query, key and value (by 1/4, 1/4 and 1/2), so the forward
    pass runs the kernel, and builds the mask, that the model had before. Idempotent.
    """
    name = _ATTENTION + implementation
    if name not in ALL_ATTENTION_FUNCTIONS.valid_keys():
        plain = (
            _eager_attention
            if implementation == "eager"
            else ALL_ATTENTION_FUNCTIONS[implementation]
        )
        AttentionInterface.register(name, lxt.wrap_attention_forward(plain))
        if implementation in ALL_MASK_ATTENTION_FUNCTIONS:  # others make do without a mask
            AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
    return name


@contextmanager
def attnlrp(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """Make gradients through `model` obey AttnLRP's rules inside a `with` block.

    Bound to this model's instances, no class is touched: the identity rule on all RMS norms, on the
    gate's activation function and on soft caps, the uniform rule on the gate-times-up product and
    on both products of attention, from lxt where lxt has them. The forward pass gives bit for bit
    what it gives outside. Inside, activation x gradient of any activation is its relevance, in
    units of the output differentiated.

    For the length of the block the model is in evaluation mode and its parameters need no gradient.
    On exit, by an error too, forwards, attention implementation, training modes and gradient flags
    are what they were; only two entries in transformers' global attention registry stay, which no
    model uses by itself. Entering twice does nothing the second time.

    Raises ValueError for an unknown family, a model without gated MLPs, an adapter that leaves out
    a normalisation or under which the forward pass is another one (tried once, on a few tokens), a
    model whose modules have been patched already, an attention implementation transformers can't
    exchange, and one that soft-caps inside a kernel.
    """
    if model in _active:
        yield model
        return
    known, blocks = families.norms(model), families.decoder(model)
    method, norm_rule = _NORM_RULES[families.family(model).norm_kind]
    rules: list[tuple[nn.Module, str, Callable[..., Any]]] = [
        (norm, method, norm_rule) for norm in known
    ]
    rules += [(site.mlp, "forward", lxt.gated_mlp_forward) for site in families.mlp_sites(model)]
    if families.caps_logits(model):
        rules.append((model, "forward", _soft_capped_forward))
    for module, method, _ in rules:
        if {"forward", method} & vars(module).keys() or getattr(
            type(module), method
        ).__module__.startswith("lxt."):
            raise ValueError(
                f"the forward of this model's {type(module).__name__} is patched already (by lxt's "
                "monkey_patch or an accelerate hook); load the model anew, on one device, in a "
                "process where lxt's monkey_patch has not been called"
            )
    implementation = blocks.config._attn_implementation
    if families.caps_attention(blocks.config) and implementation not in ("eager", "sdpa"):
        raise ValueError(
            f"attention implementation {implementation!r} soft-caps scores inside its kernel, "
            "where no rule can be bound; load the model with attn_implementation='eager', as "
            "crane_core.models.load does"
        )
    with ExitStack() as undo:
        undo.enter_context(_frozen(model))
        plain = None if model in _tried else families.few_logits(model)
        for module, method, rule in rules:
            setattr(module, method, MethodType(rule, module))
            undo.callback(delattr, module, method)
        name = _attention(implementation)
        undo.callback(blocks.set_attn_implementation, implementation)
        blocks.set_attn_implementation(name)
        if blocks.config._attn_implementation != name:
            raise ValueError(
                f"transformers cannot exchange the attention of a {type(model).__name__}, "
                "so AttnLRP's attention rule cannot be bound to it"
            )
        if plain is not None and plain.isfinite().all():
            change = (families.few_logits(model) - plain).abs().max()
            if not change <= 1e-3 * plain.abs().max():
                raise ValueError(
                    f"with AttnLRP's rules this {type(model).__name__} is another model: a logit "
                    f"of {plain.abs().max():.3g} at most changes by {change:.3g}. The family's "
                    "adapter in crane_core/families.py does not describe it: CRANE has rules for "
                    "RMS norms and for MLPs down_proj(act_fn(gate_proj(x)) * up_proj(x))"
                )
            _tried.add(model)
        _active.add(model)
        undo.callback(_active.discard, model)
        yield model


# --- objectives: what is being explained --------------------------------------------------------


class _Predictions:
    """What the model predicts at every position, with logits computed only where they are used.

    Holds hidden states (samples, tokens, hidden) if the output embedding makes logits out of them
    by one matrix product, and the logits themselves (samples, tokens, vocabulary) otherwise.
    """

    def __init__(self, model: PreTrainedModel, input_ids: Tensor, mask: Tensor) -> None:
        head, linear = model.get_output_embeddings(), families.linear_head(model)
        inputs = families.padded_inputs(input_ids, mask)
        self.input_ids, self.mask = input_ids, mask
        self.head: nn.Linear | None = head if linear else None
        self.states: Tensor = (
            model.base_model(**inputs).last_hidden_state if linear else model(**inputs).logits
        )

    def logits(self, states: Tensor) -> Tensor:
        """All logits (..., vocabulary) for a selection of `self.states`."""
        return (states if self.head is None else self.head(states)).float()

    def logits_of(self, states: Tensor, tokens: Tensor) -> Tensor:
        """The logit of one token for each selected state; same shape as `tokens`."""
        if self.head is None:
            return states.gather(-1, tokens[..., None])[..., 0].float()
        logits = (states * F.embedding(tokens, self.head.weight)).sum(-1, dtype=torch.float32)
        return logits if self.head.bias is None else logits + self.head.bias[tokens]

    def next_tokens(self, target: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """States, the true tokens that follow them, and which of those are real tokens."""
        columns = slice(1, None) if target is None else slice(target, target + 1)
        before = slice(0, -1) if target is None else slice(target - 1, target)
        real = (self.mask[:, columns] & self.mask[:, before]).bool()
        return self.states[:, before], self.input_ids[:, columns], real


def _next_token(predictions: _Predictions, target: int | None) -> Tensor:
    states, tokens, real = predictions.next_tokens(target)
    return (predictions.logits_of(states, tokens) * real).sum(1)


def _next_token_logprob(predictions: _Predictions, target: int | None) -> Tensor:
    states, tokens, real = predictions.next_tokens(target)
    logits = predictions.logits(states).transpose(1, 2)
    return -(F.cross_entropy(logits, tokens, reduction="none") * real).sum(1)


def _last_max(predictions: _Predictions, target: int | None) -> Tensor:
    if target is not None:
        raise ValueError("objective 'last_max' explains one position already; it takes no target")
    mask = predictions.mask
    last = (torch.arange(mask.shape[1], device=mask.device) * mask).argmax(1)
    states = predictions.states[torch.arange(len(last), device=mask.device), last]
    return predictions.logits(states).amax(1)


#: name -> (predictions, target column or None) -> one value per sample.
OBJECTIVES: dict[str, Callable[[_Predictions, int | None], Tensor]] = {
    "next_token": _next_token,
    "next_token_logprob": _next_token_logprob,
    "last_max": _last_max,
}


def _known(kind: str, name: str, known: Mapping[str, object] | tuple[str, ...]) -> None:
    if name not in known:
        raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(map(repr, known))}")


def _checked_batch(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    objective: str,
    target: int | None = None,
) -> tuple[Tensor, Tensor, int | None]:
    """The batch on the model's device, with a mask, and `target` counted from the left."""
    _known("objective", objective, OBJECTIVES)
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    if input_ids.dim() != 2 or attention_mask.shape != input_ids.shape:
        raise ValueError(
            "input_ids and attention_mask must both be (samples, tokens); got "
            f"{tuple(input_ids.shape)} and {tuple(attention_mask.shape)}"
        )
    families.check_tokens(model, input_ids)
    ids, mask = input_ids.to(model.device), attention_mask.to(model.device).long()
    needed = 1 if objective == "last_max" else 2
    short = (mask.sum(1) < needed).nonzero()[:, 0].tolist()
    if short or not len(ids):
        raise ValueError(
            f"objective {objective!r} needs at least one sample, and {needed} real token(s) in "
            f"each; samples with fewer: {short}"
        )
    if target is not None:
        length = ids.shape[1]
        if not -length <= target < length:
            raise ValueError(f"target {target} is outside the {length} columns of input_ids")
        target %= length
        if target == 0 or not (mask[:, target] & mask[:, target - 1]).all():
            raise ValueError(
                f"column {target} cannot be explained: in every sample it must hold a real token "
                "with a real token before it"
            )
    return ids, mask, target


def objective_values(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    objective: str = "next_token",
    target: int | None = None,
) -> Tensor:
    """f(x) of §3.2: what `neuron_relevance` and `token_relevance` distribute, per sample.

    Parameters as in `token_relevance`. Returns (samples,), float32, in logits (in nats for
    "next_token_logprob").
    """
    ids, mask, target = _checked_batch(model, input_ids, attention_mask, objective, target)
    with torch.no_grad(), _frozen(model):
        return OBJECTIVES[objective](_Predictions(model, ids, mask), target).float()


# --- reading activation x gradient --------------------------------------------------------------


class _Tap:
    """Watches activations in a forward pass and scores each as soon as its gradient is known.

    What is kept in `scores` is factor x gradient, (samples, tokens, width), summed over a dimension
    and zero where tokens are not `scored` (samples, tokens), whatever stands there.
    """

    def __init__(self, scored: Tensor, dim: int) -> None:
        self.scores: dict[tuple[str, int], Tensor] = {}
        self._scored, self._dim = scored.bool(), dim
        self._first = first_column(scored) if dim == 1 else None
        self._leaves: list[Tensor] = []

    def watch(self, key: tuple[str, int], activation: Tensor, factor: Tensor) -> None:
        """Score factor x gradient of `activation`, and let the graph start here if none has yet."""
        factor = factor.detach()  # sharing storage only: a hook holding its own tensor is a leak
        if not activation.requires_grad or key[1] == 0:
            # Layer 0 in any case: a hook that lets embeddings require gradients stays on a model
            # whose gradient checkpointing was ever on.
            self._leaves.append(activation.requires_grad_())

        def on_gradient(gradient: Tensor) -> None:
            dtype, first = torch.promote_types(gradient.dtype, torch.float32), self._first
            # A processor's cache holds a megabyte.
            size = len(gradient) if gradient.is_cuda else max(2**18 // gradient[0].numel(), 1)
            pieces, sums = (x.split(size) for x in (factor, gradient, self._scored)), []
            for f, g, scored in zip(*pieces, strict=True):
                product = f[:, first:].to(dtype) * g[:, first:].to(dtype)
                if first is None:
                    product = torch.where(scored[..., None], product, 0)
                sums.append(product.sum(self._dim).float())
            self.scores[key] = torch.cat(sums)

        activation.register_hook(on_gradient)

    def backward(self, output: Tensor) -> None:
        """Run the backward pass of `output`, no further than the first watched activations."""
        leaves, self._leaves = self._leaves, []  # or they and their hooks would keep each other
        torch.autograd.grad(output, leaves)


@contextmanager
def ready(model: PreTrainedModel, rules: str) -> Iterator[None]:
    """The model prepared for a backward pass under `rules`; entered before anything watches it."""
    _known("rules", rules, RULES)
    if rules == "gradient" and model in _active:
        raise ValueError("rules='gradient' cannot be had inside attnlrp(model); leave it first")
    families.linear_head(model)
    with (
        attnlrp(model) if rules == "attnlrp" else _frozen(model),
        fast_linear(),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        yield


def check_finite(relevance: Tensor, site: str = "intermediate") -> None:
    """Raise ValueError, naming layer and sample, unless all (samples, layers, neurons) are finite.

    One infinite score would make a neuron's kurtosis NaN and take it out of every selection.
    """
    bad = (~relevance.isfinite()).any(-1).nonzero()
    if len(bad):
        sample, layer = bad[0].tolist()
        value = relevance[sample, layer][~relevance[sample, layer].isfinite()][0].item()
        raise ValueError(
            f"relevance at site {site!r} is {value} in layer {layer}, sample {sample} of the batch "
            f"({len(bad)} layer-sample pair(s) in all). Check the weights and that sample's text; "
            "float16 activations can overflow, so use bfloat16 or float32."
        )


def neuron_relevance(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    objective: str = "next_token",
    site: str = "intermediate",
    *,
    rules: str = "attnlrp",
    score: str = "activation_x_gradient",
    reduction: str = "sum",
    opening: int = 0,
) -> Any:
    """Sample-level relevance of every MLP neuron (§3.2, Algorithm 1 lines 4-7).

    Parameters
    ----------
    model : a causal language model of a family in `families.FAMILIES`; used as it is, so inside
        `masking.masked` the masked model is explained.
    input_ids : (samples, tokens), padded on either side.
    attention_mask : (samples, tokens), 1 at real tokens; None if all are.
    objective : what is explained. "next_token" is the sum over positions of the true next token's
        logit, "next_token_logprob" the same of its log-probability, "last_max" the largest logit at
        the last real position.
    site : "intermediate" scores what `down_proj` reads, "projections" each output of `gate_proj`,
        `up_proj` and `down_proj`.
    rules : "attnlrp", or "gradient" for the plain gradient without any LRP rule.
    score : "activation_x_gradient", or "weight_gradient_sum" for the row sums of the projections'
        weight gradients, sum_t g[t, i] * sum_k x[t, k], which only "projections" have.
    reduction : "sum" or "mean" over the real tokens of a sample.
    opening : so many tokens that open each sample, such as a beginning-of-sequence token, are
        context alone: what follows is predicted from them, but their own neurons are not scored.

    Returns
    -------
    (samples, layers, neurons), float32, in units of the objective (logits), on the model's device;
    for "projections" a dict with one such tensor for "gate", "up" and "down".

    Raises ValueError for an unknown name, a malformed batch, and relevance that is not finite.
    """
    _known("site", site, SITES)
    how: Any = {"rules": rules, "score": score, "reduction": reduction, "opening": opening}
    found = relevance_at(model, input_ids, attention_mask, SITES[site], objective, **how)
    return found["intermediate"] if site == "intermediate" else found


def relevance_at(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    names: Sequence[str],
    objective: str = "next_token",
    *,
    rules: str = "attnlrp",
    score: str = "activation_x_gradient",
    reduction: str = "sum",
    opening: int = 0,
) -> dict[str, Tensor]:
    """`neuron_relevance` at any of "intermediate", "gate", "up" and "down", in one backward pass.

    Parameters and errors as there. Returns name -> (samples, layers, width), float32.
    """
    for name in names:
        _known("site", name, POINTS)
    _known("score", score, SCORES)
    _known("reduction", reduction, REDUCTIONS)
    if score == "weight_gradient_sum" and "intermediate" in names:
        raise ValueError(
            "score 'weight_gradient_sum' sums a projection's weight gradient over its inputs: it "
            "scores outputs of projections only; use site='projections'"
        )
    ids, mask, target = _checked_batch(model, input_ids, attention_mask, objective)
    scored = scored_tokens(mask, opening)
    tap = _Tap(scored, dim=1)

    def hook(name: str, layer: int) -> Callable[..., None]:
        def watch(module: nn.Module, args: tuple[Tensor], output: Tensor | None = None) -> None:
            here = args[0] if output is None else output
            factor = here if score == "activation_x_gradient" else args[0].sum(-1, keepdim=True)
            tap.watch((name, layer), here, factor)

        return watch

    mlps = families.mlp_sites(model)
    with ready(model, rules), ExitStack() as hooks:
        for layer, mlp in enumerate(mlps):
            for name in names:
                if name == "intermediate":
                    handle = mlp.down_proj.register_forward_pre_hook(hook(name, layer))
                else:
                    handle = getattr(mlp, f"{name}_proj").register_forward_hook(hook(name, layer))
                hooks.callback(handle.remove)
        values = OBJECTIVES[objective](_Predictions(model, ids, mask), target)
        tap.backward(values.sum())

    relevance = {}
    for name in names:
        scores = torch.stack([tap.scores[name, layer] for layer in range(len(mlps))], dim=1)
        relevance[name] = scores / scored.sum(1)[:, None, None] if reduction == "mean" else scores
        check_finite(relevance[name], name)
    return relevance


def token_relevance(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    objective: str = "next_token",
    *,
    target: int | None = None,
    rules: str = "attnlrp",
) -> Tensor:
    """Relevance of every input token: embedding x gradient, summed over the hidden dimensions.

    Parameters as in `neuron_relevance`, and

    target : explain one prediction only, that of the token in this column of `input_ids` from the
        tokens before it (negative counts from the right); None explains all.

    Returns (samples, tokens), float32, in logits; zero at padding. The scores of a sample need not
    add up to `objective_values`: softmax does not conserve relevance.
    """
    ids, mask, target = _checked_batch(model, input_ids, attention_mask, objective, target)
    tap = _Tap(mask, dim=-1)

    def hook(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        tap.watch(("token", 0), output, output)

    with ready(model, rules), ExitStack() as hooks:
        hooks.callback(model.get_input_embeddings().register_forward_hook(hook).remove)
        tap.backward(OBJECTIVES[objective](_Predictions(model, ids, mask), target).sum())
    return tap.scores["token", 0]
