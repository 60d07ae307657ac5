"""Which tensor of a PyTorch state dict is which variable of ours.

The names are torchvision's. The released RadImageNet files hold them under
`backbone.` and, since the backbone is a `Sequential` of the network's children, with
the children's numbers in place of their names: `backbone.4.0.conv1.weight` is
`layer1.0.conv1.weight`.
"""

import re
from collections.abc import Mapping

from radimagenet_jax import models
from radimagenet_jax.errors import WeightsError
from radimagenet_jax.weights.assembly import Rule, StoredTensor, Target, listed

# Wrappers that put a network's tensors under a name of theirs.
_WRAPPERS = ("module.", "backbone.")

# Our variants with PyTorch's numerics.
VARIANTS = {"resnet50": "v1.5", "densenet121": "torch", "inception_v3": "torch"}

_INCEPTION_STEM = ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")
_INCEPTION_BLOCKS = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")

# The network's children by their number in a Sequential; '' for one whose own children
# are meant. Pools have numbers too; InceptionV3 was built without its auxiliary head.
_CHILDREN = {
    "resnet50": {
        "0": "conv1",
        "1": "bn1",
        **{str(stage + 3): f"layer{stage}" for stage in range(1, 5)},
    },
    "densenet121": {"0": "", "features": ""},
    "inception_v3": {
        **dict(zip("01245", [f"Conv2d_{unit}" for unit in _INCEPTION_STEM], strict=True)),
        **{str(number + 7): f"Mixed_{block}" for number, block in enumerate(_INCEPTION_BLOCKS)},
    },
}

# What PyTorch calls our leaves; its convolutions are (out, in, height, width).
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_OIHW = (2, 3, 1, 0)

# Kept by PyTorch for a momentum that is None; it has no part in the features.
_COUNTER = ".num_batches_tracked"

_LIKENESS = 0.5


def rules(architecture: str, shapes: Mapping[Target, tuple[int, ...]]) -> list[Rule]:
    """Returns where each tensor goes.

    Args:
      architecture: One of `VARIANTS`.
      shapes: Of the network's variables, by target.

    Returns:
      A rule for each variable, with torchvision's names as sources.
    """
    result = []
    for target in shapes:
        _, rest = target.split("/", 1)
        path, leaf = rest.rsplit("/", 1)
        source = f"{_module(architecture, path, shapes)}.{_LEAVES[leaf]}"
        result.append(Rule(source, target, _OIHW if leaf == "kernel" else None))
    return result


def sources(
    tensors: Mapping[str, StoredTensor], architecture: str
) -> tuple[dict[str, StoredTensor], int]:
    """Gives a state dict's tensors torchvision's names.

    Args:
      tensors: By their names in the file.
      architecture: What the network is.

    Returns:
      The tensors by torchvision's names, without the counters of seen batches, and the
      number of these counters.
    """
    named: dict[str, StoredTensor] = {}
    counters = 0
    prefix = _prefix(tensors)
    for name, tensor in tensors.items():
        if name.endswith(_COUNTER) and not tensor.shape:
            counters += 1
            continue
        source = _translated(name.removeprefix(prefix), architecture)
        # Two spellings of one name must not hide each other: the second is unexpected.
        named[name if source in named else source] = tensor
    return named, counters


def recognise(tensors: Mapping[str, StoredTensor], *, file: str) -> str:
    """Returns the architecture whose names are most like the file's.

    Args:
      tensors: By their names in the file.
      file: Its name, for messages.

    Returns:
      One of `VARIANTS`.

    Raises:
      WeightsError: If the file is like none of them.
    """
    scores = {name: _likeness(tensors, name) for name in VARIANTS}
    best = max(scores, key=lambda name: scores[name])
    if scores[best] < _LIKENESS:
        titles = ", ".join(models.architecture(name).title for name in VARIANTS)
        raise WeightsError(
            f"{file} is a PyTorch file of another network than {titles}: it has {len(tensors)} "
            f"tensors, such as {listed(list(tensors)[:3])}; give the state dict of one of these "
            "networks without its head."
        )
    return best


def has_biases(tensors: Mapping[str, StoredTensor]) -> bool:
    """Tells whether the convolutions have biases: then the weights were Keras' once."""
    prefix = _prefix(tensors)
    return f"{prefix}conv1.bias" in tensors or f"{prefix}0.bias" in tensors


def is_torch(tensors: Mapping[str, StoredTensor]) -> bool:
    """Tells PyTorch's names from others: only it has running variances."""
    return any(name.endswith(".running_var") for name in tensors)


def _likeness(tensors: Mapping[str, StoredTensor], architecture: str) -> float:
    """Returns the share of modules that a file and a network have in common, 0 to 1."""
    table = models.architecture(architecture).keras_layers()
    paths = [layer.path for layer in table if layer.path is not None]
    shapes = dict.fromkeys(f"params/{path}/kernel" for path in paths)
    ours = {_module(architecture, path, shapes) for path in paths}
    theirs = {name.rpartition(".")[0] for name in sources(tensors, architecture)[0]}
    return len(ours & theirs) / max(1, len(ours | theirs))


def _prefix(tensors: Mapping[str, StoredTensor]) -> str:
    """Returns the wrappers' names that stand before every tensor's."""
    prefix = ""
    while True:
        longer = [
            f"{prefix}{wrapper}"
            for wrapper in _WRAPPERS
            if tensors and all(name.startswith(f"{prefix}{wrapper}") for name in tensors)
        ]
        if not longer:
            return prefix
        prefix = longer[0]


def _translated(name: str, architecture: str) -> str:
    child, _, rest = name.partition(".")
    module = _CHILDREN[architecture].get(child)
    if module is None:
        return name
    return f"{module}.{rest}" if module else rest


def _module(architecture: str, path: str, shapes: Mapping[Target, object]) -> str:
    """Returns torchvision's name of the module at our path."""
    block, _, layer = path.partition("/")
    if architecture == "resnet50":
        return _resnet_module(block, layer)
    if architecture == "densenet121":
        return _densenet_module(block, layer)
    return _inception_module(block, layer, shapes)


def _resnet_module(block: str, layer: str) -> str:
    if block == "stem":
        return f"{layer}1"
    stage, number = _numbers(block)
    layer = {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}.get(layer, layer)
    return f"layer{stage}.{number - 1}.{layer}"


def _densenet_module(block: str, layer: str) -> str:
    if block == "final_bn":
        return "norm5"
    layer = layer.replace("bn", "norm")
    if block == "stem":
        return f"{layer}0"
    if block.startswith("transition"):
        return f"{block}.{layer}"
    stage, number = _numbers(block)
    return f"denseblock{stage}.denselayer{number}.{layer}"


def _inception_module(block: str, layer: str, shapes: Mapping[Target, object]) -> str:
    branch, _, name = layer.rpartition("/")
    kind, label = re.split(r"(?<=[a-z])(?=\d)", name, maxsplit=1)  # 'conv', '2a'
    if block == "stem":
        return f"Conv2d_{_INCEPTION_STEM[int(label) - 1]}.{kind}"
    module = f"{block.replace('mixed', 'Mixed_')}.{branch}"
    # torchvision numbers the units of a branch only where there are several.
    several = any(target.startswith(f"params/{block}/{branch}/conv2") for target in shapes)
    return f"{module}_{label}.{kind}" if several else f"{module}.{kind}"


def _numbers(block: str) -> tuple[int, int]:
    """Returns 3 and 2 of 'stage3_block2'."""
    stage, number = (int(digits) for digits in re.findall(r"\d+", block))
    return stage, number
