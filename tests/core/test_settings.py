"""Settings come from the environment, and everything lies below one folder unless they say otherwise."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.core.database import Database
from app.core.settings import Settings
from app.storage import FilesystemStore
from app.storage.configured import configured_store


@pytest.fixture(autouse=True)
def _folder_without_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_without_settings_everything_is_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFT_HOME", str(tmp_path / "home"))
    settings = Settings()
    home = tmp_path / "home"
    assert settings.sqlalchemy_url == f"sqlite:///{home}/graftwork.db"
    assert settings.blobs_url == f"file://{home}/blobs"
    assert {settings.scratch, settings.weights_cache, settings.client_file} == {
        home / "scratch",
        home / "weights",
        home / "client.json",
    }
    assert (settings.redis_url, settings.weights_dir) == (None, None)
    assert not home.exists()


def test_a_relative_home_means_the_folder_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFT_HOME", "here")
    settings = Settings()
    assert settings.scratch == tmp_path / "here" / "scratch"
    assert settings.sqlalchemy_url == f"sqlite:///{tmp_path}/here/graftwork.db"


@pytest.mark.parametrize("name", ["with space", "what?", "50%25", "a#b", "Käfer"])
def test_home_may_have_any_name(tmp_path: Path, name: str) -> None:
    settings = Settings(home=tmp_path / name)
    database = Database(settings.sqlalchemy_url)
    with database.writing() as session:
        session.connection().exec_driver_sql("CREATE TABLE t (x)")
    database.close()
    assert (tmp_path / name / "graftwork.db").is_file()
    store = configured_store(settings)
    assert isinstance(store, FilesystemStore)
    assert store.root == tmp_path / name / "blobs"


def test_every_setting_has_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "HOME": "/srv/graft",
        "DATABASE_URL": "postgresql://u@h/d",
        "STORAGE_URL": "s3://bucket/prefix",
        "WEIGHTS_DOWNLOAD": "false",
        "MAX_UPLOAD_BYTES": "1000",
        "LEASE_SECONDS": "1.5",
        "LOG_FORMAT": "json",
        "TRAIN_SLOTS": "4",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"GRAFT_{name}", value)
    settings = Settings()
    assert (settings.home, settings.sqlalchemy_url) == (Path("/srv/graft"), "postgresql://u@h/d")
    assert settings.blobs_url == "s3://bucket/prefix"
    assert (settings.weights_download, settings.max_upload_bytes, settings.lease_seconds) == (False, 1000, 1.5)
    assert (settings.log_format, settings.train_slots) == ("json", 4)


def test_a_file_beside_the_process_counts_less_than_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("GRAFT_PORT=1000\nGRAFT_TRAIN_SLOTS=7\nOTHER=1\n")
    monkeypatch.setenv("GRAFT_PORT", "2000")
    settings = Settings()
    assert (settings.port, settings.train_slots) == (2000, 7)


@pytest.mark.parametrize("name", ["WEIGHTS_DIR", "DATABASE_URL", "REDIS_URL", "S3_ENDPOINT", "S3_ACCESS_KEY", "PORT"])
def test_an_empty_variable_is_one_that_is_not_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    default = getattr(Settings(), name.lower())
    monkeypatch.setenv(f"GRAFT_{name}", "")
    assert getattr(Settings(), name.lower()) == default


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("MAX_UPLOAD_BYTES", "0"),
        ("MAX_FILE_BYTES", "-5"),
        ("TRAIN_SLOTS", "-1"),
        ("LEASE_SECONDS", "0"),
        ("MEETING_SECONDS", "0"),
        ("POLL_SECONDS", "soon"),
        ("BLOB_GRACE_SECONDS", "-1"),
        ("WEIGHTS_DOWNLOAD", "perhaps"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "loud"),
        ("IMPORT_HOSTS", "images.internal, 10.0.0.0/99"),
        ("IMPORT_FOLDERS", "/srv/images, images"),
        ("IMPORT_FOLDERS", "/srv/../etc"),
    ],
)
def test_a_bad_value_is_refused_by_its_name(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"GRAFT_{name}", value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    (error,) = caught.value.errors()
    assert (error["loc"], error["input"]) == ((name.lower(),), value)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


def test_secrets_do_not_show() -> None:
    settings = Settings(s3_access_key="AKIA", s3_secret_key="hush-hush", api_key="gw_hush-hush")  # type: ignore[arg-type]
    assert "hush-hush" not in repr(settings)
    assert "hush-hush" not in settings.model_dump_json()
    assert settings.s3_secret_key is not None
    assert settings.s3_secret_key.get_secret_value() == "hush-hush"


def test_by_default_a_lost_worker_is_noticed_within_fifteen_seconds() -> None:
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    assert settings.lease_seconds + settings.sweep_seconds <= 15
    assert settings.heartbeat_seconds * 3 <= settings.lease_seconds  # two that are late do not lose a job
