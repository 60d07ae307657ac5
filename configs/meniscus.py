"""Torn menisci on knee MR: the published meniscus task, on MRNet.

```
python -m radimagenet_jax.main --config=configs/meniscus.py --workdir=runs/meniscus \
    --config.init=RadImageNet-ResNet50_notop.h5
```

tfds_builders/mrnet/README.md says where the volumes come from and where they belong. Fold 1 of
five is trained (about 4,170 sagittal slices are in the published lists, 340 of them for
validation and 856 for testing); --config.dataset.fold=2 to 5 are the others, and
--config.dataset.name=mrnet/meniscus_exams takes every sagittal slice of every exam.

Published are 256 pixels, batches of 256, Adam at 1e-3, 30 epochs, and rotations of 10 degrees
with shifts, shear, zoom and horizontal flips.

No figure was measured: MRNet is given out under an agreement only. `:smoke` runs a shallow
network on small images for an epoch.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    arguments = base.parse_argument(argument, smoke=False)
    config = base.get_config("meniscus")
    return base.shrink(config) if arguments.smoke else config
