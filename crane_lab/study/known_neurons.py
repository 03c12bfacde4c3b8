"""What is known of single neurons, as `show.neuron_view` shows it and as it is shipped.

A folder has `FILES`: numbers in half precision where a picture is drawn of them, and, as no
tokenizer may be at hand where they are read, the texts in pieces.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from scipy import stats
from torch import Tensor

from crane_core.neurons import NeuronSet
from crane_lab.store.files import write_text
from crane_lab.study.necessity import Necessity
from crane_lab.study.neuron_cards import DRAWN, FIRST, RANDOM_LIST, Cards, Lists

#: Arrays, and everything else.
FILES = ("neuron_cards.safetensors", "neuron_cards.json")
#: language -> window -> its text in pieces that can be read, and how many tokens each has.
Texts = Mapping[str, Mapping[int, tuple[Sequence[str], Sequence[int]]]]


@dataclass(frozen=True)
class KnownNeurons:
    """Some neurons: relevance, texts, kurtosis, single ablations, sets, and the lists they are on.

    Attributes
    ----------
    cards : relevance by window and token.
    texts : of all windows in `cards.tops`.
    kurtosis : language -> (k,), of all windows that sets are selected on.
    needed : language -> (k,), what setting each to zero alone adds to the loss, nats per token.
    reach : language -> (k,), half of its 95 % interval, over texts.
    inside : method -> language -> bool (k,), whether it is in the set.
    lists : what is looked up by, as places in the flattened (layers, neurons).
    """

    cards: Cards
    texts: Texts
    kurtosis: Mapping[str, Tensor]
    needed: Mapping[str, Tensor]
    reach: Mapping[str, Tensor]
    inside: Mapping[str, Mapping[str, Tensor]]
    lists: Lists

    def save(self, folder: str | Path, made: Mapping[str, Any]) -> None:
        """Write `FILES`; `made` says what they were made of."""
        folder, cards = Path(folder), self.cards
        arrays = {"neurons": cards.neurons, "size": torch.tensor(cards.size)}
        for x in cards.values:
            arrays |= {
                f"values {x}": cards.values[x].half(),
                f"tops {x}": cards.tops[x],
                f"tokens {x}": cards.tokens[x].half(),
                f"kurtosis {x}": self.kurtosis[x].float(),
                f"needed {x}": self.needed[x].float(),
                f"reach {x}": self.reach[x].float(),
            }
            arrays |= {f"in {method} {x}": own[x] for method, own in self.inside.items()}
        save_file({name: own.contiguous() for name, own in arrays.items()}, folder / FILES[0])
        known = {
            "languages": list(cards.values),
            "methods": list(self.inside),
            "lists": [[*name, list(own)] for name, own in self.lists.items()],
            "texts": {
                x: {str(window): [list(pieces), list(map(int, n))] for window, (pieces, n) in
                    own.items()}
                for x, own in self.texts.items()
            },
            "made": dict(made),
        }  # fmt: skip
        text = json.dumps(known, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        write_text(folder / FILES[1], text + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> KnownNeurons:
        """Read what `save` wrote. Raises FileNotFoundError if there is none."""
        arrays_file, file = (Path(folder) / name for name in FILES)
        if not file.is_file():
            raise FileNotFoundError(
                f"no {FILES[1]} in {folder}: expected single neurons; run python -m "
                "crane_lab.cli.real_model --cards"
            )
        known = json.loads(file.read_text(encoding="utf-8"))
        arrays = load_file(arrays_file)

        def by_language(name: str) -> dict[str, Tensor]:
            return {x: arrays[f"{name} {x}"] for x in known["languages"]}

        layers, width = arrays["size"].tolist()
        values, tokens = by_language("values"), by_language("tokens")
        cards = Cards(
            arrays["neurons"],
            (layers, width),
            {},
            {x: own.float() for x, own in values.items()},
            by_language("tops"),
            {x: own.float() for x, own in tokens.items()},
        )
        texts = {
            x: {int(window): (pieces, n) for window, (pieces, n) in own.items()}
            for x, own in known["texts"].items()
        }
        return cls(
            cards,
            texts,
            by_language("kurtosis"),
            by_language("needed"),
            by_language("reach"),
            {method: by_language(f"in {method}") for method in known["methods"]},
            {(what, x): own for what, x, own in known["lists"]},
        )


def known_of(
    cards: Cards,
    texts: Texts,
    kurtosis: Mapping[str, Tensor],
    necessity: Necessity,
    sets: Mapping[str, Mapping[str, NeuronSet]],
    lists: Lists,
) -> KnownNeurons:
    """Neurons of a model of which every neuron was ablated alone.

    `kurtosis`: language -> (layers, neurons); `sets`: method -> language -> set.
    """
    found = {x: necessity.necessity(x) for x in cards.values}
    times = float(stats.t.ppf(0.975, necessity.n_texts - 1))
    return KnownNeurons(
        cards,
        texts,
        {x: kurtosis[x].flatten()[cards.neurons] for x in cards.values},
        {x: own.value.flatten()[cards.neurons] for x, own in found.items()},
        {x: own.error.flatten()[cards.neurons] * times for x, own in found.items()},
        inside_of(cards, sets),
        lists,
    )


def inside_of(
    cards: Cards, sets: Mapping[str, Mapping[str, NeuronSet]]
) -> dict[str, dict[str, Tensor]]:
    """Which of the neurons are in each set: method -> language -> bool (k,)."""
    return {
        method: {x: of[x].mask("intermediate").flatten()[cards.neurons] for x in cards.values}
        for method, of in sets.items()
    }


def sampled_lists(
    effects: pd.DataFrame, orders: Mapping[str, Mapping[str, Tensor]], width: int
) -> dict[tuple[str, str], list[int]]:
    """`neuron_cards.neuron_lists` where some neurons alone were ablated.

    `effects`: `sampled.single_effects_table`; `orders`: what a list is called -> language -> places
    of all neurons, best first; `width`: neurons per layer.
    """
    places = effects["layer"] * width + effects["neuron"]
    there = set(places.tolist())
    languages = list(next(iter(orders.values())))
    found: dict[tuple[str, str], list[int]] = {}
    for x in languages:
        best = effects[f"zero_{x}"].sort_values(ascending=False, kind="stable").index[:FIRST]
        found["most needed", x] = places[best].tolist()
    for name, of in orders.items():
        for x in languages:
            own = [place for place in of[x].tolist() if place in there]
            found[f"first of {name}", x] = own[:FIRST]
    drawn = places[effects["random"].astype(bool)].tolist()
    return {**found, (RANDOM_LIST, ""): sorted(drawn[:: max(1, len(drawn) // DRAWN)][:DRAWN])}
