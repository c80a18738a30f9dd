"""What `saelab prompt` prints for people."""

from collections.abc import Sequence
from typing import Any

from .common import told

WIDTH = 14  # of a token
BAR = 24  # of a trace
GLYPHS = str.maketrans({"\n": "↵", "\t": "⇥", "\r": "␍", " ": "·"})
MEANING = {
    "value": "value",
    "usual": "value over the feature's usual one (its mean where it fires)",
    "effect": "estimated effect on the loss in nats, value x (W_dec . dL/dx), +: lower without",
}
ESTIMATES = {
    "integrated": "gradients integrated over each large feature's way to its absence",
    "gradient": "the gradient at the activation, which is first order",
}


def token(text: str, width: int = 0) -> str:
    """A token on one line, its blanks visible, cut to a width."""
    shown = text.translate(GLYPHS)
    if width and len(shown) > width:
        shown = shown[: width - 1] + "…"
    return f"{shown:{width}}" if width else shown


def text(result: dict[str, Any], one: int | None) -> str:
    """All that was asked for, one part below the other."""
    parts = [_head(result)]
    if one is None:
        parts.append(_every_token(result))
    else:
        parts.append(_one_token(result, one))
    parts += [_trace(result, trace) for trace in result["traces"]]
    for key, drawn in (("exact", _exact), ("attribution", _attribution), ("comparison", _compared)):
        if result[key]:
            parts.append(drawn(result))
    if result["by"] == "effect" or result["exact"]:
        parts.append(f"effects by {ESTIMATES[result['estimate']]}")
    if result["errors"]["problem"]:
        parts.append(f"error not split: {result['errors']['problem']}")
    return "\n\n".join(parts)


def _head(result: dict[str, Any]) -> str:
    losses = [one["loss"] for one in result["tokens"] if one["loss"] is not None]
    mean = f", loss {sum(losses) / len(losses):.3f} nats per token" if losses else ""
    place = result["hook"]
    if result["target"] != place:
        place = f"{place} to {result['target']}"
    counted = len(result["tokens"]) - 1
    return f"{result['run']} at {place}: {counted} tokens{mean}"


def number(value: float | None, by: str) -> str:
    """A number of an order."""
    if value is None:
        return "-"
    return (
        f"{value:.1f}x" if by == "usual" else f"{value:+.3f}" if by == "effect" else f"{value:.2f}"
    )


def _every_token(result: dict[str, Any]) -> str:
    by, errors = result["by"], result["errors"]["tokens"]
    split = f"  {'error':>6} {'linear':>6} {'rest':>6}" if errors else ""
    lines = [
        f"features by {MEANING[by]}",
        f"  at {'token':{WIDTH}} {'loss':>6}{split}  feature: {by}",
    ]
    by_place: dict[int, list[dict]] = {}
    for row in result["features"]:
        by_place.setdefault(row["position"], []).append(row)
    for place, one in enumerate(result["tokens"]):
        if not place:
            continue
        cells = [f"{row['feature']}: {number(row[by], by)}" for row in by_place.get(place, ())]
        lost = told(one["loss"], ".2f")
        missed = _shares(errors[place]) if errors else ""
        columns = "  ".join(f"{cell:<14}" for cell in cells).rstrip()
        lines.append(f"{place:4} {token(one['text'], WIDTH)} {lost:>6}{missed}  {columns}")
    if errors:
        lines.append("error, linear, rest: lengths over the activation's")
    return "\n".join(lines)


def _shares(error: dict[str, float]) -> str:
    """Lengths of the error and its parts, over that of the activation."""
    size = error["size"] or 1.0
    parts = (error[name] / size for name in ("error", "linear", "nonlinear"))
    return "  " + " ".join(f"{part:6.1%}" for part in parts)


def _one_token(result: dict[str, Any], place: int) -> str:
    by = result["by"]
    shown = token(result["tokens"][place]["text"])
    head = f"token {place}, {shown}: features by {MEANING[by]}"
    lines = [head, f"{'feature':>9} {'value':>9} {'usual':>7} {'effect':>9}"]
    for row in result["features"]:
        cells = (number(row[name], name) for name in ("value", "usual", "effect"))
        value, usual, effect = cells
        lines.append(f"{row['feature']:9} {value:>9} {usual:>7} {effect:>9}")
    return "\n".join(lines)


def _trace(result: dict[str, Any], trace: dict[str, Any]) -> str:
    largest = max(map(abs, trace["values"])) or 1.0
    lines = [f"feature {trace['feature']} on every token, by value"]
    for place, value in enumerate(trace["values"]):
        if place:
            bar = "█" * round(BAR * abs(value) / largest)
            shown = f"{value:.2f}" if value else "-"
            text = token(result["tokens"][place]["text"], WIDTH)
            lines.append(f"{place:4} {text} {shown:>8}  {bar}".rstrip())
    return "\n".join(lines)


def _where(result: dict[str, Any], row: dict[str, Any]) -> str:
    """The position, token and feature of a row."""
    text = token(result["tokens"][row["position"]]["text"], WIDTH)
    return f"{row['position']:4} {text} {row['feature']:8}"


def _exact(result: dict[str, Any]) -> str:
    exact = result["exact"]
    lines = [
        f"the {len(exact['pairs'])} largest estimated effects, and the loss less what it is "
        f"without each; rank correlation {told(exact['rank_correlation'], '.2f')}",
        f"  at {'token':{WIDTH}} {'feature':>8} {'estimated':>10} {'exact':>8}",
    ]
    for row in exact["pairs"]:
        lines.append(f"{_where(result, row)} {row['effect']:+10.3f} {row['exact']:+8.3f}")
    return "\n".join(lines)


def _attribution(result: dict[str, Any]) -> str:
    parts, sums = result["attribution"], result["attribution"]["sums"]
    of = token(parts["token"])
    if parts["against"] is not None:
        of = f"{of} less that of {token(parts['against'])}"
    how = "in the frozen model, exact" if parts["frozen"] else "by the gradient, first order"
    summed = " ".join(f"{sums[name]:+.3f} {name}" for name in ("features", "bias", "error", "rest"))
    lines = [
        f"logit of {of} after token {parts['position']}: {parts['logit']:.3f} = {summed}",
        f"largest contributions, value x (W_dec . d logit/dx), {how}",
        f"  at {'token':{WIDTH}} {'feature':>8} {'value':>9} {'contribution':>13}",
    ]
    for row in parts["features"]:
        lines.append(f"{_where(result, row)} {row['value']:9.2f} {row['contribution']:+13.4f}")
    return "\n".join(lines)


def _compared(result: dict[str, Any]) -> str:
    both, by = result["comparison"], result["by"]
    lines = [
        f"features by difference of {MEANING[by]}, each at its strongest token; the texts differ "
        f"from token {both['differs_at']} on",
        f"{'feature':>9} {'first':>9} {'second':>9}  first at           second at",
    ]
    for row in both["features"]:
        places = [
            _place(tokens, row[key])
            for tokens, key in ((result["tokens"], "at_first"), (both["tokens"], "at_second"))
        ]
        first, second = (number(row[key], by) for key in ("first", "second"))
        lines.append(f"{row['feature']:9} {first:>9} {second:>9}  {places[0]:18} {places[1]}")
    return "\n".join(lines)


def _place(tokens: Sequence[dict[str, Any]], at: int) -> str:
    return "-" if at < 0 else f"{at} {token(tokens[at]['text'], WIDTH)}".rstrip()
