"""Artefacts kept between notebooks and runs, each under the key it depends on."""

from __future__ import annotations

import io
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from crane_lab.store.files import (
    canonical,
    digest_of,
    file_sha256,
    remove_leftovers,
    write_bytes,
    write_text,
)
from crane_lab.store.locks import locked
from crane_lab.store.machine import machine, versions
from crane_lab.store.sources import ROOT, modules_digested

if TYPE_CHECKING:
    import pandas
    import torch

Result = TypeVar("Result")

#: Format of the files in a store, in its `store.json`, and the oldest one that can still be read.
#: 1 had neither `store.json` nor anything in a manifest but stage, key, file and checksum.
FORMAT, OLDEST_FORMAT = 2, 1

#: The environment variable with the name of the run, for manifests.
RUN_NAME = "CRANE_RUN"
#: The environment variable with a file to which every artefact asked for is added, a line each:
#: what a notebook needs. Those that are asked for while another is computed are not its own.
USES = "CRANE_USES"


class StoreFormatError(ValueError):
    """A store of another version of this package, which this one cannot read."""


class BusyError(RuntimeError):
    """Another process is at an artefact, and this one was told not to wait (`Store.passing`)."""


class Record(TypedDict):
    """What the manifest of an artefact says about it; None where an old one says nothing.

    `stage` and `key` are what it was stored under, `path` is the artefact and `bytes` its size.
    `seconds` is the time it took, in all attempts and processes that had a part in it, `when` the
    moment it was stored (UTC), `run` the name of the run (`CRANE_RUN`), and `notes` what should be
    known about it, such as a batch halved for lack of memory. `modules` are those whose digest
    is the key's "code".
    """

    stage: str
    key: dict[str, Any]
    path: Path
    bytes: int
    seconds: float | None
    when: datetime | None
    run: str | None
    notes: list[str]
    modules: list[str] | None


@dataclass
class _Making:
    """An artefact that is being computed."""

    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0  # spent on it before


class Store:
    """Artefacts kept between notebooks and runs, each under the key it depends on.

    `root/<stage>/<digest>.<ext>` holds the artefact and `<digest>.json` beside it the manifest:
    key, checksum, and when, how and where it was made. A file that is missing, truncated or altered
    is computed again (with a warning in the last two cases). What is returned has always been read
    back from the file, so the first run and the hundredth get the same object.

    Any number of processes on any number of machines may use one store at a time. What one of them
    computes the others wait for; if it dies, the next one takes over (`store.locks`). `together`
    and `passing` are for those that would rather do something else meanwhile.

    `key` must be JSON (strings, numbers, booleans, None, lists, dicts with string keys) and name
    everything the artefact depends on: parameters, the model's fingerprint, `source_digest(...)`
    of the modules that compute it. NaN is refused in a key: it is not equal to itself.

    Raises StoreFormatError for a store that this version cannot read; nothing in it is touched.
    DiskFullError is raised by what stores, if there is no room.
    """

    def __init__(self, root: Path | str = ROOT / "runs" / "store") -> None:
        self.root = Path(root)
        self._making: list[_Making] = []
        self._passing = False
        if self.root.exists():
            self._check_format()
            remove_leftovers(self.root)

    # -- kinds of artefacts ------------------------------------------------------------------------

    def tensors(
        self,
        stage: str,
        key: Mapping[str, Any],
        compute: Callable[[], Mapping[str, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        """Return tensors by name, from a safetensors file or from `compute()`; on the CPU."""
        from safetensors.torch import load_file

        self.keep_tensors(stage, key, compute)
        return dict(load_file(self._file(stage, key, "safetensors")))

    def keep_tensors(
        self,
        stage: str,
        key: Mapping[str, Any],
        compute: Callable[[], Mapping[str, torch.Tensor]],
        wait: bool = True,
    ) -> bool:
        """Make sure that tensors are stored, from `compute()` if they are not; read nothing.

        Returns False, with nothing done, if another process is at it and `wait` is False.
        """
        from safetensors.torch import save

        def content() -> bytes:
            # A copy of each: safetensors refuses views that share memory.
            named = {name: tensor.detach().cpu().clone() for name, tensor in compute().items()}
            return save({name: tensor.contiguous() for name, tensor in named.items()})

        return self._keep(stage, key, "safetensors", content, wait)

    def table(
        self, stage: str, key: Mapping[str, Any], compute: Callable[[], pandas.DataFrame]
    ) -> pandas.DataFrame:
        """Return a DataFrame, from a parquet file or from `compute()`."""
        import pandas

        def content() -> bytes:
            buffer = io.BytesIO()
            compute().to_parquet(buffer)
            return buffer.getvalue()

        self._keep(stage, key, "parquet", content)
        return pandas.read_parquet(self._file(stage, key, "parquet"))

    def value(self, stage: str, key: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
        """Return a JSON value, from a file or from `compute()`; tuples come back as lists."""

        def content() -> bytes:
            return json.dumps(compute(), ensure_ascii=False, indent=1).encode()

        self._keep(stage, key, "value.json", content)
        return json.loads(self._file(stage, key, "value.json").read_text(encoding="utf-8"))

    # -- sharing work with other processes ---------------------------------------------------------

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Within the block, what another process is at raises BusyError and is not waited for.

        What an artefact needs while it is made is waited for all the same.
        """
        before, self._passing = self._passing, True
        try:
            yield
        finally:
            self._passing = before

    def together(self, calls: Iterable[Callable[[], Result]]) -> list[Result]:
        """Results of calls that do not need each other, in order.

        What other processes are at comes last, so that each of them takes what nobody has.

        Raises BusyError within `passing`, when all that is left is with others.
        """
        results: dict[int, Result] = {}
        left = []
        for number, call in enumerate(calls):
            try:
                with self.passing():
                    results[number] = call()
            except BusyError:
                left.append((number, call))
        for number, call in left:
            results[number] = call()
        return [results[number] for number in sorted(results)]

    # -- about artefacts ---------------------------------------------------------------------------

    def manifest(self, stage: str, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the manifest of an artefact, None if it is not stored whole."""
        return _intact(self._file(stage, key, "json"))

    def has(self, stage: str, key: Mapping[str, Any]) -> bool:
        """Say whether an artefact is stored, whole and unaltered."""
        return self.manifest(stage, key) is not None

    def records(self) -> Iterator[Record]:
        """Yield what is known about every artefact, by stage and time; checksums are not read.

        Warns about a manifest that cannot be read, and leaves it out.
        """
        found = []
        for sidecar in self.root.glob("*/*.json"):
            if re.fullmatch(r"[0-9a-f]{20}", sidecar.stem):
                try:
                    found.append(_record(sidecar))
                except FileNotFoundError:  # deleted just now, or stored no more
                    continue
                except (ValueError, TypeError, KeyError, AttributeError):
                    warnings.warn(
                        f"manifest {sidecar} is damaged and left out; what it is about is "
                        "computed again when it is asked for",
                        stacklevel=2,
                    )
        yield from sorted(found, key=lambda r: (r["stage"], str(r["when"] or ""), r["path"].name))

    def discard(self, stage: str, key: Mapping[str, Any]) -> None:
        """Delete an artefact and its manifest, if there are any."""
        sidecar = self._file(stage, key, "json")
        manifest = _read(sidecar)
        sidecar.unlink(missing_ok=True)
        if manifest is not None:
            sidecar.with_name(manifest["file"]).unlink(missing_ok=True)

    def scratch(self, stage: str, key: Mapping[str, Any]) -> Path:
        """Return the path for unfinished work on an artefact; removed when that is stored.

        Only for use inside the artefact's `compute`, where no other process is at it.
        """
        return self._file(stage, key, "part")

    def note(self, text: str) -> None:
        """Put a remark, once, into the manifest of the artefact that is being computed, if any."""
        if self._making and text not in self._making[-1].notes:
            self._making[-1].notes.append(text)

    def add_seconds(self, seconds: float) -> None:
        """Count time spent before, in other processes too, to the artefact being computed."""
        if self._making:
            self._making[-1].seconds += seconds

    # -- files -------------------------------------------------------------------------------------

    def _file(self, stage: str, key: Mapping[str, Any], extension: str) -> Path:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", stage):
            raise ValueError(
                f"a stage is a folder name of lower-case letters, digits, '_' and '-', "
                f"such as 'kurtosis'; got {stage!r}"
            )
        try:
            text = canonical(dict(key))
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"the key of stage {stage!r} must be plain JSON without NaN "
                f"(strings, numbers, lists, dicts): {error}"
            ) from error
        return self.root / stage / f"{digest_of(text, 20)}.{extension}"

    def _keep(
        self,
        stage: str,
        key: Mapping[str, Any],
        extension: str,
        content: Callable[[], bytes],
        wait: bool = True,
    ) -> bool:
        sidecar, path = self._file(stage, key, "json"), self._file(stage, key, extension)
        if not self._making and (uses := os.environ.get(USES)):
            with Path(uses).open("a", encoding="utf-8") as stream:
                stream.write(f"{stage}/{path.stem.partition('.')[0]}\n")
        if _intact(sidecar, path):
            return True
        lock, what = sidecar.with_name(f".{sidecar.stem}.lock"), f"{stage}/{sidecar.stem}"
        # To pass by what is needed right now would throw away what has been done for its sake.
        busy = self._passing and not self._making
        with locked(lock, what, wait and not busy) as mine:
            if not mine:
                if wait:
                    raise BusyError(f"another process is at {what}")
                return False
            if not _intact(sidecar, path, warn=True):  # else another process was faster
                self._make(stage, key, path, content)
        return True

    def _make(
        self, stage: str, key: Mapping[str, Any], path: Path, content: Callable[[], bytes]
    ) -> None:
        making, started, clock = _Making(), datetime.now(UTC), time.monotonic()
        self._making.append(making)
        try:
            data = content()
        finally:
            self._making.pop()
        if not (self.root / "store.json").exists():
            self._write_format()
        write_bytes(path, data)
        manifest = {
            "format": FORMAT,
            "stage": stage,
            "key": dict(key),
            "file": path.name,
            "sha256": file_sha256(path),
            "made": {
                "started": started.isoformat(timespec="seconds"),
                "ended": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - clock + making.seconds, 3),
                "run": os.environ.get(RUN_NAME),
                "notes": making.notes,
                "modules": modules_digested(str(key.get("code"))),
                "versions": versions(),
                "machine": machine(),
            },
        }
        text = json.dumps(manifest, ensure_ascii=False, indent=1, sort_keys=True)
        write_text(self._file(stage, key, "json"), text)
        self.scratch(stage, key).unlink(missing_ok=True)

    def _write_format(self) -> None:
        text = json.dumps({"format": FORMAT, "crane_core": versions()["crane_core"]}, indent=1)
        write_text(self.root / "store.json", text)

    def _check_format(self) -> None:
        path = self.root / "store.json"
        own = versions()["crane_core"]
        if not path.exists():
            if any(True for _ in self.root.glob("*/*.json")):
                warnings.warn(
                    f"the store in {self.root} is from an older crane_core (format "
                    f"{OLDEST_FORMAT}); its artefacts are kept and read, and it has format "
                    f"{FORMAT} from now on",
                    stacklevel=3,
                )
                with suppress(OSError):  # it may be for reading only
                    self._write_format()
            return
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            number, writer = int(content["format"]), content.get("crane_core", "of unknown version")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreFormatError(
                f"{path} cannot be read: expected JSON such as "
                f'{{"format": {FORMAT}, "crane_core": "{own}"}}. If a crane_core up to {own} wrote '
                "this store, delete that one file; otherwise move the folder aside"
            ) from error
        if not OLDEST_FORMAT <= number <= FORMAT:
            age = "a newer" if number > FORMAT else "an older"
            raise StoreFormatError(
                f"the store in {self.root} has format {number}, of {age} crane_core ({writer}); "
                f"this one ({own}) reads formats {OLDEST_FORMAT} to {FORMAT}. Nothing in it was "
                f"touched: install crane_core {writer} to go on with it, or move the folder aside "
                "to compute everything again"
            )


def _read(sidecar: Path) -> dict[str, Any] | None:
    """Return a manifest, None for one that is missing or unreadable."""
    try:
        manifest = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    wanted = {"stage", "key", "file", "sha256"}
    if not (isinstance(manifest, dict) and wanted <= manifest.keys()):
        return None
    # A file beside the manifest, never one elsewhere.
    return manifest if manifest["file"] == Path(str(manifest["file"])).name else None


def _record(sidecar: Path) -> Record:
    """What a manifest says; raises one of many errors if it is damaged."""
    manifest = _read(sidecar)
    if manifest is None:
        sidecar.stat()
        raise ValueError
    path, made = sidecar.with_name(manifest["file"]), manifest.get("made", {})
    ended, seconds = made.get("ended"), made.get("seconds")
    return Record(
        stage=sidecar.parent.name,
        key=dict(manifest["key"]),
        path=path,
        bytes=path.stat().st_size,
        seconds=None if seconds is None else float(seconds),
        when=datetime.fromisoformat(ended) if ended else None,
        run=None if made.get("run") is None else str(made["run"]),
        notes=list(made.get("notes", [])),
        modules=made.get("modules"),
    )


def _intact(sidecar: Path, path: Path | None = None, warn: bool = False) -> dict[str, Any] | None:
    """Return the manifest of an artefact that is as it was written; None if it is not.

    `path` is where the artefact has to be; None takes the manifest's word.
    """
    manifest = _read(sidecar)
    if path is None and manifest is not None:
        path = sidecar.with_name(manifest["file"])
    if path is None or not (path.exists() and sidecar.exists()):
        return None
    try:
        if manifest and manifest["file"] == path.name and manifest["sha256"] == file_sha256(path):
            return manifest
    except FileNotFoundError:  # deleted just now
        return None
    if warn:
        warnings.warn(
            f"stored artefact {path.parent.name}/{path.name} was truncated or altered; "
            "computing it again",
            stacklevel=5,
        )
    return None
