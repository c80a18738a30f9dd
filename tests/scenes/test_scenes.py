"""Scenes say of every pixel what it shows, and say the same whenever they are asked."""

import numpy as np
import pytest

from saelab.errors import UsageError
from saelab.scenes import CONCEPTS, KINDS, NOTHING, of_pixels, patch_labels, scene
from saelab.scenes.vocabulary import number

SIZE = 48


@pytest.fixture(scope="module")
def scenes():
    return [scene(index, size=SIZE) for index in range(60)]


def test_a_scene_is_the_same_whatever_was_drawn_before(scenes):
    again = scene(3, size=SIZE)
    assert np.array_equal(again.image, scenes[3].image)
    assert np.array_equal(again.labels, scenes[3].labels)
    assert not np.array_equal(scene(3, seed=1, size=SIZE).image, scenes[3].image)


def test_every_pixel_has_an_object_a_texture_and_a_material(scenes):
    labels = np.stack([one.labels for one in scenes])
    assert (labels[..., [0, 2, 3]] != NOTHING).all()
    for kind, column in zip(KINDS, np.moveaxis(labels, -1, 0), strict=True):
        shown = {CONCEPTS[which].split(":")[0] for which in np.unique(column) if which >= 0}
        assert shown == {kind}


def test_materials_are_what_pixels_look_like(scenes):
    """Leaves are green; with the labels of other scenes they are not."""
    image = np.stack([one.image for one in scenes]).astype(int)
    labels = np.stack([one.labels for one in scenes])[..., 3]
    green = image.argmax(-1) == 1
    leaf = number("material", "leaf")
    assert green[labels == leaf].mean() > 0.8
    assert green[np.roll(labels, 1, axis=0) == leaf].mean() < 0.6


def test_frequencies_fall_with_the_rank(scenes):
    labels_PC = np.concatenate([of_pixels(one.labels, 8) for one in scenes])
    first, last = number("object", "house"), number("object", "kite")
    seen_C = labels_PC.sum(0)
    assert seen_C[first] > 5 * seen_C[last]
    assert (seen_C > 0).sum() >= 40


def test_a_patch_shows_what_most_of_its_pixels_show():
    labels_HW1 = np.array([[0, 0, 1, NOTHING], [1, 0, NOTHING, NOTHING]], np.int16)[..., None]
    assert of_pixels(labels_HW1, 2, n_concepts=2).tolist() == [[True, False], [False, False]]
    tie_HW1 = np.array([[1, 0], [0, 1]], np.int16)[..., None]
    assert of_pixels(tie_HW1, 2, n_concepts=2).tolist() == [[True, False]]


def test_patches_have_their_scene_as_owner():
    table = patch_labels([4, 9], patch=8, size=SIZE)
    assert table.owners.tolist() == [4] * 36 + [9] * 36
    assert np.array_equal(table.labels[36:], of_pixels(scene(9, size=SIZE).labels, 8))
    assert table.labels.shape == (72, len(table.concepts))


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="no whole patches of 7"):
        patch_labels([0], patch=7, size=SIZE)
    with pytest.raises(UsageError, match="size=8"):
        scene(0, size=8)
