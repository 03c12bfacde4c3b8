# %% [markdown]
# # Setting neurons during a task, on our model
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** hold an intervention on a tuned model against its training, its items and
# random sets of its size, and say where it can show harm, a gain, or neither.
#
# **It assumes** [notebook 13](13_lsn_transfer), whose questions are asked here.
#
# **It takes** twenty minutes to read; the computer needs some seconds.
#
# **It covers** an experiment like that of Tables 4 and 5 of *Language-specific neurons do not
# facilitate cross-lingual transfer* {cite:p}`mondal2025transfer`.
# :::

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
n_samples = 1000  # windows of text per language that relevance is taken on
seed = 0  # seed of everything that is drawn at random, except training
taught_data = "data/testbed"  # folder with the shipped results of trainings
recompute_taught = False  # train every set again instead of reading the shipped results
n_trainings = 5  # trainings of each set, if they are run again
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

from IPython.display import display

from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import figures, taught_pages
from crane_lab.show import later_exercises as exercises
from crane_lab.store import write_table
from crane_lab.study import taught, taught_effects, tuned
from crane_lab.testbed.unseen import unseen_items
from crane_lab.texts.languages import language_names

results = Path(run_dir) / "results"
results.mkdir(parents=True, exist_ok=True)
settings = Settings.of(globals())
pipeline = Pipeline(settings)
names = language_names(settings.languages)

# %% [markdown]
# ## Two tasks
#
# The testbed knows a world of made-up people in three languages. Two tasks ask about it in texts
# that it never saw. In **nli** a premise tells something about a person, and a hypothesis follows
# from it, may be true, or contradicts it. In **qa** a question is answered by words of a story.
# Items are translations of each other, parts share no story, labels are balanced, and a hypothesis
# without its premise tells nothing (a classifier of hypotheses alone is right in about a third).
# Labels follow the fact that a sentence was made from, not its every word: what a second reader
# made of them to the letter is in `data/unseen/README.md`, beside the items as lm-eval's tasks.

# %%
display(
    taught_pages.nli_items_table(unseen_items("nli", "test")),
    taught_pages.qa_items_table(unseen_items("qa", "test")),
)

# %% [markdown]
# ## Tuned in English, asked in every language
#
# As in the paper, the model is tuned in English alone, by LoRA {cite:p}`hu2022lora`, here on
# attention and MLPs: for nli with a linear head on the last token of the text, for qa to go on with
# the answer. (The public code reads the head's input at the last *position*, which in most texts of
# a padded batch is a pad.) Then every language is asked: the same items in each, none dropped for
# its length, answers compared as text, where the public code compares token ids. This was done
# several times: the items stay, their order and LoRA's first values are drawn anew.

# %% tags=["shipped"]
tables, made = taught.taught_tables(
    pipeline,
    "activations",
    results if recompute_taught else taught_data,
    n_trainings if recompute_taught else None,
)
taught_pages.made_in_words(
    made,
    "python -m crane_lab.cli.tune --parts activations",
)

# %% [markdown]
# ### What is learned in English, and what arrives elsewhere

# %% tags=["shipped"]
levels = {}
for task, table in tables.items():
    floor = taught_effects.floor_of(task, table)
    levels[task] = taught_effects.taught_levels(table, floor)
before = {"qa": tuned.untuned_answers(pipeline)}
source = next(iter(made.values()))["inputs"]["source"]
display(
    taught_pages.levels_table(levels, before),
    taught_pages.transfer_in_words(levels, source, before),
    taught_pages.people_table(
        taught_effects.right_by_people(tables["qa"]),
    ),
)
if "nli" in tables:
    by_label = taught_effects.right_by_label(tables["nli"])
    display(
        taught_pages.labels_in_words(by_label),
        figures.folded(
            "NLI, label by label",
            taught_pages.labels_table(by_label),
        ),
    )

# %% [markdown]
# (For nli there is no head before it is trained; of qa the floor is nothing, and what picking a
# word that fits would get is in the last table.) Read this before any intervention. Where nothing
# arrives there is everything to gain, which is what the paper looked for, and nothing to lose: a
# language at the floor says nothing about harm. On the testbed tuning changes little in qa, since
# the model could copy words of the right kind from a passage before, and with several people in a
# story it hardly tells whose is whose.
#
# ## What interventions change
#
# Each value is written to the neurons of the language that is asked, at the output of `act_fn`, in
# all layers and at all positions. *After* means read there, too; *before* is read at its input, as
# the public code does it. The change is from the same tuned model, untouched, and its interval is
# for other trainings and other items. Ticks are random sets with as many neurons in every layer,
# each neuron at the same statistic of its own.

# %% tags=["shipped"]
effects, beside = {}, {}
for task, table in tables.items():
    found = taught_effects.taught_effects(table)
    write_table(found, results / f"lsn_effects_activations_{task}.csv")
    effects[task] = found
    beside[task] = taught_effects.taught_beside_random(table)
    write_table(
        beside[task],
        results / f"lsn_beside_activations_{task}.csv",
    )
for x in languages[1:]:
    display(taught_pages.effects_figure(effects, names, x))

# %% tags=["shipped"]
display(
    taught_pages.effects_counts_table(effects),
    taught_pages.gains_in_words(effects),
    taught_pages.resolution_in_words(effects),
)

# %% [markdown]
# A change says little before random sets of the same size were set likewise. There are a few of
# these at each value, so intervals are for one more of them and for other trainings:

# %% tags=["shipped"]
display(
    taught_pages.values_beside_random_in_words(beside),
    figures.folded(
        "Value by value",
        taught_pages.values_beside_random_table(beside),
    ),
)

# %% [markdown]
# At zero there are more of them, which can be counted. That assumes no shape of their distribution,
# as the intervals do, and tells less: beyond all of twenty is one in twenty-one, before correction.

# %% tags=["shipped"]
display(
    taught_pages.beyond_random_in_words(effects),
    figures.folded(
        "Row by row",
        taught_pages.taught_table(effects, "Neurons set to zero"),
    ),
)

# %% [markdown]
# ## Zero, or the tenth percentile?
#
# "Zero does not deactivate" was concluded from percentiles that, on average over neurons, lie below
# anything a neuron can put out. Written where it was read, the tenth percentile is a state of the
# neuron. Here are both, against zero, in one and the same tuned model: *P10 before* as the public
# code has it, *P10 after* as it can be.

# %% tags=["shipped"]
contrasts = {}
for task, table in tables.items():
    for value in ("P10 after", "P10 before"):
        contrasts[task, value] = taught_effects.taught_contrast(
            table,
            "zero",
            value,
        )
display(
    taught_pages.contrast_table(contrasts),
    taught_pages.contrast_in_words(contrasts),
)

# %% [markdown]
# ## Exercise
#
# ```{exercise-start} Few random sets · easy, 5 minutes
# :label: exercise-lsn-draws
# ```
# Beside a set stand nine random ones, and its change is larger than all of theirs. The p-value is
# counted: the share of the ten that are at least as large as the set's own. What is it? The set is
# one row of twenty. What does correcting (Benjamini and Hochberg) make of the p-value if all others
# are 1? And if sets are first in all twenty rows?

# %%
my_p = ...  # as it is counted
my_alone, my_all = ..., ...  # corrected: alone, and first in all rows

exercises.counted_p((my_p, my_alone, my_all))

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# Benjamini and Hochberg multiply the smallest of the p-values by the number of rows, the second
# smallest by half of that, and so on, and never leave more than a larger one has or than 1.
# ```
#
# ```{solution} exercise-lsn-draws
# :class: dropdown
#
# One in ten, and no lower one can be had from nine draws. Corrected, the smallest of twenty
# p-values is multiplied by twenty if the others are 1: that is more than one, so nothing is left.
# Even if sets were first in all twenty rows, a tenth would remain. Where few rows may be more than
# chance, counting takes many times as many draws as there are rows.
# ```
#
# Next: [the same on Gemma](13c_lsn_real), because a model that knows one small world is a narrow
# place to look for transfer.
