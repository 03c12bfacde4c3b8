"""Files and folders that are either complete or absent."""

from __future__ import annotations

import os
import platform
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def node() -> str:
    """This machine's name, in letters that any file name can have."""
    return re.sub(r"[^\w-]", "-", platform.node())


def _machine() -> str:
    # Containers and machines can share a name; what Linux counts processes within tells them apart.
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return node()
    return f"{node()}-{zlib.crc32(boot + str(space).encode()):08x}"


#: This machine as temporary names have it: one on which process numbers mean the same.
HOST = _machine()


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; a block without error moves it there in one step.

    The block may make a file or a folder there (a folder cannot replace one that holds something).
    The temporary name carries the machine's name and the process id, so that two processes never
    write the same file. After an error nothing is left, and what was at `path` is untouched.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}@{HOST}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
