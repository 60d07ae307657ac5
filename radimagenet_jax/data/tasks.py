"""The eight published tasks, one record each, as facts of the published scripts."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Task:
    """A downstream task of the RadImageNet study, with the settings that most of them share.

    Attributes:
      dataset: The builder that prepares its images, with its configuration where it has
        several tasks; folds are added by `registry.with_fold`.
      labels: Class names in index order, which is alphabetical.
      augment: The published augmentation, a key of `augment.POLICIES`.
      folds: Number of published cross-validation folds, 1 for a single split.
      published_gain: In per cent, by which the published AUROC was higher from RadImageNet than
        from ImageNet, as `GAINS` states it.
      image_size: Side of the square input, in pixels.
      batch_size: Published batch size.
      learning_rate: Published default learning rate.
    """

    dataset: str
    labels: tuple[str, str]
    augment: str
    folds: int
    published_gain: float
    image_size: int = 256
    batch_size: int = 256
    learning_rate: float = 1e-3

    @property
    def positive(self) -> str:
        """The class whose AUROC is reported."""
        return self.labels[1]


# Where the published gains stand. It gives per cent, p < 0.001 for each, and neither intervals nor
# the AUROCs that the gains are of.
GAINS = (
    "abstract of Mei et al. 2022, Radiology: Artificial Intelligence 4(5):e210315, "
    "doi:10.1148/ryai.210315"
)

TASKS = {
    "thyroid": Task(  # benign from malignant thyroid nodules, ultrasound
        dataset="ddti", labels=("benign", "malignant"), augment="rotate_flip", folds=5,
        published_gain=9.4,
    ),
    "breast": Task(  # benign from malignant breast lesions, ultrasound
        dataset="busi", labels=("benign", "malignant"), augment="rotate_flip", folds=5,
        published_gain=4.0,
    ),
    "acl": Task(  # intact from torn anterior cruciate ligaments, MR
        dataset="mrnet/acl", labels=("no", "yes"), augment="rotate_flip", folds=5,
        published_gain=4.8,
    ),
    "meniscus": Task(  # intact from torn menisci, MR
        dataset="mrnet/meniscus", labels=("n", "p"), augment="rotate_flip", folds=5,
        published_gain=4.5,
    ),
    "pneumonia": Task(  # pneumonia on chest radiographs
        dataset="rsna_pneumonia", labels=("no", "yes"), augment="shift_zoom", folds=1,
        published_gain=1.9,
    ),
    "covid": Task(  # COVID-19 on chest CT
        dataset="covid_ct", labels=("negative", "positive"), augment="shift_zoom", folds=1,
        published_gain=6.1, image_size=224, batch_size=1024, learning_rate=1e-5,
    ),
    "sarscov2": Task(  # COVID-19 from common pneumonia on chest CT
        dataset="cc_ccii", labels=("CP", "NCP"), augment="shift_zoom", folds=1, published_gain=1.7,
    ),
    "hemorrhage": Task(  # intracranial hemorrhage on head CT
        dataset="rsna_hemorrhage", labels=("no", "yes"), augment="shift_zoom", folds=1,
        published_gain=0.9,
    ),
}  # fmt: skip
