"""A run: a profile with overrides, the notebooks executed under it, and its directory.

A notebook is executed in a folder of its own beside the results, so that several can be executed
side by side, and one that fails leaves nothing half-written.
"""

from __future__ import annotations

import glob
import json
import logging
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
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
from crane_lab.runs.kernels import environment, notebooks_at_once, threads_of
from crane_lab.runs.outputs import scrub, tidy
from crane_lab.runs.parameters import Notebook, load_profile
from crane_lab.settings import OF_THE_METHOD, Settings
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

    @property
    def jobs(self) -> int:
        """How many notebooks are executed side by side unless something else is asked for."""
        if "model" not in self.project.parameters:
            return 1
        folder = self.project.root / os.path.expanduser(str(self.parameters["model"]))
        return notebooks_at_once(folder, str(self.parameters.get("device", "cpu")))

    def execute(
        self,
        notebooks: Iterable[Notebook] | None = None,
        *,
        progress: bool = True,
        jobs: int = 1,
    ) -> int:
        """Execute the notebooks that are not current (all by default); return how many were.

        `jobs` are executed side by side, each in a process of its own.

        Raises RunError when a notebook fails, naming notebook and cell, or when another process is
        at work on the same run, and ValueError for less than one job.
        """
        if jobs < 1:
            raise ValueError(f"jobs is {jobs}: expected at least 1 notebook at a time")
        chosen = list(self.notebooks if notebooks is None else notebooks)
        titles = {nb.name: f"[{i}/{len(chosen)}] {nb.name}" for i, nb in enumerate(chosen, 1)}
        # Where nothing is to be done nothing is written: a run can be looked at that is read-only.
        stale = [notebook for notebook in chosen if not self.is_current(notebook)]
        if stale:
            self.check(stale)
            with self.lock():
                stale = [notebook for notebook in chosen if not self.is_current(notebook)]
                self._prepare()
                for notebook in chosen:
                    if notebook not in stale:
                        print(f"{titles[notebook.name]}: up to date", flush=True)
                if jobs == 1:
                    for notebook in stale:
                        print(f"{titles[notebook.name]}: running", flush=True)
                        self._execute(notebook, progress=progress)
                else:
                    self._side_by_side(stale, jobs, titles)
            return len(stale)
        for notebook in chosen:
            print(f"{titles[notebook.name]}: up to date", flush=True)
        return 0

    def _prepare(self) -> None:
        """Remove what was left of notebooks that were interrupted, or are no more."""
        names = [notebook.name for notebook in self.project.notebooks]
        remove_leftovers(self.project.runs)
        prune(self.directory / "notebooks", names)
        for name in names:
            shutil.rmtree(self._own(name), ignore_errors=True)
        self.begin()

    def _side_by_side(
        self, notebooks: Iterable[Notebook], jobs: int, titles: Mapping[str, str]
    ) -> None:
        begun = self.project.root, self.profile, self.values, self.overrides
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, context, _begin, (code_digest(),)) as pool:
            running = {
                pool.submit(_execute_alone, begun, nb.name, jobs, titles[nb.name]): nb
                for nb in notebooks
            }
            try:
                for done in as_completed(running):
                    done.result()
                    # Here, one after another: two that end together would not see each other.
                    results = record_of(self.executed(running[done])).get("results", {})
                    self._refuse_shared(running[done], results)
            except BrokenProcessPool:
                raise RunError(
                    "a process that executed notebooks was killed, as happens when memory runs "
                    "out; start the same command again, with --jobs 1 if it happens again"
                ) from None
            except RunError:
                pool.shutdown(cancel_futures=True)  # those that run come to their end
                raise
            except BaseException:
                for child in multiprocessing.active_children():
                    child.terminate()
                raise

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

    def _own(self, name: str) -> Path:
        """The folder that a notebook is executed in: `run_dir`, as far as it can tell."""
        return self.directory / f".{name}"

    def _take_over(self, notebook: Notebook) -> list[str]:
        """Move what a notebook wrote into the run's folder; return its results' names.

        Raises RunError, and moves nothing, for a result that is another notebook's.
        """
        own = self._own(notebook.name)
        found = [path.relative_to(own) for path in sorted(own.rglob("*")) if path.is_file()]
        found = [name for name in found if not any(part.startswith(".") for part in name.parts)]
        results = [n.relative_to("results").as_posix() for n in found if n.parts[0] == "results"]
        self._refuse_shared(notebook, results)
        for name in found:
            (self.directory / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(own / name, self.directory / name)
        return results

    def _execute(self, notebook: Notebook, *, progress: bool, jobs: int = 1) -> None:
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
        digest = self.digest(notebook)
        received = self.received(notebook)
        own = self._own(notebook.name)
        here, there = (
            path.relative_to(self.project.root).as_posix() for path in (own, self.directory)
        )
        source = notebook.read()
        # Named here: the runner's own bar is not meant by TQDM_DISABLE, which is for the kernels.
        bar = {"desc": notebook.name, "disable": False}
        # It would name every setting that this notebook's page does not talk about.
        logging.getLogger("papermill").setLevel(logging.ERROR)
        offline, threads = self.values.get("offline") is not False, threads_of(jobs)
        own.mkdir(parents=True)
        try:
            with (
                tempfile.TemporaryDirectory() as scratch,
                environment(scratch, self.name, offline=offline, threads=threads),
            ):
                source.metadata["crane"] = {"notebook": notebook.name}
                executed = execute_notebook(
                    source,
                    # papermill fills in parameters between braces
                    str(failed).replace("{", "{{").replace("}", "}}"),
                    parameters={k: here if k == RUN_DIR else v for k, v in received.items()},
                    kernel_name="python3",
                    start_timeout=300,
                    progress_bar=bar if progress else False,
                    cwd=self.project.root,
                    # 50: a kernel that is stopped has much to say about its sockets
                    extra_arguments=["--IPKernelApp.log_level=50"],
                )
                asked = Path(scratch, "uses")
                used = sorted(set(asked.read_text("utf-8").split())) if asked.exists() else []
            written = self._take_over(notebook)
        except PapermillExecutionError as error:
            scrub(failed, here, there)
            mark_failed(failed, notebook.name)
            index, reason = error.cell_index, f"{error.ename}: {error.evalue}"
            message = self._failure(notebook, index, bool(received), scrubbed(reason))
            raise RunError(message.replace(here, there)) from None
        except RunError:
            raise
        except RuntimeError as error:  # nbclient's way to say that the kernel is gone
            scrub(failed, here, there)
            index = mark_failed(failed, notebook.name)
            reason = f"the kernel stopped, as it does when memory runs out: {error}"
            raise RunError(self._failure(notebook, index, bool(received), reason)) from None
        finally:
            shutil.rmtree(own, ignore_errors=True)
        tidy(executed, self.project.root, here, there)
        folder = self.directory / "results"
        results = {name: file_sha256(folder / name) for name in written}
        mark(executed, notebook.name, run=self.name, digest=digest, results=results)
        write_text(self.uses(notebook), json.dumps(used, indent=0))
        write_text(target, nbformat.writes(executed))
        failed.unlink(missing_ok=True)

    def _refuse_shared(self, notebook: Notebook, written: Iterable[str]) -> None:
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


def _execute_alone(
    begun: tuple[Path, str, dict[str, Any], dict[str, Any]], name: str, jobs: int, title: str
) -> None:
    """Execute one notebook of a run that another process holds and has checked."""
    root, profile, values, overrides = begun
    project = Project(root)
    began = time.monotonic()
    print(f"{title}: running", flush=True)
    Run(project, profile, values, overrides)._execute(project.find(name), progress=False, jobs=jobs)
    print(f"{title}: {time.monotonic() - began:.0f} s", flush=True)


def _begin(code: str) -> None:
    """Expect in kernels the code that the run began with; end when the process that holds it does.

    However that one ends.
    """
    os.environ[CODE] = code
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
