"""Search: the ranking against an exhaustive recount and planted features; words, phrases, output
tokens and others' texts; every alphabet."""

import numpy as np
import pytest
import torch

from saelab import SAE, Choice
from saelab.errors import UsageError
from saelab.features import build, search
from saelab.features.listing import Keep
from saelab.features.reader import FeatureIndex
from tests import toy_index as toy
from tests.features.test_build import dense_activations, poles


@pytest.fixture(scope="module", params=[False, True], ids=["topk", "abstopk"])
def signed(request):
    return request.param


@pytest.fixture(scope="module")
def opened(tmp_path_factory, signed):
    path = tmp_path_factory.mktemp("search") / "features.db"
    toy.build(path, signed=signed)
    with FeatureIndex(path) as opened:
        yield opened


def recounted(token, signed):
    """(score, feature) by falling selectivity x coverage on a token, in float64, of every feature's
    better sign."""
    dense_CTF, tokens_CT = dense_activations(signed)
    there_CT = tokens_CT == token
    there_CT[:, 0] = False
    scores: dict[int, float] = {}
    for feature, _, values_CT in poles(dense_CTF.astype(np.float64), signed):
        whole = np.abs(values_CT).sum()
        on = values_CT[there_CT]
        if whole and (on != 0).any():
            score = np.abs(on).sum() / whole * (on != 0).mean()
            scores[feature] = max(score, scores.get(feature, 0.0))
    return sorted(((score, feature) for feature, score in scores.items()), reverse=True)


def exactly(text):
    """A query for the token of that text."""
    return '"' + text.replace('"', '\\"') + '"'


def first_three(opened, token):
    hits = opened.search(exactly(toy.TEXTS[token]), ["tokens"], whole=True)
    return [(hit.score, hit.feature) for hit in hits[:3]]


FREQUENT = range(1, len(toy.TEXTS))


def test_the_first_three_are_those_of_an_exhaustive_recount(opened, signed):
    for token in FREQUENT:
        expected, shown = recounted(token, signed)[:3], first_three(opened, token)
        assert [feature for _, feature in shown] == [feature for _, feature in expected]
        assert [score for score, _ in shown] == pytest.approx([score for score, _ in expected])


@pytest.mark.parametrize("factor", ["selectivity", "coverage"])
def test_the_recount_catches_a_ranking_by_one_factor(opened, signed, factor):
    differing = 0
    for token in FREQUENT:
        hits = opened.search(exactly(toy.TEXTS[token]), ["tokens"], whole=True)
        by_one = sorted(hits, key=lambda hit: -getattr(hit, factor))[:3]
        expected = [feature for _, feature in recounted(token, signed)[:3]]
        differing += [hit.feature for hit in by_one] != expected
    assert differing > len(FREQUENT) // 3


PLANTED = 20


class Planted(toy.Cache):
    """Each token's activation is its own axis; one more is always on."""

    def __init__(self):
        super().__init__()
        noise_CTD = 0.05 * torch.randn(*self.tokens.shape, len(toy.TEXTS) + 1)
        self.acts = torch.nn.functional.one_hot(self.tokens, len(toy.TEXTS) + 1) + noise_CTD
        self.acts[..., -1] = 3.0


def planted() -> SAE:
    """PLANTED features of one token each, behind as many that fire on it and on three others more
    strongly, one that fires once in a while, and one that always does."""
    width = len(toy.TEXTS) + 1
    sae = SAE(width, 2 * PLANTED + 2, Choice(6))
    rows_FD = torch.zeros(sae.n_features, width)
    for feature in range(PLANTED):
        rows_FD[feature, [(feature + 1 + 5 * n) % (width - 1) for n in range(4)]] = 2.0
        rows_FD[PLANTED + feature, feature + 1] = 1.0
    rows_FD[-1, -1] = 1.0
    rows_FD[-2, 1] = 9.0
    sae.W_enc.data, sae.b_dec.data = rows_FD, torch.zeros(width)
    sae.b_enc.data[:] = -0.5
    sae.b_enc.data[-2] = -9.8
    return sae


@pytest.fixture(scope="module")
def with_planted(tmp_path_factory):
    path = tmp_path_factory.mktemp("planted") / "features.db"
    build.build(planted(), Planted(), toy.HOOK, path, tokenizer=toy.Tokenizer())
    with FeatureIndex(path) as opened:
        yield opened


def test_a_planted_token_feature_is_first_for_its_token(with_planted):
    for feature in range(PLANTED):
        text = toy.TEXTS[feature + 1]
        hits = with_planted.search(exactly(text), ["tokens"], whole=True)
        assert hits[0].feature == PLANTED + feature
        assert hits[0].score > 0.95 > 2 * hits[1].score
        # By the activation on the token, as without the factors, the loud ones lead.
        by_total = max(
            (token.total, other)
            for other in range(with_planted.n_features)
            for token in with_planted.feature(other).by_total
            if token.text == text
        )
        assert by_total[1] != PLANTED + feature


def brute_force(opened, words):
    """Features with an example behind whose words, within BEFORE tokens, each word stands."""
    hits = set()
    for feature in range(toy.F):
        for example in opened.examples(feature):
            first = max(1, example.position - search.BEFORE)
            ends = (first, example.position + 1)
            starts = ["".join(example.texts[:end]).casefold() for end in ends]
            text = "".join(example.texts).casefold()
            spans = [[at for at in range(len(text)) if text.startswith(word, at)] for word in words]
            # A word that began before the window may reach into it.
            if all(
                any(len(starts[0]) < at + len(word) and at < len(starts[1]) for at in span)
                for word, span in zip(words, spans, strict=True)
            ):
                hits.add(feature)
    return hits


@pytest.mark.parametrize(
    "text", ["cat", "numpy", "naïve cat", "(cat x", "SCRIPT", "quoted", "zebra", "ïv", "x", "f"]
)
def test_contexts_are_those_of_brute_force(opened, text):
    hits = opened.search(text, ["contexts"])
    assert {hit.feature for hit in hits} == brute_force(opened, text.casefold().split())
    assert all(0 < hit.score <= 1 for hit in hits)


def test_the_context_checker_notices_a_narrower_window(opened, monkeypatch):
    expected = brute_force(opened, ["naïve", "cat"])
    monkeypatch.setattr(search, "BEFORE", 3)
    assert {hit.feature for hit in opened.search("naïve cat", ["contexts"])} != expected


@pytest.mark.parametrize(
    "text", ["(", "$x^2$", "`co", "<b", '"', "'; drop table token; --", "* NOT (", "\n"]
)
def test_punctuation_is_text_not_syntax(opened, text):
    words = text.split() or [text]
    expected = {t for t in toy.TEXTS[1:] if all(word.lower() in t.lower() for word in words)}
    assert set(opened.tokens(text)) - {"<s>"} == expected
    opened.search(text)


def test_quotes_keep_blanks_and_case(opened):
    assert set(opened.tokens('" n"')) == {" numpy", " naïve"}
    assert opened.tokens('"T"') == [" True"] and len(opened.tokens("T")) > 3
    assert opened.tokens('"Self"') == [] and opened.tokens("Self") == ["self"]
    assert opened.tokens("x", whole=True) == [" x"] and opened.tokens('"x"', whole=True) == []
    assert opened.tokens('" x"', whole=True) == [" x"]
    assert opened.tokens(" ") == opened.tokens('" "')


def test_output_tokens_are_searched_where_they_are_promoted(opened, signed):
    hits = opened.search("numpy", ["outputs"])
    expected = set()
    for feature in range(toy.F):
        known = opened.feature(feature)
        sides = [*known.promoted, *(known.suppressed if signed else ())]
        if any(one.text == " numpy" for one in sides):
            expected.add(feature)
    assert {hit.feature for hit in hits} == expected and expected
    for hit in hits:
        known = opened.feature(hit.feature)
        pushed = known.promoted if hit.sign > 0 else known.suppressed
        value = next(one.value for one in pushed if one.text == " numpy")
        assert hit.selectivity == pytest.approx(value / pushed[0].value, rel=1e-5)
    assert max(hit.coverage for hit in hits) == 1.0


def test_others_texts_are_searched_beside(opened):
    texts = {"labels": {3: "Numpy", 7: "imports of numpy", 9: "cats"}}
    hits = opened.search("numpy", ["labels"], texts=texts)
    assert [(hit.feature, hit.score) for hit in hits] == [(3, 1.0), (7, 5 / 16)]
    assert opened.search("numpy", texts=texts)[0].feature == 3
    assert [hit.feature for hit in opened.search("nump", ["labels"], texts=texts)] == [3, 7]
    kept = opened.search("numpy", texts=texts, keep=Keep(numbers=[7]))
    assert [hit.feature for hit in kept] == [7]
    assert opened.search("", texts=texts) == []
    with pytest.raises(UsageError, match=r"no place 'label' .* tokens, contexts, outputs, labels"):
        opened.search("numpy", ["label"], texts=texts)


def test_the_commonest_contexts_are_looked_at_evenly(opened, monkeypatch):
    monkeypatch.setattr(search, "CONTEXTS", 10)
    assert opened.search("cat", ["contexts"])
    assert search._spread([*range(100)], 4) == [0, 25, 50, 75]
