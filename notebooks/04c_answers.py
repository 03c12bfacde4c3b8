# %% [markdown]
# # Beyond right and wrong: held-out loss, and what is answered instead
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** read what a mask does to the loss of every language's text; say what
# multiple choice can and cannot show of a masked model; and tell wrong answers in the right
# language from answers in another one.
#
# **It assumes** [Table 1](04_table1).
#
# **It takes** twenty minutes to read; the computer needs about two minutes on the testbed after
# notebooks 04 and 04b, whose evaluations it reads.
#
# **It covers** what Table 1 of the paper {cite:p}`le2026crane` leaves out. §3.4 asks what masking
# does to a language, and accuracy (§4.3) is one read-out of several.
# :::

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
random_seeds = [0, 1, 2, 3, 4]  # one random mask per seed, as control
n_perplexity = 200  # windows per language that perplexity is measured on
n_answers = 50  # items per task that the model answers freely under each mask
answer_tokens = 12  # tokens of a free answer
null_data = "data/testbed"  # folder with what random masks do, as it is shipped
n_null = 0  # random masks of every set whose null is not shipped
literal_reading = True  # also mask what the literal reading of a neuron selects, site projections
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

from IPython.display import display

from crane_core.interventions import UNTOUCHED
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import crane_exercises as exercises
from crane_lab.show import figures, table1_page, table_pages
from crane_lab.stages import comparisons
from crane_lab.store import write_table
from crane_lab.study.evaluated_masks import EvaluatedMasks
from crane_lab.study.nulls import Nulls
from crane_lab.texts.languages import language_names

settings = Settings.of(globals())
pipeline = Pipeline(settings)
masks = EvaluatedMasks(pipeline)
literal = EvaluatedMasks(pipeline, "projections", literal_reading)
results = Path(run_dir) / "results"
names = language_names(settings.languages)

# %% [markdown]
# ## Language by language: held-out loss
#
# Accuracy is a coarse read-out: an item has to change sides before anything is seen, and at chance
# there is nothing left to lose. The loss on held-out text has neither problem. Rows of the table
# below are masks, columns the language of the text, and a cell is the mean change in next-token
# loss in nats per token, with its standard error. Tokens differ between languages (a Chinese token
# is about one character), so compare a row's cells with care and a column's cells freely.

# %% tags=["nulls"]
random = Nulls.of(pipeline, null_data, n_null)
perplexities = comparisons.both_sites(
    {one.site: one.evaluated.perplexities() for one in (masks, literal)}
)
write_table(perplexities, results / "perplexity.csv")
unmasked = perplexities.iloc[0][settings.languages].to_dict()
own = perplexities.query("site == 'intermediate'")
losses = comparisons.loss_changes(
    own,
    settings.languages,
    nulls=random.of_rows("losses", masks.rows),
)
write_table(losses, results / "loss_verdicts.csv")
display(
    table1_page.loss_figure(losses, settings.languages),
    table1_page.losses_by_method(losses, names),
    figures.folded(
        "Every mask, and every set beside random masks",
        table1_page.loss_table(losses, unmasked),
        table_pages.beside_nulls(
            losses,
            "difference",
            "own − most hit other",
        ),
    ),
)

# %% [markdown]
# The figure above gives the same changes as factors of perplexity, the exponential of the loss:
# 1.10 is a tenth more than without a mask, and 1 is no change at all. The last column of the first
# table, which opens with a click, is the test itself: the change in the masked language less that
# in the language which comes closest (or which is clearly ahead), with its 95 % interval. "Not
# settled" means that this interval includes zero.

# %% [markdown]
# ## What does the model answer instead?
#
# A drop in accuracy says that right answers are gone. It does not say what came in their place: a
# wrong answer in the same language, one and the same answer to everything, or another language?
#
# ### Among four options
#
# All four options of an item are in the language of the question, so multiple choice can *never*
# show a change of language. Nor does the model see the options' positions, since each is scored by
# its text. What it can show is how much of the behaviour changed, and whether the answers collapse:
#
# - **same**: the share of items on which the masked model chooses what the unmasked one chose;
# - **lost**, **gained**: right before and wrong now, and the other way round. A mask that only adds
#   noise gains nearly as often as it loses;
# - **position**: entropy of the chosen positions in bits, 2 if all are chosen equally often;
# - **variety**: how many different answers are given, relative to the right ones. A model that says
#   the same word wherever it is on offer has little variety, whatever its position.

# %%
texts = comparisons.option_texts(pipeline.prepared)
chosen = comparisons.choice_shares(masks.items, texts)
write_table(chosen, results / "choices.csv")
own = comparisons.own_tasks(chosen, pipeline.tables)
table1_page.chosen_table(own)

# %% [markdown]
# ### Left to speak
#
# To see another language the model must be allowed to use one. Here it gets the prompt alone and
# goes on greedily, and the first line is sorted by what it is: the right option's text, another
# option's, something else in the language of the question, another language, or no words at all.
# The language is told by script; plain letters, which may be English or Vietnamese, by the words of
# the tasks. That is a rough tool, so read each panel against its unmasked row and not against zero.


# %%
def answered(intervention=UNTOUCHED):
    return pipeline.answers(intervention, n_answers, answer_tokens)


answers = {("Org", ""): answered()}
for row in comparisons.one_of_each(masks.rows):
    answers[row.method, row.language] = answered(row.intervention)
for row in literal.rows:
    if row.method == "CRANE":
        name = "CRANE, projections"
        answers[name, row.language] = answered(row.intervention)
free = comparisons.labelled(answers)
shares = comparisons.answer_shares(free)
write_table(free, results / "items_answers.parquet")
write_table(shares, results / "answers.csv")
display(
    table1_page.answers_figure(shares, names),
    table1_page.answers_in_words(shares, names),
)

# %% [markdown]
# Shares say how often, not what. Here are the first answers that differ, to be read one by one.

# %%
table1_page.changed_table(
    {
        x: comparisons.changed_answers(
            answers["Org", ""].query("language == @x"),
            answers["CRANE", x].query("language == @x"),
        )
        for x in names
    }
)

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} Two masks at chance · easy, 10 minutes
# :label: exercise-two-masks
# ```
# Under one mask a language's accuracy falls to chance, and asked freely the model says one and the
# same word to everything, in that language. Under another one accuracy falls to chance, too, and
# the model answers sensibly, in another language. Which read-outs of this page tell the two apart?
# Which of them would you expect to be the same? And which share of all items do CRANE's masks move
# from one wrong answer to another, in the masked language's own tasks?

# %%
my_shares = dict.fromkeys(names, ...)  # from the columns of own

exercises.changed_without_effect(my_shares, own)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# An item whose choice has changed was right before, or is right now, or neither. `own` has a row
# for each method and language, with the shares `same`, `lost` and `gained`.
# ```
#
# ```{solution-start} exercise-two-masks
# :class: dropdown
# ```
# Accuracy does not, and LangSpec-F1 only by what happens to the other languages. *Variety* does: a
# model that says one word has little of it. (The second model may choose at random among options,
# all in the language of the question; variety is then as before.) What is said freely tells most:
# right language and wrong in the one case, another language in the other. The loss on the
# language's text rises under both, and by how much is no measure of which it is; that the loss of
# the other languages stays low is expected of the second mask and unknown of the first. What
# changed and was neither lost nor gained, which no accuracy shows:

# %%
of_crane = own[own["method"] == "CRANE"].set_index("language")
other = 1 - of_crane[["same", "lost", "gained"]].sum(axis=1)
print(other.round(3).to_dict())

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show

# %% tags=["nulls"]
table_pages.bullets(table1_page.losses_in_words(losses, names))

# %% [markdown]
# - Loss is of one corpus per language, and tokens differ between languages: what is compared is a
#   language with itself, and the *order* of languages under one mask with care.
# - The language of a short answer is told by script and words. What cannot be told counts as no
#   words, and names are the same in several languages.
# - Greedy first lines are one way to speak of many. [Open-ended answers](05_open_ended) have a
#   judge.
#
# Next: [other drops and budgets](04d_drops_and_budgets), because Table 1 is of one number of
# neurons, and LangSpec-F1 of it is best understood by moving it.
