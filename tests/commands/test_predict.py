"""Laws of prediction: the run's own scores, the weight file's own features."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from radimagenet_jax import predict
from radimagenet_jax.data import datasets
from radimagenet_jax.errors import ConfigError, DataError, UserError, WeightsError
from radimagenet_jax.reports import predictions


@pytest.fixture(scope="module")
def run(tmp_path_factory, start, page) -> Path:
    """A finished run of one epoch."""
    workdir = tmp_path_factory.mktemp("predict") / "run"
    process = start("main", f"--config={page}", f"--workdir={workdir}", "--config.epochs=1")
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return workdir


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, data_dir) -> Path:
    """Test phantoms as PNG files in two folders, at the size that they are trained on."""
    folder = tmp_path_factory.mktemp("pictures")
    split = datasets.load("phantom", data_dir, 32).test
    for key, image in list(zip(split.keys, split.images, strict=True))[:20]:
        path = folder / f"{key}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), image)
    return folder


def table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["key"]: row for row in csv.DictReader(file)}


def test_scores_equal_the_runs_own_predictions(run, pictures, tmp_path):
    output = tmp_path / "scores"
    arguments = [f"--workdir={run}", f"--inputs={pictures}", f"--output={output}"]
    assert predict.main(arguments) == 0
    ours = table(output / "predictions.csv")
    theirs = predictions.read(run / "predictions_test.csv")
    by_key = dict(zip(theirs.keys, theirs.scores, strict=True))
    assert len(ours) == 20
    for key, row in ours.items():
        scores = [float(row["score_normal"]), float(row["score_lesion"])]
        np.testing.assert_allclose(scores, by_key[key.removesuffix(".png")], atol=1e-5)
        assert row["prediction"] == ("normal", "lesion")[int(np.argmax(scores))]


def test_features_of_a_run_have_a_row_an_image(run, pictures, tmp_path):
    output = tmp_path / "features"
    predict.main([f"--workdir={run}", f"--inputs={pictures}", f"--output={output}", "--features"])
    with np.load(output / "features.npz", allow_pickle=False) as file:
        assert len(file["keys"]) == len(file["pooled"]) == 20
        assert sorted(file["keys"].tolist()) == file["keys"].tolist()
        assert np.isfinite(file["pooled"]).all()
        assert np.ptp(file["pooled"], axis=0).max() > 0
    assert [p.name for p in output.iterdir()] == ["features.npz"]


@pytest.fixture
def features(tmp_path) -> Path:
    """Features of three images, as they are written."""
    pooled = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    return predict._write_features(tmp_path, ["a.png", "b.png", "ü.png"], pooled)


def test_features_are_read_back_as_they_were_written(features):
    keys, pooled = predict.read_features(features)
    assert keys == ("a.png", "b.png", "ü.png")
    expected = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    np.testing.assert_array_equal(pooled, expected)


def test_damaged_features_are_refused_wherever_the_damage_is(features):
    content = features.read_bytes()
    expected = predict.read_features(features)
    refusals = []
    for place in range(0, len(content), 7):
        for damaged in (content[:place], content[:place] + b"\xff" + content[place + 1 :]):
            features.write_bytes(damaged)
            try:
                keys, pooled = predict.read_features(features)
            except DataError as error:
                refusals.append(str(error))
            else:  # a time stamp in the archive, of which nothing depends
                assert keys == expected[0]
                np.testing.assert_array_equal(pooled, expected[1])
    assert len(refusals) > len(content) / 7
    assert all("features.npz is damaged" in said and "--features" in said for said in refusals)
    with pytest.raises(DataError, match=r"none\.npz cannot be read"):
        predict.read_features(features.with_name("none.npz"))


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_features_that_cannot_be_written_leave_those_before(features, monkeypatch, fault):
    before = features.read_bytes()

    def stopped(path, **arrays):
        path.write_bytes(b"half")
        raise fault

    monkeypatch.setattr(np, "savez", stopped)
    with pytest.raises((UserError, KeyboardInterrupt), match=r"No space left on device; make|^$"):
        predict._write_features(features.parent, ["a"], np.zeros((1, 2), np.float32))
    assert [path.name for path in features.parent.iterdir()] == ["features.npz"]
    assert features.read_bytes() == before


def test_a_pattern_takes_what_it_matches_and_a_folder_its_subfolders(pictures):
    everything = predict.find_images(str(pictures))
    assert len(everything) == 20
    some = predict.find_images(f"{pictures}/test-*/*0.png")
    assert 0 < len(some) < 20
    assert some.keys() <= everything.keys()


def test_bad_inputs_are_named_and_nothing_is_written(run, pictures, tmp_path):
    output = tmp_path / "out"
    bad = tmp_path / "bad"
    bad.mkdir()
    with pytest.raises(DataError, match="no image there"):
        predict.main([f"--workdir={run}", f"--inputs={bad}", f"--output={output}"])
    whole = next(iter(predict.find_images(str(pictures)).values())).read_bytes()
    (bad / "a.png").write_bytes(whole)
    (bad / "b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"b\.png"):
        predict.main([f"--workdir={run}", f"--inputs={bad}", f"--output={output}"])
    (bad / "b.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.png"):
        predict.main([f"--workdir={run}", f"--inputs={bad}", f"--output={output}"])
    with pytest.raises(ConfigError, match="holds no run"):
        predict.main([f"--workdir={bad}", f"--inputs={pictures}", f"--output={output}"])
    # Whether weights name classes to score is in the file.
    with pytest.raises(WeightsError, match=r"no weight file x\.h5"):
        predict.main(["--weights=x.h5", f"--inputs={pictures}", f"--output={output}"])
    assert not output.exists()
