"""`crane gc`: what the store keeps and nothing needs, listed or deleted."""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import yaml

from crane_lab.runs.executed import record_of
from crane_lab.runs.execution import Project, Run
from crane_lab.store.artefacts import Store
from crane_lab.store.unused import Unused, remove, unused


def collect_garbage(project: Project, store: Store, delete: bool) -> str:
    """Find what no present code, parameters or run need, delete it if asked, and say what it is.

    What executed notebooks asked for is needed, and what was made by a run that is not finished, or
    by hand. Verdicts, files that are not the store's, and what another process makes are never
    touched.

    Raises RunError if a process is at work on a run while something is to be deleted.
    """
    with ExitStack() as held:
        runs = _runs(project)
        if delete:
            for run in runs.values():
                if run is not None:
                    held.enter_context(run.lock())
        found = unused(store, _used(project), {x for x, run in runs.items() if not _finished(run)})
        done = list(remove(found)) if delete else found
    total = sum(one.record["bytes"] for one in done)
    kept = sum(record["bytes"] for record in store.records()) - (0 if delete else total)
    lines = [*_by_stage(done), f"{'deleted' if delete else 'not needed'}: {_size(total)} in all; "]
    lines[-1] += f"{_size(kept)} are needed or were made by hand"
    if done and not delete:
        lines.append("nothing was deleted; `crane gc --delete` does it")
    return "\n".join(lines)


def _runs(project: Project) -> dict[str, Run | None]:
    """Every run there is by name; None for one that cannot be read as one of this project's."""
    found: dict[str, Run | None] = {}
    for path in sorted(project.runs.glob("*/parameters.yaml")):
        try:
            said = yaml.safe_load(path.read_text(encoding="utf-8"))
            plain = project.run(said["profile"])
            run = Run(project, plain.profile, said["values"], said["overrides"], plain.notebooks)
            found[path.parent.name] = run if run.name == path.parent.name else None
        except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
            found[path.parent.name] = None
    return found


def _finished(run: Run | None) -> bool:
    return run is not None and all(run.is_current(notebook) for notebook in run.notebooks)


def _used(project: Project) -> set[str] | None:
    """What executed notebooks of all runs have asked the store for; None if one does not say."""
    found: set[str] = set()
    for executed in project.runs.glob("*/notebooks/*.ipynb"):
        if not record_of(executed).get("digest"):  # a reader's, or one that failed
            continue
        try:
            uses = executed.parent.parent / ".uses" / f"{executed.stem}.json"
            found |= set(json.loads(uses.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            if (executed.parent.parent / "parameters.yaml").exists() and _named_alike(executed):
                return None
    return found


def _named_alike(executed: Path) -> bool:
    """Whether a notebook has the name it was written under: a copy of it says nothing new."""
    return record_of(executed).get("notebook", executed.stem) == executed.stem


def _by_stage(found: list[Unused]) -> list[str]:
    sizes: dict[tuple[str, str], list[int]] = defaultdict(list)
    for one in found:
        sizes[one.record["stage"], one.why].append(one.record["bytes"])
    return [
        f"  {stage:24} {len(own):>6,} artefacts {_size(sum(own)):>12}  of {why}"
        for (stage, why), own in sorted(sizes.items())
    ]


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
