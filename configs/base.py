"""What every config has: the published downstream training, before a task is chosen.

A config page calls `get_config` here and changes what its task needs. Each field can be set
from the command line: `--config.optimizer.learning_rate=1e-4`. What each may be, its type and its
range, is stated in `radimagenet_jax/training/fields.py`: a new field is a line here and one there.
"""

from ml_collections import ConfigDict

from radimagenet_jax import models
from radimagenet_jax.data.tasks import TASKS


def get_config(task: str = "") -> ConfigDict:
    """The published training; with a task of `data/tasks.py`, that task's own values."""
    config = ConfigDict()

    # One of the published tasks, or '' for a data set of your own.
    config.task = task
    config.dataset = ConfigDict()
    config.dataset.name = ""  # a folder of tfds_builders, or folder/configuration
    config.dataset.data_dir = "~/tensorflow_datasets"  # of prepared data sets and downloads
    config.dataset.fold = 0  # 0: the data set's only split; 1 to 5: a cross-validation fold
    # Where the images are while it trains. false: on every device, all of them; sharded: on the
    # devices, a part on each; true: read from disk, from the encoded records; decoded: from pixels
    # that `prepare --decoded=SIZE`, or the first such run, has written, which costs disk and takes
    # hardly any CPU. auto: false, else sharded, as dataset.memory_gib has room; else from disk, the
    # decoded ones where they are. The results are the same.
    config.dataset.streaming = "auto"
    # Processes that read the training images where they are on disk; 0: threads do, which share one
    # Python and so keep some six cores busy with encoded records. The results are the same.
    config.dataset.workers = 0
    # Of each device, for images; -1: a third of an accelerator's memory, but 4 at most where every
    # device has all of them; of CPUs, 4 together.
    config.dataset.memory_gib = -1.0
    # Class whose AUROC is reported; '': the last, but of two never the one whose name means health.
    config.dataset.positive = ""
    # Share of positive images where the network is to be used, for predictive values; 0: not known.
    config.dataset.prevalence = 0.0

    config.model = "resnet50"  # the network
    config.model_options = ConfigDict()  # further fields of the network's class, such as its width
    # scratch: random weights; a weight file, or hf://OWNER/NAME[@REVISION][/FILE]; or another run's
    # working directory. auto, as the pages of tasks have: RadImageNet's file if it is in
    # <data_dir>/weights or where $RADIMAGENET_WEIGHTS says, else random weights and what
    # `from_scratch` says of other fields.
    config.init = "scratch"
    config.preprocessing = "published"  # caffe_div255 for all weights; native: the weights' own
    # Say so here if a weight file shall get another input than it was trained with.
    config.allow_preprocessing_mismatch = False
    # What learns: unfreezeall, everything; freezeall, the head; unfreezetop10 or top=N, the last
    # layers too; layers=REGEX[,REGEX...], those whose whole name matches, and the head.
    config.structure = "unfreezeall"
    config.dropout = 0.5  # before the head
    config.head_init = "glorot_uniform"  # first values of the head
    # softmax cross-entropy; keras2, in the pages of tasks: what Keras 2 in fact computed when
    # the published scripts asked it for binary cross-entropy after a softmax
    # (radimagenet_jax/training/losses.py)
    config.loss = "softmax"
    config.batch_norm_momentum = 0.99  # of the moving mean and variance
    # Of the global batch, as on one device; or per_device: each device's part by itself, so that
    # devices wait less for each other, and the result depends on how many there are.
    config.batch_norm_statistics = "global"
    config.dtype = "float32"  # of the computation; parameters are always float32
    # Of a training step's products in float32: auto (TensorFloat-32 on GPU, three passes of
    # bfloat16 on TPU, as others train), highest (float32 everywhere), or default (what the chip
    # does by itself). Evaluation, features and maps are always highest.
    config.precision = "auto"
    # The same bits whenever the run is repeated, on GPU too: kernels that add in a fixed order, and
    # XLA's choice of kernels kept in the working directory. CPUs and TPUs do so by themselves.
    config.deterministic = True

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"  # adam as Keras computes it; the others as optax does
    config.optimizer.learning_rate = 1e-3  # the highest, if there is a schedule
    config.optimizer.b1 = 0.9  # of adam and adamw: decay of the gradients' mean
    config.optimizer.b2 = 0.999  # of adam and adamw: decay of their squares' mean
    config.optimizer.eps = 1e-7  # of adam and adamw; Keras' own, optax has 1e-8
    config.optimizer.momentum = 0.9  # of sgd
    config.optimizer.weight_decay = 1e-4  # of adamw and lion, for kernels alone
    config.optimizer.clip_norm = 0.0  # largest global norm of what learns' gradients; 0: any

    config.schedule = ConfigDict()
    config.schedule.name = "constant"  # as published; cosine and linear fall to 0
    config.schedule.warmup_epochs = 0.0  # in which the rate rises from 0
    config.label_smoothing = 0.0  # share of each target that all classes get
    config.sampling = "uniform"  # balanced: each class has the same share of an epoch
    config.class_weights = "none"  # balanced: each class weighs the same in the loss
    # Write the best network as weights/ in the working directory, for config.init of other runs.
    config.export_weights = False

    config.batch_size = 256  # global, over all devices
    config.image_size = 256  # side of the square input, in pixels
    config.epochs = 30  # of which the one with the lowest validation loss is kept
    config.augment = "published"  # the task's own, which is rotate_flip or shift_zoom
    config.augment_seed = -1  # of the augmentation's draws; -1: config.seed
    config.shuffle = True  # the training images, anew in each epoch
    config.seed = 0  # of all that is drawn

    # Parts that a batch is taken in one after the other, for less memory.
    config.accumulate = 1
    # For less memory, computed again for the gradient: norms (what lies between convolutions, next
    # to free) or blocks (their convolutions too, a third more operations).
    config.remat = "none"
    config.ema = 0.0  # decay of a moving average of the weights, which is then what is evaluated
    # Many steps in one compiled loop: auto does so with a data set on the devices of a GPU or TPU.
    config.scan = "auto"
    config.shard_optimizer = False  # split Adam's moments over the devices
    config.profile = ""  # steps to record for xprof, such as 5:8

    config.mesh = ConfigDict()
    config.mesh.data = -1  # devices that share a batch; -1: all

    config.log_every = 10  # steps between rows of metrics.jsonl
    config.checkpoint_every = 0  # steps between checkpoints; 0: at the end of each epoch
    if task:
        published = TASKS[task]
        config.dataset.name = published.dataset
        config.dataset.fold = 1 if published.folds > 1 else 0
        config.dataset.positive = published.positive
        config.image_size = published.image_size
        config.batch_size = published.batch_size
        config.optimizer.learning_rate = published.learning_rate
        config.loss = "keras2"
        config.init = "auto"
        config.from_scratch = from_scratch()
    return config


def from_scratch() -> ConfigDict:
    """What a network with random weights learns by, found on validation images of COVID-CT.

    The published line is for pretrained weights: at its rates and in its few steps a network that
    begins with random ones learns nothing. The averages, of the weights over some 50 steps and of
    the statistics over 33, keep the validation loss from jumping from epoch to epoch. Of the rates
    3e-4, 1e-3 and 3e-3 the last had the lowest validation loss, at a third to a half of the epochs.
    """
    config = ConfigDict()
    config.image_size = 96
    config.batch_size = 16
    config.epochs = 15
    config.batch_norm_momentum = 0.97
    config.ema = 0.98
    config.optimizer = ConfigDict({"learning_rate": 3e-3})
    config.schedule = ConfigDict({"name": "cosine", "warmup_epochs": 2.0})
    return config


def without_weights(config: ConfigDict) -> None:
    """Makes a page begin with random weights, whatever is there, and keep its other fields."""
    config.init = "scratch"
    if "from_scratch" in config:
        del config.from_scratch


def shrink(config: ConfigDict) -> ConfigDict:
    """Makes a run a smoke test of seconds: an epoch, small images, a shallow network.

    With another `--config.model` it is that network which is small, see `training/config.py`.
    """
    without_weights(config)
    network = models.architecture(config.model)
    config.epochs = 1
    config.image_size = max(32, network.min_image_size)
    config.batch_size = 64
    config.model_options.update(network.small)
    return config


def parse_argument(argument: str | None, **defaults: bool | int | str) -> ConfigDict:
    """Reads what follows the colon in `--config=configs/covid.py:smoke,epochs=3`.

    Args:
      argument: `key=value` pairs separated by commas; a key alone means True.
      **defaults: The keys that the config takes, with the values they have otherwise.

    Returns:
      The values, each of its default's type.

    Raises:
      ValueError: If a key is not among the defaults or a value is not of its type.
    """
    values = ConfigDict(defaults)
    for part in (argument or "").split(","):
        if not part:
            continue
        key, _, text = part.partition("=")
        if key not in defaults:
            raise ValueError(
                f"the config takes no argument {key!r}; it takes {', '.join(defaults)}"
            )
        kind = type(defaults[key])
        if kind is bool:
            if text.lower() not in ("", "true", "1", "false", "0"):
                raise ValueError(f"the config's argument {key!r} is true or false, not {text!r}")
            values[key] = text.lower() in ("", "true", "1")
        else:
            values[key] = kind(text)
    return values
