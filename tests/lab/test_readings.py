"""Every reading of the paper is a parameter: given on a command line, it reaches the result."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from test_pipeline import LANGUAGES, folder, settings_in
from test_runs import make_project

from crane_core import concentration, metrics
from crane_core.selection import normalise, select
from crane_lab.pipeline import TABLES, Pipeline
from crane_lab.runs import Project, Run
from crane_lab.settings import OF_THE_METHOD, PARAMETERS, Settings
from crane_lab.store import Store

__all__ = ["folder"]  # a fixture: the model, corpora and tasks made up in test_pipeline

pytestmark = pytest.mark.filterwarnings("ignore:kurtosis of", "ignore:.*no neuron")

NOTEBOOK = """\
# %% tags=["parameters"]
rule = "contrast"  # contrast, threshold or top, or shares of all languages: relative
run_dir = "runs/testbed"  # where results are written; the runner sets it

# %%
from crane_lab.settings import Settings

print(Settings.of(globals()))
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = make_project(tmp_path / "book", n01_one=NOTEBOOK)
    for path in (made.root / "notebooks" / "profiles").glob("*.yaml"):
        path.write_text("n_samples: 20\n")
    return made


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def given(project: Project, folder: Path, **overrides: str) -> Settings:
    """The settings that the notebook has with `-p name value`, on the made-up model."""
    run: Run = project.run("testbed", overrides)
    (notebook,) = run.notebooks
    received = run.received(notebook)
    small = dataclasses.asdict(settings_in(folder))
    return Settings.of({**small, **{k: v for k, v in received.items() if k in overrides}})


# ------------------------------------------------------------------------- they reach the result


def test_a_statistic(project: Project, folder: Path, store: Store) -> None:
    found = Pipeline(given(project, folder, statistic="mean_abs"), store)
    assert found.settings.statistic == "mean_abs"
    collected = {x: found.collected(x)["intermediate"] for x in LANGUAGES}
    size = {x: concentration.compute("mean_abs", c) for x, c in collected.items()}
    own: Any = found.statistic()
    assert all(torch.equal(own[x], size[x]) for x in LANGUAGES)
    chosen = found.neuron_sets()
    normalised = normalise(size, "zscore")
    for x in LANGUAGES:
        assert chosen[x] == select(normalised, x, threshold=0.5, shape=found.shape)
    default = Pipeline(given(project, folder), store)
    assert chosen != default.neuron_sets()
    rows = {r.language: r.neurons for r in found.rows() if r.method == "CRANE"}
    assert rows == chosen  # Table 1's
    kurtosis: Any = found.kurtosis()
    plain: Any = default.statistic()
    assert all(torch.equal(kurtosis[x], plain[x]) for x in LANGUAGES)


def test_a_statistic_of_which_little_means_much(
    project: Project, folder: Path, store: Store
) -> None:
    found = Pipeline(given(project, folder, statistic="participation_ratio"), store)
    ratio: Any = found.statistic()
    normalised: Any = found.normalised()
    for x in LANGUAGES:
        assert torch.equal(normalised[x], normalise({x: -ratio[x]}, "zscore")[x])


def test_a_statistic_that_sorts(project: Project, folder: Path, store: Store) -> None:
    found = Pipeline(given(project, folder, statistic="gini"), store)
    own: Any = found.statistic()
    assert all(own[x].isfinite().all() for x in LANGUAGES)
    assert len(found.collected("en")["intermediate"].sample) == found.settings.n_samples


def test_a_mask_value(project: Project, folder: Path, store: Store) -> None:
    default = Pipeline(given(project, folder), store)
    found = Pipeline(given(project, folder, mask_value="mean"), store)
    assert [r.neurons for r in found.rows()] == [r.neurons for r in default.rows()]
    row = next(r for r in found.rows() if r.method == "CRANE")
    (step,) = row.intervention.steps
    assert step.kind == "set" and isinstance(step.value, dict)
    assert torch.equal(step.value["intermediate"], found.neuron_values["mean"])
    to_zero = next(r for r in default.rows() if r.method == "CRANE")
    assert not torch.equal(
        found.losses(row.intervention)["en"], default.losses(to_zero.intervention)["en"]
    )
    assert not found.items(row.intervention).equals(default.items(to_zero.intervention))


def test_a_site(project: Project, folder: Path, store: Store) -> None:
    found = Pipeline(given(project, folder, site="projections"), store)
    rows = found.rows()
    assert {row.method for row in rows} == {"CRANE", "Random"}
    assert all(set(row.neurons.sites) <= {"gate", "up", "down"} for row in rows)
    default = Pipeline(given(project, folder), store)
    assert found.neuron_sets() == default.neuron_sets("projections")
    with pytest.raises(ValueError, match="intermediate neurons only"):
        Pipeline(given(project, folder, site="projections", mask_value="p90"), store).rows()


@pytest.mark.parametrize(
    ("overrides", "how", "relative"),
    [
        ({}, "max", False),
        ({"f1_others": "sum"}, "sum", False),
        ({"f1_others": "mean"}, "mean", False),
        ({"f1_drop": "relative"}, "max", True),
        ({"f1_others": "sum", "f1_drop": "relative"}, "sum", True),
    ],
)
def test_readings_of_langspec_f1(
    project: Project,
    folder: Path,
    store: Store,
    overrides: dict[str, str],
    how: str,
    relative: bool,
) -> None:
    found = Pipeline(given(project, folder, **overrides), store)
    rows = [row for row in found.rows() if row.method in ("LAPE matched", "Random")]
    evaluated = found.evaluated(rows, losses=False)
    for tasks in (TABLES["paper"], TABLES["reading"]):
        table = evaluated.table(tasks, n_boot=10)
        org = {x: float(table[x].iloc[0]) for x in LANGUAGES}
        for row in table.iloc[1:].to_dict("records"):
            after = {x: row[x] for x in LANGUAGES}
            f1 = metrics.langspec_f1(org, after, row["mask_language"], how=how, relative=relative)
            assert row["langspec_f1"] == pytest.approx(f1.f1)
        for row in evaluated.seeds(tasks).to_dict("records"):
            after = {x: row[x] for x in LANGUAGES}
            f1 = metrics.langspec_f1(org, after, row["mask_language"], how=how, relative=relative)
            assert row["langspec_f1"] == pytest.approx(f1.f1)


def test_readings_of_langspec_f1_reach_judged_tables(
    project: Project, folder: Path, store: Store
) -> None:
    found = Pipeline(given(project, folder, f1_others="sum", f1_drop="relative"), store)
    assert (found.reading.how, found.reading.relative) == ("sum", True)


# ------------------------------------------------------------- nothing runs with what is not one


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rule", "nonsense", r"rule is 'nonsense': expected one of 'contrast', 'threshold', 'top'"),
        ("statistic", "kurtosi", r"statistic is 'kurtosi': expected one of 'kurtosis', "),
        ("mask_value", "p50", r"mask_value is 'p50': expected one of 'zero', 'mean', 'p10', 'p90'"),
        ("site", "attention", r"site is 'attention': expected one of 'intermediate', 'proj"),
        ("f1_others", "median", r"f1_others is 'median'"),
        ("f1_drop", "rel", r"f1_drop is 'rel': expected one of 'absolute', 'relative'"),
        ("objective", "first", r"objective is 'first'"),
        ("normalisation", "l2", r"normalisation is 'l2'"),
        ("engine", "magic", r"engine is 'magic': expected one of 'huggingface', 'vllm'"),
        ("judge", "me", r"judge is 'me'"),
        ("dtype", "float8", r"dtype is 'float8'"),
        ("rule", "None", r"rule is 'None'"),  # it has no None
    ],
)
def test_an_unknown_choice_is_refused(project: Project, name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        project.run("testbed", {name: text})
    (project.root / "notebooks" / "profiles" / "mine.yaml").write_text(f"{name}: '{text}'\n")
    with pytest.raises(ValueError, match=message):
        project.run("mine")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n_samples", "many"),
        ("n_samples", "None"),
        ("threshold", "high"),
        ("threshold", "true"),
        ("budget", "2.5"),
        ("budget", "some"),
        ("chat", "1"),
        ("languages", "en"),
        ("languages", "[1, 2]"),
        ("random_seeds", "[a]"),
        ("num_fewshot", "five"),
        ("task_tables", "paper"),
    ],
)
def test_another_type_is_refused(project: Project, name: str, text: str) -> None:
    with pytest.raises(TypeError, match=f"parameter {name} is {PARAMETERS[name].type_name}"):
        project.run("testbed", {name: text})


@pytest.mark.parametrize("text", ["None", "null", "~", ""])
def test_none_is_a_value_of_what_is_optional(project: Project, text: str) -> None:
    optional = [name for name, parameter in OF_THE_METHOD.items() if parameter.optional]
    assert {"budget", "max_document_tokens", "task_limit", "judge_prompt"} <= set(optional)
    run = project.run("testbed", dict.fromkeys(optional, text))
    assert {name: run.values[name] for name in optional} == dict.fromkeys(optional)
    (notebook,) = run.notebooks
    assert Settings.of(run.received(notebook)).budget is None


def test_optional_ones_take_their_own_type(project: Project) -> None:
    values = project.run(
        "testbed", {"budget": "12", "task_tables": "[paper]", "judge_prompt": "data/words.txt"}
    ).values
    assert (values["budget"], values["task_tables"]) == (12, ["paper"])
    assert values["judge_prompt"] == "data/words.txt"


def test_a_setting_that_no_page_names_can_be_given_to_all(project: Project) -> None:
    (notebook,) = project.notebooks
    assert set(notebook.parameters) == {"rule", "run_dir"}
    assert notebook.accepts == {"run_dir", *OF_THE_METHOD}
    run = project.run("testbed", {"statistic": "hoyer", "rule": "top", "budget": "9"})
    received = run.received(notebook)
    assert list(received) == ["rule", "run_dir", "budget", "n_samples", "statistic"]
    assert run.name != project.run("testbed", {"rule": "top", "budget": "9"}).name
    with pytest.raises(ValueError, match="unknown parameter 'statistics'"):
        project.run("testbed", {"statistics": "hoyer"})
    with pytest.raises(ValueError, match="unknown parameter 'n_splits'"):  # of another page
        project.run("testbed", {"n_splits": "2"})


def test_a_line_that_differs_from_the_settings_is_refused(project: Project) -> None:
    path = project.root / "notebooks" / "01_one.py"
    source = path.read_text()
    for wrong in (
        source.replace('rule = "contrast"', 'rule = "top"'),
        source.replace("or shares of all languages", "or shares"),
    ):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=r"parameter rule is not as crane_lab/settings\.py"):
            _ = Project(project.root).parameters
    assert PARAMETERS["rule"].line in source
