"""What the verdicts page is made of: our outcomes in the paper's four tables, beside its claims."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from torch import Tensor

from crane_lab.audit.claims import judge_claims, read_claims
from crane_lab.audit.ours import Ours
from crane_lab.pipeline import Pipeline
from crane_lab.stages import comparisons
from crane_lab.stages.outcomes import Scored
from crane_lab.study.nulls import Nulls as MaskNulls
from crane_lab.study.nulls import asked_in
from crane_lab.study.scores import separation
from crane_lab.texts.languages import language_names

#: Columns of `beside` that say what a claim is.
OF_THE_CLAIM = ["id", "section", "claim", "criterion"]


def our_outcomes(
    base: Pipeline,
    chat: Pipeline | None,
    base_nulls: MaskNulls,
    chat_nulls: MaskNulls | None,
    sweep: pd.DataFrame | None = None,
) -> Ours:
    """Tables 1 to 4 with their verdicts, from what notebooks 04 to 06b have left in the store.

    Parameters
    ----------
    chat : `base.on_chat` of the chat model; its masks are the base model's. Without one there are
        no Tables 3 and 4.
    base_nulls, chat_nulls : random masks of both models.
    sweep : rows of the sweep over choices, if it was made with this run's inputs; without it the
        claim about thresholds cannot be told.
    """
    masks = base.rows()
    main, *parallel_kinds = base.tables
    paper = base.tables[main]
    models = [(base, base_nulls)]
    if chat is not None and chat_nulls is not None:
        models.append((chat, chat_nulls))
    scored: dict[str, Scored] = {}
    tables: dict[str, pd.DataFrame] = {}
    verdicts: dict[str, pd.DataFrame] = {}
    parallel: dict[str, pd.DataFrame] = {}
    nulls: dict[str, comparisons.Nulls] = {}
    tasks: dict[str, Mapping[str, str]] = {}
    asked = asked_in(base.settings.languages)
    numbers = (("1", "2"), ("3", "4"))
    for (on_tasks, on_answers), (of, random) in zip(numbers, models, strict=False):
        evaluated, judged = of.evaluated(masks, losses=False), of.judged(masks)
        scored |= {on_tasks: evaluated.scored(paper), on_answers: judged.scored()}
        tasks |= {on_tasks: paper, on_answers: asked}
        nulls |= {
            on_tasks: random.of_rows("tasks", masks),
            on_answers: random.of_rows("grades", masks),
        }
        tables |= {number: scored[number].table() for number in (on_tasks, on_answers)}
        items = evaluated.items()
        for number, outcomes, value in (
            (on_tasks, items, "correct"),
            (on_answers, judged.items(), "score"),
        ):
            verdicts[number] = comparisons.verdicts(
                outcomes,
                tables[number],
                tasks[number],
                value=value,
                nulls=nulls[number],
                reading=of.reading,
            )
        if of is base:
            for kind in parallel_kinds:
                same = base.tables[kind]
                parallel[kind] = comparisons.verdicts(
                    items,
                    evaluated.table(same),
                    same,
                    value="correct",
                    nulls=nulls[on_tasks],
                    reading=of.reading,
                )
    swept = None if sweep is None else sweep[sweep["choice"] == "threshold"]
    normalised = base.normalised("intermediate")
    separated = separation(
        {x: values for x, values in normalised.items() if isinstance(values, Tensor)},
        base.settings.threshold,
    )
    return Ours(
        dict(sorted(scored.items())),
        dict(sorted(tables.items())),
        dict(sorted(verdicts.items())),
        parallel,
        language_names(base.settings.languages),
        nulls,
        tasks,
        swept,
        separated,
    )


def beside(claims: pd.DataFrame, ours: Ours, label: str = "testbed") -> pd.DataFrame:
    """Every claim with its verdict from the paper's tables and from ours.

    Parameters
    ----------
    claims : as `claims_table` returns it.
    label : the name of the model that ours are about.

    Returns columns id, section, claim, criterion, paper, paper_evidence, <label>, <label>_evidence.
    """
    found = judge_claims(read_claims(), ours)
    rows = []
    for claim in claims.to_dict("records"):
        here = found[claim["id"]]
        rows.append(
            {
                **{name: claim[name] for name in OF_THE_CLAIM},
                "paper": claim["verdict"],
                "paper_evidence": claim["evidence"],
                label: here.verdict,
                f"{label}_evidence": here.evidence,
            }
        )
    return pd.DataFrame(rows)


def sources(page: pd.DataFrame) -> list[str]:
    """Whose evidence a table of `beside` has: the paper's first, then models by name."""
    return [str(name) for name in page if f"{name}_evidence" in page]


def with_shipped(page: pd.DataFrame, shipped: pd.DataFrame) -> pd.DataFrame:
    """`beside`'s table with the verdicts of a run on another model, as notebook 10 wrote them.

    Raises ValueError if that run tested other claims, or by other criteria.
    """
    if not page[OF_THE_CLAIM].equals(shipped[OF_THE_CLAIM]):
        raise ValueError("the shipped verdicts are about other claims; run their profile again")
    new = [name for name in sources(shipped) if name not in page]
    return page.assign(**{c: shipped[c] for name in new for c in (name, f"{name}_evidence")})


def most_cases(verdicts: Mapping[str, pd.DataFrame], definition: pd.DataFrame) -> pd.DataFrame:
    """Under how many masks of each method the masked language loses most, relatively.

    Parameters
    ----------
    verdicts : number of our table -> `comparisons.verdicts` of it.
    definition : the published tables', as `tables.definition` returns it.

    Returns `source`, `method` and three counts of masks: `most` (the masked language clearly loses
    most), `open`, and `another more`.
    """
    ours = [found.assign(source=f"ours, Table {number}") for number, found in verdicts.items()]
    words = {"yes": "larger", "no": "smaller", "open": "open"}
    theirs = definition.assign(
        source="published, " + definition["table"], relative=definition["relative"].map(words)
    )
    both = pd.concat([found[["source", "method", "relative"]] for found in (*ours, theirs)])
    columns = {"larger": "most", "open": "open", "smaller": "another more"}
    counts = both.groupby(["source", "method"], sort=False)["relative"].value_counts()
    wide = counts.unstack(fill_value=0).reindex(columns=list(columns), fill_value=0)
    first = both[["source", "method"]].drop_duplicates()
    return (
        wide.loc[list(first.itertuples(index=False, name=None))]
        .rename(columns=columns)
        .reset_index()
    )
