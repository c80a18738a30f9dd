"""What training an SAE costs, by arithmetic: operations, bytes and time of a step by stage, memory,
network, caches.

`tests/test_scale.py` holds each count to one that is measured or counted on small runs;
`benchmarks/scale.py` makes the tables of docs/scale.md of it. Symbols: B tokens of a step, F
features, d width, k pairs a token, n ranks that share the features out.
"""

from typing import NamedTuple

FLOAT, HALF = 4, 2  # bytes of a number
CANDIDATES = 75 / 64  # exact scores computed for each that is kept (counted on crowded tokens)
LIST = 8  # places in a list of candidates for each pair that is kept, 8 bytes each
SWEEPS = 2  # of a ring: a sum is a scatter and a gather


class Ceilings(NamedTuple):
    """What a machine can do: operations and bytes in a second, bytes it holds."""

    products: float
    memory: float
    network: float
    disk: float
    held: float


# Products and copies as they were measured on one card of each kind, with programs that are not
# ours; the network is what NCCL reaches over NVLink or 400 Gbit/s links for each card.
CARDS = {
    "H100": Ceilings(790e12, 3.0e12, 370e9, 5e9, 78 * 2**30),
    "H200": Ceilings(790e12, 4.3e12, 370e9, 5e9, 139 * 2**30),
}


class Plan(NamedTuple):
    """A training run. moments: bytes of one of Adam's numbers; wire: bytes of a number of an
    activation on the network; fused: whether no gradient of a weight is ever held whole."""

    width: int
    features: int
    k: int
    batch: int
    tokens: float = 0
    ranks: int = 1
    moments: int = FLOAT
    wire: int = FLOAT
    fused: bool = True

    @property
    def steps(self) -> float:
        """Of the whole run."""
        return self.tokens / self.batch

    @property
    def rows(self) -> int:
        """Features of a rank; the last one may have fewer."""
        return -(-self.features // self.ranks)


def operations(plan: Plan) -> dict[str, float]:
    """Floating-point operations of a rank in a step, by stage. Each rank finds its own k best of
    every token: that many of them need not win."""
    pairs = plan.batch * plan.k / plan.ranks
    return {
        "product": 2 * plan.batch * plan.rows * plan.width,
        "rescoring": 2 * plan.batch * min(CANDIDATES * plan.k, plan.rows) * plan.width,
        "decode": 2 * pairs * plan.width,
        "latent gradients": 2 * pairs * plan.width,
        "weight gradients": 4 * pairs * plan.width,
    }


def traffic(plan: Plan) -> dict[str, float]:
    """Bytes of memory that a rank moves in a step, by stage; the product's operands count for
    nothing beside its operations."""
    row, pairs = FLOAT * plan.width, plan.batch * plan.k / plan.ranks
    weights = 2 * plan.rows * plan.width
    return {
        "rescoring": plan.batch * min(CANDIDATES * plan.k, plan.rows) * row,
        "decode and latent gradients": pairs * row,
        "weight gradients": 2 * pairs * row,
        "Adam": 2 * weights * (FLOAT + 2 * plan.moments) + plan.rows * plan.width * HALF,
    }


def wire(plan: Plan) -> dict[str, float]:
    """Bytes that a rank sends in a step where the features are shared out, by what they are: its
    share of the tokens to all, the sum of the reconstructions, a token's k best scores to its owner
    and how many of them have won back, what fired, and b_dec's gradient."""
    others = (plan.ranks - 1) / plan.ranks
    numbers = plan.batch * plan.width * plan.wire
    return {
        "tokens": numbers * others,
        "reconstructions": SWEEPS * numbers * others,
        "scores": plan.batch * plan.k * 8 * others,
        "counts": plan.batch * 4 * others,
        "fired": plan.rows * 4 * (plan.ranks - 1),
        "gradients": SWEEPS * plan.width * FLOAT * others,
    }


def wire_of_aux(plan: Plan, k_aux: int) -> float:
    """Bytes that a rank sends beside them where features are dead: AuxK's reconstructions, scores
    (float32) and counts."""
    others = (plan.ranks - 1) / plan.ranks
    numbers = plan.batch * plan.width * plan.wire
    return (SWEEPS * numbers + plan.batch * (k_aux * FLOAT + 4)) * others


def replicated(plan: Plan) -> float:
    """Bytes that a rank sends in a step where each has all features and a share of the tokens: the
    sums of all gradients and of what fired."""
    weights = 2 * plan.features * plan.width + plan.features + plan.width
    return SWEEPS * (weights * FLOAT + plan.features * 8) * (plan.ranks - 1) / plan.ranks


def crossover(width: int, features: int, k: int, ranks: int, number: int = FLOAT) -> float:
    """The batch at which both layouts send as much: below it the features are better shared out,
    above it the tokens."""
    none = Plan(width, features, k, batch=0, ranks=ranks, wire=number)
    fixed, one = (sum(wire(none._replace(batch=batch)).values()) for batch in (0, 1))
    return (replicated(none) - fixed) / (one - fixed)


def seconds(plan: Plan, card: Ceilings) -> dict[str, float]:
    """Of a step by stage, each at the machine's ceiling, none hidden behind another."""
    times = {"product": operations(plan)["product"] / card.products}
    times |= {name: moved / card.memory for name, moved in traffic(plan).items()}
    return times | ({"network": sum(wire(plan).values()) / card.network} if plan.ranks > 1 else {})


def memory(plan: Plan) -> dict[str, float]:
    """Bytes that a rank holds: W_enc, b_enc, W_dec, b_dec and two moments of each; their gradients
    where autograd makes them, else the half-precision copy of W_enc; what a batch needs."""
    weights = 2 * plan.rows * plan.width + plan.rows + plan.width
    numbers = plan.batch * plan.width
    return {
        "parameters": weights * FLOAT,
        "moments": 2 * weights * plan.moments,
        "gradients": 0 if plan.fused else weights * FLOAT,
        "copy of W_enc": plan.rows * plan.width * HALF if plan.fused else 0,
        "batch: x, its half, x_hat, G": numbers * (3 * FLOAT + HALF),
        "lists of candidates": plan.batch * plan.k * LIST * 8,
    }


def checkpoint(plan: Plan) -> float:
    """Bytes of a checkpoint of the whole dictionary: parameters, moments, 16 bytes of counters a
    feature."""
    weights = 2 * plan.features * plan.width + plan.features + plan.width
    return weights * (FLOAT + 2 * plan.moments) + 16 * plan.features


def cache(tokens: float, width: int, number: int, scale: int = 0, context: int = 0) -> float:
    """Bytes of a cache's shards: a number of `number` bytes for each of d, `scale` bytes a token
    (of int8), 4 for the token and 4 for its document. context: positions of one; each has a first
    that is stored and does not count (0: none)."""
    positions = tokens * context / (context - 1) if context else tokens
    return positions * (width * number + scale + 8)


def forward(parameters: float, tokens: float) -> float:
    """Operations of a language model that reads tokens: 2 for each of its parameters."""
    return 2 * parameters * tokens
