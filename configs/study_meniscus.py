"""The published comparison on one task: menisci, knee MR.

```
python -m radimagenet_jax.study --config=configs/study_meniscus.py --workdir=studies/meniscus \
    --config.study.inits="('radimagenet=weights/RadImageNet-{released}_notop.h5','scratch')"
```

24 settings in five folds: 120 runs an initialisation.
configs/meniscus.py says where the images come from.
`:smoke` takes two shallow networks on small images; what it scores says nothing.
"""

from ml_collections import ConfigDict

from configs import study_base


def get_config(argument: str | None = None) -> ConfigDict:
    return study_base.for_task("meniscus", argument)
