# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: what a model must find in one, and what a training starts from."""
