"""What notebooks 04 to 04d show beside the tables: masks, losses, choices and free answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from crane_lab.show import figures
from crane_lab.show.alternative import in_short
from crane_lab.show.foreign import as_markdown, prose
from crane_lab.stages.comparisons import CATEGORIES, hit_most, leaves_language
from crane_lab.stages.outcomes import Evaluated, Row

Shape = Mapping[str, tuple[int, int]]


def masks_table(interventions: Sequence[Row], changes: Sequence[float], shape: Shape) -> Styler:
    """How many neurons each mask has and where; `changes`: what each does to some logit."""
    total = int(np.prod(shape["intermediate"]))
    rows = [
        {
            "method": row.method,
            "mask": row.language,
            "n": len(row.neurons),
            "share of all": len(row.neurons) / total,
            "by layer": ", ".join(str(n) for n in row.neurons.counts("intermediate").tolist()),
            "largest change of a logit": change,
        }
        for row, change in zip(interventions, changes, strict=True)
    ]
    return figures.table(
        pd.DataFrame(rows),
        f"Neurons masked, of {total:,} (random: the first seed). A mask that is at work changes "
        "logits",
        {"n": "{:,}", "share of all": "{:.1%}", "largest change of a logit": "{:.2f}"},
    )


def sizes_in_words(interventions: Iterable[Row], names: Mapping[str, str]) -> Markdown:
    """How many neurons LAPE as released masks, beside CRANE."""
    sizes: dict[str, list[str]] = {}
    for row in interventions:
        sizes.setdefault(row.method, []).append(f"{len(row.neurons):,}")
    return prose(
        f"LAPE as released masks {', '.join(sizes['LAPE'])} neurons "
        f"({as_markdown(', '.join(names.values()))}), CRANE {', '.join(sizes['CRANE'])}."
    )


def evaluations(evaluated: Evaluated, n_perplexity: int) -> Markdown:
    """How many evaluations, on what."""
    masks, tasks = len(evaluated.rows), evaluated.original[0]["task"]
    return prose(
        f"{masks + 1} evaluations: the unmasked model and {masks} masks, each on {tasks.nunique()} "
        f"tasks ({len(tasks):,} items) and on {n_perplexity} held-out windows per language."
    )


# --- LangSpec-F1 and the confound ---------------------------------------------------------------


def random_in_words(seeds: pd.DataFrame) -> Markdown:
    """How many of the random masks have a positive LangSpec-F1; `seeds` as `Scored` makes it."""
    if not len(seeds):
        return prose("This run has no random masks to compare with.")
    f1 = seeds["langspec_f1"]
    return prose(
        f"Of {len(f1)} random masks {int((f1 > 0).sum())} have a positive LangSpec-F1; the mean "
        f"is {f1.mean():.3f}, the largest {f1.max():.3f}."
    )


def all_at_chance(floor: Mapping[str, float], names: Mapping[str, str]) -> Markdown:
    """What a mask that takes every language to chance would score (language -> LangSpec-F1)."""
    return prose(
        "Nor does a high value mean that a mask is specific. One that takes *every* language to "
        "chance, as unspecific as a mask can be, would score "
        + ", ".join(f"{value:.3f} ({as_markdown(names[x])})" for x, value in floor.items())
        + ": its precision is what the unmasked scores happen to give, and its recall is high."
    )


def unequal_benchmarks(file: Path) -> Markdown:
    """What large random masks cost each task, from the testbed's gate (`gate.csv`)."""
    if not file.exists():
        return prose("For these benchmarks, what random masks of one size cost is not known.")
    curve = pd.read_csv(file).groupby(["task", "fraction"])["accuracy"].mean().unstack()
    lost = (curve[0.0] - curve[curve.columns[-1]]).sort_values()
    line = (
        f"Random masks of {curve.columns[-1]:.0%} of the neurons (from the testbed's gate) cost "
        + ", ".join(f"{as_markdown(task)} {100 * drop:.1f} points" for task, drop in lost.items())
        + ". "
    )
    if lost.iloc[0] < lost.iloc[-1] / 3:
        least, most = as_markdown(lost.index[0]), as_markdown(lost.index[-1])
        line += (
            f"A mask that did the same harm everywhere would seem to spare {least} beside {most}, "
            "because the benchmarks differ and not because the languages do."
        )
        if str(lost.index[0]).startswith("reading"):
            line += (
                " (A likely reason: an answer that stands in the passage can be copied by "
                "attention, and only neurons of the MLPs are masked. Notebook 00b holds reading "
                "against a mere copier.)"
            )
    return prose(line)


def confound(
    verdicts: pd.DataFrame, parallel: Mapping[str, pd.DataFrame], names: Mapping[str, str]
) -> str:
    """What of CRANE's effects in the paper-shaped table holds when all languages have one task.

    `parallel`: task -> `comparisons.verdicts` of the table with that task in every language.
    """
    paper = hit_most(verdicts)
    if not paper:
        return (
            "In the paper-shaped table CRANE's mask cost its own language clearly most for no "
            "language, so there is nothing that the confound could have produced."
        )
    everywhere = set.intersection(*(hit_most(found) for found in parallel.values()))
    lost, stays = (
        [names[x] for x in names if x in own] for own in (paper - everywhere, paper & everywhere)
    )
    text = "Of what CRANE showed in the paper-shaped table, " + (
        f"{', '.join(stays)} holds for both tasks" if stays else "nothing holds for both tasks"
    )
    return text + (f"; what does not: {', '.join(lost)}." if lost else ".")


def literal_sets(interventions: Iterable[Row], shape: Shape) -> Styler:
    """CRANE's sets at the site projections, by projection."""
    total = int(np.prod(shape["down"]))
    rows = []
    for row in interventions:
        counts = {site: int(row.neurons.counts(site).sum()) for site in ("gate", "up", "down")}
        share = counts["down"] / total
        rows.append({"mask": row.language, **counts, "share of all down outputs": share})
    return figures.table(
        pd.DataFrame(rows),
        "CRANE's sets at the site projections",
        {"share of all down outputs": "{:.1%}"},
    )


# --- held-out loss ------------------------------------------------------------------------------


def loss_figure(losses: pd.DataFrame, languages: Sequence[str], model: str = "") -> HTML:
    """Perplexity under each mask divided by the unmasked one; `losses` of `loss_changes`."""
    of = f" ({model})" if model else ""
    matrix = losses[list(languages)].apply(np.exp)
    matrix.index = pd.Index(
        f"{row['method']} · {row['mask_language']} (n = {row['n_neurons']:,})"
        for row in losses.to_dict("records")
    )
    return figures.show(
        figures.matrix_heatmap(
            matrix, row_label="mask", title=f"Held-out perplexity, masked / unmasked{of}"
        ),
        alt=in_short(
            f"Matrix of held-out perplexity{of} under each mask divided by the unmasked one.",
            [
                (f"{name}: " + ", ".join(f"{x} {row[x]:.2f}" for x in languages), row.max())
                for name, row in matrix.iterrows()
            ],
            "the table of losses on this page",
            by="any language's ratio",
        ),
    )


def loss_table(losses: pd.DataFrame, unmasked: Mapping[str, float]) -> Styler:
    """Changes in loss with their errors; `unmasked`: language -> perplexity without a mask."""
    frame = losses[["method", "mask_language", "n_neurons"]].copy()
    frame.columns = pd.Index(["method", "mask", "n"])
    for x in unmasked:
        frame[x] = [
            f"{change:+.3f}\u00a0±\u00a0{error:.3f}"
            for change, error in zip(losses[x], losses[f"{x}_se"], strict=True)
        ]
    frame["own − most hit other"] = [
        f"{row['difference']:+.3f} [{row['difference_low']:+.3f}, "
        f"{row['difference_high']:+.3f}] ({row['other']})"
        for row in losses.to_dict("records")
    ]
    return figures.table(
        frame,
        "Change in held-out loss, nats per token ± standard error over windows (random: mean over "
        "seeds, with the spread between them added). Unmasked perplexity: "
        + ", ".join(f"{x} {value:.2f}" for x, value in unmasked.items()),
        {"n": "{:,}"},
    )


def losses_by_method(losses: pd.DataFrame, names: Mapping[str, str]) -> Markdown:
    """Whether it is the masked language whose loss rises most, method by method."""
    said = {"larger": "clearly", "smaller": "clearly not", "open": "not settled"}
    lines = [
        f"- {method}: "
        + ", ".join(
            f"{as_markdown(names[x])} {said[v]}"
            for x, v in zip(own["mask_language"], own["verdict"], strict=True)
        )
        + "."
        for method, own in losses[losses["method"] != "Random"].groupby("method", sort=False)
    ]
    return prose("Is it the masked language whose loss rises most?\n\n" + "\n".join(lines))


def losses_in_words(losses: pd.DataFrame, names: Mapping[str, str]) -> str:
    """For which languages each method's mask clearly hits its own held-out loss most."""
    clear = losses[losses["verdict"] == "larger"].groupby("method")["mask_language"].apply(list)
    return "By held-out loss, the masked language is hit clearly most for " + "; ".join(
        f"{', '.join(names[x] for x in clear.get(method, [])) or 'no language'} ({method})"
        for method in losses["method"].unique()
    ) + "."  # fmt: skip


# --- what is chosen and said --------------------------------------------------------------------


def chosen_table(chosen: pd.DataFrame) -> Styler:
    """What is chosen in a language's own tasks under its own mask, of `comparisons.own_tasks`."""
    columns = {"language": "mask and tasks", "position_bits": "position"}
    return figures.table(
        chosen.rename(columns=columns),
        "What is chosen in a language's own tasks (knowledge and reading together) under its own "
        "mask; Org: no mask. All masks and tasks: choices.csv",
        dict.fromkeys(["right", "same", "lost", "gained", "variety"], "{:.3f}")
        | {"position": "{:.2f}"},
    )


def answers_figure(shares: pd.DataFrame, names: Mapping[str, str]) -> HTML:
    """What free answers are, as bars; `shares` of `comparisons.answer_shares`."""
    panels = {}
    for x in names:
        own = shares[shares["language"] == x]
        labels = [
            f"{m} · {y}" if y else m for m, y in zip(own.method, own.mask_language, strict=True)
        ]
        panels[f"asked in {names[x]}"] = own[list(CATEGORIES)].set_axis(labels)
    return figures.show(
        figures.stacked_bars(panels, "share of the free answers"),
        alt=in_short(
            "What free answers are, by language of the question and mask.",
            [
                (
                    f"{panel}, {mask}: "
                    + ", ".join(f"{name} {value:.0%}" for name, value in row.items() if value),
                    row.iloc[0],
                )
                for panel, bars in panels.items()
                for mask, row in bars.iterrows()
            ],
            "answers.csv",
            by=f"the share of “{CATEGORIES[0]}”",
        ),
    )


def answers_in_words(shares: pd.DataFrame, names: Mapping[str, str]) -> Markdown:
    """What becomes of a language's answers under CRANE's mask of it."""
    rows = {
        (row["method"], row["mask_language"], row["language"]): row
        for row in shares.to_dict("records")
    }
    lines = []
    for x in names:
        own, was, name = rows["CRANE", x, x], rows["Org", "", x], as_markdown(names[x])
        favourite = as_markdown(own["favourite"])
        leaves = leaves_language(own["other language"], was["other language"], own["n"])
        lines.append(
            f"- CRANE, {name}, {own['n']} answers in {name}: the right option is named in "
            f"{own['gold']:.0%} (unmasked {was['gold']:.0%}), a wrong one in "
            f"{own['wrong option']:.0%} ({was['wrong option']:.0%}), another language is used in "
            f"{own['other language']:.0%} ({was['other language']:.0%}). "
            + ("The mask makes it" if leaves else "There is no sign that the mask makes it")
            + f" leave the language. Its most frequent answer, “{favourite}”, makes up "
            f"{own['favourite_share']:.0%} (unmasked {was['favourite_share']:.0%})."
        )
    return prose("\n".join(lines))


def changed_table(changed: Mapping[str, pd.DataFrame]) -> Styler | Markdown:
    """The first answers that change; `changed`: mask -> `comparisons.changed_answers`."""
    frame = pd.concat([found.assign(mask=mask) for mask, found in changed.items()])
    if not len(frame):
        return prose("No free answer changes under CRANE's masks.")
    frame.insert(0, "mask", frame.pop("mask"))
    return figures.table(
        frame.reset_index(drop=True),
        "The first free answers that change under CRANE's mask of the language",
    )


# --- exercises ----------------------------------------------------------------------------------


def simulated_table(simulated: Mapping[int, Iterable[float]], target: str) -> Styler:
    """LangSpec-F1 of simulated masks without effect, by number of items."""
    rows = []
    for n, values in simulated.items():
        f1 = np.asarray(list(values))
        mean, high, above = f1.mean(), np.quantile(f1, 0.95), np.mean(f1 > 0)
        rows.append({"items": n, "mean": mean, "95th percentile": high, "share above 0": above})
    return figures.table(
        pd.DataFrame(rows),
        f"LangSpec-F1 of masks without effect, target {target}",
        {"mean": "{:.3f}", "95th percentile": "{:.3f}", "share above 0": "{:.0%}"},
    )
