"""A text taken apart, as HTML: tokens to click on, tables of features, traces, what the SAE misses,
two texts. Imports neither Streamlit nor torch.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import contexts, draw
from .html import Markup, html, joined

if TYPE_CHECKING:
    from saelab.analysis.prompts import Comparison, ErrorSplit, Exact, Prompt, Table

LONGEST = 1500  # characters of a text that an address holds
FEW = 5  # values listed
EFFECT = (
    "estimated effect on the loss in nats: value × (W_dec · dL/dx), L the summed next-token "
    "cross-entropy; above 0: the loss would be lower without"
)
ESTIMATES = {
    "integrated": ("integrated", "over each large feature's way to its absence; 32 passes"),
    "gradient": ("at the activation", "first order, one pass; wrong for dense features"),
}
COLUMNS = {
    "value": ("value", "activation"),
    "usual": ("× usual", "|value| over the feature's own mean where it fires"),
    "effect": ("est. effect", EFFECT),
}
Known = Mapping[int, Sequence[str]]


def strip(
    prompt: "Prompt",
    values: Sequence[float] | None,
    chosen: int | None,
    about: str,
    page: str = "prompt",
) -> Markup:
    """The text's tokens side by side, shaded by values [T]; on the page of prompts each a link that
    chooses it."""
    largest = max((abs(value) for value in values or ()), default=0.0)
    parts = []
    for place in range(prompt.first, len(prompt.texts)):
        value = values[place] if values else 0.0
        body = draw.text(prompt.texts[place], lines=True) if prompt.texts[place] else Markup("▫")
        if value:
            sign = "act neg" if value < 0 else "act"
            said = f"{about} {draw.number(value)}"
            shade = contexts.shade(value, largest)
            body = html('<span class="{}" style="{}" title="{}">{}</span>', sign, shade, said, body)
        classes = "word on" if place == chosen else "word"
        parts.append(draw.change(page, body, classes, token=place) if page else body)
    return html('<div class="text">{}</div>', joined(parts))


def own(prompt: "Prompt", values: Sequence[float], feature: int, run: str, text: str) -> Markup:
    """A text shaded by one feature, its strongest values as text, and the way to the page where
    all features of the text are; not through the address if the text is too long for one."""
    firing = sorted(
        (place for place, value in enumerate(values) if value),
        key=lambda place: -abs(values[place]),
    )
    if not firing:
        said = html('<p class="quiet">It fires on none of the {} tokens.</p>', len(values) - 1)
    else:
        words = (
            html("{} {}", at(prompt.texts, place), draw.number(values[place]))
            for place in firing[:FEW]
        )
        told = f"fires on {len(firing)} of {len(values) - 1} tokens:"
        said = html('<p><span class="quiet">{}</span> {}</p>', told, joined(words, " · "))
    query = {"run": run, "show": feature} | ({"text": text} if len(text) <= LONGEST else {})
    more = draw.link("prompt", "every feature of this text", "step", **query)
    shaded = strip(prompt, values, None, f"feature {feature}:", "")
    return shaded + said + html("<p>{}</p>", more)


def orders(by: str) -> Markup:
    """Links to the three orders."""
    links = (
        draw.change("prompt", name, "step on" if key == by else "step", by=key)
        for key, (name, _) in COLUMNS.items()
    )
    return html('<div class="head"><span class="quiet">order by</span>{}</div>', joined(links))


def estimate(word: str) -> Any:
    """The estimate of effects that the address names, else the default."""
    return word if word in ESTIMATES else next(iter(ESTIMATES))


def by(estimate: str) -> Markup:
    """Which gradient effects are estimated by, and links to the others."""
    links = (
        draw.change("prompt", name, "step on" if key == estimate else "step", estimate=key)
        for key, (name, _) in ESTIMATES.items()
    )
    said = html('<span class="quiet">gradient</span>{}', joined(links))
    why = html('<span class="quiet">{}</span>', ESTIMATES[estimate][1])
    return html('<div class="head">{}{}</div>', said, why)


def features(
    rows: "Table",
    numbers: Iterable[int],
    run: str,
    prompt: "Prompt",
    known: Known,
    shown: str | None,
) -> Markup:
    """A table of pairs of a token and a feature, by their numbers in `rows`. shown: the features
    whose traces are drawn, as the address has them; None: no links to traces."""
    heads = [draw.head("feature"), draw.head("token", ""), draw.head("fires most on", "")]
    heads += [draw.head(name, "n", why) for name, why in COLUMNS.values()]
    if shown is not None:
        heads += [draw.head("", "")]
    body = [_pair(rows, number, run, prompt, known, shown) for number in numbers]
    return draw.grid(heads, body)


def _pair(
    rows: "Table", number: int, run: str, prompt: "Prompt", known: Known, shown: str | None
) -> Markup:
    feature, position = int(rows.feature[number]), int(rows.position[number])
    cells = [draw.cell(feature_link(run, feature)), draw.cell(at(prompt.texts, position), "")]
    cells.append(draw.cell(draw.tokens(known.get(feature, ())[:3]), "tokens"))
    for key in COLUMNS:
        column = getattr(rows, key)
        cells.append(draw.cell(numbered(None if column is None else float(column[number]))))
    if shown is not None:
        trace = draw.change("prompt", "trace", show=with_one(shown, feature))
        cells.append(draw.cell(trace, ""))
    return draw.line(*cells)


def numbered(value: float | None) -> str:
    return draw.number(None if value is None or value != value else value)


def feature_link(run: str, feature: int) -> Markup:
    return draw.link("feature", str(feature), run=run, feature=feature)


def at(texts: Sequence[str], position: int) -> Markup:
    """A token and its position."""
    if position < 0:
        return html('<span class="quiet">–</span>')
    token = draw.token(texts[position] or "▫")
    return html('{} <span class="quiet">{}</span>', token, position)


def with_one(shown: str, feature: int) -> str:
    """The features shown, and one more; without it, where it is among them."""
    there = [word for word in shown.split(",") if word]
    if str(feature) in there:
        return ",".join(word for word in there if word != str(feature))
    return ",".join([*there, str(feature)])


def traces(
    prompt: "Prompt",
    features: Sequence[int],
    values: Sequence[Sequence[float]],
    run: str,
    shown: str,
) -> Markup:
    """For each feature the text shaded by its value."""
    parts = []
    for feature, its in zip(features, values, strict=True):
        close = draw.change("prompt", "hide", "step", show=with_one(shown, feature))
        steer = draw.change("prompt", "steer it", "step", steer=f"{feature}:scale:2")
        peak = max(map(abs, its), default=0.0)
        said = f"largest {draw.number(peak)}" if peak else "does not fire on this text"
        head = html("Feature {} <small>{}</small>", feature_link(run, feature), said)
        title = html('<div class="head"><h2>{}</h2>{}{}</div>', head, steer, close)
        parts.append(title + strip(prompt, its, None, f"feature {feature}:"))
    return joined(parts)


def exact(rows: "Table", done: "Exact", run: str, prompt: "Prompt") -> Markup:
    """Estimates beside exact ablations, and how well the one ranks the other."""
    said = draw.number(done.rank_correlation, 2)
    about = (
        f"loss less what it is without the pair, in nats; rank correlation with the estimate {said}"
    )
    heads = [draw.head("feature"), draw.head("token", "")]
    heads += [draw.head("estimated", "n", EFFECT), draw.head("exact")]
    body = []
    columns = zip(done.rows.tolist(), done.estimated.tolist(), done.exact.tolist(), strict=True)
    for number, estimated, real in columns:
        place = draw.cell(at(prompt.texts, int(rows.position[number])), "")
        first = draw.cell(feature_link(run, int(rows.feature[number])))
        numbers = map(draw.cell, (draw.number(estimated), draw.number(real)))
        body.append(draw.line(first, place, *numbers))
    return draw.title("Ablated one by one", about) + draw.grid(heads, body, "report")


def errors(prompt: "Prompt", parts: "ErrorSplit") -> Markup:
    """What the SAE misses of each token: lengths over the activation's."""
    heads = [draw.head("token", ""), draw.head("error", "n", "its length over the activation's")]
    heads += [
        draw.head("linear", "n", "the part that a linear map of the activation predicts"),
        draw.head("nonlinear", "n", "the rest; the parts are not orthogonal on each token"),
        draw.head("est. effect", "n", "of the error on the loss, error · dL/dx, in nats"),
    ]
    body = []
    for place in range(max(1, prompt.first), len(prompt.texts)):
        size = float(parts.size[place]) or 1.0
        shares = (getattr(parts, name)[place] for name in ("error", "linear", "nonlinear"))
        effect = None if parts.effect is None else float(parts.effect[place])
        cells = [draw.cell(at(prompt.texts, place), "")]
        cells += [draw.cell(draw.percent(float(share) / size)) for share in shares]
        body.append(draw.line(*cells, draw.cell(draw.number(effect))))
    share = float(parts.error.square().sum() / parts.size[1:].square().sum().clamp_min(1e-20))
    told = "token by token; the squared error is {} of the squared activations"
    summary = html("<summary>{}</summary>", told.format(draw.percent(share)))
    return html("<details>{}{}</details>", summary, draw.grid(heads, body))


def comparison(
    both: "Comparison",
    first: int,
    texts: tuple[Sequence[str], Sequence[str]],
    by: str,
    run: str,
    known: Known,
    n: int,
) -> Markup:
    """Features by how much more one text has of them, each at its strongest token."""
    heads = [draw.head("feature"), draw.head("fires most on", "")]
    heads += [draw.head("this text"), draw.head("at", ""), draw.head("other"), draw.head("at", "")]
    body = []
    for number in range(min(n, len(both.feature))):
        feature = int(both.feature[number])
        cells = [draw.cell(feature_link(run, feature))]
        cells.append(draw.cell(draw.tokens(known.get(feature, ())[:3]), "tokens"))
        for values, places, words in (
            (both.first, both.at_first, texts[0]),
            (both.second, both.at_second, texts[1]),
        ):
            cells.append(draw.cell(draw.number(float(values[number]))))
            cells.append(draw.cell(at(words, int(places[number])), ""))
        body.append(draw.line(*cells))
    name, _ = COLUMNS[by]
    about = f"by difference of {name}; the texts differ from token {first} on"
    return draw.title("Beside the other text", about) + draw.grid(heads, body, "report")
