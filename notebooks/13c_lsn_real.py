# %% [markdown]
# # Setting neurons during a task, on Gemma
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say what setting a language's neurons does to tasks that Gemma 3 270M has
# learned in English, and how much of it is owed to a single training.
#
# **It assumes** the tasks and intervals of [notebook 13b](13b_lsn_ours).
#
# **It takes** fifteen minutes to read; the computer needs some seconds.
#
# **It covers** an experiment like that of Tables 4 and 5 of *Language-specific neurons do not
# facilitate cross-lingual transfer* {cite:p}`mondal2025transfer`, on a pretrained model.
# :::

# %% tags=["parameters", "hide-input"]
real_data = "data/gemma"  # folder with the shipped results on a real model
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

import pandas as pd
from IPython.display import display

from crane_lab.show import figures, taught_pages
from crane_lab.show import later_exercises as exercises
from crane_lab.store import write_table
from crane_lab.study import taught, taught_effects
from crane_lab.texts.names import full_names

results = Path(run_dir) / "results"
results.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## What is learned in English, and what arrives elsewhere
#
# A model of two million parameters that knows one small world is a narrow place to look for
# transfer. Gemma 3 270M was pretrained on text in many languages. It was tuned on the same items in
# English and asked the same questions; there are fewer trainings, items and random sets, since a
# training takes it minutes. A gain at zero, if there is one, means that the task is done better in
# a language with that language's own neurons off; where the same label is given to everything, it
# may be no more than that another label is given, too.

# %% tags=["shipped"]
there, made_there = taught.shipped_tables("activations", real_data)
real_levels, real_effects, real_contrasts = {}, {}, {}
real_beside = {}
for task, table in there.items():
    floor = taught_effects.floor_of(task, table)
    real_levels[task] = taught_effects.taught_levels(table, floor)
    real_effects[task] = taught_effects.taught_effects(table)
    for value in ("P10 after", "P10 before"):
        real_contrasts[task, value] = taught_effects.taught_contrast(
            table,
            "zero",
            value,
        )
    file = f"lsn_effects_real_{task}.csv"
    write_table(real_effects[task], results / file)
    real_beside[task] = taught_effects.taught_beside_random(table)
    file = f"lsn_beside_real_{task}.csv"
    write_table(real_beside[task], results / file)
display(
    taught_pages.made_in_words(
        made_there,
        "python -m crane_lab.cli.tune --profile gemma",
    ),
    taught_pages.levels_table(real_levels, {}),
    *(
        taught_pages.transfer_in_words(
            {task: own},
            made_there[task]["inputs"]["source"],
        )
        for task, own in real_levels.items()
    ),
)
if "nli" in there:
    by_label = taught_effects.right_by_label(there["nli"])
    display(
        taught_pages.labels_in_words(by_label),
        figures.folded(
            "NLI, label by label",
            taught_pages.labels_table(by_label),
        ),
    )

# %% [markdown]
# ## What interventions change
#
# Ticks are random sets with as many neurons in every layer, where they were set to the same value.
# Intervals are for other trainings and items, of which there are few.

# %% tags=["shipped"]
asked = pd.concat(real_effects.values())["language"].unique().tolist()
for x in asked:
    figure = taught_pages.effects_figure(
        real_effects,
        full_names(asked),
        x,
    )
    display(figure)

# %% tags=["shipped"]
display(
    taught_pages.effects_counts_table(real_effects),
    taught_pages.gains_in_words(real_effects),
)

# %% [markdown]
# Beside random sets at the same value, by intervals for one more of them and for other trainings:

# %% tags=["shipped"]
display(
    taught_pages.values_beside_random_in_words(real_beside),
    figures.folded(
        "Value by value",
        taught_pages.values_beside_random_table(real_beside),
    ),
)

# %% [markdown]
# And at zero, counted, which assumes no shape and tells less:

# %% tags=["shipped"]
display(
    taught_pages.beyond_random_in_words(real_effects),
    figures.folded(
        "Row by row",
        taught_pages.taught_table(
            real_effects,
            "Neurons set to zero, Gemma",
        ),
    ),
)

# %% [markdown]
# ## Zero, or the tenth percentile?

# %% tags=["shipped"]
display(
    taught_pages.contrast_table(real_contrasts),
    taught_pages.contrast_in_words(real_contrasts),
)

# %% [markdown]
# ## Training by training
#
# A mean over few trainings hides how different they are:

# %% tags=["shipped"]
for x in asked:
    for task, table in there.items():
        shown = taught_pages.trainings_table(table, x, f"{task} items")
        display(shown)

# %% [markdown]
# ## Exercise
#
# ```{exercise-start} Three trainings · easy, 5 minutes
# :label: exercise-lsn-trainings
# ```
# In three trainings the same intervention gains four points, gains one and loses two. Is there a
# gain? (With three values a 95 % interval reaches $4.3$ standard errors to either side of their
# mean.)

# %%
# In points: the mean, and how far the interval reaches
my_mean, my_reach = ..., ...

exercises.interval_of_few((my_mean, my_reach))

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# The standard error is the standard deviation (`numpy.std` with `ddof=1`) over the root of the
# number of values.
# ```
#
# ```{solution} exercise-lsn-trainings
# :class: dropdown
#
# The mean is a gain of one point, the standard deviation three, so the standard error is
# $3 / \sqrt{3} \approx 1.7$, and the interval reaches some seven points to either side: it cannot
# be told. One training alone would have said a gain of four, or a loss of two.
# ```
#
# Next: [training the neurons](14_lsn_tuning) instead of setting them, because then the model finds
# the values itself.
