# SPDX-License-Identifier: Apache-2.0
"""Trunks and heads as parts of the stock Faster R-CNN."""
