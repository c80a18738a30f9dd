"""`import saelab` is enough, from a checkout and from a folder with a `training` and `apps` of its
own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import saelab
import training
from saelab.door import beside
from tests import toy_index
from tests.conftest import HOOK, ROOT, SECOND_HOOK

ELSEWHERE = """
import sys
sys.path.insert(0, {theirs!r})
sys.path.append({ours!r})
import saelab

assert saelab.Config(k=3).k == 3
import training, apps
assert training.THEIRS and apps.THEIRS
assert not hasattr(training, "Config")
from saelab.door import beside
assert saelab.open.__module__ == beside("apps.notebook.opened").__name__ != "apps.notebook.opened"
assert beside("training") is beside("training") is not training
assert saelab.Config is beside("training").Config is beside("training.config").Config
"""


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A folder with a `training` and an `apps` of its user's own."""
    for name in ("training", "apps"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("THEIRS = True\n")
    return tmp_path


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What a fresh Python says in a folder that comes first in its search path."""
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_every_public_name_is_there_and_no_other():
    for name in saelab.HOMES:
        assert getattr(saelab, name) is not None
    assert set(saelab.__all__) <= set(saelab.HOMES) <= set(dir(saelab))
    with pytest.raises(AttributeError, match="no attribute 'Sae'"):
        saelab.Sae  # noqa: B018


def test_in_a_checkout_training_is_ours():
    assert training.Config is saelab.Config
    assert beside("training") is training


def test_a_users_own_training_and_apps_stay_theirs(crowded: Path):
    code = ELSEWHERE.format(theirs=str(crowded), ours=str(ROOT))
    answer = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr


def test_the_check_for_theirs_catches_ours(tmp_path: Path):
    code = ELSEWHERE.format(theirs=str(tmp_path), ours=str(ROOT))
    answer = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert "THEIRS" in answer.stderr


def test_the_command_and_the_browser_work_from_such_a_folder(crowded: Path):
    toy_index.make_run(crowded / "runs" / "toy")
    assert "capture" in python(crowded, "-m", "saelab", "--help").stdout
    assert "--features" in python(crowded, "-m", "saelab", "train", "--help").stdout
    page = """
import apps, json, os, sys
from streamlit.testing.v1 import AppTest
os.environ["SAELAB_BROWSE"] = json.dumps(["runs"])
page = AppTest.from_file(sys.argv[1], default_timeout=60).run()
assert apps.THEIRS and not page.exception, page.exception
print("".join(element.proto.body for element in page.get("html")))
"""
    script = str(ROOT / "apps" / "browser" / "app.py")
    answer = python(crowded, "-c", page, script)
    assert answer.returncode == 0, answer.stderr
    assert "toy" in answer.stdout


def test_a_package_that_fails_to_load_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from saelab import door

    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "__init__.py").write_text("raise OSError('half written')")
    monkeypatch.setattr(door, "BESIDE", tmp_path)
    with pytest.raises(OSError, match="half written"):
        beside("apps.cli")
    assert "_saelab_apps" not in sys.modules


def test_values_say_what_they_are(tiny_run: Path, tiny_cache: Path, tiny_model: Path):
    sae = saelab.SAE.load(tiny_run)
    assert repr(sae) == f"SAE(32 -> 64 -> 32, topk k=4, at {HOOK} of {tiny_model})"
    bare = saelab.SAE(4, 8, saelab.Choice(2, "batch"), transcoder=True, skip=True, d_out=6)
    assert repr(bare) == "transcoder with a skip(4 -> 8 -> 6, batchtopk k=2)"
    bare.calibrate([torch.randn(40, 4)])
    assert repr(bare.frozen()).endswith("jumprelu)")
    form = f"32 -> 64 -> 32, topk k=4 at {HOOK} of {tiny_model}, 40,000 training tokens"
    assert repr(saelab.RunFolder(tiny_run)) == f"RunFolder({str(tiny_run)!r}: {form})"
    assert repr(saelab.RunFolder("none")) == "RunFolder('none': no SAE yet)"
    cache = saelab.Cache(tiny_cache)
    assert repr(cache).startswith(f"Cache({str(tiny_cache)!r}: {cache.n_tokens():,} training and ")
    assert repr(cache).endswith(f"{SECOND_HOOK} [32] of {tiny_model})")
