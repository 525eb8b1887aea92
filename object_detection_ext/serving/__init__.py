# SPDX-License-Identifier: Apache-2.0
"""Exported models behind TF Serving: warm-up requests, messages of both protocols, clients."""
