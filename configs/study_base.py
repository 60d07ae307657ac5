"""What every study has: the published comparison, before its task is chosen.

A study's page calls `get_config` here. Fields outside `config.study` are those of a single run
(configs/base.py) and hold for all of them; each can be set from the command line, such as
`--config.epochs=10` or `--config.study.folds="(1,)"`.
"""

from ml_collections import ConfigDict

from configs import base
from radimagenet_jax import models
from radimagenet_jax.data.tasks import TASKS

# The published six settings of each network: 24 for the four.
PUBLISHED_SETTINGS = (
    ("unfreezeall", 1e-3),
    ("unfreezeall", 1e-4),
    ("unfreezetop10", 1e-2),
    ("unfreezetop10", 1e-3),
    ("freezeall", 1e-2),
    ("freezeall", 1e-3),
)


def get_config(*tasks: str) -> ConfigDict:
    """The published comparison on one or several tasks of `data/tasks.py`."""
    config = base.get_config(tasks[0])
    base.without_weights(config)  # config.study.inits has what runs begin with
    study = config.study = ConfigDict()
    study.tasks = tasks  # whose images are trained on
    # The networks.
    study.models = ("resnet50", "densenet121", "inception_v3", "inception_resnet_v2")
    # 'scratch', and any number of 'NAME=PATH'. In a path, {model} stands for the network's name as
    # above, {released} for that in the released files (ResNet50, ..., IRV2).
    study.inits = ("scratch",)
    # Any number of 'NAME=FILE.npz': features of all images by key, of any other model, in the form
    # that `predict --features` writes; {task} stands for the task. Heads are trained on them as
    # with 'freezeall' and its learning rates, see radimagenet_jax/studies/README.md.
    study.features = ()
    study.settings = PUBLISHED_SETTINGS  # what learns, and its learning rate
    study.folds = ()  # (): all that the task has
    study.seeds = (0,)  # of the head's values, the order of the examples and dropout
    study.note = ""  # a sentence that the report begins with, such as what the weights are
    study.augment_seed = 0  # of the augmentation's draws, which all runs share
    # published: the same input for all weights; native: each file's own; or both, compared.
    study.preprocessing = ("published",)
    # Augmentations an image has in all, drawn again and again; 0: new ones each epoch, as
    # published; (0, 8) compares the two. unfreezeall gains nothing by it and always has new ones.
    study.views = (0,)
    # Runs with a frozen prefix share it; 'alone' trains each by itself, to the same result.
    study.engine = "shared"
    study.memory_gib = 4.0  # for activations of frozen layers; beyond, they are computed again
    study.trunk_batch = 32  # images a call of the frozen layers
    study.side_by_side = 0  # runs that learn at a time; 0: what suits the machine
    study.image_size = 0  # in place of each task's own; 0: its own
    study.batch_size = 0  # likewise
    # Further fields of the networks' classes, by network.
    study.model_options = ConfigDict({name: {} for name in models.names()})
    return config


def for_task(task: str, argument: str | None) -> ConfigDict:
    """A task's study; with the argument `smoke`, one of minutes."""
    arguments = base.parse_argument(argument, smoke=False)
    config = get_config(task)
    return shrink(config) if arguments.smoke else config


def shrink(config: ConfigDict) -> ConfigDict:
    """Makes a study a smoke test: shallow networks, small images, two epochs, two folds."""
    config.epochs = 2
    # Of several tasks each has its own sizes, but for those of the study.
    sizes = config.study if len(config.study.tasks) > 1 else config
    sizes.image_size, sizes.batch_size = 32, 64
    config.study.models = ("resnet50", "densenet121")
    config.study.settings = (("unfreezeall", 1e-3), ("layers=stage2.*", 1e-3), ("freezeall", 1e-2))
    if all(TASKS[task].folds > 1 for task in config.study.tasks):
        config.study.folds = (1, 2)
    for name, options in config.study.model_options.items():
        options.update(models.architecture(name).small)
    config.study.model_options.resnet50.stage_sizes = (1, 1)
    config.study.model_options.resnet50.width = 8
    config.study.model_options.densenet121.block_sizes = (1, 1)
    config.study.model_options.densenet121.growth = 8
    config.study.model_options.densenet121.width = 8
    return config
