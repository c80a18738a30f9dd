"""How many tokens the first screen does not certify, and what a choice costs with them."""

from benchmarks.gpu.card import Card, Rows, guarded
from saelab import kernels
from saelab.sparsify import Choice
from training.benchmark import Shape


def redone(card: Card) -> Rows:
    """Per shape and budget: the share of choices that had to be done again."""
    for name, shape in card.shapes().items():
        yield from guarded(name, _of(card, name, shape))


def _of(card: Card, name: str, shape: Shape) -> Rows:
    from saelab.kernels.triton import choose as module

    W_FD = card.rows(shape.features, shape.width, 0)
    x_BD = card.tokens(shape, W_FD)
    b_F = x_BD.new_zeros(shape.features)
    for over in ("token", "batch", "feature"):

        def choose(over: str = over) -> None:
            with kernels.backend("triton"):
                kernels.choose(x_BD, W_FD, b_F, Choice(shape.k, over))

        tally = getattr(module, "tally", None)
        if tally is None:
            yield "skipped", "these kernels do not count what they certify"
            return
        tally.update(asked=0, certified=0)
        choose()
        asked, certified = int(tally["asked"]), int(tally["certified"])
        ms = card.milliseconds(choose, repeats=3, warm=0)
        yield f"{name} {over}", {"choices": asked, "not certified": asked - certified, "ms": ms}
