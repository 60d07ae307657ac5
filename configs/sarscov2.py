"""COVID-19 or other pneumonia on chest CT: the published sarscov2 task, on CC-CCII.

```
python -m radimagenet_jax.main --config=configs/sarscov2.py --workdir=runs/sarscov2 \
    --config.init=RadImageNet-ResNet50_notop.h5
```

tfds_builders/cc_ccii/README.md says where the slices come from and where they belong. The
published split has 44,644 / 4,367 / 9,755 slices; --config.dataset.fold=1 to 5 takes a fold of
a five-fold split by patient instead.

Published are 256 pixels, batches of 256, Adam at 1e-3, 30 epochs, and shifts, shear and zoom
without flips.

No figure was measured: the slices were not at hand. `:smoke` runs a shallow network on small
images for an epoch.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    arguments = base.parse_argument(argument, smoke=False)
    config = base.get_config("sarscov2")
    return base.shrink(config) if arguments.smoke else config
