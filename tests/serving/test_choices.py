"""What counts as a detection: thresholds from the model, the flag and the file, and whether a species was validated."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from config import AudioSettings, PredictCommand, part_of
from evaluation.calibration import UNVALIDATED, Threshold, Thresholds
from serving.choices import (
    ChoiceSettings,
    choose_detections,
    listed_species,
    model_hash,
    species_of_groups,
    validated_species,
)
from serving.scorer import Scorer
from taxonomy import Taxonomy

KIN = ("Animalia", "Chordata", "Amphibia", "Anura", "Fictidae", "Rana")
FROGS = Taxonomy(("41", "42"), ("Rana ficta", "Rana falsa"), ("frog", "toad"), ((*KIN, "a"), (*KIN, "b")), (7, 7))


def model(limits: Sequence[float], positives: int = 40, sha256: str = "aa") -> Scorer:
    """A file with these thresholds, and so many held-out recordings of each species."""
    note = "" if positives else UNVALIDATED
    thresholds = tuple(
        Threshold(label, limit, 0.0, None, 0.0, 0.0, positives, 20, note)
        for label, limit in zip(FROGS.labels, limits, strict=bool(limits))
    )
    return Scorer(
        lambda _: {},
        Path("toy"),
        AudioSettings(),
        FROGS,
        "float32",
        True,
        sha256,
        Thresholds(thresholds, {"genus": 0.6}),
        1,
        "",
    )


def thresholds_of(settings: ChoiceSettings, *scorers: Scorer) -> list[float]:
    return [round(float(limit), 6) for limit in choose_detections(settings, scorers).thresholds]


def test_thresholds_come_from_the_model_the_flag_and_the_file_in_this_order(tmp_path: Path) -> None:
    scorer, table = model([0.25, 0.75]), tmp_path / "thresholds.csv"
    table.write_text(f"label,threshold,model\n42,0.9,{scorer.sha256}\n")
    assert thresholds_of(ChoiceSettings(), scorer) == [0.25, 0.75]
    assert thresholds_of(ChoiceSettings(min_conf=0.7), scorer) == [0.7, 0.7]
    assert thresholds_of(ChoiceSettings(min_conf=0.7, thresholds=table), scorer) == [0.7, 0.9]
    assert thresholds_of(ChoiceSettings(top_n=2), scorer) == [0.0, 0.0]
    assert thresholds_of(ChoiceSettings(top_n=2, min_conf=0.7), scorer) == [0.7, 0.7]
    assert thresholds_of(ChoiceSettings(), model([])) == [0.25, 0.25]


def test_of_several_models_the_mean_threshold_counts_and_one_that_nothing_reaches_stays_so() -> None:
    assert thresholds_of(ChoiceSettings(), model([0.25, 1.0]), model([0.75, 1.0])) == [0.5, float("inf")]
    assert thresholds_of(ChoiceSettings(), model([0.5, 0.9]), model([0.8, 0.9])) == [pytest.approx(2 / 3), 0.9]


def test_no_others_have_the_digest_of_several_models_and_one_keeps_its_own() -> None:
    one, two, three = (model([0.5, 0.5], sha256=name * 64) for name in "abc")
    several = [model_hash(scorers)[:16] for scorers in ([one], [one, two], [one, three], [two, one], [one, two, three])]
    assert len(set(several)) == 5 and several[0] == "a" * 16


def test_of_several_models_the_worst_counts_and_one_that_says_nothing_leaves_it_open() -> None:
    many, none, silent = model([0.5, 0.5], 40), model([0.5, 0.5], 0), model([])
    assert validated_species([many]) == ["yes"] * 2 and validated_species([many, none]) == ["never"] * 2
    assert validated_species([many, silent]) == validated_species([silent, none]) == [""] * 2


def test_a_doubtful_species_is_counted_where_it_is_wanted_and_only_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.txt").write_text("41\n")
    choose_detections(ChoiceSettings(slist=tmp_path / "list.txt"), [model([0.5, 0.5], 0)])
    assert "of 1 species 1 were never validated: they are marked" in capsys.readouterr().out


def test_a_list_is_taken_in_any_of_the_usual_ways_to_name_a_species(tmp_path: Path) -> None:
    for line in ("42", "Rana falsa", "Rana falsa_toad", "toad"):
        (tmp_path / "list.txt").write_text(line + "\n")
        assert listed_species(tmp_path / "list.txt", strict=True, taxonomy=FROGS).tolist() == [False, True]


def test_answers_above_the_species_are_given_on_request_alone() -> None:
    assert choose_detections(ChoiceSettings(), [model([0.5, 0.5])]).ranks == {}
    assert choose_detections(ChoiceSettings(ranks=True), [model([0.5, 0.5])]).ranks == {"genus": 0.6}


@pytest.mark.parametrize("settings", [{"min_conf": 1.5}, {"min_conf": float("nan")}, {"top_n": -1}, {"strict": True}])
def test_a_setting_that_makes_no_sense_is_refused_by_its_flag(settings: dict[str, object]) -> None:
    config = replace(PredictCommand(()), **settings)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    with pytest.raises(AssertionError, match=f"^--{next(iter(settings))} "):
        part_of(ChoiceSettings, config)


def test_a_choice_takes_the_flags_of_its_own_names() -> None:
    config = PredictCommand((), min_conf=0.5, top_n=3, ranks=True)
    assert part_of(ChoiceSettings, config) == ChoiceSettings(min_conf=0.5, top_n=3, ranks=True)


TREE = Taxonomy(
    ("tit", "owl", "frog", "bird"),
    ("Parus major", "Strix aluco", "Rana ficta", "Aves"),
    ("Great tit", "Tawny owl", "frog", "bird"),
    (
        ("Animalia", "Chordata", "Aves", "Passeriformes", "Paridae", "Parus", "Parus major"),
        ("Animalia", "Chordata", "Aves", "Strigiformes", "Strigidae", "Strix", "Strix aluco"),
        ("Animalia", "Chordata", "Amphibia", "Anura", "Ranidae", "Rana", "Rana ficta"),
        ("Animalia", "Chordata", "Aves", "?bird order", "?bird family", "?bird genus", "?bird"),
    ),
    (7, 7, 7, 3),
)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("birds",), ["tit", "owl", "bird"]),
        (("Frogs",), ["frog"]),
        (("owls", "frogs"), ["owl", "frog"]),
        (("passeriformes",), ["tit"]),
        (("Ranidae", "strix"), ["owl", "frog"]),
        (("Chordata",), ["tit", "owl", "frog", "bird"]),
    ],
)
def test_groups_are_named_in_plain_words_or_by_any_taxon(words: tuple[str, ...], wanted: list[str]) -> None:
    columns = species_of_groups(words, TREE)
    assert [label for label, own in zip(TREE.labels, columns, strict=True) if own] == wanted


def test_a_group_without_a_species_of_the_model_is_refused_with_those_there_are() -> None:
    with pytest.raises(AssertionError) as refusal:
        species_of_groups(("birds", "bats"), TREE)
    assert str(refusal.value) == (
        "--only bats: no species of the model belongs to Chiroptera; it knows Amphibia, Anura, Aves, Passeriformes, "
        "Strigiformes"
    )


def test_a_group_and_a_list_go_together_and_must_have_something_in_common(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("toad\n")
    scorer = model([0.5, 0.5])
    both = choose_detections(ChoiceSettings(slist=listed, only=("frogs",)), [scorer])
    assert both.wanted.tolist() == [False, True]
    other = replace(scorer, taxonomy=replace(FROGS, lineages=(FROGS.lineages[0], TREE.lineages[0])))
    with pytest.raises(AssertionError, match="--only frogs: none of these is on"):
        choose_detections(ChoiceSettings(slist=listed, only=("frogs",)), [other])
