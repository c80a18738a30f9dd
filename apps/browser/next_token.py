"""What may come next after a text, and where its logit comes from, as HTML."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import draw
from .asking import Likely
from .html import Markup, html, joined
from .prompt import Known, at, feature_link

if TYPE_CHECKING:
    from saelab.analysis.prompts import Attribution, Prompt, Table


def likely(tokens: Sequence[Likely], chosen: int | None) -> Markup:
    """The most probable next tokens, each a link that asks where its logit comes from."""
    chips = []
    for one in tokens:
        label = html('{}<span class="n"> {}</span>', draw.token(one.text), draw.percent(one.chance))
        classes = "chip on" if chosen == one.id else "chip"
        chips.append(draw.change("prompt", label, classes, next_id=one.id, next=""))
    return html('<p class="chips">{}</p>', joined(chips, " "))


def attribution(
    rows: "Table",
    parts: "Attribution",
    words: tuple[str, str | None],
    run: str,
    prompt: "Prompt",
    known: Known,
    n: int,
) -> Markup:
    """A logit as a sum, and its largest contributions."""
    of = draw.token(words[0])
    if words[1] is not None:
        of = html("{} less that of {}", of, draw.token(words[1]))
    sums = [("logit", parts.logit, "of the model")]
    sums += [
        ("features", float(parts.features.sum()), "value × (W_dec · d logit/dx), all added up"),
        ("error", float(parts.error.sum()), "what the SAE misses, and all of position 0"),
        ("bias", float(parts.bias.sum()), "decoder bias, and skip"),
        ("rest", parts.rest, _rest(parts.exact)),
    ]
    how = "frozen model: exact" if parts.exact else "gradient: first order"
    other = draw.change("prompt", _other(parts.exact), "step", frozen="" if parts.exact else "1")
    head = html('<div class="head"><h2>Logit of {} <small>{}</small></h2>{}</div>', of, how, other)
    heads = [draw.head("feature"), draw.head("token", ""), draw.head("fires most on", "")]
    heads += [draw.head("value"), draw.head("contribution")]
    largest = parts.features.abs().argsort(descending=True, stable=True)[:n].tolist()
    body = []
    for number in largest:
        feature = int(rows.feature[number])
        strongest = draw.cell(draw.tokens(known.get(feature, ())[:3]), "tokens")
        place = draw.cell(at(prompt.texts, int(rows.position[number])), "")
        numbers = (float(rows.value[number]), float(parts.features[number]))
        cells = (draw.cell(draw.number(value)) for value in numbers)
        body.append(draw.line(draw.cell(feature_link(run, feature)), place, strongest, *cells))
    strip = draw.stats((name, draw.number(value), why) for name, value, why in sums)
    return head + strip + draw.grid(heads, body)


def _rest(exact: bool) -> str:
    if exact:
        return "what does not pass the SAE's place, with attention, norms and MLPs held"
    return "what does not pass the SAE's place, and what is not linear in it"


def _other(exact: bool) -> str:
    return "by the gradient instead" if exact else "exactly, in the frozen model"
