"""Tokenizers in a model's place: whatever reads prompts needs no more of it."""

from pathlib import Path
from types import SimpleNamespace

from tests.conftest import ROOT


def reads(folder: Path) -> SimpleNamespace:
    """Something with the tokenizer of a folder (of the repository, or absolute)."""
    from transformers import AutoTokenizer

    return SimpleNamespace(tokenizer=AutoTokenizer.from_pretrained(ROOT / folder))


def with_dummy_prefix(words: list[str], kind: str) -> SimpleNamespace:
    """Something with a tokenizer that puts a space before every text and shows it as `▁`.

    kind: `normalizer`, as Llama-2 has it (before a space too), or `metaspace`. Words are tokens,
    what is none of them is read character by character.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz.,0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    vocabulary, merges = ["<unk>", "<s>", *letters], []
    for word in words:
        grown = word[0]
        for letter in word[1:]:
            if (grown, letter) not in merges:
                merges.append((grown, letter))
            grown += letter
            if grown not in vocabulary:
                vocabulary.append(grown)
    numbered = {token: i for i, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(vocab=numbered, merges=merges, unk_token="<unk>"))
    if kind == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    else:
        parts = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        tokenizer.normalizer = normalizers.Sequence(parts)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")
    return SimpleNamespace(tokenizer=fast)
