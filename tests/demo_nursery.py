"""What test_demos.py starts: libraries and rooms are imported once, then every demo runs in a child of its own.

    python tests/demo_nursery.py ROOM=FOLDER ...

Runs each room's demo as a program, in its folder; what it prints and its exit code go into files there.
"""

import contextlib
import gc
import os
import runpy
import sys
from importlib import import_module
from pathlib import Path

from leaving import leaving

HERE = Path(__file__).parents[1]
LIBRARIES = (
    *("matplotlib.figure", "onnx", "onnxruntime", "pandas", "scipy.signal", "sklearn.linear_model", "torch"),
    *("torch.distributed.fsdp", "torch.optim.lr_scheduler", "torchaudio", "tyro", "huggingface_hub"),
    "transformers.models.whisper.modeling_whisper",
)


def run(room: str, folder: Path) -> None:
    """In a child: be the demo, and leave."""
    with leaving():
        os.chdir(folder)
        for number, name in ((1, "printed.txt"), (2, "complained.txt")):
            os.dup2(os.open(name, os.O_CREAT | os.O_WRONLY), number)
        sys.argv = [str(HERE.joinpath(*room.split(".")).with_suffix(".py"))]
        sys.modules.pop(room, None)  # it is run, not imported
        runpy.run_module(room, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for library in LIBRARIES:
        import_module(library)
    sys.path[0] = str(HERE)
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    for room in words:
        with contextlib.suppress(Exception):  # its child meets it too, and says so
            import_module(room)
    gc.freeze()
    for room, place in words.items():
        child = os.fork()
        if child == 0:
            run(room, Path(place))
        _, status = os.waitpid(child, 0)
        (Path(place) / "code.txt").write_text(str(os.waitstatus_to_exitcode(status)))
