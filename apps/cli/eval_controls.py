"""Controls of `saelab eval --controls`, among them the run's twin with a frozen decoder, which is
trained where the run has none."""

from typing import TYPE_CHECKING, Any

from saelab.door import beside as beside_package
from saelab.errors import UsageError
from saelab.runs import RunFolder

from .progress import stage

if TYPE_CHECKING:
    from saelab import SAE
    from saelab.activations import Cache
    from saelab.opening import Opened


def controls_of(opened: "Opened", seed: int, place: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Controls by name; and why there is no frozen decoder, if there is none."""
    from saelab.evaluation import controls
    from saelab.evaluation.synthetic_cache import world_of

    _, sae, cache_, _ = opened
    here = {
        "random_init": controls.untrained(sae, cache_, seed),
        "permuted_decoder": controls.permuted_decoder(sae, seed),
    }
    if not hasattr(sae, "W_dec"):
        return here, {"no_frozen_decoder": "a cross-layer transcoder has none"}
    here |= {
        "random_directions": controls.random_directions(sae, seed),
        "shuffled_code": controls.shuffled_code(sae, seed),
    }
    if cache_.plan.model.get("spec"):
        here["oracle"] = controls.oracle(world_of(cache_), sae.origin).to(sae.W_enc)
    try:
        twin = frozen_decoder(opened, seed, place)
    except UsageError as error:
        return here, {"no_frozen_decoder": str(error)}
    return {**here, "frozen_decoder": twin}, {}


def frozen_decoder(opened: "Opened", seed: int, place: str) -> "SAE":
    """The run's twin with a frozen decoder, at the run's L0; trained now unless the run holds it.
    Raises UsageError for an SAE that was not trained here."""
    from saelab.evaluation import controls

    folder, sae, cache_, _ = opened
    twin = _trained(folder, cache_, place).to(sae.W_enc)
    l0, sample = controls.measured_l0(sae, cache_, seed), controls.sample(sae, cache_)
    return controls.matched(twin, l0, sample)


def _trained(folder: RunFolder, cache_: "Cache", place: str) -> "SAE":
    from .train import train_showing_progress

    here = beside_package("training.controls")
    config = here.frozen_config(folder, cache_.path, place)
    stage(f"{folder.path}: a frozen decoder is trained as long, kept in {config.out}")
    return here.frozen_decoder(config, lambda each: train_showing_progress([each], resume=True))
