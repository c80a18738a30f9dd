"""Models that read no text, behind the door: their points, edits there, and which model each is."""

import pytest
import torch

from saelab import models
from saelab.errors import UsageError
from saelab.models.encoders import Encoder, encode, held
from tests.pictures.tiny import KINDS, PATCH, SIZE, folder

PIXELS = torch.linspace(-1, 1, 2 * 3 * SIZE * SIZE).view(2, 3, SIZE, SIZE)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_is_what_hugging_face_says(kind: str, tmp_path):
    model = models.load(str(folder(kind, tmp_path)))
    assert isinstance(model, Encoder)
    place = "blocks.0.hook_resid_post"
    output, acts = encode(model, {"pixel_values": PIXELS}, read=[place])
    theirs = model.plain(PIXELS, output_hidden_states=True)
    assert torch.equal(acts[place], theirs.hidden_states[1])
    assert torch.equal(output, theirs.last_hidden_state)
    assert output.shape[1] == KINDS[kind] + (SIZE // PATCH) ** 2


def test_an_edit_changes_what_follows_and_the_same_value_does_not(tmp_path):
    model = models.load(str(folder("ViTModel", tmp_path)))
    inputs, place = {"pixel_values": PIXELS}, "blocks.1.mlp.hook_out"
    clean = encode(model, inputs).output
    assert torch.equal(encode(model, inputs, {place: torch.clone}).output, clean)
    assert not torch.allclose(encode(model, inputs, {place: torch.zeros_like}).output, clean)
    assert torch.equal(encode(model, inputs).output, clean)  # no edit stays behind


def test_a_clip_of_images_and_texts_gives_its_tower(tmp_path):
    import transformers

    from tests.pictures.tiny import SHAPE

    small = {name: SHAPE[name] for name in SHAPE if "_size" not in name} | {"hidden_size": 16}
    config = transformers.CLIPConfig(
        vision_config=SHAPE, text_config={**small, "intermediate_size": 32, "vocab_size": 9}
    )
    whole = transformers.CLIPModel(config).eval()
    whole.save_pretrained(tmp_path)
    transformers.CLIPImageProcessor().save_pretrained(tmp_path)
    tower = models.load(str(tmp_path))
    theirs = whole.vision_model(PIXELS).last_hidden_state
    assert torch.allclose(encode(tower, {"pixel_values": PIXELS}).output, theirs, atol=1e-6)


def test_the_identity_is_the_weights(tmp_path):
    one = models.identity(models.load(str(folder("ViTModel", tmp_path / "a"))))
    wider = {"intermediate_size": 40}
    other = models.identity(models.load(str(folder("ViTModel", tmp_path / "b", **wider))))
    assert one.weights and one.weights != other.weights


def test_unknown_points_and_texts_are_refused(tmp_path):
    model = models.load(str(folder("ViTModel", tmp_path)))
    with pytest.raises(UsageError, match=r"no hook 'blocks.1.hook_resid_pots'"):
        models.resolve_hook(model, "blocks.1.hook_resid_pots")
    for asked in ({"read": ["blocks.7.hook_out"]}, {"edits": {"blocks.7.hook_out": torch.abs}}):
        with pytest.raises(UsageError, match=r"no hook 'blocks.7.hook_out'"):
            encode(model, {"pixel_values": PIXELS}, **asked)
    with pytest.raises(UsageError, match="reads no text"):
        _ = model.bridge
    with pytest.raises(UsageError, match="training mode"):
        held(model.plain.train())
    with pytest.raises(UsageError, match="no list of blocks"):
        held(torch.nn.Linear(2, 2).eval())
