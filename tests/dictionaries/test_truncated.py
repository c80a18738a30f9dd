"""Probabilistic sparse coding: the truncated posterior against the enumeration of every state, and
bars that it must find again."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from saelab.dictionaries import bars, truncated, truncated_em
from saelab.dictionaries.truncated import Prior

H, D = 4, 6


def model(family: str, *, candidates: int = H, active: int = H) -> tuple[torch.Tensor, Prior]:
    random = torch.Generator().manual_seed(3)
    row = truncated_em.FAMILIES[family]
    W_HD = torch.randn(H, D, generator=random, dtype=torch.float64)
    one, none = (1.0,) * H, (0.0,) * H
    mean, variance = (
        ((0.3, -0.5, 1.0, 0.1), (0.5, 1.0, 0.2, 2.0))
        if row.gaussian
        else (
            one,
            none,
        )
    )
    pi = (0.1, 0.4, 0.3, 0.2)
    return W_HD, Prior(row.signs, pi, mean, variance, 0.6, candidates, active)


def enumerated(x_D: torch.Tensor, W_HD: torch.Tensor, prior: Prior) -> tuple:
    """(log evidence, mean [H], second moment [H, H], most probable support) from every state in
    turn, by the formula of a Gaussian with the state's mean and covariance."""
    logs, means, seconds, supports = [], [], [], []
    for support in itertools.product((0, *prior.signs), repeat=len(W_HD)):
        v_H = torch.tensor(support, dtype=torch.float64)
        start_H = v_H * torch.tensor(prior.mean, dtype=torch.float64)
        spread_HH = torch.diag(v_H.abs() * torch.tensor(prior.variance, dtype=torch.float64))
        covariance_DD = prior.noise**2 * torch.eye(D).double() + W_HD.T @ spread_HH @ W_HD
        log = sum(
            math.log(p / len(prior.signs)) if v else math.log(1 - p)
            for v, p in zip(support, prior.pi, strict=True)
        )
        normal = torch.distributions.MultivariateNormal(start_H @ W_HD, covariance_DD)
        gain_HD = spread_HH @ W_HD @ torch.linalg.inv(covariance_DD)
        value_H = start_H + gain_HD @ (x_D - start_H @ W_HD)
        logs.append(log + float(normal.log_prob(x_D)))
        means.append(value_H)
        seconds.append(torch.outer(value_H, value_H) + spread_HH - gain_HD @ W_HD.T @ spread_HH)
        supports.append(support)
    log_S = torch.tensor(logs, dtype=torch.float64)
    weight_S = (log_S - log_S.logsumexp(0)).exp()
    mean_H = (weight_S[:, None] * torch.stack(means)).sum(0)
    second_HH = (weight_S[:, None, None] * torch.stack(seconds)).sum(0)
    best = int(log_S.argmax())
    return float(log_S.logsumexp(0)), mean_H, second_HH, means[best] * (log_S[best] > -math.inf)


@pytest.mark.parametrize("family", truncated_em.FAMILIES)
def test_without_truncation_it_is_the_enumeration_of_every_state(family: str):
    W_HD, prior = model(family)
    x_ND = 2 * torch.randn(3, D, generator=torch.Generator().manual_seed(4)).double()
    moments = truncated.moments(truncated.states(x_ND, W_HD, prior))
    code_NH = truncated.mode(x_ND, W_HD, prior).to_dense()
    truth = [enumerated(x_D, W_HD, prior) for x_D in x_ND]
    for n, (evidence, mean_H, _, mode_H) in enumerate(truth):
        assert float(moments.evidence[n]) == pytest.approx(evidence, abs=1e-10)
        assert torch.allclose(moments.mean[n], mean_H, rtol=0, atol=1e-10)
        assert torch.allclose(code_NH[n], mode_H, rtol=0, atol=1e-10)
    second_HH = torch.stack([second for _, _, second, _ in truth]).sum(0)
    assert torch.allclose(moments.second, second_HH, rtol=0, atol=1e-10)

    # Truncated to pairs of three candidates it is another posterior, and of less evidence.
    few = replace(prior, candidates=3, active=2)
    less = truncated.moments(truncated.states(x_ND, W_HD, few))
    assert bool((less.evidence < moments.evidence - 1e-6).any())
    assert bool((less.evidence <= moments.evidence + 1e-12).all())


def found(bars_: bars.Bars, W_HD: torch.Tensor) -> int:
    """Bars that a row of its own points along."""
    true_HD = torch.nn.functional.normalize(bars_.W, dim=1)
    cosine_HH = (true_HD @ W_HD.T).abs()
    return len({int(row.argmax()) for row in cosine_HH if float(row.max()) > 0.95})


@pytest.mark.parametrize("family", truncated_em.FAMILIES)
def test_bars_are_found_with_their_prior(family: str):
    drawn = bars.draw(family, n=300, side=3, seed=1)
    schedule = truncated_em.Schedule(rounds=30, starts=2)
    learned = truncated_em.learn(drawn.x, family, 6, candidates=6, active=3, schedule=schedule)
    assert found(drawn, learned.W) == 6
    density = float((drawn.values != 0).double().mean())
    assert sum(learned.prior.pi) / 6 == pytest.approx(density, rel=0.1)
    assert learned.prior.noise == pytest.approx(2.0, rel=0.1)
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(learned.evidence))

    # Bars whose light ones alone can be told: the wrong family finds no ternary bars.
    if family == "tsc":
        wrong = truncated_em.learn(drawn.x, "bsc", 6, candidates=6, active=3, schedule=schedule)
        assert wrong.prior.noise > 3


@pytest.mark.parametrize("family", truncated_em.FAMILIES)
def test_learning_stays_at_the_truth(family: str):
    """What moves away from it in other starts is a local optimum, not the rule's doing."""
    drawn = bars.draw(family, n=500, side=2, seed=2)
    row, density = truncated_em.FAMILIES[family], float((drawn.values != 0).double().mean())
    fixed = ((0.0,) * 4, (1.0,) * 4) if row.gaussian else ((1.0,) * 4, (0.0,) * 4)

    def pi(temperature: float) -> float:
        W_HD, prior = drawn.W, Prior(row.signs, (0.2,) * 4, *fixed, 2.0, 4, 4)
        for _ in range(8):
            W_HD, prior, _ = truncated_em._round(drawn.x, W_HD, prior, row, temperature)
        return sum(prior.pi) / 4

    assert pi(1.0) == pytest.approx(density, rel=0.1)
    # Posteriors that are not what the model says drift.
    assert pi(4.0) != pytest.approx(density, rel=0.1)
