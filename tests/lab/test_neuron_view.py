"""Single neurons looked up on a page: the numbers that were computed, all of them, and safe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from browser import STATIC, opened
from bs4 import BeautifulSoup
from byte_tokens import WITH_BOS
from hostile import HOSTILE
from scipy.stats import t as students_t
from test_pipeline import folder, settings_in
from transformers import LlamaForCausalLM

from crane_core.attribution import OBJECTIVES, neuron_relevance
from crane_core.neurons import NeuronSet
from crane_lab.pipeline import Pipeline
from crane_lab.show.neuron_view import BARS, LEVELS, neuron_view, texts_of
from crane_lab.show.real_model_pages import effects_chosen
from crane_lab.store import Store
from crane_lab.study import neuron_cards
from crane_lab.study.known_neurons import KnownNeurons, known_of, sampled_lists
from crane_lab.study.necessity import Estimate, Necessity
from crane_lab.study.neuron_cards import TOPS, Cards, relevance_by_token

__all__ = ["folder"]  # a fixture
SCRIPTS = ["neuron_view.js", "explorable.js"]  # in whatever order they are loaded
NAMES = {"en": "English", "zh": "Chinese"}
SIZE = (3, 20)
WORDS = {"en": "He found a <b>map</b> & left.\nShe", "zh": "他找到了地图，走了。她看见"}


# --- what is computed -----------------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_relevance_by_token_adds_up(tiny_llama: LlamaForCausalLM, objective: str) -> None:
    ids = torch.randint(3, 60, (3, 9), generator=torch.Generator().manual_seed(0))
    whole = neuron_relevance(tiny_llama, ids, objective=objective, opening=1).flatten(1)
    width = whole.shape[1] // len(tiny_llama.model.layers)
    chosen = torch.tensor([0, 3, width - 1, width + 2, whole.shape[1] - 1])
    sums, tokens = relevance_by_token(tiny_llama, ids, chosen, objective=objective, opening=1)
    assert torch.equal(sums, whole[:, chosen])
    assert tokens.shape == (3, 9, 5) and not tokens[:, 0].any() and tokens[:, 1:].any()
    torch.testing.assert_close(tokens.sum(1), sums)
    halves, same = relevance_by_token(tiny_llama, ids, chosen, objective=objective,
                                      opening=1, reduction="mean")  # fmt: skip
    assert torch.equal(same, tokens)
    torch.testing.assert_close(halves, sums / 8)
    with pytest.raises(ValueError, match="rising order"):
        relevance_by_token(tiny_llama, ids, chosen.flip(0))


def test_the_largest_windows_are_kept_token_by_token(folder: Path, tmp_path: Path) -> None:
    pipeline = Pipeline(settings_in(folder, batch_size=3), Store(tmp_path))
    layers, width = pipeline.shape["intermediate"]
    chosen = torch.arange(0, layers * width, 3)
    cards = neuron_cards.neuron_cards(pipeline, chosen, most=8)
    for x, windows in cards.windows.items():
        assert torch.equal(windows, pipeline.windows[x][:8])
        expected = neuron_relevance(pipeline.model, windows).flatten(1)[:, chosen]
        torch.testing.assert_close(cards.values[x], expected)
        assert cards.tops[x].shape == (len(chosen), TOPS)
        taken = cards.values[x].T.gather(1, cards.tops[x])
        assert torch.equal(taken.abs(), cards.values[x].abs().T.topk(TOPS).values)
        torch.testing.assert_close(cards.tokens[x].sum(-1), taken, atol=1e-4, rtol=1e-4)


def necessity() -> Necessity:
    draw = torch.Generator().manual_seed(3)
    effects = {
        x: Estimate(
            torch.randn(SIZE, generator=draw, dtype=torch.float64) / 50,
            torch.rand(SIZE, generator=draw, dtype=torch.float64) / 100,
        )
        for x in NAMES
    }
    return Necessity({"zero": effects}, {"zero": {}}, {"zero": torch.zeros(SIZE)}, 16, {})


def test_lists_are_of_the_first_and_of_some_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(1)
    score = {x: torch.randn(SIZE, generator=draw) for x in NAMES}
    lists = neuron_cards.neuron_lists({"a": score}, necessity(), {"my score": "a"})
    own = lists["first of my score", "zh"]
    assert own == score["zh"].flatten().argsort(descending=True)[: neuron_cards.FIRST].tolist()
    needed = necessity().necessity("en").value.flatten()
    assert lists["most needed", "en"][0] == int(needed.argmax())
    assert lists["random", ""] == sorted(set(lists["random", ""]))
    every = neuron_cards.neurons_to_read(lists, SIZE)
    assert every.tolist() == list(range(60))
    monkeypatch.setattr(neuron_cards, "MOST", 59)
    few = neuron_cards.neurons_to_read(lists, SIZE)
    assert few.tolist() == sorted({n for own in lists.values() for n in own})


# --- what is shown --------------------------------------------------------------------------------


def cards(chosen: list[int] | None = None, words: dict[str, str] = WORDS) -> Cards:
    neurons = torch.arange(60) if chosen is None else torch.tensor(chosen)
    draw = torch.Generator().manual_seed(2)
    ids = {x: torch.tensor(WITH_BOS(text)["input_ids"])[:24] for x, text in words.items()}
    windows = {x: torch.stack([own, own.flip(0), own]) for x, own in ids.items()}
    values, tops, tokens = {}, {}, {}
    for x, own in windows.items():
        by = torch.randn(3, own.shape[1], len(neurons), generator=draw) ** 3
        values[x] = by.sum(1)
        tops[x] = values[x].abs().T.topk(2).indices
        tokens[x] = by[tops[x], :, torch.arange(len(neurons))[:, None]]
    return Cards(neurons, SIZE, windows, values, tops, tokens)


KURTOSIS = {x: 3 + torch.rand(SIZE, generator=torch.Generator().manual_seed(9)) for x in NAMES}
SETS = {
    "CRANE": {"en": NeuronSet.from_flat([5, 41], SIZE), "zh": NeuronSet.from_flat([5], SIZE)},
    "LAPE matched": {x: NeuronSet.from_flat([41, 7], SIZE) for x in NAMES},
}
LISTS = {("most needed", "en"): [41, 5, 7, 8], ("first of X", "zh"): [59, 0], ("random", ""): [30]}


def known(of: Cards) -> KnownNeurons:
    return known_of(of, texts_of(of, WITH_BOS), KURTOSIS, necessity(), SETS, LISTS)


def view(of: Cards | None = None, names: dict[str, str] = NAMES) -> str:
    return str(neuron_view(known(of or cards()), names).data)


def needed(x: str, layer: int, unit: int) -> str:
    found = necessity().necessity(x)
    half = float(found.error[layer, unit]) * students_t.ppf(0.975, 15)
    value = f"{1000 * float(found.value[layer, unit]):+.1f}".replace("-", "−")
    return f"{value}\u00a0±\u00a0{1000 * half:.1f}"


def what_is_said(place: int) -> str:
    """Of every language whose interval leaves out 0: none is compared with another."""
    up: list[str] = []
    down: list[str] = []
    for x, name in NAMES.items():
        found = necessity().necessity(x)
        value, error = (float(own.flatten()[place]) for own in (found.value, found.error))
        if abs(value) > error * students_t.ppf(0.975, 15):
            told = f"{name} by {1000 * value:+.1f}".replace("-", "−")
            (up if value > 0 else down).append(told)
    said = (
        f"Without it the loss certainly rises in {', '.join(up)}, thousandths of a nat per token"
        if up
        else "It is not shown to be needed by any language: no interval lies above 0"
    )
    return said + (f"; it falls in {', '.join(down)}." if down else ".")


def test_without_scripts_there_are_a_table_and_a_picture() -> None:
    soup = BeautifulSoup(view(), "lxml")
    rows = [[cell.text for cell in row.select("th, td")] for row in soup.select("tbody tr")]
    assert [row[:2] for row in rows] == [
        ["most needed, English", "2.1"], ["most needed, English", "0.5"],
        ["most needed, English", "0.7"], ["first of X, Chinese", "2.19"],
        ["first of X, Chinese", "0.0"], ["random", "1.10"],
    ]  # fmt: skip
    assert rows[1][2] == f"{float(KURTOSIS['en'][0, 5]):.1f}" and rows[1][3] == needed("en", 0, 5)
    assert rows[0][6] == "CRANE: English; LAPE matched: English; LAPE matched: Chinese"
    assert rows[5][6] == "none"
    (figure,) = soup.select(".explorable-alone img")
    assert "neuron 2.1 " in str(figure["alt"]) and len(str(figure["alt"])) < 600
    assert soup.select(".explorable-fields[hidden]") and not soup.select("input, select")
    size = float(soup.select(".explorable-key")[0].text.split("has ")[1].split(" MB")[0])
    data = soup.select("script")[0].text
    assert size == pytest.approx(len(data.encode()) / 1e6, abs=0.01)


# What a reader does; the view is read after each step, and the page dumped then.
LOOK_UP = """<script>addEventListener("load", async () => {
  await explorable.ready();
  const view = document.querySelector(".explorable");
  const [list, neuron, language] = view.querySelectorAll("select");
  const search = view.querySelector("input");
  const texts = (nodes) => [...nodes].map((node) => node.textContent);
  const seen = [];
  const set = (control, value, kind) => {
    if (control) {
      control.focus();
      control.value = value;
      control.dispatchEvent(new Event(kind));
    }
    const heard = [...view.querySelectorAll("p.neuron-text")];
    seen.push({
      said: view.querySelector(".explorable-said").textContent,
      missing: view.querySelector(".neuron-missing").textContent, typed: search.value,
      invalid: search.getAttribute("aria-invalid"), options: texts(neuron.options),
      chosen: neuron.selectedOptions[0].textContent,
      rows: [...view.querySelectorAll("tbody tr")].map((row) => texts(row.children)),
      texts: texts(heard), lang: heard.map((one) => one.lang),
      sums: texts(view.querySelectorAll(".neuron-sum")),
      grounds: [...heard[0].children].map((one) => one.style.backgroundColor),
      bars: Bokeh.documents.map((one) => one.get_model_by_name("bars").data.top),
      focus: document.activeElement === control,
    });
  };
  set(null);
  set(neuron, String(NEURON), "change");
  set(language, "1", "change");
  set(search, " 2.19", "input");
  set(search, "3.1", "input");
  set(list, "2", "change");
  const made = document.body.appendChild(document.createElement("pre"));
  made.id = "seen";
  made.textContent = JSON.stringify(seen);
});</script>"""


def looked_up(tmp_path: Path, of: Cards, second: int) -> tuple[Any, list[dict[str, Any]]]:
    soup = opened(tmp_path, SCRIPTS, view(of) + LOOK_UP.replace("NEURON", str(second)))
    return soup, json.loads(soup.select("#seen")[0].text)


def test_a_browser_shows_the_neuron_that_is_looked_up(tmp_path: Path) -> None:
    of = cards()
    soup, seen = looked_up(tmp_path, of, 5)
    places = [41, 5, 5, 59, 59, 30]
    for now, place in zip(seen, places, strict=True):
        layer, unit = divmod(place, 20)
        assert now["said"] == f"Layer {layer}, neuron {unit}. {what_is_said(place)}"
        for i, x in enumerate(NAMES):
            inside = [m for m, own in SETS.items() if own[x].mask("intermediate")[layer, unit]]
            assert now["rows"][i] == [
                NAMES[x], f"{float(KURTOSIS[x][layer, unit]):.1f}", needed(x, layer, unit),
                ", ".join(inside) or "none",
            ]  # fmt: skip
            low = min(0.0, *(float(of.values[y][:, place].min()) for y in NAMES))
            high = max(0.0, *(float(of.values[y][:, place].max()) for y in NAMES))
            count = np.histogram(of.values[x][:, place].double(), BARS, (low, high))[0]
            tall = np.rint(LEVELS * np.log1p(count) / np.log1p(3))
            assert now["bars"][i] == pytest.approx(tall.tolist())
        x = "en" if now is seen[0] or now is seen[1] else "zh"
        assert now["lang"] == [x, x] and len(now["texts"]) == TOPS
        for top in range(TOPS):
            window = of.windows[x][of.tops[x][place, top]]
            whole = WITH_BOS.decode(window, clean_up_tokenization_spaces=False)
            assert now["texts"][top] == whole.replace("\n", "⏎")
            total = f"{float(of.tokens[x][place, top].sum()):+.2f}".replace("-", "−")
            assert now["sums"][top] == f"Relevance in this text: {total} logits"
        assert now["focus"] or now is seen[0]
    grounds = seen[0]["grounds"]  # one byte is one piece of this English text
    values = of.tokens["en"][41, 0]
    strongest = int(values.abs().argmax())
    assert grounds[strongest] == (
        "rgb(224, 130, 20)" if values[strongest] > 0 else "rgb(153, 142, 195)"
    )
    assert seen[0]["options"] == ["2.1", "0.5", "0.7", "0.8"] and seen[5]["options"] == ["1.10"]
    assert seen[3]["chosen"] == "2.19, not on this list" and seen[3]["missing"] == ""
    assert seen[4]["invalid"] == "true" and seen[4]["missing"] == (
        "There is no neuron 3.1 here: a layer, a dot and a neuron, from 0.0 to 2.19."
    )
    assert seen[4]["typed"] == "3.1" and seen[5]["typed"] == seen[5]["missing"] == ""
    assert seen[5]["invalid"] == "false"
    kinds = {what_is_said(place).partition(" ")[0] for place in places}
    assert kinds == {"Without", "It"}
    (field,) = soup.select("label:has(input)")
    assert field.text.startswith("Or any: ") and field.input["placeholder"] == "2.1"
    assert "largest in size" in soup.select(".neuron-shown")[0].text
    assert not soup.select("[hidden], .explorable-alone, img, b")
    assert len(soup.select("label select")) == 3 and len(soup.select("label input")) == 1
    drawings = soup.select(".explorable-drawing[role=img][aria-label]:has(.bk-Figure)")
    assert len(drawings) == 2 and all(len(str(one["aria-label"])) < 600 for one in drawings)


def test_a_browser_knows_neurons_that_are_not_all(tmp_path: Path) -> None:
    of = cards([5, 8, 30, 41, 59])
    soup, seen = looked_up(tmp_path, of, 0)
    (field,) = soup.select("label:has(input)")
    assert field.text.startswith("Or one of 5: ") and field.input["placeholder"] == "2.1"
    assert seen[4]["missing"].endswith("a neuron, one of 5 neurons, such as 0.5.")
    assert seen[0]["options"] == ["2.1", "0.5", "0.8"]
    layer_unit = [(2, 1), (0, 5), (0, 5), (2, 19), (2, 19), (1, 10)]
    for now, (layer, unit) in zip(seen, layer_unit, strict=True):
        assert now["rows"][0][2] == needed("en", layer, unit)
    with pytest.raises(ValueError, match="no neuron to show"):
        view(cards([1, 2]))


def test_texts_and_names_do_no_harm(tmp_path: Path) -> None:
    words = {"en": HOSTILE["script"], "zh": HOSTILE["ends"]}
    html = view(cards(words=words), NAMES | {"zh": HOSTILE["picture"]})
    assert html.count("<script") == html.count("</script") == 1
    soup = opened(tmp_path, SCRIPTS, html)
    assert not soup.select("img, s, b, iframe, a")
    assert soup.title is not None and soup.title.text == "as it was"
    script = (STATIC / SCRIPTS[0]).read_text("utf-8")
    for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval", "http"):
        assert way not in script


# --- neurons of a real model ----------------------------------------------------------------------


def test_what_is_shipped_is_shown_as_it_was(tmp_path: Path) -> None:
    made = known(cards([5, 8, 30, 41, 59]))
    made.save(tmp_path, {"model": "tiny"})
    again = KnownNeurons.load(tmp_path)
    for name in ("kurtosis", "needed", "reach"):
        for x in NAMES:
            torch.testing.assert_close(getattr(again, name)[x], getattr(made, name)[x].float())
    for x in NAMES:
        torch.testing.assert_close(
            again.cards.tokens[x], made.cards.tokens[x], atol=1e-6, rtol=1e-3
        )
        assert torch.equal(again.cards.tops[x], made.cards.tops[x])
        assert {w: list(own[0]) for w, own in again.texts[x].items()} == {
            w: list(own[0]) for w, own in made.texts[x].items()
        }
        assert all(torch.equal(of[x], made.inside[m][x]) for m, of in again.inside.items())
    assert list(again.lists.items()) == list(made.lists.items())
    first, second = (BeautifulSoup(str(neuron_view(one, NAMES).data), "lxml")
                     for one in (made, again))  # fmt: skip
    assert first.select_one("table") == second.select_one("table")
    (tmp_path / "neuron_cards.json").unlink()
    with pytest.raises(FileNotFoundError, match="--cards"):
        KnownNeurons.load(tmp_path)


def test_lists_of_a_sample_have_its_neurons_alone() -> None:
    effects = pd.DataFrame({"layer": [0, 0, 1, 2], "neuron": [3, 7, 0, 19]})
    effects = effects.assign(random=[True, False, False, True])
    effects = effects.assign(zero_en=[0.1, 0.3, 0.2, 0.0], zero_zh=[0.0, 0.1, 0.2, 0.3])
    order = {"en": torch.arange(60), "zh": torch.arange(59, -1, -1)}
    lists = sampled_lists(effects, {"X": order}, 20)
    assert lists["most needed", "en"] == [7, 20, 3, 59]
    assert lists["most needed", "zh"] == [59, 20, 7, 3]
    assert lists["first of X", "en"] == [3, 7, 20, 59]
    assert lists["first of X", "zh"] == [59, 20, 7, 3]
    assert lists["random", ""] == [3, 59]


def test_effects_of_a_sample_by_list() -> None:
    n = 20
    lists = ["en zh" if i % 2 else "zh" if i > 9 else None for i in range(n)]
    drawn = [i < 5 for i in range(n)]
    places = {"layer": range(n), "neuron": range(100, 100 + n)}
    effects = pd.DataFrame({**places, "random": drawn, "LAPE": lists})
    for x in NAMES:
        effects[f"zero_{x}"] = [(i * 7 % n - 6) / 1000 for i in range(n)]
        effects[f"zero_{x}_se"] = 0.001
        effects[f"zero_{x}_selective"] = effects["zero_en"] > 0.012
    soup = BeautifulSoup(str(effects_chosen(effects, NAMES, most=3).data), "lxml")
    rows = [[cell.text for cell in row.select("th, td")] for row in soup.select("tbody tr")]
    own = effects[effects["LAPE"] == "en zh"].sort_values("zero_en", ascending=False)
    assert [row[0] for row in rows] == [f"{i}.{i + 100}" for i in own.index[:3]]
    value = f"{1000 * own['zero_en'].iloc[0]:+.2f}".replace("-", "−")
    assert rows[0][1] == f"{value}\u00a0±\u00a01.96" and rows[0][3] == "English, Chinese"
    data = json.loads(soup.select("script")[0].text)
    values = {one["name"]: one["values"] for one in data["columns"]}
    assert values["first neurons by"] == ["LAPE", "drawn at random"]
    assert values["neurons on the list"] == ["10", "15", "5"]
