"""Laws of a study whose folds are not all fit for it."""

import pytest

from radimagenet_jax.errors import DataError
from radimagenet_jax.studies import plan, shared
from radimagenet_jax.studies.images import gather
from tests.studies.conftest import dataset

ONE_CLASS = range(12, 42, 2)  # every second image shows a spot


def test_a_fold_with_one_class_to_train_on_is_refused_and_the_others_are_used():
    def load(fold):
        return dataset(fold, 32, train=ONE_CLASS) if fold == 1 else dataset(fold, 32)

    images = gather((1, 2), load)
    assert set(images.splits) == {2}
    assert "all its training images are of benign" in images.refused[1]
    with pytest.raises(DataError, match="has nothing to tell apart"):
        gather((1,), load)


def test_a_fold_with_one_class_to_test_on_has_scores_and_no_auroc(make_config):
    images = gather((1,), lambda fold: dataset(fold, 32, test=(6, 8, 10)))
    assert not images.refused
    assert "all images of the test split are of one class" in images.notes[0]
    config = make_config(folds=(1,), settings=(("freezeall", 1e-2),))
    courses, _ = shared.train(config, plan.groups(config)[0].runs, images, 1, lambda epoch: None)
    assert courses[0].reason is None
    assert courses[0].aurocs["test"] is None
    assert courses[0].aurocs["val"] is not None
    assert courses[0].scored["test"].keys == ("image6", "image8", "image10")
