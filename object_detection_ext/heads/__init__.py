# SPDX-License-Identifier: Apache-2.0
"""Action heads: person features and the clip in, one feature per person out."""
