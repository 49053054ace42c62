"""Compiles, loads, inspects and breaks the CUDA driver of the tests, host_memory_driver.c."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections import namedtuple
from pathlib import Path

SOURCE = Path(__file__).with_name('host_memory_driver.c')
OUT_OF_MEMORY = 2
LAUNCH_FAILED = 719  # from then on everything fails, as on a device that is lost

Alive = namedtuple('Alive', 'device pinned streams graphs executables contexts pushed')
NOTHING = Alive(0, 0, 0, 0, 0, 0, 0)


def compile_driver(folder: Path) -> Path:
    """Compiles the driver into a folder, under the real driver's file name."""
    library = folder / 'libcuda.so.1'
    options = ['-O1', '-shared', '-fPIC', '-fvisibility=hidden', f'-Wl,-soname,{library.name}']
    compiler = shutil.which('cc') or 'cc'
    subprocess.run(
        [compiler, *options, '-o', str(library), str(SOURCE), '-lpthread', '-ldl'], check=True
    )
    return library


class HostDriver:
    """The driver, loaded into this process: pycuda and cuda-python find it by its name."""

    def __init__(self, library: Path) -> None:
        self.folder = library.parent
        self._library = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        self._library.host_driver_memory.argtypes = [ctypes.c_ulonglong, ctypes.c_size_t]
        self._library.host_driver_memory.restype = ctypes.c_void_p
        self._library.host_driver_copied.restype = ctypes.c_size_t
        self._library.host_driver_reset.argtypes = [ctypes.c_int, ctypes.c_size_t]
        self._library.cuLaunchHostFunc.argtypes = [ctypes.c_void_p] * 3

    def reset(self, devices: int = 1, memory: int = 1 << 30) -> None:
        self._library.host_driver_reset(devices, memory)

    def fail(self, function: str, after: int = 0, result: int = LAUNCH_FAILED) -> None:
        """Makes a call of a function fail, after `after` calls that succeed."""
        self._library.host_driver_fail(function.encode(), after, result)

    @property
    def violations(self) -> list[str]:
        """The first violation since the last reset, and how many there were."""
        first = ctypes.c_char_p()
        count = self._library.host_driver_violations(ctypes.byref(first))
        return [] if count == 0 else [f'{first.value.decode()} ({count} in all)']

    @property
    def alive(self) -> Alive:
        counts = (ctypes.c_int * 7)()
        self._library.host_driver_alive(counts)
        return Alive(*counts)

    @property
    def copied(self) -> int:
        """Bytes that went to the device and back since the last reset."""
        return self._library.host_driver_copied()

    def memory(self, address: int, size: int) -> int:
        """The host address of device memory, for code that plays the GPU.

        Raises:
            MemoryError: no device memory of this size is allocated there.
        """
        place = self._library.host_driver_memory(address, size)
        if not place:
            raise MemoryError(f'{address:#x}: {self.violations}')
        return place

    def launch(self, stream: int, function: ctypes._CFuncPtr) -> int:
        """Queues a function on a stream, as a kernel would be. Returns CUDA's result."""
        return self._library.cuLaunchHostFunc(stream, ctypes.cast(function, ctypes.c_void_p), None)
