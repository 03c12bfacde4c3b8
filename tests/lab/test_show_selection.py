"""Notebook 03's tables, figures and sentences, on made-up sets and outcomes."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from shown import frame_of
from transformers import AutoTokenizer

from crane_core.selection import NeuronSet
from crane_lab.show import selection_pages as pages
from crane_lab.store import ROOT
from crane_lab.study.effects import Continued

SHAPE = {"intermediate": (2, 50), "gate": (2, 50), "up": (2, 50), "down": (2, 10)}


def of(*pairs: tuple[int, int]) -> NeuronSet:
    return NeuronSet.from_pairs(pairs, SHAPE)


def several(layer: int, start: int, stop: int) -> NeuronSet:
    return of(*((layer, i) for i in range(start, stop)))


def test_rules_side_by_side() -> None:
    a, b = of((0, 0), (0, 1)), of((0, 1), (1, 5), (1, 6))
    table = pages.rule_table(
        {"contrast": {"en": a - b, "zh": b - a}, "top": {"en": a, "zh": b}}, 1.5
    )
    rows = frame_of(table).set_index("rule").to_dict("index")
    assert rows["contrast"] == {
        "en": 1, "zh": 2, "en share": 0.01, "zh share": 0.02, "in several sets": 0,
    }  # fmt: skip
    assert (rows["top"]["zh"], rows["top"]["in several sets"]) == (3, 1)
    html = table.to_html()
    assert "of 100; threshold 1.5" in html and "3.0%" in html


def test_where_neurons_lie() -> None:
    alt = pages.layers_figure({"en": of((0, 0), (0, 1), (1, 3))}, "contrast").data
    assert "en: [2, 1], 3 in all." in alt


def projection(same: bool) -> tuple[dict[str, NeuronSet], dict[str, NeuronSet]]:
    mask = torch.zeros(2, 50, dtype=torch.bool)
    mask[0, 3] = True
    down = torch.zeros(2, 10, dtype=torch.bool)
    down[1, :2] = True
    up = mask if same else mask.roll(1, 1)
    return (
        {"en": NeuronSet({"gate": mask, "up": up, "down": down}, SHAPE)},
        {"en": NeuronSet({"intermediate": mask}, SHAPE)},
    )


def test_projections_beside_intermediate_neurons() -> None:
    projections, sets = projection(same=True)
    table = pages.projections_table(projections, "contrast")
    assert frame_of(table)[["site", "selected", "share"]].values.tolist() == [
        ["gate", 1, 0.01], ["up", 1, 0.01], ["down", 2, 0.1],
    ]  # fmt: skip
    assert frame_of(table)["by layer"].tolist()[2] == "0,\u00a02"
    assert "are exactly" in pages.projections_words(projections, sets).data
    text = pages.projections_words(*projection(same=False)).data
    assert text.startswith("In 1 of 2 cases")


def test_sharing_against_chance() -> None:
    sets = {"en": several(0, 0, 20), "zh": several(0, 0, 20), "vi": several(0, 20, 40)}
    table = pages.shared_table(sets)
    first = frame_of(table).set_index("sets").loc["en, zh"]
    assert (first["sizes"], first["shared"], first["by chance"]) == ("20, 20", 20, 8.0)
    assert "against" not in frame_of(table)
    alt = pages.shared_figure(sets).data
    assert "en and zh share 20, where chance gives 8.0." in alt
    assert "en and vi share 0, where chance gives 8.0." in alt
    text = pages.shared_words(sets).data
    assert text.startswith("More than chance would give (p < 0.01) is shared by en and zh. ")
    assert "Less than chance (p < 0.01): en and vi, zh and vi." in text
    none = pages.shared_words({"en": several(0, 0, 5), "zh": several(0, 3, 8)}).data
    assert none == "No pair of languages shares more than chance would give (at p < 0.01). "


def test_lape_beside_crane() -> None:
    crane = {"en": several(0, 0, 20), "zh": several(1, 0, 3)}
    alike = {"en": several(0, 0, 20), "zh": several(0, 0, 3)}
    table = pages.lape_table({"LAPE matched": alike}, crane, "contrast")
    assert frame_of(table)[["method", "language", "LAPE", "CRANE", "shared"]].values.tolist() == [
        ["LAPE matched", "en", 20, 20, 20], ["LAPE matched", "zh", 3, 3, 0],
    ]  # fmt: skip
    text = pages.lape_words(alike, crane).data
    assert "20 of 20 neurons for `en` (chance: 8), 0 of 3 neurons for `zh` (chance: 0)" in text
    assert text.endswith("That is more than chance for en (p < 0.01). ")
    other = {"en": several(0, 20, 40), "zh": several(0, 0, 3)}
    text = pages.lape_words(other, crane).data
    assert "less than chance for en" in text and "are different things on this model" in text
    empty = {"en": NeuronSet.empty(SHAPE)}
    assert "different things" not in pages.lape_words(empty, empty).data


def test_a_sentence_under_masks() -> None:
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data" / "testbed" / "base")
    words = [tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in (" the", " of")]
    logits = [torch.full((len(tokenizer),), -20.0) for _ in range(3)]
    logits[0][words[0]] = 5.0
    logits[1][words[1]] = 5.0
    logits[2][words[0]] = 5.0
    found = {
        "en": [
            Continued(name, n, one, text)
            for name, n, one, text in zip(
                ("none", "en", "random"), (0, 4, 4), logits, (" a\nb", "c", "d\ufffd"), strict=True
            )
        ]
    }
    (table,) = pages.continued_tables(tokenizer, {"en": "The"}, found)
    frame = frame_of(table)
    label = tokenizer.decode([words[0]]).replace(" ", "␣")
    assert "en: “The …” under every mask" in table.to_html()
    assert frame["mask"].tolist() == ["none", "en", "random"]
    assert frame["goes on with"].tolist() == ["a ⏎ b", "c", "d"]
    assert frame[f"p of {label}"].round(3).tolist() == [1.0, 0.0, 1.0]
    assert frame["most probable next tokens"][0].startswith(f"{label}\u00a01.00")
    (bars,) = pages.next_tokens_figures(tokenizer, {"en": "The"}, found)
    assert f"{label}: 1.00 unmasked, 0.00 under the mask of en." in bars.data


def test_sites_that_are_one_switch() -> None:
    table = pages.one_switch_table({"intermediate": (1.25, 0.0), "gate": (1.25, 1e-6)}, 9)
    html = table.to_html()
    assert "(9 neurons)" in html and "1.250" in html and "1e-06" in html


def row(x: str, **changes: Any) -> dict[str, Any]:
    return {
        "mask_language": x, "n_neurons": 5, "text_language": x, "loss": 2.0, "change": 0.5,
        "change_low": 0.4, "change_high": 0.6, "random_mean": 0.1, "random_low": 0.0,
        "random_high": 0.2, "against": "more", "most": x, "most_change": 0.5, "clear": True,
        **changes,
    }  # fmt: skip


def test_effects_as_a_table() -> None:
    table = pages.effects_table(pd.DataFrame([row("en")]), 200, 5)
    assert frame_of(table).iloc[0].tolist() == [
        "en", 5, "en", "2.000", "+0.500", "+0.400\u00a0to\u00a0+0.600", "+0.100",
        "+0.000\u00a0to\u00a0+0.200",
    ]  # fmt: skip
    assert "200 windows per language; 5 random masks each" in table.to_html()
    down = pages.down_table({"en": 2.0}, 7, {"en": 0.5, "zh": 9.0}, 8)
    assert frame_of(down).to_dict("records") == [
        {"text": "en", "7 outputs of down_proj": 2.0, "8 intermediate neurons": 0.5}
    ]


def test_effects_in_words() -> None:
    judged = pd.DataFrame(
        [
            row("en"),
            row("zh", against="within", most="vi", most_change=0.75),
            row("vi", against="less", clear=False),
            row("fr", n_neurons=0),
        ]
    )
    lines = pages.effects_words(judged).data.split("\n")
    assert lines[0] == (
        "- Masking the 5 neurons of `en` changes the loss on `en` by +0.500 (random: +0.000 to "
        "+0.200), more than any random mask of that size. No other language is hurt more."
    )
    assert lines[1].endswith(
        "within the range of random masks of that size. `vi` is hurt more (+0.750)."
    )
    assert "less than every random mask" in lines[2]
    assert lines[2].endswith("No other language is hurt more; intervals overlap.")
    assert lines[3] == "- `fr`: the set is empty, so there is nothing to mask."


@pytest.mark.parametrize(
    ("rows", "counted", "verdict"),
    [
        ([row("en"), row("zh")], "of 2, that raise", "kurtosis selects neurons that their"),
        ([row("en"), row("zh", most="en")], "intervals apart: 1 (en).", "does not reliably select"),
        ([row("en", against="within")], "same size: 0. That hurt", "does not reliably select"),
        ([row("en", n_neurons=0)], "Number of masks, of 0", "There was nothing to mask."),
    ],
)  # fmt: skip
def test_what_the_page_says_at_its_end(
    rows: list[dict[str, Any]], counted: str, verdict: str
) -> None:
    text = pages.what_masks_show(pd.DataFrame(rows), 5).data
    assert counted in text and verdict in text and "every one of 5 random masks" in text
