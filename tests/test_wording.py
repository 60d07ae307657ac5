"""What is said of numbers and of lists is English for one, for several and for very many."""

import pytest

from radimagenet_jax.wording import counted, listed, some


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (1024, "1,024 images")]
)
def test_a_noun_goes_with_its_number(count, said):
    assert counted(count, "image") == said


def test_a_plural_of_its_own_and_a_verb_go_with_it_too():
    assert counted(1, "class", "classes") == "1 class"
    assert counted(3, "group is", "groups are") == "3 groups are"


def test_a_list_has_one_and_before_its_last():
    assert [listed("a"), listed("ab"), listed("abc")] == ["a", "a and b", "a, b and c"]
    assert listed([32, 64]) == "32 and 64"


def test_of_very_many_a_few_are_named_and_the_others_counted():
    names = [f"n{number}" for number in range(1236)]
    assert some(names, 2) == "n0, n1 and 1,234 more"
    assert some(names[:2], 2, repr) == "'n0', 'n1'"
    assert some(names[:3], 2, further="more, all in a file") == "n0, n1 and 1 more, all in a file"
