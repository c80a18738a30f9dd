"""The effect on a vision model's output: none of the identity, all of it of the mean."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from apps.browser import pictures as shown
from saelab import SAE, models
from saelab.activations import Cache
from saelab.activations.from_images import from_images
from saelab.activations.seen import Looking
from saelab.errors import UsageError
from saelab.evaluation import evaluate
from saelab.evaluation.outputs import Outputs
from saelab.features import build
from saelab.features.pictures import Pictures, labels_of
from saelab.features.reader import FeatureIndex
from saelab.models.encoders import encode, held
from saelab.origin import Origin
from saelab.sparsify import Choice
from tests.pictures.tiny import SHAPE, SIZE, folder, noise

HOOK = "blocks.0.hook_resid_post"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """Model, cache of labelled images, and an SAE there."""
    at, rng = tmp_path_factory.mktemp("outputs"), np.random.default_rng(0)
    for part in ("images", "annotations"):
        (at / "ade" / part).mkdir(parents=True)
    for number in range(30):
        pixels = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(at / f"ade/images/{number:02}.png")
        classes = np.full((SIZE, SIZE), number % 3, np.uint8)
        Image.fromarray(classes).save(at / f"ade/annotations/{number:02}.png")
    model = models.load(str(folder("Dinov2WithRegistersModel", at / "model")))
    cache = Cache.write(at / "cache", from_images(model, str(at / "ade"), [HOOK], dtype="float32"))
    torch.manual_seed(0)
    sae = SAE(16, 32, Choice(4))
    sae.origin = Origin(hook=HOOK, model=cache.identity)
    return model, cache, sae


def test_the_report_has_the_output_in_place_of_losses(made):
    model, cache, sae = made
    outputs = Outputs(model, Looking(cache, model).inputs)
    report = evaluate(sae, cache, outputs=outputs)
    beside = {name: row["output_error"]["value"] for name, row in report["references"].items()}
    assert beside["identity"] < 1e-9
    assert beside["zero"] > 0.5 and beside["mean"] > 0.5
    assert report["no_losses"] == "the model predicts no tokens"
    assert report["output_error"]["null"] == pytest.approx(beside["mean"])
    assert "kl" not in report and "output_error" not in evaluate(sae, cache)
    json.dumps(report)


def test_the_output_is_that_of_the_edited_model_by_hand(made):
    """Zero in place of the patches alone: [CLS] and registers stay what they are."""
    model, cache, _ = made
    looking, chunk = Looking(cache, model), next(cache.contexts(HOOK, "held_out"))
    outputs = Outputs(model, looking.inputs)
    effect = outputs.of(chunk, HOOK, {"zero": torch.zeros_like(chunk.acts)})
    inputs = looking.inputs(chunk.documents[:, 0])

    def zeroed(acts: torch.Tensor) -> torch.Tensor:
        acts = acts.clone()
        acts[:, 5:] = 0
        return acts

    by_hand = encode(model, inputs, {HOOK: zeroed}).output[:, 5:].flatten(0, 1)
    assert torch.allclose(effect.spliced["zero"], by_hand)
    all_zero = encode(model, inputs, {HOOK: torch.zeros_like}).output[:, 5:].flatten(0, 1)
    assert not torch.allclose(effect.spliced["zero"], all_zero)


def test_an_index_keeps_its_images_labels_and_patches(made, tmp_path):
    model, cache, sae = made
    looking = Looking(cache, model)
    assert looking.labels is not None
    grid = looking.preparer.grid._asdict()
    pictures = Pictures(grid, looking.image, looking.labels.kinds, looking.labels.concepts)
    build.build(sae, cache, HOOK, tmp_path / "features.db", pictures=pictures)
    with FeatureIndex(tmp_path / "features.db") as index:
        feature = int(index.order("density")[0])
        example = index.examples(feature)[0]
        picture = example.picture
        assert picture is not None
        patch = example.position - 5
        peak = dict(picture.features[patch])[feature]
        assert peak == pytest.approx(example.value)
        other = dict(picture.features[(patch + 7) % 16]).get(feature, 0.0)
        assert other != pytest.approx(example.value)
        number = int(example.document.removesuffix(".png"))
        due = [] if number % 3 == 0 else [f"class {number % 3}"]
        assert shown.shown(picture, patch) == due
        drawn = shown.example(example, picture, example.value)
        assert drawn.count('class="patch') == sum(map(bool, example.activations))
        assert "context=" in drawn and "data:image/jpeg;base64," in drawn
        assert index.picture(10**6) is None


def test_packed_labels_come_back():
    labels = np.array([[[0, -1], [3, 2]]], np.int16)
    from saelab.features.pictures import _packed

    assert np.array_equal(labels_of(_packed(labels), 2), labels)
    many = np.array([[[254, -1], [255, 256], [12_345, 3]]], np.int16)
    assert np.array_equal(labels_of(_packed(many), 2), many)


def test_labels_of_many_classes_are_resized_with_their_image(made):
    model, cache, _ = made
    preparer = Looking(cache, model).preparer
    labels = np.full((2 * SIZE, 2 * SIZE, 1), 300, np.int16)
    labels[SIZE:, :, 0], labels[:, SIZE:, 0] = -1, 254
    sized = preparer.labels(labels)[..., 0]
    assert sized.shape == (SIZE, SIZE)
    assert (sized[:8, :8] == 300).all() and (sized[8:, :8] == -1).all()
    assert (sized[:, 8:] == 254).all()


def test_a_head_that_classifies_says_what_its_classes_lose(tmp_path):
    import transformers

    at, shape = folder("ViTModel", tmp_path / "model"), {**SHAPE, "num_labels": 5}
    whole = transformers.ViTForImageClassification(transformers.ViTConfig(**shape)).eval()
    torch.nn.init.normal_(whole.classifier.weight)  # as made it hardly tells classes apart
    whole.save_pretrained(at)
    model, images = models.load(str(at)), str(noise(tmp_path / "images", 30))
    cache = Cache.write(tmp_path / "cache", from_images(model, images, [HOOK], dtype="float32"))
    outputs = Outputs(model, Looking(cache, model).inputs)
    sae = SAE(16, 32, Choice(4))
    sae.origin = Origin(hook=HOOK, model=cache.identity)
    report = evaluate(sae, cache, outputs=outputs)
    beside = {name: row["class_kl"]["value"] for name, row in report["references"].items()}
    assert beside["identity"] < 1e-9 < 1e-5 < beside["zero"]
    assert report["class_kl"]["null"] == pytest.approx(beside["mean"])

    by_hand = []
    for chunk in cache.contexts(HOOK, "held_out"):
        inputs = outputs.inputs(chunk.documents[:, 0])

        def zeroed(_: object, __: object, out: torch.Tensor) -> torch.Tensor:
            return torch.cat([out[:, :1], torch.zeros_like(out[:, 1:])], 1)

        with torch.no_grad():
            clean_CN = whole(**inputs).logits.double().softmax(1)
            handle = whole.vit.get_submodule("layers.0").register_forward_hook(zeroed)
            spliced_CN = whole(**inputs).logits.double().softmax(1)
            handle.remove()
        by_hand.append((clean_CN * (clean_CN / spliced_CN).log()).sum(1))
    assert beside["zero"] == pytest.approx(float(torch.cat(by_hand).mean()), rel=1e-3)

    # The same model without its head is measured by its output alone.
    whole.vit.save_pretrained(at)
    bare = Outputs(models.load(str(at)), outputs.inputs)
    assert "class_kl" not in evaluate(sae, cache, outputs=bare)


def test_a_transcoder_is_measured_on_what_the_model_computes_of_the_images(tmp_path, made):
    model, cache, _ = made
    below, above = HOOK, "blocks.1.hook_resid_post"
    looking = Looking(cache, model)
    both = Cache.write(
        tmp_path / "both",
        from_images(model, str(cache.plan.text), [below, above], dtype="float32"),
    )
    transcoder = SAE(16, 32, Choice(4), transcoder=True)
    transcoder.origin = Origin(hook=below, target=above, model=both.identity)
    report = evaluate(transcoder, both, outputs=Outputs(model, looking.inputs))
    n_tokens = report["tokens"]
    chunks = [
        (x.acts[x.counted], y.acts[y.counted])
        for x, y in zip(
            both.contexts(below, "held_out"), both.contexts(above, "held_out"), strict=True
        )
    ]
    x_ND, y_ND = (torch.cat(each) for each in zip(*chunks, strict=True))
    assert len(x_ND) == n_tokens

    def fvu(target_ND: torch.Tensor) -> float:
        error = (transcoder(x_ND).detach() - target_ND).square().sum()
        return float(error / (target_ND - target_ND.mean(0)).square().sum())

    assert report["fvu"]["value"] == pytest.approx(fvu(y_ND), rel=1e-4)
    assert report["fvu"]["value"] != pytest.approx(fvu(x_ND), rel=1e-2)
    with pytest.raises(UsageError, match="measured in its model: name its inputs, --images"):
        evaluate(transcoder, both, model)
    with pytest.raises(UsageError, match=r"measured in its model: name it$"):
        evaluate(transcoder, both)


def test_a_protein_model_goes_through_the_same_door(tmp_path):
    """An ESM-like model: residues are positions, proteins the owners, <cls> and <eos> not."""
    import transformers

    torch.manual_seed(0)
    config = transformers.EsmConfig(
        vocab_size=33, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, pad_token_id=1, position_embedding_type="rotary",
    )  # fmt: skip
    model = held(transformers.EsmModel(config, add_pooling_layer=False).eval())
    ids_CT = torch.randint(4, 24, (12, 10))
    ids_CT[:, 0], ids_CT[:, -1] = 0, 2  # <cls>, <eos>
    counted_CT = (ids_CT != 0) & (ids_CT != 2)
    acts = encode(model, {"input_ids": ids_CT}, read=[HOOK]).acts[HOOK]
    ids = {"tokens": ids_CT, "counted": counted_CT, "owners": torch.arange(12)}
    cache = Cache.write(tmp_path, "arrays", arrays={HOOK: acts}, ids=ids, dtype="float32")
    sae = SAE(16, 24, Choice(4))
    sae.origin = Origin(hook=HOOK, model=cache.identity)
    outputs = Outputs(model, lambda documents_C: {"input_ids": ids_CT[documents_C]})
    report = evaluate(sae, cache, outputs=outputs)
    assert report["tokens"] == 8 * report["documents"]
    assert report["references"]["identity"]["output_error"]["value"] < 1e-9
    assert report["references"]["zero"]["output_error"]["value"] > 0.1
