"""``python -m crane_lab.cli.ship``: a run's results as the book ships them, in `data/gemma`.

Takes what the notebooks of a profile have written, adds what the chapter on a real model needs
besides (the gate, the sets and what they share, the scores behind Figure 3, a small case that
anybody with the weights can compute anew), and writes checksums over all. What was computed before
comes from the store.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from crane_core.models import CHECKSUMS, write_checksums
from crane_lab.cli.in_run import pipeline_of
from crane_lab.cli.options import add_run, exit_status, the_run
from crane_lab.cli.real_model import CAUSAL
from crane_lab.pipeline import Pipeline
from crane_lab.runs.execution import Run
from crane_lab.store import write_table
from crane_lab.store.files import write_text
from crane_lab.store.machine import versions
from crane_lab.study import known_neurons, real_model
from crane_lab.study.nulls import Nulls
from crane_lab.study.shipped import other_inputs

#: Results of notebooks, as they stand in a run's `results/`.
RESULTS = (
    *("perplexity", "loss_verdicts", "provenance", "kurtosis_groups"),
    *("table1", "table1_seeds", "table1_verdicts", "table1_projections"),
    *("table2", "table2_seeds", "table2_verdicts", "table2_languages", "verdicts"),
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status (1 after an error, which is printed)."""
    parser = argparse.ArgumentParser(prog="python -m crane_lab.cli.ship", description=__doc__)
    add_run(parser)
    parser.set_defaults(profile="gemma")
    parser.add_argument("--out", default="data/gemma", help="folder for the results")
    options = parser.parse_args(arguments)
    return exit_status(lambda: ship(the_run(options), Path(options.out)))


def ship(run: Run, out: Path) -> None:
    """Write what is shipped of a run to a folder.

    Raises FileNotFoundError for a result that its notebooks have not written.
    """
    results = run.directory / "results"
    files = [_result(results, name) for name in RESULTS]
    files += sorted(results.glob("table1_parallel_*.csv"))
    out = out.absolute()
    with pipeline_of(run) as pipeline:
        sets = real_model.method_sets(pipeline)
        random = Nulls.of(pipeline, run.parameters["null_data"], run.parameters["n_null"])
        tables = {
            "gate": real_model.tasks_gate(pipeline),
            "openings": real_model.losses_by_opening(pipeline),
            "openings_relevance": real_model.relevance_by_opening(pipeline),
            "layers": real_model.counts_by_layer(sets),
            "overlaps": real_model.overlaps(sets),
            "small_case": real_model.small_case(pipeline, sets),
            **real_model.parallel_verdicts(pipeline, random),
        }
        scores = {x: v.float().contiguous() for x, v in _intermediate(pipeline).items()}
        made = {
            "run": run.name,
            **real_model.inputs(pipeline),
            "shape": pipeline.shape,
            "settings": dataclasses.asdict(pipeline.settings),
            "versions": versions(),
        }
        out.mkdir(parents=True, exist_ok=True)
        _clear(out, made)
        for method, of in sets.items():
            for x, neurons in of.items():
                name = f"neurons_{method.lower().replace(' ', '_')}_{x}.safetensors"
                neurons.save(out / name)
    for name, table in tables.items():
        write_table(table, out / f"{name}.csv")
    save_file(scores, out / "normalised.safetensors")
    for file in files:
        shutil.copyfile(file, out / file.name)
    write_text(out / "run.json", json.dumps(made, indent=1, sort_keys=True) + "\n")
    write_checksums(out)
    print(f"shipped: {os.path.relpath(out)}")


def _clear(out: Path, made: Mapping[str, Any]) -> None:
    """Remove what was shipped before; the causal check stays if it is of the same model and texts.

    Files that are not in the folder's checksums are left alone.
    """
    if not (out / CHECKSUMS).is_file():
        return
    listed = [
        line.split(maxsplit=1)[1].strip()
        for line in (out / CHECKSUMS).read_text("utf-8").splitlines()
    ]
    causal = out / "made.json"
    kept = {file.name for file in out.glob("null_*")}  # `crane_lab.cli.nulls` keeps track of them
    if causal.is_file() and not other_inputs(json.loads(causal.read_text("utf-8")), made):
        kept |= {"made.json", *(f"{name}.csv" for name in CAUSAL), *known_neurons.FILES}
    for name in {*listed, CHECKSUMS} - kept:
        (out / name).unlink(missing_ok=True)


def _result(results: Path, name: str) -> Path:
    for ending in (".csv", ".json"):
        if (results / f"{name}{ending}").is_file():
            return results / f"{name}{ending}"
    raise FileNotFoundError(
        f"{results} has no {name}; execute the profile's notebooks first: crane run"
    )


def _intermediate(pipeline: Pipeline) -> dict[str, torch.Tensor]:
    found = pipeline.normalised("intermediate")
    return {x: v for x, v in found.items() if isinstance(v, torch.Tensor)}


if __name__ == "__main__":
    sys.exit(main())
