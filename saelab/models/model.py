"""A language model behind one door: the plain Hugging Face model, and beside it a TransformerLens
bridge on the same weights, made when something first needs it (its import takes seconds)."""

import contextlib
import copy
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from saelab.models.families import Family, family_of, names
from saelab.models.weights import Reader


class Located(NamedTuple):
    """Where a model lies. name: `bundled`, the absolute folder, or the hub name. commit: of a hub
    snapshot, else None."""

    name: str
    folder: Path
    commit: str | None = None


class Facts(NamedTuple):
    """What the bridge's `cfg` says, read from the Hugging Face configuration."""

    n_layers: int
    n_heads: int
    n_key_value_heads: int | None
    d_model: int
    d_head: int
    n_ctx: int
    d_vocab: int
    device: str
    uses_rms_norm: bool
    rmsnorm_uses_offset: bool


class Model:
    """What `load` returns. Whatever it does not know itself (`blocks`, `W_U`, `run_with_hooks`,
    ...) it asks of the bridge.

        model = models.load("bundled")
        model.tokenizer, model.cfg.n_layers
    """

    reads_text = True

    def __init__(
        self,
        plain: Any,
        tokenizer: Any,
        located: Located | None = None,
        bridge: Any = None,
        weights: Reader | None = None,
    ) -> None:
        self.plain = plain
        """the Hugging Face model; None where only a bridge is given"""
        self.tokenizer = tokenizer
        self.located = located
        self.unread = weights.unread if weights else ()
        """weights in its files that it has no place for"""
        self.lacking = weights.lacking if weights else ()
        """weights of the head that its files do not hold"""
        self.family: Family | None = None if plain is None else family_of(type(plain).__name__)
        if bridge is not None:
            self.bridge = bridge

    @cached_property
    def bridge(self) -> Any:
        """A bridge on the plain model's weights (attention runs eagerly in it)."""
        return bridge_over(self.plain, self.tokenizer, self.located)

    @property
    def cfg(self) -> Any:
        """n_layers, n_heads, n_ctx, ...: the bridge's configuration, or what stands in for it until
        there is one."""
        if "bridge" in self.__dict__ or self.family is None:
            return self.bridge.cfg
        return self._facts

    @cached_property
    def _facts(self) -> Facts:
        config = self.plain.config
        n_heads, d_model = config.num_attention_heads, config.hidden_size
        assert self.family is not None  # else `cfg` asks the bridge
        norm = self.family.norm
        return Facts(
            config.num_hidden_layers,
            n_heads,
            getattr(config, "num_key_value_heads", None),
            d_model,
            getattr(config, "head_dim", None) or d_model // n_heads,
            config.max_position_embeddings,
            config.vocab_size,
            str(self.plain.device),
            norm != "layer",
            norm == "rms + 1",
        )

    @property
    def W_U(self) -> Any:
        """[D, V]: the unembedding."""
        if self.family is None:
            return self.bridge.W_U
        return self.plain.get_output_embeddings().weight.T

    @property
    def ln_final(self) -> Any:
        """The norm before the unembedding."""
        if self.family is None:
            return self.bridge.ln_final
        return self.plain.get_submodule(self.family.ends["ln_final"])

    @cached_property
    def names(self) -> dict[str, str]:
        """The names of hook points that the plain model has, with the canonical one."""
        return (
            {} if self.family is None else names(self.family, self.plain.config.num_hidden_layers)
        )

    def parameters(self) -> Any:
        """The parameters."""
        return (self.bridge if self.plain is None else self.plain).parameters()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("bridge", "plain"):
            raise AttributeError(name)
        return getattr(self.bridge, name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.bridge(*args, **options)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars or advice from transformers: a command's standard error ends with its own
    line."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def bridge_over(plain: Any, tokenizer: Any, located: Located | None) -> Any:
    """A bridge that shares a plain model's parameters and leaves the model as it is.

    The bridge puts its own modules in the place of the model's, so it gets a copy of them, made of
    the same tensors.
    """
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    tensors = [*plain.parameters(), *plain.buffers()]
    twin = copy.deepcopy(plain, {id(tensor): tensor for tensor in tensors})
    with quiet():
        if located:
            # A bridge changes its tokenizer.
            own = copy.deepcopy(tokenizer)
            options = {"device": plain.device, "dtype": plain.dtype, "tokenizer": own}
            bridge = TransformerBridge.boot_transformers(
                str(located.folder), hf_model=twin, **options
            )
        else:  # there is no folder to look for a tokenizer in
            twin.set_attn_implementation("eager")
            config = copy.deepcopy(twin.config)
            bridge = build_bridge_from_module(twin, type(plain).__name__, hf_config=config)
    return bridge.eval().requires_grad_(False)
