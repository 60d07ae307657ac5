"""Laws of prediction: the run's own scores, every file accounted for, and no row lost to a kill."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pydicom.data
import pytest

from radimagenet_jax import load_pretrained, predict, read_image
from radimagenet_jax.data import inputs
from radimagenet_jax.data.features_file import read as read_features
from radimagenet_jax.data.images import resize_nearest
from radimagenet_jax.errors import ConfigError, DataError, WeightsError
from radimagenet_jax.network import Network
from radimagenet_jax.prediction import flow, session
from radimagenet_jax.reports import predictions
from tests.dicom_files import dicom_file
from tests.tfds_builders.building import encoded

CLASSES = ("dark", "light")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A data directory with 122 images of both classes: 80 PNG, 42 DICOM, some without a suffix."""
    data = tmp_path_factory.mktemp("predict")
    folder = data / "downloads/manual/image_csv/mixed"
    rng = np.random.default_rng(5)
    rows = ["filename,label,patient"]
    for number in range(122):
        light = number % 2
        grey = rng.integers(0, 200, (40, 36)) + 12 * light
        if number < 80:
            name, content = f"png/{number}.png", encoded(grey.astype(np.uint8))
        else:
            name = f"series{number % 3}/IM{number:04}{'.dcm' if number % 4 else ''}"
            tags = {"WindowCenter": 120, "WindowWidth": 300} if number % 5 else {}
            content = dicom_file(grey.astype(np.int16), f"p{number // 2}", **tags)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        rows.append(f"{name},{CLASSES[light]},p{number // 2}{light}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return data


@pytest.fixture(scope="module")
def images(source) -> Path:
    """The folder of the images and their table."""
    return source / "downloads/manual/image_csv/mixed"


@pytest.fixture(scope="module")
def run(source, start, page_of) -> Path:
    """A finished run of one epoch on them."""
    workdir = source / "run"
    process = start(
        *("main", f"--config={page_of('image_csv/mixed', source)}", f"--workdir={workdir}"),
        *("--config.epochs=1", "--config.batch_size=32"),
    )
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return workdir


@pytest.fixture(scope="module")
def scored(run, images, tmp_path_factory) -> Path:
    """The run's scores of the whole folder."""
    output = tmp_path_factory.mktemp("scored") / "scores"
    assert predict.main([f"--workdir={run}", f"--inputs={images}", f"--output={output}"]) == 0
    return output


def table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["key"]: row for row in csv.DictReader(file)}


def left(output: Path) -> set[str]:
    """What a command has left in a folder that it made, which git ignores."""
    names = {path.name for path in output.iterdir()}
    assert ".gitignore" in names
    return names - {".gitignore"}


def scores_of(rows: dict[str, dict[str, str]], keys) -> np.ndarray:
    return np.array([[float(rows[key][f"score_{name}"]) for name in CLASSES] for key in keys])


def test_every_image_of_a_mixed_folder_is_scored_under_its_key_in_training(scored, images):
    rows = table(scored / "predictions.csv")
    with (images / "labels.csv").open() as file:
        named = [row["filename"] for row in csv.DictReader(file)]
    assert len(rows) == 122
    assert list(rows) == sorted(named)
    assert [*rows[named[0]]] == ["key", "prediction", "score_dark", "score_light"]
    for row in rows.values():
        best = np.argmax([float(row["score_dark"]), float(row["score_light"])])
        assert row["prediction"] == CLASSES[best]
    assert left(scored) == {"predictions.csv"}


def test_scores_of_the_test_split_equal_the_runs_own(scored, run):
    theirs = predictions.read(run / "predictions_test.csv")
    kinds = {Path(key).suffix for key in theirs.keys}
    assert kinds == {"", ".png", ".dcm"}
    ours = scores_of(table(scored / "predictions.csv"), theirs.keys)
    np.testing.assert_allclose(ours, theirs.scores, atol=1e-6, rtol=0)


def test_a_table_with_labels_is_evaluated_as_the_runs_own_test_split(run, images, tmp_path):
    theirs = predictions.read(run / "predictions_test.csv")
    chosen = [
        f"{key},{theirs.class_names[label]},{patient},test"
        for key, label, patient in zip(theirs.keys, theirs.labels, theirs.patients, strict=True)
    ]
    path = images / "chosen.csv"
    learnt = predictions.read(run / "predictions_val.csv").keys[0]
    others = ["missing.png,dark,x,train", f"{learnt},light,y,val"]
    path.write_text("\n".join(["filename,label,patient,split", *chosen, *others]))
    output = tmp_path / "new"
    flags = [f"--workdir={run}", f"--inputs={path}", f"--output={output}"]
    try:
        assert predict.main([*flags, "--split=test"]) == 0
        assert predict.main([*flags[:2], f"--output={tmp_path / 'all'}"]) == 3
    finally:
        path.unlink()
    trained = json.loads((run / "result.json").read_text())
    own = trained["test"]
    written = json.loads((output / "evaluation.json").read_text())
    for name in ("auroc", "auroc_ci95", "ci_method", "accuracy", "n", "n_patients", "confusion"):
        assert written["test"][name] == own[name], name
    assert written["test"]["loss"] == pytest.approx(own["loss"], abs=1e-6)
    # At the thresholds that the run fixed on its validation images.
    assert written["test"]["operating_points"] == own["operating_points"]
    assert written["positive"] == "light"
    rows = table(output / "predictions.csv")
    assert list(rows) == list(theirs.keys)
    assert [row["label"] for row in rows.values()] == [CLASSES[label] for label in theirs.labels]
    assert tuple(row["patient"] for row in rows.values()) == theirs.patients
    page = (output / "report.html").read_text()
    assert "Evaluation on new data" in page
    # What the run's training lacked is said of its network everywhere.
    assert written["provenance"]["less"] == trained["provenance"]["less"]
    assert written["provenance"]["network"] == trained["provenance"]["network"]
    assert trained["provenance"]["less"] in page
    assert page.count('<span class="frame"><img') > 0
    everything = json.loads((tmp_path / "all/evaluation.json").read_text())
    assert (everything["scored"], everything["failed"]) == (len(chosen) + 1, 1)
    assert "--split=test leaves them out" in everything["test"]["notes"][-1]


def test_weights_that_name_their_classes_score_as_their_run_does(run, scored, images, tmp_path):
    flags = [f"--weights={run}", "--image_size=32", f"--output={tmp_path / 'o'}"]
    assert predict.main([*flags, f"--inputs={images}/series0"]) == 0
    ours = table(tmp_path / "o/predictions.csv")
    assert ours
    theirs = scores_of(table(scored / "predictions.csv"), [f"series0/{key}" for key in ours])
    np.testing.assert_allclose(scores_of(ours, ours), theirs, atol=1e-5)


def test_what_cannot_be_scored_is_explained_and_strict_leaves_nothing(
    run, images, tmp_path, capsys
):
    folder = tmp_path / "in"
    folder.mkdir()
    whole = (images / "png/0.png").read_bytes()
    content = {
        "a.png": whole,
        "b.png": whole[: len(whole) // 2],
        "=c.dcm": b"",
        "d.nii.gz": b"\x1f\x8b",
        "e.zip": b"no zip",
        "notes.txt": b"text",
        "more.txt": b"text",
        "README": b"text",
    }
    for name, written in content.items():
        (folder / name).write_bytes(written)
    frames = np.arange(20 * 16, dtype=np.uint8).reshape(20, 4, 4)
    (folder / "cine").write_bytes(
        dicom_file(frames[0], "p", NumberOfFrames=20, PixelData=frames.tobytes())
    )
    output = tmp_path / "out"
    flags = [f"--workdir={run}", f"--inputs={folder}", f"--output={output}"]
    with pytest.raises(DataError, match=r"e\.zip is no readable zip.* With --strict nothing is"):
        predict.main([*flags, "--strict"])
    (folder / "e.zip").unlink()
    with pytest.raises(DataError, match=r"=c\.dcm is empty.* With --strict nothing is written"):
        predict.main([*flags, "--strict"])
    assert not output.exists()
    (folder / "e.zip").write_bytes(b"no zip")
    capsys.readouterr()
    assert predict.main(flags) == session.SOME_FAILED == 3
    said = " ".join(capsys.readouterr().err.split())
    assert said.endswith(
        f"21 images: {output}/predictions.csv; 4 failed: {output}/errors.csv; "
        "no images: 2 .txt, 1 file without a suffix"
    )
    rows = table(output / "predictions.csv")
    assert list(rows) == ["a.png", *(f"cine#{frame}" for frame in range(20))]
    with (output / "errors.csv").open(newline="") as file:
        failed = list(csv.reader(file))
    assert failed[0] == ["key", "path", "problem"]
    assert [row[0] for row in failed[1:]] == ["", "'=c.dcm", "b.png", "d.nii.gz"]
    assert failed[1][1] == str(folder / "e.zip")
    for row, reason in zip(failed[2:], ("is empty", "cut short", "is not an image"), strict=True):
        assert reason in row[2]
    # Mended, nothing is left of the errors.
    for name in ("=c.dcm", "b.png", "d.nii.gz", "e.zip"):
        (folder / name).unlink()
    assert predict.main(flags) == 0
    assert left(output) == {"predictions.csv"}


@pytest.mark.parametrize("features", [False, True])
def test_the_same_command_goes_on_after_a_kill(
    run, images, tmp_path, monkeypatch, capsys, features
):
    flags = [f"--workdir={run}", *["--features"] * features]
    output, whole = tmp_path / "out", tmp_path / "whole"
    assert predict.main([*flags, f"--inputs={images}", f"--output={whole}"]) == 0

    class KilledError(BaseException):
        pass

    def killed(*arguments, **options):
        for number, result in enumerate(flow_results(*arguments, **options)):
            yield result
            if number == 2:
                raise KilledError

    flow_results, read = flow.results, []
    monkeypatch.setattr("radimagenet_jax.prediction.journal._EVERY", 0)
    monkeypatch.setattr(flow, "results", killed)
    with pytest.raises(KilledError):
        predict.main([*flags, f"--inputs={images}", f"--output={output}"])
    assert left(output) == {"unfinished"}
    monkeypatch.setattr(flow, "results", flow_results)
    journal = output / "unfinished/journal.jsonl"
    # What a kill leaves in the midst of a line, or behind what is noted, is cut off.
    journal.write_text(journal.read_text() + '{"entries": 999, "fra')
    for path in journal.parent.glob("*[!l]"):
        path.write_bytes(path.read_bytes() + b"half a r")

    with pytest.raises(ConfigError, match=r"another command has begun \(another --image_size\)"):
        predict.main([*flags, f"--inputs={images}", f"--output={output}", "--image_size=48"])
    with pytest.raises(ConfigError, match=r"another command has begun \(another set of images"):
        predict.main([*flags, f"--inputs={images}/png", f"--output={output}"])

    def noted(entry, *arguments, **options):
        read.append(entry.key)
        return inputs_read(entry, *arguments, **options)

    inputs_read = inputs.read
    monkeypatch.setattr(inputs, "read", noted)
    assert predict.main([*flags, f"--inputs={images}", f"--output={output}"]) == 0
    assert "going on behind 48 images" in capsys.readouterr().err
    assert len(read) == 122 - 48
    assert left(output) == left(whole)
    if features:
        (keys, pooled), (all_keys, all_pooled) = (
            read_features(folder / "features.npz") for folder in (output, whole)
        )
        assert keys == all_keys
        np.testing.assert_allclose(pooled, all_pooled, rtol=1e-5, atol=1e-6)
    else:
        ours, theirs = (table(folder / "predictions.csv") for folder in (output, whole))
        assert list(ours) == list(theirs)
        np.testing.assert_allclose(scores_of(ours, ours), scores_of(theirs, theirs), atol=1e-6)


def test_features_of_a_run_have_a_row_an_image(run, images, tmp_path):
    output = tmp_path / "features"
    predict.main([f"--workdir={run}", f"--inputs={images}", f"--output={output}", "--features"])
    keys, pooled = read_features(output / "features.npz")
    assert len(keys) == len(pooled) == 122
    assert sorted(keys) == list(keys)
    assert pooled.dtype == np.float32
    assert np.isfinite(pooled).all()
    assert np.ptp(pooled, axis=0).max() > 0
    assert left(output) == {"features.npz"}


def test_of_the_files_that_pydicom_ships_every_one_is_scored_or_explained(run, tmp_path, capsys):
    folder = Path(pydicom.data.__file__).parent
    code = predict.main([f"--workdir={run}", f"--inputs={folder}", f"--output={tmp_path / 'o'}"])
    assert code == 3
    scored = {key.partition("#")[0] for key in table(tmp_path / "o/predictions.csv")}
    explained = set(table(tmp_path / "o/errors.csv"))
    found = inputs.find(str(folder))
    seen = {entry.key for entry in found.entries}
    assert seen <= scored | explained
    assert len(scored) > 80
    every = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    assert len(seen) + sum(found.others.values()) == len(every)
    # What is counted as no image is none: pydicom finds no pixels there.
    for path in every:
        if str(path.relative_to(folder)) not in seen and path.suffix in (".dcm", ""):
            pixels = getattr(pydicom.dcmread(path, force=True), "PixelData", b"")
            assert not pixels or path.name == "DICOMDIR", path
    assert "Traceback" not in capsys.readouterr().err


def test_bad_inputs_are_one_sentence_and_nothing_is_written(run, images, tmp_path):
    output = tmp_path / "out"
    bad = tmp_path / "bad"
    bad.mkdir()

    def refused(message, given, *more, kind=DataError):
        with pytest.raises(kind, match=message):
            predict.main([f"--workdir={run}", f"--inputs={given}", f"--output={output}", *more])
        assert not output.exists()

    refused(r"no image there \(it is empty\); give a folder", bad)
    (bad / "notes.txt").touch()
    refused(r"no image there \(1 .txt\); give a folder", bad)
    refused("no image there; give a folder", f"{bad}/*.png")
    refused("give a table as --inputs", images, "--split=test")
    written = bad / "t.csv"
    written.write_text("file,label\na.png,dark\n")
    refused("has no column 'filename'", written)
    (bad / "a.png").write_bytes((images / "png/0.png").read_bytes())
    written.write_text("filename,label\na.png,grey\n")
    refused(r"labels that the network does not know: 'grey' \(row 2\); its classes are", written)
    written.write_text("filename,split\na.png,train\n")
    refused("has no row of the split test", written, "--split=test")
    for window in ("40", "40,0", "a,b"):
        refused("--window=", bad, f"--window={window}", kind=ConfigError)
    refused("give one window, or three", bad, "--window=1,2", "--window=3,4", kind=ConfigError)
    with pytest.raises(ConfigError, match="holds no run"):
        predict.main([f"--workdir={bad}", f"--inputs={images}", f"--output={output}"])
    with pytest.raises(ConfigError, match="holds a run or a study"):
        predict.main([f"--workdir={run}", f"--inputs={images}", f"--output={run}"])
    half = tmp_path / "half"
    half.mkdir()
    (half / "config.json").write_bytes((run / "config.json").read_bytes())
    with pytest.raises(ConfigError, match=r"is not finished: it has no result\.json"):
        predict.main([f"--workdir={half}", f"--inputs={images}", f"--output={output}"])
    # Whether weights name classes to score is in the file.
    with pytest.raises(WeightsError, match=r"no weight file x\.h5"):
        predict.main(["--weights=x.h5", f"--inputs={images}", f"--output={output}"])
    assert not output.exists()


def test_the_help_fits_a_terminal_of_80_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        predict.main(["--help"])
    text = capsys.readouterr().out
    assert "errors.csv" in text
    assert max(map(len, io.StringIO(text).read().splitlines())) <= 80


def test_maps_are_there_for_every_image_and_go_on_after_a_kill(
    run, images, tmp_path, monkeypatch, capsys
):
    flags = [f"--workdir={run}", f"--inputs={images}/series0", "--maps=dark"]
    whole = tmp_path / "whole"
    assert predict.main([*flags, f"--output={whole}"]) == 0
    assert f"maps: {whole / 'maps/maps.html'}" in capsys.readouterr().err.replace("\n", "")
    rows = table(whole / "predictions.csv")
    with np.load(whole / "maps/maps.npz") as raw:
        assert sorted(raw["keys"]) == sorted(rows)
        assert raw["of"] == "dark"
        net = load_pretrained(run)
        picture = [images / "series0" / key for key in raw["keys"][:3]]
        pixels = np.stack([resize_nearest(read_image(path), 32) for path in picture])
        expected = net.cam(pixels, of="dark", size=0)
        np.testing.assert_allclose(raw["maps"][:3], expected, atol=1e-5)
    names = {path.name for path in (whole / "maps").iterdir()}
    assert len([name for name in names if name.endswith("-map.png")]) == len(rows)
    page = (whole / "maps/maps.html").read_text()
    assert all(key in page for key in rows)

    # A kill between two batches: the same command gives the same.
    again, applied = tmp_path / "again", []
    real = Network.apply

    def apply(self, batch, maps_of=None):
        applied.append(len(batch))
        if len(applied) == 2:
            raise KeyboardInterrupt
        return real(self, batch, maps_of)

    monkeypatch.setattr(session, "batch_size", lambda: 4)
    monkeypatch.setattr(Network, "apply", apply)
    with pytest.raises(KeyboardInterrupt):
        predict.main([*flags, f"--output={again}"])
    monkeypatch.setattr(Network, "apply", real)
    assert predict.main([*flags, f"--output={again}"]) == 0
    with np.load(again / "maps/maps.npz") as raw, np.load(whole / "maps/maps.npz") as first:
        np.testing.assert_array_equal(raw["keys"], first["keys"])
        np.testing.assert_allclose(raw["maps"], first["maps"], atol=1e-5)
    # Another class is another command, whose result takes the place of the first.
    assert predict.main([*flags[:2], "--maps", f"--output={again}"]) == 0
    with np.load(again / "maps/maps.npz") as raw:
        assert raw["of"] == "light"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--maps=lesion"], "no class 'lesion'"),
        (["--maps", "--features"], "not with --features"),
    ],
)
def test_maps_that_cannot_be_are_one_sentence(more, told, run, images, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(ConfigError, match=told):
        predict.main([f"--workdir={run}", f"--inputs={images}", f"--output={output}", *more])
    assert not output.exists()


def test_maps_do_not_replace_somebodys_folder(run, images, tmp_path):
    (tmp_path / "maps").mkdir()
    with pytest.raises(ConfigError, match="is not of an earlier prediction"):
        predict.main([f"--workdir={run}", f"--inputs={images}", f"--output={tmp_path}", "--maps"])
