"""Files that were changed, or made to harm: each is refused in a sentence, or is what it was."""

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from radimagenet_jax import models
from radimagenet_jax.errors import WeightsError
from radimagenet_jax.weights import (
    archives,
    contract,
    hdf5,
    keras_h5,
    native,
    reading,
    safetensors_file,
    torch_pickle,
)
from radimagenet_jax.weights.opened import Opened
from tests.fuzz.surfaces import weights as small


@pytest.fixture(autouse=True)
def twig():
    """The fuzzer's small network, whose files take milliseconds."""
    small.variables.cache_clear()
    small.variables()
    yield
    del models._architectures()["twig"]


@pytest.fixture
def intact(tmp_path):
    """Writes an intact file of a form."""
    return lambda form: small._write(tmp_path, small.base(form))


def read(path):
    return reading.read(path, architecture="twig", preprocessing="caffe")


def refusal(path):
    with pytest.raises(WeightsError) as caught:
        read(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    assert len(message) < 1000
    assert message.endswith(".")
    return message


def flipped(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


FORMS = ("h5-full", "h5-only", "h5-gzip", "h5-lzf", "h5-ours", "v3-h5", "keras", "pt", "pt-packed")


@pytest.mark.parametrize("form", [*FORMS, "folder", "safetensors"])
def test_every_form_gives_the_numbers_that_were_written(form, intact):
    path = intact(form)
    found = read(path)
    assert small.judge(small.Made(path, is_proof=True), found) is None
    known = small.variables()
    for target, values in jax.tree_util.tree_leaves_with_path(found.variables):
        name = "/".join(key.key for key in target)
        np.testing.assert_array_equal(values, known[name])


# What we wrote.


@pytest.mark.parametrize("form", ["safetensors", "h5-ours"])
def test_a_flipped_bit_in_a_file_of_ours_is_noticed(form, intact):
    path = intact(form)
    kernel = small.variables()["params/conv2/kernel"].tobytes()
    flipped(path, path.read_bytes().index(kernel) + 1)
    assert "was changed after it was written" in refusal(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("channel_order", "RGB"), ("preprocessing", "torch"), ("sha256", "1" * 64), ("origin", "x")],
)
@pytest.mark.parametrize("form", ["folder", "safetensors"])
def test_a_changed_contract_is_noticed(form, field, value, intact):
    path = intact(form)
    if form == "folder":
        page = path / native.CONTRACT
        page.write_text(json.dumps({**json.loads(page.read_text()), field: value}))
        assert f"{field} differ" in refusal(path)
        return
    tensors = load_file(path)
    with safetensors_file.safe_open(path, "numpy") as file:
        stated = json.loads(file.metadata()[safetensors_file.CONTRACT_KEY])
    changed = json.dumps({**stated, field: value})
    save_file(tensors, path, {safetensors_file.CONTRACT_KEY: changed})
    with pytest.raises(WeightsError, match="was changed after it was written"):
        reading.read(path)


def test_files_from_before_the_digest_load_and_say_so(tmp_path, intact):
    """A folder of then is as proof as one of now, by its checksum and the contract within."""
    folder = intact("folder")
    path = folder / native.TENSORS
    save_file(
        dict(small.variables()), path, {safetensors_file.CONTRACT_KEY: small.CONTRACT.to_json()}
    )
    assert any("before our files kept a digest" in note for note in read(path).report.notes)
    page = folder / native.CONTRACT
    record = {**json.loads(page.read_text()), "model_sha256": native.digest(path, "sha256")}
    page.write_text(json.dumps(record))
    assert not any("digest" in note for note in read(folder).report.notes)
    page.write_text(json.dumps({**record, "channel_order": "RGB"}))
    assert "channel_order differ" in refusal(folder)


def test_a_contract_with_two_fields_of_one_name_is_refused():
    text = small.CONTRACT.to_json().replace('"variant"', '"variant": "x", "variant"')
    with pytest.raises(WeightsError, match="two fields of one name"):
        contract.Contract.from_json(text)


@pytest.mark.parametrize("origin", ["x" * 10_000, "\x1b]0;title\x07", "\ud800"])
def test_a_contract_with_a_text_that_cannot_be_shown_is_refused(origin):
    record = {**json.loads(small.CONTRACT.to_json()), "origin": origin}
    with pytest.raises(WeightsError, match="origin is too long or has control characters"):
        contract.Contract.from_json(json.dumps(record))


# HDF5.


def test_the_main_process_never_opens_hdf5(intact, monkeypatch):
    path = intact("h5-gzip")

    def opened(*arguments, **options):
        raise AssertionError("it was opened here")

    monkeypatch.setattr(h5py, "File", opened)
    read(path)


@pytest.mark.parametrize("death", [signal.SIGSEGV, signal.SIGABRT, signal.SIGXCPU])
def test_a_worker_that_dies_is_a_sentence(death, intact, tmp_path, monkeypatch):
    worker = tmp_path / "worker.py"
    worker.write_text(f"import os; os.kill(os.getpid(), {int(death)})")
    monkeypatch.setattr(hdf5, "_WORKER", worker)
    message = refusal(intact("h5-full"))
    assert "truncated or damaged" in message
    assert ("does not end" if death == signal.SIGXCPU else f"with code {-death}") in message


def test_a_worker_that_hangs_is_ended(intact, tmp_path, monkeypatch):
    worker = tmp_path / "worker.py"
    worker.write_text("import time; time.sleep(600)")
    monkeypatch.setattr(hdf5, "_WORKER", worker)
    monkeypatch.setattr(hdf5, "_PATIENCE", 0.2)
    began = time.monotonic()
    assert "does not end within 0.2 s" in refusal(intact("h5-full"))
    assert time.monotonic() - began < 10


def test_a_script_without_a_guard_is_not_run_again(intact, tmp_path):
    """As `multiprocessing` would for a worker; the user's file has no `if __name__`."""
    path = intact("h5-full")
    script = tmp_path / "mine.py"
    script.write_text(
        "print('once')\n"
        "from pathlib import Path\n"
        "from radimagenet_jax.weights import keras_h5\n"
        f"with keras_h5.opened(Path({str(path)!r})) as file:\n"
        "    print(len(file.tensors))\n"
    )
    root = Path(reading.__file__).parents[2]
    told = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert told.stdout.split() == ["once", str(len(small.variables()))]


def h5_with(path, add):
    """A Keras file whose first kernel is replaced."""
    path.write_bytes(small.base("h5-only")["twig.h5"])
    with h5py.File(path, "r+") as file:
        name = "twig_conv1/twig_conv1/kernel:0"
        values = file[name][()]
        del file[name]
        add(file, name, values)
    return path


def test_chunks_far_larger_than_their_tensor_are_refused(tmp_path):
    def add(file, name, values):
        chunks = (256, 256, 16, 16)
        file.create_dataset(name, values.shape, "f4", chunks=chunks, maxshape=(None,) * 4)

    assert "in chunks of 67,108,864" in refusal(h5_with(tmp_path / "chunks.h5", add))


def test_a_huge_declared_tensor_is_never_read(tmp_path):
    def add(file, name, values):
        file.create_dataset(name, (2**20, 2**20, 2**10), "f4", chunks=(1, 1, 16))

    assert "instead of (3, 3, 3, 4)" in refusal(h5_with(tmp_path / "huge.h5", add))


def test_a_chunk_that_unpacks_to_more_than_it_may_is_refused(tmp_path):
    def add(file, name, values):
        options = {"chunks": values.shape, "compression": "gzip"}
        dataset = file.create_dataset(name, values.shape, "f4", **options)
        dataset.id.write_direct_chunk((0,) * 4, zlib.compress(bytes(300 * 2**20)))

    assert "truncated or damaged" in refusal(h5_with(tmp_path / "bomb.h5", add))


def test_a_long_attribute_is_refused(tmp_path):
    def add(file, name, values):
        file[name] = values
        file.attrs.create("layer_names", "x" * 9_000_000)

    assert "longer than the description" in refusal(h5_with(tmp_path / "long.h5", add))


def test_a_float_of_nobodys_is_not_read_as_ours(tmp_path):
    def add(file, name, values):
        kind = h5py.h5t.IEEE_F32LE.copy()
        kind.set_ebias(1)
        space = h5py.h5s.create_simple(values.shape)
        group = file[name.rpartition("/")[0]]
        h5py.h5d.create(group.id, b"kernel:0", kind, space)

    assert "not float32" in refusal(h5_with(tmp_path / "bias.h5", add))


def test_an_archive_member_is_read_without_a_name(intact):
    with keras_h5.opened(intact("keras")) as file:
        assert all(tensor.read().shape == tensor.shape for tensor in file.tensors.values())


# Archives.


def test_members_that_overlap_are_refused(intact):
    path = intact("pt")
    content = bytearray(path.read_bytes())
    second = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)
    content[second + 42 : second + 46] = bytes(4)
    path.write_bytes(content)
    assert "members that overlap" in refusal(path)


def test_a_member_is_unpacked_no_further_than_it_says(tmp_path):
    path = tmp_path / "bomb.zip"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(400 * 2**20))
    packed = bytearray(content.getvalue())
    at = packed.index(b"PK\x01\x02")
    packed[at + 24 : at + 28] = (1000).to_bytes(4, "little")
    path.write_bytes(packed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with (
        pytest.raises(WeightsError, match="truncated or damaged"),
        archives.open_archive(path) as archive,
    ):
        archives.content(archive, "a", 2**20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path):
    path = tmp_path / "zeros.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(300 * 2**20))
    assert "unpacks to 314,572,800" in refusal(path)


def test_a_compression_of_nobodys_is_refused(tmp_path):
    path = tmp_path / "lzma.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("model.weights.h5", small.base("v3-h5")["twig.weights.h5"])
    assert "in a way that neither Keras nor PyTorch has" in refusal(path)


def test_a_directory_of_too_many_members_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "many.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(300):
            archive.writestr(f"{number}/data.pkl", b"")
    monkeypatch.setattr(archives, "_LARGEST_DIRECTORY", 10_000)
    monkeypatch.setattr(zipfile, "ZipFile", None)
    assert "has a directory of" in refusal(path)


# Pickles.


def text(value):
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def doubled(rounds):
    body = b"K\x01q\x00"
    for number in range(rounds):
        body += b"h" + bytes([number]) + b"h" + bytes([number]) + b"\x86q" + bytes([number + 1])
    return body


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (b"}" + b")" + b"\x85" * 300_000 + b"K\x01s.", "a key that is neither"),
        (doubled(60) + b"}h\x3cK\x01s.", "a key that is neither"),
        (doubled(30) + b"}" + text("a") + b"h\x1es.", "deeper, or has more"),
        (b"}" + text("a") + b"]" * 5000 + b"a" * 4999 + b"s.", "deeper, or has more"),
        (b"]q\x00h\x00a.", "holds itself"),
        (b"}q\x00" + text("a") + b"](h\x00es.", "holds itself"),
        (b"(q\x00.", "nothing to take"),
        (b"cos\n" + b"a" * 100_000 + b"\n.", "..., which is code"),
        (b"I" + b"9" * 10_000 + b"\n.", "damaged"),
        (b"\x8a\xff" + b"\x7f" * 255 + b"N" * 300_000 + b".", "more objects"),
    ],
)
def test_a_pickle_that_asks_for_more_than_it_holds_is_refused_at_once(program, told):
    began = time.monotonic()
    with pytest.raises(torch_pickle.PickleError) as caught:
        torch_pickle.interpret(b"\x80\x02" + program)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 400
    assert time.monotonic() - began < 5


def test_a_shape_of_many_axes_is_refused():
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
    axes = b"(" + b"K\x01" * 9 + b"t"
    call = b"(" + storage + b"K\x01tQK\x00" + axes + axes + b"\x89)tR."
    with pytest.raises(torch_pickle.PickleError, match="describes a tensor wrongly"):
        torch_pickle.interpret(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + call)


def test_a_checkpoint_with_shared_and_nested_parts_is_still_modest():
    shared = b"G" + bytes(8) + b"G" + bytes(8) + b"\x86q\x01"
    groups = b"](}" + text("betas") + shared + b"s}" + text("betas") + b"h\x01se"
    found = torch_pickle.interpret(b"\x80\x02}" + text("optimizer") + groups + b"s.")
    assert found == {"optimizer": [{"betas": (0.0, 0.0)}] * 2}


def test_a_storage_of_all_tensors_is_read_once(tmp_path, monkeypatch):
    path = small._write(tmp_path, small._one_storage(np.random.default_rng(0)))
    content, asked = archives.content, []
    monkeypatch.setattr(
        archives,
        "content",
        lambda archive, name, most: asked.append(name) or content(archive, name, most),
    )
    read(path)
    assert asked.count("archive/data/0") == 1


# Safetensors.


def test_a_header_with_one_name_twice_is_refused(tmp_path, intact):
    path = intact("safetensors")
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].rstrip()
    twice = header[:-1] + b"," + header[1:]
    path.write_bytes(len(twice).to_bytes(8, "little") + twice + content[8 + length :])
    assert "one name twice" in refusal(path)


@pytest.mark.parametrize("length", [9_000_000, 2**63, 2**64 - 1])
def test_a_header_beyond_any_networks_is_refused(length, intact):
    path = intact("safetensors")
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    refusal(path)


def test_too_many_or_odd_names_are_refused_in_every_form():
    with pytest.raises(WeightsError, match="more than any network"):
        Opened(Path("x"), "", dict.fromkeys(map(str, range(40_000))))
    for name in ("n" * 2000, "a\x1b]0;b", "\ud800"):
        with pytest.raises(WeightsError, match="which is no name of a layer"):
            Opened(Path("x"), "", {name: None})


def test_what_is_neither_file_nor_folder_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    assert "neither a file nor a folder" in refusal(tmp_path / "pipe.h5")
