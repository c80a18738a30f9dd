"""Sparse probes: a planted latent is found, shuffled labels are not; token kinds by hand and along
a cache."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

from saelab import models
from saelab.activations import Cache
from saelab.errors import FailedRun, UsageError
from saelab.evaluation import labelled, labels, probing
from saelab.evaluation.labelled import Labelled
from saelab.evaluation.probing import Examples
from saelab.evaluation.synthetic import World
from tests.conftest import HOOK, make_cache
from tests.evaluation.worlds import SMALL, oracle

SOURCE = '''"""Opens."""
def f(a, b=12):
    "says"
    # why
    if a in [b, 3.5]:
        return "text" + f(a,
                          b)
'''


def examples(n: int, planted: int, seed: int) -> Examples:
    """Twenty random latents, one of which fires exactly on the positives."""
    rng = np.random.default_rng(seed)
    inputs = rng.random((n, 20)) * (rng.random((n, 20)) < 0.3)
    y = np.arange(n) % 2 == 0
    inputs[:, planted] = y * (1 + rng.random(n))
    return Examples(scipy.sparse.csr_array(inputs), y, np.arange(n) // 4)


def test_a_planted_latent_is_found_and_shuffled_labels_are_chance():
    train, test = examples(600, 7, 0), examples(400, 7, 1)
    for k in (1, 2, 5):
        found = probing.probe(train, test, k)
        assert found.features[0] == 7 and found.accuracy[:2] == (1.0, 1.0)
    rng = np.random.default_rng(3)
    shuffled = probing.probe(
        *(part._replace(labels=rng.permutation(part.labels)) for part in (train, test)), k=5
    ).accuracy
    assert shuffled.value == pytest.approx(0.5, abs=0.08) and shuffled.low < 0.5 < shuffled.high


def test_the_ranking_by_hand():
    inputs = np.array([[1.0, 0, 5], [3, 0, 5], [0, 3, 5], [0, 0, 5]])
    found = probing.rank(Examples(inputs, np.array([True, True, False, False]), np.zeros(4)))
    assert found.tolist() == [0, 1, 2]  # differences 2, -1.5, 0


def test_a_probe_does_not_depend_on_the_latents_scale():
    train, test = examples(600, 7, 0), examples(400, 7, 1)
    mixed = [part._replace(inputs=part.inputs[:, :5]) for part in (train, test)]
    small = [part._replace(inputs=part.inputs * 1e-4) for part in mixed]
    assert probing.probe(*mixed, k=3).accuracy == probing.probe(*small, k=3).accuracy


def test_balanced_rows_are_half_positive_and_capped():
    y = np.arange(100) < 10
    rows = probing.balanced(y, 50)
    assert len(rows) == 20 and y[rows].sum() == 10 and len(set(rows)) == 20
    assert len(probing.balanced(y, 4)) == 8


def planted(n: int, seed: int) -> Labelled:
    """Tokens of the small world, labelled by whether its last feature fires."""
    x, truth = World(SMALL).sample(n, seed)
    groups = np.arange(n) // 10
    return Labelled(x, {"fires": (truth[:, -1] != 0).numpy(), "rare": np.arange(n) < 5}, groups)


def test_the_table_shows_the_planted_latent_beside_neurons_and_nulls():
    rows = probing.table({"sae": oracle(World(SMALL))}, planted(4000, 0), planted(3000, 1))
    cells = {(row["dictionary"], row["k"]): row for row in rows}
    assert {row["label"] for row in rows} == {"fires"}  # the other has too few examples
    assert cells["sae", 1]["value"] > 0.99 > cells["neurons", 1]["value"] + 0.1
    assert cells["dense", None]["value"] > cells["neurons", 5]["value"]
    for row in rows:
        assert row["low"] <= row["value"] <= row["high"] and abs(row["null"] - 0.5) < 0.15


def kinds(text: str, word: str, at: int = 0) -> set[str]:
    """The kinds of the `at`-th occurrence of a word, all its characters alike."""
    marks, first = labels.characters(text), -1
    for _ in range(at + 1):
        first = text.index(word, first + 1)
    assert marks is not None
    span = marks[:, first : first + len(word)]
    assert (span == span[:, :1]).all(), word
    return {kind for kind, on in zip(labels.KINDS, span[:, 0], strict=True) if on}


@pytest.mark.parametrize(
    ("word", "at", "expected"),
    [
        ('"""Opens."""', 0, {"docstring"}),
        ("def", 0, {"keyword"}),
        ("a", 0, {"name", "in brackets"}),
        ("12", 0, {"number", "in brackets"}),
        ("(", 0, {"operator"}),
        ('"says"', 0, {"docstring"}),
        ("# why", 0, {"comment"}),
        ("if", 0, {"keyword"}),
        ("3.5", 0, {"number", "in brackets"}),
        ("]", 0, {"operator"}),
        ("return", 0, {"keyword", "indented twice"}),
        ('"text"', 0, {"string", "indented twice"}),
        ("+", 0, {"operator", "indented twice"}),
    ],
)
def test_kinds_by_hand(word: str, at: int, expected: set[str]):
    assert kinds(SOURCE, word, at) == expected


def test_a_line_that_goes_on_in_brackets_is_no_deeper_block():
    last = SOURCE.count("b") - 1
    assert kinds(SOURCE, "b", last) == {"name", "in brackets", "indented twice"}
    assert kinds(SOURCE, ")", SOURCE.count(")") - 1) == {"operator", "indented twice"}


def test_what_is_no_python_has_no_kinds():
    assert labels.characters("def f(:\n  'open") is None
    assert labels.of_tokens("if x:\n    y\n  z", [(0, 2)]) is None


def test_model_tokens_take_the_kind_of_their_first_solid_character():
    text = "x = 'a b'  # c"
    offsets = [(0, 1), (1, 3), (3, 6), (6, 9), (9, 11), (9, 12), (12, 14)]
    found = labels.of_tokens(text, offsets)
    assert found is not None
    read = [
        [kind for kind, on in zip(labels.KINDS, column, strict=True) if on] for column in found.T
    ]
    assert read == [["name"], ["operator"], ["string"], ["string"], [], ["comment"], ["comment"]]


@pytest.fixture(scope="module")
def python_cache(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the tiny model over Python files, one of them broken."""
    return make_python_cache(tiny_model, tmp_path_factory.mktemp("python"))


def make_python_cache(model: Path, folder: Path) -> Path:
    """Python files below `folder`/text, and their cache."""
    from saelab.documents import held_out

    (folder / "text").mkdir()
    names = [f"m{number}.py" for number in range(400)]
    for name in [n for n in names if held_out(n)][:10] + [n for n in names if not held_out(n)][:50]:
        (folder / "text" / name).write_text("".join(SOURCE.replace("12", str(i)) for i in range(3)))
    (folder / "text" / names[-1]).write_text("def broken(:\n  'open\n" * 20)
    return make_cache(model, folder / "text", folder / "cache")


def test_labels_along_a_cache_are_those_of_its_characters(python_cache: Path, tiny_model: Path):
    cache, tokenizer = Cache(python_cache), models.load(tiny_model).tokenizer
    found = labelled.python_tokens(cache, HOOK, tokenizer, "train", 5000)
    assert len(found.x) == len(found.groups) == len(found.labels["name"]) >= 5000
    ids = torch.cat([c.tokens[:, 1:].flatten() for c in cache.contexts(HOOK)])
    owners = torch.cat([c.documents[:, 1:].flatten() for c in cache.contexts(HOOK)])
    acts = torch.cat([c.acts[:, 1:].flatten(0, 1) for c in cache.contexts(HOOK)])
    names = cache.document_names()
    python = torch.tensor([names[n] != "m399.py" for n in owners.tolist()]) & (
        ids != tokenizer.eos_token_id
    )
    assert torch.equal(acts[python][: len(found.x)], found.x)
    letters = tokenizer.convert_ids_to_tokens(ids[python][: len(found.x)].tolist())
    for letter, number, comment in zip(
        letters, found.labels["number"], found.labels["comment"], strict=True
    ):
        assert not number or letter in "0123456789."
        assert letter != "#" or comment
    assert found.labels["number"].sum() > 20


def test_text_that_changed_since_and_text_without_python_are_refused(
    python_cache: Path, tiny_model: Path, tiny_cache: Path
):
    tokenizer = models.load(tiny_model).tokenizer
    with pytest.raises(UsageError, match=r"holds no Python source \(train split\)"):
        labelled.python_tokens(Cache(tiny_cache), HOOK, tokenizer, "train", 100)
    cache = Cache(python_cache)
    file = Path(cache.manifest["settings"]["text"]) / cache.document_names()[0]
    before = file.read_text()
    file.write_text("y" + before)
    try:
        with pytest.raises(FailedRun, match="is not what it was when the cache was made"):
            for split in ("train", "held_out"):
                labelled.python_tokens(cache, HOOK, tokenizer, split, 10**9)
    finally:
        file.write_text(before)


def test_prompts_say_who_gives_and_who_receives(tiny_model: Path, bundled: str):
    model = models.load(bundled)
    found = labelled.indirect_objects(model, "blocks.0.hook_in", 60, held_out=True)
    assert found.x.shape == (60, 256) and len(found.labels) == 2 * labelled.N_NAMES + 1
    receivers = np.stack([on for name, on in found.labels.items() if name.startswith("receiver")])
    givers = np.stack([on for name, on in found.labels.items() if name.startswith("giver")])
    assert (
        (receivers.sum(0) == 1).all()
        and (givers.sum(0) == 1).all()
        and not (receivers & givers).any()
    )
    assert 10 < found.labels["order ABB"].sum() < 50
    row = model.tokenizer(" to", add_special_tokens=False)["input_ids"][0]
    positions = (
        found.x - model.W_E[row].detach()
    )  # at the input: the last token's embedding plus its position's
    spread = (positions[:, None] - model.W_pos.detach()[None]).norm(dim=2).min(1).values
    assert (spread < 1e-3).float().mean() > 0.7  # most templates end in "to"
