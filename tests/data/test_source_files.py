"""Laws of reading owners' folders and zips."""

import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from radimagenet_jax.data import source_files
from radimagenet_jax.data.source_files import dataset_folder, list_files
from radimagenet_jax.errors import DataError


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def paths(root: Path) -> list[str]:
    return [str(file.path) for file in list_files(root)]


def test_a_zip_counts_as_the_folder_it_holds(tmp_path):
    write(tmp_path / "Data-split/train.txt", "a\n")
    write_zip(tmp_path / "Images/CT.zip", {"CT/": b"", "CT/1.png": b"one", "CT/2.png": b"two"})
    assert paths(tmp_path) == ["Data-split/train.txt", "Images/CT/CT/1.png", "Images/CT/CT/2.png"]
    files = {file.name: file for file in list_files(tmp_path)}
    assert files["1.png"].read() == b"one"
    assert files["train.txt"].read() == b"a\n"
    assert files["1.png"].shown.endswith("CT.zip: CT/1.png")


def test_what_operating_systems_add_is_left_out(tmp_path):
    write(tmp_path / ".DS_Store", "")
    write(tmp_path / "CT/Thumbs.db", "")
    write(tmp_path / "__MACOSX/CT/._1.png", "")
    write_zip(tmp_path / "CT.zip", {"CT/1.png": b"1", "__MACOSX/CT/._1.png": b"", "CT/._2": b""})
    assert paths(tmp_path) == ["CT/CT/1.png"]


def test_links_to_folders_are_followed_and_circles_end(tmp_path):
    write(tmp_path / "elsewhere/CT/1.png", "1")
    source = tmp_path / "source"
    source.mkdir()
    (source / "images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/circle").symlink_to(tmp_path / "elsewhere")
    assert paths(source) == ["images/CT/1.png"]


@pytest.mark.parametrize(
    "name", ["../evil.png", "CT/../../evil.png", "/tmp/evil.png", "..\\evil.png", "C:\\evil.png"]
)
def test_a_zip_that_escapes_its_folder_is_refused_and_nothing_is_written(tmp_path, name):
    source = tmp_path / "source"
    write_zip(source / "CT.zip", {"CT/1.png": b"1", name: b"evil"})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        DataError, match=r"CT\.zip is refused.*outside the zip's own folder"
    ) as info:
        list_files(source)
    assert "\n" not in str(info.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_zip_with_a_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("CT/1.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "CT.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="is a link"):
        list_files(tmp_path)


def test_a_zip_that_expands_beyond_proportion_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(source_files, "MIN_SUSPICIOUS_BYTES", 2**20)
    write_zip(tmp_path / "CT.zip", {"CT/1.png": bytes(2**22)})
    with pytest.raises(DataError, match=r"CT\.zip would expand to 4,194,304 bytes"):
        list_files(tmp_path)
    monkeypatch.setattr(source_files, "MAX_MEMBER_BYTES", 2**21)
    with pytest.raises(DataError, match=r"CT\.zip is refused: its member 'CT/1\.png'"):
        list_files(tmp_path)


def test_a_zip_with_one_name_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "CT.zip", "w") as archive:
        archive.writestr("CT/1.png", "one")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("CT/1.png", "other")
    with pytest.raises(DataError, match=r"holds 'CT/1\.png' twice"):
        list_files(tmp_path)


def test_an_encrypted_zip_is_refused(tmp_path):
    location = write_zip(tmp_path / "CT.zip", {"1.png": b"1"})
    content = bytearray(location.read_bytes())
    directory = content.index(b"PK\x01\x02")
    struct.pack_into("<H", content, directory + 8, 1)
    location.write_bytes(content)
    with pytest.raises(DataError, match="is encrypted"):
        list_files(tmp_path)


@pytest.mark.parametrize("kept", [0, 0.5, 0.95])
def test_a_truncated_zip_is_refused_by_name(tmp_path, kept):
    location = write_zip(tmp_path / "CT.zip", {"CT/1.png": os.urandom(1000)})
    content = location.read_bytes()
    location.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match=r"CT\.zip is no readable zip.*download it again"):
        list_files(tmp_path)


def test_a_member_that_fails_its_check_sum_is_refused_by_name(tmp_path):
    location = write_zip(tmp_path / "CT.zip", {"CT/1.png": os.urandom(1000)})
    content = bytearray(location.read_bytes())
    content[300] ^= 1
    location.write_bytes(content)
    (file,) = list_files(tmp_path)
    with pytest.raises(DataError, match=r"CT\.zip: CT/1\.png is damaged inside its zip"):
        file.read()


def test_a_file_that_vanishes_is_an_error_that_names_it(tmp_path):
    write(tmp_path / "1.png", "1")
    (file,) = list_files(tmp_path)
    (tmp_path / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png cannot be read \(No such file"):
        file.read()


def test_a_zip_that_is_replaced_is_read_anew(tmp_path):
    for content in (b"old", b"newer"):
        write_zip(tmp_path / "CT.zip", {"1.png": content})
        (file,) = list_files(tmp_path)
        assert file.read() == content


def test_the_manual_folder_may_be_of_one_data_set_or_of_all(tmp_path):
    assert dataset_folder(tmp_path, "covid_ct") == tmp_path
    (tmp_path / "covid_ct").mkdir()
    assert dataset_folder(tmp_path, "covid_ct") == tmp_path / "covid_ct"
