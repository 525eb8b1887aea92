# SPDX-License-Identifier: Apache-2.0
"""Pictures and videos of detections."""
