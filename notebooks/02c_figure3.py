# %% [markdown]
# # Figure 3: language, or something else?
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** read Figure 3 with the right amount of doubt: say what of it would be
# there without languages, and what may be owed to what the texts are about.
#
# **It assumes** normalised kurtosis ([notebook 02](02_kurtosis)) and its error ([02b](02b_trust)).
#
# **It takes** fifteen minutes to read; the computer needs about a minute.
#
# **It covers** §5.1 and Figure 3 of the paper {cite:p}`le2026crane`, with controls that it does not
# have.
# :::

# %% tags=["parameters", "hide-input"]
n_samples = 1000  # windows of text per language that relevance is taken on
normalisation = "zscore"  # scale within a layer: zscore, ratio, robust or global
threshold = 1.0  # normalised score above which a neuron is a candidate
n_splits = 5  # random splits of the windows, for the sampling error
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

import pandas as pd
from IPython.display import display

from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import crane_exercises as exercises
from crane_lab.show import kurtosis_pages
from crane_lab.store import write_table
from crane_lab.study import halves, scores, without_language

settings = Settings.of(globals())
pipeline = Pipeline(settings)
results = Path(run_dir) / "results"
raw = pipeline.kurtosis("intermediate")
of_kurtosis = pipeline.changed(statistic="kurtosis")
normalised = of_kurtosis.normalised("intermediate")

# %% [markdown]
# ## The target against the rest
#
# Here is what selection looks at. Each panel of the figure below is a layer and each point a
# neuron: its normalised kurtosis under the target language to the right, the highest of the other
# languages upwards. The shaded region, lower right, holds the candidates: above the threshold for
# the target and for no other language. The number over a panel counts them.

# %%
display(*kurtosis_pages.target_against_rest(normalised, threshold))

# %%
regions = scores.region_counts(normalised, threshold)
write_table(regions, results / "kurtosis_regions.csv")
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

# %% [markdown]
# ## Figure 3 without languages
#
# A harder test of the same doubt: take *one* language, cut its windows at random into as many parts
# as there are languages, and pretend that each part is a language. Whatever is selected then owes
# nothing to language. For a fair comparison the real languages get the same, smaller number of
# windows. The moments of twenty blocks of windows, taken apart, are merged in any grouping.

# %%
look = scores.second_look(pipeline, {}, n_blocks=20)
n_parts = len(settings.languages)
in_parts = halves.parts(look.blocks, n_parts, n_splits, normalisation)
null = halves.without_languages(in_parts, threshold)
windows_each = look.block * halves.blocks_per_part(look.blocks, n_parts)
display(
    kurtosis_pages.null_table(null, windows_each, n_splits),
    kurtosis_pages.null_words(null),
)

# %% [markdown]
# ## Language, or what the texts are about?
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
# ## Exercises
#
# ```{exercise} A topic for a language · easy, 10 minutes
# :label: exercise-topic
#
# Somebody takes news in one language and cooking recipes in another, and finds many neurons for
# each. Which two controls of this page would you ask for, and what would each of them rule out?
# ```
#
# ```{dropdown} Hint
# What differs between the two sets of texts besides language? Each control of this page holds
# something fixed. What is still selected then?
# ```
#
# ```{solution} exercise-topic
# :class: dropdown
#
# One language's texts cut at random: what is selected then is owed to sampling alone. And news and
# recipes in one language, or the very same texts in both: what is selected among topics of one
# language is owed to the topic, and what is left when all languages say the same is not.
# ```
#
# ```{exercise-start} Unrelated languages · easy, 10 minutes
# :label: exercise-unrelated
# ```
# Of $n$ neurons a share $a$ is above the threshold in each of $k$ languages that have nothing to do
# with each other. How many does `contrast` select for one of them?


# %%
def my_selected(n, a, k):
    return ...


exercises.selected_if_unrelated(my_selected)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# A neuron is selected if it is above the threshold in this language *and* not above it in the
# second, *and* not in the third, and so on. Chances of unrelated events are multiplied.
# ```
#
# ```{solution} exercise-unrelated
# :class: dropdown
#
# $n\,a\,(1 - a)^{k-1}$. With more languages fewer are left, although nothing about the neurons has
# changed: numbers of selected neurons cannot be compared between runs with different languages.
# ```

# %% [markdown]
# ## What the numbers do and do not show
#
# Of notebooks 02 to 02c:

# %%
summary = scores.kurtosis_summary(raw)
together = scores.magnitude_and_kurtosis(look.magnitude, raw)
in_two = halves.parts(look.blocks, 2, n_splits, normalisation)
agreement = halves.halves_agreement(in_two)
again = halves.selected_again(in_two, threshold)
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
# Next: [selecting](03_selecting), where scores become sets of neurons.
