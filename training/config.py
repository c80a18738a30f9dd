"""One training run as a frozen value, and its YAML form."""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from saelab import device
from saelab.dictionaries.names import Name
from saelab.errors import UsageError
from saelab.ranges import Count, Decay, Part, Positive, Seed, Several, Share, Weight

from . import rate, recipe

if TYPE_CHECKING:
    from saelab.sparsify import Sparsify


FREE = {"out", "wandb", "log_every", "checkpoint_every", "cache", "device", "layout"}
FREE |= {"model", "text"}  # wherever they lie: what they are is compared


@dataclass(frozen=True)
class Config:
    """Everything that decides a run's result, and where it reads and writes.

    >>> config = Config(cache="caches/a", out="runs/a", k=32)
    >>> folder = train(config)
    """

    cache: str = ""
    """activation cache to train on"""
    out: str = ""
    """run folder to write"""
    hook: str | None = None
    """hook point to train on (default: the cache's only one); a+b names several as one"""
    target: str | None = None
    """hook point to predict instead of the input: makes a transcoder"""
    crosscoder: bool = False
    """one dictionary over all the hooks given, side by side, instead of a run of each"""
    clt: bool = False
    """a cross-layer transcoder of all the hooks given: features of each layer (--features and --k
    are those of one) write to that layer's target and all later ones"""
    live: bool = False
    """train without a cache, on a model that runs over a text meanwhile; what follows up to `keep`
    is for this alone"""
    model: str = "bundled"
    """bundled, a folder in Hugging Face layout, or a hub name"""
    model_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """what the model computes in (default: bfloat16 on a GPU that has it, unless scores need
    gradients; else float32)"""
    text: str = "stdlib"
    """stdlib, bundled-mix, a file or folder, or a hub dataset; at its end it begins anew, shuffled
    otherwise"""
    text_field: str = "text"
    """field or column of records that holds the text"""
    context: Several | None = None
    """positions per context (default: the model's, at most 1024)"""
    ring: Count = 262_144
    """positions whose activations are on the device, and are shuffled, together"""
    keep: Count = 1_000_000
    """positions, from the text's beginning, of the cache that is kept in the run's folder for later
    verbs, and for the levels of batch and feature budgets"""
    normalise: Literal["none", "token"] = "none"
    """token: subtract each token's mean and divide by its standard deviation, which the saved SAE
    then does too (not for transcoders); none: all tokens are divided by one number"""
    sparsify: str = "topk"
    """sparsifier: topk, abstopk, batchtopk, mutual-choice, feature-choice, g-sae, jumprelu, relu;
    or, with signed or gradient scores, signed-, gradient- or signed-gradient- before topk,
    mutual-choice or feature-choice"""
    dictionary: Name | None = None
    """fit a label-free dictionary instead of training an SAE; pca, ica, neurons and orthogonal have
    as many features as activations numbers, bsc, tsc and gsc at most 4 pairs per token"""
    k: Count = 32
    """pairs per token, on average; of jumprelu the L0 that its penalty aims at"""
    beta: Weight | None = None
    """weight of the gradient in the score (default: the sparsifier's own: 1 for g-sae and
    gradient-*, else 0)"""
    shares: Literal["equal", "zipf"] = "equal"
    """how a feature budget is shared out: equally, or by Zipf's law of the rank"""
    mutual: Part = 0.0
    """share of the steps that a feature budget starts as a batch budget, whose densities then give
    the ranks and Zipf's law"""
    skip: bool = False
    """give a transcoder a linear skip connection"""
    freeze: Literal["none", "decoder"] = "none"
    """decoder: its rows stay the random ones that they start as, while all else is trained: what a
    metric must tell a trained SAE from"""
    encoder: Literal["fitted", "unit"] = "fitted"
    """fitted: encoder rows start at the length that makes the first reconstruction best, and a
    transcoder's decoder rows at what is to be written where their features fire; unit: random rows
    of norm 1"""
    loss: Literal["plain", "matryoshka", "hierarchical", "multi-k"] = "plain"
    """reconstruction of the code, or of nested parts of it: prefixes of the dictionary, the j
    largest values, k and 4k"""
    prefixes: tuple[Count, ...] = ()
    """where matryoshka's prefixes or hierarchical's numbers of values end (default: F/16, F/8, F/4,
    F/2, F; 1 to k)"""
    penalty: Literal["none", "l0", "tanh", "l1"] | None = None
    """of jumprelu and relu: (L0 / k - 1)^2, tanh(4 |values|) / k or |values| / k (default: l0 for
    jumprelu, l1 for relu)"""
    penalty_weight: Weight | None = None
    """weight of the penalty (default: 1 for l0, else 0.1)"""
    features: Count = 4096
    """dictionary size F"""
    tokens: Count = 2_000_000
    """training tokens, such as 500k or 2M; beyond the cache's come further epochs, reordered"""
    batch: Count = 2048
    """tokens per step"""
    lr: Positive | None = None
    """peak learning rate (default: by the run's steps, F, D and k: for D = 256 from 0.0115 for the
    shortest runs down to 2e-4 / sqrt(F / 2^14) at 30,000 steps)"""
    warm_up: Share = 0.05
    """share of the steps over which the rate rises from 0"""
    decay: Share = 0.2
    """share of the steps over which the rate falls linearly to 0 at the end"""
    beta1: Part = 0.9
    """Adam's first moment decay"""
    beta2: Part = 0.999
    """Adam's second moment decay"""
    moments: Literal["float32", "bfloat16"] = "float32"
    """dtype of Adam's moments; bfloat16 is rounded stochastically, takes half their memory, and
    cost no FVU that three seeds could show (within 1% where features are rare, 3% else)"""
    lazy: bool = True
    """Adam leaves a feature as it is while it has no gradient, instead of moving it on by its last
    ones, so that far fewer features die; in float32 alone"""
    clip: Positive | None = None
    """largest global norm of the gradient (default: unlimited)"""
    ema: Decay | None = None
    """decay of a moving average of the weights, which is then what is saved (default: the last
    weights are)"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """dtype of the parameters in training; they are saved as float32"""
    aux: Weight = 1 / 32
    """weight of the AuxK loss"""
    aux_zipf: Weight = 0.0
    """features rarer than this share of what Zipf's law expects at their rank take part in AuxK (0:
    dead ones only)"""
    k_aux: Count | None = None
    """dead features per token in AuxK (default: D / 2)"""
    revive: bool = False
    """once per window give dead features that no gradient of AuxK reaches new rows, towards tokens
    with a high error; whether that lowers the FVU is not measured"""
    dead_window: Count | None = None
    """tokens without firing after which a feature counts as dead (default: 10M, or a tenth of the
    run if that is shorter)"""
    calibration: Count = 500_000
    """tokens whose activations set the inference levels of batch and feature budgets"""
    order_seed: Seed = 0
    """seed of the data order; runs trained in one pass share it"""
    device: str | None = None
    """device that the SAE trains on, such as cuda:1 (default: cuda where there is one, else cpu);
    what is saved may be resumed on another"""
    layout: Literal["auto", "sharded", "replicated"] = "auto"
    """what the ranks that torchrun starts share out: the features of the dictionary (sharded), or
    the tokens of each batch (replicated: every rank holds the whole dictionary); auto: sharded
    where batch < 3 x features"""
    backend: Literal["reference", "cpu", "triton"] | None = None
    """kernels (default: by device)"""
    checkpoint_every: Count = 500
    """steps between checkpoints"""
    log_every: Count = 20
    """steps between rows of metrics.jsonl"""
    wandb: bool = False
    """also log to Weights & Biases (offline unless WANDB_MODE says otherwise)"""
    seed: Seed = 0
    """seed of the initial weights, which differ between configurations of one seed too"""

    @property
    def n_steps(self) -> int:
        """Steps of the whole run."""
        return self.tokens // self.batch

    def learning_rate(self, d_model: int) -> float:
        """The peak learning rate for inputs of this width: as given, or the default for it."""
        default = rate.default(self.n_steps, self.features, d_model, self.k)
        return default if self.lr is None else self.lr

    @property
    def window(self) -> int:
        """Tokens without firing after which a feature is dead."""
        return self.dead_window or min(10_000_000, self.tokens // 10)

    @property
    def place(self) -> str:
        """The device that it trains on here. Raises UsageError for one that is not."""
        return device.chosen(self.device)

    @property
    def form(self) -> "Sparsify":
        """The sparsifier in training. Raises UsageError for an unknown name, or a beta for one
        without a score."""
        from saelab.sparsify import Choice, named

        try:
            form = named(self.sparsify, self.k)
            if self.beta is None:
                return form
            if not isinstance(form, Choice):
                raise UsageError(
                    f"beta={self.beta}: {self.sparsify} has no score; give topk, mutual-choice or "
                    "feature-choice"
                )
            return replace(form, beta=self.beta)
        except ValueError as error:
            raise UsageError(str(error)) from None

    @property
    def penalty_of(self) -> tuple[str, float]:
        """Name and weight of the penalty."""
        name = self.penalty or {"jumprelu": "l0", "relu": "l1"}.get(self.sparsify, "none")
        usual = 1.0 if name == "l0" else 0.1
        return name, usual if self.penalty_weight is None else self.penalty_weight

    def differing(self, other: "Config") -> str:
        """`field: mine / other's` for each field that changes the result; the run's place, logging
        and checkpoints do not, the device by rounding only."""
        pairs = (
            (f.name, getattr(self, f.name), getattr(other, f.name))
            for f in fields(self)
            if f.name not in FREE
        )
        return ", ".join(
            f"{name}: {mine!r} / {theirs!r}" for name, mine, theirs in pairs if mine != theirs
        )


def values(path: Path | str) -> dict[str, Any]:
    """The fields in a YAML file as the command line would read them, lists as tuples. Raises
    UsageError for an unknown field, a value that its field cannot have, or a bad file."""
    given = recipe.words(path)
    known = get_type_hints(Config)
    if unknown := [name for name in given if name not in known]:
        raise UsageError(f"{path}: no field {', '.join(unknown)}; there are {', '.join(known)}")
    return {name: recipe.typed(path, name, known[name], word) for name, word in given.items()}


def read(path: Path | str) -> Config:
    """The Config of a YAML file; missing fields keep their defaults. Raises UsageError for an
    unknown field or a bad file."""
    return replace(Config(), **values(path))


def write(config: Config, path: Path) -> None:
    """Write the Config as YAML, atomically."""
    import yaml

    from saelab.files import write_atomic

    text = yaml.safe_dump(asdict(config), sort_keys=False)
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
