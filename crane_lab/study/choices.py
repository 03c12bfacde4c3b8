"""Which choices matter: every reading of the paper varied one at a time (`book/choices.md`).

`sweep` selects neurons under each `Variant`, masks them and scores them all on the same items and
the same held-out text; `compare_statistics` does the same for other statistics than kurtosis,
`random_floor` for random masks, and `halves.split_half_reliability` asks how far two halves of the
texts agree. Everything is kept in the store, so an interrupted sweep goes on where it stopped.
`run` does it all and `write` ships it, with what it was made with; notebook 08 reads the shipped
files.
"""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from crane_core import baselines, concentration
from crane_core.accumulators import Reader
from crane_core.concentration import STATISTICS, Collected, compute
from crane_core.interventions import zero
from crane_core.selection import NeuronSet, SelectionWarning, select
from crane_lab.pipeline import Pipeline, main_table
from crane_lab.settings import MASK_VALUES, OPENINGS, Settings
from crane_lab.stages.comparisons import loss_changes
from crane_lab.stages.keys import weights_of
from crane_lab.stages.outcomes import Evaluated, Row
from crane_lab.store import Store, source_digest, write_table
from crane_lab.store.files import write_text
from crane_lab.study.halves import compared, rank_correlation, split_half_reliability

SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
#: choice -> what it is called on a page.
LABELS = {
    "site": "site",
    "score": "stored score",
    "reduction": "sum or mean over tokens",
    "window": "window length",
    "window_opening": "how windows open",
    "n_samples": "number of windows",
    "seed": "windows drawn (seed)",
    "objective": "objective",
    "normalisation": "normalisation",
    "rule": "selection rule",
    "threshold": "threshold",
    "budget": "budget",
    "mask value": "mask value",
}
#: The tables that `run` makes, `<name>.csv` in the folder they are shipped in.
TABLE_NAMES = (
    "choices",
    "choices_random",
    "choices_statistics",
    "choices_agreement",
    "choices_reliability",
)


@dataclass(frozen=True)
class Variant:
    """One reading of one choice.

    Attributes
    ----------
    choice, value : what is varied and what it is here, as words.
    changes : the fields of `Settings` that differ from the default.
    site : where neurons are scored.
    mask_value : what a masked neuron puts out, one of `MASK_VALUES`.
    matched : `top` with as many neurons as the default set has, instead of `changes`' budget.
    reference : whether the other values of this choice are compared with this one.
    """

    choice: str
    value: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    site: str = "intermediate"
    mask_value: str = "zero"
    matched: bool = False
    reference: bool = False

    @property
    def name(self) -> str:
        """Choice and value, which together name a variant."""
        return f"{self.choice}: {self.value}"


def variants(settings: Settings, n_neurons: int) -> list[Variant]:
    """Every reading in the design's list, in the order of Algorithm 1.

    Each choice has one reference, which is the default wherever the default has a say. It has none
    in two places: weight-gradient sums exist for projections only, so `score` varies there, and
    `contrast` cannot fill a large budget, so `budget` varies under `top`, from as many neurons as
    the default selects.

    Parameters
    ----------
    settings : the default.
    n_neurons : intermediate neurons of the model, which shares are taken of.
    """

    def numbers(choice: str, values: Sequence[float], default: float) -> list[Variant]:
        every = sorted({*values, default})
        return [
            Variant(choice, f"{v:,g}", {choice: v}, reference=v == default)
            for v in every  # names of choices are names of settings
        ]

    def names(choice: str, values: Sequence[str], default: str) -> list[Variant]:
        order = [default, *(v for v in values if v != default)]
        return [Variant(choice, v, {choice: v}, reference=v == default) for v in order]

    projections = "projections"
    found = [
        Variant("site", "intermediate", reference=True),
        Variant("site", projections, site=projections),
        Variant("score", "activation x gradient", site=projections, reference=True),
        Variant("score", "weight-gradient sums", {"score": "weight_gradient_sum"}, projections),
        *names("reduction", ("sum", "mean"), settings.reduction),
        *numbers("window", (16, 32, 64, 128, 192), settings.window),
        *names("window_opening", OPENINGS, settings.window_opening),
        *numbers("n_samples", (30, 100, 300, 1000, 3000), settings.n_samples),
        *numbers("seed", (0, 1, 2, 3, 4), settings.seed),
        *names("objective", ("next_token", "next_token_logprob", "last_max"), settings.objective),
        *names("normalisation", ("zscore", "ratio", "robust", "global"), settings.normalisation),
        *names("rule", ("contrast", "threshold"), settings.rule),
        Variant("rule", "top", {"rule": "top"}, matched=True),
        *numbers("threshold", (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0), settings.threshold),
        Variant("budget", "as default", {"rule": "top"}, matched=True, reference=True),
        *[
            Variant("budget", f"{s:.1%}", {"rule": "top", "budget": round(s * n_neurons)})
            for s in SHARES
        ],
        *[Variant("mask value", v, mask_value=v, reference=v == "zero") for v in MASK_VALUES],
    ]
    if settings.rule in ("top", "relative"):  # then every set has a budget already
        raise ValueError("the sweep goes around a default with rule 'contrast' or 'threshold'")
    return found


def probe(settings: Settings, store: Store | None = None) -> Pipeline:
    """A pipeline that evaluates the tasks of Table 1 only: its LangSpec-F1 needs no more."""
    tables = (main_table(settings.benchmarks),)
    return Pipeline(dataclasses.replace(settings, task_tables=tables), store)


# --- the sweep ------------------------------------------------------------------------------------


def sets_under(default: Pipeline, variant: Variant) -> dict[str, NeuronSet]:
    """The set of every language under a variant; empty ones give no warning here."""
    changed = default.changed(**variant.changes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SelectionWarning)
        if not variant.matched:
            return changed.neuron_sets(variant.site)
        budgets = {x: len(neurons) for x, neurons in default.neuron_sets().items()}
        return changed.neuron_sets(variant.site, "top", budgets)


def as_intermediate(neurons: NeuronSet) -> NeuronSet:
    """A set of projections as the intermediate neurons it switches off.

    Gate or up output i at zero is intermediate neuron i at zero. Outputs of `down_proj` have no
    counterpart and are left out.
    """
    masks = neurons.masks
    mask = masks["intermediate"]
    for site in ("gate", "up"):
        mask = mask | masks.get(site, torch.zeros_like(mask))
    return NeuronSet({"intermediate": mask}, neurons.shape)


def _outcome_rows(evaluated: Evaluated, tasks: Mapping[str, str], n_boot: int) -> pd.DataFrame:
    """Per method and language: LangSpec-F1 with interval, accuracies, losses and selectivity.

    `<x>_loss` is the rise of the held-out loss in nats per token, `selectivity` that of the masked
    language less that of the other language that comes closest, with 95 % intervals.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty set is a result here
        table = evaluated.table(tasks, n_boot).iloc[1:]
    x = list(evaluated.languages)
    losses = loss_changes(evaluated.perplexities(), x)
    losses = losses.rename(
        columns={
            **{name: f"{name}_loss" for name in x},
            **{f"{name}_se": f"{name}_loss_se" for name in x},
            "difference": "selectivity",
            "difference_low": "selectivity_low",
            "difference_high": "selectivity_high",
        }
    )
    keys = ["method", "mask_language"]
    wanted = [*keys, *(f"{n}_loss" for n in x), *(f"{n}_loss_se" for n in x)]
    wanted += ["selectivity", "selectivity_low", "selectivity_high", "verdict"]
    first = [*keys, "n_neurons", "langspec_f1", "langspec_f1_low", "langspec_f1_high", *x]
    return table[first].merge(losses[wanted], on=keys, validate="one_to_one")


def sweep(
    default: Pipeline, chosen: Sequence[Variant] | None = None, n_boot: int = 2000
) -> pd.DataFrame:
    """Select, mask and score under every variant (`variants` by default).

    Whatever the variant, masks are scored on the default's items and held-out windows.

    Returns
    -------
    One row per variant and language: `choice`, `value`, `reference`, `mask_language`, `n_neurons`,
    `share` of the intermediate neurons, `digest` of the set, `jaccard` with the default's set and
    `jaccard_chance`, and the columns of LangSpec-F1 and losses (`_outcome_rows`). Projections are
    compared as the intermediate neurons that they switch off.
    """
    total = math.prod(default.shape["intermediate"])
    chosen = variants(default.settings, total) if chosen is None else list(chosen)
    own = default.neuron_sets()
    rows, facts = [], []
    for variant in tqdm(chosen, desc="selecting", unit="variant"):
        for x, neurons in sets_under(default, variant).items():
            rows.append(Row(variant.name, x, default.masking(neurons, variant.mask_value)))
            jaccard, chance = compared(as_intermediate(neurons), own[x])
            facts.append(
                {
                    "choice": variant.choice,
                    "value": variant.value,
                    "reference": variant.reference,
                    "method": variant.name,
                    "mask_language": x,
                    "share": len(neurons) / total,
                    "digest": neurons.digest(),
                    "jaccard": jaccard,
                    "jaccard_chance": chance,
                }
            )
    found = _outcome_rows(default.evaluated(rows), default.main_tasks, n_boot)
    table = pd.DataFrame(facts).merge(found, on=["method", "mask_language"], validate="one_to_one")
    return table.drop(columns="method")


def random_floor(default: Pipeline, n_boot: int = 200) -> pd.DataFrame:
    """What random masks score, one row per mask and language taken as its target.

    `kind`: "default" and "projections" have the counts per layer of the default's set and of that
    of projections; "share" has that share of every layer, and one mask serves all languages.
    """
    layers, width = default.shape["intermediate"]
    seeds, languages = default.settings.random_seeds, default.settings.languages
    rows, facts = [], []

    def add(kind: str, share: float, x: str, neurons: NeuronSet, seed: int) -> None:
        rows.append(Row(f"{kind} {share} {seed}", x, zero(neurons)))
        facts.append(
            {"method": rows[-1].method, "mask_language": x, "kind": kind, "share": share,
             "seed": seed}
        )  # fmt: skip

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SelectionWarning)
        for kind, site in (("default", "intermediate"), ("projections", "projections")):
            for x, neurons in default.neuron_sets(site).items():
                for seed in seeds:
                    drawn = baselines.random_matched(neurons, seed)
                    add(kind, len(neurons) / (layers * width), x, drawn, seed)
    for share in SHARES:
        n = round(share * layers * width)
        counts = torch.tensor([n // layers + (layer < n % layers) for layer in range(layers)])
        even = torch.arange(width).expand(layers, width) < counts[:, None]
        for seed in seeds:
            drawn = baselines.random_matched(NeuronSet({"intermediate": even}, default.shape), seed)
            for x in languages:
                add("share", share, x, drawn, seed)
    found = _outcome_rows(default.evaluated(rows), default.main_tasks, n_boot)
    table = pd.DataFrame(facts).merge(found, on=["method", "mask_language"], validate="one_to_one")
    return table.drop(columns="method")


# --- other statistics than kurtosis ---------------------------------------------------------------


def statistic_values(default: Pipeline) -> dict[str, dict[str, dict[str, Tensor]]]:
    """Every statistic of every language: `{"all"|"even"|"odd": {language: {name: (layers, n)}}}`.

    All of them in one pass over the texts: over all windows, and over every other one.
    """
    s = default.settings
    size = default.shape["intermediate"]

    def reader(start: int = 0, step: int = 1) -> Reader:
        return Reader("intermediate", lambda: Collected(size, s.n_samples, s.seed), start, step)

    readers = {"all": reader(), "even": reader(0, 2), "odd": reader(1, 2)}

    def of(language: str) -> dict[str, dict[str, Tensor]]:
        collected = default.collect(language, readers, "statistics").items()
        return {part: {n: compute(n, own) for n in STATISTICS} for part, own in collected}

    every = default.by_language(of)
    return {part: {x: every[x][part] for x in s.languages} for part in readers}


def agreement(default: Pipeline) -> pd.DataFrame:
    """Rank correlations of the statistics, within a layer, averaged over layers.

    Returns rows with `kind`, `a`, `b`, `language`, `rho`: "between" two statistics of the same
    texts, oriented so that large means selected; "halves": one statistic on every other window
    against itself on the rest; "languages": even windows of one language against odd of another
    (`language` then reads "en-zh").
    """
    values, names = statistic_values(default), list(STATISTICS)
    sign = {name: STATISTICS[name].sign for name in names}
    rows = []

    def add(kind: str, a: str, b: str, language: str, left: Tensor, right: Tensor) -> None:
        rho = float(rank_correlation(sign[a] * left, sign[b] * right).mean())
        rows.append({"kind": kind, "a": a, "b": b, "language": language, "rho": rho})

    for x, own in values["all"].items():
        for a in names:
            for b in names:
                add("between", a, b, x, own[a], own[b])
    for x in default.settings.languages:
        for y in default.settings.languages:
            for a in names:
                kind, language = ("halves", x) if x == y else ("languages", f"{x}-{y}")
                add(kind, a, a, language, values["even"][x][a], values["odd"][y][a])
    return pd.DataFrame(rows)


def statistic_sets(
    values: Mapping[str, Mapping[str, Tensor]],
    name: str,
    contrast: bool,
    counts: Mapping[str, int],
    shape: Any,
    how: str = "zscore",
) -> dict[str, NeuronSet]:
    """The `counts[language]` neurons that a statistic puts first, for every language.

    Parameters
    ----------
    values : language -> statistic -> (layers, neurons).
    name, contrast, how : as for `concentration.scores`.
    """
    own = {x: found[name] for x, found in values.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SelectionWarning)
        return {
            x: select(
                {x: concentration.scores(own, name, x, contrast, how)},
                x,
                "top",
                budget=counts[x],
                shape=shape,
            )
            for x in own
        }


def compare_statistics(default: Pipeline, n_boot: int = 2000) -> pd.DataFrame:
    """Every statistic at the budget of CRANE's default sets, alone and as a contrast.

    Returns one row per statistic, `how` ("alone", "contrast") and language, with the columns of
    `sweep` and `repeat`, the Jaccard of the sets from every other window and from the rest, beside
    `repeat_chance`.
    """
    crane, values = default.neuron_sets(), statistic_values(default)
    counts, how = {x: len(n) for x, n in crane.items()}, default.settings.normalisation
    rows, facts = [], []
    for name in STATISTICS:
        for contrast in (False, True):
            sets = {
                part: statistic_sets(found, name, contrast, counts, default.shape, how)
                for part, found in values.items()
            }
            for x, neurons in sets["all"].items():
                label = "contrast" if contrast else "alone"
                rows.append(Row(f"{name} {label}", x, zero(neurons)))
                jaccard, chance = compared(neurons, crane[x])
                repeat, repeat_chance = compared(sets["even"][x], sets["odd"][x])
                facts.append(
                    {
                        "method": rows[-1].method,
                        "statistic": name,
                        "how": label,
                        "mask_language": x,
                        "jaccard": jaccard,
                        "jaccard_chance": chance,
                        "repeat": repeat,
                        "repeat_chance": repeat_chance,
                    }
                )
    found = _outcome_rows(default.evaluated(rows), default.main_tasks, n_boot)
    table = pd.DataFrame(facts).merge(found, on=["method", "mask_language"], validate="one_to_one")
    return table.drop(columns="method")


# --- beside random masks --------------------------------------------------------------------------


def with_floor(table: pd.DataFrame, random: pd.DataFrame) -> pd.DataFrame:
    """The rows of `sweep` (or `compare_statistics`) beside what random masks of their size score.

    Adds `langspec_f1_random` and `selectivity_random`, means over random masks of the same
    language as target: those with the set's own size, interpolated between the shares in `random`
    (nothing masked scores 0), and for projections those of projections. NaN where no random masks
    were run: for weight-gradient sums, for mask values other than zero, and for sets beyond the
    largest share. Adds `langspec_f1_above`, the difference.
    """
    floor = random.groupby(["kind", "mask_language", "share"])[["langspec_f1", "selectivity"]]
    mean = floor.mean()
    even = random[random["kind"] == "share"]
    size = float((even["n_neurons"] / even["share"]).median())
    found = table.copy()
    for measure in ("langspec_f1", "selectivity"):
        values = []
        for row in table.to_dict("records"):
            x = row["mask_language"]
            kind = (row.get("choice"), row.get("value"))
            if kind in (("site", "projections"), ("score", "activation x gradient")):
                values.append(float(mean[measure]["projections", x].iloc[0]))
            elif kind[0] == "score" or (kind[0] == "mask value" and kind[1] != "zero"):
                values.append(np.nan)
            else:
                known = mean[measure]["share", x]
                shares = [0.0, *known.index]
                share = row["n_neurons"] / size
                values.append(
                    float(np.interp(share, shares, [0.0, *known]))
                    if share <= shares[-1] + 1e-3  # shares are rounded to whole neurons
                    else np.nan
                )
        found[f"{measure}_random"] = values
    found["langspec_f1_above"] = found["langspec_f1"] - found["langspec_f1_random"]
    return found


# --- which choices matter -------------------------------------------------------------------------


def departures(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """How far each choice moves a measure away from its reference value.

    Parameters
    ----------
    table : as `sweep` returns it.
    measure : a column, such as "langspec_f1", "selectivity" or "jaccard".

    Returns
    -------
    One row per choice: `largest`, the largest absolute departure of a value from the choice's
    reference, and `typical`, the mean absolute departure, which does not grow with the number of
    values tried; both are averaged over the languages. `low`, `high`: the smallest and largest
    value of the measure over values and languages. Largest first.
    """
    rows = []
    for choice, own in table.groupby("choice", sort=False):
        largest, typical = [], []
        for _, group in own.groupby("mask_language", sort=False):
            start = group.loc[group["reference"], measure].iloc[0]
            away = (group.loc[~group["reference"], measure] - start).abs()
            largest.append(away.max())
            typical.append(away.mean())
        rows.append(
            {
                "choice": choice,
                "values": own["value"].nunique(),
                "largest": float(np.mean(largest)),
                "typical": float(np.mean(typical)),
                "low": float(own[measure].min()),
                "high": float(own[measure].max()),
            }
        )
    return pd.DataFrame(rows).sort_values("largest", ascending=False, ignore_index=True)


# --- shipping -------------------------------------------------------------------------------------


def run(
    settings: Settings, store: Store | None = None
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """All tables (`TABLE_NAMES`), and what they were made with.

    About a quarter of an hour on two cores for the testbed, from nothing; what is in the store is
    not computed again.
    """
    default = probe(settings, store)
    tables = {
        "choices": sweep(default),
        "choices_random": random_floor(default),
        "choices_statistics": compare_statistics(default),
        "choices_agreement": agreement(default),
        "choices_reliability": split_half_reliability(default),
    }
    return tables, provenance(default)


def provenance_of_inputs(default: Pipeline) -> dict[str, Any]:
    """What the tables depend on that is no code: the model, the texts and the tasks."""
    languages = default.settings.languages
    return {
        "model": weights_of(default.model),
        "corpus": default.corpus.fingerprint(languages),
        "perplexity_corpus": default.perplexity_corpus.fingerprint(languages),
        "tasks": default.task_fingerprint,
    }


def differing_inputs(pipeline: Pipeline, made_with: Mapping[str, Any]) -> list[str]:
    """Which inputs of shipped tables are not those of a run: names of `provenance_of_inputs`."""
    now = provenance_of_inputs(pipeline)
    now["tasks"] = {n: digest for n, digest in now["tasks"].items() if n in made_with["tasks"]}
    return [name for name, value in now.items() if made_with[name] != value]


def provenance(default: Pipeline) -> dict[str, Any]:
    """What the tables were made with: inputs, settings, code, and the default sets."""
    s = default.settings
    return {
        **provenance_of_inputs(default),
        "settings": {
            k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(s).items()
        },
        "code": source_digest(__name__),
        "torch": torch.__version__,
        "default_sets": {
            x: [list(pair) for pair in neurons] for x, neurons in default.neuron_sets().items()
        },
    }  # fmt: skip


def write(
    tables: Mapping[str, pd.DataFrame], made_with: Mapping[str, Any], folder: str | Path
) -> None:
    """Write the tables as `<name>.csv` and what they were made with as `choices.json`."""
    for name, table in tables.items():
        write_table(table.round(6), Path(folder) / f"{name}.csv")
    text = json.dumps(made_with, ensure_ascii=False, sort_keys=True)
    write_text(Path(folder) / "choices.json", text + "\n")


def read(folder: str | Path) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """The tables and their origin, as `write` wrote them.

    Raises FileNotFoundError if a file is missing.
    """
    folder = Path(folder)
    tables = {
        name: pd.read_csv(folder / f"{name}.csv", dtype={"value": str} if name == "choices" else {})
        for name in TABLE_NAMES
    }
    return tables, json.loads((folder / "choices.json").read_text(encoding="utf-8"))


def default_sets(made_with: Mapping[str, Any], shape: Any) -> dict[str, NeuronSet]:
    """The default sets that shipped tables were compared with."""
    return {x: NeuronSet.from_pairs(p, shape) for x, p in made_with["default_sets"].items()}
