"""The read-outs under one name, for callers that have not been told their modules yet."""

from crane_lab.engines.answers import answer_instead
from crane_lab.engines.multiple_choice import (
    Item,
    Prepared,
    evaluate,
    outcomes,
    prepare,
)
from crane_lab.engines.multiple_choice import accuracies as scores
from crane_lab.engines.perplexity import Perplexity, perplexity
from crane_lab.engines.shared_context import SharedContextLM
from crane_lab.engines.tasks import FOLDER, OPTIONS, TASKS, Tasks, load_tasks
from crane_lab.engines.tasks import tasks_digests as fingerprint

__all__ = [
    "FOLDER",
    "OPTIONS",
    "TASKS",
    "Item",
    "Perplexity",
    "Prepared",
    "SharedContextLM",
    "Tasks",
    "answer_instead",
    "evaluate",
    "fingerprint",
    "load_tasks",
    "outcomes",
    "perplexity",
    "prepare",
    "scores",
]
