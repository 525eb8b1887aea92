# SPDX-License-Identifier: Apache-2.0
"""A local worker process: Beam's own, quieter, and gone when the process that started it is gone.

Beam starts one for each core. A worker that outlives a killed conversion would go on decoding for
as long as its share of the videos takes.
"""

import os
import sys
import threading
import time
import warnings

_LOOK_SECONDS = 1.0


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


def main() -> None:
    """Serves the process that started this one."""
    parent = os.getppid()
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    warnings.simplefilter("ignore")
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
