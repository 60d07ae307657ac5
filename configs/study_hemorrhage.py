"""The published comparison on one task: intracranial hemorrhage, head CT.

```
python -m radimagenet_jax.study --config=configs/study_hemorrhage.py --workdir=studies/hemorrhage \
    --config.study.inits="('radimagenet=weights/RadImageNet-{released}_notop.h5','scratch')"
```

24 settings on the only split: 24 runs an initialisation.
configs/hemorrhage.py says where the images come from.
`:smoke` takes two shallow networks on small images; what it scores says nothing.
"""

from ml_collections import ConfigDict

from configs import study_base


def get_config(argument: str | None = None) -> ConfigDict:
    return study_base.for_task("hemorrhage", argument)
