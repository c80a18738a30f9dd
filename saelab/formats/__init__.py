"""The forms in which SAEs lie on disk: a row each of one table, which reading and writing look up.

A form that is missing here can be added from outside:

    formats.register(Format("mine", "weights.bin", recognise, read))
    sae = SAE.load("folder/with/weights.bin")
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from saelab.coder import Coder
from saelab.cross_layer import CrossLayerTranscoder
from saelab.errors import UsageError
from saelab.formats import (
    circuit_tracer,
    circuit_tracer_clt,
    dictionary_learning,
    dictionary_learning_writing,
    gemma_scope,
    linear_layers,
    llama_scope,
    llamascopium,
    native,
    openai,
    saelens,
    saelens_writing,
    saev,
    sparsify,
)
from saelab.formats.published import Published, made

if TYPE_CHECKING:
    from saelab.sae import SAE


class Format(NamedTuple):
    """One form of SAE files.

    >>> mine = Format("mine", "a folder with mine.json", is_mine, read_mine)
    >>> saelab.register("format", mine)
    """

    name: str
    """what it is called in messages and in `Origin.format`"""
    files: str
    """what it is known by, in words"""
    recognise: Callable[[Path], bool]
    """whether a folder or file is of this form, told without reading weights"""
    read: "Callable[[Path], Coder | Published]"
    """the SAE of a folder or file, or what its conventions are, of which `load` makes one"""
    write: Callable[..., None] | None = None
    """write(sae, path, **options); None if this form can only be read"""


ACROSS = "circuit_tracer_clt"  # the one form of others that holds cross-layer transcoders
DEPTH = 4  # folders that a folder of many is searched for them

ROWS = (
    Format("saelab", "sae.json", native.recognise, native.read, native.write),
    Format(
        "saelens",
        "cfg.json and sae_weights.safetensors",
        saelens.recognise,
        saelens.read,
        saelens_writing.write,
    ),
    Format(
        "sparsify",
        "cfg.json and sae.safetensors",
        sparsify.recognise,
        sparsify.read,
        sparsify.write,
    ),
    Format(
        "dictionary_learning",
        "ae.pt",
        dictionary_learning.recognise,
        dictionary_learning.read,
        dictionary_learning_writing.write,
    ),
    Format("openai", "a .pt with pre_bias", openai.recognise, openai.read, openai.write),
    Format(
        "gemma_scope",
        "params.npz or params.safetensors",
        gemma_scope.recognise,
        gemma_scope.read,
    ),
    Format(
        "llama_scope",
        "hyperparams.json and checkpoints/final.safetensors",
        llama_scope.recognise,
        llama_scope.read,
    ),
    Format(
        "r1_distill",
        "config.json and sae_weights.safetensors with log_jumprelu_threshold",
        llama_scope.recognise_distilled,
        llama_scope.read_distilled,
    ),
    Format("qwen_scope", "layerN.sae.pt", linear_layers.recognise_qwen, linear_layers.read_qwen),
    Format(
        "goodfire",
        "a .pt with encoder_linear",
        linear_layers.recognise_goodfire,
        linear_layers.read_goodfire,
    ),
    Format(
        "deepseek",
        "a .pt with encoder and decoder",
        linear_layers.recognise_deepseek,
        linear_layers.read_deepseek,
    ),
    Format("circuit_tracer", "layer_N.safetensors", circuit_tracer.recognise, circuit_tracer.read),
    Format(
        "circuit_tracer_clt",
        "W_enc_N.safetensors and W_dec_N.safetensors",
        circuit_tracer_clt.recognise,
        circuit_tracer_clt.read,
        circuit_tracer_clt.write,
    ),
    Format(
        "llamascopium",
        "config.json with sae_type, and weights",
        llamascopium.recognise,
        llamascopium.read,
    ),
    Format("saev", "a .pt that begins with a line of JSON", saev.recognise, saev.read),
)
FORMATS = {form.name: form for form in ROWS}


def register(form: Format) -> None:
    """Add a form. Raises UsageError for what is no form, and for a name that is taken."""
    if not isinstance(form, Format):
        raise UsageError(f"{form!r} is a {type(form).__name__}: a saelab.Format is right")
    if not (callable(form.recognise) and callable(form.read)):
        raise UsageError(f"`recognise` and `read` of format {form.name} must be functions")
    if form.name in FORMATS:
        raise UsageError(f"there is a format {form.name!r} already: choose another name")
    FORMATS[form.name] = form


def known(place: Path) -> Format | None:
    """The form of a folder or file itself; None if it has no known one, or does not exist. Raises
    UsageError where two forms know it."""
    matching = [form for form in FORMATS.values() if place.exists() and form.recognise(place)]
    if len(matching) > 1:
        names = " and ".join(form.name for form in matching)
        raise UsageError(f"{place} could be of the forms {names}: say which with --format")
    return matching[0] if matching else None


def load(path: Path | str, form: str | None = None) -> "SAE":
    """The SAE of a folder or file of any known form, or of a run that holds one in `sae/`.

    form: the name of its form, where two know it. Raises UsageError where nothing known lies, with
    what was seen and what is known, for a folder of several SAEs, with their names, and for a
    cross-layer transcoder; whatever the form's own reader raises.

        sae = formats.load("runs/demo")
        sae = formats.load("gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82")
    """
    read = load_any(path, form)
    if isinstance(read, CrossLayerTranscoder):
        raise UsageError(
            f"{path} is a cross-layer transcoder of {read.n_layers} layers, and this takes an SAE "
            "or a transcoder of one: eval, export, graph, import, index and info take it"
        )
    return read


def load_any(path: Path | str, form: str | None = None) -> "SAE | CrossLayerTranscoder":
    """What lies at a path, be it an SAE or a cross-layer transcoder; see `load`."""
    read = meant(path, form)
    return made(read) if isinstance(read, Published) else read


def meant(path: Path | str, form: str | None = None) -> "SAE | CrossLayerTranscoder | Published":
    """What a folder or file says, as its form's reader understands it; of a published one no weight
    is read yet. Raises what `load` raises."""
    path = Path(path)
    if form is not None:
        return _named(form).read(path)
    if not path.exists():
        raise UsageError(
            f"{path} holds no SAE: {seen(path)}; name one that `saelab train` or `import` wrote, "
            "or a published one"
        )
    for place in (path, path / "sae"):
        if row := known(place):
            return row.read(place)
    if inside := several(path):
        names = ", ".join(inside[:8]) + ", ..." * (len(inside) > 8)
        raise UsageError(
            f"{path} holds {len(inside)} SAEs, and one is wanted: {path / inside[0]} would be "
            f"one ({names})"
        )
    forms = ", ".join(f"{row.name} ({row.files})" for row in FORMATS.values())
    raise UsageError(f"{path} holds no SAE: {seen(path)}; known are {forms}")


def _named(form: str) -> Format:
    if form not in FORMATS:
        raise UsageError(f"no format {form!r}; there are {', '.join(FORMATS)}")
    return FORMATS[form]


def several(path: Path, depth: int = DEPTH) -> list[str]:
    """The folders and files below a folder that are SAEs, as they would be named from it."""
    if not path.is_dir() or not depth:
        return []
    inside: list[str] = []
    for entry in sorted(path.iterdir()):
        if known(entry):
            inside.append(entry.name)
        else:
            inside += [f"{entry.name}/{name}" for name in several(entry, depth - 1)]
    return inside


def save(
    sae: "SAE | CrossLayerTranscoder", path: Path | str, form: str = "saelab", **options: Any
) -> None:
    """Write an SAE in a form. Raises UsageError for one that is unknown, can only be read, or is
    not of its kind."""
    writers = {name: row.write for name, row in FORMATS.items() if row.write}
    if form not in writers:
        raise UsageError(f"no format {form!r} to write; there are {', '.join(writers)}")
    crosses = isinstance(sae, CrossLayerTranscoder)
    if form != "saelab" and crosses != (form == ACROSS):
        right = ACROSS if crosses else "another form"
        raise UsageError(f"{sae!r} cannot be written as {form}: {right} is for it")
    writers[form](sae, Path(path), **options)


def seen(path: Path) -> str:
    """What lies at a path, in words, for who expected something else."""
    if not path.exists():
        return "there is no such folder"
    if not path.is_dir():
        return f"it is a file of {path.stat().st_size:,} bytes"
    names = sorted(entry.name for entry in path.iterdir())
    if "manifest.json" in names:
        return "it is a cache of activations"
    if "config.yaml" in names:
        return "its training has not finished (`saelab train --resume` goes on with it)"
    return f"it has {', '.join(names[:5])}{', ...' * (len(names) > 5)}" if names else "it is empty"
