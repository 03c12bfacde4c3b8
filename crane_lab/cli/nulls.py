"""``python -m crane_lab.cli.nulls``: the null of every set that is judged, as the book ships it.

Random masks with as many neurons in every layer as each set of a profile's tables has, measured on
held-out loss, tasks and open answers, on the base model and, if there is one, on the chat model.
What is measured is kept in the store piece by piece: interrupted, the same command goes on; started
several times, the processes share. Sets that are there as files (`--sets`) are not found again, so
that a machine with an accelerator need not agree with another about the last of them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from crane_core.neurons import NeuronSet
from crane_lab.cli.in_run import pipeline_of
from crane_lab.cli.options import add_run, exit_status, the_run
from crane_lab.pipeline import Pipeline
from crane_lab.runs.execution import Run
from crane_lab.study import contenders, nulls


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status (1 after an error, which is printed)."""
    parser = argparse.ArgumentParser(prog="python -m crane_lab.cli.nulls", description=__doc__)
    add_run(parser)
    add = parser.add_argument
    add("--out", default="data/testbed", help="folder for the tables")
    add("--sets", help="folder with neurons_*.safetensors to be held, instead of the tables' sets")
    for kind, most in (("losses", 200), ("tasks", 200), ("grades", 200)):
        add(f"--{kind}", type=int, default=most, help="random masks per set; 0: none")
    options = parser.parse_args(arguments)
    return exit_status(lambda: write_nulls(the_run(options), options))


def write_nulls(run: Run, options: argparse.Namespace) -> None:
    """Measure and write the nulls of a run's tables; `options` are those of `main`."""
    out = Path(options.out).absolute()
    with pipeline_of(run) as base:
        chat = run.parameters.get("chat_model")
        models = [base, *([base.on_chat(chat)] if chat else [])]
        inner, literal, neighbours = _sets(base, options.sets and Path(options.sets))
        for kind in nulls.KINDS:
            if not (n := getattr(options, kind)):
                continue
            for of in models:
                if kind == "losses" and of is not base:
                    continue
                also = {"tasks": literal, "losses": neighbours}
                more = also.get(kind, []) if of is base else []
                nulls.ship_nulls(of, kind, [*inner, *more], n, out)
                print(f"written: null_{kind} of {of.settings.label}", flush=True)


def _sets(base: Pipeline, folder: Path | None) -> tuple[list[NeuronSet], ...]:
    """The sets that are judged, those of the literal reading, those of the neighbouring papers."""
    if folder is None:
        inner, literal = (
            [row.neurons for row in base.rows(site) if row.seed is None]
            for site in ("intermediate", "projections")
        )
        beside = contenders.contenders(base).values()
        return inner, literal, [neurons for of in beside for neurons in of.values()]
    files = sorted(folder.glob("neurons_*.safetensors"))
    if not files:
        raise FileNotFoundError(f"--sets: no neurons_*.safetensors in {folder}")
    return [NeuronSet.load(file) for file in files], [], []


if __name__ == "__main__":
    sys.exit(main())
