"""Long compiling is said once, to somebody who waits, and to nobody else."""

import io
import threading
import time
from types import SimpleNamespace

import pytest
from doors import announce


class Terminal(io.StringIO):
    def isatty(self):
        return True


def look_at(monkeypatch, stream):
    """The test runner has a standard error of its own."""
    monkeypatch.setattr(announce, "sys", SimpleNamespace(stderr=stream, modules={}))


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(announce, "_said", False)
    monkeypatch.setattr(announce, "AFTER", 0.02)
    monkeypatch.delenv(announce.ENVIRONMENT, raising=False)
    screen = Terminal()
    look_at(monkeypatch, screen)
    return screen


def compile_for(seconds):
    with announce.compiling():
        time.sleep(seconds)


def test_it_is_said_once(terminal):
    compile_for(0.3)
    compile_for(0.1)
    assert terminal.getvalue() == announce.TEXT + "\n"


def test_what_is_over_soon_needs_no_word(terminal, monkeypatch):
    monkeypatch.setattr(announce, "AFTER", 60.0)
    compile_for(0.0)
    assert terminal.getvalue() == ""


def test_nobody_waits_for_a_batch_a_file_or_where_quiet_was_asked(
    terminal, monkeypatch
):
    worker = threading.Thread(target=compile_for, args=(0.2,))
    worker.start()
    worker.join()
    monkeypatch.setenv(announce.ENVIRONMENT, "1")
    compile_for(0.2)
    monkeypatch.delenv(announce.ENVIRONMENT)
    log = io.StringIO()
    look_at(monkeypatch, log)
    compile_for(0.2)
    assert terminal.getvalue() == log.getvalue() == ""
