# %% [markdown]
# # Does setting a language's neurons help a task?
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say which of some two hundred printed changes must be more than the
# choice of items, find a claim that a paper's own table speaks against, and hold an intervention
# against its training, its items and random sets of its size.
#
# **It assumes** [notebook 12](12_lsn_neurons); what noise can do to printed scores is explained in
# [the audit](07_audit).
#
# **It takes** half an hour to read; the computer needs some seconds.
#
# **It covers** Tables 1, 2 and 4 to 6 of *Language-specific neurons do not facilitate cross-lingual
# transfer* {cite:p}`mondal2025transfer`, and an experiment like it on our model.
# :::
#
# The paper fine-tunes two models, a Llama and Mistral Nemo, on a task in English, and asks it in
# other languages: XNLI (does a sentence follow from another?) and XQuAD (find the answer in a
# passage). While the model answers, the language's neurons are set to a value: their mean, an upper
# percentile, which is to *activate* them, or zero or a lower percentile, which is to *deactivate*
# them. First come the paper's numbers (`data/published/lsn`), then ours.

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
n_samples = 1000  # windows of text per language that relevance is taken on
seed = 0  # seed of everything that is drawn at random, except training
taught_data = "data/testbed"  # folder with the shipped results of trainings
recompute_taught = False  # train every set again instead of reading the shipped results
n_trainings = 5  # trainings of each set, if they are run again
real_data = "data/gemma"  # folder with the shipped results on a real model
published = "data/published"  # folder with the paper's tables and claims
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

import pandas as pd
from IPython.display import display

from crane_lab.audit import lsn
from crane_lab.audit.lsn_evidence import FLOORS
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import exercises, taught_pages
from crane_lab.show import lsn_tables_page as page
from crane_lab.store import write_table
from crane_lab.study import taught, taught_effects, tuned
from crane_lab.testbed.unseen import unseen_items
from crane_lab.texts.languages import language_names
from crane_lab.texts.names import full_names

folder = Path(published) / "lsn"
results = Path(run_dir) / "results"
results.mkdir(parents=True, exist_ok=True)
settings = Settings.of(globals())
pipeline = Pipeline(settings)
names = language_names(settings.languages)

# %% [markdown]
# ## The printed tables
#
# ### Which changes are more than noise?
#
# A printed score says how many of XNLI's items were right. It does not say how many of them
# changed under an intervention: if nine more are wrong, perhaps nine changed, perhaps a thousand
# did. McNemar's test {cite:p}`mcnemar1947note` depends on that, so its p-value has a least and a
# most. Only where even the most is small can an intervention be told from the choice of items. XNLI
# has thousands of items per language. Of XQuAD, by the paper's code, a fifth is asked, without
# items that are too long, so that languages differ; a change counts as certain here if it is for
# the smallest and for the largest number of items that there can be.

# %% tags=["published"]
xnli = lsn.lsn_changes(lsn.lsn_table("4", folder))
xquad = lsn.lsn_changes(lsn.lsn_table("5", folder))
write_table(xnli, results / "lsn_published_xnli.csv")
write_table(xquad, results / "lsn_published_xquad.csv")
display(
    page.lsn_changes_figure(xnli, "points of accuracy"),
    page.lsn_counts_table(lsn.lsn_counts(xnli), "XNLI"),
)

# %% tags=["published"]
display(
    page.lsn_changes_figure(xquad, "points of exact match"),
    page.lsn_counts_table(lsn.lsn_counts(xquad), "XQuAD"),
)

# %% [markdown]
# ### Do interventions help?
#
# The paper's title says no.

# %% tags=["published"]
page.lsn_improves_in_words([xnli, xquad])

# %% [markdown]
# ### "Deactivation of Zero Does not Degrade Performance Significantly"
#
# So the paper heads a paragraph, and argues that neurons set to zero are not deactivated: far lower
# percentiles lead to a clear drop in XQuAD's scores, and zero to none like it. Its own table:

# %% tags=["published"]
page.lsn_zero_in_words(xquad, "points")

# %% [markdown]
# ### Where those percentiles come from
#
# They are printed, too. SiLU, the activation function of both models, takes any number and never
# puts out less than a certain one.

# %% tags=["published"]
page.lsn_statistics_table(lsn.lsn_before_act_fn(folder))

# %% [markdown]
# So what was written to the output of SiLU was read at its input. P5, P10 and P25, printed as means
# over neurons, lie below anything that SiLU puts out, in every language. Where they harm more than
# zero does, that is then no sign that zero fails to deactivate.
#
# ### Slips
#
# Where the tables disagree with each other:

# %% tags=["published"]
page.lsn_slips_list(lsn.lsn_slips(folder))

# %% [markdown]
# None of this shows that the paper's conclusion is wrong. It shows what would be needed to know:
# the items' outcomes, several trainings, random sets with as many neurons in every layer, and
# values read where they are written. All of that can be had on a small model.
#
# ## An experiment like it, on our model
#
# The testbed knows a world of made-up people in three languages. Two tasks ask about it in texts
# that it never saw. In **nli** a premise tells something about a person, and a hypothesis follows
# from it, may be true, or contradicts it. In **qa** a question is answered by words of a story.
# Items are translations of each other, parts share no story, labels are balanced, and a
# hypothesis without its premise tells nothing. Labels follow the fact that a sentence was made
# from, not its every word: what a second reader made of them to the letter is in
# `data/unseen/README.md`, beside the items as lm-eval's tasks.

# %%
display(
    taught_pages.nli_items_table(unseen_items("nli", "test")),
    taught_pages.qa_items_table(unseen_items("qa", "test")),
)

# %% [markdown]
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
    levels[task] = taught_effects.taught_levels(table, FLOORS[task])
before = {"qa": tuned.untuned_answers(pipeline)}
source = next(iter(made.values()))["inputs"]["source"]
display(
    taught_pages.levels_table(levels, before),
    taught_pages.transfer_in_words(levels, source, before),
    taught_pages.people_table(
        taught_effects.right_by_people(tables["qa"]),
    ),
)

# %% [markdown]
# (For nli there is no head before it is trained.) Read this before any intervention. Where nothing
# arrives there is everything to gain, which is what the paper looked for, and nothing to lose: a
# language at the floor says nothing about harm. On the testbed tuning changes little in qa, since
# the model could copy words of the right kind from a passage before, and with several people in a
# story it hardly tells whose is whose.
#
# ### What interventions change
#
# Each value is written to the neurons of the language that is asked, at the output of `act_fn`, in
# all layers and at all positions. *After* means read there, too; *before* is read at its input, as
# the public code does it. The change is from the same tuned model, untouched, and its interval is
# for other trainings and other items.

# %% tags=["shipped"]
effects = {}
for task, table in tables.items():
    found = taught_effects.taught_effects(table)
    write_table(found, results / f"lsn_effects_activations_{task}.csv")
    effects[task] = found
for x in languages[1:]:
    display(taught_pages.effects_figure(effects, names, x))

# %% tags=["shipped"]
display(
    taught_pages.effects_counts_table(effects),
    taught_pages.gains_in_words(effects),
    taught_pages.resolution_in_words(effects),
)

# %% [markdown]
# Sets at zero, beside random ones with as many neurons in every layer, at zero in the same
# trainings:

# %% tags=["shipped"]
display(
    taught_pages.taught_table(effects, "Neurons set to zero"),
    taught_pages.beyond_random_in_words(effects),
)

# %% [markdown]
# ### Zero, or the tenth percentile?
#
# "Zero does not deactivate" was concluded from a percentile that no neuron can have. Written where
# it was read, the tenth percentile is a state of the neuron. Here are both, against zero, in one
# and the same tuned model: *P10 before* as the public code has it, *P10 after* as it can be.

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
# ## The same on a real model
#
# A model of two million parameters that knows one small world is a narrow place to look for
# transfer. Gemma 3 270M was pretrained on text in many languages. It was tuned on the same items in
# English and asked the same questions; there are fewer trainings, items and random sets, since a
# training takes it minutes. A gain at zero, if there is one, means that the task is done better in
# a language with that language's own neurons off.

# %% tags=["shipped"]
there, made_there = taught.shipped_tables("activations", real_data)
real_levels, real_effects, real_contrasts = {}, {}, {}
for task, table in there.items():
    real_levels[task] = taught_effects.taught_levels(table, FLOORS[task])
    real_effects[task] = taught_effects.taught_effects(table)
    for value in ("P10 after", "P10 before"):
        real_contrasts[task, value] = taught_effects.taught_contrast(
            table,
            "zero",
            value,
        )
    file = f"lsn_effects_real_{task}.csv"
    write_table(real_effects[task], results / file)
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
    taught_pages.taught_table(real_effects, "Neurons set to zero, Gemma"),
    taught_pages.beyond_random_in_words(real_effects),
    taught_pages.contrast_table(real_contrasts),
    taught_pages.contrast_in_words(real_contrasts),
)

# %% [markdown]
# And training by training, since a mean over few of them hides how different they are:

# %% tags=["shipped"]
for x in asked:
    for table in there.values():
        display(taught_pages.trainings_table(table, x))

# %% [markdown]
# ```{exercise-start} Chance in printed percentages · medium, 15 minutes
# :label: exercise-lsn-noise
# ```
# Of 238 answers 134 were right before and 144 after, which is printed as 56 and 61 %. Could it be
# chance? Find the fewest items that can have changed, and the p-value if it was those. Then let
# fifty more have changed, half of them in each direction.

# %%
my_fewest = ...  # items that have changed, at least
my_p = ...  # the p-value of a sign test, two-sided
my_p_of_more = ...  # the same with fifty more changes

exercises.counted_changes(my_fewest, my_p, my_p_of_more)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# A sign test asks how likely such a surplus of changes for the better is if each change goes either
# way like the toss of a coin, and doubles that for a surplus of changes for the worse.
# `scipy.stats.binomtest(better, changed).pvalue` computes it.
# ```
#
# ```{solution} exercise-lsn-noise
# :class: dropdown
#
# At least 10 items changed, all for the better, and a sign test on 10 of 10 has p = 0.002. With
# fifty more it is 35 of 60: p = 0.25. Both fit the printed numbers, so the table cannot tell.
# ```

# %% [markdown]
# Next: [training the neurons](14_lsn_tuning) instead of setting them, and what the paper claims,
# claim by claim.
