"""What the published scripts hand to Keras' ImageDataGenerator."""

from typing import Any


def ranges() -> dict[str, Any]:
    """The augmentation of the training images, `rotate_flip`."""
    from radimagenet_jax.data.augment import POLICIES

    policy = POLICIES["rotate_flip"]
    assert policy is not None
    return {
        "rotation_range": policy.rotation,
        "width_shift_range": policy.shift,
        "height_shift_range": policy.shift,
        "shear_range": policy.shear,
        "zoom_range": policy.zoom,
        "horizontal_flip": policy.horizontal_flip,
        "fill_mode": "nearest",
    }


def prepared() -> dict[str, Any]:
    """The preprocessing of all images."""
    import tf_keras

    return {
        "rescale": 1 / 255,
        "preprocessing_function": tf_keras.applications.resnet50.preprocess_input,
    }
