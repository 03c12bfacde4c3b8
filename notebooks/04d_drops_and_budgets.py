# %% [markdown]
# # LangSpec-F1 under other drops and other budgets
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** move the drops of a mask and say what LangSpec-F1 makes of them; say
# whether a method's place in Table 1 depends on how many neurons are masked; and say what a mask
# scores that does nothing.
#
# **It assumes** [Table 1](04_table1).
#
# **It takes** fifteen minutes to read; the computer needs some seconds after notebook 04, whose
# evaluations it reads, and some five minutes without it.
#
# **It covers** §3.5 of the paper {cite:p}`le2026crane`, and the identical budgets of §4.2.
# :::

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
tasks = "data/testbed/tasks"  # folder with the benchmarks: lm-eval YAML files and their items
random_seeds = [0, 1, 2, 3, 4]  # one random mask per seed, as control
n_perplexity = 200  # windows per language that perplexity is measured on
null_data = "data/testbed"  # folder with what random masks do, as it is shipped
n_null = 0  # random masks of every set whose null is not shipped
criterion_data = "data/criterion"  # folder with what candidates for a criterion do
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %% tags=["hide-input"]
from pathlib import Path

from IPython.display import display

from crane_lab import audit
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import table1_page
from crane_lab.show.budget_view import (
    budget_view,
    budgets_in_words,
    no_budgets,
)
from crane_lab.show.langspec_view import langspec_view, random_scores
from crane_lab.store import write_table
from crane_lab.study import task_budgets
from crane_lab.study.evaluated_masks import EvaluatedMasks
from crane_lab.study.nulls import Nulls
from crane_lab.texts.languages import language_names

settings = Settings.of(globals())
pipeline = Pipeline(settings)
paper = pipeline.main_tasks
results = Path(run_dir) / "results"
names = language_names(settings.languages)
masks = EvaluatedMasks(pipeline)
table1 = masks.evaluated.table(paper)
seeds = masks.evaluated.seeds(paper)

# %% [markdown]
# ## Move the drops yourself
#
# Start from a mask of Table 1 and change what it takes from each language, in percent of that
# language's score; precision, recall and LangSpec-F1 ([Equations 3 to 5](method)) follow. The marks
# below the bars are random masks: read a bar against *them*, not against zero. Three things to try:
# take the same share from every language, with absolute drops and with relative ones; spare all
# languages but one and take next to nothing from it; and turn another language's drop into a gain.

# %% tags=["nulls"]
random = Nulls.of(pipeline, null_data, n_null)
nulls = random.of_rows("tasks", masks.rows)
random_of = random_scores(nulls, seeds, paper)
langspec_view(table1, names, random_of, pipeline.reading)

# %% [markdown]
# Precision does not see how large a drop is, recall does not see where else something was lost, and
# a gain elsewhere is not rewarded. The same share taken from all gives a precision of one half with
# relative drops (by the largest or the mean of the others); with absolute ones the mask scores by
# where the languages started.
#
# ## Would another budget tell another story?
#
# How many neurons Table 1 masks is decided by CRANE's threshold, and a method may be good at few
# neurons and bad at many. Here three orders of neurons are cut off at the same numbers: CRANE's
# score, LAPE's order, and the relative contrast of mean |relevance|, which
# [notebook 19](19_better_criterion) comes to. Move the slider, and hold each row against random
# masks of as many neurons out of all layers. (A method whose neurons lie in few layers has another
# null than these; that of Table 1's own sets is above.) Two things to look for: whether a method's
# place in the table changes with the budget, and whether LangSpec-F1 and held-out loss agree.

# %% tags=["shipped"]
shipped = task_budgets.read_task_budgets(pipeline, criterion_data)
if shipped is None:
    display(no_budgets())
else:
    by_budget = task_budgets.by_share(
        shipped,
        settings.languages,
        pipeline.reading,
    )
    write_table(by_budget, results / "table1_budgets.csv")
    layers, width = pipeline.shape["intermediate"]
    display(
        budget_view(by_budget, names, layers * width),
        budgets_in_words(by_budget, names),
    )

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} LangSpec-F1 of a mask that does nothing · medium, 15 minutes
# :label: exercise-null
# ```
# Imagine a mask without any systematic effect: on each task one item in ten changes sides, half of
# them from right to wrong and half from wrong to right. What LangSpec-F1 do you expect on average?
# Guess first, then simulate it with the number of items of our tasks, and again with 70 items, the
# size of the paper's open-ended question sets.
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# A drop of the target counts as recall only where it is one: what becomes of the half of the draws
# in which the target gains? `audit.null_f1` simulates, given the number of items, the share that
# changes and the score to begin with.
# ```
#
# ```{solution-start} exercise-null
# :class: dropdown
# ```

# %%
target = settings.languages[0]
sizes = len(masks.evaluated.scored(paper).before[target]), 70
start = float(table1.loc[0, target])
simulated = {n: audit.null_f1(n, 0.1, start) for n in sizes}
table1_page.simulated_table(simulated, names[target])

# %% [markdown]
# About half of the time the target happens to lose, and then the score is positive. With few items
# the noise is larger and so is the score. This is why a LangSpec-F1 needs random masks beside it,
# and an interval.
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show
#
# - The sliders move drops by hand. No mask does just that, and what a mask can do to a language is
#   bounded by the model.
# - Budgets are shares of all neurons, and random masks beside them are out of all layers. A method
#   whose neurons lie in few layers has another null than these.
#
# Next: [open-ended answers](05_open_ended), because to choose among four options is not yet to
# speak a language.
