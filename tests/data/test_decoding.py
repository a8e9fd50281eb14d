"""Decoding against Pillow: every kind of file, every depth, every exception."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from unnas_jax.data import decoding, photos, verify

FORMATS = ("BMP", "TIFF", "GIF", "PPM", "AVIF", "JPEG2000", "TGA", "PCX", "QOI", "SGI", "DDS")
FORMATS += ("ICO", "WEBP", "PNG")


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
    decoded = decoding.decode(data, apply_exif=False)
    assert decoded.dtype == np.uint8
    assert np.abs(decoded - expected).max() <= tolerance


def test_16_bits_become_8(image):
    for pixels in (image, image[..., 0]):
        _, data = cv2.imencode(".png", pixels.astype(np.uint16) * 257)
        stored = pixels[..., ::-1] if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1)
        np.testing.assert_array_equal(decoding.decode(data.tobytes(), apply_exif=False), stored)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(image, form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(image), form, exif=exif.tobytes())
    opened = Image.open(io.BytesIO(data))
    upright, stored = np.asarray(ImageOps.exif_transpose(opened)), np.asarray(opened)
    np.testing.assert_array_equal(decoding.decode(data, apply_exif=True), upright)
    np.testing.assert_array_equal(decoding.decode(data, apply_exif=False), stored)


@pytest.mark.parametrize("form, mode", [("PNG", "RGBA"), ("WEBP", "RGBA"), ("PNG", "LA")])
def test_transparency_is_over_white(image, form, mode):
    alpha = np.tile(np.linspace(0, 255, image.shape[1]).astype(np.uint8), (image.shape[0], 1))
    rgba = Image.fromarray(np.dstack([image, alpha])).convert(mode)
    data = encode(rgba, form, **({"lossless": True, "exact": True} if form == "WEBP" else {}))
    colour = np.asarray(rgba.convert("RGBA"))[..., :3].astype(float)
    share = alpha[..., None] / 255
    expected = colour * share + 255 * (1 - share)
    decoded = decoding.decode(data, apply_exif=True)
    assert np.abs(decoded - expected).max() <= 1
    assert (decoded[:, 0] == 255).all()


def test_transparent_palette_is_over_white(image):
    palette = Image.fromarray(image).quantize(16)
    data = encode(palette, "PNG", transparency=int(np.asarray(palette)[0, 0]))
    hidden = np.asarray(palette) == np.asarray(palette)[0, 0]
    decoded = decoding.decode(data, apply_exif=True)
    assert (decoded[hidden] == 255).all()
    np.testing.assert_array_equal(decoded[~hidden], np.asarray(palette.convert("RGB"))[~hidden])


@pytest.mark.parametrize(
    "data", [b"", b"text, not pixels", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"]
)
def test_undecodable_raises(data):
    with pytest.raises(ValueError):
        decoding.decode(data, apply_exif=True)


@pytest.mark.parametrize(
    "form",
    [
        "BMP",
        "TIFF",
        "GIF",
        "PPM",
        "AVIF",
        "JPEG2000",
        "TGA",
        "PCX",
        "QOI",
        "SGI",
        "DDS",
        "ICO",
        "WEBP",
        "PNG",
    ],
)
def test_every_format_of_pillow(image, form):
    data = encode(Image.fromarray(image), form)
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(decoding.decode(data, apply_exif=True), expected)
    assert verify.examine(data, apply_exif=True) == verify.Finding()


def test_the_first_frame_of_an_animation(image):
    frames = [Image.fromarray(image), Image.fromarray(255 - image)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.abs(decoding.decode(data, apply_exif=True).astype(int) - image).mean() < 10


def cv2_bytes(end, values):
    return cv2.imencode(end, values)[1].tobytes()


@pytest.mark.parametrize("end", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_16_bits_that_are_partly_filled_are_scaled_by_what_they_fill(image, end, bits):
    top = 2**bits - 1
    values = np.round(image / 255 * top).astype(np.uint16)
    values[0, 0] = top
    data = cv2_bytes(end, values[..., ::-1])
    expected = np.round(values / top * 255)
    assert np.abs(decoding.decode(data, apply_exif=True) - expected).max() <= 1
    assert verify.examine(data).bits == bits
    gray = cv2_bytes(end, values[..., 1])
    assert np.abs(decoding.decode(gray, apply_exif=True)[..., 0] - expected[..., 1]).max() <= 1


def test_16_bits_that_are_filled_are_scaled_by_all(image):
    values = image.astype(np.uint16) * 20  # 13 bits: a dark image of 16.
    decoded = decoding.decode(cv2_bytes(".png", values), apply_exif=True)
    assert np.abs(decoded[..., ::-1] - values / 257).max() <= 1


def test_alpha_of_16_bits_is_over_white(image):
    values = np.dstack([image.astype(np.uint16) * 16, np.full(image.shape[:2], 65535, np.uint16)])
    values[:, :50, 3] = 0
    decoded = decoding.decode(cv2_bytes(".png", values), apply_exif=True)
    assert (decoded[:, :50] == 255).all()
    assert np.abs(decoded[:, 50:, ::-1] - values[:, 50:, :3] / 4095 * 255).max() <= 1


def test_16_bits_are_turned_upright(image):
    values = image[..., 0].astype(np.uint16) * 257
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(Image.fromarray(values), "PNG", exif=exif.tobytes())
    turned = np.rot90(image[..., 0], -1)
    np.testing.assert_array_equal(decoding.decode(data, apply_exif=True)[..., 0], turned)
    np.testing.assert_array_equal(decoding.decode(data, apply_exif=False)[..., 0], image[..., 0])


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_floating_point_from_0_to_1_or_255(image, top):
    values = image[..., 0].astype(np.float32) * np.float32(top / 255)
    decoded = decoding.decode(cv2_bytes(".tif", values), apply_exif=True)
    assert np.abs(decoded[..., 0].astype(int) - image[..., 0]).max() <= 1


@pytest.mark.parametrize("value", [-1.0, 1e5, np.nan])
def test_other_floating_point_is_refused(image, value):
    values = image[..., 0].astype(np.float32)
    values[3, 3] = value
    with pytest.raises(decoding.Undecodable, match="has values from"):
        decoding.decode(cv2_bytes(".tif", values), apply_exif=True)


def mutations(image):
    """Files that are damaged in their metadata or pixels, in every format."""
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    small = Image.fromarray(image[:40, :40])
    for form in [
        "JPEG",
        "PNG",
        "WEBP",
        "TIFF",
        "GIF",
        "BMP",
        "AVIF",
        "JPEG2000",
        "PPM",
        "TGA",
        "PCX",
        "QOI",
        "SGI",
        "DDS",
        "ICO",
    ]:
        mode = small.convert("RGBA") if form in ("PNG", "WEBP", "TIFF") else small
        options = {"exif": exif.tobytes()} if form in ("JPEG", "PNG", "WEBP", "AVIF") else {}
        whole = encode(mode, form, **options)
        yield whole[: len(whole) // 2]
        for _ in range(40):
            data = bytearray(whole)
            for place in rng.integers(0, min(len(data), 300), 3):
                data[place] = rng.integers(256)
            yield bytes(data)


@pytest.mark.filterwarnings("ignore")
def test_whatever_a_decoder_raises_is_undecodable_and_the_check_agrees_with_training(image):
    outcomes = set()
    for data in mutations(image):
        try:
            with decoding.open_header(data) as header:
                verify.pixels(header, 10_000)
            finding = verify.examine(data, apply_exif=True)
        except decoding.Undecodable:
            continue  # As the check does.
        outcomes.add(bool(finding.reason))
        if not finding.reason:
            decoded = decoding.decode(data, apply_exif=True)
            assert decoded.dtype == np.uint8 and decoded.shape[2] == 3
        assert "\n" not in finding.reason
    assert outcomes == {False, True}


@pytest.mark.parametrize("error", [struct.error("x"), TypeError("x"), RuntimeError("x\ny")])
def test_unforeseen_exceptions_of_decoders_are_one_line(monkeypatch, image, error):
    def fail(*arguments):
        raise error

    data = encode(Image.fromarray(image).convert("RGBA"), "PNG")
    monkeypatch.setattr(ImageOps, "exif_transpose", fail)
    with pytest.raises(decoding.Undecodable, match=r"^cannot be decoded \(x"):
        decoding.decode(data, apply_exif=True)
    assert verify.examine(data, apply_exif=True).reason.startswith("cannot be decoded (x")
    assert not verify.examine(data, apply_exif=False).reason  # Which does not turn it.


def test_too_many_pixels_are_refused_by_the_header():
    data = encode(Image.new("1", (11_000, 10_000)), "PNG")
    with (
        decoding.open_header(data) as header,
        pytest.raises(decoding.Undecodable, match="has 110,000,000 pixels, more than 100,000,000"),
    ):
        verify.pixels(header)
    assert verify.why_unusable(data).startswith("has 110,000,000 pixels")


def test_postscript_is_no_image():
    """Pillow would run Ghostscript on it."""
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(decoding.Undecodable, match="is not an image"):
        decoding.decode(data, apply_exif=True)


def test_what_has_colours(image):
    assert not verify.examine(encode(Image.fromarray(image), "JPEG")).colourless
    gray = Image.fromarray(image).convert("L")
    for data in (encode(gray, "PNG"), encode(gray.convert("RGB"), "JPEG", quality=75)):
        assert verify.examine(data).colourless
    spot = gray.convert("RGB")
    spot.paste((200, 30, 30), (0, 0, 40, 40))
    assert not verify.examine(encode(spot, "PNG")).colourless


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_reduced_image_is_the_mean_of_its_blocks(image, factor):
    data = encode(Image.fromarray(image), "JPEG", quality=95)
    found = decoding.decode_reduced(data, factor, apply_exif=False)
    blocks = np.float64(decoding.decode(data, apply_exif=False))
    height, width = (side // factor for side in blocks.shape[:2])
    means = blocks.reshape(height, factor, width, factor, 3).mean((1, 3))
    assert found.shape == (height, width, 3)
    assert np.abs(found - means).mean() < 1.5
    with pytest.raises(decoding.Undecodable):
        decoding.decode_reduced(data[:100], factor, apply_exif=False)


def test_the_size_of_a_jpeg_is_read_from_its_header(image):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for options in ({}, {"progressive": True}, {"comment": "\xff\xc0" * 99}):
        data = encode(Image.fromarray(image), "JPEG", exif=exif, **options)
        assert decoding.jpeg_size(data, 120, apply_exif=False) == (120, 160)
        assert decoding.jpeg_size(data, 120, apply_exif=True) == (160, 120)
        assert decoding.jpeg_size(data, 121, apply_exif=True) is None
    for end in range(len(data) - 1, 0, -97):  # Cut off anywhere.
        assert decoding.jpeg_size(data[:end], 0, apply_exif=False) in (None, (120, 160))
    png = encode(Image.fromarray(image), "PNG")
    assert decoding.jpeg_size(png, 0, apply_exif=False) is None
    assert decoding.jpeg_size(b"", 0, apply_exif=False) is None
