"""Digests tell what was damaged from what was written, and leave what has none alone."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from saelab import SAE, Choice, digests
from saelab.errors import FailedRun
from saelab.files import read_json, write_json
from training import checkpoint


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Flip one bit of a file's byte number `at`."""
    whole = bytearray(path.read_bytes())
    whole[at] ^= 1 << bit
    path.write_bytes(whole)


def test_a_documents_digest_is_over_its_fields_in_any_order_and_layout(tmp_path: Path):
    path, document = tmp_path / "a.json", {"schema": "saelab/a/1", "n": {2: (1.5, None)}}
    write_json(path, document)
    held = read_json(path)
    text = '{"n":{"2":[1.5,null]},"schema":"saelab/a/1"}'  # worked by hand
    assert held["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(dict(reversed(held.items()))))
    assert read_json(path) == held
    write_json(path, held)  # a document that is written again is sealed anew
    assert read_json(path) == held
    assert digests.is_right({"schema": "saelab/a/1"}) is None


@pytest.mark.parametrize(
    "change",
    [
        {"n": 2},
        {"m": 1},
        {"sha256": "0" * 64},
        {"sha256": None},
    ],
)
def test_a_document_with_another_value_is_refused_by_its_file(change: dict, tmp_path: Path):
    path = tmp_path / "a.json"
    write_json(path, {"schema": "saelab/a/1", "n": 1})
    path.write_text(json.dumps(read_json(path) | change))
    with pytest.raises(FailedRun, match=r"a\.json was altered: its content has not the SHA-256"):
        read_json(path)


def test_every_flipped_bit_of_a_document_is_refused_or_changes_nothing(tmp_path: Path):
    path = tmp_path / "a.json"
    write_json(path, {"schema": "saelab/a/1", "name": "naïve", "values": [1.5, -2, True]})
    whole, held, refused = path.read_bytes(), read_json(path), 0
    for at in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole)
            flip(path, at, bit)
            try:
                assert read_json(path) == held, (at, bit)
            except FailedRun as error:
                assert "a.json" in str(error)
                refused += 1
    assert refused > 0.95 * 8 * len(whole)


def test_without_the_look_for_a_renamed_digest_the_check_would_be_undone(tmp_path: Path):
    path = tmp_path / "a.json"
    write_json(path, {"schema": "saelab/a/1", "n": 1})
    path.write_text(path.read_text().replace('"sha256"', '"sha25v"'))
    with pytest.raises(FailedRun, match="was altered"):
        read_json(path)
    twin = json.loads(path.read_text())
    assert "sha256" not in twin  # so that a look for the field alone takes it for an older file


def test_an_sae_whose_probe_does_not_see_the_damage_is_refused(tmp_path: Path):
    torch.manual_seed(0)
    sae, probe = SAE(8, 64, Choice(1)), torch.randn(4, 8)
    sae.save(tmp_path, probe)
    unused = next(f for f in range(64) if f not in sae.encode(probe).features.tolist())
    weights = tmp_path / "sae.safetensors"
    tensors = load_file(weights)
    tensors["W_dec"][unused] *= -1e30
    save_file(tensors, weights)
    with pytest.raises(FailedRun, match=r"sae\.safetensors of .* was altered: its SHA-256"):
        SAE.load(tmp_path)
    header = read_json(tmp_path / "sae.json")
    del header["weights"]
    write_json(tmp_path / "sae.json", header)  # as before there were digests: the probe alone
    assert float(SAE.load(tmp_path).W_dec.detach()[unused].abs().max()) > 1e28


def test_a_checkpoint_holds_its_own_digest(tmp_path: Path):
    tensors = {"a": torch.arange(40.0), "n_done": torch.tensor(7)}
    checkpoint.save(tmp_path, 7, tensors)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    assert torch.equal(checkpoint.load(tmp_path, 7)["a"], tensors["a"])
    for at in (-1, -100, whole.index(b"sha256"), whole.index(b"saelab-sha256:") + 20):
        path.write_bytes(whole)
        flip(path, at)
        load_file(path)  # what was read before there was a digest
        with pytest.raises(FailedRun, match=r"step-00000007\.safetensors was altered"):
            checkpoint.load(tmp_path, 7)
    path.write_bytes(whole[:-1])
    with pytest.raises(FailedRun, match=r"step-00000007\.safetensors cannot be read"):
        checkpoint.load(tmp_path, 7)
    save_file(tensors, path)  # an older one
    assert torch.equal(checkpoint.load(tmp_path, 7)["a"], tensors["a"])


def test_sealing_needs_one_place_for_the_digest(tmp_path: Path):
    for content in (b"nothing", (digests.BLANK * 2).encode()):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(ValueError, match="not one place"):
            digests.seal(tmp_path / "a")


@pytest.mark.parametrize("piece", [1, 13, 64, 1 << 22])
def test_a_seal_holds_however_the_file_is_cut_into_pieces(piece: int, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(digests, "PIECE", piece)
    path = tmp_path / "a"
    path.write_bytes(b"x" * 50 + digests.BLANK.encode() + b"y" * 33)
    digests.seal(path)
    whole = path.read_bytes()
    stored = whole[50:-33].decode()
    assert stored != digests.BLANK and digests.is_sealed(path, stored)
    for at in (0, 49, -33, -1):
        path.write_bytes(whole)
        flip(path, at)
        assert not digests.is_sealed(path, stored)
