"""Code by hand: two tokens, four features."""

import torch

from saelab import Code


def by_hand() -> Code:
    """Token 0: f0=1, f2=-5. Token 1: nothing. Token 2: f1=0, f2=2, f3=3."""
    return Code(
        torch.tensor([0, 2, 2, 5]),
        torch.tensor([0, 2, 1, 2, 3]),
        torch.tensor([1.0, -5.0, 0.0, 2.0, 3.0]),
        4,
    )


def test_a_code_by_hand_is_the_dense_matrix_it_means():
    dense = torch.tensor([[1.0, 0, -5, 0], [0, 0, 0, 0], [0, 0, 2, 3]])
    assert torch.equal(by_hand().to_dense(), dense)
    assert torch.equal(Code.from_mask(dense, dense != 0).to_dense(), dense)
    assert by_hand().tokens.tolist() == [0, 0, 2, 2, 2]


def test_pairs_come_by_falling_magnitude_within_each_token():
    assert by_hand().by_value().tolist() == [1, 0, 4, 3, 2]


def test_pairs_grouped_by_feature_keep_token_order():
    order, starts = by_hand().by_feature()
    assert order.tolist() == [0, 2, 1, 3, 4]
    assert starts.tolist() == [0, 1, 2, 4, 5]


def test_rows_of_a_code_are_the_rows_of_its_matrix():
    assert torch.equal(by_hand().rows(1, 3).to_dense(), by_hand().to_dense()[1:3])


def test_other_values_share_the_sort():
    code = by_hand()
    twin = code.with_values(code.values * 2)
    assert twin.by_feature()[0] is code.by_feature()[0]


def test_ranks_and_parts_of_a_code():
    code = by_hand()
    assert code.ranks().tolist() == [1, 0, 2, 1, 0]
    largest = code.where(code.ranks() == 0)
    assert torch.equal(
        largest.to_dense(), torch.tensor([[0.0, 0, -5, 0], [0, 0, 0, 0], [0, 0, 0, 3]])
    )
    assert largest.starts.tolist() == [0, 1, 1, 2]
