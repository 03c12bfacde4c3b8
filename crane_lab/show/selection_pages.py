"""Tables, figures and sentences of notebooks 03 and 03b, Selecting and Masking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import pandas as pd
import torch
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from crane_core.selection import NeuronSet
from crane_lab.show import figures
from crane_lab.show.foreign import as_code, as_markdown, prose
from crane_lab.show.tables import p_value
from crane_lab.study.effects import Continued
from crane_lab.study.sharing import in_several, overlap_row

Sets = Mapping[str, NeuronSet]

_OVERLAP = {"by chance": "{:.1f}", "ratio": "{:.2f}", "Jaccard": "{:.3f}", "p": p_value}


# --- one set per language -------------------------------------------------------------------------


def rule_table(by_rule: Mapping[str, Sets], threshold: float) -> Styler:
    """How many neurons each rule selects for each language, and how many for several."""
    shape = next(iter(next(iter(by_rule.values())).values())).shape
    layers, width = shape["intermediate"]
    total = layers * width
    frame = pd.DataFrame(
        [
            {
                "rule": name,
                **{x: len(neurons) for x, neurons in sets.items()},
                **{f"{x} share": len(neurons) / total for x, neurons in sets.items()},
                "in several sets": len(in_several(sets)),
            }
            for name, sets in by_rule.items()
        ]
    )
    return figures.table(
        frame,
        f"Neurons per language under each rule (of {total:,}; threshold {threshold:g})",
        {column: "{:.1%}" for column in map(str, frame) if column.endswith(" share")},
    )


def layers_figure(sets: Sets, rule: str) -> HTML:
    """Bars of the number of neurons that a rule selected in each layer."""
    return figures.show(
        figures.layer_counts(
            sets, site="intermediate", title=f"Neurons selected per layer ({rule})"
        ),
        alt="Bars of the number of selected neurons per layer. "
        + " ".join(
            f"{x}: {neurons.counts('intermediate').tolist()}, {len(neurons)} in all."
            for x, neurons in sets.items()
        ),
    )


def projections_table(projections: Sets, rule: str) -> Styler:
    """What was selected among the outputs of the three projections."""
    rows = []
    for x, neurons in projections.items():
        for site in ("gate", "up", "down"):
            depth, width = neurons.shape[site]
            counts = neurons.counts(site)
            rows.append(
                {
                    "language": x,
                    "site": site,
                    "neurons": depth * width,
                    "selected": int(counts.sum()),
                    "share": int(counts.sum()) / (depth * width),
                    "by layer": ",\u00a0".join(str(c) for c in counts.tolist()),
                }
            )
    return figures.table(
        pd.DataFrame(rows),
        f"Sets of the three projections ({rule})",
        {"neurons": "{:,}", "share": "{:.1%}"},
    )


def projections_words(projections: Sets, sets: Sets) -> Markdown:
    """Whether gate and up outputs selected are the intermediate neurons selected."""
    same = [
        torch.equal(neurons.mask(site), sets[x].mask("intermediate"))
        for x, neurons in projections.items()
        for site in ("gate", "up")
    ]
    if all(same):
        return prose(
            "The gate and up outputs selected are exactly the intermediate neurons selected above. "
            "That is no coincidence: AttnLRP gives each of the two factors half of the relevance "
            "of their product, at every token, and kurtosis does not see a factor of one half. So "
            "with these rules the two sites differ in the outputs of `down_proj` alone."
        )
    return prose(
        f"In {sum(same)} of {len(same)} cases the gate or up outputs selected are exactly the "
        "intermediate neurons selected above. Without a budget they always would be: AttnLRP gives "
        "each of the two factors half of the relevance of their product, and kurtosis does not see "
        "a factor of one half (up to rounding at the threshold)."
    )


# --- sets compared --------------------------------------------------------------------------------


def _overlap_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    names = {"chance": "by chance", "jaccard": "Jaccard"}
    return {names.get(key, key): value for key, value in row.items()}


def _pairs(sets: Sets) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (a, b): _overlap_columns(overlap_row(sets[a], sets[b])) for a, b in combinations(sets, 2)
    }


def shared_figure(sets: Sets, rule: str = "threshold") -> HTML:
    """What every two languages' sets share, in numbers and against chance."""
    return figures.show(
        figures.overlap_heatmap(sets, title=f"neurons shared under the rule {rule}"),
        alt=f"Matrix of neurons shared by the languages' sets under the rule {rule}. "
        + " ".join(
            f"{a} and {b} share {row['shared']}, where chance gives {row['by chance']:.1f}."
            for (a, b), row in _pairs(sets).items()
        ),
    )


def shared_table(sets: Sets, rule: str = "threshold") -> Styler:
    """The overlap of every two languages' sets."""
    frame = pd.DataFrame(
        [
            {"sets": f"{a}, {b}", "sizes": f"{len(sets[a])}, {len(sets[b])}", **row}
            for (a, b), row in _pairs(sets).items()
        ]
    )
    return figures.table(
        frame.drop(columns="against"),
        f"Overlap between languages under the rule {rule} (p: chance of so many or more)",
        _OVERLAP,
    )


def shared_words(sets: Sets) -> Markdown:
    """Which languages share more or fewer neurons than chance would give."""
    found: dict[str, list[str]] = {"more": [], "fewer": [], "open": []}
    for (a, b), row in _pairs(sets).items():
        found[row["against"]].append(as_markdown(f"{a} and {b}"))
    text = (
        f"More than chance would give (p < 0.01) is shared by {', '.join(found['more'])}. "
        if found["more"]
        else "No pair of languages shares more than chance would give (at p < 0.01). "
    )
    if found["fewer"]:
        text += f"Less than chance (p < 0.01): {', '.join(found['fewer'])}."
    return prose(text)


def lape_table(lape: Mapping[str, Sets], crane: Sets, rule: str) -> Styler:
    """LAPE's sets, by the name of its budget, and CRANE's for the same language."""
    rows = [
        {
            "method": name,
            "language": x,
            "LAPE": len(neurons),
            "CRANE": len(crane[x]),
            **_overlap_columns(overlap_row(neurons, crane[x])),
        }
        for name, sets in lape.items()
        for x, neurons in sets.items()
    ]
    return figures.table(
        pd.DataFrame(rows).drop(columns="against"),
        f"Neurons of LAPE and of CRANE ({rule}) for the same language",
        _OVERLAP,
    )


def lape_words(matched: Sets, crane: Sets) -> Markdown:
    """Whether LAPE at CRANE's budget finds CRANE's neurons."""
    rows = {x: overlap_row(neurons, crane[x]) for x, neurons in matched.items()}
    more, fewer = (
        [x for x, row in rows.items() if row["against"] == against] for against in ("more", "fewer")
    )
    text = (
        "At equal budgets the two methods share "
        + ", ".join(
            f"{row['shared']} of {len(crane[x])} neurons for {as_code(x)} "
            f"(chance: {row['chance']:.0f})"
            for x, row in rows.items()
        )
        + ". "
    )
    if more:
        text += f"That is more than chance for {as_markdown(', '.join(more))} (p < 0.01). "
    if fewer:
        text += f"That is less than chance for {as_markdown(', '.join(fewer))} (p < 0.01). "
    if not more and any(len(neurons) for neurons in crane.values()):
        text += (
            "Firing unevenly over languages and having heavy-tailed relevance are different "
            "things on this model."
        )
    return prose(text)


# --- one sentence under masks ---------------------------------------------------------------------


def _label(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """A token as one can read it: ␣ is a space; a byte of a character has no reading of its own."""
    text = str(tokenizer.decode([token]))
    return f"‹{token}›" if "\ufffd" in text else text.replace(" ", "␣")


def _top(tokenizer: PreTrainedTokenizerBase, logits: Tensor, k: int = 3) -> dict[str, float]:
    """The k most probable tokens and their probabilities."""
    best = logits.softmax(-1).topk(k)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return {_label(tokenizer, token): p for token, p in pairs}


def continued_tables(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Mapping[str, str],
    found: Mapping[str, Sequence[Continued]],
) -> list[Styler]:
    """Next tokens of each language's prompt, and how it goes on, under every mask.

    The first of each prompt's continuations is the unmasked one.
    """
    shown = []
    for x, prompt in prompts.items():
        first = int(found[x][0].logits.argmax())
        probability = f"p of {_label(tokenizer, first)}"
        rows = [
            {
                "mask": under.mask,
                "neurons": under.n_neurons,
                "most probable next tokens": ", ".join(
                    f"{token}\u00a0{p:.2f}" for token, p in _top(tokenizer, under.logits).items()
                ),
                probability: under.logits.softmax(-1)[first].item(),
                "goes on with": under.text.replace("\ufffd", "").replace("\n", " ⏎ ").strip(),
            }
            for under in found[x]
        ]
        caption = f"{x}: “{prompt} …” under every mask"
        shown.append(figures.table(pd.DataFrame(rows), caption, {probability: "{:.3f}"}))
    return shown


def next_tokens_figures(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Mapping[str, str],
    found: Mapping[str, Sequence[Continued]],
) -> list[HTML]:
    """Each prompt's next tokens without a mask and under the one of its own language."""
    shown = []
    for x, prompt in prompts.items():
        unmasked = found[x][0].logits
        own = next(under.logits for under in found[x] if under.mask == x)
        tokens = list(dict.fromkeys([*_top(tokenizer, unmasked), *_top(tokenizer, own)]))
        before, after = (
            {token: p for token, p in _top(tokenizer, every, len(every)).items() if token in tokens}
            for every in (unmasked, own)
        )
        shown.append(
            figures.show(
                figures.next_token_bars(before, after, ("unmasked", f"mask {x}"), f"{prompt} …"),
                alt=f"Probabilities of the next token after “{prompt}”. "
                + " ".join(
                    f"{token}: {before[token]:.2f} unmasked, {after[token]:.2f} under the mask of "
                    f"{x}."
                    for token in tokens
                ),
            )
        )
    return shown


def one_switch_table(found: Mapping[str, tuple[float, float]], n: int) -> Styler:
    """Sites zeroed -> largest difference of a logit from unmasked and from `intermediate`."""
    names = ["difference from unmasked", "difference from intermediate"]
    frame = pd.DataFrame(found.values(), columns=names)
    frame.insert(0, "zeroed", list(found))
    return figures.table(
        frame,
        f"Largest difference of any next-token logit ({n} neurons)",
        {names[0]: "{:.3f}", names[1]: "{:.1g}"},
    )


# --- held-out loss under masks --------------------------------------------------------------------


def _range(low: pd.Series, high: pd.Series) -> list[str]:
    return [f"{a:+.3f}\u00a0to\u00a0{b:+.3f}" for a, b in zip(low, high, strict=True)]


def effects_table(effects: pd.DataFrame, n_windows: int, n_random: int) -> Styler:
    """`effects.loss_effects` over so many windows and random masks."""
    frame = pd.DataFrame(
        {
            "mask": effects["mask_language"],
            "n": effects["n_neurons"],
            "text": effects["text_language"],
            "loss": effects["loss"].map("{:.3f}".format),
            "change": effects["change"].map("{:+.3f}".format),
            "95 % interval": _range(effects["change_low"], effects["change_high"]),
            "random masks": effects["random_mean"].map("{:+.3f}".format),
            "their range": _range(effects["random_low"], effects["random_high"]),
        }
    )
    return figures.table(
        frame,
        "Held-out loss in nats per token, and its change under CRANE's masks and under random "
        f"ones ({n_windows} windows per language; {n_random} random masks each)",
    )


def effects_words(judged: pd.DataFrame) -> Markdown:
    """What each mask does to its own language, as a list; `judged` as `effects.judged` returns."""
    against = {
        "more": "more than any random mask of that size",
        "less": "less than every random mask of that size",
        "within": "within the range of random masks of that size",
    }
    lines = []
    for row in judged.to_dict("records"):
        x, name = row["mask_language"], as_code(row["mask_language"])
        if not row["n_neurons"]:
            lines.append(f"- {name}: the set is empty, so there is nothing to mask.")
            continue
        lines.append(
            f"- Masking the {row['n_neurons']} neurons of {name} changes the loss on {name} by "
            f"{row['change']:+.3f} (random: {row['random_low']:+.3f} to {row['random_high']:+.3f})"
            f", {against[row['against']]}. "
            + (
                f"No other language is hurt more{'' if row['clear'] else '; intervals overlap'}."
                if row["most"] == x
                else f"{as_code(row['most'])} is hurt more ({row['most_change']:+.3f})"
                f"{'' if row['clear'] else '; intervals overlap'}."
            )
        )
    return prose("\n".join(lines))


def down_table(
    under_down: Mapping[str, float], n_down: int, under_random: Mapping[str, float], n: int
) -> Styler:
    """Language -> change of its loss, under random outputs of `down_proj` and under neurons."""
    columns = [f"{n_down} outputs of down_proj", f"{n} intermediate neurons"]
    frame = pd.DataFrame({"text": list(under_down), columns[0]: list(under_down.values())})
    frame[columns[1]] = [under_random[x] for x in under_down]
    return figures.table(
        frame,
        "Change of held-out loss under random masks at two sites (nats per token)",
        dict.fromkeys(columns, "{:+.3f}"),
    )


def what_masks_show(judged: pd.DataFrame, n_random: int) -> Markdown:
    """What this page's numbers do and do not show, as a list."""
    own = judged[judged["n_neurons"] > 0]
    more = own.loc[own["against"] == "more", "mask_language"].tolist()
    hit = own.loc[own["clear"] & (own["most"] == own["mask_language"]), "mask_language"].tolist()

    def counted(languages: Sequence[str]) -> str:
        return f"{len(languages)}" + (
            f" ({as_markdown(', '.join(languages))})" if languages else ""
        )

    if not len(own):
        verdict = "There was nothing to mask."
    elif set(own["mask_language"]) == set(more) & set(hit):
        verdict = (
            "On this model, by this read-out, kurtosis selects neurons that their languages need."
        )
    else:
        verdict = (
            "On this model, by this read-out, kurtosis does not reliably select neurons that "
            "their languages need."
        )
    return prose(
        f"- Number of masks, of {len(own)}, that raise the loss of their own language by more than "
        f"every one of {n_random} random masks of the same size: {counted(more)}. That hurt their "
        f"own language most, intervals apart: {counted(hit)}. {verdict}"
        "\n- Zero is one way to switch a neuron off, and not the mildest. A neuron whose usual "
        "output is far from zero is not removed by it but driven to an unusual value."
    )
