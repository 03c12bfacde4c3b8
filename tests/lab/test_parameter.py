"""Every parameter is checked before anything runs: type, choice, range, and what goes together."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from crane_lab.parameter import NoSuchPathError, Parameter, check_paths
from crane_lab.pipeline import Pipeline
from crane_lab.runs import Project
from crane_lab.runs.needs import check_needs, methods_named
from crane_lab.settings import PARAMETERS, Settings
from crane_lab.store import Store

PROJECT = Project()


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("batch_size", "0", "at least 1"),
        ("batch_size", "-5", "at least 1"),
        ("window", "1", "at least 2"),
        ("n_perplexity", "0", "at least 1"),
        ("seed", "-1", "from 0 to 4294967295"),
        ("seed", "99999999999999999999", "from 0 to"),
        ("random_seeds", "[]", "an empty list"),
        ("random_seeds", "[-1, 2]", "-1: expected from 0"),
        ("random_seeds", "[1, 2, 1]", "has 1 2 times"),
        ("languages", "[en, en, zh]", "every entry once"),
        ("languages", "[en, '../etc']", "a code such as en"),
        ("languages", "[en]", "at least two different"),
        ("threshold", "nan", "a finite number"),
        ("threshold", "-inf", "a finite number"),
        ("threshold", ".inf", "a finite number"),
        ("repetition_penalty", "0", "a number above 0"),
        ("fdr", "1.0", "between 0 and 1"),
        ("fdr", "0", "between 0 and 1"),
        ("n_checked", "2", "at least 4"),
        ("n_splits", "0", "at least 1"),
        ("budgets", "[0, 8]", "at least 1"),
        ("task_limit", "0", "at least 1"),
        ("num_fewshot", "-1", "at least 0"),
        ("device", "gpu", "cpu, cuda, cuda:<number> or auto"),
        ("dtype", "fp32", "expected one of 'float32'"),
        ("rule", "nonsense", "expected one of 'contrast'"),
        ("statistic", "", "expected one of 'kurtosis'"),
        ("model", " ", "a text that is not empty"),
        ("model", "None", "cannot be None"),
        ("corpus", "a\nb", "without control characters"),
        ("judge_endpoint", "localhost:8000", "an address such as"),
        ("benchmark_data", "3", "no such folder"),
        ("judge_prompt", "[a, b]", "no such file"),
        ("judge_prompt", "data", "no such file"),
        ("questions", "q" * 3000, "no such folder"),
        # What can each be, but not together.
        ("rule", "top", "needs a budget"),
        ("score", "weight_gradient_sum", "site to 'projections'"),
        ("num_fewshot", "5", "no examples to show"),
        ("context", "96", "no room for its question"),
        ("dtype", "float16", "which is for GPUs"),
    ],
)
def test_what_cannot_be_is_refused_at_once(name: str, text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as caught:
        PROJECT.run("testbed", {name: text})
    assert name in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("task_limit", "ten"),
        ("task_limit", "2.5"),
        ("n_samples", "010"),  # YAML: 8
        ("n_samples", "1:30"),  # YAML: 90
        ("max_document_tokens", "yes"),
        ("random_seeds", "[1.0]"),
        ("task_tables", "[1]"),
    ],
)
def test_another_type_is_refused_where_the_default_says_nothing(name: str, text: str) -> None:
    with pytest.raises(TypeError, match=f"parameter {name} is"):
        PROJECT.run("testbed", {name: text})


def test_a_number_written_otherwise_comes_with_a_hint() -> None:
    for text, hint in (("1e3", "write 1000"), ("4096.0", "write 4096")):
        with pytest.raises(TypeError, match=hint):
            PROJECT.run("testbed", {"budget": text})


def test_every_parameter_with_a_number_has_a_range() -> None:
    for name, parameter in PARAMETERS.items():
        if "int" in (parameter.type_name, parameter.entry):
            assert parameter.must is not None, name
            with pytest.raises(ValueError, match="expected"):
                parameter.check([-7] if parameter.type_name == "list" else -7)
        default = parameter.default
        assert parameter.check(default) == default


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 0},
        {"threshold": math.nan},
        {"languages": "en"},
        {"mask_value": "mean", "site": "projections"},
        {"rule": "nonsense"},
    ],
)
def test_settings_made_by_hand_are_checked_alike(change: dict[str, Any]) -> None:
    for make in (lambda: Settings(**change), lambda: Settings.of(change)):
        with pytest.raises((ValueError, TypeError), match=next(iter(change))):
            make()
    assert Settings(threshold=2) == Settings(threshold=2.0)
    # Tables are indexed by it, and pandas takes a tuple for one name.
    assert Settings(languages=["en", "zh"]).languages == ["en", "zh"]


def test_a_page_checks_its_own_parameters_when_run_by_hand() -> None:
    with pytest.raises(ValueError, match="fdr is 2"):
        Settings.of({"fdr": 2.0})


def test_paths_that_are_given_must_be_there(tmp_path: Path) -> None:
    own = Parameter("texts", "a", "", "str", path="folder")
    check_paths(
        {"texts": own}, {"texts": "a", "other": "x"}, tmp_path
    )  # the default may be missing
    for value in ("b", "x" * 300):
        with pytest.raises(NoSuchPathError, match=rf"texts is .*no such folder in {tmp_path}"):
            check_paths({"texts": own}, {"texts": value}, tmp_path)
    (tmp_path / "b").mkdir()
    check_paths({"texts": own}, {"texts": "b"}, tmp_path)
    with pytest.raises(NoSuchPathError, match="tasks is"):
        Pipeline(Settings(tasks=str(tmp_path / "none")), Store(tmp_path))


def test_what_a_notebook_uses_is_read_from_it() -> None:
    named = {nb.name: methods_named(nb.source) for nb in PROJECT.notebooks}
    assert "judged" in named["05_open_ended"] and "evaluated" in named["04_table1"]
    assert "judged" not in named["03b_masking"]  # a function of a module


@pytest.mark.parametrize(
    ("change", "number", "message"),
    [
        ({"n_perplexity": 10**6}, "02", "perplexity_corpus.*n_perplexity is 1000000"),
        ({"budget": 10**6}, "02", "larger than the 2048 neurons"),
        ({"chat_model": "data/nothing"}, "06", "data/nothing"),
        ({"device": "cuda:99"}, "02", "device"),
        ({"engine": "vllm"}, "05", "vLLM is not installed"),
        ({"judge": "llm"}, "05", "OPENAI_API_KEY is not set"),
        ({"judge": "rubric", "questions": "own"}, "05", "rubric knows the testbed's world only"),
        ({"task_tables": ["paper", "none"]}, "04", "unknown table 'none'"),
        ({"context": 20, "max_new_tokens": 10}, "05", "no room for an answer"),
    ],
)
def test_what_would_fail_hours_later_fails_before(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    number: str,
    message: str,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    if change.get("questions") == "own":
        for language in ("en", "zh", "vi"):
            (tmp_path / f"{language}.txt").write_text("What is love?\n", "utf-8")
        change = {**change, "questions": str(tmp_path)}
    values = {name: p.default for name, p in PROJECT.parameters.items()} | change
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        check_needs([PROJECT.find(number)], values, tmp_path / "store")
