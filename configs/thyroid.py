"""Benign or malignant thyroid nodules on ultrasound: the published thyroid task, on DDTI.

```
python -m radimagenet_jax.main --config=configs/thyroid.py --workdir=runs/thyroid \
    --config.init=RadImageNet-ResNet50_notop.h5
```

tfds_builders/ddti/README.md says where the images come from and where they belong. Fold 1 of
five is trained (247 / 30 / 72 images of the published tables); --config.dataset.fold=2 to 5
are the others. --config.dataset.name=ddti/crops takes crops around the nodules in place of the
whole images.

Published are 256 pixels, batches of 256 (one step an epoch here), Adam at 1e-3, 30 epochs, and
rotations of 10 degrees with shifts, shear, zoom and horizontal flips.

From random weights by `base.from_scratch` on the crops, fold 1, 2026-11-28: 4 minutes on 2 CPU
cores shared with other work, validation AUROC 0.859 over 29 images, test AUROC 0.570 (0.367 to
0.747 over patients), which is chance. The published line was not run. `:smoke`, an epoch
of a shallow network on small images, took 39 seconds, 25 of them compiling (with the crops: the
whole images were not at hand); what it scores says nothing.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    arguments = base.parse_argument(argument, smoke=False)
    config = base.get_config("thyroid")
    return base.shrink(config) if arguments.smoke else config
