"""The published comparison on one task: COVID-19, chest CT.

```
python -m radimagenet_jax.study --config=configs/study_covid.py --workdir=studies/covid \
    --config.study.inits="('radimagenet=weights/RadImageNet-{released}_notop.h5','scratch')"
```

24 settings on the only split: 24 runs an initialisation.
configs/covid.py says where the images come from.
`:smoke` takes two shallow networks on small images; what it scores says nothing.
"""

from ml_collections import ConfigDict

from configs import study_base


def get_config(argument: str | None = None) -> ConfigDict:
    config = study_base.for_task("covid", argument)
    # Published: 1024, for 5,340 images; COVID-CT has 425 to train on.
    config.batch_size = 16
    return config
