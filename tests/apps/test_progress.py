"""Progress off a terminal: a plain line every 30 seconds, whatever is done."""

import io
import sys
import threading
import time

import pytest
from tqdm import tqdm

from apps.cli import main
from apps.cli.progress import Bar, Teller, bar, duration, silence, stage, telling


class Clock:
    """A clock that somebody moves; also an event that nobody sets before `lines` waits."""

    def __init__(self, lines: int = 0) -> None:
        self.now, self.lines, self.work = 100.0, lines, lambda seconds: None

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        """Let the time pass, and the work be done."""
        self.now, self.lines = self.now + seconds, self.lines - 1
        self.work(seconds)
        return self.lines < 0


def told(work, lines: int, shown: Bar | None, clock: Clock, capsys) -> list[str]:
    """What is told while `work(seconds)` is done between the lines."""
    teller = Teller("capture", clock=clock)
    teller.bar, teller.stopped = shown, clock
    clock.lines, clock.work = lines, work
    teller.run()
    return capsys.readouterr().err.splitlines()


def test_every_line_has_the_rate_and_the_time_left(capsys: pytest.CaptureFixture):
    clock = Clock()
    shown = Bar(120_000, "token", clock=clock)
    shown.to(10_000)  # an earlier process has done them
    lines = told(lambda s: shown.to(shown.n + int(1000 * s)), 4, shown, clock, capsys)
    assert lines == [
        "saelab capture: 40,000 of 120,000 tokens (33%), 1,000/s, 1 min 20 s left",
        "saelab capture: 70,000 of 120,000 tokens (58%), 1,000/s, 50 s left",
        "saelab capture: 100,000 of 120,000 tokens (83%), 1,000/s, 20 s left",
        "saelab capture: 130,000 tokens, finishing",
    ]
    assert clock.now == 250  # 30 seconds apart


def test_what_cannot_be_counted_is_told_too(capsys: pytest.CaptureFixture):
    clock = Clock()
    assert told(lambda s: None, 3, None, clock, capsys) == [
        "saelab capture: at work, 30 s since the start",
        "saelab capture: at work, 1 min 0 s since the start",
        "saelab capture: at work, 1 min 30 s since the start",
    ]
    shown = Bar(10, "", "dictionaries", clock)
    assert told(lambda s: None, 1, shown, clock, capsys) == [
        "saelab capture: dictionaries: 0 of 10 done (0%)"
    ]
    shown.to(1)
    clock.now += 100
    shown.to(2)
    assert shown.line() == "dictionaries: 2 of 10 done (20%), 0.01/s, 13 min 20 s left"


def test_a_bar_alone_is_silent_off_a_terminal(capsys: pytest.CaptureFixture):
    """The known-bad twin: what was shown before."""
    with tqdm(total=10, file=sys.stderr, disable=None, mininterval=0) as shown:
        shown.update(5)
    assert capsys.readouterr().err == ""


def test_lines_come_by_themselves_until_the_block_ends(capsys: pytest.CaptureFixture):
    with telling("eval", every=0.02), bar(10, "token") as shown:
        stage("probing")
        shown.to(3)
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert lines and all(line.startswith("saelab eval: 3 of 10 tokens (30%)") for line in lines)
    assert not any(thread.name == "progress" for thread in threading.enumerate())
    with telling("browse", every=0.02):
        silence()
        time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_and_no_lines(monkeypatch: pytest.MonkeyPatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    with telling("train", every=0.02), bar(10, "step") as shown:
        shown.to(5, fvu="0.5")
        time.sleep(0.1)
        shown.to(10, fvu="0.4")
    assert "saelab train:" not in terminal.getvalue() and "10.0/10.0" in terminal.getvalue()


def test_every_verb_is_told_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    from apps.cli import bench

    def work(args: object) -> None:
        time.sleep(0.1)

    monkeypatch.setattr(bench, "run", work)
    monkeypatch.setattr("apps.cli.telling", lambda verb: telling(verb, 0.02))
    assert main(["bench"]) == 0
    assert "saelab bench: at work" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations_in_words(seconds: float, words: str):
    assert duration(seconds) == words
