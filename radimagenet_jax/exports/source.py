"""What is exported: a network with its preprocessing, as one function of images alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from radimagenet_jax.weights.contract import Contract
from radimagenet_jax.weights.usage import Usage

# What every form calls its input and its outputs.
IMAGES = "images"
PROBABILITIES = "probabilities"
FEATURES = "features"


@dataclass(frozen=True)
class Source:
    """A network to export.

    Attributes:
      model: In float32, whatever it was trained in.
      variables: {'params', 'batch_stats'}, float32.
      contract: What they are; its labels name the classes. Without labels only features are
        exported, since nobody could tell what a probability is of.
      image_size: Side of the square images, in pixels.
      usage: Operating point and windows, as far as they are known, for the card.
    """

    model: nn.Module
    variables: Mapping[str, Any]
    contract: Contract
    image_size: int
    usage: Usage = field(default_factory=Usage)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the exported function gives."""
        return (PROBABILITIES, FEATURES) if self.contract.labels else (FEATURES,)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image."""
        return (self.image_size, self.image_size, 3)

    def forward(self) -> Callable[[jax.Array], dict[str, jax.Array]]:
        """Makes the function that is exported.

        Returns:
          (N, S, S, 3) uint8 RGB -> {'probabilities': (N, classes), 'features': (N, C)}, float32;
          computed in float32 on every platform, where GPUs and TPUs would take fewer bits.
        """

        def forward(images: jax.Array) -> dict[str, jax.Array]:
            with jax.default_matmul_precision("highest"):
                x = self.contract.input.of(images)
                logits, out = self.model.apply(self.variables, x, train=False)
            found = {FEATURES: out["pooled"].astype(jnp.float32)}
            if self.contract.labels:
                found[PROBABILITIES] = jax.nn.softmax(logits)
            return {name: found[name] for name in self.outputs}

        return forward
