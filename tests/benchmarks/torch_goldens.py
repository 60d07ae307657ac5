"""Features of PyTorch's networks with weights that anybody can draw again.

    python tests/benchmarks/torch_goldens.py      # needs the extra `bench`

writes tests/weights/torch_goldens.json: for each network the names and shapes of its
state dict without head, and figures of its features of a fixed input. The test suite
draws the same weights, writes them as a '.pt' file, reads it, and compares, so that it
has PyTorch as its reference without installing it.
"""

import json
import zlib
from pathlib import Path

import numpy as np

GOLDENS = Path(__file__).resolve().parents[1] / "weights" / "torch_goldens.json"
SIZES = (96, 111)
NETWORKS = {"resnet50": "resnet50", "densenet121": "densenet121", "inception_v3": "inception_v3"}


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One tensor of a state dict, from its name alone."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.array(7, np.int64)
    if len(shape) == 4:
        values = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    elif name.endswith(("running_var", "weight")):
        values = rng.uniform(0.5, 1.5, shape)
    else:
        values = rng.normal(0, 0.2, shape)
    return values.astype(np.float32)


def picture(size: int) -> np.ndarray:
    """The input, (2, size, size, 3) in [-1, 1]."""
    return np.random.default_rng(size).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)


def figures(spatial: np.ndarray) -> dict[str, object]:
    """What is kept of features (2, h, w, C): enough to notice any difference."""
    return {
        "shape": list(spatial.shape),
        "largest": float(np.abs(spatial).max()),
        "pooled": spatial.mean((1, 2))[:, ::64].astype(float).round(6).tolist(),
        "corner": spatial[0, 0, 0, ::64].astype(float).round(6).tolist(),
    }


def main() -> None:
    import timm
    import torch

    goldens = {}
    for name, timm_name in NETWORKS.items():
        options = {"aux_logits": False} if name == "inception_v3" else {}
        network = timm.create_model(timm_name, pretrained=False, num_classes=0, **options).eval()
        state = network.state_dict()
        shapes = {key: tuple(value.shape) for key, value in state.items()}
        network.load_state_dict(
            {key: torch.from_numpy(draw(key, shape)) for key, shape in shapes.items()}
        )
        features = {}
        for size in SIZES:
            x = torch.from_numpy(picture(size)).permute(0, 3, 1, 2)
            with torch.no_grad():
                spatial = network.forward_features(x).permute(0, 2, 3, 1).numpy()
            features[str(size)] = figures(spatial)
        goldens[name] = {
            "made_with": f"timm {timm.__version__}, torch {torch.__version__}",
            "tensors": {key: list(shape) for key, shape in shapes.items()},
            "features": features,
        }
    GOLDENS.write_text(json.dumps(goldens, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
