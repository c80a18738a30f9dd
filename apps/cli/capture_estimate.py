"""`saelab capture --dry-run`: what a capture will cost, and what its first context reads."""

from typing import TYPE_CHECKING, Any

from .common import document, show

if TYPE_CHECKING:
    from saelab.activations.from_text import FromText


def run(source: "FromText", seed: int, as_json: bool) -> int:
    """Print what the capture would cost."""
    from saelab.activations.estimate import estimate

    guess, words = estimate(source), _first_context(source)
    text = (
        f"the first context, its tokens between bars: {'│'.join(map(_visible, words))}\n"
        f"{guess['bytes']:,.0f} bytes, {guess['seconds']:.0f} s, "
        f"{guess['peak_memory_bytes'] / 1e9:.1f} GB of memory"
    )
    result = document("capture-estimate", seed, **guess, first_context=words)
    show(result, as_json, text)
    return 0


def _first_context(source: "FromText") -> list[str]:
    """What the tokens of the first context read."""
    from saelab.spelling import pieces, spell

    tokenizer: Any = source.model.tokenizer
    words = pieces(tokenizer, source.model.cfg.d_vocab)
    first = next(source.pieces(), None)
    ids = [] if first is None else first.tokens[0].tolist()
    return spell([words[token] for token in ids])


def _visible(word: str) -> str:
    return word.replace("\n", "↵").replace("\t", "⇥")
