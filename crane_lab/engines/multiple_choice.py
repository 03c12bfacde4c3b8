"""Scores of a model, masked or not, on multiple-choice tasks (§4.3).

Tasks become `Prepared` requests once; `evaluate` gives every item's outcome under whatever mask is
on the model, `accuracies` the score of each task. A task's score is lm-eval's `acc`, or, where its
definition lists it, `acc_mutual_info`: there an option's score is by how much the prompt raises its
log-probability, log p(option | prompt) - log p(option | nothing before it).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import pandas as pd
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from scipy.stats import binomtest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crane_lab.engines.shared_context import Packed, SharedContextLM
from crane_lab.engines.tasks import OPTIONS, Tasks, load_tasks, quiet


@dataclass(frozen=True)
class Item:
    """One question with its options, whatever task it comes from.

    `task` is what a table names; `subtask` the part of it that lm-eval runs, such as one subject.
    `cluster` is what the item shares its outcome's luck with. `lettered`: the prompt lists the
    options and asks for the letter of one, "A" to "D".
    """

    task: str
    subtask: str
    language: str
    id: str
    relation: str
    answer: int
    cluster: str
    options: tuple[str, ...]
    text: str
    lettered: bool = False


#: The item of a document: from the name of the lm-eval task, the document's place among those that
#: are evaluated, and the document.
Describe = Callable[[str, ConfigurableTask, int, Mapping[str, Any]], Item]


def testbed_item(name: str, task: ConfigurableTask, index: int, doc: Mapping[str, Any]) -> Item:
    """The item of one of the testbed's documents (`load_tasks`)."""
    return Item(
        task=name,
        subtask=name,
        language=(task.config.metadata or {}).get("language", ""),
        id=doc["id"],
        relation=doc["relation"],
        answer=doc["answer"],
        cluster=_cluster(doc),
        options=tuple(doc["options"]),
        text=f"{doc['passage']} {doc['question']}",
    )


@dataclass(frozen=True)
class Prepared:
    """Tasks tokenised and batched for one tokenizer; made by `prepare`, used by `evaluate`.

    Holds no model: the same preparation serves every mask, and a chat model with the base model's
    tokenizer and maximum length.
    """

    tokenizer: PreTrainedTokenizerBase
    tasks: Tasks
    requests: tuple[Instance, ...]
    packed: Packed
    described: tuple[Item, ...]

    @property
    def items(self) -> pd.DataFrame:
        """One row per item: task, subtask, language, id, relation, answer, cluster."""
        columns = ["task", "subtask", "language", "id", "relation", "answer", "cluster"]
        rows = [[getattr(item, name) for name in columns] for item in self.described]
        return pd.DataFrame(rows, columns=columns)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where each item's requests begin among `requests`, and, last, where they end.

        The first `OPTIONS` requests of an item are its options behind its prompt.
        """
        sizes = [_requests_per_item(self.tasks[item.subtask]) for item in self.described]
        return tuple(accumulate(sizes, initial=0))


def prepare(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Tasks | None = None,
    describe: Describe = testbed_item,
    row_tokens: int = 256,
) -> Prepared:
    """Build the requests of `tasks` (default: all six) with lm-eval and pack them, once.

    `model` gives the maximum length only; prompts that exceed it lose their beginning, as in
    lm-eval, and a warning says how many. `describe` makes items of documents, `row_tokens` is
    `SharedContextLM`'s: longer rows share long few-shot prompts among more items.

    Raises as `load_tasks` and `SharedContextLM.pack` do, and ValueError without tasks and for an
    item that has not `OPTIONS` options.
    """
    tasks = load_tasks() if tasks is None else tasks
    if not tasks:
        raise ValueError("no tasks to evaluate; expected at least one from load_tasks")
    requests: list[Instance] = []
    described = []
    for name, task in tasks.items():
        with quiet():
            task.build_all_requests()
        requests += task.instances
        size = _requests_per_item(task)
        for index, start in enumerate(range(0, len(task.instances), size)):
            own = task.instances[start : start + size]
            same = len({request.doc_id for request in own}) == 1
            if not same or [request.idx for request in own] != list(range(size)):
                raise ValueError(
                    f"task {name!r}, item {own[0].doc_id}: expected {OPTIONS} options per item; "
                    "tasks with other numbers cannot be evaluated"
                )
            described.append(describe(name, task, index, own[0].doc))
    lm = SharedContextLM(model, tokenizer, row_tokens=row_tokens)
    packed = lm.pack([request.args for request in requests])
    if packed.truncated:
        warnings.warn(
            f"{packed.truncated} of {len(requests)} prompts are longer than the model's "
            f"{packed.max_length} positions and lose their beginning; fewer few-shot examples "
            "would fit",
            stacklevel=2,
        )
    return Prepared(tokenizer, tasks, tuple(requests), packed, tuple(described))


def metric_of(task: ConfigurableTask) -> str:
    """The metric of lm-eval that is a task's score: "acc_mutual_info" where listed, else "acc"."""
    listed = {entry["metric"] for entry in task.config.metric_list or ()}
    return "acc_mutual_info" if "acc_mutual_info" in listed else "acc"


def _requests_per_item(task: ConfigurableTask) -> int:
    # For the mutual information lm-eval asks for every option once more, without the prompt.
    return OPTIONS * (2 if metric_of(task) == "acc_mutual_info" else 1)


def _cluster(doc: Mapping[str, Any]) -> str:
    """What an item shares its outcome's luck with: its passage, or the fact that it names."""
    if doc.get("cluster"):
        return str(doc["cluster"])
    if doc["passage"]:
        return "passage-" + hashlib.sha256(doc["passage"].encode()).hexdigest()[:12]
    return str(doc["id"])


def evaluate(
    model: PreTrainedModel,
    prepared: Prepared | PreTrainedTokenizerBase,
    tasks: Tasks | None = None,
    note: Callable[[str], object] = lambda text: None,
) -> pd.DataFrame:
    """Every item's outcome under `model` as it is now, with whatever mask is on it.

    One row per item: `task`, `subtask` (one of the tasks that a group such as MMLU consists of),
    `language`, `id`, `relation`, `cluster` (items on one passage, or on one fact in several
    languages, share it), `choice` (the option with the largest summed log-probability), `answer`
    (the right option), `correct` (lm-eval's `acc`), `margin` (the right option's log-probability
    minus the best other one's, in nats) and
    `logprob_0` … `logprob_3`. Where a task's score is `acc_mutual_info`, all of these are of the
    log-probability less that without the prompt. Given a tokenizer instead of a `Prepared`, `tasks`
    (default: all six) are prepared first; for more than one evaluation call `prepare` once. What
    does not fit into memory is run in smaller batches, of which `note` is told.

    Raises ValueError if a log-probability is not a number (which item), or if the model's maximum
    length is not the one prepared for.
    """
    if not isinstance(prepared, Prepared):
        prepared = prepare(model, prepared, tasks)
    elif tasks is not None:
        raise TypeError("tasks are fixed by the Prepared; give a tokenizer to evaluate others")
    lm = SharedContextLM(model, prepared.tokenizer, packed=prepared.packed)
    lm.note = note
    if lm.max_length != prepared.packed.max_length:
        raise ValueError(
            f"prepared for a maximum length of {prepared.packed.max_length} tokens, but the "
            f"model's is {lm.max_length}; prepare again with this model"
        )
    return outcomes(prepared, lm.loglikelihood(list(prepared.requests), disable_tqdm=True))


def outcomes(prepared: Prepared, results: Sequence[tuple[float, bool]]) -> pd.DataFrame:
    """The rows of `evaluate` from each request's log-likelihood and greedy flag.

    `results` are in the order of `prepared.requests`, from whatever engine. Raises ValueError if
    their number is another one, or for a log-probability that is not finite (which item).
    """
    items = prepared.items
    if len(results) != len(prepared.requests):
        raise ValueError(f"{len(results)} results for {len(prepared.requests)} requests")
    asked, starts = torch.tensor([logprob for logprob, _ in results]), prepared.starts
    first = torch.tensor(starts[:-1])[:, None] + torch.arange(OPTIONS)
    alone = torch.tensor([end - start > OPTIONS for start, end in pairwise(starts)])
    # In double precision, as lm-eval takes the difference.
    scores = asked.double()[first]
    scores[alone] -= asked.double()[first[alone] + OPTIONS]
    broken = (~scores.isfinite()).any(1).nonzero().flatten().tolist()
    if broken:
        raise ValueError(
            f"{len(broken)} of {len(items)} items have log-probabilities that are not finite, "
            f"first {items['id'][broken[0]]!r}: {scores[broken[0]].tolist()}; check the model's "
            "weights"
        )
    correct = []
    for (start, end), name in zip(pairwise(starts), items["subtask"], strict=True):
        task = prepared.tasks[name]
        outcome = task.process_results(prepared.requests[start].doc, results[start:end])
        correct.append(bool(outcome[metric_of(task)]))
    answer = torch.tensor(items["answer"].to_numpy())[:, None]
    others = scores.scatter(1, answer, -torch.inf).amax(1)
    items.insert(5, "choice", scores.argmax(1).numpy())
    items["correct"] = correct
    items["margin"] = (scores.gather(1, answer)[:, 0] - others).float().numpy()
    for option in range(OPTIONS):
        items[f"logprob_{option}"] = scores[:, option].float().numpy()
    return items


def accuracies(items: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Accuracy per task with its Wilson interval, indexed by `task` in order of appearance.

    Columns `accuracy` (lm-eval's `acc` or `acc_mutual_info`), `n` (items), `low` and `high` (the
    interval at `level`).
    Raises ValueError if there are no items.
    """
    if items.empty:
        raise ValueError("no items to score; expected the table that evaluate returns")
    rows = []
    for task, correct in items.groupby("task", sort=False)["correct"]:
        right, n = int(correct.sum()), len(correct)
        interval = binomtest(right, n).proportion_ci(level, method="wilson")
        rows.append((task, right / n, n, interval.low, interval.high))
    return pd.DataFrame(rows, columns=["task", "accuracy", "n", "low", "high"]).set_index("task")
