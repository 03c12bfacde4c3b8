"""What a result was computed with: versions of the software, and the machine."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from functools import cache
from pathlib import Path


def version(package: str) -> str:
    """Return the version of an installed package, "unknown" if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python, this package and what its numbers depend on most."""
    packages = {"crane_core": "crane-core", "torch": "torch", "transformers": "transformers"}
    found = {name: version(package) for name, package in packages.items()}
    return {"python": platform.python_version(), **found}


@cache
def processor() -> str:
    """Return the name of the CPU, as the system has it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text("utf-8"), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def machine() -> dict[str, str | None]:
    """Return `platform`, `cpu` and `gpu` (None without one, or before torch is imported)."""
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None
    return {"platform": platform.platform(), "cpu": processor(), "gpu": gpu}


def made_with() -> dict[str, dict[str, str | None]]:
    """Return what a shipped result says of its making: `machine` (CPU and GPU) and `versions`."""
    about = machine()
    return {"machine": {name: about[name] for name in ("cpu", "gpu")}, "versions": {**versions()}}
