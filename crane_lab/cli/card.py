"""The testbed's model card, with its figures read from the files beside it."""

import json
from importlib.resources import files
from pathlib import Path

import pandas as pd
from safetensors import safe_open

from crane_lab.study.gate import decline
from crane_lab.testbed.train import ChatRecipe, Recipe
from crane_lab.testbed.world import LANGUAGES, PEOPLE_PER_LANGUAGE, SHARES


def _markdown(table: pd.DataFrame) -> str:
    rows = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    rows += [list(map(str, row)) for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _verdicts(path: Path) -> str:
    return "\n".join(
        f"- {'passed' if v.holds else 'FAILED'}: {v.requirement} ({v.measured})"
        for v in pd.read_csv(path).itertuples()
    )


def card(folder: Path) -> str:
    """The card of the testbed in ``folder`` (Markdown).

    Raises FileNotFoundError if the model, the training log or the gate's files are missing.
    """
    config = json.loads((folder / "base" / "config.json").read_text(encoding="utf-8"))
    recipe = Recipe(**json.loads((folder / "recipe.json").read_text(encoding="utf-8")))
    log = pd.read_csv(folder / "training.csv")
    log["tokens (million)"] = (log["step"] * recipe.batch * recipe.length / 1e6).round(1)
    picked = log.iloc[sorted({*range(0, len(log), max(1, len(log) // 8)), len(log) - 1})]
    table = decline(pd.read_csv(folder / "gate.csv"))
    table["masked"] = table["fraction"].map("{:.0%}".format)
    table["cell"] = [
        f"{mean:.3f}" + (f" ± {width:.3f}" if count > 1 else "")
        for mean, width, count in zip(
            table["mean"], table["half_width"], table["count"], strict=True
        )
    ]
    wide = table.pivot(index="task", columns="masked", values="cell")
    wide = wide[list(dict.fromkeys(table["masked"]))].reset_index()
    unmasked = pd.read_csv(folder / "unmasked.csv")
    unmasked[["benchmark", "language"]] = unmasked["task"].str.rsplit("_", n=1, expand=True)
    by_relation = unmasked.pivot(index="relation", columns="language", values="mean")
    by_relation = by_relation.loc[list(dict.fromkeys(unmasked["relation"])), list(LANGUAGES)]
    by_relation.insert(0, "items", unmasked.groupby("relation")["count"].first())
    chat = ChatRecipe(**json.loads((folder / "recipe_chat.json").read_text(encoding="utf-8")))
    chat_log = pd.read_csv(folder / "training_chat.csv")
    unmasked_chat = pd.read_csv(folder / "chat_gate.csv").round(3)
    with safe_open(folder / "base" / "model.safetensors", framework="pt") as file:
        parameters = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    text = files(__package__).joinpath("card.md").read_text(encoding="utf-8")
    return text.format(
        parameters=parameters / 1e6,
        layers=config["num_hidden_layers"],
        neurons=config["intermediate_size"],
        hidden=config["hidden_size"],
        heads=config["num_attention_heads"],
        vocabulary=config["vocab_size"],
        people=", ".join(f"{PEOPLE_PER_LANGUAGE[x]} ({x})" for x in LANGUAGES),
        shares=", ".join(f"{x} {SHARES[x]:.0%}" for x in LANGUAGES),
        seed=recipe.seed,
        tokens=recipe.tokens,
        length=recipe.length,
        batch=recipe.batch,
        learning_rate=recipe.learning_rate,
        decay=recipe.decay,
        losses=_markdown(picked[["tokens (million)", *LANGUAGES]]),
        decline=_markdown(wide),
        relations=_markdown(by_relation.round(2).reset_index()),
        verdicts=_verdicts(folder / "gate_verdicts.csv"),
        chat_tokens=chat.tokens,
        chat_rate=chat.learning_rate,
        replay=chat.replay,
        chat_loss=", ".join(f"{x} {chat_log.iloc[-1][x]:.3f}" for x in LANGUAGES),
        chat=_markdown(unmasked_chat),
        chat_verdicts=_verdicts(folder / "chat_gate_verdicts.csv"),
    )
