"""Pneumonia on chest radiographs: the published pneumonia task, on the RSNA challenge's images.

```
python -m radimagenet_jax.main --config=configs/pneumonia.py --workdir=runs/pneumonia \
    --config.init=RadImageNet-ResNet50_notop.h5
```

tfds_builders/rsna_pneumonia/README.md says where the images come from and where they belong.
The published split has 20,412 / 2,269 / 4,003 radiographs; --config.dataset.fold=1 to 5 takes
a fold of a five-fold split instead.

Published are 256 pixels, batches of 256, Adam at 1e-3, 30 epochs, and shifts, shear and zoom
without flips.

No figure was measured: the challenge's rules have to be accepted to get its images. `:smoke`
runs a shallow network on small images for an epoch.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    arguments = base.parse_argument(argument, smoke=False)
    config = base.get_config("pneumonia")
    return base.shrink(config) if arguments.smoke else config
