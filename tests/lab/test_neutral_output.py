"""Executed notebooks lose this machine's paths, and figures in them cost no time."""

import base64
import random
import time

from crane_lab.runs.outputs import neutral
from crane_lab.store import ROOT


def test_paths_and_process_numbers_go() -> None:
    text = (
        f'/tmp/ipykernel_21/37.py:2: UserWarning\n  File "/opt/env/site-packages/a.py"\n{ROOT}/data'
    )
    assert neutral(text, ROOT) == '<cell>:2: UserWarning\n  File "a.py"\ndata'


def test_a_large_figure_is_left_alone_at_once() -> None:
    data = base64.b64encode(random.Random(0).randbytes(300_000)).decode()
    page = f'<img src="data:image/png;base64,{data}" alt="x">'
    start = time.perf_counter()
    assert neutral(page, ROOT) == page
    assert time.perf_counter() - start < 20  # minutes, when tried at every letter
