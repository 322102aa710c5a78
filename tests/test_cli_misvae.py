"""Whole runs of ``vbpi-mix misvae`` on real digits: end to end, interrupted, continued, refused."""

import io
import json
import math
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pexpect
import pytest
import tomli_w
import torch

from vbpi_mix import _cli_misvae, cli
from vbpi_mix._cli_misvae_train import OPTION_FIELDS
from vbpi_mix.objectives.estimators import Estimator
from vbpi_mix.vae import images
from vbpi_mix.vae.config import MisvaeConfig
from vbpi_mix.vae.images import SOURCES

VBPI_MIX = [sys.executable, "-m", "vbpi_mix.cli"]
NUM_TRAINING = 2_500
"""Training images of runs to the end."""

PAUSED = f"""
import os, signal
from vbpi_mix import cli
from vbpi_mix.vae import images, training

images.NUM_TRAINING = {NUM_TRAINING}
binarise, num_batches = training.binarise, 0


def pause(*arguments):
    global num_batches
    num_batches += 1
    if num_batches == 25:
        os.kill(os.getpid(), signal.SIGSTOP)
    return binarise(*arguments)


training.binarise = pause
cli.main()
"""
"""The command line on fewer images; it stops as by control-Z in the 25th step."""

PATIENCE = 200
"""Seconds that something may take on a busy machine."""

SMALL = {
    "model": {
        "latent": 8,
        "encoder_channels": 2,
        "trunk_features": 32,
        "head_width": 16,
        "decoder": {"kind": "independent", "hidden": 32, "features": 32},
    },
    "optimisation": {"batch_size": 25, "epochs": 1, "warm_up": 0.5, "rate": 0.01},
    "machine": {"threads": 1, "log_every": 10},
}
NUM_STEPS = 100
BINARY_ENTROPY_OF_NOTHING = 784 * math.log(2)
"""Negative log-likelihood of an image under coins, in nats."""

pytestmark = pytest.mark.reference


@pytest.fixture
def digits(require_reference):
    return require_reference("mnist/train-images-idx3-ubyte.gz").parent


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Configuration of a model that is trained in seconds."""
    path = tmp_path_factory.mktemp("config") / "small.toml"
    path.write_text(tomli_w.dumps(SMALL))
    return path


@pytest.fixture(scope="module")
def command():
    """Function that runs the command line in this process: exit code, standard output, standard error.

    Fewer images are trained on.
    """

    def call(*arguments):
        with (
            pytest.MonkeyPatch.context() as patch,
            redirect_stdout(io.StringIO()) as out,
            redirect_stderr(io.StringIO()) as err,
        ):
            patch.setattr(images, "NUM_TRAINING", NUM_TRAINING)
            patch.setattr(sys, "argv", ["vbpi-mix", "misvae", *map(str, arguments)])
            with pytest.raises(SystemExit) as exit_info:
                cli.main()
        return exit_info.value.code or 0, out.getvalue(), err.getvalue()

    return call


@pytest.fixture(scope="module")
def finished(small, command, tmp_path_factory):
    """Directory of a finished run of three components, and what it printed; None without digits."""
    digits = Path(os.environ.get("VBPI_MIX_REFERENCE", "")) / "mnist"
    if not digits.is_dir():
        return None
    out = tmp_path_factory.mktemp("finished") / "run"
    options = ["--components", 3, "--seed", 5, "--json", "--dataset", "mnist"]
    code, printed, err = command(*arguments_of(small, digits, out, *options))
    assert code == 0, err
    return out, printed, err


def arguments_of(small, digits, out, *more):
    return ["train", "--out", out, "--data-dir", digits, "--config", small, *more]


def records_without_times(out):
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k != "training_seconds"} for record in records]


def test_a_run_leaves_its_files(digits, finished):
    out, printed, err = finished
    result = json.loads((out / "result.json").read_text())
    assert json.loads(printed) == result
    assert {path.name for path in out.iterdir()} - {".lock"} == {
        "config.toml",
        "metrics.jsonl",
        "checkpoint.pt",
        "result.json",
    }
    assert result["iterations"] == NUM_STEPS
    assert f"iteration {NUM_STEPS} of {NUM_STEPS} (100%), bound -" in err
    records = records_without_times(out)
    assert [record["iteration"] for record in records] == list(range(10, NUM_STEPS + 1, 10))
    assert records[0]["divergence_weight"] == pytest.approx(0.2)
    assert records[-1]["divergence_weight"] == 1.0
    assert -BINARY_ENTROPY_OF_NOTHING < records[0]["bound"] < records[-1]["bound"] < -80


def test_evaluation_of_a_run(digits, finished, command):
    out, _, _ = finished
    code, printed, err = command("evaluate", out, "--samples", 4, "--images", 300, "--json")
    assert code == 0, err
    found = json.loads(printed)
    likelihood = found["negative_log_likelihood"]
    assert 80 < likelihood["mean"] < 250
    assert 0 < likelihood["standard_error"] < 10
    # Each is a lower bound of the next, draw for draw (Jensen's inequality).
    assert found["bound"] < found["importance_bound"] < -likelihood["mean"]
    assert 0 <= found["jensen_shannon"] <= math.log(3)
    assert found["active_components"] == pytest.approx(math.exp(found["jensen_shannon"]))
    assert found["num_parameters"] == json.loads((out / "result.json").read_text())["num_parameters"]
    assert (
        command("evaluate", out, "--samples", 4, "--images", 300, "--json", "--seed", 5)[1].split(
            '"seconds"'
        )[0]
        == printed.split('"seconds"')[0]
    )
    code, text, _ = command("evaluate", out, "--samples", 1, "--images", 20, "--part", "validation")
    assert code == 0
    assert "20 validation images of mnist" in text
    assert "components                 3, as different as 1." in text


def png_pixels(path):
    """Grey values of a PNG file, by another program's reader."""
    import matplotlib.image

    return matplotlib.image.imread(path)


def test_a_picture_of_a_run(digits, finished, command, tmp_path):
    out, _, _ = finished
    path = tmp_path / "grid.png"
    code, printed, _ = command("sample", out, "--out", path, "--images", 4, "--prior", 2)
    assert code == 0
    assert f"{path}: 4 test images, reconstructions by 3 of 3 components, 8 samples" in printed
    pixels = png_pixels(path)
    # Two pixels each: four rows of 28 with gaps of 2; columns 1 + 3 + 2 in blocks with gaps of 12.
    assert pixels.shape == (2 * (4 * 30 - 2), 2 * (28 + 12 + (3 * 30 - 2) + 12 + (2 * 30 - 2)))
    from vbpi_mix.vae.images import load_images

    first = load_images("mnist", digits, 0).test[0].numpy()
    np.testing.assert_array_equal(pixels[:56:2, :56:2], first)
    code, _, err = command("sample", out, "--out", path)
    assert code == 2
    assert f"{path}: exists already and is not overwritten" in err
    assert command("sample", out, "--images", 1)[0] == 0
    assert (out / "samples.png").exists()


def test_a_finished_run_is_not_overwritten_but_may_be_resumed(digits, finished, small, command):
    out, printed, _ = finished
    code, _, err = command(*arguments_of(small, digits, out))
    assert code == 2
    assert "already holds a run; continue it with --resume" in err
    code, text, err = command("train", "--resume", "--out", out, "--json")
    assert code == 0
    assert "finished already" in err
    assert text == printed
    code, _, err = command("train", "--resume", "--out", out, "--components", 4)
    assert code == 2
    assert "--components: this run was started with 3, not 4" in err


def test_a_run_can_be_repeated_from_its_configuration(digits, finished, tmp_path, command):
    out, _, _ = finished
    again = tmp_path / "again"
    code, text, err = command("train", "--config", out / "config.toml", "--out", again, "--quiet")
    assert code == 0
    assert err == ""
    assert f"vbpi-mix misvae evaluate {again}" in text
    assert records_without_times(again) == records_without_times(out)


def test_control_c_saves_and_the_run_continues_bit_for_bit(digits, finished, small, tmp_path, command):
    out = tmp_path / "run"
    options = ["--components", 3, "--seed", 5, "--checkpoint-seconds", 0]
    arguments = ["misvae", *map(str, arguments_of(small, digits, out, *options))]
    with subprocess.Popen(
        [sys.executable, "-c", PAUSED, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert process.poll() is None, process.communicate()[1]
        code, _, err = command("train", "--resume", "--out", out)
        assert code == 2
        assert f"in use by process {process.pid}" in err
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        messages = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 128 + signal.SIGINT
    assert f"continue with: vbpi-mix misvae train --resume --out {out}" in messages
    assert "Traceback" not in messages
    assert "stopped after iteration 30\n" in messages  # at the next line of metrics
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == 30
    code, _, err = command("evaluate", out, "--samples", 1, "--images", 2)
    assert code == 0
    assert "this run has not finished; the model is that of its last checkpoint" in err
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 999, "cut sho')
    code, _, err = command("train", "--resume", "--out", out)
    assert code == 0, err
    assert "continuing at iteration 30" in err
    assert records_without_times(out) == records_without_times(finished[0])
    ours, theirs = (torch.load(path / "checkpoint.pt", weights_only=True) for path in (out, finished[0]))
    for name, parameter in ours["model"].items():
        assert torch.equal(parameter, theirs["model"][name]), name


def test_a_terminal_shows_a_live_bar(digits, small, tmp_path):
    arguments = arguments_of(small, digits, tmp_path / "run", "--epochs", 1000, "--log-every", 1)
    terminal = pexpect.spawn(
        VBPI_MIX[0],
        [*VBPI_MIX[1:], "misvae", *map(str, arguments)],
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        dimensions=(24, 120),
        encoding="utf-8",
        timeout=PATIENCE,
    )
    try:
        terminal.expect(r"mnist: [\d,]+ parameters, A=1, s2a with S=1")
        terminal.expect(r"training.*/2000000.*bound -\d+\.\d\d.*\d+:\d\d.* left")
        terminal.sendintr()
        terminal.expect("stopped after iteration")
        terminal.expect(pexpect.EOF)
        terminal.wait()  # closing would not: it kills what is still about to end
    finally:
        terminal.close(force=True)
    assert terminal.exitstatus == 128 + signal.SIGINT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--out", "OUT", "--components", "0"], "--components: input should be greater"),
        (["train", "--out", "OUT", "--sampled", "2"], "at most the number of components, got 2 of 1"),
        (["train", "--out", "OUT", "--data-dir", "OUT"], "train-images-idx3-ubyte.gz of mnist"),
        (
            ["train", "--out", "OUT", "--data-dir", "DIGITS", "--batch-size", "60000"],
            "--batch-size: expected",
        ),
        (["train", "--out", "OUT", "--data-dir", "DIGITS", "--device", "abacus"], "--device abacus: torch"),
        (["train", "--out", "OUT", "--resume"], "expected the directory of a run, but there is none"),
        (["train", "--out", "OUT", "--config", "missing.toml"], "missing.toml: expected a configuration"),
        (["train", "--out", "OUT", "--config", "WRONG"], "model.latents: unknown setting"),
        (["evaluate", "missing"], "expected the directory of a run, but there is none"),
        (["sample", "EMPTY"], "that was --out of 'vbpi-mix misvae train'"),
        (["evaluate", "TREES"], "expected a checkpoint of a MISVAE run"),
    ],
)
def test_user_errors_are_one_message_and_exit_code_2(digits, tmp_path, command, arguments, message):
    places = {"OUT": tmp_path / "out", "DIGITS": digits}
    for name in ("EMPTY", "TREES"):
        places[name] = tmp_path / name
        places[name].mkdir()
    (places["TREES"] / "config.toml").write_text("")
    torch.save({"version": 1, "state": {}}, places["TREES"] / "checkpoint.pt")
    places["WRONG"] = tmp_path / "wrong.toml"
    places["WRONG"].write_text("[model]\nlatents = 3\n")
    code, out, err = command(*(places.get(argument, argument) for argument in arguments))
    assert code == 2
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("Error: ")
    assert message in last
    assert "Traceback" not in err
    assert not (tmp_path / "out" / "config.toml").exists()


def test_a_bound_that_is_not_finite_is_one_message(digits, small, tmp_path, command):
    out = tmp_path / "run"
    code, _, err = command(*arguments_of(small, digits, out, "--rate", 1e30))
    assert code == 2
    assert err.splitlines()[-1].startswith("Error: training stopped after step ")
    assert (out / "checkpoint.pt").exists()


def test_every_option_has_a_place_and_states_the_configurations_default(command):
    config = MisvaeConfig()
    text = " ".join(command("train", "--help")[1].split())
    for option, path in OPTION_FIELDS.items():
        value = config
        for field in path:
            assert field in type(value).model_fields, option
            value = getattr(value, field)
        stated = {
            "data_dir": "that of a Debian package, else a cache filled from the network",
            "sampled": "A for a2a, else 1",
            "threads": "all available cores",
        }.get(option, f"{value.value if isinstance(value, Estimator) else value}".removesuffix(".0"))
        described = text[text.index(f"--{option.replace('_', '-')} ") :]
        assert described[described.index("[default:") : described.index("]") + 1] == f"[default: {stated}]"
    assert [name.value for name in _cli_misvae.ImagesName] == list(SOURCES)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from vbpi_mix import cli; "
        "print([m for m in ('torch', 'numpy', 'numba', 'pydantic') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
