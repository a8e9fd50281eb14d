"""What setup.cfg cannot say: the recipes in configs/ are installed as a part of the package."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["unnas_jax*"]), "unnas_jax.configs"],
    package_dir={"unnas_jax.configs": "configs"},
)
