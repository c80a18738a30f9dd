"""The wheel, installed and not editable, does the whole job from folders of its user's own."""

import os
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest

from tests.conftest import HOOK, ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that this checkout builds."""
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(out),
        str(ROOT),
    ]
    subprocess.run(command, check=True)
    return next(out.glob("saelab-*.whl"))


@pytest.fixture(scope="module")
def saelab(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `saelab` command of a new environment that has the wheel, and this environment's packages
    but not this checkout."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    # A path file inside a path file is not followed, so the editable install of this checkout stays
    # out of sight.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(folder),
        "install",
        "--quiet",
        "--no-deps",
        "--ignore-installed",
        str(wheel),
    ]
    subprocess.run(install, check=True)
    return folder / "bin" / "saelab"


def test_the_wheel_carries_the_packages_and_the_data(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {
        "saelab",
        "training",
        "apps",
    }
    wanted = [
        "saelab/_data/README.md",
        "saelab/schemas/report.json",
        "training/recipes/demo.yaml",
        "apps/browser/style.css",
        "apps/notebook/notebook.css",
    ]
    if (ROOT / "data" / "bundled" / "model.safetensors").exists():
        wanted += ["saelab/_data/bundled/model.safetensors", "saelab/_data/bundled/tokenizer.json"]
    assert not [name for name in wanted if name not in names]
    assert not [name for name in names if name.startswith(("tests/", "data/", "notebooks/"))]


@pytest.mark.slow
def test_capture_train_eval_index_and_browse_work_in_a_folder_with_its_own_training_apps_and_data(
    saelab: Path, tiny_model, tiny_corpus, tmp_path: Path
):
    for package in ("training", "apps", "data", "saelab"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise ImportError('the wrong package')\n")
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }

    def run(*command: str) -> None:
        done = subprocess.run(
            [str(saelab), *command], cwd=tmp_path, env=clean, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    run(
        "capture",
        "--model",
        str(tiny_model),
        "--text",
        str(tiny_corpus),
        "--hook",
        HOOK,
        "--tokens",
        "16k",
        "--out",
        "cache",
    )
    options = ("--features", "64", "--k", "4", "--tokens", "5k", "--batch", "256")
    run("train", "--cache", "cache", "--out", "runs/one", *options)
    run("eval", "runs/one", "--tokens", "900")
    run("index", "runs/one", "--tokens", "5k")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen(
        [str(saelab), "browse", "--port", str(port)],
        cwd=tmp_path,
        env=clean,
        stderr=subprocess.PIPE,
    ) as server:
        try:
            assert b"ok" in answer(f"http://127.0.0.1:{port}/_stcore/health", server)
        finally:
            server.terminate()


def answer(address: str, server: subprocess.Popen, patience: float = 60.0) -> bytes:
    """The body of `address` once the server answers."""
    until = time.monotonic() + patience
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=2) as page:
                return page.read()
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the browser did not answer")
