"""Crops against their definitions."""

import math

import cv2
import numpy as np
import pytest
from PIL import Image

from unnas_jax.data import crops, photos


@pytest.fixture(scope="module")
def image():
    """A part of a photograph, 120 x 160."""
    path = photos.find_photographs()[photos.NAMES.index("coffee")]
    return np.asarray(Image.open(path).convert("RGB"))[40:160, 300:460]


def train_crop(name, image, size, resize, rng):
    height, width = image.shape[:2]
    return crops.cut(image, crops.TRAIN_CROPS[name](height, width, size, resize, rng), size)


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
        crop = train_crop(name, image, 32, 40, rng)
        assert crop.shape == (32, 32, 3) and crop.dtype == np.uint8
        assert crop.flags.c_contiguous


@pytest.mark.parametrize("name", crops.TRAIN_CROPS)
def test_crops_depend_on_nothing_but_the_generator(image, name):
    a, b = (train_crop(name, image, 48, 60, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    others = [train_crop(name, image, 48, 60, np.random.default_rng(seed)) for seed in range(4, 8)]
    moves = any((other != a).any() for other in others)
    assert moves == (name not in ("centre", "none"))


def test_none_leaves_an_image_of_the_size(image):
    whole = image[:96, :96]
    crop = train_crop("none", whole, 96, 200, np.random.default_rng(0))
    np.testing.assert_array_equal(crop, whole)


def test_resize_random_reaches_every_place():
    rows, columns = np.mgrid[:40, :60]
    image = np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)
    rng = np.random.default_rng(0)
    corners = {
        tuple(train_crop("resize_random", image, 30, 40, rng)[0, 0, :2].tolist())
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


def test_shrinking_to_more_than_half_passes_over_no_pixel():
    side, size = 59, 30
    for row in range(side):
        image = np.zeros((side, side, 3), np.uint8)
        image[row] = image[:, row] = 255
        crop = crops.cut(image, (0, 0, side, side), size)
        assert crop[:, size // 4].max() > 0 and crop[size // 4].max() > 0


@pytest.mark.parametrize("size, resize", [(40, 60), (40, 120), (80, 60), (96, 200)])
def test_scale_random_is_resize_then_crop(image, size, resize):
    """Against the whole image, resized by Pillow, in which the crop is looked up where it fits."""
    rng = np.random.default_rng(1)
    scales = []
    for _ in range(8):
        state = rng.bit_generator.state
        top, left, height, width = crops.TRAIN_CROPS["scale_random"](120, 160, size, resize, rng)
        # The definition: the first draw is u.
        again = np.random.default_rng()
        again.bit_generator.state = state
        scale = max(size, resize * 2 ** again.uniform(-1, 1)) / 120
        assert height == width and abs(height - size / scale) <= 0.5
        scales.append(scale)
        whole = Image.fromarray(image).resize(
            (round(160 * scale), round(120 * scale)),
            Image.Resampling.BILINEAR if scale > 0.5 else Image.Resampling.BOX,
        )
        y, x = (
            min(round(corner * scale), side - size)
            for corner, side in ((top, whole.height), (left, whole.width))
        )
        expected = np.asarray(whole)[y : y + size, x : x + size].astype(float)
        crop = crops.cut(image, (top, left, height, width), size)
        error = np.abs(crop - expected).mean()
        assert error < 12 and error < np.abs(crop[::-1] - expected).mean() / 2
    assert max(scales) > 1.2 * min(scales)


def test_scale_random_has_the_published_distribution():
    rng = np.random.default_rng(0)
    boxes = np.array(
        [crops.TRAIN_CROPS["scale_random"](1024, 2048, 321, 512, rng) for _ in range(4000)]
    )
    top, left, side = boxes[:, 0], boxes[:, 1], boxes[:, 2]
    # u below log2(321 / 512) shows the whole height.
    assert abs((side == 1024).mean() - (1 + math.log2(321 / 512)) / 2) < 0.03
    u = np.log2(1024 * 321 / side[side < 1024] / 512)
    quarters = np.histogram(u, bins=4, range=(math.log2(321 / 512), 1))[0] / len(u)
    assert np.abs(quarters - 0.25).max() < 0.03
    assert (top + side <= 1024).all() and (left + side <= 2048).all() and (left >= 0).all()
    share = left / (2048 - side)
    assert share.min() < 0.01 and share.max() > 0.99 and abs(share.mean() - 0.5) < 0.02


@pytest.mark.parametrize("size", [20, 45, 90, 133])
def test_a_label_map_is_cut_as_its_image(size):
    """An image whose colour is its class, in flat blocks."""
    rng = np.random.default_rng(size)
    classes = np.kron(rng.integers(0, 19, (6, 8)), np.ones((15, 15))).astype(np.uint8)
    image = np.stack([classes * 10] * 3, axis=-1)
    for name in ("scale_random", "random_resized", "centre"):
        for _ in range(5):
            box = crops.TRAIN_CROPS[name](90, 120, size, 60, rng)
            labels = crops.cut_map(classes, box, size)
            assert labels.shape == (size, size) and labels.dtype == np.uint8
            # The nearest pixel by centres, computed apart; half-way, either will do.
            rows = box[0] + (np.arange(size) + 0.5) * box[2] / size
            columns = box[1] + (np.arange(size) + 0.5) * box[3] / size
            clear = np.ix_(rows % 1 != 0, columns % 1 != 0)
            expected = classes[np.ix_(np.floor(rows).astype(int), np.floor(columns).astype(int))]
            np.testing.assert_array_equal(labels[clear], expected[clear])
            # And no shift of a pixel would fit the image better.
            cut = crops.cut(image, box, size)[..., 0].astype(int)
            inner = np.s_[1:-1, 1:-1]
            errors = {
                shift: np.abs(cut - 10 * np.roll(labels, shift, (0, 1)).astype(int))[inner].mean()
                for shift in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
            }
            if (rows % 1 != 0).all() and (columns % 1 != 0).all():
                assert errors[0, 0] == min(errors.values())


def bilinear(image, size):
    """Of (S, S, 3) in float64: pixels have their centres at (k + 0.5) * S / size - 0.5."""
    side = len(image)
    places = np.clip((np.arange(size) + 0.5) * side / size - 0.5, 0, side - 1)
    lower = np.minimum(places.astype(int), side - 2)
    shares = np.zeros((size, side))
    shares[np.arange(size), lower] = 1 - (places - lower)
    shares[np.arange(size), lower + 1] = places - lower
    return np.einsum("rh,hwc,kw->rkc", shares, image.astype(float), shares)


@pytest.mark.parametrize("size", [21, 50, 90, 133])
def test_the_release_interpolates_at_every_scale(image, size):
    """Shrinking too, and for colorization without rounding to the nearest level."""
    box, expected = (7, 20, 110, 110), bilinear(image[7:117, 20:130], size)
    rounded = crops.cut(image, box, size, "bilinear")
    assert np.abs(rounded - expected).max() <= 0.8  # OpenCV calculates with integers.
    cut_off = crops.cut(image, box, size, "bilinear_cut_off")
    assert rounded.dtype == cut_off.dtype == np.uint8
    clear = np.abs(expected - np.round(expected)) > 1e-3  # Of a whole number either neighbour.
    np.testing.assert_array_equal(cut_off[clear], np.floor(expected)[clear])
    averaged = crops.cut(image, box, size)
    assert (np.abs(averaged - expected).max() > 20) == (size < 55)


@pytest.mark.parametrize("size", [21, 50, 90, 133])
def test_the_release_takes_classes_at_the_corners_of_pixels(size):
    classes = np.random.default_rng(0).integers(0, 19, (110, 110), np.uint8)
    at, rest = np.divmod(np.arange(size) * 110, size)
    clear = np.ix_(rest != 0, rest != 0)  # On a corner either pixel will do.
    for resampling in ("bilinear", "bilinear_cut_off"):
        found = crops.cut_map(classes, (0, 0, 110, 110), size, resampling)
        np.testing.assert_array_equal(found[clear], classes[np.ix_(at, at)][clear])


def test_label_maps_decode_and_translate():
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for form in (".png", ".pgm", ".tiff"):
        data = cv2.imencode(form, ids)[1].tobytes()
        np.testing.assert_array_equal(crops.LabelMap(data).decode(), ids)
        table = bytes(255 - k for k in range(256))
        np.testing.assert_array_equal(crops.LabelMap(data, table).decode(), 255 - ids)


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint16)], ids=["RGB", "16 bits"]
)
def test_label_maps_are_gray_of_8_bits(pixels):
    data = cv2.imencode(".png", pixels)[1].tobytes()
    with pytest.raises(ValueError, match="is not a gray image of 8 bits"):
        crops.decode_gray(data)


def test_padding():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    padded = crops.pad(image, 3, 5, (7, 8, 9))
    np.testing.assert_array_equal(padded[:2, :4], image)
    assert (padded[2] == (7, 8, 9)).all() and (padded[:, 4] == (7, 8, 9)).all()
    with pytest.raises(ValueError, match="is 2 x 4, larger than 2 x 3"):
        crops.pad(image, 2, 3, 0)
