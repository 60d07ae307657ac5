"""The network of a config: its module, its first variables and their contract."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
from flax import linen as nn
from flax import traverse_util
from ml_collections import ConfigDict

from radimagenet_jax import models
from radimagenet_jax.errors import ConfigError, WeightsError
from radimagenet_jax.models import preprocess
from radimagenet_jax.training import initialise
from radimagenet_jax.training.state import digest
from radimagenet_jax.weights import native, reading
from radimagenet_jax.weights.contract import Contract, check_architecture, check_preprocessing

PyTree = Any


def build(
    config: ConfigDict, class_names: tuple[str, ...]
) -> tuple[nn.Module, dict[str, PyTree], Contract]:
    """Makes the network with a new head, from scratch or from a weight file.

    Args:
      config: Of `configs/base.py`.
      class_names: Of the head, in index order.

    Returns:
      The module, its variables {'params', 'batch_stats'} as float32 arrays on the host, and the
      contract that they will have when trained: with these class names and this input.

    Raises:
      ConfigError: If the config asks for the native input of no weight file.
      WeightsError: If the weight file is not one for this network and input.
    """
    if config.init == "scratch":
        variant = scratch_variant(config)
        model = module(config, class_names, variant)
        variables = _scratch(model, config)
        if config.preprocessing == "native":
            raise ConfigError(
                "config.preprocessing='native' is the input of a weight file, but config.init is "
                "'scratch'; name a scheme, such as 'published'."
            )
        scheme = _scheme(config.preprocessing, "")
        contract = Contract(
            architecture=config.model,
            variant=variant,
            preprocessing=scheme,
            channel_order=preprocess.SCHEMES[scheme].channel_order,
            origin=f"random initialisation, seed {config.seed}",
            licence="Made by whoever trained it: the terms of the training data apply.",
            sha256=digest(variables["params"], variables["batch_stats"]),
            labels=class_names,
        )
        return model, variables, contract
    loaded = reading.read(config.init, architecture=config.model)
    check_architecture(loaded.contract, config.model)
    scheme = _scheme(config.preprocessing, loaded.contract.preprocessing)
    check_preprocessing(loaded.contract, scheme, config.allow_preprocessing_mismatch)
    model = module(config, class_names, loaded.contract.variant)
    base = traverse_util.flatten_dict(loaded.variables, sep="/")
    leaves = traverse_util.flatten_dict(_scratch(model, config), sep="/")
    _check_fit(config, base, leaves)
    # The file's own head, if it has one, is for other classes.
    leaves |= {name: leaf for name, leaf in base.items() if "/head/" not in name}
    contract = dataclasses.replace(
        loaded.contract,
        preprocessing=scheme,
        # A scheme that is forced on the weights comes as it is; their own comes in their order.
        channel_order=loaded.contract.channel_order
        if scheme == loaded.contract.preprocessing
        else preprocess.SCHEMES[scheme].channel_order,
        labels=class_names,
    )
    return model, traverse_util.unflatten_dict(leaves, sep="/"), contract


def export(folder: Path, variables: dict[str, PyTree], contract: Contract) -> None:
    """Writes a run's network, with its head, as a weight folder that `config.init` takes.

    Args:
      folder: Where to; one that a resumed run has written before is kept, since it is the same.
      variables: {'params', 'batch_stats'}.
      contract: What they are.

    Raises:
      WeightsError: If it cannot be written.
    """
    if not native.is_converted(folder):
        native.write(folder, jax.device_get(variables), contract)


def _check_fit(config: ConfigDict, base: dict[str, Any], leaves: dict[str, Any]) -> None:
    """Refuses weights of a network that config.model_options has made smaller, or not."""
    wrong = [
        name
        for name in sorted(base.keys() | leaves.keys())
        if "/head/" not in name
        and (name not in base or name not in leaves or base[name].shape != leaves[name].shape)
    ]
    if wrong:
        raise WeightsError(
            f"{config.init} does not fit the network of this config ({len(wrong)} variables, the "
            f"first is {wrong[0]}); give config.model_options the values of the run that made it."
        )


def scratch_variant(config: ConfigDict) -> str:
    """The variant of a network from random weights: the config's own, else the published one.

    Raises:
      ConfigError: If the network has no such variant.
    """
    known = models.architecture(config.model).variants
    variant = config.model_options.get("variant", known[0])
    if variant not in known:
        raise ConfigError(
            f"config.model_options.variant is {variant!r}, but {config.model} has "
            f"{', '.join(repr(each) for each in known)}."
        )
    return variant


def module(config: ConfigDict, class_names: tuple[str, ...], variant: str) -> nn.Module:
    """The config's network as a module, with a head for the classes."""
    fields = dict(config.model_options)
    if variant:
        fields["variant"] = variant
    return models.create(
        config.model,
        num_classes=len(class_names),
        dropout=config.dropout,
        head_init=config.head_init,
        dtype=config.dtype,
        bn_momentum=config.batch_norm_momentum,
        **fields,
    )


def _scratch(model: nn.Module, config: ConfigDict) -> dict[str, PyTree]:
    return initialise.scratch(model, config.image_size, config.seed, config.head_init)


def _scheme(name: str, native: str) -> str:
    return {"published": preprocess.PUBLISHED, "native": native}.get(name, name)
