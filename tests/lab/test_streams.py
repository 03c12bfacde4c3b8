"""Moments in pieces: killed, interrupted, short of memory and shared, they end the same."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from collecting import (
    KEY,
    PIECE_STAGE,
    READERS,
    SIZE,
    begun,
    checksum,
    collected,
    processes,
    relevance,
    windows,
    work,
)
from torch import Tensor
from tqdm import tqdm

from crane_core.accumulators import Reader
from crane_core.moments import StreamingMoments
from crane_lab.memory import Memory
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.stages import relevance as identifying
from crane_lab.stages import streams
from crane_lab.stages.streams import STAGE, collect, pieces_of
from crane_lab.store import ROOT, DiskFullError, Store


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Checksum of the moments of a run that nothing happened to."""
    root = tmp_path_factory.mktemp("reference")
    collected(root)
    return checksum(root)


class Counting:
    """A relevance function that counts its batches, and fails at one of them."""

    def __init__(self, fail_at: int = -1, error: BaseException | None = None):
        self.calls, self.fail_at, self.error = 0, fail_at, error or KeyboardInterrupt()

    def __call__(self, ids: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        if self.calls == self.fail_at:
            raise self.error
        return relevance(ids)


# --- the plan and its moments ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (5, 2), (31, 1), (32, 1), (33, 1), (1000, 50), (999, 7)])
def test_a_plan_has_every_batch_once_in_order(size: tuple[int, int]) -> None:
    pieces = pieces_of(*size)
    batches = [batch for piece in pieces for batch in piece]
    assert batches == list(range(math.ceil(size[0] / size[1])))
    assert 1 <= len(pieces) <= 32
    lengths = {len(piece) for piece in pieces}
    assert min(lengths) >= 1 and max(lengths) - min(lengths) <= 1
    for bad in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="both must be at least 1"):
            pieces_of(*bad)


@pytest.mark.parametrize("size", [(50, 1), (50, 7), (50, 64)])
def test_pieces_have_the_moments_of_one_stream(tmp_path: Path, size: tuple[int, int]) -> None:
    stream = StreamingMoments((3, 48))
    for ids in windows().split(size[1]):
        stream.update(relevance(ids)["intermediate"])
    found = collected(tmp_path, size)
    assert found.count == stream.count == 50
    torch.testing.assert_close(found.kurtosis(), stream.kurtosis(), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.mean(), stream.mean(), rtol=1e-12, atol=1e-15)
    # The pieces are gone, and nothing is computed twice.
    assert not list(tmp_path.glob(f"{PIECE_STAGE}/*"))
    counting = Counting()
    again = collected(tmp_path, size, counting)
    assert counting.calls == 0
    assert torch.equal(again.kurtosis(), found.kurtosis())


def test_windows_have_to_be_as_many_as_planned(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="windows gives 50 samples, but size says 60"):
        collected(tmp_path, (60, 10))
    key = {"model": "tiny", "size": [60, 10], "readers": {"intermediate": ["intermediate", 0, 1]}}
    assert not Store(tmp_path).has(STAGE, key)


def test_several_sites_are_kept_apart(tmp_path: Path) -> None:
    def both(ids: Tensor) -> Mapping[str, Tensor]:
        found = relevance(ids)["intermediate"]
        return {"gate": found, "down": found[..., :32] * 2}

    readers = {
        "gate": Reader("gate", lambda: StreamingMoments((3, 48))),
        "down": Reader("down", lambda: StreamingMoments((3, 32))),
    }
    found = collect(Store(tmp_path), KEY, windows, SIZE, readers, both)
    assert {site: tuple(m.shape) for site, m in found.items()} == {"gate": (3, 48), "down": (3, 32)}
    torch.testing.assert_close(found["down"].mean(), found["gate"].mean()[:, :32] * 2)


# --- interruptions --------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 3, 17, 50])
def test_an_interruption_costs_the_batch_it_hits(
    tmp_path: Path, reference: str, batch: int
) -> None:
    first, second = Counting(batch), Counting()
    with pytest.raises(KeyboardInterrupt):
        collected(tmp_path, function=first, every=1e9)  # no checkpoint but the one it leaves
    collected(tmp_path, function=second)
    assert first.calls + second.calls == 50 + 1
    assert checksum(tmp_path) == reference


def test_an_interruption_within_an_update_is_undone(
    tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = StreamingMoments.merge, 0

    def interrupted(self: StreamingMoments, other: StreamingMoments) -> None:
        nonlocal calls
        calls += 1
        if calls == 31:  # the second batch of a piece
            self._mean = self._mean + 1
            raise KeyboardInterrupt
        real(self, other)

    with monkeypatch.context() as patch:
        patch.setattr(StreamingMoments, "merge", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collected(tmp_path)
    assert list(tmp_path.glob(f"{PIECE_STAGE}/*.part"))
    collected(tmp_path)
    assert checksum(tmp_path) == reference


def test_a_damaged_checkpoint_or_piece_is_computed_again(tmp_path: Path, reference: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        collected(tmp_path, function=Counting(12), every=0)
    (path,) = tmp_path.glob(f"{PIECE_STAGE}/*.part")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    piece = next(tmp_path.glob(f"{PIECE_STAGE}/*.safetensors"))
    piece.write_bytes(piece.read_bytes()[:-3])
    with pytest.warns(UserWarning, match="truncated or altered") as found:
        collected(tmp_path)
    assert {"checkpoint", "stored"} == {str(w.message).split()[0] for w in found}
    assert checksum(tmp_path) == reference


def test_no_room_for_a_checkpoint_is_a_clear_error(
    tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(DiskFullError, match="same command again"):
            collected(tmp_path, every=0)
    collected(tmp_path)
    assert checksum(tmp_path) == reference


def test_the_bar_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[Any] = []

    def bar(*args: Any, **kwargs: Any) -> Any:
        bars.append(tqdm(*args, **{**kwargs, "disable": False}))
        return bars[-1]

    monkeypatch.setattr("crane_lab.stages.streams.tqdm", bar)
    with pytest.raises(KeyboardInterrupt):
        collected(tmp_path, function=Counting(20))
    collected(tmp_path)
    assert [(b.initial, b.n, b.total) for b in bars] == [(0, 19, 50), (19, 50, 50)]


def test_time_spent_before_an_interruption_counts(tmp_path: Path) -> None:
    def slow(ids: Tensor) -> dict[str, Tensor]:
        time.sleep(0.02)
        return counting(ids)

    counting = Counting(26)
    with pytest.raises(KeyboardInterrupt):
        collected(tmp_path, function=slow)
    counting = Counting()
    collected(tmp_path, function=slow)
    (record,) = Store(tmp_path).records()
    assert record["seconds"] is not None
    assert record["seconds"] > 50 * 0.02


# --- killed processes -----------------------------------------------------------------------------


def reached(root: Path, batches: int) -> bool:
    return len(begun(root)) >= batches


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.003)


def kill(process: Any) -> None:
    assert process.exitcode is None, "it ended before it was killed"
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)


def test_a_killed_run_loses_one_batch_and_ends_bit_identical(
    tmp_path: Path, reference: str
) -> None:
    kills = (1, 9, 18, 26, 43)
    for moment in kills:
        process = processes.Process(target=work, args=(tmp_path, 0.02))
        process.start()
        until(partial(reached, tmp_path, moment))
        kill(process)
    work(tmp_path, 0)
    assert checksum(tmp_path / "store") == reference
    # A batch may have been finished but not yet kept, so each kill costs at most one.
    assert 50 <= len(begun(tmp_path)) <= 50 + len(kills)


# --- several processes ----------------------------------------------------------------------------


def start(root: Path, world: int, pause: float = 0.0) -> list[Any]:
    root.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = [
        processes.Process(target=work, args=(root, pause, (rank, world, port)))
        for rank in range(world)
    ]
    for worker in workers:
        worker.start()
    return workers


def join(workers: list[Any]) -> None:
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * len(workers)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_work_and_change_no_bit(
    tmp_path: Path, reference: str, world: int
) -> None:
    join(start(tmp_path, world, 0.01))
    assert checksum(tmp_path / "store") == reference
    assert len(begun(tmp_path)) == 50
    shares = [begun(tmp_path).count(pid) for pid in set(begun(tmp_path))]
    assert len(shares) == world
    assert min(shares) >= 50 / world / 3


@pytest.mark.parametrize("victim", [0, 1])
def test_the_living_take_over_from_the_dead(tmp_path: Path, reference: str, victim: int) -> None:
    workers = start(tmp_path, 2, 0.02)
    until(partial(reached, tmp_path, 14))
    kill(workers.pop(victim))
    join(workers)
    assert checksum(tmp_path / "store") == reference
    assert len(begun(tmp_path)) <= 51


def test_killed_and_resumed_with_another_number_of_processes(
    tmp_path: Path, reference: str
) -> None:
    workers = start(tmp_path, 3, 0.02)
    until(partial(reached, tmp_path, 20))
    for worker in workers:
        kill(worker)
    join(start(tmp_path, 2))
    assert checksum(tmp_path / "store") == reference
    assert len(begun(tmp_path)) <= 53


def test_accelerate_launch_fills_the_store_of_the_notebooks(tmp_path: Path) -> None:
    changed = {"n_samples": 7, "window": 8, "batch_size": 2, "languages": ["en", "vi"]}
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    command += ["--num_processes", "2", "--main_process_port", "0"]
    command += ["-m", "crane_lab.cli.attribute", "--profile", "testbed"]
    command += ["--store", str(tmp_path / "launched")]
    for name, value in changed.items():
        command += ["-p", name, str(value)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "relevance of 7 samples, vi: stored" in done.stdout
    launched = list(Store(tmp_path / "launched").records())
    assert [record["stage"] for record in launched] == [STAGE] * 2
    assert {str(record["run"]).split("-")[0] for record in launched} == {"testbed"}

    found = Pipeline(Settings.of(changed), Store(tmp_path / "alone"))
    for language in changed["languages"]:  # type: ignore[attr-defined]
        found.collected(language)
    assert {r["path"].name: r["path"].read_bytes() for r in launched} == {
        r["path"].name: r["path"].read_bytes() for r in found.store.records()
    }


# --- out of memory --------------------------------------------------------------------------------


def allocator_error() -> RuntimeError:
    """What torch really says when the CPU has no room."""
    try:
        torch.empty(2**56, dtype=torch.uint8)
    except RuntimeError as error:
        return RuntimeError(*error.args)
    raise AssertionError("so much memory")


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    allocator_error(),
    RuntimeError("could not create a primitive"),  # oneDNN, under a real limit
]


def short_of_memory(room: int, error: BaseException) -> tuple[streams.Measure, list[int]]:
    """Relevance that fits for `room` samples at once, and the sizes of all that was tried."""
    tried: list[int] = []

    def function(ids: Tensor) -> dict[str, Tensor]:
        tried.append(len(ids))
        if len(ids) > room:
            raise error
        return relevance(ids)

    return function, tried


@pytest.mark.parametrize("error", ERRORS)
def test_out_of_memory_halves_the_batch_and_goes_on(tmp_path: Path, error: Exception) -> None:
    size = (50, 16)
    whole = collected(tmp_path / "whole", size)
    function, tried = short_of_memory(5, error)
    memory = Memory()
    with pytest.warns(UserWarning, match="out of memory with (16|8) samples at once") as said:
        halved = collected(tmp_path / "halved", size, function, memory=memory)
    assert len(said) == 2  # 16, 8; what did not fit is not tried again
    assert memory.at_once == 4
    assert tried == [16, 8, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 2]
    assert halved.count == 50
    torch.testing.assert_close(halved.kurtosis(), whole.kurtosis(), rtol=1e-5, atol=0)
    (record,) = Store(tmp_path / "halved").records()
    assert record["notes"] == ["out of memory: at most 4 samples at once instead of 16"]
    (record,) = Store(tmp_path / "whole").records()
    assert record["notes"] == []

    with warnings.catch_warnings():  # the rest of the run knows
        warnings.simplefilter("error")
        collected(tmp_path / "later", size, function, memory=memory)


def test_a_resumed_piece_knows_what_did_not_fit(tmp_path: Path) -> None:
    short, _ = short_of_memory(4, ERRORS[0])
    calls = 0

    def stopped(ids: Tensor) -> Mapping[str, Tensor]:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return short(ids)

    many = ({"model": "tiny", "n": 1}, lambda: windows().repeat(12, 1), (600, 8), READERS)
    # 2 or 3 batches a piece
    with pytest.warns(UserWarning, match="out of memory"), pytest.raises(KeyboardInterrupt):
        collect(Store(tmp_path), *many, stopped)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collect(Store(tmp_path), *many, short)
    (record,) = Store(tmp_path).records()
    assert record["notes"] == ["out of memory: at most 4 samples at once instead of 8"]


def test_a_single_sample_that_does_not_fit_is_a_clear_error(tmp_path: Path) -> None:
    function, tried = short_of_memory(0, ERRORS[0])
    with (
        pytest.warns(UserWarning, match="out of memory"),
        pytest.raises(MemoryError, match=r"a single sample, \(1, 6\), does not fit.*CUDA out of"),
    ):
        collected(tmp_path, (50, 16), function)
    assert tried == [16, 8, 4, 2, 1]


def test_other_errors_are_left_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        collected(tmp_path, function=Counting(1, RuntimeError("size mismatch")))


def test_counts_of_activations_are_the_same_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(n_samples=6, window=8, batch_size=4, languages=("en", "vi"))
    whole, n = Pipeline(settings, Store(tmp_path / "whole")).activation_counts()
    from crane_core.accumulators import one_pass as real

    def short(model: Any, ids: Tensor, *rest: Any, **more: Any) -> dict[str, Any]:
        if len(ids) > 2:
            raise ERRORS[0]
        return real(model, ids, *rest, **more)

    monkeypatch.setattr(identifying, "one_pass", short)
    store = Store(tmp_path / "parts")
    with pytest.warns(UserWarning, match="out of memory"):
        parts, same = Pipeline(settings, store).activation_counts()
    assert same == n
    assert all(torch.equal(parts[x], whole[x]) for x in settings.languages)
    assert [record["notes"] != [] for record in store.records()] == [True, True]
