"""The page of bad inputs lists the cases of the tests."""

from __future__ import annotations

from bad_inputs import PAGE, page


def test_the_page_of_bad_inputs_is_up_to_date() -> None:
    text = page()
    assert PAGE.read_text(encoding="utf-8") == text, "run: python tests/docs/bad_inputs.py"
    assert sum(line.startswith("| adapter |") for line in text.splitlines()) >= 40
    assert sum(line.startswith("| ") for line in text.splitlines()) >= 80
