"""Lesions on phantom slices: the embedded default, without a download.

python -m radimagenet_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
"""

from configs import base


def get_config(argument: str | None = None):
    arguments = base.parse_argument(argument, smoke=False)
    config = base.get_config()
    config.dataset.name = "phantom"
    config.dataset.positive = "lesion"
    config.augment = "shift_zoom"
    config.image_size = 64
    config.batch_size = 32
    config.epochs = 6
    config.batch_norm_momentum = 0.9
    if arguments.smoke:
        config.epochs = 1
        config.image_size = 32
    return config
