"""What the paper's printed numbers support: an audit of its tables and claims.

`tables` recomputes them and applies the paper's definition, `grim` asks whether they are possible
means, `noise` bounds what the choice of questions could do, `floors` counts scores from their floor
and shows how LangSpec-F1 behaves, `claims` holds the text against the tables, and `ours` against
the testbed's. Everything else here is computed from `data/published/`; `crane_lab.show.figures`
draws it.
"""

from crane_lab.audit.claims import (
    CHECKS,
    LAPE_RELEASED,
    PRINTED_ONLY,
    Claim,
    ClaimVerdict,
    read_claims,
    tally,
)
from crane_lab.audit.floors import (
    even_damage,
    even_damage_by_language,
    f1_variants,
    floor_corrected,
    floor_corrected_interval,
    leaders,
    null_by_size,
    null_f1,
)
from crane_lab.audit.grim import (
    benchmark_sizes,
    fitting_sizes,
    grim,
    grim_summary,
    grim_table,
    hypotheses,
    possible_share,
    recompute_from_counts,
    seeds_coincidence,
    unreachable,
)
from crane_lab.audit.noise import (
    NoiseBounds,
    between,
    chance_table,
    closeness,
    extreme_pairings,
    f1_intervals,
    interval_table,
    noise_bounds,
    noise_table,
    squares,
)
from crane_lab.audit.printed import PrintedScores, claims_table
from crane_lab.audit.tables import (
    LANGUAGES,
    Published,
    bold,
    bold_cells,
    definition,
    f1_bounds,
    largest_f1,
    published,
    read_scores,
    recompute,
)

__all__ = [
    "CHECKS",
    "LANGUAGES",
    "LAPE_RELEASED",
    "PRINTED_ONLY",
    "Claim",
    "ClaimVerdict",
    "NoiseBounds",
    "PrintedScores",
    "Published",
    "benchmark_sizes",
    "between",
    "bold",
    "bold_cells",
    "chance_table",
    "claims_table",
    "closeness",
    "definition",
    "even_damage",
    "even_damage_by_language",
    "extreme_pairings",
    "f1_bounds",
    "f1_intervals",
    "f1_variants",
    "fitting_sizes",
    "floor_corrected",
    "floor_corrected_interval",
    "grim",
    "grim_summary",
    "grim_table",
    "hypotheses",
    "interval_table",
    "largest_f1",
    "leaders",
    "noise_bounds",
    "noise_table",
    "null_by_size",
    "null_f1",
    "possible_share",
    "published",
    "read_claims",
    "read_scores",
    "recompute",
    "recompute_from_counts",
    "seeds_coincidence",
    "squares",
    "tally",
    "unreachable",
]
