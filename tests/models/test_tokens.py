"""Text is text: no token that was added to a vocabulary comes of it, and what bounds contexts is
the tokenizer's own."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from saelab.errors import UsageError
from saelab.models.tokens import NONE, Encoder, bounds, check_fits, special
from tests.conftest import ROOT

ORDINARY = "def f(x):\n    return 'naïve 😀 日本' \\\n\t# 12345  <0x41>\r\n\n"


def wrapped(tokenizer: Tokenizer, **options: Any) -> Any:
    """A tokenizer of transformers."""
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options)


def byte_level() -> Any:
    """A byte-level BPE with an end token in its vocabulary, and behind it a control token, a tag
    and, as GPT-NeoX has them, a run of blanks."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|end|>": 0} | {letter: i + 1 for i, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>", "<|turn|>"])
    tokenizer.add_tokens([AddedToken("<tool>"), AddedToken("    ", normalized=True)])
    return wrapped(tokenizer, eos_token="<|end|>")


def unigram() -> Any:
    """A unigram model, whose control tokens are pieces like any other."""
    letters = [(letter, -3.0) for letter in "▁ab</s>unk"]
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("</s>", 0.0), *letters], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    return wrapped(tokenizer, eos_token="</s>", unk_token="<unk>")


def words() -> Any:
    """Whole words, one of them a control token."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "<bos>": 1, "a": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return wrapped(tokenizer, bos_token="<bos>", unk_token="<unk>")


def wordpiece() -> Any:
    """A BERT's: neither BOS nor end-of-text token."""
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[": 3, "]": 4, "a": 5, "SEP": 6}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    return wrapped(tokenizer, **names)


SPELT = [
    (byte_level, "a<|end|>b<|turn|><tool>"),
    (unigram, "ab</s>a"),
    (words, "a <bos> a"),
    (wordpiece, "a[SEP]a"),
]


@pytest.mark.parametrize(("make", "text"), SPELT)
def test_no_text_becomes_a_control_token(make: Any, text: str):
    tokenizer = make()
    plain = tokenizer(text, add_special_tokens=False)["input_ids"]
    controls = special(tokenizer) - {tokenizer.unk_token_id}
    assert controls & {*plain}, "the tokenizer itself would match nothing: the case proves nothing"
    assert not controls & {*Encoder(tokenizer).ids([text])[0]}
    assert Encoder(tokenizer, parse_special=True).ids([text])[0] == plain


def test_the_text_between_is_what_it_would_be_without(tmp_path: Path):
    tokenizer = byte_level()
    spelt = Encoder(tokenizer).ids(["a<|end|><tool>"])[0]
    assert tokenizer.decode(spelt) == "a<|end|><tool>" and max(spelt) < 257
    assert Encoder(tokenizer).ids(["x    y"])[0][1] == tokenizer.convert_tokens_to_ids("    ")


@pytest.mark.parametrize("name", ["bundled", "gpt2_tokenizer", "stories260K"])
def test_ordinary_text_is_read_as_the_tokenizer_reads_it(name: str, request):
    at_home = name == "bundled"
    folder = ROOT / "data" / name if at_home else request.getfixturevalue("assets") / name
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [ORDINARY, "", " ", *Path(__file__).read_text().replace("<|end", "<|").split("\n\n")]
    texts = [text for text in texts if "<" not in text] + [ORDINARY]
    encoder = Encoder(tokenizer)
    coded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    assert encoder.ids(texts) == coded["input_ids"]
    assert [encoder.spans(text)[1] for text in texts] == coded["offset_mapping"]


def test_a_tokenizer_without_bounds_is_given_none():
    tokenizer = wordpiece()
    with pytest.raises(UsageError, match=r"neither a BOS .* \(its \[CLS\] is 1\): .*--bos none"):
        bounds(tokenizer)
    assert bounds(tokenizer, 1)[:2] == (1, 1) and bounds(tokenizer, NONE)[:2] == (None, None)
    assert bounds(byte_level())[:2] == (0, 0) and "no BOS" in bounds(byte_level()).bos_rule
    assert bounds(byte_level(), "7")[:2] == (7, 0) and bounds(words())[:2] == (1, 1)
    for asked in ("-1", "BOS", "1.5", ""):
        with pytest.raises(UsageError, match="neither a token's id nor none"):
            bounds(tokenizer, asked)


def test_only_tokens_that_text_becomes_need_an_embedding():
    check_fits(byte_level(), 257, "m")  # 257 to 259 were added behind the vocabulary
    with pytest.raises(UsageError, match="ids up to 256, the model embeddings for 256"):
        check_fits(byte_level(), 256, "m")
