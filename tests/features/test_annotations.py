"""Annotations: none is lost, whoever writes when, and none is applied to another SAE."""

import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from saelab.errors import FailedRun, UsageError
from saelab.features import annotation_files, edits
from saelab.features.annotations import Annotation, Annotations, identity
from saelab.inspection import inspect
from tests import toy_index as toy
from tests.conftest import ROOT

N_WRITES = 100
WRITER = """
import sys
from saelab.features.annotations import Annotations
here = Annotations(sys.argv[1], "sae", 1_000_000)
for number in range(1_000_000):
    here.write(number, label=f"label {number}")
    print(number, flush=True)
"""


@pytest.fixture
def here(tmp_path):
    return Annotations(tmp_path / "annotations.db", "a" * 64, 24)


def test_what_is_written_is_read_and_reading_makes_no_file(here):
    assert here.of(3) == Annotation(3) and here.all() == {} and not here.path.exists()
    here.write(3, label=" closing \n brackets ", note="two\nlines", starred=True, add=["a", "b"])
    here.write(3, remove=["a"])
    here.write(4, label="x")
    here.write(4, label="")
    assert here.of(3) == Annotation(3, "closing brackets", "two\nlines", True, ("b",))
    assert here.labels() == {3: "closing brackets"} and here.lists() == ["b"]
    assert [*here.all()] == [3]


def test_every_earlier_text_stays_in_the_history(here):
    for text in ("first", "second", "second", "third"):
        here.write(0, label=text)
    assert [edit.value for edit in here.history(0)] == ["third", "second", "first"]


def test_annotations_of_one_sae_are_not_those_of_another(here):
    here.write(3, label="mine")
    other = Annotations(here.path, "b" * 64, 24)
    assert other.labels() == {} and other.of_others() == 1 and here.of_others() == 0
    other.write(3, label="theirs")
    assert here.labels() == {3: "mine"} and other.labels() == {3: "theirs"}
    assert identity({"sae": "a" * 64}) == "a" * 64
    assert identity({"sae": None, "n_features": 8}) != identity({"sae": None, "n_features": 9})


def _write_many(path, worker, sae="sae"):
    here = Annotations(path, sae, 2 * N_WRITES)
    for number in range(N_WRITES):
        # Half of the writes go to features of its own, half to those that both write.
        here.write(number, note=f"{worker} {number}")


def _lost(path) -> int:
    """How many of two workers' writes are missing from the histories."""
    here = Annotations(path, "sae", 2 * N_WRITES)
    said = {edit.value for number in range(N_WRITES) for edit in here.history(number)}
    wanted = {f"{worker} {number}" for worker in "AB" for number in range(N_WRITES)}
    return len(wanted - said)


def test_two_processes_write_at_once_and_nothing_is_lost(tmp_path):
    path, context = tmp_path / "annotations.db", multiprocessing.get_context("fork")
    workers = [context.Process(target=_write_many, args=(path, name)) for name in "AB"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert _lost(path) == 0


def test_the_count_of_lost_writes_sees_those_of_a_worker_that_wrote_none(tmp_path):
    _write_many(tmp_path / "annotations.db", "A")
    assert _lost(tmp_path / "annotations.db") == N_WRITES


def test_a_killed_writer_loses_at_most_the_write_under_way(tmp_path):
    path = tmp_path / "annotations.db"
    command = [sys.executable, "-c", WRITER, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert writer.stdout is not None
    for _ in range(50):
        assert writer.stdout.readline()
    time.sleep(0.003)
    writer.send_signal(signal.SIGKILL)
    told = 50 + len(writer.stdout.readlines())
    writer.wait(10)
    writer.stdout.close()
    labels = Annotations(path, "sae", 1_000_000).labels()
    # One may be committed and not told yet.
    assert len(labels) in (told, told + 1)
    assert all(labels[number] == f"label {number}" for number in range(told))
    edits.check(path)


@pytest.mark.parametrize("form", [annotation_files.to_csv, annotation_files.to_json])
def test_files_carry_annotations_to_a_copy_of_the_run(here, tmp_path, form):
    here.write(3, label='a "quoted", label', note="two\nlines; and ünïcode", starred=True)
    here.write(7, add=["bugs", "to do"])
    written = form(here.sae, here.all().values())
    copy = Annotations(tmp_path / "copy.db", here.sae, 24)
    copy.write(3, label="before")
    copy.extend(annotation_files.read(written, copy.sae))
    assert copy.all() == here.all()
    with pytest.raises(UsageError, match="of another SAE"):
        annotation_files.read(written, "b" * 64)
    assert annotation_files.read(written, "b" * 64, any_sae=True) == [*here.all().values()]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b\n1,2\n", "a CSV has the columns"),
        ("", "a CSV has the columns"),
        ("{", "is no JSON"),
        ('{"schema": "saelab/report/1"}', "has not the schema"),
        ("sae,feature\ns,x\n", "row 1 of the annotations: 'x' is no feature"),
        ("sae,feature\ns,-1\n", "is no feature"),
        ("sae,feature,starred\ns,1,maybe\n", "starred is 0 or 1"),
        ('{"schema": "saelab/annotations/1", "sae": "s", "annotations": [3]}', "3 is none"),
    ],
)
def test_a_file_that_is_none_is_told(text, told):
    with pytest.raises(UsageError, match=told):
        annotation_files.read(text, "s")


def test_what_cannot_be_meant_is_refused_whole(here):
    for number in (-1, 24, 10**9):
        with pytest.raises(UsageError, match="this SAE has features 0 to 23"):
            here.write(number, label="x")
    with pytest.raises(UsageError, match="at most 200 characters, this one has 300"):
        here.write(0, label="x" * 300)
    with pytest.raises(UsageError, match="without `;`"):
        here.write(0, starred=True, add=["a;b"])
    with pytest.raises(UsageError, match="features 0 to 23"):
        here.extend([Annotation(0, "x"), Annotation(99, "y")])
    assert here.all() == {}
    here.write(0, label="lone \ud800 surrogate\0")
    assert here.of(0).label == "lone ? surrogate"


def test_a_damaged_file_or_one_of_another_version_is_told(here):
    here.path.write_bytes(b"no database " * 500)
    for ask in (here.all, lambda: here.write(0, label="x")):
        with pytest.raises(FailedRun, match=r"annotations.db is damaged"):
            ask()
    here.path.unlink()
    here.write(0, label="x")
    with sqlite3.connect(here.path) as connection:
        connection.execute("update meta set value = 'saelab/annotations/9'")
    connection.close()
    with pytest.raises(FailedRun, match="this version reads 'saelab/annotations/1'"):
        here.labels()


def test_indexing_again_keeps_them_and_info_looks_at_them(tmp_path):
    run = toy.make_run(tmp_path / "toy")
    summary = toy.build(run / "features.db")
    here = Annotations(run / "annotations.db", identity(summary), toy.F)
    here.write(3, label="kept")
    again = toy.build(run / "features.db")
    assert Annotations(here.path, identity(again), toy.F).labels() == {3: "kept"}
    looked = {file.file: file for file in inspect(run).files}["annotations.db"]
    assert looked.digest == "none" and not looked.problem
    here.path.write_bytes(b"x" * 5000)
    assert "damaged" in {file.file: file for file in inspect(run).files}["annotations.db"].problem


def test_json_is_a_document(here):
    here.write(1, label="x")
    document = json.loads(annotation_files.to_json(here.sae, here.all().values()))
    assert document["schema"] == "saelab/annotations/1" and document["sae"] == here.sae
