"""The arithmetic of a budget: whether so many hours of sound can be scored in so many minutes of this CPU, and which
encoder could.

    yes, words = fits(speed, BudgetSettings(minutes=90, audio_hours=11.7, memory_gb=2))

Reads    probe.json of probe.py, where there is one: at what cmAP a shallower encoder would do
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from config import PRESETS, SIZES, AudioSettings, BudgetSettings, EncoderSize, Preset, encoder_size, size_in_words
from runtime.files import read_json
from runtime.terminal import show
from serving import scorer as scoring
from serving.speed import Speed
from training.checkpoint import ClassifierFacts

BYTES_EACH = {"ONNX INT8": 1.3, "ONNX float32": 6.0, "OpenVINO": 10.0}  # peak memory, of a weight


@dataclass(frozen=True)
class Fit:
    """Whether the machine of the budget can serve the model."""

    served_as: str
    fits: bool
    words: str
    largest: Preset | None
    rates: Mapping[Preset, float]  # times real time that are expected of every size


def fit_budget(
    speeds: Mapping[tuple[str, int], Speed],
    facts: ClassifierFacts,
    budget: BudgetSettings,
    refused: bool,
    depths: Mapping[int, float],
    members: int = 1,
) -> Fit:
    """Whether the budget suffices for the file that is kept, printed with what else would fit.

    speeds    by way of serving and number of threads, of which the most count
    depths    what probe.py says: cmAP by depth
    members   classifiers that the file blends
    """
    threads = max(threads for _, threads in speeds)
    served_as = quickest_way(speeds, threads, refused)
    speed = speeds[served_as, threads]
    fitting, words = fits(speed, budget)
    show(f"as {served_as}{', as INT8 is refused' if refused else ''}: {words}")
    if members > 1:
        if not fitting:
            advice = fewer_members(speed, budget, members)
            show(advice)
            words = f"{words}; {advice}"
        return Fit(served_as, fitting, words, None, {})
    if not fitting:
        advice = smaller_one(speed, served_as, threads, facts, budget, depths)
        show(advice)
        words = f"{words}; {advice}"
    if facts.picture:  # what other sizes would take is known of Whisper's alone
        return Fit(served_as, fitting, words, None, {})
    largest, rates = largest_that_fits(speed, facts.encoder, budget, facts.audio, BYTES_EACH[served_as])
    show(f"largest size that would fit, estimated from this one: {largest or 'none'}")
    return Fit(served_as, fitting, words, largest, rates)


def fewer_members(speed: Speed, budget: BudgetSettings, members: int) -> str:
    """How many members would fit in the time, if each takes the same share of it, in a sentence; where memory is short
    nothing is said of how many, as what they share of it is not known."""
    minutes = budget.audio_hours * 60 / speed.times_real_time
    fitting = min(members - 1, math.floor(members * budget.minutes / minutes))
    short = f"{members} members do not fit {budget.minutes:g} minutes and {budget.memory_gb:g} GB; "
    if speed.peak_memory_mb / 1000 > budget.memory_gb:
        return f"{short}fewer or smaller ones take less memory"
    return short + (
        f"{fitting} may, and members with the same frozen encoder cost hardly more than one" if fitting else "none does"
    )


def fits(speed: Speed, budget: BudgetSettings) -> tuple[bool, str]:
    """Whether so much sound can be scored in the time and memory, and the figures in words."""
    needed = budget.audio_hours * 60 / speed.times_real_time
    gigabytes = speed.peak_memory_mb / 1000
    yes = needed <= budget.minutes and gigabytes <= budget.memory_gb
    return yes, (
        f"{budget.audio_hours:g} h of sound take {needed:.1f} of {budget.minutes:g} minutes and {gigabytes:.2f} of "
        f"{budget.memory_gb:g} GB: {'fits' if yes else 'does not fit'}"
    )


def largest_that_fits(
    speed: Speed,
    measured: EncoderSize,
    budget: BudgetSettings,
    audio: AudioSettings | None = None,
    bytes_each: float = 1.3,
) -> tuple[Preset | None, dict[Preset, float]]:
    """The largest encoder that would fit the budget with all its layers, estimated from the speed of one (`expected`).

    returns   its name, and the times real time that are expected of every size
    """
    pooled = {preset: replace(SIZES[preset], pool=measured.pool) for preset in PRESETS}
    others = {preset: expected(speed, measured, pooled[preset], audio, bytes_each) for preset in PRESETS}
    fitting: list[Preset] = [preset for preset in PRESETS if fits(others[preset], budget)[0]]
    rates: dict[Preset, float] = {preset: others[preset].times_real_time for preset in PRESETS}
    return (fitting[-1] if fitting else None), rates


def deepest_that_fits(
    speed: Speed,
    measured: EncoderSize,
    budget: BudgetSettings,
    audio: AudioSettings | None = None,
    bytes_each: float = 1.3,
) -> int:
    """How many of the lowest layers of the same encoder would fit the budget, 0 where none do; estimated in the same
    way."""
    for layers in range(measured.layers, 0, -1):
        other = expected(speed, measured, replace(measured, layers=layers), audio, bytes_each)
        if fits(other, budget)[0]:
            return layers
    return 0


def expected(
    speed: Speed, measured: EncoderSize, other: EncoderSize, audio: AudioSettings | None, bytes_each: float
) -> Speed:
    """What another encoder would take: time by multiplications, memory by the weights that it has more or less."""
    audio = audio or AudioSettings()
    of_context = (audio.frames // 2, audio.fft_samples)
    slower = multiplications(other, *of_context) / multiplications(measured, *of_context)
    more = bytes_each * (weights(other) - weights(measured)) / 1e6
    return Speed(
        speed.milliseconds_per_window * slower,
        speed.times_real_time / slower,
        speed.peak_memory_mb + math.floor(more),
        speed.start_seconds,
    )


def multiplications(size: EncoderSize, tokens: int, fft: int = 400) -> float:
    """Of a context of so many tokens: front end, stem and layers.

    fft   samples of each Fourier transform
    """
    half = fft // 2
    front_end = 2 * tokens * (2 * half * (half + 1) + (half + 1) * size.mels)
    stem = 2 * tokens * 3 * size.mels * size.width + tokens * 3 * size.width**2
    pooled = tokens / size.pool
    return float(front_end + stem + size.layers * (12 * pooled * size.width**2 + 2 * pooled**2 * size.width))


def weights(size: EncoderSize) -> float:
    """Parameters of an encoder."""
    return float(size.layers * 12 * size.width**2 + 3 * size.width * (size.mels + size.width) + 1500 * size.width)


def quickest_way(speeds: Mapping[tuple[str, int], Speed], threads: int, refused: bool) -> str:
    """How predictor.py should serve it: ONNX Runtime with the file that was kept, unless OpenVINO is clearly quicker,
    by the same rule as its --engine auto."""
    ours = "ONNX float32" if refused else "ONNX INT8"
    other = speeds.get(("OpenVINO", threads))
    quicker = other and other.milliseconds_per_window < scoring.FASTER * speeds[ours, threads].milliseconds_per_window
    return "OpenVINO" if quicker else ours


def probed_depths(path: Path, facts: ClassifierFacts) -> dict[int, float]:
    """Depth -> cmAP of the layers down to it, as probe.py found it for the encoder of a classifier; empty where it was
    not asked."""
    card = read_json(path, "`python probe.py` writes it anew") if path.is_file() else {}
    if (
        facts.picture
        or card.get("pool", 1) != facts.pool
        or card.get("size") != facts.size
        or card.get("weights") != facts.provenance.get("encoder")
    ):
        return {}
    return {int(row["depth"]): float(row["cmap"]) for row in card["layers_1_to"]}


def smaller_one(
    speed: Speed,
    served_as: str,
    threads: int,
    facts: ClassifierFacts,
    budget: BudgetSettings,
    depths: Mapping[int, float],
) -> str:
    """Which depth would fit where an encoder does not, in a sentence: the best that probe.py has judged, else the
    deepest; and whether all of it would with its tokens in pairs.

    depths   what probe.py says: cmAP by depth
    """
    if facts.picture:
        return f"{facts.words} does not fit; take a smaller network, or lower --audio.mels or --audio.sample_rate"
    deepest = deepest_that_fits(speed, facts.encoder, budget, facts.audio, BYTES_EACH[served_as])
    within = f"{budget.minutes:g} minutes and {budget.memory_gb:g} GB on {threads} core{'s' if threads > 1 else ''}"
    text = f"{size_in_words(facts.size, facts.encoder.layers, facts.pool)} does not fit {within}; "
    pairs = expected(speed, facts.encoder, replace(facts.encoder, pool=2), facts.audio, BYTES_EACH[served_as])
    pooled = facts.pool == 1 and facts.audio.window_tokens % 2 == 0 and fits(pairs, budget)[0]
    also = "; all of it would with its tokens in pairs (--encoder.pool 2)" if pooled else ""
    if not deepest:
        return f"{text}no depth of it would{also}"
    judged = {depth: value for depth, value in depths.items() if depth <= deepest}
    if not judged:
        return f"{text}depth {deepest} would; `python probe.py` says at what cmAP{also}"
    depth = max(judged, key=lambda depth: (judged[depth], -depth))
    most = max(depths)
    return (
        f"{text}depth {depth} would, at cmAP {judged[depth]:.3f} (probe.py; {depths[most]:.3f} at depth {most}){also}"
    )


if __name__ == "__main__":
    fast, base = Speed(12.0, 417.0, 400, 0.9), encoder_size("base", 0)
    print(fits(fast, BudgetSettings())[1])
    best, rates = largest_that_fits(fast, base, BudgetSettings())
    print(f"largest that fits: {best};", ", ".join(f"{name} {rate:.0f} x" for name, rate in rates.items()))
    assert best is not None and rates["small"] < rates["base"] < rates["tiny"]
    assert 0 < deepest_that_fits(fast, base, BudgetSettings(minutes=1.2)) < base.layers
