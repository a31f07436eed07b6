"""Find the text and label columns of a table by their names."""

from __future__ import annotations

from collections.abc import Sequence

from loralet.errors import DataError

TEXT_NAMES = (
    "text", "sentence", "content", "review", "document", "body", "message", "query", "tweet", "comment", "question",
    "utterance", "post", "article", "complaint", "ticket", "feedback", "email", "transcript", "phrase",
)  # fmt: skip
TITLE_NAMES = ("title", "headline", "subject")
DESCRIPTION_NAMES = ("description", "abstract", "summary")
OTHER_TEXT_NAMES = ("text_pair", "text2", "text_2", "sentence2", "sentence_2", "question2", "premise", "hypothesis")
"""Names of a second text, whose presence makes a table ambiguous; none of them is the text on its own."""
TEXTS = frozenset((*TEXT_NAMES, *TITLE_NAMES, *DESCRIPTION_NAMES))
"""All names of text columns."""
LABEL_NAMES = ("label", "labels", "class", "class index", "class_index", "target", "label_text")
"""Names of the label column, in order of preference."""
CLASS_NAMES = ("category", "topic", "intent", "queue", "sentiment", "emotion", "class_name", "label_name", "department")
"""Names of columns that contain classes, of which a table may have several."""
LABELS = frozenset((*LABEL_NAMES, *CLASS_NAMES))
HINT = "or use --columns if the file has no header row"


def find_text(source: str, names: Sequence[str], given: str) -> list[str]:
    """The columns whose contents are joined to the text.

    Args:
        source: the file, for messages.
        names: all column names.
        given: the column that the user named, or several joined by +; empty to find it.

    Raises:
        DataError: no such column, none with a usual name, or several.
    """
    if given:
        chosen = [given] if given in names or "+" not in given else [part.strip() for part in given.split("+")]
        return [_existing(source, names, name) for name in chosen]
    found = _usual(names, (*TEXT_NAMES, *TITLE_NAMES, *DESCRIPTION_NAMES))
    folded = [name.strip().lower() for name in found]
    pair = len(found) == 2 and folded[0] in TITLE_NAMES and folded[1] in DESCRIPTION_NAMES
    others = _usual(names, OTHER_TEXT_NAMES) if found else []
    if pair and not others:
        return found
    if len(found) + len(others) > 1:
        plausible = [name for name in names if name in (*found, *others)]
        raise DataError(
            f"{source}: {_listed(plausible)} may be the text; choose with --text-column, for example "
            f"--text-column {_quoted(plausible[0])}, or --text-column {_quoted('+'.join(plausible[:2]))} to join two"
        )
    if found:
        return found
    usual = ", ".join((*TEXT_NAMES, *TITLE_NAMES, *DESCRIPTION_NAMES))
    raise DataError(
        f"{source}: no text column found (known names: {usual}); the columns are {', '.join(names)}. "
        f"Name it with --text-column, {HINT}"
    )


def find_label(source: str, names: Sequence[str], given: str) -> str:
    """The label column; arguments and errors as for :func:`find_text`."""
    if given:
        return _existing(source, names, given)
    found = _usual(names, LABEL_NAMES)
    if found:
        return found[0]
    found = _usual(names, CLASS_NAMES)
    if len(found) > 1:
        raise DataError(f"{source}: {_listed(found)} may be the label; choose one with --label-column")
    if found:
        return found[0]
    raise DataError(
        f"{source}: no label column found (known names: {', '.join((*LABEL_NAMES, *CLASS_NAMES))}); "
        f"the columns are {', '.join(names)}. Name it with --label-column, {HINT}"
    )


def _usual(names: Sequence[str], usual: Sequence[str]) -> list[str]:
    """The columns with usual names, in the order of those."""
    by_lower = {name.lower().strip(): name for name in reversed(names)}
    return [by_lower[name] for name in usual if name in by_lower]


def _existing(source: str, names: Sequence[str], name: str) -> str:
    if name in names:
        return name
    alike = next((other for other in names if other.strip().lower() == name.strip().lower()), None)
    hint = f" (did you mean {alike!r}?)" if alike is not None else ""
    raise DataError(f"{source}: no column {name!r}{hint}; the columns are {', '.join(names)}")


def _listed(names: Sequence[str]) -> str:
    shown = [f"column {name!r}" for name in names]
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def _quoted(name: str) -> str:
    return f'"{name}"' if " " in name else name
