"""A run: a profile with overrides, the notebooks executed under it, and its directory."""

from __future__ import annotations

import glob
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from crane_lab.parameter import Parameter, check_paths
from crane_lab.runs.executed import (
    is_as_written,
    mark,
    mark_failed,
    prune,
    record_of,
    remove_own,
    remove_results,
)
from crane_lab.runs.outputs import scrub, tidy
from crane_lab.runs.parameters import Notebook, load_profile
from crane_lab.settings import OF_THE_METHOD, Settings
from crane_lab.store.artefacts import RUN_NAME, USES
from crane_lab.store.files import canonical, digest_of, file_sha256, remove_leftovers, write_text
from crane_lab.store.locks import holder, locked
from crane_lab.store.secrets import refuse_secret, scrubbed
from crane_lab.store.sources import (
    CODE,
    ROOT,
    code_digest,
    modules_behind,
    packages_digest,
    source_digest,
)

DEFAULT_PROFILE = "testbed"

# Set by the runner in every notebook that declares it; not a choice of the reader.
RUN_DIR = "run_dir"

# Bytes up to which a file that a parameter names is read to see whether it is still the same.
_READ_WHOLE = 2**24

# What an executed notebook must not depend on: the user's Jupyter, IPython and matplotlib set-up,
# the network, hash randomisation, and progress bars that print timings into the pages.
_KERNEL_ENVIRONMENT = {
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_OFFLINE": "1",
    "JUPYTER_PREFER_ENV_PATH": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    # tqdm.auto, which libraries import, asks for a widget package that pages cannot show anyway.
    "PYTHONWARNINGS": "ignore:IProgress not found",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}


class RunError(RuntimeError):
    """A notebook failed, the book did not build, or another process is writing the same run."""


@dataclass(frozen=True)
class Project:
    """Where a book's sources are, and where its runs go."""

    root: Path = ROOT

    @property
    def runs(self) -> Path:
        """The folder of all runs; git-ignored."""
        return self.root / "runs"

    @cached_property
    def notebooks(self) -> list[Notebook]:
        """The notebooks in the order of their numbers; ValueError without a checkout."""
        if not (self.root / "notebooks").is_dir():
            raise ValueError(
                f"{self.root} holds no notebooks: `crane` works on a checkout of the project, so "
                "install it from there (`make setup` in the checkout's folder)"
            )
        return [Notebook(path) for path in sorted((self.root / "notebooks").glob("*.py"))]

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """Every parameter by name: the settings, and what a notebook declares besides.

        One name has one default wherever it appears (ValueError otherwise), so that a reader can
        change it in one place.
        """
        found: dict[str, Parameter] = {}
        for notebook in self.notebooks:
            for name, new in notebook.parameters.items():
                old = found.setdefault(name, new)
                if old is new:
                    continue
                if (old.default, old.type_name) != (new.default, new.type_name):
                    raise ValueError(
                        f"parameter {name} is {old.default!r} in {old.notebooks[0]} and "
                        f"{new.default!r} in {notebook.name}; give it one default or two names"
                    )
                found[name] = replace(old, notebooks=(*old.notebooks, notebook.name))
        if any(notebook.uses_settings for notebook in self.notebooks):
            found = OF_THE_METHOD | found
        return found

    def find(self, number: str) -> Notebook:
        """Return the notebook of that number or name (`02`, `04b`), or whose name begins so.

        Raises ValueError if there is none, or more than one.
        """
        hits = [nb for nb in self.notebooks if number in (nb.name, nb.number)]
        hits = hits or [nb for nb in self.notebooks if nb.name.startswith(number)]
        if len(hits) == 1 and number:
            return hits[0]
        names = ", ".join(nb.name for nb in self.notebooks) or "none"
        raise ValueError(f"no single notebook is called {number!r}; notebooks: {names}")

    def run(
        self, profile: str = DEFAULT_PROFILE, overrides: Mapping[str, str] | None = None
    ) -> Run:
        """Return the run of a profile with overrides (texts, as on the command line).

        Raises ValueError for an unknown profile or parameter, a secret, a value that is out of
        range or does not go together with another, and a path that is not there; TypeError for a
        value of the wrong type. Nothing is executed or written.
        """
        for name, text in (overrides or {}).items():
            refuse_secret(name, text)
        values = load_profile(self.root / "notebooks" / "profiles", profile)
        chosen = values.pop("notebooks", None)
        known = self.parameters
        for name in (*values, *(overrides or {})):
            if name == RUN_DIR:
                raise ValueError(f"{RUN_DIR} is set by the runner, from the profile's name")
            if name not in known:
                raise ValueError(
                    f"unknown parameter {name!r}: no notebook declares it; parameters: "
                    f"{', '.join(sorted(set(known) - {RUN_DIR}))}"
                )
        values = {name: known[name].check(value) for name, value in values.items()}
        changed = {}
        for name, text in (overrides or {}).items():
            changed[name] = known[name].parse(text)
        values |= changed
        if any(notebook.uses_settings for notebook in self.notebooks):
            Settings.of({name: p.default for name, p in known.items()} | values)
        check_paths(known, values, self.root)
        notebooks = self.notebooks if chosen is None else [self.find(str(n)) for n in chosen]
        return Run(self, profile, values, changed, tuple(notebooks))


@dataclass(frozen=True)
class Run:
    """A profile with overrides: what the notebooks receive, and the directory they fill.

    `notebooks` are those that the profile asks for, under `notebooks: [01, 02]`; all by default.
    """

    project: Project
    profile: str
    values: dict[str, Any]
    overrides: dict[str, Any] = field(default_factory=dict)
    notebooks: tuple[Notebook, ...] = ()

    @property
    def name(self) -> str:
        """The profile's name, with a hash of the overrides when there are any."""
        if not self.overrides:
            return self.profile
        return f"{self.profile}-{digest_of(canonical(self.overrides), 8)}"

    @property
    def directory(self) -> Path:
        """`runs/<name>`."""
        return self.project.runs / self.name

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter of the notebooks: the defaults, and what the run sets."""
        return {name: p.default for name, p in self.project.parameters.items()} | self.values

    @property
    def book(self) -> Path:
        """The folder of the built pages: `_build/html`, or inside the run's directory.

        Only the default run builds into `_build`, so that a trial never replaces the book.
        """
        base = self.project.root if self.name == DEFAULT_PROFILE else self.directory
        return base / "_build" / "html"

    def executed(self, notebook: Notebook) -> Path:
        """Return the path of the executed notebook."""
        return self.directory / "notebooks" / f"{notebook.name}.ipynb"

    def failed(self, notebook: Notebook) -> Path:
        """Return the path of the notebook as far as it ran, if it failed."""
        return self.executed(notebook).with_name(f"{notebook.name}.failed.ipynb")

    def received(self, notebook: Notebook) -> dict[str, Any]:
        """Return the values a notebook is given: those it accepts, and its run's directory."""
        values = {**self.values, RUN_DIR: self.directory.relative_to(self.project.root).as_posix()}
        declared = [name for name in notebook.parameters if name in values]
        others = sorted(notebook.accepts & set(values) - set(declared))
        return {name: values[name] for name in (*declared, *others)}

    def digest(self, notebook: Notebook) -> str:
        """Return a digest over everything the executed notebook depends on."""
        received = self.received(notebook)
        return digest_of(
            canonical(
                {
                    "source": notebook.source,
                    "parameters": received,
                    "modules": source_digest(*modules_behind(notebook.source)),
                    "data": _data_digest(self.project.root),
                    "paths": _outside_paths(self.project.root, self.directory, received.values()),
                    "packages": packages_digest(),
                }
            ),
            32,
        )

    def is_current(self, notebook: Notebook) -> bool:
        """Say whether the executed notebook and the results it wrote still hold."""
        path, results = self.executed(notebook), self.directory / "results"
        record = record_of(path)
        return (
            record.get("digest") == self.digest(notebook)
            and is_as_written(path)
            and all(
                (results / name).is_file() and file_sha256(results / name) == checksum
                for name, checksum in record.get("results", {}).items()
            )
        )

    def execute(self, notebooks: Iterable[Notebook] | None = None, *, progress: bool = True) -> int:
        """Execute the notebooks that are not current (all by default); return how many were.

        Raises RunError when a notebook fails, naming notebook and cell, or when another process is
        at work on the same run.
        """
        chosen = list(self.notebooks if notebooks is None else notebooks)
        # Where nothing is to be done nothing is written: a run can be looked at that is read-only.
        stale = [notebook for notebook in chosen if not self.is_current(notebook)]
        if not stale:
            for number, notebook in enumerate(chosen, 1):
                print(f"[{number}/{len(chosen)}] {notebook.name}: up to date", flush=True)
            return 0
        self.check(stale)
        with self.lock():
            remove_leftovers(self.project.runs)
            prune(self.executed(chosen[0]).parent, (nb.name for nb in self.project.notebooks))
            self.begin()
            count = 0
            for number, notebook in enumerate(chosen, 1):
                current = self.is_current(notebook)
                state = "up to date" if current else "running"
                print(f"[{number}/{len(chosen)}] {notebook.name}: {state}", flush=True)
                if not current:
                    self._execute(notebook, progress)
                    count += 1
        return count

    def begin(self) -> None:
        """Write down the run's parameters: what is stored for it is needed until it is finished."""
        text = {"profile": self.profile, "overrides": self.overrides, "values": self.values}
        write_text(
            self.directory / "parameters.yaml",
            yaml.safe_dump(text, allow_unicode=True, sort_keys=True),
        )

    def check(self, notebooks: Iterable[Notebook] | None = None, *, here: bool = True) -> None:
        """Raise what would go wrong in notebooks (all by default), as far as can be seen before.

        Nothing is written. `here` is whether the run is for this machine; see `needs.check_needs`.
        """
        asked = self.notebooks if notebooks is None else notebooks
        if chosen := [notebook for notebook in asked if notebook.uses_settings]:
            from crane_lab.runs.needs import check_needs  # which takes seconds to import

            with chdir(self.project.root):
                check_needs(chosen, self.parameters, self.project.runs / "store", here)

    def uses(self, notebook: Notebook) -> Path:
        """Return the path of the list of artefacts that the notebook asked the store for."""
        return self.directory / ".uses" / f"{notebook.name}.json"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; RunError if another one does."""
        path = self.lock_file
        with locked(path, f"run {self.name}", wait=False) as mine:
            if not mine:
                raise RunError(
                    f"another process is at work on run {self.name}: {holder(path)}; wait until it "
                    "has ended. If it is gone for good, `crane unlock` removes what it held"
                )
            yield

    @property
    def lock_file(self) -> Path:
        """The lock of whoever executes the run."""
        return self.project.runs / f".{self.name}.lock"

    def _result_times(self) -> dict[str, tuple[int, int]]:
        folder = self.directory / "results"
        return {
            path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.stat().st_size)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        }

    def _execute(self, notebook: Notebook, progress: bool) -> None:
        import nbformat
        from papermill import PapermillExecutionError, execute_notebook

        target = self.executed(notebook)
        failed = self.failed(notebook)
        target.parent.mkdir(parents=True, exist_ok=True)
        # What the last execution wrote goes first: a notebook that no longer writes a file must
        # not leave the old one behind.
        remove_results(self.directory / "results", record_of(target).get("results", {}))
        remove_own(target)
        remove_own(failed)
        before = self._result_times()
        digest = self.digest(notebook)
        received = self.received(notebook)
        source = notebook.read()
        # Named here: the runner's own bar is not meant by TQDM_DISABLE, which is for the kernels.
        bar = {"desc": notebook.name, "disable": False}
        # It would name every setting that this notebook's page does not talk about.
        logging.getLogger("papermill").setLevel(logging.ERROR)
        try:
            with tempfile.TemporaryDirectory() as scratch, _environment(scratch, self):
                source.metadata["crane"] = {"notebook": notebook.name}
                executed = execute_notebook(
                    source,
                    # papermill fills in parameters between braces
                    str(failed).replace("{", "{{").replace("}", "}}"),
                    parameters=received,
                    kernel_name="python3",
                    start_timeout=300,
                    progress_bar=bar if progress else False,
                    cwd=self.project.root,
                    # 50: a kernel that is stopped has much to say about its sockets
                    extra_arguments=["--IPKernelApp.log_level=50"],
                )
                asked = Path(scratch, "uses")
                used = sorted(set(asked.read_text("utf-8").split())) if asked.exists() else []
        except PapermillExecutionError as error:
            scrub(failed)
            mark_failed(failed, notebook.name)
            index, reason = error.cell_index, f"{error.ename}: {error.evalue}"
            message = self._failure(notebook, index, bool(received), scrubbed(reason))
            raise RunError(message) from None
        except RuntimeError as error:  # nbclient's way to say that the kernel is gone
            scrub(failed)
            index = mark_failed(failed, notebook.name)
            reason = f"the kernel stopped, as it does when memory runs out: {error}"
            raise RunError(self._failure(notebook, index, bool(received), reason)) from None
        after = self._result_times()
        written = [name for name in after if before.get(name) != after[name]]
        self._refuse_shared(notebook, written)
        folder = self.directory / "results"
        tidy(executed, self.project.root)
        results = {name: file_sha256(folder / name) for name in written}
        mark(executed, notebook.name, run=self.name, digest=digest, results=results)
        write_text(self.uses(notebook), json.dumps(used, indent=0))
        write_text(target, nbformat.writes(executed))
        failed.unlink(missing_ok=True)

    def _refuse_shared(self, notebook: Notebook, written: list[str]) -> None:
        for other in self.project.notebooks:
            if other.name == notebook.name:
                continue
            shared = set(written) & set(record_of(self.executed(other)).get("results", {}))
            if shared:
                raise RunError(
                    f"notebooks {other.name} and {notebook.name} both write results/"
                    f"{sorted(shared)[0]}; one of them has to use another name"
                )

    def _failure(self, notebook: Notebook, index: int, injected: bool, reason: str) -> str:
        """Return the message for a failure in cell `index` of the notebook as papermill ran it."""
        cells = notebook.read().cells
        declared = next(
            number
            for number, cell in enumerate(cells)
            if "parameters" in cell.metadata.get("tags", [])
        )
        if injected and index > declared:
            index -= 1  # papermill's own cell stands behind the declared parameters
        source = cells[index].source
        start = notebook.source.find(source)
        line = f", line {notebook.source.count(chr(10), 0, start) + 1}" if start >= 0 else ""
        shown = "\n".join(f"    | {text}" for text in source.splitlines()[:4])
        return (
            f"notebook {notebook.name} failed in cell {index + 1} of {len(cells)} "
            f"(notebooks/{notebook.path.name}{line}):\n{shown}\n  {reason}\n"
            f"  as far as it ran: {self.failed(notebook).relative_to(self.project.root).as_posix()}"
        )


def _data_digest(root: Path) -> str:
    """Return a digest over names and bytes of everything in `data/`."""
    folder = root / "data"
    return digest_of(
        canonical(
            {
                name: _sum(path, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
                for name, path in _files_below(folder, ())
                if (facts := path.stat())
            }
        )
    )


@cache
def _sum(path: Path, size: int, written: int, changed: int) -> str:
    """Return a file's checksum, read once as long as its size and times stay the same."""
    return file_sha256(path)


def _outside_paths(root: Path, run: Path, values: Iterable[Any]) -> dict[str, Any]:
    """Return what tells apart the states of all files that parameters name outside `data/`.

    A path may be a file, a folder with files at any depth, or have `{language}` in it, which stands
    for anything here. Small files are told by their content, others by size and times: a checkpoint
    of many gigabytes is not read for this; the library verifies what it loads.
    """
    # What every execution changes, and what is digested by itself.
    folders = (root / "data", run, root / "runs" / "store", root / "runs" / "workers")
    apart = [folder.resolve() for folder in folders]
    found = {}
    for value in values:
        if not isinstance(value, str) or not value or len(value) > 1000 or "\0" in value:
            continue
        pattern = glob.escape(str(root / os.path.expanduser(value))).replace("{language}", "*")
        for path in map(Path, sorted(glob.glob(pattern))):
            if not any(path.resolve().is_relative_to(folder) for folder in apart):
                found[str(path.relative_to(root) if path.is_relative_to(root) else path)] = [
                    [name, _state(file)] for name, file in _files_below(path, apart)
                ]
    return found


def _files_below(path: Path, apart: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Yield the files of a folder at any depth, or a file itself; hidden ones are left out."""
    if path.is_file():
        yield "", path
    seen = {*apart}
    for folder, folders, files in os.walk(path, followlinks=True):
        # Links are followed, as whoever reads the folder does; one back to above ends here.
        if (real := Path(folder).resolve()) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(Path(folder, name) for name in files if not name.startswith(".")):
            if file.is_file():
                yield file.relative_to(path).as_posix(), file


def _state(path: Path) -> list[Any]:
    facts = path.stat()
    if facts.st_size <= _READ_WHOLE:
        return [_sum(path, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)]
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]


@contextmanager
def _environment(scratch: str, run: Run) -> Iterator[None]:
    """Set the environment that kernels inherit, and put the old one back."""
    changed: dict[str, str | None] = {
        **_KERNEL_ENVIRONMENT,
        "IPYTHONDIR": scratch,
        RUN_NAME: run.name,  # what the store notes beside an artefact
        USES: str(Path(scratch, "uses")),
        CODE: code_digest(),  # kernels begin later than their runner
    }
    changed["JUPYTER_PATH"] = None
    saved = {name: os.environ.get(name) for name in changed}
    offline = "0" if run.values.get("offline") is False else "1"
    _set_environment({n: offline if "OFFLINE" in n else v for n, v in changed.items()})
    try:
        yield
    finally:
        _set_environment(saved)


def _set_environment(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
