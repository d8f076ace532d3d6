"""The container files against the code: what they name must exist, and say the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from celery.beat import Scheduler

from clara.settings import Settings
from workers.app import QUEUES, UPKEEP, app
from workers.compressing import BUDGET_S
from workers.stopping import FINISH_S
from workers.watchdog import LOOK_S, heartbeat

ROOT = Path(__file__).parent.parent
FILES = ("docker-compose.yml", "docker-compose.gpu.yml")
ONE_SHOT = {"migrate", "models"}
WORKERS = ("model-worker", "cpu-worker", "train-worker")
ON_GPU = ["model-worker", "train-worker"]
HOME = "/var/lib/clara"
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<word>[^}]*))?\}")

Mapping = dict[str, Any]


def load(name: str) -> Mapping:
    return yaml.safe_load((ROOT / name).read_text())


def merge(base: Mapping, over: Mapping) -> Mapping:
    """As Compose does for everything that the override holds: mappings by key, the rest whole."""
    both = {k: merge(base[k], v) for k, v in over.items() if isinstance(base.get(k), dict)}
    return base | over | both


def variables() -> Iterator[re.Match[str]]:
    for name in FILES:
        yield from VARIABLE.finditer((ROOT / name).read_text())


def filled(value: object) -> str:
    """A value with the words of .env.example in place of its variables."""
    return VARIABLE.sub(lambda found: EXAMPLE[found["name"]], str(value)).replace("$$", "$")


def seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]


def version(image: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", image.rpartition(":")[2])))


def health(service: str) -> str:
    return " ".join(SERVICES[service]["healthcheck"]["test"])


EXAMPLE = dict(
    line.split("=", 1)
    for line in (ROOT / ".env.example").read_text().splitlines()
    if line and not line.startswith("#")
)
BASE, GPU = (load(name) for name in FILES)
MERGED = merge(BASE, GPU)
SERVICES: Mapping = BASE["services"]
LONG_RUNNING = sorted(set(SERVICES) - ONE_SHOT)
OURS = sorted(name for name in SERVICES if SERVICES[name]["image"].startswith("clara-workers:"))


@pytest.mark.parametrize("service", OURS)
def test_every_clara_variable_is_a_field_of_settings(service: str) -> None:
    names = {name for name in MERGED["services"][service]["environment"] if "CLARA" in name}

    assert names <= {f"CLARA_{field.upper()}" for field in Settings.model_fields}


@pytest.mark.parametrize("service", OURS)
def test_the_variables_of_a_service_make_settings(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("CLARA_")]:
        monkeypatch.delenv(name)
    for name, value in MERGED["services"][service]["environment"].items():
        monkeypatch.setenv(name, filled(value))

    found = Settings(_env_file=None)

    assert found.database_url == "postgresql://clara:change-me-postgres@postgres:5432/clara"
    assert found.redis_url == "redis://:change-me-redis@redis:6379/0"
    assert found.elasticsearch_password.get_secret_value() == EXAMPLE["ELASTIC_PASSWORD"]


def test_flower_knows_the_variables_it_is_given() -> None:
    from flower.options import default_options

    names = {name for name in SERVICES["flower"]["environment"] if name.startswith("FLOWER_")}

    assert names == {"FLOWER_BASIC_AUTH"}
    assert {name.removeprefix("FLOWER_").lower() for name in names} <= set(default_options)


def test_each_process_of_clara_serve_has_its_service() -> None:
    from clara.commands.serve import PROCESSES

    commands = {name: SERVICES[name]["command"] for name in set(OURS) - ONE_SHOT}

    assert commands == {name: ["clara", "serve", name] for name in PROCESSES}


@pytest.mark.parametrize("service", OURS)
def test_every_clara_command_is_one(service: str) -> None:
    from clara.cli import app as cli

    program, *words = SERVICES[service]["command"]
    if program != "clara":
        assert (program, *words) == ("alembic", "upgrade", "head")
        return
    found: Any = typer.main.get_command(cli)
    for word in words:
        found = found.commands[word]


def test_every_published_port_is_on_loopback() -> None:
    ports = [port for service in MERGED["services"].values() for port in service.get("ports", [])]

    assert len(ports) == 2
    assert [
        port for port in map(filled, ports) if not re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)
    ] == []


@pytest.mark.parametrize(
    ("service", "host", "port"),
    [("api", "api_host", "api_port"), ("flower", "flower_host", "flower_port")],
)
def test_a_published_port_is_the_one_listened_on(service: str, host: str, port: str) -> None:
    inside = Settings.model_fields[port].default

    assert SERVICES[service]["environment"][f"CLARA_{host.upper()}"] == "0.0.0.0"  # noqa: S104
    assert filled(SERVICES[service]["ports"][0]).endswith(f":{inside}")
    assert f"http://127.0.0.1:{inside}/" in health(service)


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_a_long_running_service_has_a_health_check_and_is_restarted(service: str) -> None:
    check = SERVICES[service]["healthcheck"]

    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert seconds(check["timeout"]) <= seconds(check["interval"])
    assert SERVICES[service]["restart"] == "unless-stopped"


@pytest.mark.parametrize("service", sorted(ONE_SHOT))
def test_a_one_shot_service_is_not_restarted_and_is_waited_for(service: str) -> None:
    waiting = {
        name: found["depends_on"][service]["condition"]
        for name, found in SERVICES.items()
        if service in found.get("depends_on", {})
    }

    assert SERVICES[service]["restart"] == "no"
    assert set(WORKERS) <= set(waiting)
    assert set(waiting.values()) == {"service_completed_successfully"}


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_what_a_service_waits_for_exists_and_reports_its_health(service: str) -> None:
    for name, found in SERVICES[service].get("depends_on", {}).items():
        one_shot = name in ONE_SHOT
        assert found["condition"] == (
            "service_completed_successfully" if one_shot else "service_healthy"
        )
        assert one_shot or "healthcheck" in SERVICES[name]


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_the_logs_of_every_service_are_limited(service: str) -> None:
    assert set(SERVICES[service]["logging"]["options"]) == {"max-size", "max-file"}


def test_named_volumes_are_declared_and_used() -> None:
    mounted = [mount for service in SERVICES.values() for mount in service.get("volumes", [])]

    assert {mount.split(":")[0] for mount in mounted} == set(BASE["volumes"])


def test_every_variable_is_in_the_example_file_and_used() -> None:
    assert {found["name"] for found in variables()} == set(EXAMPLE)


def test_a_variable_is_either_required_or_has_the_default_of_the_example_file() -> None:
    required = {found["name"] for found in variables() if found["kind"] == "?"}

    assert required == {name for name, value in EXAMPLE.items() if "change-me" in value}
    for found in variables():
        if found["name"] in required:
            assert found["kind"] == "?"
            assert found["word"]
        else:
            assert (found["kind"], found["word"]) == ("-", EXAMPLE[found["name"]])


def test_every_line_of_the_example_file_is_explained() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()

    for above, line in pairwise(lines):
        assert not line or line.startswith("#") or above.startswith("# "), line


@pytest.mark.parametrize("service", WORKERS)
def test_a_worker_has_time_to_finish_or_give_back_what_is_in_hand(service: str) -> None:
    """SIGTERM must stay Celery's warm shutdown: the soft one sleeps before it tells the tasks."""
    grace = seconds(SERVICES[service]["stop_grace_period"])

    assert grace > FINISH_S + BUDGET_S
    assert "REMAP_SIGTERM" not in SERVICES[service]["environment"]
    assert SERVICES[service]["init"] is True


@pytest.mark.parametrize("service", WORKERS)
def test_the_health_of_a_worker_is_the_age_of_its_heartbeat(service: str) -> None:
    from clara.commands.serve import argv

    command = argv(service, Settings(_env_file=None))
    node = command[command.index("-n") + 1].replace("%h", "$$HOSTNAME")
    oldest = int(re.findall(r"-newermt '-(\d+) seconds'", health(service))[0])

    assert str(heartbeat(Settings(home=Path(HOME)), node)) in health(service)
    assert oldest > 2 * LOOK_S


def test_the_health_of_beat_is_the_age_of_its_schedule_file() -> None:
    name = Path(app.conf.beat_schedule_filename).name
    oldest = int(re.findall(r"> (\d+)\)", health("beat"))[0])
    between_writes = Scheduler.sync_every + Settings.model_fields["reconcile_s"].default

    assert f"{HOME}/{name}*" in health("beat")
    assert oldest > 2 * between_writes


@pytest.mark.parametrize("service", WORKERS)
def test_every_worker_looks_after_runs_before_anything_else(service: str) -> None:
    from clara.commands.serve import argv

    command = argv(service, Settings(_env_file=None))

    assert command[command.index("-Q") + 1].split(",")[0] == UPKEEP


def test_every_queue_has_its_worker_and_questions_come_first() -> None:
    from clara.commands.serve import argv

    commands = {name: argv(name, Settings(_env_file=None)) for name in WORKERS}
    queues = {name: c[c.index("-Q") + 1].split(",") for name, c in commands.items()}

    assert {queue for of in queues.values() for queue in of} == set(QUEUES)
    assert queues["model-worker"] == [UPKEEP, "query", "compress", "recompress"]


def test_elasticsearch_is_one_that_the_client_speaks_to() -> None:
    service = SERVICES["elasticsearch"]

    assert (8, 19) <= version(service["image"]) < (10,)
    assert service["environment"]["xpack.security.enabled"] == "true"


def test_the_broker_loses_no_message() -> None:
    command = SERVICES["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))

    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "everysec"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--requirepass"]


def test_postgres_keeps_its_data_where_version_18_has_them() -> None:
    assert version(SERVICES["postgres"]["image"])[0] >= 18
    assert SERVICES["postgres"]["volumes"] == ["postgres-data:/var/lib/postgresql"]


@pytest.mark.parametrize("files", [BASE, MERGED], ids=["cpu", "gpu"])
def test_each_image_of_ours_is_built_once_and_never_looked_for_elsewhere(files: Mapping) -> None:
    services = [files["services"][name] for name in OURS]
    built = [service["image"] for service in services if "build" in service]

    assert sorted(built) == sorted({service["image"] for service in services})
    assert {service["pull_policy"] for service in services} == {"never"}


def test_an_image_is_built_with_an_extra_of_the_project() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    builds = [
        service["build"]["args"] for service in MERGED["services"].values() if "build" in service
    ]
    arguments = set(re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))

    assert {build["EXTRA"] for build in builds} == {"cpu", "gpu"} <= set(extras)
    assert all(set(build) <= arguments for build in builds)


def test_the_override_changes_what_computes_with_models_and_nothing_else() -> None:
    assert list(GPU["services"]) == ON_GPU


@pytest.mark.parametrize("service", ON_GPU)
def test_what_the_override_changes_gets_a_gpu_and_stays_what_it_is(service: str) -> None:
    before, after = SERVICES[service], MERGED["services"][service]
    devices = after["deploy"]["resources"]["reservations"]["devices"]

    assert after["environment"].items() >= before["environment"].items()
    assert after["environment"]["CLARA_DEVICE"] == "cuda"
    assert (after["command"], after["healthcheck"]) == (before["command"], before["healthcheck"])
    assert [device["capabilities"] for device in devices] == [["gpu"]]


def test_the_image_keeps_its_data_in_the_volume_and_is_not_root() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()

    assert f"CLARA_HOME={HOME} " in dockerfile
    assert f"VOLUME {HOME}\n" in dockerfile
    assert re.findall(r"^USER (.*)", dockerfile, re.MULTILINE) == ["10001:10001"]
    for name in OURS:
        assert SERVICES[name]["volumes"] == [f"clara-home:{HOME}"]


def test_the_build_sees_every_package_and_no_secret() -> None:
    rules = (ROOT / ".dockerignore").read_text().split("\n")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    dockerfile = (ROOT / "Dockerfile").read_text()

    assert rules[rules.index("*") - 1].startswith("#"), "everything is out unless it is named"
    for package in [package.rstrip("*") for package in packages]:
        assert f"!{package}" in rules
        assert package in re.findall(r"for package in (.*); do", dockerfile)[0].split()
    assert rules.index("**/.env*") > max(i for i, rule in enumerate(rules) if rule.startswith("!"))


@pytest.fixture(scope="module")
def compose() -> list[str]:
    docker = shutil.which("docker")
    if not docker:
        pytest.skip("there is no docker client on PATH")
    command = [docker, "compose"]
    if subprocess.run([*command, "version"], capture_output=True).returncode:
        pytest.skip("the docker client has no compose plugin")
    return command


def config(compose: list[str], env_file: Path, *files: str) -> subprocess.CompletedProcess[str]:
    chosen = [word for name in files for word in ("--file", name)]
    environment = {name: value for name, value in os.environ.items() if name not in EXAMPLE}
    return subprocess.run(
        [*compose, "--env-file", str(env_file), *chosen, "config", "--quiet"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("files", [FILES[:1], FILES], ids=["cpu", "gpu"])
def test_compose_accepts_the_files_with_the_example_file(
    compose: list[str], files: tuple[str, ...]
) -> None:
    done = config(compose, ROOT / ".env.example", *files)

    assert done.returncode == 0, done.stderr


def test_compose_names_a_variable_that_is_missing(compose: list[str], tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    env_file.write_text("".join(f"{k}={v}\n" for k, v in EXAMPLE.items() if k != "REDIS_PASSWORD"))

    done = config(compose, env_file, *FILES)

    assert done.returncode != 0
    assert "REDIS_PASSWORD" in done.stderr
