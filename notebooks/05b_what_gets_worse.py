# %% [markdown]
# # What gets worse in an answer?
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say whether a mask makes a model forget, ramble, break down or change its
# language; say how far a judge agrees with readers; and judge some answers yourself.
#
# **It assumes** [Table 2](05_open_ended).
#
# **It takes** fifteen minutes to read; the computer needs some seconds after notebook 05, whose
# answers it reads, and a minute or two without it.
#
# **It covers** what stands behind Table 2 of the paper {cite:p}`le2026crane`, which prints grades
# alone.
# :::

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
random_seeds = [0, 1, 2, 3, 4]  # one random mask per seed, as control
questions = "data/questions"  # folder with <language>.txt, one open question per line
n_questions = None  # questions per language; None: all
max_new_tokens = 96  # tokens of an answer at most
repetition_penalty = 1.1  # makes tokens that were used already less likely; 1: no penalty
judge = "rubric"  # who grades answers: rubric (testbed only), surface or llm
judge_model = "gpt-4o"  # name of the judging model, for judge llm
judge_endpoint = None  # address of an OpenAI-compatible service; None: OpenAI's
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %% tags=["hide-input"]
import dataclasses
from pathlib import Path

import pandas as pd
from IPython.display import display

from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import figures, open_page, readouts, table_pages
from crane_lab.show.foreign import prose
from crane_lab.stages import comparisons
from crane_lab.store import write_table
from crane_lab.texts.languages import language_names

settings = Settings.of(globals())
pipeline = Pipeline(settings)
results = Path(run_dir) / "results"
names = language_names(settings.languages)
judged = pipeline.judged(pipeline.rows())
items = judged.items()

# %% [markdown]
# ## The parts of a grade
#
# A grade is one number. Its parts, where the judge has any, say whether the model forgets (truth),
# loses the thread (relevance), breaks down (form, variety, presence) or changes language. Each row
# of the table below is a mask in its own language; random masks are averaged.

# %%
if pipeline.judge.subscores:
    columns = [*pipeline.judge.subscores, "score"]
    parts = comparisons.own_language(items, columns)
    write_table(parts, results / "table2_parts.csv")
    display(open_page.parts_table(parts))

# %% [markdown]
# ## Which language do the answers come in?
#
# If a set of neurons held a language together, its mask might make the model answer in another one.
# Rows of the figure below are masks, panels the language of the question, and columns the language
# of the answer.

# %%
spoken = judged.spoken()
write_table(spoken, results / "table2_languages.csv")
stays = readouts.left_language(spoken, names)
display(table_pages.spoken_figure(spoken, names), prose(stays))

# %% [markdown]
# ## Does the judge grade as a reader would?
#
# A rubric that we wrote could favour anything. So 108 answers on the testbed, 36 in each language,
# from its base and chat model, unmasked and under five kinds of masks, were drawn at random and
# graded from 1 to 10 by two readers. The readers had the question, the true facts and the answer;
# neither the rubric nor the other's grades, nor which mask it was. They graded by reading, without
# a formula; but they are two instances of the AI that this project is written with, so that they
# agree with each other more than two people would. Their grades and remarks are in
# `data/testbed/hand_scored.csv`: grade some yourself and compare. The table is shown where the
# rubric grades; no reader has graded for the surface judge, which leaves out most of what readers
# look at.

# %% tags=["shipped"]
if settings.judge == "rubric":
    file = "data/testbed/hand_scored.csv"
    hand = pd.read_csv(file, keep_default_na=False)
    hand = hand[hand["language"].isin(names)].reset_index(drop=True)
    hand["rubric"] = pipeline.judge.score(hand)["score"].to_numpy()
    graders = ["rubric", "reader_1", "reader_2"]
    agreement = comparisons.grader_agreement(hand, graders)
    write_table(agreement, results / "judge_agreement.csv")
    display(open_page.graders_table(agreement))

# %% [markdown]
# The row to compare the rubric with is that of the two readers: where they differ, no rubric can
# agree with both.

# %% [markdown]
# ## Judge for yourself
#
# Three answers, unmasked and masked. To keep us from choosing, it is the first question of every
# language; the masks are those made for that language, and the first seed of the random ones.

# %%
first, *others = names
display(
    open_page.answers_table(items, first, names[first]),
    figures.folded(
        "In the other languages",
        *(open_page.answers_table(items, x, names[x]) for x in others),
    ),
)

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} Does the penalty matter? · medium, 20 minutes
# :label: exercise-penalty
# ```
# A repetition penalty of 1.1 also counts what stands in the question: the name that a good answer
# has to repeat becomes less likely. How do grades and lengths of the unmasked model change with
# `repetition_penalty` 1.0?
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# `dataclasses.replace` makes settings with another penalty, and a `Pipeline` with them takes what
# it has in the same store. Compare the unmasked model with itself.
# ```
#
# ```{solution-start} exercise-penalty
# :class: dropdown
# ```

# %%
plain = dataclasses.replace(settings, repetition_penalty=1.0)
graded = {
    settings.repetition_penalty: pipeline.graded(),
    1.0: Pipeline(plain, pipeline.store).graded(),
}
open_page.penalty_table(graded)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show

# %%
table_pages.bullets(stays)

# %% [markdown]
# - The parts of a grade are the rubric's, or the surface judge's. Neither says why an answer got
#   worse, and a mask of random neurons makes answers worse, too: read each part beside theirs.
# - Readers graded answers of the testbed. How far a judge of another model's answers agrees with
#   readers is not known from that.
#
# Next: [the chat model](06_transfer), to see whether neurons keep their role when a model is tuned.
