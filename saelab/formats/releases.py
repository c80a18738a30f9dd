"""Releases of SAELens's folders whose files leave out what decides their function: a row each,
known by their repository's name or by their number on Neuronpedia.

What stands here is in no file of theirs, only in the list of releases that SAELens comes with.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

CENTRED = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
GPT2 = ("gpt2", "gpt2-small", "openai-community/gpt2")


class Release(NamedTuple):
    """One release."""

    name: str
    repository: str
    """its name on the hub, without the owner"""
    models: tuple[str, ...]
    """what its files call its model"""
    hook: str
    """pattern of what it reads"""
    neuronpedia: str | None
    """pattern of its numbers there; None: it has none"""
    d_model: int
    widths: tuple[int, ...]
    """numbers of features"""
    said: Mapping[str, Any]
    """fields that its files lack, or have otherwise"""
    scales: Mapping[int, float] = {}
    """what inputs were multiplied by in training, by layer"""


RELEASES = (
    Release(
        "gpt2-small-res-jb",
        "GPT2-Small-SAEs-Reformatted",
        GPT2,
        r"blocks\.(\d+)\.hook_resid_(?:pre|post)",
        r"gpt2-small/\d+-res-jb",
        768,
        (24_576,),
        CENTRED,
    ),
    Release(
        "gpt2-small-res-jb-feature-splitting",
        "GPT2-Small-Feature-Splitting-Experiment-Layer-8",
        GPT2,
        r"blocks\.(8)\.hook_resid_pre",
        r"gpt2-small/8-res_fs\d+-jb",
        768,
        tuple(768 << power for power in range(8)),
        CENTRED,
    ),
    Release(
        "gpt2-small-mlp-tm",
        "gpt2-small-mlp-out-saes",
        GPT2,
        r"blocks\.(\d+)\.hook_mlp_out",
        None,
        768,
        (24_576,),
        CENTRED | {"normalize_activations": "expected_average_only_in"},
        {
            0: 1.049317316132615, 1: 2.3693984005104283, 2: 1.6411934982190302,
            3: 1.8958522157897557, 4: 1.81673478700627, 5: 1.550234472245924,
            6: 1.3237742807210804, 7: 1.1042905114723296, 8: 0.9123762783479742,
            9: 0.6955335635232373, 10: 0.3619728926727644, 11: 0.2851548652550073,
        },
    ),
    Release(
        "gemma-2b-res-jb",
        "Gemma-2b-Residual-Stream-SAEs",
        ("gemma-2b", "google/gemma-2b"),
        r"blocks\.(\d+)\.hook_resid_post",
        r"gemma-2b/\d+-res-jb",
        2048,
        (16_384,),
        {},
        {12: 0.21381938399317255},
    ),
    Release(
        "mistral-7b-res-wg",
        "Mistral-7B-Residual-Stream-SAEs",
        ("mistral-7b", "mistralai/Mistral-7B-v0.1"),
        r"blocks\.(\d+)\.hook_resid_pre",
        None,
        4096,
        (65_536,),
        {"normalize_activations": "constant_norm_rescale"},
    ),
)  # fmt: skip


def completed(said: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The fields of a folder's configuration with those that its release is known to need, as
    SAELens has them, whatever the file says; `release` then names it.

    >>> completed({"model_name": "gpt2-small", "hook_name": "blocks.3.hook_resid_pre"},
    ...           Path("GPT2-Small-SAEs-Reformatted/blocks.3.hook_resid_pre"))["release"]
    'gpt2-small-res-jb'
    """
    for release in RELEASES:
        place = re.fullmatch(release.hook, str(said.get("hook_name")))
        if place and said.get("model_name") in release.models and _is_of(release, said, path):
            scale = release.scales.get(int(place[1]))
            known = {} if scale is None else {"norm_scaling_factor": scale}
            return {**said, **release.said, **known, "release": release.name}
    return dict(said)


def _is_of(release: Release, said: Mapping[str, Any], path: Path) -> bool:
    """Whether the path names its repository, or the file its number on Neuronpedia and its
    shape."""
    if release.repository.lower() in re.split(r"[/\\]|--", str(path.absolute()).lower()):
        return True
    number = str(said.get("neuronpedia_id"))
    numbered = release.neuronpedia is not None and re.fullmatch(release.neuronpedia, number)
    return bool(
        numbered and said.get("d_in") == release.d_model and said.get("d_sae") in release.widths
    )
