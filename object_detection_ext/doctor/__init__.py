# SPDX-License-Identifier: Apache-2.0
"""Looks at a data set and its pipeline.config together, before any training."""
