"""Your own images: a folder and a CSV.

```
mkdir -p ~/tensorflow_datasets/downloads/manual/image_csv
ln -s /where/your/images/are ~/tensorflow_datasets/downloads/manual/image_csv/mine
head -n 2 /where/your/images/are/labels.csv   # filename,label,patient and 1.png,benign,p17
python -m radimagenet_jax.main --config=configs/custom.py --workdir=runs/mine \
    --config.dataset.name=image_csv/mine --config.init=RadImageNet-ResNet50_notop.h5
```

PNG, JPEG, TIFF and DICOM; `tfds_builders/image_csv/README.md` describes the table. Without a weight
file, leave out --config.init: the network starts from random weights. The positive class, whose
AUROC is reported, is the last in alphabetical order unless --config.dataset.positive names another;
of two classes it is never the one whose name means health (normal, negative, benign, healthy, ...).
--config.dataset.fold=1 to 5 chooses a fold where the table has no column `split`.

The score to expect depends on your data, and the time on their number: an epoch of 1,000 images
at 224 pixels takes minutes on a CPU and seconds on a GPU or TPU. `:smoke` runs a shallow
network on small images for an epoch, to see that the data are right.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str | None = None) -> ConfigDict:
    arguments = base.parse_argument(argument, smoke=False)
    config = base.get_config()
    config.dataset.name = "image_csv/mine"
    config.image_size = 224
    # Own data are often a few hundred images: small batches, and a rate for pretrained weights.
    config.batch_size = 32
    config.optimizer.learning_rate = 1e-4
    # Without flips: left and right matter in most anatomy.
    config.augment = "shift_zoom"
    if arguments.smoke:
        config.epochs = 1
        config.image_size = 32
        # One block a stage: compiling the whole network would take most of the time.
        config.model_options.stage_sizes = (1, 1, 1, 1)
    return config
