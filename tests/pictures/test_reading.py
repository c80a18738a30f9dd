"""Images of every form come upright and in colour; what is none is named."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saelab.errors import UsageError
from saelab.pictures import Undecodable, decoded, opened, reading

RED = (255, 0, 0)


def data(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_grey_alpha_palette_and_one_pixel_become_rgb():
    grey = decoded(data(Image.new("L", (3, 2), 100)), "grey")
    assert grey.mode == "RGB" and grey.getpixel((0, 0)) == (100, 100, 100)
    deep = decoded(data(Image.new("I;16", (2, 2), 256 * 7)), "16 bits")
    assert deep.getpixel((0, 0)) == (7, 7, 7)
    swapped = Image.frombytes("I;16B", (2, 1), bytes([100, 0, 200, 0]))  # as in a TIFF of a Mac
    assert np.asarray(decoded(swapped, "big end first"))[0, :, 0].tolist() == [100, 200]
    half = decoded(data(Image.new("RGBA", (1, 1), (*RED, 128))), "alpha")
    assert half.getpixel((0, 0)) == (128, 0, 0)  # over black
    palette = decoded(data(Image.new("RGB", (4, 4), RED).convert("P")), "palette")
    assert palette.getpixel((0, 0))[0] > 250


def test_an_image_is_turned_as_its_exif_says():
    picture = Image.new("RGB", (2, 1), RED)
    picture.putpixel((1, 0), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise brings it upright
    upright = decoded(data(picture, exif=exif), "turned")
    assert upright.size == (1, 2) and upright.getpixel((0, 0)) == RED
    assert decoded(data(picture), "as it is").size == (2, 1)


@pytest.mark.parametrize("bad", [b"", b"no image", data(Image.new("RGB", (64, 64), RED))[:60]])
def test_what_is_no_whole_image_is_named(bad: bytes):
    with pytest.raises(Undecodable, match=r"broken.png cannot be decoded"):
        decoded(bad, "broken.png")


def test_an_image_of_too_many_pixels_is_named(monkeypatch):
    monkeypatch.setattr(reading, "PIXELS", 99)
    assert decoded(Image.new("RGB", (11, 9)), "fits").size == (11, 9)
    with pytest.raises(Undecodable, match="huge has 10 x 10 pixels"):
        decoded(data(Image.new("RGB", (10, 10))), "huge")


def test_a_damaged_member_of_a_zip_and_a_file_that_is_gone_are_named(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.ppm", b"P6 40 40 255 " + bytes(range(240)) * 20)
        start = archive.getinfo("a.ppm").header_offset + 30 + len("a.ppm")
    whole = bytearray((tmp_path / "a.zip").read_bytes())
    whole[start : start + 8] = b"\xff" * 8  # no block of a deflated stream begins so
    (tmp_path / "a.zip").write_bytes(whole)
    with pytest.raises(Undecodable, match=r"a.ppm cannot be read"):
        opened(str(tmp_path / "a.zip")).read(0)
    Image.new("RGB", (2, 2)).save(tmp_path / "b.png")
    images = opened(str(tmp_path / "b.png"))
    (tmp_path / "b.png").unlink()
    with pytest.raises(Undecodable, match=r"b.png cannot be read"):
        images.read(0)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for at in range(3):
        path = tmp_path / "in" / f"{at}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (5, 4), (at, 0, 0)).save(path)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    return tmp_path / "in"


def test_folder_zip_table_and_dataset_give_the_same_images(pictures: Path, tmp_path: Path):
    import datasets

    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in pictures.iterdir():
            archive.write(file, file.name)
    files = sorted(pictures.glob("*.png"))
    table = datasets.Dataset.from_dict({"image": [str(file) for file in files]})
    table = table.cast_column("image", datasets.Image())
    table.save_to_disk(tmp_path / "saved")
    whole = [{"bytes": file.read_bytes(), "path": None} for file in files]
    features = datasets.Features({"image": datasets.Image(decode=False)})
    column = datasets.Dataset.from_dict({"image": whole}, features)
    column.to_parquet(tmp_path / "all.parquet")
    for name in (pictures, tmp_path / "all.zip", tmp_path / "saved", tmp_path / "all.parquet"):
        images = opened(str(name))
        shown = [images.read(number).getpixel((0, 0)) for number in range(len(images.names))]
        assert shown == [(0, 0, 0), (1, 0, 0), (2, 0, 0)], name
    assert opened(str(pictures / "1.png")).names == ["1.png"]
    with pytest.raises(UsageError, match="no column 'photo'"):
        opened(str(tmp_path / "all.parquet"), "photo")


def test_a_folder_without_images_is_refused(tmp_path: Path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UsageError, match="holds no images"):
        opened(str(tmp_path))


def test_ade_labels_are_read_and_must_have_the_image_s_size(tmp_path: Path):
    for part in ("images", "annotations"):
        (tmp_path / part / "training").mkdir(parents=True)
    Image.new("RGB", (4, 2)).save(tmp_path / "images/training/a.jpg")
    classes = np.array([[0, 1, 2, 2], [0, 1, 2, 2]], np.uint8)
    Image.fromarray(classes).save(tmp_path / "annotations/training/a.png")
    info = "Idx\tRatio\tTrain\tVal\tName\n1\t0\t0\t0\twall\n2\t0\t0\t0\tsky\n"
    (tmp_path / "objectInfo150.txt").write_text(info)
    images = opened(str(tmp_path))
    assert images.labels is not None and images.labels.concepts == ("wall", "sky")
    assert np.array_equal(images.labels_of(0)[..., 0], classes.astype(int) - 1)
    classes[0] = [255, 3, 1, 0]  # void, and a class that has no name
    Image.fromarray(classes).save(tmp_path / "annotations/training/a.png")
    assert images.labels_of(0)[0, :, 0].tolist() == [-1, -1, 0, -1]
    Image.new("RGB", (4, 4)).save(tmp_path / "images/training/a.jpg")
    with pytest.raises(UsageError, match="are 4 x 2 pixels, the image 4 x 4"):
        images.labels_of(0)
