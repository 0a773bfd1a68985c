"""What a system lacks that Windows is: models, evaluation and prediction work; training says what it needs."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from crosshead.recipe.schema import Recipe
from crosshead.train import train

# In the place of Windows: the modules and names of Unix that it does not have. The run was trained before.
BARE = """
import os, signal, sys
for name in ("fcntl", "resource", "termios", "tty", "pwd", "grp", "syslog"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGKILL", "SIGBUS", "SIGALRM", "SIGPIPE", "SIGQUIT",
             "SIGSTOP", "SIGXFSZ", "pthread_sigmask", "alarm", "sigwait", "setitimer"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in ("fork", "forkpty", "pread", "pwrite", "sched_getaffinity", "getuid", "geteuid",
             "setsid", "killpg", "chown", "mkfifo", "O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY"):
    if hasattr(os, name):
        delattr(os, name)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bare") / "run"
    small = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
    values = {
        "model": {"name": "vit_tiny_patch16_224", "args": small},
        "data": {"batch_size": 64},
        "schedule": {"warmup_epochs": 0.0},
        "train": {"steps": 2, "device": "cpu"},
        "log": {"tensorboard": False},
    }
    assert train(Recipe.model_validate(values), folder=folder).status == "finished"
    return folder


def bare(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", BARE + code, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def test_import_and_swap():
    done = bare(
        "import crosshead, timm, torch\n"
        "small = dict(patch_size=4, embed_dim=16, depth=2, num_heads=2, img_size=8)\n"
        "model = timm.create_model('vit_tiny_patch16_224', **small)\n"
        "crosshead.swap_attention(model, overlap='index')\n"
        "print(model(torch.zeros(1, 3, 8, 8)).shape)\n"
    )
    assert done.returncode == 0 and "[1, 1000]" in done.stdout, done.stderr


def test_commands(run, tmp_path):
    picture = tmp_path / "picture.png"
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(picture)
    done = bare(
        "from crosshead.cli import main\n"
        "run, picture = sys.argv[1:]\n"
        "codes = [main(['predict', run, picture]), main(['eval', run, '--predictions', picture + '.csv']),\n"
        "         main(['doctor', run]), main(['recipes'])]\n"
        "codes.append(main(['train', 'digits', 'train.steps=1']))\n"
        "print('codes', codes)\n",
        run,
        picture,
    )
    assert "codes [0, 0, 0, 0, 2]" in done.stdout, done.stdout + done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("crosshead train: training needs Linux or macOS")
