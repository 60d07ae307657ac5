"""Work that threads do ahead of whoever takes its results one after the other."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def in_order(pool: ThreadPoolExecutor, tasks: Iterable[Callable[[], T]], count: int) -> Iterator[T]:
    """Runs tasks in threads; yields what they return in order, while `count` are ahead."""
    running: deque[Future[T]] = deque()
    for task in tasks:
        running.append(pool.submit(task))
        if len(running) > count:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()
