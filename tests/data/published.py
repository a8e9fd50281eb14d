"""Small datasets in the layouts that are published, made of photographs that packages ship."""

import functools
import io
import pathlib
import pickle
import tarfile
import zipfile

import numpy as np
import scipy.io
from PIL import Image

from unnas_jax.data import photos

SYNSETS = ("n01440764", "n01443537", "n02102040")


@functools.cache
def photograph(name="coffee"):
    path = photos.find_photographs()[photos.NAMES.index(name)]
    return np.asarray(Image.open(path).convert("RGB"))


def picture(k, width=50, height=37):
    """A part of a photograph, another for every k."""
    whole = photograph()
    top, left = 13 * k % (whole.shape[0] - height), 29 * k % (whole.shape[1] - width)
    return Image.fromarray(whole[top : top + height, left : left + width])


def encode(image, form="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def tar(members):
    """The bytes of an archive of (name, content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def train_images(count=4):
    """Synset -> file name -> content."""
    return {
        synset: {f"{synset}_{10 * k + 7}.JPEG": encode(picture(100 * c + k)) for k in range(count)}
        for c, synset in enumerate(SYNSETS)
    }


def validation_images(count=6):
    return {f"ILSVRC2012_val_{k:08d}.JPEG": encode(picture(1000 + k)) for k in range(1, count + 1)}


def validation_synset(k):
    """Of image number k from 1."""
    return SYNSETS[5 * k % 3]


def write_folders(root, images):
    for synset, members in images.items():
        for name, content in members.items():
            path = pathlib.Path(root, synset, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def tar_of_tars(images):
    return tar((f"{synset}.tar", tar(members.items())) for synset, members in images.items())


def write_synset_labels(root, count=6):
    lines = [validation_synset(k) for k in range(1, count + 1)]
    pathlib.Path(root, "imagenet_2012_validation_synset_labels.txt").write_text(
        "\n".join(lines) + "\n"
    )


def write_devkit(root, count=6):
    """Its ids are in another order than the synsets' names, as the published ones are."""
    ids = {synset: 3 - k for k, synset in enumerate(SYNSETS)}
    synsets = np.array(
        [(ids[synset], synset) for synset in SYNSETS],
        dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")],
    ).reshape(-1, 1)
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": synsets})
    truth = "".join(f"{ids[validation_synset(k)]}\n" for k in range(1, count + 1))
    folder = "ILSVRC2012_devkit_t12"
    with tarfile.open(pathlib.Path(root, f"{folder}.tar.gz"), "w:gz") as archive:
        for name, content in (
            ("meta.mat", meta.getvalue()),
            ("ILSVRC2012_validation_ground_truth.txt", truth.encode()),
        ):
            info = tarfile.TarInfo(f"{folder}/data/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_imagenet(root, images=None):
    """As the archives are published."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_of_tars(images or train_images()))
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar(validation_images().items()))
    write_devkit(root)
    return root


# Cityscapes.

CITIES = {"train": ("aachen", "bochum"), "val": ("frankfurt",), "test": ("berlin",)}
IDS = np.array([*range(34), 255])


def street(k):
    """A picture of 96 x 48 pixels."""
    return picture(k, 96, 48)


def ids(k):
    """A label map with all ids, whose blocks are of another arrangement for every k."""
    rng = np.random.default_rng(k)
    blocks = rng.permutation(np.resize(IDS, 72)).reshape(6, 12)
    return np.kron(blocks, np.ones((8, 8))).astype(np.uint8)


def cityscapes(per_city=2):
    """Path -> content."""
    files = {}
    number = 0
    for split, cities in CITIES.items():
        for city in cities:
            for k in range(per_city):
                name = f"{split}/{city}/{city}_{k:06d}_000019"
                files[f"leftImg8bit/{name}_leftImg8bit.png"] = encode(street(number), "PNG")
                if split != "test":
                    label = Image.fromarray(ids(number))
                    files[f"gtFine/{name}_gtFine_labelIds.png"] = encode(label, "PNG")
                    files[f"gtFine/{name}_gtFine_color.png"] = b"not read"
                number += 1
    return files


def write_files(root, files):
    for name, content in files.items():
        path = pathlib.Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def write_zips(root, files):
    root.mkdir(parents=True, exist_ok=True)
    for kind in ("leftImg8bit", "gtFine"):
        with zipfile.ZipFile(root / f"{kind}_trainvaltest.zip", "w") as archive:
            archive.writestr("README", "read me")
            for name, content in files.items():
                if name.startswith(kind):
                    archive.writestr(name, content)
    return root


# CIFAR-10.


def cifar_batches(count=6):
    """Batch -> (images uint8 (count, 32, 32, 3), labels)."""
    names = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    return {
        name: (
            np.stack([np.asarray(picture(50 * b + k, 32, 32)) for k in range(count)]),
            [(3 * b + k) % 10 for k in range(count)],
        )
        for b, name in enumerate(names)
    }


def write_cifar(root, batches):
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, (images, labels) in batches.items():
        data = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        content = {b"data": data, b"labels": labels, b"batch_label": b"some batch"}
        # As the NumPy of the time wrote it.
        pickled = pickle.dumps(content, protocol=2).replace(b"numpy._core", b"numpy.core")
        (folder / name).write_bytes(pickled)
    return root
