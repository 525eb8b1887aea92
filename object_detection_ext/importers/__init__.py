# SPDX-License-Identifier: Apache-2.0
"""Annotations of other tools and data sets, read into one form and written as AVA-style CSVs.

One module reads one form (`registry.py` lists them) and returns a `model.Source`. What follows is
the same for all: moments and boxes (`placing.py`), action ids (`label_ids.py`), training and
validation (`splitting.py`), files (`writing.py`).
"""
