# %% [markdown]
# # From relevance to kurtosis
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** compute Equation 2 and say what it measures and what it ignores; say how
# far a kurtosis can be trusted; and read Figures 2 and 3 with the right amount of doubt.
#
# **It assumes** that you know what relevance is ([notebook 01](01_relevance)), and means and
# standard deviations.
#
# **It takes** half an hour to read; the computer needs about a minute.
#
# **It covers** §3.3 and §5.1, Equation 2, Figures 2 and 3, and lines 8 to 16 of Algorithm 1 of the
# paper {cite:p}`le2026crane`.
# :::
#
# Relevance says how much each neuron contributed to what the model predicts in *one* text. A method
# that looks for the neurons of a *language* has to turn many texts into one verdict. CRANE's idea
# is to look at how unevenly a neuron's relevance is spread over the texts. This notebook takes that
# idea apart before it is used.

# %% [markdown]
# ## Parameters

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
dtype = "float32"  # type of the weights: float32, bfloat16 or float16
device = "cpu"  # where the model runs: cpu, cuda, or auto for a GPU if any
offline = True  # False: weights, corpora and benchmarks may come from the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
corpus = "data/testbed/corpus/attribution"  # held-out text for attribution, one file per language
text_column = "text"  # column of JSON lines or Parquet that holds the documents
max_document_tokens = None  # tokens a document is cut to; None: it is not cut
deduplicate = True  # leave out documents that have occurred before
corpus_documents = 5000  # documents per language that are taken from a corpus on the hub
n_samples = 1000  # windows of text per language that relevance is taken on
window = 64  # tokens per window of text
batch_size = 50  # windows that go through the model at a time
seed = 0  # seed of everything that is drawn at random, except training
objective = "next_token"  # what is explained: next_token, next_token_logprob or last_max
reduction = "sum"  # how a window's tokens become one value per neuron: sum or mean
normalisation = "zscore"  # scale within a layer: zscore, ratio, robust or global
threshold = 1.0  # normalised score above which a neuron is a candidate
n_splits = 5  # random splits of the windows, for the sampling error
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from scipy import stats

from crane_core.attribution import neuron_relevance
from crane_core.moments import StreamingMoments
from crane_core.selection import NORMALISATIONS, margins, normalise, overlap, select
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import figures
from crane_lab.store import write_table

settings = Settings.of(globals())
pipeline = Pipeline(settings)
shape = pipeline.shape["intermediate"]  # (layers, neurons)
rng = np.random.default_rng(settings.seed)
results = Path(run_dir) / "results"

# %% [markdown]
# ## Equation 2 by hand
#
# Notebook 01 ended with one number per neuron and text: the neuron's share of what the model
# predicts there. Over many texts in one language those numbers form a distribution, and CRANE sums
# it up by its kurtosis {cite:p}`decarlo1997kurtosis`:
#
# $$
# \text{kurtosis}(R_n) = \frac{\mathbb{E}\!\left[(R_n - \mu)^4\right]}{\sigma^4} . \tag{2}
# $$
#
# Read it from the inside. Subtract the neuron's mean $\mu$, divide by its standard deviation
# $\sigma$, and average the *fourth powers* of what you get. A text one standard deviation away from
# the mean adds 1 to that average, a text five standard deviations away adds 625. So the average
# belongs to the few texts far out, if there are any.


# %%
def kurtosis(values):
    """Equation 2."""
    z = (values - values.mean()) / values.std()
    return (z**4).mean()


texts = 1000
everyone = np.ones(texts)
examples = {
    "a coin: −1 on half of the texts, +1 on the other half": np.resize([-1.0, 1.0], texts),
    "a bell curve": rng.standard_normal(texts),
    "1 on every tenth text, else 0": everyone * (np.arange(texts) % 10 == 0),
    "1 on every hundredth text, else 0": everyone * (np.arange(texts) % 100 == 0),
    "1 on a single text, else 0": everyone * (np.arange(texts) == 0),
}
figures.table(
    pd.DataFrame(
        [
            {"relevance": name, "mean": x.mean(), "std": x.std(), "kurtosis": kurtosis(x)}
            for name, x in examples.items()
        ]
    ),
    f"Five made-up neurons over {texts:,} texts",
    {"mean": "{:.3f}", "std": "{:.3f}", "kurtosis": "{:.1f}"},
)

# %% [markdown]
# A normal distribution has kurtosis 3. The rarer the texts on which a neuron does something unlike
# its usual self, the higher the value.
#
# ## Magnitude does not enter
#
# Now take one neuron, relevant on a few texts, and change it in three ways: a hundred times the
# relevance, a constant added on every text, and the sign turned round.

# %%
few = np.where(rng.random(texts) < 0.05, rng.standard_normal(texts), 0.0)
variants = {
    "relevant on about 5 % of the texts": few,
    "the same, times 100": 100 * few,
    "the same, plus 10 on every text": few + 10,
    "the same, with the opposite sign": -few,
    "a bell curve, times 100": 100 * examples["a bell curve"],
}
figures.table(
    pd.DataFrame(
        [
            {"relevance": name, "mean |relevance|": abs(x).mean(), "kurtosis": kurtosis(x)}
            for name, x in variants.items()
        ]
    ),
    "Kurtosis does not see scale, shift or sign",
    {"mean |relevance|": "{:.3f}", "kurtosis": "{:.2f}"},
)

# %% [markdown]
# This is no accident of the example. If every value $R$ becomes $aR + b$, the mean becomes
# $a\mu + b$ and the standard deviation $|a|\sigma$. The $b$ cancels in the difference, and $a^4$
# cancels between numerator and denominator.
#
# Keep three consequences in mind, because the rest of the method inherits them:
#
# - A neuron that contributes a millionth of a logit can have the same kurtosis as one that decides
#   predictions.
# - A neuron that contributes strongly and *evenly* to every text of a language, which one might
#   well call necessary for it, has an unremarkable kurtosis.
# - A neuron whose rare contributions are harmful scores like one whose rare contributions help.
#
# Kurtosis proposes. Whether the model needs what it proposes is decided by masking, in
# [notebook 03](03_selecting_and_masking).
#
# ## Tails, not the bulk
#
# The paper's Figure 2 is a sketch of the intuition. Here is ours, simulated: two distributions with
# the *same* spread. The left panel shows the bulk, where the heavy-tailed one looks merely a bit
# slimmer. On the right, with a logarithmic axis, you see where the difference in kurtosis comes
# from.

# %% tags=["hide-input"]
figures.show(
    figures.fig2_intuition(),
    alt=(
        "Two simulated densities of equal spread, drawn twice. On a linear axis the heavy-tailed "
        "one has a slightly higher and narrower peak. On a logarithmic axis its tails reach far "
        "beyond those of the bell curve, out to many standard deviations."
    ),
)

# %% [markdown]
# ## A kurtosis has a ceiling, and an error
#
# Two things follow from living in the tails. A sample of $n$ texts cannot have a kurtosis above
# $n - 2 + 1/(n-1)$ {cite:p}`johnson1979bounds`: the single odd text in the first table reaches
# exactly that. And a sample that happens to miss the rare texts reports a much smaller value than
# the truth. The next figure draws samples of growing size from a neuron that is silent on 98 % of
# texts and bell-shaped on the others, so that its true kurtosis is $3/0.02 = 150$ (the first
# exercise asks why). Samples without a single odd text have no kurtosis and are left out.

# %%
share, draws = 0.02, 300
sizes = [25, 50, 100, 200, 400, 800, 1600, 3200]
simulated = []
for n in sizes:
    x = np.where(rng.random((draws, n)) < share, rng.standard_normal((draws, n)), 0.0)
    simulated.append(stats.kurtosis(x[x.std(axis=1) > 0], axis=1, fisher=False))
low, middle, high = (np.array([np.quantile(k, q) for k in simulated]) for q in (0.05, 0.5, 0.95))

# %% tags=["hide-input"]
figure = figures.curves(
    {
        "median of 300 samples, 5–95 %": (sizes, middle, low, high),
        "ceiling n − 2 + 1/(n − 1)": (sizes, [n - 2 + 1 / (n - 1) for n in sizes]),
    },
    "texts in the sample, n (logarithmic)",
    "sample kurtosis (logarithmic)",
    level=3 / share,
    level_label="true kurtosis",
)
figure.axes[0].set(xscale="log", yscale="log", xticks=sizes)
figure.axes[0].set_xticklabels([str(n) for n in sizes])
figure.axes[0].minorticks_off()
figures.show(
    figure,
    alt=(
        f"Sample kurtosis against sample size. The true value is {3 / share:.0f}. The median of "
        f"the samples is {middle[0]:.0f} with {sizes[0]} texts and {middle[-1]:.0f} with "
        f"{sizes[-1]:,}, and 90 percent of the samples with {sizes[-1]:,} texts lie between "
        f"{low[-1]:.0f} and {high[-1]:.0f}. All stay below the ceiling, which is close to n."
    ),
)

# %% [markdown]
# That is why every language here gets equally many windows of equally many tokens. With unequal
# numbers the language with more text would tend to show the heavier tails for that reason alone.
#
# ## In one pass
#
# Equation 2 seems to need all texts at once: first for the mean, then for the powers. `moments`
# does it in one pass, batch by batch, with five numbers per neuron whatever the number of texts,
# and two such streams can be merged. On a small slice we can afford the textbook way as well:

# %%
first = settings.languages[0]
slice_ = pipeline.windows[first][:60]
relevance = neuron_relevance(
    pipeline.model, slice_, objective=settings.objective, reduction=settings.reduction
).cpu()

front, back = StreamingMoments(shape), StreamingMoments(shape)
front.update(relevance[:17])
back.update(relevance[17:])
back.merge(front)

textbook = stats.kurtosis(relevance.double().numpy(), axis=0, fisher=False)
difference = np.nanmax(abs(back.kurtosis().numpy() / textbook - 1))
print(
    f"{len(slice_)} texts, {textbook.size:,} neurons, largest relative difference {difference:.0e}"
)
assert difference < 1e-9

# %% [markdown]
# ## Every neuron, every language
#
# Now for real: relevance of all windows of a language, streamed into moments. The result is kept in
# the store, so that the other notebooks start from it.
#
# The windows are cut from each language's corpus. They have equally many tokens, which is not
# equally much text: a tokenizer splits languages unevenly.

# %% tags=["hide-input"]
tokens = pipeline.token_counts()
write_table(tokens, results / "corpus_tokens.csv")
figures.table(
    tokens.rename(columns=lambda name: name.replace("_", " ")),
    "The corpora that relevance is taken on, and how the model's tokenizer splits them",
    {
        **dict.fromkeys(("documents", "characters", "bytes", "tokens"), "{:,}"),
        "tokens per document": "{:.1f}",
        "tokens per character": "{:.2f}",
        "tokens per byte": "{:.2f}",
    },
)

# %%
raw = pipeline.kurtosis()
normalised = pipeline.normalised()

# %% tags=["hide-input"]
n = settings.n_samples
ceiling = n - 2 + 1 / (n - 1)
rows = []
for language, values in raw.items():
    known = values[~values.isnan()].numpy()
    q25, q50, q75 = np.quantile(known, [0.25, 0.5, 0.75])
    rows.append(
        {
            "language": language,
            "windows": n,
            "neurons": values.numel(),
            "constant": int(values.isnan().sum()),
            "lower quartile": q25,
            "median": q50,
            "upper quartile": q75,
            "largest": known.max(),
            "below 3": (known < 3).mean(),
        }
    )
summary = pd.DataFrame(rows)
figures.table(
    summary,
    f"Kurtosis per language (windows of {settings.window} tokens; ceiling {ceiling:,.1f})",
    {
        "windows": "{:,}",
        "neurons": "{:,}",
        **dict.fromkeys(["lower quartile", "median", "upper quartile", "largest"], "{:.1f}"),
        "below 3": "{:.1%}",
    },
)

# %% [markdown]
# A *constant* neuron has the same relevance on every window. Its $\sigma$ is zero and Equation 2
# says nothing, so it has no score and is never selected.
#
# ## One scale per layer
#
# Do layers differ in level, and languages? The figure shows each layer's median.

# %% tags=["hide-input"]
layers = np.arange(shape[0])
medians = {x: values.nanmedian(dim=1).values.numpy() for x, values in raw.items()}
figure = figures.curves(
    {x: (layers, values) for x, values in medians.items()}, "layer", "median kurtosis"
)
figure.axes[0].set_xticks(layers[:: max(1, len(layers) // 8)])
figures.show(
    figure,
    alt="Median kurtosis by layer. "
    + " ".join(
        f"{x}: from {values.min():.1f} (layer {values.argmin()}) to {values.max():.1f} (layer "
        f"{values.argmax()})."
        for x, values in medians.items()
    ),
)

# %% [markdown]
# The paper normalises "within each layer" and does not say how. By default we take the z-score:
# minus the layer's mean, divided by the layer's standard deviation. Three other readings are one
# parameter away ([choice](choice-normalisation)). The threshold stays the same while the scale
# changes, so the number of candidates changes with it: choosing a normalisation is choosing a
# budget.

# %% tags=["hide-input"]
rows = []
for how in NORMALISATIONS:
    scores = {x: normalise(values, how) for x, values in raw.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty set is a result here
        counts = {x: len(select(scores, x, threshold=settings.threshold)) for x in scores}
    above = {x: (s > settings.threshold).double().mean().item() for x, s in scores.items()}
    rows.append(
        {
            "normalisation": how,
            **{f"{x}: above": above[x] for x in scores},
            **{f"{x}: contrast": counts[x] for x in scores},
        }
    )
figures.table(
    pd.DataFrame(rows),
    f"Share of all {raw[first].numel():,} neurons above {settings.threshold:g}, and how many of "
    "them are not above it in any other language (contrast)",
    {f"{x}: above": "{:.1%}" for x in raw},
)

# %% [markdown]
# ## A second look at the windows
#
# Kurtosis alone leaves questions open: how large was the relevance, what is in the tails, and would
# other windows give the same answer? One more pass answers them. It keeps, for every language,
#
# - moments of |relevance|, for its mean;
# - the moments of twenty blocks of windows apart, to be merged in any grouping we like;
# - the single values of a handful of neurons, picked *by rule*: for each language, of the neurons
#   that the default rule selects, the one with the largest contrast (target minus the highest other
#   language) and the one with the median contrast.

# %%
picked = {}  # (language, which) -> (layer, neuron)
own_and_other = {x: margins(normalised, x) for x in settings.languages}
for language, (own, other) in own_and_other.items():
    chosen = select(normalised, language, "contrast", settings.threshold)
    ranked = sorted(chosen, key=lambda pair: float((other - own)[pair]))
    if ranked:
        picked[language, "largest contrast"] = ranked[0]
        picked[language, "median contrast"] = ranked[len(ranked) // 2]

# %%
blocks, magnitude, values = {}, {}, {}
columns = torch.tensor(list(picked.values()), dtype=torch.long).reshape(-1, 2)
for language, windows in pipeline.windows.items():
    blocks[language], size, kept = [], StreamingMoments(shape), []
    for ids in windows.split(-(-n // 20)):
        relevance = neuron_relevance(
            pipeline.model, ids, objective=settings.objective, reduction=settings.reduction
        ).cpu()
        block = StreamingMoments(shape)
        block.update(relevance)
        blocks[language].append(block)
        size.update(relevance.abs())
        kept.append(relevance[:, columns[:, 0], columns[:, 1]])
    magnitude[language] = size.mean()
    values[language] = dict(zip(picked, torch.cat(kept).T.double().numpy(), strict=True))


def merged(parts):
    """The moments of several blocks together."""
    total = StreamingMoments(shape)
    for part in parts:
        total.merge(part)
    return total


again = merged(blocks[first]).kurtosis()
assert torch.allclose(again, raw[first], rtol=1e-3, equal_nan=True)  # the same windows, regrouped

# %% [markdown]
# ## Figure 2, with real neurons
#
# For each language, the selected neuron with the largest contrast, under all languages. These are
# the clearest cases there are, found by searching all neurons; the table below puts a median one
# beside each. What lies beyond twelve standard deviations is counted at the edge.

# %% tags=["hide-input"]
for language in settings.languages:
    which = language, "largest contrast"
    if which not in picked:
        display(Markdown(f"*No neuron is selected for `{language}`, so there is none to show.*"))
        continue
    layer, neuron = picked[which]
    samples = {x: v[which] for x, v in values.items() if v[which].std() > 0}
    found = ", ".join(f"{kurtosis(v):.1f} in {x}" for x, v in samples.items())
    display(Markdown(f"**Selected for `{language}`: layer {layer}, neuron {neuron}**"))
    display(
        figures.show(
            figures.fig2_intuition(samples, language),
            alt=(
                f"Relevance of neuron {neuron} of layer {layer} over {n} windows per language, "
                "standardised, as densities on a linear and a logarithmic axis. Kurtosis is "
                f"{found}."
            ),
        )
    )

# %% [markdown]
# Two columns of the table deserve a look. *Top 1 %* is the share of the sum of fourth powers that
# the most extreme hundredth of the windows contributes. *Mean |R|* shows what the figure, which is
# standardised, hides.

# %% tags=["hide-input"]
rows = []
for which, (layer, neuron) in picked.items():
    language = which[0]
    r = values[language][which]
    fourth = np.sort((r - r.mean()) ** 4)[::-1]
    rows.append(
        {
            "selected for": f"{language}, {which[1].split()[0]}",
            "layer, neuron": f"{layer}, {neuron}",
            **{f"kurtosis {x}": raw[x][layer, neuron].item() for x in raw},
            **{f"mean |R| {x}": magnitude[x][layer, neuron].item() for x in raw},
            "top 1 %": fourth[: max(1, n // 100)].sum() / fourth.sum(),
        }
    )
figures.table(
    pd.DataFrame(rows),
    f"The picked neurons, of the largest and of median contrast (n = {n:,} windows per language; "
    "relevance in logits)",
    {
        **{f"kurtosis {x}": "{:.1f}" for x in raw},
        **{f"mean |R| {x}": "{:.3g}" for x in raw},
        "top 1 %": "{:.0%}",
    },
)

# %% [markdown]
# What is in such a tail? These are the windows in which the neuron with the largest contrast
# departs most from its mean. (Windows are cut from a stream of documents, so they begin and end
# anywhere; ‖ marks where a new document begins.)

# %% tags=["hide-input"]
rows = []
for which in picked:
    language, kind = which
    if kind == "largest contrast":
        r = values[language][which]
        z = (r - r.mean()) / r.std()
        for i in np.argsort(-abs(z), kind="stable")[:3]:
            text = pipeline.tokenizer.decode(pipeline.windows[language][int(i)])
            text = text.replace(pipeline.tokenizer.bos_token or "\0", " ‖ ").replace("\ufffd", "")
            rows.append({"selected for": language, "z": z[i], "window": text.strip(" ‖")})
figures.table(
    pd.DataFrame(rows, columns=["selected for", "z", "window"]),
    "The three windows furthest out, in standard deviations",
    {"z": "{:+.1f}"},
)

# %% [markdown]
# ## Large is not heavy-tailed
#
# Above we saw that kurtosis *can* ignore magnitude. Does it, on this model? Each point is a neuron.
# The rank correlation says whether neurons with more relevance also tend to have a higher kurtosis;
# it is taken within layers and then averaged, because layers differ in both.

# %% tags=["hide-input"]
correlation, shared = {}, {}
tenth = raw[first].numel() // 10
for x in settings.languages:
    by_layer = [
        stats.spearmanr(m.numpy(), k.numpy(), nan_policy="omit").statistic
        for m, k in zip(magnitude[x], raw[x], strict=True)
    ]
    correlation[x] = float(np.nanmean(by_layer))
    # The same rule on both: z-scores within layers, the top tenth of all neurons.
    top = [
        select(
            {x: normalise(scores.masked_fill(raw[x].isnan(), torch.nan))}, x, "top", budget=tenth
        )
        for scores in (magnitude[x], raw[x])
    ]
    shared[x] = overlap(*top)
figures.show(
    figures.scatter(
        {x: (magnitude[x].flatten(), raw[x].flatten()) for x in raw},
        "mean |relevance| in logits",
        "kurtosis",
        {x: f"{x}: rank correlation {r:+.2f}" for x, r in correlation.items()},
    ),
    alt=(
        "Kurtosis against mean absolute relevance of every neuron, one panel per language, "
        "logarithmic axes. Rank correlation within layers: "
        + ", ".join(f"{x} {r:+.2f}" for x, r in correlation.items())
        + "."
    ),
)

# %% tags=["hide-input"]
display(
    figures.table(
        pd.DataFrame(
            [
                {
                    "language": x,
                    "rank correlation": correlation[x],
                    "neurons in each top tenth": tenth,
                    "in both": o.shared,
                    "by chance": o.expected,
                }
                for x, o in shared.items()
            ]
        ),
        "Mean |relevance| and kurtosis: do they point at the same neurons?",
        {"rank correlation": "{:+.2f}", "by chance": "{:.1f}"},
    )
)
lines = []
for x, o in shared.items():
    fewer = stats.hypergeom.cdf(o.shared, raw[x].numel(), tenth, tenth) < 0.01
    how = "more than" if o.p_value < 0.01 else "fewer than" if fewer else "not far from"
    lines.append(f"`{x}` {o.shared} of {tenth}, {how} the {o.expected:.0f} of chance")
display(
    Markdown(
        "Of the neurons in the top tenth by mean |relevance|, in the top tenth by kurtosis too "
        "are: " + "; ".join(lines) + "."
    )
)

# %% [markdown]
# ## Would other windows give the same answer?
#
# Split the windows of every language at random into two halves, compute kurtosis from each half,
# and compare. If the ranking of neurons is a property of model and language, the halves agree. If
# it mostly hangs on which rare windows were drawn, they do not. Blocks of windows are split rather
# than single ones, so that a document cut in two mostly stays on one side, and merging their
# moments is all it takes.


# %%
def parts(language, count, split):
    """Normalised kurtosis from `count` random, equally large parts of a language's windows."""
    usable = blocks[language][: len(blocks[language]) // count * count]
    order = np.random.default_rng(split).permutation(len(usable)).reshape(count, -1)
    return [
        normalise(merged([usable[i] for i in part]).kurtosis(), settings.normalisation)
        for part in order
    ]


def windows_per(count):
    """How many windows each of `count` parts holds."""
    return len(blocks[first]) // count * -(-n // 20)


def rank_correlation(a, b):
    """Spearman's, over all neurons with a score in both."""
    return stats.spearmanr(a.flatten().numpy(), b.flatten().numpy(), nan_policy="omit").statistic


halves = [{x: parts(x, 2, split) for x in settings.languages} for split in range(n_splits)]
agreement = pd.DataFrame(
    {
        b: {
            a: np.mean([rank_correlation(split[a][0], split[b][1]) for split in halves])
            for a in settings.languages
        }
        for b in settings.languages
    }
)

# %% tags=["hide-input"]
spread = max(
    np.ptp([rank_correlation(split[x][0], split[x][1]) for split in halves])
    for x in settings.languages
)
display(
    figures.table(
        agreement.rename_axis("half A of").reset_index(),
        "Rank correlation of normalised kurtosis between half A of one language and half B of "
        f"another ({windows_per(2)} windows each, mean of {n_splits} splits)",
        dict.fromkeys(settings.languages, "{:+.2f}"),
    )
)
same = np.diag(agreement.to_numpy()).mean()
different = agreement.to_numpy()[~np.eye(len(agreement), dtype=bool)].mean()
display(
    Markdown(
        f"Two halves of one language agree to {same:+.2f} on average (over the splits this moves "
        f"by {spread:.2f} at most), halves of two different languages to {different:+.2f}. "
        + (
            "So the score hardly repeats itself, and nothing follows about languages."
            if same < 0.2
            else "So the score is reproducible and it depends on the language."
            if same - different > 0.1 and same > 0.5
            else "So the score does depend on the language, but half of the windows settle it "
            "only loosely."
            if same - different > 0.1
            else "So two languages agree about as well as two halves of one: on this measure, "
            "kurtosis says little about language."
        )
    )
)

# %% [markdown]
# The diagonal is the ceiling for everything below: kurtosis cannot tell languages apart more
# reliably than it repeats itself. Between whole languages, with all windows:

# %% tags=["hide-input"]
between = pd.DataFrame(
    {
        b: {a: rank_correlation(normalised[a], normalised[b]) for a in settings.languages}
        for b in settings.languages
    }
)
figures.table(
    between.rename_axis("language").reset_index(),
    f"Rank correlation of normalised kurtosis between languages ({n:,} windows each)",
    dict.fromkeys(settings.languages, "{:+.2f}"),
)

# %% [markdown]
# A question closer to what is done next: would the same neurons be *selected*? Apply the default
# rule to either set of halves and count the neurons that come back. The last column is what two
# random sets of those sizes in those layers would share.

# %% tags=["hide-input"]
rows = []
for x in settings.languages:
    found = []
    for split in halves:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            a, b = (
                select({k: v[i] for k, v in split.items()}, x, threshold=settings.threshold)
                for i in (0, 1)
            )
        found.append((len(a), len(b), overlap(a, b)))
    rows.append(
        {
            "language": x,
            "half A": np.mean([a for a, _, _ in found]),
            "half B": np.mean([b for _, b, _ in found]),
            "in both": np.mean([o.shared for _, _, o in found]),
            "Jaccard": np.mean([o.jaccard for _, _, o in found]),
            "by chance": np.mean([o.expected_within_layers for _, _, o in found]),
        }
    )
repeat = pd.DataFrame(rows)
figures.table(
    repeat,
    f"Neurons selected from two halves of the windows (means of {n_splits} splits)",
    {
        **dict.fromkeys(["half A", "half B", "in both", "by chance"], "{:.1f}"),
        "Jaccard": "{:.2f}",
    },
)

# %% [markdown]
# ## Figure 3: the target against the rest
#
# Here is what selection looks at. Each panel is a layer and each point a neuron: its normalised
# kurtosis under the target language to the right, the highest of the other languages upwards. The
# shaded region, lower right, holds the candidates: above the threshold for the target and for no
# other language. The number over a panel counts them.

# %% tags=["hide-input"]
rows = []
for language, (own, other) in own_and_other.items():
    scored = ~(own.isnan() | other.isnan())
    high, elsewhere = own > settings.threshold, other > settings.threshold
    regions = {
        "target only (selected)": high & ~elsewhere & scored,
        "target and another": high & elsewhere & scored,
        "another only": ~high & elsewhere & scored,
        "none": ~high & ~elsewhere & scored,
        "no score": ~scored,
    }
    total = {name: int(mask.sum()) for name, mask in regions.items()}
    by_chance = (high.double().mean(1) * (~elsewhere).double().mean(1) * own.shape[1]).sum().item()
    rows.append({"target": language, **total, "selected if unrelated": by_chance})
    share = total["target only (selected)"] / own.numel()
    display(Markdown(f"**Target language `{language}`**"))
    display(
        figures.show(
            figures.fig3_contrast(normalised, language, settings.threshold),
            alt=(
                f"Scatter of normalised kurtosis, {language} against the maximum of the other "
                f"languages, one panel per layer, thresholds at {settings.threshold:g}. The "
                f"shaded lower right holds {total['target only (selected)']} neurons "
                f"({share:.1%}), by layer {regions['target only (selected)'].sum(1).tolist()}; "
                f"{total['target and another']} are above the threshold on both axes."
            ),
        )
    )
regions = pd.DataFrame(rows)

# %% tags=["hide-input"]
figures.table(
    regions,
    f"Neurons in each region of Figure 3 (threshold {settings.threshold:g}); last column: "
    "expected in the selected region if the two axes were unrelated",
    {"selected if unrelated": "{:.1f}"},
)

# %% [markdown]
# Look at the last column before you read structure into the shaded region. Even if a neuron's
# kurtosis in one language had nothing to do with that in the others, many of the neurons above the
# threshold would lie there: the fewer neurons are above it in any one language, the fewer are kept
# out by another.
#
# ### Figure 3 without languages
#
# A harder test of the same doubt: take *one* language, cut its windows at random into as many parts
# as there are languages, and pretend that each part is a language. Whatever is selected then owes
# nothing to language. For a fair comparison the real languages get the same, smaller number of
# windows.

# %%
count = len(settings.languages)


def selected(scores):
    """How many neurons the default rule selects, on average over the targets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.mean([len(select(scores, x, threshold=settings.threshold)) for x in scores])


real, pretended = [], {x: [] for x in settings.languages}
for split in range(n_splits):
    cut = {x: parts(x, count, split) for x in settings.languages}
    real.append(selected({x: cut[x][0] for x in settings.languages}))
    for x in settings.languages:
        pretended[x].append(selected({str(i): part for i, part in enumerate(cut[x])}))

# %% tags=["hide-input"]
rows = [
    {
        "compared": "the real languages",
        "selected": np.mean(real),
        "low": min(real),
        "high": max(real),
    }
]
for x, found in pretended.items():
    rows.append(
        {
            "compared": f"{count} random parts of {x}",
            "selected": np.mean(found),
            "low": min(found),
            "high": max(found),
        }
    )
null = pd.DataFrame(rows)
display(
    figures.table(
        null.assign(
            range=[
                f"{a:.0f}\u00a0to\u00a0{b:.0f}" for a, b in zip(null.low, null.high, strict=True)
            ]
        )
        .drop(columns=["low", "high"])
        .rename(columns={"selected": "selected per target", "range": f"over {n_splits} splits"}),
        f"Neurons in Figure 3's lower right ({windows_per(count)} windows per language or part)",
        {"selected per target": "{:.1f}"},
    )
)
pretend = float(np.mean([np.mean(found) for found in pretended.values()]))
ratio = np.mean(real) / pretend if pretend else np.nan
display(
    Markdown(
        f"Real languages fill the region with {np.mean(real):.0f} neurons per target, parts of "
        f"one language with {pretend:.0f}: "
        + (
            f"{ratio:.1f} times as many. Sampling alone explains most of it, language the rest."
            if 1.15 < ratio < 2
            else f"{ratio:.1f} times as many, so its size is mostly a matter of language."
            if ratio >= 2
            else "hardly more. Its size, then, is no evidence of language-related structure."
            if ratio <= 1.15
            else "too few to compare."
        )
    )
)

# %% [markdown]
# ## Results
#
# Every neuron's values, for notebooks of your own:

# %%
layer, neuron = (
    index.flatten().numpy()
    for index in torch.meshgrid(torch.arange(shape[0]), torch.arange(shape[1]), indexing="ij")
)
everything = pd.concat(
    pd.DataFrame(
        {
            "language": x,
            "layer": layer,
            "neuron": neuron,
            "kurtosis": raw[x].flatten().numpy(),
            "normalised": normalised[x].flatten().numpy(),
            "mean_abs_relevance": magnitude[x].flatten().numpy(),
        }
    )
    for x in settings.languages
)
write_table(everything, results / "kurtosis.parquet")
write_table(regions, results / "kurtosis_regions.csv")

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} Why 3 / p?
# :label: exercise-mixture
# ```
# A neuron's relevance is 0 on most texts. On a share $p$ of them, drawn independently, it is normal
# with mean 0 and standard deviation $s$. Show that its kurtosis is $3/p$. What does $s$ do?
# ```{exercise-end}
# ```
#
# ```{solution-start} exercise-mixture
# :class: dropdown
# ```
# The mean is 0, so $\mathbb{E}[(R-\mu)^4] = \mathbb{E}[R^4]$ and $\sigma^2 = \mathbb{E}[R^2]$. A
# text counts with probability $p$, and a normal variable with standard deviation $s$ has second
# moment $s^2$ and fourth moment $3s^4$. So the kurtosis is $3ps^4 / (ps^2)^2 = 3/p$. The $s$
# cancels: kurtosis sees how *rarely* the neuron speaks, not how loudly.
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise-start} Select by magnitude instead
# :label: exercise-magnitude
# ```
# Replace kurtosis by mean |relevance|, keep everything else (z-score within layers, the contrast
# rule), and compare the sets with those of kurtosis. How many neurons do they share, and how many
# would chance give? `magnitude` holds what you need; `select`, `normalise` and `overlap` do the
# work.
# ```{exercise-end}
# ```

# %% [markdown]
# ```{solution-start} exercise-magnitude
# :class: dropdown
# ```

# %%
by_size = {x: normalise(magnitude[x], settings.normalisation) for x in settings.languages}
rows = []
for x in settings.languages:
    a = select(by_size, x, threshold=settings.threshold)
    b = select(normalised, x, threshold=settings.threshold)
    o = overlap(a, b)
    rows.append(
        {
            "language": x,
            "by magnitude": len(a),
            "by kurtosis": len(b),
            "in both": o.shared,
            "by chance": o.expected_within_layers,
        }
    )
figures.table(
    pd.DataFrame(rows), "Selected by mean |relevance| and by kurtosis", {"by chance": "{:.1f}"}
)

# %% [markdown]
# Which of the two sets a language *needs* cannot be read off this table. It is a question for the
# mask.
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show

# %% tags=["hide-input"]
gained = (repeat["in both"] / repeat["by chance"]).mean()
display(
    Markdown(
        "- They show how *unevenly* a neuron's relevance is spread over texts: the medians are "
        f"{summary['median'].min():.1f} to {summary['median'].max():.1f}, where a bell curve has "
        "3. They do not show how much a neuron contributes: the rank correlation with mean "
        "|relevance| is " + ", ".join(f"{r:+.2f} ({x})" for x, r in correlation.items()) + ".\n"
        "- They come with an error. Two halves of one language's windows rank neurons alike to "
        f"{same:+.2f}, and a selection is repeated in {repeat['Jaccard'].mean():.0%} of the "
        f"neurons (Jaccard), {gained:.1f} times what chance gives.\n"
        f"- A filled lower right of Figure 3 is expected even without languages: {pretend:.0f} "
        f"neurons per target there with parts of one language, {np.mean(real):.0f} with real "
        "ones.\n"
        "- They say nothing yet about what the model *needs*. A neuron may have heavy tails in "
        "one language because of a few odd texts; only taking it away shows whether anything "
        "depends on it. That is the subject of notebook 03."
    )
)

# %% [markdown]
# The testbed has a few thousand neurons and texts about a small world. What its relevance looks
# like is a fact about this model. The paper's Figure 3 shows the same plot for Llama-2-7B; it
# publishes no numbers behind it, so ours can be laid beside it only by eye.
