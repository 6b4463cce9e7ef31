"""Packaging of BN Lens. Everything is here; pyproject.toml holds the tools' settings only."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="tensorboard-plugin-bnlens",
    version="0.1.0",
    description="BN Lens for TensorBoard: why a network is fine in training mode and broken at inference",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["tb_bnlens/LICENSE"],
    packages=find_packages(include=["tb_bnlens", "tb_bnlens.*"]),
    package_data={"tb_bnlens": ["static/*", "py.typed"]},
    python_requires=">=3.10",
    # TensorFlow 2.16 and 2.17 hold TensorBoard to their own number, so a later one here would keep them out.
    install_requires=["tensorboard>=2.16", "numpy>=1.26", "werkzeug>=2.2"],
    extras_require={
        "tensorflow": ["tensorflow>=2.16"],
        # Each minor version of these two has its own idea of what is well formed.
        "dev": ["tensorflow>=2.16", "pytest>=8", "hypothesis", "playwright", "ruff>=0.17,<0.18", "mypy>=2.4,<2.5"],
    },
    entry_points={"tensorboard_plugins": ["bn_lens = tb_bnlens.plugin.loader:BNLensLoader"]},
    zip_safe=False,
)
