"""Dataclasses from parsed JSON: valid values are read, and all problems are reported at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from loralet.records import plain, read_record, typed


@dataclass(frozen=True)
class Leaf:
    name: str
    size: int = 1


@dataclass(frozen=True)
class Tree:
    kind: Literal["oak", "elm"]
    height: float
    root: Leaf
    leaves: tuple[Leaf, ...] = ()
    spare: Leaf | None = None
    age: int | None = None
    mark: int | str = 0
    share: float | bool | None = None
    names: tuple[str, ...] = ()
    alive: bool = True
    noted: Annotated[str, "a note of the command line's"] = ""
    other: Leaf = field(default_factory=lambda: Leaf("other"))


GOOD: dict[str, Any] = {"kind": "oak", "height": 3, "root": {"name": "r"}}
EVERYTHING: dict[str, Any] = {
    "kind": "elm",
    "height": 2.5,
    "root": {"name": "r", "size": 2},
    "leaves": [{"name": "a"}, {"name": "b", "size": 5}],
    "spare": {"name": "s"},
    "age": 7,
    "mark": "x",
    "share": 1,
    "names": ["p", "q"],
    "alive": False,
    "noted": "n",
    "other": {"name": "o"},
}


def problems_of(raw: dict[str, Any], kind: type[Any] = Tree) -> list[str]:
    problems: list[str] = []
    assert read_record(kind, raw, problems) is None, "a record with problems is not created"
    assert problems
    return problems


def read(raw: dict[str, Any]) -> Tree:
    problems: list[str] = []
    tree = read_record(Tree, raw, problems)
    assert problems == []
    assert tree is not None
    return tree


def test_missing_keys_keep_their_defaults() -> None:
    tree = read(GOOD)
    assert tree == Tree("oak", 3.0, Leaf("r"))
    assert type(tree.height) is float


def test_all_supported_types_are_read() -> None:
    tree = read(EVERYTHING)
    assert tree == Tree(
        kind="elm",
        height=2.5,
        root=Leaf("r", 2),
        leaves=(Leaf("a"), Leaf("b", 5)),
        spare=Leaf("s"),
        age=7,
        mark="x",
        share=1.0,
        names=("p", "q"),
        alive=False,
        noted="n",
        other=Leaf("o"),
    )
    assert plain(tree) == EVERYTHING | {
        "leaves": [{"name": "a", "size": 1}, {"name": "b", "size": 5}],
        "spare": {"name": "s", "size": 1},
        "other": {"name": "o", "size": 1},
    }
    assert read(plain(tree)) == tree


def test_null_is_accepted_only_for_optional_fields() -> None:
    tree = read(GOOD | {"spare": None, "age": None, "share": None})
    assert (tree.spare, tree.age, tree.share) == (None, None, None)
    assert problems_of(GOOD | {"height": None, "root": None, "leaves": None}) == [
        "height is None: a number is expected",
        "root is None: a table is expected",
        "leaves is None: a list is expected",
    ]


def test_every_problem_is_reported_with_its_path() -> None:
    raw = {
        "kind": "ash",
        "root": {"nam": "r", "size": "big"},
        "leaves": [{"name": "a"}, {"size": 2}, "b", {"name": 3}],
        "spare": {"name": "s", "size": 1.5},
        "age": "old",
        "names": ["p", 1],
        "alive": 1,
        "colour": "green",
    }
    assert sorted(problems_of(raw)) == sorted(
        [
            "kind is 'ash': one of oak, elm is expected",
            "root.nam is not known; known here: name, size",
            "root.size is 'big': a whole number is expected",
            "root.name is missing",
            "leaves[2] is not an object",
            "leaves[1].name is missing",
            "leaves[3].name is 3: a string is expected",
            "spare.size is 1.5: a whole number is expected",
            "age is 'old': a whole number is expected",
            "names is ['p', 1]: a string is expected",
            "alive is 1: true or false is expected",
            f"colour is not known; known here: {', '.join(Tree.__dataclass_fields__)}",
            "height is missing",
        ]
    )


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("height", "3", "a number"),
        ("height", True, "a number"),
        ("height", 10**400, "a number"),
        ("height", [3.0], "a number"),
        ("age", 7.0, "a whole number"),
        ("age", True, "a whole number"),
        ("names", "p", "a list"),
        ("names", {"p": 1}, "a list"),
        ("alive", "yes", "true or false"),
        ("noted", 1, "a string"),
        ("root", "r", "a table"),
        ("root", [{"name": "r"}], "a table"),
        ("spare", 5, "a table"),
        ("leaves", {"name": "a"}, "a list"),
        ("leaves", "a", "a list"),
        ("mark", 1.5, "a whole number or a string"),
        ("share", "x", "a number or true or false"),
        ("kind", ["oak"], "one of oak, elm"),
    ],
)
def test_a_wrong_type_is_reported_with_the_expected_type(key: str, value: Any, words: str) -> None:
    assert problems_of(GOOD | {key: value}) == [f"{key} is {value!r}: {words} is expected"]


def test_a_union_accepts_each_of_its_types() -> None:
    assert read(GOOD | {"mark": 3}).mark == 3
    assert read(GOOD | {"mark": "3"}).mark == "3"
    assert read(GOOD | {"share": True}).share is True
    assert read(GOOD | {"share": 0.5}).share == 0.5
    assert typed(int | str, "a") == "a"
    with pytest.raises(TypeError, match=r"^a whole number or a string$"):
        typed(int | str, None)


def test_missing_required_fields_are_reported() -> None:
    assert problems_of({}) == ["kind is missing", "height is missing", "root is missing"]
    assert problems_of(GOOD | {"other": {}}) == ["other.name is missing"]


def test_problems_of_several_records_are_one_list() -> None:
    problems = ["an older one"]
    assert read_record(Leaf, {"name": 1}, problems, "first.") is None
    assert read_record(Leaf, {"name": "x"}, problems, "second.") == Leaf("x"), (
        "an earlier problem does not affect another record"
    )
    assert problems == ["an older one", "first.name is 1: a string is expected"]
