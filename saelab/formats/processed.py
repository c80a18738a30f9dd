"""Models that TransformerLens processed before an SAE was trained on them: what that changes of the
activations it saw, against the model as it was published, which is what runs here.

- `center_writing_weights` takes the mean over D off all that is written into the stream of a model
  with layer norms: x becomes x - mean(x), at the stream and at what the parts add to it.
- `fold_ln` moves the norms' gains into the maps behind them: the stream, what the parts add to it,
  heads, neurons, and what a norm gives before its gain stay as they are.
- `fold_value_biases` and `refactor_factored_attn_matrices` change values inside the heads.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saelab.errors import UsageError

WRITTEN = re.compile(
    r".*(?:hook_resid_(?:pre|mid|post)|hook_(?:attn|mlp)_out|hook_(?:pos_)?embed|\d+\.hook_(?:in|out)"
    r"|(?:attn|mlp|embed)\.hook_out)"
)
IN_HEADS = {
    "fold_value_biases": re.compile(r".*hook_(?:z|v)"),
    "refactor_factored_attn_matrices": re.compile(r".*hook_(?:z|v|q|k)"),
}
# Families without layer norms, whose writing weights TransformerLens leaves as they are.
RMS_NORMS = re.compile(
    "llama|gemma|mistral|mixtral|qwen|olmo-?2|phi-?3|deepseek|glm", re.IGNORECASE
)
FIRST_RAW = (3, 19, 2)  # version of SAELens since which models are not processed by default


def mean_free(said: Mapping[str, Any], path: Path) -> bool:
    """Whether the activations that an SAE saw had their mean over D taken off. Raises UsageError
    for a place that was changed in a way that the published weights do not undo."""
    options = said.get("model_from_pretrained_kwargs") or {}
    hook = str(said.get("hook_name"))
    for option, places in IN_HEADS.items():
        if options.get(option) and places.fullmatch(hook):
            raise UsageError(
                f"{path} reads {hook} of a model that was loaded with {option}, which changes what "
                "heads hold: the model as published does not give that"
            )
    centred = bool(options.get("center_writing_weights")) and bool(WRITTEN.fullmatch(hook))
    return centred and not RMS_NORMS.search(str(said.get("model_name")))


def may_be_mean_free(version: Any, hook: str, model: str, options: Any) -> bool:
    """Whether nobody can tell: SAELens processed models by default until a version, and said so in
    no file."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", str(version or ""))[:3])
    written = bool(WRITTEN.fullmatch(hook)) and not RMS_NORMS.search(model)
    return numbers < FIRST_RAW and written and options is None
