# %% [markdown]
# # Language or task? The confound of Table 1
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** say why one benchmark per language cannot tell an effect on a language
# from one on a kind of task; read the same masks with the same task in every language; and say
# what becomes of Table 1 under the literal reading of a neuron.
#
# **It assumes** [Table 1](04_table1).
#
# **It takes** twenty minutes to read; the computer needs about a minute on the testbed after
# notebook 04, whose evaluations it reads, and some five without it.
#
# **It covers** what §4.3 of the paper {cite:p}`le2026crane` chooses to measure each language by,
# and the other reading of §3.1.
# :::

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
tasks = "data/testbed/tasks"  # folder with the benchmarks: lm-eval YAML files and their items
random_seeds = [0, 1, 2, 3, 4]  # one random mask per seed, as control
null_data = "data/testbed"  # folder with what random masks do, as it is shipped
n_null = 0  # random masks of every set whose null is not shipped
literal_reading = True  # also mask what the literal reading of a neuron selects, site projections
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from pathlib import Path

from IPython.display import display

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
paper = pipeline.main_tasks
results = Path(run_dir) / "results"
names = language_names(settings.languages)

# %% [markdown]
# ## One language, one benchmark?
#
# There is a flaw in the design of Table 1, the paper's and so far ours. English and Chinese are
# asked for *knowledge*, Vietnamese is asked to *read*. If masking a set lowers `reading_vi` and
# spares `knowledge_en` and `knowledge_zh`, the neurons may serve Vietnamese, or they may serve
# reading in any language. Nothing in the table can tell. Language and benchmark are confounded.
#
# There is a second catch: benchmarks differ in how much *any* mask can move them.

# %%
table1_page.unequal_benchmarks(Path(settings.tasks).parent / "gate.csv")

# %% [markdown]
# The testbed can undo both, because its tasks exist in all three languages with the same
# composition. Here is the same table with the same task everywhere, once for knowledge and once for
# reading. Same masks, same evaluations; only the columns are chosen differently.

# %% tags=["nulls"]
random = Nulls.of(pipeline, null_data, n_null)
by_site = {one.site: one for one in (masks, literal)}
parallel = {
    kind: {site: one.evaluated.table(own) for site, one in by_site.items()}
    for kind, own in pipeline.tables.items()
    if kind != pipeline.main_table
}
site = "intermediate"
same_task = {kind: own[site] for kind, own in parallel.items()}
same_verdicts = {}
for kind, own in parallel.items():
    both = comparisons.both_sites(own)
    write_table(both, results / f"table1_parallel_{kind}.csv")
    caption = f"Parallel table: {kind} in every language"
    same_verdicts[kind] = masks.verdicts(
        same_task[kind],
        pipeline.tables[kind],
        random,
    )
    display(
        table_pages.results_table(same_task[kind], names, caption),
        figures.folded(
            "Every set beside random masks of its size and layers",
            table_pages.beside_nulls(same_verdicts[kind]),
        ),
    )

# %% tags=["nulls"]
reach = table_pages.largest_change(same_task.values(), list(names))
for kind, table in same_task.items():
    display(
        table_pages.drops_figure(
            table,
            names,
            f"Drops in {kind}, the same task in every language (ours)",
            pipeline.tables[kind],
            reach=reach,
        )
    )

# %% [markdown]
# Both figures have one scale of colours, so that noise in one does not look like an effect beside
# the other. An effect that belongs to a *language* is there in both of them, in the same row. One
# that belongs to a *kind of task* changes its row with the task. Judged as above:

# %% tags=["nulls"]
table1 = masks.evaluated.table(paper)
verdicts = masks.verdicts(table1, paper, random)
confound = table1_page.confound(verdicts, same_verdicts, names)
for kind, found in same_verdicts.items():
    display(table_pages.by_method(found, f"{kind.capitalize()}:"))
display(table_pages.bullets(confound))

# %% [markdown]
# ## The other reading of a neuron
#
# §3.1 calls each column of the projection matrices a neuron. Taken literally, every output of
# `gate_proj`, `up_proj` and `down_proj` is scored and masked on its own (site `projections`). Gate
# and up outputs are switches of intermediate neurons, as notebook 03b showed. Outputs of
# `down_proj` are not: each is a dimension of the residual stream, and masking one silences what
# *all* neurons of the layer write there. LAPE counts intermediate neurons and has no row here.

# %%
rows = literal.rows
crane_literal = [row for row in rows if row.method == "CRANE"]
of_literal = literal.evaluated
table1_literal = of_literal.table(paper)
write_table(
    literal.items,
    results / "items_table1_projections.parquet",
)
write_table(
    of_literal.seeds(paper),
    results / "table1_projections_seeds.csv",
)
write_table(table1_literal, results / "table1_projections.csv")
title = "Table 1 at the site projections (ours; nothing published)"
if literal_reading:
    display(
        table1_page.literal_sets(crane_literal, pipeline.shape),
        table_pages.results_table(table1_literal, names, title),
    )

# %% tags=["nulls"]
if literal_reading:
    told = literal.verdicts(table1_literal, paper, random)
    write_table(told, results / "table1_projections_verdicts.csv")
    of_crane = told[told["method"] == "CRANE"]
    display(
        table_pages.mask_by_mask(of_crane, names, fold=False),
        figures.folded(
            "Every set beside random masks of its size and layers",
            table_pages.beside_nulls(of_crane),
        ),
    )

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} One more benchmark · medium, 10 minutes
# :label: exercise-one-more
# ```
# The paper has knowledge in English and Chinese and reading in Vietnamese. You may add *one* test:
# reading in English, or knowledge in Vietnamese. Masking Vietnamese neurons lowered reading in
# Vietnamese and nothing else. Which of the two tests do you take, and what would you conclude from
# either outcome? And here: of which languages does CRANE's mask take most from the language itself,
# relative to its score before, in both kinds of task?

# %%
my_languages = ...  # a set of codes, by the tables in same_task

exercises.own_hit_in_both(my_languages, same_task, names)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# Draw the grid of three languages and two tasks, and mark what each test fills in. In the tables
# `relative_en` and the like are drops relative to the score before, of the language in the name;
# `mask_language` is the one whose neurons are masked.
# ```
#
# ```{solution-start} exercise-one-more
# :class: dropdown
# ```
# Knowledge in Vietnamese gives one task in all languages. If it falls as well, the mask takes
# Vietnamese on both tasks while the same task is spared elsewhere: an effect on the language. If it
# does not fall, what was hit is reading, or reading in Vietnamese only, and the two are still
# confounded. Reading in English tells these two apart: if it falls, too, reading was hit; if not,
# the effect needs both, the language and the task. So each test settles one half, and only all
# cells of the grid settle the question. Whatever the outcome, random masks have to stand beside it:
# tests differ in how much any mask can move them. The same in our tables:

# %%
hit = []
for table in same_task.values():
    crane = table[table["method"] == "CRANE"].set_index("mask_language")
    drops = crane[[f"relative_{x}" for x in names]]
    hardest = drops.idxmax(axis=1).str.removeprefix("relative_")
    own = hardest.index[(hardest == hardest.index) & (drops.max(axis=1) > 0)]
    hit.append(set(own))
print("in each kind of task:", *hit, "in both:", set.intersection(*hit))

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show

# %% tags=["nulls"]
table_pages.bullets(confound)

# %% [markdown]
# - Two kinds of task are not all. An effect that is there in both may still be one on, say,
#   answering questions.
# - The testbed's tasks have the same composition in every language, because we made them so.
#   Benchmarks of real languages are translated or collected, and differ in more than the language.
# - Under the literal reading a set has units of two sorts, and a mask that does much may owe it to
#   a few outputs of `down_proj`. Its rows have random masks of their own for that reason.
#
# Next: [loss and answers](04c_answers), because accuracy sees only what changes sides, and not what
# takes its place.
