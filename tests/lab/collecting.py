"""Collecting moments of a tiny model, in processes that tests start and kill."""

from __future__ import annotations

import multiprocessing
import os
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
from conftest import make_tiny_llama
from torch import Tensor

from crane_core.accumulators import Reader
from crane_core.attribution import neuron_relevance
from crane_core.moments import StreamingMoments
from crane_lab.stages.streams import STAGE, Measure, collect
from crane_lab.store import Store

# Forks of a process that has imported what is slow to import, and nothing of ours.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    ["torch", "accelerate", "transformers.models.llama.modeling_llama", "safetensors.torch"]
)

SIZE = (50, 1)  # 50 batches in 32 pieces, some of one and some of two
KEY = {"model": "tiny", "size": list(SIZE)}
READERS = {"intermediate": Reader("intermediate", lambda: StreamingMoments((3, 48)))}
PIECE_STAGE = f"{STAGE}-pieces"


@cache
def windows() -> Tensor:
    return torch.randint(3, 64, (SIZE[0], 6), generator=torch.Generator().manual_seed(0))


@cache
def model() -> Any:
    return make_tiny_llama()


def relevance(ids: Tensor) -> dict[str, Tensor]:
    return {"intermediate": neuron_relevance(model(), ids)}


def collected(
    root: Path, size: tuple[int, int] = SIZE, function: Measure = relevance, **more: Any
) -> StreamingMoments:
    key = {"model": "tiny", "size": list(size)}
    found = collect(Store(root), key, windows, size, READERS, function, **more)
    assert set(found) == {"intermediate"}
    moments = found["intermediate"]
    assert isinstance(moments, StreamingMoments)
    return moments


def checksum(root: Path, size: tuple[int, int] = SIZE) -> str:
    key = {"model": "tiny", "size": list(size), "readers": {"intermediate": ["intermediate", 0, 1]}}
    manifest = Store(root).manifest(STAGE, key)
    assert manifest is not None
    return str(manifest["sha256"])


def work(root: Path, pause: float, place: tuple[int, int, int] | None = None) -> None:
    """Collect, noting in `root/log` every batch that is begun; as one process of several."""
    torch.set_num_threads(1)
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

        state = PartialState(cpu=True)
        assert (state.process_index, state.num_processes) == (rank, world)
        assert state.backend == "gloo"

    def noted(ids: Tensor) -> dict[str, Tensor]:
        with (root / "log").open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        time.sleep(pause)
        return relevance(ids)

    collected(root / "store", function=noted, every=0)


def begun(root: Path) -> list[str]:
    log = root / "log"
    return log.read_text().split() if log.exists() else []
