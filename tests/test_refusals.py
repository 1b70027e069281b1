"""What a command cannot do is said in its last line; it ends with 2, and nothing is written."""

import re
import shlex

import pytest

from midas_world.commands import cli

NOT_IN_A_WINDOW = " goes with --headless; in the window, F8"
REFUSED = {
    "bench --backend jax": "auto",
    "bench --batches 0": "at least 1, got '0'",
    "bench --steps 0": "at least 1, got '0'",
    "bench --quality -3": "expected one argument|at least 0",
    "bench --world stgae": "no world 'stgae'",
    "build --world {tiny} --backend onnx --compute-capability sm89": "are TensorRT's",
    "capture --to a --keys a --yes --region 1,2,3": "must be LEFT,TOP,WIDTH,HEIGHT",
    "capture --to a --keys a --yes --region 0,0,8,8": "at least 16x16 px",
    "capture --to a --keys a --yes --region 0,0,64,64 --fps 0": "fps",
    "collect --env ''": "an env's id is such as",
    "collect --env CartPole-v1 --policy json:dumps": "must return a policy",
    "collect --env CartPole-v1 --policy json:decoder": "not callable",
    "collect --preset tiny data.folder=s3://bucket/here": "must be a folder of this machine",
    "dream ''": "an env's id is such as",
    "eval --sections speedy": "there are autoencoder",
    "export {slides} --to mp4 --output film.avi": "--output must end in .mp4",
    "export {slides} --to mp4 --scale -1": "--scale: must be a whole number, at least 1",
    "export {slides} --to mp4 --scale 100000": "--scale 100000 makes pictures of",
    "export {slides} --to mp4 --start 5": "nothing from 5 s to 1.65 s",
    "export {slides} --to mp4 --teacher": "has no teacher to show beside it",
    "export none --to mp4": "there is no session at",
    "export {slides} --to minari --hud": "--hud is for mp4, gif, frames",
    "play --episodes here": "--episodes goes with --teacher PRESET",
    "play --headless --fps fast": "--fps: must be a positive number, got 'fast'",
    "play --headless --seed -1": "--seed: must be a whole number, at least 0, got '-1'",
    "play --headless --teacher --actions no.txt": "there is no file of actions",
    "play --headless --teacher --converse": "needs somebody to listen to",
    "play --headless --teacher --language xx": "no sentences in 'xx'; there are: en-us, de, fr-fr",
    "play --headless --teacher --save film.avi": "--save takes",
    "play --headless --teacher --steps 0": "--steps: must be a whole number, at least 1, got '0'",
    "play --headless --teacher --voice a.wav --microphone": "choose one",
    "play --headless --teacher --voice {hello} --converse --respond no:it": "--respond must be",
    "play --headless --teacher tiny": "collect --env ID",
    "play --headless --world nowhere": "no world 'nowhere'",
    "play --replay none": "there is no session at",
    "play --resimulate": "--replay SESSION",
    "play --teacher --actions a.txt": f"--actions{NOT_IN_A_WINDOW}",
    "play --teacher --save x.mp4": f"--save{NOT_IN_A_WINDOW}",
    "play --teacher --steps 3": f"--steps{NOT_IN_A_WINDOW}",
    "shards check nosuch://bucket/data": "nosuch",
}


@pytest.mark.parametrize(("command", "message"), REFUSED.items(), ids=REFUSED)
def test_what_cannot_be_is_said_in_the_last_line(
    command, message, tiny_folder, slides, hello, here, capsys
):
    places = {"tiny": tiny_folder, "slides": slides.folder, "hello": hello}
    quoted = {name: shlex.quote(str(path)) for name, path in places.items()}
    try:
        status = cli.main(shlex.split(command.format(**quoted)))
    except SystemExit as end:  # argparse's own way
        status = end.code
    assert status == 2
    said = capsys.readouterr().err
    assert re.search(message, said.splitlines()[-1])
    assert "Traceback" not in said
    assert list(here.iterdir()) == []
