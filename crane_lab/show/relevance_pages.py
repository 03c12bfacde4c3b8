"""Tables, figures and sentences of notebooks 01 and 01b, Relevance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from numpy.typing import ArrayLike
from pandas.io.formats.style import Styler
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from crane_lab.show import figures
from crane_lab.show.foreign import as_markdown, prose
from crane_lab.study.relevance import LOSSLESS, QUANTILES, Explained, by_layer, covered

# --- by hand --------------------------------------------------------------------------------------


def network_figure(layers: Mapping[str, tuple[Tensor, Tensor]], weights: Sequence[Tensor]) -> HTML:
    """A small network: letter of a layer -> its activations and their relevance, (units,) each.

    `weights` has the matrices between the layers, (to, from) each. A layer of one unit has no
    number.
    """
    units = [
        {
            f"{letter}{i + 1}" if len(values) > 1 else letter: (value, share)
            for i, (value, share) in enumerate(
                zip(values.tolist(), relevance.tolist(), strict=True)
            )
        }
        for letter, (values, relevance) in layers.items()
    ]

    def listed(values: Tensor) -> str:
        *most, last = [f"{value:g}" for value in values.tolist()]
        return f"{', '.join(most)} and {last}" if most else last

    return figures.show(
        figures.network(
            units,
            [matrix.numpy() for matrix in weights],
            title="Inside: activation. Below: relevance. On the edges: weights.",
        ),
        alt="The network with its weights. Activations: "
        + "; ".join(f"{letter} {listed(values)}" for letter, (values, _) in layers.items())
        + ". Relevance: "
        + "; ".join(f"{letter} {listed(found)}" for letter, (_, found) in layers.items())
        + ".",
    )


def conserved_table(relevance: Mapping[str, Tensor]) -> Styler:
    """The relevance of each layer of the small network and its sum."""
    rows = [(layer, str(found.tolist()), found.sum().item()) for layer, found in relevance.items()]
    frame = pd.DataFrame(rows, columns=["layer", "relevance", "sum"])
    return figures.table(frame, "The same by machine.", {"sum": "{:g}"})


def epsilon_table(found: Mapping[float, Tensor], output: float) -> Styler:
    """ε -> relevance of the two inputs under the ε-rule, beside the output."""
    rows = [(epsilon, *x.tolist(), x.sum().item(), output) for epsilon, x in found.items()]
    return figures.table(
        pd.DataFrame(rows, columns=["ε", "x1", "x2", "sum", "output"]),
        "Relevance of the inputs under the ε-rule.",
        {"ε": "{:g}", "x1": "{:.3f}", "x2": "{:.3f}", "sum": "{:.3f}", "output": "{:g}"},
    )


def gated_table(found: Mapping[str, Tensor], output: float) -> Styler:
    """Backward pass -> activation × gradient of the two inputs of a gated unit, and its output."""
    rows = [(name, *x.tolist(), x.sum().item(), output) for name, x in found.items()]
    columns = ["x1", "x2", "sum", "output z"]
    return figures.table(
        pd.DataFrame(rows, columns=["activation × gradient", *columns]),
        "One gated unit: the same forward pass, two backward passes.",
        dict.fromkeys(columns, "{:.3f}"),
    )


# --- what is lost on the way ----------------------------------------------------------------------


def steps_table(steps: pd.DataFrame, n_windows: int) -> Styler:
    """`relevance.by_step` over so many windows."""
    return figures.table(
        steps,
        "Relevance that a step's inputs receive, relative to what its output has: median and "
        f"middle 90 % over n cases ({n_windows} windows times the model's steps of the kind). "
        "Error: difference from the share due, relative to the output's absolute relevance; a step "
        f"conserves if it stays below {LOSSLESS:f}".rstrip("0")
        + ". Last column: median share without the rules.",
        {"share due": "{:.1f}", "largest error": "{:.1e}", "plain gradient": "{:.3f}"},
    )


def steps_words(steps: pd.DataFrame) -> Markdown:
    """Which steps conserve relevance, and which do not."""
    lossless, lossy = (
        steps.loc[steps["conserves"] == conserves, "step"].tolist() for conserves in ("yes", "no")
    )
    text = f"Conserving to rounding: {'; '.join(lossless) or 'none'}. "
    if not lossy:
        return prose(text + "No step of this model loses relevance on these texts.")
    text += f"Not conserving: {'; '.join(lossy)}."
    if all("softmax" in x or "attention" in x or "whole" in x for x in lossy):
        text += " Everything on the second list has a softmax inside."
    return prose(text)


def stream_figure(shares: Mapping[str, Tensor]) -> HTML:
    """Relevance along the residual stream; language -> what `stream_shares` returns."""
    lines = {}
    for x, found in shares.items():
        low, middle, high = np.quantile(found.cpu().numpy(), (0.05, 0.5, 0.95), axis=0)
        lines[x] = (np.arange(len(middle)) / 2, middle, low, high)
    at_input, at_end = (
        ", ".join(f"{x} {line[1][position]:.2f}" for x, line in lines.items())
        for position in (0, -1)
    )
    return figures.show(
        figures.curves(
            lines,
            xlabel="position in the residual stream (layers; halves: between attention and MLP)",
            ylabel="relevance / explained output",
            level=1.0,
            level_label="conserved",
        ),
        alt="Share of the explained output found in the residual stream, from the embeddings to "
        "the last layer: median and middle 90 % of windows per language. At the embeddings "
        f"{at_input}; after the last layer {at_end}.",
    )


def ratio_table(ratio: pd.DataFrame, objective: str) -> Styler:
    """`relevance.input_over_output` for an objective."""
    return figures.table(
        ratio,
        f"Relevance of all input tokens divided by the output ({objective}), quantiles over n "
        "windows.",
        dict.fromkeys(QUANTILES, "{:.3f}"),
    )


def ratio_words(ratio: pd.DataFrame) -> Markdown:
    """What is left of the output at the input, under AttnLRP's rules."""
    own = ratio[ratio["rules"] == "attnlrp"]
    both_sides = ((own["5 %"] < 1) & (own["95 %"] > 1)).all()
    return prose(
        "Under AttnLRP the input's relevance is, in the median window, "
        + ", ".join(
            f"{row['median']:.2f} ({as_markdown(row['language'])})"
            for row in own.to_dict("records")
        )
        + " of the output. "
        + (
            "The middle 90 % lie on both sides of 1: relevance is lost in some windows and created "
            "in others."
            if both_sides
            else "Softmax takes its toll: Equation 1 holds rule by rule, and not for the whole "
            "model."
        )
        + " CRANE compares a neuron with *itself* over many texts, and kurtosis ignores scale, so "
        "a common factor would do no harm; a ratio that varies from text to text adds a little "
        "noise."
    )


# --- token heatmaps -------------------------------------------------------------------------------


def heatmap(
    tokenizer: PreTrainedTokenizerBase, found: Mapping[str, Explained], what: str
) -> list[HTML | Markdown]:
    """Tokens of each language's prompt coloured by relevance, and the strongest in words.

    `what` the prompts are called, such as "Questions".
    """
    texts, strongest = {}, []
    for x, one in found.items():
        pieces, relevance = figures.readable_tokens(tokenizer, one.ids, one.relevance)
        heading = (
            f"{x}: {one.token!r} of {one.answer!r}: probability {one.probability:.2f}, "
            f"rank {one.rank}"
        )
        texts[heading] = (pieces, relevance)
        top = np.abs(relevance).argsort()[::-1][:3]
        named = ", ".join(f"{pieces[i].strip()!r} ({relevance[i]:+.2f})" for i in top)
        strongest.append(f"{x}: {named}")
    words = "; ".join(strongest)
    return [
        figures.show(
            figures.token_heatmap(texts, width=6.6),
            alt=f"{what} with tokens coloured by relevance. Strongest: {words}.",
        ),
        prose(f"Strongest tokens, in logits: {as_markdown(words)}."),
    ]


def objectives_heatmap(
    tokenizer: PreTrainedTokenizerBase, ids: Tensor, found: Mapping[str, ArrayLike]
) -> HTML:
    """One window, (tokens,), coloured by token relevance under each objective."""
    texts = {
        name: figures.readable_tokens(tokenizer, ids, values) for name, values in found.items()
    }
    return figures.show(
        figures.token_heatmap(texts, width=6.6),
        alt="The same window three times, coloured by token relevance under each objective. "
        "Strongest: "
        + ", ".join(
            f"{name} {pieces[int(np.abs(values).argmax())].strip()!r}"
            for name, (pieces, values) in texts.items()
        )
        + ".",
    )


# --- neurons --------------------------------------------------------------------------------------


def layers_table(relevance: Tensor, output: float, language: str) -> Styler:
    """`relevance.by_layer` of one window, (layers, neurons), in a language."""
    return figures.table(
        by_layer(relevance, output),
        f"Relevance of the {relevance.shape[1]:,} neurons of each layer for one window "
        f"({language}, output {output:.1f}).",
        dict.fromkeys(("sum", "positive", "negative", "sum / output"), "{:.2f}"),
    )


def coverage_figure(relevance: Tensor) -> HTML:
    """How few neurons have most of a layer's |relevance| in one window, (layers, neurons)."""
    found = covered(relevance)
    return figures.show(
        figures.curves(
            {
                f"layer {layer}": (np.arange(1, len(line) + 1), line)
                for layer, line in enumerate(found)
            },
            xlabel="neurons of the layer, largest |relevance| first",
            ylabel="share of the layer's |relevance|",
            level=0.5,
            level_label="half",
        ),
        alt="Cumulative share of absolute relevance against number of neurons, one curve per "
        "layer. Half is reached with "
        + ", ".join(
            f"{n} neurons in layer {layer}" for layer, n in enumerate((found < 0.5).sum(1) + 1)
        )
        + ".",
    )


def sites_table(kurtosis: Mapping[str, Tensor], n: int, language: str) -> Styler:
    """Kurtosis at each site over `n` windows; `kurtosis` as `relevance.at_both_sites`."""
    rows, reference = [], kurtosis["intermediate"]
    for site, values in kurtosis.items():
        apart = np.nan
        if values.shape == reference.shape:
            apart = np.nanmax((values / reference - 1).abs().numpy())
        rows.append(
            {
                "site": site,
                "units": values.numel(),
                "median kurtosis": values.nanmedian().item(),
                "largest difference to intermediate": apart,
            }
        )
    return figures.table(
        pd.DataFrame(rows),
        f"Kurtosis of relevance at each site over {n} windows ({language}); relative differences, "
        "unit by unit.",
        {"median kurtosis": "{:.2f}", "largest difference to intermediate": "{:.1e}"},
    )


def sites_words(apart: float) -> Markdown:
    """Whether gate and up outputs have half the intermediate unit's relevance each."""
    return prose(
        "Relevance of gate and up outputs differs from half the intermediate unit's by at most "
        f"{apart:.1e} of the largest value"
        + (
            ": the prediction holds, to rounding. Both readings rank these units alike, and "
            "masking output *i* of the gate, output *i* of the up projection or unit *i* is one "
            "and the same intervention (SiLU(0) = 0). What `projections` adds are the outputs of "
            "`down_proj`: other units, namely dimensions that the MLP writes into the residual "
            "stream."
            if apart < 1e-4
            else ": **the prediction does not hold** for this model, so the sites differ by more "
            "than scale."
        )
    )


def _rank_columns(rules: pd.DataFrame) -> list[str]:
    return [column for column in map(str, rules) if column.startswith("kurtosis")]


def rules_table(rules: pd.DataFrame, n: int) -> Styler:
    """`relevance.rules_against_gradient` over `n` windows."""
    return figures.table(
        rules,
        "AttnLRP against the plain gradient, over the neurons of a layer. Relevance: Pearson's r, "
        f"median and middle 90 % over {n} windows. Kurtosis: Spearman's rank correlation.",
        dict.fromkeys(_rank_columns(rules), "{:.2f}"),
    )


def rules_words(rules: pd.DataFrame, agreement: Mapping[str, Tensor]) -> Markdown:
    """Whether the rules change which neurons come out on top."""
    medians = [m for found in agreement.values() for m in found.nanmedian(0).values.tolist()]
    ranks = rules[_rank_columns(rules)].to_numpy(dtype=float)
    low, high = ranks.min(), ranks.max()
    return prose(
        f"The layers' median correlations of relevance go from {min(medians):.2f} to "
        f"{max(medians):.2f}, the rank correlations of kurtosis from {low:.2f} to {high:.2f}. "
        + (
            "The rules do not just rescale: which neurons come out on top depends on them."
            if low < 0.9
            else "On this model the rules change the order of neurons little."
        )
    )


def objectives_table(found: pd.DataFrame, n_neurons: int, language: str) -> Styler:
    """`relevance.by_objective` of a window, of so many neurons."""
    names = {
        "explained": "value explained",
        "sum": "sum over all neurons",
        "correlation": "correlation with next_token",
        "shared": "shared among the 20 largest",
    }
    return figures.table(
        found.rename(columns=names),
        f"Neuron relevance of one window ({language}) under the three objectives; {n_neurons:,} "
        "neurons.",
        dict.fromkeys([names[key] for key in ("explained", "sum", "correlation")], "{:.2f}"),
    )


def objectives_words(found: pd.DataFrame) -> Markdown:
    """Whether the objective decides which neurons look important."""
    others: list[dict[Any, Any]] = found[found["objective"] != "next_token"].to_dict("records")
    return prose(
        "With the default's, relevance correlates at "
        + " and ".join(f"{row['correlation']:.2f} (`{row['objective']}`)" for row in others)
        + " over this window's neurons. "
        + (
            "So the objective is no detail: it decides which neurons look important."
            if min(row["correlation"] for row in others) < 0.7
            else "For this window the objectives largely agree."
        )
        + " One window settles nothing; the objective is a parameter of every notebook that uses "
        "it."
    )


def removal_table(removal: pd.DataFrame, language: str) -> Styler:
    """Neurons of one window: `layer`, `neuron`, `relevance`, `lost when masked`."""
    return figures.table(
        removal,
        f"One window ({language}): a neuron's share of the output, and what the output loses "
        "without it.",
        {"relevance": "{:+.2f}", "lost when masked": "{:+.2f}"},
    )


def removal_words(removal: pd.DataFrame) -> Markdown:
    """How relevance and what is lost under a mask go together."""
    share, lost = removal["relevance"], removal["lost when masked"]
    signs = int((np.sign(share) == np.sign(lost)).sum())
    return prose(
        f"Correlation over these neurons {np.corrcoef(share, lost)[0, 1]:.2f}; the sign agrees for "
        f"{signs} of {len(removal)}. Relevance hands out the output as it is, with all other "
        "neurons at work. Removal asks what the *rest* does without the neuron: norms rescale, "
        "attention looks elsewhere, later layers make up for it or derail. The two are different "
        "questions, and this is why CRANE uses relevance to *propose* neurons and masking to "
        "decide."
    )
