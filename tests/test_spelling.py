"""Token texts of the two alphabets, of what is no character, and of characters that several tokens
make up."""

import random

import pytest

from saelab.spelling import alone, characters, pieces, spell


class Pieces:
    all_special_ids = (0,)

    def __init__(self, pieces):
        self.pieces = pieces

    def __len__(self):
        return len(self.pieces)

    def convert_ids_to_tokens(self, ids):
        return [self.pieces[number] for number in ids]


def test_byte_level_pieces_become_text():
    tokenizer = Pieces(["<|endoftext|>", "Ġthe", "Ċ", "ĉ", "Ã©", "Ã", "▁", None])
    expected = ["<|endoftext|>", " the", "\n", "\t", "é", "\\xc3", " ", "⟨7⟩", "⟨8⟩", "⟨9⟩"]
    assert [*map(alone, pieces(tokenizer, 10))] == expected


def test_sentencepiece_pieces_become_text():
    assert [*map(alone, pieces(Pieces(["<s>", "▁the", "<0x0A>", "<0xE2>", "é"]), 5))] == [
        "<s>",
        " the",
        "\n",
        "\\xe2",
        "é",
    ]


WORDS = "naïve 😀 日本語のテキスト Привет мир 👩‍👩‍👧 \\x41 e\u0301\r\n"


@pytest.mark.parametrize("seed", range(20))
def test_a_row_cut_anywhere_reads_as_the_text(seed: int):
    raw, rng = WORDS.encode(), random.Random(seed)
    cuts = sorted(rng.sample(range(1, len(raw)), 30))
    row = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    read = [alone(piece) for piece in row]
    texts = spell([text if text.encode() == piece else piece for text, piece in zip(read, row)])  # noqa: B905
    assert "".join(texts) == WORDS
    assert "".join(read) != WORDS  # each token alone, as it was read before
    assert all(text == one for text, one in zip(texts, read, strict=True) if "\\x" not in one)


def test_a_character_stands_with_the_token_it_begins_in():
    wolf = "🐺".encode()
    assert spell(["a", wolf[:1], wolf[1:3], wolf[3:], "b"]) == ["a", "🐺", "", "", "b"]
    assert spell([b" " + wolf[:2], wolf[2:] + wolf[:1], wolf[1:]]) == [" 🐺", "🐺", ""]
    assert spell([wolf[:2], "b", wolf[2:]]) == ["\\xf0\\x9f", "b", "\\x90\\xba"]
    assert spell([]) == []


def test_tokens_of_one_character_are_shown_together():
    texts = ["<s>", "日", "", "a", "本", "", ""]
    groups = [[*group] for group in characters(texts, 1, 7)]
    assert groups == [[1, 2], [3], [4, 5, 6]]
    assert [[*group] for group in characters(texts, 2, 4)] == [[1, 2], [3]]


def test_added_tokens_read_as_they_are_written():
    tokenizer = Pieces(["<s>", "Ġ", "Ã©", "   "])
    tokenizer.added_tokens_decoder = {2: None}  # type: ignore[attr-defined]
    assert pieces(tokenizer, 4) == ["<s>", " ", "Ã©", "   "]
