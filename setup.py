# SPDX-License-Identifier: Apache-2.0
"""Packaging of object-detection-ext: metadata, dependencies and extras.

What matters is pinned here; `constraints.txt` pins everything else, so that an installation with
`pip install -c constraints.txt` is the same next year.
"""

import pathlib
import re

from setuptools import find_packages, setup

_ROOT = pathlib.Path(__file__).parent


def _version() -> str:
    """`__version__` of the package, read as text: importing it would change the Keras switch."""
    source = (_ROOT / "object_detection_ext" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', source, flags=re.MULTILINE)
    if match is None:
        raise RuntimeError('object_detection_ext/__init__.py has no line __version__ = "..."')
    return match.group(1)


def _long_description() -> str:
    readme = _ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


setup(
    name="object-detection-ext",
    version=_version(),
    description="Video Action Transformer Network on the TensorFlow Object Detection API",
    long_description=_long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["object_detection_ext", "object_detection_ext.*"]),
    package_data={"object_detection_ext": ["**/*.json", "**/*.pbtxt", "**/*.config"]},
    # What constraints.txt and the tests were run on.
    python_requires=">=3.11,<3.12",
    install_requires=[
        "absl-py>=1.4",
        "apache-beam==2.77.0",
        "av==18.1.0",
        # Beam's checksums in C instead of Python.
        "google-crc32c>=1.5",
        "h5py>=3.11",
        # TensorFlow 2.19 needs < 2.2; `compat` expects that NumPy 2 names exist.
        "numpy>=2.0,<2.2",
        # tf-models-official asks for it as well.
        "opencv-python-headless>=4.8",
        "pandas>=2.2",
        "pillow>=12.1.1",
        # TensorFlow 2.19 needs < 6; `stock_protos` lets the API run on it.
        "protobuf==5.29.6",
        "pycocotools>=2.0.11",
        "scipy>=1.13",
        "tensorflow==2.19.1",
        "tf-keras==2.19.0",
        "tf-models-official==2.19.1",
        "tf-models-research-object-detection==2.8.0.post1",
        "tf-slim==1.1.0",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]==2.19.1"],
        "serving": ["tensorflow-serving-api==2.19.1"],
        "dev": [
            # The kernel and the runner of examples/*.ipynb.
            "ipykernel>=7",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "pytest>=9",
            "pytest-xdist>=3",
            "ruff>=0.17",
            "tensorflow-serving-api==2.19.1",
        ],
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
