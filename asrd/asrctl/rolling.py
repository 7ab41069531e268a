"""`asrctl restart-workers`: one worker after the other, so that the others serve meanwhile."""

import argparse
import shutil
import subprocess
import time

from asrd.asrctl.host import Host
from asrd.asrctl.streams import complain, mention
from asrd.exitcodes import Exit


def restart_workers(args: argparse.Namespace) -> int:
    """Restarts the workers that systemd runs. Ends at the first that does not come up, so that new
    settings with a mistake stop one worker and not all."""
    units = Host(args.socket).units("asr-worker@*.service")
    # An inactive one loads with the new settings when it is needed.
    names = sorted(name for name, unit in units.items() if unit["ActiveState"] != "inactive")
    systemctl = shutil.which("systemctl")
    if not names or systemctl is None:
        complain("systemd runs no worker here")
        return Exit.FAILED
    for name in names:
        began = time.monotonic()
        # It returns when the worker is ready, or can't be.
        if subprocess.run([systemctl, "restart", name], check=False).returncode:
            complain(f"{name} did not come up; the workers after it were not restarted")
            return Exit.FAILED
        mention(f"{name} is ready after {time.monotonic() - began:.1f} s\n")
    return Exit.OK
