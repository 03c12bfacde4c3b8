# %% [markdown]
# # Selecting and masking
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** turn kurtosis into a set of neurons for each language; compare sets with
# each other and with chance; switch a set off and on again; and measure what that does to a
# sentence and to the loss on held-out text.
#
# **It assumes** normalised kurtosis ([notebook 02](02_kurtosis)).
#
# **It takes** half an hour to read; the computer needs about two minutes.
#
# **It covers** §3.4, the baselines of §4.2, and lines 17 to 23 of Algorithm 1 of the paper
# {cite:p}`le2026crane`.
# :::
#
# So far nothing has been *done* to the model. Here the candidates are chosen and taken away, which
# is the step that gives CRANE the word *causal* in its name.

# %% [markdown]
# ## Parameters

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
dtype = "float32"  # type of the weights: float32, bfloat16 or float16
device = "cpu"  # where the model runs: cpu, cuda, or auto for a GPU if any
offline = True  # False: weights, corpora and benchmarks may come from the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
corpus = "data/testbed/corpus/attribution"  # held-out text for attribution, one file per language
perplexity_corpus = "data/testbed/corpus/perplexity"  # held-out text for perplexity, one file each
    "data/testbed/corpus/perplexity"  # held-out text for perplexity, one file per language
)
text_column = "text"  # column of JSON lines or Parquet that holds the documents
max_document_tokens = None  # tokens a document is cut to; None: it is not cut
deduplicate = True  # leave out documents that have occurred before
corpus_documents = 5000  # documents per language that are taken from a corpus on the hub
n_samples = 1000  # windows of text per language that relevance is taken on
window = 64  # tokens per window of text
batch_size = 50  # windows that go through the model at a time
seed = 0  # seed of everything that is drawn at random, except training
objective = "next_token"  # what is explained: next_token, next_token_logprob or last_max
score = "activation_x_gradient"  # what is stored per neuron and token
reduction = "sum"  # how a window's tokens become one value per neuron: sum or mean
normalisation = "zscore"  # scale within a layer: zscore, ratio, robust or global
rule = "contrast"  # how neurons are selected: contrast, threshold or top
threshold = 1.0  # normalised score above which a neuron is a candidate
budget = None  # neurons to select per language; None: all above the threshold
random_seeds = [0, 1, 2, 3, 4]  # one random mask per seed, as control
n_perplexity = 200  # windows per language that perplexity is measured on
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
import tempfile
import warnings
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from scipy.stats import hypergeom

from crane_core import baselines, models
from crane_core.masking import bake, masked
from crane_core.selection import NeuronSet, overlap, select
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import figures
from crane_lab.store import write_table

settings = Settings.of(globals())
pipeline = Pipeline(settings)
results = Path(run_dir) / "results"
results.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## One set per language
#
# Line 19 of Algorithm 1 selects by a threshold on the normalised score or by rank. Together with
# Figure 3 that leaves three readings ([choice](choice-selection)):
#
# - `contrast`: above the threshold for the target, and at or below it for every other language. The
#   default.
# - `threshold`: above the threshold for the target, whatever the others do.
# - `top`: the highest scores of the target, as many as a budget allows.

# %%
normalised = pipeline.normalised()
sets = pipeline.neuron_sets()  # under the parameter `rule`
for x, neurons in sets.items():
    print(f"{x}: {len(neurons)} neurons, the first (layer, neuron) are {list(neurons)[:4]}")

# %% [markdown]
# A `NeuronSet` is immutable and knows the shape of the model it belongs to. Sets can be combined
# with `&`, `|` and `-`, counted, iterated as (layer, neuron) pairs, and saved. Here are the three
# rules side by side, `top` with as many neurons as the sets above have:

# %%
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # an empty set is a result here
    by_rule = {
        "contrast": pipeline.neuron_sets(rule="contrast"),
        "threshold": pipeline.neuron_sets(rule="threshold"),
        "top": {
            x: select(normalised, x, "top", budget=len(sets[x]), shape=pipeline.shape) for x in sets
        },
    }


def in_several(chosen):
    """Neurons that belong to the sets of two languages or more."""
    both = NeuronSet.empty(pipeline.shape)
    for a, b in combinations(chosen.values(), 2):
        both = both | (a & b)
    return both


# %% tags=["hide-input"]
total = int(np.prod(pipeline.shape["intermediate"]))
figures.table(
    pd.DataFrame(
        [
            {
                "rule": name,
                **{x: len(neurons) for x, neurons in chosen.items()},
                **{f"{x} share": len(neurons) / total for x, neurons in chosen.items()},
                "in several sets": len(in_several(chosen)),
            }
            for name, chosen in by_rule.items()
        ]
    ),
    f"Neurons per language under each rule (of {total:,}; threshold {settings.threshold:g})",
    {f"{x} share": "{:.1%}" for x in sets},
)

# %% [markdown]
# Under `contrast` no neuron can be in two sets: to be in the set of one language it must be above
# the threshold there, and that keeps it out of all others. Nothing about the model follows from
# such disjoint sets. Questions about *shared* neurons need `threshold` or `top`.
#
# ### Where they lie

# %% tags=["hide-input"]
figures.show(
    figures.layer_counts(
        sets, site="intermediate", title=f"Neurons selected per layer ({settings.rule})"
    ),
    alt="Bars of the number of selected neurons per layer. "
    + " ".join(
        f"{x}: {neurons.counts('intermediate').tolist()}, {len(neurons)} in all."
        for x, neurons in sets.items()
    ),
)

# %% [markdown]
# By default scores are normalised within each layer, so every layer has high ones. How the bars
# differ between layers says something about the shape of the layers' distributions; it does not say
# in which layers a language "lives".
#
# ### The other site
#
# §3.1 of the paper calls each *column of the linear projection matrices* a neuron. Read literally,
# every output of `gate_proj`, `up_proj` and `down_proj` gets a score of its own
# ([choice](choice-neuron)).

# %%
projections = pipeline.neuron_sets("projections")

# %% tags=["hide-input"]
rows = []
for x, neurons in projections.items():
    for site in ("gate", "up", "down"):
        depth, width = pipeline.shape[site]
        counts = neurons.counts(site)
        rows.append(
            {
                "language": x,
                "site": site,
                "neurons": depth * width,
                "selected": int(counts.sum()),
                "share": int(counts.sum()) / (depth * width),
                "by layer": ",\u00a0".join(str(c) for c in counts.tolist()),
            }
        )
figures.table(
    pd.DataFrame(rows),
    f"Sets of the three projections ({settings.rule})",
    {"neurons": "{:,}", "share": "{:.1%}"},
)

# %% tags=["hide-input"]
halves = {
    (x, site): torch.equal(neurons.mask(site), sets[x].mask("intermediate"))
    for x, neurons in projections.items()
    for site in ("gate", "up")
}
display(
    Markdown(
        "The gate and up outputs selected are exactly the intermediate neurons selected above. "
        "That is no coincidence: AttnLRP gives each of the two factors half of the relevance of "
        "their product, at every token, and kurtosis does not see a factor of one half. So with "
        "these rules the two sites differ in the outputs of `down_proj` alone."
        if all(halves.values())
        else f"In {sum(halves.values())} of {len(halves)} cases the gate or up outputs selected "
        "are exactly the intermediate neurons selected above. Without a budget they always would "
        "be: AttnLRP gives each of the two factors half of the relevance of their product, and "
        "kurtosis does not see a factor of one half (up to rounding at the threshold)."
    )
)

# %% [markdown]
# ### When a selection is not what you want
#
# A selection that is legal but rarely meant is returned with a warning; one that makes no sense is
# refused.


# %%
def attempt(**how):
    """Select for the first language and print what `select` has to say about it."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = select(normalised, settings.languages[0], shape=pipeline.shape, **how)
        except ValueError as error:
            print(f"refused: {error}")
            return
    for warning in said:
        print(f"warning: {warning.message}")
    print(f"selected: {len(found):,}")


attempt(threshold=1000.0)
attempt(rule="threshold", threshold=-1000.0)
attempt(budget=total // 2)
attempt(rule="top", budget=total + 1)

# %% [markdown]
# ## Do languages share neurons?
#
# Under `threshold` the sets may overlap. Two sets drawn at random share a few neurons as well, so
# each cell compares with chance: random sets with the same number of neurons in each layer.

# %% tags=["hide-input"]
shared = by_rule["threshold"]
pairs = {(a, b): overlap(shared[a], shared[b]) for a, b in combinations(shared, 2)}
figures.show(
    figures.overlap_heatmap(shared, title="neurons shared under the rule threshold"),
    alt="Matrix of neurons shared by the languages' sets under the rule threshold. "
    + " ".join(
        f"{a} and {b} share {o.shared}, where chance gives {o.expected_within_layers:.1f}."
        for (a, b), o in pairs.items()
    ),
)

# %% tags=["hide-input"]


def overlap_row(o):
    """The columns that a comparison of two sets has in this notebook."""
    return {
        "shared": o.shared,
        "by chance": o.expected_within_layers,
        "ratio": o.shared / o.expected_within_layers if o.expected_within_layers else np.nan,
        "Jaccard": o.jaccard,
        "p": o.p_value,
    }


overlap_formats = {"by chance": "{:.1f}", "ratio": "{:.2f}", "Jaccard": "{:.3f}", "p": "{:.2g}"}
display(
    figures.table(
        pd.DataFrame(
            [
                {"sets": f"{a}, {b}", "sizes": f"{len(shared[a])}, {len(shared[b])}"}
                | overlap_row(o)
                for (a, b), o in pairs.items()
            ]
        ),
        "Overlap between languages under the rule threshold (p: chance of so many or more)",
        overlap_formats,
    )
)
many = [f"{a} and {b}" for (a, b), o in pairs.items() if o.p_value < 0.01]
few = [
    f"{a} and {b}"
    for (a, b), o in pairs.items()
    if hypergeom.cdf(o.shared, total, len(shared[a]), len(shared[b])) < 0.01
]
display(
    Markdown(
        (
            f"More than chance would give (p < 0.01) is shared by {', '.join(many)}. "
            if many
            else "No pair of languages shares more than chance would give (at p < 0.01). "
        )
        + (f"Less than chance (p < 0.01): {', '.join(few)}." if few else "")
    )
)

# %% [markdown]
# A shared neuron here is one whose relevance has heavy tails in both languages. Whether both
# languages *need* it is, again, another question.
#
# ## Does LAPE find the same neurons?
#
# LAPE {cite:p}`tang2024lape` asks how *often* a neuron is active in each language and takes those
# whose activity is most unevenly spread over languages. As released it takes one percent of all
# neurons and shares them out; for a comparison at equal budgets we also take it to CRANE's count by
# its own order. (Published, for Llama-2-7B: 95 English, 583 Chinese and 836 Vietnamese neurons of
# 352,256.)

# %%
counts, tokens = pipeline.activation_counts()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # languages without a neuron are in the table, with 0
    lape = baselines.lape(counts, tokens, shape=pipeline.shape)
lape_matched = baselines.lape_matched(
    counts, tokens, {x: len(neurons) for x, neurons in sets.items()}, shape=pipeline.shape
)

# %% tags=["hide-input"]
rows = []
for name, found in {"LAPE as released": lape, "LAPE matched": lape_matched}.items():
    for x in settings.languages:
        rows.append(
            {"method": name, "language": x, "LAPE": len(found[x]), "CRANE": len(sets[x])}
            | overlap_row(overlap(found[x], sets[x]))
        )
table = pd.DataFrame(rows)
display(
    figures.table(
        table,
        f"Neurons of LAPE and of CRANE ({settings.rule}) for the same language",
        overlap_formats,
    )
)
matched = table[table.method == "LAPE matched"]
more = matched.language[matched.p < 0.01].tolist()
less = matched.language[
    hypergeom.cdf(matched.shared, total, matched.LAPE, matched.CRANE) < 0.01
].tolist()
display(
    Markdown(
        "At equal budgets the two methods share "
        + ", ".join(
            f"{row['shared']} of {row['CRANE']} neurons for `{row['language']}` (chance: "
            f"{row['by chance']:.0f})"
            for _, row in matched.iterrows()
        )
        + ". "
        + (f"That is more than chance for {', '.join(more)} (p < 0.01). " if more else "")
        + (f"That is less than chance for {', '.join(less)} (p < 0.01). " if less else "")
        + (
            ""
            if more or not matched.CRANE.sum()
            else "Firing unevenly over languages and having heavy-tailed relevance are different "
            "things on this model."
        )
    )
)

# %% [markdown]
# ## Keeping a set
#
# Sets are saved as safetensors, with the model's shape. A set made for another shape is refused
# where it is used.

# %%
for x, neurons in sets.items():
    path = results / f"neurons_{x}.safetensors"
    neurons.save(path)
    assert NeuronSet.load(path) == neurons
    print(f"{path.name}: {len(NeuronSet.load(path))} neurons")

try:
    NeuronSet.from_pairs([(0, 7)], shape=(2, 8)).require_shape(pipeline.shape)
except ValueError as error:
    print(f"\nrefused: {error}")

# %% [markdown]
# ## Switching a set off
#
# §3.4: the outputs of the selected neurons are set to zero, everything else stays. `masked` does
# that inside a `with` block. Before any number is taken from a masked model, check that the mask is
# at work: it has to change logits.

# %%
for x, neurons in sets.items():
    change = pipeline.logit_change(neurons)  # refuses a mask that changes nothing
    print(f"mask {x}: {len(neurons):,} neurons, largest change of any logit {change:.2f}")
    assert change > 0 or not len(neurons)

# %% [markdown]
# ### One sentence in every language
#
# The same sentence, broken off before its last word: a fact that the unmasked testbed knows in all
# three languages. Each is continued by the model as it is, under each language's mask, and under a
# random mask with as many neurons in each layer as the mask of the sentence's own language.

# %%
same_sentence = {
    "en": "The capital of India is",
    "zh": "印度的首都是",
    "vi": "Thủ đô của Ấn Độ là",
}
prompts = {}
for x, held_out in pipeline.perplexity_windows.items():
    opening = pipeline.tokenizer.decode(held_out[0][:12], skip_special_tokens=True)
    prompts[x] = same_sentence.get(x, opening)  # another language: the beginning of a text


@torch.no_grad()
def next_token(prompt):
    """Logits of the next token, (vocabulary,)."""
    ids = pipeline.tokenizer(prompt, return_tensors="pt")["input_ids"].to(pipeline.model.device)
    return pipeline.model(input_ids=ids, use_cache=False).logits[0, -1].cpu()


@torch.no_grad()
def goes_on(prompt, tokens=8):
    """The greedy continuation, as text."""
    ids = pipeline.tokenizer(prompt, return_tensors="pt")["input_ids"].to(pipeline.model.device)
    mask = torch.ones_like(ids)
    output = pipeline.model.generate(
        ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False
    )
    return pipeline.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


def label(token):
    """A token as one can read it: ␣ is a space; a byte of a character has no reading of its own."""
    text = pipeline.tokenizer.decode([token])
    return f"‹{token}›" if "\ufffd" in text else text.replace(" ", "␣")


def top(logits, k=3):
    """The k most probable tokens and their probabilities."""
    best = logits.softmax(-1).topk(k)
    return {label(i): p for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)}


# %% tags=["hide-input"]
unmasked, own_mask = {}, {}
for x, prompt in prompts.items():
    masks = {
        "none": NeuronSet.empty(pipeline.shape),
        **sets,
        "random": baselines.random_matched(sets[x], settings.random_seeds[0]),
    }
    rows = []
    for name, neurons in masks.items():
        with masked(pipeline.model, neurons):
            logits, text = next_token(prompt), goes_on(prompt)
        if name == "none":
            unmasked[x] = logits
        if name == x:
            own_mask[x] = logits
        first_choice = int(unmasked[x].argmax())
        rows.append(
            {
                "mask": name,
                "neurons": len(neurons),
                "most probable next tokens": ", ".join(
                    f"{token}\u00a0{p:.2f}" for token, p in top(logits).items()
                ),
                f"p of {label(first_choice)}": logits.softmax(-1)[first_choice].item(),
                "goes on with": text.replace("\ufffd", "").replace("\n", " ⏎ ").strip(),
            }
        )
    display(
        figures.table(
            pd.DataFrame(rows),
            f"{x}: “{prompt} …” under every mask",
            {f"p of {label(int(unmasked[x].argmax()))}": "{:.3f}"},
        )
    )

# %% [markdown]
# (␣ is a space before a word, and a word may take several tokens. A number in angle brackets is a
# token that holds only some bytes of a character.)
#
# The same as bars: each sentence's next tokens without a mask and under the mask of its own
# language.

# %% tags=["hide-input"]
for x, prompt in prompts.items():
    tokens = list(dict.fromkeys([*top(unmasked[x]), *top(own_mask[x])]))
    before, after = (
        {token: p for token, p in top(logits, len(logits)).items() if token in tokens}
        for logits in (unmasked[x], own_mask[x])
    )
    display(
        figures.show(
            figures.next_token_bars(
                before,
                after,
                ("unmasked", f"mask {x}"),
                f"{prompt} …",
            ),
            alt=f"Probabilities of the next token after “{prompt}”. "
            + " ".join(
                f"{token}: {before[token]:.2f} unmasked, {after[token]:.2f} under the mask of {x}."
                for token in tokens
            ),
        )
    )

# %% [markdown]
# One sentence is an anecdote. It shows what a mask *is*; what it does to a language takes many
# texts, below.
#
# ## What a mask is, checked
#
# **It leaves no trace.** After the block, also when an error ends it, the model is what it was, to
# the bit.

# %%
language = max(sets, key=lambda x: len(sets[x]))  # the largest set
neurons, prompt = sets[language], prompts[language]
before, weights = next_token(prompt), models.fingerprint(pipeline.model)
with masked(pipeline.model, neurons):
    during = next_token(prompt)
try:
    with masked(pipeline.model, neurons):
        raise KeyboardInterrupt
except KeyboardInterrupt:
    pass
assert torch.equal(before, next_token(prompt))
assert models.fingerprint(pipeline.model) == weights
print(f"largest change under the mask {(during - before).abs().max():.3f}, after it 0")

# %% [markdown]
# **It can be baked in.** `bake` writes a plain checkpoint with the mask in its weights, which any
# engine can load.

# %%
with tempfile.TemporaryDirectory() as folder:
    baked = bake(pipeline.model, neurons, Path(folder) / "masked", pipeline.tokenizer)
    checkpoint, _ = models.load(baked, settings.dtype, settings.device)
    ids = pipeline.tokenizer(prompt, return_tensors="pt")["input_ids"].to(checkpoint.device)
    with torch.no_grad():
        again = checkpoint(input_ids=ids, use_cache=False).logits[0, -1].cpu()
difference = (again - during).abs().max().item()
print(f"masked against baked checkpoint: largest difference of a logit {difference:.1g}")
assert torch.allclose(again, during, atol=1e-5)

# %% [markdown]
# **Gate, up and intermediate are one switch.** In a gated MLP intermediate neuron $i$ is
# $\mathrm{SiLU}(\text{gate}_i) \cdot \text{up}_i$. A zero on either side makes the product zero,
# since $\mathrm{SiLU}(0) = 0$. So zeroing gate output $i$, up output $i$ or intermediate neuron $i$
# is the same intervention, and the two sites of the paper's definition differ in what is *scored*,
# not in what a mask of theirs does.

# %%
mask = neurons.mask("intermediate")
rows = []
for sites in (["intermediate"], ["gate"], ["up"], ["gate", "up", "intermediate"]):
    with masked(pipeline.model, NeuronSet(dict.fromkeys(sites, mask), pipeline.shape)):
        found = next_token(prompt)
    rows.append(
        {
            "zeroed": " and ".join(sites),
            "difference from unmasked": (found - before).abs().max().item(),
            "difference from intermediate": (found - during).abs().max().item(),
        }
    )
    assert torch.allclose(found, during, atol=1e-5)
figures.table(
    pd.DataFrame(rows),
    f"Largest difference of any next-token logit ({int(mask.sum())} neurons)",
    {"difference from unmasked": "{:.3f}", "difference from intermediate": "{:.1g}"},
)

# %% [markdown]
# Outputs of `down_proj` are another matter: each is a dimension of the residual stream, to which
# *all* neurons of the layer write. The second exercise masks some.
#
# ## What a mask does to a language
#
# Now with many texts. The read-out is the loss on held-out text, the mean negative log-probability
# of the next token, in nats. It is more sensitive than accuracy and is never clipped. Beside
# CRANE's mask stand random ones with the same number of neurons in each layer, because switching
# off neurons may hurt whichever they are; the question is whether *these* neurons hurt *this*
# language more.

# %%
original = pipeline.losses()
masks = {x: [sets[x]] for x in sets}
for x in sets:
    masks[x] += [baselines.random_matched(sets[x], s) for s in settings.random_seeds]
changes = {
    (x, i): {
        text: (losses - original[text]).double().numpy()
        for text, losses in pipeline.losses(neurons).items()
    }
    for x, found in masks.items()
    for i, neurons in enumerate(found)
}

# %% tags=["hide-input"]
rows = []
for x in settings.languages:
    for text in settings.languages:
        change = changes[x, 0][text]
        error = 1.96 * change.std(ddof=1) / np.sqrt(len(change)) if len(change) > 1 else np.nan
        control = [changes[x, i][text].mean() for i in range(1, len(masks[x]))]
        rows.append(
            {
                "mask_language": x,
                "n_neurons": len(sets[x]),
                "text_language": text,
                "loss": original[text].double().mean().item(),
                "change": change.mean(),
                "change_low": change.mean() - error,
                "change_high": change.mean() + error,
                "random_mean": np.mean(control),
                "random_low": np.min(control),
                "random_high": np.max(control),
            }
        )
effect = pd.DataFrame(rows)
write_table(effect, results / "mask_loss.csv")
figures.table(
    pd.DataFrame(
        {
            "mask": effect.mask_language,
            "n": effect.n_neurons,
            "text": effect.text_language,
            "loss": effect.loss.map("{:.3f}".format),
            "change": effect.change.map("{:+.3f}".format),
            "95 % interval": [
                f"{a:+.3f}\u00a0to\u00a0{b:+.3f}"
                for a, b in zip(effect.change_low, effect.change_high, strict=True)
            ],
            "random masks": effect.random_mean.map("{:+.3f}".format),
            "their range": [
                f"{a:+.3f}\u00a0to\u00a0{b:+.3f}"
                for a, b in zip(effect.random_low, effect.random_high, strict=True)
            ],
        }
    ),
    "Held-out loss in nats per token, and its change under CRANE's masks and under random ones "
    f"({settings.n_perplexity} windows per language; {len(settings.random_seeds)} random masks "
    "each)",
)

# %% tags=["hide-input"]
lines, more_than_random, hit = [], [], []
for x in settings.languages:
    rows = effect[effect.mask_language == x].set_index("text_language")
    own, most = rows.loc[x], rows.change.idxmax()
    if not len(sets[x]):
        lines.append(f"- `{x}`: the set is empty, so there is nothing to mask.")
        continue
    if own.change > own.random_high:
        more_than_random.append(x)
        against = "more than any random mask of that size"
    elif own.change < own.random_low:
        against = "less than every random mask of that size"
    else:
        against = "within the range of random masks of that size"
    if most == x:
        hit.append(x)
    lines.append(
        f"- Masking the {len(sets[x])} neurons of `{x}` changes the loss on `{x}` by "
        f"{own.change:+.3f} (random: {own.random_low:+.3f} to {own.random_high:+.3f}), {against}. "
        + (
            "No other language is hurt more."
            if most == x
            else f"`{most}` is hurt more ({rows.change[most]:+.3f})."
        )
    )
display(Markdown("\n".join(lines)))

# %% [markdown]
# Intervals are over windows, paired: each window is compared with itself without the mask. The
# range of random masks is over sets, which is the variation that matters for the question whether a
# set is better than any other of its size.
#
# Notebook [04](04_table1) asks the same of task accuracy, as the paper does, and brings in LAPE.
#
# ## Exercises
#
# ```{exercise-start} Blind by construction
# :label: exercise-disjoint
# ```
# Suppose two languages depend on exactly the same neurons, and the kurtosis of every neuron is the
# same in both. What does `contrast` select for either? Could Table 1 then ever show that the two
# depend on each other? And why can LAPE's sets overlap, although LAPE, too, looks for neurons that
# tell languages apart?
# ```{exercise-end}
# ```
#
# ```{solution-start} exercise-disjoint
# :class: dropdown
# ```
# Nothing at all: a neuron above the threshold in one language is above it in the other, and is kept
# out of both sets. What languages share is invisible under this rule, so a table made with it can
# speak about selectivity but not about sharing.
#
# LAPE first chooses neurons whose activity is unevenly spread over *all* languages and then gives
# each to every language in which it is active often enough. A neuron active in two of three
# languages is unevenly spread, and goes to both.
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise-start} Mask the residual stream
# :label: exercise-down
# ```
# Take a random set of outputs of `down_proj` with as many entries in each layer as the largest set
# above (at most a quarter of the layer's outputs), and compare its effect on the held-out loss with
# that of random intermediate neurons. `NeuronSet({"down": mask}, pipeline.shape)` and
# `baselines.random_matched` are all you need.
# ```{exercise-end}
# ```

# %% [markdown]
# ```{solution-start} exercise-down
# :class: dropdown
# ```

# %%
depth, width = pipeline.shape["down"]
wanted = neurons.counts("intermediate").clamp(max=width // 4)
mask = torch.arange(width).expand(depth, width) < wanted[:, None]  # so many in each layer ...
down = baselines.random_matched(
    NeuronSet({"down": mask}, pipeline.shape), settings.seed
)  # ... anywhere
under_down = pipeline.losses(down)
figures.table(
    pd.DataFrame(
        [
            {
                "text": x,
                f"{len(down)} outputs of down_proj": (under_down[x] - original[x]).mean().item(),
                f"{len(neurons)} intermediate neurons": np.mean(
                    [changes[language, i][x].mean() for i in range(1, len(masks[language]))]
                ),
            }
            for x in settings.languages
        ]
    ),
    "Change of held-out loss under random masks at two sites (nats per token)",
    dict.fromkeys(
        [f"{len(down)} outputs of down_proj", f"{len(neurons)} intermediate neurons"], "{:+.3f}"
    ),
)

# %% [markdown]
# An intermediate neuron is one of many that write to the residual stream; an output of `down_proj`
# is what all of them write to one of its dimensions. That is why budgets of the two sites cannot be
# compared one to one.
# ```{solution-end}
# ```

# %% [markdown]
# ## What the numbers do and do not show

# %% tags=["hide-input"]
selected = [x for x in settings.languages if len(sets[x])]
display(
    Markdown(
        f"- Number of masks, of {len(selected)}, that raise the loss of their own language by "
        f"more than every one of {len(settings.random_seeds)} random masks of the same size: "
        f"{len(more_than_random)}"
        + (f" ({', '.join(more_than_random)})" if more_than_random else "")
        + f". That hurt their own language most: {len(hit)}"
        + (f" ({', '.join(hit)})" if hit else "")
        + ". "
        + (
            "There was nothing to mask."
            if not selected
            else "On this model, by this read-out, kurtosis selects neurons that their languages "
            "need."
            if set(selected) == set(more_than_random) & set(hit)
            else "On this model, by this read-out, kurtosis does not reliably select neurons that "
            "their languages need."
        )
        + "\n- A set is not a unique object. Its size follows from the rule, the threshold and the "
        "normalisation, and notebook 02 shows how much of it changes with the windows drawn.\n"
        "- The overlap between languages, and with LAPE, describes the *selections*. It is no "
        "statement about what languages have in common inside the model.\n"
        "- Zero is one way to switch a neuron off, and not the mildest. A neuron whose usual "
        "output is far from zero is not removed by it but driven to an unusual value."
    )
)
