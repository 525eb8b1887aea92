# SPDX-License-Identifier: Apache-2.0
"""The only code that knows AVA's files: CSVs of rows, excluded timestamps, label maps."""
