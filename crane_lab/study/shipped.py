"""A run's results as they are shipped (`crane_lab.cli.ship`), read and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import load_file
from torch import Tensor

from crane_core.models import CHECKSUMS, verify_checksums
from crane_core.selection import NeuronSet
from crane_lab.store import write_table

#: Columns of text that may be empty in every row, and would be read as numbers then.
TEXTS = frozenset(["against_random"])
#: What results rest on, as `run.json` and `made.json` name it.
INPUTS = ("model", "texts")


def other_inputs(made: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Which of `INPUTS` two runs do not share."""
    return [name for name in INPUTS if made.get(name) != other.get(name)]


@dataclass(frozen=True)
class Shipped:
    """The folder of a run's shipped results, and what they were made with."""

    folder: Path
    made: dict[str, Any]

    @classmethod
    def read(cls, folder: str | Path) -> Shipped:
        """Open a folder whose files are as its checksums say.

        Raises FileNotFoundError if a file is missing, ValueError if one was altered.
        """
        folder = Path(folder)
        if not (folder / CHECKSUMS).is_file():
            raise FileNotFoundError(f"{folder} has no {CHECKSUMS}, so no shipped results")
        verify_checksums(folder)
        return cls(folder, json.loads((folder / "run.json").read_text(encoding="utf-8")))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the run."""
        found: dict[str, Any] = self.made["settings"]
        return found

    @property
    def languages(self) -> list[str]:
        """The run's languages, in its order."""
        return list(self.settings["languages"])

    def causal(self) -> dict[str, Any]:
        """What the causal check was made with (`crane_lab.cli.real_model`); {} if it was not.

        Raises ValueError if that was another model, or other texts, than the rest was made with.
        """
        file = self.folder / "made.json"
        if not file.is_file():
            return {}
        made: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if differing := other_inputs(made, self.made):
            raise ValueError(
                f"{file} is about another {' and other '.join(differing)} than run.json; make one "
                "of them again"
            )
        return made

    def table(self, name: str) -> pd.DataFrame:
        """One of the tables; an empty cell of a text column is an empty text."""
        found = pd.read_csv(self.folder / f"{name}.csv")
        texts = {*found.select_dtypes(["object", "string"]), *(TEXTS & {*found})}
        return found.assign(**{x: found[x].astype(object).fillna("") for x in texts})

    def keep(self, results: str | Path, *names: str) -> None:
        """Write tables beside a run's own results, as `real_<name>.csv`, for a page to offer."""
        for name in names:
            write_table(self.table(name), Path(results) / f"real_{name}.csv")

    def normalised(self) -> dict[str, Tensor]:
        """Normalised kurtosis of every neuron, `{language: (layers, neurons)}`, float32."""
        found = load_file(self.folder / "normalised.safetensors")
        return {x: found[x].float() for x in self.languages}

    def sets(self, method: str) -> dict[str, NeuronSet]:
        """The neurons that a method of Table 1 takes, by language."""
        name = f"neurons_{method.lower().replace(' ', '_')}"
        return {x: NeuronSet.load(self.folder / f"{name}_{x}.safetensors") for x in self.languages}
