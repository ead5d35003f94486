import pwd

from zts.broker.model_user_ids import model_user_ids
from zts.settings import Endpoints, Settings


def settings(**values: object) -> Settings:
    return Settings(runtime_dir="", endpoints=Endpoints(client="", worker="", control="", event=""), **values)  # type: ignore[arg-type]


def test_all_users_that_the_configuration_names_count() -> None:
    root = pwd.getpwuid(0).pw_name
    found = model_user_ids(
        settings(
            model_user="1001:1001",
            model_users=(root, "no-such-user-here", "1002"),
            models={"m": {"1.0": {"user": "1003:5"}, "2.0": {"user": 1004}, "3.0": {}}, "n": "odd"},
        )
    )
    assert found == {0, 1001, 1002, 1003, 1004}


def test_no_user_is_none() -> None:
    assert model_user_ids(settings()) == frozenset()
