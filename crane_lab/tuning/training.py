"""Training of adapters and of a head, as the LSN paper does it, in a few lines of torch.

Weight decay, clipping, warm-up, linear decay and AdamW's momenta are the paper's and its code's;
rates, ranks and numbers of items are parameters, since a model of two million parameters and one of
eight billion want others.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from crane_core.families import padded_inputs
from crane_core.neurons import NeuronSet
from crane_lab.memory import out_of_memory
from crane_lab.tuning.lora import low_rank

#: Target of a token that is not to be learned.
_IGNORED = -100


@dataclass(frozen=True)
class TuningRecipe:
    """Everything that fine-tuning depends on beside model, neurons and items.

    `seed`: of first values and of the items' order; `items`: how many of the training part's are
    used, `batch` at a time, `epochs` times over; `learning_rate`, `weight_decay`, `betas`: AdamW's;
    `rank`, `alpha`: LoRA's; `clip`: the longest gradient; `warmup`: the share of steps on which the
    rate rises; `parts`: one of `lora.PARTS`.

    Raises ValueError for numbers that nothing can be trained with.
    """

    seed: int = 0
    items: int = 1500
    epochs: int = 2
    batch: int = 8
    learning_rate: float = 2e-3
    rank: int = 8
    alpha: int = 16
    weight_decay: float = 0.1
    clip: float = 10.0
    warmup: float = 0.01
    betas: tuple[float, float] = (0.95, 0.999)
    parts: str = "neuron"

    def __post_init__(self) -> None:
        for name in ("items", "epochs", "batch", "rank", "alpha", "learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: expected more than 0")
        for name in ("items", "epochs", "batch", "rank"):
            if not isinstance(getattr(self, name), Integral):
                raise ValueError(f"{name} is {getattr(self, name)}: expected a whole number")
        if not math.isfinite(self.learning_rate):
            raise ValueError(f"learning_rate is {self.learning_rate}: expected a finite number")
        if not (self.weight_decay >= 0 and all(0 <= beta < 1 for beta in self.betas)):
            raise ValueError(
                f"weight_decay is {self.weight_decay} and betas are {self.betas}: expected 0 or "
                "more, and numbers from 0 to below 1"
            )
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup is {self.warmup}: expected a share of steps, 0 to 1")


def padded(rows: Sequence[Sequence[int]], pad: int = 0) -> tuple[Tensor, Tensor]:
    """Ids, (rows, tokens), padded on the right, and the mask of the real ones."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *([pad] * (width - len(row)))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask


def last_states(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> Tensor:
    """Hidden states at each text's last *real* token, (rows, hidden).

    The paper's code takes the last position, which is a pad in all but the longest text of a batch.
    """
    ids, mask = (part.to(model.device) for part in padded(rows))
    states = model.base_model(**padded_inputs(ids, mask)).last_hidden_state
    last = mask.sum(1) - 1
    return states[torch.arange(len(rows), device=states.device), last].float()


def tune_classifier(
    model: PreTrainedModel,
    texts: Sequence[Sequence[int]],
    labels: Sequence[int],
    neurons: NeuronSet | None,
    recipe: TuningRecipe,
) -> nn.Linear:
    """Train a linear head on the last real token, and with it the model's adapters.

    Returns the head; what the adapters learned is in the model's weights (`lora.low_rank`).

    Raises ValueError if texts and labels are not as many, or there are none.
    """
    _require_some(len(texts))
    if len(texts) != len(labels):
        raise ValueError(f"{len(texts)} texts and {len(labels)} labels: expected one for each")
    generator = torch.Generator().manual_seed(recipe.seed)
    hidden = model.config.get_text_config().hidden_size
    head = nn.Linear(hidden, max(labels) + 1)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) / hidden**0.5)
        head.bias.zero_()
    head.to(model.device)
    wanted = torch.tensor(labels, device=model.device)

    def loss(batch: list[int]) -> Tensor:
        return F.cross_entropy(head(last_states(model, [texts[i] for i in batch])), wanted[batch])

    with low_rank(
        model, neurons, recipe.rank, recipe.alpha, recipe.seed, recipe.parts
    ) as parameters:
        _train(model, [*parameters, *head.parameters()], len(texts), loss, recipe)
    return head.requires_grad_(False)


def tune_generator(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    neurons: NeuronSet | None,
    recipe: TuningRecipe,
) -> None:
    """Train the model's adapters to go on from each prompt with its answer.

    Raises ValueError if prompts and answers are not as many, or there are none.
    """
    _require_some(len(prompts))
    if len(prompts) != len(answers):
        raise ValueError(
            f"{len(prompts)} prompts and {len(answers)} answers: expected one for each"
        )
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]

    def loss(batch: list[int]) -> Tensor:
        ids, mask = padded([rows[i] for i in batch])
        targets = torch.full_like(ids, _IGNORED)
        for place, i in enumerate(batch):
            answer = slice(len(prompts[i]), len(rows[i]))
            targets[place, answer] = ids[place, answer]
        states = model.base_model(
            **padded_inputs(ids.to(model.device), mask.to(model.device))
        ).last_hidden_state
        learned = (targets[:, 1:] != _IGNORED).to(model.device)
        logits = model.get_output_embeddings()(states[:, :-1][learned]).float()
        return F.cross_entropy(logits, targets[:, 1:].to(model.device)[learned])

    with low_rank(
        model, neurons, recipe.rank, recipe.alpha, recipe.seed, recipe.parts
    ) as parameters:
        _train(model, parameters, len(rows), loss, recipe)


def tune_text(
    model: PreTrainedModel, windows: Tensor, neurons: NeuronSet | None, recipe: TuningRecipe
) -> None:
    """Train neurons' weights, and no others, to go on with text; `windows` are ids (n, tokens).

    Raises ValueError for no windows.
    """
    _require_some(len(windows))

    def loss(batch: list[int]) -> Tensor:
        ids = windows[batch].to(model.device)
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    with low_rank(
        model, neurons, recipe.rank, recipe.alpha, recipe.seed, recipe.parts, attention=False
    ) as parameters:
        _train(model, parameters, len(windows), loss, recipe)


def _require_some(n: int) -> None:
    if not n:
        raise ValueError("no items to train on: expected one or more")


def _train(
    model: PreTrainedModel,
    parameters: Sequence[nn.Parameter],
    n: int,
    loss: Callable[[list[int]], Tensor],
    recipe: TuningRecipe,
) -> None:
    """AdamW over shuffled batches of items, with warm-up and linear decay.

    Raises FloatingPointError for a loss that is no number, and MemoryError if a batch does not fit.
    """
    optimiser = torch.optim.AdamW(
        parameters,
        lr=recipe.learning_rate,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
    )
    batches = -(-n // recipe.batch)
    steps = batches * recipe.epochs
    warm = max(1, round(recipe.warmup * steps))
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    rng = random.Random(recipe.seed)
    for _ in range(recipe.epochs):
        order = list(range(n))
        rng.shuffle(order)
        for start in range(0, n, recipe.batch):
            optimiser.zero_grad(set_to_none=True)
            try:
                value = loss(order[start : start + recipe.batch])
                value.backward()
            except Exception as error:
                if out_of_memory(error):
                    raise MemoryError(
                        f"a batch of {recipe.batch} items does not fit into memory: lower batch"
                    ) from error
                raise
            if not value.isfinite():
                raise FloatingPointError(
                    f"the loss is {value.item()} in training: lower learning_rate "
                    f"({recipe.learning_rate:g})"
                )
            nn.utils.clip_grad_norm_(parameters, recipe.clip)
            optimiser.step()
            rate.step()
    if not all(parameter.isfinite().all() for parameter in parameters):
        raise FloatingPointError(
            f"weights are not finite: lower learning_rate ({recipe.learning_rate:g})"
        )
