"""Text whose characters span several tokens is shown in characters, and found."""

import re

import pytest
import torch

from apps.browser import contexts
from saelab.features import build
from saelab.features.reader import FeatureIndex
from tests import toy_index as toy

TEXT = "naïve 😀 日本語のテキスト Привет мир straße "


class Bytes:
    """A tokenizer whose every token is one byte."""

    all_special_ids = (0,)

    def __len__(self) -> int:
        return 257

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        """The pieces of those ids, as sentencepiece writes bytes."""
        return ["<s>" if number == 0 else f"<0x{number - 1:02X}>" for number in ids]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory):
    """An index over contexts that hold the text over and over, cut anywhere."""
    cache = toy.Cache()
    raw = TEXT.encode() * (toy.C * toy.T)
    ids = torch.tensor([*raw[: toy.C * (toy.T - 1)]]).reshape(toy.C, toy.T - 1)
    cache.tokens[:, 1:] = ids + 1
    path = tmp_path_factory.mktemp("index") / "features.db"
    build.build(toy.sae(), cache, toy.HOOK, path, tokenizer=Bytes())  # type: ignore[arg-type]
    with FeatureIndex(path) as opened:
        yield opened


@pytest.mark.parametrize(
    "text",
    ["日本", "日", "本語の", "😀", "Привет", "пРИВЕТ", "ми", "NAÏVE", "ï", "straße", "STRASSE"],
)
def test_text_of_several_tokens_a_character_is_found(opened, text: str):
    passages = opened.passages(text)
    assert passages and opened.search(text, ["contexts"])
    for passage in passages:
        shown = "".join(passage.texts).casefold()
        assert text.casefold() in shown
        assert text.casefold() in "".join(passage.texts[n] for n in passage.matched).casefold()


def test_no_token_alone_holds_such_a_text(opened):
    for text in ("日本", "😀", "Привет"):  # all that a search for tokens one by one can see
        assert opened.tokens(text) == []
    assert opened.passages("猫") == [] and opened.passages("zebra") == []


def test_examples_read_as_the_text(opened):
    for feature in range(toy.F):
        for example in opened.examples(feature):
            joined = "".join(example.texts[1:])
            # A context may begin and end within a character.
            whole = re.sub(r"^(\\x..)+|(\\x..)+$", "", joined)
            assert whole in TEXT * 3 and "\\x" not in whole
            html = contexts.shaded(example, 1, len(example.texts), 1.0)
            assert "></span>" not in html  # no firing token is invisible
