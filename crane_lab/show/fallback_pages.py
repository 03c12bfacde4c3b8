"""Tables, figures and sentences of notebook 17, Fallback.

`table` is that of `fallback.read_fallback`, `lens` that of `logit_lens.lens_table`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from crane_lab.show import figures
from crane_lab.show.foreign import prose
from crane_lab.study.fallback import ELSEWHERE
from crane_lab.study.taught import RANDOM
from crane_lab.texts.languages import full_names

_NOTHING = "nothing"


def _steps(own: pd.DataFrame) -> pd.DataFrame:
    """Rows with what is off, in words, mean over draws, in the order of the steps."""
    off = own["off"].where(own["off"] != "", _NOTHING)
    return own.assign(row=[f"+ {x}" if x != _NOTHING else x for x in off])


def _wide(own: pd.DataFrame, value: str) -> pd.DataFrame:
    rows = _steps(own)
    wide = rows.pivot_table(index="step", columns="language", values=value, sort=False)
    names = rows.drop_duplicates("step").set_index("step")["row"]
    columns = [x for x in dict.fromkeys(rows["language"]) if x in wide]
    return wide.sort_index()[columns].rename(index=names.to_dict())


def fallback_figure(table: pd.DataFrame, order: str) -> HTML:
    """Which language answers, step by step, under each method's sets and under random ones."""
    own = table[table["order"] == order]
    questions = own.groupby(["method", "order", "step", "seed"])["answers"].sum().max()
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


def fallback_loss_figure(table: pd.DataFrame, order: str) -> HTML:
    """What each language's loss has risen by, step by step."""
    own = table[(table["order"] == order) & (table["language"] != ELSEWHERE)]
    lines, told = {}, []
    for method, part in own.groupby("method", sort=False):
        wide = _wide(part, "loss")
        added = wide - wide.iloc[0]
        steps = np.arange(len(added))
        lines[str(method)] = {str(x): (steps, added[x].to_numpy(float)) for x in added.columns}
        last = added.iloc[-1]
        told.append(f"{method}: {last.min():+.2f} ({last.idxmin()}) to {last.max():+.2f}")
    return figures.show(
        figures.curves(lines, "languages deactivated", "loss added (nats per token)"),
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
            f"- {method}, order {order}: most answers are in {said[0]} with nothing off, in "
            f"{said[1]} after the first step, in {said[2]} at the end."
        )
    return prose("\n".join(lines).replace("|", "\\|"))


def fallback_random_table(table: pd.DataFrame) -> Styler:
    """Methods beside random sets: answers in the questions' language left, and loss added."""
    rows = []
    asked = str(table["language"].iloc[0])
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
    """How likely a right answer's first token is by layer, in both languages."""
    lines, told = {}, []
    for x, own in lens.groupby("language", sort=False):
        mean = own.groupby("layer")[["own", "pivot"]].mean()
        layers = mean.index.to_numpy()
        lines[str(x)] = {
            "question's language": (layers, mean["own"].to_numpy()),
            "English": (layers, mean["pivot"].to_numpy()),
        }
        most = mean["pivot"].idxmax()
        told.append(
            f"{x}: English at most {mean['pivot'].max():.3f} (layer {most}), its own "
            f"{mean['own'].iloc[-1]:.3f} at the end"
        )
    return figures.show(
        figures.curves(lines, "layer", "probability of a right answer's first token"),
        alt="Probability of the first token of a right answer after each layer, mean over "
        "questions. " + "; ".join(told),
    )


def lens_table_of(lens: pd.DataFrame) -> Styler:
    """How many questions have the English answer ahead somewhere, and at the end, by language."""
    rows = []
    for x, own in lens.groupby("language", sort=False):
        ahead = own.assign(ahead=own["pivot"] > own["own"])
        last = ahead["layer"] == ahead["layer"].max()
        middle = ahead[~last].groupby("question")["ahead"].mean()
        rows.append(
            {
                "language": x,
                "questions": own["question"].nunique(),
                "English ahead, share of layers before the last": middle.mean(),
                "English ahead after the last": ahead[last]["ahead"].mean(),
                "own, after the last": ahead[last]["own"].mean(),
                "English, after the last": ahead[last]["pivot"].mean(),
            }
        )
    frame = pd.DataFrame(rows)
    return figures.table(
        frame,
        "Which language a right answer's first token is likelier in, read after each layer; "
        "probabilities are means over questions",
        dict.fromkeys(frame.columns[2:], "{:.3f}"),
    )
