"""What `saelab circuits --heads` does, from a notebook."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import saelab
from saelab.files import write_json
from saelab.opening import Opened

from .measuring import with_model
from .shown import frame

if TYPE_CHECKING:
    import pandas

    from saelab.sae import SAE

SHARE = ("value", "low", "high", "null")


class Heads(NamedTuple):
    """The heads that an attention SAE stands on."""

    kinds: "pandas.DataFrame"
    """a row for each head and kind: its share of attention with interval and chance; whether the
    head is called by it"""
    prefixes: "pandas.DataFrame"
    """a row for each head and number of tokens that match an earlier place: its share of attention
    to the token that followed there"""
    features: "pandas.DataFrame"
    """a row for each feature that fires: the head that writes most of it, that head's share, where
    it mostly comes from"""


def heads(opened: Opened, n_tokens: int, residual: "SAE | None", seed: int) -> Heads:
    """The report of `saelab circuits --heads`, kept in the run, as tables.

    >>> run.heads().kinds.query("called")
    """
    from saelab.analysis.attention import report

    folder, sae, cache, model = with_model(opened)
    fields = report.report(model, sae, cache, n_tokens, residual, seed)
    head = {"schema": "saelab/heads/1", "saelab_version": saelab.__version__, "seed": seed}
    result = {**head, "command": "run.heads()", **fields, "sae": folder.sae_digest()}
    write_json(folder.heads, result)
    return tables(result)


def tables(document: Mapping[str, Any]) -> Heads:
    """The tables of a run's heads.json."""
    kinds = [
        {"head": one["head"], "kind": name, **_share(share), "called": name in one["called"]}
        for one in document["heads"]
        for name, share in one["kinds"].items()
    ]
    lengths = document["sequences"].get("prefixes", [])
    prefixes = [
        {"head": one["head"], "matching": length, **_share(share)}
        for one in document["heads"]
        for length, share in zip(lengths, one.get("by_prefix", []), strict=True)
    ]
    features = []
    for one in document["features"]:
        place = one["from"]
        about = {name: one[name] for name in ("feature", "firings", "head")}
        where = {"from": place, "from_share": one["places"][place]}
        where |= {"from_chance": document["places"][place], "sources": one["sources"]}
        features.append({**about, **_share(one["share"]), **where})
    return Heads(frame(kinds), frame(prefixes), frame(features))


def _share(estimate: Mapping[str, Any]) -> dict[str, Any]:
    return {name: estimate.get(name) for name in SHARE}
