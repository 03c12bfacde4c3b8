"""Tables, figures and sentences of notebooks 02 and 02b: kurtosis and how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from numpy.typing import ArrayLike
from pandas.io.formats.style import Styler
from scipy import stats
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from crane_lab.show import figures
from crane_lab.show.foreign import as_code, as_markdown, prose
from crane_lab.study.scores import Picked, SecondLook, regions
from crane_lab.texts.corpora import COUNTED

LARGEST = "largest contrast"


def made_up_table(neurons: Mapping[str, tuple[float, float, float]], texts: int) -> Styler:
    """Mean, standard deviation and kurtosis of made-up neurons over so many texts."""
    frame = pd.DataFrame(neurons.values(), columns=["mean", "std", "kurtosis"])
    frame.insert(0, "relevance", list(neurons))
    formats = {"mean": "{:.3f}", "std": "{:.3f}", "kurtosis": "{:.1f}"}
    return figures.table(frame, f"Five made-up neurons over {texts:,} texts", formats)


def invariance_table(neurons: Mapping[str, tuple[float, float]]) -> Styler:
    """Mean |relevance| and kurtosis of one made-up neuron, changed in several ways."""
    frame = pd.DataFrame(neurons.values(), columns=["mean |relevance|", "kurtosis"])
    frame.insert(0, "relevance", list(neurons))
    formats = {"mean |relevance|": "{:.3f}", "kurtosis": "{:.2f}"}
    return figures.table(frame, "Kurtosis does not see scale, shift or sign", formats)


def intuition() -> HTML:
    """Figure 2, simulated."""
    return figures.show(
        figures.fig2_intuition(),
        alt=(
            "Two simulated densities of equal spread, drawn twice. On a linear axis the "
            "heavy-tailed one has a slightly higher and narrower peak. On a logarithmic axis its "
            "tails reach far beyond those of the bell curve, out to many standard deviations."
        ),
    )


def sampling_error(found: Mapping[int, ArrayLike], truth: float) -> HTML:
    """How sample kurtosis approaches its true value: sizes -> kurtosis of many samples each."""
    sizes = list(found)
    low, middle, high = (
        np.array([np.quantile(np.asarray(k), q) for k in found.values()]) for q in (0.05, 0.5, 0.95)
    )
    most = max(len(np.asarray(k)) for k in found.values())
    figure = figures.curves(
        {
            f"median of {most} samples, 5–95 %": (sizes, middle, low, high),
            "ceiling n − 2 + 1/(n − 1)": (sizes, [n - 2 + 1 / (n - 1) for n in sizes]),
        },
        "texts in the sample, n (logarithmic)",
        "sample kurtosis (logarithmic)",
        level=truth,
        level_label="true kurtosis",
    )
    axes = figure.axes[0]
    axes.set(xscale="log", yscale="log", xticks=sizes)
    axes.set_xticklabels([str(n) for n in sizes])
    axes.minorticks_off()
    return figures.show(
        figure,
        alt=(
            f"Sample kurtosis against sample size. The true value is {truth:.0f}. The median of "
            f"the samples is {middle[0]:.0f} with {sizes[0]} texts and {middle[-1]:.0f} with "
            f"{sizes[-1]:,}, and 90 percent of the samples with {sizes[-1]:,} texts lie between "
            f"{low[-1]:.0f} and {high[-1]:.0f}. All stay below the ceiling, which is close to n."
        ),
    )


# --- every neuron, every language -----------------------------------------------------------------


def corpora_table(tokens: pd.DataFrame) -> Styler:
    """The corpora and how the tokenizer splits them; `tokens` as `Pipeline.token_counts`."""
    larger = (tokens["documents"] == COUNTED).any()
    most = f" ({COUNTED:,} documents of larger ones)" if larger else ""
    return figures.table(
        tokens.rename(columns=lambda name: name.replace("_", " ")),
        f"The corpora that relevance is taken on, and how the model's tokenizer splits them{most}",
        {
            **dict.fromkeys(("documents", "characters", "bytes", "tokens"), "{:,}"),
            "tokens per document": "{:.1f}",
            "tokens per character": "{:.2f}",
            "tokens per byte": "{:.2f}",
        },
    )


def summary_table(summary: pd.DataFrame, n: int, window: int) -> Styler:
    """`scores.kurtosis_summary` of kurtosis over `n` windows of `window` tokens."""
    frame = summary.copy()
    frame.insert(1, "windows", n)
    quartiles = ["lower quartile", "median", "upper quartile", "largest"]
    return figures.table(
        frame,
        f"Kurtosis per language (windows of {window} tokens; ceiling {n - 2 + 1 / (n - 1):,.1f})",
        {
            "windows": "{:,}",
            "neurons": "{:,}",
            **dict.fromkeys(quartiles, "{:.1f}"),
            "below 3": "{:.1%}",
        },
    )


def layer_medians(kurtosis: Mapping[str, Tensor]) -> HTML:
    """The median kurtosis of each layer, one line per language."""
    medians = {x: values.nanmedian(dim=1).values.numpy() for x, values in kurtosis.items()}
    layers = np.arange(max(map(len, medians.values())))
    figure = figures.curves(
        {x: (layers, values) for x, values in medians.items()}, "layer", "median kurtosis"
    )
    figure.axes[0].set_xticks(layers[:: max(1, len(layers) // 8)])
    return figures.show(
        figure,
        alt="Median kurtosis by layer. "
        + " ".join(
            f"{x}: from {values.min():.1f} (layer {values.argmin()}) to {values.max():.1f} (layer "
            f"{values.argmax()})."
            for x, values in medians.items()
        ),
    )


def normalisation_table(found: pd.DataFrame, n_neurons: int, threshold: float) -> Styler:
    """`scores.by_normalisation` at a threshold, of so many neurons."""
    return figures.table(
        found,
        f"Share of all {n_neurons:,} neurons above {threshold:g}, and how many of them are not "
        "above it in any other language (contrast)",
        {column: "{:.1%}" for column in map(str, found) if column.endswith(": above")},
    )


# --- single neurons -------------------------------------------------------------------------------


def real_neurons(look: SecondLook, picked: Picked) -> list[HTML | Markdown]:
    """Figure 2 with the selected neuron of largest contrast, for each language in turn."""
    shown: list[HTML | Markdown] = []
    for language in look.values:
        which = language, LARGEST
        if which not in picked:
            shown.append(
                prose(f"*No neuron is selected for {as_code(language)}, so there is none to show.*")
            )
            continue
        layer, neuron = picked[which]
        samples = {x: v[which] for x, v in look.values.items() if v[which].std() > 0}
        found = ", ".join(
            f"{stats.kurtosis(v, fisher=False):.1f} in {x}" for x, v in samples.items()
        )
        n = len(look.values[language][which])
        shown += [
            prose(f"**Selected for {as_code(language)}: layer {layer}, neuron {neuron}**"),
            figures.show(
                figures.fig2_intuition(samples, language),
                alt=(
                    f"Relevance of neuron {neuron} of layer {layer} over {n} windows per language, "
                    "standardised, as densities on a linear and a logarithmic axis. Kurtosis is "
                    f"{found}."
                ),
            ),
        ]
    return shown


def neurons_table(look: SecondLook, picked: Picked, kurtosis: Mapping[str, Tensor]) -> Styler:
    """Kurtosis and mean |relevance| of the picked neurons under every language.

    "top 1 %" is what the most extreme hundredth of the windows adds to the sum of fourth powers.
    """
    rows, n = [], 0
    for which, (layer, neuron) in picked.items():
        language = which[0]
        r = look.values[language][which]
        n = len(r)
        fourth = np.sort((r - r.mean()) ** 4)[::-1]
        rows.append(
            {
                "selected for": f"{language}, {which[1].split()[0]}",
                "layer, neuron": f"{layer}, {neuron}",
                **{f"kurtosis {x}": kurtosis[x][layer, neuron].item() for x in kurtosis},
                **{f"mean |R| {x}": look.magnitude[x][layer, neuron].item() for x in kurtosis},
                "top 1 %": fourth[: max(1, n // 100)].sum() / fourth.sum(),
            }
        )
    return figures.table(
        pd.DataFrame(rows),
        f"The picked neurons, of the largest and of median contrast (n = {n:,} windows per "
        "language; relevance in logits)",
        {
            **{f"kurtosis {x}": "{:.1f}" for x in kurtosis},
            **{f"mean |R| {x}": "{:.3g}" for x in kurtosis},
            "top 1 %": "{:.0%}",
        },
    )


def outliers_table(
    look: SecondLook,
    picked: Picked,
    windows: Mapping[str, Tensor],
    tokenizer: PreTrainedTokenizerBase,
    most: int = 3,
) -> Styler:
    """The windows in which the neurons of largest contrast depart most from their mean, as text."""
    rows = []
    for language, kind in picked:
        if kind == LARGEST:
            r = look.values[language][language, kind]
            z = (r - r.mean()) / r.std()
            for i in np.argsort(-abs(z), kind="stable")[:most]:
                text = str(tokenizer.decode(windows[language][int(i)]))
                text = text.replace(tokenizer.bos_token or "\0", " ‖ ").replace("\ufffd", "")
                rows.append({"selected for": language, "z": z[i], "window": text.strip(" ‖")})
    return figures.table(
        pd.DataFrame(rows, columns=["selected for", "z", "window"]),
        "The three windows furthest out, in standard deviations",
        {"z": "{:+.1f}"},
    )


# --- large is not heavy-tailed --------------------------------------------------------------------


def magnitude_figure(
    magnitude: Mapping[str, Tensor], kurtosis: Mapping[str, Tensor], together: pd.DataFrame
) -> HTML:
    """Kurtosis against mean |relevance|; `together` as `scores.magnitude_and_kurtosis`."""
    rho = dict(zip(together["language"], together["rho"], strict=True))
    return figures.show(
        figures.scatter(
            {x: (magnitude[x].flatten(), kurtosis[x].flatten()) for x in kurtosis},
            "mean |relevance| in logits",
            "kurtosis",
            {x: f"{x}: rank correlation {r:+.2f}" for x, r in rho.items()},
        ),
        alt=(
            "Kurtosis against mean absolute relevance of every neuron, one panel per language, "
            "logarithmic axes. Rank correlation within layers: "
            + ", ".join(f"{x} {r:+.2f}" for x, r in rho.items())
            + "."
        ),
    )


def magnitude_table(together: pd.DataFrame) -> Styler:
    """`scores.magnitude_and_kurtosis` as a table."""
    names = {
        "rho": "rank correlation",
        "tenth": "neurons in each top tenth",
        "shared": "in both",
        "chance": "by chance",
    }
    return figures.table(
        together.drop(columns="against").rename(columns=names),
        "Mean |relevance| and kurtosis: do they point at the same neurons?",
        {"rank correlation": "{:+.2f}", "by chance": "{:.1f}"},
    )


def magnitude_words(together: pd.DataFrame) -> Markdown:
    """How many neurons both top tenths share, against chance."""
    how = {"more": "more than", "fewer": "fewer than", "open": "not far from"}
    lines = [
        f"{as_code(row['language'])} {row['shared']} of {row['tenth']}, {how[row['against']]} the "
        f"{row['chance']:.0f} of chance"
        for row in together.to_dict("records")
    ]
    return prose(
        "Of the neurons in the top tenth by mean |relevance|, in the top tenth by kurtosis too "
        "are: " + "; ".join(lines) + "."
    )


# --- would other windows give the same answer? ----------------------------------------------------


def same_and_different(agreement: pd.DataFrame) -> tuple[float, float, float]:
    """Mean correlation of halves of one language, of two, and the largest range over splits.

    `agreement` as `halves.halves_agreement` returns it; the range is that of one language's halves.
    """
    own = agreement[agreement["a"] == agreement["b"]]
    different = float(agreement.loc[agreement["a"] != agreement["b"], "rho"].mean())
    return float(own["rho"].mean()), different, float(own.groupby("a")["rho"].agg(np.ptp).max())


def agreement_table(agreement: pd.DataFrame, windows: int) -> Styler:
    """`halves.halves_agreement` as a matrix, mean over splits, for halves of so many windows."""
    languages = list(dict.fromkeys(agreement["a"]))
    matrix = agreement.pivot_table(index="a", columns="b", values="rho").loc[languages, languages]
    return figures.table(
        matrix.rename_axis(index="half A of", columns=None).reset_index(),
        "Rank correlation of kurtosis between half A of one language and half B of another, "
        f"within layers ({windows} windows each, mean of {agreement['split'].nunique()} splits)",
        dict.fromkeys(languages, "{:+.2f}"),
    )


def agreement_words(agreement: pd.DataFrame) -> Markdown:
    """Whether kurtosis repeats itself, and whether it depends on the language."""
    same, different, spread = same_and_different(agreement)
    if same < 0.2:
        verdict = "So the score hardly repeats itself, and nothing follows about languages."
    elif same - different > 0.1 and same > 0.5:
        verdict = "So the score is reproducible and it depends on the language."
    elif same - different > 0.1:
        verdict = (
            "So the score does depend on the language, but half of the windows settle it only "
            "loosely."
        )
    else:
        verdict = (
            "So two languages agree about as well as two halves of one: on this measure, kurtosis "
            "says little about language."
        )
    return prose(
        f"Two halves of one language agree to {same:+.2f} on average (over the splits this moves "
        f"by {spread:.2f} at most), halves of two different languages to {different:+.2f}. "
        + verdict
    )


def between_table(correlations: pd.DataFrame, n: int) -> Styler:
    """`halves.between_languages` of whole languages of `n` windows."""
    return figures.table(
        correlations.rename_axis("language").reset_index(),
        f"Rank correlation of kurtosis between languages, within layers ({n:,} windows each)",
        dict.fromkeys(correlations, "{:+.2f}"),
    )


def repeat_table(again: pd.DataFrame, n_splits: int) -> Styler:
    """`halves.selected_again`: neurons selected from two halves of the windows."""
    names = {
        "first": "half A",
        "second": "half B",
        "both": "in both",
        "jaccard": "Jaccard",
        "chance": "by chance",
    }
    return figures.table(
        again.rename(columns=names),
        f"Neurons selected from two halves of the windows (means of {n_splits} splits)",
        {
            **dict.fromkeys(["half A", "half B", "in both", "by chance"], "{:.1f}"),
            "Jaccard": "{:.2f}",
        },
    )


# --- Figure 3 -------------------------------------------------------------------------------------


def target_against_rest(
    normalised: Mapping[str, Tensor], threshold: float
) -> list[HTML | Markdown]:
    """Figure 3 for each target language in turn."""
    shown: list[HTML | Markdown] = []
    for x in normalised:
        masks, _ = regions(normalised, x, threshold)
        selected = masks["target only (selected)"]
        shown += [
            prose(f"**Target language {as_code(x)}**"),
            figures.show(
                figures.fig3_contrast(normalised, x, threshold),
                alt=(
                    f"Scatter of normalised kurtosis, {x} against the maximum of the other "
                    f"languages, one panel per layer, thresholds at {threshold:g}. The shaded "
                    f"lower right holds {int(selected.sum())} neurons "
                    f"({int(selected.sum()) / selected.numel():.1%}), by layer "
                    f"{selected.sum(1).tolist()}; {int(masks['target and another'].sum())} are "
                    "above the threshold on both axes."
                ),
            ),
        ]
    return shown


def regions_table(counts: pd.DataFrame, threshold: float) -> Styler:
    """`scores.region_counts` at a threshold."""
    return figures.table(
        counts,
        f"Neurons in each region of Figure 3 (threshold {threshold:g}); last column: expected in "
        "the selected region if the two axes were unrelated",
        {"selected if unrelated": "{:.1f}"},
    )


def null_table(found: pd.DataFrame, windows: int, n_splits: int) -> Styler:
    """`halves.without_languages` beside the real languages, for parts of so many windows."""
    n_parts = len(found) - 1
    frame = pd.DataFrame(
        {
            "compared": [
                f"{n_parts} random parts of {x}" if x else "the real languages"
                for x in found["language"]
            ],
            "selected per target": found["selected"],
            f"over {n_splits} splits": [
                f"{low:.0f}\u00a0to\u00a0{high:.0f}"
                for low, high in zip(found["low"], found["high"], strict=True)
            ],
        }
    )
    return figures.table(
        frame,
        f"Neurons in Figure 3's lower right ({windows} windows per language or part)",
        {"selected per target": "{:.1f}"},
    )


def real_and_pretended(found: pd.DataFrame) -> tuple[float, float]:
    """Neurons per target with real languages, and with parts of one (mean over languages)."""
    by = found.set_index("language")["selected"]
    return float(by[""]), float(by.drop("").mean())


def null_words(found: pd.DataFrame) -> Markdown:
    """How much of Figure 3's selected region sampling alone explains."""
    real, pretended = real_and_pretended(found)
    ratio = real / pretended if pretended else np.nan
    if ratio >= 2:
        verdict = f"{ratio:.1f} times as many: most of it is no matter of sampling."
    elif ratio > 1.15:
        verdict = f"{ratio:.1f} times as many: sampling alone explains most of it."
    elif ratio <= 1.15:
        verdict = "hardly more. Its size, then, is no evidence of language-related structure."
    else:
        verdict = "too few to compare."
    return prose(
        f"Real languages fill the region with {real:.0f} neurons per target, parts of one language "
        f"with {pretended:.0f}: {verdict}"
    )


def separation_words(found: pd.DataFrame) -> Markdown:
    """Whether more neurons are selected than if the languages were unrelated."""
    said = {"more": "clearly more than", "less": "clearly fewer than", "open": "no other than"}
    lines = [
        f"{as_markdown(row['target'])} {row['selected']:,}, {said[row['outcome']]} the "
        f"{row['unrelated']:,.0f} of unrelated scores (p = {row['q']:.2g})"
        for row in found.to_dict("records")
    ]
    return prose(
        "Are there more neurons in the region than if a neuron's scores had nothing to do with "
        f"each other? {'; '.join(lines)}. (Corrected over the languages. Fewer means that scores "
        "in two languages go together: what is high in one is high in the other.)"
    )


def groups_table(found: pd.DataFrame, windows: int | None = None) -> Styler:
    """What CRANE and LAPE select for groups of text; `compared` says what distinguishes them."""
    mean = found.groupby("compared", sort=False)[["CRANE", "unrelated", "LAPE"]].mean()
    frame = mean.reset_index().rename(columns={"unrelated": "CRANE, if unrelated"})
    return figures.table(
        frame,
        "Neurons selected per group of texts, mean over groups"
        + (f" ({windows} windows a group)" if windows else ""),
        dict.fromkeys(frame.columns[1:], "{:.1f}"),
    )


def groups_in_words(found: pd.DataFrame) -> Markdown:
    """What of the sets stays when languages have the same content, and when there is one language.

    `found` has CRANE's and LAPE's numbers by what is `compared`, languages as they come first.
    """
    mean = found.groupby("compared", sort=False)[["CRANE", "LAPE"]].mean()
    said = [
        f"{as_markdown(name)}, {row['CRANE']:.0f} and {row['LAPE']:.0f}"
        for name, row in mean.iterrows()
    ]
    return prose(
        f"Neurons per group that CRANE and LAPE select, on average: {'; '.join(said)}. Where one "
        "language is divided there is nothing specific to find, so what is selected there comes of "
        "chance and of what the texts are about; only what languages have beyond it is theirs."
    )


def influence_table(summary: pd.DataFrame) -> Styler:
    """`influence.influence_summary`: what of each language's set hangs on single windows."""
    names = {
        "n": "neurons",
        "kurtosis": "median kurtosis",
        "without": "without its window",
        "lost": "lost without it",
        "gone": "lost with one window",
        "window": "which",
        "shared": "kept on average",
    }
    columns = ["language", *names]
    return figures.table(
        summary[columns].rename(columns=names),
        "A set without single windows: each neuron without the window that its kurtosis rests on "
        "most, then the one window without which the set loses most, and the mean over windows",
        {
            "median kurtosis": "{:.1f}",
            "without its window": "{:.1f}",
            "kept on average": "{:.1%}",
        },
    )


def influence_words(summary: pd.DataFrame) -> Markdown:
    """How much of the sets hangs on single windows, in a sentence."""
    lines = [
        f"{as_markdown(row['language'])}: {row['lost']} of {row['n']} neurons are selected only "
        f"because of a single window each, and {row['gone']} go with the one window that matters "
        "most"
        for row in summary.to_dict("records")
    ]
    return prose("; ".join(lines) + ".")


# --- the end of the page --------------------------------------------------------------------------


def by_magnitude_table(found: Mapping[str, tuple[int, int, int, float]]) -> Styler:
    """Language -> neurons selected by mean |relevance|, by kurtosis, by both, both by chance."""
    names = ["by magnitude", "by kurtosis", "in both", "by chance"]
    frame = pd.DataFrame(found.values(), columns=names)
    frame.insert(0, "language", list(found))
    caption = "Selected by mean |relevance| and by kurtosis"
    return figures.table(frame, caption, {"by chance": "{:.1f}"})


def what_kurtosis_shows(
    summary: pd.DataFrame,
    together: pd.DataFrame,
    agreement: pd.DataFrame,
    again: pd.DataFrame,
    null: pd.DataFrame,
) -> Markdown:
    """What this page's numbers do and do not show, as a list."""
    same, _, _ = same_and_different(agreement)
    real, pretended = real_and_pretended(null)
    gained = (again["both"] / again["chance"]).mean()
    back = again["both"] / again[["first", "second"]].mean(axis=1)
    rho = _listed(together["rho"], together["language"])
    return prose(
        "- They show how *unevenly* a neuron's relevance is spread over texts: the medians are "
        f"{summary['median'].min():.1f} to {summary['median'].max():.1f}, where a bell curve has "
        "3. They do not show how much a neuron contributes: the rank correlation with mean "
        f"|relevance| is {rho}.\n"
        "- They come with an error. Two halves of one language's windows rank neurons alike to "
        f"{same:+.2f}, and {back.min():.0%} to {back.max():.0%} of a selection come back from the "
        f"other half, {gained:.1f} times what chance gives.\n"
        f"- A filled lower right of Figure 3 is expected even without languages: {pretended:.0f} "
        f"neurons per target there with parts of one language, {real:.0f} with real ones.\n"
        "- They say nothing yet about what the model *needs*. A neuron may have heavy tails in "
        "one language because of a few odd texts; only taking it away shows whether anything "
        "depends on it. That is the subject of notebook 03b."
    )


def _listed(values: Sequence[float] | pd.Series, names: Sequence[str] | pd.Series) -> str:
    told = zip(values, names, strict=True)
    return ", ".join(f"{v:+.2f} ({as_markdown(name)})" for v, name in told)
