"""Artefacts that nothing needs any more (`crane gc`)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from crane_lab.store.artefacts import Record, Store
from crane_lab.store.locks import locked
from crane_lab.store.sources import source_digest


class Unused(NamedTuple):
    """An artefact that nothing needs, and why."""

    record: Record
    why: str


def unused(store: Store, used: Collection[str] | None, unfinished: Collection[str]) -> list[Unused]:
    """The artefacts that no present code, parameters or run need.

    Parameters
    ----------
    used : what executed notebooks have asked the store for, as `<stage>/<digest>`; None if that is
        not known of all of them, so that only code tells.
    unfinished : names of the runs with notebooks still to be executed; what they made is kept.

    Whatever is not a whole artefact with its manifest is not the store's to judge, and neither are
    the judge's verdicts, which are none.
    """
    found = []
    for record in store.records():
        name = f"{record['stage']}/{record['path'].name.partition('.')[0]}"
        if _code_is_gone(record):
            found.append(Unused(record, "code that has changed"))
        elif (
            used is not None
            and name not in used
            and record["run"] is not None
            and record["run"] not in unfinished
        ):
            found.append(Unused(record, "parameters or a run that are gone"))
    return found


def _code_is_gone(record: Record) -> bool:
    if record["modules"] is None:  # made before that was noted, or of a key without code
        return False
    try:
        return source_digest(*record["modules"]) != record["key"].get("code")
    except ValueError:  # a module that there is no more
        return True


def remove(found: Collection[Unused]) -> Iterator[Unused]:
    """Delete artefacts with their manifests, and yield each; those that a process has are kept."""
    for one in found:
        path = one.record["path"]
        sidecar = path.with_name(f"{path.name.partition('.')[0]}.json")
        with locked(sidecar.with_name(f".{sidecar.stem}.lock"), str(sidecar), wait=False) as mine:
            if mine:
                sidecar.unlink(missing_ok=True)  # first: without it the artefact is not there
                path.unlink(missing_ok=True)
                yield one
