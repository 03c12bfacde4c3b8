"""What notebook 10 shows: every claim with its verdict from the paper's tables and from ours.

`page` is everywhere the table of `crane_lab.audit.gather.beside`.
"""

from __future__ import annotations

import pandas as pd
from IPython.display import Markdown
from pandas.io.formats.style import Styler

from crane_lab.audit.claims import FAILS, HOLDS, NOT_TESTED, UNKNOWN
from crane_lab.audit.gather import sources
from crane_lab.show import figures
from crane_lab.show.foreign import as_markdown, prose


def _titles(page: pd.DataFrame) -> dict[str, str]:
    """What the columns of verdicts are called: those of the paper's tables, and each model's."""
    return {name: "paper's tables" if name == "paper" else name for name in sources(page)}


def counts(page: pd.DataFrame) -> Styler:
    """How many claims hold, do not, and cannot be told, there and here."""
    verdicts = [HOLDS, FAILS, UNKNOWN, NOT_TESTED]
    found = {
        title: [int((page[name] == v).sum()) for v in verdicts]
        for name, title in _titles(page).items()
    }
    return figures.table(
        pd.DataFrame({"verdict": verdicts, **found}),
        f"{len(page)} claims at a glance ({NOT_TESTED}: not to be tested there)",
    )


def at_a_glance(page: pd.DataFrame) -> Styler:
    """The claims with their sections and all verdicts."""
    short = page[["claim", "section", *sources(page)]].rename(columns={"section": "§"})
    return figures.table(short, "The claims and their verdicts; the evidence follows")


def claim_by_claim(page: pd.DataFrame) -> list[Markdown]:
    """Each claim with its criterion, and behind a click the evidence for its verdicts."""
    titles = {name: f"The {title}" for name, title in _titles(page).items()}
    titles |= {name: as_markdown(name) for name in titles if name not in ("paper", "testbed")}
    shown = []
    for number, row in enumerate(page.to_dict("records"), start=1):
        evidence = "\n".join(
            f"- {title}: **{row[name]}**. {row[f'{name}_evidence']}"
            for name, title in titles.items()
        )
        shown += [
            prose(
                f"**{number}. {row['claim']}** ({_place(row['section'])}) "
                f"Criterion: {row['criterion']}"
            ),
            prose(evidence, fold=f"Claim {number}: verdicts and evidence"),
        ]
    return shown


def most_cases_table(table: pd.DataFrame) -> Styler:
    """`gather.most_cases` as a table."""
    return figures.table(
        table,
        "Under how many of three masks the masked language loses most, relatively (ours: clearly, "
        "by the interval; published: by the printed numbers, rounding allowed for)",
    )


def _place(section: str) -> str:
    """Where a claim stands: a section, or another paper."""
    return section if section.startswith("arXiv") else f"§ {section}"
