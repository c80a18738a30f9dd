"""What `saelab capture` says to people once it has written."""

from saelab.textfiles import skipped

from . import capture_check


def summary(result: dict, asked: int) -> str:
    """The result for people: what was written, and whether the text gave fewer positions than asked
    for."""
    tokens = result["tokens"]
    lines = [
        f"{result['cache']}: {tokens['train']:,} training and {tokens['held_out']:,} held-out "
        f"tokens at {', '.join(result['hooks'])}, {result['bytes'] / 1e6:,.0f} MB"
    ]
    if result["already_there"]:
        lines.append("nothing to do: this cache was complete")
    else:
        lines[0] += (
            f", {result['seconds']:.0f} s "
            f"({result['positions'] / max(result['seconds'], 0.1):,.0f} positions/s)"
        )
    if result["cut"]:
        lines.append(f"{result['cut']:,} documents were longer than a context and were cut")
    lines += skipped.lines(result)
    lines += [
        f"int8 is advised against at {hook}: {capture_check.large(outliers)}"
        for hook, outliers in result["outliers"].items()
        if outliers
    ]
    if result["positions"] < asked:
        lines.append(
            f"the input ended after {result['positions']:,} of the {asked:,} positions asked for"
        )
    lines += [f"taken as usual, nothing says otherwise: {what}" for what in result["assumed"]]
    following = f"train --cache {result['cache']} --out runs/NAME"
    if result["run"] is not None:
        following = f"eval {result['run']}"
    return "\n".join([*lines, f"next: saelab {following}"])
