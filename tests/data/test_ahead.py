import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from radimagenet_jax.data.ahead import mapped


def drawn(seen: list[int], count: int = 100):
    for number in range(count):
        seen.append(number)
        yield number


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("ahead", [0, 1, 7, 200])
def test_results_come_in_the_order_of_the_items_which_are_drawn_only_so_far_ahead(workers, ahead):
    seen: list[int] = []
    results = mapped(lambda number: number**2, drawn(seen), workers=workers, ahead=ahead)
    assert seen == []
    for number, result in enumerate(results):
        assert result == number**2
        assert len(seen) == min(number + 1 + ahead, 100)


@pytest.mark.parametrize("shared", [False, True])
def test_an_error_comes_in_its_place_and_drops_what_has_not_begun(shared):
    called: list[int] = []
    failed = threading.Event()

    def fail_at_three(number: int) -> int:
        called.append(number)
        if number == 3:
            raise ValueError("three")
        if number > 3:
            failed.wait(60)  # the thread is busy until whoever takes results has the error
        return number

    taken = []
    with ThreadPoolExecutor(1) as pool:
        results = mapped(fail_at_three, range(10), workers=pool if shared else 1, ahead=20)
        threading.Timer(0.5, failed.set).start()
        with pytest.raises(ValueError, match="three"):
            taken.extend(results)
        failed.set()
        assert taken == [0, 1, 2]
        assert max(called) <= 4
        assert pool.submit(int).result() == 0  # a pool that is shared goes on


@pytest.mark.parametrize("shared", [False, True])
def test_closing_drops_the_calls_that_have_not_begun(shared):
    called: list[int] = []
    go_on = threading.Event()

    def wait_after_the_first(number: int) -> int:
        called.append(number)
        if number:
            go_on.wait(60)
        return number

    with ThreadPoolExecutor(1) as pool:
        results = mapped(wait_after_the_first, range(10), workers=pool if shared else 1, ahead=5)
        assert next(results) == 0
        threading.Timer(0.2, go_on.set).start()
        results.close()
        go_on.set()
    assert max(called) <= 1
