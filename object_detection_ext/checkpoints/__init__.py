# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on disk, and whether they belong to a model."""
