"""``python -m crane_lab.cli.languages``: neurons of many languages of one model, for notebook 15.

One pass over each language's windows, in parts; kept in the store piece by piece, so that the same
command goes on after an interruption and several of them share the work.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from crane_lab.cli.in_run import pipeline_of
from crane_lab.cli.options import add_run, exit_status, the_run
from crane_lab.pipeline import Pipeline
from crane_lab.runs.execution import Run
from crane_lab.study.many_languages import Choice, ship_languages

#: Languages of data/texts with text for 200 windows: 17 of the paper's 21, and nine others.
LANGUAGES = (
    *("it", "es", "de", "ja", "ar", "zh", "nl", "fr", "pt", "ru", "ko", "tr", "pl"),
    *("sv", "da", "no", "en", "ca", "cs", "el", "fi", "hu", "id", "ro", "uk", "vi"),
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status (1 after an error, which is printed)."""
    parser = argparse.ArgumentParser(prog="python -m crane_lab.cli.languages", description=__doc__)
    add_run(parser)
    add_languages(parser)
    options = parser.parse_args(arguments)
    return exit_status(lambda: _ship(the_run(options), options))


def add_languages(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which languages are read, how much of them, and where to."""
    parser.set_defaults(profile="gemma")
    add, choice = parser.add_argument, Choice()
    add("--out", default="data/languages", help="folder for the tables")
    add("--languages", nargs="+", default=list(LANGUAGES), help="languages by code")
    add("--windows", type=int, default=200, help="windows of text per language")
    add("--rate", type=float, default=choice.rate, help="LAPE's share of all neurons")
    add("--share", type=float, default=choice.share, help="share of each language by relevance")


def many_of(pipeline: Pipeline, options: argparse.Namespace) -> Pipeline:
    """The pipeline with the options' languages; their texts are no translations of each other."""
    return pipeline.changed(languages=options.languages, n_samples=options.windows, parallel=False)


def _ship(run: Run, options: argparse.Namespace) -> None:
    out = Path(options.out).absolute()
    with pipeline_of(run) as pipeline:
        choice = Choice(options.rate, options.share)
        ship_languages(many_of(pipeline, options), choice, out)
        print(f"written: {os.path.relpath(out)}")


if __name__ == "__main__":
    sys.exit(main())
