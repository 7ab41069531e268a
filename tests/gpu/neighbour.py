"""Another program on the same card, which takes all memory that there is until its stdin ends.

    python -m tests.gpu.neighbour

Prints one line when the card is full. Plain allocations only: managed memory beyond what is free
can hang a GPU.
"""

import select
import sys

from tests.gpu.driver import Driver

_STEPS_MIB = (1024, 256, 64, 16, 4, 2)


def main() -> None:
    driver = Driver()
    told = False
    while not select.select([sys.stdin], [], [], 0.005 if told else 0)[0]:
        if not any(driver.take(step) for step in _STEPS_MIB) and not told:
            print(f"full, {driver.free_mib()} MiB left", flush=True)
            told = True


if __name__ == "__main__":
    main()
