# %% [markdown]
# # Neurons set to other values: what it does to the loss
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say what it means to *deactivate* a neuron, and which values it can have
# at all; and hold what a value does to a language's text against random sets of the same size.
#
# **It assumes** the sets of [notebook 12](12_lsn_neurons), and masks and their nulls ([notebook
# 04](04_table1)).
#
# **It takes** twenty minutes to read; the computer needs about a minute on the testbed, since the
# losses are shipped.
#
# **It covers** *Language-specific neurons do not facilitate cross-lingual transfer*
# {cite:p}`mondal2025transfer`: its Table 6 and what its figures say of perplexity, asked of the
# model at hand.
# :::

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
n_samples = 1000  # windows of text per language that relevance is taken on
n_perplexity = 200  # windows per language that perplexity is measured on
seed = 0  # seed of everything that is drawn at random, except training
null_data = "data/testbed"  # folder with what random masks do, as it is shipped
n_null = 0  # random masks of every set whose null is not shipped
real_data = "data/gemma"  # folder with the shipped results on a real model
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %% tags=["hide-input"]
from pathlib import Path

import pandas as pd
from IPython.display import display

from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import exercises, figures, lsn_pages
from crane_lab.store import write_table
from crane_lab.study import (
    activations,
    contenders,
    value_losses,
)
from crane_lab.study.nulls import Nulls
from crane_lab.texts.languages import language_names
from crane_lab.texts.names import full_names

settings = Settings.of(globals())
pipeline = Pipeline(settings)
names = language_names(settings.languages)
sets = contenders.contenders(pipeline)
results = Path(run_dir) / "results"
results.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# The sets are those of [notebook 12](12_lsn_neurons): LAPE as released and at CRANE's size, CRANE,
# Act Prob 90p, and mean |relevance|.
#
# ## What a neuron puts out
#
# An MLP's neuron multiplies two numbers. One of them went through an activation function, `act_fn`;
# that is where LAPE counts and where the paper writes. Its Table 6 lists percentiles of the
# activation. They were read *before* `act_fn`, though, and are written *after* it. (Means here are
# over all tokens of a language, percentiles over a thousand of them, drawn evenly from the whole
# stream.)

# %%
values = activations.activation_values(pipeline)
least = activations.least_output(pipeline.model)
means = activations.means_over_neurons(values)
lsn_pages.statistics_table(means, least)

# %% [markdown]
# ### Zero is not deactivation. Is this?
#
# The paper holds that zero does not deactivate a neuron, since scores fall further when neurons are
# set to their tenth percentile. But that percentile was read before `act_fn`. What comes out of it
# has a least value, and no text makes a neuron put out less. How many of the values written are
# below?

# %%
reach = activations.out_of_reach(values, sets, least)
write_table(reach, results / "lsn_reach.csv")
display(
    lsn_pages.out_of_reach_table(reach),
    lsn_pages.out_of_reach_in_words(reach),
)

# %% [markdown]
# A value out of reach is not a resting neuron. It is a neuron that pushes in the other direction,
# harder than it ever does by itself.
#
# ## What it does to the loss
#
# The paper sets one language's neurons to zero and looks at the difference in every language's
# perplexity. Its runs with and without were on other random windows; here they are the same ones.
# The figure below shows ratios, so that languages can be compared: one is no change.

# %% tags=["nulls"]
nulls = Nulls.of(pipeline, null_data, n_null)
changes = value_losses.perplexity_changes(
    pipeline,
    sets,
    values,
    value_losses.WRITTEN,
    nulls,
    null_data,
)
write_table(changes, results / "lsn_perplexity.csv")
drawn = [lsn_pages.ratios_figure(changes, method) for method in sets]
display(
    drawn[0],
    figures.folded("The same for other sets", *drawn[1:]),
)

# %% [markdown]
# Selective would be a diagonal that stands out: the language's own text suffers and no other does.
# And now with the other values. *After* is read where it is written; *before* is the paper's way.
# Random masks stand beside every set at zero and, on our model, at *P10 after* and *mean after*.

# %% tags=["nulls"]
lsn_pages.values_figure(changes, names)

# %% tags=["nulls"]
display(
    figures.folded("All of them", lsn_pages.changes_table(changes)),
    lsn_pages.zero_in_words(changes),
)

# %% [markdown]
# ## The same on a real model
#
# Gemma 3 270M has GELU where the testbed has SiLU; it, too, has a least value. Sets are found as
# above, on 600 windows a language; each value is written while the same 48 windows a language are
# read (`python -m crane_lab.cli.tune --profile gemma --parts losses`).

# %% tags=["shipped"]
reach_there = pd.read_csv(Path(real_data) / value_losses.REACH)
there = value_losses.read_value_losses(real_data)
write_table(there, results / "lsn_perplexity_real.csv")
display(
    figures.folded(
        "What its neurons put out, all of them and each set's",
        lsn_pages.statistics_table(value_losses.read_means(real_data)),
        lsn_pages.written_values_table(reach_there),
    ),
    lsn_pages.out_of_reach_in_words(reach_there),
    lsn_pages.values_figure(
        there,
        full_names(there["mask_language"].unique()),
    ),
    figures.folded(
        "Set to zero, language by language",
        *(lsn_pages.ratios_figure(there, method) for method in there["method"].unique()),
    ),
    figures.folded("All of them", lsn_pages.changes_table(there)),
    lsn_pages.zero_in_words(there),
)

# %% [markdown]
# Two things to take along. A set's damage says little before it is held against random sets of its
# own size *in its own layers*. And what is called deactivation must be a state that the neuron can
# be in.
#
# ## Exercises
#
# ```{exercise-start} A state that a neuron can be in · easy, 10 minutes
# :label: exercise-lsn-deactivation
# ```
# The paper prints a mean tenth percentile of −0.68 and a ninetieth of 0.17 for a model with SiLU,
# which is x · σ(x), read before SiLU. What would the neurons put out at these inputs? Which of the
# two, written to SiLU's output, is a state that the neuron can be in?

# %%
my_outputs = ...  # SiLU's outputs at the two inputs, as a list
my_states = ...  # those of the two that SiLU can put out, as a list

exercises.silu_states(my_outputs, my_states)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# σ(x) is 1 / (1 + exp(−x)). To see what SiLU can put out, compute it for some inputs between −5 and
# 5: it falls a little below 0, turns, and then grows with x.
# ```
#
# ```{solution} exercise-lsn-deactivation
# :class: dropdown
#
# SiLU(−0.68) is −0.23 and SiLU(0.17) is 0.09. Written as they are, −0.68 lies below SiLU's least
# value, −0.278, so no input gives it. 0.17 can be put out, but it is nearly twice what the neuron
# puts out at its ninetieth percentile: that is no *activation* as on a token of the language, but a
# stronger one.
# ```

# %% [markdown]
# Next: [setting the neurons during a task](13_lsn_transfer), because what goes wrong without a
# neuron does not say what it can help with.
