"""``python -m crane_lab.cli.steer``: answers of a steered model, for notebooks 16 and 17.

`forcing` steers into other languages than asked in, `tasks` asks what that does to tasks,
`fallback` takes languages away one after another, `lens` reads what the model would say after each
layer, `known` how well it knows each language.

Needs the passes of `crane_lab.cli.languages`, and makes them if they are not in the store. The
table is written after every set of neurons; the same command goes on from what a folder has.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from crane_lab.cli.in_run import pipeline_of
from crane_lab.cli.languages import add_languages, many_of
from crane_lab.cli.options import add_run, exit_status, the_run
from crane_lab.runs.execution import Run
from crane_lab.store.grown import write_made
from crane_lab.study.fallback import FallbackPlan, ship_fallback
from crane_lab.study.known import FILE as KNOWN
from crane_lab.study.known import known_languages, same_paragraphs
from crane_lab.study.logit_lens import FILE as LENS
from crane_lab.study.logit_lens import lens_table, require_comparable
from crane_lab.study.many_languages import Choice, merged, read_parts, sets_of
from crane_lab.study.steered_tasks import TaskPlan, ship_steered_tasks
from crane_lab.study.steering import (
    QUESTIONS,
    Steered,
    SteeringPlan,
    questions_digest,
    read_steering_questions,
    ship_steering,
)

PARTS = ("lens", "known", "forcing", "tasks", "fallback")
#: Which parts an option's languages are for.
_USED_BY = {"asked": {"lens", "known", "forcing"}, "tested": {"tasks"}, "order": {"fallback"}}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status (1 after an error, which is printed)."""
    parser = argparse.ArgumentParser(prog="python -m crane_lab.cli.steer", description=__doc__)
    add_run(parser)
    add_languages(parser)
    add, plan = parser.add_argument, SteeringPlan()
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is run")
    add("--asked", nargs="+", default=list(plan.languages), help="languages asked and wanted")
    tasks = TaskPlan()
    add("--tested", nargs="+", default=list(tasks.languages), help="languages with tasks")
    add("--tasks", nargs="+", choices=tasks.tasks, default=list(tasks.tasks), help="tasks")
    add("--order", nargs="+", default=list(FallbackPlan().order), help="languages taken away")
    add("--questions", metavar="FILE", help=f"short questions, by default those of {QUESTIONS}")
    add("--draws", type=int, default=plan.draws, help="random sets beside each set")
    options = parser.parse_args(arguments)
    return exit_status(lambda: _steer(the_run(options), options))


def _steer(run: Run, options: argparse.Namespace) -> None:
    for name, parts in _USED_BY.items():
        if not parts & {*options.parts}:
            continue
        if twice := [x for x in getattr(options, name) if getattr(options, name).count(x) > 1]:
            raise ValueError(f"--{name} has {twice[0]!r} twice: give it once")
        if missing := [x for x in getattr(options, name) if x not in options.languages]:
            raise ValueError(
                f"--{name} has {missing[0]!r}, which is not among --languages: "
                f"{' '.join(options.languages)}"
            )
    tested = TaskPlan(tuple(options.tested), tasks=tuple(options.tasks), draws=options.draws)
    choice = Choice(options.rate, options.share)
    questions = QUESTIONS if options.questions is None else str(Path(options.questions).absolute())
    plan = SteeringPlan(tuple(options.asked), draws=options.draws, questions=questions)
    fallback = FallbackPlan(order=tuple(options.order), draws=options.draws)
    out = Path(options.out).absolute()
    with pipeline_of(run) as pipeline:
        # Before the passes, what any part would refuse after them.
        if "lens" in options.parts:
            require_comparable(read_steering_questions(plan.languages, plan.questions))
        if "forcing" in options.parts:
            plan.require_runnable()
        if "known" in options.parts:
            same_paragraphs(plan.languages)
        if "tasks" in options.parts:
            tested.require_runnable()
        if "fallback" in options.parts:
            fallback.require_runnable(plan.questions)
        many = many_of(pipeline, options)
        kept = many.by_language(lambda x: merged(read_parts(many, x, choice.parts)))
        values = {
            "mean": {x: own["means"].mean().float() for x, own in kept.items()},
            "probability": {
                x: (own["active"].over.double() / own["active"].tokens).float()
                for x, own in kept.items()
            },
        }
        steered = Steered(sets_of(many, kept, choice), values)
        about = {"model": many.loaded.lasting_key, "languages": list(plan.languages)}
        out.mkdir(parents=True, exist_ok=True)
        if "lens" in options.parts:
            asked_of = read_steering_questions(plan.languages, plan.questions)
            lens = lens_table(many, asked_of).round(4)
            asked = {"questions": questions_digest(plan.questions)}
            write_made(lens, out / LENS, {**about, **asked})
        if "forcing" in options.parts:
            ship_steering(many, steered, plan, out)
        if "known" in options.parts:
            known = known_languages(many, plan.languages)
            texts = {"texts": many.corpus.fingerprint(plan.languages)}
            write_made(known, out / KNOWN, {**about, **texts})
        if "tasks" in options.parts:
            ship_steered_tasks(many, steered, tested, out)
        if "fallback" in options.parts:
            ship_fallback(many, steered.sets, fallback, out, plan.questions)
        print(f"written: {os.path.relpath(out)}")


if __name__ == "__main__":
    sys.exit(main())
