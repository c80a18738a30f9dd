"""One image from its bytes: upright, in three colours."""

import io
import warnings
from pathlib import Path
from typing import Any

from saelab.errors import UsageError

PIXELS = 1 << 27  # of an image that is read, at most: Pillow refuses more than 179 million
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


class Undecodable(UsageError):
    """An image that cannot be read; the message says which and why."""


def is_image(name: str) -> bool:
    """Whether a file's name is an image's."""
    return Path(name).suffix.lower() in SUFFIXES and not Path(name).name.startswith(".")


def decoded(data: bytes | Any, name: str) -> Any:
    """A PIL image, RGB, turned as its EXIF says; what is transparent is black. data: the bytes of a
    file, or a PIL image.

    decoded(Path("cat.jpg").read_bytes(), "cat.jpg").size

    Raises Undecodable for bytes that are no whole image, and for more than PIXELS pixels.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data)) if isinstance(data, bytes) else data
            width, height = image.size
            if width * height > PIXELS:
                raise Undecodable(
                    f"{name} has {width} x {height} pixels, at most {PIXELS:,} are read: make it "
                    "smaller"
                )
            upright = ImageOps.exif_transpose(image)
            return _coloured(upright)
    except Undecodable:
        raise
    except Exception as error:  # decoders raise what they like on damaged bytes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        reason = "no image" if "BytesIO" in reason else reason
        raise Undecodable(f"{name} cannot be decoded: {reason}") from None


def _coloured(image: Any) -> Any:
    """RGB of any mode: grey in all three, 16 bits as 8, what is transparent black."""
    import numpy as np
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        grey_HW = np.clip(np.asarray(image) / 256, 0, 255).astype(np.uint8)
        return Image.fromarray(grey_HW).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    return image.convert("RGB")


def labels_of(data: bytes, name: str) -> Any:
    """[H, W] int16: a segmentation, a class per pixel, 0 for none. Raises Undecodable."""
    import numpy as np
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data))
        return np.array(image if image.mode in ("L", "P", "I;16", "I") else image.convert("L"))
    except Exception as error:
        raise Undecodable(f"{name} cannot be decoded: {error}") from None
