# SPDX-License-Identifier: Apache-2.0
"""Generated protocol buffer modules; `make protos` renews them."""
