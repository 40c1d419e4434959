"""The deployment files: health checks, no secrets in them, nothing published beyond loopback, no root."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from moto.server import ThreadedMotoServer

ROOT = Path(__file__).parents[1]
ONE_SHOT = {"migrate", "s3-bucket"}
OURS = {"api", "worker", "worker-gpu", "migrate"}
SECRETS = {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"}
OUR_VARIABLES = {
    "GRAFT_HOME",
    "GRAFT_DATABASE_URL",
    "GRAFT_REDIS_URL",
    "GRAFT_STORAGE_URL",
    "GRAFT_S3_ENDPOINT",
    "GRAFT_S3_REGION",
    "GRAFT_S3_ACCESS_KEY",
    "GRAFT_S3_SECRET_KEY",
    "GRAFT_WEIGHTS_DIR",
    "GRAFT_LOG_FORMAT",
}
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def stages() -> dict[str, list[str]]:
    """Each build stage's instructions, those of the stages it starts from first."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines():
        if match := re.match(r"FROM (\S+) AS (\S+)", line):
            name = match[2]
            found[name] = list(found.get(match[1], []))
        elif line and not line.startswith("#"):
            found[name].append(line)
    return found


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ONE_SHOT))
def test_long_running_services_are_watched_and_restarted(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"]
    assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_dependencies_say_what_they_wait_for(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        wanted = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
        assert how == {"condition": wanted}
        assert other in SERVICES


def test_every_secret_is_required_and_comes_from_outside() -> None:
    used = set(re.findall(r"\$\{(\w+)", COMPOSE_TEXT.replace("$$", "")))
    assert used >= SECRETS
    for secret in SECRETS:
        uses = re.findall(rf"\$\{{{secret}[^}}]*\}}", COMPOSE_TEXT)
        assert uses
        assert all(use.startswith(f"${{{secret}:?") and "openssl rand" in use for use in uses)
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|_KEY|AUTH", key):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), f"{name}: {key} holds a literal"
            assert not re.search(r"://[^/@$]*:[^/@$]+@", str(value)), f"{name}: {key} holds a literal"


def test_the_example_names_every_variable_and_holds_no_secret() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert set(values) == set(re.findall(r"\$\{(\w+)", COMPOSE_TEXT.replace("$$", "")))
    assert set(values.values()) == {""}
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_processes_get_known_settings(name: str) -> None:
    assert set(SERVICES[name]["environment"]) == OUR_VARIABLES
    assert SERVICES[name]["init"] is True


def test_only_the_api_is_published_and_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": ["${PUBLISH_ADDRESS:-127.0.0.1}:${PUBLISH_PORT:-8000}:8000"]}


def test_a_worker_has_time_to_write_a_checkpoint() -> None:
    for name in ("worker", "worker-gpu"):
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= 60
        assert "--pool=threads" in SERVICES[name]["command"]
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]


def test_volumes_and_images_are_named_and_pinned() -> None:
    volumes = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    mounted = {re.sub(r"\$\{\w+:-(\w+)\}", r"\1", volume).split(":")[0] for volume in volumes}
    assert mounted == set(COMPOSE["volumes"])
    for service in SERVICES.values():
        assert ":" in service["image"]
        assert not service["image"].endswith(":latest")


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_images_run_without_root(target: str) -> None:
    instructions = stages()[target]
    (user,) = [line.split()[1] for line in instructions if line.startswith("USER ")]
    uid, gid = user.split(":")
    assert int(uid) > 0
    assert int(gid) > 0
    assert any(line.startswith("HEALTHCHECK") for line in instructions)
    assert any("PYTHONUNBUFFERED=1" in line and "GRAFT_HOME=/data" in line for line in instructions)
    assert not any(re.search(r"\b(gcc|build-essential|uv pip|--editable|pip install)\b", line) for line in instructions)


def test_installs_are_checked_against_the_lock() -> None:
    installs = [line for lines in stages().values() for line in lines if "uv pip install" in line]
    assert installs
    assert all("--require-hashes" in line or "/wheel/" in line for line in installs)


@pytest.mark.parametrize("stage", ["cpu-dependencies", "wheel"])
def test_the_filters_of_the_lock_find_what_they_name(stage: str, tmp_path: Path) -> None:
    (run,) = [line for line in stages()[stage] if "awk" in line]
    match = re.search(r"awk '([^']+)'\s+(\S+)", run)
    assert match
    done = subprocess.run(["awk", match[1], ROOT / match[2]], check=True, capture_output=True, text=True)
    kept = set(re.findall(r"^([a-z0-9-]+)==", done.stdout, re.MULTILINE))
    named = set(re.findall(r"[a-z][a-z0-9-]+", re.findall(r"\^\(([^)]+)\)==", match[1])[0]))
    every = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / match[2]).read_text(), re.MULTILINE))
    assert named <= every
    assert kept == (named if stage == "wheel" else every - named)
    assert done.stdout.count("--hash=sha256:") >= len(kept)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed here")
def test_the_bucket_is_made_once() -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        script = SERVICES["s3-bucket"]["command"][0].replace("$$", "$")
        keys = {"S3_ACCESS_KEY": "key", "S3_SECRET_KEY": "secret", "S3_REGION": "us-east-1"}

        def run(url: str) -> subprocess.CompletedProcess[str]:
            environment = {"PATH": os.environ["PATH"], "BUCKET_URL": url, **keys}
            command = ["/bin/sh", "-euc", script]
            return subprocess.run(command, env=environment, check=False, capture_output=True, text=True)

        for _ in range(2):
            done = run(f"http://{host}:{port}/graftwork-once")
            assert done.returncode == 0, done.stderr
        failed = run("http://127.0.0.1:9/graftwork")
        assert failed.returncode != 0
    finally:
        server.stop()
