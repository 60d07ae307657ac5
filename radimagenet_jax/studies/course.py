"""How a run went: its history, its best epoch, and the scores of that epoch's network."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import softmax

from radimagenet_jax.statistics import metrics
from radimagenet_jax.statistics.scores import Predictions
from radimagenet_jax.studies.images import Images
from radimagenet_jax.studies.plan import Run


@dataclass
class Course:
    """A run while it trains, and when it is done.

    Attributes:
      run: Which.
      reason: Why it failed, None if it did not.
      history: Of each epoch, 'epoch' (from 1), 'train_loss', 'val_loss' and 'val_auroc'.
      best_epoch: The epoch of the lowest validation loss, from 1; None before the first.
      best_loss: That loss.
      scored: The best epoch's predictions of 'val' and 'test'.
      aurocs: Theirs; None where there is none.
    """

    run: Run
    reason: str | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None
    best_loss: float | None = None
    scored: dict[str, Predictions] = field(default_factory=dict)
    aurocs: dict[str, float | None] = field(default_factory=dict)

    def after_epoch(
        self,
        train_loss: float,
        logits: np.ndarray,
        loss: Callable[..., Any],
        images: Images,
        positive: int,
    ) -> bool:
        """Notes an epoch, and tells whether its network is the best so far.

        Args:
          train_loss: Mean over the epoch's examples.
          logits: (n, classes) of the validation split, in its order.
          loss: What training minimises; it chooses the best epoch.
          images: Of the task.
          positive: Index of the class whose AUROC is reported.
        """
        epoch = len(self.history) + 1
        places = images.splits[self.run.fold]["val"]
        row: dict[str, Any] = {"epoch": epoch, "train_loss": None, "val_loss": None}
        row["val_auroc"] = None
        self.history.append(row)
        if self.reason is not None:
            return False
        if not np.isfinite(train_loss):
            self.reason = f"the training loss is not a finite number in epoch {epoch}"
            return False
        row["train_loss"] = train_loss
        if not np.isfinite(logits).all():
            self.reason = f"a validation score is not a finite number after epoch {epoch}"
            return False
        labels = images.labels[places]
        row["val_loss"] = float(np.mean(loss(logits, labels)))
        row["val_auroc"] = _auroc(softmax(logits, axis=-1), places, images, positive)
        if self.best_loss is not None and not row["val_loss"] < self.best_loss:
            return False
        self.best_loss, self.best_epoch = row["val_loss"], epoch
        return True

    def finish(self, split: str, logits: np.ndarray, images: Images, positive: int) -> None:
        """Notes the best network's logits (n, classes) of a split, in its order."""
        if self.reason is not None:
            return
        if not np.isfinite(logits).all():
            self.reason = f"a {split} score of the best epoch is not a finite number"
            return
        places = images.splits[self.run.fold][split]
        scores = softmax(logits, axis=-1)
        self.aurocs[split] = _auroc(scores, places, images, positive)
        self.scored[split] = Predictions(
            images.class_names,
            tuple(images.keys[k] for k in places),
            tuple(images.patients[k] for k in places),
            images.labels[places],
            scores,
        )


def _auroc(scores: np.ndarray, places: np.ndarray, images: Images, positive: int) -> float | None:
    patients = [images.patients[k] for k in places]
    figures = metrics.evaluate(
        scores, images.labels[places], patients, positive, with_interval=False
    )
    return figures["auroc"]
