# SPDX-License-Identifier: Apache-2.0
"""Frame-level action average precision."""
