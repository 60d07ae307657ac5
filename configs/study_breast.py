"""The published comparison on one task: breast lesions, ultrasound.

```
python -m radimagenet_jax.study --config=configs/study_breast.py --workdir=studies/breast \
    --config.study.inits="('radimagenet=weights/RadImageNet-{released}_notop.h5','scratch')"
```

24 settings in five folds: 120 runs an initialisation.
configs/breast.py says where the images come from.
Heads alone on small images are a study of minutes: two networks, two initialisations and
`--config.study.settings="(('freezeall',1e-2),('freezeall',1e-3))" --config.study.views="(2,)"
--config.image_size=64 --config.batch_size=16 --config.epochs=20` were 40 runs in 7 minutes of two
busy cores. On random frozen weights the AUROC over all folds was 0.71 to 0.74 at 1e-2: what any
pretraining has to beat.
`:smoke` takes two shallow networks on small images; what it scores says nothing.
"""

from ml_collections import ConfigDict

from configs import study_base


def get_config(argument: str | None = None) -> ConfigDict:
    return study_base.for_task("breast", argument)
