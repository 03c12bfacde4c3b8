"""Tables, figures and sentences of notebook 17, Fallback.

`table` is that of `fallback.read_fallback`, `lens` that of `logit_lens.lens_table`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from crane_lab.show import figures
from crane_lab.show.alternative import in_short
from crane_lab.show.foreign import as_markdown, prose
from crane_lab.show.tables import p_value
from crane_lab.study.fallback import UNTOLD
from crane_lab.study.taught import RANDOM
from crane_lab.texts.names import full_names


def _steps(own: pd.DataFrame) -> pd.DataFrame:
    """Rows with what a step takes away, in words."""
    return own.assign(row=[f"+ {x}" if x else "nothing" for x in own["off"]])


def _wide(own: pd.DataFrame, value: str) -> pd.DataFrame:
    """A value by step (rows, in words) and language, mean over draws."""
    rows = _steps(own)
    wide = rows.pivot_table(index="step", columns="language", values=value, sort=False)
    names = rows.drop_duplicates("step").set_index("step")["row"]
    columns = [x for x in dict.fromkeys(rows["language"]) if x in wide]
    return wide.sort_index()[columns].rename(index=names.to_dict())


def _asked(own: pd.DataFrame) -> float:
    """How many questions are answered at every step."""
    return float(own.groupby(["method", "order", "step", "seed"])["answers"].sum().max())


def asked_in_words(table: pd.DataFrame, windows: int) -> Markdown:
    """How much was asked and read at each step, and beside how many random sets."""
    questions = int(_asked(table))
    draws = table.loc[table["seed"] >= 0].groupby("order", sort=False)["seed"].nunique()
    beside = ", ".join(f"{n} in order {as_markdown(str(order))}" for order, n in draws.items())
    without = [str(order) for order in table["order"].unique() if order not in draws.index]
    said = f"; beside order {as_markdown(', '.join(without))} there are none" if without else ""
    return prose(
        f"At each step {questions} questions are asked, and {windows} windows of held-out text "
        f"are read in every language. Random sets beside each method's: {beside or 'none'}{said}."
    )


def fallback_figure(table: pd.DataFrame, order: str) -> HTML:
    """Which language answers, step by step, under each method's sets and under random ones."""
    own = table[table["order"] == order]
    questions = _asked(own)
    panels = {
        str(method): _wide(part, "answers") / questions
        for method, part in own.groupby("method", sort=False)
    }
    told = []
    for method, shares in panels.items():
        last = shares.iloc[-1]
        told.append(f"{method}: at the end most in {last.idxmax()} ({last.max():.0%})")
    return figures.show(
        figures.shares_grid(
            panels, "language of the answer", "neurons set to zero, one language more each step"
        ),
        alt=f"Share of English questions answered in each language, order {order}. "
        + "; ".join(told),
    )


def first_answers_table(table: pd.DataFrame, order: str) -> Styler:
    """The answer to the first question at every step, under each method's sets."""
    own = table[(table["order"] == order) & (table["seed"] < 0)]
    firsts = own.drop_duplicates(["method", "step"])
    wide = firsts.pivot(index="step", columns="method", values="first")
    shown = wide[list(dict.fromkeys(firsts["method"]))].reset_index()
    return figures.table(
        shown.rename(columns={"step": "languages off"}),
        f"What the first question is answered with, order {order}",
    )


def fallback_loss_figure(table: pd.DataFrame, order: str) -> HTML:
    """What each language's loss has risen by, step by step."""
    own = table[(table["order"] == order) & (table["language"] != UNTOLD)]
    lines, told = {}, []
    for method, part in own.groupby("method", sort=False):
        wide = _wide(part, "loss")
        added = wide - wide.iloc[0]
        steps = np.arange(len(added))
        lines[str(method)] = {str(x): (steps, added[x].to_numpy(float)) for x in added.columns}
        last = added.iloc[-1]
        told.append(f"{method}: {last.min():+.2f} ({last.idxmin()}) to {last.max():+.2f}")
    return figures.show(
        figures.curves(lines, "languages deactivated", "loss added (nats per token)", columns=2),
        alt="Loss added to each language's text, by languages deactivated. At the end "
        + "; ".join(told),
    )


def fallback_in_words(table: pd.DataFrame) -> Markdown:
    """Which language answers most at the first step, after the first language, and at the end."""
    lines = []
    names = full_names(list(dict.fromkeys(table["language"])))
    for (method, order), own in table.groupby(["method", "order"], sort=False):
        wide = _wide(own, "answers")
        said = [
            f"{names[str(row.idxmax())]} ({row.max() / row.sum():.0%})"
            for row in (wide.iloc[0], wide.iloc[1], wide.iloc[-1])
        ]
        lines.append(
            f"- {as_markdown(str(method))}, order {order}: most answers are in {said[0]} with "
            f"nothing off, in {said[1]} after the first step, in {said[2]} at the end."
        )
    return prose("\n".join(lines))


def fallback_random_table(table: pd.DataFrame) -> Styler:
    """Methods beside random sets: answers in the questions' language left, and loss added."""
    rows = []
    asked = str(table["asked"].iloc[0])
    for method, own in table.groupby("method", sort=False):
        if str(method).startswith(RANDOM):
            continue
        for order, part in own.groupby("order", sort=False):
            beside = table[(table["method"] == f"{RANDOM} as {method}") & (table["order"] == order)]
            for step in (1, int(part["step"].max())):
                row = {"method": method, "order": order, "languages off": step}
                for name, of in (("", part), (", random", beside)):
                    here, first = of[of["step"] == step], of[of["step"] == 0]
                    told = here[here["language"] == asked]["answers"]
                    row[f"answers in {asked}{name}"] = told.mean() if len(told) else np.nan
                    added = here["loss"].mean() - first["loss"].mean() if len(here) else np.nan
                    row[f"loss added{name}"] = added
                rows.append(row)
    frame = pd.DataFrame(rows)
    formats = {
        column: "{:+.2f}" if column.startswith("loss") else "{:.1f}" for column in frame.columns[3:]
    }
    return figures.table(
        frame,
        "Answers in the questions' language, and loss added (nats per token, mean over languages)",
        formats,
    )


def lens_figure(lens: pd.DataFrame) -> HTML:
    """How likely a right answer's first token is by layer, median over questions."""
    names = {
        "own": "question's language",
        "pivot": "English",
        "other": "a third language",
        "mismatched": "English, another question's",
    }
    lines, told = {}, []
    for x, own in lens.groupby("language", sort=False):
        every = own.groupby("layer")[list(names)].median() / np.log(10)
        middle = every.loc[every.index >= len(every) // 2]
        layers = middle.index.to_numpy()
        lines[str(x)] = {name: (layers, middle[kind].to_numpy()) for kind, name in names.items()}
        ahead = middle.index[middle["pivot"] > middle["own"]].to_list()
        text = (
            f"{x}: English above its own in {len(ahead)} of {len(middle)} layers, at the end "
            f"{middle['pivot'].iloc[-1]:.1f} and {middle['own'].iloc[-1]:.1f}"
        )
        told.append((text, len(ahead)))
    label = "probability (decimal logarithm)"
    return figures.show(
        figures.curves(lines, "layer", label, columns=4),
        alt=in_short(
            f"A right answer's first token after each layer from the middle on, {label}, median "
            "over questions.",
            told,
            "logit_lens.csv",
            by="number of such layers",
        ),
    )


def lens_table_of(lens: pd.DataFrame, visible: float = -4.0) -> Styler:
    """English beside its controls before the last layer, by the question's language.

    Only where the likelier of the two compared has a probability of 10 to `visible` or more.
    """
    rows = []
    last = lens["layer"].max()
    for x, own in lens.groupby("language", sort=False):
        row: dict[str, object] = {"language": x, "questions": own["question"].nunique()}
        before = own[own["layer"] < last]
        for kind, name in (
            ("own", "the question's"),
            ("other", "a third language"),
            ("mismatched", "another question's English"),
        ):
            seen = before[before[["pivot", kind]].max(axis=1) >= visible * np.log(10)]
            ahead = (seen["pivot"] > seen[kind]).groupby(seen["question"]).mean()
            row[f"ahead of {name}"] = ahead.mean()
        end = own[own["layer"] == last]
        row["ahead of the question's, last layer"] = (end["pivot"] > end["own"]).mean()
        rows.append(row)
    frame = pd.DataFrame(rows)
    return figures.table(
        frame,
        "Share of layers before the last in which English's first token is likelier than another, "
        "mean over questions, of those layers in which one of both has a probability of a ten "
        "thousandth or more",
        dict.fromkeys(frame.columns[2:], "{:.2f}"),
    )


def kept_language_table(kept: pd.DataFrame) -> Styler:
    """Answers that stay in the language of the questions: `fallback_effects.kept_language`."""
    shown = kept[["method", "step", "kept", "random_kept", "other", "to", "random_to", "q"]]
    asked = kept["asked"].max()
    return figures.table(
        shown.rename(
            columns={
                "step": "languages off",
                "random_kept": "kept, random",
                "other": "most in",
                "to": "so many",
                "random_to": "so many, random",
            }
        ),
        f"Of {asked} answers, how many are kept in the questions' language, and in which other "
        "most are, beside random sets of the same sizes; q that fewer are kept and more are in the "
        "other one (Fisher's exact test)",
        {**dict.fromkeys(("kept, random", "so many, random"), "{:.1f}"), "q": p_value},
    )
