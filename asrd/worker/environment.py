"""Environment variables that make a worker's libraries fast; the unit file sets the same.

Each window allocates and frees arrays of megabytes. By default glibc maps and unmaps each of them,
and the page faults cost more than a small model's arithmetic. OpenBLAS wakes a thread per core for
a product of matrices that one core does in a millisecond. With these variables, 5 s of speech took
60 ms of processor time instead of 137 ms with the demo model (docs/performance.md). They must be
set before the process starts: mallopt(3), USAGE.md of OpenBLAS.

CTranslate2's threads (libgomp) wait for each other by spinning, for milliseconds at a time. Where
another process wants the cores, they spin for each other: two workers with two threads on two cores
took 16 s for a command that each takes 0.08 s for alone. With a hundredth of the spinning they take
0.26 s, and alone as little as before; with less they sleep too early, and 0.08 s become 0.17.
"""

_GIB = str(1 << 30)

WORKER_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "GOMP_SPINCOUNT": "1000",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": _GIB,
    "MALLOC_TRIM_THRESHOLD_": _GIB,
}
