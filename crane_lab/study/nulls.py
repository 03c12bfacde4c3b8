"""The null that a set of neurons is held against: random masks of its own size in every layer.

An interval over items or windows says how sure an effect of *this* mask is. Whether the mask is
more than one of its kind takes other masks of the kind: as many neurons in every layer, drawn at
random (§4.2). What they do depends on the counts alone, so sets with one profile share a null.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from crane_core.baselines import random_matched
from crane_core.interventions import Intervention
from crane_core.neurons import NeuronSet
from crane_lab.engines.multiple_choice import accuracies
from crane_lab.pipeline import Pipeline
from crane_lab.stages import answering, losses, scoring
from crane_lab.stages.outcomes import Row
from crane_lab.store import source_digest, write_table
from crane_lab.store.files import write_text
from crane_lab.store.machine import made_with

#: Seeds of null masks start here, so that none of them is a table's own random row.
FIRST_SEED = 1000
#: Masks that are measured and stored together.
PIECE = 10
#: What a null is of: a mask's mean change of held-out loss by language, accuracy by task, or mean
#: grade of open answers by set of questions.
KINDS = ("losses", "tasks", "grades")


def asked_in(languages: Iterable[str]) -> dict[str, str]:
    """The set of open questions that stands for each language."""
    return {x: f"open_{x}" for x in languages}


def profile(neurons: NeuronSet) -> str:
    """How many neurons a set has in every layer, site by site: "intermediate 32 33 29 27"."""
    return "; ".join(
        f"{site} {' '.join(map(str, neurons.counts(site).tolist()))}"
        for site in sorted(neurons.sites)
        if neurons.counts(site).any()
    )


@dataclass(frozen=True)
class Nulls:
    """Nulls by profile: those that are shipped with the book, and others as they are asked for.

    `shipped`: kind -> table of `profile`, `seed` and a column per language or task; `n`: kind ->
    how many masks are measured for a profile that is not among them.
    """

    pipeline: Pipeline
    n: Mapping[str, int]
    shipped: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @classmethod
    def of(cls, pipeline: Pipeline, folder: str | Path, n: int) -> Nulls:
        """The nulls in a folder as far as they were made with this run's model and texts.

        `n` masks are measured of every set that has none there; of grades that cost money, none.
        """
        wanted = dict.fromkeys(KINDS, n)
        if pipeline.settings.judge == "llm":
            wanted["grades"] = 0
        shipped = {}
        for kind in KINDS:
            file = _file(pipeline, kind, folder)
            if file.is_file():
                made = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
                if made["inputs"] == null_inputs(pipeline, kind):
                    shipped[kind] = pd.read_csv(file)
        return cls(pipeline, wanted, shipped)

    def table(self, kind: str, neurons: NeuronSet) -> pd.DataFrame:
        """What random masks with a set's profile do, a row each; empty for a set without neurons.

        Mean changes of loss in nats per token by language, or accuracies by task.
        """
        found = self.shipped.get(kind)
        if found is not None:
            own = found[found["profile"] == profile(neurons)]
            if len(own):
                return own.drop(columns="profile").reset_index(drop=True)
        return random_masks(self.pipeline, kind, neurons, self.n.get(kind, 0))

    def of_rows(self, kind: str, rows: Iterable[Row]) -> dict[tuple[str, str], pd.DataFrame]:
        """The nulls of a table's rows by method and language, of those that have one."""
        found = {
            (row.method, row.language): self.table(kind, row.neurons)
            for row in rows
            if row.seed is None and row.n_neurons
        }
        return {key: masks for key, masks in found.items() if len(masks)}


def pieces(seeds: range) -> list[range]:
    """Masks that are measured and stored together, `PIECE` at a time."""
    return [seeds[start : start + PIECE] for start in range(0, len(seeds), PIECE)]


def random_masks(
    pipeline: Pipeline, kind: str, neurons: NeuronSet, n: int, first: int = FIRST_SEED
) -> pd.DataFrame:
    """`n` random masks with a set's profile, measured anew; rows and columns of `Nulls.table`."""
    seeds = range(first, first + n) if len(neurons) else range(0)
    of, module = MEASURES[kind]

    def piece(own: Sequence[int]) -> pd.DataFrame:
        key = {
            "profile": profile(neurons),
            "seeds": list(own),
            "libraries": pipeline.loaded.key["libraries"],
            **null_inputs(pipeline, kind),
            "code": source_digest(__name__, module),
        }
        return pipeline.store.table(f"null_{kind}", key, partial(compute, own))

    def compute(own: Sequence[int]) -> pd.DataFrame:
        rows = []
        for seed in own:
            mask = pipeline.masking(random_matched(neurons, seed), "zero")
            rows.append({"seed": seed, **of(pipeline, mask)})
        return pd.DataFrame(rows)

    found = pipeline.store.together(partial(piece, own) for own in pieces(seeds))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame({"seed": []})


def _losses(pipeline: Pipeline, mask: Intervention) -> dict[str, float]:
    before = pipeline.losses()
    after = losses.held_out_losses(
        pipeline.model, pipeline.perplexity_windows, mask, lambda text: None
    )
    return {x: float((own - before[x]).double().mean()) for x, own in after.items()}


def _tasks(pipeline: Pipeline, mask: Intervention) -> dict[str, float]:
    items = scoring.items(pipeline.model, pipeline.prepared, mask, lambda text: None)
    return {str(task): float(value) for task, value in accuracies(items)["accuracy"].items()}


def _grades(pipeline: Pipeline, mask: Intervention) -> dict[str, float]:
    graded = pipeline.graded(mask)
    return {str(x): float(score) for x, score in graded.groupby("task")["score"].mean().items()}


#: kind -> how one mask is measured, and the module that does it.
MEASURES: dict[str, tuple[Callable[[Pipeline, Intervention], dict[str, float]], str]] = {
    "losses": (_losses, losses.__name__),
    "tasks": (_tasks, scoring.__name__),
    "grades": (_grades, answering.__name__),
}


def null_inputs(pipeline: Pipeline, kind: str) -> dict[str, Any]:
    """What a null depends on beside its profile: the model, and the texts or the tasks."""
    s = pipeline.settings
    # Other releases of the libraries move no random mask by as much as the next one differs.
    model = pipeline.loaded.lasting_key
    if kind == "grades":
        judge = pipeline.judge.fingerprint()
        return {**pipeline.said_with, "model": model, "judge": judge}
    if kind == "tasks":
        return {
            "model": model,
            "tasks": pipeline.task_fingerprint,
            "limit": s.task_limit,
            "num_fewshot": s.num_fewshot,
        }
    return {
        "model": model,
        "corpus": pipeline.perplexity_corpus.fingerprint(s.languages),
        "n": s.n_perplexity,
        "window": s.window,
        "seed": s.seed,
        "cut": pipeline.windows_cut,
    }


def ship_nulls(
    pipeline: Pipeline, kind: str, sets: Iterable[NeuronSet], n: int, folder: str | Path
) -> None:
    """Bring the nulls of some sets in `null_<kind>.csv` and `.json` to at least `n` masks each.

    Masks that the folder has already, of the same model and texts, are kept and not measured again;
    so are those of other profiles.
    """
    by_profile = {profile(neurons): neurons for neurons in sets if len(neurons)}
    shipped = Nulls.of(pipeline, folder, 0).shipped.get(kind)
    had = {} if shipped is None else dict(list(shipped.groupby("profile", sort=False)))
    tables = {**had}
    for name, neurons in by_profile.items():
        have = len(had.get(name, ()))
        if n > have:
            more = random_masks(pipeline, kind, neurons, n - have, FIRST_SEED + have)
            more.insert(0, "profile", name)
            tables[name] = pd.concat([had[name], more]) if have else more
    table = pd.concat(tables.values(), ignore_index=True)
    file = _file(pipeline, kind, folder)
    write_table(table.round(6), file)
    record = file.with_suffix(".json")
    made = {
        "inputs": null_inputs(pipeline, kind),
        "masks": {str(name): len(own) for name, own in table.groupby("profile", sort=False)},
        "first_seed": FIRST_SEED,
        **made_with(),
    }
    if had:  # what the masks before were made with
        before = json.loads(record.read_text(encoding="utf-8"))
        one = {name: before[name] for name in ("masks", "machine", "versions")}
        made["before"] = [*before.get("before", []), one]
    write_text(record, json.dumps(made, indent=1, sort_keys=True) + "\n")


def _file(pipeline: Pipeline, kind: str, folder: str | Path) -> Path:
    return Path(folder) / f"null_{kind}{'_chat' if pipeline.settings.chat else ''}.csv"
