# SPDX-License-Identifier: Apache-2.0
"""The small data set, anew for each test."""

import shutil

import pytest

from tests.doctor import small_data


@pytest.fixture(scope="session")
def _encoded_once(tmp_path_factory):
    return small_data.SmallData(tmp_path_factory.mktemp("small")).folder


@pytest.fixture
def data(tmp_path, _encoded_once) -> small_data.SmallData:
    """A data set without a fault."""
    result = small_data.SmallData(tmp_path, videos=False)
    shutil.copytree(_encoded_once / "videos", result.videos, dirs_exist_ok=True)
    return result
