"""Command line: `python -m crane_core.runs book --profile testbed -p n_samples 200`."""

from __future__ import annotations

import argparse
import sys

from crane_core.runs.book import build_book
from crane_core.runs.execution import DEFAULT_PROFILE, Project, RunError


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status (1 after an error, which is printed)."""
    parser = argparse.ArgumentParser(
        prog="python -m crane_core.runs", description="Run the notebooks and build the book."
    )
    parser.add_argument("command", choices=["run", "book"], help="execute; or execute and build")
    parser.add_argument("--profile", default=DEFAULT_PROFILE, help="a file of notebooks/profiles/")
    parser.add_argument("--notebook", help="run this notebook only, by number or name")
    parser.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="override a parameter; results go to runs/<profile>-<hash>/",
    )
    options = parser.parse_args(arguments)
    try:
        project = Project()
        run = project.run(options.profile, dict(options.parameter))
        run.execute([project.find(options.notebook)] if options.notebook else None)
        if options.command == "book":
            build_book(run)
    except (RunError, ValueError, TypeError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
