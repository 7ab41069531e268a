"""The part of the CUDA driver's interface that the checks need (libcuda, by ctypes): plain
allocations of memory, and a kernel that breaks its context.

    python -m tests.gpu.driver

takes all free memory of the card until its stdin ends, and prints a line when the card is full. It
uses plain allocations only: managed memory beyond what is free can hang a GPU.
"""

import ctypes
import select
import sys
from typing import Any

OUT_OF_MEMORY = 2
MIB = 1 << 20
_STEPS_MIB = (1024, 256, 64, 16, 4, 2)

# Stores to an address outside every allocation.
_FAULT = b"""
.version 7.0
.target sm_75
.address_size 64
.visible .entry fault() {
    .reg .b64 %rd<2>;
    .reg .b32 %r<2>;
    mov.u64 %rd1, 64;
    mov.u32 %r1, 1;
    st.global.u32 [%rd1], %r1;
    ret;
}
"""


class Driver:
    """The primary context of a GPU, which the CUDA runtime uses too, current in this thread."""

    def __init__(self, index: int = 0) -> None:
        self._library: Any = ctypes.CDLL("libcuda.so.1")
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), index)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)

    def free_mib(self) -> int:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value // MIB

    def take(self, mib: int) -> bool:
        """Allocates memory until the process ends. Returns False if there is not enough."""
        where = ctypes.c_uint64()
        error = self._library.cuMemAlloc_v2(ctypes.byref(where), ctypes.c_size_t(mib * MIB))
        if error == OUT_OF_MEMORY:
            return False
        self._check("cuMemAlloc_v2", error)
        return True

    def fault(self) -> None:
        """Breaks the context permanently: an illegal address (CUDA error 700 or 719)."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), _FAULT)
        self._call("cuModuleGetFunction", ctypes.byref(function), module, b"fault")
        self._call("cuLaunchKernel", function, 1, 1, 1, 1, 1, 1, 0, None, None, None)
        error = self._library.cuCtxSynchronize()
        if error == 0:
            raise RuntimeError("the kernel did not fault")

    def _call(self, name: str, *arguments: object) -> None:
        self._check(name, getattr(self._library, name)(*arguments))

    def _check(self, name: str, error: int) -> None:
        if error != 0:
            raise RuntimeError(f"{name}: CUDA error {error}")


def fill() -> None:
    driver = Driver()
    full = False
    while not select.select([sys.stdin], [], [], 0.005 if full else 0)[0]:
        if not any(driver.take(step) for step in _STEPS_MIB) and not full:
            print(f"full, {driver.free_mib()} MiB left", flush=True)
            full = True


if __name__ == "__main__":
    fill()
