"""Finding a language model by name and loading it behind a TransformerLens bridge.

A name is one of BUNDLED, a folder in Hugging Face layout, or a hub name; tried in this order are
folder, local hub cache, hub, each once. Whether a model exists is known before transformer_lens,
whose import takes seconds, is imported.
"""

from importlib import resources
from pathlib import Path
from typing import Any

from saelab.device import chosen, out_of_memory
from saelab.errors import FailedRun, UsageError
from saelab.files import read_object
from saelab.models import hub, tokens
from saelab.models.families import family_of, reads_images
from saelab.models.model import Located, Model, quiet
from saelab.models.weights import Reader, refuse_non_finite

DTYPES = ("float32", "bfloat16", "float16", "float64")
BUNDLED = ("bundled", "bundled-vision")
READERS = "tokenizer.json tokenizer.model vocab.json preprocessor_config.json".split()


def weight_files(folder: Path) -> list[Path]:
    """The model's weight files, sorted by name: safetensors if there are any, else PyTorch's own
    format."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def missing_files(folder: Path) -> list[str]:
    """Which parts of a model in Hugging Face layout the folder lacks; every file a sharded model's
    index names counts."""
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = set(read_object(index).get("weight_map", {}).values())
        missing += sorted(file for file in named if not (folder / file).is_file())
    elif not weight_files(folder):
        missing.append("model.safetensors")
    if not any((folder / file).is_file() for file in READERS):
        missing.append("tokenizer.json")
    return missing


def tokenizer_file(folder: Path) -> Path:
    """The file that holds a model's tokenizer, or says how its images are prepared."""
    return next(folder / file for file in READERS if (folder / file).is_file())


def _complete(name: str, folder: Path, commit: str | None = None) -> Located:
    if missing := missing_files(folder):
        raise UsageError(f"{folder} is not a model folder: it lacks {', '.join(missing)}")
    return Located(name, folder, commit)


def _bundled(name: str) -> Located:
    tried = [Path(str(resources.files("saelab"))) / "_data" / name]
    tried.append(tried[0].parents[2] / "data" / name)
    for folder in tried:
        if (folder / "config.json").is_file():
            return _complete(name, folder)
    raise UsageError(
        f"{name} is missing from this installation (looked in {tried[0]} and {tried[1]})"
    )


def locate(name: str | Path) -> Located:
    """Find the model `name`. Raises UsageError, within 3 seconds without a network, when there is
    none or a file is missing."""
    if str(name) in BUNDLED:
        return _bundled(str(name))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _complete(str(folder.resolve()), folder.resolve())
    name = str(name)
    snapshot = hub.cached(name)
    if snapshot is not None and not missing_files(snapshot):
        return Located(name, snapshot, snapshot.name)
    answer = hub.has(name, "model")
    if answer != "yes":
        raise UsageError(
            f"unknown model {name!r}: no such folder, not in the local hub cache, and "
            f"{hub.refusal(answer)}; give a folder in Hugging Face layout, a hub name, or "
            "`bundled`"
        )
    snapshot = hub.download(name)
    return _complete(name, snapshot, snapshot.name)


def located(model: object) -> Located | None:
    """Where a model that `load` found lies; None for one from elsewhere."""
    return model.located if isinstance(model, Model) else None


def load(model: Any, device: str = "cpu", tokenizer: Any = None, dtype: str = "float32") -> Model:
    """Load a model: eval mode, parameters without gradients; one in memory stays as it is.

    model: a name (`bundled`, a folder, a hub name), or a Hugging Face model or TransformerBridge in
    memory, with its tokenizer where it has none of its own. dtype: of its weights and activations,
    one of DTYPES.

        model = load("bundled", "cuda", dtype="bfloat16")
        model = load(AutoModelForCausalLM.from_pretrained("gpt2").eval(), tokenizer=tokenizer)

    Raises UsageError when there is no such model, device or dtype, TransformerLens does not know
    its architecture, or weights are missing, of another shape or not finite; FailedRun when its
    files are damaged.
    """
    if not isinstance(model, str | Path):
        return _held(model, tokenizer)
    if dtype not in DTYPES:
        raise UsageError(f"no dtype {dtype!r} for a model; there are {', '.join(DTYPES)}")
    located = locate(model)
    device = chosen(device)
    try:
        with quiet():
            if (vision := _vision(located)) is not None:
                return vision.load(located, device, dtype)
            known = family_of(causal_class(located.folder)) is not None
            return (_plain if known else _bridged)(located, device, dtype)
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(
            f"{located.name} cannot be loaded: {str(error).splitlines()[0]}"
        ) from error
    except Exception as error:
        if out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        unreadable = _unreadable(located.folder)
        what = f"{unreadable[0]} cannot be read: {unreadable[1]}" if unreadable else reason
        raise FailedRun(f"{located.name} cannot be loaded: {what}") from error


def _unreadable(folder: Path) -> tuple[Path, Exception] | None:
    """The first weight file whose header or length is wrong, and what is said of it."""
    from safetensors import safe_open

    for file in folder.glob("*.safetensors"):
        try:
            with safe_open(file, "np"):
                pass
        except Exception as error:
            return file, error
    return None


def tokenizer_of(located: Located) -> Any:
    """A model's tokenizer as its folder has it. Raises UsageError where it is another model's."""
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(located.folder)
    config = AutoConfig.from_pretrained(located.folder).get_text_config()
    if (n_embeddings := getattr(config, "vocab_size", None)) is not None:
        tokens.check_fits(tokenizer, n_embeddings, located.name)
    return tokenizer


def causal_class(folder: Path) -> str:
    """The class of transformers that predicts tokens with a folder's model: the one it names, or
    of a base model or classifier the one for its type; "" where transformers has none."""
    import transformers
    from transformers.models.auto import modeling_auto

    config = read_object(folder / "config.json")
    named = (config.get("architectures") or [""])[0]
    if family_of(named) is not None or not hasattr(transformers, named):
        return named
    by_type = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return by_type.get(config.get("model_type"), named)


def reader(located: Located) -> Reader:
    """What reads the weights of a model that lies somewhere."""
    import transformers

    if (vision := _vision(located)) is not None:
        return vision.reader(located)
    if family_of(causal_class(located.folder)) is not None:
        return Reader(transformers.AutoModelForCausalLM, located.name)
    from transformer_lens.model_bridge.sources import transformers as source

    kind = source.get_hf_model_class_for_architecture(_architecture(located.folder))
    return Reader(kind, located.name)


def _vision(located: Located) -> Any:
    """What loads a model of images; None for a model of another kind."""
    from saelab.models import vision

    return vision if reads_images(read_object(located.folder / "config.json")) else None


def _architecture(folder: Path) -> str:
    """What the bridge calls a folder's model. Raises ValueError for one that it does not know."""
    from transformer_lens.model_bridge.sources import transformers as source
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    try:
        return source.determine_architecture_from_hf_config(config)
    except ValueError:  # a base model or a classifier of a type that it does know
        config.architectures = [causal_class(folder)]
        return source.determine_architecture_from_hf_config(config)


def _plain(located: Located, device: str, dtype: str) -> Model:
    import torch

    tokenizer, weights = tokenizer_of(located), reader(located)
    plain: Any = weights.from_pretrained(located.folder, dtype=getattr(torch, dtype)).to(device)
    return Model(plain.eval().requires_grad_(False), tokenizer, located, weights=weights)


def _bridged(located: Located, device: str, dtype: str) -> Model:
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    tokenizer, weights = tokenizer_of(located), reader(located)
    bridge = TransformerBridge.boot_transformers(
        str(located.folder),
        {"architectures": [_architecture(located.folder)]},
        device=device,
        dtype=getattr(torch, dtype),
        model_class=weights,
    )
    bridge.eval().requires_grad_(False)
    # The bridge has a tokenizer of its own, which it gives tokens that the folder's has not.
    return Model(None, tokenizer, located, bridge, weights)


def _held(model: Any, tokenizer: Any) -> Model:
    """A model that the user has in memory, behind the door."""
    if isinstance(model, Model):
        return model
    if getattr(model, "training", False):
        raise UsageError("this model is in training mode: call its eval() first")
    if hasattr(model, "named_parameters"):
        refuse_non_finite(model, f"this {type(model).__name__}")
    if hasattr(model, "run_with_hooks"):
        return Model(None, tokenizer or model.tokenizer, None, model)
    if hasattr(model, "get_output_embeddings"):
        return Model(model, tokenizer)
    raise UsageError(
        f"a {type(model).__name__} is no language model that can be run here: give a name, a "
        "Hugging Face model or a TransformerBridge"
    )
