"""The network that a run has left in its working directory."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from flax import linen as nn
from ml_collections import ConfigDict

from radimagenet_jax.errors import ConfigError
from radimagenet_jax.models.preprocess import Input
from radimagenet_jax.training import checkpoints
from radimagenet_jax.training.program import Program
from radimagenet_jax.weights.contract import Contract


@dataclass(frozen=True)
class Trained:
    """A run's network with the lowest validation loss.

    Attributes:
      config: Of the run.
      model: The module, with its head.
      variables: {'params', 'batch_stats'} on the first local device.
      contract: What they are; its labels are the classes of the head.
      labels: These classes.
    """

    config: ConfigDict
    model: nn.Module
    variables: dict[str, Any]
    contract: Contract
    labels: tuple[str, ...]


def is_run(folder: Path) -> bool:
    """Tells whether a folder is the working directory of a run."""
    return (folder / "config.json").is_file()


def load(folder: Path) -> Trained:
    """Restores a run's best network.

    Args:
      folder: The run's working directory.

    Returns:
      The network.

    Raises:
      ConfigError: If the folder holds no run, or the run names no classes.
      CheckpointError: If there is no best checkpoint, or it is damaged.
    """
    if not is_run(folder):
        raise ConfigError(f"{folder} holds no run: it has no config.json; give a run's --workdir.")
    config = ConfigDict(json.loads((folder / "config.json").read_text()))
    saved = checkpoints.Checkpoints(folder)
    try:
        contract = Contract.from_json(saved.best_meta()["contract"], name=f"{folder}: contract")
        if contract.labels is None:
            raise ConfigError(f"{folder}: the checkpoint names no classes; train the run again.")
        made_of = Input(contract.preprocessing, contract.channel_order)
        program = Program.of(config, made_of, contract.labels, contract.variant)
        model = program.model
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
            program.shapes,
        )
        variables, _ = saved.restore_best(like)
    finally:
        saved.close()
    return Trained(config, model, variables, contract, contract.labels)
