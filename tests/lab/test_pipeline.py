"""The stages put together: what is kept, what is computed again, and the tables made of it.

A tiny random Llama, with corpora and tasks made up here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_tiny_llama
from manifests import content
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from crane_core import baselines, metrics
from crane_core.interventions import UNTOUCHED, zero
from crane_core.selection import NeuronSet
from crane_lab.engines import multiple_choice
from crane_lab.engines.perplexity import perplexity
from crane_lab.engines.tasks import FOLDER, TASKS
from crane_lab.pipeline import TABLES, Pipeline
from crane_lab.settings import Settings
from crane_lab.stages import losses as held_out
from crane_lab.stages import relevance, scoring, streams
from crane_lab.stages.outcomes import Evaluated, Row
from crane_lab.store import Store

# In so small a model LAPE finds nothing for some languages; the tests of empty sets say so.
pytestmark = pytest.mark.filterwarnings("ignore:.*no neuron")

LANGUAGES = ("en", "zh", "vi")
ALPHABETS = {"en": "abcdefgh", "zh": "天地人山水火木金", "vi": "ăâđêôơưạ"}
N_ITEMS = 8


def made_up(language: str, rng: random.Random) -> str:
    """A sentence of random words."""
    space = "" if language == "zh" else " "
    words = ["".join(rng.choices(ALPHABETS[language], k=rng.randint(1, 3))) for _ in range(8)]
    return space.join(words) + "."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its tokenizer, corpora and tasks."""
    root: Path = tmp_path_factory.mktemp("testbed")
    rng = random.Random(0)
    for corpus, lines in (("attribution", 60), ("perplexity", 20)):
        (root / corpus).mkdir()
        for language in LANGUAGES:
            texts = [made_up(language, rng) for _ in range(lines)]
            (root / corpus / f"{language}.txt").write_text("\n".join(texts), encoding="utf-8")
    (root / "tasks").mkdir()
    for path in FOLDER.glob("*yaml"):
        shutil.copy(path, root / "tasks")
    for name in TASKS:
        language = name[-2:]
        items = [
            {
                "id": f"{name}-{number}",
                "passage": made_up(language, rng) if name.startswith("reading") else "",
                "question": made_up(language, rng),
                "options": [f"{made_up(language, rng)}{option}" for option in range(4)],
                "answer": number % 4,
                "relation": "made.up",
            }
            for number in range(N_ITEMS)
        ]
        text = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
        (root / "tasks" / f"{name}.jsonl").write_text(text, encoding="utf-8")

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([made_up(x, rng) for x in LANGUAGES for _ in range(50)], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    for seed in (0, 1):
        model = make_tiny_llama(
            seed, vocab_size=len(tokenizer), num_hidden_layers=2, max_position_embeddings=256
        )
        model.save_pretrained(root / f"model{seed}")
        tokenizer.save_pretrained(root / f"model{seed}")
    return root


def settings_in(folder: Path, **changes: Any) -> Settings:
    settings = Settings(
        model=str(folder / "model0"),
        corpus=str(folder / "attribution"),
        perplexity_corpus=str(folder / "perplexity"),
        tasks=str(folder / "tasks"),
        n_samples=32,
        window=6,
        batch_size=16,
        threshold=0.5,
        random_seeds=(0, 1),
        n_perplexity=5,
    )
    return dataclasses.replace(settings, **changes)


def everything(found: Pipeline) -> Evaluated:
    return found.evaluated(found.rows())


@pytest.fixture(scope="module")
def filled(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Evaluated]:
    """A store after a whole run, never interrupted."""
    store = Store(tmp_path_factory.mktemp("store"))
    return store, everything(Pipeline(settings_in(folder), store))


def files(store: Store) -> dict[str, str]:
    """Digest of every finished file in the store, by name."""
    return {
        path.relative_to(store.root).as_posix(): hashlib.sha256(content(path)).hexdigest()
        for path in store.root.rglob("*")
        if path.is_file() and path.parent.name != f"{streams.STAGE}-pieces"
    }


# ------------------------------------------------------------------------------------- the store


def _forbidden(*args: object, **kwargs: object) -> None:
    raise AssertionError("computed again")


def test_a_second_run_computes_nothing(
    folder: Path, filled: tuple[Store, Evaluated], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, first = filled
    for module, name in [
        (relevance, "one_pass"),
        (multiple_choice, "prepare"),
        (scoring, "evaluate"),
        (held_out, "perplexity"),
    ]:
        monkeypatch.setattr(module, name, _forbidden)
    before = files(store)
    again = everything(Pipeline(settings_in(folder), store))
    assert files(store) == before
    pd.testing.assert_frame_equal(again.items(), first.items())
    pd.testing.assert_frame_equal(again.perplexities(), first.perplexities())
    with pytest.raises(AssertionError, match="computed again"):
        Pipeline(settings_in(folder, seed=1), store).collected("en")


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        (relevance, "one_pass", 3),  # in the middle of the second language
        (scoring, "evaluate", 4),
        (held_out, "perplexity", 5),  # between two languages of one mask
    ],
)
def test_a_killed_run_started_again_leaves_the_same_files(
    folder: Path,
    filled: tuple[Store, Evaluated],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    call: int,
) -> None:
    real, calls = getattr(module, name), 0

    def killed(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, killed)
        with pytest.raises(KeyboardInterrupt):
            everything(Pipeline(settings_in(folder), store))
    expected = files(filled[0])
    assert files(store).keys() < expected.keys()
    # What a kill in the middle of writing leaves: part of a file, and a name nobody will finish.
    (store.root / "items" / ".x.parquet.4194304.tmp").parent.mkdir(exist_ok=True)
    (store.root / "items" / ".x.parquet.4194304.tmp").write_bytes(b"half")
    everything(Pipeline(settings_in(folder), Store(tmp_path)))
    assert files(store) == expected


def test_an_altered_artefact_is_computed_again(
    folder: Path, filled: tuple[Store, Evaluated], tmp_path: Path
) -> None:
    store = Store(shutil.copytree(filled[0].root, tmp_path / "store"))
    expected = files(store)
    for name in expected:
        if name.endswith(".parquet"):
            path = store.root / name
            path.write_bytes(path.read_bytes()[:-20])
            break
    with pytest.warns(UserWarning, match="truncated or altered"):
        everything(Pipeline(settings_in(folder), store))
    assert files(store) == expected


class _Asked(Exception):
    """Carries the key of the artefact asked for."""


class _KeyStore(Store):
    """Says which artefact is asked for and computes nothing."""

    def has(self, stage: str, key: Mapping[str, Any]) -> bool:
        raise _Asked(stage, json.dumps(key, sort_keys=True))

    def tensors(
        self, stage: str, key: Mapping[str, Any], compute: Callable[[], Any]
    ) -> dict[str, Tensor]:
        raise _Asked(stage, json.dumps(key, sort_keys=True))

    def table(self, stage: str, key: Mapping[str, Any], compute: Callable[[], Any]) -> pd.DataFrame:
        raise _Asked(stage, json.dumps(key, sort_keys=True))


STAGES: dict[str, Callable[[Pipeline], object]] = {
    "collected": lambda p: p.collected("en"),
    "items": lambda p: p.items(),
    "losses": lambda p: p.losses(),
}


def key_of(stage: str, settings: Settings, tmp_path: Path) -> str:
    with pytest.raises(_Asked) as asked:
        STAGES[stage](Pipeline(settings, _KeyStore(tmp_path / "none")))
    assert asked.value.args[0] == stage
    return str(asked.value.args[1])


ALL = {"collected", "items", "losses"}
TEXTS = {"collected"}


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({"n_samples": 31}, TEXTS),
        ({"window": 7}, TEXTS | {"losses"}),
        ({"seed": 1}, TEXTS | {"losses"}),
        ({"objective": "last_max"}, TEXTS),
        ({"score": "weight_gradient_sum", "site": "projections"}, TEXTS),
        ({"reduction": "mean"}, TEXTS),
        ({"n_perplexity": 4}, {"losses"}),
        ({"task_limit": 3}, {"items"}),
        ({"languages": ("en", "vi")}, {"items", "losses"}),
        # What only comes in later changes nothing here.
        ({"normalisation": "robust"}, set()),
        ({"rule": "threshold", "threshold": 2.0}, set()),
        ({"random_seeds": (5,)}, set()),
    ],
)
def test_a_setting_changes_the_keys_that_depend_on_it(
    folder: Path, tmp_path: Path, change: dict[str, Any], stages: set[str]
) -> None:
    base, changed = settings_in(folder), settings_in(folder, **change)
    differing = {
        stage for stage in ALL if key_of(stage, base, tmp_path) != key_of(stage, changed, tmp_path)
    }
    assert differing == stages


def test_model_and_files_change_the_keys(folder: Path, tmp_path: Path) -> None:
    base = {stage: key_of(stage, settings_in(folder), tmp_path) for stage in ALL}

    def differing(**changes: Any) -> set[str]:
        settings = settings_in(folder, **changes)
        return {stage for stage in ALL if key_of(stage, settings, tmp_path) != base[stage]}

    def copied(name: str, file: str) -> str:
        target = tmp_path / name
        shutil.copytree(folder / name, target)
        assert not differing(**{PARAMETERS[name]: str(target)})  # where it lies does not matter
        path = target / file
        path.write_text(path.read_text(encoding="utf-8").replace(".", "!", 1), encoding="utf-8")
        return str(target)

    assert differing(model=str(folder / "model1")) == ALL
    assert differing(corpus=copied("attribution", "en.txt")) == TEXTS
    assert differing(perplexity_corpus=copied("perplexity", "vi.txt")) == {"losses"}
    assert differing(tasks=copied("tasks", "knowledge_en.jsonl")) == {"items"}


PARAMETERS = {"attribution": "corpus", "perplexity": "perplexity_corpus", "tasks": "tasks"}


def test_masks_have_keys_of_their_own(
    folder: Path, filled: tuple[Store, Evaluated], tmp_path: Path
) -> None:
    found = Pipeline(settings_in(folder), _KeyStore(tmp_path / "none"))
    keys = set()
    for intervention in (UNTOUCHED, *(row.intervention for row in filled[1].rows)):
        with pytest.raises(_Asked) as asked:
            found.items(intervention)
        keys.add(asked.value.args[1])
    assert len(keys) == 1 + len({row.neurons for row in filled[1].rows})


# ------------------------------------------------------------------------------------ the stages


def test_settings_come_from_a_notebooks_names() -> None:
    settings = Settings.of({"n_samples": 7, "languages": ["en", "vi"], "pd": pd, "run_dir": "x"})
    assert settings == Settings(n_samples=7, languages=["en", "vi"])


@pytest.mark.parametrize(
    ("languages", "message"),
    [((), "is an empty list"), (("en",), "at least two different"), (("en", "en"), "2 times")],
)
def test_languages_must_be_two(folder: Path, languages: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pipeline(settings_in(folder, languages=languages))


def test_the_main_tasks_are_those_of_the_runs_languages(folder: Path, tmp_path: Path) -> None:
    """A real model's tasks have more languages than its run."""
    pipeline = Pipeline(settings_in(folder, languages=["en", "vi"]), Store(tmp_path))
    assert set(pipeline.main_tasks) == {"en", "vi"} < set(pipeline.tables[pipeline.main_table])


def test_unknown_language_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"language 'fr'.*available: en, vi, zh"):
        Pipeline(settings_in(folder, languages=("en", "fr")))


def test_a_language_without_tasks_is_refused(folder: Path, tmp_path: Path) -> None:
    changes = {}
    for name in ("attribution", "perplexity"):
        changes[PARAMETERS[name]] = str(shutil.copytree(folder / name, tmp_path / name))
        shutil.copy(folder / name / "en.txt", tmp_path / name / "fr.txt")
    found = Pipeline(settings_in(folder, languages=("en", "fr"), **changes))
    with pytest.raises(ValueError, match=r"no task for language 'fr'.*'en', 'zh', 'vi'"):
        found.items()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "first"}, "objective"),
        ({"normalisation": "l2"}, "l2"),
        ({"rule": "best"}, "rule is 'best': expected one of"),
        ({"rule": "top", "budget": 10**6}, "larger than the"),
    ],
)
def test_unknown_choices_are_refused(
    folder: Path, filled: tuple[Store, Evaluated], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Pipeline(settings_in(folder, **change), filled[0]).neuron_sets()


def test_unknown_site_is_refused(folder: Path, filled: tuple[Store, Evaluated]) -> None:
    with pytest.raises(ValueError, match="attention"):
        Pipeline(settings_in(folder), filled[0]).kurtosis("attention")


def test_rows_of_table_1(folder: Path, filled: tuple[Store, Evaluated]) -> None:
    found = Pipeline(settings_in(folder), filled[0])
    rows = found.rows()
    methods = list(dict.fromkeys(row.method for row in rows))
    assert methods == ["LAPE", "LAPE matched", "CRANE", "Random"]
    crane = {row.language: row.neurons for row in rows if row.method == "CRANE"}
    assert list(crane) == list(LANGUAGES)
    assert all(len(neurons) for neurons in crane.values())
    assert not crane["en"] & crane["zh"]
    for row in rows:
        if row.method == "LAPE matched":
            assert len(row.neurons) == len(crane[row.language])
        if row.method == "Random":
            assert row.neurons.counts().tolist() == crane[row.language].counts().tolist()
            assert row.neurons == baselines.random_matched(crane[row.language], row.seed or 0)
    assert [row.seed for row in rows if row.method == "Random"] == [0, 1] * 3


def test_projections_have_all_three_sites_and_no_lape(
    folder: Path, filled: tuple[Store, Evaluated]
) -> None:
    found = Pipeline(settings_in(folder), filled[0])
    rows = found.rows("projections")
    assert {row.method for row in rows} == {"CRANE", "Random"}
    assert set(rows[0].neurons.sites) <= {"gate", "up", "down"}
    kurtosis = found.kurtosis("projections")["vi"]
    assert isinstance(kurtosis, Mapping)
    assert {name: tuple(k.shape) for name, k in kurtosis.items()} == {
        "gate": (2, 48),
        "up": (2, 48),
        "down": (2, 32),
    }


def test_a_mask_that_does_nothing_is_noticed(
    folder: Path, filled: tuple[Store, Evaluated], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Pipeline(settings_in(folder), filled[0])
    neurons = NeuronSet.from_pairs([(0, 0), (1, 3)], found.shape)
    assert found.logit_change(zero(neurons)) > 0
    assert found.logit_change(zero(NeuronSet.empty(found.shape))) == 0
    monkeypatch.setattr(held_out, "intervened", lambda model, what: contextlib.nullcontext())
    with pytest.raises(RuntimeError, match="the mask is not at work"):
        found.items(zero(neurons))


def test_outcomes_are_those_of_the_masked_model(
    folder: Path, filled: tuple[Store, Evaluated]
) -> None:
    store, evaluated = filled
    found = Pipeline(settings_in(folder), store)
    number = next(i for i, row in enumerate(evaluated.rows) if row.method == "CRANE")
    row, (items, losses) = evaluated.rows[number], evaluated.outcomes[number]
    for layer, neuron in row.neurons.pairs():
        with torch.no_grad():
            found.model.model.layers[layer].mlp.down_proj.weight[:, neuron] = 0
    pd.testing.assert_frame_equal(multiple_choice.evaluate(found.model, found.prepared), items)
    expected = perplexity(found.model, found.perplexity_windows["zh"]).losses
    torch.testing.assert_close(losses["zh"], expected)
    assert not torch.allclose(expected, evaluated.original[1]["zh"])


# ------------------------------------------------------------------------------------ the tables

COLUMNS = [
    "method",
    "mask_language",
    "n_neurons",
    "en",
    "zh",
    "vi",
    "langspec_f1",
    "langspec_f1_low",
    "langspec_f1_high",
    *(f"{x}_{end}" for x in ("en", "zh", "vi") for end in ("low", "high")),
    "relative_en",
    "relative_zh",
    "relative_vi",
]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_the_published_columns(filled: tuple[Store, Evaluated], name: str) -> None:
    evaluated = filled[1]
    table = evaluated.table(TABLES[name], n_boot=50)
    assert list(table.columns) == COLUMNS
    rows = [(m, x) for m in ("LAPE", "LAPE matched", "CRANE", "Random") for x in LANGUAGES]
    assert list(zip(table["method"], table["mask_language"], strict=True)) == [("Org", ""), *rows]
    assert table["langspec_f1"].isna().tolist()[0]
    assert not table["langspec_f1"][1:].isna().any()
    assert table["n_neurons"].dtype.kind == "i"
    unmasked = evaluated.original[0]
    assert table.loc[0, "zh"] == unmasked[unmasked.task == TABLES[name]["zh"]].correct.mean()


def test_a_table_with_two_languages(folder: Path, filled: tuple[Store, Evaluated]) -> None:
    found = Pipeline(settings_in(folder, languages=("vi", "en")), filled[0])
    table = everything(found).table(TABLES["reading"], n_boot=10)
    assert list(table.columns)[:6] == [
        "method", "mask_language", "n_neurons", "vi", "en", "langspec_f1"
    ]  # fmt: skip


def test_every_item_under_every_mask(filled: tuple[Store, Evaluated]) -> None:
    items = filled[1].items()
    assert len(items) == (1 + 9 + 6) * 6 * N_ITEMS
    assert not items.duplicated(["method", "mask_language", "seed", "task", "id"]).any()
    assert set(items.columns) >= {"choice", "answer", "correct", "margin", "logprob_3"}


def test_an_empty_selection_is_a_row_and_a_warning(
    folder: Path, filled: tuple[Store, Evaluated]
) -> None:
    found = Pipeline(settings_in(folder, threshold=1e6), filled[0])
    with pytest.warns(UserWarning, match="no neuron"):
        evaluated = everything(found)
    with pytest.warns(UserWarning, match="CRANE selects no neuron for vi"):
        table = evaluated.table(TABLES["paper"], n_boot=10)
    org = table.iloc[0]
    for method in ("CRANE", "Random", "LAPE matched"):
        rows = table[table["method"] == method]
        assert rows["n_neurons"].tolist() == [0, 0, 0]
        assert rows["langspec_f1"].tolist() == [0, 0, 0]
        assert (rows[["en", "zh", "vi"]] == org[["en", "zh", "vi"]].astype(float)).all().all()


def outcome(**right: list[int]) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    """Made-up items of the knowledge tasks, and losses."""
    items = pd.concat(
        pd.DataFrame(
            {
                "task": f"knowledge_{x}",
                "cluster": [f"{x}{i}" for i in range(len(values))],
                "correct": np.array(values, dtype=bool),
            }
        )
        for x, values in right.items()
    )
    # The order in which a safetensors file gives them back.
    return items, {x: torch.tensor([1.0, 2.0]) + sum(right[x]) / 10 for x in sorted(right)}


@pytest.fixture
def made() -> Iterator[Evaluated]:
    """CRANE takes 3 of 4 from en and 1 from vi; random seeds hit en and vi in turn."""
    shape = {"intermediate": (1, 4)}
    one = NeuronSet.from_pairs([(0, 1)], shape)
    full, none, half = [1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 1, 1]
    yield Evaluated(
        ["en", "zh", "vi"],
        [
            Row("CRANE", "en", zero(one)),
            Row("Random", "en", zero(one), 0),
            Row("Random", "en", zero(one), 1),
        ],
        outcome(en=full, zh=half, vi=full),
        [
            outcome(en=[1, 0, 0, 0], zh=half, vi=[1, 1, 1, 0]),
            outcome(en=half, zh=half, vi=full),
            outcome(en=full, zh=half, vi=none),
        ],
    )


def test_random_rows_are_means_over_seeds(made: Evaluated) -> None:
    table = made.table(TABLES["knowledge"], n_boot=10).set_index("method")
    random = table.loc["Random"]
    assert [random[x] for x in LANGUAGES] == [0.75, 0.5, 0.5]
    means = metrics.langspec_f1(
        {"en": 1.0, "zh": 0.5, "vi": 1.0}, {"en": 0.75, "zh": 0.5, "vi": 0.5}, "en"
    )
    assert random["langspec_f1"] == means.f1
    seeds = made.seeds(TABLES["knowledge"])
    assert seeds["langspec_f1"].tolist() == pytest.approx([2 / 3, 0.0], abs=1e-6)
    assert random["langspec_f1"] != pytest.approx(seeds["langspec_f1"].mean(), abs=0.02)
    assert (random["langspec_f1_low"], random["langspec_f1_high"]) == (
        seeds["langspec_f1"].min(),
        seeds["langspec_f1"].max(),
    )
    assert seeds.columns.tolist() == [
        "method", "mask_language", "seed", "n_neurons", "en", "zh", "vi", "langspec_f1"
    ]  # fmt: skip
    assert seeds["seed"].tolist() == [0, 1]


def test_single_masks_have_paired_intervals_and_relative_drops(made: Evaluated) -> None:
    row = made.table(TABLES["knowledge"], n_boot=400).set_index("method").loc["CRANE"]
    # Precision 0.75 / (0.75 + 0.25), recall 0.75.
    assert row["langspec_f1"] == pytest.approx(0.75, abs=1e-6)
    assert row["langspec_f1_low"] < 0.75 < row["langspec_f1_high"]
    assert [row[f"relative_{x}"] for x in LANGUAGES] == [0.75, 0.0, 0.25]


def test_perplexities_are_paired_and_in_the_order_of_languages(made: Evaluated) -> None:
    table = made.perplexities()
    assert table.columns.tolist()[:7] == [
        "method", "mask_language", "seed", "n_neurons", "en", "zh", "vi"
    ]  # fmt: skip
    assert table.loc[0, "zh"] == pytest.approx(np.exp(1.7))
    crane = table.loc[1]
    assert crane["en_change"] == pytest.approx(-0.3)
    assert crane["en_se"] == pytest.approx(0, abs=1e-6)  # every window changes alike
    assert crane["en"] == pytest.approx(np.exp(1.6))
