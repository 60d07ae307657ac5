"""What a study's page says in sentences: what it is, what it found, how, and what to beware of."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from radimagenet_jax.data.tasks import TASKS
from radimagenet_jax.reports import provenance
from radimagenet_jax.reports.pages import p_value
from radimagenet_jax.reports.study_findings import Across, Findings
from radimagenet_jax.statistics import comparisons, delong, intervals, mixed, tasks
from radimagenet_jax.statistics.comparisons import Overall
from radimagenet_jax.statistics.pooled import EMBEDDING
from radimagenet_jax.statistics.settings import Setting
from radimagenet_jax.wording import counted, listed

_OF_FOLD = re.compile(r"fold (\d+): (.*)", re.DOTALL)
_ALPHA = 0.05
_CHANCE = 0.5
_OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD", "lion": "Lion"}


def beside_title(study: Findings) -> str:
    """What stands beside the page's title: the networks' size, that of the images, a smoke run."""
    networks = study.of_groups("network")
    if not networks:
        return ""
    parts = [f"{listed(sorted({one['image_size'] for one in networks}))} pixels"]
    if any(one["is_shallow"] for one in networks):
        parts.insert(0, "shallow networks")
    elif any(one["parameters"] < one["published_parameters"] for one in networks):
        parts.insert(0, "narrow networks")
    if _is_smoke(study):
        parts.append("smoke run")
    return ", ".join(parts)


def lead(study: Findings) -> str:
    """The first sentences: which networks, how they were trained, what is less than published."""
    named = _networks(study)
    if not named:
        return ""
    epochs = _epochs(set(study.of_groups("epochs")))
    said = "; ".join(named)
    said = f"{said[0].upper()}{said[1:]}; trained for {epochs}."
    less = provenance.less_than_published(_lacking(study), _is_smoke(study))
    return f"{said} {less}".rstrip()


def _networks(study: Findings) -> list[str]:
    """The study's networks in words, each once with all sizes of its images."""
    sizes: dict[str, list[int]] = {}
    for one in study.of_groups("network"):
        words = provenance.in_words(one).removesuffix(f", {one['image_size']} pixels")
        sizes.setdefault(words, []).append(one["image_size"])
    return [f"{words}, {listed(sorted(set(own)))} pixels" for words, own in sizes.items()]


def _lacking(study: Findings) -> list[str]:
    found: dict[str, None] = {}
    for group in study.groups:
        if "network" in group and "epochs" in group:
            row = study.first_of(group)
            task = row["dataset"] if row else ""
            found |= dict.fromkeys(provenance.reservations(group["network"], group["epochs"], task))
    return list(found)


def _is_smoke(study: Findings) -> bool:
    return any(made["smoke"] for made in study.of_groups("made_by"))


def question(one: Overall) -> str:
    """What a comparison asks."""
    what = "" if one.factor == "init" else f"{one.factor} "
    return f"Which gives the higher AUROC, {what}{one.first} or {one.second}{within(one)}?"


def within(one: Overall) -> str:
    """What a comparison's settings have in common that is not as published, in brackets."""
    names = [name for name in comparisons.FACTORS if name != one.factor]
    parts = dict(zip(names, one.within.split(" · "), strict=True))
    said = [parts["init"]] if "init" in parts else []
    if parts.get("preprocessing", "published") != "published":
        said.append(f"preprocessing {parts['preprocessing']}")
    if parts.get("views", "0") != "0":
        said.append(counted(int(parts["views"]), "view"))
    return f" ({', '.join(said)})" if said else ""


def answer(one: Overall, event: str) -> str:
    """What a comparison over a task's settings found, in a sentence."""
    effect = one.effect
    return f"Over {effect.settings} settings, the AUROC of {event} was {_told(one, effect)}."


def answer_of_tasks(one: Across) -> str:
    """What a comparison over tasks found, in a sentence with its test."""
    told = _told(one.of, one.effect)
    return f"Over {one.effect.tasks} tasks, AUROC was {told}. Test: {tasks.ESTIMATOR}."


def _told(of: Overall, effect: Any) -> str:
    """A difference from the side where it is positive, with its interval and test in words."""
    ends = [effect.value, effect.low, effect.high]
    first, second = of.first, of.second
    if effect.value < 0:
        first, second, ends = second, first, [-effect.value, -effect.high, -effect.low]
    joint = "from" if of.factor == "init" else f"with {of.factor}"
    value, low, high = (f"{end:.3f}" for end in ends)
    sign = "" if effect.p_value < 0.001 else "= "
    verdict = (
        "more than chance gives"
        if effect.p_value < _ALPHA
        else "within what chance gives, so that neither is shown to be better"
    )
    return (
        f"{value} higher {joint} {first} than {joint} {second} (95 % interval {low} to {high}, p "
        f"{sign}{p_value(effect.p_value)}), {verdict}"
    )


def warnings(study: Findings) -> list[str]:
    """What a reader must know, each sentence once."""
    note = study.config.get("study", {}).get("note", "")
    said = [note] if note else []
    said += _of_names(study.origins)
    said += _of_chance(study.settings)
    if any(row["init"] == "scratch" for row in study.rows):
        said.append("the initialisation 'scratch' is random weights, not ImageNet's.")
    said += _once(str(note) for notes in study.of_groups("warnings") for note in notes)
    for group in study.groups:
        row = study.first_of(group)
        name = row["init"] if row else "weights"
        said += [f"{name}: {remark}" for remark in group.get("weights_remarks", ())]
    views = sorted({row["views"] for row in study.rows if row["views"] not in ("", "0")})
    if views:
        said.append(
            f"runs with views={', '.join(views)} drew each image's augmentations from so many, "
            "not anew in each epoch as published."
        )
    return list(dict.fromkeys(said))


def _once(notes: Iterable[str]) -> list[str]:
    """Notes on folds, such as 'fold 1: ...', each once with all folds that have it."""
    folds: dict[str, list[str]] = {}
    for note in dict.fromkeys(notes):
        fold, text = found.groups() if (found := _OF_FOLD.fullmatch(note)) else ("", note)
        folds.setdefault(text.replace(f"fold {fold} of", "that fold of"), []).append(fold)
    return [
        f"fold{'s' if len(own) > 1 else ''} {listed(own)}: {text}" if own[0] else text
        for text, own in folds.items()
    ]


def _of_names(known: Mapping[str, str]) -> Iterator[str]:
    """Names of initialisations that say more than their weights' contracts."""
    for name, origin in known.items():
        lower = name.lower()
        claimed = "RadImageNet" if "radimagenet" in lower else "ImageNet" * ("imagenet" in lower)
        if claimed and origin != claimed:
            yield (
                f"the initialisation {name!r} is so named by whoever made the study; its weights "
                f"say of themselves: {origin}. Nothing here shows that they are {claimed}'s."
            )


def _of_chance(described: Sequence[Setting]) -> Iterator[str]:
    """Initialisations with settings that are no better than guessing."""
    groups: dict[tuple[str, str], list[Setting]] = {}
    for one in described:
        groups.setdefault((one.name["dataset"], one.name["init"]), []).append(one)
    for (dataset, init), own in groups.items():
        count = sum(
            one.low is not None and one.high is not None and one.low <= _CHANCE <= one.high
            for one in own
        )
        if count:
            verb = "is" if count == 1 else "are"
            yield (
                f"{dataset}, {init}: {count} of {len(own)} settings {verb} not told from chance "
                "(the 95 % interval holds an AUROC of 0.5)."
            )


def published(one: Overall, study: Findings) -> Mapping[str, Any] | None:
    """The published gain beside a measured one.

    Args:
      one: Of initialisations on a task.
      study: Which it is of; it tells whether the task's own images were there.

    Returns:
      'gain' in per cent, 'measured' in per cent of the second's AUROC, and 'is_same': whether
      both compare RadImageNet's weights with ImageNet's; None where nothing is published.
    """
    task, known = TASKS.get(one.dataset), study.origins
    met = {images["name"] for images in study.of_groups("images")}
    if one.factor != "init" or task is None or task.dataset not in met:
        return None
    return {
        "gain": task.published_gain,
        "measured": 100 * one.effect.value / one.aurocs[1],
        "is_same": (known.get(one.first), known.get(one.second)) == ("RadImageNet", "ImageNet"),
        "compares": f"{known.get(one.first, one.first)} with {known.get(one.second, one.second)}",
    }


def methods(study: Findings) -> str:
    """A paragraph for a paper."""
    config, rows = study.config, study.rows

    def each(column: str, *, tables: bool | None = None) -> str:
        chosen = (row for row in rows if tables in (None, row["model"] == EMBEDDING))
        return ", ".join(dict.fromkeys(row[column] for row in chosen))

    def kept(name: str) -> set[int]:
        return set(study.of_groups(name)) or {config[name]}

    folds = sorted({int(row["fold"]) for row in rows})
    further = [*_further(config)]
    named = "; ".join(_networks(study)) or each("model", tables=False)
    text = (
        f"Networks ({named}) were trained on {_data(study)} from the "
        f"initialisations {each('init', tables=False)}, with the structures {each('structure')} "
        f"and learning rates {each('learning_rate')}, in {counted(len(folds), 'fold')}, for "
        f"{_epochs(kept('epochs'))} at {listed(sorted(kept('image_size')))} pixels with a batch "
        f"size of {listed(sorted(kept('batch_size')))} and {_optimizer(config)}"
        f"{', with ' + listed(further) if further else ''}. The epoch with the lowest validation "
        "loss was kept. A setting's "
        "AUROC is the mean of its folds on their test images; the table gives mean and sample "
        "standard deviation over the settings."
    )
    if config.get("loss") == "keras2":
        text += (
            " The loss is the one that Keras 2 computed for the published scripts, which asked for "
            "a binary cross-entropy after a softmax: the mean over both classes of the sigmoid "
            "cross-entropy of the logits. Another loss would not repeat the published training."
        )
    if tables := each("init", tables=True):
        text += (
            f" For {tables}, features of unaugmented images that another model had computed, a "
            "head alone was trained in the same way on the same folds; it is compared with the "
            "head of each frozen network at the same learning rate."
        )
    if study.comparisons:
        text += (
            " Initialisations were compared on the pooled out-of-fold test predictions of each "
            f"setting: {comparisons.TEST} over all comparisons of a task; intervals are 95 % "
            "score intervals of the difference. The effect size d is the difference of sqrt(2) "
            "times the probit of the AUROC, with a delta-method interval."
        )
    if study.totals:
        text += f" Over the settings of a task, differences were summarised by a {mixed.ESTIMATOR}."
    if study.totals and len({row["dataset"] for row in rows}) > 1:
        text += f" Over tasks, they were joined by a {tasks.ESTIMATOR}."
    return text + (
        f" Intervals of a setting's pooled AUROC: {delong.METHOD}{delong.CLUSTERED} where patients "
        "are known, weighed with the variance of normal scores; there are none with fewer than "
        f"{intervals.FEWEST} patients of a class. Sensitivities at fixed specificity have score "
        "intervals over patients that count the threshold as unsure. Calibration is "
        "given by the expected calibration error of ten equal bins and by the Brier score."
    )


def _epochs(values: set[int]) -> str:
    return "1 epoch" if values == {1} else f"{listed(sorted(values))} epochs"


def _data(study: Findings) -> str:
    """The tasks, each with the name of the data set if that is not the task's own."""
    own: dict[str, list[str]] = {row["dataset"]: [] for row in study.rows}
    for group in study.groups:
        row = study.first_of(group)
        if row is not None and row["dataset"] in TASKS and "images" in group:
            name = group["images"]["name"]
            if name != TASKS[row["dataset"]].dataset and name not in own[row["dataset"]]:
                own[row["dataset"]].append(name)
    return ", ".join(
        f"{listed(names)} (in the place of {task}’s images)" if names else task
        for task, names in own.items()
    )


def _further(config: Mapping[str, Any]) -> Iterator[str]:
    """What else the networks learnt by, of what a study's config says."""
    optimizer = config.get("optimizer", {})
    if clip := optimizer.get("clip_norm"):
        yield f"gradients clipped to a global norm of {clip:g}"
    if config.get("loss") == "softmax":
        yield "softmax cross-entropy"
    if smoothing := config.get("label_smoothing"):
        yield f"label smoothing of {smoothing:g}"
    if config.get("class_weights") == "balanced":
        yield "classes of equal weight in the loss"
    if (dropout := config.get("dropout")) is not None:
        yield f"dropout of {dropout:g} before the head" if dropout else "no dropout"
    if config.get("augment") == "none":
        yield "no augmentation"


def _optimizer(config: Mapping[str, Any]) -> str:
    """The optimiser in words; Adam, as published, where the config names none."""
    chosen = config.get("optimizer", {})
    name = chosen.get("name", "adam")
    if name == "sgd" and chosen.get("momentum"):
        return f"SGD with momentum {chosen['momentum']:g}"
    decay = chosen.get("weight_decay") if name in ("adamw", "lion") else None
    said = _OPTIMIZERS.get(name, name)
    return f"{said} with a weight decay of {decay:g}" if decay else said
