"""``python -m crane_lab.testbed``: trains the testbed and writes ``data/testbed``."""

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from crane_core.models import load, write_checksums
from crane_lab.cli.card import card
from crane_lab.engines.multiple_choice import prepare
from crane_lab.engines.tasks import load_tasks
from crane_lab.pipeline import TABLES, Pipeline
from crane_lab.settings import Settings
from crane_lab.store import Store, atomic_path
from crane_lab.store.files import write_text
from crane_lab.study import gate
from crane_lab.testbed import chat, tasks
from crane_lab.testbed.train import ChatRecipe, Recipe, Trained, train, tune
from crane_lab.testbed.world import LANGUAGES, build
from crane_lab.texts.local import read_texts

# Characters of held-out text per language: some 200,000 tokens for attribution (3,000 windows of
# 64), 40,000 for perplexity. A Chinese token is about one character, the others about four.
_CHARACTERS = {"en": 4.6, "zh": 1.15, "vi": 4.2}
_HELD_OUT = {"attribution": 200_000, "perplexity": 40_000}


def _save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    with atomic_path(folder) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        write_checksums(part)
        shutil.rmtree(folder, ignore_errors=True)


def write_texts(trained: Trained, out: Path, seed: int) -> None:
    """The benchmark items and the held-out text that go with a trained testbed."""
    for language in LANGUAGES:
        world, writer = build(language, seed), trained.corpus.writers[language]
        knowledge = tasks.knowledge_items(world, writer.stated, seed)
        reading = tasks.reading_items(world, seed, writer.written)
        write_text(out / "tasks" / f"knowledge_{language}.jsonl", tasks.dump(knowledge))
        write_text(out / "tasks" / f"reading_{language}.jsonl", tasks.dump(reading))
        for name, tokens in _HELD_OUT.items():
            characters = int(tokens * _CHARACTERS[language])
            texts = tasks.held_out_texts(world, name, characters, seed, writer.written)
            write_text(out / "corpus" / name / f"{language}.txt", "\n".join(texts) + "\n")


def train_base(out: Path, work: Path, recipe: Recipe) -> None:
    """Train the base model and write it to `out`, with its texts, recipe and training log."""
    trained = train(recipe, work)
    _save_model(trained.model, trained.tokenizer, out / "base")
    write_texts(trained, out, recipe.seed)
    write_text(out / "recipe.json", json.dumps(asdict(recipe), indent=1) + "\n")
    write_text(out / "training.csv", pd.DataFrame(trained.log).to_csv(index=False))


def train_chat(out: Path, questions: Path, work: Path, recipe: ChatRecipe) -> None:
    """Train the chat model from the base model in `out`; also writes the open-ended questions."""
    avoid: set[str] = set()
    for language in LANGUAGES:
        asked = chat.questions(build(language, recipe.seed), recipe.seed)
        write_text(questions / f"{language}.txt", "\n".join(asked) + "\n")
        avoid.update(asked)
        for name in _HELD_OUT:
            avoid.update(read_texts(out / "corpus" / name, language))
        items = (out / "tasks" / f"reading_{language}.jsonl").read_text(encoding="utf-8")
        avoid.update(json.loads(line)["passage"] for line in items.splitlines())
    model, tokenizer, log = tune(*load(out / "base"), recipe, work, avoid)
    _save_model(model, tokenizer, out / "chat")
    write_text(out / "recipe_chat.json", json.dumps(asdict(recipe), indent=1) + "\n")
    write_text(out / "training_chat.csv", pd.DataFrame(log).to_csv(index=False))


def run_gate(out: Path) -> bool:
    """Measure the gate on the model in ``out``, write its files, and print the verdicts."""
    model, tokenizer = load(out / "base")
    prepared = prepare(model, tokenizer, load_tasks(folder=out / "tasks"))
    curve, items = gate.measure_gate(model, prepared)
    verdicts = gate.judge(curve, items)
    by_relation = items.groupby(["task", "relation"], sort=False)["correct"].agg(["mean", "count"])
    write_text(
        out / "unmasked.csv", by_relation.reset_index().to_csv(index=False, float_format="%.6f")
    )
    write_text(out / "gate.csv", curve.to_csv(index=False, float_format="%.6f"))
    write_text(
        out / "gate_verdicts.csv",
        pd.DataFrame([asdict(v) for v in verdicts]).to_csv(index=False),
    )
    return _passed(verdicts)


def run_chat_gate(out: Path, questions: Path) -> bool:
    """The same for the chat model in `out`, with the base model beside it; both unmasked."""
    with tempfile.TemporaryDirectory() as store:
        settings = Settings(
            model=str(out / "base"),
            tasks=str(out / "tasks"),
            corpus=str(out / "corpus" / "attribution"),
            perplexity_corpus=str(out / "corpus" / "perplexity"),
            questions=str(questions),
        )
        base = Pipeline(settings, Store(store))
        columns: dict[str, pd.Series] = {}
        chat_model = base.on_chat(str(out / "chat"), tuple(TABLES))
        for name, pipeline in (("base", base), ("chat", chat_model)):
            items = pipeline.items().assign(score=lambda items: items["correct"].astype(float))
            both = pd.concat([items[["task", "score"]], pipeline.graded()[["task", "score"]]])
            found = both.groupby("task", sort=False)["score"].agg(["mean", "count"])
            columns |= {"n": found["count"], name: found["mean"]}
    unmasked = pd.DataFrame(columns).rename_axis("measure").reset_index()
    verdicts = gate.judge_chat(unmasked)
    write_text(out / "chat_gate.csv", unmasked.to_csv(index=False, float_format="%.6f"))
    write_text(
        out / "chat_gate_verdicts.csv",
        pd.DataFrame([asdict(v) for v in verdicts]).to_csv(index=False),
    )
    return _passed(verdicts)


def _passed(verdicts: list[gate.GateLine]) -> bool:
    for verdict in verdicts:
        print(f"{'pass' if verdict.holds else 'FAIL'}  {verdict.requirement}: {verdict.measured}")
    return all(verdict.holds for verdict in verdicts)


def main(arguments: list[str] | None = None) -> int:
    """Train (or resume), write ``data/testbed`` and measure the gate."""
    parser = argparse.ArgumentParser(prog="python -m crane_lab.testbed", description=__doc__)
    parser.add_argument("command", choices=["train", "chat", "gate"])
    parser.add_argument("--out", type=Path, default=Path("data/testbed"))
    parser.add_argument("--questions", type=Path, default=Path("data/questions"))
    parser.add_argument("--work", type=Path, default=Path("runs/testbed-training"))
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--tokens", type=int, default=Recipe.tokens)
    options = parser.parse_args(arguments)
    if options.command == "train":
        train_base(options.out, options.work, Recipe(seed=options.seed, tokens=options.tokens))
    if options.command in ("train", "chat"):
        work = options.work.with_name(options.work.name + "-chat")
        train_chat(options.out, options.questions, work, ChatRecipe(seed=options.seed))
    passed = options.command == "chat" or run_gate(options.out)
    passed &= run_chat_gate(options.out, options.questions)
    write_text(options.out / "README.md", card(options.out))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
