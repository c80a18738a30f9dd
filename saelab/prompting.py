"""What a run makes of one's own text: its SAE, its model, and what is known of its features,
brought together. Importing this imports nothing heavy.

Shapes: F features, N pairs of a token and a feature that fires there.
"""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from saelab import opening
from saelab.errors import FailedRun, UsageError
from saelab.runs import RunFolder

if TYPE_CHECKING:
    from saelab.analysis.prompts import Attribution, ErrorSplit, Estimated, Prompt, Read, Table
    from saelab.analysis.steering import Beside, Edit, LossChange


class Bench(NamedTuple):
    """A run ready for texts."""

    folder: RunFolder
    sae: Any
    """a `saelab.SAE`"""
    model: Any
    """what `saelab.models.load` returns"""
    cache: Any
    """the cache it was trained on; None where that is gone"""
    no_cache: str
    """why there is none, "" where there is one"""
    usual: Any
    """[F]: mean |activation| of each feature where it fires, from the index, else counted on the
    cache; None without either"""
    densities: Any
    """[F]: share of tokens on which each fires, likewise"""


class Reading(NamedTuple):
    """A text taken apart."""

    prompt: "Prompt"
    read: "Read"
    """its activations as a sum"""
    table: "Table"
    """one row for each token and feature that fires there"""


class Steering(NamedTuple):
    """What edits make of a text."""

    prompt: "Prompt"
    beside: "Beside"
    """new tokens: original, steered, random directions, other features"""
    others: list[list[int]]
    """those other features, one for each edit"""
    loss: "LossChange | None"
    """on held-out text, by `steered`, `random` and `others`; None where it was not asked for, or
    there is no cache"""


def open(
    path: Path | str,
    model: Any = None,
    cache: Any = None,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    load: Callable[..., Any] | None = None,
) -> Bench:
    """A run's SAE and model, its cache and index where they are there; arguments as of
    `saelab.open`.

    Raises UsageError as `saelab.open` does, but not for a cache that is gone, or damaged, without
    being named.

        bench = prompting.open("runs/demo")
        rows = prompting.read(bench, "import numpy as np").table
    """
    options: dict[str, Any] = {"device": device, "dtype": dtype or "float32", "load": load}
    try:
        opened = opening.open(path, model, cache, **options)
        return bench(opened)
    except (FailedRun, UsageError) as error:
        if cache is not None:
            raise
        opened = opening.open(path, model, needs=("model",), **options)
        return bench(opened, str(error))


def bench(opened: opening.Opened, no_cache: str = "no cache was opened") -> Bench:
    """The same of what is open already: `prompting.bench(saelab.open("runs/demo"))`."""
    usual, densities = _known(opened)
    has = opened.cache is not None
    folder, sae, cache, model = opened
    return Bench(folder, sae, model, cache, "" if has else no_cache, usual, densities)


def bare(model: Any) -> Bench:
    """A model alone, whose texts have tokens and no features."""
    return Bench(RunFolder(""), None, model, None, "it is of no run", None, None)


def _known(opened: opening.Opened) -> tuple[Any, Any]:
    """How strongly and how often each feature fires: by the run's index if it is of this SAE."""
    from saelab.analysis.prompts import usual

    if indexed := _indexed(opened):
        return indexed
    if opened.cache is None:
        return None, None
    counted = usual.of_cache(opened.sae, opened.cache)
    return counted.mean.numpy(), counted.density.numpy()


def _indexed(opened: opening.Opened) -> tuple[Any, Any] | None:
    """What the index says; None without one that can be read and is of this SAE: a text needs no
    index."""
    from saelab.features.reader import FeatureIndex

    if not opened.folder.features.is_file():
        return None
    with contextlib.suppress(UsageError, FailedRun), FeatureIndex(opened.folder.features) as index:
        same = index.summary.get("sae") in (None, opened.folder.sae_digest())
        if same and index.n_features == opened.sae.n_features:
            return index.means(), index.densities()
    return None


def prompt(bench: Bench, text: str, parse_special: bool = False) -> "Prompt":
    """The tokens of a text, begun as the contexts of the run's cache are. Raises UsageError for one
    that is empty, or longer than the model's context."""
    from saelab.analysis import prompts

    bos = None if bench.cache is None else bench.cache.plan.asked_bos
    return prompts.prompt(bench.model, text, bos, parse_special)


def read(
    bench: Bench, text: str, parse_special: bool = False, estimate: "Estimated" = "integrated"
) -> Reading:
    """The features of a text: which fire on which token, how strongly, over their usual value, and
    with which estimated effect on the loss.

    estimate: of the effect; `integrated` gradients cost 32 passes forward and backward, the
    `gradient` one.

        prompt, _, table = prompting.read(bench, "import numpy as np")
    """
    from saelab.analysis import prompts

    tokens = prompt(bench, text, parse_special)
    read = prompts.read(bench.model, bench.sae, tokens)
    effect_N = prompts.integrated(bench.model, read) if estimate == "integrated" else None
    return Reading(tokens, read, prompts.table(read, bench.usual, effect_N))


def attribute(
    bench: Bench,
    reading: Reading,
    token: str | int | None = None,
    against: str | int | None = None,
    exact: bool = False,
) -> "Attribution":
    """Where the logit of a next token comes from.

    token: its text as it follows the prompt, its id, or None for the one that the model finds most
    probable; against: one whose logit is subtracted. exact: with attention, norms and MLPs frozen.
    Raises UsageError for a text that is no single token there.

        attribute(bench, read(bench, "def f(self"), "):").features
    """
    from saelab.analysis import prompts
    from saelab.models import running

    def number(word: str | int | None) -> int | None:
        if isinstance(word, str):
            return prompts.next_token(bench.model, reading.prompt.text, word)
        return word

    wanted = number(token)
    if wanted is None:
        tokens_1T = reading.prompt.tokens[None]
        wanted = int(running.logits(bench.model, tokens_1T, last=True)[0].argmax())
    return prompts.attribute(bench.model, reading.read, wanted, number(against), exact=exact)


def error_split(bench: Bench, reading: Reading) -> "ErrorSplit":
    """What the SAE misses of each token, by the linear map that `saelab dark-matter` keeps in the
    run. Raises UsageError, naming that command, without one or with that of another SAE."""
    from saelab.analysis import prompts
    from saelab.analysis.dark_matter import map_file

    path, how = bench.folder.dark_matter_map, f"`saelab dark-matter {bench.folder.path}`"
    if not path.is_file():
        raise UsageError(f"no linear map of the SAE's errors yet: {how} makes it")
    kept = map_file.read(path)
    if kept.sae not in (None, bench.folder.sae_digest()):
        raise UsageError(f"{path} is of another SAE than the run holds now: {how} makes it anew")
    map = kept.map.error
    weight, bias = (tensor.to(bench.sae.W_enc.device) for tensor in (map.weight, map.bias))
    return prompts.error_split(reading.read, map._replace(weight=weight, bias=bias))


def steer(
    bench: Bench,
    text: str,
    edits: "Sequence[Edit]",
    *,
    n: int = 30,
    positions: Sequence[int] | None = None,
    samples: int = 1,
    temperature: float = 0.0,
    controls: int = 2,
    loss_tokens: int = 0,
    seed: int = 0,
    parse_special: bool = False,
) -> Steering:
    """A text continued by n tokens with features edited, beside the original, `controls` random
    directions and as many other features that fire about as often, all of the edit's length.

    positions: those edited (default: all but the first, new ones too). loss_tokens: held-out tokens
    on which the loss is measured with the edits at every position; 0: none. Raises UsageError for
    edits that cannot be made, and where the continuation would be longer than the context.

        steer(bench, "import ", [Edit(17, "clamp", 8.0)]).beside.steered
    """
    from saelab.analysis import steering

    tokens = prompt(bench, text, parse_special)
    features = [edit.feature for edit in edits]
    steering.check(bench.sae, edits)
    others: list[list[int]] = []
    if bench.densities is not None:
        others = steering.similar(bench.densities, features, controls, seed)
    options: dict[str, Any] = {"positions": positions, "samples": samples, "seed": seed}
    options |= {"temperature": temperature, "n_random": controls, "others": others}
    beside = steering.beside(bench.model, bench.sae, tokens.tokens, n, edits, **options)
    loss = None
    if loss_tokens and bench.cache is not None:
        pushes = steering.beside_pushes(bench.sae, edits, others, controls, seed)
        loss = steering.loss_change(bench.model, bench.sae, pushes, bench.cache, loss_tokens, seed)
    return Steering(tokens, beside, others, loss)
