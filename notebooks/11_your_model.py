# %% [markdown]
# # Run it on your model
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** plan a run on a model of your own before it costs anything, start it,
# leave it and come back to it, compare it with another, and take neurons and masked models from
# here into other tools.
#
# **It assumes** the method ([at a glance](method)) and that you have rerun a notebook ([how
# to](../book/rerun)).
#
# **It takes** a quarter of an hour to read; the computer needs half a minute.
# :::
#
# Everything in this book runs under a *profile*, a file of parameters. The testbed's is the
# default; `hub` is for any decoder on the Hugging Face hub, `paper` is Llama-2-7B with MMLU, C-Eval
# and Belebele. The notebooks are the same.

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
gpus = ["RTX 3090", "RTX 4090", "A100", "H100"]  # devices that a run is planned for
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
import dataclasses
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from crane_core import models
from crane_core.masking import bake, masked
from crane_core.selection import NeuronSet
from crane_lab.cli.plan import by_device, plan
from crane_lab.runs import Project
from crane_lab.settings import Settings
from crane_lab.show import crane_exercises as exercises
from crane_lab.show import own_model_pages
from crane_lab.store import neuron_files, write_table

results = Path(run_dir) / "results"

# %% [markdown]
# ## From nothing to Table 1
#
# On the machine with the GPU, with Python 3.11 or newer:
#
# ```bash
# git clone <this repository> && cd crane
# make setup && source .venv/bin/activate   # an environment with everything in .venv
# export HF_TOKEN=...                       # for gated weights such as Llama 2
# export OPENAI_API_KEY=...                 # for the judge of open-ended answers
# crane plan --profile hub -p model Qwen/Qwen3-0.6B-Base --gpu "RTX 4090"
# crane run  --profile hub -p model Qwen/Qwen3-0.6B-Base --notebook 04
# crane status --profile hub -p model Qwen/Qwen3-0.6B-Base
# ```
#
# `make setup` installs PyTorch as your package index has it; for a build for another version of
# CUDA, install that into `.venv` afterwards. Notebook [04](04_table1) writes `table1.csv` into the
# run's `results/`. Weights, Wikipedia and the benchmarks are fetched once, then
# kept. Without a way to the hub, give folders: `model` a checkpoint, `corpus` a folder with
# `<language>.txt`, `.jsonl` or `.parquet`, `benchmark_data` a copy of the benchmarks' datasets.
#
# Which models: those whose MLPs are gated, of the families below. Another family needs an entry in
# `models.FAMILIES`, a few lines that say where its MLPs and norms are; the error message says so.

# %%
own_model_pages.families(models.FAMILIES)

# %% [markdown]
# ## What it takes
#
# `crane plan` counts the work from the parameters and divides it by what the device does per
# second: *measured* where `benchmarks/results/` has a file from that machine, otherwise *estimated*
# from its peak. Here is the paper's own setting. Memory is that of the weights and of one batch's
# activations, which shrink with `batch_size`; vLLM
# {cite:p}`kwon2023vllm`, which generates the open-ended answers, takes a
# share of its own beside it.

# %%
paper = Settings.of(Project().run("paper").parameters)
hours = by_device(paper, gpus)
write_table(hours, results / "plan_paper.csv")
fits = hours.loc[hours["fits"] == "yes", "device"].tolist() or gpus
planned = plan(paper, fits[-1])
own_model_pages.hours(hours, paper.model, planned.memory())

# %% [markdown]
# The whole plan for the last that is large enough, as `crane plan --profile paper` prints it. Units
# are samples (at both sites), windows, items and answers, under all masks; answers are counted at
# their full length.

# %%
print(planned)

# %% [markdown]
# Most of it is the benchmarks, because each is run under every mask. `task_limit` takes that many
# items per benchmark, evenly spread, and `random_seeds` sets the number of random masks.
#
# ## Before you spend it
#
# `make rehearse` runs every stage of `paper` on your machine in minutes, without the hub: a model
# with random weights and Llama-2-7B's configuration cut to a few layers, a tokenizer with its
# special tokens, benchmarks in the hub's format, a judge at a local address. What it cannot try is
# what needs the hub, vLLM or a GPU: downloads, speed, memory.
#
# ## While it runs
#
# - **Stop it whenever you like.** Finished work is in the store under what it depends on; relevance
#   is saved as it goes, so that a killed run loses less than a minute, and ends with the same bytes
#   as one that was never stopped. `crane status` says what is there.
# - **Out of memory**: the batch is halved and the run goes on; the artefact's manifest notes it.
# - **Several GPUs**: `accelerate launch --num_processes 4 -m crane_lab.cli.attribute -h` says how
#   relevance is computed on all of them; start the notebooks when it has ended. Answers are
#   generated on several GPUs with `tensor_parallel_size`.
# - **Two runs at once** can share the store: what one computes the other waits for.
#
# ## Afterwards: two runs side by side
#
# `crane compare testbed testbed-1f2e3d4c` sets every score and LangSpec-F1 of two runs beside each
# other, with the interval of the difference: paired, where both runs have the same items.
#
# ## Neurons and masked models in other tools
#
# A set of neurons is a file: safetensors, plain JSON, or LAPE's format (`.neuron.pth`, read here
# without running any code in it). A masked model is a checkpoint like any other.

# %%
network, tokenizer = models.load(model)
shape = models.shape(network)
path = results / "neurons_en.safetensors"
neurons = NeuronSet.from_pairs([(0, 1)], shape)
if path.is_file():  # as notebook 03 leaves it
    neurons = NeuronSet.load(path)
folder = tempfile.TemporaryDirectory()  # until this process ends
scratch = Path(folder.name)
neuron_files.save_json(neurons, scratch / "en.json")
neurons.to_lape_file(scratch / "en.neuron.pth")
back = [
    neuron_files.load_json(scratch / "en.json"),
    NeuronSet.from_lape_file(scratch / "en.neuron.pth", 0, shape=shape),
]

# %% [markdown]
# The checkpoint is loaded here by transformers alone, which knows nothing of CRANE, and its logits
# for one sentence are held against those of the model under the mask, and of the untouched model.

# %%
bake(network, neurons, scratch / "without-en", tokenizer)
other = AutoModelForCausalLM.from_pretrained(scratch / "without-en")
ids = torch.tensor([tokenizer("The river is long.")["input_ids"]])
with torch.no_grad():
    logits = other(ids).logits
    untouched = network(ids).logits
    with masked(network, neurons):
        expected = network(ids).logits
pair = (expected, untouched)
differences = [float((logits - x).abs().max()) for x in pair]
own_model_pages.exported(neurons, back, differences)

# %% [markdown]
# The same folder is all that other tools need:
#
# ```bash
# lm_eval --model hf --model_args pretrained=without-en --tasks belebele_eng_Latn --num_fewshot 5
# vllm serve without-en
# ```
#
# ## Exercise
#
# ```{exercise-start} A cheaper paper · medium, 15 minutes
# :label: exercise-cheaper-paper
# ```
# Which parameters bring the paper's setting down to one working day on the first device of the
# table that is large enough, and what do you lose by each?


# %%
def hours_of(changed):
    return by_device(changed, fits[:1])["in all"].iloc[0]


# A dictionary: parameters of `paper`, with other values
my_changes = ...

exercises.within_a_day(my_changes, paper, hours_of)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# The plan above says what takes longest, in how many units, and the line below it which parameters
# those come from. What is left of a prompt if no examples are shown?
# ```
#
# ```{solution-start} exercise-cheaper-paper
# :class: dropdown
# ```

# %%
few = {"task_limit": 500}
zero = few | {"num_fewshot": 0}
cheaper = {
    "as it is": {},
    "500 items per benchmark": few,
    "and without examples": zero,
    "and 256 tokens per answer": zero | {"max_new_tokens": 256},
}
needed = {}
for name, changes in cheaper.items():
    changed = dataclasses.replace(paper, **changes)
    needed[name] = hours_of(changed)
own_model_pages.savings(needed, fits[0])

# %% [markdown]
# Fewer items widen the intervals: where a mask changes a fifth of 500 answers, the drop's standard
# error is two points, as much as many of the paper's drops. Without examples a base model may fall
# to chance, where nothing can drop any more ([notebook 07](07_audit)). Shorter answers cost little:
# most end long before, and the count of the plan is an upper bound.
#
# ```{solution-end}
# ```

# %% [markdown]
# Next: [every parameter](../book/parameters), to look up what else a run of your own can change.
