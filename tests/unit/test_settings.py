"""Settings: each wrong or unknown one is named in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifecycle_engine.settings import SettingsError, host_and_port, load_settings

NOWHERE = Path("nowhere.env")


def test_the_defaults_serve_a_first_visitor() -> None:
    settings = load_settings({}, NOWHERE)
    assert settings.database_url == "sqlite+aiosqlite:///lifecycle.db"
    assert settings.kafka_bootstrap_servers == ""
    assert settings.listen == "127.0.0.1:8000"
    assert settings.api_key is None
    assert settings.quiet_seconds == 5


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql://u:p%40@h:5432/d?sslmode=require", "postgresql+asyncpg://u:p%40@h:5432/d?ssl=require"),
        ("sqlite:///x.db", "sqlite+aiosqlite:///x.db"),
    ],
)
def test_a_database_may_be_named_as_others_name_it(given: str, meant: str) -> None:
    assert load_settings({"LIFECYCLE_DATABASE_URL": given}, NOWHERE).database_url == meant


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("LIFECYCLE_DATABASE_URL", "mysql://h/d", "must begin with"),
        ("LIFECYCLE_DATABASE_URL", "", "must begin with"),
        ("LIFECYCLE_DATABASE_URL", "sqlite://", "must name a file"),
        ("LIFECYCLE_DATABASE_URL", "sqlite:///:memory:", "must name a file"),
        ("LIFECYCLE_DATABASE_URL", "sqlite:////no/such/folder/x.db", "does not exist"),
        ("LIFECYCLE_DATABASE_URL", "sqlite:///x.db?mode=ro", "takes no parameters"),
        ("LIFECYCLE_DATABASE_URL", "postgresql://u:p@h:port/d", "must be of the form"),
        ("LIFECYCLE_DATABASE_URL", "postgresql://u:p@h/d?options=x", "'options' is not supported"),
        ("LIFECYCLE_KAFKA_BOOTSTRAP_SERVERS", "broker", "HOST:PORT"),
        ("LIFECYCLE_KAFKA_BOOTSTRAP_SERVERS", "broker:9092,", "HOST:PORT"),
        ("LIFECYCLE_KAFKA_TOPIC", "a topic", "pattern"),
        ("LIFECYCLE_KAFKA_PARTITIONS", "0", "greater than or equal to 1"),
        ("LIFECYCLE_LISTEN", "8000", "HOST:PORT"),
        ("LIFECYCLE_LISTEN", "127.0.0.1:http", "HOST:PORT"),
        ("LIFECYCLE_LISTEN", "127.0.0.1:70000", "HOST:PORT"),
        ("LIFECYCLE_HEALTH_LISTEN", "x", "HOST:PORT"),
        ("LIFECYCLE_API_KEY", "short", "16 to 256"),
        ("LIFECYCLE_API_KEY", "sixteen characters ", "no space"),
        ("LIFECYCLE_WORKER_LANES", "two", "integer"),
        ("LIFECYCLE_FUTURE_SKEW_SECONDS", "-1", "greater than or equal to 0"),
        ("LIFECYCLE_QUIET_SECONDS", "-1", "greater than or equal to 0"),
        ("LIFECYCLE_QUIET_SECONDS", "86401", "less than or equal to 86400"),
        ("LIFECYCLE_QUIET_SECONDS", "5s", "integer"),
        ("LIFECYCLE_WEBHOOK_ALLOW_NETWORKS", "10.1.0.0/99", "10.1.0.0/99"),
        ("LIFECYCLE_WEBHOOK_ALLOW_NETWORKS", "10.1.0.0/16,", "separated by commas"),
        ("LIFECYCLE_WEBHOOK_ALLOW_NETWORKS", "10.1.0.1/16", "has host bits set"),
        ("LIFECYCLE_WEBHOOK_ALLOW_NETWORKS", "localhost", "such as 10.1.0.0/16"),
        ("LIFECYCLE_WEBHOOK_PROXY", "proxy:3128", "must be of the form"),
        ("LIFECYCLE_WEBHOOK_PROXY", "https://proxy:3128", "must be of the form"),
        ("LIFECYCLE_WEBHOOK_PROXY", "http://proxy", "must be of the form"),
        ("LIFECYCLE_WEBHOOK_PROXY", "http://proxy:x", "must be of the form"),
        ("LIFECYCLE_WEBHOOK_PROXY", "http://proxy:3128/path", "must be of the form"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str, says: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings({name: value}, NOWHERE)
    text = str(error.value)
    assert text.startswith(f"{name}: ")
    assert says in text
    assert "\n" not in text


def test_an_unknown_setting_is_named_with_what_may_be_meant() -> None:
    with pytest.raises(SettingsError, match=r"DATABSE_URL is not a setting; did you mean LIFECYCLE_DATABASE_URL"):
        load_settings({"LIFECYCLE_DATABSE_URL": "x"}, NOWHERE)
    with pytest.raises(SettingsError, match="LIFECYCLE_XYZ is not a setting; known are LIFECYCLE_API_KEY, "):
        load_settings({"LIFECYCLE_XYZ": "x"}, NOWHERE)


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("LIFECYCLE_LISTEN=127.0.0.1:1\nLIFECYCLE_KAFKA_TOPIC=from-file\nOTHER=x\n")
    settings = load_settings({"LIFECYCLE_LISTEN": "127.0.0.1:2", "LIFECYCLE_TEST_KAFKA": "h:1"}, file)
    assert (settings.listen, settings.kafka_topic) == ("127.0.0.1:2", "from-file")
    file.write_text("LIFECYCLE_NIX=1\n")
    with pytest.raises(SettingsError, match="LIFECYCLE_NIX"):
        load_settings({}, file)


def test_a_key_is_not_shown() -> None:
    assert "a-secret-of-the-owner" not in repr(load_settings({"LIFECYCLE_API_KEY": "a-secret-of-the-owner"}, NOWHERE))


def test_an_address_has_two_parts() -> None:
    assert host_and_port("127.0.0.1:80") == ("127.0.0.1", 80)
    assert host_and_port("[::1]:80") == ("::1", 80)


def test_networks_are_listed_with_commas() -> None:
    settings = load_settings({"LIFECYCLE_WEBHOOK_ALLOW_NETWORKS": "10.1.0.0/16, fd00:1::/32,127.0.0.1"}, NOWHERE)
    assert [str(network) for network in settings.webhook_allow_networks] == [
        "10.1.0.0/16",
        "fd00:1::/32",
        "127.0.0.1/32",
    ]
    assert load_settings({"LIFECYCLE_WEBHOOK_ALLOW_NETWORKS": ""}, NOWHERE).webhook_allow_networks == ()


def test_a_proxy_s_password_is_not_shown() -> None:
    settings = load_settings({"LIFECYCLE_WEBHOOK_PROXY": "http://u:hush@proxy:3128"}, NOWHERE)
    assert "hush" not in repr(settings)
    assert settings.webhook_proxy is not None
    assert settings.webhook_proxy.get_secret_value() == "http://u:hush@proxy:3128"
