"""Data augmentation for distillation: join the beginning of one text to the end of another and replace some tokens.

No labels are needed, because the teacher computes targets for any text.
"""

from __future__ import annotations

import numpy as np

from loralet.data.tokens import Tokens

REPLACED = 0.1
"""Share of a mixture's tokens replaced by tokens drawn uniformly from the vocabulary, to train rare tokens too."""


def with_mixtures(
    tokens: Tokens, rows: np.ndarray, copies: int, vocabulary: int, longest: int, seed: int
) -> tuple[Tokens, np.ndarray]:
    """Append ``copies`` mixtures of each chosen row to the rows.

    A mixture is one row up to a random position and another row from a random position on, cut to ``longest`` tokens,
    with the special tokens at both ends. Without mixtures the student overfits: it is closer to the teacher on the
    training texts than on new ones.

    Args:
        tokens: rows whose first and last tokens are special.
        rows: numbers of the rows to mix; no other row is used.
        copies: number of mixtures per row.
        vocabulary: size of the vocabulary that replacements are drawn from.
        longest: largest number of tokens of a mixture, special tokens included.
        seed: seed of the draw.

    Returns:
        All rows, the original ones first, and the numbers of ``rows`` and of their mixtures.
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
