"""What pages keep in the store, as tasks that any number of workers can take.

A task is a call that the page makes, too, and everything in it that takes time is shared by
`Store.together`. What a page computes beside the store, in seconds, it computes itself. A page with
new stages is an entry in `PAGES`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from typing import Any

from crane_core.interventions import UNTOUCHED
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.stages.comparisons import one_of_each
from crane_lab.stages.outcomes import Row
from crane_lab.store import Store
from crane_lab.store.artefacts import BusyError
from crane_lab.study import choices, criteria, damage, effects, summaries, transfer
from crane_lab.study.nulls import Nulls

Task = Callable[[], object]


class Work:
    """The tasks of one run; `values` are the notebooks' parameters by name."""

    def __init__(self, values: Mapping[str, Any], store: Store) -> None:
        self.values, self.store = values, store
        self.settings = Settings.of(values)

    @cached_property
    def base(self) -> Pipeline:
        """The run's own pipeline."""
        return Pipeline(self.settings, self.store)

    @cached_property
    def chat(self) -> Pipeline:
        """The same on the chat model."""
        return self.base.on_chat(self.values["chat_model"])

    def tasks(self, notebooks: Iterable[str]) -> list[tuple[str, Task]]:
        """The tasks of some notebooks with the notebook's name, in the order of the book."""
        return [(name, task) for name in notebooks for task in PAGES.get(name, _none)(self)]

    def judged(self, of: Pipeline, rows: Iterable[Row]) -> None:
        """Answers under interventions and their grades; those that cost money are left alone."""
        rows = list(rows)
        if of.settings.judge == "llm":  # paid for, by whoever has the key
            wanted = [UNTOUCHED, *(row.intervention for row in rows)]
            self.store.together(partial(of.said, one) for one in wanted)
        else:
            of.judged(rows)

    def answers(self) -> None:
        """What is said instead of an option (notebook 04c)."""
        literal = [row for row in self.literal() if row.method == "CRANE"]
        rows = [*one_of_each(self.base.rows("intermediate")), *literal]
        size = (self.values["n_answers"], self.values["answer_tokens"])
        wanted = [UNTOUCHED, *(row.intervention for row in rows)]
        self.store.together(partial(self.base.answers, one, *size) for one in wanted)

    def literal(self) -> list[Row]:
        """The rows of the literal reading, if it is wanted (notebook 04b)."""
        return self.base.rows("projections") if self.values["literal_reading"] else []

    def nulls(self, of: Pipeline, kind: str, rows: Iterable[Row]) -> None:
        """Random masks of a table's rows (notebooks 04 to 06b)."""
        Nulls.of(of, self.values["null_data"], self.values["n_null"]).of_rows(kind, rows)

    def counterpart(self) -> list[Row]:
        """The rows that were found on the chat model itself (notebook 06b)."""
        return [row for row in self.chat.rows() if row.method in transfer.METHODS]

    def sweep(self) -> None:
        """The sweep over choices, or the one case of it that is computed again (notebook 08)."""
        if self.values["recompute_choices"]:
            choices.run(self.settings, self.store)
            return
        tables, made_with = choices.read(self.values["choices_data"])
        if not choices.differing_inputs(choices.probe(self.settings, self.store), made_with):
            summaries.sets_again(self.settings, made_with, tables["choices"], store=self.store)

    def ablations(self) -> None:
        """Single ablations if they are wanted again (notebooks 09 and 09b)."""
        if self.values["recompute_necessity"]:
            v = self.values
            texts, _ = damage.held_out(self.base, v["n_necessity"], v["n_damage"])
            damage.ablations(self.base, texts)

    def damage(self) -> None:
        """Single ablations if they are wanted again, and whole sets (notebook 09c)."""
        v, of = self.values, self.base
        texts, others = damage.held_out(of, v["n_necessity"], v["n_damage"])
        if v["recompute_necessity"]:
            damage.ablations(of, texts)
            return  # what follows depends on files that the page itself writes
        gold = damage.gold_standard(of, texts, v["necessity_data"])
        orders = damage.orders_of(of, criteria.criteria(of), gold, v["random_seeds"])
        damage.damage(orders, v["budgets"], of.model, others, gold.sets, self.store)


def _none(work: Work) -> list[Task]:
    return []


def _unmasked(work: Work) -> list[Task]:
    return [lambda: work.base.items(), lambda: work.base.losses()]


def _kurtosis(work: Work) -> list[Task]:
    return [
        lambda: work.base.kurtosis("intermediate"),
        lambda: work.base.changed(statistic="kurtosis").kurtosis("intermediate"),
    ]


def _masking(work: Work) -> list[Task]:
    seeds = work.settings.random_seeds
    return [lambda: effects.loss_effects(work.base, work.base.neuron_sets(), seeds)]


def _table1(work: Work) -> list[Task]:
    return [
        lambda: work.base.evaluated(work.base.rows("intermediate")),
        lambda: work.nulls(work.base, "tasks", work.base.rows("intermediate")),
    ]


def _confound(work: Work) -> list[Task]:
    return [
        *_table1(work),
        lambda: work.base.evaluated(work.literal()),
        lambda: work.nulls(work.base, "tasks", work.literal()),
    ]


def _answers(work: Work) -> list[Task]:
    return [
        lambda: work.base.evaluated(work.base.rows("intermediate")),
        lambda: work.base.evaluated(work.literal()),
        lambda: work.nulls(work.base, "losses", work.base.rows("intermediate")),
        work.answers,
    ]


def _open_ended(work: Work) -> list[Task]:
    return [
        lambda: work.judged(work.base, work.base.rows()),
        lambda: work.nulls(work.base, "grades", work.base.rows()),
    ]


def _what_gets_worse(work: Work) -> list[Task]:
    return [
        lambda: work.judged(work.base, work.base.rows()),
        lambda: work.judged(work.base.changed(repetition_penalty=1.0), []),
    ]


def _transfer(work: Work) -> list[Task]:
    return [
        lambda: work.base.evaluated(work.base.rows(), losses=False),
        lambda: work.chat.evaluated(work.base.rows(), losses=False),
        lambda: work.nulls(work.chat, "tasks", work.base.rows()),
    ]


def _chat_answers(work: Work) -> list[Task]:
    return [
        lambda: work.chat.evaluated(work.base.rows(), losses=False),
        lambda: work.judged(work.chat, work.base.rows()),
        lambda: work.nulls(work.chat, "grades", work.base.rows()),
        lambda: work.chat.evaluated(work.counterpart(), losses=False),
        lambda: work.judged(work.chat, work.counterpart()),
    ]


def _gold_standard(work: Work) -> list[Task]:
    return [lambda: criteria.criteria(work.base), work.ablations]


def _sets(work: Work) -> list[Task]:
    return [lambda: criteria.criteria(work.base), work.damage]


#: notebook -> its tasks.
PAGES: dict[str, Callable[[Work], list[Task]]] = {
    "00_meet_the_testbed": _unmasked,
    "00b_gate": _unmasked,
    "02_kurtosis": _kurtosis,
    "02b_trust": _kurtosis,
    "02c_figure3": _kurtosis,
    "03_selecting": lambda work: [lambda: work.base.kurtosis("intermediate")],
    "03b_masking": _masking,
    "04_table1": _table1,
    "04b_confound": _confound,
    "04c_answers": _answers,
    "04d_drops_and_budgets": _table1,
    "05_open_ended": _open_ended,
    "05b_what_gets_worse": _what_gets_worse,
    "06_transfer": _transfer,
    "06b_chat_answers": _chat_answers,
    "08_choices": lambda work: [work.sweep],
    "09_gold_standard": _gold_standard,
    "09b_criteria": _gold_standard,
    "09c_sets": _sets,
}


def done_together(
    tasks: Iterable[tuple[str, Task]], store: Store, say: Callable[[str], object]
) -> dict[str, Exception]:
    """Do tasks that other processes are doing too: what one of them is at comes last.

    Ends when everything is stored, whoever stored it. `say` is told what is begun and done.

    Returns what failed, by name; other tasks are done all the same. OSError (a full disk, a lock
    that is held for too long) ends it at once.
    """
    failed: dict[str, Exception] = {}
    waiting = list(tasks)
    patient = False
    while waiting:
        left = []
        for name, task in waiting:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the pages say them
                    if patient:
                        patient = False
                        task()
                    else:
                        with store.passing():
                            task()
            except BusyError:
                left.append((name, task))
                continue
            except (OSError, KeyboardInterrupt):
                raise
            except Exception as error:
                failed.setdefault(name, error)
                say(f"{name}: failed, {type(error).__name__}: {error}")
                continue
            say(f"{name}: done, {len(waiting)} to look at")
        # Others are at all that is left: the first of it is waited for.
        patient = len(left) == len(waiting)
        waiting = left
    return failed
