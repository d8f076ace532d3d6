from __future__ import annotations

import pytest

from clara.commands import serve
from clara.errors import ServerFailed
from clara.settings import Settings


@pytest.mark.parametrize("name", sorted(serve.PROCESSES))
def test_a_process_without_its_addresses_says_which_one_to_set(name: str) -> None:
    with pytest.raises(ServerFailed) as caught:
        serve.run(name, Settings(database_url="", redis_url=""))
    assert caught.value.field == "CLARA_REDIS_URL"


def test_the_workers_queues_are_all_the_queues_there_are() -> None:
    from workers.app import QUEUES

    config = Settings()
    read = [
        arguments[arguments.index("-Q") + 1].split(",")
        for name in serve.PROCESSES
        if "-Q" in (arguments := serve.argv(name, config))
    ]
    assert {name for names in read for name in names} == set(QUEUES)
