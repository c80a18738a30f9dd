"""A small SAE, synthetic activations and a hostile vocabulary: enough for a whole index in a tenth
of a second.

Shapes: C contexts of T positions, D width, F features, V vocabulary.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from saelab import SAE, Choice
from saelab.activations import Contexts
from saelab.activations.source import all_but_first
from saelab.features import build as index
from saelab.origin import Identity, Origin

C, T, D, F, K = 60, 48, 8, 24, 3
DEAD = 5
HOOK = "blocks.1.hook_resid_post"
WORDS = [
    "<s>",
    "<script>window.pwned=1</script>",
    "<img▁src=x▁onerror=window.pwned=1>",
    "$x^2$",
    "`code`",
    '▁"quoted"▁onmouseover="x"',
    "&amp;",
    "[a](b)",
    "▁return",
    "▁import",
    "▁numpy",
    "▁def",
    "(",
    ")",
    ":",
    "self",
    ".",
    "=",
    "▁the",
    "▁cat",
    "▁sat",
    "▁on",
    "▁mat",
    "▁naïve",
    "▁<b>bold",
    "▁print",
    "▁None",
    "▁True",
    "▁x",
    "▁y",
]
VOCABULARY = [*WORDS, "<0x0A>", "\t"]
TEXTS = [word.replace("▁", " ") for word in WORDS] + ["\n", "\t"]


class Tokenizer:
    """What the index asks of a tokenizer."""

    all_special_ids = (0,)

    def __len__(self) -> int:
        return len(VOCABULARY)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        """The pieces of those ids."""
        return [VOCABULARY[number] for number in ids]


class Cache:
    """Synthetic activations: the direction of the token, that of the previous one, and noise; in
    chunks of `size` contexts."""

    def __init__(self, size: int = 7, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.size = size
        self.tokens = torch.randint(1, len(TEXTS), (C, T), generator=generator)
        self.tokens[:, 0] = 0
        directions_VD = 3 * torch.randn(len(TEXTS), D, generator=generator)
        noise_CTD = torch.randn(C, T, D, generator=generator)
        self.acts = (
            directions_VD[self.tokens] + 0.5 * directions_VD[self.tokens.roll(1, 1)] + noise_CTD
        )
        self.documents = torch.arange(C * T).reshape(C, T) // 100
        self.counted = all_but_first(self.tokens)

    def document_names(self) -> list[str]:
        """A name per document, one of them hostile."""
        return [
            f"file{number}.py" if number else "<img src=x onerror=window.pwned=1>.py"
            for number in range(C * T // 100 + 1)
        ]

    def contexts(self, hook: str, split: str) -> Iterator[Contexts]:
        """The chunks, whatever the hook and split."""
        assert hook == HOOK and split
        for first in range(0, C, self.size):
            whole = Contexts(self.tokens, self.acts, self.documents, self.counted)
            yield whole.part(slice(first, first + self.size))


class Model:
    """A final LayerNorm and an unembedding, which is all the logit lens reads."""

    W_U = torch.randn(D, len(TEXTS), generator=torch.Generator().manual_seed(3))

    class ln_final:
        """The final norm."""

        weight = 1 + 0.3 * torch.randn(D, generator=torch.Generator().manual_seed(4))

    class cfg:
        """LayerNorm, not RMSNorm."""

        uses_rms_norm = False


def sae(*, signed: bool = False, seed: int = 0) -> SAE:
    """F features, the DEAD one of which never fires."""
    made = SAE(D, F, Choice(K, signed=signed), seed=seed)
    with torch.no_grad():
        made.W_enc[DEAD] = 0
        made.b_enc[DEAD] = 0 if signed else -100
    made.origin = Origin(HOOK, model=Identity("toy"), seed=seed, tokens=1000)
    return made


def build(path: Path, *, signed: bool = False, size: int = 7, **options) -> dict:
    """Index the toy SAE, compared with a twin that shares half of its directions."""
    made, twin = sae(signed=signed), sae(signed=signed, seed=9)
    with torch.no_grad():
        twin.W_dec[: F // 2] = made.W_dec[: F // 2].flip(0)
    options = {"others": [("seed 9", twin)], "model": Model(), **options}
    return index.build(made, Cache(size), HOOK, path, tokenizer=Tokenizer(), **options)


REPORT = {
    "fvu": {"value": 0.1043, "low": 0.1, "high": 0.108, "null": 1.0},
    "l0": {"value": 3.0, "low": 3.0, "high": 3.0, "null": None},
    "ce_recovered": {"value": 0.975, "low": 0.97, "high": 0.98, "null": 0.0},
    "tokens": 2048,
    "references": {
        "identity": {"fvu": 0.0, "l0": 8, "ce_recovered": {"value": 1.0}},
        "<b>zero": {"fvu": 1.2},
    },
}


def make_run(folder: Path, *, signed: bool = False) -> Path:
    """A run directory around the toy SAE: weights, index, report, training record."""
    sae(signed=signed).save(folder / "sae")
    build(folder / "features.db", signed=signed)
    (folder / "config.yaml").write_text("k: 3\n")
    rows = [
        {
            "step": s,
            "tokens": 100 * s,
            "loss": 9 / (s + 1),
            "fvu": 1 / (s + 1),
            "l0": 3.0,
            "dead": s % 4,
        }
        for s in range(20)
    ]
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 20, "tok'
    )
    (folder / "report.json").write_text(json.dumps(REPORT))
    return folder
