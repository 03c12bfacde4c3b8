"""The same to the last bit, from whatever process: what is written does not depend on hashing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crane_lab.store import ROOT

WRITE = """\
import hashlib, sys, warnings
from pathlib import Path
import pandas as pd
import torch
from crane_core.masking import bake
from crane_core.moments import StreamingMoments
from crane_core.neurons import NeuronSet
from crane_lab.store import Store, write_table
from crane_lab.store.neuron_files import save_json
from crane_lab.study.necessity import Necessity, summarise
from transformers import LlamaConfig, LlamaForCausalLM

folder = Path(sys.argv[1])
size = (2, 6)
projections = {site: size for site in ("intermediate", "gate", "up")} | {"down": (2, 4)}
masks = {site: torch.arange(12).view(2, 6) % 3 == 0 for site in ("gate", "up")}
neurons = NeuronSet(masks, projections)
neurons.save(folder / "set.safetensors")
save_json(neurons, folder / "set.json")
torch.manual_seed(0)
increases = {x: torch.rand(2, *size, 20).double() for x in ("en", "vi", "zh")}
constants = {"zero": torch.zeros(size), "mean": torch.ones(size)}
summarise(increases, constants, {"model": "tiny", "window": 4}).save(folder / "n.safetensors")
store = Store(folder / "store")
named = {f"{a}.{b}": torch.rand(3) for a in "abc" for b in ("x", "y")}
store.tensors("moments", {"a": 1}, lambda: named)
store.table("items", {"a": 1}, lambda: pd.DataFrame({"a": [1.5, 2.0], "b": ["x", "y"]}))
write_table(pd.DataFrame({"a": [1.5], "b": ["x"]}), folder / "t.parquet")
config = LlamaConfig(vocab_size=16, hidden_size=4, intermediate_size=6, num_hidden_layers=2,
                     num_attention_heads=2, num_key_value_heads=2)
some = NeuronSet.from_pairs([(0, 1)], {"intermediate": size, **projections})
bake(LlamaForCausalLM(config), some, folder / "baked")
for path in sorted(p for p in folder.rglob("*") if p.is_file()):
    if "store" not in path.parts or path.suffix != ".json":  # manifests tell times
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        print(path.relative_to(folder).as_posix(), digest)
"""


def test_what_is_written_is_the_same_from_every_process(tmp_path: Path) -> None:
    """safetensors orders the entries of its header by a hash that each process seeds anew."""
    written = set()
    for number in range(4):
        folder = tmp_path / str(number)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", WRITE, str(folder)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": str(number)},
        )
        assert done.returncode == 0, done.stderr
        written.add(done.stdout)
    assert len(written) == 1
    assert "baked/model.safetensors" in done.stdout and "set.safetensors" in done.stdout


def entries(call: ast.Call) -> int:
    """How many entries of metadata a call writes, as far as the source tells."""
    for keyword in call.keywords:
        if keyword.arg == "metadata" and isinstance(keyword.value, ast.Dict):
            return len(keyword.value.keys)
    return 0


@pytest.mark.parametrize("package", ["crane_core", "crane_lab", "notebooks", "benchmarks"])
def test_no_header_has_several_entries(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and "save" in ast.unparse(node.func):
                assert entries(node) <= 1, f"{path.name}, line {node.lineno}"


def test_several_entries_would_be_noticed() -> None:
    several = ast.parse("save_file(t, p, metadata={'a': '1', 'b': '2'})", mode="eval").body
    assert isinstance(several, ast.Call)
    assert entries(several) == 2
