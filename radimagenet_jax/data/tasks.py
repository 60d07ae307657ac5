"""The eight published tasks, one record each, as facts of the published scripts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A downstream task of the RadImageNet study.

    Attributes:
      title: What is told from what, for people.
      modality: CT, MR, US (ultrasound) or CXR (chest radiograph).
      dataset: The builder that prepares its images, with its configuration where it has
        several tasks; folds are added by `registry.with_fold`.
      labels: Class names in index order, which is alphabetical.
      positive: The class whose AUROC is reported.
      image_size: Side of the square input, in pixels.
      batch_size: Published batch size.
      learning_rate: Published default learning rate.
      augment: The published augmentation, a key of `augment.POLICIES`.
      folds: Number of published cross-validation folds, 1 for a single split.
      published_gain: In per cent, by which the published AUROC was higher from RadImageNet than
        from ImageNet, as `GAINS` states it.
    """

    title: str
    modality: str
    dataset: str
    labels: tuple[str, str]
    positive: str
    image_size: int
    batch_size: int
    learning_rate: float
    augment: str
    folds: int
    published_gain: float


# Where the published gains stand. It gives per cent, p < 0.001 for each, and neither intervals nor
# the AUROCs that the gains are of.
GAINS = (
    "abstract of Mei et al. 2022, Radiology: Artificial Intelligence 4(5):e210315, "
    "doi:10.1148/ryai.210315"
)

TASKS = {
    "thyroid": Task(
        "benign from malignant thyroid nodules", "US", "ddti",
        ("benign", "malignant"), "malignant", 256, 256, 1e-3, "rotate_flip", 5, 9.4,
    ),
    "breast": Task(
        "benign from malignant breast lesions", "US", "busi",
        ("benign", "malignant"), "malignant", 256, 256, 1e-3, "rotate_flip", 5, 4.0,
    ),
    "acl": Task(
        "intact from torn anterior cruciate ligaments", "MR", "mrnet/acl",
        ("no", "yes"), "yes", 256, 256, 1e-3, "rotate_flip", 5, 4.8,
    ),
    "meniscus": Task(
        "intact from torn menisci", "MR", "mrnet/meniscus",
        ("n", "p"), "p", 256, 256, 1e-3, "rotate_flip", 5, 4.5,
    ),
    "pneumonia": Task(
        "pneumonia on chest radiographs", "CXR", "rsna_pneumonia",
        ("no", "yes"), "yes", 256, 256, 1e-3, "shift_zoom", 1, 1.9,
    ),
    "covid": Task(
        "COVID-19 on chest CT", "CT", "covid_ct",
        ("negative", "positive"), "positive", 224, 1024, 1e-5, "shift_zoom", 1, 6.1,
    ),
    "sarscov2": Task(
        "COVID-19 from common pneumonia on chest CT", "CT", "cc_ccii",
        ("CP", "NCP"), "NCP", 256, 256, 1e-3, "shift_zoom", 1, 1.7,
    ),
    "hemorrhage": Task(
        "intracranial hemorrhage on head CT", "CT", "rsna_hemorrhage",
        ("no", "yes"), "yes", 256, 256, 1e-3, "shift_zoom", 1, 0.9,
    ),
}  # fmt: skip
