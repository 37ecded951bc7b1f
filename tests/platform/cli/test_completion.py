"""What the shell offers while a command is typed."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from starlette.types import Receive, Scope, Send

from helios.cli import completion
from helios.cli.main import run


def offered(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str) -> tuple[list[str], str]:
    """What bash would be offered for the last of the words, and what was said on stderr."""
    with monkeypatch.context() as patch:
        patch.setenv("_HELIOS_COMPLETE", "complete_bash")
        patch.setenv("COMP_WORDS", " ".join(("helios", *words)))
        patch.setenv("COMP_CWORD", str(len(words)))
        capfd.readouterr()
        run([])
        out, err = capfd.readouterr()
    return out.split(), err


def test_names_come_from_the_control_plane(
    cli: Any, up: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Kinds, names of the kind that was typed, cells and tenants are offered."""
    assert offered(monkeypatch, capfd, "get", "cel")[0] == ["cells"]
    assert offered(monkeypatch, capfd, "get", "cells", "lo")[0] == ["local"]
    assert offered(monkeypatch, capfd, "delete", "tenant", "")[0] == ["default"]
    assert offered(monkeypatch, capfd, "cell", "describe", "")[0] == ["local"]
    assert offered(monkeypatch, capfd, "tenant", "describe", "x")[0] == []


def test_no_control_plane_is_no_names_and_no_words(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither a missing nor a dead control plane, nor a kind that is none, writes into the line that is typed."""
    assert offered(monkeypatch, capfd, "get", "jobs", "") == ([], "")
    (tmp_path / ".helios").mkdir()
    (tmp_path / ".helios" / "ports.json").write_text(json.dumps({"api": 1}))
    (tmp_path / ".helios" / "token").write_text("t")
    assert offered(monkeypatch, capfd, "get", "jobs", "") == ([], "")
    assert offered(monkeypatch, capfd, "get", "nonsense", "") == ([], "")


def test_a_tab_is_not_held_up_by_a_control_plane_that_hangs(
    cli: Any, serve: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One that takes the request and says nothing is given up on after the completion's own, short, limit."""
    ended = threading.Event()

    async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await anyio.to_thread.run_sync(ended.wait, 20.0)

    monkeypatch.setattr(completion, "QUICK_S", 0.2)
    monkeypatch.setenv("HELIOS_API", serve(hangs))
    monkeypatch.setenv("HELIOS_TOKEN", "t")
    began = time.monotonic()
    assert offered(monkeypatch, capfd, "get", "jobs", "") == ([], "")
    took = time.monotonic() - began
    ended.set()
    assert took < 10, "the shell was held up until the server answered"
