"""torchrun as its users run it, and the processes below it."""

import os
import subprocess
import sys
from pathlib import Path

from runs import wait_until

BODY = Path(__file__).with_name("torchrun_body.py")


class Torchrun:
    """A launcher with ``processes`` workers of a run; its output goes to ``folder``.log."""

    def __init__(self, recipe, folder, *, processes=2, max_restarts=0):
        description = Path(f"{folder}.json")
        description.write_text(recipe.model_dump_json())
        self.output = Path(f"{folder}.log")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(processes), "--max-restarts", str(max_restarts)]
        # Without it the store that restarted workers meet in is the launcher's, and restarting fails often on gloo.
        variables = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
        with open(self.output, "ab") as output:
            self.process = subprocess.Popen(
                [*command, str(BODY), str(description), str(folder)],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,
            )

    def workers(self):
        """Process ids of the training processes, by rank; fewer where some are gone."""
        found = {}
        for child in _children(self.process.pid):
            variables = _variables(child)
            if "RANK" in variables:
                found[int(variables["RANK"])] = child
        return found

    def wait(self, seconds=120):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            raise AssertionError(
                f"torchrun did not end within {seconds} s:\n{self.output.read_text()}"
            ) from None

    def wait_for_workers(self, count, without=()):
        """The workers by rank, once there are ``count`` that are none of ``without``."""
        wait_until(lambda: len(set(self.workers().values()) - set(without)) == count, seconds=120)
        return self.workers()


def _children(process):
    try:
        return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def _variables(process):
    try:
        pairs = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(pair.decode(errors="replace").split("=", 1) for pair in pairs if b"=" in pair)
