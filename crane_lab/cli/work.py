"""Workers: what a run needs, computed by any number of processes on machines that share the folder.

`crane work` is one worker. It goes through the stages that the run's pages keep in the store, takes
what nobody has, passes by what another worker is at and comes back to it at the end. Nobody
distributes anything: the store's locks are all that workers know of each other, so a worker can be
added or killed at any time, and the death of one costs the stage it was at.

`crane work --workers N` starts N of them through submitit: jobs of Slurm where there is one, else
processes on this machine. (`accelerate launch` would start them as one group, in which the death of
one ends all.) submitit hands a job over as a pickle in a folder of the run; all that stands in it
is the command line of a worker.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from crane_lab.runs.execution import Run, RunError
from crane_lab.store.artefacts import RUN_NAME, Store

#: submitit ends a process on this machine after two minutes unless told otherwise.
MINUTES = 60 * 24 * 30


def work(run: Run) -> None:
    """Be one worker of a run, until everything it needs is stored.

    Raises RunError with all that failed, after everything else is done; OSError at once.
    """
    from crane_lab.study.work import Work, done_together

    os.environ[RUN_NAME] = run.name
    run.begin()
    me = f"worker {os.getpid()}"

    def say(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {me}: {text}", flush=True)

    began = time.monotonic()
    with contextlib.chdir(run.project.root):
        store = Store(run.project.runs / "store")
        needed = Work(run.parameters, store)
        tasks = needed.tasks(notebook.name for notebook in run.notebooks)
        failed = done_together(tasks, store, say)
    if failed:
        errors = "; ".join(f"{name}: {error}" for name, error in failed.items())
        raise RunError(f"what these notebooks need could not be computed: {errors}")
    say(f"all that {run.name} needs is stored ({time.monotonic() - began:.0f} s)")


def launch(run: Run, worker: Sequence[str], workers: int, options: Mapping[str, Any]) -> None:
    """Start workers through submitit and wait until they have ended.

    Parameters
    ----------
    worker : the command line of one of them.
    workers : how many.
    options : submitit's, such as `slurm_partition`, `gpus_per_node`, `cpus_per_task`,
        `timeout_min` or `mem_gb`.

    Raises ValueError for less than one worker and for options that submitit does not know, and
    RunError if none of the workers came to the end.
    """
    import submitit

    if workers < 1:
        raise ValueError(f"--workers is {workers}: expected at least 1")
    folder = run.project.runs / "workers" / run.name
    folder.mkdir(parents=True, exist_ok=True)
    executor = submitit.AutoExecutor(folder=folder)
    local = executor.cluster == "local"
    fixed = {"name": f"crane-{run.name}"} | ({"timeout_min": MINUTES} if local else {})
    try:
        executor.update_parameters(**{**fixed, **options})
    except (NameError, AssertionError, ValueError) as error:
        raise ValueError(f"submitit does not take these options: {error}") from error
    jobs = []
    for number in range(workers):
        chosen = [*(_share(number, workers) if local else []), *worker]
        one = submitit.helpers.CommandFunction(chosen, cwd=str(run.project.root))
        jobs.append(executor.submit(one))
    where = "processes here" if local else f"jobs of {executor.cluster}"
    print(f"{workers} workers as {where}: {', '.join(job.job_id for job in jobs)}", flush=True)
    print(f"what they say: {os.path.relpath(folder)}/*_log.out", flush=True)
    try:
        while not all(job.done() for job in jobs):
            time.sleep(0.2)
    except KeyboardInterrupt:
        for job in jobs:
            job.cancel(check=False)
        raise
    ended = {job: job.exception() for job in jobs}
    for job, early in ended.items():
        if early is not None:
            print(f"worker {job.job_id} ended early, see {os.path.relpath(job.paths.stderr)}")
    if all(early is not None for early in ended.values()):
        words = str(jobs[0].stderr() or "").strip().splitlines() or ["nothing"]
        raise RunError(f"no worker came to the end; the first one's last words: {words[-1]}")
    print(f"all that {run.name} needs is stored")


def _share(number: int, workers: int) -> list[str]:
    """A prefix of a command that gives a worker here its share of the cores, and a GPU."""
    env = shutil.which("env")
    if env is None:
        return []
    found = ["TQDM_DISABLE=1"]
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        found.append(f"OMP_NUM_THREADS={max(1, (cores or 1) // workers)}")
    # submitit hides GPUs from a process that did not ask for any.
    if gpus := _gpus():
        found.append(f"CUDA_VISIBLE_DEVICES={gpus[number % len(gpus)]}")
    return [env, *found]


def _gpus() -> list[str]:
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is not None:
        return [name for name in shown.split(",") if name]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def submit_options(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """submitit's options from the command line; values are read as YAML."""
    return {name: yaml.safe_load(value) for name, value in pairs}
