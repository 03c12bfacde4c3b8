"""What the verdicts page is made of: our outcomes in the paper's four tables, beside its claims."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from crane_lab.audit.ours import NOT_TESTED, Ours, on_testbed, threshold_robust
from crane_lab.pipeline import Pipeline
from crane_lab.stages import comparisons
from crane_lab.texts.languages import language_names


def outcomes(base: Pipeline, chat: Pipeline) -> Ours:
    """Tables 1 to 4 with their verdicts, from what notebooks 04 to 06 have left in the store.

    `chat` is `base.on_chat` of the chat model; its masks are the base model's.
    """
    masks = base.rows()
    paper = base.tables["paper"]
    evaluated = {"1": base.evaluated(masks, losses=False), "3": chat.evaluated(masks, losses=False)}
    judged = {"2": base.judged(masks), "4": chat.judged(masks)}
    asked = {x: f"open_{x}" for x in base.settings.languages}
    scored = {
        "1": evaluated["1"].scored(paper),
        "2": judged["2"].scored(),
        "3": evaluated["3"].scored(paper),
        "4": judged["4"].scored(),
    }
    tables = {number: found.table() for number, found in scored.items()}
    verdicts = {
        number: comparisons.verdicts(evaluated[number].items(), table, paper)
        if number in evaluated
        else comparisons.verdicts(judged[number].items(), table, asked, value="score")
        for number, table in tables.items()
    }
    parallel = {
        kind: comparisons.verdicts(evaluated["1"].items(), evaluated["1"].table(tasks), tasks)
        for kind, tasks in base.tables.items()
        if kind != "paper"
    }
    return Ours(scored, tables, verdicts, parallel, language_names(base.settings.languages))


def beside(claims: pd.DataFrame, ours: Ours, sweep: pd.DataFrame | None = None) -> pd.DataFrame:
    """Every claim with its verdict from the paper's tables and from ours.

    Parameters
    ----------
    claims : as `claims_table` returns it.
    sweep : rows of the sweep over choices, if it was made with this run's inputs; without it the
        claim about thresholds is not tested.

    Returns columns id, section, claim, criterion, paper, paper_evidence, testbed, testbed_evidence.
    """
    more = {}
    if sweep is not None:
        thresholds = sweep[sweep["choice"] == "threshold"]
        more["threshold-robust"] = threshold_robust(thresholds, ours.names)
    found = on_testbed(ours, more)
    rows = []
    for claim in claims.to_dict("records"):
        here = found.get(claim["id"])
        rows.append(
            {
                **{name: claim[name] for name in ("id", "section", "claim", "criterion")},
                "paper": claim["verdict"],
                "paper_evidence": claim["evidence"],
                "testbed": here.verdict if here else NOT_TESTED,
                "testbed_evidence": here.evidence if here else "Not tested here.",
            }
        )
    return pd.DataFrame(rows)


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
