"""Open-ended answers by vLLM, with neurons masked inside the running engine (§3.4, §4.4).

vLLM packs its weights for the processor when it loads them, so they cannot be edited afterwards.
Its workers can be extended, though, and `MaskingExtension` hooks the MLPs' projections there. One
start-up then serves any number of masks. In a checkpoint made by `crane_core.masking.bake` the
mask is in the weights already, and vLLM needs nothing of this.

vLLM itself is imported when an engine is made: everything else here works without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from crane_core import models
from crane_core.interventions import UNTOUCHED, Intervention
from crane_core.neurons import NeuronSet
from crane_lab.engines.decoding import Prompts, end_tokens
from crane_lab.engines.generation import Answer, Decoding, answer, context_length, room

#: Masks as they travel to the workers: site -> layer -> indices of the masked neurons.
Indices = dict[str, list[list[int]]]


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


class MaskingExtension:
    """What `VLLMEngine` adds to the workers of vLLM; its methods are called in every worker.

    `get_model` is the worker's.
    """

    get_model: Callable[[], nn.Module]

    def _crane_mlps(self) -> list[tuple[Any, Any]]:
        """Fused gate and up projection, and down projection, of every layer."""
        return [
            (module.gate_up_proj, module.down_proj)
            for module in self.get_model().modules()
            if hasattr(module, "gate_up_proj") and hasattr(module, "down_proj")
        ]

    def crane_shape(self) -> dict[str, tuple[int, int]]:
        """The number of (layers, neurons) at each site, as `crane_core.models.shape` has it.

        Empty for a model without gated MLPs or with layers of different widths.
        """
        mlps = self._crane_mlps()
        widths = {(up.output_size // 2, down.output_size) for up, down in mlps}
        if len(widths) != 1:
            return {}
        inner, outer = widths.pop()
        sites = {"intermediate": inner, "gate": inner, "up": inner, "down": outer}
        return {site: (len(mlps), width) for site, width in sites.items()}

    def crane_mask(self, neurons: Indices) -> int:
        """Zero these neurons, and no others, from now on; return how many hooks this took."""
        for remove in getattr(self, "_crane_hooks", []):
            remove()
        hooks: list[Callable[[], None]] = []
        self._crane_hooks = hooks
        if not neurons:
            return 0
        shape = self.crane_shape()
        masks = {site: torch.zeros(size, dtype=torch.bool) for site, size in shape.items()}
        for site, layers in neurons.items():
            for layer, indices in enumerate(layers):
                masks[site][layer, indices] = True
        for layer, (gate_up, down) in enumerate(self._crane_mlps()):
            intermediate, gate, up = (masks[site][layer] for site in ("intermediate", "gate", "up"))
            inner = fused_gate_up(intermediate, gate, up, gate_up.tp_rank, gate_up.tp_size)
            for projection, mask in ((gate_up, inner), (down, masks["down"][layer])):
                if mask.any():
                    hooks.append(_zero_outputs(projection, mask))
        return len(hooks)


class VLLMEngine:
    """Answers by vLLM; the interface is that of `crane_lab.engines.generation.HuggingFaceEngine`.

    Parameters
    ----------
    path : a folder with a checkpoint, a baked one too, or a name on the Hugging Face hub.
    decoding : see `Decoding`.
    dtype : a torch type by name, or "auto" for that of the checkpoint. Answers equal those of the
        other engine token for token in "float32" only: shorter types round differently.
    local_files_only : whether to stay offline (then a hub name is looked for in the local cache).
    progress : whether to show a progress bar.
    options : more arguments of `vllm.LLM`, such as `tensor_parallel_size`.

    An engine holds its processes and memory until `close`; it is a context manager, too. A script
    must make it under `if __name__ == "__main__":`, because vLLM's processes import the script.

    Raises ModuleNotFoundError, saying what to install, without vLLM; FileNotFoundError or
    ValueError for a checkpoint that is missing or damaged, and ValueError for a context longer
    than the model's positions and for options that masking cannot work with.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        decoding: Decoding | None = None,
        dtype: str = "float32",
        local_files_only: bool = True,
        progress: bool = True,
        **options: Any,
    ):
        self.decoding, self.progress = decoding or Decoding(), progress
        self._llm: Any = None
        name = os.fspath(path)
        fixed = {
            "enforce_eager": True,  # a compiled graph would leave the hooks out
            "enable_prefix_caching": False,  # what one mask computed is wrong under another
            "pipeline_parallel_size": 1,  # every worker has all layers
        }
        if wrong := [key for key, value in fixed.items() if options.get(key, value) != value]:
            raise ValueError(
                f"{wrong[0]}={options[wrong[0]]!r} does not go with masking; "
                f"leave it out, it is {fixed[wrong[0]]!r}"
            )
        if find_spec("vllm") is None:
            raise ModuleNotFoundError(
                "vLLM is not installed. Install it in an environment of its own with "
                "`pip install -r requirements-vllm.txt` (a GPU), or `make test-vllm` to have one "
                "with the build for processors in .venv-vllm; or use HuggingFaceEngine, which "
                "answers alike",
                name="vllm",
            )
        config = models.read_config(name, local_files_only).get_text_config()
        self.context = context_length(self.decoding, config.max_position_embeddings)
        try:
            configured = GenerationConfig.from_pretrained(name, local_files_only=local_files_only)
        except OSError:
            configured = GenerationConfig.from_model_config(config)

        from vllm import LLM

        self._llm = LLM(
            model=name,
            dtype=dtype,
            max_model_len=self.context,
            generation_config="vllm",  # no defaults from the checkpoint
            worker_extension_cls=f"{__name__}.{MaskingExtension.__name__}",
            **{"seed": 0, **options, **fixed},
        )
        try:
            self.tokenizer = self._llm.get_tokenizer()
            self._ends = end_tokens(configured, self.tokenizer)
            found = self._llm.collective_rpc("crane_shape")[0]
            self.shape = {site: (int(n), int(width)) for site, (n, width) in found.items()}
        except BaseException:
            self.close()
            raise

    def generate(self, prompts: Prompts, intervention: Intervention = UNTOUCHED) -> list[Answer]:
        """One answer per prompt (token ids), in their order, under an intervention.

        The engine is left unmasked; an error or an interruption on the way closes it. Raises
        ValueError for a prompt that leaves no room in the context and for a set made for another
        model's shape, RuntimeError after `close`.
        """
        if self._llm is None:
            raise RuntimeError("this engine is closed; make a new VLLMEngine")
        limits = room(prompts, self.decoding, self.context)
        neurons = intervention.as_masking
        if neurons is not None:
            if not self.shape:
                raise ValueError(
                    "this model has no gated MLPs of one width in vLLM, so nothing can be masked "
                    "there; use HuggingFaceEngine or a checkpoint made by crane_core.masking.bake"
                )
            neurons.require_shape(self.shape)
        from vllm import SamplingParams

        settings = [
            SamplingParams(
                temperature=0,
                repetition_penalty=self.decoding.repetition_penalty,
                max_tokens=limit,
                stop=list(self.decoding.stop),
                stop_token_ids=self._ends,
            )
            for limit in limits
        ]
        inputs = [{"prompt_token_ids": list(ids)} for ids in prompts]
        if neurons is not None:
            self._mask(_indices(neurons))
        try:
            outputs = self._llm.generate(inputs, settings, use_tqdm=self.progress)
        except BaseException:
            # Requests that are still under way would come out of the next call.
            self.close()
            raise
        if neurons is not None:
            self._mask({})
        return [
            answer(self.tokenizer, output.outputs[0].token_ids, self._ends, self.decoding.stop)
            for output in outputs
        ]

    def _mask(self, indices: Indices) -> None:
        self._llm.collective_rpc("crane_mask", args=(indices,))

    def close(self) -> None:
        """Stop vLLM and give back its memory; harmless if done already."""
        if self._llm is not None:
            llm, self._llm = self._llm, None
            llm.llm_engine.engine_core.shutdown()

    def __enter__(self) -> VLLMEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _indices(neurons: NeuronSet) -> Indices:
    """What is masked, in lists, which every way to the workers can carry."""
    return {
        site: [row.nonzero()[:, 0].tolist() for row in masks]
        for site, masks in neurons.masks.items()
        if masks.any()
    }
