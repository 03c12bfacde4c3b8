"""What notebook 04 shows beside the tables, on small data."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from IPython.display import Markdown
from page_outputs import alt, caption, cells
from pandas.io.formats.style import Styler

from crane_core.interventions import zero
from crane_core.selection import NeuronSet
from crane_lab.show import table1_page
from crane_lab.stages.comparisons import CATEGORIES
from crane_lab.stages.outcomes import Evaluated, Outcome, Row

NAMES = {"en": "English", "zh": "Chinese"}
SHAPE = {"intermediate": (2, 50), "gate": (2, 50), "up": (2, 50), "down": (2, 4)}


def neurons(*pairs: tuple[int, int]) -> NeuronSet:
    return NeuronSet.from_pairs(pairs, {"intermediate": (2, 50)})


MASKS = [
    Row("LAPE", "en", zero(neurons((0, 1)))),
    Row("LAPE", "zh", zero(neurons((0, 1), (1, 2)))),
    Row("CRANE", "en", zero(neurons((0, 1), (1, 2), (1, 3)))),
    Row("CRANE", "zh", zero(neurons())),
]


def test_masks_with_their_sizes() -> None:
    table = table1_page.masks_table(MASKS, [0.5, 1, 2, 0], SHAPE)
    assert "of 100 (random" in caption(table)
    assert list(cells(table).loc[2]) == ["CRANE", "en", "3", "3.0%", "1, 2", "2.00"]
    assert table1_page.sizes_in_words(MASKS, NAMES).data == (
        "LAPE as released masks 1, 2 neurons (English, Chinese), CRANE 3, 0."
    )


def test_evaluations_are_counted() -> None:
    original: Outcome = (pd.DataFrame({"task": ["a", "a", "b"]}), {})
    text = table1_page.evaluations(Evaluated(["en"], MASKS, original, []), 10).data
    assert text.startswith("5 evaluations: the unmasked model and 4 masks, ")
    assert "each on 2 tasks (3 items) and on 10 held-out windows" in text


def test_random_masks_and_chance_in_words() -> None:
    seeds = pd.DataFrame({"langspec_f1": [0.0, 0.1, 0.2]})
    text = table1_page.random_in_words(seeds).data
    assert text == (
        "Of 3 random masks 2 have a positive LangSpec-F1; the mean is 0.100, the largest 0.200."
    )
    assert "no random masks" in table1_page.random_in_words(pd.DataFrame()).data
    text = table1_page.all_at_chance({"en": 0.5, "zh": 0.25}, NAMES).data
    assert "would score 0.500 (English), 0.250 (Chinese): its precision" in text


def test_benchmarks_that_differ_under_random_masks(tmp_path: Path) -> None:
    file = tmp_path / "gate.csv"
    assert "is not known" in table1_page.unequal_benchmarks(file).data

    def gate(spared: str, drop: float) -> str:
        rows = [("knowledge_en", 0.0, 0.8), ("knowledge_en", 0.2, 0.5)]
        rows += [(spared, 0.0, 0.8), (spared, 0.2, 0.8 - drop)]
        pd.DataFrame(rows, columns=["task", "fraction", "accuracy"]).to_csv(file, index=False)
        return table1_page.unequal_benchmarks(file).data

    text = gate("reading_en", 0.01)
    assert text.startswith("Random masks of 20% of the neurons (from the testbed's gate) cost read")
    assert "knowledge_en 30.0 points" in text
    assert "would seem to spare reading_en beside knowledge_en" in text
    assert "copied by attention" in text
    assert "copied by attention" not in gate("knowledge_vi", 0.01)
    assert "would seem to spare" not in gate("reading_en", 0.2)


def hits(**absolute: str) -> pd.DataFrame:
    return pd.DataFrame(
        [{"method": "CRANE", "mask_language": x, "absolute": how} for x, how in absolute.items()]
    )


def test_what_of_the_paper_shaped_table_holds_for_both_tasks() -> None:
    both = {"knowledge": hits(en="larger", zh="open"), "reading": hits(en="larger", zh="larger")}
    assert "nothing that the confound" in table1_page.confound(hits(en="open"), both, NAMES)
    assert table1_page.confound(hits(en="larger", zh="open"), both, NAMES).endswith(
        "table, English holds for both tasks."
    )
    assert table1_page.confound(hits(en="larger", zh="larger"), both, NAMES).endswith(
        "English holds for both tasks; what does not: Chinese."
    )
    assert table1_page.confound(hits(en="open", zh="larger"), both, NAMES).endswith(
        "nothing holds for both tasks; what does not: Chinese."
    )


def test_sets_of_projections() -> None:
    shape = {site: SHAPE[site] for site in ("gate", "up", "down")}
    masks = {site: torch.zeros(size, dtype=torch.bool) for site, size in shape.items()}
    masks["gate"][0, :3] = True
    masks["down"][1, :2] = True
    chosen = NeuronSet(masks)
    table = table1_page.literal_sets([Row("CRANE", "en", zero(chosen))], shape)
    assert list(cells(table).loc[0]) == ["en", "3", "0", "2", "25.0%"]


LOSSES = pd.DataFrame(
    [
        ("CRANE", "en", 1234, 0.1, 0.01, 0.0, 0.02, 0.1, 0.05, 0.15, "zh", "larger"),
        ("CRANE", "zh", 5, 0.2, 0.01, 0.1, 0.02, -0.1, -0.2, -0.05, "en", "smaller"),
        ("LAPE", "zh", 5, 0.0, 0.01, 0.0, 0.02, 0.0, -0.1, 0.1, "en", "open"),
    ],
    columns=[
        *("method", "mask_language", "n_neurons", "en", "en_se", "zh", "zh_se"),
        *("difference", "difference_low", "difference_high", "other", "verdict"),
    ],
)


def test_losses_in_a_figure_a_table_and_words() -> None:
    text = alt(table1_page.loss_figure(LOSSES, ["en", "zh"]))
    assert "CRANE · en (n = 1,234): en 1.11, zh 1.00;" in text
    table = table1_page.loss_table(LOSSES, {"en": 4.0, "zh": 5.5})
    assert caption(table).endswith("Unmasked perplexity: en 4.00, zh 5.50")
    row = cells(table).loc[1]
    assert row["en"].replace("&nbsp;", "\u00a0") == "+0.200\u00a0±\u00a00.010"
    assert row.iloc[-1] == "-0.100 [-0.200, -0.050] (en)"
    text = table1_page.losses_by_method(LOSSES, NAMES).data
    assert text.endswith(
        "- CRANE: English clearly, Chinese clearly not.\n- LAPE: Chinese not settled."
    )
    assert table1_page.losses_in_words(LOSSES, NAMES) == (
        "By held-out loss, the masked language is hit clearly most for English (CRANE); no "
        "language (LAPE)."
    )


def test_choices_in_a_table() -> None:
    shares = {"right": 0.5, "same": 0.25, "lost": 0.1, "gained": 0.0, "variety": 1.0}
    chosen = pd.DataFrame([{"method": "Org", "language": "en", "position_bits": 1.994, **shares}])
    read = cells(table1_page.chosen_table(chosen))
    assert list(read)[:3] == ["method", "mask and tasks", "position"]
    assert read.loc[0, "position"] == "1.99" and read.loc[0, "same"] == "0.250"


def answers(other: float) -> pd.DataFrame:
    rows = [("Org", "", 1.0, 0.0), ("CRANE", "en", 1.0 - other, other)]
    frame = pd.DataFrame(rows, columns=["method", "mask_language", "gold", "other language"])
    frame = frame.assign(language="en", n=100, favourite="yes", favourite_share=0.3)
    return frame.assign(**{name: 0.0 for name in CATEGORIES if name not in frame})


def test_free_answers_in_a_figure_and_in_words() -> None:
    names = {"en": "English"}
    text = alt(table1_page.answers_figure(answers(0.5), names))
    assert "asked in English, CRANE · en: gold 50%, other language 50%." in text
    text = table1_page.answers_in_words(answers(0.5), names).data
    assert text.startswith("- CRANE, English, 100 answers in English: the right option is named in")
    assert "named in 50% (unmasked 100%)" in text
    assert "The mask makes it leave the language." in text
    assert "“yes”, makes up 30% (unmasked 30%)" in text
    text = table1_page.answers_in_words(answers(0.01), names).data
    assert "There is no sign that the mask makes it leave the language." in text


def test_changed_answers_in_a_table() -> None:
    changed = pd.DataFrame([{"item": "i1", "unmasked": "a", "masked": "b"}])
    table = table1_page.changed_table({"en": changed, "zh": changed.iloc[:0]})
    assert isinstance(table, Styler)
    assert cells(table).to_dict("records") == [
        {"mask": "en", "item": "i1", "unmasked": "a", "masked": "b"}
    ]
    nothing = table1_page.changed_table({"en": changed.iloc[:0]})
    assert isinstance(nothing, Markdown)
    assert nothing.data == "No free answer changes under CRANE's masks."


def test_simulated_masks_in_a_table() -> None:
    read = cells(table1_page.simulated_table({70: [0.0, 0.2], 900: [0.0, 0.0]}, "English"))
    assert list(read.loc[0]) == ["70", "0.100", "0.190", "50%"]
