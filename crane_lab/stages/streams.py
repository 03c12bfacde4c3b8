"""What a language's texts leave in accumulators, so that nothing stops a long run for good.

The batches of a language are a fixed plan, grouped in at most `PIECES` pieces. The accumulators of
a piece are an artefact of the store, and merged in the order of the plan they are those of the
language. So it makes no difference to the last bit how often a run was interrupted, or how many
processes shared it: the store lets only one of them at a piece, and one that has nothing left to do
takes over what others have not begun or left behind. Within a piece a checkpoint is written every
`CHECKPOINT_SECONDS`, between two batches.
"""

from __future__ import annotations

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

from crane_core.accumulators import Reader, taken_in
from crane_lab.memory import Memory
from crane_lab.store import Store
from crane_lab.store.files import write_bytes

#: Pieces of a language, at most: enough to keep many processes busy, few enough to store.
PIECES = 32
#: A killed run loses this much at most, and the batch that was running.
CHECKPOINT_SECONDS = 30.0

#: From token windows, int64 (samples, tokens), to what a batch has for each reader: relevance,
#: (samples, layers, neurons), or an accumulator of activations (`accumulators.one_pass`).
Measure = Callable[[Tensor], Mapping[str, Any]]

#: The stage of what is collected; its pieces have one of their own.
STAGE = "collected"


def pieces_of(n_samples: int, batch_size: int) -> list[range]:
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
    kept: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def after(
        self, parts: Sequence[Mapping[str, Any]], readers: Mapping[str, Reader], notes: list[str]
    ) -> _Progress:
        """Return the state one batch later; `parts` is what its parts have for the readers."""
        batch = {name: _joined([part[name] for part in parts]) for name in readers}
        kept = taken_in(self.kept, batch, readers)
        return _Progress(self.done + 1, kept, tuple(dict.fromkeys([*self.notes, *notes])))


def _joined(parts: Sequence[Any]) -> Any:
    """What the parts of a batch have for one reader, as the whole batch would."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    for part in parts[1:]:
        first.merge(part)
    return first


def _flat(kept: Mapping[str, Any]) -> dict[str, Tensor]:
    return {
        f"{name}.{part}": tensor.clone().contiguous()
        for name, accumulator in kept.items()
        for part, tensor in accumulator.state().items()
    }


def _accumulators(state: Mapping[str, Tensor], readers: Mapping[str, Reader]) -> dict[str, Any]:
    return {
        name: type(reader.make()).from_state(
            {k.split(".", 1)[1]: v for k, v in state.items() if k.startswith(f"{name}.")}
        )
        for name, reader in readers.items()
    }


def _write_checkpoint(path: Path, progress: _Progress, seconds: float, memory: Memory) -> None:
    """Checksum, facts and tensors in one file: there is no moment at which they do not agree."""
    facts = {
        "done": progress.done,
        "notes": progress.notes,
        "seconds": seconds,
        "at_once": memory.at_once,
    }
    content = json.dumps(facts).encode() + b"\n" + save(_flat(progress.kept))
    write_bytes(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def _read_checkpoint(
    path: Path, readers: Mapping[str, Reader]
) -> tuple[_Progress, float, int | None]:
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
    kept = _accumulators(load(tensors), readers)
    progress = _Progress(facts["done"], kept, tuple(facts["notes"]))
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
    stage: str
    key: Mapping[str, Any]
    windows: Callable[[], Tensor]
    size: tuple[int, int]
    readers: Mapping[str, Reader]
    measure: Measure
    memory: Memory
    every: float
    bar: Any = None  # of tqdm

    def __post_init__(self) -> None:
        self.pieces = pieces_of(*self.size)
        self.seen = [0] * len(self.pieces)  # batches of each that the bar has counted

    @property
    def piece_stage(self) -> str:
        return f"{self.stage}-pieces"

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
            stored = self.store.has(self.piece_stage, self.piece_key(number))
            path = self.store.scratch(self.piece_stage, self.piece_key(number))
            self.seen[number] = (
                len(batches) if stored else _read_checkpoint(path, self.readers)[0].done
            )
        return sum(self.seen)

    def compute(self, number: int) -> dict[str, Tensor]:
        """The accumulators of a piece, from its checkpoint on."""
        if self.store.has(self.stage, self.key):
            raise _Merged
        path = self.store.scratch(self.piece_stage, self.piece_key(number))
        progress, before, at_once = _read_checkpoint(path, self.readers)
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
                parts = self.memory.run(self.measure, ids, notes.append)
                progress = progress.after(parts, self.readers, notes)
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
        return _flat(progress.kept)

    def fill(self, order: Iterable[int], wait: bool) -> None:
        """Store the pieces; those that other processes are at are left out unless `wait`."""
        for number in order:
            if self.store.keep_tensors(
                self.piece_stage, self.piece_key(number), partial(self.compute, number), wait
            ):
                self.count(number, len(self.pieces[number]))

    def merge(self) -> dict[str, Tensor]:
        """The accumulators of the language."""
        total: dict[str, Any] = {name: reader.make() for name, reader in self.readers.items()}
        for number in range(len(self.pieces)):
            key = self.piece_key(number)
            state = self.store.tensors(self.piece_stage, key, partial(self.compute, number))
            for name, accumulator in _accumulators(state, self.readers).items():
                total[name].merge(accumulator)
            made = (self.store.manifest(self.piece_stage, key) or {}).get("made", {})
            self.store.add_seconds(made.get("seconds", 0.0))
            for note in made.get("notes", ()):
                self.store.note(note)
        return _flat(total)


def collect(
    store: Store,
    key: Mapping[str, Any],
    windows: Callable[[], Tensor],
    size: tuple[int, int],
    readers: Mapping[str, Reader],
    measure: Measure,
    *,
    stage: str = STAGE,
    memory: Memory | None = None,
    every: float = CHECKPOINT_SECONDS,
    desc: str = "relevance",
) -> dict[str, Any]:
    """What the readers keep of a language's samples, from the store or computed in one pass.

    Processes that call this with one key on one store share the work. If torch.distributed is
    initialised, process r of w begins with pieces r, r + w, ... of the plan; all end with the same
    accumulators, and pieces of a process that died are taken over. Out of memory, a batch is run in
    parts (`Memory`), and the artefact's manifest says so. That moves sums and moments by rounding
    only; samples draw other rows, and quantiles per batch are averaged over smaller ones.

    Parameters
    ----------
    store, stage, key : where it is kept; see `Store` for what a key needs. `readers`' names
        and what they read are added to it.
    windows : gives the samples, int64 (n_samples, tokens); called only if something is missing.
    size : n_samples, batch_size. A plan of their batches decides how accumulators are merged, so
        both belong into the key.
    readers : name -> what reads; names without a dot.
    measure : what a batch has for them.
    memory : shared by calls that are to remember how much fits.
    every : seconds between checkpoints.
    desc : title of the progress bar.

    Returns name -> accumulator. Raises ValueError for a size below 1 or not that of the windows,
    and for readings that an accumulator refuses; MemoryError if a single sample does not fit;
    DiskFullError if the store has no room.
    """
    reads = {name: [r.reads, r.start, r.step] for name, r in readers.items()}
    key = {**key, "readers": reads}
    work = _Collection(
        store, stage, key, windows, size, readers, measure, memory or Memory(), every
    )
    pieces = len(work.pieces)
    if not store.has(stage, key):
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
    state = store.tensors(stage, key, work.merge)
    for number in range(pieces):
        store.discard(work.piece_stage, work.piece_key(number))
    return _accumulators(state, readers)
