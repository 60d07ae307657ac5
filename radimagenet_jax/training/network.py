"""The network that a run begins with: its program, its first variables and their contract."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
from flax import traverse_util
from ml_collections import ConfigDict

from radimagenet_jax import models
from radimagenet_jax.errors import ConfigError, WeightsError
from radimagenet_jax.models.preprocess import PUBLISHED, Input
from radimagenet_jax.training import initialise
from radimagenet_jax.training.program import Program
from radimagenet_jax.weights import native, reading
from radimagenet_jax.weights.contract import Contract, check_architecture, check_preprocessing

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Start:
    """A run's network before its first step.

    Attributes:
      program: What is computed.
      variables: {'params', 'batch_stats'} as float32 arrays on the host.
      contract: What they will be when trained: with the run's class names and input.
      remarks: On how the weights of `config.init` were recognised, a sentence each.
      findings: What is odd of their numbers, a sentence each.
      trained_with: The scheme of the input that the weights of `config.init` expect; the run's own
        from scratch.
    """

    program: Program
    variables: dict[str, PyTree]
    contract: Contract
    trained_with: str
    remarks: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()


def build(config: ConfigDict, class_names: tuple[str, ...], devices: int = 1) -> Start:
    """Makes the network with a new head, from scratch or from a weight file.

    Args:
      config: Of `configs/base.py`.
      class_names: Of the head, in index order.
      devices: That share a batch.

    Returns:
      The program, its first variables and their contract.

    Raises:
      ConfigError: If the config asks for the native input of no weight file.
      WeightsError: If the weight file is not one for this network and input.
    """
    if config.init == "scratch":
        program = from_scratch(config, class_names, devices)
        variables = program.scratch(config.seed)
        contract = initialise.contract(
            config.model, program.variant, program.input, variables, config.seed, class_names
        )
        return Start(program, variables, contract, contract.preprocessing)
    said = said_input(config.preprocessing)
    loaded = reading.read(config.init, architecture=config.model, unless_told=said)
    check_architecture(loaded.contract, config.model)
    made_of = _input(config.preprocessing, loaded.contract)
    check_preprocessing(loaded.contract, made_of.scheme, config.allow_preprocessing_mismatch)
    program = Program.of(config, made_of, class_names, loaded.contract.variant, devices)
    base = traverse_util.flatten_dict(loaded.variables, sep="/")
    leaves = traverse_util.flatten_dict(program.scratch(config.seed), sep="/")
    _check_fit(config, base, leaves)
    # The file's own head, if it has one, is for other classes.
    leaves |= {name: leaf for name, leaf in base.items() if "/head/" not in name}
    contract = dataclasses.replace(
        loaded.contract,
        preprocessing=made_of.scheme,
        channel_order=made_of.channel_order,
        labels=class_names,
    )
    variables = traverse_util.unflatten_dict(leaves, sep="/")
    report, trained_with = loaded.report, loaded.contract.preprocessing
    return Start(program, variables, contract, trained_with, report.notes, report.findings)


def from_scratch(config: ConfigDict, class_names: tuple[str, ...], devices: int = 1) -> Program:
    """The program of a network from random weights, in the config's variant or the published one.

    Raises:
      ConfigError: If the network has no such variant, or the input is to be that of a weight file.
    """
    if config.preprocessing == "native":
        raise ConfigError(
            "config.preprocessing='native' is the input of a weight file, but config.init is "
            "'scratch'; name a scheme, such as 'published'."
        )
    known = models.architecture(config.model).variants
    variant = config.model_options.get("variant", known[0])
    if variant not in known:
        raise ConfigError(
            f"config.model_options.variant is {variant!r}, but {config.model} has "
            f"{', '.join(repr(each) for each in known)}."
        )
    scheme = PUBLISHED if config.preprocessing == "published" else config.preprocessing
    return Program.of(config, Input(scheme), class_names, variant, devices)


def said_input(name: str) -> str | None:
    """What a config's `preprocessing` says of weights whose file does not tell their input."""
    return {"published": PUBLISHED, "native": None}.get(name, name)


def _input(name: str, contract: Contract) -> Input:
    """The input that a config names, for weights with a contract."""
    scheme = said_input(name) or contract.preprocessing
    # One that is forced on the weights comes in its own order.
    return contract.input if scheme == contract.preprocessing else Input(scheme)


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
