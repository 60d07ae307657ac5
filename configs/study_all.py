"""The whole published comparison: eight tasks, four networks, six settings each.

```
python -m radimagenet_jax.study --config=configs/study_all.py --workdir=studies/all \
    --config.study.inits="('radimagenet=weights/radimagenet-{model}','imagenet=weights/imagenet-{model}')"
```

With two initialisations and five folds for the four small tasks it is 1,152 runs. `--dry_run` tells
what they take here, `--shard=i/n` divides them over machines with a shared folder.
`report.html` begins with the answer over all tasks, its test and how much the tasks differ, and has
each task's gain with its interval beside the published one. Each task keeps its own image and batch
size. `--config.study.tasks="('breast','covid')"` takes some of the tasks.
`:smoke` takes two shallow networks on small images.
"""

from ml_collections import ConfigDict

from configs import base, study_base
from radimagenet_jax.data.tasks import TASKS


def get_config(argument: str | None = None) -> ConfigDict:
    arguments = base.parse_argument(argument, smoke=False)
    config = study_base.get_config(*TASKS)
    return study_base.shrink(config) if arguments.smoke else config
