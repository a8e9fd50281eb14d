"""The contact sheet: what is on it equals what the network is fed."""

import importlib
import io

import numpy as np
import pytest
from PIL import Image

from tests.data import published
from unnas_jax.commands import prepare, show
from unnas_jax.data import cityscapes, open_dataset, shards

# Of ml_collections, which reads config files with it.
by_file = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def small(name, **dataset):
    """A recipe on small images, without flips or lighting to undo."""
    config = importlib.import_module(f"configs.{name}").get_config()
    config.dataset.update(dataset)
    config.input.update(lighting=0.0, gray=0.0)
    return config.to_dict()


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    root = tmp_path_factory.mktemp("show")
    source = published.write_files(root / "source", published.cityscapes())
    shards.prepare(prepare.recipe("cityscapes", str(source)), str(root), 0)
    return open_dataset({"name": "cityscapes", "data_dir": str(root)})


def mirrored(crop, image):
    """`image`, turned back if it is the mirror image of the crop."""
    flipped = image[:, ::-1]
    nearer = np.abs(crop.astype(int) - image).mean() <= np.abs(crop.astype(int) - flipped).mean()
    return image if nearer else flipped


def test_rotation(photos):
    task, groups = show.panels(small("rot_photos"), photos, 3)
    assert task.name == "rotation" and len(groups) == 3
    for group in groups:
        assert [panel.title for panel in group] == [
            "crop",
            *(f"{k}: turned by {90 * k}\N{DEGREE SIGN}" for k in range(4)),
        ]
        upright = mirrored(group[0].image, group[1].image)
        assert np.abs(upright.astype(int) - group[0].image).max() <= 1
        for k in range(4):
            turned = np.rot90(group[1].image, k)
            np.testing.assert_array_equal(group[1 + k].image, turned)


def test_classification_names_the_classes(photos):
    _, groups = show.panels(small("cls_photos"), photos, 4)
    for _, panel in groups:
        number, name = panel.title.split(": ")
        assert photos.class_names[int(number)] == name


def test_colorization_paints_the_classes(photos):
    _, groups = show.panels(small("col_photos"), photos, 4)
    for crop, gray, painted in groups:
        assert np.ptp(gray.image.astype(int), axis=-1).max() == 0
        difference = np.abs(mirrored(crop.image, painted.image).astype(int) - crop.image)
        assert difference.mean() < 12 and difference.mean() > 0  # Centres are 10 apart.


def test_jigsaw_is_put_back(photos):
    _, groups = show.panels(small("jig_photos"), photos, 8)
    wins = 0
    for crop, shuffled, back in groups:
        patches = list(map(int, shuffled.title.split("patches ")[1].split()))
        assert sorted(patches) == [0, 1, 2, 3]

        def quarters(image):
            half = image.shape[0] // 2
            return [image[y : y + half, x : x + half] for y in (0, half) for x in (0, half)]

        original = quarters(back.image)
        for place, patch in enumerate(patches):
            np.testing.assert_array_equal(quarters(shuffled.image)[place], original[patch])

        # Put back, it looks more like the crop than any other order, mostly.
        def likeness(image, crop=crop.image):
            size = (16, 16)
            a, b = (np.asarray(Image.fromarray(x).convert("L").resize(size)) for x in (image, crop))
            return max(np.corrcoef(a.ravel(), c.ravel())[0, 1] for c in (b, b[:, ::-1]))

        wins += likeness(back.image) >= likeness(shuffled.image)
    assert wins >= 6


def test_segmentation_is_painted_in_the_colours_of_cityscapes(streets):
    config = small("seg_cityscapes")
    config["input"].update(crop=33, resize=40)
    _, groups = show.panels(config, streets, 2)
    for crop, image, painted in groups:
        assert np.abs(mirrored(crop.image, image.image).astype(int) - crop.image).max() <= 1
        colors = {tuple(color) for color in painted.image.reshape(-1, 3).tolist()}
        assert colors <= {*cityscapes.COLORS, (0, 0, 0)} and len(colors) > 3
        first = painted.title.split(", ")[0]
        color = cityscapes.COLORS[cityscapes.CLASSES.index(first)]
        counts = [(painted.image == c).all(axis=-1).sum() for c in cityscapes.COLORS]
        assert (painted.image == color).all(axis=-1).sum() == max(counts)


@by_file
def test_the_command(photos, photos_dir, tmp_path, capsys):
    arguments = ["--config=configs/rot_photos.py", f"--config.dataset.data_dir={photos_dir}"]
    path = tmp_path / "sheet.png"
    assert show.main([*arguments, f"--out={path}", "--images=3"]) == 0
    assert capsys.readouterr().out.strip() == str(path)
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        assert image.format == "PNG" and min(image.size) > 300


@by_file
@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--config is missing"),
        (["--config=configs/none.py"], "configs/none.py"),
        (["--config=configs/rot_photos.py", "--config.task.nam=a"], "nam"),
        (["--config=configs/rot_photos.py", "--config.input.crop=-1"], "config.input.crop=-1"),
        (["--config=configs/rot_photos.py", "--images=0"], "--images=0: must be at least 1"),
        (["--config=configs/rot_photos.py", "x"], "unexpected argument 'x'"),
        (["--colour=red"], "colour"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message):
    assert show.main(arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1


def test_the_benchmark_of_the_input(tmp_path, monkeypatch, capsys):
    import json

    from benchmarks import input_pipeline

    monkeypatch.setattr(input_pipeline, "_FILES", 4)
    monkeypatch.setattr("sys.argv", ["input_pipeline.py", "--images=160"])
    input_pipeline.main()
    results = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(results) == {"cls", "rot", "col", "jig"}
    for result in results.values():
        assert set(result) == {"cpu_ms_per_image", "images_per_second"}
        assert min(result.values()) > 0
