"""What one read-out says of another: held-out loss, accuracy on the tasks, grades of open answers.

Masks of growing size are put through all three, so that a change of loss can be read as a change of
accuracy, and the other way round.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from crane_core import metrics
from crane_core.interventions import UNTOUCHED
from crane_core.neurons import NeuronSet
from crane_lab.engines.multiple_choice import accuracies
from crane_lab.pipeline import Pipeline
from crane_lab.store.files import canonical, digest_of
from crane_lab.store.grown import is_made, read_grown, write_made
from crane_lab.study.nulls import null_inputs

FILE = "necessity_calibration.csv"
_TEXTS = ("order", "mask_language", "language")
#: What a mask is called: order of neurons, masked language, seed (-1: none).
Name = tuple[str, str, int]
#: The same, and how many of its first neurons.
Masks = Mapping[tuple[str, str, int, int], NeuronSet]


def kinds_of(found: pd.DataFrame) -> list[str]:
    """The kinds of tasks that a table of `readouts` has columns of."""
    return [
        c.removesuffix("_before")
        for c in found.columns
        if c.endswith("_before") and c != "grade_before"
    ]


def masks_of(
    orders: Mapping[Name, Tensor],
    wanted: Sequence[str],
    budgets: Sequence[int],
    shape: Mapping[str, tuple[int, int]],
) -> dict[tuple[str, str, int, int], NeuronSet]:
    """The first neurons of some orders: (order, language, seed, budget) -> set.

    Of an order that was drawn several times, the first drawing alone.
    """
    first: dict[str, int] = {}
    for name, _, seed in orders:
        first.setdefault(name, seed)
    return {
        (name, x, seed, n): NeuronSet.from_flat(order[:n], shape)
        for (name, x, seed), order in orders.items()
        for n in budgets
        if name in wanted and seed == first[name] and n <= len(order)
    }


def kept_readouts(
    pipeline: Pipeline,
    masks: Masks,
    graded: Collection[int],
    folder: str | Path,
    recompute: bool = False,
) -> pd.DataFrame:
    """`readouts` as a folder has them, if they are of this model, these texts, tasks and masks.

    Else they are measured, and with `recompute` they are measured and saved there.
    """
    file, inputs = Path(folder) / FILE, _inputs(pipeline, masks, graded)
    if recompute:
        write_made(readouts(pipeline, masks, graded).round(6), file, inputs)
    elif not is_made(file, inputs):
        return readouts(pipeline, masks, graded).round(6)
    return read_grown(file, _TEXTS)


def _inputs(pipeline: Pipeline, masks: Masks, graded: Collection[int]) -> dict[str, Any]:
    kinds = ["losses", "tasks", *(["grades"] if graded else [])]
    own = [[*name, neurons.digest()] for name, neurons in masks.items()]
    return {
        **{kind: null_inputs(pipeline, kind) for kind in kinds},
        "masks": digest_of(canonical(own)),
        "graded": sorted(graded),
        "f1_others": pipeline.settings.f1_others,
    }


def readouts(pipeline: Pipeline, masks: Masks, graded: Collection[int] = ()) -> pd.DataFrame:
    """Every mask by every read-out, one row per mask and language.

    `order`, `mask_language`, `seed`, `n_neurons`, `language`; `added_loss` (nats per token);
    `<kind>`, accuracy on the language's task of each kind, and `<kind>_before` without a mask;
    `langspec_f1` of the paper-shaped table; and for masks of a size that is to be `graded`, `grade`
    and `grade_before` of the language's open answers (else NaN). `masks` as `masks_of` has them.
    """
    s, tables = pipeline.settings, pipeline.tables
    if s.judge == "llm":  # asked for in its own notebook, which says what it costs
        graded = ()
    kinds = [kind for kind in tables if kind != pipeline.main_table] or [pipeline.main_table]
    start = pipeline.losses()
    before = accuracies(pipeline.items())["accuracy"]
    none = dict.fromkeys(s.languages, float("nan"))
    original = _grades(pipeline, None) if any(n in graded for *_, n in masks) else none
    main = {x: float(before[task]) for x, task in pipeline.main_tasks.items()}
    rows = []
    for (order, target, seed, n), neurons in masks.items():
        mask = pipeline.masking(neurons, "zero")
        losses, after = pipeline.losses(mask), accuracies(pipeline.items(mask))["accuracy"]
        said = _grades(pipeline, neurons) if n in graded else none
        masked = {x: float(after[pipeline.main_tasks[x]]) for x in main}
        f1 = metrics.langspec_f1(main, masked, target, how=s.f1_others).f1
        for x in s.languages:
            row = {
                "order": order,
                "mask_language": target,
                "seed": seed,
                "n_neurons": len(neurons),
                "language": x,
                "added_loss": float((losses[x] - start[x]).double().mean()),
                "langspec_f1": f1,
            }
            for kind in kinds:
                task = tables[kind][x]
                row |= {kind: float(after[task]), f"{kind}_before": float(before[task])}
            rows.append({**row, "grade": said[x], "grade_before": original[x]})
    return pd.DataFrame(rows)


def _grades(pipeline: Pipeline, neurons: NeuronSet | None) -> dict[str, float]:
    mask = UNTOUCHED if neurons is None else pipeline.masking(neurons, "zero")
    means = pipeline.graded(mask).groupby("language")["score"].mean()
    return {str(x): float(value) for x, value in means.items()}
