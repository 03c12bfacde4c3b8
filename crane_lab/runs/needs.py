"""What notebooks need, looked at before the first of them is run: everything but the weights.

What is missing is found by the code that would miss it hours later, on a model without weights.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from crane_core import models
from crane_lab.engines.llm_judge import LLMJudge
from crane_lab.pipeline import Pipeline
from crane_lab.runs.parameters import Notebook
from crane_lab.settings import Settings
from crane_lab.stages.keys import Loaded
from crane_lab.store import ROOT, Store

#: The pipeline's methods that take benchmarks, and those that take open questions and a judge.
TASKS = {"evaluated", "prepared", "answers", "task_fingerprint"}
QUESTIONS = {"asked", "said", "graded", "judged"}
#: Where a gated model's configuration cannot be had offline: ours, for planning and rehearsing.
CONFIGS = ROOT / "data" / "configs"


def check_needs(
    notebooks: Iterable[Notebook], values: Mapping[str, Any], store: Path, here: bool = True
) -> None:
    """Raise what would go wrong in notebooks that are given `values`, as far as can be seen.

    That is: texts, tasks, questions and the judge's prompt, in every language, and enough of them.
    If the run is to be `here`, also the machine: the device, vLLM, the checkpoint's files but for
    the weights, and the judge's key. Paths are from the working directory; `store` is the folder of
    artefacts.

    Raises ValueError, FileNotFoundError or whatever the code raises that is concerned.
    """
    pipelined = [nb for nb in notebooks if "Pipeline" in nb.source]
    if not pipelined:
        return
    settings = Settings.of(values)
    used = set().union(*(methods_named(nb.source) for nb in pipelined))
    if here:
        _check_machine(settings, used, store)
    base = _without_weights(settings, store, here)
    answering = [base]
    if values["chat_model"] and any("chat_model" in nb.parameters for nb in pipelined):
        chat = dataclasses.replace(settings, model=values["chat_model"], chat=True)
        answering = [_without_weights(chat, store, here)]
        if here:
            base.require_same_neurons(answering[0])
        if any("chat_model" not in nb.parameters for nb in pipelined):
            answering.append(base)
    if here:
        _ = base.windows, base.perplexity_windows
    if used & TASKS:
        _ = base.task_fingerprint if here or settings.benchmarks != "harness" else base.task_names
    if used & QUESTIONS:
        for pipeline in answering:
            _check_questions(pipeline)


def _check_questions(pipeline: Pipeline) -> None:
    asked = pipeline.asked
    if pipeline.settings.judge == "rubric":  # which knows the testbed's questions only
        pipeline.judge.score(asked.assign(text=""))
    else:
        _ = pipeline.judge
    if pipeline.tokenizer is not None:
        _ = pipeline.prompts


def _check_machine(settings: Settings, used: set[str], store: Path) -> None:
    models.torch_device(settings.device)
    engines = {"engine": used & QUESTIONS, "benchmark_backend": used & TASKS}
    for name, needed in engines.items():
        if needed and getattr(settings, name) == "vllm" and not importlib.util.find_spec("vllm"):
            raise ValueError(
                f"{name} is 'vllm', but vLLM is not installed here; install it as "
                "requirements-vllm.txt says, or set it to 'huggingface'"
            )
    key = LLMJudge.key_variable
    kept = (store / "judge.sqlite").exists()  # all verdicts may be there
    if used & QUESTIONS and settings.judge == "llm" and not kept and not os.environ.get(key):
        raise ValueError(
            f"judge is 'llm', but the environment variable {key} is not set; put the endpoint's "
            "key there (any word, if it asks for none)"
        )


def _without_weights(settings: Settings, store: Path, here: bool) -> Pipeline:
    """A pipeline that knows all about its model but the weights, and its tokenizer if `here`."""
    config = configuration(settings.model, settings.offline, fall_back=not here)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    tokenizer: Any = None
    if here:
        tokenizer = models.load_tokenizer(settings.model, settings.offline)
    return Pipeline(settings, Store(store), Loaded(model, tokenizer))


def configuration(model: str, offline: bool, fall_back: bool = True) -> PreTrainedConfig:
    """The configuration of a model by path or name; ours where it cannot be had, if wanted.

    Raises what `models.read_config` raises.
    """
    known = CONFIGS / f"{model.rsplit('/', 1)[-1]}.json"
    try:
        return models.read_config(model, local_files_only=offline)
    except FileNotFoundError:
        if not (fall_back and known.is_file()):
            if Path(model).parent.name == "models":
                name = Path(model).name
                raise FileNotFoundError(
                    f"model {model!r} is not there; `crane fetch {name}` makes it, if it is one "
                    "of those that can be fetched"
                ) from None
            raise
        config: PreTrainedConfig = AutoConfig.for_model(**json.loads(known.read_text("utf-8")))
        return config


def methods_named(source: str) -> set[str]:
    """Names behind a dot in a notebook's source, but those of the modules that it imports."""
    tree = ast.parse(source)
    modules = {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and not (isinstance(node.value, ast.Name) and node.value.id in modules)
    }
