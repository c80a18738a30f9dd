"""The reproductions on planted dictionaries: their verdicts by hand, the whole of each small."""

import pytest

from saelab.dictionaries import truncated_em
from saelab.evaluation.alignment import Alignment
from saelab.statistics import Estimate
from training.reproduce import PAPERS, Settings, orthogonal_dictionary, prosper
from training.reproduce.prosper import Found
from training.reproduce.visual_discovery import QUICK, SAES, configs, judged


def test_the_papers_are_in_the_list():
    assert {"orthogonal-dictionary", "prosper"} <= set(PAPERS)


def test_nine_of_ten_seeds_are_enough_and_eight_are_not():
    good, bad = Found(10, 1.02, 0.99), Found(9, 0.97, 1.01)
    held = prosper.judged("bsc", [good] * 9 + [bad])
    assert [claim.holds for claim in held] == [True, True, True]
    assert held[0].ours.value == 0.9
    assert prosper.judged("bsc", [good] * 8 + [bad] * 2)[0].holds is False
    off = prosper.judged("bsc", [good._replace(pi=1.3)] * 9 + [good._replace(pi=1.2)])
    assert off[1].holds is False and off[0].holds is True
    assert [claim.holds for claim in prosper.judged("bsc", [good] * 3)] == [None] * 3


def test_the_small_forms_run(monkeypatch: pytest.MonkeyPatch):
    tiny = prosper.Size(1, 60, truncated_em.Schedule(rounds=2, starts=1))
    monkeypatch.setattr(prosper, "QUICK", tiny)
    monkeypatch.setattr(prosper, "STATES", dict.fromkeys(truncated_em.FAMILIES, (3, 2)))
    assert len(prosper.claims(Settings(quick=True))) == 9

    monkeypatch.setattr(orthogonal_dictionary, "QUICK", (2, 20_000, 300))
    monkeypatch.setattr(orthogonal_dictionary, "WIDTH", 16)
    found, gain, norm = orthogonal_dictionary.claims(Settings(quick=True))
    assert found.holds is None and (found.ours.value or 0) > 0.99 > (found.ours.null or 1) + 0.1
    assert (gain.ours.value or 0) > 0 and (norm.ours.value or 2) <= 1 + 1e-6


def test_rivals_are_judged_seed_by_seed():
    def aligned(value: float, null: float = 0.1) -> Alignment:
        stated = Estimate(value, null=null)
        return Alignment(stated, stated, stated, [])

    ours = {name: [aligned(0.5 + 0.01 * seed) for seed in range(5)] for name in SAES}
    rivals = {
        "PCA": [aligned(0.4 + 0.01 * seed) for seed in range(5)],
        "ICA": [aligned(0.6 + 0.01 * seed) for seed in range(5)],
    }
    claims = judged(ours | rivals)
    assert [claim.holds for claim in claims] == [True] * 3 + [True, False] * 3
    assert claims[3].ours.value == pytest.approx(0.1)
    few = {name: each[:4] for name, each in (ours | rivals).items()}
    assert {claim.holds for claim in judged(few)} == {None}
    mixed = judged(ours | {"PCA": rivals["PCA"], "ICA": rivals["ICA"][:2]})
    assert [claim.holds for claim in mixed[3:]] == [True, None] * 3
    assert mixed[4].ours.value == pytest.approx(-0.1)


def test_rivals_are_made_at_the_l0_of_the_saes_and_are_no_wider():
    made = configs(QUICK._replace(rivals=("pca", "k-svd", "gsc"), features=1024), "there", 256)
    assert {config.k for config in made.values()} == {QUICK.k}
    assert [*made] == ["TopK", "Matryoshka", "AbsTopK", "PCA", "K-SVD", "GSC"]
    assert (made["K-SVD"].features, made["GSC"].features) == (512, 256)
