"""Puts the tensors of a file into a network's variables: all of them, or none.

Every form describes its file as named tensors that are not read yet, and every naming
scheme says where each of the network's variables is among them. This module checks the
two against the network first, in both directions and completely, and reads only
if everything fits, so that a wrong file costs nothing and loads nothing.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from radimagenet_jax import models
from radimagenet_jax.errors import WeightsError, cut
from radimagenet_jax.weights.contract import Contract, Described
from radimagenet_jax.weights.opened import StoredTensor
from radimagenet_jax.weights.origins import Origin
from radimagenet_jax.weights.plausibility import Plausibility
from radimagenet_jax.weights.seal import Seal
from radimagenet_jax.wording import counted, some

# Half-precision dtypes, each of whose numbers is one of float32.
HALVES = ("float16", "bfloat16")

# 'params/stage1_block1/conv1/kernel': collection, layers, leaf.
Target = str

# What is float32, or becomes it exactly.
_READ_DTYPES = ("float32", *HALVES)

# A file of another network differs in hundreds of tensors; the first few of each
# kind and a count say all that a person can use.
_LISTED = 12


@dataclass(frozen=True)
class Rule:
    """Where one tensor goes.

    Attributes:
      source: Key of the tensor among the file's.
      target: Where it belongs in the network's variables.
      axes: Transposition from the file's layout to ours; None if they agree.
    """

    source: str
    target: Target
    axes: tuple[int, ...] | None = None

    def shape_in_file(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape that the file must have for our `shape`."""
        if self.axes is None:
            return shape
        stored = [0] * len(shape)
        for ours, theirs in enumerate(self.axes):
            stored[theirs] = shape[ours]
        return tuple(stored)


@dataclass(frozen=True)
class Known:
    """What is known of a file without a contract.

    Attributes:
      architecture: A name of `models.names()`.
      variant: One of its variants.
      sha256: Of the file.
      source: Where it comes from, and which input it expects, as far as that can be told.
    """

    architecture: str
    variant: str
    sha256: str
    source: Origin

    @property
    def origin(self) -> str:
        """Where it comes from, for people."""
        return self.source.title


@dataclass(frozen=True)
class Named:
    """What a naming scheme makes of a file.

    Attributes:
      contract: What the weights are, if the file states it.
      tensors: The file's, by the scheme's own names.
      rule: Gives the rule for a variable of the network.
      problems: What does not fit already, each a part of a sentence; they refuse the file.
      notes: What was assumed or left aside, a sentence each.
      known: What the file itself tells, where it has no contract.
      num_classes: Of a head whose classes the file does not name; 0 for none.
    """

    contract: Contract | None
    tensors: Mapping[str, StoredTensor]
    rule: Callable[[Target], Rule]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    known: Known | None = None
    num_classes: int = 0

    @property
    def network(self) -> Described:
        """What the file is of, by its contract or without one."""
        found = self.contract or self.known
        assert found is not None, "a scheme gives the contract or what is known without one"
        return found


@functools.lru_cache(maxsize=16)
def expected_shapes(
    architecture: str, variant: str = "", num_classes: int = 0, **options: Any
) -> Mapping[Target, tuple[int, ...]]:
    """Returns the shape of each variable of a network.

    Args:
      architecture: A name of `models.names()`.
      variant: One of its variants; '' for its default.
      num_classes: Of its head; 0 for none.
      **options: Further fields of the network, hashable.

    Returns:
      Shapes by target. Nothing is computed.
    """
    network = models.create(
        architecture, variant=variant, num_classes=num_classes or None, **options
    )
    variables = models.variable_shapes(network, network.min_image_size)
    leaves = traverse_util.flatten_dict(variables, sep="/")
    return {target: tuple(leaf.shape) for target, leaf in leaves.items()}


def features(architecture: str, variant: str) -> int:
    """Returns the width of a network's pooled features."""
    return expected_shapes(architecture, variant, 1)["params/head/kernel"][0]


def require_published(variables: Mapping[str, Any], contract: Contract) -> dict[Target, Any]:
    """Refuses variables of a network that no weight file can describe.

    Args:
      variables: {'params', 'batch_stats'}.
      contract: What they are said to be.

    Returns:
      The leaves by target.

    Raises:
      WeightsError: If a variable is missing, unknown or of another shape, as in a network
        that was made smaller for a test run.
    """
    leaves: dict[Target, Any] = traverse_util.flatten_dict(dict(variables), sep="/")
    shapes = expected_shapes(contract.architecture, contract.variant, len(contract.labels or ()))
    if {target: tuple(np.shape(leaf)) for target, leaf in leaves.items()} != dict(shapes):
        entry = models.architecture(contract.architecture)
        whole = "published" if entry.released else "whole"
        raise WeightsError(
            f"the variables are not those of the {whole} {entry.title} (was the network made "
            f"smaller by config.model_options or `smoke`?); only the {whole} networks can be "
            "written, and a run's working directory keeps any."
        )
    return leaves


def assemble(
    named: Named,
    shapes: Mapping[Target, tuple[int, ...]],
    *,
    file: str,
    title: str,
    seal: Seal | None = None,
) -> tuple[dict[str, Any], Plausibility]:
    """Reads a file's tensors into a network's variables, strictly.

    Args:
      named: What the file holds.
      shapes: Of the network's variables, by target.
      file: The file's name, for messages.
      title: The network's name, for messages.
      seal: Takes note of every variable, to be verified by the caller.

    Returns:
      {'params': ..., 'batch_stats': ...}, nested by layer, float32 on the default
      device, and what was seen of the numbers.

    Raises:
      WeightsError: With every mismatch at once: missing, unexpected and misshaped
        tensors, dtypes other than float32, NaN, infinite values and negative variances.
    """
    rules = [named.rule(target) for target in shapes]
    problems = [*named.problems, *_mismatches(named.tensors, rules, shapes)]
    if problems:
        raise WeightsError(
            f"{file} does not fit {title}: {'; '.join(problems)}. Nothing was loaded; give an "
            f"intact file of {title} without its top, or name the right architecture."
        )

    seen = Plausibility()
    placed: dict[Target, jax.Array] = {}
    for rule in rules:
        tensor = named.tensors[rule.source]
        values = tensor.read()
        if tensor.dtype.itemsize == 2:
            values = values.astype(np.float32)
        seen.note(tensor.name, rule.target, values)
        if rule.axes is not None:
            values = values.transpose(rule.axes)
        values = np.ascontiguousarray(values, np.float32)
        if seal is not None:
            seal.note(rule.target, values)
        # To the device one by one, so that there are never two copies of the whole.
        placed[rule.target] = jax.device_put(values)
    seen.refuse_invalid(file)
    seen.note_untrained()
    return models.nested(placed), seen


def _mismatches(
    tensors: Mapping[str, StoredTensor],
    rules: Sequence[Rule],
    shapes: Mapping[Target, tuple[int, ...]],
) -> list[str]:
    missing, misshapen, mistyped = [], [], []
    for rule in rules:
        tensor = tensors.get(rule.source)
        if tensor is None:
            missing.append(rule.source)
            continue
        wanted = rule.shape_in_file(shapes[rule.target])
        if tensor.shape != wanted:
            misshapen.append(f"{tensor.name} {tensor.shape} instead of {wanted}")
        # Another byte order is the same numbers, and float32 holds what half of its bits do; more
        # precision would be lost.
        if tensor.dtype.name not in _READ_DTYPES:
            mistyped.append(f"{tensor.name} {tensor.dtype.name}")
    sources = {rule.source for rule in rules}
    unexpected = [tensor.name for source, tensor in tensors.items() if source not in sources]
    problems = []
    for kind, names in (
        ("missing", missing),
        ("unexpected", unexpected),
        ("of another shape", misshapen),
        ("not float32 (convert the file to float32 first)", mistyped),
    ):
        if names:
            problems.append(f"{counted(len(names), 'tensor')} {kind}: {first_of(names)}")
    return problems


def first_of(names: Sequence[str]) -> str:
    """The first few of a file's names, and how many more there are."""
    return some(names, _LISTED, cut)
