"""The masks of Table 1 by reading: evaluated once, none if they are not wanted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from crane_lab.stages import comparisons
from crane_lab.study.evaluated_masks import EvaluatedMasks


class Counting:
    """A pipeline that notes what it is asked for."""

    reading = "as printed"

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def rows(self, site: str) -> list[str]:
        self.asked.append(site)
        return [f"CRANE {site}"]

    def evaluated(self, rows: list[str]) -> Any:
        self.asked.append(rows)
        return SimpleNamespace(items=lambda: pd.DataFrame({"mask": rows}))


def test_masks_are_evaluated_when_asked_for_and_once() -> None:
    pipeline: Any = Counting()
    masks = EvaluatedMasks(pipeline, "projections")
    assert pipeline.asked == []
    for _ in range(2):
        assert masks.items["mask"].to_list() == ["CRANE projections"]
    assert pipeline.asked == ["projections", ["CRANE projections"]]


def test_unwanted_masks_are_no_rows() -> None:
    pipeline: Any = Counting()
    masks = EvaluatedMasks(pipeline, "projections", wanted=False)
    assert masks.rows == [] and masks.evaluated is masks.evaluated
    assert pipeline.asked == [[]]


def test_verdicts_are_beside_random_masks_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(comparisons, "verdicts", lambda *a, **named: given.append((a, named)))
    pipeline, table = Counting(), pd.DataFrame()
    random: Any = SimpleNamespace(of_rows=lambda kind, rows: (kind, rows))
    masks = EvaluatedMasks(pipeline)  # type: ignore[arg-type]
    masks.verdicts(table, {"en": "task"}, random)
    ((items, *rest), named) = given[0]
    assert items is masks.items and rest == [table, {"en": "task"}]
    assert named == {"nulls": ("tasks", ["CRANE intermediate"]), "reading": "as printed"}
