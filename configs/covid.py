"""COVID-19 on chest CT: the published covid19 task on COVID-CT, a public data set.

python -m radimagenet_jax.main --config=configs/covid.py --workdir=runs/covid
"""

from configs import base


def get_config(argument: str | None = None):
    arguments = base.parse_argument(argument, smoke=False)
    config = base.get_config("covid")
    config.batch_size = 16
    if arguments.smoke:
        config.epochs = 1
        config.image_size = 64
    return config
