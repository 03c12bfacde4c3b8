# %% [markdown]
# # Relevance: whose work was it?
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** hand a small network's output back to its inputs with pencil and paper;
# say which rule AttnLRP uses for each part of a Transformer and which of them lose nothing on the
# way; read a token heatmap; and explain what a neuron's relevance is, and what it is not.
#
# **It assumes** that you know what a gradient is and have met [the testbed](00_meet_the_testbed).
#
# **It takes** forty minutes to read with a pencil at hand; the computer needs about a minute.
#
# **It covers** §3.2, Equation 1 and lines 1 to 9 of Algorithm 1 of the paper {cite:p}`le2026crane`.
# :::
#
# CRANE starts from a question about one prediction: *which neurons did the work?* Relevance
# answers it with numbers that add up. The score of a predicted word is treated as a sum of money
# that is handed back through the network, layer by layer, to whoever contributed to it. What a
# neuron receives is its relevance, in the unit of the score.

# %% [markdown]
# ## Parameters

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
dtype = "float32"  # type of the weights: float32, bfloat16 or float16
device = "cpu"  # where the model runs: cpu, cuda, or auto for a GPU if any
offline = True  # False: weights, corpora and benchmarks may come from the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
corpus = "data/testbed/corpus/attribution"  # held-out text for attribution, one file per language
text_column = "text"  # column of JSON lines or Parquet that holds the documents
max_document_tokens = None  # tokens a document is cut to; None: it is not cut
deduplicate = True  # leave out documents that have occurred before
corpus_documents = 5000  # documents per language that are taken from a corpus on the hub
tasks = "data/testbed/tasks"  # folder with the benchmarks: lm-eval YAML files and their items
window = 64  # tokens per window of text
batch_size = 50  # windows that go through the model at a time
seed = 0  # seed of everything that is drawn at random, except training
objective = "next_token"  # what is explained: next_token, next_token_logprob or last_max
n_checked = 100  # windows per language on which relevance is checked
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from scipy.stats import spearmanr
from torch.nn import functional as F

from crane_core import attribution, masking, models
from crane_core.attribution import neuron_relevance, objective_values, token_relevance
from crane_core.moments import StreamingMoments
from crane_core.selection import NeuronSet
from crane_lab.engines import evaluation
from crane_lab.pipeline import TABLES, Pipeline
from crane_lab.settings import Settings
from crane_lab.show import figures
from crane_lab.store import write_table
from crane_lab.study.conservation import conservation, stream_shares

settings = dataclasses.replace(Settings.of(globals()), n_samples=n_checked)
pipeline = Pipeline(settings)
net, tokenizer, windows = pipeline.model, pipeline.tokenizer, pipeline.windows
results = Path(run_dir) / "results"

# %% tags=["hide-input"]
BAND = (0.05, 0.5, 0.95)


def spread(values, form=".3f"):
    """Median and the range of the middle 90 % as text."""
    low, middle, high = np.nanquantile(np.asarray(values, dtype=float), BAND)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


# %% [markdown]
# ## By hand, on two layers
#
# Two inputs, three hidden units with ReLU, one output, no biases:
#
# $$
# h = \mathrm{ReLU}(W x), \qquad y = v^\top h,
# $$
#
# $$
# x = \begin{pmatrix} 1 \\ 2 \end{pmatrix}, \quad
# W = \begin{pmatrix} 1 & 1 \\ 2 & -2 \\ -1 & 1 \end{pmatrix}, \quad
# v = \begin{pmatrix} 2 \\ 3 \\ -1 \end{pmatrix} .
# $$
#
# **Forwards.** Before ReLU the hidden units are $1 + 2 = 3$, $2 - 4 = -2$ and $-1 + 2 = 1$. ReLU
# leaves $3$, $0$ and $1$. The output is $2 \cdot 3 + 3 \cdot 0 - 1 \cdot 1 = 5$.
#
# **Backwards.** The output's relevance is the output itself: $5$. The rule of layer-wise
# relevance propagation, LRP {cite:p}`bach2015lrp`, for a linear layer is: *each input gets the
# share of the sum that it put in.*
#
# $$
# R_{i \leftarrow j} = \frac{w_{ji}\, x_i}{\sum_{k} w_{jk}\, x_k}\; R_j ,
# \qquad R_i = \sum_j R_{i \leftarrow j} .
# $$
#
# The output, $5$, is made of the summands $6$, $0$ and $-1$. So the hidden units receive exactly
# these: $R_{h_1} = 6$, $R_{h_2} = 0$, $R_{h_3} = -1$. A negative share is a summand that worked
# against the output.
#
# ReLU has one input and one output, so relevance passes through it unchanged. Now the first layer.
# $h_1 = 3$ is made of $1$ (from $x_1$) and $2$ (from $x_2$), so its $6$ are split into $2$ and $4$.
# $h_3 = 1$ is made of $-1$ and $2$, so its $-1$ is split into $+1$ and $-2$. Together:
#
# $$
# R_{x_1} = 2 + 1 = 3, \qquad R_{x_2} = 4 - 2 = 2 .
# $$
#
# Check: $3 + 2 = 6 + 0 - 1 = 5$. Nothing was lost and nothing added in any layer. That is
# Equation 1 of the paper, *conservation*.

# %%
x = torch.tensor([1.0, 2.0])
W = torch.tensor([[1.0, 1.0], [2.0, -2.0], [-1.0, 1.0]])
v = torch.tensor([[2.0, 3.0, -1.0]])


def pass_back(weights, inputs, relevance, epsilon=0.0):
    """LRP through one linear layer: what each output hands to each input, (outputs, inputs)."""
    summands = weights * inputs
    total = summands.sum(1, keepdim=True)
    sign = torch.where(total < 0, -1.0, 1.0)  # a sum of zero counts as positive
    return summands / (total + epsilon * sign) * relevance[:, None]


h = torch.relu(W @ x)
y = v @ h
from_output = pass_back(v, h, relevance=y)
R_h = from_output.sum(0)
from_hidden = pass_back(W, x, relevance=R_h)
R_x = from_hidden.sum(0)

# %% tags=["hide-input"]
figures.show(
    figures.network(
        [
            {f"x{i + 1}": (x[i].item(), R_x[i].item()) for i in range(2)},
            {f"h{i + 1}": (h[i].item(), R_h[i].item()) for i in range(3)},
            {"y": (y.item(), y.item())},
        ],
        [W.numpy(), v.numpy()],
        title="Inside: activation. Below: relevance. On the edges: weights.",
    ),
    alt="The network with its weights. Activations: x 1 and 2; h 3, 0 and 1; y 5. Relevance: "
    f"x {R_x.tolist()}, h {R_h.tolist()}, y {y.item()}.",
)

# %%
pd.DataFrame(
    [
        ("output", str(y.tolist()), y.sum().item()),
        ("hidden", str(R_h.tolist()), R_h.sum().item()),
        ("input", str(R_x.tolist()), R_x.sum().item()),
    ],
    columns=["layer", "relevance", "sum"],
).pipe(
    figures.table,
    "The same by machine.",
    {"sum": "{:g}"},
)

# %% [markdown]
# ### The short way: gradient times activation
#
# While the hidden units that are on stay on, $y$ is a linear function of $x$: here $y = 2 (x_1 +
# x_2) - (-x_1 + x_2) = 3 x_1 + x_2$. Its gradient is $(3, 1)$, and gradient times input is $(3
# \cdot 1, 1 \cdot 2) = (3, 2)$: just the relevance. For networks of linear layers and ReLU
# without biases this is no accident. In each summand $w x$, *activation times gradient* is the
# summand's share of the output. One backward pass does for all layers what took us half a page.

# %%
start = x.clone().requires_grad_()
hidden = torch.relu(W @ start)
gradient_h, gradient_x = torch.autograd.grad((v @ hidden).sum(), [hidden, start])
print("hidden:", (hidden * gradient_h).tolist(), " input:", (start * gradient_x).tolist())
torch.testing.assert_close(hidden.detach() * gradient_h, R_h)
torch.testing.assert_close(x * gradient_x, R_x)

# %% [markdown]
# ### The small print: ε
#
# The rule divides by a sum, and a sum of positive and negative summands can be zero. With $x =
# (1, 1)$ the third hidden unit is $-1 + 1 = 0$, and its summands would have to be divided by
# nothing. The *ε-rule* adds a small $\varepsilon$, with the sign of the sum, to the denominator.
# It buys stability with conservation: what ε takes is gone.

# %%
rows = []
for epsilon in (0.0, 0.01, 0.1, 1.0):
    hidden_share = pass_back(v, h, y, epsilon).sum(0)
    input_share = pass_back(W, x, hidden_share, epsilon).sum(0)
    rows.append((epsilon, *input_share.tolist(), input_share.sum().item(), y.item()))
pd.DataFrame(rows, columns=["ε", "x1", "x2", "sum", "output"]).pipe(
    figures.table,
    "Relevance of the inputs under the ε-rule.",
    {"ε": "{:g}", "x1": "{:.3f}", "x2": "{:.3f}", "sum": "{:.3f}", "output": "{:g}"},
)

# %% [markdown]
# In the gradient form no sum is divided by, and linear layers need no ε. One is left, of
# $10^{-10}$, where an activation function's output is divided by its input (next section).
#
# ## A gated MLP breaks the short way
#
# Llama's MLPs multiply: $z = \mathrm{SiLU}(g) \cdot u$, with a gate $g$ and an "up" value $u$
# that are both linear in the same input ([the formula](method)). Take one such unit on
# our input $x = (1, 2)$:
#
# $$
# g = -x_1 + x_2 = 1, \qquad u = x_1 + x_2 = 3,
# $$
#
# $$
# z = \mathrm{SiLU}(1) \cdot 3 = 0.731 \cdot 3 = 2.193 .
# $$
#
# Plain gradient times activation now hands out too much, for two reasons. A product has *two*
# factors, and activation times gradient credits each of them with all of $z$. And SiLU is no
# straight line through zero: the slope at $g$ is not the ratio $\mathrm{SiLU}(g) / g$ that would
# carry its value back.
#
# AttnLRP {cite:p}`achtibat2024attnlrp` repairs both:
#
# - **uniform rule** for a product: each factor gets half;
# - **identity rule** for an activation function: what comes out goes in, as if the function were
#   the straight line from zero through its current point.
#
# By hand: $z = 2.193$ is split into $1.097$ for each factor. The gate's half passes SiLU
# unchanged and is split over $g = -1 + 2$: $-1.097$ and $+2.193$. The up half is split over $u =
# 1 + 2$: $0.366$ and $0.731$. In sum $x_1$ receives $-0.731$ and $x_2$ receives $2.924$, together
# $2.193$.

# %%
w_gate, w_up = torch.tensor([-1.0, 1.0]), torch.tensor([1.0, 1.0])
rules = attribution.lxt  # the rules as released with AttnLRP, in the package lxt


def gated(x, with_rules):
    """One gated unit; with AttnLRP's rules its gradient is no longer the mathematical one."""
    if not with_rules:
        return F.silu(w_gate @ x) * (w_up @ x)
    gate = rules.identity_rule_implicit(F.silu, w_gate @ x)
    return rules.divide_gradient(gate * (w_up @ x), 2)


rows = []
for with_rules in (False, True):
    start = x.clone().requires_grad_()
    z = gated(start, with_rules)
    share = start.detach() * torch.autograd.grad(z, start)[0]
    name = "with AttnLRP's rules" if with_rules else "plain gradient"
    rows.append((name, *share.tolist(), share.sum().item(), z.item()))
pd.DataFrame(rows, columns=["activation × gradient", "x1", "x2", "sum", "output z"]).pipe(
    figures.table,
    "One gated unit: the same forward pass, two backward passes.",
    dict.fromkeys(("x1", "x2", "sum", "output z"), "{:.3f}"),
)

# %% [markdown]
# This is the trick of the whole method. The rules change how *gradients* are computed, not what the
# model computes. Under changed gradients, activation × gradient of any activation anywhere in the
# network *is* its relevance, and one backward pass gives all of them.
#
# ## The rules of AttnLRP in a Llama
#
# Linear layer
# : Shares by summand, which is what the gradient does by itself. Conserves, if there is no bias (a
#   bias keeps its own share; Llama has none).
#
# Residual addition
# : The same: each summand keeps its own part. Conserves.
#
# RMS norm
# : Identity rule: the factor by which the norm divides is treated as a constant. Conserves. Without
#   the rule nothing would get through: a norm's output stays the same when its input is scaled, and
#   for such a function gradient times input is zero.
#
# SiLU, and gate times up
# : Identity rule and uniform rule, as above. Conserves.
#
# Attention weights times values
# : A product of two matrices; uniform rule: half goes to the values, half to the weights.
#   Conserves.
#
# Softmax
# : The plain gradient times the attention scores, a first-order approximation. **Does not
#   conserve**: softmax does not change when all scores rise together, so there are no summands to
#   share by.
#
# Queries times keys
# : Uniform rule again. Conserves what softmax passed on.
#
# In `crane_core` all this is `attribution.attnlrp(model)`, a context manager that binds these
# rules, taken from the authors' package lxt, to one model for the length of a `with` block and
# leaves no trace of them on exit.
#
# ### Measured, rule by rule
#
# Which of these claims hold on our model? `conservation` runs real text through it, stops at every
# step, and compares the relevance that the step's output has received with what its inputs get from
# it. The *residual stream* is what runs through all layers: every norm reads from it, and every
# attention and MLP adds to it.

# %%
few = torch.cat([windows[lang][:16] for lang in languages])
measured = {rules: conservation(net, few, rules) for rules in attribution.RULES}

rows = []
for step, table in measured["attnlrp"].groupby("step", sort=False):
    plain = measured["gradient"].query("step == @step")["share"]
    rows.append(
        {
            "step": step,
            "n": len(table),
            "share due": table["due"].iloc[0],
            "share passed on": spread(table["share"]),
            "largest error": table["error"].max(),
            "conserves": "yes" if table["error"].max() < 1e-5 else "no",
            # The stream's relevance is close to zero then, and a ratio to it means nothing.
            "plain gradient": np.nan if "stream" in step else plain.median(),
        }
    )
rule_by_rule = pd.DataFrame(rows)
write_table(rule_by_rule, results / "conservation.csv")
figures.table(
    rule_by_rule,
    "Relevance that a step's inputs receive, relative to what its output has: median and middle "
    f"90 % over n cases ({len(few)} windows times the model's steps of the kind). Error: "
    "difference from the share due, relative to the output's absolute relevance; a step "
    "conserves if it stays below 0.00001. Last column: median share without the rules.",
    {"share due": "{:.1f}", "largest error": "{:.1e}", "plain gradient": "{:.3f}"},
)

# %% tags=["hide-input"]
lossless = rule_by_rule[rule_by_rule["conserves"] == "yes"]["step"].tolist()
lossy = rule_by_rule[rule_by_rule["conserves"] == "no"]["step"].tolist()
Markdown(
    f"Conserving to rounding: {'; '.join(lossless) or 'none'}. "
    + (
        f"Not conserving: {'; '.join(lossy)}."
        if lossy
        else "No step of this model loses relevance on these texts."
    )
    + (
        " Everything on the second list has a softmax inside."
        if lossy and all("softmax" in x or "attention" in x or "whole" in x for x in lossy)
        else ""
    )
)

# %% [markdown]
# ### Where it is lost
#
# The relevance of the whole residual stream, at each point between the embeddings (0) and the
# last layer, relative to the sum of logits that is being explained. If every step conserved, all
# lines would lie at 1.

# %%
lines = {}
for lang in languages:
    shares = stream_shares(net, windows[lang][:16])
    low, middle, high = np.quantile(shares.cpu().numpy(), BAND, axis=0)
    lines[lang] = (np.arange(len(middle)) / 2, middle, low, high)
at_input, at_end = (
    ", ".join(f"{lang} {line[1][position]:.2f}" for lang, line in lines.items())
    for position in (0, -1)
)
figures.show(
    figures.curves(
        lines,
        xlabel="position in the residual stream (layers; halves: between attention and MLP)",
        ylabel="relevance / explained output",
        level=1.0,
        level_label="conserved",
    ),
    alt="Share of the explained output found in the residual stream, from the embeddings to the "
    f"last layer: median and middle 90 % of windows per language. At the embeddings {at_input}; "
    f"after the last layer {at_end}.",
)

# %% [markdown]
# ### From end to end
#
# So relevance at the input need not add up to the output. How far off is it on real text? Below,
# the ratio of the two for the objective of this run, over held-out windows of each language,
# under AttnLRP's rules and under the plain gradient.

# %%
rows = []
for lang in languages:
    found = {
        rule: [
            token_relevance(net, ids, objective=objective, rules=rule).double().sum(1)
            for ids in windows[lang].split(batch_size)
        ]
        for rule in attribution.RULES
    }
    values = torch.cat(
        [objective_values(net, ids, objective=objective) for ids in windows[lang].split(batch_size)]
    ).double()
    for rule, sums in found.items():
        quantiles = np.quantile((torch.cat(sums) / values).numpy(), (0.05, 0.25, 0.5, 0.75, 0.95))
        rows.append((lang, rule, len(values), *quantiles))
ends = ["5 %", "25 %", "median", "75 %", "95 %"]
ratio = pd.DataFrame(rows, columns=["language", "rules", "n", *ends])
write_table(ratio, results / "relevance_ratio.csv")
figures.table(
    ratio,
    f"Relevance of all input tokens divided by the output ({objective}), quantiles over n windows.",
    dict.fromkeys(ends, "{:.3f}"),
)

# %% tags=["hide-input"]
mine = ratio[ratio["rules"] == "attnlrp"]
inside = ((mine["5 %"] < 1) & (mine["95 %"] > 1)).all()
Markdown(
    "Under AttnLRP the input's relevance is, in the median window, "
    + ", ".join(f"{row['median']:.2f} ({row['language']})" for _, row in mine.iterrows())
    + " of the output. "
    + (
        "The middle 90 % lie on both sides of 1: relevance is lost in some windows and created in "
        "others."
        if inside
        else "Softmax takes its toll: Equation 1 holds rule by rule, and not for the whole model."
    )
    + " CRANE compares a neuron with *itself* over many texts, and kurtosis ignores scale, so a "
    "common factor would do no harm; a ratio that varies from text to text adds a little noise."
)

# %% [markdown]
# ## On the model: which words did it look at?
#
# The relevance of a token is the sum over its embedding's dimensions. First a fact: we explain the
# logit of the first token of the answer, given the question. Orange tokens spoke for that answer,
# purple ones against it. `<s>` opens every text, and ⏎ stands for a new line.

# %%
FACTS = {
    "en": ("Question: What is the capital of Vietnam?\nAnswer:", " Hanoi"),
    "zh": ("问题：越南的首都是哪里？\n回答：", "河内"),
    "vi": ("Câu hỏi: Thủ đô của Việt Nam là gì?\nTrả lời:", " Hà Nội"),
}


def explained(prompt, answer, others=()):
    """Tokens of a prompt, their relevance for the answer, and a heading.

    Explained is the token by which the answer parts from all the other options: its first one, or
    a later one if they begin alike.
    """
    ids, *rest = (tokenizer(prompt + text)["input_ids"] for text in (answer, *others))
    column = len(tokenizer(prompt)["input_ids"])
    while column < len(ids) - 1 and any(x[: column + 1] == ids[: column + 1] for x in rest):
        column += 1
    seen = torch.tensor([ids[: column + 1]])
    relevance = token_relevance(net, seen, target=column)[0, :column]
    with torch.no_grad():
        probabilities = net(input_ids=seen[:, :column]).logits[0, -1].softmax(-1)
    probability = probabilities[ids[column]]
    rank = int((probabilities > probability).sum()) + 1
    token = tokenizer.decode([ids[column]]).strip()
    heading = f"{token!r} of {answer.strip()!r}: probability {probability:.2f}, rank {rank}"
    return *figures.readable_tokens(tokenizer, ids[:column], relevance), heading


def heatmap(questions):
    """The heatmap of a question per language, with what is strongest in it as text."""
    texts, strongest = {}, []
    for lang, question in questions.items():
        pieces, relevance, heading = explained(*question)
        texts[f"{lang}: {heading}"] = (pieces, relevance)
        top = np.abs(relevance).argsort()[::-1][:3]
        named = ", ".join(f"{pieces[i].strip()!r} ({relevance[i]:+.2f})" for i in top)
        strongest.append(f"{lang}: {named}")
    return figures.token_heatmap(texts, width=6.6), "; ".join(strongest)


figure, strongest = heatmap({lang: FACTS[lang] for lang in languages if lang in FACTS})
figures.show(figure, alt=f"Questions with tokens coloured by relevance. Strongest: {strongest}.")

# %% tags=["hide-input"]
Markdown(f"Strongest tokens, in logits: {strongest}.")

# %% [markdown]
# Now a story that the model has never seen, with a question about it: in each language the first
# item of the reading task that asks for a thing in a story of two people. To answer, the model
# has to find the right person's sentence. What is explained is the token by which the right
# option parts from the wrong ones. Does the heatmap show that the model looked in the right
# place?

# %%
names = {lang: TABLES["reading"][lang] for lang in languages}
loaded = evaluation.load_tasks(list(names.values()), tasks)
stories = {}
for lang, name in names.items():
    task = loaded[name]
    docs = list(task.dataset["test"])
    doc = next((doc for doc in docs if doc["relation"] == "thing.2"), docs[0])
    right, *wrong = (
        task.config.target_delimiter + option
        for option in sorted(doc["options"], key=doc["options"][doc["answer"]].__ne__)
    )
    stories[lang] = (task.doc_to_text(doc), right, wrong)
figure, strongest = heatmap(stories)
figures.show(figure, alt=f"Stories with tokens coloured by relevance. Strongest: {strongest}.")

# %% tags=["hide-input"]
Markdown(f"Strongest tokens, in logits: {strongest}.")

# %% [markdown]
# Look at the rank in the headings before you read anything into the colours. A heatmap explains the
# logit of the word that we asked about, whether or not the model would have said that word.
#
# ## From tokens to neurons
#
# Relevance passes the MLPs' neurons on its way to the input, and there CRANE reads it: activation
# × gradient of each of the units that `down_proj` reads, added up over the tokens of a text. One
# text gives one number per neuron. Here is one window in one language, by layer.

# %%
sample = windows[languages[0]][:1]
relevance = neuron_relevance(net, sample, objective=objective)[0]
output = objective_values(net, sample, objective=objective).item()
ordered = relevance.abs().sort(dim=1, descending=True).values
covered = (ordered.cumsum(1) / ordered.sum(1, keepdim=True)).numpy()
by_layer = pd.DataFrame(
    {
        "layer": range(len(relevance)),
        "sum": relevance.sum(1).numpy(),
        "positive": relevance.clamp(min=0).sum(1).numpy(),
        "negative": relevance.clamp(max=0).sum(1).numpy(),
        "sum / output": relevance.sum(1).numpy() / output,
        "neurons for half of |R|": (covered < 0.5).sum(1) + 1,
    }
)
figures.table(
    by_layer,
    f"Relevance of the {relevance.shape[1]:,} neurons of each layer for one window "
    f"({languages[0]}, output {output:.1f}).",
    dict.fromkeys(("sum", "positive", "negative", "sum / output"), "{:.2f}"),
)

# %%
figures.show(
    figures.curves(
        {
            f"layer {layer}": (np.arange(1, len(line) + 1), line)
            for layer, line in enumerate(covered)
        },
        xlabel="neurons of the layer, largest |relevance| first",
        ylabel="share of the layer's |relevance|",
        level=0.5,
        level_label="half",
    ),
    alt="Cumulative share of absolute relevance against number of neurons, one curve per layer. "
    "Half is reached with "
    + ", ".join(
        f"{int(n)} neurons in layer {layer}"
        for layer, n in enumerate(by_layer["neurons for half of |R|"])
    )
    + ".",
)

# %% [markdown]
# The layers' sums do not add up to the output, nor should they: relevance that reaches the
# residual stream goes on to earlier layers *and* into this layer's MLP. Each layer's sum is the
# part of the output that passes through its MLP.
#
# ### Two readings of "neuron"
#
# §3.1 of the paper calls each column of the linear projections a neuron; earlier work means a
# unit of the intermediate layer ([the choice](choice-neuron)). The library scores both: site
# `intermediate`, and site `projections` with the outputs of `gate_proj`, `up_proj` and
# `down_proj`. How different are they? The rules let us predict it. The uniform rule gives half of
# unit $i$'s relevance to its gate and half to its up value, and the identity rule passes the
# gate's half through SiLU unchanged. So gate and up outputs must have *half the intermediate
# unit's relevance each*, and, since kurtosis ignores scale, the same kurtosis.

# %%
streams = {}
apart = 0.0
for ids in windows[languages[0]].split(batch_size):
    found = {
        "intermediate": neuron_relevance(net, ids, objective=objective),
        **neuron_relevance(net, ids, objective=objective, site="projections"),
    }
    largest = found["intermediate"].abs().max()
    for name in ("gate", "up"):
        apart = max(apart, ((found[name] - found["intermediate"] / 2).abs().max() / largest).item())
    for name, values in found.items():
        streams.setdefault(name, StreamingMoments(values.shape[1:])).update(values)
kurtosis = {name: stream.kurtosis() for name, stream in streams.items()}

# %%
rows = []
for name, values in kurtosis.items():
    same = values.shape == kurtosis["intermediate"].shape
    difference = (values / kurtosis["intermediate"] - 1).abs() if same else torch.tensor(torch.nan)
    rows.append(
        {
            "site": name,
            "units": values.numel(),
            "median kurtosis": values.nanmedian().item(),
            "largest difference to intermediate": np.nanmax(difference.numpy()) if same else np.nan,
        }
    )
figures.table(
    pd.DataFrame(rows),
    f"Kurtosis of relevance at each site over {n_checked} windows ({languages[0]}); relative "
    "differences, unit by unit.",
    {"median kurtosis": "{:.2f}", "largest difference to intermediate": "{:.1e}"},
)

# %% tags=["hide-input"]
Markdown(
    "Relevance of gate and up outputs differs from half the intermediate unit's by at most "
    f"{apart:.1e} of the largest value"
    + (
        ": the prediction holds, to rounding. Both readings rank these units alike, and masking "
        "output *i* of the gate, output *i* of the up projection or unit *i* is one and the same "
        "intervention (SiLU(0) = 0). What `projections` adds are the outputs of `down_proj`: "
        "other units, namely dimensions that the MLP writes into the residual stream."
        if apart < 1e-4
        else ": **the prediction does not hold** for this model, so the sites differ by more than "
        "scale."
    )
)

# %% [markdown]
# ### What the rules change
#
# Is all this needed, or would the plain gradient do? For every window and layer, the correlation
# over the layer's neurons between relevance under AttnLRP and under the plain gradient; and,
# since CRANE goes on with kurtosis, the rank correlation between the neurons' kurtosis under the
# one and under the other.


# %%
def correlation(a, b):
    """Pearson correlation along the last dimension."""
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))


agreement, kurtosis_under = {}, {}
for lang in languages:
    found = []
    streams = {rule: StreamingMoments(relevance.shape) for rule in attribution.RULES}
    for ids in windows[lang].split(batch_size):
        scores = {
            rule: neuron_relevance(net, ids, objective=objective, rules=rule)
            for rule in attribution.RULES
        }
        found.append(correlation(*scores.values()))
        for rule, values in scores.items():
            streams[rule].update(values)
    agreement[lang] = torch.cat(found)
    kurtosis_under[lang] = [streams[rule].kurtosis() for rule in attribution.RULES]

# %%
rows = []
for layer in range(len(relevance)):
    row = {"layer": layer}
    for lang in languages:
        a, b = (values[layer].numpy() for values in kurtosis_under[lang])
        row[f"relevance, {lang}"] = spread(agreement[lang][:, layer], ".2f")
        row[f"kurtosis, {lang}"] = spearmanr(a, b, nan_policy="omit").statistic
    rows.append(row)
rules_table = pd.DataFrame(rows)
write_table(rules_table, results / "attnlrp_against_gradient.csv")
figures.table(
    rules_table,
    "AttnLRP against the plain gradient, over the neurons of a layer. Relevance: Pearson's r, "
    f"median and middle 90 % over {n_checked} windows. Kurtosis: Spearman's rank correlation.",
    {f"kurtosis, {lang}": "{:.2f}" for lang in languages},
)

# %% tags=["hide-input"]
medians = torch.stack([agreement[lang].nanmedian(0).values for lang in languages])
ranks = [row[f"kurtosis, {lang}"] for row in rows for lang in languages]
Markdown(
    f"The layers' median correlations of relevance go from {medians.min():.2f} to "
    f"{medians.max():.2f}, the rank "
    f"correlations of kurtosis from {min(ranks):.2f} to {max(ranks):.2f}. "
    + (
        "The rules do not just rescale: which neurons come out on top depends on them."
        if min(ranks) < 0.9
        else "On this model the rules change the order of neurons little."
    )
)

# %% [markdown]
# ### What is being explained
#
# The paper speaks of a language-conditioned objective and gives no formula. The library has three
# ([the choice](choice-objective)): the sum of the true next tokens' logits (`next_token`, the
# default), the sum of their log-probabilities, and the largest logit at the last position. How
# much does the choice matter for one window?

# %%
sample_of = {
    name: neuron_relevance(net, sample, objective=name)[0] for name in attribution.OBJECTIVES
}
rows = []
for name, values in sample_of.items():
    top = set(values.flatten().abs().topk(20).indices.tolist())
    default = set(sample_of["next_token"].flatten().abs().topk(20).indices.tolist())
    rows.append(
        {
            "objective": name,
            "value explained": objective_values(net, sample, objective=name).item(),
            "sum over all neurons": values.sum().item(),
            "correlation with next_token": correlation(
                values.flatten(), sample_of["next_token"].flatten()
            ).item(),
            "shared among the 20 largest": len(top & default),
        }
    )
figures.table(
    pd.DataFrame(rows),
    f"Neuron relevance of one window ({languages[0]}) under the three objectives; "
    f"{relevance.numel():,} neurons.",
    {
        "value explained": "{:.2f}",
        "sum over all neurons": "{:.2f}",
        "correlation with next_token": "{:.2f}",
    },
)

# %% tags=["hide-input"]
alike = {
    name: correlation(values.flatten(), sample_of["next_token"].flatten()).item()
    for name, values in sample_of.items()
    if name != "next_token"
}
Markdown(
    "With the default's, relevance correlates at "
    + " and ".join(f"{value:.2f} (`{name}`)" for name, value in alike.items())
    + " over this window's neurons. "
    + (
        "So the objective is no detail: it decides which neurons look important."
        if min(alike.values()) < 0.7
        else "For this window the objectives largely agree."
    )
    + " One window settles nothing; the objective is a parameter of every notebook that uses it."
)

# %%
heat = {}
for name in attribution.OBJECTIVES:
    values = token_relevance(net, sample, objective=name)[0]
    heat[name] = figures.readable_tokens(tokenizer, sample[0], values)
figures.show(
    figures.token_heatmap(heat, width=6.6),
    alt="The same window three times, coloured by token relevance under each objective. Strongest: "
    + ", ".join(
        f"{name} {pieces[int(np.abs(values).argmax())].strip()!r}"
        for name, (pieces, values) in heat.items()
    )
    + ".",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} Another input
# :label: exercise-by-hand
# ```
# In the two-layer network above, take $x = (2, 1)$. Compute the output and the relevance of all
# units by hand. Which input speaks against the output?
# ```{exercise-end}
# ```
#
# ```{solution-start} exercise-by-hand
# :class: dropdown
# ```
# Hidden units: $2 + 1 = 3$; $4 - 2 = 2$; $-2 + 1 = -1$, so $0$ after ReLU. Output: $6 + 6 + 0 =
# 12$. $R_h = (6, 6, 0)$. The first $6$ is split $2 : 1$ into $4$ and $2$. The second $6$ belongs
# to $2 = 4 - 2$ and is split into $12$ and $-6$. So $R_x = (16, -4)$, with the sum $12$. The
# second input speaks against the output.

# %%
x = torch.tensor([2.0, 1.0])
h = torch.relu(W @ x)
y = v @ h
R_h = pass_back(v, h, y).sum(0)
print("hidden:", R_h.tolist(), " input:", pass_back(W, x, R_h).sum(0).tolist())

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} A bias
# :label: exercise-bias
# ```
# Give the first hidden unit a bias of 1, so that with $x = (1, 2)$ it is 4. Treat the bias as one
# more summand. What do the inputs receive, and what has become of conservation?
# ```{exercise-end}
# ```
#
# ```{solution-start} exercise-bias
# :class: dropdown
# ```
# The output is now $8 - 1 = 7$ and $R_{h_1} = 8$, split over $1 + 2 + 1$ into $2$ for $x_1$, $4$
# for $x_2$ and $2$ for the bias. With $h_3$'s part as before the inputs receive $3$ and $2$, as
# without the bias. Their sum is $5$, not $7$: the bias keeps $2$. Conservation holds if the bias
# is counted as an input of its own. Llama has no biases; in models that have some, part of the
# relevance ends there.
# ```{solution-end}
# ```
#
# ```{exercise-start} Relevance is not removal
# :label: exercise-removal
# ```
# A neuron's relevance is its share of the output. Is it also what the output loses when the
# neuron is masked? Take the ten neurons with the largest relevance (by absolute value) for our
# window, mask each of them alone with `masking.masked`, and compare.
# ```{exercise-end}
# ```
#
# ```{solution-start} exercise-removal
# :class: dropdown
# ```

# %%
shape = models.shape(net)
width = relevance.shape[1]
rows = []
for index in relevance.flatten().abs().topk(10).indices.tolist():
    pair = divmod(index, width)
    with masking.masked(net, NeuronSet.from_pairs([pair], shape)):
        left = objective_values(net, sample, objective=objective).item()
    rows.append((*pair, relevance[pair].item(), output - left))
removal = pd.DataFrame(rows, columns=["layer", "neuron", "relevance", "lost when masked"])
figures.table(
    removal,
    f"One window ({languages[0]}): a neuron's share of the output, and what the output loses "
    "without it.",
    {"relevance": "{:+.2f}", "lost when masked": "{:+.2f}"},
)

# %% tags=["hide-input"]
signs = int((np.sign(removal["relevance"]) == np.sign(removal["lost when masked"])).sum())
together = np.corrcoef(removal["relevance"], removal["lost when masked"])[0, 1]
Markdown(
    f"Correlation over these neurons {together:.2f}; the sign agrees for {signs} of "
    f"{len(removal)}. Relevance hands out the output as it is, with all other neurons at work. "
    "Removal asks what the *rest* does without the neuron: norms rescale, attention looks "
    "elsewhere, later layers make up for it or derail. The two are different questions, and this "
    "is why CRANE uses relevance to *propose* neurons and masking to decide."
)

# %% [markdown]
# ```{solution-end}
# ```
#
# ## What the numbers do and do not show
#
# - The conservation table checks the implementation on this model and these texts: whether the
#   steps that should conserve relevance do so. The end-to-end ratio says what softmax does to the
#   sum.
# - Relevance is *a* way to share out a prediction. Its rules are conventions, sensible ones;
#   other rules give other shares, and no experiment here says which are right.
# - A heatmap of one sentence is an illustration. We took the first item of its kind and did not
#   look for pretty ones, but three sentences are three sentences.
# - A large share is not proof that a neuron is needed (see the last exercise), and nothing in
#   this notebook is about *languages* yet: we have one number per neuron and text.
#
# Next: [from relevance to kurtosis](02_kurtosis), where many texts turn these numbers into a
# score per neuron and language.
