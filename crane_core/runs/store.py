"""Artefacts kept between notebooks and runs, each under the key it depends on."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crane_core.runs.files import (
    atomic_path,
    canonical,
    digest_of,
    file_sha256,
    remove_leftovers,
    write_text,
)
from crane_core.runs.sources import ROOT

if TYPE_CHECKING:
    import pandas
    import torch


class Store:
    """Artefacts kept between notebooks and runs, each under the key it depends on.

    `root/<stage>/<digest>.<ext>` holds the artefact and `<digest>.json` beside it the key and the
    checksum of the file. A file that is missing, truncated or altered is computed again (with a
    warning in the last two cases). What is returned has always been read back from the file, so
    the first run and the hundredth get the same object.

    `key` must be JSON (strings, numbers, booleans, None, lists, dicts with string keys) and name
    everything the artefact depends on: parameters, the model's fingerprint, `source_digest(...)`
    of the modules that compute it. NaN is refused in a key: it is not equal to itself.
    """

    def __init__(self, root: Path | str = ROOT / "runs" / "store") -> None:
        self.root = Path(root)
        if self.root.exists():
            remove_leftovers(self.root)

    def tensors(
        self,
        stage: str,
        key: Mapping[str, Any],
        compute: Callable[[], Mapping[str, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        """Return tensors by name, from a safetensors file or from `compute()`; on the CPU."""
        from safetensors.torch import load_file, save_file

        def write(path: Path) -> None:
            # A copy of each: safetensors refuses views that share memory.
            named = {name: tensor.detach().cpu().clone() for name, tensor in compute().items()}
            save_file({name: tensor.contiguous() for name, tensor in named.items()}, path)

        return dict(load_file(self._path(stage, key, "safetensors", write)))

    def table(
        self, stage: str, key: Mapping[str, Any], compute: Callable[[], pandas.DataFrame]
    ) -> pandas.DataFrame:
        """Return a DataFrame, from a parquet file or from `compute()`."""
        import pandas

        def write(path: Path) -> None:
            compute().to_parquet(path)

        return pandas.read_parquet(self._path(stage, key, "parquet", write))

    def value(self, stage: str, key: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
        """Return a JSON value, from a file or from `compute()`; tuples come back as lists."""

        def write(path: Path) -> None:
            path.write_text(json.dumps(compute(), ensure_ascii=False, indent=1), encoding="utf-8")

        return json.loads(self._path(stage, key, "value.json", write).read_text(encoding="utf-8"))

    def _path(
        self,
        stage: str,
        key: Mapping[str, Any],
        extension: str,
        write: Callable[[Path], None],
    ) -> Path:
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
        digest = digest_of(text, 20)
        path = self.root / stage / f"{digest}.{extension}"
        sidecar = self.root / stage / f"{digest}.json"
        if self._holds(path, sidecar):
            return path
        with atomic_path(path) as temporary:
            write(temporary)
            checksum = file_sha256(temporary)
        record = {"stage": stage, "key": json.loads(text), "file": path.name, "sha256": checksum}
        write_text(sidecar, json.dumps(record, ensure_ascii=False, indent=1, sort_keys=True))
        return path

    @staticmethod
    def _holds(path: Path, sidecar: Path) -> bool:
        if not (path.exists() and sidecar.exists()):
            return False
        try:
            record = json.loads(sidecar.read_text(encoding="utf-8"))
            if record["file"] == path.name and record["sha256"] == file_sha256(path):
                return True
        except (ValueError, KeyError, TypeError):
            pass  # an unreadable sidecar vouches for nothing
        warnings.warn(
            f"stored artefact {path.parent.name}/{path.name} was truncated or altered; "
            "computing it again",
            stacklevel=4,
        )
        return False
