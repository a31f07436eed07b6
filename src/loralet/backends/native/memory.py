"""Estimates of the memory of a pack, from the layout of the kernels' memory (``csrc/workspace.h``).

They cover frozen weights in the kernels' format, weights and gradients of the adapters, activations and workspaces,
for rows of equal length. The caller adds parameters and optimiser.
"""

from __future__ import annotations

from loralet.adapters.layout import Layout
from loralet.backends.native.adapted import CHUNK_TOKENS
from loralet.backends.native.branches import Branches, always_merged
from loralet.backends.native.encoder import PARTS

BLOCK_ROWS, MULTIPLE = 48, 16
"""``BLOCK_ROWS`` of ``workspace.h``, and the multiple to which ``round_up`` of ``vectors.h`` rounds."""


class Footprint:
    """The memory of a pack in bytes.

    Args:
        layout: the layout of the pack.
        rows, tokens: rows per training step, and tokens of each row.
        item: bytes per value of weights and activations.
    """

    def __init__(self, layout: Layout, rows: int, tokens: int, item: int) -> None:
        self.layout, self.table, self.read = layout, layout.shape.table, layout.shape.read
        self.rows, self.tokens, self.item, self.adapters = rows, tokens, item, len(layout.adapters)

    def training(self, evaluated: int) -> int:
        """Bytes of a training, with the checks.

        Args:
            evaluated: tokens of a batch of a check, summed over the adapters.
        """
        weights = self._frozen(backward=True) + self._adapters(dropout=True, backward=True)
        weights += self._adapters(dropout=False, backward=False)
        copies = self.adapters if self.layout.adapted else 1
        activations = self._activations(self.rows, copies, backward=True, dropout=True)
        states = copies * self._states(self.rows) * self.table.width * (2 * self.item + 8)
        width = self.rows * self.tokens * self.table.width * self.item
        return weights + activations + states + width + self._workspaces(self.rows, True) + self._batch(evaluated)

    def evaluation(self, evaluated: int) -> int:
        """Bytes of a forward pass of many rows."""
        weights = self._frozen(backward=False) + self._adapters(dropout=False, backward=False)
        return weights + self._workspaces(self._batch_rows(evaluated), False) + self._batch(evaluated)

    def _division(self, dropout: bool) -> tuple[dict[str, dict[int, int]], list[str]]:
        """Branches of each linear layer (:meth:`Branches.on`), and the linear layers with merged adapters."""
        adapters = self.layout.adapters
        branches = Branches(adapters, dropout, merge=False, merged=always_merged(self.table, self.read))
        ranks: dict[str, dict[int, int]] = {}
        for name in self.layout.adapted:
            linear = self.table.linear(name)
            ranks[name] = branches.on(name, linear.d_in, linear.d_out)
        return ranks, [
            name for name in ranks if any(name in a.linears and i not in ranks[name] for i, a in enumerate(adapters))
        ]

    def _weights(self, name: str) -> int:
        linear = self.table.linear(name)
        return linear.d_in * linear.d_out

    def _frozen(self, backward: bool) -> int:
        """The packed frozen weights, which all packs share."""
        (_, merged), table = self._division(dropout=backward), self.table
        lowest = min((int(name.split(".")[1]) for name in self.layout.adapted), default=table.layers)
        every = [(i, f"layers.{i}.{linear.name}") for i in range(table.layers) for linear in table.linears]
        last_key = f"layers.{table.layers - 1}.key"
        return sum(
            self.item * self._weights(name) * (2 if (backward and i >= lowest) or name == last_key else 1)
            for i, name in every
            if name not in merged
        )

    def _adapters(self, dropout: bool, backward: bool) -> int:
        """The packed weights of the adapters, and their gradients."""
        ranks, merged = self._division(dropout)
        dense = self.adapters * sum(map(self._weights, merged))
        factors = sum(
            sum(own.values()) * (self.table.linear(name).d_in + self.table.linear(name).d_out)
            for name, own in ranks.items()
        )
        gradients = 4 * PARTS if backward else 0
        return dense * ((1 + backward) * self.item + gradients) + factors * (2 * self.item + gradients)

    def _states(self, rows: int) -> int:
        return rows if self.read == "first" else rows * self.tokens

    def _activations(self, rows: int, copies: int, backward: bool, dropout: bool) -> int:
        """The activations of so many rows, with so many copies of the values that differ between adapters."""
        table, (ranks, _), n, item = self.table, self._division(dropout), rows * self.tokens, self.item
        d, f, padded, total = table.width, table.feed_forward, _rounded(self.tokens), 0
        for i, owned in enumerate(table.ownership(self.layout.adapted)):
            first = self.read == "first" and i == table.layers - 1
            keys = not first or any(ranks.get(f"layers.{i}.{name}") for name in ("key", "value"))
            m = rows if first else n
            attention = m * table.heads * padded * item if keys else table.heads * (2 * m * d * item + 4 * n)
            bytes_of = {
                "query": m * d * item,
                "key": n * d * item if keys else 0,
                "value": n * d * item if keys else 0,
                "context": attention + m * d * item,
                "attended": m * (d * item * (1 + backward) + 4 * backward),
                "inner": m * f * item * (1 + backward),
                "output": m * (d * item * (1 + backward) + 4 * backward),
            }
            total += sum(size * (copies if name in owned.own else 1) for name, size in bytes_of.items())
            for linear in table.linears if any(any(own.values()) for own in ranks.values()) else ():
                if ranks.get(f"layers.{i}.{linear.name}"):
                    low = n if linear.name in ("key", "value") else m
                    total += copies * low * self._branch_rank(ranks) * item
        return total

    def _branch_rank(self, ranks: dict[str, dict[int, int]]) -> int:
        return max((rank for own in ranks.values() for rank in own.values()), default=0)

    def _chunk(self, rows: int) -> int:
        """Rows of a chunk."""
        tokens = rows * self.tokens
        chunks = PARTS * max(1, round(tokens / (PARTS * CHUNK_TOKENS)))
        return min(rows, -(-tokens // (chunks * self.tokens)))

    def _workspaces(self, rows: int, backward: bool) -> int:
        """The workspaces of the threads; there are at most as many as parts."""
        table, item, (ranks, merged) = self.table, self.item, self._division(dropout=backward)
        d, widest, rank = table.width, max(table.width, table.feed_forward), self._branch_rank(ranks)
        chunk, padded = self._chunk(rows), _rounded(self.tokens)
        tokens = chunk * self.tokens
        size = 4 * BLOCK_ROWS * widest * (2 if rank else 1) + 12 * padded * (padded + d // table.heads)
        if backward:
            size += (
                tokens * (4 * d + 4 * table.heads + item * (4 * d + widest + rank)) + 2 * table.heads * chunk * d * item
            )
            size += 2 * item * tokens * max(widest, rank)
            size += item * tokens * widest if any(a.dropout for a in self.layout.adapters) else 0
        packing = max(((4 + item) * self._weights(name) for name in merged), default=0)
        return PARTS * max(size, packing)

    def _batch_rows(self, evaluated: int) -> int:
        return max(1, evaluated // self.adapters // self.tokens)

    def _batch(self, evaluated: int) -> int:
        """The values of a batch of an evaluation: input, activations of one chunk per thread, and states."""
        rows, width = self._batch_rows(evaluated), self.table.width
        chunks = PARTS * self._activations(self._chunk(rows), 1, backward=False, dropout=False)
        states = self.adapters * self._states(rows) * width * (self.item + 4)
        return chunks + states + rows * self.tokens * width * self.item


def _rounded(tokens: int) -> int:
    return -(-tokens // MULTIPLE) * MULTIPLE
