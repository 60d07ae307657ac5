"""What a study consists of: its runs, and the groups of runs that share a frozen trunk."""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

from radimagenet_jax import models
from radimagenet_jax.data.tasks import TASKS
from radimagenet_jax.errors import ConfigError, WeightsError
from radimagenet_jax.files import expanded
from radimagenet_jax.reports import study_files
from radimagenet_jax.statistics.pooled import EMBEDDING
from radimagenet_jax.training import config as config_pages
from radimagenet_jax.training import fields
from radimagenet_jax.weights import hub

SCRATCH = "scratch"
# What heads on a table of features have in the columns that are of networks.
_OF_HEADS = "freezeall"
_NO_PREPROCESSING = "none"

# What each field of `config.study` may be, as `training/fields.py` says it for the others.
FIELDS = {
    "tasks": fields.several(fields.one_of(tuple(TASKS))),
    "models": fields.several(fields.one_of(models.names)),
    "inits": fields.several(fields.text(), most=100),
    "features": fields.several(fields.text(), least=0, most=100).added([]),
    "settings": fields.several(
        fields.pair(
            fields.text(1000),
            fields.FIELDS["optimizer.learning_rate"],
            "takes pairs of a structure and a positive learning rate, such as ('freezeall', 1e-3)",
        )
    ),
    "folds": fields.several(fields.whole(0, 1000), least=0),
    "seeds": fields.several(fields.FIELDS["seed"]),
    "note": fields.text().of_feeding(),
    "augment_seed": fields.FIELDS["augment_seed"],
    "preprocessing": fields.several(fields.FIELDS["preprocessing"]),
    "views": fields.several(fields.whole(0, 10_000, "takes numbers from 0, such as 8")),
    "engine": fields.Field(
        lambda value: value in ("shared", "alone"), "must be 'shared' or 'alone'"
    ),
    "memory_gib": fields.positive(1e6).of_feeding(),
    "trunk_batch": fields.whole(1, 2**20).of_feeding(),
    "side_by_side": fields.whole(0, 2**16).of_feeding(),
    "image_size": fields.whole(0, 8192),
    "batch_size": fields.whole(0, 2**20),
}
_STATED = {f"study.{name}": field for name, field in FIELDS.items()}
# What is known of the fields of a study's config, its own and those of its runs.
ALL_FIELDS = {**fields.FIELDS, **_STATED}
# The published comparison of all tasks has 1,152; each has a few files and a row of each table.
_MOST_RUNS = 100_000

_NAME = re.compile(r"\w[\w.+-]*")


@dataclass(frozen=True)
class Run:
    """One training: a row of study.csv.

    Attributes:
      task: A key of `tasks.TASKS`.
      model: A name of `models.names()`, or 'embedding' for a head on a table of features.
      init: The name of the initialisation or of the table, or 'scratch'.
      structure: What learns, see `freezing.specify`.
      learning_rate: Of the optimiser.
      fold: 0 for the only split, else from 1.
      seed: Of the head's values, the order of the examples and dropout.
      preprocessing: 'published', 'native' or a scheme; 'none' of a table.
      views: Augmentations an image has in all; 0: a new one each epoch, as published.
    """

    task: str
    model: str
    init: str
    structure: str
    learning_rate: float
    fold: int
    seed: int
    preprocessing: str
    views: int

    @property
    def id(self) -> str:
        """A name for the run's files, unique in the study."""
        return study_files.run_name(self.columns)

    @property
    def has_table(self) -> bool:
        """Whether a table of features stands in the place of a network."""
        return self.model == EMBEDDING

    @property
    def columns(self) -> dict[str, object]:
        """The columns of study.csv that name the run."""
        named = dict(vars(self))
        return {"dataset": named.pop("task"), **named}


@dataclass(frozen=True)
class Group:
    """Runs that are computed together, because they share the trunk, or one run alone.

    Attributes:
      id: A name for its files, unique in the study.
      runs: Of one task, network, initialisation, structure and preprocessing.
      has_trunk: Whether a part of the network is frozen, and so computed once for all runs; a
        table of features is a trunk that somebody else has computed.
    """

    id: str
    runs: tuple[Run, ...]
    has_trunk: bool


def runs(config: ConfigDict) -> tuple[Run, ...]:
    """All runs of a study, in a fixed order.

    Args:
      config: Of `configs/study_base.py`, checked by `validate`.
    """
    return tuple(
        run
        for task in config.study.tasks
        for run in (*_of_networks(config, task), *_of_tables(config, task))
    )


def _of_networks(config: ConfigDict, task: str) -> Iterator[Run]:
    study = config.study
    return (
        Run(task, model, init, structure, float(rate), fold, seed, preprocessing, views)
        for model, init, preprocessing in itertools.product(
            study.models, initialisations(config), study.preprocessing
        )
        # Random weights have no input of their own.
        if not (init == SCRATCH and preprocessing == "native" and len(study.preprocessing) > 1)
        for structure, rate in study.settings
        for views in (study.views if has_trunk(structure) else (0,))
        for fold in (study.folds or folds(task))
        for seed in study.seeds
    )


def _of_tables(config: ConfigDict, task: str) -> Iterator[Run]:
    """The heads on tables of features, with the learning rates of `freezeall`."""
    study = config.study
    return (
        Run(task, EMBEDDING, name, structure, float(rate), fold, seed, _NO_PREPROCESSING, 0)
        for name in tables(config)
        for structure, rate in study.settings
        if structure == _OF_HEADS
        for fold in (study.folds or folds(task))
        for seed in study.seeds
    )


def has_trunk(structure: str) -> bool:
    """Whether a structure freezes a part of the network, which its runs can share."""
    return structure != "unfreezeall"


def groups(config: ConfigDict) -> tuple[Group, ...]:
    """The study's runs, divided into groups.

    Of each task, heads on tables come first: they take seconds, so that it is known at once if a
    table does not have all images.
    """

    def shares(run: Run) -> bool:
        alone = config.study.engine == "alone"
        return run.has_table or (not alone and has_trunk(run.structure))

    shared: dict[str, list[Run]] = {}
    tasks = list(config.study.tasks)
    for run in sorted(runs(config), key=lambda run: (tasks.index(run.task), not run.has_table)):
        # A scratch run's seed draws its frozen weights too: such runs share nothing.
        of_seed = f"-seed{run.seed}" if run.init == SCRATCH else ""
        name = f"{study_files.trunk_name(run.columns)}{of_seed}" if shares(run) else run.id
        shared.setdefault(name, []).append(run)
    return tuple(
        Group(name, tuple(members), shares(members[0])) for name, members in shared.items()
    )


def shard(all_groups: Sequence[Group], text: str) -> tuple[Group, ...]:
    """The groups of one shard.

    Args:
      all_groups: Of the study.
      text: 'i/n': shard i of n, counted from 0; '' for all.

    Raises:
      ConfigError: If the text is not of this form.
    """
    if not text:
        return tuple(all_groups)
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not int(found[1]) < int(found[2]):
        raise ConfigError(f"--shard={text} is not i/n with i from 0 to n - 1, such as --shard=0/4.")
    return tuple(all_groups[int(found[1]) :: int(found[2])])


def folds(task: str) -> tuple[int, ...]:
    """The published folds of a task; 0 stands for its only split."""
    count = TASKS[task].folds
    return tuple(range(1, count + 1)) if count > 1 else (0,)


def initialisations(config: ConfigDict) -> dict[str, str]:
    """The study's initialisations: name to path, which may hold `{model}` or `{released}`.

    Raises:
      ConfigError: If one is not 'scratch' or 'NAME=PATH', or two have a name.
    """
    found: dict[str, str] = {}
    for text in config.study.inits:
        name, equals, path = text.partition("=")
        if (not equals and name != SCRATCH) or not _NAME.fullmatch(name):
            raise ConfigError(
                f"config.study.inits has {text!r}, but takes 'scratch' or 'NAME=PATH', such as "
                "'radimagenet=weights/RadImageNet-{released}_notop.h5'."
            )
        if name in found:
            raise ConfigError(
                f"config.study.inits has the name {name!r} twice; name one otherwise."
            )
        found[name] = path or SCRATCH
    return found


def tables(config: ConfigDict) -> dict[str, str]:
    """The study's tables of features: name to path, which may hold `{task}`.

    Raises:
      ConfigError: If one is not 'NAME=PATH', or has the name of another or of an initialisation.
    """
    found: dict[str, str] = {}
    taken = {SCRATCH, *initialisations(config)}
    for text in config.study.features:
        name, _, path = text.partition("=")
        if not path or not _NAME.fullmatch(name):
            raise ConfigError(
                f"config.study.features has {text!r}, but takes 'NAME=PATH', such as "
                "'medsiglip=embeddings.npz'."
            )
        if name in taken or name in found:
            raise ConfigError(
                f"config.study.features has the name {name!r}, which another table or an "
                "initialisation has; name one otherwise."
            )
        found[name] = path
    return found


def table_path(config: ConfigDict, name: str, task: str) -> Path:
    """The file of a table of features for a task."""
    return expanded(tables(config)[name].replace("{task}", task))


def init_path(template: str, model: str) -> str:
    """The weight file of an initialisation for a network."""
    released = models.architecture(model).released or model
    return template.replace("{model}", model).replace("{released}", released)


def has_own_data(config: ConfigDict) -> bool:
    """Whether each task brings its data set and sizes, in the place of the page's."""
    tasks = config.study.tasks
    return len(tasks) > 1 or tasks[0] != config.task or not config.dataset.name


def run_config(config: ConfigDict, run: Run) -> ConfigDict:
    """The config that trains a run alone, of the form of `configs/base.py`.

    Args:
      config: The study's.
      run: The run.
    """
    published = TASKS[run.task]
    single = ConfigDict({k: v for k, v in config.to_dict().items() if k != "study"})
    single.task = run.task
    if has_own_data(config):
        single.dataset.name = published.dataset
        single.dataset.positive = published.positive
        single.image_size, single.batch_size = published.image_size, published.batch_size
    single.image_size = config.study.image_size or single.image_size
    single.batch_size = config.study.batch_size or single.batch_size
    single.dataset.fold = run.fold
    if run.has_table:
        # No network computes these features, and no image is augmented any more.
        single.init, single.augment = SCRATCH, "none"
    else:
        single.model = run.model
        single.init = init_path(initialisations(config)[run.init], run.model)
    single.structure = run.structure
    single.optimizer.learning_rate = run.learning_rate
    single.preprocessing = "published" if run.has_table else run.preprocessing
    # A study asks for the published input of weights that want another one knowingly.
    single.allow_preprocessing_mismatch = run.preprocessing != "native"
    single.seed = run.seed
    single.augment_seed = config.study.augment_seed
    options = config.study.model_options.to_dict().get(run.model, {})
    single.model_options = ConfigDict(options)
    return single


def validate(config: ConfigDict) -> None:
    """Checks a study's config before any data is read.

    Raises:
      ConfigError: With what is wrong.
    """
    if "study" not in config:
        raise ConfigError(
            "this config page is not of a study: it has no config.study; take configs/study_*.py."
        )
    study = config.study
    if not isinstance(study, ConfigDict):
        raise ConfigError("config.study is no ConfigDict; begin the page with study_base.")
    options = study.get("model_options")
    options = options.to_dict() if isinstance(options, ConfigDict) else options
    values = {name: value for name, value in study.items() if name != "model_options"}
    problems = list(fields.problems({f"study.{n}": v for n, v in values.items()}, _STATED))
    if not isinstance(options, dict) or not set(options) <= set(models.names()):
        problems.append("config.study.model_options must hold a dict for each network by its name")
    else:
        for model, given in options.items():
            problems += fields.option_problems(model, given, f"study.model_options.{model}")
    if problems:
        raise ConfigError("; ".join(problems) + ".")
    _check_number(config)
    for task, fold in itertools.product(study.tasks, study.folds):
        if fold not in folds(task):
            raise ConfigError(
                f"config.study.folds has {fold}, but {task} has {_listed(folds(task))}."
            )
    if any(study.views) and study.engine == "alone":
        raise ConfigError("config.study.views needs config.study.engine='shared'.")
    if problems := list(of_single_runs(config)):
        raise ConfigError("; ".join(problems) + ".")
    names = [run.id for run in runs(config)]
    if len(set(names)) < len(names):
        raise ConfigError("the study holds a run twice; name each model, fold, seed... once.")
    for run in {
        (run.task, run.model, run.init, run.preprocessing): run for run in runs(config)
    }.values():
        if run.init == SCRATCH and run.preprocessing == "native":
            raise ConfigError(
                "config.study.preprocessing=('native',) is the input of weight files, which the "
                "initialisation 'scratch' has not; add 'published'."
            )
        config_pages.validate(run_config(config, run))
    _check_files(config)


def instead_of(field: fields.Field) -> str:
    """What to do about a field that a study passes over."""
    if field.instead:
        return f"set config.{field.instead}"
    return f"only single runs (radimagenet_jax.main) take another value than {field.in_study!r}"


def of_single_runs(config: ConfigDict) -> Iterator[str]:
    """What a config asks for that only single runs do, as parts of a sentence."""
    values = dict(config_pages.flatten(config))
    for name, field in fields.FIELDS.items():
        only = field.in_study
        if only is not None and values.get(name, only) != only:
            yield f"config.{name} has no effect in this study: {instead_of(field)}"


def _check_number(config: ConfigDict) -> None:
    """Refuses more runs than anybody computes, before they are listed."""
    study = config.study
    kinds = ("models", "inits", "settings", "seeds", "preprocessing", "views")
    count = sum(len(study.folds or folds(task)) for task in study.tasks) * (
        math.prod(len(study[kind]) for kind in kinds)
        + math.prod(len(study[kind]) for kind in ("features", "settings", "seeds"))
    )
    if count > _MOST_RUNS:
        raise ConfigError(
            f"the study has {count:,} runs ({', '.join(f'{len(study[k])} {k}' for k in kinds)}, "
            f"over all tasks and folds), but {_MOST_RUNS:,} at most; divide it."
        )


def _check_files(config: ConfigDict) -> None:
    for (name, template), model in itertools.product(
        initialisations(config).items(), config.study.models
    ):
        path = init_path(template, model)
        if hub.is_address(path):
            if not hub.is_pinned(path):
                raise ConfigError(
                    f"config.study.inits: {path}, the weights {name!r} for {model}, names no "
                    "commit, so that runs could begin from different weights; give "
                    "hf://OWNER/NAME@COMMIT, which `python -m radimagenet_jax.convert "
                    f"--weights={path} --verify` tells."
                )
        elif name != SCRATCH and not expanded(path).exists():
            raise ConfigError(
                f"config.study.inits: {path}, the weights {name!r} for {model}, is not there; "
                "put it there or name another path."
            )
    if tables(config) and not any(structure == _OF_HEADS for structure, _ in config.study.settings):
        raise ConfigError(
            "config.study.features needs a setting ('freezeall', RATE) in config.study.settings: "
            "its heads are trained as those on a frozen network."
        )
    for name, task in itertools.product(tables(config), config.study.tasks):
        file = table_path(config, name, task)
        if not file.is_file():
            raise ConfigError(
                f"config.study.features: {file}, the table {name!r} of features for {task}, is not "
                "there; put it there or name another path."
            )


def check_weights(config: ConfigDict) -> None:
    """Reads every weight file once, so that a wrong one is known before anything is computed.

    Raises:
      ConfigError: If a file cannot be loaded, or is of another network than it is named for.
    """
    from radimagenet_jax.training import network
    from radimagenet_jax.weights import native, reading
    from radimagenet_jax.weights.contract import check_architecture

    for (name, template), model in itertools.product(
        initialisations(config).items(), config.study.models
    ):
        if name == SCRATCH:
            continue
        given = init_path(template, model)
        path = given if hub.is_address(given) else expanded(given)
        try:
            # A converted folder tells its network without its tensors being read.
            if isinstance(path, Path) and native.is_converted(path):
                check_architecture(native.read_contract(path), model)
            else:
                for preprocessing in config.study.preprocessing:
                    said = network.said_input(preprocessing)
                    reading.read(path, architecture=model, unless_told=said)
        except WeightsError as error:
            raise ConfigError(
                f"config.study.inits: {path} cannot be the weights {name!r} for {model}: {error}"
            ) from error


def check_structures(config: ConfigDict) -> None:
    """Looks in every network for the layers that structures name, before anything is computed.

    Raises:
      ConfigError: If a network has not what a structure names.
    """
    from radimagenet_jax.training import network

    # That whole networks have ten layers need not be looked up.
    certain = ("freezeall", "unfreezeall")
    by_name = {
        (run.model, run.structure): run
        for run in runs(config)
        if not run.has_table and run.structure not in certain
    }
    for (model, structure), run in by_name.items():
        single = run_config(config, run)
        if structure == "unfreezetop10" and not single.model_options:
            continue
        single.init, single.preprocessing = SCRATCH, "published"
        try:
            _ = network.from_scratch(single, TASKS[run.task].labels).freeze
        except ConfigError as error:
            raise ConfigError(f"config.study.settings, for {model}: {error}") from error


def _listed(values: Sequence[int]) -> str:
    return "only one split, 0" if list(values) == [0] else ", ".join(map(str, values))
