# SPDX-License-Identifier: Apache-2.0
"""What surrounds the stock train and eval loops, which do the work unchanged."""
