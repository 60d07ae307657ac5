"""What pyproject.toml cannot say: the config pages become a part of the package once installed."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[
        *find_namespace_packages(include=["radimagenet_jax*", "tfds_builders*"]),
        # `configs` alone would be everybody's name among the installed packages.
        "radimagenet_jax.pages.configs",
    ],
    package_dir={"radimagenet_jax.pages.configs": "configs"},
)
