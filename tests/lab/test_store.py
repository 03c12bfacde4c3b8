"""A store that many processes use, that fills a disk, and that another version wrote."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from collecting import processes

from crane_lab.store import DiskFullError, Store, StoreFormatError, atomic_path, write_table
from crane_lab.store.artefacts import FORMAT


def forbidden() -> Any:
    raise AssertionError("computed although it is stored")


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- manifests ------------------------------------------------------------------------------------


def test_a_manifest_says_what_when_how_and_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRANE_RUN", "smoke")
    store = Store(tmp_path)
    before = datetime.now(UTC).replace(microsecond=0)

    def compute() -> dict[str, int]:
        store.note("batch halved")
        store.note("batch halved")
        store.add_seconds(60)
        assert store.value("inner", {}, lambda: 1) == 1  # its manifest is its own
        return {"n": 7}

    key = {"seed": 3, "language": "vi"}
    assert store.manifest("sizes", key) is None
    store.value("sizes", key, compute)
    manifest = store.manifest("sizes", key)
    assert manifest is not None
    made = manifest["made"]
    assert (manifest["stage"], manifest["key"], manifest["format"]) == ("sizes", key, FORMAT)
    assert made["run"] == "smoke"
    assert made["notes"] == ["batch halved"]
    assert 60 <= made["seconds"] < 90
    assert before <= datetime.fromisoformat(made["started"]) <= datetime.now(UTC)
    assert made["versions"]["torch"] == torch.__version__
    assert set(made["versions"]) == {"python", "crane_core", "torch", "transformers"}
    assert made["machine"]["cpu"]
    inner = store.manifest("inner", {})
    assert inner is not None
    assert inner["made"]["notes"] == []
    store.note("nothing is being made: goes nowhere")


def test_records_tell_what_is_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.value("sizes", {"n": 1}, lambda: "x" * 100)
    store.table("items", {"n": 2}, lambda: pd.DataFrame({"a": [1]}))
    store.value("sizes", {"n": 3}, lambda: "y")
    next(tmp_path.glob("sizes/*.value.json")).with_name(f"{'0' * 20}.json").write_text("{")
    records = list(store.records())
    assert [(r["stage"], r["path"].suffix) for r in records] == [
        ("items", ".parquet"),
        ("sizes", ".json"),
        ("sizes", ".json"),
    ]
    assert {r["key"]["n"] for r in records} == {1, 2, 3}
    assert all(r["bytes"] == r["path"].stat().st_size for r in records)
    assert all(
        r["seconds"] is not None and r["when"] is not None and r["run"] is None for r in records
    )
    store.discard("items", {"n": 2})
    store.discard("items", {"n": 4})  # never there
    with pytest.warns(UserWarning, match="damaged and left out"):
        assert {r["stage"] for r in store.records()} == {"sizes"}
    assert not list(tmp_path.glob("items/*"))


def test_tensors_can_be_kept_without_reading_them(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.keep_tensors("moments", {"n": 1}, lambda: {"a": torch.ones(2)})
    assert store.keep_tensors("moments", {"n": 1}, forbidden)
    assert store.has("moments", {"n": 1})
    assert not store.has("moments", {"n": 2})
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    assert not store.has("moments", {"n": 1})


def test_two_kinds_under_one_key_do_not_pass_for_each_other(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.value("sizes", {"n": 1}, lambda: 1)
    assert store.tensors("sizes", {"n": 1}, lambda: {"a": torch.ones(1)})["a"] == 1
    with pytest.warns(UserWarning, match="altered"):
        assert store.value("sizes", {"n": 1}, lambda: 2) == 2


# --- several processes ----------------------------------------------------------------------------


def make(root: Path, seconds: float, log: Path) -> None:
    """Store one value, noting in `log` that it was computed here."""

    def compute() -> list[int]:
        with log.open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        time.sleep(seconds)
        return [1, 2, 3]

    assert Store(root).value("numbers", {"n": 1}, compute) == [1, 2, 3]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not (path.is_file() and path.stat().st_size):
        assert time.monotonic() < deadline, "the other process did not start"
        time.sleep(0.01)


def test_processes_neither_repeat_nor_corrupt_each_other(tmp_path: Path) -> None:
    store, log = tmp_path / "store", tmp_path / "log"
    workers = [processes.Process(target=make, args=(store, 0.5, log)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert len(log.read_text().split()) == 1
    (record,) = Store(store).records()
    names = {record["path"].name, record["path"].name.replace(".value", "")}
    assert everything(store) == {"store.json", *(f"numbers/{name}" for name in names)}


def test_waiting_is_announced_and_who_does_not_wait_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    worker = processes.Process(target=make, args=(tmp_path, 2.5, log))
    worker.start()
    wait_for(log)
    store = Store(tmp_path)
    assert not store._keep("numbers", {"n": 1}, "value.json", forbidden, wait=False)
    assert capfd.readouterr().err == ""
    assert store.value("numbers", {"n": 1}, forbidden) == [1, 2, 3]
    assert "waiting for another process to make numbers/" in capfd.readouterr().err
    worker.join(60)


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    worker = processes.Process(target=make, args=(tmp_path, 600, log))
    worker.start()
    wait_for(log)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(60)
    assert list(tmp_path.glob("numbers/.*.lock"))  # it could not clean up
    began = time.monotonic()
    make(tmp_path, 0, log)
    assert time.monotonic() - began < 30
    assert len(log.read_text().split()) == 2
    assert not list(tmp_path.glob("numbers/.*"))


def test_leftovers_of_the_dead_go_and_those_of_other_machines_stay(tmp_path: Path) -> None:
    Store(tmp_path).value("sizes", {"n": 1}, lambda: 1)
    with atomic_path(tmp_path / "sizes" / "a.bin") as mine:
        mine.write_bytes(b"in the making")
        elsewhere = mine.with_name(".a.bin@another-machine.4194304.tmp")
        dead = mine.with_name(mine.name.replace(f".{os.getpid()}.", ".4194304."))
        for path in (elsewhere, dead):
            path.write_bytes(b"half")
        Store(tmp_path)
        assert (mine.exists(), elsewhere.exists(), dead.exists()) == (True, True, False)


# --- a full disk ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_clear_error_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = Store(tmp_path)
    store.value("sizes", {"n": 1}, lambda: "kept")
    before = everything(tmp_path)

    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as stream:
            stream.write(data[: len(data) // 2])
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(DiskFullError) as error:
            store.tensors("kurtosis", {"n": 1}, lambda: {"a": torch.ones(2**18)})
    message = str(error.value)
    for part in ("needs 1.00 MiB", str(tmp_path / "kurtosis"), "MiB free", "same command again"):
        assert part in message
    assert everything(tmp_path) == before
    assert store.value("sizes", {"n": 1}, forbidden) == "kept"
    assert store.tensors("kurtosis", {"n": 1}, lambda: {"a": torch.ones(3)})["a"].sum() == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_library_that_finds_the_disk_full_is_understood(tmp_path: Path) -> None:
    with (
        pytest.raises(DiskFullError, match=r"report\.txt could not be written"),
        atomic_path(tmp_path / "report.txt") as path,
    ):
        path.symlink_to("/dev/full")
        path.write_text("x")
    with pytest.raises(DiskFullError), atomic_path(tmp_path / "t.safetensors"):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    assert not everything(tmp_path)
    # Anything else stays what it is.
    with pytest.raises(PermissionError), atomic_path(tmp_path / "report.txt"):
        raise PermissionError(errno.EACCES, "denied")
    write_table(pd.DataFrame({"a": [1]}), tmp_path / "t.csv")


# --- other versions -------------------------------------------------------------------------------


def as_format_1(root: Path) -> None:
    """What the first version left: no store.json, and manifests with four entries."""
    (root / "store.json").unlink()
    for path in root.glob("*/*.json"):
        content = json.loads(path.read_text())
        if isinstance(content, dict) and "made" in content:
            kept = {name: content[name] for name in ("stage", "key", "file", "sha256")}
            path.write_text(json.dumps(kept))


def test_a_store_of_the_first_format_is_kept_and_read(tmp_path: Path) -> None:
    Store(tmp_path).tensors("moments", {"n": 1}, lambda: {"a": torch.ones(2)})
    as_format_1(tmp_path)
    with pytest.warns(UserWarning, match=r"older crane_core \(format 1\).*kept and read"):
        store = Store(tmp_path)
    assert store.tensors("moments", {"n": 1}, forbidden)["a"].tolist() == [1, 1]
    (record,) = store.records()
    assert (record["seconds"], record["when"], record["notes"]) == (None, None, [])
    again = Store(tmp_path)  # says it once
    again.value("sizes", {"n": 1}, lambda: 1)
    assert len(list(again.records())) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 99, "crane_core": "7.1"}', r"format 99, of a newer crane_core \(7\.1\)"),
        ('{"format": 0, "crane_core": "0.0.1"}', r"format 0, of an older crane_core \(0\.0\.1\)"),
        ("{", "cannot be read: expected JSON such as"),
        ("[2]", "cannot be read: expected JSON such as"),
    ],
)
def test_a_store_of_another_format_is_refused_and_untouched(
    tmp_path: Path, text: str, message: str
) -> None:
    Store(tmp_path).value("sizes", {"n": 1}, lambda: 1)
    (tmp_path / "store.json").write_text(text)
    (tmp_path / "sizes" / ".x.4194304.tmp").write_text("perhaps theirs")
    before = {name: (tmp_path / name).read_bytes() for name in everything(tmp_path)}
    with pytest.raises(StoreFormatError, match=message) as error:
        Store(tmp_path)
    assert "move the folder aside" in str(error.value)
    assert before == {name: (tmp_path / name).read_bytes() for name in everything(tmp_path)}


def test_an_empty_folder_is_a_new_store(tmp_path: Path) -> None:
    Store(tmp_path).value("sizes", {"n": 1}, lambda: 1)
    assert json.loads((tmp_path / "store.json").read_text())["format"] == FORMAT


@pytest.mark.parametrize(
    "change",
    [
        {"made": None},
        {"made": {"ended": "yesterday"}},
        {"made": {"seconds": "long"}},
        {"key": 3},
        {"file": "../elsewhere"},
        None,
    ],
)
def test_a_damaged_manifest_is_told_and_left_out(tmp_path: Path, change: Any) -> None:
    store = Store(tmp_path)
    store.value("numbers", {"n": 1}, lambda: 1)
    store.value("numbers", {"n": 2}, lambda: 2)
    sidecar = next(p for p in tmp_path.glob("numbers/*.json") if "value" not in p.name)
    text = sidecar.read_text("utf-8")
    sidecar.write_text(text[:40] if change is None else json.dumps(json.loads(text) | change))
    with pytest.warns(UserWarning, match=r"manifest .* is damaged and left out"):
        assert len(list(store.records())) == 1


def test_what_is_asked_for_is_noted_but_not_what_that_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRANE_USES", str(tmp_path / "uses"))
    for _ in range(2):  # computed, and read: the same
        store = Store(tmp_path / "store")
        inner = partial(store.value, "inner", {"n": 1}, lambda: 1)
        store.value("outer", {"n": 1}, inner)
    uses = (tmp_path / "uses").read_text("utf-8").split()
    assert len(uses) == 2 and len(set(uses)) == 1 and uses[0].startswith("outer/")
    (found,) = [r for r in Store(tmp_path / "store").records() if r["stage"] == "outer"]
    assert f"outer/{found['path'].name.partition('.')[0]}" == uses[0]


# --- what spreadsheets make of a CSV --------------------------------------------------------------


def test_no_cell_of_a_csv_is_a_formula(tmp_path: Path) -> None:
    texts = ['=HYPERLINK("http://x.invalid";"y")', "+1+2", "-2+3", "@SUM(A1)", "\t=1"]
    plain = ["-0.5", "+3.1 %", "-1e-3", "a=b", "-", "", "−1", "word", "a\nb"]
    mixed = pd.DataFrame({"a": [1, "=x", None], "b": pd.Series([1, 2, None], dtype=object)})
    write_table(pd.DataFrame({"text": [*texts, *plain]}), tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as stream:
        found = [row["text"] for row in csv.DictReader(stream)]
    assert found == [*(f"'{text}" for text in texts), *plain]
    write_table(pd.DataFrame({"text": ["a\r\nb\rc", "\r=1"]}), tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_bytes() == b'text\n"a\nb\nc"\n"\'\n=1"\n'
    write_table(mixed, tmp_path / "m.csv")
    assert (tmp_path / "m.csv").read_text() == "a,b\n1,1\n'=x,2\n,\n"
    write_table(pd.DataFrame({"text": texts}), tmp_path / "t.parquet")
    assert pd.read_parquet(tmp_path / "t.parquet")["text"].to_list() == texts
