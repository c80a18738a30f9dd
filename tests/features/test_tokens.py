"""Token texts of the two alphabets, and of what is no character."""

from saelab.features.tokens import token_texts


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
    assert token_texts(tokenizer, 10) == expected


def test_sentencepiece_pieces_become_text():
    assert token_texts(Pieces(["<s>", "▁the", "<0x0A>", "<0xE2>", "é"]), 5) == [
        "<s>",
        " the",
        "\n",
        "\\xe2",
        "é",
    ]
