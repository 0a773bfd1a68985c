"""The parser and ``main``: help, versions, exit codes, and how fast they answer."""

import subprocess
import sys

import pytest

from crosshead.cli import main
from crosshead.cli.arguments.parser import build_parser


def test_every_command_explains_itself(capsys):
    _, commands = build_parser()
    for name in commands:
        with pytest.raises(SystemExit) as exit:
            main([name, "--help"])
        assert exit.value.code == 0
        said = capsys.readouterr().out
        assert said.startswith(f"usage: crosshead {name}") and len(said.splitlines()) > 4
        assert max(map(len, said.splitlines())) <= 120


def test_no_command_shows_the_help(capsys):
    with pytest.raises(SystemExit) as exit:
        main([])
    assert exit.value.code == 0
    assert "examples:" in capsys.readouterr().out


def test_versions(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0
    assert {"crosshead", "torch", "timm", "python"} == {
        line.split()[0] for line in capsys.readouterr().out.splitlines()
    }


def test_an_unknown_command_names_the_nearest(fails):
    assert "there is no command 'trian'; the nearest is train" in fails("trian")


def test_help_and_recipe_errors_do_not_wait_for_what_only_training_needs():
    code = (
        "import runpy, sys; from crosshead.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'pydantic' not in sys.modules\n"
        "sys.argv = ['crosshead', 'train', 'digits', 'optimizer.lrr=1']\n"
        "try: runpy.run_module('crosshead', run_name='__main__')\n"
        "except SystemExit as exit: assert exit.code == 2\n"
        "loaded = {'crosshead.train', 'crosshead.data', 'rich', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(
        "crosshead train: command line, optimizer.lrr=1: unknown key 'optimizer.lrr'"
    )


def test_options_that_others_have_point_at_their_keys(fails):
    assert "keys are changed as train.epochs=..." in fails("sweep", "digits", "--epochs", "3")
    assert "keys are changed as optimizer.weight_decay=..." in fails(
        "train", "digits", "--weight-decay", "0.1"
    )
    assert "keys are changed as data.batch_size=..." in fails("sweep", "digits", "--batch-size=3")
    assert "changed as" not in fails("convert", "x.pth", "--epochs", "3")


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m crosshead recipes digits | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)
    assert done.stdout == "name: digits\n" and done.stderr == "" and done.returncode == 0
