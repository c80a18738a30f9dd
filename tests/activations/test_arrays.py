"""One's own tensors as a cache: every row comes back once, with its owner, on one side; what does
not fit is refused by name and number."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from apps.cli import main
from saelab.activations import Cache
from saelab.activations.from_arrays import from_arrays, read
from saelab.documents import held_out
from saelab.errors import UsageError


def drawn(*shape: int) -> Tensor:
    """Random numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def written(folder: Path, arrays, ids=None, **options) -> Cache:
    """A cache of arrays in float32."""
    return Cache.write(folder / "c", from_arrays(arrays, ids, dtype="float32", **options))


def read_back(cache: Cache, hook: str = "acts") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All counted rows by rising token: x, documents, tokens, and whether they are held out."""
    columns = []
    for split in ("train", "held_out"):
        for x, documents, tokens in cache.counted(hook, split):
            columns.append((x, documents, tokens, torch.full_like(tokens, split == "held_out")))
    whole = [torch.cat(column) for column in zip(*columns, strict=True)]
    order = whole[2].argsort()
    return tuple(column[order] for column in whole)  # type: ignore[return-value]


@pytest.mark.parametrize("context", [1, 7, 64, 5000])
def test_rows_come_back_once_each_numbered_by_their_place(tmp_path: Path, context: int):
    x_ND = drawn(1000, 6)
    ids = {"owners": torch.arange(1000) // 10}
    cache = written(tmp_path, x_ND, ids, context=context)
    x, documents, tokens, _ = read_back(cache)
    assert torch.equal(x, x_ND) and torch.equal(tokens, torch.arange(1000))
    assert torch.equal(documents, ids["owners"])
    assert cache.n_tokens("train") + cache.n_tokens("held_out") == 1000
    stream = cache.batches("acts", 50)
    seen = torch.cat([next(stream) for _ in range(stream.per_epoch)])
    assert len(seen) == cache.n_tokens() // 50 * 50
    assert set(map(tuple, seen.tolist())) <= set(map(tuple, x_ND.tolist()))


def test_owners_are_held_out_by_the_projects_one_rule(tmp_path: Path):
    ids = {"owners": torch.arange(1000) // 10 + 7}
    cache = written(tmp_path, drawn(1000, 6), ids)
    names, (_, documents, _, held) = cache.document_names(), read_back(cache)
    assert names[0] == "owner 7" and len(names) == 100
    assert [bool(one) for one in held] == [held_out(names[n]) for n in documents.tolist()]
    assert "0 mod 20" in cache.manifest["split_rule"] and 0 < int(held.sum()) < 200


def test_where_nothing_is_held_out_the_smallest_digest_is_and_the_manifest_says_so(tmp_path: Path):
    cache = written(tmp_path, drawn(12, 6), context=4)
    assert (cache.n_tokens("train"), cache.n_tokens("held_out")) == (8, 4)
    assert "whose SHA-256 is the smallest" in cache.manifest["split_rule"]
    with pytest.raises(UsageError, match="all rows are of one document"):
        written(tmp_path / "one", drawn(12, 6))


def test_contexts_stay_whole_with_their_tokens_owners_and_mask(tmp_path: Path):
    x_CTD = drawn(40, 9, 6)
    ids = {
        "tokens": torch.arange(360).view(40, 9) + 3,
        "owners": torch.arange(40) // 2,
        "counted": torch.arange(9).expand(40, 9) > 1,
    }
    cache = written(tmp_path, {"one": x_CTD, "two": x_CTD[..., :4]}, ids)
    chunk = next(cache.contexts("two"))
    rows = chunk.tokens[:, 0] // 9
    assert torch.equal(chunk.acts, x_CTD[rows][..., :4])
    assert torch.equal(chunk.documents, ids["owners"][rows, None].expand(-1, 9))
    assert torch.equal(chunk.counted, ids["counted"][: len(rows)])
    assert cache.n_tokens() + cache.n_tokens("held_out") == 40 * 7
    alone = written(tmp_path / "alone", x_CTD)
    assert len(alone.document_names()) == 40 and alone.n_tokens("held_out") % 9 == 0


@pytest.mark.parametrize(
    ("arrays", "ids", "message"),
    [
        ({"a": drawn(30, 6), "b": drawn(29, 6)}, {}, r"a has shape \[30, 6\] and b \[29, 6\]"),
        ({"a": drawn(30)}, {}, r"a is float32 of shape \[30\]: floats \[N, D\] or \[C, T, D\]"),
        ({"a": drawn(2, 3, 4, 5)}, {}, r"a is float32 of shape \[2, 3, 4, 5\]"),
        ({"a": torch.arange(6).view(2, 3)}, {}, "a is int64 of shape"),
        ({"a": drawn(0, 6)}, {}, r"a is float32 of shape \[0, 6\]"),
        (drawn(30, 6), {"tokens": torch.arange(31)}, r"tokens has shape \[31\], the arrays \[30\]"),
        (
            drawn(5, 6, 4),
            {"owners": torch.arange(4)},
            r"owners has shape \[4\], the arrays \[5, 6\]",
        ),
        (drawn(30, 6), {"labels": torch.arange(30)}, "ids hold labels; there are tokens, owners"),
    ],
)
def test_arrays_and_ids_of_other_shapes_are_refused(tmp_path: Path, arrays, ids, message: str):
    with pytest.raises(UsageError, match=message):
        written(tmp_path, arrays, ids, context=4)
    assert not (tmp_path / "c").exists()


def test_numbers_that_are_not_finite_are_refused_before_anything_is_written(tmp_path: Path):
    x_ND = drawn(100, 6)
    x_ND[77, 2] = torch.nan
    with pytest.raises(UsageError, match="acts holds numbers that are not finite, first in row 77"):
        written(tmp_path, x_ND)
    assert not (tmp_path / "c").exists()


def test_contexts_that_mix_owners_of_both_splits_are_refused(tmp_path: Path):
    owners = torch.arange(40).view(40, 1) + torch.arange(9)
    with pytest.raises(UsageError, match=r"context \d+ has owners of both splits"):
        written(tmp_path, drawn(40, 9, 6), {"owners": owners})
    with pytest.raises(UsageError, match="context=5, but the arrays have 9 positions each"):
        written(tmp_path, drawn(40, 9, 6), context=5)


def test_a_cache_of_other_numbers_is_not_taken_for_this_one(tmp_path: Path):
    written(tmp_path, drawn(100, 6), context=10)
    written(tmp_path, drawn(100, 6), context=10)
    with pytest.raises(UsageError, match="other settings"):
        written(tmp_path, drawn(100, 6) + 1, context=10)


def test_the_command_caches_files_and_a_run_on_them_trains(tmp_path: Path, capsys):
    mixing_GD = drawn(24, 12)
    x_ND = torch.relu(drawn(4000, 24) - 1) @ mixing_GD
    np.save(tmp_path / "x.npy", x_ND.numpy())
    ids = {"owners": torch.arange(4000) // 50, "tokens": torch.arange(4000)}
    save_file(ids, tmp_path / "ids.safetensors")
    asked = ["capture", "--arrays", str(tmp_path / "x.npy"), "--out", str(tmp_path / "c")]
    asked += ["--ids", str(tmp_path / "ids.safetensors"), "--hook", "mine", "--json"]
    assert main(asked) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["hooks"] == ["mine"] and sum(result["tokens"].values()) == 4000
    run = str(tmp_path / "run")
    sizes = ["--features", "32", "--k", "4", "--tokens", "20000", "--batch", "250"]
    assert main(["train", "--cache", str(tmp_path / "c"), "--out", run, *sizes]) == 0
    assert "FVU" in capsys.readouterr().out
    for verb in ("eval", "index"):
        assert main([verb, run]) == 0
    assert main(["dark-matter", run]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "is on activations that were given" in said and "name it with --model" in said


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.npy", None, "no such file"),
        ("a.csv", b"1,2", "is neither .safetensors nor .npy"),
        ("a.npy", b"not numpy", "is no array of numbers"),
        ("a.safetensors", b"not safetensors", "is no safetensors file"),
    ],
)
def test_files_that_hold_no_arrays_are_refused(tmp_path: Path, name, content, message, capsys):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["capture", "--arrays", str(tmp_path / name), "--out", str(tmp_path / "c")]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_nothing_is_unpickled(tmp_path: Path):
    class Bomb:
        def __reduce__(self):
            return Path.write_text, (tmp_path / "went off", "x")

    np.save(tmp_path / "o.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(UsageError, match="is no array of numbers"):
        read(tmp_path / "o.npy")
    assert not (tmp_path / "went off").exists()


def test_hooks_choose_among_arrays_and_name_the_one_of_npy(tmp_path: Path):
    save_file({"a": drawn(9, 2), "b": drawn(9, 3)}, tmp_path / "x.safetensors")
    np.save(tmp_path / "x.npy", drawn(9, 2).numpy())
    assert set(read(tmp_path / "x.safetensors")) == {"a", "b"}
    assert set(read(tmp_path / "x.safetensors", ("b",))) == {"b"}
    assert set(read(tmp_path / "x.npy", ("mine",))) == {"mine"}
    with pytest.raises(UsageError, match="holds no 'c'; it holds a, b"):
        read(tmp_path / "x.safetensors", ("c",))
    with pytest.raises(UsageError, match="is one array, 2 hooks are named"):
        read(tmp_path / "x.npy", ("a", "b"))
