# %% [markdown]
# # Verdicts
#
# **After this page you can** say, claim by claim, what the paper's own tables support and what the
# same claim comes to on our testbed.
#
# **It assumes** the tables of notebooks [04](04_table1) to [06](06_transfer) and the audit of the
# published ones ([notebook 07](07_audit)). **It takes** some seconds, since everything was computed
# there, and ten minutes to read.

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # folder or Hugging Face name of the model
chat_model = "data/testbed/chat"  # folder or name of the chat model tuned from it
dtype = "float32"  # type of the weights: float32, bfloat16 or float16
device = "cpu"  # where the model runs: cpu, cuda, or auto for a GPU if there is one
offline = True  # False: weights, corpora and benchmarks may come from the hub
languages = ["en", "zh", "vi"]  # language codes, in the order of the tables
corpus = "data/testbed/corpus/attribution"  # folder with <language>.txt to take relevance on
perplexity_corpus = "data/testbed/corpus/perplexity"  # folder of held-out text for perplexity
text_column = "text"  # column of JSON lines or Parquet that holds the documents
max_document_tokens = None  # tokens a document is cut to; None: not cut
deduplicate = True  # leave out documents that have occurred before
corpus_documents = 5000  # documents per language that are taken from a corpus on the hub
tasks = "data/testbed/tasks"  # folder of lm-eval task files
benchmarks = "testbed"  # testbed, or harness: lm-eval's MMLU, C-Eval and Belebele
num_fewshot = None  # examples before each question; None: what the definition says
benchmark_backend = "huggingface"  # what scores the harness's benchmarks: huggingface or vllm
benchmark_data = None  # folder with copies of the harness's data sets; None: the hub's cache
n_samples = 1000  # windows of text per language that relevance is taken on
window = 64  # tokens per window
batch_size = 50  # windows that are run at once
seed = 0  # order of the documents, and simulations
objective = "next_token"  # what relevance explains: next_token, next_token_logprob or last_max
score = "activation_x_gradient"  # what is stored per neuron and token
reduction = "sum"  # how a window's tokens become one value per neuron: sum or mean
normalisation = "zscore"  # scale within a layer: zscore, ratio, robust or global
rule = "contrast"  # how neurons are selected: contrast, threshold or top
threshold = 1.0  # normalised kurtosis above which a neuron is a candidate
budget = None  # number of neurons to select per language; None: all above the threshold
random_seeds = [0, 1, 2, 3, 4]  # one random mask per seed, as control
n_perplexity = 200  # held-out windows per language for perplexity
task_limit = None  # items per task; None: all
questions = "data/questions"  # folder with <language>.txt, one open question per line
n_questions = None  # questions per language; None: all
engine = "huggingface"  # what generates answers: huggingface or vllm
max_new_tokens = 96  # tokens of an answer at most
repetition_penalty = 1.1  # makes tokens that were used already less likely; 1: no penalty
context = None  # tokens of question and answer together; None: the model's positions
tensor_parallel_size = 1  # GPUs that vLLM divides the model among
judge = "rubric"  # who grades answers: rubric (testbed only) or llm
judge_model = "gpt-4o"  # name of the judging model, for judge llm
judge_endpoint = None  # address of an OpenAI-compatible service; None: OpenAI's
judge_prompt = None  # file with the judge's instructions; None: those of crane_lab.engines.judging
choices_data = "data/testbed"  # folder with the shipped results of the sweep over choices
run_dir = "runs/testbed"  # where results are written

# %% tags=["hide-input"]
from pathlib import Path

import pandas as pd
from IPython.display import Markdown, display

from crane_lab import audit
from crane_lab.audit.ours import Ours, on_testbed, threshold_robust
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import figures, readouts
from crane_lab.store import write_table
from crane_lab.study import choices
from crane_lab.texts.languages import language_names

settings = Settings.of(globals())
base = Pipeline(settings)
chat = base.on_chat(chat_model)
results = Path(run_dir) / "results"
names = language_names(settings.languages)
interventions = base.interventions()
evaluated = {
    "1": base.evaluated(interventions, losses=False),
    "3": chat.evaluated(interventions, losses=False),
}
judged = {"2": base.judged(interventions), "4": chat.judged(interventions)}
scored = {
    "1": evaluated["1"].scored(base.tables["paper"]),
    "2": judged["2"].scored(),
    "3": evaluated["3"].scored(base.tables["paper"]),
    "4": judged["4"].scored(),
}
tables = {number: found.table() for number, found in scored.items()}
verdicts = {}
for number, table in tables.items():
    if number in evaluated:
        items, tasks, value = evaluated[number].items(), base.tables["paper"], "correct"
    else:
        items, tasks = judged[number].items(), {x: f"open_{x}" for x in settings.languages}
        value = "score"
    verdicts[number] = readouts.verdicts(items, table, tasks, value=value)
parallel = {
    kind: readouts.verdicts(
        evaluated["1"].items(), evaluated["1"].table(base.tables[kind]), base.tables[kind]
    )
    for kind in base.tables
    if kind != "paper"
}

# %% [markdown]
# ## How a verdict comes about
#
# Each claim is put in our words, with the section it stands in, and with the criterion by which we
# count it as fulfilled. The **paper's evidence** is its printed tables: recomputed, with the bounds
# that rounding and the number of questions allow. The **testbed's evidence** applies the same
# criterion to our Tables 1 to 4, where LAPE stands at CRANE's own number of neurons; brackets are
# 95 % intervals, for random masks the range over seeds. A claim *holds* there only if no interval
# overlaps, *does not* hold if one comparison comes out clearly the other way round, and is open
# otherwise (*cannot tell*). All verdicts are computed; nothing on this page is typed in.
#
# A claim that fails on the testbed fails on a small model with a narrow world. That refutes nothing
# about Llama-2-7B, as a claim that holds there confirms nothing about it.

# %% tags=["hide-input"]
swept, made_with = choices.read(choices_data)
more = {}
if not choices.differing_inputs(base, made_with):
    more["threshold-robust"] = threshold_robust(
        swept["choices"].query("choice == 'threshold'"), names
    )
ours = on_testbed(Ours(scored, tables, verdicts, parallel, names), more)
claims = audit.claims_table()
rows = []
for claim in claims.to_dict("records"):
    here = ours.get(claim["id"])
    rows.append(
        {
            **{name: claim[name] for name in ("id", "section", "claim", "criterion")},
            "paper": claim["verdict"],
            "paper_evidence": claim["evidence"],
            "testbed": here.verdict if here else "–",
            "testbed_evidence": here.evidence if here else "Not tested here.",
        }
    )
page = pd.DataFrame(rows)
write_table(page, results / "verdicts.csv")
counts = pd.DataFrame(
    {
        "verdict": ["holds", "does not", "cannot tell", "–"],
        "paper's tables": [
            int((page["paper"] == v).sum()) for v in ("holds", "does not", "cannot tell", "–")
        ],
        "testbed": [
            int((page["testbed"] == v).sum()) for v in ("holds", "does not", "cannot tell", "–")
        ],
    }
)
display(figures.table(counts, f"{len(page)} claims at a glance (–: not to be tested there)"))
short = page[["claim", "section", "paper", "testbed"]].rename(columns={"section": "§"})
display(figures.table(short, "The claims and their verdicts; the evidence follows"))

# %% [markdown]
# ## Claim by claim

# %% tags=["hide-input"]
for number, row in enumerate(page.to_dict("records"), start=1):
    display(
        Markdown(
            f"**{number}. {row['claim']}** (§ {row['section']})\n\n"
            f"- Criterion: {row['criterion']}\n"
            f"- The paper's tables: **{row['paper']}**. {row['paper_evidence']}\n"
            f"- The testbed: **{row['testbed']}**. {row['testbed_evidence']}"
        )
    )

# %% [markdown]
# ## Exercise
#
# ```{exercise-start} A weaker claim
# :label: exercise-weaker-claim
# ```
# Many claims fail because they are worded for *every* language and table. Take the paper's central
# one, that a language suffers most, in relation to where it started, when its own neurons are
# masked, and weaken it to "in most cases". Does it hold then, in the paper's tables and in ours?
# And which method does it hold for?
# ```{exercise-end}
# ```
#
# ```{solution-start} exercise-weaker-claim
# :class: dropdown
# ```

# %%
rows = []
for number, found in verdicts.items():
    for method, own in found.groupby("method", sort=False):
        met = own["relative"].value_counts()
        rows.append(
            {
                "source": f"ours, Table {number}",
                "method": method,
                "most": int(met.get("larger", 0)),
                "open": int(met.get("open", 0)),
                "another more": int(met.get("smaller", 0)),
            }
        )
for (table, method), own in audit.definition(audit.published()).groupby(
    ["table", "method"], sort=False
):
    counted = own["relative"].value_counts()
    rows.append(
        {
            "source": f"published, {table}",
            "method": method,
            "most": int(counted.get("yes", 0)),
            "open": int(counted.get("open", 0)),
            "another more": int(counted.get("no", 0)),
        }
    )
figures.table(
    pd.DataFrame(rows),
    "Under how many of three masks the masked language loses most, relatively (ours: clearly, by "
    "the interval; published: by the printed numbers, rounding allowed for)",
)

# %% [markdown]
# Compare CRANE's rows with those of the random masks, where there are any: a mask that hurts
# everything will hurt *some* language most, and in one case of three that is the masked one.
# ```{solution-end}
# ```

# %% [markdown]
# ## What to make of it
#
# - We wrote the criteria knowing the tables. Read them, and judge them as well.
# - "Does not" is said of a claim as it is worded, often for *every* language or table. A claim that
#   fails in one of twelve cases is listed as failing; its evidence says in how many.
# - The strongest results on the testbed are differences between methods at equal budgets on one
#   model. Whether they carry over is a question for other models, which the notebooks' parameters
#   are there for.
