"""Sources: what they give is what the cache holds, positions that do not count are never read, and
arrays of other lengths are refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from saelab.activations import Cache, registry
from saelab.activations.plan import Plan, hook
from saelab.activations.source import Piece, all_but_first, shards
from saelab.errors import FailedRun, UsageError

PADDING = 1000.0  # what a position that does not count holds: any sum it enters shows it


class Lines:
    """Contexts of three to eight counted positions of [2, 3] numbers, padded to nine; every fourth
    is held out. A Source made outside the library."""

    def __init__(self, n_contexts: int = 50, *, masked: bool = True) -> None:
        random = torch.Generator().manual_seed(0)
        self.plan = Plan(
            model={"name": "lines", "revision": "1"},
            text="lines",
            hooks={"line": hook([2, 3], ["queue"])},
            n_tokens=n_contexts * 9,
            context=9,
            dtype="float32",
            shard_contexts=16,
            masked=masked,
        )
        self.notes = {"lines": n_contexts}
        self.names = [f"line {number}" for number in range(n_contexts)]
        self.acts_CTHD = torch.randn(n_contexts, 9, 2, 3, generator=random)
        self.counted_CT = torch.ones(n_contexts, 9, dtype=torch.bool)
        for number in range(n_contexts):
            self.counted_CT[number, 3 + number % 6 :] = False
        self.acts_CTHD[~self.counted_CT] = PADDING
        self.parts = 5

    def pieces(self):
        for number in range(len(self.names)):
            tokens = torch.arange(number * 9, number * 9 + 9)[None]
            counted = self.counted_CT[number, None] if self.plan.masked else all_but_first(tokens)
            split = "train" if number % 4 else "held_out"
            owners = torch.full_like(tokens, number)
            yield Piece(split, tokens, owners, torch.tensor([number]), counted)

    def acts(self, piece: Piece):
        for numbers in piece.numbers.split(self.parts):
            yield {"line": self.acts_CTHD[numbers]}

    def of(self, split: str) -> Tensor:
        """[N, 6]: what a cache of this split is to hold."""
        kept = [n for n in range(len(self.names)) if bool(n % 4) == (split == "train")]
        return self.acts_CTHD.flatten(2)[kept][self.counted_CT[kept]]


def holds_what_counts(cache: Cache, lines: Lines) -> bool:
    """Whether every way of reading a cache gives the lines' counted positions and nothing else."""
    ways = []
    for split in ("train", "held_out"):
        expected = lines.of(split)
        chunks = list(cache.contexts("line", split))
        stream = cache.batches("queue", 5, split=split)
        epoch = torch.cat([next(stream) for _ in range(stream.per_epoch)])
        moments = cache.moments("line", split)
        read = torch.cat([chunk.x for chunk in cache.counted("line", split)])
        ways += [
            cache.n_tokens(split) == len(expected) == moments.n,
            torch.equal(torch.cat([c.acts[c.counted] for c in chunks]), expected),
            torch.equal(read, expected),
            len(epoch) == len(expected) // 5 * 5 and float(epoch.abs().max()) < PADDING,
            torch.allclose(moments.second.float(), expected.T @ expected, rtol=1e-5),
            torch.allclose(moments.sum.float(), expected.sum(0), rtol=1e-5, atol=1e-5),
        ]
    return all(ways)


def test_a_cache_holds_the_positions_that_count(tmp_path: Path):
    lines = Lines()
    cache = Cache.write(tmp_path / "c", lines)
    cache.verify()
    assert holds_what_counts(cache, lines)
    assert json.loads((tmp_path / "c" / "manifest.json").read_text())["schema"] == "saelab/cache/4"


def test_a_cache_whose_padding_counts_is_caught(tmp_path: Path):
    lines = Lines()
    cache = Cache.write(tmp_path / "c", Lines(masked=False))
    assert not holds_what_counts(cache, lines)
    assert cache.manifest["schema"] == "saelab/cache/3"


def test_a_source_that_counts_otherwise_than_its_plan_is_refused(tmp_path: Path):
    lines = Lines()
    lines.plan = replace(lines.plan, masked=False)
    lines.pieces = lambda: Lines().pieces()  # type: ignore[method-assign]
    with pytest.raises(UsageError, match=r"counts 87 of 144 .* first .*, 128: plan with masked=T"):
        Cache.write(tmp_path / "c", lines)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pack": "mine"}, "no packing 'mine'; there are documents, one-per-context, given"),
        ({"model": {}}, r"model=\{\} says no name: \{'name': 'mine'\} is enough"),
        ({"dtype": "int4"}, "no dtype 'int4'; there are float16"),
    ],
)
def test_a_plan_that_no_cache_can_have_is_refused(change: dict, message: str):
    with pytest.raises(UsageError, match=message):
        replace(Lines().plan, **change)


def test_only_old_manifests_that_say_no_packing_are_of_joined_documents(tmp_path: Path):
    cache = Cache.write(tmp_path / "c", Lines())
    settings = dict(cache.manifest["settings"])
    assert settings.pop("pack") == "given" == Plan(**settings | {"hooks": cache.plan.hooks}).pack
    assert Plan.read(cache.manifest | {"settings": settings}).pack == "documents"


def test_counted_tokens_come_with_their_documents_and_stop_at_the_number_asked(tmp_path: Path):
    cache = Cache.write(tmp_path / "c", Lines())
    chunks = list(cache.counted("line", "train", 23))
    owners = torch.cat([chunk.documents for chunk in chunks])
    tokens = torch.cat([chunk.tokens for chunk in chunks])
    assert len(tokens) == 23 and torch.equal(owners, tokens // 9)
    assert owners.tolist()[:5] == [1, 1, 1, 1, 2]  # contexts 1 and 2 hold four and five


@pytest.mark.parametrize("start", [0, 1, 17, 60])
def test_batches_of_a_masked_cache_go_on_from_any_number(tmp_path: Path, start: int):
    cache = Cache.write(tmp_path / "c", Lines())
    straight = cache.batches("line", 5, seed=1)
    for _ in range(start):
        next(straight)
    assert torch.equal(next(straight), next(cache.batches("line", 5, seed=1, start=start)))


def test_a_write_that_stops_goes_on_at_the_next_shard_with_the_same_bytes(tmp_path: Path):
    class Stops(Exception):
        pass

    def stop_after(n_positions: int):
        if n_positions > 250:
            raise Stops

    whole = Cache.write(tmp_path / "whole", Lines()).path
    with pytest.raises(Stops):
        Cache.write(tmp_path / "c", Lines(), stop_after)
    again = Lines()
    asked: list[int] = []
    again.acts = lambda piece: asked.extend(piece.numbers.tolist()) or Lines.acts(again, piece)  # type: ignore[method-assign]
    Cache.write(tmp_path / "c", again)
    files = {path.name: path.read_bytes() for path in whole.iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "c").iterdir()}
    assert 0 < len(asked) < len(again.names)


def test_another_mask_is_not_taken_for_the_same_shard(tmp_path: Path):
    with pytest.raises(RuntimeError):
        Cache.write(
            tmp_path / "c", Lines(), lambda n: n > 250 and (_ for _ in ()).throw(RuntimeError)
        )
    other = Lines()
    other.counted_CT[:, 1] = False
    with pytest.raises(FailedRun, match="lines is not what it was when"):
        Cache.write(tmp_path / "c", other)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            lambda n: {"line": torch.zeros(n, 9, 7)},
            r"line has an array of shape \[5, 9, 7\]: .* width 6",
        ),
        (
            lambda n: {"line": torch.zeros(n, 8, 6)},
            r"shape \[5, 8, 6\]: contexts 0 to 4 of 16 at 9 pos",
        ),
        (
            lambda n: {"line": torch.zeros(n + 30, 9, 6)},
            r"shape \[35, 9, 6\]: contexts 0 to 34 of 16",
        ),
        (lambda n: {"line": torch.zeros(1, 9, 6)}, "gives activations of 4 contexts out of 16"),
        (lambda n: {"lime": torch.zeros(n, 9, 6)}, r"gives \['lime'\], its plan has \['line'\]"),
    ],
)
def test_arrays_of_other_lengths_are_refused(tmp_path: Path, arrays, message: str):
    lines = Lines()
    lines.acts = lambda piece: (arrays(len(n)) for n in piece.numbers.split(5))  # type: ignore[method-assign]
    with pytest.raises(UsageError, match=message):
        Cache.write(tmp_path / "c", lines)
    assert not (tmp_path / "c").exists()


def test_numbers_that_are_not_finite_stop_the_write(tmp_path: Path):
    lines = Lines()
    lines.acts_CTHD[7, 3] = torch.nan
    with pytest.raises(FailedRun, match="6 of 270 activations at line are not finite"):
        Cache.write(tmp_path / "c", lines)


def test_a_source_made_outside_is_registered_once_and_written_by_name(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})
    registry.register("lines", Lines)
    cache = Cache.write(tmp_path / "c", "lines", n_contexts=40)
    assert holds_what_counts(cache, Lines(40)) and cache.manifest["lines"] == 40
    for taken in ("lines", "text"):
        with pytest.raises(UsageError, match=f"there is a source '{taken}' already"):
            registry.register(taken, Lines)
    with pytest.raises(UsageError, match="no source 'line'; there are text, arrays, lines"):
        Cache.write(tmp_path / "d", "line")
    rows = Cache.write(tmp_path / "e", "arrays", arrays=torch.randn(600, 4))
    assert rows.n_tokens() == 512


def test_shards_keep_order_and_splits_apart():
    lines = Lines()
    pieces = list(shards(lines.pieces(), 16))
    assert [(piece.split, len(piece.tokens)) for piece in pieces] == [
        ("train", 16), ("train", 16), ("train", 5), ("held_out", 13),
    ]  # fmt: skip
    numbers = torch.cat([piece.numbers for piece in pieces if piece.split == "train"])
    assert numbers.tolist() == [n for n in range(50) if n % 4]


def test_a_plan_is_read_back_from_its_manifest(tmp_path: Path):
    lines = Lines()
    cache = Cache.write(tmp_path / "c", lines)
    assert cache.plan == replace(lines.plan) and cache.plan.differing(lines.plan) == ""
    other = replace(lines.plan, seed=3, model={"name": "moved", "revision": "1"})
    assert cache.plan.differing(other) == "seed: 0 / 3"
