"""One training run as a frozen value, its YAML form, and the checks that need nothing but its own fields."""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from saelab.errors import UsageError


@dataclass(frozen=True)
class Config:
    """Everything that decides a run's result, and where it reads and writes."""

    cache: str = ""
    """activation cache to train on"""
    out: str = ""
    """run folder to write"""
    hook: str | None = None
    """hook point to train on (default: the cache's only one)"""
    target: str | None = None
    """hook point to predict instead of the input: makes a transcoder"""
    sparsify: str = "topk"
    """sparsifier: topk, abstopk, batchtopk, mutual-choice, feature-choice, g-sae, jumprelu, relu"""
    k: int = 32
    """pairs per token, on average"""
    features: int = 4096
    """dictionary size F"""
    tokens: int = 2_000_000
    """training tokens; more than the cache holds means further epochs in another order"""
    batch: int = 2048
    """tokens per step"""
    lr: float | None = None
    """learning rate (default: 2e-4 / sqrt(F / 2^14))"""
    warm_up: float = 0.05
    """share of the steps over which the rate rises from 0"""
    decay: float = 0.2
    """share of the steps over which the rate falls linearly to 0 at the end"""
    beta1: float = 0.9
    """Adam's first moment decay"""
    beta2: float = 0.999
    """Adam's second moment decay"""
    aux: float = 1 / 32
    """weight of the AuxK loss"""
    k_aux: int | None = None
    """dead features per token in AuxK (default: D / 2)"""
    dead_window: int | None = None
    """tokens without firing after which a feature counts as dead (default: 10M, or a tenth of the run if that is shorter)"""
    order_seed: int = 0
    """seed of the data order; runs trained in one pass share it"""
    backend: Literal["reference", "cpu", "triton"] | None = None
    """kernels (default: by device)"""
    checkpoint_every: int = 500
    """steps between checkpoints"""
    log_every: int = 20
    """steps between rows of metrics.jsonl"""
    wandb: bool = False
    """also log to Weights & Biases (offline unless WANDB_MODE says otherwise)"""
    seed: int = 0
    """seed of the initial weights"""

    @property
    def n_steps(self) -> int:
        """Steps of the whole run."""
        return self.tokens // self.batch

    @property
    def learning_rate(self) -> float:
        """The peak learning rate: as given, or 2e-4 / sqrt(F / 2^14) (Gao et al. 2024, the field's usual constant)."""
        return self.lr if self.lr is not None else 2e-4 / (self.features / 2**14) ** 0.5

    @property
    def window(self) -> int:
        """Tokens without firing after which a feature is dead."""
        return self.dead_window if self.dead_window is not None else min(10_000_000, self.tokens // 10)

    def check(self) -> None:
        """Raise UsageError, with the numbers, for fields that cannot go together."""
        from saelab.sparsify import TABLE

        if not self.cache:
            raise UsageError("no cache named: --cache DIR (make one with `saelab capture`)")
        if not self.out:
            raise UsageError("no run folder named: --out RUN")
        if self.sparsify not in TABLE:
            raise UsageError(f"no sparsifier {self.sparsify!r}; there are {', '.join(TABLE)}")
        if not 1 <= self.k <= self.features:
            what = "more than" if self.k > self.features else "not a number of pairs for"
            raise UsageError(f"k={self.k} is {what} features={self.features}: choose k between 1 and {self.features}")
        if self.n_steps < 1:
            raise UsageError(f"tokens={self.tokens} is less than one batch of {self.batch}")
        if self.sparsify == "feature-choice" and self.k * self.batch < self.features:
            least = -(-self.features // self.k)
            raise UsageError(f"a batch of {self.batch} gives {self.features} features less than one pair each: --batch {least}")

    def differing(self, other: "Config") -> str:
        """`field: mine / other's` for each field that changes the result; the run's place and logging do not."""
        free = {"out", "wandb", "log_every", "cache"}
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if f.name not in free)
        return ", ".join(f"{name}: {mine!r} / {theirs!r}" for name, mine, theirs in pairs if mine != theirs)


def read(path: Path | str) -> Config:
    """The Config of a YAML file; missing fields keep their defaults. Raises UsageError for an unknown field or a bad file."""
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read the recipe {path}: {' '.join(str(error).split())}") from None
    known = [f.name for f in fields(Config)]
    unknown = [name for name in values if name not in known] if isinstance(values, dict) else ["(not a mapping)"]
    if unknown:
        raise UsageError(f"{path}: no field {', '.join(unknown)}; there are {', '.join(known)}")
    return replace(Config(), **{name: _as_number(value) for name, value in values.items()})


def _as_number(value: Any) -> Any:
    """YAML 1.1 reads `1e-3` as text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def write(config: Config, path: Path) -> None:
    """Write the Config as YAML, atomically."""
    import yaml

    from saelab.files import write_atomic

    text = yaml.safe_dump(asdict(config), sort_keys=False)
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
