"""The vectors of one vector setting in one matrix, and their cosine similarity to a query: exact, without an index."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .row_cache import RowCopy


class VectorMatrix(RowCopy):
    """Vectors of length 1, a row each. Zero vectors have no direction and are left out, as Elasticsearch does."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self._dimensions = dimensions
        self.clear_rows()

    def clear_rows(self) -> None:
        self._row_of: dict[str, int] = {}
        self.record_ids: list[str] = []
        self._matrix = np.zeros((0, self._dimensions), dtype=np.float32)

    @staticmethod
    def most_bytes(rows: int, dimensions: int) -> int:
        """What a matrix of so many rows takes at most: it is doubled when it is full."""
        return (2 * 4 * dimensions + 200) * max(64, rows)

    @property
    def nbytes(self) -> int:
        return self._matrix.nbytes + 200 * len(self.record_ids)

    @property
    def is_fragmented(self) -> bool:
        return False

    def put_row(self, record_id: str, *payload: Any) -> None:
        """`payload`: the vector."""
        self.remove_row(record_id)
        vector = np.array(payload[0], dtype=np.float64)
        length = np.linalg.norm(vector)
        if vector.shape != (self._dimensions,) or not np.isfinite(length) or length == 0:
            return
        row = len(self.record_ids)
        if row == len(self._matrix):
            self._matrix = np.resize(self._matrix, (max(64, 2 * row), self._dimensions))
        self._matrix[row] = vector / length
        self._row_of[record_id] = row
        self.record_ids.append(record_id)

    def remove_row(self, record_id: str) -> None:
        """The last row moves into the gap."""
        row = self._row_of.pop(record_id, None)
        if row is None:
            return
        last = self.record_ids.pop()
        if last != record_id:
            self._matrix[row] = self._matrix[len(self.record_ids)]
            self.record_ids[row] = last
            self._row_of[last] = row

    def most_similar(
        self, query: npt.NDArray[np.float64], limit: int, among: set[str] | None, excluded: str | None
    ) -> list[tuple[str, float]]:
        """Up to `limit` records and their scores (1 + cosine) / 2, best first; only those in `among`, if given.

        `query` must have the right size and not be zero.
        """
        rows = np.arange(len(self.record_ids))
        if among is not None:
            rows = np.array(sorted(self._row_of[found] for found in among if found in self._row_of), dtype=np.int64)
        if excluded in self._row_of:
            rows = rows[rows != self._row_of[excluded]]
        direction = (query / np.linalg.norm(query)).astype(np.float32)
        scores = (1.0 + np.clip(self._matrix[: len(self.record_ids)] @ direction, -1.0, 1.0).astype(np.float64)) / 2.0
        best = rows[np.argsort(-scores[rows], kind="stable")[:limit]]
        return [(self.record_ids[row], float(scores[row])) for row in best]
