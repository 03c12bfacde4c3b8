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
#
# Two of them act on everything below: `n_samples`, because a kurtosis gets better with more texts,
# and `window`, because every language gets windows of equally many tokens.
# [How to rerun](../book/rerun) shows how to change them.

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
corpus = "data/testbed/corpus/attribution"  # held-out text for attribution, one file per language
n_samples = 1000  # windows of text per language that relevance is taken on
window = 64  # tokens per window of text
seed = 0  # seed of everything that is drawn at random, except training
objective = "next_token"  # what is explained: next_token, next_token_logprob or last_max
normalisation = "zscore"  # scale within a layer: zscore, ratio, robust or global
threshold = 1.0  # normalised score above which a neuron is a candidate
n_splits = 5  # random splits of the windows, for the sampling error
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import display
from scipy import stats

from crane_core.attribution import neuron_relevance
from crane_core.moments import StreamingMoments
from crane_core.selection import normalise, overlap, select
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import exercises, kurtosis_pages
from crane_lab.store import write_table
from crane_lab.study import halves, influence, scores, without_language

settings = Settings.of(globals())
pipeline = Pipeline(settings)
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
number = np.arange(texts)
coin = np.where(number % 2, 1.0, -1.0)
examples = {
    "a coin: −1 on half of the texts, +1 on the other half": coin,
    "a bell curve": rng.standard_normal(texts),
    "1 on every tenth text, else 0": 1.0 * (number % 10 == 0),
    "1 on every hundredth text, else 0": 1.0 * (number % 100 == 0),
    "1 on a single text, else 0": 1.0 * (number == 0),
}
kurtosis_pages.made_up_table(
    {k: (x.mean(), x.std(), kurtosis(x)) for k, x in examples.items()},
    texts,
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
odd = rng.random(texts) < 0.05
few = odd * rng.standard_normal(texts)
variants = {
    "relevant on about 5 % of the texts": few,
    "the same, times 100": 100 * few,
    "the same, plus 10 on every text": few + 10,
    "the same, with the opposite sign": -few,
    "a bell curve, times 100": 100 * examples["a bell curve"],
}
kurtosis_pages.invariance_table(
    {k: (abs(x).mean(), kurtosis(x)) for k, x in variants.items()},
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

# %%
kurtosis_pages.intuition()

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
sampled = {}
for n in (25, 50, 100, 200, 400, 800, 1600, 3200):
    odd = rng.random((draws, n)) < share
    x = odd * rng.standard_normal((draws, n))
    x = x[x.std(axis=1) > 0]
    sampled[n] = stats.kurtosis(x, axis=1, fisher=False)
kurtosis_pages.sampling_error(sampled, truth=3 / share)

# %% [markdown]
# Read it from the left. With few texts even the typical sample is far below the truth, and it
# cannot be otherwise: the ceiling is lower than the truth. With more texts the median comes up to
# the dashed line, and the band, in which nine of ten samples lie, gets narrower.
#
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
few_windows = pipeline.windows[first][:60]
relevance = neuron_relevance(
    pipeline.model,
    few_windows,
    **pipeline.how,
).cpu()

front, back = (StreamingMoments(relevance.shape[1:]) for _ in "ab")
front.update(relevance[:17])
back.update(relevance[17:])
back.merge(front)

textbook = stats.kurtosis(relevance.double(), axis=0, fisher=False)
difference = np.nanmax(abs(back.kurtosis().numpy() / textbook - 1))
print(
    f"{len(few_windows)} texts, {textbook.size:,} neurons,",
    f"largest relative difference {difference:.0e}",
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

# %%
tokens = pipeline.token_counts()
write_table(tokens, results / "corpus_tokens.csv")
kurtosis_pages.corpora_table(tokens)

# %% [markdown]
# Two calls do lines 8 to 16 of Algorithm 1: the kurtosis of every neuron, and the same on one scale
# per layer, to which we come in a moment.

# %%
raw = pipeline.kurtosis("intermediate")
of_kurtosis = pipeline.changed(statistic="kurtosis")
normalised = of_kurtosis.normalised("intermediate")

# %%
summary = scores.kurtosis_summary(raw)
kurtosis_pages.summary_table(summary, settings.n_samples, window)

# %% [markdown]
# A *constant* neuron has the same relevance on every window. Its $\sigma$ is zero and Equation 2
# says nothing, so it has no score and is never selected. Compare the quartiles with 3, the value of
# a bell curve, and the largest value with the ceiling in the caption: a neuron at the ceiling owes
# its score to a single window.
#
# ## One scale per layer
#
# Do layers differ in level, and languages? The figure shows each layer's median.

# %%
kurtosis_pages.layer_medians(raw)

# %% [markdown]
# The paper normalises "within each layer" and does not say how. By default we take the z-score:
# minus the layer's mean, divided by the layer's standard deviation. Three other readings are one
# parameter away ([choice](choice-normalisation)). The threshold stays the same while the scale
# changes, so the number of candidates changes with it: choosing a normalisation is choosing a
# budget.

# %%
kurtosis_pages.normalisation_table(
    scores.by_normalisation(raw, threshold),
    raw[first].numel(),
    threshold,
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
picked = scores.pick(normalised, threshold)
look = scores.second_look(pipeline, picked, n_blocks=20)

whole = StreamingMoments(raw[first].shape)
for block in look.blocks[first]:
    whole.merge(block)
assert torch.allclose(
    whole.kurtosis(), raw[first], rtol=1e-3, equal_nan=True
)  # the same windows, regrouped

# %% [markdown]
# ## Figure 2, with real neurons
#
# For each language, the selected neuron with the largest contrast, under all languages. These are
# the clearest cases there are, found by searching all neurons; the table below puts a median one
# beside each. What lies beyond twelve standard deviations is counted at the edge.

# %%
display(*kurtosis_pages.real_neurons(look, picked))

# %% [markdown]
# Two columns of the table deserve a look. *Top 1 %* is the share of the sum of fourth powers that
# the most extreme hundredth of the windows contributes. *Mean |R|* shows what the figure, which is
# standardised, hides. A neuron picked for one language may well have more relevance in another.

# %%
kurtosis_pages.neurons_table(look, picked, raw)

# %% [markdown]
# What is in such a tail? These are the windows in which the neuron with the largest contrast
# departs most from its mean. (Windows are cut from a stream of documents, so they begin and end
# anywhere; ‖ marks where a new document begins.)

# %%
kurtosis_pages.outliers_table(
    look,
    picked,
    pipeline.windows,
    pipeline.tokenizer,
)

# %% [markdown]
# ### How much hangs on one window?
#
# A fourth power lets one window outweigh a thousand. Moments without one sample follow from the
# moments of all, so every window can be left out in turn: what is each neuron's kurtosis without
# the window that it rests on most, and would the neuron still be selected?

# %%
left_out = {x: influence.influence(of_kurtosis, x) for x in settings.languages}
hangs = influence.influence_summary(left_out)
write_table(hangs, results / "kurtosis_influence.csv")
display(
    kurtosis_pages.influence_table(hangs),
    kurtosis_pages.influence_words(hangs),
)

# %% [markdown]
# ## Large is not heavy-tailed
#
# Above we saw that kurtosis *can* ignore magnitude. Does it, on this model? Each point is a neuron.
# The rank correlation says whether neurons with more relevance also tend to have a higher kurtosis;
# it is taken within layers and then averaged, because layers differ in both.

# %%
together = scores.magnitude_and_kurtosis(look.magnitude, raw)
kurtosis_pages.magnitude_figure(look.magnitude, raw, together)

# %% [markdown]
# The same question with a cut: of the tenth of all neurons with the most relevance, how many are in
# the top tenth by kurtosis? Two random tenths would share a tenth of a tenth.

# %%
display(
    kurtosis_pages.magnitude_table(together),
    kurtosis_pages.magnitude_words(together),
)

# %% [markdown]
# ## Would other windows give the same answer?
#
# Split the windows of every language at random into two halves, compute kurtosis from each half,
# and compare. If the ranking of neurons is a property of model and language, the halves agree. If
# it mostly hangs on which rare windows were drawn, they do not. Blocks of windows are split rather
# than single ones, so that a document cut in two mostly stays on one side, and merging their
# moments is all it takes.
#
# The table has a row for each language's half A and a column for each language's half B. On the
# diagonal a language meets itself on other texts; off it, it meets another language. Ranks are
# compared within each layer and the layers averaged, as in [notebook 08b](08b_statistics), which
# asks how the agreement grows with the number of windows.


# %%
in_two = halves.parts(look.blocks, 2, n_splits, normalisation)
agreement = halves.halves_agreement(in_two)
windows_each = look.block * halves.blocks_per_part(look.blocks, 2)
display(
    kurtosis_pages.agreement_table(agreement, windows_each),
    kurtosis_pages.agreement_words(agreement),
)

# %% [markdown]
# The diagonal is the ceiling for everything below: kurtosis cannot tell languages apart more
# reliably than it repeats itself. Between whole languages, with all windows:

# %%
kurtosis_pages.between_table(
    halves.between_languages(normalised),
    settings.n_samples,
)

# %% [markdown]
# A question closer to what is done next: would the same neurons be *selected*? Apply the default
# rule to either set of halves and count the neurons that come back. The last column is what two
# random sets of those sizes in those layers would share.

# %%
again = halves.selected_again(in_two, threshold)
kurtosis_pages.repeat_table(again, n_splits)

# %% [markdown]
# ## Figure 3: the target against the rest
#
# Here is what selection looks at. Each panel is a layer and each point a neuron: its normalised
# kurtosis under the target language to the right, the highest of the other languages upwards. The
# shaded region, lower right, holds the candidates: above the threshold for the target and for no
# other language. The number over a panel counts them.

# %%
display(*kurtosis_pages.target_against_rest(normalised, threshold))

# %%
regions = scores.region_counts(normalised, threshold)
separated = scores.separation(normalised, threshold)
display(
    kurtosis_pages.regions_table(regions, threshold),
    kurtosis_pages.separation_words(separated),
)

# %% [markdown]
# Look at the last column before you read structure into the shaded region. Even if a neuron's
# kurtosis in one language had nothing to do with that in the others, many of the neurons above the
# threshold would lie there: the fewer neurons are above it in any one language, the fewer are kept
# out by another. The paper sees "clear separation" in its picture; counted, it is a question of
# more or fewer than that.
#
# ### Figure 3 without languages
#
# A harder test of the same doubt: take *one* language, cut its windows at random into as many parts
# as there are languages, and pretend that each part is a language. Whatever is selected then owes
# nothing to language. For a fair comparison the real languages get the same, smaller number of
# windows.

# %%
n_parts = len(settings.languages)
in_parts = halves.parts(look.blocks, n_parts, n_splits, normalisation)
null = halves.without_languages(in_parts, threshold)
windows_each = look.block * halves.blocks_per_part(look.blocks, n_parts)
display(
    kurtosis_pages.null_table(null, windows_each, n_splits),
    kurtosis_pages.null_words(null),
)

# %% [markdown]
# ### Language, or what the texts are about?
#
# Parts drawn at random have all else in common. Languages here do not: the testbed's English texts
# are about people with English names, the Chinese ones about people with Chinese names. So two more
# comparisons, for CRANE and for LAPE. *One* language is divided by the people that its texts are
# about (no surname in two parts), so that content differs and language does not. And the very same
# facts about the same people are written in all languages, so that language differs and content
# does not. (On a real model the languages' texts are translations of each other where the settings
# say so, and nobody knows whom a text is about; there chance alone divides a language.)

# %%
few = of_kurtosis.changed(n_samples=settings.n_samples // n_parts)
seeds, found = (0, 1, 2), []
if settings.label == "testbed":
    found.append(without_language.compared_in_the_world(few))
else:
    seeds = (0,)
    few = few.changed(n_samples=max(30, few.settings.n_samples // 2))
found.insert(0, without_language.compared_groups(few, n_parts, seeds))
compared = pd.concat(found, ignore_index=True)
write_table(compared, results / "kurtosis_groups.csv")
display(
    kurtosis_pages.groups_table(compared, few.settings.n_samples),
    kurtosis_pages.groups_in_words(compared),
)

# %% [markdown]
# ## Results
#
# Every neuron's values, for notebooks of your own:

# %%
everything = scores.every_neuron(raw, normalised, look.magnitude)
write_table(everything, results / "kurtosis.parquet")
write_table(regions, results / "kurtosis_regions.csv")

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} Why 3 / p? · medium, 15 minutes
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
# ```{exercise-start} Select by magnitude instead · medium, 20 minutes
# :label: exercise-magnitude
# ```
# Replace kurtosis by mean |relevance|, keep everything else (z-score within layers, the contrast
# rule), and compare the sets with those of kurtosis. How many neurons do they share, and how many
# would chance give? `look.magnitude` holds what you need; `select`, `normalise` and `overlap` do
# the work.

# %%
my_sets = dict.fromkeys(languages, ...)  # a set of neurons for each language

exercises.sets_by_magnitude(
    my_sets,
    look.magnitude,
    normalised,
    normalisation,
    threshold,
)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# `normalise` takes the magnitudes of all languages at once, `select` their scores and one target.
# What `overlap` returns knows how many neurons chance would give.
# ```

# %% [markdown]
# ```{solution-start} exercise-magnitude
# :class: dropdown
# ```

# %%
magnitude = normalise(look.magnitude, normalisation)
found = {}
for x in languages:
    a = select(magnitude, x, threshold=threshold)
    b = select(normalised, x, threshold=threshold)
    both = overlap(a, b)
    by_chance = both.expected_within_layers
    found[x] = (len(a), len(b), both.shared, by_chance)
kurtosis_pages.by_magnitude_table(found)

# %% [markdown]
# Which of the two sets a language *needs* cannot be read off this table. It is a question for the
# mask.
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show

# %%
kurtosis_pages.what_kurtosis_shows(
    summary,
    together,
    agreement,
    again,
    null,
)

# %% [markdown]
# The testbed has a few thousand neurons and texts about a small world. What its relevance looks
# like is a fact about this model. The paper's Figure 3 shows the same plot for Llama-2-7B; it
# publishes no numbers behind it, so ours can be laid beside it only by eye.
#
# Next: [selecting and masking](03_selecting_and_masking), where scores become sets of neurons that
# can be switched off.
