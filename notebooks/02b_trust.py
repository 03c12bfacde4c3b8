# %% [markdown]
# # How far can kurtosis be trusted?
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say what is in a neuron's heavy tail, and how much of it hangs on one
# window of text; say whether other windows would select the same neurons; and read Figure 2 with
# the right amount of doubt.
#
# **It assumes** Equation 2 and normalised kurtosis ([notebook 02](02_kurtosis)).
#
# **It takes** twenty minutes to read; the computer needs about a minute.
#
# **It covers** §3.3 and Figure 2 of the paper {cite:p}`le2026crane`, with controls that it does not
# have.
# :::

# %% tags=["parameters", "hide-input"]
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
n_samples = 1000  # windows of text per language that relevance is taken on
window = 64  # tokens per window of text
normalisation = "zscore"  # scale within a layer: zscore, ratio, robust or global
threshold = 1.0  # normalised score above which a neuron is a candidate
n_splits = 5  # random splits of the windows, for the sampling error
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

import torch
from IPython.display import display

from crane_core.moments import StreamingMoments
from crane_core.selection import normalise, overlap, select
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import exercises, figures, kurtosis_pages
from crane_lab.store import write_table
from crane_lab.study import halves, influence, scores

settings = Settings.of(globals())
pipeline = Pipeline(settings)
results = Path(run_dir) / "results"

# %% [markdown]
# Kurtosis and the same on one scale per layer, as notebook 02 has them:

# %%
raw = pipeline.kurtosis("intermediate")
of_kurtosis = pipeline.changed(statistic="kurtosis")
normalised = of_kurtosis.normalised("intermediate")

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

first = settings.languages[0]
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
outliers = kurtosis_pages.outliers_table(
    look,
    picked,
    pipeline.windows,
    pipeline.tokenizer,
)
figures.folded("Texts in the tails", outliers)

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
# Notebook 02 says that kurtosis *can* ignore magnitude. Does it, on this model? Each point of the
# figure below is a neuron. The rank correlation says whether neurons with more relevance also tend
# to have a higher kurtosis; it is taken within layers and then averaged, because layers differ in
# both.

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
# The table below has a row for each language's half A and a column for each language's half B. On
# the diagonal a language meets itself on other texts; off it, it meets another language. Ranks are
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
# The diagonal of the table above is the ceiling for everything below: kurtosis cannot tell
# languages apart more reliably than it repeats itself. Between whole languages, with all windows:

# %%
kurtosis_pages.between_table(
    halves.between_languages(normalised),
    settings.n_samples,
)

# %% [markdown]
# A question closer to what is done next: would the same neurons be *selected*? Apply the default
# rule to either set of halves and count the neurons that come back. The last column of the table
# below is what two random sets of those sizes in those layers would share.

# %%
again = halves.selected_again(in_two, threshold)
kurtosis_pages.repeat_table(again, n_splits)

# %% [markdown]
# ## Results
#
# Every neuron's values, for notebooks of your own:

# %%
everything = scores.every_neuron(raw, normalised, look.magnitude)
write_table(everything, results / "kurtosis.parquet")

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} Select by magnitude instead · medium, 20 minutes
# :label: exercise-magnitude
# ```
# Replace kurtosis by mean |relevance|, keep everything else (z-score within layers, the contrast
# rule), and compare the sets with those of kurtosis. How many neurons do they share, and how many
# would chance give? `look.magnitude` holds what you need; `select`, `normalise` and `overlap` do
# the work.

# %%
# A set of neurons for each language
my_sets = dict.fromkeys(languages, ...)

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
#
# They show how *unevenly* a neuron's relevance is spread over texts, with an error: a few odd texts
# can decide. They do not show how much a neuron contributes, and nothing yet about what the model
# *needs*.
#
# Next: [Figure 3](02c_figure3), because what is selected need not be owed to language.
