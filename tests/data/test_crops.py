"""Decoding against Pillow; crops against their definitions."""

import io
import math

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from unnas_jax.data import crops, photos


@pytest.fixture(scope="module")
def image():
    """A part of a photograph, 120 x 160."""
    path = photos.find_photographs()[photos.NAMES.index("coffee")]
    return np.asarray(Image.open(path).convert("RGB"))[40:160, 300:460]


def encode(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "mode, form, tolerance",
    [
        ("RGB", "JPEG", 0),
        ("L", "JPEG", 0),
        ("CMYK", "JPEG", 2),
        ("RGB", "PNG", 0),
        ("P", "PNG", 0),
        ("L", "PNG", 0),
        ("1", "PNG", 0),
        ("RGB", "WEBP", 0),
    ],
)
def test_decodes_what_pillow_decodes(image, mode, form, tolerance):
    data = encode(Image.fromarray(image).convert(mode), form)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    decoded = crops.decode(data, apply_exif=False)
    assert decoded.dtype == np.uint8
    assert np.abs(decoded - expected).max() <= tolerance


def test_16_bits_become_8(image):
    for pixels in (image, image[..., 0]):
        _, data = cv2.imencode(".png", pixels.astype(np.uint16) * 257)
        stored = pixels[..., ::-1] if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1)
        np.testing.assert_array_equal(crops.decode(data.tobytes(), apply_exif=False), stored)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(image, form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(image), form, exif=exif.tobytes())
    opened = Image.open(io.BytesIO(data))
    upright, stored = np.asarray(ImageOps.exif_transpose(opened)), np.asarray(opened)
    np.testing.assert_array_equal(crops.decode(data, apply_exif=True), upright)
    np.testing.assert_array_equal(crops.decode(data, apply_exif=False), stored)


@pytest.mark.parametrize("form, mode", [("PNG", "RGBA"), ("WEBP", "RGBA"), ("PNG", "LA")])
def test_transparency_is_over_white(image, form, mode):
    alpha = np.tile(np.linspace(0, 255, image.shape[1]).astype(np.uint8), (image.shape[0], 1))
    rgba = Image.fromarray(np.dstack([image, alpha])).convert(mode)
    data = encode(rgba, form, **({"lossless": True, "exact": True} if form == "WEBP" else {}))
    colour = np.asarray(rgba.convert("RGBA"))[..., :3].astype(float)
    share = alpha[..., None] / 255
    expected = colour * share + 255 * (1 - share)
    decoded = crops.decode(data, apply_exif=True)
    assert np.abs(decoded - expected).max() <= 1
    assert (decoded[:, 0] == 255).all()


def test_transparent_palette_is_over_white(image):
    palette = Image.fromarray(image).quantize(16)
    data = encode(palette, "PNG", transparency=int(np.asarray(palette)[0, 0]))
    hidden = np.asarray(palette) == np.asarray(palette)[0, 0]
    decoded = crops.decode(data, apply_exif=True)
    assert (decoded[hidden] == 255).all()
    np.testing.assert_array_equal(decoded[~hidden], np.asarray(palette.convert("RGB"))[~hidden])


@pytest.mark.parametrize(
    "data", [b"", b"text, not pixels", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"]
)
def test_undecodable_raises(data):
    with pytest.raises(ValueError):
        crops.decode(data, apply_exif=True)


def test_centre_crop_of_the_right_scale_is_a_slice(image):
    expected = image[10:110, 30:130]
    np.testing.assert_array_equal(crops.centre_crop(image, 100, 120), expected)


@pytest.mark.parametrize("size, resize", [(30, 60), (20, 30), (56, 64), (210, 240)])
def test_centre_crop_is_resize_then_crop(image, size, resize):
    # Pillow takes the source region in fractions of pixels and resizes it.
    side = 120 * size / resize
    box = (80 - side / 2, 60 - side / 2, 80 + side / 2, 60 + side / 2)
    resample = Image.Resampling.BOX if resize < 120 else Image.Resampling.BILINEAR
    whole = Image.fromarray(image)
    expected = np.asarray(whole.resize((size, size), resample, box=box)).astype(float)
    result = crops.centre_crop(image, size, resize)
    error = np.abs(result - expected).mean()
    flipped = np.abs(result[:, ::-1] - expected).mean()
    assert error < 4 and error < flipped / 5


@pytest.mark.parametrize("name", crops.TRAIN_CROPS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (900, 3), (20, 20), (32, 32), (97, 50)])
def test_every_image_gives_a_crop_of_the_size(name, shape):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    for _ in range(20):
        crop = crops.TRAIN_CROPS[name](image, 32, 40, rng)
        assert crop.shape == (32, 32, 3) and crop.dtype == np.uint8
        assert crop.flags.c_contiguous


@pytest.mark.parametrize("name", crops.TRAIN_CROPS)
def test_crops_depend_on_nothing_but_the_generator(image, name):
    crop = crops.TRAIN_CROPS[name]
    a, b = (crop(image, 48, 60, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    others = [crop(image, 48, 60, np.random.default_rng(seed)) for seed in range(4, 8)]
    moves = any((other != a).any() for other in others)
    assert moves == (name in ("random_resized", "resize_random"))


def test_none_leaves_an_image_of_the_size(image):
    whole = image[:96, :96]
    crop = crops.TRAIN_CROPS["none"](whole, 96, 200, np.random.default_rng(0))
    np.testing.assert_array_equal(crop, whole)


def test_resize_random_reaches_every_place():
    rows, columns = np.mgrid[:40, :60]
    image = np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)
    rng = np.random.default_rng(0)
    corners = {
        tuple(crops.TRAIN_CROPS["resize_random"](image, 30, 40, rng)[0, 0, :2].tolist())
        for _ in range(4000)
    }
    assert corners == {(top, left) for top in range(11) for left in range(31)}


def test_random_resized_box_has_the_published_distribution():
    rng = np.random.default_rng(0)
    height, width = 1000, 1000
    boxes = np.array([crops.random_resized_box(height, width, rng) for _ in range(3000)])
    top, left, h, w = boxes.T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + h <= height).all() and (left + w <= width).all()
    area, aspect = h * w / (height * width), w / h
    assert 0.079 < area.min() < 0.09 and area.max() > 0.95
    assert 0.748 < aspect.min() < 0.76 and 1.31 < aspect.max() < 1.336
    # Where every aspect fits (area up to 3/4) nothing is rejected: uniform area, log aspect.
    free = area < 0.74
    quarters = np.histogram(area[free], bins=4, range=(0.08, 0.74))[0] / free.sum()
    assert np.abs(quarters - 0.25).max() < 0.03
    assert abs(np.log(aspect[free]).mean()) < 0.015
    assert abs(np.log(aspect[free]).std() - math.log(16 / 9) / math.sqrt(12)) < 0.01


def test_random_resized_falls_back_to_the_centre():
    rng = np.random.default_rng(0)
    assert crops.random_resized_box(10, 1000, rng) == (0, 493, 10, 13)
    assert crops.random_resized_box(1000, 10, rng) == (493, 0, 13, 10)


def test_shrinking_does_not_alias():
    stripes = np.zeros((450, 450, 3), np.uint8)
    stripes[:, ::2] = 255
    assert crops.centre_crop(stripes, 64, 64).astype(float).std() < 12  # Bilinear: above 100.
