"""The model card that lies beside converted weights, as the README.md of a Hub's repository."""

import json

from radimagenet_jax import models
from radimagenet_jax.weights.contract import Contract, is_trained
from radimagenet_jax.weights.usage import Usage

# The one text on this, in every card, exported file and page.
NOT_A_DEVICE = "Not a medical device: for research only, not for clinical use."


def text(contract: Contract, usage: Usage) -> str:
    """Returns a model card in Markdown.

    Args:
      contract: What the weights are.
      usage: How the network is used.
    """
    title = models.architecture(contract.architecture).title
    trained = is_trained(contract.origin)
    made_of = f"`{contract.sha256}`"
    rows = {
        "network": f"{title} {contract.variant}".rstrip(),
        "input": f"RGB or grey, 0..255, then `{contract.preprocessing}` in {contract.channel_order}"
        " order (built in)",
        "origin": _plain(contract.origin),
        "its first weights' sha256" if trained else "made from the file with sha256": made_of,
    }
    if usage.image_size is not None:
        rows["image size"] = f"{usage.image_size} x {usage.image_size} pixels, nearest neighbour"
    if contract.labels is not None:
        rows["classes"] = ", ".join(map(_plain, contract.labels))
    if usage.positive is not None:
        rows["positive class"] = _plain(usage.positive)
    if usage.threshold is not None:
        rows["operating point"] = (
            f"positive from a score of {usage.threshold:.6g} on, fixed on validation images"
        )
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    ends = "scores and features" if contract.labels is not None else "features"
    call = "predict" if contract.labels is not None else "features"
    argument = '["slice.dcm"]' if call == "predict" else "images"
    name = json.dumps(contract.architecture)
    return f"""\
---
library_name: radimagenet_jax
license: other
license_name: terms-of-the-weights
tags: [radiology, medical-imaging, jax, flax, {name}]
---

# {title} for radiology: {ends}

{NOT_A_DEVICE}

| | |
|---|---|
{table}

## Use

```python
import radimagenet_jax as rin

net = rin.load_pretrained("path/of/this/folder")
net.{call}({argument})
```

## Terms

{_plain(contract.licence)}

RadImageNet's terms, and those of the data that a network was trained on, may forbid passing weights
on: ask their owners before you publish this folder.
"""


def _plain(value: str) -> str:
    """A text on one line of a table, in which nothing is markup."""
    escaped = "".join(f"\\{each}" if each in "\\`*_[]<>|#" else each for each in value)
    return " ".join(escaped.split())
