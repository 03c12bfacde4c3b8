"""Scores of a model, masked or not, on multiple-choice tasks and on text (§4.3).

lm-evaluation-harness holds the tasks: its YAML files say where the items are and how a prompt is
made, it builds the requests, and its `acc` is the score. `SharedContextLM` is its `HFLM` with one
difference: where `HFLM` runs the whole prompt once per option, requests that begin alike are laid
out as a tree and every shared token is computed once. The log-likelihoods are the same to 1e-5.

Held-out perplexity is the second read-out: more sensitive than accuracy, and never clipped.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import re
import tempfile
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from scipy.stats import binomtest
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from crane_core import models
from crane_core.kernels import fast_linear
from crane_lab.memory import Memory
from crane_lab.store.sources import ROOT

#: The six tasks of the testbed, shaped like MMLU, C-Eval (knowledge) and Belebele (reading).
TASKS = tuple(f"{kind}_{lang}" for kind in ("knowledge", "reading") for lang in ("en", "zh", "vi"))
#: Where their YAML files and items are.
FOLDER = ROOT / "data" / "testbed" / "tasks"
OPTIONS = 4
#: Requests tokenised and laid out at a time.
_PORTION = 4096
#: Positions whose vocabulary logits exist at one time in `perplexity`.
_LOGIT_ROWS = 1024

Tasks = dict[str, ConfigurableTask]


# ---------------------------------------------------------------------------------------- tasks


def load_tasks(
    names: Sequence[str] = TASKS, folder: str | Path = FOLDER, limit: int | None = None
) -> Tasks:
    """lm-eval task objects by name, from `<folder>/<name>.yaml` and the items beside it.

    Works offline and from any working directory, and always reads the items afresh: lm-eval's
    cache of the data set lives in a temporary folder that is gone on return. With `limit`, that
    many items spread evenly over the file (lm-eval's own limit takes the first ones).

    Raises ValueError for an unknown task, an empty file or a malformed item (which file and line),
    and FileNotFoundError if the folder or a file is missing.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 item per task, got {limit}")
    folder, manager = _open(folder)
    tasks: Tasks = {}
    for name in names:
        items = _items_file(manager, name, folder)
        n = len(_read_items(items))
        with _quiet(), tempfile.TemporaryDirectory(prefix="crane-tasks-") as cache:
            settings = {
                "data_files": {"test": str(items)},
                "cache_dir": cache,
                "keep_in_memory": True,
            }
            config = {**manager.task_index[name].cfg, "dataset_kwargs": settings}
            task = manager.load([config])["tasks"][name]
        if limit is not None and limit < n:
            chosen = [index * n // limit for index in range(limit)]
            task.dataset["test"] = task.dataset["test"].select(chosen)
        tasks[name] = task
    return tasks


def fingerprint(names: Sequence[str] = TASKS, folder: str | Path = FOLDER) -> dict[str, str]:
    """SHA-256 over each task's settings and items, for the keys of what is computed from them.

    Raises as `load_tasks` does for a folder, task or file that is not there.
    """
    folder, manager = _open(folder)
    digests = {}
    for name in names:
        items = _items_file(manager, name, folder)
        settings = json.dumps(manager.task_index[name].cfg, sort_keys=True, default=str)
        digests[name] = hashlib.sha256(settings.encode() + b"\0" + items.read_bytes()).hexdigest()
    return digests


def _open(folder: str | Path) -> tuple[Path, TaskManager]:
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"task folder {folder} does not exist")
    return folder, TaskManager(include_path=str(folder), include_defaults=False)


def _items_file(manager: TaskManager, name: str, folder: Path) -> Path:
    """The items of a task: the file its YAML names, beside the YAML (independent of the cwd)."""
    if name not in manager.all_subtasks:
        known = ", ".join(manager.all_subtasks) or "none"
        raise ValueError(f"unknown task {name!r} in {folder} (available: {known})")
    config = manager.task_index[name].cfg
    try:
        path = folder / Path(config["dataset_kwargs"]["data_files"]["test"]).name
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"task {name!r} names no items; expected dataset_kwargs: data_files: test: a file name "
            f"in its YAML file in {folder}"
        ) from error
    if not path.is_file():
        raise FileNotFoundError(f"task {name!r} has no items: {path} does not exist")
    return path


def _read_items(path: Path) -> list[dict[str, Any]]:
    """The items of a JSON-lines file, each checked; see `load_tasks` for the errors."""
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not valid UTF-8 (byte {error.start})") from error
    items, seen = [], set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error})") from error
        problem = _problem(item)
        if not problem and item["id"] in seen:
            problem = f"id {item['id']!r} stands twice in the file"
        if problem:
            raise ValueError(f"{path}, line {number}: {problem}")
        seen.add(item["id"])
        items.append(item)
    if not items:
        raise ValueError(f"{path} is empty; expected one item per line as JSON")
    return items


def _problem(item: Any) -> str:
    """What is wrong with an item, or ""."""
    if not isinstance(item, dict):
        return f"expected a JSON object, got {type(item).__name__}"
    for key in ("id", "passage", "question", "relation"):
        if not isinstance(item.get(key), str) or (key in ("id", "question") and not item[key]):
            return f"{key!r} must be a text, got {item.get(key)!r}"
    options, answer = item.get("options"), item.get("answer")
    if not isinstance(options, list) or len(options) != OPTIONS:
        return f"expected {OPTIONS} options, got {options!r}"
    if not all(isinstance(option, str) and option.strip() for option in options):
        return f"every option must be a text that is not empty, got {options!r}"
    if len(set(options)) != OPTIONS:
        return f"options must differ, got {options!r}"
    if type(answer) is not int or not 0 <= answer < OPTIONS:
        return f"answer must be an index from 0 to {OPTIONS - 1}, got {answer!r}"
    return ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without lm-eval's and datasets' progress bars and notices; errors still come through."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _inference() -> Iterator[None]:
    """No gradients, and the faster linear layers where PyTorch has them."""
    with torch.no_grad(), fast_linear():
        yield


# ------------------------------------------------------------------ requests packed as prefix trees


@dataclass(frozen=True)
class _Batch:
    """Rows of equal padded length; each row is a prefix tree in depth-first order.

    Node i may look at node j if j is i or an ancestor of i: j <= i < ends[j].
    """

    input_ids: Tensor  # (rows, length)
    position_ids: Tensor  # (rows, length): depth in the tree, a token's position in its text
    ends: Tensor  # (rows, length): one past a node's last descendant
    nodes: Tensor  # (nodes,): flat indices of the nodes whose next-token logits are read
    pick: Tensor  # (tokens,): for every scored token, which of `nodes` predicts it
    targets: Tensor  # (tokens,): the scored tokens
    owners: Tensor  # (tokens,): the request a scored token belongs to

    def only(self, rows: Tensor) -> _Batch:
        """The batch of consecutive rows."""
        n, length = self.input_ids.shape
        if len(rows) == n:
            return self
        first = int(rows[0])
        kept = (self.nodes // length >= first) & (self.nodes // length < first + len(rows))
        place = kept.cumsum(0) - 1
        scored = kept[self.pick]
        return _Batch(
            self.input_ids[rows],
            self.position_ids[rows],
            self.ends[rows],
            self.nodes[kept] - first * length,
            place[self.pick[scored]],
            self.targets[scored],
            self.owners[scored],
        )


@dataclass(frozen=True)
class Packed:
    """Requests as token ids, laid out in batches; made by `SharedContextLM.pack`."""

    pairs: tuple[tuple[str, str], ...]
    batches: tuple[_Batch, ...]
    max_length: int
    longest: int
    tokens: int
    truncated: int  # requests that are longer than the model allows and lost their beginning


class _Row:
    """A prefix tree that grows by texts given in lexicographic order."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.depths: list[int] = []
        self.ends: list[int] = []
        self.path: list[int] = []  # nodes of the text added last
        self.scored: list[tuple[int, int, int]] = []  # node, target token, request

    def shared(self, inputs: Sequence[int]) -> int:
        """How many leading tokens `inputs` shares with the text added last."""
        n = 0
        for node, token in zip(self.path, inputs, strict=False):
            if self.ids[node] != token:
                break
            n += 1
        return n

    def add(self, inputs: Sequence[int], targets: Sequence[int], request: int) -> None:
        shared, size = self.shared(inputs), len(self.ids)
        self._close(shared)
        self.path += range(size, size + len(inputs) - shared)
        self.ids += inputs[shared:]
        self.depths += range(shared, len(inputs))
        self.ends += [0] * (len(inputs) - shared)
        predicting = self.path[len(inputs) - len(targets) :]
        self.scored += [
            (node, token, request) for node, token in zip(predicting, targets, strict=True)
        ]

    def _close(self, depth: int) -> None:
        for node in self.path[depth:]:
            self.ends[node] = len(self.ids)
        del self.path[depth:]

    def finish(self) -> _Row:
        self._close(0)
        return self


def _rows(
    sequences: Sequence[tuple[list[int], list[int]]], row_tokens: int, first: int = 0
) -> list[_Row]:
    """Prefix trees for `(inputs, targets)`, cut where little would be shared or a row gets long.

    Requests are numbered from `first`.
    """
    row = _Row()
    rows = [row]
    for request in sorted(range(len(sequences)), key=lambda index: sequences[index][0]):
        inputs, targets = sequences[request]
        shared = row.shared(inputs)
        fits = len(row.ids) + len(inputs) - shared <= max(row_tokens, 2 * len(inputs))
        if row.ids and not (fits and 4 * shared >= len(inputs)):
            row.finish()
            row = _Row()
            rows.append(row)
        row.add(inputs, targets, first + request)
    row.finish()
    return rows


def _batch(rows: Sequence[_Row]) -> _Batch:
    length = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    positions = torch.zeros_like(ids)
    # A padding token sees itself alone: a row of the mask without any entry would give NaN.
    ends = torch.arange(1, length + 1).repeat(len(rows), 1)
    scored: list[tuple[int, int, int]] = []
    for index, row in enumerate(rows):
        n = len(row.ids)
        ids[index, :n] = torch.tensor(row.ids)
        positions[index, :n] = torch.tensor(row.depths)
        ends[index, :n] = torch.tensor(row.ends)
        scored += [(index * length + node, token, owner) for node, token, owner in row.scored]
    flat, targets, owners = torch.tensor(scored).unbind(1)
    nodes, pick = flat.unique(return_inverse=True)
    return _Batch(ids, positions, ends, nodes, pick, targets.clone(), owners.clone())


class SharedContextLM(HFLM):
    """lm-eval's `HFLM` on a model in memory, computing what requests have in common once.

    Requests that begin with the same tokens (an item's options after their prompt, several
    questions after their passage) become one row of the batch, in which a token attends to its own
    ancestors only and is placed at its position in its own text. Vocabulary logits are computed
    where an option's token is predicted and nowhere else. Log-likelihoods and greedy flags are
    `HFLM`'s to 1e-5 in float32.

    Where a tree cannot be run (an attention implementation that takes no mask, a sliding window
    shorter than the texts, a family whose logits are more than the output embedding of the last
    hidden state) `HFLM`'s own way is used.

    Parameters
    ----------
    model : a causal language model in memory; a mask that is on when requests are scored counts.
    tokenizer : its tokenizer.
    packed : requests packed earlier, by this tokenizer and with this maximum length.
    batch_tokens : tokens in one forward pass, padding included, unless one row alone is longer.
    row_tokens : length up to which requests are joined in one row.

    `note` is told if a batch did not fit into memory and was run in parts.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        packed: Packed | None = None,
        batch_tokens: int = 2048,
        row_tokens: int = 256,
        **kwargs: Any,
    ) -> None:
        self._encodings: dict[str, list[int]] = {}
        with _quiet():
            super().__init__(
                pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=16, **kwargs
            )
        if self.prefix_token_id is None:
            raise ValueError(
                "the tokenizer has neither a beginning- nor an end-of-sequence token, one of which "
                "opens a text without context in lm-eval; set eos_token in tokenizer_config.json"
            )
        self.packed = packed
        self.batch_tokens = batch_tokens
        self.row_tokens = row_tokens
        self.note: Callable[[str], object] = lambda text: None

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **kwargs: Any,
    ) -> list[int]:
        """As in `HFLM`, remembering what `pack` has encoded in bulk."""
        if add_special_tokens is None and not left_truncate_len and string in self._encodings:
            return self._encodings[string]
        return super().tok_encode(string, add_special_tokens, left_truncate_len, **kwargs)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Sum of log-probabilities and greedy flag of each request's continuation."""
        pairs = tuple(request.args for request in requests)
        if self.packed is None or self.packed.pairs != pairs:
            self.packed = self.pack(pairs)
        if not self._runs_trees(self.packed.longest):
            return super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        logprobs, greedy = self._score(self.packed)
        return list(zip(logprobs.tolist(), greedy.tolist(), strict=True))

    def pack(self, pairs: Sequence[tuple[str, str]]) -> Packed:
        """Tokenise `(context, continuation)` pairs as `HFLM` does and lay them out in batches.

        Raises ValueError for a continuation that is empty or longer than the model allows.
        """
        rows: list[_Row] = []
        longest = truncated = 0
        # In portions: the encodings of a whole few-shot benchmark would fill gigabytes.
        for first in range(0, len(pairs), _PORTION):
            portion = pairs[first : first + _PORTION]
            sequences, cut = self._sequences(portion)
            longest = max(longest, *(len(inputs) for inputs, _ in sequences))
            truncated += cut
            rows += _rows(sequences, self.row_tokens, first)
        rows.sort(key=lambda row: -len(row.ids))
        batches, start = [], 0
        while start < len(rows):
            size = max(1, self.batch_tokens // len(rows[start].ids))
            batches.append(_batch(rows[start : start + size]))
            start += size
        return Packed(
            pairs=tuple(pairs),
            batches=tuple(batches),
            max_length=self.max_length,
            longest=longest,
            tokens=sum(len(row.ids) for row in rows),
            truncated=truncated,
        )

    def _sequences(
        self, pairs: Sequence[tuple[str, str]]
    ) -> tuple[list[tuple[list[int], list[int]]], int]:
        """What the model reads and what it is to predict, per pair, and how many were too long."""
        self._encode_in_bulk(pairs)
        sequences, truncated = [], 0
        for context, continuation in pairs:
            if context:
                prompt, targets = self._encode_pair(context, continuation)
            else:
                targets = self.tok_encode(continuation, add_special_tokens=False)
                prompt = [self.prefix_token_id]
                if targets[:1] == prompt:
                    targets = targets[1:]
            if not 0 < len(targets) <= self.max_length:
                raise ValueError(
                    f"continuation {continuation!r} has {len(targets)} tokens after "
                    f"{context[-40:]!r}; expected 1 to {self.max_length}"
                )
            text = prompt + targets
            truncated += len(text) > self.max_length + 1
            sequences.append((text[-(self.max_length + 1) : -1], targets))
        self._encodings.clear()
        return sequences, truncated

    def _encode_in_bulk(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Encode what `_encode_pair` will ask for in one call, much faster than one by one."""
        texts = {text for context, rest in pairs for text in (context.rstrip(), context + rest)}
        # A text that brings its own BOS is encoded differently, which HFLM knows how to do.
        bos = self.tokenizer.decode(self.prefix_token_id)
        plain = [text for text in texts if text and not text.startswith(bos)]
        if plain:
            kwargs = (
                {} if self.add_bos_token is None else {"add_special_tokens": self.add_bos_token}
            )
            encoded = self.tokenizer(plain, verbose=False, **kwargs)["input_ids"]
            self._encodings = dict(zip(plain, encoded, strict=True))

    def _runs_trees(self, longest: int) -> bool:
        config = self.model.config.get_text_config()
        window = getattr(config, "sliding_window", None)
        return (
            models.family(self.model).linear_head
            and config._attn_implementation in ("eager", "sdpa")
            and (window is None or longest <= window)
        )

    @_inference()
    def _score(self, packed: Packed) -> tuple[Tensor, Tensor]:
        """Log-likelihood and greedy flag per request, float32 and bool `(requests,)`."""
        logprobs = torch.zeros(len(packed.pairs), device=self.device)
        misses = torch.zeros(len(packed.pairs), dtype=torch.long, device=self.device)
        for batch in packed.batches:
            rows = torch.arange(len(batch.input_ids))
            for owners, logprob, miss in Memory().run(
                lambda part, batch=batch: self._score_batch(batch.only(part)),  # type: ignore[misc]
                rows,
                self.note,
            ):
                logprobs.index_add_(0, owners, logprob)
                misses.index_add_(0, owners, miss)
        return logprobs, misses == 0

    def _score_batch(self, batch: _Batch) -> tuple[Tensor, Tensor, Tensor]:
        """For every scored token: its request, its log-probability, and whether another is top."""
        model, device = self.model, self.device
        ends = batch.ends.to(device)
        index = torch.arange(ends.shape[1], device=device)
        sees = (index <= index[:, None]) & (index[:, None] < ends[:, None, :])
        mask = torch.zeros(sees.shape, dtype=model.dtype, device=device)
        mask.masked_fill_(~sees, torch.finfo(model.dtype).min)
        hidden = model.base_model(
            input_ids=batch.input_ids.to(device),
            attention_mask=mask[:, None],
            position_ids=batch.position_ids.to(device),
            use_cache=False,
        ).last_hidden_state
        logits = model.get_output_embeddings()(hidden.flatten(0, 1)[batch.nodes.to(device)]).float()
        pick, targets, owners = (
            part.to(device) for part in (batch.pick, batch.targets, batch.owners)
        )
        logprob = logits[pick, targets] - logits.logsumexp(-1)[pick]
        return owners, logprob, (logits.argmax(-1)[pick] != targets).long()


# ------------------------------------------------------------------------------- multiple choice


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
        with _quiet():
            task.build_all_requests()
        requests += task.instances
        for index, start in enumerate(range(0, len(task.instances), OPTIONS)):
            own = task.instances[start : start + OPTIONS]
            same = len({request.doc_id for request in own}) == 1
            if not same or [request.idx for request in own] != list(range(OPTIONS)):
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
    `logprob_0` … `logprob_3`. Given a tokenizer instead of a `Prepared`, `tasks` (default: all six)
    are prepared first; for more than one evaluation call `prepare` once. What does not fit into
    memory is run in smaller batches, of which `note` is told.

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
    logprobs = torch.tensor([logprob for logprob, _ in results]).view(len(items), OPTIONS)
    broken = (~logprobs.isfinite()).any(1).nonzero().flatten().tolist()
    if broken:
        raise ValueError(
            f"{len(broken)} of {len(items)} items have log-probabilities that are not finite, "
            f"first {items['id'][broken[0]]!r}: {logprobs[broken[0]].tolist()}; check the model's "
            "weights"
        )
    correct = []
    for index, name in enumerate(items["subtask"]):
        start = index * OPTIONS
        outcome = prepared.tasks[name].process_results(
            prepared.requests[start].doc, results[start : start + OPTIONS]
        )
        correct.append(bool(outcome["acc"]))
    answer = torch.tensor(items["answer"].to_numpy())[:, None]
    others = logprobs.scatter(1, answer, -torch.inf).amax(1)
    items.insert(5, "choice", logprobs.argmax(1).numpy())
    items["correct"] = correct
    items["margin"] = (logprobs.gather(1, answer)[:, 0] - others).numpy()
    for option in range(OPTIONS):
        items[f"logprob_{option}"] = logprobs[:, option].numpy()
    return items


def scores(items: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Accuracy per task with its Wilson interval, indexed by `task` in order of appearance.

    Columns `accuracy` (lm-eval's `acc`), `n` (items), `low` and `high` (the interval at `level`).
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


# ------------------------------------------------------------------------ what is said instead

#: Marks that Vietnamese letters carry once decomposed: grave, acute, circumflex, tilde, breve,
#: hook above, horn, dot below. đ has no decomposition.
_VIETNAMESE = re.compile("[\u0300\u0301\u0302\u0303\u0306\u0309\u031b\u0323]|đ", re.IGNORECASE)
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LATIN_WORD = re.compile("[^\\W\\d_]+")


def script_language(text: str) -> str:
    """The language a text looks like by its script: "zh", "vi", "en" or "" (no letters).

    "zh" if it holds at least as many Chinese characters as words in other letters; else "vi" if any
    letter carries a Vietnamese diacritic or is đ; else "en". So Vietnamese in plain letters alone
    ("Nam", "hai") looks English; `answer_instead` settles those by the words of the tasks.
    """
    han = len(_HAN.findall(text))
    words = _LATIN_WORD.findall(_HAN.sub(" ", text))
    if not han and not words:
        return ""
    if han >= len(words):
        return "zh"
    return "vi" if _VIETNAMESE.search(unicodedata.normalize("NFD", text)) else "en"


def named_option(text: str, options: Sequence[str]) -> int | None:
    """Which option a text names first (the longest, if several begin there), or None.

    An option in an alphabet must stand as whole words ("Rome" is not named by "Romeo"). Letter case
    is ignored.
    """
    text = unicodedata.normalize("NFC", text).casefold()
    found = []
    for index, option in enumerate(options):
        option = unicodedata.normalize("NFC", option).strip().casefold()
        pattern = re.escape(option)
        if not _HAN.search(option):
            pattern = rf"(?<!\w){pattern}(?!\w)"
        match = re.search(pattern, text)
        if match:
            found.append((match.start(), -len(option), index))
    return min(found)[2] if found else None


def _words(*texts: str) -> list[str]:
    return _LATIN_WORD.findall(unicodedata.normalize("NFC", " ".join(texts)).casefold())


def _text_language(text: str, expected: str, known: Mapping[str, set[str]]) -> str:
    """`script_language`, but plain letters go to the language that knows more of the words."""
    looks = script_language(text)
    if looks != "en":
        return looks
    votes = {
        language: sum(word in words for word in _words(text)) for language, words in known.items()
    }
    most = max(votes.values())
    if most == 0:
        return looks
    return expected if votes[expected] == most else max(votes, key=lambda language: votes[language])


def answer_instead(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prepared: Prepared,
    n_items: int = 100,
    max_new_tokens: int = 16,
    batch_size: int = 64,
) -> pd.DataFrame:
    """What the model goes on to say after a prompt, greedily, under whatever mask is on it.

    For `n_items` items of every task, spread evenly over it: `task`, `language`, `id`, `relation`,
    `answer` (the right option's text), `text` (the first line generated), `text_language` and
    `category`, one of

    - "gold" or "wrong option": the text names an option of the item (`named_option`), or begins
      with its letter where the prompt asks for letters;
    - "same language" or "other language": it names none, and is in the task's language or not;
    - "nothing": no letters.

    The language of a text is told by its script (`script_language`). Plain letters may be English
    or a Vietnamese name, so there the words decide: the language in whose items more of them occur,
    the task's own if equally many, English if none does.

    Raises ValueError if `n_items` or `max_new_tokens` is less than 1, or if a prompt leaves no room
    for `max_new_tokens` in the model's positions.
    """
    if n_items < 1 or max_new_tokens < 1:
        raise ValueError(
            f"n_items and max_new_tokens must be at least 1, got {n_items} and {max_new_tokens}"
        )
    described = prepared.described
    chosen: list[int] = []
    for rows in prepared.items.groupby("task", sort=False).indices.values():
        count = min(n_items, len(rows))
        chosen += [int(rows[index * len(rows) // count]) for index in range(count)]
    requests = [prepared.requests[index * OPTIONS] for index in chosen]
    prompts = [request.args[0].rstrip() for request in requests]
    said = _continue(model, tokenizer, prompts, max_new_tokens, batch_size)
    known: dict[str, set[str]] = {item.language: set() for item in described}
    for item in described:
        known[item.language].update(_words(item.text, *item.options))
    outcomes = []
    for index, text in zip(chosen, said, strict=True):
        item = described[index]
        looks = _text_language(text, item.language, known)
        option = _letter(text) if item.lettered else None
        if option is None:
            option = named_option(text, item.options)
        if option is not None:
            category = "gold" if option == item.answer else "wrong option"
        elif not looks:
            category = "nothing"
        else:
            category = "same language" if looks == item.language else "other language"
        outcomes.append(
            {
                "task": item.task,
                "language": item.language,
                "id": item.id,
                "relation": item.relation,
                "answer": item.options[item.answer],
                "text": text,
                "text_language": looks,
                "category": category,
            }
        )
    return pd.DataFrame(outcomes)


def _letter(text: str) -> int | None:
    """The option whose letter a text begins with: alone, or as in "(B)", "B." and "B:"."""
    found = re.match(r"\s*\(?([A-D])\s*(?:$|[).:,;。．：，、])", text)
    return "ABCD".index(found[1]) if found else None


@_inference()
def _continue(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_new_tokens: int,
    batch_size: int,
) -> list[str]:
    """The first line of each prompt's greedy continuation, in the order of `prompts`."""
    encoded = tokenizer(list(prompts), verbose=False)["input_ids"]
    limit = model.config.get_text_config().max_position_embeddings
    longest = max(len(ids) for ids in encoded)
    if longest + max_new_tokens > limit:
        raise ValueError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones exceed the model's "
            f"{limit} positions; lower max_new_tokens"
        )
    eos = model.generation_config.eos_token_id
    ends = [tokenizer.eos_token_id] if eos is None else eos if isinstance(eos, list) else [eos]
    newline = tokenizer.encode("\n", add_special_tokens=False)
    if len(newline) == 1:  # what follows is not read, so need not be generated
        ends = ends + newline
    padding = tokenizer.pad_token_id
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=[token for token in ends if token is not None] or None,
        pad_token_id=ends[0] if padding is None else padding,
    )
    texts = [""] * len(encoded)
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        length = max(len(encoded[index]) for index in batch)
        ids = torch.zeros(len(batch), length, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, index in enumerate(batch):  # padded on the left: generation goes on at the right
            ids[row, length - len(encoded[index]) :] = torch.tensor(encoded[index])
            mask[row, length - len(encoded[index]) :] = 1
        output = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=settings,
        )
        new = tokenizer.batch_decode(output[:, length:], skip_special_tokens=True)
        for index, text in zip(batch, new, strict=True):
            texts[index] = text.split("\n")[0].strip()
    return texts


# ----------------------------------------------------------------------------------- perplexity


class Perplexity(NamedTuple):
    """Mean next-token loss in nats, its exponential, and the mean loss of each window."""

    loss: float
    perplexity: float
    losses: Tensor


@_inference()
def perplexity(
    model: PreTrainedModel,
    windows: Tensor,
    batch_size: int = 16,
    note: Callable[[str], object] = lambda text: None,
) -> Perplexity:
    """Perplexity of token windows, int64 `(n, t)`, under `model` as it is now.

    `losses` is float32 `(n,)` on the CPU: the mean of a window's t - 1 next-token losses, so that
    intervals over texts can be had. Windows are equally long, so `loss` is their plain mean.
    Vocabulary logits are float32 and made in pieces, to bound memory; what does not fit is run in
    smaller batches, of which `note` is told.

    Raises ValueError if `windows` is not `(n, t)` with n >= 1 and t >= 2, holds ids outside the
    vocabulary, or if a loss is not finite (which window).
    """
    if windows.dim() != 2 or windows.shape[0] < 1 or windows.shape[1] < 2:
        raise ValueError(
            f"expected token windows (n >= 1, t >= 2), got shape {tuple(windows.shape)}"
        )
    vocabulary = model.config.get_text_config().vocab_size
    if int(windows.min()) < 0 or int(windows.max()) >= vocabulary:
        raise ValueError(
            f"token ids from {int(windows.min())} to {int(windows.max())} in windows, but the "
            f"model's vocabulary has {vocabulary}; were they made with another tokenizer?"
        )
    memory = Memory()
    losses = torch.cat(
        [
            part
            for batch in windows.split(batch_size)
            for part in memory.run(
                lambda ids: _losses(model, ids.to(model.device)).mean(1).cpu(), batch, note
            )
        ]
    )
    broken = (~losses.isfinite()).nonzero().flatten().tolist()
    if broken:
        raise ValueError(
            f"{len(broken)} of {len(losses)} windows have a loss that is not finite, first window "
            f"{broken[0]}; check the model's weights"
        )
    loss = losses.double().mean()
    return Perplexity(loss.item(), loss.exp().item(), losses)


def _losses(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Next-token losses `(n, t - 1)` of `ids` `(n, t)`, float32."""
    targets = ids[:, 1:]
    if not models.family(model).linear_head:
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(
            targets
        )
    hidden = model.base_model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    head = model.get_output_embeddings()
    pieces = zip(
        hidden.flatten(0, 1).split(_LOGIT_ROWS), targets.flatten().split(_LOGIT_ROWS), strict=True
    )
    return torch.cat(
        [F.cross_entropy(head(part).float(), next_, reduction="none") for part, next_ in pieces]
    ).view_as(targets)
