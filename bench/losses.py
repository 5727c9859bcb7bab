"""What each loss is worth: cmAP, AUC at every rank, how far off the mistakes are, with the controls.

    make bench-losses          (or: .venv/bin/python -m bench.losses [minutes])

Reads    ../shared/animals: labels with at least 8 recordings, fold 0 held out
Writes   runs/losses/, where what is done already is not done again, and prints one table; 3 seeds, same steps for all

The first arm is plain binary cross-entropy. Three columns are taxonomic distances: of the best answer, of the least
costly answer that the same scores give (the decision-time alternative to a loss that knows the tree), and of the false
alarms at a recall of one half. `shuffled` has a tree whose species are permuted: what survives there is no taxonomy.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.arms import Arm, print_arms, run_arms

RUNS, SEEDS = Path("runs/losses"), (0, 1, 2)
SHARED = (
    *("--encoder.weights", "random", "--train.epochs", "10", "--train.choose", "last", "--train.validate_every", "10"),
    *("--train.ema", "0.99"),
)
ARMS = (
    Arm("bce", ("--loss.alpha", "0")),
    Arm("bce, distances, alpha 1", ("--loss.alpha", "1")),
    Arm("bce, distances, alpha 4", ("--loss.alpha", "4")),
    Arm("bce, shuffled, alpha 4", ("--loss.alpha", "4", "--loss.shuffle")),
    Arm("bce, hard, alpha 4", ("--loss.alpha", "4", "--loss.mode", "hard")),
    Arm("bce, soft, alpha 4", ("--loss.alpha", "4", "--loss.mode", "soft")),
    Arm("bce, ancestors absent (flat)", ("--loss.alpha", "0", "--loss.ancestors", "flat")),
    Arm("bce, ancestors implied", ("--loss.alpha", "0", "--loss.ancestors", "imply")),
    Arm("ce", ("--loss.kind", "ce")),
    Arm("focal", ("--loss.kind", "focal", "--loss.alpha", "0")),
    Arm("asymmetric", ("--loss.kind", "asymmetric", "--loss.alpha", "0")),
    Arm("soft AUC", ("--loss.kind", "soft_auc")),
    Arm("bce, smoothing .05", ("--loss.alpha", "0", "--loss.smoothing", "0.05")),
    Arm("bce, half on the best moment", ("--loss.alpha", "0", "--loss.moments", "0.5")),
    Arm("bce, class weights 1/count", ("--loss.alpha", "0", "--loss.class_weights", "inverse")),
    Arm("bce, class weights sqrt", ("--loss.alpha", "0", "--loss.class_weights", "sqrt")),
)
COLUMNS = (
    "macro_auc",
    "cmap",
    "top1",
    "macro_f1",
    "auc_class",
    "auc_order",
    "auc_family",
    "auc_genus",
    "mistake_distance",
    "least_cost_distance",
    "false_positive_severity",
)

if __name__ == "__main__":
    run_arms(RUNS, ARMS, SHARED, SEEDS, float(sys.argv[1]) if len(sys.argv) > 1 else 120.0)
    print_arms(RUNS, ARMS, SEEDS, COLUMNS)
