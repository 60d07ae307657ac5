"""Pretraining on RadImageNet: any of the four networks from random weights, 165 classes.

```
python -m radimagenet_jax.main --config=configs/radimagenet.py:model=resnet50 --workdir=runs/rin
python -m radimagenet_jax.main --config=configs/covid.py --workdir=runs/covid \
    --config.init=runs/rin/weights
```

The best network is written, with its 165-way head, its class names and its contract, to `weights/`
in the working directory, which `--config.init` and `load_pretrained` take. The paper does not
publish its recipe; this one is ours: Adam with warm-up and a cosine to zero, label smoothing,
bfloat16 compute. Classes differ a thousandfold in size, so read balanced accuracy and macro F1
beside the accuracy; `--config.class_weights=balanced` gives each class the same weight in the loss,
`--config.sampling=balanced` the same share of the examples in every epoch.
The images, 63 GiB of grey at 224 pixels, live in parts on the devices where these have room (8 GiB
on each of eight, a third of whose memory is theirs, or what `--config.dataset.memory_gib` gives);
else they are read from disk. A GPU trains faster than a few CPUs decode: then, on a disk with 68 GB
to spare, `python -m radimagenet_jax.prepare --dataset=radimagenet --decoded=224` once.

Measured on a generated set of this layout (165 classes of gratings in noise, 20,257 images of 32
pixels, the largest class 140 times the smallest), on 2 CPU cores (AMD EPYC, no accelerator) shared
with other work, streamed:

```
python -m tests.radimagenet_source --root=DATA/downloads/manual/radimagenet
python -m radimagenet_jax.main --config=configs/radimagenet.py:smoke --workdir=runs/generated \
    --config.dataset.data_dir=DATA --config.dataset.streaming=true --config.augment=none \
    --config.epochs=6 --config.schedule.warmup_epochs=1 --config.optimizer.learning_rate=3e-3 \
    --config.batch_norm_momentum=0.9
```

834 steps in 3 minutes 24 seconds, 525 images/s (1,119 with fewer neighbours), 0.3 % of the time
waiting for input, 0.7 GB of memory; on 1,546 test images top-1 0.986, top-5 1.000, balanced
accuracy 0.960, macro F1 0.965, macro AUROC 0.99996. That says that the machinery learns, nothing
of RadImageNet.

`:smoke` runs one epoch of a shallow network on small images of whatever is prepared.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    arguments = base.parse_argument(argument, smoke=False, model="resnet50", variant="")
    config = base.get_config()
    config.dataset.name = "radimagenet"  # or radimagenet/clean, without duplicates
    config.model = arguments.model
    if arguments.variant:
        config.model_options.variant = arguments.variant  # v1.5 of ResNet50
    config.dropout = 0.0
    config.dtype = "bfloat16"
    config.optimizer.learning_rate = 1e-3
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = 2.0
    config.label_smoothing = 0.1
    config.augment = "rotate_flip"
    config.image_size = 224
    config.batch_size = 256
    config.epochs = 30
    config.log_every = 100
    config.checkpoint_every = 1000
    config.export_weights = True
    if arguments.smoke:
        base.shrink(config)
        config.batch_size = 128
        config.schedule.warmup_epochs = 0.0
        config.dtype = "float32"
        config.export_weights = not config.model_options  # weights are of whole networks
    return config
