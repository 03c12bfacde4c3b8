"""What the pages of Tables 1 to 4 share: paper-shaped tables, Figure 4, random masks, verdicts.

Each function makes one thing to look at, a table, a figure with its alternative text or Markdown,
from tables of `Scored` and `comparisons`. `names` maps the run's languages to their names, in the
order of the columns; `unit` says what the scores are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from numpy.typing import NDArray
from pandas.io.formats.style import Styler

from crane_lab.show import figures
from crane_lab.show.alternative import in_short
from crane_lab.show.foreign import as_markdown, prose
from crane_lab.show.readouts import (
    GRADE,
    PERCENT,
    Unit,
    drops_of_rows,
    left_language,
    sentence,
    strip_in_words,
    summary,
)

Array = NDArray[np.float64]


class Printed(NamedTuple):
    """One of the paper's tables: of which model, by whom graded, and what is not printed."""

    model: str
    source: str
    note: str
    unit: str


#: The paper's tables, and the benchmarks of Tables 1 and 3.
PRINTED = {
    "1": Printed(
        "Llama-2-7B",
        "Llama-2-7B",
        ": MMLU (en), C-Eval (zh), Belebele (vi). No number of neurons, no interval and no LAPE at "
        "CRANE's budget is printed",
        "accuracy",
    ),
    "2": Printed("Llama-2-7B base", "Llama-2-7B, graded by GPT-4o", "", "grade"),
    "3": Printed("Llama-2-7B", "Llama-2-7B base and chat", ". There is no random row", "accuracy"),
    "4": Printed(
        "Llama-2-7B-Chat",
        "Llama-2-7B-Chat, graded by GPT-4o",
        ". There is no random row",
        "grade",
    ),
}
#: Where the scores behind a figure can be read.
SCORES = "the tables of this page and results/table*.csv"
BENCHMARKS = {"en": "MMLU (en)", "zh": "C-Eval (zh)", "vi": "Belebele (vi)"}


def bullets(*lines: str, fold: str = "") -> Markdown:
    """Sentences as a list; with a title, `fold`, one that opens when that is clicked."""
    return prose("\n".join(f"- {line}" for line in lines), fold)


def with_intervals(table: pd.DataFrame, languages: Iterable[str], places: int = 3) -> pd.DataFrame:
    """A results table as it is read: every score and LangSpec-F1 with its interval, as text."""
    frame = pd.DataFrame({"method": table["method"], "mask": table["mask_language"]})
    frame["n"] = table["n_neurons"].map("{:,}".format)
    for column in (*languages, "langspec_f1"):
        digits = 3 if column == "langspec_f1" else places
        ends = (table[f"{column}{end}"] for end in ("", "_low", "_high"))
        frame[column] = [
            # A break may come before the interval, not within it.
            f"{value:.{digits}f} [{low:.{digits}f},\u00a0{high:.{digits}f}]"
            for value, low, high in zip(*ends, strict=True)
        ]
    frame.loc[frame["method"] == "Org", ["n", "langspec_f1"]] = "–"
    return frame.rename(columns={"langspec_f1": "LangSpec-F1"})


def results_table(
    table: pd.DataFrame,
    names: Mapping[str, str],
    caption: str,
    n_seeds: int | None = None,
    unit: Unit = PERCENT,
) -> Styler:
    """A table of `Scored`, in the paper's shape and with its intervals.

    With the number of random masks a row, `n_seeds`, the caption says what the brackets are.
    """
    if n_seeds is not None:
        caption += (
            ". In brackets 95 % intervals from paired bootstrap over items; for random masks the "
            f"range over {n_seeds} seeds"
        )
    return figures.table(with_intervals(table, names, unit.places), caption)


def beside_nulls(
    found: pd.DataFrame, value: str = "langspec_f1", name: str = "LangSpec-F1"
) -> Styler:
    """What every set's `value` is among random masks of its kind.

    `found` : `comparisons.verdicts`, or `comparisons.loss_changes` with "difference".
    """
    key = f"{value}_" if f"{value}_null_masks" in found else ""
    own = found[(found["method"] != "Random") & (found["n_neurons"] > 0)]
    columns = {
        "method": "method",
        "mask_language": "mask",
        value: name,
        f"{key}null_mean": "null: mean",
        f"{key}null_high": "95 % point",
        f"{key}null_masks": "masks",
        f"{key}percentile": "percentile",
        f"{key}q": "p",
    }
    return figures.table(
        own[list(columns)].rename(columns=columns).reset_index(drop=True),
        f"{name} beside its null, random masks with as many neurons in each layer as the row's: "
        "their mean, their 95 % point, and how many they are; the row's percentile among them, and "
        "the p-value of so large a value, corrected over the rows (Benjamini and Hochberg)",
        dict.fromkeys((name, "null: mean", "95 % point", "p"), "{:.3f}")
        | {"masks": "{:.0f}", "percentile": "{:.0f}"},
    )


def grades_table(
    number: str,
    table: pd.DataFrame,
    names: Mapping[str, str],
    n_answers: int,
    judge: str,
    n_seeds: int,
) -> Styler:
    """Our Table 2 or 4: mean grades of `n_answers` answers per language, by the judge named."""
    chat = " by the chat model, neurons found on the base model," if number == "4" else ""
    return results_table(
        table,
        names,
        f"Table {number}, ours: mean grade (1 to 10, judge: {judge}) of {n_answers} answers per "
        f"language{chat} and LangSpec-F1",
        n_seeds,
        GRADE,
    )


def both_models_table(
    base: pd.DataFrame,
    chat: pd.DataFrame,
    names: Mapping[str, str],
    tasks: Mapping[str, str],
    n_seeds: int,
) -> Styler:
    """Our Table 3: scores of both models under the same masks, LangSpec-F1 of the chat model."""
    plain = with_intervals(chat, names)
    frame = plain[["method", "mask", "n"]].copy()
    for model, table in (("base", base), ("chat", chat)):
        for x in names:
            frame[f"{model} {x}"] = table[x].map("{:.3f}".format)
    frame["LangSpec-F1"] = plain["LangSpec-F1"]
    return figures.table(
        frame,
        f"Table 3, ours: accuracy on {', '.join(tasks[x] for x in names)} of base and chat model "
        "under the same masks, and LangSpec-F1 of the chat model with a 95 % interval (random "
        f"masks: range over {n_seeds} seeds). Intervals of the scores are in Figure 6 and in "
        "table3.csv",
    )


def printed_table(number: str, scores: pd.DataFrame) -> Styler:
    """One of the paper's tables as it is printed; `scores` as `audit.read_scores` reads it."""
    printed = PRINTED[number]
    frame = scores.rename(columns={"mask_language": "mask", "langspec_f1": "LangSpec-F1"})
    frame = frame.rename(columns=lambda name: name.replace("_", " "))
    return figures.table(
        frame,
        f"Table {number}, published ({printed.source}){printed.note}",
        dict.fromkeys(frame.columns[2:], "{:.4f}"),
    )


# --- Figure 4 and Figure 6 ----------------------------------------------------------------------


def _drops(
    table: pd.DataFrame,
    languages: Sequence[str],
    title: str,
    labels: Mapping[str, str] | None,
    unit: str,
    reach: float | None,
    places: int,
    where: str,
) -> HTML:
    return figures.show(
        figures.fig4_heatmap(table, languages, labels, unit, title, reach),
        alt=in_short(
            f"Heatmap of drops in {unit} under each mask, with bars of LangSpec-F1. {title}.",
            drops_of_rows(table, languages, places),
            where,
            by="LangSpec-F1",
        ),
    )


def drops_figure(
    table: pd.DataFrame,
    names: Mapping[str, str],
    title: str,
    tasks: Mapping[str, str] | None = None,
    unit: Unit = PERCENT,
    reach: float | None = None,
) -> HTML:
    """Figure 4 of one of our tables; `tasks` labels the columns, `reach` ends the colours."""
    return _drops(table, list(names), title, tasks, unit.score, reach, unit.places, SCORES)


def published_drops(number: str, scores: pd.DataFrame) -> HTML:
    """Figure 4 of one of the paper's tables."""
    printed = PRINTED[number]
    accuracy = printed.unit == "accuracy"
    return _drops(
        scores,
        list(BENCHMARKS),
        f"Published ({printed.model}), drawn from the paper's Table {number}",
        BENCHMARKS if accuracy else None,
        printed.unit,
        None,
        3 if accuracy else 2,
        f"the paper's Table {number}",
    )


def largest_change(tables: Iterable[pd.DataFrame], languages: Sequence[str]) -> float:
    """The largest change of any score in some tables: a common end for their colours."""
    scores = [table[list(languages)] for table in tables]
    return max(float((found - found.iloc[0]).abs().max().max()) for found in scores)


def _transfer(
    table: pd.DataFrame, languages: Sequence[str], labels: Mapping[str, str], title: str, where: str
) -> HTML:
    told = []
    for row in table.to_dict("records"):
        own = [x for x in languages if row["mask_language"] in (x, "")]
        scores = (f"{x} base {row[f'base_{x}']:.3f}, chat {row[f'chat_{x}']:.3f}" for x in own)
        name = " ".join(filter(None, (row["method"], row["mask_language"])))
        least = min((row[f"chat_{x}"] for x in own), default=np.nan)
        told.append((f"{name}: {', '.join(scores)}", least))
    return figures.show(
        figures.fig6_transfer(table, languages, labels, title=title, floor=0.25),
        alt=in_short(
            f"Accuracy in each target language under its masks, base and chat. {title}.",
            told,
            where,
            by="the chat model's accuracy",
        ),
    )


def transfer_figure(
    table: pd.DataFrame, names: Mapping[str, str], tasks: Mapping[str, str], title: str
) -> HTML:
    """Figure 6 of our Table 3, with its numbers as alternative text."""
    return _transfer(table, list(names), tasks, title, SCORES)


def published_transfer(scores: pd.DataFrame) -> HTML:
    """Figure 6 of the paper's Table 3."""
    title = f"Published ({PRINTED['3'].model}), drawn from the paper's Table 3"
    return _transfer(scores, list(BENCHMARKS), BENCHMARKS, title, "the paper's Table 3")


# --- against random masks, and what each mask did -----------------------------------------------


def null_and_marks(
    table: pd.DataFrame, seeds: pd.DataFrame, names: Mapping[str, str]
) -> tuple[dict[str, Array], dict[str, dict[str, float]]]:
    """LangSpec-F1 of random masks by row, and of the other methods, for `figures.f1_strip`.

    `table` and `seeds` as `Scored` makes them; a row is a masked language with CRANE's number of
    neurons, which the random masks share.
    """
    counts = table[table["method"] == "CRANE"].set_index("mask_language")["n_neurons"]
    label = {str(x): f"{names.get(str(x), str(x))}, n = {n:,}" for x, n in counts.items()}
    null: dict[str, Array] = {}
    for x, text in label.items():
        own = seeds[seeds["mask_language"] == x] if len(seeds) else seeds
        null[text] = own["langspec_f1"].to_numpy(float) if len(own) else np.array([])
    marks: dict[str, dict[str, float]] = {}
    for row in table.iloc[1:].to_dict("records"):
        if row["method"] != "Random":
            found = marks.setdefault(row["method"], {})
            found[label[row["mask_language"]]] = row["langspec_f1"]
    return null, marks


def random_strip(
    table: pd.DataFrame, seeds: pd.DataFrame, names: Mapping[str, str], title: str
) -> HTML:
    """LangSpec-F1 of every random mask as a dot, with the other methods' marks beside them."""
    null, marks = null_and_marks(table, seeds, names)
    return figures.show(
        figures.f1_strip(null, marks, title),
        alt=in_short(
            f"{title}: a row per masked language, random masks of CRANE's size as dots and other "
            "methods marked.",
            strip_in_words(null, marks),
            SCORES,
            by="CRANE's LangSpec-F1",
        ),
    )


def mask_table(verdicts: pd.DataFrame, names: Mapping[str, str], unit: Unit = PERCENT) -> Styler:
    """A coloured row for every row of `comparisons.verdicts` but those of random masks."""
    own = verdicts[(verdicts["method"] != "Random") & (verdicts["n_neurons"] > 0)]
    asked = {"larger": "clearly most", "smaller": "clearly less than another"}
    stands = {"open": "too few masks", "": "not measured"}
    rows = [
        {
            "mask": f"{row['method']}, {names.get(row['mask_language'], row['mask_language'])}",
            "drop": unit.signed(row["drop"]),
            "other": f"{unit.signed(row['other_drop'])} ({row['other']})",
            "difference": f"{unit.signed(row['difference'])} "
            f"[{unit.signed(row['difference_low'])}, {unit.signed(row['difference_high'])}]",
            "absolute": asked.get(row[f"absolute{by}"], "not clearly most"),
            "relative": asked.get(row[f"relative{by}"], "not clearly most"),
            "LangSpec-F1 and random masks": stands.get(found, found),
        }
        for row in own.to_dict("records")
        for found in [row["against_random"]]
        for by in ["" if found else "_items"]
    ]
    return figures.table(
        pd.DataFrame(rows),
        f"What each mask takes from its own language and from the other that it hits most, in "
        f"{unit.name}, whether its own loses most in absolute and in relative terms, and where its "
        "LangSpec-F1 lies among random masks",
    )


def mask_by_mask(
    verdicts: pd.DataFrame, names: Mapping[str, str], unit: Unit = PERCENT, fold: bool = True
) -> Markdown:
    """A sentence for every row of `comparisons.verdicts`, behind a click or open."""
    lines = [sentence(row, names, unit) for row in verdicts.to_dict("records")]
    return bullets(*lines, fold="Mask by mask, with intervals" if fold else "")


def by_method(verdicts: pd.DataFrame, intro: str = "") -> Markdown:
    """A sentence for every method but the random masks."""
    methods = [m for m in dict.fromkeys(verdicts["method"]) if m != "Random"]
    lines = "\n".join(f"- {summary(verdicts, method)}" for method in methods)
    return prose(f"{intro}\n\n{lines}" if intro else lines)


def readings_table(read: Mapping[str, pd.DataFrame], caption: str) -> Styler:
    """LangSpec-F1 read in several ways; `read`: source -> `comparisons.f1_readings`."""
    frame = _sources(read)
    return figures.table(frame, caption, dict.fromkeys(frame.columns[3:], "{:.3f}"))


def best_by_reading(read: Mapping[str, pd.DataFrame], names: Mapping[str, str]) -> Markdown:
    """Whether the best method of any language depends on the reading."""
    changed = []
    for (source, x), group in _sources(read).groupby(["source", "mask"], sort=False):
        own = group.set_index("method").drop(columns=["source", "mask"])
        if own.idxmax().nunique() > 1:
            changed.append(as_markdown(f"{names.get(str(x), str(x))} ({source})"))
    return prose(
        f"The best method changes for {', '.join(changed)}."
        if changed
        else "The best method is the same under all of them, for every language and source."
    )


def _sources(read: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    found = pd.concat([own.assign(source=source) for source, own in read.items()])
    readings = [name for name in found if name not in ("source", "mask", "method")]
    return found[["source", "mask", "method", *readings]].reset_index(drop=True)


# --- the language of answers --------------------------------------------------------------------


def spoken_panels(spoken: pd.DataFrame, names: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """`Judged.spoken` as one table per language of the question, for `figures.shares_heatmap`."""
    panels = {}
    for x, own in spoken.groupby("language", sort=False):
        labels = [
            f"{method} · {mask}" if mask else method
            for method, mask in zip(own["method"], own["mask_language"], strict=True)
        ]
        panels[f"asked in {names.get(str(x), str(x))}"] = own[[*names, "none"]].set_axis(labels)
    return panels


def spoken_figure(spoken: pd.DataFrame, names: Mapping[str, str]) -> HTML:
    """Which language answers come in, by mask and by language of the question."""
    return figures.show(
        figures.shares_heatmap(
            spoken_panels(spoken, names), "language of the answer (share of answers)"
        ),
        alt="Share of answers by their language, one panel for each language of the question. "
        + left_language(spoken, names),
    )
