"""Peers that cannot be asked are said, and the others go on."""

import sys

import pytest

from benchmarks.trained.worker import Worker, WorkerEnded


def test_a_python_that_is_not_there_is_named(tmp_path):
    with pytest.raises(WorkerEnded, match=r"nowhere/python: No such file"):
        Worker("sae_lens", str(tmp_path / "nowhere/python"), tmp_path)


def test_a_package_that_is_not_there_is_named(tmp_path):
    worker = Worker("no_such_package", sys.executable, tmp_path)
    with pytest.raises(WorkerEnded, match="no_such_package"):
        worker.train(tmp_path)
    worker.close()
