"""Images as contexts: what counts, what is left out, what comes back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saelab import models
from saelab.activations import Cache
from saelab.activations.from_images import from_images
from saelab.activations.seen import Looking
from saelab.errors import UsageError
from saelab.models.encoders import encode
from saelab.pictures import prepared_for
from tests.pictures.tiny import KINDS, SIZE, folder, noise

HOOK = "blocks.0.hook_resid_post"
N = 24


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """N images of noise, one of which is broken."""
    at = noise(tmp_path_factory.mktemp("images"), N)
    (at / "05.png").write_bytes(b"no image")
    return at


@pytest.mark.parametrize("kind", KINDS)
def test_patches_count_and_what_stands_before_them_does_not(kind: str, images, tmp_path):
    model = models.load(str(folder(kind, tmp_path / "model")))
    cache = Cache.write(tmp_path / "cache", from_images(model, str(images), [HOOK]))
    assert cache.context == KINDS[kind] + 16
    assert cache.n_tokens("train") + cache.n_tokens("held_out") == 16 * (N - 1)
    chunk = next(cache.contexts(HOOK, "train"))
    assert not chunk.counted[:, : KINDS[kind]].any() and chunk.counted[:, KINDS[kind] :].all()


@pytest.fixture(scope="module")
def made(images, tmp_path_factory: pytest.TempPathFactory):
    at = tmp_path_factory.mktemp("made")
    model = models.load(str(folder("ViTModel", at / "model")))
    source = from_images(model, str(images), [HOOK], dtype="float32")
    return model, Cache.write(at / "cache", source)


def test_a_broken_image_is_left_out_named_and_counted(made, images, tmp_path):
    model, cache = made
    names = cache.document_names()
    assert "05.png" not in names and len(names) == N - 1
    (said,) = cache.manifest["skipped"]["files"]
    assert said.startswith("05.png cannot be decoded")
    with pytest.raises(UsageError, match=r"05.png cannot be decoded"):
        Cache.write(tmp_path / "c", from_images(model, str(images), [HOOK], strict=True))


def test_the_activations_are_the_model_s_of_the_image_that_the_cache_names(made, images):
    model, cache = made
    looking = Looking(cache, model)
    chunk = next(cache.contexts(HOOK, "train"))
    documents_C = chunk.documents[:, 0]
    theirs = encode(model, looking.inputs(documents_C), read=[HOOK]).acts[HOOK]
    assert torch.allclose(chunk.acts, theirs, atol=1e-5)
    other = encode(model, looking.inputs(documents_C.roll(1)), read=[HOOK]).acts[HOOK]
    assert not torch.allclose(chunk.acts, other, atol=1e-2)
    on_disk = np.asarray(Image.open(images / cache.document_names()[int(documents_C[3])]))
    assert np.array_equal(looking.image(int(documents_C[3])).pixels, on_disk)


def test_a_processor_that_enlarges_and_crops_does_so_with_images_of_the_model_s_size(
    images, tmp_path
):
    import transformers

    at = folder("CLIPVisionModel", tmp_path)
    crop = {"height": SIZE, "width": SIZE}
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 2 * SIZE}, crop_size=crop)
    processor.save_pretrained(at)
    mine = prepared_for(models.load(str(at)))
    image = Image.open(images / "01.png")
    theirs = processor(images=image, return_tensors="pt")["pixel_values"]
    assert torch.allclose(mine.normal(mine.pixels(image)[None]), theirs, atol=1e-4)


def test_a_processor_of_another_size_sets_the_grid_where_the_model_reads_it(images, tmp_path):
    import transformers

    processor = transformers.ViTImageProcessor(size={"height": SIZE // 2, "width": SIZE // 2})
    image = Image.open(images / "01.png")
    small = folder("Dinov2WithRegistersModel", tmp_path / "dino")
    processor.save_pretrained(small)
    model = models.load(str(small))
    mine = prepared_for(model)
    assert mine.grid == (2, 2, 4, 5)
    out = encode(model, {"pixel_values": mine.normal(mine.pixels(image)[None])}).output
    assert out.shape[1] == mine.grid.length
    cache = Cache.write(tmp_path / "cache", from_images(model, str(images), [HOOK]))
    assert cache.n_tokens("train") + cache.n_tokens("held_out") == 4 * (N - 1)
    # A ViT reads images of its own size alone.
    fixed = folder("ViTModel", tmp_path / "vit")
    processor.save_pretrained(fixed)
    with pytest.raises(UsageError, match="gives 8 x 8 pixels, the model reads 16 x 16"):
        prepared_for(models.load(str(fixed))).pixels(image.resize((12, 20)))


def test_a_cache_of_images_is_of_their_pixels_not_of_their_names_alone(made, tmp_path):
    model, _ = made
    held = noise(tmp_path / "images", 4)

    def write() -> Cache:
        return Cache.write(tmp_path / "cache", from_images(model, str(held), [HOOK]))

    digest = write().manifest["images"]["digest"]
    assert write().manifest["images"]["digest"] == digest
    image = Image.open(held / "03.png")
    image.putpixel((0, 0), (255 - image.getpixel((0, 0))[0], 0, 0))
    image.save(held / "03.png")
    with pytest.raises(UsageError, match="is not what it was when it was made"):
        write()


def test_another_model_s_patches_are_refused(made, tmp_path):
    _, cache = made
    coarse = models.load(str(folder("ViTModel", tmp_path, patch_size=8)))
    with pytest.raises(UsageError, match="4 x 4 patches of 4 pixels, this model's are 2 x 2 of 8"):
        Looking(cache, coarse)


def test_images_that_are_gone_are_named(made, tmp_path):
    model, cache = made
    with pytest.raises(UsageError, match="no images"):
        Looking(cache, model, str(tmp_path))
    Image.new("RGB", (8, 8)).save(tmp_path / "other.png")
    with pytest.raises(UsageError, match=r"has no image 00.png"):
        Looking(cache, model, str(tmp_path)).image(0)


def test_a_hook_without_a_vector_per_position_is_refused(made, images):
    model, _ = made
    last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    with pytest.raises(UsageError, match=f"--hook {last}"):
        from_images(model, str(images), [])
    with pytest.raises(UsageError, match="two are needed"):
        from_images(model, str(images / "00.png"), [HOOK])
