"""The masks of Table 1 under one reading of a neuron, with what was asked under each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from crane_lab.pipeline import Pipeline
from crane_lab.stages import comparisons
from crane_lab.stages.outcomes import Evaluated, Row
from crane_lab.study.nulls import Nulls


@dataclass(frozen=True)
class EvaluatedMasks:
    """The rows of Table 1 at a site; evaluated when they are asked for, and kept in the store.

    No row at all unless they are `wanted`.
    """

    pipeline: Pipeline
    site: str = "intermediate"
    wanted: bool = True

    @cached_property
    def rows(self) -> list[Row]:
        """Every method's set for every language."""
        return self.pipeline.rows(self.site) if self.wanted else []

    @cached_property
    def evaluated(self) -> Evaluated:
        """Items and held-out losses, untouched and under every mask."""
        return self.pipeline.evaluated(self.rows)

    @cached_property
    def items(self) -> pd.DataFrame:
        """`Evaluated.items`: every item's outcome under every mask."""
        return self.evaluated.items()

    def verdicts(
        self, table: pd.DataFrame, tasks: Mapping[str, str], random: Nulls
    ) -> pd.DataFrame:
        """`comparisons.verdicts` of a table of these tasks, beside random masks of every set."""
        return comparisons.verdicts(
            self.items,
            table,
            tasks,
            nulls=random.of_rows("tasks", self.rows),
            reading=self.pipeline.reading,
        )
