"""What a run takes, before it starts; and the `crane` command's plan, status and compare."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from test_compare import results

from crane_lab.cli.main import main
from crane_lab.cli.plan import GPUS, by_device, find_device, plan
from crane_lab.runs import Project
from crane_lab.settings import Settings
from crane_lab.store import ROOT, Store

SMALL = Settings(
    model="data/testbed/base",
    languages=["en", "zh"],
    n_samples=10,
    window=16,
    random_seeds=[0, 1, 2],
    n_perplexity=4,
    n_questions=5,
    max_new_tokens=20,
    task_tables=["paper"],
)


def test_work_is_counted_exactly() -> None:
    stages = {stage.name: stage for stage in plan(SMALL, "H100").stages}
    masks = 1 + 2 * (1 + 1 + 1 + 3)  # LAPE, LAPE matched, CRANE, random; and without a mask
    projections = 2 * (1 + 3)
    assert stages["relevance"].units == 2 * 2 * 10
    assert stages["relevance"].tokens == 2 * 2 * 10 * 16
    assert stages["held-out perplexity"].units == (masks + projections) * 2 * 4
    assert stages["benchmarks, base"].units == (masks + projections) * 2 * 640
    assert stages["benchmarks, chat"].units == masks * 2 * 640
    assert stages["open questions, chat"].units == masks * 2 * 5
    assert stages["open questions, chat"].tokens == masks * 2 * 5 * 20
    without = {s.name: s for s in plan(SMALL, "H100", chat=False, literal_reading=False).stages}
    assert without["relevance"].units == 2 * 10
    assert without["benchmarks, base"].units == masks * 2 * 640
    assert not [name for name in without if "chat" in name]
    limited = plan(dataclasses.replace(SMALL, task_limit=7), "H100")
    assert {s.name: s for s in limited.stages}["benchmarks, chat"].units == masks * 2 * 7


def test_time_follows_work_and_device() -> None:
    slow, fast = plan(SMALL, "RTX 3090"), plan(SMALL, "H100")
    ratio = GPUS["H100"][0] / GPUS["RTX 3090"][0]
    for stage in slow.stages:
        assert slow.seconds(stage) == pytest.approx(ratio * fast.seconds(stage))
    assert slow.parameters == 2361024
    twice = plan(dataclasses.replace(SMALL, n_samples=20), "H100")
    assert twice.seconds(twice.stages[0]) == pytest.approx(2 * fast.seconds(fast.stages[0]))
    assert "estimated" in str(fast) and "judge   rubric, no calls" in str(fast)


def test_the_judge_is_bounded() -> None:
    judged = plan(dataclasses.replace(SMALL, judge="llm"), "H100", prices=(1.0, 2.0))
    calls, sent, received = judged.calls()
    assert calls == 2 * (1 + 2 * 6) * 2 * 5
    assert sent > calls * 300 and received == calls * 200
    assert f"at most {calls:,} calls" in str(judged)
    slow = dataclasses.replace(SMALL, judge="llm", judge_requests_per_minute=calls / 90)
    assert "at least 1.5 h more for judging" in str(plan(slow, "H100"))
    open_end = plan(dataclasses.replace(SMALL, judge="llm", judge_max_tokens=None), "H100")
    assert open_end.calls()[:2] == (calls, sent) and "service itself bounds" in str(open_end)


def test_measured_devices_come_first(tmp_path: Path) -> None:
    about = {"machine": {"processor": "NVIDIA H100 80GB HBM3"}, "forward_flops": 5e14}
    (tmp_path / "attribution-full-shape-x.json").write_text(json.dumps(about))
    device = find_device("H100", tmp_path)
    assert (device.flops, device.source) == (5e14, "measured")
    assert find_device("A100", tmp_path).source == "estimated, 40% of peak"
    with pytest.raises(ValueError, match=r"unknown device 'Z80': neither measured .* nor known"):
        find_device("Z80", tmp_path)


def test_the_paper_is_planned_without_the_hub() -> None:
    paper = Settings.of(Project().run("paper").parameters)
    planned = plan(dataclasses.replace(paper, offline=True), "H100")
    assert planned.parameters == 6738415616  # Llama-2-7B
    stages = {stage.name: stage for stage in planned.stages}
    assert stages["benchmarks, chat"].units == (1 + 3 * (3 + 5)) * (14042 + 1346 + 900)
    assert 12 < planned.memory()["weights"] < 13
    with pytest.raises(FileNotFoundError, match="not in the local hub cache"):
        plan(dataclasses.replace(paper, model="nobody/nothing", offline=True), "H100")


def test_plan_status_and_compare_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--profile", "smoke", "--gpu", "A100"]) == 0
    said = capsys.readouterr().out
    assert "run: smoke" in said and "relevance" in said and "judge   rubric" in said
    assert main(["plan", "--gpu", "Z80"]) == 1
    assert "error: unknown device 'Z80'" in capsys.readouterr().err

    store = Store(tmp_path / "runs" / "store")
    monkeypatch.setenv("CRANE_RUN", "smoke")
    store.value("moments", {"a": 1}, lambda: [1, 2])
    for name in ("notebooks", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setattr("crane_lab.cli.main.Project", lambda: Project(tmp_path))
    assert main(["status", "--profile", "smoke"]) == 0
    said = capsys.readouterr().out
    assert "04_table1                to do" in said and "moments" in said
    assert main(["status", "--profile", "testbed"]) == 0
    assert "nothing yet" in capsys.readouterr().out

    for name, kept in (("a", 0.5), ("b", 0.9)):
        results(tmp_path / "runs" / name / "results", kept)
        (tmp_path / "runs" / name / "parameters.yaml").write_text("values: {}\n")
    out = tmp_path / "compared.csv"
    assert main(["compare", "a", str(tmp_path / "runs" / "b"), "--out", str(out)]) == 0
    assert "Table 1 (the same items, paired)" in capsys.readouterr().out
    assert out.is_file()
    assert main(["compare", "a", "c"]) == 1
    assert "no run 'c'; there are a, b" in capsys.readouterr().err


def test_devices_stand_side_by_side() -> None:
    paper = Settings.of(Project().run("paper").parameters)
    found = by_device(paper, ["RTX 3090", "A100"]).set_index("device")
    assert found["memory (GiB)"].to_list() == [24, 80]
    for gpu, row in found.iterrows():
        planned = plan(paper, str(gpu))
        assert row["fits"] == ("yes" if sum(planned.memory().values()) < row.iloc[0] else "no")
        total = sum(planned.seconds(stage) for stage in planned.stages) / 3600
        assert row["in all"] == pytest.approx(total)
        parts = ["relevance", "benchmarks", "open questions"]
        assert 0 < row[parts].sum() < row["in all"]
        assert row["speed"] == planned.device.source
