from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.path.harness import DataPath


@pytest.fixture
def make_path(tmp_path: Path) -> Iterator[Callable[..., DataPath]]:
    """Makes data paths on one outbox file, one after the other; closed at the end."""
    made: list[DataPath] = []

    def make(**options: Any) -> DataPath:
        made.append(DataPath(tmp_path, **options))
        return made[-1]

    yield make
    for path in made:
        path.close()


@pytest.fixture
def path(make_path: Callable[..., DataPath]) -> DataPath:
    return make_path()
