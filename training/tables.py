"""Reads the CSV files of `training/data` into named columns of numbers or words."""

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Words = NDArray[np.str_]

FOLDER = Path(__file__).resolve().parent / "data"


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of one file, as the words that stand in it; an empty cell is an empty word.

    Each column has shape (n_rows,). Nothing is verified beyond equal row lengths.
    """

    columns: dict[str, Words]
    n_rows: int

    def words(self, name: str) -> Words:
        """One column as text, shape (n_rows,). Raises KeyError for an unknown name."""
        return self.columns[name]

    def numbers(self, name: str) -> Floats:
        """One column as numbers, shape (n_rows,); an empty cell is NaN. Raises ValueError if a cell is a word."""
        return np.array([float(cell) if cell else np.nan for cell in self.columns[name]], dtype=np.float64)

    def matrix(self, names: list[str]) -> Floats:
        """Several number columns side by side, shape (n_rows, len(names))."""
        return np.column_stack([self.numbers(name) for name in names])

    def keep(self, rows: NDArray[np.bool_]) -> "Table":
        """The same table with only the rows marked true; `rows` has shape (n_rows,)."""
        return Table({name: cells[rows] for name, cells in self.columns.items()}, int(rows.sum()))


def read(file_name: str) -> Table:
    """Read `training/data/<file_name>` (.csv or .csv.gz). Raises ValueError if a row has the wrong length."""
    path = FOLDER / file_name
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    header, *rows = list(csv.reader(text.splitlines()))
    columns = list(zip(*rows, strict=True))
    if len(columns) != len(header):
        raise ValueError(f"{file_name}: {len(header)} names over {len(columns)} columns")
    return Table({name: np.array(cells, dtype=np.str_) for name, cells in zip(header, columns, strict=True)}, len(rows))
