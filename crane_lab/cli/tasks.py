"""Tasks in many languages, made anew: data/tasks.

    python -m crane_lab.cli.tasks [--texts data/texts] [--out data/tasks]

Writes `facts_<language>` from Unicode's CLDR, as Babel carries it, and `continuation_<language>`
from the held-out paragraphs of the texts. The same version of Babel and the same texts give the
same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crane_lab.cli.options import exit_status
from crane_lab.engines.tasks import MULTILINGUAL
from crane_lab.store import ROOT
from crane_lab.store.files import write_text
from crane_lab.texts.continuations import continuation_items
from crane_lab.texts.facts import FRAMES, fact_items
from crane_lab.texts.held_out import held_out_paragraphs

#: Items of `continuation` per language.
MOST = 160
#: What of lm-eval is the score. Sentences differ in how likely they are anywhere, names hardly do:
#: the choice is from the unmasked model alone, see data/tasks/README.md.
METRICS = {"continuation": "acc_mutual_info", "facts": "acc"}

_SHARED = """\
# Shared by all tasks of this folder; written by `python -m crane_lab.cli.tasks`.
dataset_path: json
output_type: multiple_choice
test_split: test
num_fewshot: 0
doc_to_text: "{{question}}"
doc_to_choice: options
doc_to_target: answer
"""
_TASK = """\
include: _default_template_yaml
task: {name}
dataset_kwargs:
  data_files:
    test: data/tasks/{name}.jsonl
target_delimiter: "{gap}"
metric_list:
  - metric: {metric}
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
  language: "{language}"
"""


def made_files(texts: Path) -> dict[str, str]:
    """What belongs into data/tasks, by file name: items and definitions."""
    gaps = {x: FRAMES[x].gap for x in MULTILINGUAL}
    kinds: Mapping[str, dict[str, list[dict[str, Any]]]] = {
        "continuation": continuation_items(held_out_paragraphs(texts, MULTILINGUAL), gaps, MOST),
        "facts": fact_items(MULTILINGUAL),
    }
    files = {"_default_template_yaml": _SHARED}
    for kind, by_language in kinds.items():
        for language, items in by_language.items():
            name = f"{kind}_{language}"
            lines = (json.dumps(item, ensure_ascii=False) + "\n" for item in items)
            files[f"{name}.jsonl"] = "".join(lines)
            files[f"{name}.yaml"] = _TASK.format(
                name=name, gap=gaps[language], language=language, metric=METRICS[kind]
            )
    return files


def write_tasks(texts: Path, out: Path) -> None:
    """Write `made_files` to a folder."""
    for name, content in made_files(texts).items():
        write_text(out / name, content)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status (1 after an error, which is printed)."""
    parser = argparse.ArgumentParser(prog="python -m crane_lab.cli.tasks", description=__doc__)
    parser.add_argument("--texts", type=Path, default=ROOT / "data" / "texts")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "tasks")
    options = parser.parse_args(arguments)
    return exit_status(lambda: write_tasks(options.texts, options.out))


if __name__ == "__main__":
    sys.exit(main())
