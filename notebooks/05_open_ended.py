# %% [markdown]
# # Table 2: open-ended answers
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say what changes when a model may speak freely instead of choosing among
# four options; grade an answer as the judge does and say where you would disagree; read Table 2,
# ours and the published one; and say what its scores are worth beside random masks.
#
# **It assumes** masks and LangSpec-F1 ([notebook 04](04_table1)).
#
# **It takes** twenty minutes to read; the computer needs a minute or two on the testbed.
#
# **It covers** §4.3, §4.4 and §5.3 of the paper {cite:p}`le2026crane` and Table 2.
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
null_data = "data/testbed"  # folder with what random masks do, as it is shipped
n_null = 0  # random masks of every set whose null is not shipped
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %% tags=["hide-input"]
from functools import partial
from pathlib import Path

from IPython.display import display

from crane_core import metrics
from crane_lab import audit
from crane_lab.engines import generation
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import figures, open_page, readouts, table_pages
from crane_lab.show import table_exercises as exercises
from crane_lab.stages import comparisons
from crane_lab.store import write_table
from crane_lab.study.nulls import Nulls, asked_in
from crane_lab.texts.languages import language_names

settings = Settings.of(globals())
pipeline = Pipeline(settings)
results = Path(run_dir) / "results"
names = language_names(settings.languages)
interventions = pipeline.rows()

# %% [markdown]
# ## What is asked
#
# Choosing among four options tests whether a model can tell a right answer when it sees one. All
# options are in the language of the question, so the model cannot leave it. An open question asks
# the model to say something of its own. The paper follows LAPE {cite:p}`tang2024lape`: one set of
# 70 questions in each language. The testbed's are about its world, 38 of them asking what is known
# of a person or place and 32 asking for a single fact, in a wording that is in no training text.
# For real models there are 70 short ones about the real world (`data/open_questions`), asking why,
# how, what for, or for a description. The n-th questions of all languages ask for the same kind of
# thing, and about the real world for the same thing.
#
# A base model is not used to being asked. It gets LAPE's frame, `Q: … A:`, and goes on writing; the
# answer ends where it ends the text or asks a question of its own. Decoding is greedy with a
# repetition penalty of 1.1, as in §4.4. In float32 an answer is the same whatever is generated
# beside it; in shorter types ([choices](choice-questions)) that need not be so.

# %%
asked = pipeline.asked
one = asked["question"].iloc[0]
prompt = generation.prompts(pipeline.tokenizer, [one], chat=False)[0]
display(
    open_page.questions_table(asked),
    open_page.framed(pipeline.tokenizer.decode(prompt)),
)

# %% [markdown]
# ## The judge
#
# The paper has GPT-4o grade each answer from 1 to 10. A judge like that can be asked of any model
# behind an OpenAI-compatible service (`judge = "llm"`). For the testbed there is something
# better (`judge = "rubric"`): its world is known in full, and it is told in a limited number of
# phrasings, so that every sentence of an answer can be taken apart and looked up. This **rubric**
# gives the same grade on every machine. It has five parts, each from 0 to 1:
#
# - *language*: is the answer in the language of the question?
# - *form*: are its sentences well formed?
# - *truth*: which share of its statements holds in the testbed's world?
# - *relevance*: is what was asked for among them?
# - *variety*: how much of it is not said twice?
#
# The grade is 1 + 9 × their product, except that a false or irrelevant answer keeps a quarter of
# truth or relevance: a sound sentence that is false still differs from noise.
#
# Of the real world no rubric knows enough. What can be told without knowing whether an answer is
# true is how it is said, and that is all that the **surface** judge looks at (`judge = "surface"`):
#
# - *language*: is the answer in the language of the question?
# - *variety*: how much of it, three words (or Chinese characters) at a time, is not said twice?
# - *presence*: does it say anything that the question does not?
#
# Its grade is 1 + 9 × their product. **It does not grade truth**: a fluent falsehood gets a 10. It
# tells whether a mask makes a model leave its language, go in circles or fall silent, and nothing
# finer; grades near 10 leave much room to fall and say little of how good the answers were. Nor can
# its grades be compared with GPT-4o's.
#
# Here is the judge of this run at work.

# %%
unmasked = pipeline.graded()
if settings.judge == "rubric":
    answer = unmasked.iloc[0].to_dict()
    said = [answer[key] for key in ("language", "question", "text")]
    explained = pipeline.judge.explain(*said)
    display(*open_page.taken_apart(answer, explained))
else:
    parts_of_grade = pipeline.judge.subscores
    display(open_page.extremes_table(unmasked, parts_of_grade))

# %% [markdown]
# ### A column of its own: language fidelity
#
# A fluent answer in the wrong language must not pass as quality, nor may a judge's leniency hide
# it. So the language of every answer is told by a language identifier (py3langid) and reported
# beside the grade, whatever the judge made of it. Where the identifier does not know a language, it
# is missing there, which is not the same as none. [The next page](05b_what_gets_worse) has more of
# it, and holds the judge's grades against those of readers.

# %% [markdown]
# ## Table 2
#
# The same masks as in Table 1: LAPE as released, LAPE with CRANE's number of neurons, CRANE, and
# random sets. All are masked in one model that stays loaded.

# %% tags=["published"]
judged = pipeline.judged(interventions)
table2, seeds, items = judged.table(), judged.seeds(), judged.items()
write_table(table2, results / "table2.csv")
write_table(seeds, results / "table2_seeds.csv")
write_table(items, results / "items_table2.parquet")
published = audit.read_scores("2")
n, n_seeds = len(asked) // len(names), len(settings.random_seeds)
grader, grades = pipeline.judge.name, readouts.GRADE
display(
    table_pages.grades_table("2", table2, names, n, grader, n_seeds),
    figures.folded(
        "Table 2 as printed",
        table_pages.printed_table("2", published),
    ),
    open_page.graded_in_words(items, names),
)

# %% [markdown]
# The published grades start low, at 1.9 to 3.2, on a scale whose bottom is 1: a base model of 2023
# does not answer GPT-4o's way, and there is little left to lose. Where ours start stands in the row
# *Org*: the further above 1, the more a mask can take. LangSpec-F1 takes the score itself for what
# can be lost (Equation 4 divides by it), though no mask can take more than the score above 1.

# %% tags=["published"]
title = f"Ours, {settings.label}"
display(
    table_pages.drops_figure(table2, names, title, unit=grades),
    figures.folded(
        "The printed ones",
        table_pages.published_drops("2", published),
    ),
)

# %% [markdown]
# ### Against chance
#
# Clipping at zero makes the score of a mask without purpose positive (notebook 04). Questions are
# fewer than items (on the testbed 70 and 640 in each language), so there is more noise, and so more
# of this.

# %% tags=["nulls"]
random = Nulls.of(pipeline, null_data, n_null)
open_tasks = asked_in(names)
verdicts = comparisons.verdicts(
    items,
    table2,
    open_tasks,
    value="score",
    nulls=random.of_rows("grades", interventions),
    reading=pipeline.reading,
)
write_table(verdicts, results / "table2_verdicts.csv")
title = "LangSpec-F1 in open-ended answers, random masks as dots"
display(
    table_pages.random_strip(table2, seeds, names, title),
    figures.folded(
        "Every set beside random masks of its size and layers",
        table_pages.beside_nulls(verdicts),
    ),
    table_pages.by_method(verdicts),
    table_pages.mask_table(verdicts, names, grades),
    table_pages.mask_by_mask(verdicts, names, grades),
)

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} A scale that starts at 1 · medium, 15 minutes
# :label: exercise-floor
# ```
# Recall divides a drop by the unmasked score. On a scale from 1 to 10 nothing can fall below 1, so
# a mask that ruins every answer does not reach a recall of 1. Recompute LangSpec-F1 for ours and
# for the published table after subtracting 1 from every grade. Whose scores move, and why?

# %% tags=["published"]
my_f1 = {"en": ..., "zh": ..., "vi": ...}  # CRANE's masks in published, counted from 1

exercises.counted_from_one(my_f1, published)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# `metrics.langspec_f1` takes the grades before, those after, and the target. Take one from every
# grade before you hand them over. Whose grade before is near the floor?
# ```
#
# ```{solution-start} exercise-floor
# :class: dropdown
# ```


# %% tags=["published"]
def shifted(grades):
    return {x: max(y - 1, 0) for x, y in grades.items()}


def from_one(before, after, target):
    before, after = shifted(before), shifted(after)
    return metrics.langspec_f1(before, after, target)


readings = {"from 0": metrics.langspec_f1, "from 1": from_one}
compare = partial(comparisons.f1_readings, readings=readings)
read = {
    "ours": compare(table2, names),
    "published": compare(published, audit.LANGUAGES),
}
caption = "LangSpec-F1, grades counted from 0 (the paper) and from 1"
table_pages.readings_table(read, caption)

# %% [markdown]
# The published grades are close to 1, so counting from 1 changes what share of them a drop is, and
# with it recall. Drops are the same, so precision is the same.
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show

# %% tags=["nulls", "published"]
table_pages.bullets(
    readouts.at_equal_budgets(verdicts, names, published),
    readouts.summary(verdicts, "LAPE matched"),
)

# %% [markdown]
# - A judge can be wrong. The rubric knows the testbed's world and little of style; how far it
#   agrees with readers stands in [notebook 05b](05b_what_gets_worse). The surface judge knows
#   neither facts nor sense. GPT-4o knows style and may not know the facts.
# - Even 70 questions are few. The intervals say how few; the paper prints none.
# - A drop in grade under a mask does not say what the neurons do. It says that answers got worse
#   when they were zero.
# - The questions were fixed before any mask was tried on them. Of the testbed's it was also checked
#   that unmasked grades leave room in both directions.
#
# Next: [what gets worse?](05b_what_gets_worse), because a grade is one number and does not say what
# an answer lacks.
