"""What notebook 10 shows: every claim with its verdict from the paper's tables and from ours.

`page` is everywhere the table of `crane_lab.audit.gather.beside`.
"""

from __future__ import annotations

import pandas as pd
from IPython.display import Markdown
from pandas.io.formats.style import Styler

from crane_lab.audit.claims import FAILS, HOLDS, UNKNOWN
from crane_lab.audit.ours import NOT_TESTED
from crane_lab.show import figures
from crane_lab.show.foreign import prose


def counts(page: pd.DataFrame) -> Styler:
    """How many claims hold, do not, and cannot be told, there and here."""
    verdicts = [HOLDS, FAILS, UNKNOWN, NOT_TESTED]
    columns = {"paper's tables": "paper", "testbed": "testbed"}
    return figures.table(
        pd.DataFrame(
            {
                "verdict": verdicts,
                **{
                    title: [int((page[column] == v).sum()) for v in verdicts]
                    for title, column in columns.items()
                },
            }
        ),
        f"{len(page)} claims at a glance ({NOT_TESTED}: not to be tested there)",
    )


def at_a_glance(page: pd.DataFrame) -> Styler:
    """The claims with their sections and both verdicts."""
    short = page[["claim", "section", "paper", "testbed"]].rename(columns={"section": "§"})
    return figures.table(short, "The claims and their verdicts; the evidence follows")


def claim_by_claim(page: pd.DataFrame) -> list[Markdown]:
    """Each claim with its criterion and the evidence for both verdicts, numbered from 1."""
    return [
        prose(
            f"**{number}. {row['claim']}** (§ {row['section']})\n\n"
            f"- Criterion: {row['criterion']}\n"
            f"- The paper's tables: **{row['paper']}**. {row['paper_evidence']}\n"
            f"- The testbed: **{row['testbed']}**. {row['testbed_evidence']}"
        )
        for number, row in enumerate(page.to_dict("records"), start=1)
    ]


def most_cases_table(table: pd.DataFrame) -> Styler:
    """`gather.most_cases` as a table."""
    return figures.table(
        table,
        "Under how many of three masks the masked language loses most, relatively (ours: clearly, "
        "by the interval; published: by the printed numbers, rounding allowed for)",
    )
