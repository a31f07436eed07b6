"""More texts than there are: the beginning of one joined to the end of another, some tokens replaced. The teacher can be asked about any of them."""

from __future__ import annotations

import numpy as np

from loralet.data.tokens import Tokens

REPLACED = 0.1
"""Share of a mixture's tokens that are replaced by tokens drawn evenly from the vocabulary: those that the texts hardly have are learned too."""


def with_mixtures(
    tokens: Tokens, rows: np.ndarray, copies: int, vocabulary: int, longest: int, seed: int
) -> tuple[Tokens, np.ndarray]:
    """Rows and, after them, ``copies`` mixtures that begin as each of the chosen rows does.

    A mixture is a row up to a random place and another row from a random place on, cut to ``longest`` tokens, with the special tokens at both
    ends. A student that sees a text only as it stands learns it by heart: what it says of that text comes closer to the teacher than what it
    says of a new one.

    Args:
        tokens: rows of which the first and the last token are special.
        rows: the rows to mix, and none but them.
        copies: mixtures made of each of them.
        vocabulary: tokens that a replacement is drawn from.
        longest: tokens kept of a mixture, special tokens included.
        seed: of the draw.

    Returns:
        The rows, old ones first, and the numbers of ``rows`` and of their mixtures.
    """
    generator = np.random.default_rng([seed, copies])
    ids, starts = [tokens.ids], [tokens.starts]
    first = np.tile(rows, copies)
    second = generator.permuted(np.tile(rows, (copies, 1)), axis=1).ravel()
    places = generator.random((2, len(first)))
    mixed = [
        _mixture(
            tokens.ids[tokens.starts[a] : tokens.starts[a + 1]],
            tokens.ids[tokens.starts[b] : tokens.starts[b + 1]],
            places[:, i],
            longest,
        )
        for i, (a, b) in enumerate(zip(first, second, strict=True))
    ]
    lengths = np.fromiter(map(len, mixed), np.int64, len(mixed))
    if mixed:
        ends = np.cumsum(lengths)
        flat = np.concatenate(mixed)
        inner = generator.random(len(flat)) < REPLACED
        inner[ends - 1] = inner[ends - lengths] = False
        flat[inner] = generator.integers(vocabulary, size=int(inner.sum()))
        ids.append(flat)
        starts.append(tokens.starts[-1] + ends)
    return Tokens(np.concatenate(ids), np.concatenate(starts)), np.concatenate(
        [rows, len(tokens) + np.arange(len(mixed))]
    )


def _mixture(a: np.ndarray, b: np.ndarray, places: np.ndarray, longest: int) -> np.ndarray:
    end, start = 1 + int(places[0] * (len(a) - 1)), 1 + int(places[1] * (len(b) - 2))
    joined = np.concatenate([a[:end], b[start:]])
    if len(joined) > longest:
        joined = np.concatenate([joined[: longest - 1], b[-1:]])
    return joined
