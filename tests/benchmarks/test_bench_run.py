"""The runner, with scripted servers: turns, prompts, what is kept when one of them fails."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from benchmarks.archive import Results, load, plotted, save, show
from benchmarks.measures import Record, Slo, summarise
from benchmarks.peers import Server
from benchmarks.plot import plot
from benchmarks.rounds import Contestant, Plan
from benchmarks.run import _parser, play_all, sized
from benchmarks.servers import Setting
from benchmarks.tokenizer import build_tokenizer
from benchmarks.workloads import WORKLOADS, Workload, alter

SCRIPT = str(Path(__file__).with_name("chat_server.py"))


def scripted(name: str, bodies: Path, *words: str) -> Contestant:
    command = words or ("{python}", SCRIPT, "{port}", name)
    environment = {"BODIES": str(bodies)}
    server = Server(name=name, distributions=(), command=command, environment=environment)
    return Contestant(server=server)


@pytest.fixture
def job(tmp_path: Path) -> Plan:
    small = (alter(WORKLOADS[name], conversations=4, prompt=40, answer=3) for name in ("c1", "c4"))
    setting = Setting(model=tmp_path, threads=1, cache=tmp_path, logs=tmp_path / "logs")
    tokenizer: Any = build_tokenizer(2000, max_length=1000)
    return Plan(setting=setting, tokenizer=tokenizer, workloads=tuple(small), slo=Slo())


def empty(job: Plan, found: list[Contestant], started: str = "now") -> Results:
    return Results(
        started=started,
        machine={},
        model="tiny",
        sizes="altered",
        threads=1,
        slo=job.slo,
        workloads=list(job.workloads),
        servers=[contestant.measured() for contestant in found],
    )


def test_servers_take_turns_and_get_the_same_prompts_in_a_round(job: Plan, tmp_path: Path) -> None:
    log, file = tmp_path / "bodies", tmp_path / "results.json"
    found = [scripted("a", log), scripted("b", log)]
    results = play_all(found, job, empty(job, found), rounds=2, file=file)
    bodies = [json.loads(line) for line in log.read_text().splitlines()]
    assert [name for name, _ in groupby(body["server"] for body in bodies)] == ["a", "b", "a", "b"]
    measured = [body for body in bodies if body["max_tokens"] == 3]
    turns = [list(turn) for _, turn in groupby(measured, key=lambda body: body["server"])]
    prompts = [sorted(body["messages"][0]["content"] for body in turn) for turn in turns]
    assert prompts[0] == prompts[1] != prompts[2] == prompts[3]
    assert len(set(prompts[0] + prompts[2])) == 16
    warm = {body["messages"][0]["content"] for body in bodies if body["max_tokens"] != 3}
    assert warm.isdisjoint(prompts[0] + prompts[2])
    assert load(file) == replace(results, ratios=load(file).ratios)
    assert [entry["against"] for entry in load(file).ratios] == ["b", "b"]
    for _, _, rounds in results.rows():
        assert [summary.output_tokens for summary in rounds] == [12, 12]


def test_a_server_that_dies_stops_nobody_else(
    job: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "bodies"
    dead = scripted("dead", log, "{python}", "-c", "raise SystemExit('out of memory')")
    found = [scripted("a", log), dead, scripted("b", log)]
    results = play_all(found, job, empty(job, found), rounds=2, file=tmp_path / "r.json")
    assert [len(server.rounds.get("c1", ())) for server in results.servers] == [2, 0, 2]
    assert "out of memory" in results.servers[1].problem
    show(results)
    assert "dead: not measured to the end: it ended with code 1" in capsys.readouterr().out


def test_what_was_measured_is_kept_when_the_run_is_ended(job: Plan, tmp_path: Path) -> None:
    log, file = tmp_path / "bodies", tmp_path / "results.json"
    found = [scripted("a", log), scripted("b", log, "{python}", "{no_such_word}")]
    with pytest.raises(KeyError):
        play_all(found, job, empty(job, found), rounds=2, file=file)
    assert [len(server.rounds) for server in load(file).servers] == [2, 0]


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text('{"started": 1}')
    with pytest.raises(ValueError, match=r"other\.json is not a file of results"):
        load(file)


def measured(job: Plan, **changes: Any) -> Results:
    record = Record(outcome="completed", started=0.0, ended=0.3, times=(0.1, 0.3), tokens=2)
    summary = summarise([record], duration=0.3, client_cpu_seconds=0.0, slo=Slo())
    ours = Contestant(server=scripted("ours", Path()).server)
    ours.rounds = {"c1": [summary], "c4": [summary]}
    return replace(empty(job, [ours]), **changes)


def test_the_plot_shows_every_server_and_workload(job: Plan, tmp_path: Path) -> None:
    run, again = measured(job), measured(job, started="later")
    assert {name for name, _, _ in plotted([run, again])} == {"ours", "ours, later"}
    rows = plotted([run, measured(job, model="big")])
    assert {name for name, _, _ in rows} == {"ours, tiny", "ours, big"}
    file = tmp_path / "new" / "plot.svg"
    assert plot(rows, file) is None
    drawn = file.read_text()
    assert all(f">{text}<" in drawn for text in ("ours, tiny", "ours, big", "c1", "c4"))


def test_answers_that_come_at_once_are_left_out_of_the_plot(job: Plan, tmp_path: Path) -> None:
    run = measured(job)
    record = Record(outcome="completed", started=0.0, ended=0.1, times=(0.1, 0.1), tokens=2)
    summary = summarise([record], duration=0.3, client_cpu_seconds=0.0, slo=Slo())
    run.servers[0].rounds.update(c1=[summary], c4=[summary])
    # A value of 0 on a logarithmic axis would be a warning, and warnings are errors here.
    assert plot(plotted([run]), tmp_path / "plot.svg") is None
    assert (tmp_path / "plot.svg").read_text().count(">c4<") == 1


def test_without_matplotlib_the_reason_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    reason = plot([], tmp_path / "plot.svg")
    assert reason is not None
    assert "pip install matplotlib" in reason
    assert not (tmp_path / "plot.svg").exists()


def test_a_file_is_never_half_written(job: Plan, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    save(empty(job, [scripted("a", tmp_path)]), file)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert load(file).servers[0].name == "a"


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=lambda each: each.name)
def test_quick_is_less_but_enough_to_keep_the_server_busy(workload: Workload) -> None:
    quick = sized(workload, _parser().parse_args(["--quick"]))
    assert quick == replace(workload, conversations=workload.quick)
    assert quick.conversations < workload.conversations
    if workload.concurrency:
        assert quick.conversations * workload.turns >= 3 * workload.concurrency
    assert sized(workload, _parser().parse_args([])) == workload
    few = sized(workload, _parser().parse_args(["--quick", "--conversations", "2"]))
    assert few.conversations == 2
