"""One's own text, or one's own activations, as tables: the features that fire, where a next token
comes from, what steering makes of it.

Shapes: N pairs, T positions, D width.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from saelab import prompting
from saelab.activations.given import tensor
from saelab.errors import UsageError

from .shown import frame

if TYPE_CHECKING:
    import pandas

    from saelab.analysis.prompts import Estimated
    from saelab.analysis.steering import Edit


def features(
    bench: prompting.Bench,
    text: str,
    by: str | None,
    n: int | None,
    estimate: "Estimated" = "integrated",
) -> "pandas.DataFrame":
    """One row for each token and feature that fires there, by position or by falling size of `by`
    (value, usual, effect); n: at most so many."""
    from saelab.analysis import prompts

    reading = prompting.read(bench, text, estimate=estimate)
    rows, texts = reading.table, reading.prompt.texts
    order_N = torch.arange(len(rows.position))
    if by is not None:
        order_N = prompts.strongest(rows, by)  # type: ignore[arg-type]
    order_N = order_N[:n]
    at = rows.position[order_N].tolist()
    columns = {"position": at, "token": [texts[position] for position in at]}
    for name in ("feature", "value", "usual", "effect"):
        numbers_N = getattr(rows, name)
        if numbers_N is not None:
            columns[name] = numbers_N[order_N].numpy()
    made = frame(None, **columns)
    made.attrs["tokens"] = texts
    return made


def trace(bench: prompting.Bench, text: str, feature: int) -> "pandas.DataFrame":
    """One row for each token: what it reads, and the feature's value there."""
    from saelab.analysis import prompts

    reading = prompting.read(bench, text, estimate="gradient")
    words = reading.prompt.texts
    if not 0 <= feature < bench.sae.n_features:
        last = bench.sae.n_features - 1
        raise UsageError(f"no feature {feature}: this SAE has features 0 to {last}")
    values_1T = prompts.traces(reading.table, [feature], len(words))
    return frame(None, token=words, value=values_1T[0].numpy())


def coded(sae: Any, acts: Any, n: int | None) -> "pandas.DataFrame":
    """One row for each pair that fires on activations [N, D]: row, feature, value; n: at most so
    many."""
    x_ND = tensor(acts, "what is given")
    with torch.no_grad():
        code = sae.encode(x_ND.to(sae.W_enc)).to("cpu")
    fires = code.values != 0
    columns = {"row": code.tokens, "feature": code.features, "value": code.values}
    return frame(None, **{name: column[fires][:n].numpy() for name, column in columns.items()})


def attribution(
    bench: prompting.Bench, text: str, token: str | int | None, against: str | int | None
) -> "pandas.DataFrame":
    """Parts of a next token's logit by falling size: one row for each feature and position, for
    what the SAE misses and its bias at each position, and for what passes by (rest)."""
    from saelab.analysis.prompts.text import spelled

    reading = prompting.read(bench, text, estimate="gradient")
    parts = prompting.attribute(bench, reading, token, against)
    rows, texts = reading.table, reading.prompt.texts
    by_feature = zip(rows.position.tolist(), rows.feature.tolist(), parts.features, strict=True)
    listed = [("feature", at, feature, float(value)) for at, feature, value in by_feature]
    for part, values_T in (("error", parts.error), ("bias", parts.bias)):
        listed += [(part, at, None, float(value)) for at, value in enumerate(values_T)]
    listed.append(("rest", None, None, parts.rest))
    listed = sorted((row for row in listed if row[3]), key=lambda row: -abs(row[3]))
    made = frame(
        None,
        part=[row[0] for row in listed],
        position=[row[1] for row in listed],
        token=["" if row[1] is None else texts[row[1]] for row in listed],
        feature=[row[2] for row in listed],
        contribution=[row[3] for row in listed],
    ).astype({"position": "Int64", "feature": "Int64"})
    made.attrs |= {"tokens": texts, "of": spelled(bench.model, [parts.token])[0]}
    made.attrs |= {"logit": parts.logit, "total": parts.total}
    return made


def steered(
    bench: prompting.Bench,
    text: Any,
    values: Mapping[int, float],
    mode: str,
    n: int,
    **options: Any,
) -> "pandas.DataFrame":
    """One row for each continuation by n tokens: the original, the steered one, those along random
    directions and along other features. Of prompts: see `_on_prompts`."""
    from saelab.analysis import steering
    from saelab.analysis.prompts.text import spelled

    edits = [steering.Edit(feature, mode, value) for feature, value in values.items()]  # type: ignore[arg-type]
    if not isinstance(text, str):
        return _on_prompts(bench, text, edits, **options)
    beside, others = prompting.steer(bench, text, edits, n=n, **options)[1:3]
    named = [("original", beside.original), ("steered", beside.steered)]
    named += [(f"random {at}", tokens) for at, tokens in enumerate(beside.random, 1)]
    for features_, tokens in zip(others, beside.others, strict=True):
        named.append((f"feature {', '.join(map(str, features_))}", tokens))
    rows = [(name, sample) for name, tokens_Sn in named for sample in tokens_Sn.tolist()]
    read = [text + "".join(spelled(bench.model, ids)) for _, ids in rows]
    return frame(None, run=[name for name, _ in rows], text=read)


def _on_prompts(
    bench: prompting.Bench, prompts: Any, edits: "list[Edit]", **options: Any
) -> "pandas.DataFrame":
    """Metric, its change and the KL at the end of prompts with answers, each an interval over
    prompts beside the mean of random directions; options: as of `steering.steer`."""
    from saelab.analysis import steering
    from saelab.tasks import files

    given = files.given(prompts, bench.model, needs=("answers",))
    found = steering.steer(bench.model, given.task, bench.sae, edits, **options).estimates()
    rows = [{"of": name, **estimate.as_dict()} for name, estimate in found.items()]
    made = frame(rows).set_index("of")
    made.attrs |= {"metric": given.task.metric, "left_out": given.left_out}
    return made
