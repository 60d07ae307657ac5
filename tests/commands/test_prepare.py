"""Laws of the command that builds a data set."""

import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from radimagenet_jax import prepare
from radimagenet_jax.data import registry
from radimagenet_jax.errors import UserError

SPLITS = ("train", "val", "test")


@pytest.fixture
def source(tmp_path) -> Path:
    """Two images a split in the published COVID-19 task's layout."""
    root = registry.manual_dir("covid_ct", tmp_path)
    root.mkdir(parents=True)
    for split in SPLITS:
        rows = [",filename,label"]
        for number, label in enumerate(("negative", "positive")):
            name = f"{split}{number}.png"
            cv2.imwrite(str(root / name), np.full((8, 9), 100 + number, np.uint8))
            rows.append(f"{number},{name},{label}")
        (root / f"{split}.csv").write_text("\n".join(rows))
    return root


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "radimagenet_jax.prepare", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_prepares_prints_terms_and_counts_and_gives_the_folder(source, tmp_path):
    run = command("--dataset=covid_ct/covid19_csv", f"--data_dir={tmp_path}", "--workers=2")
    assert run.returncode == 0, run.stderr
    assert "terms: COVID-CT is offered for research" in run.stderr
    assert "train: 2 images" in run.stderr
    assert "classes: negative, positive" in run.stderr
    folder = Path(run.stdout.removesuffix("\n"))
    assert folder == tmp_path / "covid_ct" / "covid19_csv" / "1.0.0"
    assert (folder / "dataset_info.json").is_file()

    again = command("--dataset=covid_ct/covid19_csv", f"--data_dir={tmp_path}")
    assert again.returncode == 0
    assert "is prepared already" in again.stderr
    assert again.stdout == run.stdout


def test_decoded_images_are_written_beside_the_records_on_demand(source, tmp_path):
    arguments = ("--dataset=covid_ct/covid19_csv", f"--data_dir={tmp_path}", "--decoded=16")
    run = command(*arguments)
    assert run.returncode == 0, run.stderr
    folder = Path(run.stdout.removesuffix("\n"))
    assert f"decoding 6 images of 16 x 16 pixels into {folder}/decoded_16: it takes" in run.stderr
    sizes = {path.name: path.stat().st_size for path in (folder / "decoded_16").glob("*.pixels")}
    assert sizes == {f"{split}.pixels": 2 * (16 * 16 + 4) for split in SPLITS}
    again = command(*arguments)
    assert (again.returncode, again.stdout) == (0, run.stdout)
    assert "decoding" not in again.stderr
    (folder / "decoded_16" / "val.pixels").write_bytes(b"")
    refused = command(*arguments)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "val.pixels has 0 bytes" in refused.stderr
    assert "delete this folder" in refused.stderr


def escaping_zip(root: Path) -> None:
    with zipfile.ZipFile(root / "more.zip", "w") as archive:
        archive.writestr("../../evil.png", b"evil")


FAULTS = {
    "no source": (lambda root: root.rename(root.parent / "elsewhere"), r"is not in .*Terms:"),
    "a missing image": (lambda root: (root / "val1.png").unlink(), r"row 3: .*'val1\.png'"),
    "a truncated image": (
        lambda root: (root / "val1.png").write_bytes((root / "val1.png").read_bytes()[:60]),
        r"val1\.png is cut short",
    ),
    "an empty image": (lambda root: (root / "val1.png").write_bytes(b""), r"val1\.png is empty"),
    "an escaping zip": (escaping_zip, r"more\.zip is refused"),
    "an empty table": (lambda root: (root / "val.csv").write_text(""), r"val\.csv has no rows"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_source_ends_in_one_sentence_and_leaves_nothing(source, tmp_path, fault):
    damage, message = FAULTS[fault]
    damage(source)
    with pytest.raises(UserError, match=message) as info:
        prepare.main(["--dataset=covid_ct/covid19_csv", f"--data_dir={tmp_path}"])
    assert "\n" not in str(info.value)
    assert not (tmp_path / "covid_ct").exists()
    assert not list(tmp_path.rglob("evil.png"))


def test_bad_input_ends_with_exit_code_1_and_no_traceback(tmp_path):
    run = command("--dataset=covid_ct", f"--data_dir={tmp_path}")
    assert run.returncode == 1
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert line.startswith("error: the data set 'covid_ct' is not in")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--dataset=lungs", "there is no data set 'lungs'; there are .*phantom"),
        ("--dataset=covid_ct/x", "no configuration 'x'"),
        ("--workers=0", "--workers is 0"),
        ("--decoded=0", "--decoded is 0; give a run's config.image_size"),
        ("--decoded=9000", "--decoded is 9000"),
    ],
)
def test_bad_arguments_are_told_in_a_sentence(tmp_path, argument, message):
    arguments = ["--dataset=phantom", f"--data_dir={tmp_path}", argument]
    with pytest.raises(UserError, match=message):
        prepare.main(arguments)


def test_help_lists_every_data_set_and_an_example(capsys):
    with pytest.raises(SystemExit) as info:
        prepare.main(["--help"])
    assert info.value.code == 0
    text = capsys.readouterr().out
    for name in registry.names():
        assert f"  {name} " in text
        assert registry.summary(name) in " ".join(text.split())
    assert "python -m radimagenet_jax.prepare --dataset=covid_ct" in text
