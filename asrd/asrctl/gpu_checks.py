"""The checks of GPUs, for `asrctl doctor`."""

import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from asrd.asrctl.finding import Finding, ok, unseen, wrong
from asrd.asrctl.host import Host
from asrd.config import load_worker
from asrd.errors import AsrdError, ConfigError

CUBLAS = Path("/usr/lib/asrd/vendor/nvidia/cublas/lib/libcublas.so.12")
# The release of CUDA 12.8 (asrd.engine.cuda).
_OLDEST_DRIVER = 570


def gpu(host: Host) -> Iterator[Finding]:
    """Needs of workers on a GPU, and where the present ones run."""
    yield from gpu_setup(host)
    devices = _configured_devices(host)
    for name, device in _running(host).items() if host.gpus() else ():
        if device == "cuda":
            yield ok(f"worker {name} runs on it")
        elif device == "cpu" and "cpu" not in devices:
            text = f"worker {name} uses the CPU although there is a GPU; its log gives the reason"
            logs = f"journalctl -b -u asr-worker@{name} -g 'using the CPU'"
            yield wrong(text, see=logs if host.is_installed() else "asrctl status")


def gpu_setup(host: Host) -> Iterator[Finding]:
    """Driver, device nodes, cuBLAS, and the sandbox's access to them."""
    gpus, devices = host.gpus(), _configured_devices(host)
    if not gpus and "cuda" not in devices:
        yield ok("there is none, so the workers use the CPU")
        return
    if not gpus:
        text = 'the settings request device = "cuda", but there is no /dev/nvidia0'
        yield wrong(text, "sudo nvidia-modprobe -u -c=0")
        return
    yield ok(f"{len(gpus)} found")
    if devices == {"cpu"}:
        return
    yield _driver(host.nvidia_driver())
    # The CUDA runtime also opens the node of unified memory, which has its own kernel module.
    uvm = gpus[0].with_name("nvidia-uvm")
    if not uvm.exists():
        yield wrong(f"there is no {uvm}", "sudo nvidia-modprobe -u -c=0")
    for node in filter(Path.exists, (*gpus, uvm)):
        if stat.S_IMODE(node.stat().st_mode) & 0o006 != 0o006:
            yield wrong(f"the workers may not use {node}", f"sudo chmod a+rw {node}")
    # A worker that runs on a GPU has cuBLAS, wherever the file is.
    if host.is_installed() and not CUBLAS.exists() and "cuda" not in _running(host).values():
        yield wrong(f"libcublas 12 is not at {CUBLAS}", "sudo apt install asrd-cuda")
    for name, unit in host.units("asr-worker@*.service").items():
        shut = unit["PrivateDevices"] == "yes" or "char-nvidia" not in unit["DeviceAllow"]
        if shut and unit["DevicePolicy"] != "auto":
            text = f"the sandbox of {name} was changed and hides the GPU"
            yield wrong(text, f"sudo systemctl revert {name}")


def _driver(version: str) -> Finding:
    major = version.partition(".")[0]
    if not major.isdigit():
        return unseen("the version of the NVIDIA driver can't be read from /proc/driver/nvidia")
    if int(major) >= _OLDEST_DRIVER:
        return ok(f"the NVIDIA driver is {version}")
    text = (
        f"the NVIDIA driver is {version}, and R{_OLDEST_DRIVER} or newer is needed: with an older "
        "one CTranslate2 fails or gives wrong text on some cards; install a newer one and reboot"
    )
    return wrong(text, see="apt list 'nvidia-driver*'")


def _running(host: Host) -> dict[str, str | None]:
    """Returns the device of each running worker; empty if the daemon does not answer."""
    try:
        return {worker.name: worker.device for worker in host.status().workers}
    except AsrdError:
        return {}


def _configured_devices(host: Host) -> set[str]:
    found = set()
    for name in host.worker_names():
        with suppress(ConfigError):
            found.add(load_worker(host.config, name).device)
    return found
