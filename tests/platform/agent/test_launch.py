"""The wrapper persists how a job ended, whatever happens around it."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from helios.agent.launch import command_of, last_error
from helios.durable import read_json, write_json

RESULT = """
import json, os, pathlib
print("as printed")
pathlib.Path(os.environ["HELIOS_JOB_DIR"], "result.json").write_text(json.dumps({result}))
raise SystemExit(64)
"""
Wrapper = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def wrapper(tmp_path: Path) -> Wrapper:
    """Start the wrapper over a Python program, in a job folder of its own."""

    def start(program: str, *, epoch: int = 1, entrypoint: str = "", env: Mapping[str, str] | None = None) -> Any:
        script = tmp_path / f"job-{epoch}.py"
        script.write_text(textwrap.dedent(program))
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "helios.agent.launch", "--", entrypoint or f"python {script}"],
            env={
                **os.environ,
                "HELIOS_JOB": "demo",
                "HELIOS_JOB_DIR": str(tmp_path),
                "HELIOS_EPOCH": str(epoch),
                **(env or {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    return start


def exit_of(folder: Path) -> dict[str, Any]:
    record = read_json(folder / "exit.json")
    assert record is not None, "the wrapper left no exit.json"
    return record


def until(condition: Callable[[], Any], *, timeout_s: float = 20.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)
    return value


def test_success_carries_the_results_of_the_job(wrapper: Wrapper, tmp_path: Path) -> None:
    """A job that ends well leaves code 0 with the outputs and message of its result.json."""
    job = wrapper(
        """
        import json, os, pathlib
        print("working")
        result = {"message": "as good as it gets", "outputs": {"checkpoint": "/b/1", "model_version": 3}}
        pathlib.Path(os.environ["HELIOS_JOB_DIR"], "result.json").write_text(json.dumps(result))
        """
    )
    shown, _ = job.communicate(timeout=20)
    record = exit_of(tmp_path)
    assert (job.returncode, record["code"], record["reason"]) == (0, 0, "Completed")
    assert record["message"] == "as good as it gets"
    assert record["outputs"] == {"checkpoint": "/b/1", "model_version": "3"}
    assert b"working" in shown, "the engine's own log shows the output too"


def test_crash_names_the_error(wrapper: Wrapper, tmp_path: Path) -> None:
    """A crash is told by the last line that names an error, not by the last line."""
    wrapper(
        """
        import atexit
        atexit.register(lambda: print("tidying up"))
        raise ValueError("width must be even")
        """
    ).communicate(timeout=20)
    record = exit_of(tmp_path)
    assert (record["code"], record["reason"]) == (1, "Error")
    assert record["message"] == "ValueError: width must be even"


@pytest.mark.parametrize(("code", "reason"), [(64, "InvalidConfig"), (75, "Preempted"), (28, "NoSpace"), (3, "Error")])
def test_exit_codes_have_reasons(wrapper: Wrapper, tmp_path: Path, code: int, reason: str) -> None:
    """The exit codes of the runtime contract become typed reasons."""
    job = wrapper(f"raise SystemExit({code})")
    job.communicate(timeout=20)
    assert (job.returncode, exit_of(tmp_path)["reason"]) == (code, reason)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("raise SystemExit(64)", "it ended with exit code 64 and printed nothing"),
        ("print('lr: must be above 0'); raise SystemExit(64)", "lr: must be above 0"),
        (RESULT.format(result={"message": "spec.config.lr is -1"}), "spec.config.lr is -1"),
        (RESULT.format(result={"outputs": ["no", "mapping"], "message": ""}), "as printed"),
    ],
)
def test_invalid_config_has_its_cause(wrapper: Wrapper, tmp_path: Path, program: str, message: str) -> None:
    """Exit 64 comes with what the job said in result.json, else with what it printed, else with that it did not."""
    wrapper(program).communicate(timeout=20)
    record = exit_of(tmp_path)
    assert (record["code"], record["reason"], record["message"]) == (64, "InvalidConfig", message)


def test_full_disk_is_told_from_a_crash(wrapper: Wrapper, tmp_path: Path) -> None:
    """A job that dies of ENOSPC without saying so by its code is still one that must not be tried again."""
    job = wrapper("raise OSError(28, 'No space left on device', '/bucket/x')")
    job.communicate(timeout=20)
    assert (job.returncode, exit_of(tmp_path)["reason"]) == (28, "NoSpace")


def test_killed_program_is_reported(wrapper: Wrapper, tmp_path: Path) -> None:
    """kill -9 of the program leaves an exit that says so."""
    job = wrapper("import time; time.sleep(600)")
    pid = until(lambda: read_json(tmp_path / "pid.json"))["child"]
    os.kill(pid, signal.SIGKILL)
    job.communicate(timeout=20)
    record = exit_of(tmp_path)
    assert (record["code"], record["reason"]) == (137, "Killed")
    assert "SIGKILL" in record["message"]


def test_sigterm_reaches_the_program(wrapper: Wrapper, tmp_path: Path) -> None:
    """SIGTERM to the wrapper lets the program leave in its own way, and its code is kept."""
    job = wrapper(
        """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
        print("ready", flush=True)
        time.sleep(600)
        """
    )
    until(lambda: b"ready" in (tmp_path / "log.txt").read_bytes() if (tmp_path / "log.txt").exists() else False)
    job.terminate()
    job.communicate(timeout=20)
    assert (job.returncode, exit_of(tmp_path)["reason"]) == (75, "Preempted")


def test_killed_wrapper_takes_the_program_along(wrapper: Wrapper, tmp_path: Path) -> None:
    """kill -9 of the wrapper, as when Ray dies, does not leave the program running unseen."""
    job = wrapper("import time; time.sleep(600)")
    pid = until(lambda: read_json(tmp_path / "pid.json"))["child"]
    job.kill()
    job.communicate(timeout=20)
    until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3])


def test_programs_left_in_the_group_are_ended(wrapper: Wrapper, tmp_path: Path) -> None:
    """What the entrypoint started and forgot ends with it, and does not hold up its exit."""
    job = wrapper(
        """
        import pathlib, os, subprocess
        child = subprocess.Popen(["sleep", "600"])
        pathlib.Path(os.environ["HELIOS_JOB_DIR"], "left").write_text(str(child.pid))
        """
    )
    job.communicate(timeout=20)
    pid = int((tmp_path / "left").read_text())
    until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3])
    assert exit_of(tmp_path)["code"] == 0


def test_logs_of_all_starts_share_one_file(wrapper: Wrapper, tmp_path: Path) -> None:
    """Each start begins with a separator, and log.json says where."""
    for epoch in (1, 2):
        wrapper(f"print('this is {epoch}')", epoch=epoch).communicate(timeout=20)
    text = (tmp_path / "log.txt").read_text()
    assert "demo start 1" in text
    second = (read_json(tmp_path / "log.json") or {})["2"]
    assert text[second:].startswith("----- ")
    assert "this is 2" in text[second:]
    assert "this is 1" not in text[second:]


def test_secrets_reach_the_program_and_not_the_log(wrapper: Wrapper, tmp_path: Path) -> None:
    """The program gets the values; the log and exit.json do not, also in pieces or by way of result.json."""
    (tmp_path / "key").write_text("s3cr3t-from-file\n")
    references = {"TOKEN": "env:PARENT_TOKEN", "KEY": f"file:{tmp_path / 'key'}"}
    job = wrapper(
        """
        import os, pathlib, sys, time
        result = '{"message": "cannot log in with ' + os.environ["KEY"] + '", "outputs": {"run_id": "tok-123456789"}}'
        pathlib.Path(os.environ["HELIOS_JOB_DIR"], "result.json").write_text(result)
        for piece in (os.environ["TOKEN"][:5], os.environ["TOKEN"][5:]):
            sys.stdout.write(piece); sys.stdout.flush(); time.sleep(0.3)
        print()
        raise ValueError("cannot log in with " + os.environ["KEY"])
        """,
        env={"HELIOS_SECRETS": json.dumps(references), "PARENT_TOKEN": "tok-123456789"},
    )
    shown, _ = job.communicate(timeout=20)
    written = shown + (tmp_path / "log.txt").read_bytes() + (tmp_path / "exit.json").read_bytes()
    assert b"tok-123456789" not in written
    assert b"s3cr3t" not in written
    assert exit_of(tmp_path)["message"] == "cannot log in with [redacted]"
    assert b"ValueError: cannot log in with [redacted]" in written


@pytest.mark.parametrize("reference", ["env:HELIOS_NO_SUCH_VARIABLE", "file:/nowhere/at/all"])
def test_unreadable_secret_fails_by_name(wrapper: Wrapper, tmp_path: Path, reference: str) -> None:
    """A secret that cannot be read fails the job before it runs, and names the secret."""
    job = wrapper("print('ran')", env={"HELIOS_SECRETS": json.dumps({"TOKEN": reference})})
    job.communicate(timeout=20)
    record = exit_of(tmp_path)
    assert (record["code"], record["reason"]) == (64, "SecretUnreadable")
    assert "'TOKEN'" in record["message"]


def test_late_start_is_fenced(wrapper: Wrapper, tmp_path: Path) -> None:
    """A start that arrives after a higher epoch was ordered runs nothing and writes nothing."""
    write_json(tmp_path / "launch.json", {"epoch": 2, "stopped": False})
    job = wrapper("open('ran', 'w')", epoch=1)
    job.communicate(timeout=20)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "exit.json").exists()


def test_entrypoint_that_is_no_program_is_not_retried(wrapper: Wrapper, tmp_path: Path) -> None:
    """A misspelt command is an invalid configuration, told by its name."""
    wrapper("", entrypoint="pyhton train.py").communicate(timeout=20)
    record = exit_of(tmp_path)
    assert (record["code"], record["reason"]) == (64, "InvalidConfig")
    assert "pyhton" in record["message"]


def test_python_means_the_cells_interpreter() -> None:
    """A leading `python` is the interpreter HELIOS runs on; other words stay."""
    assert command_of("python -m pack --name 'a b'") == [sys.executable, "-m", "pack", "--name", "a b"]
    assert command_of("torchrun python")[0] == "torchrun"


def test_last_error_prefers_named_errors() -> None:
    """Noise after the error does not hide it; without a named error the last line stands."""
    assert last_error(b"Traceback\nfoo.BarError: no\n[rank0] bye\n") == "foo.BarError: no"
    assert last_error(b"\x1b[36m(Worker pid=7)\x1b[0m KeyError: 'x'\nbye\n") == "KeyError: 'x'"
    assert last_error(b"one\ntwo\n\n") == "two"
    assert last_error(b"") == ""


def test_stubborn_program_is_killed_and_its_exit_kept(wrapper: Wrapper, tmp_path: Path) -> None:
    """A program that ignores SIGTERM gets SIGKILL while the wrapper still has time to write down how it ended."""
    job = wrapper(
        """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ready", flush=True)
        while True:
            time.sleep(1)
        """
    )
    until(lambda: b"ready" in (tmp_path / "log.txt").read_bytes() if (tmp_path / "log.txt").exists() else False)
    job.terminate()
    job.communicate(timeout=20)
    record = exit_of(tmp_path)
    assert (record["code"], record["reason"]) == (137, "Stopped")
