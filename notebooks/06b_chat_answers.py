# %% [markdown]
# # Table 4: the chat model's answers, and sets of its own
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** read Table 4, ours and the published one; say whether masks make a chat
# model leave the language it is asked in; and say what a search on the chat model itself adds to
# strict transfer.
#
# **It assumes** strict transfer ([notebook 06](06_transfer)) and judged answers ([notebook
# 05](05_open_ended)).
#
# **It takes** twenty minutes to read; the computer needs about two minutes on the testbed.
#
# **It covers** §5.4 of the paper {cite:p}`le2026crane` and Table 4.
# :::

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
chat_model = "data/testbed/chat"  # folder or name of its chat model; None: there is none
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
random_seeds = [0, 1, 2, 3, 4]  # one random mask per seed, as control
null_data = "data/testbed"  # folder with what random masks do, as it is shipped
n_null = 0  # random masks of every set whose null is not shipped
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %% tags=["hide-input"]
from pathlib import Path

from IPython.display import display

from crane_lab import audit
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import figures, readouts, table_pages, transfer_page
from crane_lab.show.foreign import prose
from crane_lab.stages import comparisons
from crane_lab.store import write_table
from crane_lab.study import transfer
from crane_lab.study.nulls import Nulls, asked_in
from crane_lab.texts.languages import language_names

settings = Settings.of(globals())
base = Pipeline(settings)
chat = base.on_chat(chat_model)
paper = base.main_tasks
results = Path(run_dir) / "results"
names = language_names(settings.languages)
interventions = base.rows()
random = Nulls.of(chat, null_data, n_null)

# %% [markdown]
# ## Table 4: open-ended answers of the chat model
#
# The same questions as in Table 2, now in the chat model's own template, and the same judge.

# %% tags=["published"]
judged = chat.judged(interventions)
table4, seeds4, items4 = judged.table(), judged.seeds(), judged.items()
write_table(table4, results / "table4.csv")
write_table(seeds4, results / "table4_seeds.csv")
write_table(items4, results / "items_table4.parquet")
published4 = audit.read_scores("4")
n, grader = len(chat.asked) // len(names), chat.judge.name
grades, n_seeds = readouts.GRADE, len(settings.random_seeds)
display(
    table_pages.grades_table("4", table4, names, n, grader, n_seeds),
    figures.folded(
        "Table 4 as printed",
        table_pages.printed_table("4", published4),
    ),
)

# %% [markdown]
# As drops, in grades, like Figure 4:

# %% tags=["published"]
title = "Ours, testbed chat"
display(
    table_pages.drops_figure(table4, names, title, unit=grades),
    figures.folded(
        "The printed ones",
        table_pages.published_drops("4", published4),
    ),
)

# %% [markdown]
# ### Against chance
#
# With random masks as dots, and in words, as for [Table 3](06_transfer):

# %% tags=["nulls"]
verdicts4 = comparisons.verdicts(
    items4,
    table4,
    asked_in(names),
    value="score",
    nulls=random.of_rows("grades", interventions),
    reading=chat.reading,
)
write_table(verdicts4, results / "table4_verdicts.csv")
title = "Chat model, open-ended answers (Table 4)"
display(
    table_pages.random_strip(table4, seeds4, names, title),
    figures.folded(
        "Every set beside random masks of its size and layers",
        table_pages.beside_nulls(verdicts4),
    ),
    table_pages.by_method(verdicts4, "On the chat model, by grade:"),
    table_pages.mask_table(verdicts4, names, grades),
    table_pages.mask_by_mask(verdicts4, names, grades),
)

# %% [markdown]
# ### Which language do the answers come in?
#
# A chat model is trained to answer in the language it is asked in. If that habit rested on a
# language's neurons, masking them would make it break. Panels are languages of the question, rows
# masks, columns the language of the answer.

# %%
spoken = judged.spoken()
write_table(spoken, results / "table4_languages.csv")
stays = readouts.left_language(spoken, names)
display(table_pages.spoken_figure(spoken, names), prose(stays))

# %% [markdown]
# ## The counterpart: sets found on the chat model
#
# Strict transfer leaves a question open. If masks found on the base model do less on the chat
# model, has the chat model moved its languages to other neurons, or are there none to be found? So
# we run the search on the chat model, too, with the same settings, and compare: how many neurons do
# the two searches share, against the number that two sets of that size share by chance, and what
# does each do to the chat model?

# %%
own_sets = chat.rows()
shared = transfer.shared_neurons(interventions, own_sets)
write_table(shared, results / "transfer_overlap.csv")
display(
    transfer_page.found_again(shared),
    transfer_page.shared_in_words(shared, names),
)

# %% [markdown]
# And what do they do to the chat model? Two sets may share few neurons and do the same: if several
# neurons carry the same thing, a search may take one or the other. So both are masked in the chat
# model, and their scores stand side by side.

# %%
own = [row for row in own_sets if row.method in transfer.METHODS]
found_on_base = chat.evaluated(interventions, losses=False)
found_on_chat = chat.evaluated(own, losses=False)
counterpart = transfer.counterparts(
    {
        ("benchmarks", "base"): found_on_base.table(paper),
        ("benchmarks", "chat"): found_on_chat.table(paper),
        ("open-ended", "base"): table4,
        ("open-ended", "chat"): chat.judged(own).table(),
    },
    settings.languages,
)
write_table(counterpart, results / "transfer_counterpart.csv")
told = transfer.told_apart(counterpart)
display(
    transfer_page.counterpart_table(counterpart, names),
    transfer_page.counterpart_in_words(told, names),
)

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} Few shared, much the same · easy, 5 minutes
# :label: exercise-counterpart
# ```
# Suppose that the two searches share hardly more neurons than chance gives, and that both sets cost
# the chat model as much as each other in the language they are made for. Has tuning moved the
# language to other neurons? Answer twice: for sets that cost no more than random masks of their
# size, and for sets that cost clearly more.
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# Was anything of the language found at all? Whose neurons did the base model's search find, and in
# which model were they masked?
# ```
#
# ```{solution} exercise-counterpart
# :class: dropdown
#
# In the first case neither search has found anything of the language, and where it is, before or
# after tuning, is not known. In the second case both have found neurons that the language needs in
# the chat model, the base model's search among them: so its neurons were not given up. There are
# more such neurons than one set holds. Masking both sets together would say whether one stands in
# for the other.
# ```

# %% [markdown]
# ## What the numbers do and do not show

# %% tags=["nulls", "published"]
open_ended = readouts.at_equal_budgets(verdicts4, names, published4)
table_pages.bullets(
    f"In open-ended answers of the chat model: {open_ended}",
    stays,
)

# %% [markdown]
# - A judge can be wrong ([notebook 05](05_open_ended)), and grades of two models start from
#   different levels: each is compared with its own unmasked row.
# - That two searches find other neurons does not say that tuning moved anything. How far two
#   searches on one model agree, on other texts, stands in [notebook 02b](02b_trust).
#
# Next: [the audit](07_audit), since all tables of the paper have been shown by now and can be
# checked.
