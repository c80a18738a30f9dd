"""The figure of a reproduction's claims: every claim once, at its value, marked by how it fared."""

import pytest

from apps.browser.exports import claims


def claim(name: str, value: float | None, holds: bool | None, half: float | None = 0.1) -> dict:
    """A claim with an interval of `half` on each side."""
    ends = {"low": None, "high": None}
    if value is not None and half is not None:
        ends = {"low": value - half, "high": value + 2 * half}
    return {"claim": name, "theirs": "1", "value": value, **ends, "holds": holds}


def test_claims_stand_at_their_values_with_their_intervals_by_how_they_fared():
    given = [claim("a", 0.5, True), claim("b", -0.2, False), claim("c", 0.1, None, None)]
    drawn = claims.figure({"claims": [*given, claim("not measured", None, None)]})
    found = {trace.name: trace for trace in drawn.data if trace.y}
    assert {name: (trace.x, trace.y) for name, trace in found.items()} == {
        "holds": ((0.5,), ("a",)),
        "does not hold": ((-0.2,), ("b",)),
        "undecided": ((0.1,), ("c",)),
    }
    assert found["holds"].error_x.array == pytest.approx((0.2,))
    assert found["holds"].error_x.arrayminus == pytest.approx((0.1,))
    assert found["undecided"].error_x.array == (0,)
    symbols = {trace.marker.symbol for trace in found.values()}
    assert len(symbols) == 3, "told apart without the colour too"
    assert drawn.layout.yaxis.categoryarray == ("c", "b", "a"), "the first claim stands on top"


def test_a_number_of_another_size_has_an_axis_of_its_own_and_words_are_escaped():
    drawn = claims.figure({"claims": [claim("<b>", 0.5, True), claim("far", -17.0, True)]})
    places = {trace.y: trace.yaxis for trace in drawn.data if trace.y}
    assert places == {("&lt;b&gt;",): "y", ("far",): "y2"}
