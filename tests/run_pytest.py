# SPDX-License-Identifier: Apache-2.0
"""Runs pytest on the files in the arguments; the program of the Bazel test targets."""

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
