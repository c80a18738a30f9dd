"""Concepts of a cache of scenes: the patches that activations are of are those that labels are
of."""

import numpy as np
import pytest
import scipy.sparse
import torch

from saelab import SAE, Choice, models
from saelab.activations import Cache
from saelab.activations.from_images import from_images
from saelab.activations.seen import Looking
from saelab.errors import UsageError
from saelab.evaluation import alignment, concepts
from saelab.evaluation.alignment import Labelled
from saelab.scenes.drawing import SIZE
from saelab.scenes.labels import patch_labels
from tests.pictures.tiny import folder

HOOK = "blocks.0.hook_resid_post"
N, PATCH = 40, 16
POSITIONS = (SIZE // PATCH) ** 2 + 1


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cache, Looking]:
    """Scenes as a tiny model with a [CLS] position sees them."""
    at = tmp_path_factory.mktemp("scenes")
    model = models.load(str(folder("ViTModel", at / "model", image_size=SIZE, patch_size=PATCH)))
    cache = Cache.write(
        at / "cache", from_images(model, "scenes", [HOOK], N * POSITIONS, dtype="float32")
    )
    return cache, Looking(cache, model)


def test_patches_carry_their_own_labels(seen: tuple[Cache, Looking]):
    cache, looking = seen
    here = concepts.of_images(cache, HOOK, looking, "train", 10**6)
    assert len(here.x) == len(here.labels) == len(here.owners) == cache.n_tokens("train")
    names = cache.document_names()
    numbers = [int(names[owner].removeprefix("scene ")) for owner in dict.fromkeys(here.owners)]
    drawn = patch_labels(numbers, PATCH)
    assert np.array_equal(here.labels, drawn.labels)
    assert here.names == [*drawn.concepts]
    # Labels of the image before are others, so that a shift by one would be seen.
    per_image = (SIZE // PATCH) ** 2
    assert not np.array_equal(np.roll(here.labels, per_image, 0), drawn.labels)

    few = concepts.of_images(cache, HOOK, looking, "train", per_image)
    assert np.array_equal(few.labels, drawn.labels[: len(few.x)])


def test_a_table_has_each_dictionary_and_the_neurons(seen: tuple[Cache, Looking]):
    cache, looking = seen
    train = concepts.of_images(cache, HOOK, looking, "train", 10**6)
    # Few images are held out of so few: two halves of the others do.
    owners = np.unique(train.owners)
    first = np.isin(train.owners, owners[: len(owners) // 2])
    parts = [
        concepts.Positions(
            train.x[torch.from_numpy(side)], train.labels[side], train.owners[side], train.names
        )
        for side in (first, ~first)
    ]
    sae = SAE(train.x.shape[1], 32, Choice(4))
    aligned = concepts.table({"sae": sae}, *parts, resamples=20, shuffles=1)
    assert [*aligned] == ["sae", "neurons"]
    assert [*concepts.table({"sae": sae}, *parts, resamples=2, neurons=False)] == ["sae"]
    # A dictionary that holds the labels themselves tells every concept.
    known = [
        Labelled(scipy.sparse.csr_array(part.labels.astype(float)), part.labels, part.owners)
        for part in parts
    ]
    oracle = alignment.align(*known, train.names, resamples=20)
    assert oracle.precision.value == oracle.purity.value == oracle.coverage.value == 1
    assert (aligned["neurons"].precision.value or 1) < 0.9
    assert concepts.as_dict(oracle)["concepts"][0]["precision"]["value"] == 1


def test_images_without_labels_are_refused(seen: tuple[Cache, Looking], monkeypatch):
    cache, looking = seen
    bare = looking.images._replace(labels=None)
    monkeypatch.setattr(looking, "images", bare)
    with pytest.raises(UsageError, match="have no labels: concepts need some"):
        concepts.of_images(cache, HOOK, looking, "train", 10)
