"""What holds for every test: its suite's mark, and how generated examples are chosen.

The rest is in pyproject.toml: asyncio mode, the time limit of 120 s a test, warnings as errors. Fixtures that start a peer
live beside the tests that use them, or in tests/support; the Kafka broker that all suites share is brought in here.
"""

from pathlib import Path

import hypothesis
import pytest

from tests.support.kafka import kafka_broker, kafka_prefix
from tests.support.tools import in_ci

__all__ = ["kafka_broker", "kafka_prefix"]

_TESTS = Path(__file__).parent
_SUITES = ("unit", "integration", "chaos")

# No deadline: how fast an example runs says nothing on a shared machine. The CI takes the same examples every time.
hypothesis.settings.register_profile("laptop", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if in_ci() else "laptop")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update` writes golden files anew instead of comparing with them; look at the difference before you commit it."""
    parser.addoption("--update", action="store_true", help="write the golden files anew")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written."""
    return bool(request.config.getoption("--update"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the suite that its folder names, and run the quick suites first."""
    for item in items:
        if (suite := _folder(item)) in _SUITES:
            item.add_marker(suite)
    items.sort(key=lambda item: _SUITES.index(_folder(item)) if _folder(item) in _SUITES else 0)


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(_TESTS).parts[0]
