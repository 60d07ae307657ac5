"""Work that threads do ahead of whoever takes its results one after the other."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def mapped(
    function: Callable[[T], R], items: Iterable[T], *, workers: int | ThreadPoolExecutor, ahead: int
) -> Generator[R, None, None]:
    """Calls a function in threads; yields what it returns, in the order of the items.

    Items are drawn as room is made for them. Calls that have not begun are dropped when the
    generator is closed, and when one before them or whoever takes the results raises an error.

    Args:
      function: Takes an item; the first error that it raises is passed on in its place.
      items: Any number of them.
      workers: How many threads, or those of a pool that is shared and stays open.
      ahead: Calls that are made or wait while a result is in use.
    """
    if isinstance(workers, int):
        with ThreadPoolExecutor(workers) as pool:
            yield from mapped(function, items, workers=pool, ahead=ahead)
        return
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(workers.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for one in waiting:
            one.cancel()
