"""A decoder that dies, hangs or takes all memory ends in a sentence, and the next file is read."""

import os
import signal
import time

import numpy as np
import pytest

from radimagenet_jax.data import native_worker
from radimagenet_jax.errors import DataError

HERE = __name__


def die(encoded, number):
    os.kill(os.getpid(), number)


def sleep(encoded):
    time.sleep(60)


def fill_memory(encoded):
    return np.ones(2 * native_worker.BYTES, np.uint8)


def refuse(encoded, sentence):
    raise DataError(sentence)


def doubled(encoded):
    print("a library that prints")
    return np.frombuffer(encoded, np.uint8).astype(np.uint16).reshape(2, -1) * 2


def decode(function, *arguments):
    return native_worker.decode(f"{HERE}:{function}", b"abcd", name="a.dcm", arguments=arguments)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_death_is_a_sentence_and_the_next_file_is_read(number):
    with pytest.raises(DataError, match=r"^a\.dcm is damaged in its pixels"):
        decode("die", int(number))
    np.testing.assert_array_equal(decode("doubled"), [[194, 196], [198, 200]])


def test_a_decoder_without_end_is_stopped(monkeypatch):
    monkeypatch.setattr(native_worker, "SECONDS", 3.0)
    with pytest.raises(DataError, match="takes too long"):
        decode("sleep")


def test_memory_beyond_all_measure_is_refused():
    with pytest.raises(DataError, match=r"^a\.dcm is damaged"):
        decode("fill_memory")


def test_a_refusal_is_passed_on_as_it_is():
    with pytest.raises(DataError, match=r"^what is wrong\.$"):
        decode("refuse", "what is wrong.")


def test_a_worker_is_kept_for_the_next_file():
    decode("doubled")
    began = time.monotonic()
    for _ in range(100):
        decode("doubled")
    assert time.monotonic() - began < 2
