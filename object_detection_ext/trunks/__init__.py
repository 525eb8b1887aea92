# SPDX-License-Identifier: Apache-2.0
"""3-D convolutional trunks: a clip in, a feature map out."""
