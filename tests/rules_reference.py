"""AttnLRP on a decoder written out here, without transformers' modules, `crane_core` or lxt.

One unpadded sample at a time, in float64. A rule is the value of an operation together with a
gradient that makes gradient x input the relevance: the identity rule takes the ratio of output and
input as constant, the uniform rule gives each factor of a product half. Of a model only its
configuration and its weights are read.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
}
Weights = Mapping[str, Tensor]


def identity(x: Tensor, y: Tensor) -> Tensor:
    """y, whose relevance goes to x whole."""
    return x * (y / x).nan_to_num().detach()  # nothing comes of 0: the logit of padding


def cap(x: Tensor, bound: float | None) -> Tensor:
    return x if bound is None else identity(x, bound * torch.tanh(x / bound))


def halves(product: Any, a: Tensor, b: Tensor) -> Tensor:
    """product(a, b), whose relevance goes to a and b in equal parts."""
    total: Tensor = (product(a, b.detach()) + product(a.detach(), b)) / 2
    return total


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    bias = weights.get(f"{name}.bias")
    out = x @ weights[f"{name}.weight"].T
    return out if bias is None else out + bias


def norm(x: Tensor, weights: Weights, name: str, config: Any) -> Tensor:
    weight = weights[f"{name}.weight"] + ("gemma" in config.model_type)
    return x * (x.pow(2).mean(-1, keepdim=True) + config.rms_norm_eps).rsqrt().detach() * weight


def rotated(x: Tensor, theta: float) -> Tensor:
    """Rotary positions on (heads, tokens, width)."""
    tokens, width = x.shape[-2:]
    frequencies = theta ** (-torch.arange(0, width, 2, dtype=x.dtype) / width)
    angles = torch.arange(tokens, dtype=x.dtype)[:, None] * frequencies
    first, second = x.chunk(2, dim=-1)
    turned = [first * angles.cos() - second * angles.sin()]
    turned.append(second * angles.cos() + first * angles.sin())
    return torch.cat(turned, dim=-1)


def attention(x: Tensor, weights: Weights, config: Any, layer: int) -> Tensor:
    name = f"layers.{layer}.self_attn."
    kinds = getattr(config, "layer_types", None)
    ropes = config.rope_parameters
    theta = (ropes[kinds[layer]] if kinds and kinds[layer] in ropes else ropes)["rope_theta"]
    slides = kinds[layer] == "sliding_attention" if kinds else True
    window = config.sliding_window if slides and hasattr(config, "sliding_window") else None

    def heads(kind: str, number: int) -> Tensor:
        projected = linear(x, weights, f"{name}{kind}_proj").unflatten(-1, (number, -1))
        if f"{name}{kind}_norm.weight" in weights:
            projected = norm(projected, weights, f"{name}{kind}_norm", config)
        projected = projected.transpose(0, 1)
        if kind != "v":
            projected = rotated(projected, theta)
        if kind == "q" and (beta := ropes.get("llama_4_scaling_beta")):
            blocks = torch.arange(len(x)) // ropes["original_max_position_embeddings"]
            projected = projected * (1 + beta * (1 + blocks).log())[:, None]
        return projected.repeat_interleave(config.num_attention_heads // number, dim=0)

    query = heads("q", config.num_attention_heads)
    key = heads("k", config.num_key_value_heads)
    value = heads("v", config.num_key_value_heads)
    scale = getattr(config, "query_pre_attn_scalar", query.shape[-1]) ** -0.5
    scores = halves(torch.matmul, query, key.transpose(1, 2)) * scale
    if config.model_type == "gemma2":
        scores = cap(scores, config.attn_logit_softcapping)
    ago = torch.arange(len(x))[:, None] - torch.arange(len(x))
    hidden = (ago < 0) | (ago >= (window or len(x)))
    mixed = halves(torch.matmul, scores.masked_fill(hidden, -torch.inf).softmax(-1), value)
    return linear(mixed.transpose(0, 1).flatten(1), weights, f"{name}o_proj")


def forward(model: Any, ids: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    """Logits (tokens, vocabulary), what each down_proj reads, and the embeddings, with rules."""
    config = model.config.get_text_config()
    text = getattr(model.model, "language_model", model.model)
    weights = {name: tensor.double() for name, tensor in text.state_dict().items()}
    gemma = "gemma" in config.model_type
    twice = gemma and config.model_type != "gemma"  # norms before and after attention and MLP
    activation = ACTIVATIONS[config.hidden_activation if twice else config.hidden_act]
    embedded = weights["embed_tokens.weight"][ids] * (config.hidden_size**0.5 if gemma else 1)
    stream = embedded.requires_grad_()
    inner = []
    for layer in range(config.num_hidden_layers):
        name = f"layers.{layer}."

        def normed(x: Tensor, which: str, name: str = name) -> Tensor:
            return norm(x, weights, name + which, config)

        mixed = attention(normed(stream, "input_layernorm"), weights, config, layer)
        if twice:
            mixed = normed(mixed, "post_attention_layernorm")
        stream = stream + mixed
        before = "pre_feedforward_layernorm" if twice else "post_attention_layernorm"
        read = normed(stream, before)
        gate = linear(read, weights, f"{name}mlp.gate_proj")
        up = linear(read, weights, f"{name}mlp.up_proj")
        inner.append(halves(torch.mul, identity(gate, activation(gate)), up))
        written = linear(inner[-1], weights, f"{name}mlp.down_proj")
        stream = stream + (normed(written, "post_feedforward_layernorm") if twice else written)
    head = {f"lm_head.{k}": v.double() for k, v in model.lm_head.state_dict().items()}
    logits = linear(norm(stream, weights, "norm", config), head, "lm_head")
    return cap(logits, getattr(model.config, "final_logit_softcapping", None)), inner, embedded


def relevance(model: Any, ids: Tensor, objective: str) -> tuple[Tensor, Tensor]:
    """Relevance of neurons (layers, neurons) and of tokens (tokens,), float64."""
    logits, inner, embedded = forward(model, ids)
    if objective == "last_max":
        explained = logits[-1].max()
    else:
        scores = logits if objective == "next_token" else logits.log_softmax(-1)
        explained = scores[:-1].gather(1, ids[1:, None]).sum()
    gradients = torch.autograd.grad(explained, [*inner, embedded])
    products = [(x * g).detach() for x, g in zip([*inner, embedded], gradients, strict=True)]
    return torch.stack([p.sum(0) for p in products[:-1]]), products[-1].sum(-1)
