"""What lxt computes by itself, run in a process of its own (see test_attribution).

lxt's `monkey_patch` changes transformers' classes for good, hence the separate process. Nothing of
`crane_core` is used: one sample at a time, unpadded, every parameter requiring a gradient, all
logits, activations kept through `retain_grad`.

    python lxt_reference.py OUT.safetensors
"""

import importlib.machinery
import importlib.util
import sys
from types import ModuleType
from typing import Any

import torch
from conftest import make_tiny, make_tiny_llama
from safetensors.torch import save_file
from torch import Tensor

CASES: dict[str, dict[str, object]] = {
    "plain": {"seed": 0},
    "biases": {"seed": 1, "mlp_bias": True, "attention_bias": True, "num_key_value_heads": 4},
    "tied-gelu-eager": {
        "seed": 2,
        "tie_word_embeddings": True,
        "hidden_act": "gelu",
        "attn_implementation": "eager",
    },
}
#: Families lxt has; "gemma3" is the same classes beside a vision tower.
FAMILIES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3"}
FAMILIES["gemma3"] = "gemma3"
LENGTHS = (12, 7, 10, 3)


def samples() -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(3, 64, (length,), generator=generator) for length in LENGTHS]


def objective_of(logits: Tensor, ids: Tensor, name: str) -> Tensor:
    if name == "last_max":
        return logits[-1].max()
    scores = logits if name == "next_token" else logits.log_softmax(-1)
    return scores[:-1].gather(1, ids[1:, None]).sum()


def patch() -> None:
    """lxt's own class-wide patches, with what it takes to run beside transformers 5."""
    spec = importlib.util.find_spec("lxt")
    assert spec is not None and spec.submodule_search_locations is not None
    registry: Any = ModuleType("lxt.efficient.models")
    registry.__path__ = [f"{spec.submodule_search_locations[0]}/efficient/models"]
    registry.get_default_map = None
    sys.modules["lxt.efficient.models"] = registry
    core = importlib.import_module("lxt.efficient.core")

    class Functions(dict):  # lxt puts a dict where transformers 5 wants this method
        def get_interface(self, name: str, default: object) -> object:
            return self.get(name, default)

    for name in sorted(set(FAMILIES.values())):
        modeling: Any = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
        rules = importlib.import_module(f"lxt.efficient.models.{name}").attnLRP
        core.monkey_patch(modeling, rules)
        modeling.ALL_ATTENTION_FUNCTIONS = Functions(modeling.ALL_ATTENTION_FUNCTIONS)


def relevance(model: Any, ids: Tensor, objective: str) -> dict[str, Tensor]:
    """Every score of one sample; keys "intermediate", "gate", "up", "down", "tokens", "wgrad_*"."""
    kept: dict[tuple[str, int], Tensor] = {}

    def keep(key: tuple[str, int], tensor: Tensor) -> None:
        tensor.retain_grad()
        kept[key] = tensor

    handles = []
    mlps = [layer.mlp for layer in getattr(model.model, "language_model", model.model).layers]
    for i, mlp in enumerate(mlps):
        handles.append(
            mlp.down_proj.register_forward_pre_hook(
                lambda m, args, i=i: keep(("intermediate", i), args[0])
            )
        )
        for name in ("gate", "up", "down"):
            handles.append(
                getattr(mlp, f"{name}_proj").register_forward_hook(
                    lambda m, args, out, name=name, i=i: keep((name, i), out)
                )
            )
    model.zero_grad()
    embeddings = model.get_input_embeddings()(ids[None]).detach().requires_grad_()
    logits = model(inputs_embeds=embeddings, use_cache=False).logits[0]
    objective_of(logits, ids, objective).backward()
    for handle in handles:
        handle.remove()

    def product(tensor: Tensor) -> Tensor:
        assert tensor.grad is not None
        return (tensor * tensor.grad).detach()[0]

    result = {
        name: torch.stack([product(kept[name, i]).sum(0) for i in range(len(mlps))])
        for name in ("intermediate", "gate", "up", "down")
    }
    result["tokens"] = product(embeddings).sum(-1)
    for name in ("gate", "up", "down"):
        result[f"wgrad_{name}"] = torch.stack(
            [getattr(mlp, f"{name}_proj").weight.grad.sum(1) for mlp in mlps]
        )
    return result


def main(out: str) -> None:
    patch()
    tensors = {}
    cases: dict[str, Any] = {c: make_tiny_llama(**o) for c, o in CASES.items()}  # type: ignore[arg-type]
    cases |= {family: make_tiny(family) for family in FAMILIES}
    for case, model in cases.items():
        for objective in ("next_token", "next_token_logprob", "last_max"):
            for number, ids in enumerate(samples()):
                for key, value in relevance(model, ids, objective).items():
                    tensors[f"{case}/{objective}/{number}/{key}"] = value.contiguous()
    save_file(tensors, out)


if __name__ == "__main__":
    main(sys.argv[1])
