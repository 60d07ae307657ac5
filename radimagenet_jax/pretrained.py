"""Networks by name or from a file: `load_pretrained`, `create_model`, `list_models`, `freeze`.

import radimagenet_jax as rin

net = rin.load_pretrained("RadImageNet-ResNet50_notop.h5")
features = net.features(images)["pooled"]    # images: uint8 (N, H, W, 1 or 3)
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from flax import traverse_util

from radimagenet_jax import models
from radimagenet_jax.errors import ConfigError
from radimagenet_jax.files import expanded
from radimagenet_jax.models.network import HEAD
from radimagenet_jax.models.preprocess import PUBLISHED, SCHEMES, Input
from radimagenet_jax.network import Network
from radimagenet_jax.training import freezing, initialise
from radimagenet_jax.weights import reading
from radimagenet_jax.weights.loaded import Report, Weights
from radimagenet_jax.weights.usage import Usage


def list_models() -> tuple[str, ...]:
    """Names of the networks that there are.

    >>> import radimagenet_jax as rin
    >>> rin.list_models()
    ('densenet121', 'inception_resnet_v2', 'inception_v3', 'resnet50')
    """
    return models.names()


def load_pretrained(
    path: str | Path,
    *,
    architecture: str | None = None,
    preprocessing: str | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
) -> Network:
    """Loads a weight file, whole and strictly, and the network that it belongs to.

    Args:
      path: A released RadImageNet file, any other form that `weights.reading` knows, the working
        directory of a run of ours, which gives its best network with its head, or an address on the
        Hugging Face Hub, 'hf://OWNER/NAME[@REVISION][/FILE]' (extra 'hub'). Without a revision the
        present commit is taken, and the report and the contract's origin tell it.
      architecture: What the network must be, e.g. 'resnet50' or 'resnet50:v1'; None
        recognises it by the file's layers.
      preprocessing: The input that the weights expect: 'caffe_div255', 'caffe', 'torch' or
        'tf'. None takes the file's contract or the signs of `weights.origins`; it has to be said
        for a file that has neither.
      num_classes: Of a new head with random weights, in place of the file's own if it has one.
      class_names: Names for the classes of that head.
      seed: Of the random weights.

    Returns:
      The network, with all that is known of its use.

    Raises:
      WeightsError: In one sentence, if the file is missing, damaged, of another network,
        contradicts an argument, or does not tell its input. Nothing is partly loaded.
      ConfigError: If the names are not as many as the classes.
    """
    names = _names(num_classes, class_names)
    weights = reading.read(path, architecture=architecture, preprocessing=preprocessing)
    usage = weights.usage
    if weights.config is not None:
        usage = _of_run(expanded(path), weights)
    net = Network(
        # A run's network scores as it did there.
        weights.network(dtype=usage.dtype),
        weights.variables,
        weights.contract,
        weights.report,
        weights.num_classes,
        usage,
    )
    classes = len(names) if names else num_classes
    return net if classes is None else _with_new_head(net, classes, names, seed)


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    image_size: int | None = None,
    preprocessing: str = PUBLISHED,
    seed: int = 0,
    **fields: Any,
) -> Network:
    """Makes a network with random weights, as Keras initialises them.

    Args:
      name: One of `list_models()`.
      num_classes: Of the head; None for no head.
      class_names: Names for the classes, which give their number too.
      image_size: Side of the images that it is to be trained with, in pixels.
      preprocessing: The input: 'caffe_div255', 'caffe', 'torch' or 'tf'.
      seed: Of the weights.
      **fields: Of the network's class, such as `variant` or `dropout`.

    Raises:
      ConfigError: If there is no such network, input or field, or the names are not as many as the
        classes.

    >>> import radimagenet_jax as rin
    >>> net = rin.create_model("resnet50", num_classes=2)
    >>> net.num_classes, net.variables["params"]["head"]["kernel"].shape
    (2, (2048, 2))
    """
    names = _names(num_classes, class_names)
    classes = len(names) if names else num_classes
    if name not in models.names():
        raise ConfigError(f"there is no network {name!r}; there are {', '.join(models.names())}.")
    if preprocessing not in SCHEMES:
        raise ConfigError(
            f"there is no preprocessing {preprocessing!r}; there are {', '.join(SCHEMES)}."
        )
    entry = models.architecture(name)
    try:
        model = entry.build(num_classes=classes, **{"variant": entry.variants[0], **fields})
        variables = initialise.scratch(model, entry.min_image_size, seed, model.head_init)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{entry.title} cannot be made so: {error}") from error
    contract = initialise.contract(
        name, model.variant, Input(preprocessing), variables, seed, names
    )
    leaves = jax.tree.leaves(variables)
    report = Report(
        file=f"the new {entry.title}",
        form=contract.origin,
        title=f"{entry.title} {model.variant}".rstrip(),
        tensors=len(leaves),
        parameters=sum(leaf.size for leaf in leaves),
        notes=(),
        findings=(),
    )
    return Network(model, variables, contract, report, classes, Usage(image_size=image_size))


def freeze(variables: Mapping[str, Any] | Network, structure: str) -> freezing.Freeze:
    """Says what learns in a network, for a training loop of one's own.

    Args:
      variables: {'params', 'batch_stats'} of a network of this package, or the network.
      structure: 'freezeall', 'unfreezeall', 'unfreezetop10', 'top=N' (the last N layers in Keras'
        order) or 'layers=REGEX[,REGEX...]'. The head always learns.

    Returns:
      What learns: `freeze(...).optimizer(optax.adam(1e-4))` leaves the rest as it is, and
      `model.clone(frozen_stats=freeze(...).frozen_stats)` its BatchNorms too.

    Raises:
      ConfigError: If the structure is not one of these, or the variables are of no known network.

    >>> import radimagenet_jax as rin
    >>> net = rin.create_model("resnet50", num_classes=2)
    >>> sorted(rin.freeze(net.variables, "freezeall").trainable)
    ['head/bias', 'head/kernel']
    """
    if isinstance(variables, Network):
        entry = models.architecture(variables.contract.architecture)
        layers = entry.layers(variables.model, entry.min_image_size)
        return freezing.specify(structure, variables.variables, layers)
    found = (dict(variables.get(part, {})) for part in ("params", "batch_stats"))
    flat = {name for part in found for name in traverse_util.flatten_dict(part, sep="/")}
    own = {name.rpartition("/")[0] for name in flat} - {HEAD}
    for name in models.names() if own else ():
        if layers := models.architecture(name).keras_layers_of(own):
            return freezing.specify(structure, variables, layers)
    raise ConfigError(
        "these variables are of no network of this package; give {'params', 'batch_stats'} as "
        "load_pretrained or create_model return them."
    )


def _of_run(folder: Path, weights: Weights) -> Usage:
    """How a run's network is used, with what its data and its validation images say."""
    # Only who gives a run pays for the imports.
    from radimagenet_jax.data import registry
    from radimagenet_jax.prediction import evaluation

    usage, names = weights.usage, weights.contract.labels or ()
    dataset = (weights.config or {}).get("dataset", {})
    name = registry.with_fold(dataset.get("name", ""), dataset.get("fold", 0))
    shown = registry.reading(name, dataset.get("data_dir", registry.DEFAULT_DATA_DIR))
    return replace(
        usage,
        threshold=evaluation.fixed_threshold(folder, names, names.index(usage.positive)),
        windows=tuple((window.center, window.width) for window in shown.windows),
        unwrap=shown.unwrap,
    )


def _names(count: int | None, names: Sequence[str] | None) -> tuple[str, ...] | None:
    if isinstance(names, str):
        raise ConfigError(f"class_names is the text {names!r}; give a list of names.")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise ConfigError(f"num_classes is {count!r}; give a whole number of at least 1.")
    if names is not None and count not in (None, len(names)):
        raise ConfigError(f"{len(names)} class_names are given for num_classes={count}.")
    return None if names is None else tuple(names)


def _with_new_head(net: Network, classes: int, names: tuple[str, ...] | None, seed: int) -> Network:
    model = net.model.clone(num_classes=classes)
    size = models.architecture(net.contract.architecture).min_image_size
    fresh = initialise.scratch(model, size, seed, model.head_init)
    params = {**net.variables["params"], HEAD: fresh["params"][HEAD]}
    return net.replace(
        model=model,
        variables={**net.variables, "params": params},
        contract=replace(net.contract, labels=names),
        num_classes=classes,
        # What was fixed for the old head says nothing of the new one.
        usage=Usage(image_size=net.usage.image_size),
    )
