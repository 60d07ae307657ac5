"""Intracranial hemorrhage on head CT: the published hemorrhage task, on the RSNA images.

```
python -m radimagenet_jax.main --config=configs/hemorrhage.py --workdir=runs/hemorrhage \
    --config.init=RadImageNet-ResNet50_notop.h5
```

tfds_builders/rsna_hemorrhage/README.md says where the images come from and where they belong.
The published tables for training and testing were never released: a split by patient stands
in, and --config.dataset.fold=1 to 5 chooses one of five.
--config.dataset.name=rsna_hemorrhage/stack takes three windows as colours in place of the
brain window.

Published are Adam at 1e-3, 30 epochs, and shifts, shear and zoom without flips; the image and
batch size are not, and 256 is taken for both, as in the other tasks.

No figure was measured: the challenge's rules have to be accepted to get its images. `:smoke`
runs a shallow network on small images for an epoch.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    arguments = base.parse_argument(argument, smoke=False)
    config = base.get_config("hemorrhage")
    return base.shrink(config) if arguments.smoke else config
