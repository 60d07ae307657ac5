"""COVID-19 on chest CT: the published covid19 task, on a data set that is public.

    python -m radimagenet_jax.main --config=configs/covid.py --workdir=runs/covid
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
        config.epochs = 1
        config.image_size = 32
        config.batch_size = 64
        # One block a stage: compiling the whole network would take most of the time.
        config.model_options.stage_sizes = (1, 1, 1, 1)
    return config
