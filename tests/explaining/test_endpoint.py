"""Explanations asked of a local stand-in server: scored as they deserve; one that hangs, lies or
turns questions away is told, in bounded time."""

import json
import time

import numpy as np
import pytest

from saelab.errors import FailedRun, UsageError
from saelab.explaining import asking, endpoint, explain, windows
from saelab.explaining.corpus import HELD_OUT
from saelab.explaining.endpoint import Endpoint
from tests.explaining import planted, stand_in
from tests.explaining.planted import WORDS, T


@pytest.fixture
def server():
    with stand_in.serving() as one:
        yield one


@pytest.fixture(scope="module")
def world():
    """Three features: of two tokens, and one at random."""
    rng = np.random.default_rng(0)
    rules = [
        lambda texts, at: texts[at] == "None",
        lambda texts, at: texts[at] == "foo_bar",
        lambda texts, at: rng.random() < 0.01,
    ]
    read = planted.corpus()
    return read, planted.firings(read, rules)


def ask(server, world, units=(0, 1, 2), **options):
    read, fires = world
    asked = Endpoint(server.url, "stand-in", timeout=5.0, wait=lambda seconds: None)
    told = explain.of_tokens(read, fires, planted.families(read))
    return asking.ask(asked, {n: n for n in units}, read, fires, WORDS, told, **options)


def test_words_that_tell_score_one_and_those_of_another_feature_do_not(server, world):
    kept = []
    answer = ask(server, world, keep=lambda n, one: kept.append(n))
    assert kept == [0, 1, 2] and answer.unanswered == {}
    token = answer.by_feature[0]
    assert (token.text, token.method, token.score.value) == ("None", "stand-in", 1.0)
    assert (token.recall, token.precision, token.score.low) == (1.0, 1.0, 1.0)
    assert token.token.value == 1.0
    assert token.score.null is not None and token.score.null < 0.8
    noise = answer.by_feature[2].score
    assert noise.value is not None and noise.low is not None
    assert 0.1 < noise.value < 0.9


def test_the_model_is_asked_about_training_texts_and_scored_on_held_out_ones(server, world):
    read, fires = world
    ask(server, world, units=[0])
    first, second = (body["messages"][1]["content"] for body in server.asked)
    train = windows.examples(read, fires, 0)
    held = windows.held_out(read, fires, 0)
    assert (read.part[train.first // T] != HELD_OUT).all()
    assert (read.part[held.first // T] == HELD_OUT).all()
    assert all(text in second for text in windows.texts(read, held, WORDS))
    assert "<<None>>" in first and "<<" not in second
    assert held.fires.sum() == 10 == (~held.fires).sum()
    body = server.asked[0]
    assert (body["model"], body["path"]) == ("stand-in", "/v1/chat/completions")


def test_windows_are_those_of_counting_place_by_place(world):
    read, fires = world
    held = windows.held_out(read, fires, 1, n=1000)
    places = set(fires.place[fires.unit == 1].tolist())
    for first, last, on in zip(held.first, held.last, held.fires, strict=True):
        assert first // T == (last - 1) // T and last - first in (32, 8)
        assert on == any(place in places for place in range(first, last))


def test_a_key_is_sent_only_where_there_is_one(server):
    Endpoint(server.url, "m", key="secret").ask("a", "<<b>>")
    Endpoint(server.url, "m").ask("a", "<<b>>")
    assert server.keys == ["Bearer secret", None]


def test_what_is_turned_away_for_now_is_asked_again_a_few_times(server):
    waits = []
    one = Endpoint(server.url, "m", wait=waits.append)
    server.statuses = [429, 500, 503]
    assert one.ask("a", "<<b>>") == '"b".'
    assert waits == [1.0, 2.0, 4.0]
    server.statuses, server.headers = [429], {"Retry-After": "7"}
    one.ask("a", "<<b>>")
    assert waits[3:] == [7.0]
    server.statuses, server.headers = [500] * 9, {"Retry-After": "9999"}
    with pytest.raises(FailedRun, match=r"answered 500 .*, 4 times: try later"):
        one.ask("a", "<<b>>")
    assert max(waits) == endpoint.LONGEST_WAIT and len(server.statuses) == 5


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (401, r"answered 401 .*it wants another key"),
        (404, r"answered 404"),
        (307, r"answered 307 .*which is not followed"),
    ],
)
def test_what_is_refused_is_asked_once(server, status, why):
    server.statuses, server.headers = [status], {"Location": "http://127.0.0.1:9/v1"}
    with pytest.raises(FailedRun, match=why):
        Endpoint(server.url, "m", key="secret").ask("a", "<<b>>")
    assert len(server.asked) == 1


@pytest.mark.parametrize("way", ["hang", "drip"])
def test_a_server_that_hangs_or_drips_is_left_in_time(server, way):
    setattr(server, way, 0.6 if way == "hang" else 0.05)
    started = time.monotonic()
    with pytest.raises(FailedRun, match=r"did not answer within 0.3 s: --timeout gives it longer"):
        Endpoint(server.url, "m", timeout=0.3).ask("a", "<<b>>")
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"<html>proxy</html>", "no chat completion .*<html>proxy"),
        (b'{"choices": []}', "no chat completion"),
        (b'{"choices": [{"message": {"content": null}}]}', "a NoneType instead of a text"),
        (b"[" * 5_000_000, "more than 4,000,000 bytes"),
        (b"[" * 100_000, "no chat completion"),
    ],
)
def test_an_answer_of_another_form_is_told(server, raw, why):
    server.raw = raw
    with pytest.raises(FailedRun, match=why):
        Endpoint(server.url, "m").ask("a", "<<b>>")


def test_nobody_there_is_told():
    with stand_in.serving() as gone:
        url = gone.url
    with pytest.raises(FailedRun, match=r"could not be reached \(.*refused.*\), 4 times"):
        Endpoint(url, "m", wait=lambda seconds: None).ask("a", "b")


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("I think all of them", "detection: no JSON list, but 'I think all"),
        ("[1, 2", "detection: no JSON list"),
        ("[99]", "detection: numbers from 1 to 20 were asked for, it says [99]"),
        ("[0]", "numbers from 1 to 20"),
        ("[1.5]", "numbers from 1 to 20"),
        ('["one"]', "numbers from 1 to 20"),
        ("[true]", "numbers from 1 to 20"),
    ],
)
def test_a_lie_leaves_the_feature_without_score_and_the_rest_goes_on(server, world, reply, why):
    lies = []

    def lying(system, question):
        if "JSON list" in system and "fires on: None" in question and len(lies) < 2:
            lies.append(question)
            return reply
        return stand_in.honest(system, question)

    server.answer = lying
    answer = ask(server, world, units=[0, 1])
    assert why in answer.unanswered[0]
    assert answer.by_feature[0].score.value is None and answer.by_feature[0].text == "None"
    assert answer.by_feature[1].score.value == 1.0
    assert len(lies) == 2  # put twice


def test_a_lie_that_is_not_repeated_is_forgiven_and_an_empty_explanation_is_not(server, world):
    replies = iter(["", "   ", "."])
    server.answer = lambda *texts: next(replies, None) or stand_in.honest(*texts)
    answer = ask(server, world, units=[0])
    assert answer.by_feature[0].text == "None"
    server.answer = lambda *texts: '"."'
    answer = ask(server, world, units=[0, 1])
    assert answer.unanswered == {n: "explanation: an empty explanation" for n in (0, 1)}
    with pytest.raises(FailedRun, match="no reply of http://x could be used; of feature 0"):
        asking.check(answer, "http://x")


def test_always_the_same_answer_scores_one_half(server, world):
    """What tells nothing, a constant, gets no credit from the balance."""
    answers = {True: json.dumps([*range(1, 21)]), False: "[]"}
    for everything, reply in answers.items():
        server.answer = lambda s, q, reply=reply: reply if "JSON list" in s else "words"
        assert ask(server, world, units=[0]).by_feature[0].score.value == 0.5, everything


@pytest.mark.parametrize("url", ["file:///etc/passwd", "127.0.0.1:8000", "ftp://a/b", "http://"])
def test_an_address_that_cannot_be_asked_is_refused(url):
    with pytest.raises(UsageError, match="give an address such as"):
        Endpoint(url, "m").check()
