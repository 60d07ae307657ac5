"""Config values, study configs, config pages, and what is shown of names."""

import contextlib
import functools
import io
import math
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np

from radimagenet_jax import console as speech
from radimagenet_jax.errors import UserError
from radimagenet_jax.studies import plan
from radimagenet_jax.training import config as config_pages
from radimagenet_jax.training import network
from tests.fuzz import harness

CONFIGS = Path(__file__).resolve().parents[3] / "configs"

# What programs stumble over, as a flag holds it.
STRANGE = (
    *("", " ", "nan", "inf", "-inf", "1e309", "-1", "0", "-0.0", "1e-50", "1e30", "1_0", "0x10"),
    *("9" * 30, "9" * 400, "9" * 5000, "2147483648", "4294967296", "1.5", "True", "None", "null"),
    *("()", "(0,)", "(0, 0, 0, 0)", "(1, 1, 1, 1)", "(-1,)", "(1.5, 2)", "('a',)", "(['a'],)"),
    *("(10**9,)", "(1000000,)", "(999, 999)", "[1, 2]", "{}", "{'a': 1}", "[" * 500, "(" * 5000),
    *("(float('nan'),)", "(1e999,)", "(('freezeall', 1e-3),)", "(('freezeall', -1.0),)"),
    *("((1e-3, 'freezeall'),)", "(('freezeall',),)", "('scratch', 'scratch')", "('a=',)"),
    *("layers=(a+)+$", "layers=((.*)*)*x", "layers=.*.*.*.*.*.*.*.*x", "layers=[", "layers=(a|a)*"),
    *(
        "layers=stage1.*",
        "layers=a{1,99999}",
        r"layers=(.*)\1",
        "top=" + "9" * 50,
        "top=3",
        "top=-1",
    ),
    *(
        "\x00",
        "\x1b]0;title\x07",
        "\u202eabc",
        "\ud800",
        "e\u0301",
        "💀",
        "a" * 100_000,
        "~",
        "~nobody/x",
    ),
    *("../../etc/passwd", "5:8", "8:5", "1:99999999999999", "²:³", "scratch", "adamw", "constant"),
    *("1", "2", "3", "32", "64", "75", "224", "8192", "1000000", "1e-3", "0.5", "1.0", "true"),
)
OF_NETWORKS = {
    "stage_sizes": (1, 1, 1, 1),
    "block_sizes": (1, 2, 1, 1),
    "repeats": (1, 1, 1),
    "width": 16,
    "growth": 8,
    "variant": "v1",
    "eps": 1e-3,
}
# Numbers of which a run is made of sense, by field: what the product says of itself is no judge.
SHARES = ("dropout", "ema", "label_smoothing", "optimizer.b1", "optimizer.b2", "optimizer.momentum")
POSITIVE = ("optimizer.learning_rate", "optimizer.eps", "batch_size", "epochs", "log_every")
MODELS = ("resnet50", "densenet121", "inception_v3", "inception_resnet_v2")


# Values that are right for some field of a type, and wrong for others of it.
LIKELY = {
    int: ("-1", "0", "1", "2", "3", "16", "64", "75", "224", "8192", "999999", "1000000000"),
    float: ("-1", "0", "1e-50", "1e-7", "1e-3", "0.5", "0.9", "0.999", "1.0", "2", "1e30", "nan"),
    bool: ("true", "false", "1", "0", "yes"),
    str: ("", "none", "auto", "balanced", "cosine", "native", "torch", "freezeall", "top=3", "x"),
    tuple: ("(1, 1)", "(1, 2, 1)", "(3, 4, 6, 3)", "(0, 1)", "(1,)", "()", "(64, 64, 64, 64)"),
}


@functools.cache
def _fields(page: str) -> dict[str, Any]:
    return dict(config_pages.flatten(config_pages.load(page)))


def _value(rng: np.random.Generator, field: Any) -> str:
    if rng.random() < 0.3:
        return STRANGE[rng.integers(len(STRANGE))]
    if isinstance(field, (tuple, list)) and len(field) and rng.random() < 0.6:
        # Some of the field's own elements, in another order, perhaps twice.
        drawn = [field[rng.integers(len(field))] for _ in range(rng.integers(1, 5))]
        return repr(tuple(drawn))
    likely = LIKELY.get(type(field), STRANGE)
    return likely[rng.integers(len(likely))]


def _overrides(rng: np.random.Generator, page: str) -> list[str]:
    fields = {f"model_options.{name}": default for name, default in OF_NETWORKS.items()}
    fields |= _fields(page)
    chosen = [str(rng.choice(list(fields))) for _ in range(rng.integers(1, 4))]
    out = [f"--config.{name}={_value(rng, fields[name])}" for name in chosen]
    if rng.random() < 0.3:
        out.append(f"--config.model={rng.choice(MODELS)}")
    if rng.random() < 0.1:
        out.append(harness.mutated_text(rng, "--config.optimizer.learning_rate=1e-3"))
    return out


def _make_values(rng: np.random.Generator, folder: Path) -> tuple[str, list[str]]:
    del folder
    stem = rng.choice(("quickstart", "covid", "custom", "base", "radimagenet"))
    page = f"{CONFIGS / stem}.py" + (":smoke" if stem != "base" and rng.random() < 0.7 else "")
    return page, _overrides(rng, page)


def _attempt_values(made: tuple[str, list[str]]) -> Any:
    page, overrides = made
    config = config_pages.load(page, overrides)
    config_pages.validate(config)
    # A whole network takes seconds to be traced, and is the same each time.
    if config.init == "scratch" and config.model_options:
        program = network.from_scratch(config, ("no", "yes"))
        return config, (program.shapes, program.freeze)
    return config, None


def _judge_values(made: Any, result: Any) -> str | None:
    config, _ = result
    return _nonsense(config)


def _nonsense(config: Any) -> str | None:
    values = dict(config_pages.flatten(config))
    for name, value in values.items():
        numbers = value if isinstance(value, (tuple, list)) else (value,)
        for number in numbers:
            if isinstance(number, float) and not math.isfinite(number):
                return f"{name}={value!r} is not finite"
            if isinstance(number, int) and abs(number) > 2**33:
                return f"{name}={value!r} is beyond all use"
        if name.startswith("model_options.") and (value == () or min(numbers, default=0) == 0):
            return f"{name}={value!r} is no network"
        if isinstance(value, str) and not value.isprintable():
            return f"{name}={value!r} cannot be shown"
    for name in SHARES:
        if not 0 <= values[name] < 1:
            return f"{name}={values[name]!r} is no share"
    for name in POSITIVE:
        if not values[name] > 0:
            return f"{name}={values[name]!r} is not positive"
        if not np.float32(values[name]) > 0:
            return f"{name}={values[name]!r} is 0 in float32"
    return None


def _make_study(rng: np.random.Generator, folder: Path) -> tuple[str, list[str]]:
    del folder
    stem = rng.choice(("study_breast", "study_covid", "study_all"))
    page = f"{CONFIGS / stem}.py" + (":smoke" if rng.random() < 0.7 else "")
    own = {name: field for name, field in _fields(page).items() if name.startswith("study.")}
    chosen = [str(rng.choice(list(own))) for _ in range(rng.integers(1, 4))]
    out = [f"--config.{name}={_value(rng, own[name])}" for name in chosen]
    if rng.random() < 0.1:
        out.append(f"--config.study.seeds={tuple(range(int(rng.integers(1, 100_000))))}")
    return page, out


def _attempt_study(made: tuple[str, list[str]]) -> Any:
    page, overrides = made
    config = config_pages.load(page, overrides)
    plan.validate(config)
    return config, plan.groups(config)


def _judge_study(made: Any, result: Any) -> str | None:
    config, groups = result
    runs = [run for group in groups for run in group.runs]
    if not runs:
        return "a study without runs"
    if len({run.id for run in runs}) < len(runs):
        return "a run twice"
    for run in runs:
        if not (isinstance(run.learning_rate, float) and 0 < run.learning_rate < math.inf):
            return f"a learning rate of {run.learning_rate!r}"
        if not (isinstance(run.seed, int) and 0 <= run.seed < 2**32):
            return f"a seed of {run.seed!r}"
    return _nonsense(config)


BODIES = (
    "return base.get_config('covid')",
    "return None",
    "return {}",
    "return 5",
    "raise ValueError('\\x1b[31mred')",
    "raise SystemExit(0)",
    "import sys; sys.exit('gone')",
    "input('name? ')",
    "import sys; return sys.stdin.read()",
    "import sys; [line for line in sys.stdin]",
    "print('x' * 10_000_000); return base.get_config('covid')",
    "return get_config(argument)",
    "raise KeyError('\\x07' * 6_000_000)",
    "config = base.get_config('covid'); config.batchsize = 3; return config",
    "config = base.get_config('covid'); del config.optimizer; return config",
    "config = base.get_config('covid'); config.optimizer = None; return config",
    "config = base.get_config('covid'); config.model_options = 5; return config",
    "config = base.get_config('covid'); config.model = None; return config",
    "config = base.get_config('covid'); config.model_options.width = 0; return config",
    "config = base.get_config('covid'); config.epochs = 10**5000; return config",
    "config = base.get_config('covid'); config.dropout = float('nan'); return config",
    "config = base.get_config('covid'); config['\\x1b[2J'] = 1; return config",
    "from ml_collections import ConfigDict; return ConfigDict()",
    "from ml_collections import ConfigDict; return ConfigDict({'study': 5})",
    "class Deep(dict): pass\n    return Deep(",
    "return 1 / 0",
    "assert False",
    "yield base.get_config()",
    "import nothing_of_this_name",
)


def _make_page(rng: np.random.Generator, folder: Path) -> tuple[str, str]:
    body = BODIES[rng.integers(len(BODIES))]
    text = f"from configs import base\n\n\ndef get_config(argument=None):\n    {body}\n"
    if rng.random() < 0.3:
        text = harness.mutated_text(rng, text)
    content = text.encode("utf-8", "surrogatepass")
    kind = rng.integers(8)
    if kind == 0:
        content = harness.mutated(rng, content)
    elif kind == 1:
        content = text.encode("utf-16", "surrogatepass")
    elif kind == 2:
        content = b"# -*- coding: nothing -*-\n" + content
    elif kind == 3:
        content = content.replace(b"get_config", b"get_confg")
    name = str(rng.choice(("page.py", "pa ge[1].py", "ü*.py", "page.txt", "a:b.py", "\x1b[31m.py")))
    (folder / name).write_bytes(content)
    argument = ("", ":smoke", ":", ":\x1b]0;x\x07", ":a=b,c", ":" + "x" * 9000)[rng.integers(6)]
    return str(folder), f"{folder / name}{argument}"


def _attempt_page(made: tuple[str, str]) -> Any:
    _, page = made
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        config = config_pages.load(page)
        config_pages.validate(config)
    return config, said.getvalue()


def _judge_page(made: Any, result: Any) -> str | None:
    config, said = result
    if said:
        return f"standard output, which is for results, has {said[:100]!r}"
    return _nonsense(config)


def _make_shown(rng: np.random.Generator, folder: Path) -> str:
    del folder
    pieces = (
        *("\x1b]0;title\x07", "\x1b[31mred", "\x1b[2J", "\x07", "\x08", "\r", "\n", "\t", "\x00"),
        *("\x9b31m", "\u202e", "\u2066", "\u200b", "\u2028", "\ud800", "\udcff", "[red]", "[/]"),
        *("[bold", ":skull:", "[link=http://x]", "ü", "e\u0301", "💀", "a" * 3000, "\\[x]", "name"),
        *("x" * 6_000_000, "\x1b" * 50_000, "\n" * 5000),
    )
    weights = np.array([1.0 if len(piece) < 10 else 0.15 for piece in pieces])
    count = int(rng.integers(1, 12))
    chosen = rng.choice(len(pieces), count, p=weights / weights.sum())
    return "".join(pieces[index] for index in chosen)


def _attempt_shown(name: str) -> str:
    with speech.console.capture() as said:
        speech.warn(f"{name} is odd; mend it.")
        speech.fail(str(UserError(f"{name} is wrong; mend it.")))
        speech.console.print(f"{name}: 5 images")
    return said.get()


def _judge_shown(name: str, said: str) -> str | None:
    bad = {letter for letter in said if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl")}
    if bad - {"\n"}:
        return f"the terminal got {bad - {chr(10)}!r}"
    if len(said) > 20_000:
        return f"{len(said):,} characters were shown"
    if name.isprintable() and len(name) < 1000 and said.count(name) != 3:
        return f"{name!r} is shown as {said!r}"
    if not re.search(r"mend it\.", said):
        return "the remedy is cut off"
    return None


def _warm() -> None:
    for page in ("quickstart", "study_breast"):
        config_pages.load(f"{CONFIGS / page}.py")
    _attempt_values((f"{CONFIGS / 'quickstart'}.py:smoke", []))
    _attempt_shown("a")


SURFACES = (
    harness.Surface("config-values", _make_values, _attempt_values, _judge_values, warm=_warm),
    harness.Surface("study-config", _make_study, _attempt_study, _judge_study, warm=_warm),
    harness.Surface(
        "config-pages",
        _make_page,
        _attempt_page,
        _judge_page,
        # Python keeps what it has compiled of a page.
        outputs=frozenset({"__pycache__"}),
        warm=_warm,
    ),
    harness.Surface("shown", _make_shown, _attempt_shown, _judge_shown, warm=_warm),
)
