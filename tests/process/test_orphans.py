"""The end of orphans under `asrd run` as the first process of a container."""

import subprocess
import sys

# PR_SET_CHILD_SUBREAPER makes this process the parent of orphans, as a container's first one is.
_PARENT = """if True:
    import ctypes, os, subprocess
    import anyio
    from asrd.standalone.orphans import reap_orphans

    ctypes.CDLL(None).prctl(36, 1)
    script = "true & echo $!; sleep 0.2 >/dev/null 2>&1 & echo $!"
    orphans = subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout.split()
    own = subprocess.Popen(["sh", "-c", "exit 7"])
    os.waitid(os.P_PID, own.pid, os.WEXITED | os.WNOWAIT)

    def alive(pid):
        return os.path.exists(f"/proc/{int(pid)}")

    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reap_orphans, lambda: [own.pid])
            with anyio.fail_after(20):
                while own.returncode is None or any(map(alive, orphans)):
                    # An orphan behind ours is found once ours is gone.
                    await anyio.sleep(0.2)
                    own.poll()
            tasks.cancel_scope.cancel()

    anyio.run(main)
    print(len(orphans), own.returncode)
    """


def test_orphans_are_reaped_and_our_own_keep_their_exit_codes() -> None:
    argv = [sys.executable, "-c", _PARENT]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "2 7\n", done.stderr
