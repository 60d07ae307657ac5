"""Files of our own working directories: a run's, its checkpoints', a study's."""

import atexit
import contextlib
import csv
import functools
import io
import json
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from radimagenet_jax import models, outcome
from radimagenet_jax.reports import predictions, study_files
from radimagenet_jax.statistics.scores import Predictions
from radimagenet_jax.training import checkpoints, initialise, writers
from radimagenet_jax.training import config as config_pages
from radimagenet_jax.training import state as states
from radimagenet_jax.training.tally import FORM, Tally
from radimagenet_jax.training.workdir import Workdir
from radimagenet_jax.weights import reading
from radimagenet_jax.weights.contract import LICENCES, Contract
from tests.fuzz import harness

OPTIONS = {"stage_sizes": (1, 1, 1, 1), "width": 8}
LABELS = ("no", "yes")
STEPS = (3, 6)
CONTRACT = Contract(
    "resnet50", "v1", "caffe_div255", "BGR", "a test", LICENCES[""], "0" * 64, LABELS
)
FORMS = {"memory": FORM, "contract": str, "data": str}


@functools.cache
def _base(what: str) -> Path:
    """A folder that was made once, for the process that makes inputs."""
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{what}"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    {"run": _make_run, "checkpoints": _make_checkpoints, "study": _make_study}[what](folder)
    return folder


def config() -> ConfigDict:
    """The config of the run that is made."""
    from configs import base

    page = base.get_config()
    page.model_options = ConfigDict(OPTIONS)
    page.image_size = 32
    return page


def _scored(shift: float = 0.0) -> Predictions:
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 2
    second = np.clip(0.3 * labels + rng.uniform(0, 0.7, 24) - shift, 0, 1)
    keys = tuple(f"image{number}" for number in range(24))
    patients = tuple(f"p{number // 2}" for number in range(24))
    return Predictions(LABELS, keys, patients, labels, np.stack([1 - second, second], 1))


@functools.cache
def state(step: int) -> states.TrainState:
    """What that run is after so many steps."""
    network = models.create("resnet50", num_classes=len(LABELS), **OPTIONS)
    variables = jax.device_put(initialise.scratch(network, 32, step, "glorot_uniform"))
    params, stats = variables["params"], variables["batch_stats"]
    return states.TrainState(jnp.int32(step), params, stats, optax.EmptyState())


def _make_run(folder: Path) -> None:
    Workdir(folder, config()).close()
    saved = checkpoints.Checkpoints(folder)
    saved.save(state(3), {"contract": CONTRACT.to_json()}, 3)
    saved.close()
    log = writers.MetricWriter(folder, 0)
    for step in range(1, 7):
        log.write(step, "train", loss=1 / step)
    log.close()
    predictions.write(folder / "predictions_test.csv", _scored())
    split = {"n": 24, "accuracy": 0.5, "loss": 0.7, "auroc": 0.6, "auroc_ci95": [0.5, 0.7]}
    train = {"epochs": 3, "seconds": 12.5, "images_per_second": 30.0}
    result = {"best_step": 3, "val": split, "test": split, "train": train}
    (folder / "result.json").write_text(json.dumps(result))


def _make_study(folder: Path) -> None:
    for name in ("predictions", "groups", "histories", "runs"):
        (folder / name).mkdir()
    rows = []
    for init in "ab":
        for fold in (1, 2):
            names = {"dataset": "breast", "model": "resnet50", "init": init}
            setting = {"structure": "freezeall", "learning_rate": 0.001, "fold": fold, "seed": 0}
            figures = {"auroc_val": 0.7, "auroc_test": 0.6, "best_epoch": 2, "seconds": 3.5}
            rest = {"preprocessing": "published", "views": 0, "status": "ok", "reason": ""}
            row: dict[str, Any] = {**names, **setting, **figures, **rest}
            row["run"] = study_files.run_name(row)
            rows.append(row)
            path = study_files.predictions_path(folder, row["run"], "test")
            predictions.write(path, _scored(0.1 * (init == "b")))
            epochs = [{"epoch": k, "train_loss": 1 / k, "val_loss": 2 / k} for k in (1, 2)]
            history = study_files.history_path(folder, row["run"])
            history.write_text(json.dumps({"epochs": epochs}))
            record = {"group": row["run"], "runs": [row["run"]], "shared_trunk": True}
            record |= {"seconds": 2.5, "warnings": ["a leak"], "status": "done", "failed": {}}
            (folder / "groups" / f"{row['run']}.json").write_text(json.dumps(record))
            (folder / "runs" / f"{row['run']}.json").write_text(json.dumps(row))
    with open(folder / study_files.TABLE, "w", newline="") as file:
        writer = csv.DictWriter(file, study_files.COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    config = {"dataset": {"positive": ""}, "epochs": 3, "image_size": 32, "batch_size": 16}
    config |= {"study": {"tasks": ["breast"], "note": "a note"}, "optimizer": {"name": "adam"}}
    (folder / "study.json").write_text(json.dumps(config, indent=1))


def _crafted(rng: np.random.Generator, text: str) -> str:
    """A JSON text with another value, or none, somewhere."""
    try:
        record = json.loads(text)
    except ValueError:
        return harness.mutated_text(rng, text)
    strange = (
        *(None, True, -1, 10**400, 10**18, 0.5, "", "x" * 10_000, "=1+1", [], {}, [[]], {"": None}),
        *("\x1b[31m", "../../x", ["a", 1], {"a.b": 1}, "\ud800", float("nan"), float("inf")),
    )
    node = record
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = keys[int(rng.integers(len(keys)))]
        if isinstance(node[key], (dict, list)) and rng.random() < 0.7:
            node = node[key]
            continue
        if rng.random() < 0.2:
            del node[key]
        elif isinstance(key, str) and rng.random() < 0.1:
            node[str(strange[int(rng.integers(len(strange)))])[:5000]] = node.pop(key)
        else:
            node[key] = strange[int(rng.integers(len(strange)))]
        break
    return json.dumps(record)


def _make(what: str, rng: np.random.Generator, folder: Path) -> tuple[str, str]:
    target = folder / what
    shutil.copytree(_base(what), target)
    every = sorted(
        path.relative_to(target).as_posix()
        for path in target.rglob("*")
        if path.suffix in (".json", ".jsonl", ".csv") and "checkpoints" not in path.parts
    )
    chosen = target / every[int(rng.integers(len(every)))]
    kind = rng.integers(5)
    content = chosen.read_bytes()
    if kind <= 1:
        content = harness.mutated(rng, content)
    elif kind == 2:
        content = harness.mutated_text(rng, content.decode()).encode(errors="surrogatepass")
    elif kind == 3:
        content = _crafted(rng, content.decode()).encode(errors="surrogatepass")
    else:
        content = (
            b"", b"[" * 100_000, b"\xff\xfe" + content, b"null", b"[1]", b'"text"',
            b"{}", content * 2, bytes(len(content)), b'{"a":' * 5000,
        )[int(rng.integers(10))]  # fmt: skip
    chosen.write_bytes(content)
    return str(target), chosen.relative_to(target).as_posix()


def _attempt_run(made: tuple[str, str]) -> Any:
    folder, name = Path(made[0]), made[1]
    if name == "predictions_test.csv":
        return predictions.read(folder / name)
    if name == "metrics.jsonl":
        return writers.read_metrics(folder)
    with contextlib.closing(Workdir(folder, config())) as run:
        assert run.result is not None
        outcome.show(run.result, folder)
    if name == "config.json":
        weights = reading.read(folder)
        weights.network(dtype=weights.config["dtype"] if weights.config else None)
    return None


def _attempt_study(made: tuple[str, str]) -> None:
    from radimagenet_jax.studies import session
    from radimagenet_jax.studies.ledger import Ledger

    folder, name = Path(made[0]), made[1]
    if name.startswith(("runs/", "groups/")):
        # A ledger of this folder, whatever config it was made with.
        ledger = Ledger.__new__(Ledger)
        ledger.path = folder
        (folder / "locks").mkdir(exist_ok=True)
        one: Any = SimpleNamespace(id=Path(name).stem)
        ledger.is_done(one)
        ledger.write_table([one])
    with contextlib.redirect_stdout(io.StringIO()):
        session.report(str(folder))


def _state(step: int) -> states.TrainState:
    rng = np.random.default_rng(step)
    tree = {"base": {"kernel": jnp.asarray(rng.normal(size=(96, 96)), jnp.float32)}}
    stats = {"bn": {"mean": jnp.asarray(rng.normal(size=64), jnp.float32)}}
    state = states.TrainState(jnp.int32(step), tree, stats, optax.adam(1e-3).init(tree))
    return jax.device_put(state, jax.devices()[0])


def _make_checkpoints(folder: Path) -> None:
    saved = checkpoints.Checkpoints(folder)
    for step in STEPS:
        meta = {"memory": Tally(best_loss=0.5, best_step=3).to_json(), "contract": "{}"}
        saved.save(_state(step), {**meta, "data": "f" * 64}, 3)
    saved.close()


def _damage(rng: np.random.Generator, folder: Path) -> str:
    """Damages a file of the newest of two checkpoints, rarely of both."""
    target = folder / "run"
    shutil.copytree(_base("checkpoints"), target)
    for step in STEPS if rng.random() < 0.1 else STEPS[1:]:
        kept = target / "checkpoints" / str(step)
        files = sorted(path for path in kept.rglob("*") if path.is_file())
        chosen = files[int(rng.integers(len(files)))]
        content = chosen.read_bytes()
        kind = rng.integers(5)
        if kind == 0 and content:
            flipped = bytearray(content)
            flipped[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
            chosen.write_bytes(flipped)
        elif kind == 1:
            chosen.write_bytes(content[: len(content) // 2])
        elif kind == 2:
            chosen.write_bytes(b"")
        elif kind == 3:
            chosen.unlink()
        else:
            chosen.write_bytes(harness.mutated(rng, content))
    return str(target)


def _attempt_checkpoints(made: str) -> tuple[states.TrainState, dict[str, Any]]:
    saved = checkpoints.Checkpoints(Path(made))
    try:
        state, meta = saved.restore(_state(0), FORMS)
        Tally.from_json(meta["memory"])
        return state, meta
    finally:
        saved.close()


def _judge_checkpoints(made: str, result: tuple[states.TrainState, dict[str, Any]]) -> str | None:
    state = result[0]
    for step in STEPS:
        same = jax.tree.map(lambda a, b: np.array_equal(a, b), state, _state(step))
        if jax.tree.all(same):
            return None
    return "the state is neither of the two that were saved"


def _judge_predictions(made: tuple[str, str], result: Any) -> str | None:
    if isinstance(result, Predictions) and not np.isfinite(result.scores).all():
        return "scores that are no numbers"
    return None


def _warm() -> None:
    config_pages.to_json(config())
    with tempfile.TemporaryDirectory() as folder:
        for name, attempt in (("run", _attempt_run), ("study", _attempt_study)):
            shutil.copytree(_base(name), Path(folder) / name)
            file = {"run": "config.json", "study": "study.json"}[name]
            attempt((str(Path(folder) / name), file))
        copy = Path(folder) / "saved"
        shutil.copytree(_base("checkpoints"), copy)
        _attempt_checkpoints(str(copy))


SURFACES = (
    harness.Surface(
        "own-run",
        functools.partial(_make, "run"),
        _attempt_run,
        _judge_predictions,
        outputs=frozenset({"run/.lock"}),
        warm=_warm,
    ),
    harness.Surface(
        "own-study",
        functools.partial(_make, "study"),
        _attempt_study,
        outputs=frozenset(
            f"study/{name}"
            for name in (
                *("report.html", "comparisons.csv", "overall.csv", "settings.csv", "locks"),
                *("summaries.csv", "tasks.csv", "failed.csv", "groups.csv"),
                study_files.TABLE,
            )
        ),
        warm=_warm,
    ),
    harness.Surface(
        "own-checkpoints",
        _damage,
        _attempt_checkpoints,
        _judge_checkpoints,
        outputs=frozenset({"run/checkpoints"}),
        warm=_warm,
    ),
)
