# %% [markdown]
# # Steering: by which way, into which languages, for which tasks?
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** weigh what steering wins against what it loses; compare setups on the same
# questions; say which languages are reached by adding to their neurons and what that goes together
# with; and hold a task's score under steering against the untouched model, another language's
# neurons, and random ones.
#
# **It assumes** [notebook 16](16_steering): what is added to which neurons, and what its answers
# count as.
#
# **It takes** fifteen minutes to read; the computer needs some seconds.
#
# **It covers** the setups, the languages that are reached and the other tasks of *Language
# Arithmetics* {cite:p}`gurgurov2025arithmetics`.
# :::

# %% tags=["parameters", "hide-input"]
languages_data = "data/languages"  # folder with the shipped results on many languages
steering_questions = "data/steering/questions.yaml"  # short questions with answers
permutations = 4999  # permutations of languages in Mantel's test
seed = 0  # seed of everything that is drawn at random, except training
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

import pandas as pd
from IPython.display import display

from crane_lab.show import figures
from crane_lab.show import steered_tasks_pages as tasks_page
from crane_lab.show import steering_pages as page
from crane_lab.store import write_table
from crane_lab.study import (
    known,
    steered_tasks,
    steering,
    steering_effects,
    task_effects,
)

results = Path(run_dir) / "results"
results.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Success against side effects
#
# Each point of the figures below is a strength that was run in [notebook 16](16_steering), from
# nothing on: how often the mean is added, how often its contrast, by how much outputs are scaled.
# What is gained lies to the right; what it costs can be read upwards (loss, repetition). Answers
# that are in the target and right can only rise with those in the target, so hold them against how
# many there are.

# %% tags=["shipped"]
table = steering.shipped_outcomes(
    languages_data,
    steering_questions,
)
summary = steering_effects.steering_summary(table)
display(*page.tradeoff_figures(summary))

# %% [markdown]
# ## Is arithmetic better than replacement?
#
# The paper says so. The same neurons, questions and targets, one setup of
# [notebook 16](16_steering) against another:

# %% tags=["shipped"]
central = ("add", "mean", 1.0)
compared = steering_effects.setup_contrasts(
    table,
    {
        "add less set": (central, ("set", "mean", 1.0)),
        "add less contrast": (central, ("contrast", "mean", 1.0)),
        "add less zero + add": (central, ("zero + add", "mean", 1.0)),
        "mean less probability": (central, ("add", "probability", 1.0)),
    },
)
write_table(compared, results / "steering_setups.csv")
page.setup_contrast_table(compared)

# %% [markdown]
# ## Into which languages?
#
# The paper finds that languages with much text are reached more easily, and related ones. Here the
# mean is added once. How much text Gemma was trained on in each language is not published. What can
# be measured is how well it knows a language: what it needs for the same paragraphs, in nats.

# %% tags=["shipped"]
understood = pd.read_csv(Path(languages_data) / known.FILE)
success = steering_effects.success_by_language(
    table,
    central,
    understood,
    permutations,
    seed,
)
write_table(success, results / "steering_success.csv")
display(
    tasks_page.success_table(success),
    figures.folded(
        "What Gemma needs for the same paragraphs",
        tasks_page.known_table(understood),
    ),
)

# %% [markdown]
# ## Does it help a task?
#
# The paper has four other tasks. Their texts are not at hand; what stands in for them, in three
# languages, is done while the mean is added once to the neurons of the task's language, or of
# another:
#
# - *facts* (capitals, currencies, and the like) and *continuation* (which sentence comes next): the
#   likeliest of four options is taken;
# - *translation* from English, after two translations that are shown: paragraphs of software
#   manuals, scored by chrF, which counts runs of characters that are also in the reference. The
#   task's own language is the one translated into, so English is another;
# - *nli*: premise and hypothesis of [notebook 13b](13b_lsn_ours), learned in English by the whole
#   model, three trainings; what is added are the means before training.
#
# Items are the same in every language. Random neurons of the same layers get the same numbers, as
# in notebook 16. A change is certain if it is for other items (and trainings); whether it is more
# than random neurons bring about is asked separately, with the spread of what random sets do.

# %% tags=["shipped"]
scores, corpora = steered_tasks.shipped_scores(languages_data)
_, made = steered_tasks.read_steered_tasks(languages_data)
tasks = task_effects.task_summary(scores)
write_table(tasks, results / "steered_tasks.csv")
display(
    tasks_page.items_in_words(scores, made["inputs"]),
    tasks_page.tasks_figure(tasks),
    tasks_page.tasks_in_words(tasks),
    tasks_page.tasks_table(tasks),
)

# %% [markdown]
# Language by language:

# %% tags=["shipped"]
cells = task_effects.task_cells(scores)
write_table(cells, results / "steered_tasks_cells.csv")
translated = task_effects.translation_summary(corpora)
write_table(translated, results / "steered_translations.csv")
display(
    figures.folded("Every task in every language", tasks_page.task_cells_table(cells)),
    figures.folded(
        "Translations as a whole",
        tasks_page.translation_table(translated, cells),
    ),
)

# %% [markdown]
# ## Exercises
#
# ```{exercise} Better at what? · easy, 10 minutes
# :label: exercise-steered-task
#
# The mean of the task's language is added to its neurons, and a task's score rises by two points.
# With as many random neurons of the same layers it rises by two points as well. What has been
# found, and which two rows of the tables above would you look at next?
# ```
#
# ```{dropdown} Hint
# What do the two sets of neurons have in common, if not the language? Which row keeps the size of
# the push and changes only whose neurons get it?
# ```
#
# ```{solution} exercise-steered-task
# :class: dropdown
#
# That a push of this size moves the score, whichever neurons get it: nothing about the language.
# Next come the rows in which another language's mean is added, which push the same model with other
# neurons, and those of the tasks that did not move: of many tasks and languages some rise by
# chance.
# ```

# %% [markdown]
# Next: [languages switched off](17_fallback), the opposite question: what answers when a language's
# neurons are taken away.
