from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.hostile_input import world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.hostile_input import Connection


@pytest.fixture(scope="module")
def db(server: str) -> Iterator[Connection]:
    """A small database in which every table has rows."""
    with world(server) as connection:
        yield connection
