"""The audit as a command: on the real images, and with nothing to audit."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from radimagenet_jax import audit
from radimagenet_jax.errors import ConfigError, DataError
from radimagenet_jax.reports import audit_page
from tests.tfds_builders.building import encoded


def run(capsys, *arguments):
    assert audit.main(arguments) == 0
    return capsys.readouterr().out.strip()


def contradictions(groups):
    return [
        {one["key"] for one in group}
        for group in groups
        if len({one["label"] for one in group}) > 1
    ]


def test_the_real_ultrasound_images_have_their_known_contradiction(shared_data, tmp_path, capsys):
    folder = shared_data / "Dataset_BUSI_with_GT"
    page = run(capsys, f"--folder={folder}", f"--output={tmp_path / 'out'}")
    assert page == str(tmp_path / "out/audit.html")
    found = json.loads((tmp_path / "out/audit.json").read_text())
    assert found["images"] == 780
    assert {label: sum(n.values()) for label, n in found["class_counts"].items()} == {
        "benign": 437,
        "malignant": 210,
        "normal": 133,
    }
    (group,) = found["exact_duplicates"]
    assert [one["key"] for one in group] == [
        "benign/benign (433).png",
        "malignant/malignant (145).png",
    ]
    html = (tmp_path / "out/audit.html").read_text()
    assert "malignant (145)" in html
    made_of = found["provenance"]
    assert "--folder=" in made_of["command"]
    assert made_of["dataset"]["sizes"] == {"images": 780}
    for part in (made_of["made"], made_of["dataset"]["fingerprint"], made_of["notice"]):
        assert part in html
    shown = 1 + min(audit_page.GROUPS_SHOWN, len(found["near_duplicates"]))
    assert html.count("large, side by side") == shown
    assert 'src="data:image/jpeg;base64,' in html
    assert "http" not in html.replace("http-equiv", "")


def test_the_real_ct_slices_have_their_known_faults(shared_data, tmp_path, capsys):
    manual = tmp_path / "data/downloads/manual"
    manual.mkdir(parents=True)
    (manual / "covid_ct").symlink_to(shared_data / "covid_ct")
    run(
        capsys,
        "--dataset=covid_ct",
        f"--data_dir={tmp_path / 'data'}",
        f"--output={tmp_path / 'out'}",
    )
    found = json.loads((tmp_path / "out/audit.json").read_text())
    assert found["images"] == 746
    headers = []
    for path in (shared_data / "covid_ct/Images-processed").rglob("*.[pj][np]g"):
        with Image.open(path) as image:
            headers.append((image.size, image.mode, image.format, path.suffix))
    assert len(headers) == 746
    sizes = Counter(f"{width}x{height}" for (width, height), *_ in headers)
    assert found["sizes"] == dict(sizes)
    assert found["modes"] == dict(Counter(mode for _, mode, *_ in headers))
    jpegs = [header for header in headers if header[2:] == ("JPEG", ".png")]
    assert len(found["wrong_suffixes"]) == len(jpegs) == 34
    assert found["patients_in_several_splits"] == {}
    assert found["unreadable"] == {}
    # The same pictures, cropped a little otherwise, with and without COVID-19.
    assert contradictions(found["near_duplicates"]) == [
        {"CT_COVID/kjr-21-e24-p5-29.png", "CT_NonCOVID/71_0.jpg"},
        {"CT_COVID/kjr-21-e24-p5-31.png", "CT_NonCOVID/71_1.jpg"},
    ]


def test_an_image_that_cannot_be_read_does_not_stop_the_audit(tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "good.png").write_bytes(encoded(np.arange(256, dtype=np.uint8).reshape(16, 16)))
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:60])
    (folder / "good_mask.png").write_bytes(b"masks are left out")
    run(capsys, f"--folder={folder}", f"--output={tmp_path / 'out'}")
    found = json.loads((tmp_path / "out/audit.json").read_text())
    assert list(found["unreadable"]) == ["cut.png"]
    assert found["images"] == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "is no folder"),
        (lambda folder: folder.mkdir(), "has no image"),
    ],
)
def test_nothing_to_audit_is_one_sentence_and_leaves_nothing(tmp_path, make, message):
    make(tmp_path / "folder")
    with pytest.raises(DataError, match=message):
        audit.main([f"--folder={tmp_path / 'folder'}", f"--output={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_it_does_not_write_into_what_it_audits(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(np.zeros((8, 8), np.uint8)))
    with pytest.raises(ConfigError, match="which is audited"):
        audit.main([f"--folder={tmp_path}", f"--output={tmp_path / 'audit'}"])
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
