"""What notebook 11 shows of a run on a model of one's own: its cost, and what leaves it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from IPython.display import Markdown
from pandas.io.formats.style import Styler

from crane_core.selection import NeuronSet
from crane_lab.show import figures
from crane_lab.show.foreign import as_code, prose


def families(names: Iterable[str]) -> Markdown:
    """The families of models that can be run."""
    return prose(f"Families: {', '.join(map(as_code, sorted(names)))}.")


def hours(table: pd.DataFrame, model: str, memory: Mapping[str, float]) -> Styler:
    """Hours by device; `table` as `plan.by_device` makes it, `memory` as `Plan.memory` does."""
    return figures.table(
        table,
        f"Hours for Tables 1 to 4 of {model} (needs {sum(memory.values()):.0f} GiB besides vLLM), "
        "by device",
        dict.fromkeys(("relevance", "benchmarks", "open questions", "in all"), "{:.1f}"),
    )


def exported(
    neurons: NeuronSet,
    back: Sequence[NeuronSet],
    differences: Sequence[float],
    first: int = 5,
) -> Markdown:
    """Whether a set came `back` from other formats, and what its checkpoint does.

    `differences` are two numbers: the largest of any logit between the checkpoint, loaded by other
    code, and the masked model, and between it and the untouched one. The `first` neurons are named.
    """
    from_masked, from_untouched = differences
    return prose(
        f"{len(neurons)} neurons, the first {[list(pair) for pair in list(neurons)[:first]]} "
        "(layer, neuron). Through JSON and LAPE's format and back: "
        f"{'equal' if all(found == neurons for found in back) else 'not equal'}. The checkpoint, "
        f"loaded by transformers alone, differs from the masked model by {from_masked:.1e} in any "
        f"logit and from the untouched one by {from_untouched:.2f}."
    )


def savings(found: Mapping[str, float], device: str) -> Styler:
    """Setting -> hours in all on a device, as a table."""
    frame = pd.DataFrame({"setting": found.keys(), "hours": found.values()})
    return figures.table(frame, f"Hours on the {device}", {"hours": "{:.1f}"})
