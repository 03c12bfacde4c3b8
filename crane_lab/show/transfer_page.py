"""What notebooks 06 and 06b show beside tables: tuned weights, shared neurons, counterparts."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from crane_lab.show import figures
from crane_lab.show.foreign import as_markdown, prose
from crane_lab.show.tables import p_value
from crane_lab.study import transfer

#: What figure 5 shows, for readers who cannot see it.
FIGURE_5 = (
    "Left, the base model: text in each language gives the kurtosis of relevance, and that the "
    "set for one language, a few filled circles among the MLP neurons. An arrow carries the same "
    "indices, layer and neuron, to the chat model on the right, where the same positions are "
    "crossed out: their outputs are set to zero, the model is asked and evaluated, and LangSpec-F1 "
    "is computed. Nothing is searched for on the chat model."
)


def figure5() -> HTML:
    """Figure 5, strict transfer."""
    return figures.show(figures.fig5_transfer(), alt=FIGURE_5)


def weights_table(changes: pd.DataFrame) -> Styler:
    """How far tuning moved the weights, of `transfer.weight_changes`."""
    return figures.table(
        changes,
        "Change of the MLP weights by tuning, relative to their size (Frobenius norms)",
        dict.fromkeys(["gate_proj", "up_proj", "down_proj"], "{:.1%}"),
    )


def found_again(shared: pd.DataFrame) -> Styler:
    """Neurons that two searches share, of `transfer.shared_neurons`."""
    return figures.table(
        shared,
        "Sets found on the base and on the chat model. expected: neurons shared by two random sets "
        "with the same number in every layer; p: chance of sharing so many or more if neither knew "
        "of the other (hypergeometric, layers pooled)",
        {"expected": "{:.1f}", "p": p_value, "jaccard": "{:.2f}"},
    )


def shared_in_words(shared: pd.DataFrame, names: Mapping[str, str]) -> Markdown:
    """How many pairs of sets share more than chance, and how much of each set is found again."""
    above = int((shared["p"] < 0.01).sum())

    def shares(method: str, what: str = "") -> str:
        own = shared[shared["method"] == method].to_dict("records")
        return ", ".join(
            f"{r['shared'] / max(r['n_base'], 1):.0%} {what}({as_markdown(names[r['language']])})"
            for r in own
        )

    return prose(
        f"{above} of {len(shared)} pairs share more than chance (p < 0.01). CRANE's searches share "
        f"{shares('CRANE', 'of the set ')}; LAPE's {shares('LAPE matched')}."
    )


def counterpart_table(counterpart: pd.DataFrame, names: Mapping[str, str]) -> Styler:
    """The chat model under sets found on either model, of `transfer.counterparts`."""
    frame = counterpart[["read_out", "method", "mask_language", "found_on", "n_neurons"]].copy()
    for x in names:
        frame[x] = [
            f"{value:.3f}" if kind == "benchmarks" else f"{value:.2f}"
            for value, kind in zip(counterpart[x], counterpart["read_out"], strict=True)
        ]
    frame["LangSpec-F1"] = [
        f"{row['langspec_f1']:.3f} [{row['langspec_f1_low']:.3f}, {row['langspec_f1_high']:.3f}]"
        for row in counterpart.to_dict("records")
    ]
    columns = {"read_out": "read-out", "mask_language": "mask", "found_on": "found on"}
    frame = frame.sort_values(["read_out", "method", "mask_language"], kind="stable")
    return figures.table(
        frame.rename(columns={**columns, "n_neurons": "n"}),
        "The chat model under masks found on the base model (strict transfer) and on itself; their "
        "LangSpec-F1 with intervals over items alone, as random masks with the layers of sets that "
        "are found on the chat model were not measured",
        {"n": "{:,}"},
    )


def counterpart_in_words(told: pd.DataFrame, names: Mapping[str, str]) -> Markdown:
    """Where sets found on the chat model do clearly more or less, of `transfer.told_apart`."""

    def counted(verdict: str) -> str:
        rows = told[told["verdict"] == verdict].to_dict("records")
        listed = "; ".join(
            f"{r['method']}, {as_markdown(names[r['mask_language']])}, {r['read_out']}"
            for r in rows
        )
        return f"{len(rows)} ({listed})" if rows else "none"

    return prose(
        f"Of {len(told)} comparisons, the set found on the chat model has a LangSpec-F1 whose "
        f"interval lies above that of the base model's set in {counted('above')}, and below it in "
        f"{counted('below')}. In the others the intervals overlap: what strict transfer loses "
        "there, if anything, is less than the items can tell."
    )


def kept_table(kept: Mapping[str, pd.DataFrame]) -> Styler:
    """How much of a drop the chat model keeps; `kept`: source -> `transfer.kept_drops`."""
    frame = pd.concat([found.assign(source=source) for source, found in kept.items()])
    frame.insert(0, "source", frame.pop("source"))
    return figures.table(
        frame.reset_index(drop=True),
        "Drop of the masked language's own benchmark, and the share of it that the chat model "
        "keeps (a dash: the base model loses less than "
        f"{transfer.LEAST:.0%}, of which a share says little)",
        {"drop, base": "{:+.3f}", "drop, chat": "{:+.3f}", "kept": "{:.0%}"},
    )
