"""What the commands share: which run is meant, and how an error is told."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from crane_lab.runs.execution import DEFAULT_PROFILE, Project, Run, RunError


def add_run(parser: argparse.ArgumentParser) -> None:
    """Give a command the options that name a run: a profile and overrides."""
    parser.add_argument("--profile", default=DEFAULT_PROFILE, help="in notebooks/profiles/")
    parser.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="override a parameter; results go to runs/<profile>-<hash>/",
    )


def the_run(options: argparse.Namespace, project: Project | None = None) -> Run:
    """The run that `add_run`'s options name. Raises what `Project.run` raises, and ValueError for
    a parameter that is given twice."""
    names = [name for name, _ in options.parameter]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"parameter {min(twice)} is given twice; give it once")
    return (project or Project()).run(options.profile, dict(options.parameter))


def exit_status(command: Callable[[], None]) -> int:
    """Run a command: 0, or 1 after an error and 130 after Ctrl-C, told in a line on stderr."""
    try:
        command()
    except (RunError, ValueError, TypeError, OSError, MemoryError, ArithmeticError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0
