"""The service that all tests of this folder put their requests to, on each database and its log."""

import uuid
from collections.abc import Iterator

import pytest

from tests.bad_input.door import Door, door_on_servers, door_on_sqlite
from tools.services import KafkaCluster, PostgresServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives each route's test an id of its own: schemathesis names all alike, and xdist would run one for all."""
    for item in items:
        base, bracket, route = item.name.partition("[")
        if bracket and item.nodeid.endswith(f"::{base}"):
            item._id = item.id.with_params(route.removesuffix("]"))


@pytest.fixture(scope="module")
def sqlite_door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with door_on_sqlite(tmp_path_factory.mktemp("door")) as door:
        yield door


@pytest.fixture(scope="module")
def production_door(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer, kafka: KafkaCluster
) -> Iterator[Door]:
    """On PostgreSQL and Kafka."""
    name = f"test_{uuid.uuid4().hex}"
    postgres.create_database(name)
    kafka.create_topic(name, partitions=4)
    try:
        with door_on_servers(
            tmp_path_factory.mktemp("door"), postgres.url(name), kafka.bootstrap_servers, name
        ) as door:
            yield door
    finally:
        postgres.drop_database(name)
        kafka.delete_topic(name)
