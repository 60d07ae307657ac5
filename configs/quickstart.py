"""Lesions on phantom CT slices: the embedded default, without a download or an account.

```
python -m radimagenet_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
```

Measured on 2 CPU cores (AMD EPYC, no accelerator), drawing the data and compiling included:
1 minute 22 seconds, 1.2 GB of memory at most; test AUROC 0.939, 95 % interval 0.885 to 0.965 over
75 patients. Versions that round otherwise gave 0.908 to 0.963: so small a set leaves much to
chance. `:smoke` runs one epoch on small images.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    arguments = base.parse_argument(argument, smoke=False)
    config = base.get_config()
    config.dataset.name = "phantom"
    config.dataset.positive = "lesion"
    # One block a stage instead of 3, 4, 6 and 3, and half the channels: without these two
    # lines it is the whole ResNet50, which wants a bigger machine or more than minutes.
    config.model_options.stage_sizes = (1, 1, 1, 1)
    config.model_options.width = 32
    config.augment = "shift_zoom"
    config.image_size = 64
    config.batch_size = 32
    config.epochs = 12
    # The published 0.99 follows the batches too slowly for a run of a few hundred steps.
    config.batch_norm_momentum = 0.9
    if arguments.smoke:
        config.epochs = 1
        config.image_size = 32
        config.batch_size = 128
    return config
