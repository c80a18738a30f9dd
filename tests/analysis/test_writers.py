"""Which heads write a feature and from where, and what kinds of heads they are: planted heads,
planted features, places by hand, known-bad twins."""

from pathlib import Path

import pytest
import torch

from saelab import SAE, models
from saelab.activations import Cache
from saelab.analysis.attention import attribution, kinds, report, tracing, writers
from saelab.errors import UsageError
from tests.analysis.dictionaries import RESIDUAL, Z, dictionary

PART = 6


def looks(offset: int, length: int = 2 * PART + 1) -> torch.Tensor:
    """[T, T]: a head that looks `offset` back, at position 0 where there is none."""
    at_T = torch.arange(length)
    return torch.nn.functional.one_hot((at_T - offset).clamp_min(0), length).float()


def test_heads_are_called_by_what_they_do_and_not_by_where_they_happen_to_look():
    even = torch.ones(2 * PART + 1, 2 * PART + 1).tril()
    even = even / even.sum(1, keepdim=True)
    does = [looks(1), looks(PART - 1), looks(PART), looks(100), even, looks(PART - 1)]
    # On tokens that do not repeat the planted heads find nothing, and look at position 0; the last
    # looks back as far as before, whatever stands there: no induction.
    rests = [looks(1), looks(100), looks(100), looks(100), even, looks(PART - 1)]
    repeated, unrepeated = (torch.stack(heads).expand(4, -1, -1, -1) for heads in (does, rests))
    rows = kinds.measure(repeated, unrepeated, PART)
    called = [row.called[:1] for row in rows]
    assert called == [
        ["previous token"], ["induction"], ["duplicate token"], [kinds.FIRST], [], []
    ]  # fmt: skip
    share = rows[1].shares["induction"]
    assert share.value == 1 and share.null == 0 and share.low == 1
    assert rows[5].shares["induction"].value == rows[5].shares["induction"].null == 1
    previous = rows[4].shares["previous token"]
    assert previous.value == pytest.approx(previous.null) and 0 < previous.null < 0.5


def test_sequences_repeat_once_and_their_twins_never(tiny_model: Path):
    model = models.load(tiny_model)
    repeated, unrepeated = kinds.sequences(model, 3, PART, seed=0)
    assert torch.equal(repeated[:, 1 : PART + 1], repeated[:, PART + 1 :])
    assert torch.equal(repeated[:, : PART + 1], unrepeated[:, : PART + 1])
    assert all(len(row.unique()) == len(row) for row in unrepeated)
    assert (repeated[:, 0] == model.tokenizer.bos_token_id).all()
    pattern = kinds.patterns(model, repeated, 1)
    assert pattern.shape == (3, 4, 2 * PART + 1, 2 * PART + 1)
    torch.testing.assert_close(pattern.sum(3), torch.ones(pattern.shape[:3]))


def matching(tokens_NT: torch.Tensor, n: int) -> torch.Tensor:
    """[N, T, T]: a head that looks, spread evenly, at what followed the last n tokens before; at
    position 0 where they are new."""
    length = tokens_NT.shape[1]
    pattern_NTT = torch.zeros(len(tokens_NT), length, length)
    for row, tokens_T in enumerate(tokens_NT.tolist()):
        for at in range(length):
            last = tokens_T[max(0, at + 1 - n) : at + 1]
            behind = [to for to in range(n, at + 1) if tokens_T[to - n : to] == last]
            for place in behind or [0]:
                pattern_NTT[row, at, place] = 1 / max(1, len(behind))
    return pattern_NTT


def test_a_head_that_wants_a_long_prefix_scores_from_there_on(
    bundled: str, monkeypatch: pytest.MonkeyPatch
):
    def planted(model, tokens_NT, layer):
        return torch.stack([matching(tokens_NT, n) for n in (1, 4)], 1)

    monkeypatch.setattr(kinds, "patterns", planted)
    score_KNH = kinds.by_prefix(models.load(bundled), 0, (1, 3, 4, 8), 2)
    assert score_KNH.mean(1).T.tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    with pytest.raises(ValueError, match="less than 24 tokens, not 24"):
        kinds.by_prefix(models.load(bundled), 0, (1, 24), 2)


def test_places_by_hand():
    place_TSP = writers.places(torch.tensor([9, 5, 7, 5, 8]))
    names = list(writers.PLACES)

    def named(at: int) -> list[str]:
        return [names[int(row.argmax())] for row in place_TSP[at, : at + 1]]

    same, after = "same token", "after the same token"
    assert named(1) == ["first position", "current token"]
    assert named(3) == ["first position", same, "previous token", "current token"]
    assert named(4) == ["first position", *2 * ["elsewhere"], "previous token", "current token"]
    further = writers.places(torch.tensor([9, 5, 7, 6, 5]))[4]
    assert names[int(further[2].argmax())] == after
    assert not place_TSP[1, 2:].any() and (place_TSP.sum((1, 2)) == torch.arange(1, 6)).all()


def one_headed(sae: SAE) -> SAE:
    """The same, each feature f reading head f mod 4 alone."""
    head_F1 = torch.arange(sae.n_features)[:, None] % 4
    reads_FD = head_F1 == torch.arange(32) // 8
    sae.W_enc.data = sae.W_enc.data * reads_FD
    return sae


@pytest.fixture(scope="module")
def read(tiny_model: Path, tiny_cache: Path):
    return models.load(tiny_model), Cache(tiny_cache)


def test_planted_features_are_written_by_their_heads_and_others_by_several(read):
    model, cache = read
    for plant, sure in ((one_headed, True), (lambda sae: sae, False)):
        sae = plant(dictionary(Z, seed=3))
        texts = list(writers.contexts(model, sae, cache, 200))
        written = writers.write(sae, texts, 4, model.cfg.d_vocab)
        features_G, heads_G, sums_OG2 = writers.leading(written, 4)
        shares_G = torch.from_numpy(sums_OG2.sum(0)[:, 0] / sums_OG2.sum(0)[:, 1])
        assert bool((heads_G == features_G % 4).all()) is sure
        assert bool(shares_G.allclose(torch.ones_like(shares_G))) is sure
        z_BHE = torch.cat([one.v[:0] for one in texts])
        assert z_BHE.shape[1:] == (4, 8)
        assert float(written.n_pairs_F.sum()) == sum(len(one.code.values) for one in texts)
    assert float(written.even_P.sum()) == pytest.approx(1, abs=1e-5)


def test_what_heads_write_is_the_contribution_of_each(read):
    model, cache = read
    sae = dictionary(Z, seed=3)
    one = next(iter(writers.contexts(model, sae, cache, 1)))
    written = writers.write(sae, [one], 4, model.cfg.d_vocab)
    z_BHE = torch.einsum("hts,she->the", one.pattern, one.v)
    by_head_NH = attribution.by_head(sae, z_BHE, one.code).abs().double()
    expected = torch.zeros(sae.n_features, 4, dtype=torch.float64)
    expected.index_add_(0, one.code.features, by_head_NH)
    found = torch.from_numpy(written.heads.toarray().sum(0)).view(-1, 4)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_traced_firings_foretell_ablation_and_those_of_another_feature_do_not(read):
    model, cache = read
    sae, residual = dictionary(Z, seed=3), dictionary(RESIDUAL, seed=4)
    brought_N, lost_N = tracing.tested(model, cache, sae, residual, 30)
    assert len(brought_N) == 30 * tracing.PARTS
    assert float(torch.corrcoef(torch.stack([brought_N, lost_N]))[0, 1]) > 0.7
    other_N = lost_N.roll(tracing.PARTS)
    assert float(torch.corrcoef(torch.stack([brought_N, other_N]))[0, 1]) < 0.5
    again, _ = tracing.tested(model, cache, sae, residual, 30)
    assert torch.equal(again, brought_N)


def test_a_residual_sae_is_no_place_of_heads(read):
    with pytest.raises(UsageError, match=r"train one on blocks\.N\.attn\.hook_z"):
        report.report(*read[:1], dictionary(RESIDUAL), read[1], 100)
