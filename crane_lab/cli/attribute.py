"""Attribution of a profile by any number of processes, before its notebooks are run.

    accelerate launch --num_processes 4 -m crane_lab.cli.attribute --profile paper

Every process takes pieces of each language's relevance (`crane_lab.stages.streams`) on a GPU of its
own and puts them into the same store, where the notebooks find the moments. Killed and started
again, with as many processes or fewer, it goes on where it stopped. On CPUs `--multi_gpu` makes
accelerate start more than one process, GPUs or not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

from crane_lab.cli.options import add_run, exit_status, the_run
from crane_lab.runs.execution import Run
from crane_lab.store.artefacts import RUN_NAME, Store


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status (1 after an error, which is printed)."""
    parser = argparse.ArgumentParser(
        prog="accelerate launch -m crane_lab.cli.attribute",
        description="Compute the relevance of all languages, in any number of processes.",
    )
    add_run(parser)
    parser.add_argument("--store", help="a folder; default: that of the notebooks")
    options = parser.parse_args(arguments)
    return exit_status(lambda: attribute(the_run(options), options.store))


def attribute(run: Run, store: str | None = None) -> None:
    """Store what identifies every language's neurons, as one of the processes started.

    The process group is gloo's on CPUs and nccl's on GPUs. Only ranks and devices are taken from
    it: work is shared through the store, so a process that dies leaves no other waiting.

    Raises what `Pipeline` raises.
    """
    import torch
    from accelerate import PartialState
    from torch import distributed

    from crane_lab.settings import Settings
    from crane_lab.stages.identification import Identification

    os.environ.setdefault(RUN_NAME, run.name)
    if store is None:
        run.begin()
    values = run.parameters
    device = str(values.get("device", "cpu"))
    state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
    if state.num_processes > 1 and device.startswith("cuda"):
        device = "cuda"  # each process's own; "cuda:0" would be the same for all
    settings = Settings.of({**values, "device": device})
    try:
        with contextlib.chdir(run.project.root):
            kept = Store(store) if store else Store(run.project.runs / "store")
            pipeline = Identification(settings, kept)
            for language in settings.languages:
                pipeline.collected(language)
                if state.is_main_process:
                    n = settings.n_samples
                    print(f"{run.name}: relevance of {n} samples, {language}: stored")
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
