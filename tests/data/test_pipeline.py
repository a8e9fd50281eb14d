"""Batches: what is in them, and that nothing but the step decides it."""

import io
import multiprocessing
import time

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from unnas_jax.core.errors import UserError
from unnas_jax.data import crops, decoding, order, photos, pipeline

COUNT, BATCH = 50, 8


class Numbers:
    """Example i is an image of 12 x 12 pixels of the colour (i, row, column), label 3 i."""

    def __init__(self, broken=()):
        self.broken = broken

    def __len__(self):
        return COUNT

    def __getitem__(self, i):
        if i in self.broken:
            return {"image": b"nothing", "label": 0}
        rows, columns = np.mgrid[:12, :12]
        pixels = np.stack([columns, rows, np.full_like(rows, i)], axis=-1)  # BGR.
        return {"image": cv2.imencode(".png", pixels.astype(np.uint8))[1].tobytes(), "label": 3 * i}


def train(indices, count, records=None, **changes):
    arguments = {
        "batch_size": BATCH,
        "crop": 8,
        "resize": 12,
        "train_crop": "resize_random",
        "apply_exif": False,
        "seed": 5,
        "start_step": 0,
        "workers": 0,
    }
    batches = pipeline.train_batches(records or Numbers(), indices, **(arguments | changes))
    try:
        return [next(batches) for _ in range(count)]
    finally:
        batches.close()


def evaluate(indices, records=None, **changes):
    arguments = {"batch_size": BATCH, "crop": 8, "resize": 12, "apply_exif": False, "workers": 0}
    return list(pipeline.eval_batches(records or Numbers(), indices, **(arguments | changes)))


def decoded(i):
    return decoding.decode(Numbers()[i]["image"], apply_exif=False)


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for key in x:
            np.testing.assert_array_equal(x[key], y[key])
            assert x[key].dtype == y[key].dtype


@pytest.mark.parametrize("workers", [0, 1])
def test_steps_that_are_left_out_change_no_others_and_are_not_decoded(workers):
    indices, chosen = np.arange(COUNT), [1, 2, 7, 13]
    expected = train(indices, 14)
    # Every example of step 0 is broken: whoever decodes it is told.
    broken = {int(i) for i in expected[0]["label"] // 3}
    intact = [step for step in chosen if not broken & {*(expected[step]["label"] // 3).tolist()}]
    assert len(intact) >= 2
    found = train(indices, len(intact), Numbers(broken), workers=workers, steps=intact)
    assert_same(found, [expected[step] for step in intact])


def numbers(batches):
    """The examples of batches as their pixels tell."""
    return np.concatenate([batch["image"][:, 0, 0, 0] for batch in batches])


def test_types_and_shapes():
    (batch,) = train(np.arange(COUNT), 1)
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
        "image": ((BATCH, 8, 8, 3), "uint8"),
        "label": ((BATCH,), "int32"),
        "record": ((BATCH,), "int32"),
    }


def test_epochs_are_different_permutations():
    indices = np.arange(5, 40)  # 35 of them: 4 batches of 8.
    assert order.steps_per_epoch(35, BATCH) == 4
    batches = train(indices, 12)
    seen = numbers(batches)
    np.testing.assert_array_equal(np.concatenate([b["label"] for b in batches]), 3 * seen)
    np.testing.assert_array_equal(np.concatenate([b["record"] for b in batches]), seen)
    epochs = seen.reshape(3, 32)
    for epoch in epochs:
        assert len(set(epoch)) == 32 and set(epoch) <= set(indices)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    # What an epoch leaves out is not always the same.
    assert len({frozenset(indices) - frozenset(epoch) for epoch in epochs}) > 1


def test_crops_are_new_in_every_epoch():
    batches = train(np.array([3]), 150, batch_size=1)  # An epoch is one step.
    corners = {tuple(batch["image"][0, 0, 0].tolist()) for batch in batches}
    assert corners == {(3, top, left) for top in range(5) for left in range(5)}


class Maps(Numbers):
    """Images of `Numbers` with label maps of 12 x (12 + extra): 20 i + row, and 255 in column 0."""

    def __init__(self, extra=0):
        super().__init__()
        self.extra = extra

    def __getitem__(self, i):
        ids = np.tile(np.arange(12, dtype=np.uint8)[:, None], (1, 12 + self.extra)) + 20 * (i % 5)
        ids[:, 0] = 255
        data = cv2.imencode(".png", ids)[1].tobytes()
        return {**super().__getitem__(i), "label": crops.LabelMap(data)}


@pytest.mark.parametrize("workers", [0, 1])
def test_label_maps_are_cropped_along(workers):
    for batch in train(np.arange(COUNT), 2, Maps(), label_maps=True, workers=workers):
        assert batch["label"].shape == (BATCH, 8, 8) and batch["label"].dtype == np.uint8
        number, row, column = np.moveaxis(batch["image"].astype(int), -1, 0)
        np.testing.assert_array_equal(
            batch["label"], np.where(column == 0, 255, 20 * (number % 5) + row)
        )


def test_label_maps_that_nobody_asks_for_stay_encoded():
    class Undecodable(Maps):
        def __getitem__(self, i):
            return {**super().__getitem__(i), "label": crops.LabelMap(b"nothing")}

    (batch,) = train(np.arange(COUNT), 1, Undecodable())
    assert batch["label"].dtype == np.int32 and (batch["label"] == 0).all()
    with pytest.raises(UserError, match="the label map of record .* cannot be decoded"):
        train(np.arange(COUNT), 1, Undecodable(), label_maps=True)


def test_label_maps_of_another_size_are_refused():
    with pytest.raises(UserError, match=r"label map of record .* differ in size \(13 x 12 and 12"):
        train(np.arange(COUNT), 1, Maps(extra=1), label_maps=True)


def test_datasets_without_label_maps_are_refused():
    with pytest.raises(UserError, match="record .* has no label map; use a dataset for segment"):
        train(np.arange(COUNT), 1, label_maps=True)


def test_whole_images_are_padded_right_and_bottom():
    indices = np.arange(11)
    (first, second) = evaluate(indices, Maps(), crop=(13, 15), eval_crop="whole", label_maps=True)
    assert first["image"].shape == (BATCH, 13, 15, 3) and first["label"].shape == (BATCH, 13, 15)
    np.testing.assert_array_equal(first["image"][3, :12, :12], decoded(3))
    normalised = first["image"][:, 12:] / 255 - np.array([0.485, 0.456, 0.406])
    assert np.abs(normalised).max() < 0.5 / 255 + 1e-9
    for batch in (first, second):
        assert (batch["label"][:, 12:] == 255).all() and (batch["label"][:, :, 12:] == 255).all()
    np.testing.assert_array_equal(
        first["label"][3, :12, 1:12], 60 + np.arange(12)[:, None] + np.zeros((1, 11))
    )
    np.testing.assert_array_equal(second["mask"], [1, 1, 1, 0, 0, 0, 0, 0])
    assert (second["label"][3:] == 255).all()
    with pytest.raises(UserError, match="record 0 is 12 x 12, larger than 11 x 12"):
        evaluate(indices, Maps(), crop=(11, 12), eval_crop="whole")


@pytest.mark.parametrize("eval_crop, size", [("centre", 8), ("whole", (13, 15))])
def test_the_release_mirrors_images_and_not_their_label_maps(eval_crop, size):
    """Images of `Maps` tell their columns; whole ones are padded at the right all the same."""
    as_is, mirrored = (
        evaluate(
            np.arange(BATCH), Maps(), crop=size, eval_crop=eval_crop, label_maps=True, mirrored=m
        )[0]
        for m in (False, True)
    )
    np.testing.assert_array_equal(mirrored["label"], as_is["label"])
    width = 12 if eval_crop == "whole" else 8
    np.testing.assert_array_equal(
        mirrored["image"][:, :, :width], as_is["image"][:, :, :width][:, :, ::-1]
    )
    np.testing.assert_array_equal(mirrored["image"][:, :, width:], as_is["image"][:, :, width:])


def test_training_crops_are_mirrored_after_they_are_cut():
    as_is, mirrored = (
        train(np.arange(COUNT), 1, Maps(), label_maps=True, mirrored=m)[0] for m in (False, True)
    )
    np.testing.assert_array_equal(mirrored["label"], as_is["label"])
    np.testing.assert_array_equal(mirrored["image"], as_is["image"][:, :, ::-1])


def test_whole_images_are_padded_with_the_given_colour():
    (batch,) = evaluate(np.arange(BATCH), crop=(13, 12), eval_crop="whole", padding=(0.1, 0.5, 0.9))
    np.testing.assert_allclose(
        batch["image"][:, 12] / 255, np.full((8, 12, 3), (0.1, 0.5, 0.9)), atol=0.5 / 255
    )


def test_resampling_reaches_image_and_label_map():
    arguments = {"crop": 4, "resize": 4, "label_maps": True}
    area, bilinear = (
        evaluate(np.arange(BATCH), Maps(), resampling=name, **arguments)[0]
        for name in ("area", "bilinear")
    )
    # Rows 0 to 11 in fours of three: the middle one; the first one is at the corner.
    np.testing.assert_array_equal(area["label"][0, :, 1], [1, 4, 7, 10])
    np.testing.assert_array_equal(bilinear["label"][0, :, 1], [0, 3, 6, 9])


class Photographs(Numbers):
    """Photographs as JPEGs of 400 x 600, turned on their side by EXIF."""

    files = [p for p in photos.find_photographs() if p.stem in ("astronaut", "coffee", "rocket")]

    def __getitem__(self, i):
        image = Image.open(self.files[i % len(self.files)]).convert("RGB").resize((600, 400))
        exif, buffer = Image.Exif(), io.BytesIO()
        exif[ExifTags.Base.Orientation] = 6
        image.save(buffer, "JPEG", quality=95, exif=exif)
        data = buffer.getvalue()
        return {"image": data[: len(data) // 2] if i in self.broken else data, "label": i}


@pytest.mark.parametrize("train_crop", ["random_resized", "resize_random"])
def test_large_photographs_are_shrunk_while_they_are_decoded(train_crop, monkeypatch):
    """The crops are those of all pixels, nearer than bilinear interpolation is to averaging."""

    def crops_of(**changes):
        arguments = {"crop": 24, "resize": 32, "train_crop": train_crop, "apply_exif": True}
        return train(np.arange(COUNT), 2, Photographs(), **(arguments | changes))

    whole = decoding.decode
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "decode", None)  # None is large enough to need all pixels.
        found = crops_of()
    with monkeypatch.context() as patch:
        patch.setattr(crops, "reduction", lambda box, size: 1)
        expected, bilinear = crops_of(), crops_of(resampling="bilinear")
    assert decoding.decode is whole
    for one, other, third in zip(found, expected, bilinear, strict=True):
        np.testing.assert_array_equal(one["record"], other["record"])
        a, b, c = (np.float64(batch["image"]) for batch in (one, other, third))
        assert np.abs(a - b).mean() < 0.7 * np.abs(c - b).mean() and np.abs(a - b).mean() < 5
    # The release's resampling reads all pixels.
    assert_same(crops_of(resampling="bilinear"), bilinear)


@pytest.mark.parametrize("fails", [True, False])
def test_a_header_that_cannot_be_trusted_costs_time_only(fails, monkeypatch):
    """As of an image with a damaged orientation, which two readers understand differently."""

    def size_of(image):
        if fails:
            raise OSError("odd")
        return image.size[1], image.size[0]  # The stored one: decoded, it lies on its side.

    arguments = {"crop": 24, "train_crop": "random_resized", "apply_exif": True}
    with monkeypatch.context() as patch:
        patch.setattr(crops, "reduction", lambda box, size: 1)
        expected = train(np.arange(COUNT), 1, Photographs(), **arguments)
    monkeypatch.setattr(decoding, "upright_size", size_of)
    assert_same(train(np.arange(COUNT), 1, Photographs(), **arguments), expected)


def test_small_crops_of_large_photographs_keep_all_pixels():
    batch = train(np.arange(COUNT), 1, Photographs(), crop=101, resize=101, train_crop="centre")[0]
    image = decoding.decode(Photographs()[int(batch["record"][0])]["image"], apply_exif=False)
    np.testing.assert_array_equal(batch["image"][0], crops.centre_crop(image, 101, 101))


def test_the_central_crop_of_label_maps():
    batch, _ = evaluate(np.arange(11), Maps(), label_maps=True)
    np.testing.assert_array_equal(batch["label"][1], np.tile(np.arange(22, 30)[:, None], (1, 8)))


@pytest.mark.parametrize("start", [1, 4, 9])
def test_resumes_at_any_step(start):
    whole = train(np.arange(35), 12)
    assert_same(train(np.arange(35), 12 - start, start_step=start), whole[start:])


def test_resumes_far_ahead_at_once():
    begin = time.process_time()
    (batch,) = train(np.arange(COUNT), 1, start_step=10**8)
    assert len(set(numbers([batch]))) == BATCH
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_change_nothing(workers):
    expected = train(np.arange(35), 6, start_step=3)
    assert_same(train(np.arange(35), 6, start_step=3, workers=workers), expected)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_global_batches(processes):
    whole = train(np.arange(35), 6)
    parts = [
        train(np.arange(35), 6, process_index=p, process_count=processes) for p in range(processes)
    ]
    joined = [
        {key: np.concatenate([part[key] for part in step]) for key in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert_same(joined, whole)


def test_the_seed_changes_order_and_crops():
    a, b = train(np.arange(COUNT), 1), train(np.arange(COUNT), 1, seed=6)
    assert (numbers(a) != numbers(b)).any()


def test_evaluation_is_one_padded_pass_in_order():
    indices = np.array([7, 3, 9, 30, 31, 32, 33, 34, 35, 2, 1])
    batches = evaluate(indices)
    assert [b["image"].shape for b in batches] == [(BATCH, 8, 8, 3)] * 2
    mask = np.concatenate([b["mask"] for b in batches])
    np.testing.assert_array_equal(mask, [1.0] * 11 + [0.0] * 5)
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(numbers(batches)[:11], indices)
    np.testing.assert_array_equal(np.concatenate([b["label"] for b in batches])[:11], 3 * indices)
    # The centre of 12 x 12.
    np.testing.assert_array_equal(batches[0]["image"][0, 0, :, 2], np.arange(2, 10))


def test_evaluation_in_processes():
    indices = np.arange(11)
    whole = evaluate(indices)
    parts = [evaluate(indices, process_index=p, process_count=2) for p in range(2)]
    joined = [
        {key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*parts, strict=True)
    ]
    assert_same(joined, whole)
    assert_same(evaluate(indices, workers=1), whole)


def test_halves():
    a, b = order.halves(101, 0)
    assert len(a) == len(b) == 50
    assert len(set(a) | set(b)) == 100 and set(a) | set(b) <= set(range(101))
    for half, other in zip(order.halves(101, 0), order.halves(101, 1), strict=True):
        assert (half != other).any()
    np.testing.assert_array_equal(a, order.halves(101, 0)[0])
    assert list(map(len, order.halves(1, 0))) == [0, 0]


def test_halves_never_change():
    """Results of different versions are compared on the same halves: do not update these."""
    a, b = order.halves(10, 0)
    assert a.tolist() == [7, 4, 5, 1, 9]
    assert b.tolist() == [8, 6, 2, 0, 3]


def test_an_evaluation_sample_is_drawn_from_all_examples():
    """Of 1000 examples in the order of ten classes; a prefix would be of one class."""
    indices, classes = np.arange(5, 1005), np.repeat(np.arange(10), 100)
    sample = order.evaluation_sample(indices, 100, 3)
    assert len(set(sample)) == 100 and set(sample) <= set(indices) and (np.diff(sample) > 0).all()
    counts = np.bincount(classes[sample - 5], minlength=10)
    assert ((counts - 10) ** 2 / 10).sum() < 27.9  # Chi-squared, 9 degrees, p = 0.001.
    np.testing.assert_array_equal(sample, order.evaluation_sample(indices, 100, 3))
    assert (sample != order.evaluation_sample(indices, 100, 4)).any()
    assert set(order.evaluation_sample(indices, 30, 3)) < set(sample)
    for count in (-1, 1000, 2000):
        np.testing.assert_array_equal(order.evaluation_sample(indices, count, 3), indices)


def test_crops_and_shuffles_do_not_draw_the_same_bits(monkeypatch):
    """An epoch's order is that of as many random numbers; no crop's generator begins with them."""
    count, drawn = 10, {}

    def record(height, width, size, resize, rng):
        bits = rng.bit_generator.random_raw(count)
        drawn[len(drawn)] = tuple(np.argsort(bits, kind="stable").tolist())
        return crops.centre_box(height, width, size, resize)

    monkeypatch.setitem(crops.TRAIN_CROPS, "recorded", record)
    batches = train(np.arange(count), 6, batch_size=count, train_crop="recorded")
    orders = {tuple(numbers([batch]).tolist()) for batch in batches}
    assert len(orders) == 6 and len(drawn) >= 60
    assert not orders & set(drawn.values())


def test_permutations_are_uniform():
    draws = np.array([order.permutation(4, seed) for seed in range(2400)])
    _, counts = np.unique(draws, axis=0, return_counts=True)
    assert len(counts) == 24
    assert ((counts - 100) ** 2 / 100).sum() < 49.7  # Chi-squared, 23 degrees, p = 0.001.


@pytest.mark.parametrize("workers", [0, 1])
def test_an_undecodable_image_is_named(workers):
    with pytest.raises(UserError, match=r"record 13 is not an image.*; repair or remove it"):
        train(np.arange(10, 18), 1, records=Numbers(broken=(13,)), workers=workers)


def test_a_large_photograph_that_ends_early_is_named():
    with pytest.raises(UserError, match=r"the image of record 13 .*; repair or remove it"):
        train(np.arange(10, 18), 1, Photographs(broken=(13,)), crop=24)


def test_too_little_memory_for_an_image_is_no_fault_of_the_image(monkeypatch):
    def fail(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(decoding, "decode", fail)
    with pytest.raises(UserError, match="too little memory for the image of record .*workers"):
        train(np.arange(10), 1)


def test_too_few_images():
    with pytest.raises(UserError, match="batch_size=8: is larger than the 7 images"):
        train(np.arange(7), 1)


def test_a_batch_that_cannot_be_shared():
    with pytest.raises(UserError, match="batch_size=8: is not divisible by the 3 processes"):
        train(np.arange(COUNT), 1, process_count=3)
