"""What each ingredient of stage 2 is worth on Whisper base: main.py's defaults, then the same without one of its parts.

    make bench-ingredients      (or: .venv/bin/python -m bench.ingredients [frozen|full] [fold] [minutes] [seeds ...])

Reads    ../shared/animals: labels with at least 8 recordings, one fold held out; ../shared/whisper-base
Writes   runs/ingredients/WAY-FOLD/, where what is done already is not done again, and prints one table

`frozen` fits the head on what the frozen encoder makes of the windows, a few minutes an arm; `full` fine-tunes, five
times as long, and has arms that need it. The defaults were looked at on fold 0, so the bench takes fold 1 unless told
otherwise. Half of ../shared/animals/noise is --data.no_call of every arm that does not say otherwise; false alarms are
counted in the rest.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.arms import Arm, print_arms, run_arms
from bench.baseline import ANIMALS, REST, deal_noise, require
from bench.whisper import BASE, LABELS, NO_CALL, WEIGHTS

RUNS = Path("runs/ingredients")
COLUMNS = ("macro_auc", "cmap", "top1", "macro_f1", "mistake_distance", "false_alarms_per_hour_at_thresholds")
WHOLE = Arm("the whole recipe", NO_CALL)
INPUT = (  # what the windows go through, so an arm of both ways
    Arm("without no-call recordings", ("--data.synthetic_noise", "0")),
    Arm("made-up noise in their place", ("--data.synthetic_noise", "0.1")),
    Arm("without backgrounds", (*NO_CALL, "--augment.noise", "0")),
    Arm("without short calls left alone", (*NO_CALL, "--augment.isolate", "0")),
    Arm("without mixup", (*NO_CALL, "--augment.mixup", "0")),
    Arm("without stripes", (*NO_CALL, "--augment.mask", "0")),
    Arm("without gain", (*NO_CALL, "--augment.gain_db", "0", "0")),
    Arm("without roll", (*NO_CALL, "--augment.roll", "0")),
    Arm("with up to three sources", (*NO_CALL, "--augment.sources", "3")),
    Arm("with splices", (*NO_CALL, "--augment.splice", "0.3")),
    Arm("with random filters", (*NO_CALL, "--augment.filter", "0.3")),
    Arm("with windows chosen by energy", (*NO_CALL, "--data.window", "energy")),
    Arm("without balance", (*NO_CALL, "--data.balance", "0")),
    Arm("without dropout", (*NO_CALL, "--head.dropout", "0")),
    Arm("with attention over moments", (*NO_CALL, "--head.pooling", "attention")),
    Arm("with the last layer alone", (*NO_CALL, "--head.layers", "1")),
)
MOVING = (  # what needs a moving encoder
    Arm("frozen", (*NO_CALL, "--train.frozen")),
    Arm("not blended with the start", (*NO_CALL, "--train.blend", "1")),
    Arm("without EMA", (*NO_CALL, "--train.ema", "0")),
    Arm("without the head first", (*NO_CALL, "--train.head_updates", "0", "--train.blend", "1")),
    Arm("without layer decay", (*NO_CALL, "--train.layer_decay", "1")),
    Arm("without distances", (*NO_CALL, "--loss.alpha", "0")),
    Arm("distances of a shuffled tree (control)", (*NO_CALL, "--loss.shuffle")),
    Arm("half of the loss on the best moment", (*NO_CALL, "--loss.moments", "0.5")),
)
WAYS = {"frozen": (("--train.frozen",), (WHOLE, *INPUT)), "full": ((), (WHOLE, *MOVING, *INPUT))}


def bench(way: str, fold: int, minutes: float, seeds: tuple[int, ...]) -> None:
    """Train every arm until the minutes are over, then print what is there."""
    require(ANIMALS, WEIGHTS)
    deal_noise()
    common, arms = WAYS[way]
    root = RUNS / f"{way}-{fold}"
    shared = (*BASE, *LABELS, "--data.noise", str(REST), "--data.valid_fold", str(fold), *common)
    run_arms(root, arms, shared, seeds, minutes)
    print_arms(root, arms, seeds, COLUMNS)


if __name__ == "__main__":
    bench(
        sys.argv[1] if len(sys.argv) > 1 else "frozen",
        int(sys.argv[2]) if len(sys.argv) > 2 else 1,
        float(sys.argv[3]) if len(sys.argv) > 3 else 180.0,
        tuple(int(word) for word in sys.argv[4:]) or (0, 1, 2),
    )
