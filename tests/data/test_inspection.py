"""Laws of the audit: what shows the same is found, what does not is left alone."""

import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from radimagenet_jax.data import inspection


def scene(seed, size=96):
    """A smooth picture (S, S) uint8 such as no other seed gives."""
    noise = np.random.default_rng(seed).normal(0, 1, (12, 12)).astype(np.float32)
    smooth = cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def encoded(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def examined(content, key="a.png", split="train", label="benign", patient=""):
    return inspection.examine(content, key, split, label, patient)


def keys(groups):
    return [{picture.key for picture in group} for group in groups]


def test_the_same_pixels_in_different_files_are_an_exact_copy():
    pixels = scene(0)
    found = inspection.find(
        [
            examined(encoded(pixels), "a.png"),
            examined(encoded(np.dstack([pixels] * 3)), "grey as RGB.png", "test", "malignant"),
            examined(encoded(pixels, "BMP"), "a.bmp"),
            examined(encoded(scene(1)), "other.png"),
        ]
    )
    assert keys(found.exact) == [{"a.png", "grey as RGB.png", "a.bmp"}]
    assert inspection.is_contradictory(found.exact[0])
    assert inspection.is_leaking(found.exact[0])
    assert not found.near


@pytest.mark.parametrize(
    "change",
    [
        lambda pixels: encoded(pixels, "JPEG", quality=60),
        lambda pixels: encoded(cv2.resize(pixels, (64, 64), interpolation=cv2.INTER_AREA)),
        lambda pixels: encoded((pixels * 0.9 + 5).astype(np.uint8)),
    ],
    ids=["recompressed", "rescaled", "another contrast"],
)
def test_a_copy_that_was_worked_on_is_a_near_copy(change):
    found = inspection.find([examined(encoded(scene(0)), "a"), examined(change(scene(0)), "b")])
    assert keys(found.near) == [{"a", "b"}]
    assert not found.exact


def test_different_pictures_are_not_copies():
    found = inspection.find([examined(encoded(scene(seed)), str(seed)) for seed in range(200)])
    assert not found.exact
    assert not found.near


def test_no_pair_within_the_distance_is_missed():
    """Against all pairs, with hashes that crowd in few buckets."""
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 2**63, 40, dtype=np.uint64)
    flips = [
        sum(1 << int(bit) for bit in rng.choice(64, rng.integers(0, 8), replace=False))
        for _ in range(600)
    ]
    hashes = rng.choice(centres, 600) ^ np.array(flips, np.uint64)
    expected = {
        (i, j)
        for i in range(600)
        for j in range(i + 1, 600)
        if int(hashes[i] ^ hashes[j]).bit_count() <= inspection.MAX_HASH_DISTANCE
    }
    found = {
        (min(pair), max(pair))
        for first, second in inspection._close_pairs(hashes)
        for pair in zip(first.tolist(), second.tolist(), strict=True)
    }
    assert len(expected) > 1000
    assert found == expected


def test_empty_images_are_told_and_are_no_copies_of_each_other():
    black, grey = np.zeros((40, 40), np.uint8), np.full((40, 40), 128, np.uint8)
    found = inspection.find(
        [examined(encoded(black), "a"), examined(encoded(black), "b"), examined(encoded(grey), "c")]
    )
    assert {picture.key for picture in found.empty} == {"a", "b", "c"}
    assert not found.exact
    assert not found.near


@pytest.mark.parametrize("content", [b"", b"no image", encoded(scene(0))[:200]])
def test_what_cannot_be_read_is_a_finding(content):
    (picture,) = inspection.find([examined(content, "broken.png")]).unreadable
    assert "'broken.png'" in picture.problem


def test_a_suffix_that_names_another_format_is_told():
    found = inspection.find(
        [
            examined(encoded(scene(0), "JPEG"), "a.png"),
            examined(encoded(scene(1), "JPEG"), "b.JPG"),
            examined(encoded(scene(2)), "no suffix"),
        ]
    )
    assert [(picture.key, picture.wrong_suffix) for picture in found.wrong_suffixes] == [
        ("a.png", "JPEG")
    ]


def test_patients_in_two_splits_counts_sizes_and_modes():
    rgba = np.dstack([scene(3)] * 4)
    found = inspection.find(
        [
            examined(encoded(scene(0)), "a", "train", "benign", "p1"),
            examined(encoded(scene(1)), "b", "test", "benign", "p1"),
            examined(encoded(scene(2, 64)), "c", "test", "malignant", "p2"),
            examined(encoded(rgba), "d", "train", "malignant", ""),
        ]
    )
    assert found.shared_patients == {"p1": ("test", "train")}
    assert found.class_counts == {
        "benign": {"train": 1, "test": 1},
        "malignant": {"test": 1, "train": 1},
    }
    assert found.sizes == {(96, 96): 3, (64, 64): 1}
    assert found.modes == {"L": 3, "RGBA": 1}
    json.dumps(found.to_json(), allow_nan=False)


def test_contradictions_come_before_leaks_before_large_groups():
    def copies(seed, *rows):
        return [examined(encoded(scene(seed)), f"{seed}-{k}", *row) for k, row in enumerate(rows)]

    found = inspection.find(
        [
            *copies(0, ("train", "x"), ("train", "x"), ("train", "x")),
            *copies(1, ("train", "x"), ("test", "x")),
            *copies(2, ("train", "x"), ("train", "y")),
        ]
    )
    assert [group[0].key for group in found.exact] == ["2-0", "1-0", "0-0"]
