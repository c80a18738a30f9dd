"""What a loaded run says of texts, remembered for all sessions: each answer is computed once.
Imports no Streamlit. Every function takes the key of `model.Loading`, and raises UsageError for
what a text or a name cannot be.
"""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, NamedTuple, ParamSpec, TypeVar

from saelab.errors import UsageError
from saelab.features.reader import FeatureIndex

from . import model
from .model import Key

if TYPE_CHECKING:
    from saelab.analysis.prompts import Attribution, By, Comparison, ErrorSplit, Estimated, Exact
    from saelab.prompting import Reading, Steering

ANSWERS = 64  # of a run
P = ParamSpec("P")
T = TypeVar("T")


class Likely(NamedTuple):
    """A token that may come next."""

    id: int
    text: str
    chance: float
    """the model's probability"""


class Steps(NamedTuple):
    """How a text is steered."""

    edits: tuple[tuple[int, str, float], ...]
    """feature, mode, value"""
    new: int = 30
    temperature: float = 0.0
    loss_tokens: int = 0


class Attention(NamedTuple):
    """What the heads of a layer attend to."""

    texts: tuple[str, ...]
    """[T] the tokens, as they read"""
    shares: list[list[list[float]]]
    """[H][T][T] of a head's attention, from each position (row) to those up to it"""


def remembered(
    function: Callable[Concatenate[Key, P], T],
) -> Callable[Concatenate[Key, P], T]:
    """Each answer is kept beside the run that gave it, and goes when that goes."""

    @wraps(function)
    def ask(key: Key, *args: P.args, **options: P.kwargs) -> T:
        answers = model.answers(key)
        name = (function.__name__, args, *options.items())
        if name not in answers:
            answers[name] = function(key, *args, **options)
        while len(answers) > ANSWERS:
            answers.popitem(last=False)
        return answers[name]

    return ask


@remembered
def reading(key: Key, text: str, estimate: "Estimated" = "gradient") -> "Reading":
    """The features of a text; their effects by the estimate that costs least, or by another."""
    from saelab import prompting

    with model.alone():
        return prompting.read(model.at(key), text, estimate=estimate)


def trace(key: Key, text: str, feature: int) -> list[float]:
    """[T]: a feature's value on every token of a text."""
    from saelab.analysis import prompts

    read = reading(key, text)
    return prompts.traces(read.table, [feature], len(read.prompt.texts))[0].tolist()


@remembered
def exact(key: Key, text: str, estimate: "Estimated") -> "Exact":
    """The ten pairs of largest estimated effect, ablated."""
    from saelab.analysis import prompts

    read = reading(key, text, estimate)
    with model.alone():
        return prompts.exact(model.at(key).model, read.read, read.table)


@remembered
def likely(key: Key, text: str, n: int = 8) -> tuple[Likely, ...]:
    """The n most probable next tokens."""
    from saelab.analysis.prompts.text import spelled
    from saelab.models import running

    read, bench = reading(key, text), model.at(key)
    with model.alone():
        logits_V = running.logits(bench.model, read.prompt.tokens[None], last=True)[0].detach()
    chance_V = logits_V.float().softmax(-1)
    best = chance_V.topk(min(n, len(chance_V)))
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return tuple(Likely(one, spelled(bench.model, [one])[0], chance) for one, chance in rows)


@remembered
def attribution(
    key: Key, text: str, token: str | int, against: str | int | None, frozen: bool
) -> "Attribution":
    """Where the logit of a next token comes from: an id, or a text that is one token there."""
    from saelab import prompting

    read = reading(key, text)
    with model.alone():
        return prompting.attribute(model.at(key), read, token, against, frozen)


def error_split(key: Key, text: str) -> "ErrorSplit":
    """Each token's error in two parts."""
    from saelab import prompting

    return prompting.error_split(model.at(key), reading(key, text))


def comparison(
    key: Key, text: str, other: str, by: "By", estimate: "Estimated"
) -> "tuple[Comparison, int]":
    """Features of which one of two texts has more, and the first position at which they differ."""
    from saelab.analysis import prompts
    from saelab.analysis.prompts.comparing import differing

    one, two = reading(key, text, estimate), reading(key, other, estimate)
    first = differing(one.prompt.tokens.tolist(), two.prompt.tokens.tolist())
    return prompts.compare(one.table, two.table, by), first


@remembered
def steering(key: Key, text: str, steps: Steps) -> "Steering":
    """A text continued with features edited."""
    from saelab import prompting
    from saelab.analysis.steering import Edit

    edits = [Edit(feature, mode, value) for feature, mode, value in steps.edits]  # type: ignore[arg-type]
    options = {"n": steps.new, "temperature": steps.temperature}
    with model.alone():
        return prompting.steer(model.at(key), text, edits, **options, loss_tokens=steps.loss_tokens)


@remembered
def attention(key: Key, text: str, layer: int) -> Attention:
    """What the heads of a layer attend to on a text."""
    from saelab import prompting
    from saelab.analysis.attention import kinds

    bench = model.at(key)
    if layer >= bench.model.cfg.n_layers:
        raise UsageError(f"no layer {layer}: this model has {bench.model.cfg.n_layers}")
    prompt = prompting.prompt(bench, text)
    with model.alone():
        pattern_HTT = kinds.patterns(bench.model, prompt.tokens[None], layer)[0]
    return Attention(tuple(prompt.texts), pattern_HTT.tolist())


def room(key: Key, text: str) -> int:
    """How many tokens the model's context has room for behind a text."""
    return model.at(key).model.cfg.n_ctx - len(reading(key, text).prompt.tokens)


def written(key: Key, ids: list[int]) -> str:
    """What new tokens read."""
    from saelab.analysis.prompts.text import spelled

    return "".join(spelled(model.at(key).model, ids))


def strongest_tokens(index: FeatureIndex | None, features: tuple[int, ...]) -> dict[int, list[str]]:
    """The tokens that features fire on most, by the index; nothing without one."""
    if index is None:
        return {}
    there = [feature for feature in features if feature < index.n_features]
    return {row.feature: row.tokens for row in index.rows(there)}


def steps_of(words: str, new: int, temperature: float, loss_tokens: int) -> Steps:
    """Edits as the address writes them: `17:clamp:8,5:ablate`. Raises UsageError for others."""
    edits = []
    for word in words.split(","):
        feature, _, rest = word.partition(":")
        mode, _, value = rest.partition(":")
        try:
            edits.append((int(feature), mode, float(value or 0)))
        except ValueError:
            raise UsageError(f"no edit such as 17:clamp:8 or 17:ablate: {word!r}") from None
    return Steps(tuple(edits), new, temperature, loss_tokens)
