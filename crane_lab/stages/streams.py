"""Moments of a language's relevance, collected so that nothing stops a long run for good.

The batches of a language are a fixed plan, grouped in at most `PIECES` pieces. The moments of a
piece are an artefact of the store, and merged in the order of the plan they are those of the
language. So it makes no difference to the last bit how often a run was interrupted, or how many
processes shared it: the store lets only one of them at a piece, and one that has nothing left to do
takes over what others have not begun or left behind. Within a piece a checkpoint is written every
`CHECKPOINT_SECONDS`, between two batches.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, distributed
from tqdm import tqdm

from crane_core.moments import StreamingMoments
from crane_lab.memory import Memory
from crane_lab.store import Store
from crane_lab.store.files import write_bytes

#: Pieces of a language, at most: enough to keep many processes busy, few enough to store.
PIECES = 32
#: A killed run loses this much at most, and the batch that was running.
CHECKPOINT_SECONDS = 30.0

#: From token windows, int64 (samples, tokens), to relevance by site, (samples, layers, neurons).
Relevance = Callable[[Tensor], Mapping[str, Tensor]]

STAGE, PIECE_STAGE = "moments", "moments-pieces"


def plan(n_samples: int, batch_size: int) -> list[range]:
    """The batches of each piece: consecutive, as many in each as can be, `PIECES` at most.

    Raises ValueError if one of the numbers is less than 1.
    """
    if n_samples < 1 or batch_size < 1:
        raise ValueError(
            f"n_samples is {n_samples} and batch_size {batch_size}: both must be at least 1"
        )
    batches = -(-n_samples // batch_size)
    pieces = min(PIECES, batches)
    bounds = [i * batches // pieces for i in range(pieces + 1)]
    return [range(a, b) for a, b in pairwise(bounds)]


# --- checkpoints ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Progress:
    """A piece as far as it is computed; replaced as a whole after every batch.

    An interruption at any moment therefore finds the state after one batch or after the next.
    """

    done: int = 0  # batches
    moments: Mapping[str, StreamingMoments] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def after(self, relevance: Mapping[str, Tensor], notes: Sequence[str]) -> _Progress:
        """Return the state one batch later."""
        updated = {}
        for site, values in relevance.items():
            # Updating replaces tensors and changes none, so the old state stays as it is.
            stream = copy.copy(self.moments.get(site, StreamingMoments(values.shape[1:])))
            stream.update(values)
            updated[site] = stream
        return _Progress(self.done + 1, updated, tuple(dict.fromkeys([*self.notes, *notes])))


def _flat(moments: Mapping[str, StreamingMoments]) -> dict[str, Tensor]:
    return {
        f"{site}.{part}": tensor
        for site, stream in moments.items()
        for part, tensor in stream.state().items()
    }


def _moments(state: Mapping[str, Tensor]) -> dict[str, StreamingMoments]:
    sites = dict.fromkeys(name.split(".")[0] for name in state)
    return {
        site: StreamingMoments.from_state(
            {k.split(".", 1)[1]: v for k, v in state.items() if k.startswith(f"{site}.")}
        )
        for site in sites
    }


def _write_checkpoint(path: Path, progress: _Progress, seconds: float, memory: Memory) -> None:
    """Checksum, facts and tensors in one file: there is no moment at which they do not agree."""
    facts = {
        "done": progress.done,
        "notes": progress.notes,
        "seconds": seconds,
        "at_once": memory.at_once,
    }
    content = json.dumps(facts).encode() + b"\n" + save(_flat(progress.moments))
    write_bytes(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def _read_checkpoint(path: Path) -> tuple[_Progress, float, int | None]:
    """Progress, seconds it took, samples at once; from the start if there is none or damaged."""
    try:
        checksum, _, content = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return _Progress(), 0.0, None
    if hashlib.sha256(content).hexdigest().encode() != checksum:
        warnings.warn(
            f"checkpoint {path.parent.name}/{path.name} was truncated or altered; its piece is "
            "computed from the start",
            stacklevel=2,
        )
        return _Progress(), 0.0, None
    header, _, tensors = content.partition(b"\n")
    facts = json.loads(header)
    progress = _Progress(facts["done"], _moments(load(tensors)), tuple(facts["notes"]))
    return progress, facts["seconds"], facts["at_once"]


# --- collecting -----------------------------------------------------------------------------------


class _Merged(Exception):
    """Another process has merged all pieces, and removed them."""


def _place() -> tuple[int, int]:
    """This process's number and how many there are, as torch.distributed has it."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


@dataclass
class _Collection:
    """One language's pieces in the store."""

    store: Store
    key: Mapping[str, Any]
    windows: Callable[[], Tensor]
    size: tuple[int, int]
    relevance: Relevance
    memory: Memory
    every: float
    bar: Any = None  # of tqdm

    def __post_init__(self) -> None:
        self.pieces = plan(*self.size)
        self.seen = [0] * len(self.pieces)  # batches of each that the bar has counted

    def piece_key(self, number: int) -> dict[str, Any]:
        return {**self.key, "piece": number, "pieces": len(self.pieces)}

    def count(self, number: int, done: int) -> None:
        """Move the bar on to `done` batches of a piece."""
        if self.bar is not None:
            self.bar.update(max(0, done - self.seen[number]))
        self.seen[number] = max(done, self.seen[number])

    def found(self) -> int:
        """How many batches were there before."""
        for number, batches in enumerate(self.pieces):
            stored = self.store.has(PIECE_STAGE, self.piece_key(number))
            path = self.store.scratch(PIECE_STAGE, self.piece_key(number))
            self.seen[number] = len(batches) if stored else _read_checkpoint(path)[0].done
        return sum(self.seen)

    def compute(self, number: int) -> dict[str, Tensor]:
        """The moments of a piece, from its checkpoint on."""
        if self.store.has(STAGE, self.key):
            raise _Merged
        path = self.store.scratch(PIECE_STAGE, self.piece_key(number))
        progress, before, at_once = _read_checkpoint(path)
        if at_once is not None:
            self.memory.at_once = min(at_once, self.memory.at_once or at_once)
        start = saved = time.monotonic()
        kept = progress

        def keep() -> None:
            nonlocal saved, kept
            seconds = before + time.monotonic() - start
            _write_checkpoint(path, progress, seconds, self.memory)
            saved, kept = time.monotonic(), progress

        n_samples, batch_size = self.size
        windows = self.windows()
        if len(windows) != n_samples:
            raise ValueError(f"windows gives {len(windows)} samples, but size says {n_samples}")
        try:
            for batch in self.pieces[number][progress.done :]:
                ids = windows[batch * batch_size : (batch + 1) * batch_size]
                notes: list[str] = []
                parts = self.memory.run(self._on_cpu, ids, notes.append)
                joined = {site: torch.cat([part[site] for part in parts]) for site in parts[0]}
                progress = progress.after(joined, notes)
                self.count(number, progress.done)
                if time.monotonic() - saved >= self.every:
                    keep()
        except BaseException:
            # Interrupted, or something is wrong: what is computed by now still holds.
            if progress is not kept:
                with suppress(OSError):
                    keep()
            raise
        for note in progress.notes:
            self.store.note(note)
        self.store.add_seconds(before)
        return _flat(progress.moments)

    def _on_cpu(self, ids: Tensor) -> dict[str, Tensor]:
        return {site: values.cpu() for site, values in self.relevance(ids).items()}

    def fill(self, order: Iterable[int], wait: bool) -> None:
        """Store the pieces; those that other processes are at are left out unless `wait`."""
        for number in order:
            if self.store.keep_tensors(
                PIECE_STAGE, self.piece_key(number), partial(self.compute, number), wait
            ):
                self.count(number, len(self.pieces[number]))

    def merge(self) -> dict[str, Tensor]:
        """The moments of the language."""
        total: dict[str, StreamingMoments] = {}
        for number in range(len(self.pieces)):
            key = self.piece_key(number)
            state = self.store.tensors(PIECE_STAGE, key, partial(self.compute, number))
            for site, stream in _moments(state).items():
                total.setdefault(site, StreamingMoments(stream.shape)).merge(stream)
            made = (self.store.manifest(PIECE_STAGE, key) or {}).get("made", {})
            self.store.add_seconds(made.get("seconds", 0.0))
            for note in made.get("notes", ()):
                self.store.note(note)
        return _flat(total)


def collect(
    store: Store,
    key: Mapping[str, Any],
    windows: Callable[[], Tensor],
    size: tuple[int, int],
    relevance: Relevance,
    *,
    memory: Memory | None = None,
    every: float = CHECKPOINT_SECONDS,
    desc: str = "relevance",
) -> dict[str, StreamingMoments]:
    """Moments of the relevance of a language's samples, by site, from the store or computed.

    Processes that call this with one key on one store share the work. If torch.distributed is
    initialised, process r of w begins with pieces r, r + w, ... of the plan; all end with the same
    moments, and pieces of a process that died are taken over. Out of memory, a batch is run in
    parts (`Memory`), which moves results by rounding in the model only, and the artefact's
    manifest says so.

    Parameters
    ----------
    store, key : where the moments are kept, as stage "moments"; see `Store` for what a key needs.
    windows : gives the samples, int64 (n_samples, tokens); called only if something is missing.
    size : n_samples, batch_size. A plan of their batches decides how moments are merged, so both
        belong into the key.
    relevance : of a batch, by site.
    memory : shared by calls that are to remember how much fits.
    every : seconds between checkpoints.
    desc : title of the progress bar.

    Raises ValueError for a size below 1 or not that of the windows, and for relevance that
    `StreamingMoments.update` refuses; MemoryError if a single sample does not fit; DiskFullError if
    the store has no room.
    """
    work = _Collection(store, key, windows, size, relevance, memory or Memory(), every)
    pieces = len(work.pieces)
    if not store.has(STAGE, key):
        rank, world = _place()
        own = range(rank, pieces, world)
        others = [number for number in range(pieces) if number not in own]
        total = -(-size[0] // size[1])
        # One bar is enough. Not to name `disable` leaves it to tqdm's environment variable.
        quiet = {"disable": True} if rank else {}
        with (
            tqdm(total=total, initial=work.found(), desc=desc, unit="batch", **quiet) as work.bar,
            suppress(_Merged),
        ):
            work.fill([*own, *others], wait=False)
            work.fill(range(pieces), wait=True)
    state = store.tensors(STAGE, key, work.merge)
    for number in range(pieces):
        store.discard(PIECE_STAGE, work.piece_key(number))
    return _moments(state)
