# %% [markdown]
# # From relevance to kurtosis
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** compute Equation 2 and say what it measures and what it ignores; and say
# what a kurtosis cannot exceed, and how it is put on one scale per layer.
#
# **It assumes** that you know what relevance is ([notebook 01](01_relevance)), of a neuron in
# particular ([01b](01b_words_and_neurons)), and means and standard deviations.
#
# **It takes** half an hour to read; the computer needs half a minute.
#
# **It covers** §3.3 and §5.1, Equation 2, and lines 8 to 16 of Algorithm 1 of the
# paper {cite:p}`le2026crane`.
# :::
#
# Relevance says how much each neuron contributed to what the model predicts in *one* text. A method
# that looks for the neurons of a *language* has to turn many texts into one verdict. CRANE's idea
# is to look at how unevenly a neuron's relevance is spread over the texts. This notebook takes that
# idea apart before it is used; [the next](02b_trust) asks how far its results can be trusted.

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
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

import numpy as np
from scipy import stats

from crane_core.attribution import neuron_relevance
from crane_core.moments import StreamingMoments
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import crane_exercises as exercises
from crane_lab.show import kurtosis_pages
from crane_lab.store import write_table
from crane_lab.study import scores

settings = Settings.of(globals())
pipeline = Pipeline(settings)
rng = np.random.default_rng(settings.seed)
results = Path(run_dir) / "results"

# %% [markdown]
# ## Equation 2 by hand
#
# Notebook 01b ended with one number per neuron and text: the neuron's share of what the model
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
# [notebook 03b](03b_masking).
#
# ## Tails, not the bulk
#
# The paper's Figure 2 is a sketch of the intuition. Here is ours, simulated: two distributions with
# the *same* spread. The left panel of the figure below shows the bulk, where the heavy-tailed one
# looks merely a bit slimmer. On the right, with a logarithmic axis, you see where the difference in
# kurtosis comes from.

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
# Read the figure above from the left. With few texts even the typical sample is far below the
# truth, and it cannot be otherwise: the ceiling is lower than the truth. With more texts the median
# comes up to the dashed line, and the band, in which nine of ten samples lie, gets narrower.
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
# Do layers differ in level, and languages? The figure below shows each layer's median.

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
# ## Exercises
#
# ```{exercise-start} Why 3 / p? · medium, 15 minutes
# :label: exercise-mixture
# ```
# A neuron's relevance is 0 on most texts. On a share $p$ of them, drawn independently, it is normal
# with mean 0 and standard deviation $s$. Show that its kurtosis is $3/p$. What does $s$ do? And
# what is the kurtosis if the neuron is not silent on the other texts, but normal with mean 0 and
# standard deviation 1?


# %%
def my_kurtosis(p, s):
    return ...  # of a neuron that is never silent


exercises.kurtosis_of_mixture(my_kurtosis)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# A moment of such a mixture is the average of its parts' moments, weighed by how often each part
# comes. A normal variable with standard deviation $s$ has second moment $s^2$ and fourth moment
# $3s^4$.
# ```
#
# ```{solution-start} exercise-mixture
# :class: dropdown
# ```
# The mean is 0, so $\mathbb{E}[(R-\mu)^4] = \mathbb{E}[R^4]$ and $\sigma^2 = \mathbb{E}[R^2]$. A
# text counts with probability $p$, and a normal variable with standard deviation $s$ has second
# moment $s^2$ and fourth moment $3s^4$. So the kurtosis is $3ps^4 / (ps^2)^2 = 3/p$. The $s$
# cancels: kurtosis sees how *rarely* the neuron speaks, not how loudly. If it is never silent, the
# other texts add $1 - p$ to the second moment and $3(1 - p)$ to the fourth, and $s$ says how far
# the rare texts stand out:


# %%
def kurtosis_of_mixture(p, s):
    second, fourth = p * s**2 + 1 - p, 3 * (p * s**4 + 1 - p)
    return fourth / second**2


for s in (1, 3, 10, 100):
    print(f"s = {s}: kurtosis {kurtosis_of_mixture(share, s):.1f}")

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show
#
# The testbed has a few thousand neurons and texts about a small world. What its relevance looks
# like is a fact about this model. That large values come from rare texts, and that size does not
# enter, holds anywhere.
#
# Next: [how far kurtosis can be trusted](02b_trust), because a few windows of text can decide over
# a neuron, and other windows may decide otherwise.
