"""Locks on any folder: who holds them, how death is noticed, and what is left alone."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from crane_core import files as core_files
from crane_core.files import HOST
from crane_lab.store import Store, locks
from crane_lab.store.files import remove_leftovers
from crane_lab.store.locks import HeldError, held_in, holder, locked

HOLD = """\
import sys, time
from pathlib import Path
from crane_lab.store import locks
locks.HEARTBEAT = float(sys.argv[2])
with locks.locked(Path(sys.argv[1]), "it") as mine:
    print(mine, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock `tmp_path/.a.lock`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / ".a.lock"), "0.1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    yield process
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGCONT)
        process.kill()
    process.wait()


def rewritten(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_lock_says_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "sub" / ".a.lock"
    with locked(path, "it") as mine:
        assert mine
        who = holder(path)
        assert who is not None
        assert (who.pid, who.machine, who.alive, who.gone) == (os.getpid(), HOST, True, False)
        assert who.user
        assert f"process {os.getpid()} of {who.user} on {who.host} (for 0 s" in str(who)
        assert list(held_in(tmp_path)) == [path]
        with pytest.raises(RuntimeError, match="it is asked for by what makes it"):
            locked(path, "it").__enter__()
    assert holder(path) is None
    assert not list(path.parent.iterdir())


def test_waiting_has_an_end_and_says_for_whom(
    tmp_path: Path, other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".a.lock"
    with locked(path, "it", wait=False) as mine:
        assert not mine
    monkeypatch.setenv("CRANE_WAIT", "0.3")
    with pytest.raises(HeldError) as error, locked(path, "items/0"):
        pass
    assert isinstance(error.value, OSError)  # one line on the command line
    for part in (
        "items/0 is held by",
        str(other.pid),
        "CRANE_WAIT",
        "crane unlock",
        core_files.node(),
    ):
        assert part in str(error.value)
    monkeypatch.setenv("CRANE_WAIT", "soon")
    with pytest.raises(ValueError, match="CRANE_WAIT is 'soon': expected seconds"):
        locks.longest_wait()


def test_waiting_is_said_every_so_often(
    tmp_path: Path,
    other: subprocess.Popen[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CRANE_WAIT", "0.7")
    monkeypatch.setattr(locks, "NOTICE_SECONDS", 0.05)
    monkeypatch.setattr(locks, "AGAIN_SECONDS", 0.2)
    with pytest.raises(HeldError), locked(tmp_path / ".a.lock", "it"):
        pass
    said = capfd.readouterr().err.splitlines()
    assert 3 <= len(said) <= 5
    assert all(f"process {other.pid} of " in line for line in said)


def test_a_dead_process_of_this_machine_holds_nothing(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    path = tmp_path / ".a.lock"
    other.kill()
    while holder(path).alive:  # type: ignore[union-attr]
        time.sleep(0.01)  # not waited for: a zombie holds nothing either
    with locked(path, "it", wait=False) as mine:
        assert mine
    other.wait()
    assert not list(tmp_path.iterdir())


def test_a_number_given_to_another_process_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / ".a.lock"
    with locked(path, "it"):
        content = path.read_text()
    path.write_text(content)
    rewritten(path, start="1")  # this very process's number, of another process once
    assert holder(path).gone  # type: ignore[union-attr]
    with locked(path, "it", wait=False) as mine:
        assert mine


def test_another_machine_of_the_same_name_is_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two containers that were given one host name, in which process numbers start anew."""
    path = tmp_path / ".a.lock"
    with locked(path, "it"):
        content = path.read_text()
    path.write_text(content)
    rewritten(path, machine=f"{core_files.node()}-00000000", pid=4194304)  # no such process here
    monkeypatch.setattr(locks, "LEASE", 0.4)
    with locked(path, "it", wait=False) as mine:
        assert not mine
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:  # its holder gives signs of life
        os.utime(path)
        with locked(path, "it", wait=False) as mine:
            assert not mine
        time.sleep(0.1)
    began = time.monotonic()
    with locked(path, "it") as mine:  # and no longer does
        assert mine
    assert 0.2 < time.monotonic() - began < 5


def test_clocks_that_differ_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".a.lock"
    with locked(path, "it"):
        content = path.read_text()
    path.write_text(content)
    rewritten(path, machine="elsewhere", since=time.time() - 9e6)
    os.utime(path, (time.time() - 9e6, time.time() - 9e6))
    with locked(path, "it", wait=False) as mine:
        assert not mine  # old by the other's clock, and not watched for long by ours


def test_a_holder_gives_signs_of_life(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    path = tmp_path / ".a.lock"
    before = path.stat().st_mtime_ns
    deadline = time.monotonic() + 20
    while path.stat().st_mtime_ns == before:
        assert time.monotonic() < deadline, "nobody touched it"
        time.sleep(0.02)


def test_who_was_overtaken_removes_nothing_of_the_successor(tmp_path: Path) -> None:
    path = tmp_path / ".a.lock"
    with locked(path, "it"):
        rewritten(path, token="of another")
    assert json.loads(path.read_text())["token"] == "of another"


def test_a_file_that_came_in_place_of_a_dead_one_is_put_back(tmp_path: Path) -> None:
    path = tmp_path / ".a.lock"
    path.write_text("alive")
    locks._take_away(path, b"dead")
    assert path.read_text() == "alive"
    assert list(tmp_path.iterdir()) == [path]
    locks._take_away(path, b"alive")
    locks._take_away(path, b"alive")  # gone by now
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EPERM, errno.ENOSYS])
def test_folders_without_flock_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(fcntl, "lockf", refuse)
    assert Store(tmp_path).value("sizes", {"n": 1}, lambda: 7) == 7


def test_an_unreadable_lock_is_respected_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".a.lock"
    path.write_text("")  # just made, or left by an older version
    with locked(path, "it", wait=False) as mine:
        assert not mine
    monkeypatch.setattr(locks, "LEASE", 0.1)
    with locked(path, "it") as mine:
        assert mine


@pytest.mark.parametrize(
    "damage",
    [
        *({"pid": 10**20}, {"pid": "abc"}, {"pid": 0}, {"pid": -1}, {"pid": True}),
        *({"since": "abc"}, {"since": 1e300}, {"machine": {}}, {"host": 3}, {"more": 1}),
    ],
)
def test_a_damaged_lock_is_of_nobody_known(tmp_path: Path, damage: dict[str, Any]) -> None:
    path = tmp_path / ".a.lock"
    with locked(path, "it"):
        rewritten(path, **damage)
        (tmp_path / ".b.lock").mkdir()
        ((found, who),) = held_in(tmp_path).items()
        assert found == path and "an unknown machine" in str(who) and not who.gone
    assert path.exists()  # it is no longer as it was written, so it is not this process's


def test_leftovers_of_a_container_of_the_same_name_stay(tmp_path: Path) -> None:
    theirs = tmp_path / f".a.bin@{core_files.node()}-00000000.4194304.tmp"
    mine = tmp_path / f".a.bin@{HOST}.4194304.tmp"
    for path in (theirs, mine):
        path.write_bytes(b"half")
    remove_leftovers(tmp_path)
    assert (theirs.exists(), mine.exists()) == (True, False)
