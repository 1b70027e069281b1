"""Minari's datasets in Arrow and Parquet, laid out for reading as its HDF5 file is.

    data/
        metadata.json       data_format and observation_space, among others
        0/part-0.arrow      T + 1 rows of an episode, of which the last one's action is none

An episode is in memory at a time, its pictures as they are stored. The packages Minari and
Gymnasium are not asked: they would make the environment that a dataset names.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from midas_world.packages import needs

TABLE_FORMATS = ("arrow", "parquet")


class MinariTables(Mapping[str, Any]):
    """Episodes by name ("episode_0"), each with its columns by name.

    Raises:
        ImportError: pyarrow is not installed.
    """

    def __init__(self, folder: Path, metadata: Mapping[str, Any]) -> None:
        with needs("a Minari dataset in Arrow or Parquet", extra="export"):
            from pyarrow import dataset
        self._dataset, self._folder = dataset, folder
        self._format = metadata["data_format"]
        self._space = json.loads(metadata.get("observation_space", "{}"))

    def __iter__(self) -> Iterator[str]:
        return (f"episode_{item.name}" for item in self._folder.iterdir() if item.name.isdecimal())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, name: str) -> dict[str, Any]:
        place = self._folder / name.removeprefix("episode_")
        files = sorted(str(file) for file in place.glob(f"*.{self._format}"))
        table = self._dataset.dataset(files, format=self._format).to_table()
        table.validate(full=True)  # else a damaged one can end the process
        columns = {key: table[key].combine_chunks() for key in table.column_names}
        kept = ("actions", "rewards", "terminations")
        return {"observations": _rows(columns["observations"], self._space)} | {
            key: _rows(columns[key], {})[:-1] for key in kept
        }


def _rows(column: Any, space: Mapping[str, Any]) -> Any:
    """Return a column of Arrow's as rows to be taken by number, or several by name.

    Args:
        column: Numbers, lists of numbers, JPEGs, or several of these by name.
        space: As Minari writes it; its shape is that of a row of lists.
    """
    from pyarrow import types

    if types.is_struct(column.type):
        inner = space.get("subspaces", {})
        names = [field.name for field in column.type]
        return {name: _rows(column.field(name), inner.get(name, {})) for name in names}
    if types.is_binary(column.type):
        return [np.frombuffer(row.as_buffer(), np.uint8) for row in column]
    if types.is_fixed_size_list(column.type):
        flat = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(column), *space.get("shape", (-1,)))
    return column.to_numpy(zero_copy_only=False)
