"""COVID-19 on chest CT: the published covid19 task, on a data set that is public.

```
python -m radimagenet_jax.main --config=configs/covid.py --workdir=runs/covid
```

Published are 224 pixels, Adam at 1e-5, the unflipped augmentation and batches of 1,024 for 5,340
images; the batch is 16 here, since COVID-CT has 425 images to train on, 118 to validate and 203
to test.

It begins with RadImageNet's ResNet50 if that is found (`config.init="auto"`, see configs/base.py),
else with random weights and the fields of `base.from_scratch`.

Measured on 2 CPU cores (AMD EPYC, no accelerator), 2026-11-28, on the real images. Without a weight
file, so from random weights by that recipe: 4 min 24 s, validation AUROC 0.766, test AUROC 0.736,
95 % interval 0.611 to 0.825 over patients; on one core, whose sums round otherwise, 0.747 and
0.715. From random weights by the published fields (--config.init=scratch --config.epochs=4): 29
minutes, test AUROC 0.442, 0.318 to 0.569, which is chance: 1e-5 is the learning rate for pretrained
weights, and moving statistics of momentum 0.99 have not caught up after 108 steps. `:smoke` runs
a shallow network on small images.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    arguments = base.parse_argument(argument, smoke=False)
    config = base.get_config("covid")
    # Published: 1024, for 5,340 images. COVID-CT has 425 to train on, which would be one step
    # an epoch.
    config.batch_size = 16
    if arguments.smoke:
        base.without_weights(config)
        config.epochs = 1
        config.image_size = 32
        config.batch_size = 64
        # One block a stage: compiling the whole network would take most of the time.
        config.model_options.stage_sizes = (1, 1, 1, 1)
    return config
