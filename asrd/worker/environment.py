"""The environment in which a worker's libraries run fastest; the unit file says the same.

Each window makes and drops arrays of megabytes. By default glibc maps and unmaps each of them, and
the page faults cost more than a small model's arithmetic; and OpenBLAS wakes a thread per core for
a product of matrices that one core does in a millisecond. With these, 5 s of speech took 60 ms of
processor time instead of 137 ms with the demo model (docs/performance.md). They must be there when
the process starts: mallopt(3), USAGE.md of OpenBLAS.
"""

_GIB = str(1 << 30)

WORKER_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": _GIB,
    "MALLOC_TRIM_THRESHOLD_": _GIB,
}
