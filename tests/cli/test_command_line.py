import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pontryagin
from pontryagin.cli import main
from pontryagin.cli.commands import COMMANDS, called
from pontryagin.cli.examples import EXAMPLES
from pontryagin.cli.report import DRAWN


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_version_and_help(capsys):
    assert run("--version") == 0
    assert pontryagin.__version__ in capsys.readouterr().out
    assert run("reproduce", "sine", "--help") == 0
    assert "emsa-secant" in capsys.readouterr().out


@pytest.mark.parametrize("path", EXAMPLES)
def test_every_command_has_two_examples_that_it_takes(path):
    assert len(EXAMPLES[path]) == 2
    for line in EXAMPLES[path]:
        assert len(line) <= 78 or "source" in line
        words = shlex.split(re.split(r"[>;]", line)[0])
        assert words[0] == "pontryagin"
        found, call = called(words[1:])
        assert found.startswith(path)
        assert call.values


def test_help_has_the_common_options_first_and_ends_with_examples(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert EXAMPLES.keys() == {"", *COMMANDS}
    assert run("train", "--help") == 0
    told = capsys.readouterr().out
    places = [told.index(f" --{name} ") for name in ("model", "epochs", "out", "quick", "schedule", "config")]
    assert places == sorted(places)
    assert told.index("--quick") < told.index("more options:") < told.index("--schedule")
    assert "(default: residual-cnn)" in " ".join(told.split())
    assert told.rstrip().splitlines()[-2:] == [f"  {line}" for line in EXAMPLES["train"]]
    assert max(map(len, told.splitlines())) <= 80


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(("words", "expected"), [
    ("train --epo", "--epochs"), ("repro", "reproduce"), ("reproduce certi", "certificate"),
    ("reproduce sine --iter", "--iterations"), ("data fe", "fetch")])
def test_a_shell_completes_commands_and_options(words, expected, tmp_path, capsys):
    assert run("completion", "bash") == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    done = subprocess.run(["bash", "-c", f"source {tmp_path / 'script'}; COMP_WORDS=(pontryagin {words}); "
                           "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _pontryagin; echo ${COMPREPLY[@]}"],
                          capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected]


def test_a_short_run_leaves_tables_figures_and_a_report(tmp_path, capsys):
    out = tmp_path / "run"
    assert run("reproduce", "sine", "--out", str(out), "--seeds", "1", "--iterations", "5", "--methods",
               "emsa,lbfgs") == 0
    assert {path.name for path in out.iterdir()} == {
        ".lock", "metrics.csv", "stages.csv", "states.csv", "fit.csv", "summary.json", "report.html",
        "figures"}
    assert str(out / "report.html") in capsys.readouterr().out
    assert list((out / "figures").glob("*.png"))


@pytest.mark.parametrize(("options", "message"), [
    (["--methods", "emsa,adan"], "'adan'"),
    (["--seeds", "0"], "--seeds"),
    (["--iterations", "-1"], "--iterations"),
    (["--out", "/proc/nowhere/run"], "/proc/nowhere/run"),
])
def test_a_wrong_request_is_refused_in_one_line(options, message, tmp_path, capsys):
    arguments = ["reproduce", "sine", *([] if "--out" in options else ["--out", str(tmp_path / "run")]),
                 *options]
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["--iteration-count", "--iteration", "--over"])
def test_a_misspelt_or_shortened_option_is_named(option, capsys):
    assert run("reproduce", "sine", option, "3") == 2
    assert option in capsys.readouterr().err


@pytest.mark.parametrize("experiment", ["sine", "binary", "ternary", "certificate", "saddle", "control"])
def test_experiments_of_one_process_refuse_torchrun(experiment, monkeypatch, tmp_path, capsys):
    class Two:
        rank, size = 0, 2

    monkeypatch.setattr("pontryagin.cli.studies.present", Two)
    assert run("reproduce", experiment, "--out", str(tmp_path / "run")) == 2
    told = capsys.readouterr().err
    assert f"reproduce {experiment} is run by one process: start it without torchrun" in told
    assert not (tmp_path / "run").exists()


def test_a_folder_with_a_run_is_refused_unless_overwritten(tmp_path, capsys):
    out = tmp_path / "run"
    short = ["reproduce", "sine", "--out", str(out), "--seeds", "1", "--iterations", "2", "--methods", "emsa"]
    assert run(*short) == 0
    before = (out / "metrics.csv").read_bytes()
    assert run(*short) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (out / "metrics.csv").read_bytes() == before
    assert run(*short, "--overwrite") == 0


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_keeps_what_has_been_measured(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "pontryagin", "reproduce", "sine", "--out", str(out), "--methods",
               "emsa,adam"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          preexec_fn=listen_to_ctrl_c) as process:
        wait_for_rows(out / "metrics.csv", process)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    summary = json.loads((out / "summary.json").read_text())
    assert summary["interrupted"] is True
    assert "emsa" in summary["results"]["a"]
    assert "nterrupted" in (out / "report.html").read_text()
    rows = (out / "metrics.csv").read_text().splitlines()
    assert all(row.count(",") == rows[0].count(",") for row in rows)


INTERRUPTED_IMPORT = """
import os, signal, sys
from pontryagin.cli import main
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), getattr(signal, sys.argv[2]))
sys.meta_path.insert(0, Finder())
main(["train", "--epochs", "3"])
"""


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize(("name", "number"), [
    ("pontryagin.cli.program", "SIGINT"), ("yaml", "SIGTERM"), ("torch", "SIGINT")])
def test_ctrl_c_before_a_command_has_begun_is_one_line(name, number, tmp_path):
    """While modules are imported and arguments are read."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT, name, number], capture_output=True,
                          text=True, cwd=tmp_path, timeout=120, check=False,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "pontryagin: interrupted\n")
    assert not list(tmp_path.iterdir())


WHERE_NOTHING_IS_RAISED = """
import signal, sys, time, weakref
from types import SimpleNamespace
import pontryagin.cli.program as program
from pontryagin.cli import main
class Goes:
    def __del__(self):
        if sys.argv[1] == "its end":
            signal.raise_signal(signal.SIGINT)
def gone(_):
    if sys.argv[1] == "a reference":
        signal.raise_signal(signal.SIGINT)
def run(call):
    one = Goes()
    kept = weakref.ref(one, gone)
    del one
    time.sleep(60)
    return False
program.called = lambda arguments: ("train", SimpleNamespace(command=SimpleNamespace(run=run)))
main(["train"])
"""


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("where", ["its end", "a reference"])
def test_ctrl_c_where_python_lets_no_exception_out_comes_once_more(where: str, tmp_path: Path) -> None:
    """In a __del__, as of the readers of torch's loader, and where a weak reference tells."""
    done = subprocess.run([sys.executable, "-c", WHERE_NOTHING_IS_RAISED, where], capture_output=True,
                          text=True, cwd=tmp_path, timeout=50, check=False, preexec_fn=listen_to_ctrl_c,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "pontryagin: interrupted\n")


def listen_to_ctrl_c() -> None:
    """A process started in the background of a shell inherits that it ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_for_rows(path: Path, process: subprocess.Popen) -> None:
    for _ in range(600):
        if path.exists() and path.stat().st_size > 1000:
            return
        assert process.poll() is None, process.stderr
        time.sleep(0.1)
    pytest.fail(f"{path.name} did not grow within a minute")


def test_every_page_can_be_drawn_again() -> None:
    called = {"reproduce sine-released": "sine", "reproduce sine-released-1000": "sine",
              "bench optimizers": "bench"}
    pages = {called.get(path, path.rpartition(" ")[2]) for path in COMMANDS
             if path.startswith(("reproduce ", "bench ")) or path in ("train", "audit")}
    assert pages == set(DRAWN)
