"""lm-eval's own MMLU, C-Eval and Belebele over small data sets in the hub's schema."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import datasets
import hub_data
import lm_eval
import numpy as np
import pandas as pd
import pytest
import torch
from byte_tokens import WITH_BOS
from conftest import make_tiny_llama
from datasets.exceptions import DatasetNotFoundError
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from crane_core.interventions import UNTOUCHED, zero
from crane_core.masking import bake, masked
from crane_core.neurons import NeuronSet
from crane_lab.engines import answers, benchmarks, multiple_choice, shared_context
from crane_lab.engines.multiple_choice import Prepared, accuracies
from crane_lab.engines.tasks import load_tasks, tasks_digests
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.stages import comparisons, scoring
from crane_lab.store import ROOT, Store
from crane_lab.texts.languages import FLORES

#: One subject of each of MMLU's four groups; C-Eval's group lists all its subjects.
SUBJECTS = {"abstract_algebra": 3, "marketing": 5, "sociology": 4, "philosophy": 2}
NAMES = ("mmlu", "ceval-valid", "belebele_vie_Latn", "belebele_eng_Latn", "belebele_zho_Hans")
DIALECTS = ("vie_Latn", "eng_Latn", "zho_Hans", "deu_Latn")


@pytest.fixture(scope="module", autouse=True)
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """lm-eval's files unmodified, of MMLU those of `SUBJECTS` only; a cache of the tests' own."""
    mmlu = tmp_path_factory.mktemp("tasks") / "mmlu"
    real = benchmarks.FOLDERS[0]
    keep = [f"mmlu_{subject}.yaml" for subject in SUBJECTS]
    mmlu.mkdir()
    for path in (*real.glob("_*"), *(real / name for name in keep)):
        if path.is_file():
            shutil.copy(path, mmlu)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmarks, "FOLDERS", (mmlu, *benchmarks.FOLDERS[1:]))
        patch.setattr(
            datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets"))
        )
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("hub")
    subjects = benchmarks.subjects("ceval-valid")
    assert len(subjects) == 52
    write = hub_data.write_dataset
    configs = {name: hub_data.mmlu(name, n) for name, n in SUBJECTS.items()}
    write(root / "cais/mmlu", configs, hub_data.MMLU, "mit")
    configs = {name: hub_data.ceval(name, 1 + len(name) % 2) for name in subjects}
    write(root / "ceval/ceval-exam", configs, hub_data.CEVAL)
    configs = {name: hub_data.belebele(name, 8) for name in DIALECTS}
    write(root / "facebook/belebele", configs, hub_data.BELEBELE)
    return root


def make_model(positions: int = 2048) -> LlamaForCausalLM:
    return make_tiny_llama(vocab_size=257, max_position_embeddings=positions)


MODEL = make_model()


@pytest.fixture(scope="module")
def harness(data: Path) -> benchmarks.Harness:
    return benchmarks.load(NAMES, num_fewshot=2, data=data)


@pytest.fixture(scope="module")
def prepared(harness: benchmarks.Harness) -> Prepared:
    return harness.prepare(MODEL, WITH_BOS)


@pytest.fixture(scope="module")
def items(prepared: Prepared) -> pd.DataFrame:
    return multiple_choice.evaluate(MODEL, prepared)


def test_scores_prompts_and_items_are_lm_evals(
    data: Path,
    prepared: Prepared,
    items: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # From here lm-eval finds `cais/mmlu` and so on as folders, by the definitions' own names.
    monkeypatch.chdir(data)
    theirs = lm_eval.simple_evaluate(
        HFLM(pretrained=MODEL, tokenizer=WITH_BOS, batch_size=8),
        tasks=list(NAMES),
        num_fewshot=2,
        task_manager=benchmarks._manager(benchmarks.FOLDERS),
        bootstrap_iters=0,
    )
    expected = {name: theirs["results"][name]["acc,none"] for name in NAMES}
    assert accuracies(items)["accuracy"].to_dict() == pytest.approx(expected, abs=1e-12)
    for name, group in items.groupby("subtask", sort=False):
        samples = sorted(theirs["samples"][name], key=lambda sample: sample["doc_id"])
        prompts = [tuple(a) for s in samples for a in _arguments(s)]
        mine = [r.args for r in prepared.requests if r.task_name == name]
        assert mine == prompts
        logprobs = [[float(r[0][0]) for r in sample["resps"]] for sample in samples]
        columns = [f"logprob_{option}" for option in range(4)]
        np.testing.assert_allclose(group[columns], logprobs, rtol=1e-5, atol=1e-5)
        assert group["correct"].tolist() == [bool(sample["acc"]) for sample in samples]


def _arguments(sample: dict[str, Any]) -> list[tuple[str, str]]:
    found = sample["arguments"]
    return [tuple(a.values()) if isinstance(a, dict) else a for a in _values(found)]


def _values(found: Any) -> list[Any]:
    return list(found.values()) if isinstance(found, dict) else list(found)


def test_one_row_per_item(items: pd.DataFrame) -> None:
    assert items["task"].drop_duplicates().tolist() == list(NAMES)
    assert items.groupby("task")["language"].unique().map(list).to_dict() == {
        "mmlu": ["en"],
        "ceval-valid": ["zh"],
        "belebele_vie_Latn": ["vi"],
        "belebele_eng_Latn": ["en"],
        "belebele_zho_Hans": ["zh"],
    }
    mmlu = items[items["task"] == "mmlu"]
    sizes = {f"mmlu_{name}": n for name, n in SUBJECTS.items()}
    assert mmlu["subtask"].value_counts().to_dict() == sizes
    assert mmlu["cluster"].is_unique and (mmlu["cluster"] == mmlu["id"]).all()
    assert items["id"].is_unique and "mmlu_marketing-00004" in set(items["id"])
    # Two questions on each passage, which is the same one in every language.
    by_language = items[items["task"].str.startswith("belebele")].groupby("task")["cluster"]
    clusters = by_language.apply(list).tolist()
    assert clusters[0] == clusters[1] == clusters[2]
    assert len(set(clusters[0])) == 4 and len(clusters[0]) == 8
    right = items.apply(lambda row: row[f"logprob_{row['answer']}"], axis=1)
    others = items.apply(
        lambda row: max(row[f"logprob_{o}"] for o in range(4) if o != row["answer"]), axis=1
    )
    np.testing.assert_allclose(items["margin"], right - others, atol=1e-5)
    assert (items["correct"] == (items["choice"] == items["answer"])).all()


def test_options_are_known_by_their_text(prepared: Prepared) -> None:
    texts = comparisons.option_texts(prepared)
    assert texts["mmlu_marketing-00001"] == [f"marketing {i}" for i in range(1, 5)]
    assert texts["belebele_vie_Latn-00002"] == ["3", "4", "5", "6"]
    assert texts["ceval-valid_law-00000"] == [f"第{i}项" for i in range(4)]


@pytest.mark.parametrize(
    ("said", "category"),
    [
        ("B", "gold"),
        ("(B) of", "gold"),
        ("C.", "wrong option"),
        ("marketing 2", "gold"),
        ("A market", "same language"),
    ],
)
def test_a_letter_names_an_option(
    data: Path, said: str, category: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = benchmarks.load(["mmlu"], 0, data=data).prepare(MODEL, WITH_BOS)
    place = next(i for i, x in enumerate(prepared.described) if x.id == "mmlu_marketing-00001")
    only = dataclasses.replace(prepared.described[place], answer=1)
    monkeypatch.setattr(answers, "first_lines", lambda *_: [said])
    one = dataclasses.replace(
        prepared, described=(only,), requests=prepared.requests[place * 4 : place * 4 + 4]
    )
    table = answers.answer_instead(MODEL, WITH_BOS, one, n_items=1)
    assert table["category"].tolist() == [category]
    assert table["answer"].tolist() == ["marketing 2"]


def test_limit_is_spread_over_the_subjects_and_keeps_ids(data: Path, items: pd.DataFrame) -> None:
    names = ["mmlu", "belebele_vie_Latn"]
    few = benchmarks.load(names, 2, limit=6, data=data)
    table = multiple_choice.evaluate(MODEL, few.prepare(MODEL, WITH_BOS))
    assert table.groupby("task").size().to_dict() == dict.fromkeys(names, 6)
    assert table.loc[table["task"] == "mmlu", "id"].tolist() == [
        *("mmlu_abstract_algebra-00000", "mmlu_abstract_algebra-00002"),
        *("mmlu_marketing-00001", "mmlu_marketing-00004"),
        *("mmlu_sociology-00001", "mmlu_sociology-00003"),
    ]
    # The same items have the same prompts and so the same outcomes.
    known = items.set_index("id").loc[table["id"]]
    for column in ("answer", "choice", "cluster"):
        assert table[column].tolist() == known[column].tolist()
    np.testing.assert_allclose(table["margin"], known["margin"], atol=1e-5)


def test_data_are_found_by_the_definitions_own_names(
    data: Path, harness: benchmarks.Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)  # there `facebook/belebele` is a folder, which `datasets` takes
    found = benchmarks.load(["belebele_vie_Latn"], 2)
    assert found.tasks["belebele_vie_Latn"].config.dataset_path == "facebook/belebele"
    assert found.fingerprint.items() <= harness.fingerprint.items()


def test_data_without_a_card_are_found_by_folder(
    data: Path, harness: benchmarks.Harness, tmp_path: Path
) -> None:
    copy = shutil.copytree(data / "cais", tmp_path / "cais") / "mmlu"
    (copy / "README.md").unlink()
    found = benchmarks.load(["mmlu"], 2, data=tmp_path)
    assert found.fingerprint.items() <= harness.fingerprint.items()
    shutil.rmtree(copy / "sociology")
    with pytest.raises(FileNotFoundError, match="or with a folder 'sociology' of files"):
        benchmarks.load(["mmlu"], data=tmp_path)


def test_no_item_is_its_own_example(data: Path) -> None:
    # Belebele has one split, so an item has to be left out of its own prompt.
    tasks = benchmarks.load(["belebele_vie_Latn"], 5, limit=4, data=data).tasks
    for request in multiple_choice.prepare(MODEL, WITH_BOS, tasks, lambda *_: _ITEM).requests:
        question = f"Q: {request.doc['question']}"
        assert request.args[0].count(question) == 1
        assert request.args[0].count("\nQ: ") == 6


_ITEM = multiple_choice.Item("t", "t", "en", "i", "", 0, "", ("a", "b", "c", "d"), "")


def test_examples_are_computed_once_for_many_items(data: Path) -> None:
    found = benchmarks.load(["mmlu"], 5, data=data).prepare(MODEL, WITH_BOS).packed
    alone = sum(len(WITH_BOS(context)["input_ids"]) for context, _ in set(found.pairs)) / 4
    assert found.truncated == 0
    assert found.tokens < 0.5 * alone
    assert max(batch.input_ids.shape[1] for batch in found.batches) <= 2 * 2048


def test_prompts_too_long_lose_their_beginning_as_in_lm_eval(data: Path) -> None:
    model = make_model(positions=256)
    with pytest.warns(UserWarning, match="lose their beginning"):
        found = benchmarks.load(["mmlu"], 5, data=data).prepare(model, WITH_BOS)
    assert found.packed.truncated == len(found.requests) == 4 * sum(SUBJECTS.values())
    table = multiple_choice.evaluate(model, found)
    theirs = HFLM(pretrained=model, tokenizer=WITH_BOS, batch_size=8)
    logprobs = [
        logprob for logprob, _ in theirs.loglikelihood(list(found.requests), disable_tqdm=True)
    ]
    columns = [f"logprob_{option}" for option in range(4)]
    np.testing.assert_allclose(table[columns].to_numpy().ravel(), logprobs, rtol=1e-5, atol=1e-5)


def test_portions_change_nothing(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = shared_context.SharedContextLM(MODEL, WITH_BOS)
    expected = lm.loglikelihood(list(prepared.requests[:60]), disable_tqdm=True)
    monkeypatch.setattr(shared_context, "_PORTION", 7)
    lm = shared_context.SharedContextLM(MODEL, WITH_BOS)
    found = lm.loglikelihood(list(prepared.requests[:60]), disable_tqdm=True)
    np.testing.assert_allclose([x for x, _ in found], [x for x, _ in expected], atol=1e-5)


# ------------------------------------------------------------------------------------- the tables


def test_every_language_has_a_task_of_lm_evals() -> None:
    known = benchmarks._manager(benchmarks.FOLDERS).all_tasks
    names = {name for table in benchmarks.TABLES.values() for name in table.values()}
    assert names <= set(known) and len(FLORES) > 90
    paper, reading = benchmarks.TABLES["paper"], benchmarks.TABLES["reading"]
    assert {x: paper[x] for x in ("en", "zh", "vi")} == {
        "en": "mmlu",
        "zh": "ceval-valid",
        "vi": "belebele_vie_Latn",
    }
    assert {x: reading[x] for x in ("en", "zh", "vi")} == {
        "en": "belebele_eng_Latn",
        "zh": "belebele_zho_Hans",
        "vi": "belebele_vie_Latn",
    }


def test_all_subjects_are_found() -> None:
    real = (*(p.parent / "mmlu" / "default" for p in benchmarks.FOLDERS[1:2]),)
    manager = benchmarks._manager(real)
    parts = benchmarks._parts(manager, "mmlu")
    assert len(parts) == len(set(parts)) == 57


# --------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ["mmlu_pro"]}, "unknown benchmark 'mmlu_pro'; expected 'mmlu', 'ceval-valid'"),
        ({"num_fewshot": -1}, "num_fewshot must be at least 0, got -1"),
        ({"num_fewshot": 6}, "num_fewshot is 6, but task 'mmlu_.*' has 5 examples to show"),
        (
            {"names": ["belebele_vie_Latn"], "num_fewshot": 8},
            "num_fewshot is 8, but task 'belebele_vie_Latn' has 7 examples",
        ),
        ({"limit": 0}, "limit must be at least 1 item per benchmark, got 0"),
    ],
)
def test_bad_requests(data: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        benchmarks.load(**{"names": ["mmlu"], "data": data, **arguments})


def test_missing_data(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no 'test' of '.*' in .*mmlu, which does not"):
        benchmarks.load(["mmlu"], data=tmp_path)


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (ConnectionError("Couldn't reach"), ConnectionError, "hub did not answer.*benchmark_data"),
        (DatasetNotFoundError("a gated dataset"), PermissionError, "accept its terms.*HF_TOKEN"),
        (DatasetNotFoundError("doesn't exist"), FileNotFoundError, "no such dataset"),
    ],
)
def test_data_that_cannot_be_fetched(
    raised: Exception, kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(kind, match=f"benchmark 'belebele_vie_Latn', data facebook/.*{message}"):
        benchmarks.load(["belebele_vie_Latn"])


def test_no_network_and_nothing_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"hub did not answer.*run once with network"):
        benchmarks.load(["belebele_vie_Latn"])


def _one_subject(root: Path, **changes: Any) -> Path:
    splits = {k: [dict(row) for row in v] for k, v in hub_data.mmlu("sociology", 3).items()}
    splits["test"][1].update(changes)
    configs = {**{name: hub_data.mmlu(name, 1) for name in SUBJECTS}, "sociology": splits}
    hub_data.write_dataset(root / "cais/mmlu", configs, hub_data.MMLU)
    return root


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"choices": ["a", "b", "c", "d", "e"]}, "expected 4 options, got 5"),
        ({"choices": ["a"]}, "expected 4 options, got 1"),
        ({"choices": None}, "expected 4 options, got None"),
        ({"choices": ["a", None, "c", "d"]}, r"expected 4 texts as options, got \['a', None"),
        ({"answer": 4}, "the answer is 4; expected one of 0, 1, 2, 3"),
        ({"answer": -1}, "the answer is -1; expected one of"),
        ({"answer": None}, "the answer is None; expected one of"),
        ({"question": None}, "expected a text as question, got None"),
        ({"question": " "}, "expected a text as question, got ' '"),
        ({"question": "nan"}, "expected a text as question, got 'nan'"),
    ],
)
def test_items_of_another_kind(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"'mmlu_sociology', row 1 of split 'test': {message}"):
        benchmarks.load(["mmlu"], data=_one_subject(tmp_path, **changes))


@pytest.mark.parametrize("options", [["a", "b", "c", "a "], ["a", "b", "c", ""]])
def test_options_that_are_empty_or_repeated_are_counted(tmp_path: Path, options: list[str]) -> None:
    # MMLU has some, and what is chosen is a letter.
    folder = _one_subject(tmp_path, choices=options)
    with pytest.warns(UserWarning, match=r"'mmlu_sociology': 1 of 3 items have options that are"):
        assert len(benchmarks.load(["mmlu"], data=folder).tasks) == 4


def test_a_task_with_other_numbers_of_options(harness: benchmarks.Harness) -> None:
    task = harness.tasks["mmlu_sociology"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task.config, "doc_to_choice", ["A", "B", "C", "D", "E"])
        with pytest.raises(ValueError, match="'mmlu_sociology', item 0: expected 4 options per"):
            multiple_choice.prepare(MODEL, WITH_BOS, {"mmlu_sociology": task}, harness.item)


# ------------------------------------------------------------------------------------ in a pipeline


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("checkpoint")
    MODEL.save_pretrained(folder)
    WITH_BOS.save_pretrained(folder)
    return folder


@pytest.fixture
def settings(checkpoint: Path, data: Path) -> Settings:
    return Settings(
        model=str(checkpoint),
        languages=("en", "vi"),
        benchmarks="harness",
        benchmark_data=str(data),
        task_tables=("reading",),
        num_fewshot=1,
        n_perplexity=1,
        window=8,
    )


NEURONS = NeuronSet.from_pairs([(0, 3), (1, 7), (2, 11)], {"intermediate": (3, 48)})


def test_items_are_kept_by_model_mask_and_task(
    settings: Settings, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    found = Pipeline(settings, store)
    masking = zero(_some(found))
    tables = [found.items(), found.items(masking)]
    assert set(tables[0]["task"]) == {"belebele_eng_Latn", "belebele_vie_Latn"}
    assert not np.allclose(tables[0]["margin"], tables[1]["margin"])

    calls, real = [], multiple_choice.evaluate

    def counted(*arguments: Any, **options: Any) -> pd.DataFrame:
        calls.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(scoring, "evaluate", counted)
    again = Pipeline(settings, store)
    for intervention, table in zip((UNTOUCHED, masking), tables, strict=True):
        pd.testing.assert_frame_equal(again.items(intervention), table)
    assert not calls
    Pipeline(dataclasses.replace(settings, num_fewshot=0), store).items()
    assert len(calls) == 1
    Pipeline(dataclasses.replace(settings, task_limit=3), store).items()
    assert len(calls) == 2
    copy = shutil.copytree(data, tmp_path / "copy")
    moved = dataclasses.replace(settings, benchmark_data=str(copy))
    Pipeline(moved, store).items()
    assert len(calls) == 2  # where the data lie does not matter, what they say does
    rows = [dict(row) for row in hub_data.belebele("vie_Latn", 8)["test"]]
    rows[7]["correct_answer_num"] = "1"
    configs = {name: hub_data.belebele(name, 8) for name in DIALECTS}
    hub_data.write_dataset(
        copy / "facebook/belebele", {**configs, "vie_Latn": {"test": rows}}, hub_data.BELEBELE
    )
    Pipeline(moved, store).items()
    assert len(calls) == 3


def _some(found: Pipeline) -> NeuronSet:
    return NeuronSet.from_pairs([(0, 3), (1, 7), (2, 11)], found.shape)


def test_tables_of_a_pipeline(settings: Settings, tmp_path: Path) -> None:
    store = Store(tmp_path)
    harness = Pipeline(dataclasses.replace(settings, task_tables=None), store)
    assert list(harness.tables) == ["paper", "reading"]
    assert harness.task_names == ["mmlu", "belebele_vie_Latn", "belebele_eng_Latn"]
    about = json.loads(json.dumps(Pipeline(settings, store).provenance()))
    assert about["benchmarks"] == "harness"
    assert list(about["tasks"]) == ["belebele_eng_Latn", "belebele_vie_Latn"]
    testbed = Pipeline(Settings(model=settings.model), store)
    assert testbed.provenance()["tasks"] == tasks_digests(testbed.task_names)
    assert list(testbed.tables) == ["paper", "knowledge", "reading"]
    for changes, message in (
        ({"benchmarks": "helm"}, "parameter benchmarks is 'helm': expected one of"),
        ({"benchmarks": "testbed"}, "num_fewshot is 1, but the testbed's tasks have no examples"),
        ({"task_tables": ("knowledge",)}, "unknown table 'knowledge': expected one of"),
        ({"benchmark_backend": "onnx"}, "parameter benchmark_backend is 'onnx'"),
    ):
        with pytest.raises(ValueError, match=message):
            Pipeline(dataclasses.replace(settings, **changes), store).items()  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------ other engines


class FakeVLLM:
    """lm-eval's `vllm` class as seen from here, on Hugging Face's model."""

    made: ClassVar[list[dict[str, Any]]] = []
    stopped = 0
    last: Any = None

    def __init__(self, pretrained: str, dtype: str, max_model_len: int, **options: Any) -> None:
        self.made.append({"dtype": dtype, "max_model_len": max_model_len, **options})
        model = AutoModelForCausalLM.from_pretrained(pretrained, dtype=getattr(torch, dtype))
        tokenizer = AutoTokenizer.from_pretrained(pretrained)
        self._lm = HFLM(pretrained=model.eval(), tokenizer=tokenizer, batch_size=8)
        self.path = Path(pretrained)
        FakeVLLM.last = self
        self.model = self.llm_engine = self.engine_core = self

    def shutdown(self) -> None:
        FakeVLLM.stopped += 1

    def loglikelihood(self, requests: Any, disable_tqdm: bool) -> Any:
        return self._lm.loglikelihood(requests, disable_tqdm=disable_tqdm)


def test_vllm_gets_a_checkpoint_with_the_mask_in_it(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmarks, "get_model", lambda name: {"vllm": FakeVLLM}[name])
    store = Store(tmp_path / "store")
    on_vllm = Pipeline(dataclasses.replace(settings, benchmark_backend="vllm"), store)
    on_hf = Pipeline(settings, store)
    for mask in (UNTOUCHED, zero(_some(on_hf))):
        table, expected = on_vllm.items(mask), on_hf.items(mask)
        assert not FakeVLLM.last.path.exists() and FakeVLLM.last.path.is_relative_to(store.root)
        pd.testing.assert_frame_equal(table, expected, rtol=1e-5, atol=1e-5)
    bos = on_hf.tokenizer.bos_token
    assert FakeVLLM.last.tok_encode(f"a{bos}b") == [
        *on_hf.tokenizer("a")["input_ids"],
        *on_hf.tokenizer(f"{bos}b", add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ],
    ]
    # The longest text and a token, of 2,048 positions.
    longest = on_hf.prepared.packed.longest + 2
    assert longest < 2048
    made = {"dtype": "float32", "max_model_len": longest, "tensor_parallel_size": 1}
    assert FakeVLLM.made == [made] * 2
    assert FakeVLLM.stopped == 2


def test_vllm_is_not_installed(prepared: Prepared) -> None:
    with pytest.raises(ModuleNotFoundError, match="lm-eval cannot import vLLM"):
        benchmarks.evaluate_with_vllm(MODEL, prepared)


def test_results_of_another_number(prepared: Prepared) -> None:
    with pytest.raises(ValueError, match=r"3 results for \d+ requests"):
        multiple_choice.outcomes(prepared, [(0.0, False)] * 3)


def test_the_command_line_runs_a_baked_checkpoint_by_its_path(tmp_path: Path) -> None:
    model = make_model()
    neurons = NeuronSet.from_pairs(
        [(layer, i) for layer in range(3) for i in range(0, 48, 2)],
        {"intermediate": (3, 48), "gate": (3, 48), "up": (3, 48), "down": (3, 32)},
    )
    path = bake(model, neurons, tmp_path / "baked", WITH_BOS)
    command = "--model hf --tasks knowledge_en --include_path data/testbed/tasks --limit 40"
    arguments = ["--model_args", f"pretrained={path},dtype=float32", "--device", "cpu"]
    arguments += ["--output_path", str(tmp_path / "out"), "--batch_size", "8"]
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", *command.split(), *arguments],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(next((tmp_path / "out").rglob("results_*.json")).read_text())
    tasks = load_tasks(["knowledge_en"], ROOT / "data" / "testbed" / "tasks")
    tasks["knowledge_en"].dataset["test"] = tasks["knowledge_en"].dataset["test"].select(range(40))
    with masked(model, neurons):
        expected = accuracies(multiple_choice.evaluate(model, WITH_BOS, tasks))
    assert results["results"]["knowledge_en"]["acc,none"] == pytest.approx(
        expected.loc["knowledge_en", "accuracy"]
    )
