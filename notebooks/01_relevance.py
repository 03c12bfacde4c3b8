# %% [markdown]
# # Relevance: whose work was it?
#
# :::{admonition} At a glance
# :class: tip
#
# **You will be able to** hand a small network's output back to its inputs with pencil and paper;
# and say which rule AttnLRP uses for each part of a Transformer and which of them lose nothing on
# the way.
#
# **It assumes** that you know what a gradient is and have met [the testbed](00_meet_the_testbed).
#
# **It takes** half an hour to read with a pencil at hand; the computer needs half a minute.
#
# **It covers** §3.2 and Equation 1 of the paper {cite:p}`le2026crane`.
# :::
#
# CRANE starts from a question about one prediction: *which neurons did the work?* Relevance
# answers it with numbers that add up. The score of a predicted word is treated as a sum of money
# that is handed back through the network, layer by layer, to whoever contributed to it. What a
# neuron receives is its relevance, in the unit of the score.

# %% tags=["parameters", "hide-input"]
model = "data/testbed/base"  # checkpoint to examine: a folder, or a name on the hub
languages = ["en", "zh", "vi"]  # languages by code, in the order of all tables
window = 64  # tokens per window of text
objective = "next_token"  # what is explained: next_token, next_token_logprob or last_max
n_checked = 100  # windows per language on which relevance is checked
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %% tags=["hide-input"]
import dataclasses
from pathlib import Path

import torch
from IPython.display import display
from torch.nn import functional as F

from crane_core import attribution
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import exercises, figures, relevance_pages
from crane_lab.store import write_table
from crane_lab.study import relevance as study
from crane_lab.study.conservation import conservation, stream_shares

settings = Settings.of(globals())
settings = dataclasses.replace(settings, n_samples=n_checked)
pipeline = Pipeline(settings)
net = pipeline.model
windows, batch_size = pipeline.windows, settings.batch_size
results = Path(run_dir) / "results"

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
    """What each output hands to each input, (outputs, inputs)."""
    summands = weights * inputs
    total = summands.sum(1, keepdim=True)
    sign = torch.where(total < 0, -1.0, 1.0)  # of zero: positive
    shares = summands / (total + epsilon * sign)
    return shares * relevance[:, None]


h = torch.relu(W @ x)
y = v @ h
R_h = pass_back(v, h, relevance=y).sum(0)
R_x = pass_back(W, x, relevance=R_h).sum(0)
display(
    relevance_pages.network_figure(
        {"x": (x, R_x), "h": (h, R_h), "y": (y, y)},
        weights=[W, v],
    ),
    figures.folded(
        "Layer by layer, in numbers",
        relevance_pages.conserved_table(
            {"output": y, "hidden": R_h, "input": R_x},
        ),
    ),
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
output = (v @ hidden).sum()
gradient_h, gradient_x = torch.autograd.grad(output, [hidden, start])
print("hidden:", (hidden * gradient_h).tolist(), end="  ")
print("input:", (start * gradient_x).tolist())
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
found = {}
for epsilon in (0.0, 0.01, 0.1, 1.0):
    to_hidden = pass_back(v, h, y, epsilon).sum(0)
    found[epsilon] = pass_back(W, x, to_hidden, epsilon).sum(0)
relevance_pages.epsilon_table(found, y.item())

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

# %% tags=["hide-input"]
w_gate, w_up = torch.tensor([-1.0, 1.0]), torch.tensor([1.0, 1.0])
rules = attribution.lxt  # as released with AttnLRP, in the package lxt


def plain(x):
    """One gated unit."""
    return F.silu(w_gate @ x) * (w_up @ x)


def with_rules(x):
    """The same unit, but its gradient is not the mathematical one."""
    gate = rules.identity_rule_implicit(F.silu, w_gate @ x)
    return rules.divide_gradient(gate * (w_up @ x), 2)


found = {}
unit = {"plain gradient": plain, "with AttnLRP's rules": with_rules}
for name, forward in unit.items():
    start = x.clone().requires_grad_()
    z = forward(start)
    (gradient,) = torch.autograd.grad(z, start)
    found[name] = x * gradient
relevance_pages.gated_table(found, z.item())

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
measured = {r: conservation(net, few, r) for r in attribution.RULES}
steps = study.by_step(measured)
write_table(steps, results / "conservation.csv")
display(
    relevance_pages.steps_table(steps, len(few)),
    relevance_pages.steps_words(steps),
)

# %% [markdown]
# ### Where it is lost
#
# The relevance of the whole residual stream, at each point between the embeddings (0) and the last
# layer, relative to the sum of logits that is being explained. If every step conserved, all lines
# would lie at 1. The band of the figure below holds nine of ten windows.

# %%
shares = {x: stream_shares(net, windows[x][:16]) for x in languages}
relevance_pages.stream_figure(shares)

# %% [markdown]
# ### From end to end
#
# So relevance at the input need not add up to the output. How far off is it on real text? Below,
# the ratio of the two for the objective of this run ([what is explained](01b_words_and_neurons)),
# over held-out windows of each language, under AttnLRP's rules and under the plain gradient.

# %%
ratio = study.input_over_output(net, windows, objective, batch_size)
write_table(ratio, results / "relevance_ratio.csv")
display(
    relevance_pages.ratio_table(ratio, objective),
    relevance_pages.ratio_words(ratio),
)

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} Another input · easy, 10 minutes
# :label: exercise-by-hand
# ```
# In the two-layer network above, take $x = (2, 1)$. Compute the output and the relevance of all
# units by hand. Which input speaks against the output?

# %%
my_output = ...  # a number
my_hidden = ...  # the relevance of the three hidden units, as a list
my_inputs = ...  # the relevance of the two inputs, as a list

exercises.relevance_by_hand(my_output, my_hidden, my_inputs)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# Forwards first, and do not forget ReLU. Backwards, a hidden unit gets the summand that it puts
# into the output, and hands it on in the proportions of its own summands, signs included. At the
# end the inputs' relevances add up to the output.
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
R_x = pass_back(W, x, R_h).sum(0)
print("hidden:", R_h.tolist(), " input:", R_x.tolist())

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} A bias · medium, 10 minutes
# :label: exercise-bias
# ```
# Give the first hidden unit a bias of 1, so that with $x = (1, 2)$ it is 4. Treat the bias as one
# more summand. What do the inputs receive, and what has become of conservation?
# ```{exercise-end}
# ```
#
# ```{dropdown} Hint
# The bias is a third summand of the first hidden unit, beside what the two inputs bring. Share out
# the unit's relevance over all three, in proportion.
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

# %% [markdown]
# ## What the numbers do and do not show
#
# - The conservation table checks the implementation on this model and these texts: whether the
#   steps that should conserve relevance do so. The end-to-end ratio says what softmax does to the
#   sum.
# - Relevance is *a* way to share out a prediction. Its rules are conventions, sensible ones;
#   other rules give other shares, and no experiment here says which are right.
#
# Next: [relevance on the model](01b_words_and_neurons), where words and neurons receive it.
