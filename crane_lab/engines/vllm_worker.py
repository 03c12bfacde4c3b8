"""What vLLM's workers do to neurons while they run, and what is sent there (§3.4).

Setting to zero goes through masks on the projections' outputs (`crane_mask`), every other
intervention through hooks that replace activations as in `crane_core.interventions`
(`crane_intervene`). What crosses to the workers is names, lists and numbers, no code.

Nothing of vLLM is imported here: the layout of its fused projections is all that is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from crane_core.interventions import Add, Intervention, Scale, SetTo, Step, change_of
from crane_core.neurons import NeuronSet

#: Masks as they travel to the workers: site -> layer -> indices of the masked neurons.
Indices = dict[str, list[list[int]]]
#: A step as it travels to the workers, in names, lists and numbers: see `plain`.
Plain = dict[str, Any]

Change = Callable[[Tensor], Tensor]
_KINDS: dict[str, type[Step]] = {kind.kind: kind for kind in (SetTo, Add, Scale)}


def shard(mask: Tensor, rank: int, world: int) -> Tensor:
    """The part of a mask (..., width) that worker `rank` of `world` owns, (..., width / world).

    With tensor parallelism every worker computes one contiguous piece of the intermediate
    dimension, so of the sites intermediate, gate and up. `down` outputs are summed over the
    workers first and exist in full on each.

    Raises ValueError if the width cannot be divided among the workers or there is no such worker.
    """
    width = mask.shape[-1]
    if not 0 <= rank < world:
        raise ValueError(f"no worker {rank} among {world}; they are counted from 0")
    if width % world:
        raise ValueError(
            f"{width} neurons cannot be divided among {world} workers; "
            "choose a tensor_parallel_size that divides them"
        )
    return mask.narrow(-1, rank * (width // world), width // world)


def fused_gate_up(intermediate: Tensor, gate: Tensor, up: Tensor, rank: int, world: int) -> Tensor:
    """One worker's mask of the fused gate and up projection, bool (..., 2 * width / world).

    vLLM computes both in one product, on each worker its gate outputs first. An intermediate
    neuron is zero if its gate and its up output are; that also holds where vLLM fuses the
    activation function with what follows, and no module puts the activation out.

    Parameters
    ----------
    intermediate, gate, up : bool (..., width), of the whole model.
    """
    return torch.cat([shard(intermediate | site, rank, world) for site in (gate, up)], dim=-1)


def _zero_outputs(projection: nn.Module, mask: Tensor) -> Callable[[], None]:
    """Hook a projection of vLLM, which returns (output, bias); return what removes the hook."""
    on: dict[torch.device, Tensor] = {}

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        values = output[0]
        if values.device not in on:
            on[values.device] = mask.to(values.device)
        return values.masked_fill(on[values.device], 0), *output[1:]

    return projection.register_forward_hook(after).remove


def indices(neurons: NeuronSet) -> Indices:
    """What is masked, in lists, which every way to the workers can carry."""
    return {
        site: [row.nonzero()[:, 0].tolist() for row in masks]
        for site, masks in neurons.masks.items()
        if masks.any()
    }


def plain(intervention: Intervention) -> list[Plain]:
    """The steps of an intervention, in their order, as every way to the workers can carry them.

    Of each step its `kind`, `at` and `positions`, and its `sites`: site -> layer -> the indices of
    its neurons and the numbers that belong to them.
    """
    return [
        {
            "kind": step.kind,
            "at": step.at,
            "positions": step.positions,
            "sites": {
                site: [
                    [
                        row.nonzero()[:, 0].tolist(),
                        step.values(site, layer).cpu().expand(row.shape)[row].tolist(),
                    ]
                    for layer, row in enumerate(masks)
                ]
                for site, masks in step.neurons.masks.items()
                if masks.any()
            },
        }
        for step in intervention.steps
    ]


def own_steps(
    steps: Sequence[Plain], shape: Mapping[str, tuple[int, int]], rank: int, world: int
) -> list[Step]:
    """The steps that `plain` gave, on the neurons that worker `rank` of `world` computes.

    Neurons are counted within the worker's shard (see `shard`); of `down` every worker has all.

    Parameters
    ----------
    shape : site -> (layers, width) of the whole model.
    """
    found = []
    for step in steps:
        masks: dict[str, Tensor] = {}
        values: dict[str, Tensor] = {}
        for site, layers in step["sites"].items():
            mask = torch.zeros(shape[site], dtype=torch.bool)
            # Numbers of any type come through unchanged, to be rounded to the activations' only.
            value = torch.zeros(shape[site], dtype=torch.float64)
            for layer, (indices, numbers) in enumerate(layers):
                mask[layer, indices] = True
                value[layer, indices] = torch.tensor(numbers, dtype=torch.float64)
            if site != "down":
                mask, value = shard(mask, rank, world), shard(value, rank, world)
            masks[site], values[site] = mask, value
        kind = _KINDS[step["kind"]]
        found.append(kind(NeuronSet(masks), values, at=step["at"], positions=step["positions"]))
    return found


class _Generated:
    """Lets changes at the tokens only that the model has written itself.

    vLLM computes tokens of many requests in one pass, and a prompt in pieces, or again together
    with what was generated if memory runs out. What tells a token is its place in its own request,
    which every model of vLLM is given: all prompts of a call have `prompt` tokens.
    """

    def __init__(self, prompt: int) -> None:
        self.prompt = prompt
        self.tokens = torch.empty(0, 1, dtype=torch.bool)

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        positions = kwargs["positions"]
        # Where positions are triples (time, height, width), those of text are three times the same.
        positions = positions.reshape(-1, positions.shape[-1])[0]
        self.tokens = (positions >= self.prompt).unsqueeze(-1)

    def only(self, change: Change) -> Change:
        return lambda activation: torch.where(self.tokens, change(activation), activation)


def _change_half(change: Change, half: int) -> Change:
    """A change of the gate (0) or up (1) outputs, as one of the fused projection's."""

    def on_fused(fused: Tensor) -> Tensor:
        halves = list(fused.chunk(2, dim=-1))
        halves[half] = change(halves[half])
        return torch.cat(halves, dim=-1)

    return on_fused


def _change_output(projection: nn.Module, change: Change) -> Callable[[], None]:
    """Hook a projection of vLLM, which returns (output, bias); return what removes the hook."""

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return change(output[0]), *output[1:]

    return projection.register_forward_hook(after).remove


def _change_input(projection: nn.Module, change: Change) -> Callable[[], None]:
    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return change(args[0]), *args[1:]

    return projection.register_forward_pre_hook(before).remove


class _Changed(nn.Module):
    """vLLM's activation function, which multiplies activated gate and `up` at once, changed."""

    def __init__(self, act_fn: nn.Module, changes: Sequence[Change]) -> None:
        super().__init__()
        self.act_fn, self.changes = act_fn, changes

    def forward(self, fused: Tensor) -> Tensor:
        output: Tensor = self.act_fn(fused)
        gate, up = fused.chunk(2, dim=-1)
        # The activated gate alone is what comes of an `up` of ones.
        activated = self.act_fn(torch.cat([gate, torch.ones_like(up)], dim=-1))
        changed = activated
        for change in self.changes:
            changed = change(changed)
        return torch.where(changed == activated, output, changed * up)


def _change_activated(mlp: Any, changes: Sequence[Change]) -> Callable[[], None]:
    """Give an MLP another activation function; return what puts its own back.

    No hook: vLLM makes one GELU for all layers (Gemma's), and every layer would do all changes.
    """
    own = mlp.act_fn
    mlp.act_fn = _Changed(own, changes)

    def restore() -> None:
        mlp.act_fn = own

    return restore


class WorkerExtension:
    """What `VLLMEngine` adds to the workers of vLLM; its methods are called in every worker.

    `get_model` is the worker's.
    """

    get_model: Callable[[], nn.Module]

    def _crane_mlps(self) -> list[Any]:
        """The gated MLP of every layer: `gate_up_proj` (fused), `act_fn` and `down_proj`."""
        return [
            module
            for module in self.get_model().modules()
            if hasattr(module, "gate_up_proj") and hasattr(module, "down_proj")
        ]

    def crane_shape(self) -> dict[str, tuple[int, int]]:
        """The number of (layers, neurons) at each site, as `crane_core.models.shape` has it.

        Empty for a model without gated MLPs or with layers of different widths.
        """
        mlps = self._crane_mlps()
        widths = {(mlp.gate_up_proj.output_size // 2, mlp.down_proj.output_size) for mlp in mlps}
        if len(widths) != 1:
            return {}
        inner, outer = widths.pop()
        sites = {"intermediate": inner, "gate": inner, "up": inner, "down": outer}
        return {site: (len(mlps), width) for site, width in sites.items()}

    def _crane_no_hooks(self) -> list[Callable[[], None]]:
        """Leave the model as it is, and return the list where what removes new hooks belongs."""
        for remove in getattr(self, "_crane_hooks", []):
            remove()
        self._crane_hooks: list[Callable[[], None]] = []
        return self._crane_hooks

    def crane_mask(self, neurons: Indices) -> int:
        """Zero these neurons and do nothing else from now on; return how many hooks this took."""
        hooks = self._crane_no_hooks()
        if not neurons:
            return 0
        shape = self.crane_shape()
        masks = {site: torch.zeros(size, dtype=torch.bool) for site, size in shape.items()}
        for site, layers in neurons.items():
            for layer, indices in enumerate(layers):
                masks[site][layer, indices] = True
        for layer, mlp in enumerate(self._crane_mlps()):
            gate_up, down = mlp.gate_up_proj, mlp.down_proj
            intermediate, gate, up = (masks[site][layer] for site in ("intermediate", "gate", "up"))
            inner = fused_gate_up(intermediate, gate, up, gate_up.tp_rank, gate_up.tp_size)
            for projection, mask in ((gate_up, inner), (down, masks["down"][layer])):
                if mask.any():
                    hooks.append(_zero_outputs(projection, mask))
        return len(hooks)

    def crane_intervene(self, steps: list[Plain], prompt: int = 0) -> int:
        """Do these steps and nothing else from now on; return how many hooks this took.

        Parameters
        ----------
        steps : as `plain` gives them.
        prompt : how many tokens every prompt has, for steps at generated positions.
        """
        hooks = self._crane_no_hooks()
        mlps = self._crane_mlps()
        first = mlps[0].gate_up_proj
        generated = _Generated(prompt)
        if any(step["positions"] == "generated" for step in steps):
            model = self.get_model()
            hooks.append(model.register_forward_pre_hook(generated.before, with_kwargs=True).remove)
        activated: dict[int, list[Change]] = {}
        for step in own_steps(steps, self.crane_shape(), first.tp_rank, first.tp_size):
            for site, masks in step.neurons.masks.items():
                for layer in masks.any(dim=1).nonzero()[:, 0].tolist():
                    mlp, change = mlps[layer], change_of(step, site, layer, masks[layer])
                    if step.positions == "generated":
                        change = generated.only(change)
                    if step.at == "act_fn":
                        activated.setdefault(layer, []).append(change)
                    elif site == "intermediate":
                        hooks.append(_change_input(mlp.down_proj, change))
                    elif site == "down":
                        hooks.append(_change_output(mlp.down_proj, change))
                    else:
                        half = _change_half(change, ("gate", "up").index(site))
                        hooks.append(_change_output(mlp.gate_up_proj, half))
        for layer, changes in activated.items():
            hooks.append(_change_activated(mlps[layer], changes))
        return len(hooks)
