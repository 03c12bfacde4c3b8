# %% [markdown]
# # Table 3: from the base model to the chat model
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say what "strict transfer" tests and what it does not; read Table 3 and
# Figures 5 and 6, ours and the published ones; and tell a set of neurons that keeps its role after
# tuning from one that is merely of a size that hurts.
#
# **It assumes** masks and their scores ([notebook 04](04_table1)).
#
# **It takes** twenty minutes to read; the computer needs about two minutes on the testbed.
#
# **It covers** §5.4 of the paper {cite:p}`le2026crane`, Table 3, Figures 5 and 6.
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
from crane_lab.show import table_exercises as exercises
from crane_lab.stages import comparisons
from crane_lab.stages.outcomes import side_by_side
from crane_lab.store import write_table
from crane_lab.study import transfer
from crane_lab.study.nulls import Nulls
from crane_lab.texts.languages import language_names

settings = Settings.of(globals())
base = Pipeline(settings)
chat = base.on_chat(chat_model)
paper = base.main_tasks
results = Path(run_dir) / "results"
names = language_names(settings.languages)
interventions = base.rows()

# %% [markdown]
# ## Figure 5: strict transfer
#
# A chat model is a base model trained further, on conversations. It has the same architecture, so
# neuron 17 of layer 2 exists in both. But is it the same neuron? The paper's test is strict: sets
# are found on the base model alone, and the very same positions are masked in the chat model.

# %%
transfer_page.figure5()

# %% [markdown]
# Two things follow from the test being strict. A set can fail it though the chat model has neurons
# for that language: tuning may have moved the work elsewhere. And a set can pass it without being
# about a language: whatever costs both models something, costs it on the chat model, too. For the
# first there is a search on the chat model itself, on the next page ([06b](06b_chat_answers));
# for the second there are random masks in every table.

# %% [markdown]
# On the testbed the chat model was tuned from the base model on conversations in the three
# languages, and accepted before any method was run (its card is `data/testbed/README.md`). How far
# did tuning move the weights that the neurons consist of?

# %%
moved = transfer.weight_changes(base.model, chat.model)
transfer_page.weights_table(moved)

# %% [markdown]
# The row $i$ of `gate_proj` and of `up_proj` is what neuron $i$ reads, its column of `down_proj`
# what it writes. If these moved little, neurons are still much the same vectors, and it makes sense
# to ask whether they keep their role. It does not follow that they do: what a neuron is used for
# depends on all layers before and after it, and all of them moved at once.

# %% [markdown]
# ## Table 3: benchmarks
#
# Every mask of Table 1 on both models. LangSpec-F1 is that of the chat model. The paper's table has
# LAPE and CRANE; ours adds LAPE at CRANE's budget and random masks, without which a drop on the
# chat model cannot be told from what any mask of that size costs.

# %% tags=["published"]
on_base = base.evaluated(interventions, losses=False)
on_chat = chat.evaluated(interventions, losses=False)
items3 = on_chat.items()
tables = [found.table(paper) for found in (on_base, on_chat)]
seeds = [found.seeds(paper) for found in (on_base, on_chat)]
table3 = side_by_side(*tables, settings.languages)
seeds3 = side_by_side(*seeds, settings.languages)
write_table(items3, results / "items_table3.parquet")
write_table(table3, results / "table3.csv")
write_table(seeds3, results / "table3_seeds.csv")
n_seeds, published3 = len(settings.random_seeds), audit.read_scores("3")
display(
    table_pages.both_models_table(*tables, names, paper, n_seeds),
    figures.folded(
        "Table 3 as printed",
        table_pages.printed_table("3", published3),
    ),
)

# %% [markdown]
# The columns are in pairs: the same mask on the base model, on which it was found, and on the chat
# model. Compare each with the row *Org* of its own model, since the two start from different
# scores.
#
# ### Against chance
#
# LangSpec-F1 of the chat model, with random masks as dots: what is left of it when neurons are
# picked without any method. A method's mark among the dots of its row has done no more than chance
# would. Where even the dots lie far from zero, a mask of that size costs the chat model something
# whichever neurons it hits, and a high mark says little. What each mask does, judged as in notebook
# 04, with 95 % intervals from paired items, stands below.

# %% tags=["nulls"]
random = Nulls.of(chat, null_data, n_null)
verdicts3 = comparisons.verdicts(
    items3,
    tables[1],
    paper,
    nulls=random.of_rows("tasks", interventions),
    reading=chat.reading,
)
write_table(verdicts3, results / "table3_verdicts.csv")
title = "Chat model, benchmarks (Table 3)"
display(
    table_pages.random_strip(tables[1], seeds[1], names, title),
    figures.folded(
        "Every set beside random masks of its size and layers",
        table_pages.beside_nulls(verdicts3),
    ),
    table_pages.by_method(verdicts3, "On the chat model:"),
    table_pages.mask_table(verdicts3, names),
    table_pages.mask_by_mask(verdicts3, names),
)

# %% [markdown]
# ## Figure 6: raw scores of the target language
#
# One panel for each language's benchmark, and in it the masks made for that language. Dashed lines
# are the unmasked models, the dotted line is guessing. If a set keeps its role, both models fall;
# if it loses it, only the base model does.

# %% tags=["published"]
display(
    table_pages.transfer_figure(table3, names, paper, "Ours, testbed"),
    table_pages.published_transfer(published3),
)

# %% [markdown]
# Two more readings are worth a look. If the random masks fall as far as the others, the panel shows
# what any mask of that size does, on either model. And where the unmasked chat model already lies
# near the dotted line, no mask can take much more: a small drop there is no sign of robustness.

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} How much transfers? · medium, 20 minutes
# :label: exercise-transfer
# ```
# The paper writes that CRANE's sets keep "measurable functional influence" on the chat model. From
# the published Table 3 alone: divide each CRANE mask's drop on the chat model by its drop on the
# base model, for the target language. Which languages keep how much? Do the same with ours, and say
# what the random rows do to the answer.

# %% tags=["published"]
my_kept = {"en": ..., "zh": ..., "vi": ...}  # by the columns of published3

exercises.kept_on_chat(my_kept, published3)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# Each row has the drops of both models side by side, in pairs. Divide within a pair, and do the
# same for the random rows.
# ```
#
# ```{solution-start} exercise-transfer
# :class: dropdown
# ```

# %% tags=["published"]
read = {"ours": table3, "published": published3}
kept = {name: transfer.kept_drops(own) for name, own in read.items()}
transfer_page.kept_table(kept)

# %% [markdown]
# In the published table the Vietnamese set keeps most of its effect, the English set about a
# quarter and the Chinese set a fifth of a drop that was small to begin with. Whether that is much
# cannot be told without random masks: neurons picked by chance also cost something on both models,
# and that "transfers", too.
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show

# %% tags=["nulls", "published"]
multiple_choice = readouts.at_equal_budgets(
    verdicts3,
    names,
    published3,
)
table_pages.bullets(f"In benchmarks of the chat model: {multiple_choice}")

# %% [markdown]
# - The chat model here was tuned for a few minutes on text of the same world. Llama-2-Chat was
#   tuned with far more and other data; how far its neurons keep their roles is another question.
# - That a mask hurts the chat model shows that its neurons are in use there. Only the comparison
#   with random masks, and with the other languages, shows that they are in use *for a language*.
# - The paper compares CRANE with LAPE as released, which masks far fewer neurons. Ours at equal
#   budgets is the comparison that §4.2 describes.
#
# Next: [Table 4](06b_chat_answers), since a chat model is made for answers, and not for options.
