# %% [markdown]
# # Kurtosis or something else
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** name statistics that could stand in for kurtosis, and what each of them
# needs; say which of them select neurons that their language suffers without; and tell how many
# texts a stable kurtosis needs.
#
# **It assumes** kurtosis ([notebook 02](02_kurtosis)) and the four read-outs of the sweep over
# choices ([08](08_choices)).
#
# **It takes** twenty minutes to read; the computer needs some seconds on the testbed, because
# results are shipped and read.
#
# **It covers** the choice of kurtosis in §3.2 of the paper {cite:p}`le2026crane`, which its
# limitations call one possible statistic.
# :::
#

# %% tags=["parameters", "hide-input"]
choices_data = "data/testbed"  # folder with the shipped results of the sweep over choices
recompute_choices = False  # run the sweep with these parameters instead of reading its results
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

from IPython.display import display

from crane_lab.settings import Settings
from crane_lab.show import choices_pages, figures, statistics_pages
from crane_lab.show import crane_exercises as exercises
from crane_lab.show.foreign import prose
from crane_lab.store import write_table
from crane_lab.study import choices, summaries

settings = Settings.of(globals())
probe = choices.probe(settings)
results = Path(run_dir) / "results"

# %% [markdown]
# ## The registry
#
# Other statistics of the same relevance of the same windows, all collected in one pass
# (`crane_core.concentration`; [choice](choice-statistic)). Statistics of *shape* know no scale,
# like kurtosis; those of *size* say how much relevance there is.

# %%
statistics_pages.registry()

# %% [markdown]
# What they select is shipped with the sweep of notebook 08, and read from there. Are the results of
# this run's model, texts and tasks?

# %%
if recompute_choices:
    tables, made_with = choices.run(settings)
else:
    tables, made_with = choices.read(choices_data)
for name in ("statistics", "agreement", "reliability"):
    file = f"choices_{name}"
    write_table(tables[file], results / f"{file}.csv")

# %% tags=["shipped"]
random = tables["choices_random"]
sweep = choices.with_floor(tables["choices"], random)
differing = choices.differing_inputs(probe, made_with)
prose(choices_pages.whose(differing))

# %% [markdown]
# ## Do they agree?
#
# Rank correlation over the neurons of a layer, averaged over layers and languages; each statistic
# is turned so that large means selected (for the participation ratio, small). Statistics that
# correlate highly put the same neurons first, however different their formulas look, so that
# choosing between them matters little. Where a correlation is near zero, to choose one is to choose
# what a specific neuron is. The table below sets the measure: a statistic can hardly agree with
# another one better than with itself on other texts.

# %% tags=["shipped"]
rho = tables["choices_agreement"]
n = made_with["settings"]["n_samples"]
display(statistics_pages.agreement_figure(rho))
statistics_pages.statistics_reliability(rho, n)

# %% [markdown]
# ## What do they select?
#
# Every statistic gets CRANE's number of neurons for each language and takes them by its normalised
# score alone, or by a *contrast*: the target's score less the largest other language's. The tick is
# what random masks of that size get, interpolated.

# %% tags=["shipped"]
selected = choices.with_floor(tables["choices_statistics"], random)
statistics_pages.selected(selected)

# %% [markdown]
# In numbers, most selective first. A mean over languages can hide that a set does well in
# one of them only, so two columns count languages instead: in how many LangSpec-F1 lies above all
# random masks, and in how many the mask clearly hurts its own language most.

# %% tags=["shipped"]
scored = summaries.of_statistics(selected, random)
display(
    statistics_pages.scored_in_words(scored, selected),
    figures.folded(
        "Statistic by statistic",
        statistics_pages.scored(scored, sweep, random),
    ),
)

# %% [markdown]
# ## How many texts does kurtosis need?
#
# Blocks of 30 windows are dealt at random into two halves; kurtosis and the sets are computed from
# each half, and compared. Repeated 50 times, for more and more windows per half. (The moments of
# blocks are merged, so no sample is ever kept. Large halves are drawn from the same 3,000 windows,
# so their repetitions are not independent and the ranges are too narrow there.)

# %% tags=["shipped"]
halves = tables["choices_reliability"]
display(
    statistics_pages.two_halves(halves),
    figures.folded(
        "Layer by layer",
        statistics_pages.two_halves_by_layer(halves),
    ),
)

# %% [markdown]
# Two things to compare. The first panel against the second: where kurtosis ranks neurons in two
# languages as alike as in two halves of one, it tells neurons apart but not languages. And the
# third against its ticks: a Jaccard index of sets says little until it is known what sets of that
# size share by chance.

# %% tags=["shipped"]
statistics_pages.two_halves_in_words(halves)

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} Reliable, and of no use? · easy, 10 minutes
# :label: exercise-reliable
# ```
# One statistic ranks neurons almost equally on two halves of a language's texts, and almost as
# equally on texts of two languages. Another one agrees with itself only moderately, and hardly at
# all between languages. Which would you select neurons of a language by? What do you do with the
# other? And kurtosis: if noise lowers both correlations by the same factor, at what would two
# languages correlate without it, by the most windows there are?

# %% tags=["shipped"]
my_correlation = ...  # by the columns measure, n and mean of halves

exercises.without_noise(my_correlation, halves)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# Without noise two halves of one language would correlate at 1. Average the measures `spearman` and
# `spearman, other language` over the languages.
# ```
#
# ```{solution-start} exercise-reliable
# :class: dropdown
# ```
# The first is reliable, but what it measures belongs to the neuron and not to the language: high
# values single out neurons that stand out in any text. A contrast of languages may still find the
# little that differs, since noise is small; by itself it selects the same neurons for every
# language. The second measures something of the language, through noise. More texts raise its
# reliability, and what more texts cannot do is make a statistic speak of languages that does not.
# So look at both columns, and at the gap between them. Whether a language *needs* the neurons is
# another question, which only masking answers. For kurtosis:

# %% tags=["shipped"]
most = halves[halves["n"] == halves["n"].max()]
rho_of = most.groupby("measure")["mean"].mean()
within, between = rho_of["spearman"], rho_of["spearman, other language"]
print(f"{between:.2f} / {within:.2f} = {between / within:.2f}")

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show

# %% tags=["shipped"]
n_languages = sweep["mask_language"].nunique()
statistics_pages.statistics_conclusions(scored, halves, n_languages)

# %% [markdown]
# - Every statistic was given CRANE's number of neurons and the same rule. With another number the
#   order may be another one; [damage curves](09c_sets) show all numbers.
# - Intervals are over items and held-out windows, not over the windows that relevance was taken on
#   or another training run of the model.
# - Everything here is one small model. That two statistics put the same neurons first may come from
#   its few layers; that statistics of shape know no scale holds anywhere.
#
# Next: [single neurons](09_gold_standard), because no choice of score says which neurons are
# needed; switching them off one by one does.
