"""What the verdicts page is made of: our outcomes in the paper's four tables, beside its claims."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from crane_lab.audit.ours import NOT_TESTED, Ours, in_our_tables, threshold_robust
from crane_lab.pipeline import Pipeline
from crane_lab.stages import comparisons
from crane_lab.texts.languages import language_names

#: Columns of `beside` that say what a claim is.
OF_THE_CLAIM = ["id", "section", "claim", "criterion"]


def our_outcomes(base: Pipeline, chat: Pipeline | None) -> Ours:
    """Tables 1 to 4 with their verdicts, from what notebooks 04 to 06 have left in the store.

    `chat` is `base.on_chat` of the chat model; its masks are the base model's. Without one there
    are no Tables 3 and 4.
    """
    masks = base.rows()
    main, *parallel_kinds = base.tables
    paper = base.tables[main]
    models = [base] if chat is None else [base, chat]
    evaluated = {n: of.evaluated(masks, losses=False) for n, of in zip("13", models, strict=False)}
    judged = {n: of.judged(masks) for n, of in zip("24", models, strict=False)}
    asked = {x: f"open_{x}" for x in base.settings.languages}
    scored = {n: found.scored(paper) for n, found in evaluated.items()}
    scored |= {n: found.scored() for n, found in judged.items()}
    scored = dict(sorted(scored.items()))
    tables = {number: found.table() for number, found in scored.items()}
    verdicts = {
        number: comparisons.verdicts(evaluated[number].items(), table, paper)
        if number in evaluated
        else comparisons.verdicts(judged[number].items(), table, asked, value="score")
        for number, table in tables.items()
    }
    parallel = {
        kind: comparisons.verdicts(evaluated["1"].items(), evaluated["1"].table(tasks), tasks)
        for kind, tasks in ((kind, base.tables[kind]) for kind in parallel_kinds)
    }
    return Ours(scored, tables, verdicts, parallel, language_names(base.settings.languages))


def beside(
    claims: pd.DataFrame, ours: Ours, sweep: pd.DataFrame | None = None, label: str = "testbed"
) -> pd.DataFrame:
    """Every claim with its verdict from the paper's tables and from ours.

    Parameters
    ----------
    claims : as `claims_table` returns it.
    sweep : rows of the sweep over choices, if it was made with this run's inputs; without it the
        claim about thresholds is not tested.
    label : the name of the model that ours are about.

    Returns columns id, section, claim, criterion, paper, paper_evidence, <label>, <label>_evidence.
    """
    more = {}
    if sweep is not None:
        thresholds = sweep[sweep["choice"] == "threshold"]
        more["threshold-robust"] = threshold_robust(thresholds, ours.names)
    found = in_our_tables(ours, more)
    rows = []
    for claim in claims.to_dict("records"):
        here = found.get(claim["id"])
        rows.append(
            {
                **{name: claim[name] for name in OF_THE_CLAIM},
                "paper": claim["verdict"],
                "paper_evidence": claim["evidence"],
                label: here.verdict if here else NOT_TESTED,
                f"{label}_evidence": here.evidence if here else "Not tested here.",
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
