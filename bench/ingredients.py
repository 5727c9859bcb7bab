"""What each ingredient of stage 2 is worth: the whole recipe, then the same without one of its parts, or with another.

    make bench-ingredients          (or: .venv/bin/python -m bench.ingredients [minutes])

Reads    ../shared/animals: labels with at least 8 recordings, fold 0 held out
Writes   runs/ingredients/, where what is done already is not done again, and prints one table; 3 seeds, same steps

Two arms hear every other recording of ../shared/animals/noise; their false alarms are counted on the rest.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from bench.arms import Arm, print_arms, run_arms
from bench.baseline import ANIMALS
from config import SCRATCH

RUNS, SEEDS = Path("runs/ingredients"), (0, 1, 2)
NOISE, HEARD, REST = str(ANIMALS / "noise"), SCRATCH / "noise-heard", SCRATCH / "noise-rest"
SHARED = (
    *("--encoder.weights", "random", "--train.epochs", "10", "--train.choose", "last", "--train.validate_every", "10"),
    *("--train.ema", "0.99", "--augment.mixup", "0.5", "--augment.mask", "0.5"),
    *("--data.noise", NOISE),
)
ARMS = (
    Arm("the whole recipe", ()),
    Arm("without mixup", ("--augment.mixup", "0")),
    Arm("without stripes", ("--augment.mask", "0")),
    Arm("without gain", ("--augment.gain_db", "0", "0")),
    Arm("without roll", ("--augment.roll", "0")),
    Arm("without short calls left alone", ("--augment.isolate", "0")),
    Arm("without EMA", ("--train.ema", "0")),
    Arm("without balance", ("--data.balance", "0")),
    Arm("without distances", ("--loss.alpha", "0")),
    Arm("without dropout", ("--head.dropout", "0")),
    Arm("with a frozen encoder", ("--train.frozen",)),
    Arm("with attention over moments", ("--head.pooling", "attention")),
    Arm("with the last layer alone", ("--head.layers", "1")),
    Arm("with half of the loss on the best moment", ("--loss.moments", "0.5")),
    Arm("with up to three sources", ("--augment.sources", "3")),
    Arm("with splices", ("--augment.splice", "0.3")),
    Arm("with random filters", ("--augment.filter", "0.3")),
    Arm("with background noise", ("--augment.background", str(HEARD), "--data.noise", str(REST))),
    Arm("with no-call recordings", ("--data.no_call", str(HEARD), "--data.noise", str(REST))),
    Arm("with windows chosen by energy", ("--data.window", "energy")),
)
COLUMNS = ("macro_auc", "cmap", "top1", "macro_f1", "mistake_distance", "false_alarms_per_hour_at_0.5")


def deal_noise() -> None:
    """Copies of all recordings of noise, in turn to be heard and to be judged by."""
    for number, path in enumerate(sorted(path for path in (ANIMALS / "noise").rglob("*") if path.is_file())):
        folder = REST if number % 2 else HEARD
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / path.name).is_file():  # a copy with a new time would be taken for another recording
            shutil.copyfile(path, folder / path.name)


if __name__ == "__main__":
    deal_noise()
    run_arms(RUNS, ARMS, SHARED, SEEDS, float(sys.argv[1]) if len(sys.argv) > 1 else 180.0)
    print_arms(RUNS, ARMS, SEEDS, COLUMNS)
