"""Profiles and parameters, the store of artefacts, and the execution of notebooks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from manifests import content

from crane_lab.cli.main import main
from crane_lab.parameter import Parameter
from crane_lab.runs import Project, RunError
from crane_lab.store import Store, atomic_path
from crane_lab.store.files import canonical, remove_leftovers

ONE = """\
# %% [markdown]
# # 一 · Một

# %% tags=["parameters"]
n_samples = 10  # samples per language
languages = ["en", "zh", "vi"]  # language codes, in order
threshold = 1.0  # selection threshold
label = "plain"  # a text
budget = None  # neurons to take, or None
run_dir = "runs/testbed"  # where results go

# %%
import sys
import warnings
from pathlib import Path

from crane_lab.store import atomic_path

with atomic_path(Path(run_dir) / "results" / "one.csv") as path:
    path.write_text(f"{n_samples},{threshold}\\n")
warnings.warn("an empty selection")
print("cwd", Path.cwd(), "python", sys.executable)
object()
"""

TWO = """\
# %% tags=["parameters"]
n_samples = 10  # samples per language
run_dir = "runs/testbed"  # where results go

# %%
print(n_samples)
"""


def make_project(root: Path, **notebooks: str) -> Project:
    (root / "notebooks" / "profiles").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "data" / "words.txt").write_text("một, hai, 三\n", "utf-8")
    profiles = root / "notebooks" / "profiles"
    (profiles / "testbed.yaml").write_text("n_samples: 20\n")
    (profiles / "smoke.yaml").write_text("extends: testbed\nthreshold: 2\n")
    for name, source in (notebooks or {"n01_one": ONE, "n02_two": TWO}).items():
        (root / "notebooks" / f"{name[1:]}.py").write_text(source, "utf-8")
    return Project(root)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "book")


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): content(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- files and store ----------------------------------------------------------------------------


def must_not_run() -> Any:
    raise AssertionError("computed although it is stored")


def test_store_computes_once_and_returns_what_it_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    square = torch.arange(6.0).reshape(2, 3)
    computed = {"a": square.T, "b": square[0], "c": square[0]}  # a view, and shared memory
    key = {"language": "vi", "n": 3}
    first = store.tensors("kurtosis", key, lambda: computed)
    again = Store(tmp_path).tensors("kurtosis", dict(reversed(key.items())), must_not_run)
    for name, tensor in computed.items():
        assert torch.equal(first[name], tensor)
        assert torch.equal(again[name], tensor)

    frame = pd.DataFrame({"method": ["CRANE"], "en": [0.25]})
    pd.testing.assert_frame_equal(store.table("table", key, lambda: frame), frame)
    pd.testing.assert_frame_equal(store.table("table", key, must_not_run), frame)
    assert store.value("sizes", key, lambda: {"名": (1, 2)}) == {"名": [1, 2]}
    assert store.value("sizes", key, must_not_run) == {"名": [1, 2]}
    assert store.value("sizes", {**key, "n": 4}, lambda: "other") == "other"


@pytest.mark.parametrize("damage", ["truncate", "alter", "sidecar", "missing"])
def test_store_recomputes_what_was_damaged(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    store.tensors("kurtosis", {"n": 1}, lambda: {"a": torch.ones(64)})
    (file,) = tmp_path.rglob("*.safetensors")
    (sidecar,) = tmp_path.glob("kurtosis/*.json")
    good = tree(tmp_path)
    if damage == "truncate":
        file.write_bytes(file.read_bytes()[:-20])
    elif damage == "alter":
        file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    elif damage == "sidecar":
        sidecar.write_text(sidecar.read_text()[:30])
    else:
        file.unlink()

    def compute() -> dict[str, torch.Tensor]:
        return {"a": torch.ones(64)}

    if damage == "missing":
        got = store.tensors("kurtosis", {"n": 1}, compute)
    else:
        with pytest.warns(UserWarning, match="truncated or altered"):
            got = store.tensors("kurtosis", {"n": 1}, compute)
    assert torch.equal(got["a"], torch.ones(64))
    assert tree(tmp_path) == good


def test_store_keeps_nothing_of_a_failed_computation(tmp_path: Path) -> None:
    def fail() -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Store(tmp_path).value("sizes", {"n": 1}, fail)
    assert tree(tmp_path) == {}


def test_store_refuses_bad_keys_and_stages(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for key in ({"x": float("nan")}, {"x": torch.ones(1)}, {"x": Path("a")}):
        with pytest.raises(TypeError, match="plain JSON"):
            store.value("sizes", key, lambda: 1)
    for stage in ("../sizes", "", "Sizes"):
        with pytest.raises(ValueError, match="stage is a folder name"):
            store.value(stage, {}, lambda: 1)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4), st.randoms())
def test_canonical_text_ignores_the_order_of_keys(value: dict[str, Any], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)
    try:
        text = canonical(value)
    except ValueError:  # infinity is no JSON
        return
    assert canonical(dict(items)) == text
    assert json.loads(text) == value


def test_atomic_path_replaces_or_leaves_alone(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "x.txt"
    with atomic_path(target) as path:
        path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as path:
        path.write_text("half of the n")
        raise RuntimeError
    assert tree(tmp_path) == {"deep/x.txt": b"old"}


def test_leftovers_of_dead_processes_only_are_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f".a.parquet.{ended.pid}.tmp").write_text("half")
    (tmp_path / f".b.parquet.{os.getpid()}.tmp").write_text("being written")
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f".b.parquet.{os.getpid()}.tmp"]


# --- parameters and profiles --------------------------------------------------------------------


def test_profiles_extend_each_other_and_keep_to_the_declared_types(project: Project) -> None:
    assert project.run().values == {"n_samples": 20}
    values = project.run("smoke").values
    assert values == {"n_samples": 20, "threshold": 2.0}
    assert isinstance(values["threshold"], float)


def test_each_notebook_receives_what_it_declares(project: Project) -> None:
    run = project.run("smoke", {"label": "x"})
    one, two = project.notebooks
    assert run.received(one) == {
        "n_samples": 20,
        "threshold": 2.0,
        "label": "x",
        "run_dir": f"runs/{run.name}",
    }
    assert run.received(two) == {"n_samples": 20, "run_dir": f"runs/{run.name}"}


def test_overrides_go_to_a_directory_of_their_own(project: Project) -> None:
    default = project.run("smoke")
    assert default.directory == project.root / "runs" / "smoke"
    one = project.run("smoke", {"n_samples": "5", "label": "x"})
    same = project.run("smoke", {"label": "x", "n_samples": "5"})
    other = project.run("smoke", {"n_samples": "6", "label": "x"})
    assert one.name == same.name
    assert len({default.directory, one.directory, other.directory}) == 3
    assert one.name.startswith("smoke-")
    assert not (project.root / "runs").exists()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("n_samples", "5", 5),
        ("threshold", "1e-3", 1e-3),
        ("threshold", "-2", -2.0),
        ("label", "5", "5"),
        ("label", "", ""),
        ("languages", "[en, 'no']", ["en", "no"]),
        ("budget", "12", 12),
        ("budget", "null", None),
    ],
)
def test_override_is_read_as_its_type(project: Project, name: str, text: str, value: Any) -> None:
    got = project.run("testbed", {name: text}).values[name]
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("n_samples", "many", r"n_samples is int \(default 10\); got str 'many'"),
        ("n_samples", "1.5", "n_samples is int"),
        ("n_samples", "true", "n_samples is int"),
        ("threshold", "high", "threshold is float"),
        ("languages", "en", "languages is list of str"),
        ("languages", "[en, no]", "put it in quotes"),
    ],
)
def test_wrong_type_is_refused(project: Project, name: str, text: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        project.run("testbed", {name: text})


@pytest.mark.parametrize(
    ("profile", "overrides", "message"),
    [
        ("nowhere", {}, "unknown profile 'nowhere'; profiles: smoke, testbed"),
        ("../data", {}, "unknown profile"),
        ("testbed", {"n_sample": "5"}, "unknown parameter 'n_sample'.*n_samples"),
        ("testbed", {"run_dir": "x"}, "run_dir is set by the runner"),
        ("testbed", {"n_samples": "[1"}, "cannot read"),
    ],
)
def test_bad_profile_or_parameter_is_refused(
    project: Project, profile: str, overrides: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        project.run(profile, overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: nowhere\n", r"unknown profile 'nowhere' \(extended by mine\)"),
        ("extends: mine\n", "circle: mine -> mine"),
        ("- a\n- b\n", "`parameter: value`"),
        ("a: [1\n", "not valid YAML"),
        ("model:\n  path: x\n", "flat, but model holds a mapping"),
        ("wrong: 1\n", "unknown parameter 'wrong'"),
        ("openai_api_key: abc\n", "looks like a secret"),
    ],
)
def test_bad_profile_file_is_refused(project: Project, text: str, message: str) -> None:
    (project.root / "notebooks" / "profiles" / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        project.run("mine")


def test_secrets_are_refused_by_name_and_by_value_and_not_repeated(project: Project) -> None:
    for name in ("api_key", "OPENAI_API_KEY", "hf_token", "apiKey", "password", "client_secret_1"):
        text = f"# %% tags=['parameters']\n{name} = ''  # hidden\n"
        (project.root / "notebooks" / "03_x.py").write_text(text)
        with pytest.raises(ValueError, match="environment variable"):
            Project(project.root).run()
    text = "# %% tags=['parameters']\nmax_new_tokens = 1  # how many\nkeyword = ''  # which\n"
    (project.root / "notebooks" / "03_x.py").write_text(text)
    Project(project.root).run()
    with pytest.raises(ValueError, match="label looks like a secret") as caught:
        project.run("testbed", {"label": "sk-" + "abcdefgh" * 3})
    assert "abcdefgh" not in str(caught.value)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("", "needs one cell tagged `parameters`"),
        ("# %% tags=['parameters']\nn = 1\n", "needs a comment"),
        ("# %% tags=['parameters']\nn = 1 + 1  # sum\n", "must be a literal"),
        ("# %% tags=['parameters']\nn = [  # list\n    1,\n]\n", "needs a comment"),
        ("# %% tags=['parameters']\nn_samples = 11  # other\n", "one default or two names"),
    ],
)
def test_badly_declared_parameters_are_refused(project: Project, cell: str, message: str) -> None:
    (project.root / "notebooks" / "03_x.py").write_text(f"# %% [markdown]\n# # X\n\n{cell}")
    with pytest.raises(ValueError, match=message):
        _ = Project(project.root).parameters


def test_notebooks_are_found_by_number_and_by_name(project: Project) -> None:
    assert project.find("02").name == project.find("02_two").name == "02_two"
    for text in ("07", "", "0"):
        with pytest.raises(ValueError, match="notebooks: 01_one, 02_two"):
            project.find(text)


def test_a_second_part_has_the_number_with_a_letter(project: Project) -> None:
    folder = project.root / "notebooks"
    (folder / "02b_more.py").write_text((folder / "02_two.py").read_text())
    found = Project(project.root)
    assert [nb.name for nb in found.notebooks] == ["01_one", "02_two", "02b_more"]
    assert found.find("02").name == "02_two" and found.find("02b").name == "02b_more"
    assert found.find("02b_m").number == "02b"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_given_as_text_is_the_same_float(value: float) -> None:
    parameter = Parameter("threshold", 1.0, "", "float")
    assert parameter.parse(repr(value)) == value


# --- execution ----------------------------------------------------------------------------------


def test_execution_is_repeated_only_for_what_changed(project: Project) -> None:
    root = project.root
    run = project.run("smoke")
    assert run.execute(progress=False) == 2
    first = tree(root / "runs")
    assert first["smoke/results/one.csv"] == b"20,2.0\n"
    assert run.execute(progress=False) == 0
    assert tree(root / "runs") == first

    # Another set of values: its own directory, the default's files untouched.
    other = Project(root).run("smoke", {"n_samples": "5"})
    assert other.execute([project.find("01")], progress=False) == 1
    assert (other.directory / "results" / "one.csv").read_text() == "5,2.0\n"
    assert {k: v for k, v in tree(root / "runs").items() if k.startswith("smoke/")} == {
        k: v for k, v in first.items() if k.startswith("smoke/")
    }

    # A lost result, a changed source, changed data: what depends on it runs again.
    (run.directory / "results" / "one.csv").unlink()
    assert run.execute(progress=False) == 1
    assert tree(run.directory) == tree_of(first, "smoke")
    with (root / "notebooks" / "02_two.py").open("a") as stream:
        stream.write("\n# %%\nprint('more')\n")
    assert Project(root).run("smoke").execute(progress=False) == 1
    (root / "data" / "words.txt").write_text("bốn\n", "utf-8")
    assert [Project(root).run("smoke").is_current(nb) for nb in Project(root).notebooks] == [
        False,
        False,
    ]


def tree_of(files: dict[str, bytes], folder: str) -> dict[str, bytes]:
    return {k.removeprefix(f"{folder}/"): v for k, v in files.items() if k.startswith(f"{folder}/")}


def test_executed_notebooks_are_deterministic_and_free_of_this_machine(tmp_path: Path) -> None:
    trees = []
    for name in ("a", "b"):
        project = make_project(tmp_path / name, n01_one=ONE)
        project.run().execute(progress=False)
        trees.append(tree(project.root / "runs"))
    assert trees[0] == trees[1]
    text = trees[0]["testbed/notebooks/01_one.ipynb"].decode()
    assert str(tmp_path) not in text
    assert "ipykernel_" not in text
    assert "papermill" not in text
    assert "an empty selection" in text
    assert "一 · Một" in text


def test_kernel_is_this_python_whatever_jupyter_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(
        json.dumps({"argv": ["false"], "display_name": "wrong", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    source = TWO + (
        "import sys\nfrom pathlib import Path\n"
        "Path(run_dir, 'results').mkdir(parents=True)\n"
        "Path(run_dir, 'results', 'python.txt').write_text(sys.prefix)\n"
    )
    project = make_project(tmp_path / "book", n01_one=source)
    run = project.run()
    run.execute(progress=False)
    assert (run.directory / "results" / "python.txt").read_text() == sys.prefix
    assert os.environ["MPLBACKEND"] == "nonsense"


def test_a_profile_decides_whether_the_hub_may_be_reached(tmp_path: Path) -> None:
    source = (
        '# %% tags=["parameters"]\noffline = True  # stay offline\n'
        'run_dir = "runs/testbed"  # where results go\n\n# %%\n'
        "import os\nprint(os.environ['HF_HUB_OFFLINE'], os.environ['CRANE_RUN'])\n"
    )
    project = make_project(tmp_path / "book", n01_one=source, n02_two=source)
    profiles = project.root / "notebooks" / "profiles"
    (profiles / "testbed.yaml").write_text("")
    (profiles / "hub.yaml").write_text("offline: false\nnotebooks: ['02']\n")
    for name, said, executed in (("testbed", "1 testbed", 2), ("hub", "0 hub", 1)):
        run = project.run(name)
        assert [notebook.name for notebook in run.notebooks][-1] == "02_two"
        assert run.execute(progress=False) == executed
        assert said in run.executed(project.find("02")).read_text()
    (profiles / "hub.yaml").write_text("notebooks: ['17']\n")
    with pytest.raises(ValueError, match="no single notebook is called '17'"):
        project.run("hub")


FAILING = TWO + "\n# %%\ntotal = 0\nprint(total / 0)\n\n# %%\nprint('never')\n"
DYING = TWO + "\n# %%\nimport os\nos.kill(os.getpid(), 9)\n"


def test_failing_notebook_names_cell_line_and_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project(tmp_path / "book", n01_ok=TWO, n02_bad=FAILING)
    monkeypatch.setattr("crane_lab.cli.main.Project", lambda: project)
    assert main(["run"]) == 1
    error = capsys.readouterr().err
    assert "error: notebook 02_bad failed in cell 3 of 4 (notebooks/02_bad.py, line 9)" in error
    assert "| print(total / 0)" in error
    assert "ZeroDivisionError: division by zero" in error
    assert "Traceback" not in error
    folder = project.run().directory / "notebooks"
    assert sorted(path.name for path in folder.iterdir()) == ["01_ok.ipynb", "02_bad.failed.ipynb"]

    # Mended, it runs, the other one does not, and nothing of the failure stays.
    (project.root / "notebooks" / "02_bad.py").write_text(FAILING.replace("/ 0", "/ 1"))
    assert Project(project.root).run().execute(progress=False) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["01_ok.ipynb", "02_bad.ipynb"]


def test_dying_kernel_names_the_cell(tmp_path: Path) -> None:
    project = make_project(tmp_path / "book", n01_dying=DYING)
    with pytest.raises(RunError, match=r"01_dying failed in cell 3 of 3(.|\n)*kernel stopped"):
        project.run().execute(progress=False)


def test_two_notebooks_may_not_write_one_result(tmp_path: Path) -> None:
    project = make_project(tmp_path / "book", n01_one=ONE, n02_two=ONE)
    with pytest.raises(RunError, match=r"01_one and 02_two both write results/one\.csv"):
        project.run().execute(progress=False)


def test_a_run_is_written_by_one_process_at_a_time(project: Project) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from crane_lab.runs import Project\n"
            "with Project(Path(sys.argv[1])).run().lock():\n"
            "    print('held', flush=True); time.sleep(60)",
            str(project.root),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="another process is at work on run testbed"):
            project.run().execute(progress=False)
        with project.run("smoke").lock():
            pass
    finally:
        holder.kill()
        holder.wait()
    with project.run().lock():  # a killed process holds nothing
        pass


SLOW = """\
# %% tags=["parameters"]
n_samples = 10  # samples per language
run_dir = "runs/testbed"  # where results go

# %%
import time
from pathlib import Path

from crane_lab.store import Store, atomic_path

store = Store("runs/store")


def slowly(number):
    time.sleep(0.2)
    return [number] * 1000


total = 0
for number in range(4):
    total += sum(store.value("numbers", {"n": number}, lambda: slowly(number)))

# %%
with atomic_path(Path(run_dir) / "results" / "total.txt") as path:
    path.write_text(str(total))
    time.sleep(0.2)
"""


def test_killed_and_started_again_ends_with_the_same_files(tmp_path: Path) -> None:
    reference = make_project(tmp_path / "reference", n01_slow=SLOW)
    reference.run().execute(progress=False)
    project = make_project(tmp_path / "killed", n01_slow=SLOW)
    code = (
        "import sys; from pathlib import Path; from crane_lab.runs import Project\n"
        "Project(Path(sys.argv[1])).run().execute(progress=False)"
    )
    for moment in ("start", "store", "result"):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(project.root)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        pattern = {
            "start": "*/notebooks/*",
            "store": "store/numbers/*",
            "result": "*/.01_slow/results/.*",
        }
        deadline = time.monotonic() + 240
        while not list((project.root / "runs").glob(pattern[moment])):
            assert time.monotonic() < deadline, "the run never got that far"
            assert process.poll() is None, "the run ended before it was killed"
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        wait_for_kernels(project.root)
    project.run().execute(progress=False)
    assert tree(project.root / "runs") == tree(reference.root / "runs")


def wait_for_kernels(root: Path) -> None:
    """A killed runner's kernel notices within a second that its parent is gone."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        writing = list((root / "runs").rglob(".*.tmp"))
        if not any(Path("/proc", path.name.split(".")[-2]).exists() for path in writing):
            return
        time.sleep(0.1)


def test_command_line_reports_errors_in_one_line(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("crane_lab.cli.main.Project", lambda: project)
    for arguments in (
        ["run", "--profile", "nowhere"],
        ["run", "-p", "nothing", "1"],
        ["run", "-p", "n_samples", "x"],
        ["run", "--notebook", "17"],
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
    assert not (project.root / "runs" / "testbed" / "notebooks").exists()
