# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: on disk, whether they belong to a model, and what a training starts from."""
