# SPDX-License-Identifier: Apache-2.0
"""Reading videos, annotations and clip records."""
