"""The migrations make the tables that the code describes, on both databases, forwards and backwards."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, select

import app.api.orm
import app.auth.orm
import app.core.outbox
import app.datasets.orm
import app.jobs.orm
import app.predictions.orm
import app.registry.orm  # noqa: F401
from app.auth.orm import Workspace
from app.auth.service import ensure_workspace
from app.core.database import Base, Database
from app.core.errors import Conflict
from app.core.migrations import alembic_config, migrate, schema_of
from app.jobs import events
from app.jobs import service as jobs

ROOT = Path(__file__).parents[1]
_numbers = count()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without any table."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path / 'empty.db'}")
        yield database
        database.close()
        return
    postgres_url: Callable[[str], str] = request.getfixturevalue("postgres_url")
    name = f"graft_empty_{next(_numbers)}"
    with psycopg.connect(postgres_url("postgres"), autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        database = Database(postgres_url(name))
        yield database
        database.close()
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]


def tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


def differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return list(compare_metadata(context, Base.metadata))


def checks(engine: Engine) -> dict[str, set[str]]:
    """The names of each table's check constraints, which Alembic does not compare."""
    return {name: {str(one["name"]) for one in inspect(engine).get_check_constraints(name)} for name in tables(engine)}


def downgrade(database: Database) -> None:
    config = alembic_config()
    with database.writing() as session:
        config.attributes["connection"] = session.connection()
        command.downgrade(config, "base")


def test_there_is_one_head() -> None:
    assert len(ScriptDirectory.from_config(alembic_config()).get_heads()) == 1


def test_the_schema_is_what_the_code_describes(empty: Database) -> None:
    migrate(empty)
    with empty.engine.connect() as connection:
        assert differences(connection) == []
    assert tables(empty.engine) == {*Base.metadata.tables, "alembic_version"}


def test_the_comparison_notices_a_difference(empty: Database) -> None:
    migrate(empty)
    with empty.writing() as session:
        session.connection().exec_driver_sql("ALTER TABLE models DROP COLUMN artefact_size")
    with empty.engine.connect() as connection:
        assert [kind for kind, *_ in differences(connection)] == ["add_column"]  # type: ignore[misc]


def test_the_check_constraints_are_those_of_the_code(empty: Database) -> None:
    migrate(empty)
    migrated = checks(empty.engine)
    downgrade(empty)
    Base.metadata.create_all(empty.engine)
    assert checks(empty.engine) == migrated
    assert migrated["jobs"] == {"ck_jobs_jobstate", "ck_jobs_finished"}


def test_down_to_nothing_and_up_again(empty: Database) -> None:
    migrate(empty)
    downgrade(empty)
    assert tables(empty.engine) == {"alembic_version"}
    migrate(empty)
    with empty.engine.connect() as connection:
        assert differences(connection) == []


def test_migrating_twice_changes_nothing(empty: Database) -> None:
    migrate(empty)
    with empty.writing() as session:
        ensure_workspace(session, "kept")
    migrate(empty)
    with empty.reading() as session:
        assert session.scalars(select(Workspace.name)).all() == ["kept"]


def test_a_database_that_a_newer_version_has_changed_is_refused_and_left_alone(empty: Database) -> None:
    with empty.migrating() as connection:
        assert schema_of(connection).says() == "The database is empty. Run `graft migrate`."
    migrate(empty)
    with empty.migrating() as connection:
        assert schema_of(connection).fits
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Conflict, match=r"schema \(9999\) is a newer Graftwork's. Start that version"):
        migrate(empty)
    with empty.migrating() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "9999"
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
        assert "(0001) is older than this code needs" in schema_of(connection).says()


def test_threads_that_migrate_at_once_end_in_one_schema(empty: Database) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(migrate, empty) for _ in range(4)]:
            done.result()
    with empty.engine.connect() as connection:
        assert differences(connection) == []


def test_processes_that_migrate_at_once_end_in_one_schema(empty: Database) -> None:
    url = empty.url.render_as_string(hide_password=False)
    program = (
        "import sys; from app.core.database import Database; from app.core.migrations import migrate;"
        "database = Database(sys.argv[1]); print('ready', flush=True); sys.stdin.readline(); migrate(database)"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, url], cwd=ROOT, stdin=-1, stdout=-1, stderr=-1, text=True)
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    with empty.engine.connect() as connection:
        assert differences(connection) == []


def test_jobs_that_were_there_are_kept_and_those_that_predict_go_with_their_kind(empty: Database) -> None:
    config = alembic_config()
    one, two, then = "0" * 31 + "1", "0" * 31 + "2", "'2026-01-01 00:00:00+00:00'"

    def put(connection: Connection, job_id: str, dataset_id: str, kind: str) -> None:
        values = {
            **{"id": f"'{job_id}'", "workspace_id": f"'{one}'", "dataset_id": dataset_id, "kind": f"'{kind}'"},
            **{"state": "'queued'", "spec": "'{}'", "max_attempts": "3", "created_at": then, "lease_expires_at": then},
            **dict.fromkeys(("priority", "ran_seconds", "attempt", "epoch", "progress", "event_seq"), "0"),
        }
        connection.exec_driver_sql(f"INSERT INTO jobs ({', '.join(values)}) VALUES ({', '.join(values.values())})")
        told = f"('{job_id}', 1, 'state', '{{}}', {then})"
        connection.exec_driver_sql(f"INSERT INTO job_events (job_id, seq, type, data, created_at) VALUES {told}")

    def kept(connection: Connection) -> list[str]:
        tables = "jobs JOIN job_events ON job_events.job_id = jobs.id"
        return [kind for (kind,) in connection.exec_driver_sql(f"SELECT kind FROM {tables} ORDER BY kind")]

    with empty.migrating() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0010")
        connection.exec_driver_sql(f"INSERT INTO workspaces (id, name, created_at) VALUES ('{one}', 'w', {then})")
        connection.exec_driver_sql(
            "INSERT INTO datasets (id, workspace_id, name, state, created_at, upload) "
            f"VALUES ('{one}', '{one}', 'pets', 'ready', {then}, '{{}}')"
        )
        put(connection, one, f"'{one}'", "train")
        command.upgrade(config, "0011")
        put(connection, two, "NULL", "predict")
        assert kept(connection) == ["predict", "train"]
        command.downgrade(config, "-1")
        assert kept(connection) == ["train"]


def test_a_kind_of_job_needs_no_change_of_the_schema_and_rows_are_kept(empty: Database) -> None:
    config = alembic_config()
    one, then = "0" * 31 + "1", "'2026-01-01 00:00:00+00:00'"

    def put(connection: Connection, number: int, kind: str) -> None:
        job_id = f"'{number:032x}'"
        values = {
            **{"id": job_id, "workspace_id": f"'{one}'", "kind": f"'{kind}'", "state": "'queued'", "spec": "'{}'"},
            **{"max_attempts": "3", "created_at": then, "lease_expires_at": then},
            **dict.fromkeys(("priority", "ran_seconds", "attempt", "epoch", "progress", "event_seq"), "0"),
        }
        connection.exec_driver_sql(f"INSERT INTO jobs ({', '.join(values)}) VALUES ({', '.join(values.values())})")
        connection.exec_driver_sql(
            f"INSERT INTO epoch_metrics (job_id, epoch, attempt, metrics) VALUES ({job_id}, 1, 1, '{{}}')"
        )

    def kinds(connection: Connection, table: str = "epoch_metrics") -> list[str]:
        query = f"SELECT kind FROM jobs JOIN {table} ON {table}.job_id = jobs.id ORDER BY kind"
        return [kind for (kind,) in connection.exec_driver_sql(query)]

    with empty.migrating() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0013")
        connection.exec_driver_sql(f"INSERT INTO workspaces (id, name, created_at) VALUES ('{one}', 'w', {then})")
        for number, kind in enumerate(("train", "ingest", "predict"), start=1):
            put(connection, number, kind)
        command.upgrade(config, "head")
        put(connection, 4, "evaluate")
        assert kinds(connection) == ["evaluate", "ingest", "predict", "train"]
        command.downgrade(config, "0013")
        assert kinds(connection) == ["ingest", "predict", "train"]
        command.upgrade(config, "head")
        assert kinds(connection) == ["ingest", "predict", "train"]


def test_the_images_of_versions_that_were_there_before_are_known(empty: Database) -> None:
    """Until 0007 a dataset had one version, of all its images."""
    config = alembic_config()
    one, two, then = "0" * 31 + "1", "0" * 31 + "2", "'2026-01-01 00:00:00+00:00'"
    with empty.writing() as session:
        connection = config.attributes["connection"] = session.connection()
        command.upgrade(config, "0006")
        for row in (
            f"workspaces (id, name, created_at) VALUES ('{one}', 'w', {then})",
            "datasets (id, workspace_id, name, state, created_at, upload) "
            f"VALUES ('{one}', '{one}', 'pets', 'ready', {then}, '{{}}')",
            "dataset_images (id, dataset_id, sha256, name, label, split, width, height, size) "
            f"VALUES ('{one}', '{one}', 'aa', 'a', 'ants', 'train', 8, 8, 9), "
            f"('{two}', '{one}', 'bb', 'b', 'bees', 'val', 8, 8, 9)",
            "dataset_versions (id, dataset_id, number, manifest_sha256, classes, counts, created_at) "
            f"VALUES ('{two}', '{one}', 1, 'cc', '[]', '{{}}', {then})",
        ):
            connection.exec_driver_sql(f"INSERT INTO {row}")
        command.upgrade(config, "head")
        found = connection.exec_driver_sql("SELECT version_id, sha256 FROM dataset_version_images ORDER BY sha256")
        assert [(str(version).replace("-", ""), sha256) for version, sha256 in found] == [(two, "aa"), (two, "bb")]


def test_the_events_of_jobs_that_were_there_move_to_the_outbox_and_back(empty: Database) -> None:
    config = alembic_config()
    one, two = "0" * 31 + "1", "0" * 31 + "2"
    then, later = "'2026-01-01 00:00:00.000000'", "'2026-01-01 00:00:01.000000'"
    if empty.url.get_backend_name() == "postgresql":
        then, later = f"{then}::timestamptz", f"{later}::timestamptz"
    told = [(one, 1, "state", "queued", then), (two, 1, "state", "queued", then), (one, 2, "epoch", "first", later)]

    def rows(connection: Connection, query: str) -> list[tuple[object, ...]]:
        return [
            tuple(str(value).replace("-", "") if isinstance(value, UUID) else value for value in row)
            for row in connection.exec_driver_sql(query)
        ]

    with empty.migrating() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0013")
        connection.exec_driver_sql(f"INSERT INTO workspaces (id, name, created_at) VALUES ('{one}', 'w', {then})")
        for job_id in (one, two):
            values = {
                **{"id": f"'{job_id}'", "workspace_id": f"'{one}'", "kind": "'train'", "state": "'queued'"},
                **{"spec": "'{}'", "max_attempts": "3", "created_at": then, "lease_expires_at": then},
                **dict.fromkeys(("priority", "ran_seconds", "attempt", "epoch", "progress", "event_seq"), "0"),
            }
            connection.exec_driver_sql(f"INSERT INTO jobs ({', '.join(values)}) VALUES ({', '.join(values.values())})")
        for job_id, seq, kind, said, at in reversed(told):
            row = f"('{job_id}', {seq}, '{kind}', '{{\"said\": \"{said}\"}}', {at})"
            connection.exec_driver_sql(f"INSERT INTO job_events (job_id, seq, type, data, created_at) VALUES {row}")
        before = rows(connection, "SELECT * FROM job_events ORDER BY job_id, seq")
        command.upgrade(config, "0014")
        order = "SELECT workspace_id, subject_id, number, topic FROM events ORDER BY sequence"
        assert rows(connection, order) == [(one, job, seq, f"job.{kind}") for job, seq, kind, _, _ in told]
        connection.exec_driver_sql(
            "INSERT INTO events (workspace_id, topic, subject_id, body, created_at) "
            f"VALUES ('{one}', 'model.created', '{two}', '{{}}', {later})"
        )
        assert rows(connection, "SELECT max(sequence) FROM events") == [(4,)]  # numbers go on after those that moved
        command.downgrade(config, "0013")
        assert rows(connection, "SELECT * FROM job_events ORDER BY job_id, seq") == before


def test_a_stream_that_was_read_before_the_migration_goes_on_after_it(empty: Database) -> None:
    """The ids and bodies that a client of a job's stream knows are the same."""
    config = alembic_config()
    one, then = "0" * 31 + "1", "'2026-01-01 00:00:00.000000'"
    if empty.url.get_backend_name() == "postgresql":
        then += "::timestamptz"
    with empty.migrating() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0013")
        connection.exec_driver_sql(f"INSERT INTO workspaces (id, name, created_at) VALUES ('{one}', 'w', {then})")
        values = {
            **{"id": f"'{one}'", "workspace_id": f"'{one}'", "kind": "'train'", "state": "'queued'"},
            **{"spec": "'{}'", "max_attempts": "3", "created_at": then, "lease_expires_at": then, "event_seq": "2"},
            **dict.fromkeys(("priority", "ran_seconds", "attempt", "epoch", "progress"), "0"),
        }
        connection.exec_driver_sql(f"INSERT INTO jobs ({', '.join(values)}) VALUES ({', '.join(values.values())})")
        for seq, body in ((1, '{"state": "queued"}'), (2, '{"epoch": 1, "loss": 0.25}')):
            kind = "state" if seq == 1 else "epoch"
            row = f"('{one}', {seq}, '{kind}', '{body}', {then})"
            connection.exec_driver_sql(f"INSERT INTO job_events (job_id, seq, type, data, created_at) VALUES {row}")
        command.upgrade(config, "head")
    with empty.writing() as session:
        jobs.cancel(session, UUID(one), UUID(one))
    with empty.reading() as session:
        found = [(told.seq, told.type, told.data) for told in events.after(session, UUID(one), 1)]
    assert found == [
        (2, "epoch", {"epoch": 1, "loss": 0.25}),
        (3, "state", {"state": "cancelled", "attempt": 0, "progress": 0.0}),
    ]
