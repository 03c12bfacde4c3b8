"""What vLLM's workers do, as far as it goes without vLLM; tests_vllm has the rest."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from crane_core import models
from crane_core.interventions import Add, Intervention, Scale, SetTo, intervened, zero
from crane_core.masking import masked
from crane_core.neurons import NeuronSet
from crane_lab.engines.vllm_engine import VLLMEngine
from crane_lab.engines.vllm_worker import (
    WorkerExtension,
    fused_gate_up,
    indices,
    own_steps,
    plain,
    shard,
)

SHAPE = {"intermediate": (2, 8), "gate": (2, 8), "up": (2, 8), "down": (2, 4)}


def some(model: LlamaForCausalLM, *sites: str, seed: int = 0, share: float = 0.3) -> NeuronSet:
    generator = torch.Generator().manual_seed(seed)
    shape = models.shape(model)
    return NeuronSet({s: torch.rand(shape[s], generator=generator) < share for s in sites}, shape)


def numbers(model: LlamaForCausalLM) -> dict[str, Tensor]:
    """A value for every neuron of every site."""
    generator = torch.Generator().manual_seed(7)
    return {s: torch.randn(size, generator=generator) for s, size in models.shape(model).items()}


def inputs() -> Tensor:
    return torch.randn(5, 32, generator=torch.Generator().manual_seed(0))


def test_a_shard_is_a_workers_contiguous_piece() -> None:
    mask = torch.rand(3, 12, generator=torch.Generator().manual_seed(0)) < 0.5
    for world in (1, 2, 3, 4):
        pieces = [shard(mask, rank, world) for rank in range(world)]
        assert all(piece.shape == (3, 12 // world) for piece in pieces)
        assert torch.equal(torch.cat(pieces, dim=-1), mask)
    with pytest.raises(ValueError, match="12 neurons cannot be divided among 5 workers"):
        shard(mask, 0, 5)
    with pytest.raises(ValueError, match="no worker 2 among 2"):
        shard(mask, 2, 2)


def test_fused_mask_is_gate_then_up() -> None:
    inner, gate, up = torch.eye(4, dtype=torch.bool)[:3]
    fused = fused_gate_up(inner, gate, up, 0, 1)
    assert fused.tolist() == [True, True, False, False, True, False, True, False]
    assert fused_gate_up(inner, gate, up, 0, 2).tolist() == [True, True, True, False]
    assert fused_gate_up(inner, gate, up, 1, 2).tolist() == [False, False, True, False]


def test_what_travels_is_the_steps_in_order() -> None:
    neurons = NeuronSet.from_pairs([(0, 1), (0, 6), (1, 0)], SHAPE)
    vector = {"intermediate": torch.arange(16.0).reshape(2, 8)}
    ends = NeuronSet.from_pairs([(1, 3)], SHAPE, "down")
    found = plain(
        Intervention(
            Add(neurons, vector, 0.5),
            Scale(neurons, 3.0, at="act_fn", positions="generated"),
        )
        + zero(ends)
    )
    assert found == [
        {
            "kind": "add",
            "at": "unit",
            "positions": "all",
            "sites": {"intermediate": [[[1, 6], [0.5, 3.0]], [[0], [4.0]]]},
        },
        {
            "kind": "scale",
            "at": "act_fn",
            "positions": "generated",
            "sites": {"intermediate": [[[1, 6], [3.0, 3.0]], [[0], [3.0]]]},
        },
        {
            "kind": "set",
            "at": "unit",
            "positions": "all",
            "sites": {"down": [[[], []], [[3], [0.0]]]},
        },
    ]
    assert json.loads(json.dumps(found)) == found
    assert plain(Intervention()) == []


def test_each_worker_gets_the_steps_on_its_shard() -> None:
    neurons = NeuronSet.from_pairs([(0, 1), (0, 6), (1, 0)], SHAPE)
    neurons |= NeuronSet.from_pairs([(1, 3)], SHAPE, "down")
    vector = {"intermediate": torch.rand(2, 8), "down": torch.rand(2, 4)}
    steps = plain(Intervention(SetTo(neurons, vector), Scale(neurons, 0.1)))
    for rank, pairs in enumerate(([(0, 1), (1, 0)], [(0, 2)])):
        first, second = own_steps(steps, SHAPE, rank, 2)
        assert isinstance(first, SetTo) and isinstance(second, Scale)
        own = {"intermediate": (2, 4), "down": (2, 4)}
        expected = NeuronSet.from_pairs(pairs, own) | NeuronSet.from_pairs([(1, 3)], own, "down")
        assert first.neurons == second.neurons == expected
        for site in own:
            mask, full = expected.mask(site), vector[site]
            piece = full if site == "down" else shard(full, rank, 2)
            for layer in range(2):
                here = mask[layer]
                found = first.values(site, layer)[here]
                assert torch.equal(found.float(), piece[layer][here])
                same = torch.full_like(found, 0.1).float()
                assert torch.equal(second.values(site, layer)[here].float(), same)


class Linear(nn.Module):
    """A piece of a linear layer, with the parts of vLLM's interface that masking uses."""

    def __init__(self, weight: Tensor, output_size: int, rank: int, world: int):
        super().__init__()
        self.weight, self.output_size = nn.Parameter(weight), output_size
        self.tp_rank, self.tp_size = rank, world

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return x @ self.weight.T, None


class SiluAndMul(nn.Module):
    """The activation function and the product of both factors, in one."""

    def forward(self, fused: Tensor) -> Tensor:
        gate, up = fused.chunk(2, dim=-1)
        return nn.functional.silu(gate) * up


class MLP(nn.Module):
    """The part of a gated MLP that one of `world` workers of vLLM computes."""

    def __init__(self, of: Any, act_fn: nn.Module, rank: int, world: int):
        super().__init__()
        gate, up = (p.weight.chunk(world)[rank] for p in (of.gate_proj, of.up_proj))
        width, hidden = of.gate_proj.weight.shape
        self.gate_up_proj = Linear(torch.cat([gate, up]), 2 * width, rank, world)
        self.act_fn = act_fn
        self.down_proj = Linear(of.down_proj.weight.chunk(world, dim=1)[rank], hidden, rank, world)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(self.act_fn(self.gate_up_proj(x)[0]))[0]
        return out


class Model(nn.Module):
    """What each layer's piece makes of the same hidden states.

    All layers share an activation function, as Gemma's do in vLLM; Llama's have one each.
    """

    def __init__(self, of: LlamaForCausalLM, rank: int, world: int):
        super().__init__()
        act_fn, mlps = SiluAndMul(), [site.mlp for site in models.mlp_sites(of)]
        self.mlps = nn.ModuleList(MLP(mlp, act_fn, rank, world) for mlp in mlps)

    def forward(self, x: Tensor, positions: Tensor) -> list[Tensor]:
        return [mlp(x) for mlp in self.mlps]


class Worker(WorkerExtension):
    def __init__(self, of: LlamaForCausalLM, rank: int = 0, world: int = 1):
        self.model = Model(of, rank, world)
        self.get_model = lambda: self.model


def together(workers: list[Worker], positions: Tensor | None = None) -> list[Tensor]:
    """What every layer puts out, summed over the workers."""
    places = torch.arange(5) if positions is None else positions
    with torch.no_grad():
        layers = zip(*(w.model(inputs(), positions=places) for w in workers), strict=True)
        return [torch.stack(parts).sum(0) for parts in layers]


def expected(model: LlamaForCausalLM, intervention: Intervention) -> list[Tensor]:
    with torch.no_grad(), intervened(model, intervention):
        return [site.mlp(inputs()) for site in models.mlp_sites(model)]


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("sites", [("intermediate",), ("gate", "up", "down"), ("down",)])
def test_workers_together_compute_the_masked_mlps(
    tiny_llama: LlamaForCausalLM, world: int, sites: tuple[str, ...]
) -> None:
    neurons = some(tiny_llama, *sites)
    workers = [Worker(tiny_llama, rank, world) for rank in range(world)]
    original = together(workers)
    for worker in workers:
        assert worker.crane_shape() == models.shape(tiny_llama)
        assert worker.crane_mask(indices(neurons)) > 0
    found = together(workers)
    with masked(tiny_llama, neurons), torch.no_grad():
        zeroed = [site.mlp(inputs()) for site in models.mlp_sites(tiny_llama)]
    torch.testing.assert_close(found, zeroed)
    assert [worker.crane_mask({}) for worker in workers] == [0] * world
    torch.testing.assert_close(together(workers), original, rtol=0, atol=0)


INTERVENTIONS: dict[str, Callable[[Any], Intervention]] = {
    "number": lambda m: Intervention(SetTo(some(m, "intermediate"), 0.5)),
    "values": lambda m: Intervention(SetTo(some(m, "intermediate"), numbers(m))),
    "add": lambda m: Intervention(Add(some(m, "intermediate"), numbers(m), -2.0)),
    "scale": lambda m: Intervention(Scale(some(m, "intermediate"), 3.0)),
    "gate and up": lambda m: Intervention(
        SetTo(some(m, "gate"), numbers(m)), Add(some(m, "gate", "up"), numbers(m))
    ),
    "act_fn": lambda m: Intervention(
        Add(some(m, "intermediate"), numbers(m), at="act_fn"),
        Scale(some(m, "intermediate", seed=1), 3.0, at="act_fn"),
    ),
    "zero and add": lambda m: (
        zero(some(m, "intermediate"))
        + Intervention(Add(some(m, "intermediate", seed=1), numbers(m)))
    ),
    "set, then scaled": lambda m: Intervention(
        SetTo(some(m, "intermediate"), 1.0), Scale(some(m, "intermediate"), 3.0)
    ),
    "scaled, then set": lambda m: Intervention(
        Scale(some(m, "intermediate"), 3.0), SetTo(some(m, "intermediate"), 1.0)
    ),
    "everywhere": lambda m: Intervention(
        Add(some(m, "gate"), 1.0),
        Scale(some(m, "intermediate"), 2.0, at="act_fn"),
        Scale(some(m, "up"), -1.0),
        SetTo(some(m, "intermediate", seed=1), numbers(m)),
    ),
}


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("name", INTERVENTIONS)
def test_workers_together_compute_the_intervened_mlps(
    tiny_llama: LlamaForCausalLM, world: int, name: str
) -> None:
    intervention = INTERVENTIONS[name](tiny_llama)
    workers = [Worker(tiny_llama, rank, world) for rank in range(world)]
    original = together(workers)
    assert all(worker.crane_intervene(plain(intervention)) > 0 for worker in workers)
    found = together(workers)
    torch.testing.assert_close(found, expected(tiny_llama, intervention))
    assert not torch.allclose(found[0], original[0])
    assert [worker.crane_mask({}) for worker in workers] == [0] * world
    torch.testing.assert_close(together(workers), original, rtol=0, atol=0)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in workers[0].model.modules())
    assert [*map(type, workers[0].model.modules())] == [
        *map(type, Worker(tiny_llama).model.modules())
    ]


@pytest.mark.parametrize("step", [SetTo, Add, Scale])
def test_down_outputs_are_whole_in_every_worker(tiny_llama: LlamaForCausalLM, step: Any) -> None:
    """One worker only: vLLM sums the outputs before the hook, these stand-ins do not."""
    intervention = Intervention(step(some(tiny_llama, "down"), numbers(tiny_llama)))
    worker = Worker(tiny_llama)
    worker.crane_intervene(plain(intervention))
    torch.testing.assert_close(together([worker]), expected(tiny_llama, intervention))


def test_a_new_intervention_takes_the_place_of_the_one_before(
    tiny_llama: LlamaForCausalLM,
) -> None:
    worker, neurons = Worker(tiny_llama), some(tiny_llama, "intermediate")
    worker.crane_mask(indices(some(tiny_llama, "gate", seed=3)))
    for intervention in (Intervention(Add(neurons, 1.0)), Intervention(Scale(neurons, 2.0))):
        worker.crane_intervene(plain(intervention))
        torch.testing.assert_close(together([worker]), expected(tiny_llama, intervention))
    worker.crane_mask(indices(neurons))
    torch.testing.assert_close(together([worker]), expected(tiny_llama, zero(neurons)))


def test_neurons_outside_of_the_set_keep_their_bits(tiny_llama: LlamaForCausalLM) -> None:
    worker = Worker(tiny_llama)
    seen: list[Tensor] = []
    down: Any = worker.model.mlps[0].down_proj
    neurons = some(tiny_llama, "intermediate")
    for steps in ([], plain(Intervention(SetTo(neurons, 0.5, at="act_fn")))):
        worker.crane_intervene(steps)
        handle = down.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        together([worker])
        handle.remove()
    here = neurons.mask("intermediate")[0]
    assert torch.equal(seen[0][:, ~here], seen[1][:, ~here])
    assert (seen[0][:, here] != seen[1][:, here]).all()


@pytest.mark.parametrize("place", ["unit", "act_fn"])
def test_generated_positions_are_those_from_the_prompts_length_on(
    tiny_llama: LlamaForCausalLM, place: str
) -> None:
    """A pass over two requests: the last piece of one's prompt and its answer, the other's answer.

    Whatever else is done at all positions is done at the prompt's, too.
    """
    worker, positions = Worker(tiny_llama), torch.tensor([6, 7, 8, 12, 13])
    neurons, vector = some(tiny_llama, "intermediate"), numbers(tiny_llama)
    everywhere = Intervention(Scale(some(tiny_llama, "gate"), 0.5))

    def added(positions: str) -> Intervention:
        return everywhere + Intervention(Add(neurons, vector, at=place, positions=positions))

    worker.crane_intervene(plain(added("generated")), 8)
    for places in (positions, positions.expand(3, -1)):
        found = together([worker], places)
        for got, prompt, answer in zip(
            found,
            expected(tiny_llama, everywhere),
            expected(tiny_llama, added("all")),
            strict=True,
        ):
            torch.testing.assert_close(got, torch.cat([prompt[:2], answer[2:]]))
            assert not torch.allclose(prompt, answer)
    worker.crane_mask({})
    assert not worker.model._forward_pre_hooks


def test_models_in_gguf_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    for path in (tmp_path, tmp_path / "model.gguf"):
        with pytest.raises(ValueError, match=r"in GGUF, .* use HuggingFaceEngine, or a checkpoint"):
            VLLMEngine(path)
