"""Images as a vision model sees them: resized and cropped by its image processor, as bytes, and the
grid of its patches.

Shapes: H x W pixels, K kinds of label, B images.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saelab.errors import UsageError
from saelab.models.model import quiet


class Grid(NamedTuple):
    """Where the positions of a vision model lie in its images."""

    rows: int
    columns: int
    patch: int
    """pixels a side"""
    prefix: int
    """positions before the patches: [CLS], registers"""

    @property
    def length(self) -> int:
        """T: positions in all."""
        return self.prefix + self.rows * self.columns

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.rows * self.patch, self.columns * self.patch


class Preparer:
    """What brings images into a model's size.

    preparer = prepared_for(model)
    bytes_HWC = preparer.pixels(image)
    encode(model, {"pixel_values": preparer.normal(bytes_HWC[None])})
    """

    def __init__(self, processor: Any, grid: Grid) -> None:
        self.processor, self.grid = processor, grid
        scale = processor.rescale_factor if processor.do_rescale else 1.0
        mean, std = (
            (processor.image_mean, processor.image_std) if processor.do_normalize else (0, 1)
        )
        self.scale = float(scale)
        self.mean, self.std = (torch.tensor(x).float().view(-1, 1, 1) for x in (mean, std))

    def pixels(self, image: Any) -> NDArray[np.uint8]:
        """[H, W, 3]: a PIL image, RGB, in the model's size."""
        return self._sized(image)

    def labels(self, labels_HWK: NDArray[np.int16]) -> NDArray[np.int16]:
        """[h, w, K]: the labels of its pixels in the model's size, each the nearest pixel's."""
        from PIL import Image

        said = []
        for column_HW in np.moveaxis(labels_HWK.astype(np.int32) + 1, -1, 0):
            # A colour holds eight bits, a label more: two colours hold it.
            split_HW3 = np.stack([column_HW & 255, column_HW >> 8, 0 * column_HW], -1)
            sized = self._sized(Image.fromarray(split_HW3.astype(np.uint8)), resample=0)
            said.append(sized[..., 0] + 256 * sized[..., 1].astype(np.int32) - 1)
        return np.stack(said, -1).astype(np.int16)

    def _sized(self, image: Any, **options: Any) -> NDArray[np.uint8]:
        # A processor that crops may enlarge what has the right size already.
        if image.size == self.grid.size[::-1] and not getattr(self.processor, "crop_size", None):
            return np.asarray(image)
        plain = {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
        out_CHW = self.processor(images=image, **plain, **options)["pixel_values"][0]
        sized = np.clip(np.asarray(out_CHW), 0, 255).astype(np.uint8).transpose(1, 2, 0)
        if sized.shape[:2] != self.grid.size:
            raise UsageError(
                f"the image processor gives {sized.shape[0]} x {sized.shape[1]} pixels, the model "
                f"reads {self.grid.size[0]} x {self.grid.size[1]}: give the processor of this model"
            )
        return np.ascontiguousarray(sized)

    def normal(self, pixels_BHWC: NDArray[np.uint8]) -> Tensor:
        """[B, 3, H, W]: what the model reads."""
        pixels = torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2).float()
        return (pixels * self.scale - self.mean) / self.std


def prepared_for(model: Any) -> Preparer:
    """The images of a model that was loaded from a folder. Raises UsageError for one that reads no
    images, or whose folder has no image processor."""
    if model.reads_text or model.located is None:
        raise UsageError(
            f"{type(model.plain).__name__} is no model of images in a folder: name one with "
            "--model, such as bundled-vision"
        )
    from transformers import AutoImageProcessor

    try:
        with quiet():
            processor = AutoImageProcessor.from_pretrained(model.located.folder)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{model.located.name} has no image processor: {str(error).splitlines()[0]}"
        ) from None
    return Preparer(processor, _read_grid(model, processor))


def _read_grid(model: Any, processor: Any) -> Grid:
    """The grid of the images that the processor gives where the model reads them, as DINOv2 reads
    others than those of its configuration; else the configuration's."""
    from PIL import Image

    grid = grid_of(model)
    height, width = grid.size
    blank = Image.new("RGB", (width, height))
    given = processor(images=blank, return_tensors="np")["pixel_values"].shape[2:]
    if given == grid.size:
        return grid
    try:
        other = grid_of(model, given)
    except (ValueError, RuntimeError):  # what models raise at images of another size
        return grid
    return other if other.size == given and other.prefix == grid.prefix else grid


def grid_of(model: Any, size: tuple[int, int] | None = None) -> Grid:
    """The grid of a model's patches, told by running it once. size: height and width in pixels
    (None: those of its configuration)."""
    from saelab.models.encoders import encode

    config = getattr(model.plain.config, "vision_config", model.plain.config)
    height, width = size or _pair(config.image_size)
    patch, _ = _pair(config.patch_size)
    blank = torch.zeros(1, getattr(config, "num_channels", 3), height, width)
    length = encode(model, {"pixel_values": blank.to(next(model.parameters()))}).output.shape[1]
    rows, columns = height // patch, width // patch
    return Grid(rows, columns, patch, length - rows * columns)


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
