"""What is done to neurons while a model runs (§3.4), and undone to the bit afterwards.

An `Intervention` is one step or several, each a set of neurons and what becomes of their outputs:
`SetTo` a value, `Add` a vector times a strength, `Scale` by a factor. `intervened` carries it out
inside a `with` block. §3.4 sets the masked neurons to zero (`zero`). That is done in the weights,
which are put back afterwards: an evaluation then costs exactly what one without costs, and runs the
same kernels. It is the same intervention at every site:

- intermediate neuron i is read by column i of `down_proj` only; a zero column is a zero input;
- output i of `gate_proj`, `up_proj` or `down_proj` is row i (and bias i): a zero row gives zero.

0 * x and x * 0 enter the products alike, so the result is the same to the bit wherever activations
are finite. Everything else, and weights that cannot be edited without touching something else
(shared, quantised or offloaded ones), goes through hooks that replace activations.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from crane_core.families import GatedMLP, decoder, mlp_sites
from crane_core.families import shape as model_shape
from crane_core.selection import NeuronSet

#: site -> the projection where it is found, and the dimension of its weight that counts neurons.
PLACES = {
    "intermediate": ("down_proj", 1),
    "gate": ("gate_proj", 0),
    "up": ("up_proj", 0),
    "down": ("down_proj", 0),
}
#: Where an intermediate neuron is met: what `down_proj` reads, or what `act_fn` puts out.
POINTS = ("unit", "act_fn")
POSITIONS = ("all", "generated")

#: One number for all neurons, or one per neuron: site -> (layers, width).
Value = float | Mapping[str, Tensor]


class Step:
    """Neurons and what is done to their outputs; see `SetTo`, `Add` and `Scale`.

    Parameters
    ----------
    neurons : whose outputs change.
    value : a number, or a number per neuron as a dict site -> (layers, width), such as the means in
        one language.
    at : for intermediate neurons, "unit" for the product of both factors, which `down_proj` reads
        and the paper masks, or "act_fn" for the activated gate alone, which LAPE counts.
    positions : "all", or "generated" for the tokens that the model itself has written; that needs a
        generation with a cache.

    Raises ValueError for another `at` or `positions`, for neurons of other sites at "act_fn", and
    for values that are missing, misshapen or not finite; TypeError for a value of another type.
    """

    kind = ""

    def __init__(
        self, neurons: NeuronSet, value: Value, *, at: str = "unit", positions: str = "all"
    ) -> None:
        for name, given, known in (("at", at, POINTS), ("positions", positions, POSITIONS)):
            if given not in known:
                raise ValueError(f"{name} is {given!r}: expected one of {known}")
        if at == "act_fn" and set(neurons.sites) - {"intermediate"}:
            raise ValueError(
                f"neurons of sites {neurons.sites} at 'act_fn': only intermediate ones are there"
            )
        self.neurons, self.at, self.positions = neurons, at, positions
        self.value = _checked_value(neurons, value)

    def values(self, site: str, layer: int) -> Tensor:
        """The numbers of one site and layer, one or (width,)."""
        return (
            torch.tensor(self.value) if isinstance(self.value, float) else self.value[site][layer]
        )

    def changed(self, activation: Tensor, values: Tensor) -> Tensor:
        """What `activation` (..., width) becomes where the neurons are."""
        raise NotImplementedError

    @property
    def is_zero(self) -> bool:
        """Whether this is the masking of §3.4, which the weights can do."""
        return False

    def digest(self) -> str:
        """Short hex digest; of setting to zero it is the neuron set's own."""
        if self.is_zero:
            return self.neurons.digest()
        sums = hashlib.sha256()
        if isinstance(self.value, dict):
            for site in self.neurons.sites:
                # What stands at other neurons makes no difference.
                chosen = self.value[site].double().cpu()[self.neurons.mask(site)]
                sums.update(site.encode() + chosen.numpy().tobytes())
        number = self.value if isinstance(self.value, float) else sums.hexdigest()
        about = [self.kind, self.neurons.digest(), number, self.at, self.positions]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


class SetTo(Step):
    """Neurons put out a value, whatever comes in."""

    kind = "set"

    def changed(self, activation: Tensor, values: Tensor) -> Tensor:
        """`values`, (..., width)."""
        return values.expand_as(activation)

    @property
    def is_zero(self) -> bool:
        """Whether the value is zero at the place that the paper masks, at all positions."""
        return self.value == 0.0 and self.at == "unit" and self.positions == "all"


class Add(Step):
    """A vector times a strength is added to neurons' outputs."""

    kind = "add"

    def __init__(
        self,
        neurons: NeuronSet,
        vector: Value,
        strength: float = 1.0,
        *,
        at: str = "unit",
        positions: str = "all",
    ) -> None:
        strength = _number(strength, "strength")
        scaled: Value = (
            {site: strength * tensor for site, tensor in vector.items()}
            if isinstance(vector, Mapping)
            else strength * _number(vector, "vector")
        )
        super().__init__(neurons, scaled, at=at, positions=positions)

    def changed(self, activation: Tensor, values: Tensor) -> Tensor:
        """`activation` + `values`."""
        return activation + values


class Scale(Step):
    """Neurons' outputs are multiplied by a factor."""

    kind = "scale"

    def changed(self, activation: Tensor, values: Tensor) -> Tensor:
        """`activation` * `values`."""
        return activation * values


class Intervention:
    """Steps that are carried out together, in their order; none leaves the model as it is.

    `a + b` does both. `len` is the number of neurons that are touched.
    """

    def __init__(self, *steps: Step) -> None:
        self.steps = steps

    def __add__(self, other: Intervention) -> Intervention:
        return Intervention(*self.steps, *other.steps)

    @property
    def neurons(self) -> NeuronSet | None:
        """All neurons that are touched; None without a step."""
        union: NeuronSet | None = None
        for step in self.steps:
            union = step.neurons if union is None else union | step.neurons
        return union

    @property
    def is_zero(self) -> bool:
        """Whether every step is the masking of §3.4."""
        return all(step.is_zero for step in self.steps)

    @property
    def as_masking(self) -> NeuronSet | None:
        """The neurons that are set to zero, if that is all that is done; None without a step.

        Raises ValueError for anything else, for engines that can mask and nothing more.
        """
        if not self.is_zero:
            kinds = ", ".join(f"{s.kind} at {s.at}, {s.positions} positions" for s in self.steps)
            raise ValueError(f"only setting to zero can be done here; got {kinds}")
        return self.neurons

    def __len__(self) -> int:
        return 0 if self.neurons is None else len(self.neurons)

    def digest(self) -> str:
        """Short hex digest: "" without a step, and the set's own for one set to zero."""
        if len(self.steps) < 2:
            return "".join(step.digest() for step in self.steps)
        digests = json.dumps([step.digest() for step in self.steps])
        return hashlib.sha256(digests.encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        said = (f"{step.kind} {len(step.neurons)} neurons" for step in self.steps)
        return f"Intervention({', '.join(said)})"


#: The model as it is.
UNTOUCHED = Intervention()


def zero(neurons: NeuronSet) -> Intervention:
    """Masking as in §3.4: `neurons` put out zero at every position."""
    return Intervention(SetTo(neurons, 0.0))


def _number(value: object, name: str, wanted: str = "a number") -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be {wanted}; got {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}; a finite number is needed")
    return float(value)


def _checked_value(neurons: NeuronSet, value: Value) -> dict[str, Tensor] | float:
    if not isinstance(value, Mapping):
        return _number(value, "mask value", "a number or a dict site -> tensor (layers, width)")
    for site, masks in neurons.masks.items():
        if not masks.any():
            continue
        if site not in value:
            raise ValueError(f"the set has neurons at site {site!r}, but no value is given there")
        if not isinstance(value[site], Tensor):
            raise TypeError(
                f"values at site {site!r} must be a tensor; got {type(value[site]).__name__}"
            )
        if value[site].shape != masks.shape:
            raise ValueError(
                f"values at site {site!r} have shape {tuple(value[site].shape)}; "
                f"(layers, width) is {tuple(masks.shape)}"
            )
        bad = (masks & ~value[site].cpu().isfinite()).nonzero().tolist()
        if bad:
            raise ValueError(
                f"the value at site {site!r} is not finite for neuron (layer, neuron) {bad[0]}"
            )
    return dict(value)


# --- carrying it out ------------------------------------------------------------------------------


def _places(
    model: PreTrainedModel, neurons: NeuronSet
) -> Iterator[tuple[str, int, GatedMLP, Tensor]]:
    """Site, layer, MLP and mask (width,) wherever there is something to do."""
    mlps = mlp_sites(model)
    for site, masks in neurons.masks.items():
        for layer, mlp in enumerate(mlps):
            if masks[layer].any():
                yield site, layer, mlp, masks[layer]


def _projection(mlp: GatedMLP, site: str) -> nn.Module:
    found: nn.Module = getattr(mlp, PLACES[site][0])
    return found


def own_weights(model: PreTrainedModel, neurons: NeuronSet) -> bool:
    """Whether every weight to be zeroed is a plain one that nothing else in the model uses."""
    parameters = [p for _, p in model.named_parameters(remove_duplicate=False)]
    users = Counter(p.data_ptr() for p in parameters if not p.is_meta)
    return all(
        type(projection) is nn.Linear
        and all(not p.is_meta and users[p.data_ptr()] == 1 for p in projection.parameters())
        for site, _, mlp, _ in _places(model, neurons)
        for projection in [_projection(mlp, site)]
    )


def _zero(parameter: Tensor, dimension: int, index: Tensor) -> Callable[[], None]:
    """Zero slices of a weight or bias in place; return what puts their very bits back."""
    with torch.no_grad():
        kept = parameter.index_select(dimension, index)
        parameter.index_fill_(dimension, index, 0)

    def restore() -> None:
        with torch.no_grad():
            parameter.index_copy_(dimension, index, kept)

    return restore


def _zero_in_weights(model: PreTrainedModel, neurons: NeuronSet, undo: ExitStack) -> None:
    for site, _, mlp, mask in _places(model, neurons):
        projection = _projection(mlp, site)
        weight = projection.get_parameter("weight")
        index = mask.nonzero()[:, 0].to(weight.device)
        undo.callback(_zero(weight, PLACES[site][1], index))
        if site != "intermediate" and projection.bias is not None:
            undo.callback(_zero(projection.get_parameter("bias"), 0, index))


class _Generation:
    """Whether a forward pass is over tokens that the model has written itself."""

    def __init__(self) -> None:
        self.under_way = False

    def before(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        cache = kwargs.get("past_key_values")
        if cache is None:
            raise ValueError(
                "an intervention at generated positions only needs a generation with a cache; "
                "use positions='all' to score texts"
            )
        self.under_way = cache.get_seq_length() > 0


def _hook(
    mlp: GatedMLP, site: str, at: str, change: Callable[[Tensor], Tensor]
) -> Callable[[], None]:
    """Let `change` replace activations at a site; return what removes the hook."""

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return change(args[0]), *args[1:]

    def after(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return change(output)

    if at == "act_fn":
        return mlp.act_fn.register_forward_hook(after).remove
    projection = _projection(mlp, site)
    if site == "intermediate":
        return projection.register_forward_pre_hook(before).remove
    return projection.register_forward_hook(after).remove


def change_of(
    step: Step, site: str, layer: int, mask: Tensor, active: Callable[[], bool] = lambda: True
) -> Callable[[Tensor], Tensor]:
    """What a step makes of the activations (..., width) of one site and layer, as a function."""
    values = step.values(site, layer)
    on: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def change(activation: Tensor) -> Tensor:
        if not active():
            return activation
        device = activation.device
        if device not in on:
            on[device] = mask.to(device), values.to(activation)
        here, number = on[device]
        return torch.where(here, step.changed(activation, number), activation)

    return change


@contextmanager
def intervened(model: PreTrainedModel, intervention: Intervention) -> Iterator[PreTrainedModel]:
    """The model under an intervention, inside a `with` block (§3.4).

    Nothing else in it changes, and on exit, by an error too, it is what it was, to the bit. Steps
    at one place are carried out in order, each on what the one before has made.

    Blocks can be nested and then do both, if they share no neuron (for those that do, give the
    steps to one `Intervention`); leave them in reverse order. Where zero is done in the weights
    (see above), a hook of yours on `down_proj` still sees the activation of a masked intermediate
    neuron: it is what comes of it that is zero.

    Raises ValueError for neurons of another model's shape, and for an unknown family or a model
    without gated MLPs; inside the block, if positions are "generated", for a forward pass without a
    cache.
    """
    shape = model_shape(model)
    for step in intervention.steps:
        step.neurons.require_shape(shape)
    neurons = intervention.neurons
    with ExitStack() as undo:
        if neurons is not None and intervention.is_zero and own_weights(model, neurons):
            _zero_in_weights(model, neurons, undo)
        else:
            generation = _Generation()
            if any(step.positions == "generated" for step in intervention.steps):
                handle = decoder(model).register_forward_pre_hook(
                    generation.before, with_kwargs=True
                )
                undo.callback(handle.remove)
            for step in intervention.steps:
                everywhere = step.positions == "all"
                for site, layer, mlp, mask in _places(model, step.neurons):

                    def active(everywhere: bool = everywhere) -> bool:
                        return everywhere or generation.under_way

                    change = change_of(step, site, layer, mask, active)
                    undo.callback(_hook(mlp, site, step.at, change))
        yield model
