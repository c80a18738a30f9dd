"""Rules against planted truths, and scores against counting token by token."""

import random
from types import SimpleNamespace

import numpy as np
import pytest

from saelab.explaining import choosing, detection, kinds, rules
from saelab.explaining.corpus import CHOOSE, FIND, HELD_OUT, Firings
from saelab.explaining.explain import NO_RULE, explained
from tests.explaining import planted
from tests.explaining.planted import WORDS, T


def token_is(*words):
    return lambda texts, at: texts[at] in words


def test_the_signs_of_a_signed_feature_are_explained_apart():
    read = planted.corpus()
    fires = planted.firings(read, [token_is("self"), token_is("None", "def")])
    (one,) = explained(read, fires, planted.families(read), signed=True).by_feature.values()
    assert one.text == '−: on "def" or "None"' and one.score.value == 1.0
    assert one.opposite is not None
    assert (one.opposite.text, one.opposite.score.value) == ('+: on "self"', 1.0)


def in_comment(texts, at):
    """Read character by character: a # outside of double quotes, up to the line's end."""
    line = "".join(texts[1:at]).rpartition("\n")[2]
    quoted = False
    for character in line:
        if character == "#" and not quoted:
            return True
        quoted ^= character == '"'
    return not quoted and texts[at] == "#"


NEXT = WORDS.index(" cat")
PLANTED = [
    ("token", 'on "self"', token_is("self")),
    ("token", 'on " x", " y" or " ="', token_is(" x", " y", " =")),
    (
        "bigram",
        'at the end of "self."',
        lambda texts, at: texts[at - 1 : at + 1] == ["self", "."],
    ),
    ("previous token", 'after "def"', lambda texts, at: texts[at - 1] == "def"),
    (
        "token before the previous",
        'two tokens after "def"',
        lambda texts, at: at > 1 and texts[at - 2] == "def",
    ),
    ("position", "at position 17 of the context", lambda texts, at: at == 17),
    ("position", "at positions 1 to 5 of the context", lambda texts, at: at <= 5),
    ("kind", "on digits", token_is("7", "42", "2026")),
    (
        "place in line",
        "at token 1 of a line",
        lambda texts, at: "\n" in texts[at - 1],
    ),
    (
        "output token",
        'before " cat", which it promotes',
        lambda texts, at: at + 1 < T and texts[at + 1] == " cat",
    ),
]


def explain(rules_, promoted=True, seed=0):
    read = planted.corpus(seed)
    fires = planted.firings(read, rules_)
    promoted_UJ = np.full((len(rules_), 1), NEXT) if promoted else None
    return explained(read, fires, planted.families(read, promoted_UJ)), read, fires


@pytest.fixture(scope="module")
def truths():
    return explain([rule for *_, rule in PLANTED])[0].by_feature


@pytest.mark.parametrize("unit", range(len(PLANTED)))
def test_a_planted_rule_is_found_and_tells_every_firing(truths, unit):
    kind, text, _ = PLANTED[unit]
    one = truths[unit]
    assert (one.kind, one.text) == (kind, text)
    assert (one.score.value, one.recall, one.precision) == (1.0, 1.0, 1.0)
    assert one.score.low == one.score.high == 1.0
    assert one.score.null is not None and one.score.null < 0.8


def test_a_comment_is_found_as_the_tokenizer_of_python_would():
    (one,) = explain([in_comment])[0].by_feature.values()
    assert one.kind == "region" and one.text == "in a comment"
    assert one.score.value is not None and one.score.value > 0.95


def at_random(seed):
    rng = random.Random(seed)
    return lambda texts, at: rng.random() < 0.004


N_RANDOM = 40


@pytest.fixture(scope="module")
def noise():
    return explain([at_random(seed) for seed in range(N_RANDOM)], promoted=False)


def test_what_fires_at_random_is_told_no_better_than_by_chance(noise):
    mean = noise[0].means["rule"]
    assert mean.low < 0.5 + 0.01 and 0.48 < mean.value < 0.52
    assert sum(one.score.above(0.5) for one in noise[0].by_feature.values()) < 0.15 * N_RANDOM


def test_scoring_where_rules_were_found_is_caught(noise):
    _, read, fires = noise
    chosen, _ = choosing.choose(planted.families(read), read, fires)

    def mean(*parts):
        known = detection.truth(read, fires, *parts)
        told = detection.tell(chosen, known)
        return np.nanmean(detection.balanced(*detection.totals(told, known), known.seen.sum()))

    assert mean(FIND, CHOOSE) > 0.55  # the twin: what is found in noise tells that noise
    assert abs(mean(HELD_OUT) - 0.5) < 0.02


def test_scores_are_those_of_counting_token_by_token():
    """Two features of which no rule tells all, and the same score from sets of places."""
    tokens = [token_is("self", "("), lambda texts, at: texts[at] == "self" and at % 2 == 0]
    result, read, fires = explain(tokens)
    held = {int(place) for place in np.flatnonzero(read.places(HELD_OUT))}
    for unit, told in ((0, {"self", "("}), (1, {"self"})):
        flat = read.tokens.reshape(-1)
        says = {place for place in held if WORDS[flat[place]] in told}
        fired = {int(p) for u, p in zip(fires.unit, fires.place, strict=True) if u == unit} & held
        recall = len(says & fired) / len(fired)
        alarms = len(says - fired) / (len(held) - len(fired))
        one = result.by_feature[unit]
        assert one.score.value == pytest.approx((recall + 1 - alarms) / 2, abs=1e-12)
        assert one.recall == pytest.approx(recall)
        assert one.precision == pytest.approx(len(says & fired) / len(says))
        assert one.firings == len(fired)


def test_the_null_is_what_the_other_features_rules_give():
    """Of three features every other one's rule is tried: their mean, from sets of places."""
    words = ["self", "(", "def"]
    result, read, _ = explain([token_is(word) for word in words], promoted=False)
    flat, held = read.tokens.reshape(-1), np.flatnonzero(read.places(HELD_OUT))
    stands = {word: {int(p) for p in held if WORDS[flat[p]] == word} for word in words}
    for unit, word in enumerate(words):
        others = []
        for other in words:
            recall = len(stands[word] & stands[other]) / len(stands[word])
            alarms = len(stands[other] - stands[word]) / (len(held) - len(stands[word]))
            others += [(recall + 1 - alarms) / 2] if other != word else []
        assert result.by_feature[unit].score.null == pytest.approx(np.mean(others), abs=1e-12)
    scores = [one.score.value for one in result.by_feature.values()]
    assert result.means["rule"].value == pytest.approx(np.mean(scores))
    # The twin that tries a feature's own rule too would not be far from its score.
    assert all(one.score.null < 0.5 for one in result.by_feature.values())


def test_the_interval_is_over_documents():
    """By hand: what is told rightly in two of four documents and never in the others."""
    right, told, fired, seen = (
        np.array(x) for x in ([2, 2, 0, 0], [2, 2, 0, 0], [2] * 4, [10] * 4)
    )
    import scipy.sparse

    sums = detection.Told(*(scipy.sparse.csr_array(part[None]) for part in (told, right)))
    known = SimpleNamespace(fired=scipy.sparse.csr_array(fired[None]), seen=seen)
    scored = detection.score(sums, sums, known, np.array([0.5]))
    assert scored.score[0].value == 0.75
    # Resamples of four documents hold 0 to 4 of the two good ones: 0.5 to 1, with few at the ends.
    assert (scored.score[0].low, scored.score[0].high) == (0.5, 1.0)
    assert tuple(scored.gain[0][:3]) == (0.0, 0.0, 0.0)


def test_what_fires_in_one_document_has_no_interval():
    read = planted.corpus()
    fires = planted.firings(read, [token_is("self")])
    document_N = read.documents.reshape(-1)[fires.place]
    fires = Firings(*(column[document_N <= 8] for column in fires[:3]), 1)
    one = explained(read, fires, planted.families(read)).by_feature[0]
    assert one.score.value is not None and one.score.low is None


def test_a_feature_that_never_fires_held_out_has_no_score_and_one_without_rule_says_so():
    read = planted.corpus()
    fires = planted.firings(read, [token_is("self"), token_is("self")])
    train_N = read.part[fires.place // T] != HELD_OUT
    once = np.flatnonzero(train_N & (fires.unit == 1))[:1]
    kept = np.sort(np.concatenate([np.flatnonzero(train_N & (fires.unit == 0)), once]))
    fires = Firings(*(column[kept] for column in fires[:3]), 3)
    result = explained(read, fires, planted.families(read))
    assert set(result.by_feature) == {0, 1}  # the third is dead
    assert result.by_feature[0].score.value is None and result.unseen == 2
    assert result.by_feature[1].text == NO_RULE and result.without == 1
    signed = explained(read, fires._replace(n_units=4), planted.families(read), signed=True)
    assert signed.without == 0  # its more frequent sign has one
    opposite = signed.by_feature[0].opposite
    assert opposite is not None and opposite.text == f"−: {NO_RULE}"


def test_the_largest_run_is_that_of_trying_all():
    gains = np.random.default_rng(0).normal(size=(20, 9))
    low, high, best = rules.largest_runs(gains)
    for row, first, last, sum_ in zip(gains, low, high, best, strict=True):
        tried = max(row[i:j].sum() for i in range(9) for j in range(i + 1, 10))
        assert sum_ == pytest.approx(tried) and row[first:last].sum() == pytest.approx(tried)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (" Self", "capitalised words"),
        ("A", "capitalised words"),
        (" HTTP", "upper-case words"),
        ("camelCase", "mixed-case words"),
        ("x1", "words with digits or underscores"),
        ("_", "words with digits or underscores"),
        ("12", "digits"),
        ("\n   ", "line breaks"),
        ("\t", "blanks"),
        ("):", "other punctuation"),
        ("])", "closing brackets"),
        ("+=", "operators"),
        ("'''", "quotation marks"),
        ("日本", "text outside ASCII"),
        (".x", "mixtures of letters and signs"),
    ],
)
def test_kinds_of_tokens(text, kind):
    assert kinds.KINDS[kinds.kind(text)] == kind


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("x = 1  # it's", "#"),
        ("# a\nx", ""),
        ("'a\\'b", "'"),
        ('"""a"b\n', '"""'),
        ("'# no comment'", ""),
        ("'open\n", ""),
    ],
)
def test_where_strings_and_comments_end(text, state):
    assert kinds.walk(text, "") == state
