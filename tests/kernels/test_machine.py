"""What the kernels ask of the machine: memory, a place to remember things in, one caller at a
time."""

import json
import os
import subprocess
import sys
import threading

import pytest
import torch

from saelab import idle, kernels
from saelab.kernels.cpu import probe, remembered
from saelab.sparsify import Choice

PEAK = """
import resource, sys, torch
from pathlib import Path
from saelab import kernels
from saelab.sparsify import Choice, Threshold
B, F, D = 256, 262144, 8
generator = torch.Generator().manual_seed(0)
x, W = torch.randn(B, D, generator=generator), torch.randn(F, D, generator=generator)
status = Path("/proc/self/status")


def high_water():
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])


by_feature = Choice(512, "feature")
choices = [Choice(8), Choice(8, signed=True), Choice(8, "batch"), by_feature, Threshold(14.0)]
for choice in choices:
    small = Choice(2, "feature") if choice == by_feature else choice
    kernels.choose(x[:64], W[:64], torch.zeros(64), small)
before = high_water()
if sys.argv[1] == "dense":
    (x @ W.T).topk(8)
else:
    for choice in choices:
        budget = torch.arange(F) % 65 // 64 if choice == choices[3] else None
        kernels.choose(x, W, torch.zeros(F), choice, budget=budget)
print((high_water() - before) // 1024)
"""


def peak(how: str) -> int:
    """MB by which choosing from 262144 features raises the peak of a process; a [B, F] matrix of
    float32 has 256."""
    out = subprocess.run(
        [sys.executable, "-c", PEAK, how], capture_output=True, text=True, check=True
    )
    return int(out.stdout)


def test_no_matrix_of_tokens_by_features_is_ever_made_and_one_that_is_gets_caught():
    assert peak("sparse") < 40
    assert peak("dense") > 250


def test_several_threads_may_choose_at_once():
    case = [
        torch.randn(shape, generator=torch.Generator().manual_seed(0))
        for shape in ((64, 24), (500, 24))
    ]
    expected = kernels.choose(case[0], case[1], torch.zeros(500), Choice(5))
    results = []

    def work():
        for _ in range(5):
            code = kernels.choose(case[0], case[1], torch.zeros(500), Choice(5))
            results.append(
                torch.equal(code.features, expected.features)
                and torch.equal(code.values, expected.values)
            )

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 20


@pytest.fixture
def fresh_probe(monkeypatch, tmp_path):
    """A probe that has measured nothing yet, with its memory in tmp_path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    probe.probe.cache_clear()
    yield tmp_path / "saelab" / "screen.json"
    probe.probe.cache_clear()


def test_the_probe_measures_once_and_is_remembered(fresh_probe, monkeypatch):
    first = probe.probe()
    assert first["screen"] in ("float32", "bfloat16")
    assert "ms in bfloat16" in first["why"]
    assert json.loads(fresh_probe.read_text())["screen"] == first["screen"]
    probe.probe.cache_clear()
    monkeypatch.setattr(probe, "_measure", lambda: pytest.fail("measured again"))
    assert probe.probe() == {**first, "remembered": str(fresh_probe)}


def test_the_probe_measures_again_on_another_machine_and_after_a_damaged_file(
    fresh_probe, monkeypatch
):
    monkeypatch.setattr(probe, "_milliseconds", lambda: {"bfloat16": 5.0, "float32": 5.0})
    probe.probe()
    for text in (
        json.dumps({**json.loads(fresh_probe.read_text()), "machine": {"processor": "other"}}),
        "{",
        "[]",
    ):
        fresh_probe.write_text(text)
        probe.probe.cache_clear()
        assert probe.probe()["remembered"] is None


def test_bfloat16_that_is_slow_or_adds_up_wrongly_is_not_screened_with(fresh_probe, monkeypatch):
    monkeypatch.setattr(probe, "_milliseconds", lambda: {"bfloat16": 1.0, "float32": 10.0})
    assert probe.probe()["screen"] == "bfloat16"
    slow = {"bfloat16": 5.0, "float32": 5.0}
    for name, value in (("_accumulates", lambda: False), ("_milliseconds", lambda: slow)):
        with monkeypatch.context() as patch:
            patch.setattr(probe, name, value)
            fresh_probe.unlink()
            probe.probe.cache_clear()
            assert probe.probe()["screen"] == "float32"


def test_other_work_on_the_machine_does_not_decide_the_dtype(monkeypatch):
    """Nine of ten bfloat16 products are held up; their median would say that they are slow."""
    took = iter([9.0, 5.0] * 4 + [1.0, 5.0] + [9.0, 5.0] * 5)
    clock = [0.0, 0.0]  # now, and how many times it was read

    def read() -> float:
        clock[0] += next(took) / 1000 if clock[1] % 2 else 0
        clock[1] += 1
        return clock[0]

    monkeypatch.setattr(probe.time, "perf_counter", read)
    times = probe._milliseconds()
    assert times == pytest.approx({"bfloat16": 1.0, "float32": 5.0})


def test_nothing_is_remembered_where_nothing_can_be_written(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr(remembered.tempfile, "gettempdir", lambda: str(blocked))
    assert remembered.user_folder() is None
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    assert remembered.compiled_folder() is None
    monkeypatch.setattr(probe, "_milliseconds", lambda: {"bfloat16": 5.0, "float32": 5.0})
    probe.probe.cache_clear()
    assert probe.probe()["remembered"] is None
    probe.probe.cache_clear()


def test_compiled_loops_go_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "chosen"))
    assert remembered.compiled_folder().parent == tmp_path / "chosen"
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert remembered.compiled_folder().parent == tmp_path / "user" / "saelab"


@pytest.fixture
def temporary(monkeypatch, tmp_path):
    """A temporary directory in which strangers may make folders, for a user without a home."""
    tmp_path.chmod(0o1777)
    for name in ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(remembered.Path, "expanduser", no_home)
    monkeypatch.setattr(remembered.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def no_home(path):
    raise RuntimeError("Could not determine home directory.")


def test_a_user_without_a_home_gets_a_folder_of_their_own(temporary):
    folder = temporary / f"saelab-{os.getuid()}"
    assert remembered.user_folder() == folder and folder.stat().st_mode & 0o777 == 0o700
    compiled = remembered.compiled_folder()
    assert compiled.parent == folder and compiled.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
def test_a_folder_that_others_can_write_is_never_read_from(temporary, mode):
    folder = temporary / f"saelab-{os.getuid()}"
    folder.mkdir()
    folder.chmod(mode)
    assert os.access(folder, os.W_OK)  # all that was asked before
    assert remembered.user_folder() is None and remembered.compiled_folder() is None


def test_a_stranger_s_folder_is_never_read_from(temporary, monkeypatch):
    folder = remembered.compiled_folder()
    assert folder is not None
    monkeypatch.setattr(remembered.os, "getuid", lambda: os.geteuid() + 1)
    (temporary / f"saelab-{os.geteuid() + 1}").symlink_to(folder)
    assert remembered.user_folder() is None and remembered.compiled_folder() is None


def test_a_folder_that_a_stranger_can_replace_is_never_read_from(temporary, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(temporary / "chosen"))
    assert remembered.compiled_folder().parent == temporary / "chosen"
    temporary.chmod(0o777)  # no sticky bit: everybody may rename
    assert remembered.compiled_folder() is None


def test_threads_wait_asleep_unless_the_user_says_how_they_wait():
    said = ({}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"})
    for environment in said:
        idle.wait_asleep(environment)
    assert said == (
        {"GOMP_SPINCOUNT": idle.SPINS},
        {"GOMP_SPINCOUNT": "7"},
        {"OMP_WAIT_POLICY": "active"},
    )


def test_importing_the_library_loads_no_compiler_and_says_in_time_how_threads_wait():
    code = (
        "import os, sys, saelab; in_time = 'torch' not in sys.modules\n"
        "import saelab.kernels, saelab.kernels.cpu.probe; print([m for m in "
        "('numba', 'triton') if m in sys.modules], in_time, os.environ['GOMP_SPINCOUNT'])"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP_", "OMP_WAIT"))}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert out.stdout.strip() == f"[] True {idle.SPINS}"
