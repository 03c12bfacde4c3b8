# %% [markdown]
# # The gate: is the testbed fit for it?
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** read an accuracy with its interval and against chance; explain how the
# model was accepted before any method was run on it; and name what the paper's choice of benchmarks
# mixes up.
#
# **It assumes** the model and its six tasks ([Meet the testbed](00_meet_the_testbed)).
#
# **It takes** a quarter of an hour to read; the computer needs about half a minute.
#
# **It covers** §4.3 of the paper {cite:p}`le2026crane`, what languages are measured by, as far as a
# testbed can stand in for it.
# :::

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
testbed = "data/testbed"  # folder with the testbed's training log and the files of its gate
task_limit = None  # items per task, spread evenly over it; None takes all
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

import pandas as pd
from IPython.display import display
from scipy.stats import binomtest

from crane_lab.engines import multiple_choice
from crane_lab.engines.tasks import TASKS
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import crane_exercises as exercises
from crane_lab.show import figures, testbed_pages
from crane_lab.store import write_table
from crane_lab.study import gate, unmasked

pipeline = Pipeline(Settings.of(globals()))
results, shipped = Path(run_dir) / "results", Path(testbed)

# %% [markdown]
# ## How well it answers
#
# An accuracy from $n$ items is an estimate. The interval beside it is the {term}`Wilson interval`,
# which behaves well for proportions: over many such samples of items, 95 % of the intervals would
# hold the true accuracy. Chance is one in four.

# %%
items = pipeline.items()
asked = [task for task in TASKS if task in pipeline.prepared.tasks]
scores = multiple_choice.accuracies(items).loc[asked].reset_index()
scores["chance"] = gate.CHANCE
write_table(scores, results / "testbed_accuracy.csv")
display(
    testbed_pages.accuracy_table(scores),
    testbed_pages.accuracy_words(scores, items),
)

# %% [markdown]
# ### What it knows, and how it reads
#
# One number per task hides a lot. Here is the same by kind of question: what is asked about whom
# for knowledge, what is asked of a story with how many people for reading.

# %%
by_relation = unmasked.by_relation(items, languages)
write_table(by_relation, results / "testbed_by_relation.csv")
display(
    testbed_pages.relation_words(by_relation),
    figures.folded(
        "Every kind of question",
        testbed_pages.relation_table(by_relation),
    ),
)

# %% [markdown]
# Mind the chance level of the reading tasks. Wrong options are taken from the story as far as it
# has any: a story of one person mentions one possible answer, and a story of three mentions
# three. A *copier* that picks any fitting word of the passage, without working out who did what,
# is right in all items of the first kind, in half of the second and in a third of the last.

# %%
copier = unmasked.copier(items, scores)
display(
    testbed_pages.copier_table(copier),
    testbed_pages.copier_words(copier),
)

# %% [markdown]
# For comparison, the scores of the paper's unmasked model. They come from other tests and another
# model, so only their level is of interest: Llama-2-7B, too, is not far above chance on such
# tests.

# %% tags=["published"]
published = pd.read_csv("data/published/table1.csv")
testbed_pages.published_table(published)

# %% [markdown]
# ## One test per language, or one test in all languages?
#
# The paper's Table 1 measures English with MMLU, Chinese with C-Eval and Vietnamese with
# Belebele. A mask that hurts Belebele more than MMLU may have hit Vietnamese. It may also have
# hit *reading a passage*, whatever the language. With one test per language, language and test
# cannot be told apart: they are *confounded*.
#
# How different are the tests themselves? On the testbed both kinds of test exist in every
# language, so we can compare.

# %%
grid = testbed_pages.accuracy_grid(scores, languages)
display(
    testbed_pages.grid_table(grid),
    testbed_pages.grid_words(grid, scores),
)

# %% [markdown]
# ## The gate
#
# A testbed could be tuned until the method under study looks good on it. To rule that out, this
# one had to pass a gate that knows two things only: the unmasked model, and *random* masks. A
# random mask zeroes the same share of MLP neurons in every layer. The order of events is in the
# history of the repository: the gate's requirements were written (commit f11bc06) before there was
# a model (824a523). That model did not pass, because too many of the knowledge items asked for real
# facts, which it knew; with fewer of them it passed and was committed (48a4188). No method had been
# run on it by then, and it was not trained again.
#
# What should a usable testbed show?
#
# - **Room both ways.** At a ceiling no mask shows an effect; at chance there is nothing to lose.
# - **A gradual decline.** If nothing happened up to a point and everything after it, masks of
#   different quality would look the same.
# - **Robustness to little damage.** If 3 % of random neurons ruined it, any set would look
#   necessary.
# - **Items of mixed difficulty.** If items were either trivial or hopeless, accuracy could only
#   move when a mask is large enough to flip trivial ones.
#
# Each line of the figure below is a task, and its band the interval over random masks of that size.
# Look for a slope: a line that stays flat and then falls off a cliff would tell masks of different
# quality apart only at the cliff.

# %% tags=["shipped"]
curve = pd.read_csv(shipped / "gate.csv")
declined = gate.decline(curve)
display(
    testbed_pages.gate_curves(declined),
    figures.folded(
        "The same in numbers",
        testbed_pages.gate_table(declined),
    ),
)

# %% tags=["shipped"]
verdicts = pd.read_csv(shipped / "gate_verdicts.csv")
display(
    testbed_pages.gate_words(verdicts, curve, scores, task_limit),
    figures.folded(
        "Every requirement, and what was measured",
        testbed_pages.requirements_table(verdicts),
    ),
)

# %% [markdown]
# ## How hard the items are
#
# The {term}`margin` of an item is the right option's log-probability minus that of the best wrong
# one: positive if the answer is right, and the further from zero the surer. A mask moves an item's
# outcome only if it moves the margin across zero, so items close to zero are what a small effect
# can be seen on.

# %%
testbed_pages.margins_figure(items, asked)

# %%
display(
    testbed_pages.difficulty_table(items, asked),
    testbed_pages.difficulty_words(copier),
)

# %% [markdown]
# ## A first mask
#
# To *mask* a neuron is to make it put out zero while everything else stays as it is (§3.4).
# Before a mask is ever evaluated, the library makes sure that it does something: some logit must
# change. Here is that check with random masks of growing size, the empty one first, and a look at
# whether the model is back to what it was, to the last bit, once a mask is lifted.

# %%
found = unmasked.first_masks(pipeline)
testbed_pages.first_masks_table(found, n_windows=len(languages))

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} How many items? · medium, 10 minutes
# :label: exercise-how-many-items
# ```
# Suppose that masking costs 3 of 100 points. With how many items per task would the Wilson
# intervals of an accuracy of 0.60 and of 0.57 no longer overlap? And why can we hope to see such
# a drop with fewer items than that?

# %%
my_items = ...  # to the next hundred

exercises.items_told_apart(my_items)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# `binomtest(right, n).proportion_ci(method="wilson")` is the interval. Half of it is about 1.96
# times the root of $p(1 - p)/n$; the two halves that face each other have to fit into the gap.
# ```
#
# ```{solution-start} exercise-how-many-items
# :class: dropdown
# ```

# %%
shares, right = (0.57, 0.60), {}
for n in (160, 640, 2_560, 5_120):
    right[n] = [binomtest(round(share * n), n) for share in shares]
testbed_pages.how_many_items_table(right)

# %% [markdown]
# It takes thousands. But the two scores come from the *same* items, before and after. Most items
# keep their outcome, and only those that change carry the difference: an interval for the paired
# difference is much narrower than the two separate ones suggest. That is why [Table 1](04_table1)
# keeps every item's outcome and resamples items in pairs.
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show
#
# - Where the gate's requirements hold, the numbers show that this model knows its world in part, in
#   every language, and that accuracy falls gradually under random damage: there is something to
#   measure a mask by.
# - Where the model reads no better than a copier, a reading score says how well it copies. Keep the
#   copier's score in mind when a reading score falls, or does not.
# - The intervals of accuracy are over items; those of the gate are over random masks. Neither
#   covers training: another seed would give another model with other numbers.
# - Accuracies of different tasks are not comparable as measures of a *language*.
#
# Next: [Relevance](01_relevance), where a prediction is traced back to neurons.
