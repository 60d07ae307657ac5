"""Which of a data set's classes is the positive one where nobody said it."""

from collections.abc import Sequence

# Names of classes that mean health, or that what is looked for is not there.
_HEALTHY = frozenset(
    (
        *("normal", "negative", "neg", "benign", "no", "none", "healthy", "health", "control"),
        *("controls", "absent", "false", "0", "clear", "unremarkable", "no finding", "nofinding"),
    )
)
_DENIALS = ("no ", "non ", "not ", "without ")


def means_health(name: str) -> bool:
    """Whether a class's name says that there is nothing to be found."""
    plain = " ".join(name.lower().replace("_", " ").replace("-", " ").split())
    return plain in _HEALTHY or plain.startswith(_DENIALS)


def positive_by_name(class_names: Sequence[str]) -> int:
    """Index of the class to be called positive: the last, but of two never the healthy one.

    Args:
      class_names: In index order.
    """
    healthy = [means_health(name) for name in class_names]
    if len(class_names) == 2 and healthy == [False, True]:
        return 0
    return len(class_names) - 1
