"""NLI and span questions as lm-eval's tasks: data/unseen.

    python -m crane_lab.cli.unseen [--parts train validation test] [--out data/unseen]

Writes `nli_<language>` and `qa_<language>` from the testbed's grammar, which need no model and no
network; the book ships the test part. Any model of lm-eval can be asked:

    lm_eval --model hf --model_args pretrained=… --tasks nli_en,qa_zh --include_path data/unseen
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from crane_lab.cli.options import exit_status
from crane_lab.store.files import write_text
from crane_lab.study.tuned import TASKS, question_frame
from crane_lab.testbed.tasks import dump
from crane_lab.testbed.unseen import PARTS, unseen_items
from crane_lab.testbed.world import LANGUAGES

#: As lm-eval's xnli puts it: what asks for agreement, then yes, also and no.
_WORDS = {
    "en": ("right", "Yes", "Also", "No"),
    "zh": ("正确", "是的", "所以", "不是的"),
    "vi": ("đúng", "Vâng", "Vì vậy", "Không"),
}
_HEAD = """\
# Written by `python -m crane_lab.cli.unseen`.
task: {task}_{language}
dataset_path: json
dataset_kwargs:
  data_files:
{files}
test_split: test
num_fewshot: 0
"""
_BODIES = {
    "nli": """\
output_type: multiple_choice
doc_to_text: ""
doc_to_choice: '{{{{[premise+", {0}? {1}, "+hypothesis, premise+", {0}? {2}, "+hypothesis,
  premise+", {0}? {3}, "+hypothesis]}}}}'
doc_to_target: label
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
""",
    "qa": """\
output_type: generate_until
doc_to_text: "{0}"
target_delimiter: "{1}"
doc_to_target: answer
generation_kwargs:
  until: ["\\n"]
  max_gen_toks: 20
  do_sample: false
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
    ignore_punctuation: true
""",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status (1 after an error, which is printed)."""
    parser = argparse.ArgumentParser(prog="python -m crane_lab.cli.unseen", description=__doc__)
    parser.add_argument("--out", default="data/unseen", help="folder for the tasks")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=["test"], help="parts to write"
    )
    options = parser.parse_args(arguments)
    return exit_status(lambda: write_unseen(options.out, options.parts))


def write_unseen(out: str | Path, parts: Sequence[str] = ("test",)) -> None:
    """Write the items of some parts, and a task for each, which lm-eval reads from there."""
    folder = Path(out)
    for task in TASKS:
        for x in LANGUAGES:
            lines = []
            for part in parts:
                name = f"{task}_{x}{'' if part == 'test' else f'_{part}'}.jsonl"
                write_text(folder / name, dump(unseen_items(task, part)[x]))
                lines.append(f"    {part}: {folder / name}")
            frame, gap = question_frame(x)
            fields = _WORDS[x] if task == "nli" else (_in_jinja(frame), gap)
            head = _HEAD.format(task=task, language=x, files="\n".join(lines))
            body = _BODIES[task].format(*fields)
            end = f"metadata:\n  version: 1.0\n  language: {x}\n"
            write_text(folder / f"{task}_{x}.yaml", head + body + end)


def _in_jinja(frame: str) -> str:
    for field in ("passage", "question"):
        frame = frame.replace(f"{{{field}}}", f"{{{{{field}}}}}")
    return frame.replace("\n", "\\n")


if __name__ == "__main__":
    sys.exit(main())
