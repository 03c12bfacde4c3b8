"""Trains the testbed: corpus, tokenizer, model; resumes where it was stopped."""

import copy
import json
import random
import shutil
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from crane_lab.store.files import atomic_path, remove_leftovers
from crane_lab.testbed.chat import TEMPLATE, Talker
from crane_lab.testbed.text import Writer
from crane_lab.testbed.world import LANGUAGES, SHARES, build

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
Log = list[dict[str, float]]


@dataclass(frozen=True)
class Recipe:
    """Everything the trained weights depend on."""

    seed: int = 0
    vocabulary: int = 3072
    hidden: int = 192
    layers: int = 4
    neurons: int = 512
    heads: int = 6
    positions: int = 512
    length: int = 192
    batch: int = 24
    tokens: int = 15_000_000
    learning_rate: float = 6e-3
    warmup: int = 100
    decay: float = 0.63  # the last part of training, over which the rate falls to a tenth
    weight_decay: float = 0.1


@dataclass(frozen=True)
class ChatRecipe:
    """Everything that turns the base model's weights into the chat model's."""

    seed: int = 0
    length: int = 192
    batch: int = 24
    tokens: int = 2_000_000
    replay: float = 0.35  # share of the rows that are text of the kind the base was trained on
    learning_rate: float = 1e-3
    warmup: int = 20
    decay: float = 0.9
    weight_decay: float = 0.1


def train_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the mixture.

    Every Chinese character is a piece of its own before merging, as in Llama-2's vocabulary:
    without that, BPE turns whole Chinese phrases of a small world into single tokens.
    """
    texts = []
    for language in LANGUAGES:
        writer = Writer(
            build(language, recipe.seed), random.Random(f"tokenizer-{recipe.seed}-{language}")
        )
        texts += [writer.document() for _ in range(int(60_000 * SHARES[language]))]
    tokenizer = Tokenizer(models.BPE())
    pieces = Regex(r"\p{Han}| ?(?:(?!\p{Han})[\p{L}\p{M}])+(?:'[a-z]+)?| ?[^\s\p{L}\p{M}]|\s")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pieces, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=recipe.positions,
        clean_up_tokenization_spaces=False,
    )


def corpus_writer(language: str, recipe: Recipe) -> Writer:
    """The writer of one language's training text."""
    return Writer(build(language, recipe.seed), random.Random(f"corpus-{recipe.seed}-{language}"))


def _documents(
    writer: Writer, recipe: Recipe, tokenizer: PreTrainedTokenizerFast
) -> Iterator[list[int]]:
    """Endless tokenised documents, each closed by the end-of-text token."""
    eos = tokenizer.eos_token_id
    while True:
        texts = [writer.document() for _ in range(1000)]
        for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]:
            if len(ids) + 2 <= recipe.length:
                yield [*ids, eos]


def pack(
    documents: Iterator[list[int]], length: int, rows: int, bos: int, pad: int, bins: int = 24
) -> NDArray[np.int64]:
    """Rows of ``length`` tokens that open with BOS and hold whole documents.

    A document goes to the fullest open row that has room for it, so no document is cut and few
    positions are padding.
    """
    packed = np.full((rows, length), pad, dtype=np.int64)
    open_rows: list[list[int]] = [[bos] for _ in range(bins)]
    done = 0
    while done < rows:
        document = next(documents)
        room = [i for i, row in enumerate(open_rows) if len(row) + len(document) <= length]
        if not room:
            i = max(range(bins), key=lambda i: len(open_rows[i]))
            packed[done, : len(open_rows[i])] = open_rows[i]
            open_rows[i], done = [bos], done + 1
        else:
            i = max(room, key=lambda i: len(open_rows[i]))
        open_rows[i] += document
    return packed


@dataclass(frozen=True)
class TrainingCorpus:
    """Training rows ``(rows, length)``, the language index of each, and the writers, which know
    what they stated and wrote."""

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    writers: dict[str, Writer]


def build_corpus(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> TrainingCorpus:
    """The training text, tokenised and packed; fewer tokens give the beginning of it."""
    count = recipe.tokens // recipe.length
    labels = np.random.default_rng(recipe.seed).choice(
        len(LANGUAGES), size=count, p=[SHARES[language] for language in LANGUAGES]
    )
    rows = np.empty((count, recipe.length), dtype=np.int64)
    writers = {}
    for index, language in enumerate(LANGUAGES):
        writers[language] = corpus_writer(language, recipe)
        mine = labels == index
        rows[mine] = pack(
            _documents(writers[language], recipe, tokenizer),
            recipe.length,
            int(mine.sum()),
            tokenizer.bos_token_id,
            tokenizer.pad_token_id,
        )
    return TrainingCorpus(rows, labels, writers)


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained model."""
    torch.manual_seed(recipe.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden,
            intermediate_size=recipe.neurons,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            max_position_embeddings=recipe.positions,
            initializer_range=0.04,  # the usual 0.02 suits wider models
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _rate(step: int, steps: int, recipe: Recipe | ChatRecipe) -> float:
    """Warm up, hold, then fall linearly to a tenth."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    start = int(steps * (1 - recipe.decay))
    if step < start:
        return recipe.learning_rate
    return recipe.learning_rate * (1 - 0.9 * (step - start) / (steps - start))


def _optimizers(
    model: LlamaForCausalLM, recipe: Recipe | ChatRecipe
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms.

    With AdamW alone, models of this size needed more than twice the tokens to read and recall.
    """
    inside = [p for p in model.model.layers.parameters() if p.ndim == 2]
    taken = {id(p) for p in inside}
    outside = [p for p in model.parameters() if id(p) not in taken]
    return [
        torch.optim.Muon(
            inside,
            weight_decay=recipe.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(outside, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _states(
    optimizers: list[torch.optim.Optimizer],
) -> Iterator[tuple[str, torch.optim.Optimizer, torch.Tensor]]:
    """A name for every optimised parameter's state."""
    for i, optimizer in enumerate(optimizers):
        for j, parameter in enumerate(optimizer.param_groups[0]["params"]):
            yield f"optimizer.{i}.{j}.", optimizer, parameter


def _save_checkpoint(
    folder: Path,
    model: LlamaForCausalLM,
    optimizers: list[torch.optim.Optimizer],
    step: int,
    log: Log,
) -> None:
    tensors = {f"model.{k}": v for k, v in model.named_parameters()}
    for prefix, optimizer, parameter in _states(optimizers):
        tensors |= {prefix + name: value for name, value in optimizer.state[parameter].items()}
    with atomic_path(folder / "checkpoint.safetensors") as part:
        save_file(
            {k: v.detach().contiguous() for k, v in tensors.items()},
            part,
            # One entry only: safetensors writes several in any order.
            metadata={"state": json.dumps({"step": step, "log": log})},
        )


def _load_checkpoint(
    folder: Path, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer]
) -> tuple[int, Log]:
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return 0, []
    with safe_open(path, framework="pt") as file:
        state = json.loads(file.metadata()["state"])
    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
    for prefix, optimizer, parameter in _states(optimizers):
        optimizer.state[parameter] = {
            name.removeprefix(prefix): value
            for name, value in tensors.items()
            if name.startswith(prefix)
        }
    return int(state["step"]), state["log"]


@dataclass(frozen=True)
class Trained:
    """The model with its tokenizer, the corpus, and the training loss (nats per token) of each
    language, averaged between lines of the log."""

    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerFast
    corpus: TrainingCorpus
    log: Log


def _open(folder: Path, recipe: Recipe | ChatRecipe) -> None:
    """Make `folder` the place of this recipe's checkpoints; those of another are discarded."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = folder / "recipe.json"
    if stamp.exists() and json.loads(stamp.read_text()) != asdict(recipe):
        shutil.rmtree(folder)
        folder.mkdir(parents=True)
    remove_leftovers(folder)
    stamp.write_text(json.dumps(asdict(recipe), indent=1))


def train(recipe: Recipe, folder: Path, every: int = 100) -> Trained:
    """Train the testbed; ``folder`` keeps the checkpoint that a stopped run resumes from.

    ``every`` is the number of steps between checkpoints and lines of the log. A checkpoint of
    another recipe is discarded.
    """
    _open(folder, recipe)
    tokenizer = train_tokenizer(recipe)
    corpus = build_corpus(recipe, tokenizer)
    model = new_model(recipe, tokenizer)
    targets = np.where(corpus.rows == tokenizer.pad_token_id, -100, corpus.rows)
    log = _fit(model, recipe, corpus.rows, targets, corpus.labels, folder, every)
    return Trained(model, tokenizer, corpus, log)


def tune(
    base: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    recipe: ChatRecipe,
    folder: Path,
    avoid: Collection[str] = (),
    every: int = 50,
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast, Log]:
    """Train ``base`` (which is changed) on conversations; ``folder`` and ``every`` as in `train`.

    The loss is that of the assistant's words; rows of the base's own training text, mixed in so
    that the model forgets less, count whole. No conversation has a line that is in ``avoid``.
    Returns the model, a tokenizer with the chat template, and the log.
    """
    _open(folder, recipe)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = TEMPLATE
    rows, targets, labels = _chat_rows(recipe, tokenizer, avoid)
    log = _fit(base, recipe, rows, targets, labels, folder, every)
    return base, tokenizer, log


def _conversations(talker: Talker, tokenizer: PreTrainedTokenizerFast) -> Iterator[list[int]]:
    """Endless tokenised conversations; a token that is not to be learned is stored as ~token."""
    for turns in talker.conversations():
        messages = []
        for user, assistant in turns:
            messages += [
                {"role": "user", "content": user},
                {"role": "assistant", "content": assistant},
            ]
        ids: list[int] = []
        for end in range(1, len(messages) + 1):
            part = tokenizer.apply_chat_template(messages[:end], return_dict=False)[1:]  # no BOS
            ids += part[len(ids) :] if end % 2 == 0 else [~token for token in part[len(ids) :]]
        yield ids


def _chat_rows(
    recipe: ChatRecipe, tokenizer: PreTrainedTokenizerFast, avoid: Collection[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows, what is to be predicted of them (-100: nothing), and each row's language index."""
    count = recipe.tokens // recipe.length
    rng = np.random.default_rng(recipe.seed)
    labels = rng.choice(len(LANGUAGES), size=count, p=[SHARES[x] for x in LANGUAGES])
    replayed = rng.random(count) < recipe.replay
    rows = np.empty((count, recipe.length), dtype=np.int64)
    for index, language in enumerate(LANGUAGES):
        drawn = random.Random(f"chat-{recipe.seed}-{language}")
        talker = Talker(Writer(build(language, recipe.seed), drawn), avoid)
        base = Recipe(seed=recipe.seed)
        sources = (
            _conversations(talker, tokenizer),
            _documents(corpus_writer(language, base), base, tokenizer),
        )
        for replay, source in enumerate(sources):
            mine = (labels == index) & (replayed == replay)
            rows[mine] = pack(
                (x for x in source if len(x) + 1 <= recipe.length),
                recipe.length,
                int(mine.sum()),
                tokenizer.bos_token_id,
                tokenizer.pad_token_id,
            )
    unlearned = (rows < 0) | (rows == tokenizer.pad_token_id)
    rows = np.where(rows < 0, ~rows, rows)
    return rows, np.where(unlearned, -100, rows), labels


def _fit(
    model: LlamaForCausalLM,
    recipe: Recipe | ChatRecipe,
    rows: NDArray[np.int64],
    targets: NDArray[np.int64],
    labels: NDArray[np.int64],
    folder: Path,
    every: int,
) -> Log:
    """Train on the rows in their order, from the checkpoint in ``folder`` on; returns the log."""
    model.train()
    optimizers = _optimizers(model, recipe)
    steps = len(rows) // recipe.batch
    step, log = _load_checkpoint(folder, model, optimizers)
    # Since the last line of the log, per language: summed loss and tokens.
    window = np.zeros((2, len(LANGUAGES)))
    with tqdm(total=steps, initial=step, desc="training the testbed", unit="step") as bar:
        while step < steps:
            chosen = slice(step * recipe.batch, (step + 1) * recipe.batch)
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = _rate(step, steps, recipe)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(input_ids=torch.from_numpy(rows[chosen]), use_cache=False).logits
            wanted = torch.from_numpy(targets[chosen])[:, 1:]
            losses = torch.nn.functional.cross_entropy(
                logits[:, :-1].float().transpose(1, 2), wanted, reduction="none"
            )
            real = wanted != -100
            loss = losses.sum() / real.sum()
            model.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
            step += 1
            bar.update()
            for i in range(len(LANGUAGES)):
                mine = torch.from_numpy(labels[chosen] == i)
                window[0, i] += losses.detach()[mine].sum().item()
                window[1, i] += real[mine].sum().item()
            if step % every == 0 or step == steps:
                means = window[0] / np.maximum(window[1], 1)
                log.append(
                    {"step": step, **dict(zip(LANGUAGES, means.round(4).tolist(), strict=True))}
                )
                window[:] = 0
                bar.set_postfix(log[-1], refresh=False)
                _save_checkpoint(folder, model, optimizers, step, log)
    model.eval()
    return log
