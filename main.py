"""Stage 2: fine-tune the encoder and a new head on labelled recordings.

    python main.py --data.root data/birdclef-2025 --encoder.weights runs/mae/encoder.safetensors

Reads    labelled recordings in any layout of sources.py, or recordings.csv; encoder.safetensors or a Whisper checkpoint
Writes   runs/finetune/: classifier.safetensors, held_out_scores.csv, metrics.jsonl, curves.png, run.json
"""

from __future__ import annotations

from checkpoint import ClassifierFacts, load_encoder, stage_one
from config import FinetuneCommand
from data_loader import labeled_loader, read_labeled, split
from device import prepare_device
from model import BirdClefClassifier
from runs import launch, open_run
from trainer import train_classifier


def finetune(config: FinetuneCommand) -> int:
    """The whole of stage 2; returns the exit code."""
    device = prepare_device(config.run)
    encoder = load_encoder(config.encoder, config.audio)
    taxonomy, recordings = read_labeled(config.data)
    train, valid = split(recordings, config.data)
    before = stage_one(config.encoder.weights)
    same_root = before.get("data") == str(config.data.root.resolve())
    assert not same_root or before["held_out_fold"] == config.data.valid_fold, (
        f"{config.encoder.weights} was adapted on what this run would hold out; add --data.valid_fold "
        f"{before['held_out_fold']}, or repeat ssl_mae.py with --data.valid_fold {config.data.valid_fold}"
    )
    missing = sorted(set(taxonomy.labels) - {row.labels[0] for row in train if row.labels})
    assert not missing, f"{len(missing)} species have no training recording: {missing[:5]}; raise --data.min_recordings"
    unseen = [label for label in taxonomy.labels if not any(label in row.labels for row in valid)]
    rest = f"; trained, but not in the held-out fold: {', '.join(unseen[:10])}" if unseen else ""
    print(f"{len(taxonomy.labels) - len(unseen)} of {len(taxonomy.labels)} species can be validated{rest}")
    loader = labeled_loader(train, taxonomy, config.data, config.audio, config.train.batch_size, config.run.seed)
    if config.train.encoder_rate == 0:
        encoder.requires_grad_(False)
        print("the encoder is frozen, the head alone learns (--train.encoder_rate 0)")
    model = BirdClefClassifier(
        encoder, config.audio, len(taxonomy.labels), config.head.pooling, config.head.dropout
    ).to(device)
    with open_run("finetune", config.run.root, config) as run:
        provenance: dict[str, object] = {
            "run": run.folder.name,
            "data": str(config.data.root),
            "encoder": config.encoder.weights,
        }
        facts = ClassifierFacts(config.encoder.size, config.audio, config.head.pooling, taxonomy, provenance)
        path = train_classifier(model, loader, valid, facts, config, run, device)
    print(f"wrote {path}; next: python quantize.py --classifier {path}")
    return 0


if __name__ == "__main__":
    launch(finetune, FinetuneCommand)
