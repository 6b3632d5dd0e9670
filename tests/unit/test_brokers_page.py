"""The page on brokers says what the tests of the brokers expect."""

from __future__ import annotations

import pytest

from tests.brokers.brokers import ALL
from tests.brokers.page import EXPECTED, TABLES, tables
from tests.conftest import ROOT


@pytest.mark.parametrize("table", tables())
def test_each_table_of_the_page_has_the_cells_that_the_tests_expect(table: str) -> None:
    assert table in (ROOT / "docs" / "brokers.md").read_text(), "python -m tests.brokers.page prints the tables"


def test_each_broker_that_can_be_installed_is_measured_in_every_column() -> None:
    measured = {name: set(broker["cells"]) for name, broker in EXPECTED.items() if not broker.get("documented")}

    columns = {column for columns in TABLES.values() for column in columns}
    assert measured == dict.fromkeys(ALL, columns)
