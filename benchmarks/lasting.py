"""Relevance that is killed, shared and short of memory: what it loses, and by how much it moves.

    python benchmarks/lasting.py

- Kills: a run on the testbed is killed (SIGKILL) at a random moment and started again until it
  ends, `--trials` times as the library is set, and as often with one piece per language and a
  checkpoint every second, so that checkpoints and not finished pieces are what saves it.
- Processes: 2 and 3 processes of one gloo group, undisturbed and with one killed, and a run that is
  killed as a whole and goes on with another number of processes.
- Out of memory: a batch that fits a half, a quarter, an eighth at a time, and one sample at a time.
- What all this costs: the same samples through one plain stream, in turns.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from common import describe, load_model, machine, parser, texts, write
from torch import Tensor

from crane_core import models
from crane_core.attribution import neuron_relevance
from crane_core.moments import StreamingMoments
from crane_lab.memory import Memory
from crane_lab.stages import streams
from crane_lab.stages.streams import CHECKPOINT_SECONDS, PIECES, STAGE, collect
from crane_lab.store import Store

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    ["torch", "accelerate", "transformers.models.llama.modeling_llama"]
)


@cache
def loaded() -> tuple[Any, Tensor]:
    model, tokenizer = load_model(random=False)
    return model, texts(model, tokenizer, 1000, 64)


def relevance(ids: Tensor) -> dict[str, Tensor]:
    return {"intermediate": neuron_relevance(loaded()[0], ids)}


def collected(root: Path, size: tuple[int, int], **more: Any) -> StreamingMoments:
    function = more.pop("function", relevance)
    key = {"size": list(size)}
    return collect(Store(root), key, lambda: loaded()[1], size, function, **more)["intermediate"]


def work(
    root: Path,
    size: tuple[int, int],
    pieces: int,
    every: float,
    place: tuple[int, int, int] | None = None,
) -> None:
    """One run, or one process of several; notes in `root/log` when each batch begins."""
    torch.set_num_threads(1)
    streams.PIECES = pieces
    if place is not None:
        rank, world, port = place
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(world),
            LOCAL_WORLD_SIZE=str(world),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
            GLOO_SOCKET_IFNAME="lo",
            OMP_NUM_THREADS="1",
        )
        from accelerate import PartialState

        PartialState(cpu=True)

    def noted(ids: Tensor) -> dict[str, Tensor]:
        with (root / "log").open("a") as stream:
            stream.write(f"{time.monotonic()}\n")
        return relevance(ids)

    collected(root / "store", size, function=noted, every=every)


def begun(root: Path) -> list[float]:
    log = root / "log"
    return [float(line) for line in log.read_text().split()] if log.exists() else []


def content(store: Path, size: tuple[int, int]) -> str:
    manifest = Store(store).manifest(STAGE, {"size": list(size)})
    assert manifest is not None
    return str(manifest["sha256"])


def kills(trials: int, size: tuple[int, int], pieces: int, every: float) -> dict[str, Any]:
    """Each trial: killed at a random moment, then run to its end."""
    batches = -(-size[0] // size[1])
    repeated, lost, identical = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        reference = run_to_end(Path(folder), size, pieces, every)
    for trial in range(trials):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            moment = random.Random(trial).randint(1, batches - 1)
            process = processes.Process(target=work, args=(root, size, pieces, every))
            process.start()
            while len(begun(root)) < moment:
                time.sleep(0.002)
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            before = begun(root)
            identical += run_to_end(root, size, pieces, every) == reference
            again = len(begun(root)) - batches
            repeated.append(again)
            # From the beginning of the first batch that had to be repeated to the last that began.
            lost.append(before[-1] - before[-again] if again else 0.0)
    return {
        "trials": trials,
        "batches": batches,
        "pieces": min(pieces, batches),
        "seconds_between_checkpoints": every,
        "bit_identical": identical,
        "batches_repeated": repeated,
        "most_batches_repeated": max(repeated),
        "most_seconds_lost": round(max(lost), 3),
    }


def run_to_end(root: Path, size: tuple[int, int], pieces: int, every: float) -> str:
    process = processes.Process(target=work, args=(root, size, pieces, every))
    process.start()
    process.join()
    assert process.exitcode == 0
    return content(root / "store", size)


def group(root: Path, size: tuple[int, int], world: int) -> list[Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = [
        processes.Process(
            target=work, args=(root, size, PIECES, CHECKPOINT_SECONDS, (rank, world, port))
        )
        for rank in range(world)
    ]
    for process in found:
        process.start()
    return found


def deviation(found: StreamingMoments, expected: StreamingMoments) -> dict[str, float]:
    """Largest relative deviations over all neurons."""
    pairs = {
        "kurtosis": (found.kurtosis(), expected.kurtosis()),
        "variance": (found.variance(), expected.variance()),
    }
    return {name: float(((a - b) / b).abs().max()) for name, (a, b) in pairs.items()}


def shared(size: tuple[int, int]) -> list[dict[str, Any]]:
    """Several processes against one."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        alone = collected(Path(folder), size)
        reference = content(Path(folder), size)
    cases: list[tuple[str, int, Sequence[int], int]] = [
        ("undisturbed", 2, (), 0),
        ("undisturbed", 3, (), 0),
        ("first process killed", 2, (0,), 0),
        ("last process killed", 3, (2,), 0),
        ("all killed, resumed by 2", 3, (0, 1, 2), 2),
        ("all killed, resumed by 3", 2, (0, 1), 3),
    ]
    for what, world, victims, then in cases:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            members = group(root, size, world)
            while victims and len(begun(root)) < 40:
                time.sleep(0.002)
            for victim in victims:
                os.kill(members[victim].pid, signal.SIGKILL)
            if then:
                members += group(root, size, then)
            for member in members:
                member.join()
            rows.append(
                {
                    "what": what,
                    "processes": world,
                    "uneven": bool(PIECES % world),
                    "bit_identical": content(root / "store", size) == reference,
                    "largest_relative_deviation": deviation(collected(root / "store", size), alone),
                    "batches_repeated": len(begun(root)) - -(-size[0] // size[1]),
                }
            )
    return rows


def in_parts(size: tuple[int, int]) -> list[dict[str, Any]]:
    """Batches that run out of memory, against batches that fit."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        whole = collected(Path(folder), size)
    for room in (size[1] // 2, size[1] // 4, size[1] // 8, 1):

        def short(ids: Tensor, room: int = room) -> dict[str, Tensor]:
            if len(ids) > room:
                raise torch.OutOfMemoryError("CUDA out of memory. (injected)")
            return relevance(ids)

        memory = Memory()
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = collected(Path(folder), size, function=short, memory=memory)
        rows.append(
            {
                "samples_at_once": memory.at_once,
                "instead_of": size[1],
                "largest_relative_deviation": deviation(found, whole),
            }
        )
    return rows


def costs(size: tuple[int, int], repeats: int) -> dict[str, Any]:
    """Time for the same samples through a plain stream and with all that makes it last."""

    def plain() -> None:
        model, windows = loaded()
        stream = StreamingMoments(models.shape(model)["intermediate"])
        for ids in windows[: size[0]].split(size[1]):
            stream.update(neuron_relevance(model, ids))

    def lasting(every: float) -> None:
        with tempfile.TemporaryDirectory() as folder:
            collected(Path(folder), size, every=every)

    ways = {
        "plain_stream": plain,
        "as_set": lambda: lasting(CHECKPOINT_SECONDS),
        "checkpoint_after_every_batch": lambda: lasting(0.0),
    }
    # The processor's time: a machine that does other things as well does not disturb it.
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            began = time.process_time()
            way()
            if repeat:  # the first is to warm up
                times[name].append(time.process_time() - began)
    best = {name: min(found) for name, found in times.items()}
    return {
        "n_samples": size[0],
        "batch_size": size[1],
        "processor_seconds": {name: [round(t, 3) for t in found] for name, found in times.items()},
        "overhead": {name: round(best[name] / best["plain_stream"] - 1, 4) for name in ways},
    }


def main() -> None:
    """Measure everything and write it down."""
    options = parser(__doc__, trials=20, repeats=5).parse_args()
    torch.set_num_threads(options.threads)
    model, tokenizer = load_model(random=False)
    result = {
        "machine": machine(options.threads, ("torch", "transformers", "accelerate")),
        "model": describe(model, tokenizer),
        "kills_as_set": kills(options.trials, (300, 5), PIECES, CHECKPOINT_SECONDS),
        "kills_checkpoints_only": kills(options.trials, (300, 5), 1, 1.0),
        "processes": shared((1000, 10)),
        "out_of_memory": in_parts((1000, 50)),
        "cost": costs((1000, 10), options.repeats),
    }
    path = write("lasting", result, options.out)
    print(path.read_text(encoding="utf-8"), path, file=sys.stdout)


if __name__ == "__main__":
    main()
