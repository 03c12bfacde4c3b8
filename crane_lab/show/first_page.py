"""What came out, for the book's first page: five sentences and a figure, made from results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from IPython.display import HTML

from crane_lab.audit.claims import FAILS, HOLDS, UNKNOWN
from crane_lab.show import figures
from crane_lab.show.alternative import LONGEST, in_short
from crane_lab.show.foreign import as_markdown, marked_up, markup, prose
from crane_lab.show.style import picture
from crane_lab.stages.standing import ENOUGH
from crane_lab.study.candidates import CRANE, worded
from crane_lab.study.confirmation import (
    MERITS,
    OUTCOMES,
    ConfirmationPlan,
    read_confirmed,
    read_plan,
)
from crane_lab.study.criteria import WITHOUT_RELEVANCE
from crane_lab.study.shipped import Shipped
from crane_lab.study.summaries import mean_damage
from crane_lab.texts.languages import language_names

#: The line of the first page that findings take the place of.
MARK = "<!-- findings -->"
RANDOM = "random order"
#: Results that the figure is drawn from.
DRAWN = ("criteria_damage.csv", "real_criteria_damage.csv")
#: What a run must have written, and by which notebook.
NEEDED = {
    "loss_verdicts": "04c",
    "table1_verdicts": "04",
    "criteria_damage": "09c",
    "verdicts": "10",
}


@dataclass(frozen=True)
class OfModel:
    """Results of one model: its name, its tables, the criterion that CRANE's score is, and those
    that are shown here (all of them if none are named)."""

    title: str
    tables: Mapping[str, pd.DataFrame]
    crane: str
    main: tuple[str, ...] = ()

    @property
    def losses(self) -> pd.DataFrame:
        """`comparisons.loss_changes` of Table 1's masks."""
        return self.tables["loss_verdicts"]

    @cached_property
    def budget(self) -> int:
        """The size of whole sets that is nearest to CRANE's own sets."""
        sizes = self.losses.loc[self.losses["method"] == "CRANE", "n_neurons"]
        return int(
            min(
                self.tables["criteria_damage"]["budget"].unique(),
                key=lambda n: abs(n - sizes.mean()),
            )
        )

    @cached_property
    def damage(self) -> pd.Series:
        """Own loss less the largest other at `budget`, mean over languages, most first."""
        return mean_damage(self.tables["criteria_damage"], self.budget)

    @property
    def most_at_random(self) -> float:
        """The same of the random order that has the most, of those that were drawn."""
        table = self.tables["criteria_damage"]
        own = table[(table["budget"] == self.budget) & (table["criterion"] == RANDOM)]
        return float(own.groupby("seed")["difference"].mean().max())


def staged(page: str, results: Path, real: Path, criterion: Path) -> str:
    """The first page with what came out in the place of `MARK`; folders as in `findings`."""
    missing = sorted({n for name, n in NEEDED.items() if not (results / f"{name}.csv").is_file()})
    if missing:
        said = prose(
            f"This book is of a run without notebook{'s' * (len(missing) > 1)} "
            f"{', '.join(missing)}, so what came out is not summed up here."
        ).data
    else:
        said = "\n\n".join(findings(results, real, criterion))
    return page.replace(MARK, str(said))


def findings(results: Path, real: Path, criterion: Path) -> tuple[str, ...]:
    """Five sentences in Markdown, a figure in HTML, what it shows, and what was confirmed.

    `results` are the run's, `real` the shipped ones of a real model, `criterion` has what came of
    the plan that was set down for other sums of relevance.
    """
    here = OfModel(
        "the testbed",
        {name: pd.read_csv(results / f"{name}.csv") for name in NEEDED},
        "kurtosis (logit), contrast",
    )
    there = Shipped.read(real)
    main = tuple(map(str, there.causal()["sample"]["main_criteria"]))
    away = OfModel(
        "Gemma",
        {name: there.table(name) for name in NEEDED},
        main[0],
        main,
    )
    both = (here, away)
    offered = [name for name in DRAWN if (results / name).is_file()]
    return (
        str(prose(_sentences(both)).data),
        str(_figure(both, language_names(there.languages)).data),
        f"{prose(_shown(both)).data} {_links(offered)}",
        str(prose(_confirmed(read_confirmed(criterion), read_plan())).data),
    )


def _sentences(both: tuple[OfModel, OfModel]) -> str:
    lines = [_kurtosis(both), _others(both), _counts(both), _metric(both), _paper(both[0])]
    return "\n".join(f"- {line}" for line in lines).replace(" -", " −")


def _by_count(both: tuple[OfModel, OfModel], method: str, words: tuple[str, str, str]) -> str:
    """One of three headings: no mask of a method is clear, some are, or all."""
    own = pd.concat([found.losses[found.losses["method"] == method] for found in both])
    clear = int((own["verdict"] == "larger").sum())
    none = not clear and not _undecided(own)
    return words[0 if none else 2 if clear == len(own) else 1]


def _undecided(losses: pd.DataFrame) -> int:
    """How many masks cost more than every random mask, of which there are too few."""
    beyond = (losses["verdict_items"] == "larger") & (losses["percentile"] == 100)
    return int((beyond & (losses["verdict"] == "open")).sum())


def _clear(found: OfModel, method: str) -> str:
    own = found.losses[found.losses["method"] == method]
    if not own["null_masks"].any():
        return f"an unknown number on {found.title} (no random masks were measured there)"
    said = f"{int((own['verdict'] == 'larger').sum())} of {len(own)} sets on {found.title}"
    if undecided := _undecided(own):
        said += f" ({undecided} more than every one of too few random masks)"
    return said


def _kurtosis(both: tuple[OfModel, OfModel]) -> str:
    rises = []
    for found in both:
        own = found.losses[found.losses["method"] == "CRANE"]
        added = [row[row["mask_language"]] for row in own.to_dict("records")]
        rises.append(f"{min(added):.2f} to {max(added):.2f} nats per token on {found.title}")
    heading = _by_count(
        both,
        "CRANE",
        (
            "The neurons that CRANE's kurtosis selects are not shown to be those that a language "
            "needs",
            "Some of the sets that CRANE's kurtosis selects are needed by their language",
            "The neurons that CRANE's kurtosis selects are those that a language needs",
        ),
    )
    return (
        f"**{heading}**: without them, held-out text of their own language gets worse by "
        f"{' and '.join(rises)}, and it clearly loses most under "
        f"{' and '.join(_clear(found, 'CRANE') for found in both)}."
    )


def _others(both: tuple[OfModel, OfModel]) -> str:
    sums = [c for c in _criteria(both) if not c.startswith(WITHOUT_RELEVANCE)]
    said, ahead = [], []
    for found in both:
        first = next(c for c in found.damage.index if c in sums)
        said.append(
            f"{found.damage[first]:+.2f} nats per token more than any other on {found.title} "
            f"({_sum_of(first)}; kurtosis {found.damage[found.crane]:+.2f}, random neurons "
            f"{found.damage[RANDOM]:+.2f})"
        )
        ahead.append(found.damage[first] > max(found.most_at_random, found.damage[found.crane]))
    heading = (
        "Other sums of the very same relevance do find them"
        if all(ahead)
        else "Other sums of the very same relevance find them on one model only"
        if any(ahead)
        else "No other sum of the very same relevance finds them"
    )
    return f"**{heading}**: the best of {len(sums)} costs its own language {' and '.join(said)}."


def _sum_of(criterion: str) -> str:
    """What a criterion sums, without how languages are compared."""
    return str(as_markdown(criterion.removeprefix("CRANE’s (").partition(", ")[0]))


def _confirmed(tables: Mapping[str, pd.DataFrame], plan: ConfirmationPlan) -> str:
    merits, outcomes = tables[MERITS], tables[OUTCOMES]
    mean = merits[merits["language"] == "all"].set_index("candidate").to_dict("index")
    of = int(merits.loc[merits["language"] != "all", "language"].nunique())
    told = "; ".join(
        f"{found['merit']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}] by "
        f"the {_sum_of(worded(one.name))}".replace("-", "−")
        for one in (*plan.mains, CRANE)
        for found in [mean[one.name]]
    )
    return (
        "That choice, the best of several, was tried again where it had not been made: by a plan "
        f"set down first, {of} further languages of Gemma bear out "
        f"{(outcomes['outcome'] == 'confirmed').sum()} of its {len(outcomes)} hypotheses. Over "
        f"{100 * min(plan.shares):g} to {100 * max(plan.shares):g} % of all neurons, the same lead "
        f"of the own language is {told} (95 % over windows of text)."
    )


def _counts(both: tuple[OfModel, OfModel]) -> str:
    heading = _by_count(
        both, "LAPE matched", ("finds none", "finds some", "finds them in every language")
    )
    return (
        f"**Counting activations (LAPE) {heading}**: its sets, extended to CRANE's number of "
        "neurons, clearly cost their own language most in "
        f"{' and '.join(_clear(found, 'LAPE matched') for found in both)}; as released, in "
        f"{' and '.join(_clear(found, 'LAPE') for found in both)}."
    )


def _metric(both: tuple[OfModel, OfModel]) -> str:
    said = []
    for found in both:
        own = found.tables["table1_verdicts"]
        own = own[own["method"] != "Random"]
        above = int((own["against_random"] == "above").sum())
        masks = int(own["langspec_f1_null_masks"].min())
        if masks < ENOUGH:
            few = f"with {masks} random masks a set" if masks else "without random masks"
            said.append(f"a value on {found.title} that cannot be told {few}")
            continue
        top = own["langspec_f1_null_high"].max()
        said.append(f"{top:.2f} on {found.title} ({above} of {len(own)} sets lie above their own)")
    return (
        "**LangSpec-F1 is above zero for masks without any purpose**: one in twenty random masks "
        "with a set's size and layers reaches, for the set of which they reach most, "
        f"{' and '.join(said)}."
    )


def _paper(here: OfModel) -> str:
    counted = here.tables["verdicts"]["paper"].value_counts()
    words = {HOLDS: "hold", FAILS: "do not", UNKNOWN: "cannot be told"}
    carried = "some" if counted.get(HOLDS, 0) else "none"
    said = ", ".join(f"{counted[v]} {word}" for v, word in words.items() if v in counted)
    return (
        f"**The paper's printed tables carry {carried} of its claims**: of {int(counted.sum())}, "
        f"held against the tables by criteria that are printed beside them, {said}."
    )


def _shown(both: tuple[OfModel, OfModel]) -> str:
    """What the figure shows, and of how many neurons."""
    sizes = " and ".join(f"{found.budget:,} on {found.title}" for found in both)
    return (
        "**Figure 0.** What each criterion's first neurons, masked together, cost their own "
        f"language more than any other: {sizes}, of the numbers tried those nearest to the mean of "
        "CRANE's sets. Lines are 95 % over windows of text, of random neurons the range over "
        "seeds; the dashed line is no difference."
    )


def _links(files: Sequence[str]) -> str:
    """Results as downloads, in MyST as the first page has them."""
    links = " and ".join(f"{{download}}`{name} <../results/{name}>`" for name in files)
    return f"Its numbers: {links}." if links else ""


def _criteria(both: tuple[OfModel, OfModel]) -> list[str]:
    """The criteria that are shown: those of both models, the largest on the real one first."""
    shared = set(both[0].damage.index) & set(both[1].damage.index) - {RANDOM}
    return [c for c in both[1].damage.index if c in shared & set(both[1].main or shared)]


def _figure(both: tuple[OfModel, OfModel], names: Mapping[str, str]) -> HTML:
    order = [*_criteria(both), RANDOM]
    panels, told = {}, []
    for found, file in zip(both, DRAWN, strict=True):
        table = found.tables["criteria_damage"]
        own = table[(table["budget"] == found.budget) & table["criterion"].isin(order)]
        rows = []
        for (criterion, x), of in own.groupby(["criterion", "language"], sort=False):
            value, error = of["difference"].mean(), 1.96 * of["difference_se"].mean()
            alone = len(of) == 1
            rows.append(
                {
                    "row": criterion,
                    "series": x,
                    "value": value,
                    "low": value - error if alone else of["difference"].min(),
                    "high": value + error if alone else of["difference"].max(),
                }
            )
        panels[f"{found.title}: own loss − largest other (nats per token)"] = pd.DataFrame(rows)
        means = [(f"{c} {found.damage[c]:+.2f}", found.damage[c]) for c in order]
        lead = f"{found.title}, {found.budget:,} neurons:"
        told.append(in_short(lead, means, file, longest=LONGEST // 3))
    shown = picture(
        figures.dot_ranges(panels, zero=list(panels), order=order, names=names),
        alt="What the first neurons of each criterion cost their own language more than any other, "
        f"with intervals over windows, for random neurons the range over seeds. Means over "
        f"languages. {' '.join(told)}",
    )
    return marked_up(markup('<div class="first-figure">{shown}</div>', shown=shown))
