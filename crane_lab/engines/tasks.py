"""Tasks of our own as lm-evaluation-harness runs them: found, checked, loaded, digested (§4.3).

lm-eval holds the tasks: its YAML files say where the items are and how a prompt is made, it builds
the requests, and its `acc` or `acc_mutual_info` is the score. There are those of the testbed and,
for real models, `continuation_<language>` and `facts_<language>` in `data/tasks`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from crane_lab.store.sources import ROOT
from crane_lab.texts import plain

#: The six tasks of the testbed, shaped like MMLU, C-Eval (knowledge) and Belebele (reading).
TASKS = tuple(f"{kind}_{lang}" for kind in ("knowledge", "reading") for lang in ("en", "zh", "vi"))
#: The languages that have `continuation` and `facts`.
MULTILINGUAL = (
    *("ar", "ca", "cs", "da", "de", "el", "en", "es", "fr", "hu", "id", "it", "ja"),
    *("ko", "nl", "no", "pl", "pt", "ro", "ru", "sv", "tr", "uk", "vi", "zh"),
)
#: Where the testbed's YAML files and items are.
FOLDER = ROOT / "data" / "testbed" / "tasks"
OPTIONS = 4

Tasks = dict[str, ConfigurableTask]


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
        with quiet(), tempfile.TemporaryDirectory(prefix="crane-tasks-") as cache:
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


def tasks_digests(names: Sequence[str] = TASKS, folder: str | Path = FOLDER) -> dict[str, str]:
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
    folder = Path(os.path.expanduser(folder))
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise FileNotFoundError(
            f"task folder {folder} {what}; expected one with a YAML file and items for each task"
        )
    return folder, TaskManager(include_path=str(folder), include_defaults=False)


def _items_file(manager: TaskManager, name: str, folder: Path) -> Path:
    """The items of a task: the file its YAML names, beside the YAML (independent of the cwd)."""
    if name not in manager.all_subtasks:
        known = ", ".join(manager.all_subtasks) or "none"
        raise ValueError(
            f"unknown task {name!r} in {folder} (available: {known}){_no_definition(folder, name)}"
        )
    own = [path for path in sorted(folder.rglob("*.yaml")) if _defines(path, name)]
    if len(own) > 1:
        raise ValueError(
            f"task {name!r} is defined more than once, by {' and '.join(map(str, own))}; keep one"
        )
    config = manager.task_index[name].cfg
    if own and "!function" in _text_of(own[0]):
        raise ValueError(f"{own[0]} names code (!function), which is not run; take it out")
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


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:  # a link to nothing, a folder
        return ""


def _defines(path: Path, name: str) -> bool:
    line = rf"""^["']?task["']?\s*:\s*["']?{re.escape(name)}["']?\s*$"""
    return bool(re.search(line, _text_of(path), re.MULTILINE))


def _no_definition(folder: Path, name: str) -> str:
    """Why lm-eval, which passes over what it cannot read, sees no definition of a task."""
    path = folder / f"{name}.yaml"
    if not path.is_file():
        near = [p.name for p in sorted(folder.iterdir()) if p.stem.casefold() == name.casefold()]
        other = [x for x in near if x.casefold().endswith((".yaml", ".yml"))]
        return f"; {', '.join(other)} is not read, expected {path.name}" if other else ""
    plain.check(path)
    try:
        found = yaml.safe_load(_text_of(path).replace("!function", ""))
    except yaml.YAMLError as error:
        return f"; {path} is no valid YAML: {' '.join(str(error).split())}"
    if not isinstance(found, dict):
        return f"; {path} holds {type(found).__name__}; expected `task: {name}` and more such lines"
    return f"; {path} defines {found.get('task')!r}"


def _read_items(path: Path) -> list[dict[str, Any]]:
    """The items of a JSON-lines file, each checked; see `load_tasks` for the errors."""
    items, seen = [], set()
    for number, line in enumerate(plain.lines(path), start=1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path}, line {number}: not JSON ({error}); expected one object per line"
            ) from error
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
        return f"expected a JSON object, got {type(item).__name__}; write one object per line"
    for key in ("id", "passage", "question", "relation"):
        if not isinstance(item.get(key), str) or (key in ("id", "question") and not item[key]):
            return f"{key!r} must be a text, got {item.get(key)!r}"
    if not item["question"].strip() or item["question"].strip() in plain.NOTHING:
        return f"'question' must be a question, got {item['question']!r}"
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
def quiet() -> Iterator[None]:
    """Without lm-eval's and datasets' progress bars and notices; errors still come through."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
