"""Locks that any shared folder can hold, and that say who holds them.

A lock is a small file, made exclusively, with its holder inside: machine, process, user, since
when. Its holder touches it every few seconds. On the same machine a dead holder is known at once by
its process; on another one by a file that nobody has touched for `LEASE` seconds, measured on the
clock of the one who looks on, so that clocks that differ between machines do no harm.

Neither flock nor `filelock` is used. Some network folders refuse flock, and on others each machine
sees its own locks only. filelock's leases go by the machine's name, so that a holder in another
container or on another machine of the same name is taken for dead.

A lock spares work and money and is no guarantee: a process that was stopped for longer than `LEASE`
may find its work done by another. Both write the same bytes, and files are replaced as a whole.
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from crane_core.files import HOST, node
from crane_lab.store.files import full_disk_explained

#: A holder on another machine is taken for dead when its file was not touched for so long, and
#: touches it so often (seconds). More than network folders keep old answers (60 s on NFS).
LEASE, HEARTBEAT = 120.0, 10.0
#: Waiting is announced after so long, and again and again after the second (seconds).
NOTICE_SECONDS, AGAIN_SECONDS = 1.0, 60.0
#: The environment variable with the seconds that are waited for a lock at most, and its default.
WAIT, WAIT_SECONDS = "CRANE_WAIT", 12 * 3600.0


class HeldError(TimeoutError):
    """Another process has not given up a lock in the time that one waits for it."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock; `machine` tells apart what has one name, `start` processes of one number.

    `quiet` is how long ago it last gave a sign of life, in seconds; `alive` is None where that
    cannot be known for certain, on another machine.
    """

    token: str
    machine: str
    host: str
    pid: int
    start: str
    user: str
    since: float
    quiet: float = 0.0

    @property
    def alive(self) -> bool | None:
        """Whether it is running; None on another machine, where only its silence tells."""
        if self.machine != HOST:
            return None
        return _running(self.pid, self.start)

    @property
    def gone(self) -> bool:
        """Whether it can be taken for dead."""
        return self.quiet >= LEASE if self.alive is None else not self.alive

    def __str__(self) -> str:
        age = _long(time.time() - self.since)
        sign = f", last sign of life {_long(self.quiet)} ago" if self.alive is None else ""
        return f"process {self.pid} of {self.user} on {self.host} (for {age}{sign})"


def _long(seconds: float) -> str:
    for unit, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(0.0, seconds):.0f} s"


def _process(pid: int) -> tuple[str, str] | None:
    """State and time of start of a process, as Linux has them; None elsewhere."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[0].decode(), fields[19].decode()
    except (OSError, IndexError):
        return None


def _running(pid: int, start: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    # A number can have been given to another process, and a zombie holds nothing.
    found = _process(pid)
    return found is None or (found[0] not in "ZX" and start in ("", found[1]))


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name, as in containers
        return f"user {os.getuid()}"


def _myself() -> Holder:
    pid = os.getpid()
    start = (_process(pid) or ("", ""))[1]
    return Holder(secrets.token_hex(8), HOST, node(), pid, start, _user(), time.time())


# --- the file -------------------------------------------------------------------------------------


def _create(path: Path, content: bytes) -> bool:
    """Make the file unless there is one; False if there is."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    try:
        os.write(file, content)
    except OSError:  # a full disk: nothing empty must be left that others would respect
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)
    return True


def _look(path: Path) -> tuple[bytes, os.stat_result] | None:
    """Content and state; None if there is no file. Opened, so that NFS asks its server."""
    try:
        with path.open("rb") as stream:
            return stream.read(4096), os.fstat(stream.fileno())
    except FileNotFoundError:
        return None


def _holder(content: bytes, quiet: float) -> Holder:
    with suppress(ValueError, TypeError, RecursionError):
        who = Holder(**{**json.loads(content), "quiet": quiet})
        words = (who.token, who.machine, who.host, who.start, who.user)
        numbers = type(who.pid) is int and isinstance(who.since, int | float)
        known = numbers and all(isinstance(word, str) for word in words)
        if known and 0 < who.pid < 2**31 and 0 <= who.since < 1e12:
            return who
    # Not written yet, damaged, or of another version.
    return Holder("", "?", "an unknown machine", 0, "", "an unknown user", time.time(), quiet)


#: Path of a lock -> how it looked, and since when it has looked so on this process's clock.
_seen: dict[Path, tuple[object, float]] = {}


def _watched(path: Path) -> tuple[bytes, Holder] | None:
    """What the file says and its holder; silent for as long as this process has seen no change."""
    found = _look(path)
    if found is None:
        _seen.pop(path, None)
        return None
    content, state = found
    looks = (content, state.st_mtime_ns, state.st_ino)
    if path not in _seen or _seen[path][0] != looks:
        _seen[path] = looks, time.monotonic()
    return content, _holder(content, time.monotonic() - _seen[path][1])


def _take_away(path: Path, content: bytes) -> None:
    """Remove a dead process's file, and no other's that came in its place."""
    aside = path.with_name(f"{path.name}-{secrets.token_hex(8)}")
    with suppress(FileNotFoundError):  # another process was faster
        path.rename(aside)
        if aside.read_bytes() != content:
            _create(path, aside.read_bytes())
        aside.unlink()


# --- signs of life --------------------------------------------------------------------------------


class _Signs:
    """A thread that touches the files that this process holds."""

    def __init__(self) -> None:
        self.held: dict[Path, tuple[bytes, int]] = {}  # content, and the thread that works
        self.thread: threading.Thread | None = None

    def give(self, path: Path, content: bytes) -> None:
        self.held[path] = content, threading.get_ident()
        if self.thread is None:
            self.thread = threading.Thread(target=self._run, name="crane-locks", daemon=True)
            self.thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(HEARTBEAT)
            for path, (content, _) in list(self.held.items()):
                with suppress(OSError):  # gone, or the folder is away for a moment
                    found = _look(path)
                    if found is not None and found[0] == content:
                        os.utime(path)


_signs = _Signs()


def _forked() -> None:
    global _signs
    _signs = _Signs()  # the parent's locks are the parent's


os.register_at_fork(after_in_child=_forked)


# --- holding --------------------------------------------------------------------------------------


def holder(path: Path) -> Holder | None:
    """Who holds the lock at `path`, by the clock of its folder's machine; None if nobody does."""
    found = _look(path)
    if found is None:
        return None
    return _holder(found[0], max(0.0, _now(path.parent) - found[1].st_mtime))


def _now(folder: Path) -> float:
    """The time as the machine has it that keeps the folder."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:  # for reading only
        return time.time()


def held_in(*folders: Path) -> dict[Path, Holder]:
    """Every lock in some folders, and in those right below them, with its holder."""
    found = {}
    for folder in folders:
        paths = [*folder.glob(".*.lock"), *folder.glob("*/.*.lock")]
        for path in sorted(set(paths)):
            if path.is_file() and (who := holder(path)) is not None:
                found[path] = who
    return found


def longest_wait() -> float:
    """Seconds that one waits for a lock at most: `CRANE_WAIT`, or its default.

    Raises ValueError if that is no number of seconds.
    """
    text = os.environ.get(WAIT, "")
    try:
        seconds = float(text or WAIT_SECONDS)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise ValueError(
            f"the environment variable {WAIT} is {text!r}: expected seconds, such as "
            f"{WAIT_SECONDS:.0f}"
        )
    return seconds


@contextmanager
def locked(path: Path, what: str, wait: bool = True) -> Iterator[bool]:
    """Hold the lock at `path` for this process; False if another has it and `wait` is False.

    `what` names it in messages: "to make <what>". Folders above it are made.

    Raises HeldError if another process still has it after `longest_wait()` seconds, DiskFullError
    if there is no room, and RuntimeError if this very thread holds it.
    """
    path = path.absolute()
    content = json.dumps({k: v for k, v in asdict(_myself()).items() if k != "quiet"}).encode()
    if _signs.held.get(path, (b"", None))[1] == threading.get_ident():
        raise RuntimeError(f"{what} is asked for by what makes it")
    with full_disk_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        mine = _acquired(path, content, what, wait)
    if not mine:
        yield False
        return
    _signs.give(path, content)
    try:
        yield True
    finally:
        _signs.held.pop(path, None)
        found = _look(path)
        if found is not None and found[0] == content:  # else another has taken over
            path.unlink(missing_ok=True)


def _acquired(path: Path, content: bytes, what: str, wait: bool) -> bool:
    started, said, pause = time.monotonic(), 0.0, 0.02
    while not _create(path, content):
        found = _watched(path)
        if found is None:
            continue
        seen, other = found
        if other.gone:
            _take_away(path, seen)
            continue
        if not wait:
            return False
        waited = time.monotonic() - started
        if waited >= (limit := longest_wait()):
            raise HeldError(
                f"{what} is held by {other}, and this process has waited {_long(waited)} for it, "
                f"as long as {WAIT} ({limit:.0f} seconds) allows. If that process is gone for "
                "good, `crane unlock` removes what it held; then start the same command again"
            )
        if waited >= (AGAIN_SECONDS * said if said else NOTICE_SECONDS):
            said += 1
            so_far = f", {_long(waited)} by now" if said > 1 else ""
            say(f"waiting for another process to make {what}{so_far}: {other}")
        time.sleep(pause)
        pause = min(1.0, pause * 1.3)
    _seen.pop(path, None)
    return True


def say(text: str) -> None:
    """Print to the terminal; from a notebook too, so that no page depends on who was waiting."""
    terminal = getattr(sys.stderr, "_original_stdstream_copy", None)  # of an IPython kernel
    if terminal is None:
        print(text, file=sys.stderr, flush=True)
    else:
        with suppress(OSError):
            os.write(terminal, f"{text}\n".encode())
