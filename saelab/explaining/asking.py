"""Asking a language model for explanations, and which held-out windows they foretell."""

import json
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from saelab.errors import FailedRun
from saelab.explaining import windows
from saelab.explaining.corpus import Corpus, Firings
from saelab.explaining.endpoint import Endpoint
from saelab.explaining.records import Explanation
from saelab.explaining.windows import Windows
from saelab.spelling import Piece
from saelab.statistics import Estimate

T = TypeVar("T")
LONGEST = 300  # characters of an explanation
REPLIES = 2  # times a question is put whose reply cannot be used
EXPLAIN = (
    "A feature of a language model fires on some tokens of texts. You are given excerpts in which "
    "it fires; the tokens on which it fires stand between << and >>. Say in at most 20 words what "
    "they have in common: the token itself, what stands before it, or what the text is about. "
    "Answer with that phrase alone."
)
DETECT = (
    "A feature of a language model fires on what is described below. You are given numbered "
    "excerpts. Answer with a JSON list of the numbers of those in which it fires, such as [1, 4], "
    "and nothing else; [] if it fires in none."
)


class Asked(NamedTuple):
    """What came of asking."""

    by_feature: dict[int, Explanation]
    unanswered: dict[int, str]
    """why, of features whose replies could not be used"""


class Unusable(Exception):
    """A reply that is not what was asked for."""


def explain(
    endpoint: Endpoint, corpus: Corpus, firings: Firings, pieces: Sequence[Piece], unit: int
) -> str:
    """The model's words for what a unit fires on, from training windows. Raises Unusable where two
    replies cannot be used, FailedRun where none comes."""
    shown = windows.examples(corpus, firings, unit)
    marked_M = np.zeros(corpus.tokens.size, bool)
    marked_M[firings.place[firings.unit == unit]] = True
    excerpts = windows.texts(corpus, shown, pieces, marked_M)
    question = "\n\n".join(f"Excerpt {n}:\n{text}" for n, text in enumerate(excerpts, start=1))
    return _put(endpoint, EXPLAIN, question, phrase)


def detect(endpoint: Endpoint, text: str, excerpts: Sequence[str]) -> np.ndarray:
    """[W] bool: the excerpts in which the model expects what a text describes. Raises as
    `explain`."""
    listed = "\n\n".join(f"Excerpt {n}:\n{one}" for n, one in enumerate(excerpts, start=1))
    question = f"The feature fires on: {text}\n\n{listed}"
    chosen = _put(endpoint, DETECT, question, lambda reply: numbers(reply, len(excerpts)))
    told_W = np.zeros(len(excerpts), bool)
    told_W[[number - 1 for number in chosen]] = True
    return told_W


def _put(endpoint: Endpoint, system: str, question: str, read: Callable[[str], T]) -> T:
    """The reply, read; a question whose reply cannot be used is put REPLIES times."""
    for _ in range(REPLIES - 1):
        try:
            return read(endpoint.ask(system, question))
        except Unusable:
            pass
    return read(endpoint.ask(system, question))


def phrase(reply: str) -> str:
    """The explanation in a reply: one line, without what models put around it.

    >>> phrase('  "closing brackets."  ')
    'closing brackets'
    """
    line = " ".join(reply.split()).strip("\"'` .")
    if not line:
        raise Unusable("an empty explanation")
    return line[:LONGEST]


def numbers(reply: str, most: int) -> list[int]:
    """The numbers that a reply lists. Raises Unusable for one without a list, or with what is none
    of the numbers from 1 to `most`.

    >>> numbers("They are [1, 3].", 4)
    [1, 3]
    """
    found = re.search(r"\[[^\[\]]*\]", reply)
    try:
        listed = json.loads(found[0]) if found else None
    except ValueError:
        listed = None
    if listed is None:
        raise Unusable(f"no JSON list, but {reply[:60]!r}")
    if any(type(number) is not int or not 1 <= number <= most for number in listed):
        raise Unusable(f"numbers from 1 to {most} were asked for, it says {str(listed)[:60]}")
    return sorted(set(listed))


def ask(
    endpoint: Endpoint,
    units: dict[int, int],
    corpus: Corpus,
    firings: Firings,
    pieces: Sequence[Piece],
    told: Callable[[int], np.ndarray],
    *,
    seed: int = 0,
    keep: Callable[[int, Explanation], object] = lambda feature, one: None,
    progress: Callable[[int], object] = lambda n: None,
) -> Asked:
    """Explanations of features, each scored by the model on held-out windows.

    units: the unit of each feature. told: [M] where a unit's best single token stands, to compare
    with. keep: called with each as soon as it is there. progress: with the number of features done.
    Every feature is also tried with the explanation of the one before it, which is the null.

    Raises FailedRun where the endpoint gives no answer; replies that cannot be used are told in
    `unanswered`, and the rest goes on.
    """
    by_feature: dict[int, Explanation] = {}
    unanswered: dict[int, str] = {}
    texts = {}
    for feature, unit in units.items():
        try:
            texts[feature] = explain(endpoint, corpus, firings, pieces, unit)
        except Unusable as why:
            unanswered[feature] = f"explanation: {why}"
    described = list(texts)
    for place, feature in enumerate(described):
        other = texts[described[place - 1]] if len(described) > 1 else None
        unit = units[feature]
        one = Explanation(texts[feature], Estimate(None), method=endpoint.model)
        shown = windows.held_out(corpus, firings, unit, seed=seed)
        excerpts = windows.texts(corpus, shown, pieces)
        try:
            if shown.fires.any():
                one = _scored(endpoint, one, other, shown, excerpts, told(unit), seed)
        except Unusable as why:
            unanswered[feature] = f"detection: {why}"
        by_feature[feature] = one
        keep(feature, one)
        progress(place + 1)
    return Asked(by_feature, unanswered)


def _scored(
    endpoint: Endpoint,
    one: Explanation,
    other: str | None,
    shown: Windows,
    excerpts: list[str],
    token_M: np.ndarray,
    seed: int,
) -> Explanation:
    """An explanation with its score, that of another's words, and that of the best token, all on
    the same windows."""
    told_W = detect(endpoint, one.text, excerpts)
    null = None
    if other is not None:
        null = windows.score(detect(endpoint, other, excerpts), shown, seed).value
    token = windows.score(windows.told_by(token_M, shown), shown, seed)
    right = int((told_W & shown.fires).sum())
    return one._replace(
        score=windows.score(told_W, shown, seed)._replace(null=null),
        token=token._replace(null=null),
        recall=right / int(shown.fires.sum()),
        precision=right / int(told_W.sum()) if told_W.any() else None,
        firings=int(shown.fires.sum()),
    )


def check(answer: Asked, url: str) -> None:
    """Raise FailedRun where no reply at all could be used."""
    if answer.unanswered and not answer.by_feature:
        feature, why = next(iter(answer.unanswered.items()))
        raise FailedRun(f"no reply of {url} could be used; of feature {feature}: {why}")
