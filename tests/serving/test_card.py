"""The picture of what INT8 costs: what its fields and points say."""

import numpy as np
from matplotlib.figure import Figure

from serving.card import draw_agreement, draw_parts, draw_products
from serving.export import Recipe
from serving.sensitivity import PRODUCTS, ProductCost


def costs(layers: int) -> list[ProductCost]:
    return [ProductCost(f"layers.{k}.{name}", 0.02, 0.01, 3.0, True) for k in range(layers) for name in PRODUCTS]


def test_a_field_says_what_its_product_costs_in_the_form_it_has() -> None:
    axes = Figure().subplots()
    draw_products(axes, costs(2), Recipe({"layers.1.fc2": "too much"}, ["layers.0.fc1"]))
    said = {text.get_position(): text.get_text() for text in axes.texts}
    fc1, fc2 = PRODUCTS.index("fc1"), PRODUCTS.index("fc2")
    assert (said[fc1, 0], said[fc1, 1], said[fc2, 1]) == ("1.0 *", "2.0", "float32") and len(said) == 12
    assert "8 bits" in axes.get_title()


def test_of_many_layers_only_what_stays_in_float32_is_named() -> None:
    axes = Figure().subplots()
    draw_products(axes, costs(24), Recipe({"layers.20.fc2": "too much"}))
    assert [text.get_text() for text in axes.texts] == ["float32"]


def test_work_that_no_file_has_gets_no_bar() -> None:
    axes = Figure().subplots()
    draw_parts(axes, {"float32": {"norms": 1.0, "Gelu": 0.0}, "INT8": {"norms": 0.5, "Gelu": 0.0}})
    assert [bar.get_width() for bar in axes.patches] == [1.0, 0.5]  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType] - rectangles


def test_windows_are_counted_by_whether_both_files_name_the_same_species() -> None:
    axes = Figure().subplots()
    floats, int8 = np.array([[0.9, 0.1], [0.6, 0.4]], np.float32), np.array([[0.8, 0.1], [0.4, 0.5]], np.float32)
    draw_agreement(axes, floats, int8)
    _, same, other = axes.lines
    assert same.get_label() == "1 windows, same best species" and other.get_label() == "1 windows, another one"
    np.testing.assert_allclose(np.asarray(other.get_xydata()), [[0.6, 0.4]], atol=1e-6)
