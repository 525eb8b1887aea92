# SPDX-License-Identifier: Apache-2.0
"""One HTML file about one evaluation, which needs nothing else."""
