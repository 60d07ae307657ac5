"""Laws of the phantoms: the same everywhere, fair, visible, and in need of a look."""

import hashlib
import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.metrics import roc_auc_score

from tfds_builders.phantom import patients
from tfds_builders.phantom.anatomies import ANATOMIES
from tfds_builders.phantom.drawing import PIXEL, SIDE, Canvas, Ellipse, Random, coverage, smooth
from tfds_builders.phantom.phantom_dataset_builder import PATIENTS, Builder


@pytest.fixture(scope="module")
def slices():
    return list(patients.draw_split("val", 54))


def test_the_pixels_are_the_ones_that_every_machine_draws(slices):
    digest = hashlib.sha256()
    for drawn in slices[:24]:
        digest.update(drawn.key.encode() + bytes([drawn.has_lesion]) + drawn.pixels.tobytes())
    # A change of the drawing or of its constants is another data set: raise Builder.VERSION.
    assert digest.hexdigest() == "59d56d68ca9c076bc85ef4eb4a814132bc38ce41ffeb3c70f6fa1c69fce9a20e"


def test_random_numbers_are_uniform_and_noise_has_unit_variance():
    random = Random(1, 2, 3)
    numbers = np.array([random.uniform() for _ in range(20_000)])
    # Standard errors: 0.289 / sqrt(20000) = 0.002 for the mean, and as little for the SD.
    assert numbers.mean() == pytest.approx(0.5, abs=0.01)
    assert numbers.std() == pytest.approx(12**-0.5, abs=0.01)
    assert {Random(seed).integer(1, 3) for seed in range(60)} == {1, 2, 3}
    noise = random.noise()
    assert noise.mean() == pytest.approx(0, abs=0.04)
    assert noise.std() == pytest.approx(1, abs=0.03)
    # Smoothing keeps the variance; fewer independent values make it less certain.
    assert smooth(noise, across=2, down=1).std() == pytest.approx(1, abs=0.1)
    assert not np.array_equal(Random(1, 2, 4).noise(), Random(1, 2, 3).noise())


def test_an_ellipse_covers_its_area_wherever_it_is_turned():
    for turn in (0.0, 0.3, -1.0):
        shape = Ellipse(0.1, -0.2, 0.5, 0.3, turn)
        area = coverage(shape, PIXEL).sum() * PIXEL**2
        assert area == pytest.approx(np.pi * 0.5 * 0.3, rel=0.01)
        x, y = shape.point(0.9, 0.0)
        assert shape.holds(x, y)
        assert not shape.holds(*shape.point(0.0, 1.1))
    # A half angle whose tangent is 1 turns by 90 degrees.
    np.testing.assert_allclose(
        coverage(Ellipse(0, 0, 0.5, 0.3, 1.0), PIXEL), coverage(Ellipse(0, 0, 0.3, 0.5), PIXEL)
    )


def test_painting_touches_nothing_outside_the_shape():
    canvas = Canvas(10.0)
    shape = Ellipse(0.9, 0.9, 0.4, 0.2, 0.2)  # reaches over the canvas' corner
    canvas.paint(shape, 200.0)
    covered = coverage(shape, 1.5 * PIXEL) > 0
    assert canvas.pixels[~covered] == pytest.approx(10.0)
    assert canvas.pixels.max() == pytest.approx(200.0)


def test_lesions_never_outshine_their_ceiling():
    canvas = Canvas(100.0)
    canvas.pixels[:, SIDE // 2 :] = 180.0
    canvas.add(Ellipse(0, 0, 0.5, 0.5), 90.0, edge=PIXEL, ceiling=150.0)
    assert canvas.pixels[:, : SIDE // 2].max() == pytest.approx(150.0)
    assert canvas.pixels[:, SIDE // 2 :].max() == pytest.approx(180.0)


def test_every_anatomy_and_split_has_both_classes_in_fair_shares(slices):
    for anatomy in ANATOMIES:
        labels = [drawn.has_lesion for drawn in slices if f"-{anatomy.name}-" in drawn.patient]
        assert 0.3 < np.mean(labels) < 0.6
    by_patient = {}
    for drawn in slices:
        assert drawn.key.startswith(drawn.patient + "/")
        by_patient.setdefault(drawn.patient, []).append(drawn.has_lesion)
    assert {len(labels) for labels in by_patient.values()} == {patients.SLICES}
    assert any(any(labels) and not all(labels) for labels in by_patient.values())
    assert any(not any(labels) for labels in by_patient.values())


def test_only_lesions_differ_between_a_patient_and_the_twin_without_one(slices, monkeypatch):
    monkeypatch.setattr(patients, "_paint_lesion", lambda *_: None)
    signals = []
    for drawn, twin in zip(slices, patients.draw_split("val", 54), strict=True):
        assert drawn.key == twin.key
        difference = drawn.pixels.astype(float) - twin.pixels
        assert difference.any() == drawn.has_lesion
        if drawn.has_lesion:
            assert 0.002 < (difference != 0).mean() < 0.1
            signals.append(np.sqrt((difference**2).sum()))
    # Signal over noise for one who knows the lesion's place and shape: every lesion is there to
    # be found, and the faintest are ten times fainter than the plainest.
    noise = np.hypot(patients.COARSE_NOISE, patients.FINE_NOISE)
    assert min(signals) / noise > 10
    assert max(signals) / min(signals) > 5


@pytest.mark.parametrize("statistic", [np.mean, np.std, np.median, np.max])
def test_no_grey_value_statistic_gives_the_answer_away(slices, statistic):
    labels = [drawn.has_lesion for drawn in slices]
    scores = [statistic(drawn.pixels.astype(float)) for drawn in slices]
    assert 0.35 < roc_auc_score(labels, scores) < 0.65


def test_the_builder_writes_the_drawn_slices_with_no_patient_in_two_splits(tmp_path, monkeypatch):
    monkeypatch.setitem(PATIENTS, "train", 6)
    monkeypatch.setitem(PATIENTS, "val", 3)
    monkeypatch.setitem(PATIENTS, "test", 3)
    builder = Builder(data_dir=tmp_path)
    builder.download_and_prepare(file_format="array_record")
    assert builder.info.features["label"].names == ["normal", "lesion"]
    seen = {}
    for split, count in PATIENTS.items():
        drawn = {each.key: each for each in patients.draw_split(split, count)}
        source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        assert len(source) == len(drawn) == count * patients.SLICES
        for example in source:
            expected = drawn[example["key"].decode()]
            pixels = np.asarray(Image.open(io.BytesIO(example["image"])))
            np.testing.assert_array_equal(pixels, expected.pixels)
            assert int(example["label"]) == expected.has_lesion
            seen.setdefault(example["patient"].decode(), set()).add(split)
    assert all(len(splits) == 1 for splits in seen.values())


def test_the_declared_counts_are_the_ones_drawn():
    assert Builder.EXPECTED[""] == {"train": 1008, "val": 216, "test": 300}
    assert Builder.EXPECTED[""] == {s: count * patients.SLICES for s, count in PATIENTS.items()}


def test_the_tags_are_ones_that_tfds_knows():
    assert set(Builder.get_metadata().tags) <= set(tfds.core.dataset_metadata.valid_tags())
