"""The benchmark that a test file is about."""

import pytest

from tests.helpers.scripts import load_script


@pytest.fixture(scope="module")
def bench(request):
    """The script that has the name of the test file: of test_tables.py, tools/bench/tables.py."""
    with pytest.MonkeyPatch.context() as patch:
        yield load_script(f"bench/{request.path.stem.removeprefix('test_')}.py", patch)
