"""What ships for systemd, Docker, Compose and Kubernetes, as far as it can be checked without running it.

Files are validated by their schemas and linters; what they say of us (variables, options, ports, times) is compared
with the code; and the app of the Kubernetes example runs, from a directory as Kubernetes mounts it.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import jsonschema
import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from deploy.make_secrets import make_secrets
from node.cli.nodes import run_node
from node.leaving import DRAIN_TIMEOUT_S
from tests.apps import a_mesh
from tests.conftest import ServerFactory
from tests.servers import nats_server_binary

PROJECT = Path(__file__).parent.parent
DEPLOY = PROJECT / "deploy"
NATS_CONF = (DEPLOY / "nats" / "nats-server.conf").read_text()
VARIABLES = set(re.findall(r"\$(MESH_NATS_\w+)", NATS_CONF))
MANIFESTS = ("mesh.yaml", "secrets-example.yaml")
KUBERNETES = "1.37"


def documents(file: Path) -> list[dict[str, Any]]:
    return [document for document in YAML(typ="safe", pure=True).load_all(file.read_text()) if document]


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [document for document in documents(DEPLOY / "kubernetes" / "mesh.yaml") if document["kind"] == kind]


def env_file(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def check_options(arguments: list[str]) -> None:
    """Parse the arguments of `mesh node`; an option that there is not fails."""
    context = click.Context(run_node, info_name="node")
    run_node.make_parser(context).parse_args(list(arguments))


# -- servers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["n1", "n2", "n3"])
def test_the_settings_of_a_server_are_complete_and_the_server_takes_them(name: str, tmp_path: Path) -> None:
    """nats-server knows no defaults for variables: one that is not set keeps it from starting."""
    settings = env_file(DEPLOY / "nats" / f"{name}.env")
    assert set(settings) == VARIABLES
    assert settings["MESH_NATS_NAME"] == name
    make_secrets(tmp_path / "secrets", rounds=4)
    for file in ("nats-server.conf", "accounts.conf"):
        (tmp_path / file).write_text((DEPLOY / "nats" / file).read_text())
    here = {key: value.replace("/etc/nats", str(tmp_path)) for key, value in settings.items()}
    here |= {"MESH_NATS_STORE": str(tmp_path / "store")}
    done = subprocess.run(
        [nats_server_binary(), "-c", str(tmp_path / "nats-server.conf"), "-t"], env=here, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "is valid" in done.stderr) == (0, True), done.stderr


# -- systemd -----------------------------------------------------------------------------------------------------------


def test_the_unit_of_a_node_runs_a_command_that_there_is_and_waits_for_it() -> None:
    unit = (DEPLOY / "systemd" / "mesh-node@.service").read_text()
    command = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    assert command is not None
    settings = env_file(DEPLOY / "systemd" / "shop.env")
    arguments = command[1].replace("$MESH_NODE_OPTIONS", settings["MESH_NODE_OPTIONS"]).split()
    assert arguments[1] == "node"
    check_options(arguments[2:])
    stop_s = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert stop_s is not None
    assert int(stop_s[1]) > 2 * DRAIN_TIMEOUT_S
    assert settings["NATS_PASSWORD"] == ""
    assert settings["MESH_PROJECTION"].startswith("/var/lib/mesh/"), "clients and observers have lists from nodes"


# -- Docker and Compose ------------------------------------------------------------------------------------------------


def test_the_dockerfile_satisfies_its_linter_and_holds_all_packages() -> None:
    dockerfile = DEPLOY / "docker" / "Dockerfile"
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([linter, dockerfile], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    text = dockerfile.read_text()
    packages = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    assert [f"COPY {package} {package}" in text for package in packages] == [True] * len(packages)
    allowed = {
        line[1:]
        for line in (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert allowed == {"pyproject.toml", "README.md", "LICENSE", *packages}
    for needed in ("USER 10001:10001", "STOPSIGNAL SIGTERM", "HEALTHCHECK", 'ENTRYPOINT ["mesh"]'):
        assert needed in text


def test_the_compose_file_fits_its_specification_and_itself() -> None:
    (compose,) = documents(DEPLOY / "compose.yaml")
    schema = json.loads(files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text())
    jsonschema.validators.validator_for(schema)(schema).validate(compose)
    services = compose["services"]
    assert set(services) == {"nats-1", "nats-2", "nats-3", "node-a", "node-b", "functions", "prometheus", "grafana"}
    for name, service in services.items():
        for used in ("secrets", "configs"):
            sources = [item if isinstance(item, str) else item["source"] for item in service.get(used, ())]
            assert set(sources) <= set(compose[used]), name
        assert set(service.get("depends_on", ())) <= set(services)
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / source).exists(), f"{name} mounts {source}"
            elif not source.startswith("${"):
                assert source in compose["volumes"]
        if name.startswith("nats"):
            assert set(service["environment"]) == VARIABLES
        if service["image"] == "moonmesh":
            check_options(service["command"][1:])
            assert ("MESH_PROJECTION" in service["environment"]) is ("--functions-only" not in service["command"])
            assert int(service["stop_grace_period"].removesuffix("s")) > 2 * DRAIN_TIMEOUT_S
    for used in ("secrets", "configs"):
        for name, entry in compose[used].items():
            file = DEPLOY / entry["file"]
            assert file.exists() or file.parent.name == "secrets", name
    (prometheus,) = documents(DEPLOY / "prometheus" / "compose.yml")
    targets = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    assert {target.partition(":")[0] for target in targets} == {
        name for name in services if services[name]["image"] == "moonmesh"
    }


# -- Kubernetes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_fit_the_schemas_of_kubernetes(name: str) -> None:
    for document in documents(DEPLOY / "kubernetes" / name):
        assert kubernetes_validate.validate(document, KUBERNETES, strict=True) == KUBERNETES


def test_manifests_fit_each_other_and_the_command() -> None:
    """Selectors find pods, probes ask where the metrics are, and Kubernetes waits for longer than a node takes to leave."""
    deployments = {deployment["metadata"]["name"]: deployment["spec"] for deployment in of_kind("Deployment")}
    assert set(deployments) == {"mesh-node", "mesh-functions"}
    secrets = {secret["metadata"]["name"] for secret in documents(DEPLOY / "kubernetes" / "secrets-example.yaml")}
    for name, spec in deployments.items():
        pod = spec["template"]
        assert spec["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        assert pod["spec"]["terminationGracePeriodSeconds"] > 2 * DRAIN_TIMEOUT_S
        (container,) = pod["spec"]["containers"]
        check_options([shlex.quote(argument) for argument in container["args"][1:]])
        assert ("--functions-only" in container["args"]) == (name == "mesh-functions")
        assert "preStop" not in str(container)
        assert {
            probe: container[probe]["httpGet"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")
        } == {
            "startupProbe": {"path": "/healthz", "port": "metrics"},
            "readinessProbe": {"path": "/readyz", "port": "metrics"},
            "livenessProbe": {"path": "/healthz", "port": "metrics"},
        }
        environment = {variable["name"]: variable.get("value") for variable in container["env"]}
        role = name.removeprefix("mesh-")
        assert environment["NATS_INBOX_PREFIX"] == f"_INBOX_{role}"
        assert ("MESH_PROJECTION" in environment) is (name == "mesh-node")
        assert environment["MESH_METRICS"] == f":{container['ports'][0]['containerPort']}"
        mounted = {volume["secret"]["secretName"] for volume in pod["spec"]["volumes"] if "secret" in volume}
        assert mounted == {name}
        assert mounted <= secrets
        budget = next(b["spec"] for b in of_kind("PodDisruptionBudget") if b["metadata"]["name"] == name)
        assert budget["selector"] == spec["selector"]
    (service,) = of_kind("Service")
    (monitor,) = documents(DEPLOY / "kubernetes" / "service-monitor.yaml")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]


async def test_the_app_of_the_kubernetes_example_runs_as_kubernetes_mounts_it(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """A ConfigMap is a directory of links into `..data`, which is itself a link: nothing of it may be read twice."""
    (config_map,) = of_kind("ConfigMap")
    version = tmp_path / "..2026_11_25_21_00_00.1"
    version.mkdir()
    (tmp_path / "..data").symlink_to(version.name)
    for name, text in config_map["data"].items():
        (version / name).write_text(text)
        (tmp_path / name).symlink_to(Path("..data") / name)
    async with a_mesh(nats_server().url, tmp_path) as mesh:
        handle = await mesh.client.start("hello:greet", "Ada", host="hello:worker")
        assert await handle.result(timeout_s=30) == "hello Ada"


def test_the_values_of_the_chart_name_the_secrets_of_the_example_and_keep_the_rules_of_the_servers() -> None:
    (values,) = documents(DEPLOY / "kubernetes" / "nats-values.yaml")
    secrets = {
        secret["metadata"]["name"]: secret for secret in documents(DEPLOY / "kubernetes" / "secrets-example.yaml")
    }
    assert values["tlsCA"]["secretName"] in secrets
    accounts = values["podTemplate"]["patch"][0]["value"]["secret"]
    keys = {item["key"] for item in accounts["items"]}
    assert keys == set(secrets[accounts["secretName"]]["stringData"])
    assert {item["key"]: item["path"] for item in accounts["items"]}["users.conf"] == "secrets/users.conf"
    assert 'include "secrets/users.conf"' in (DEPLOY / "nats" / "accounts.conf").read_text()
    cluster = values["config"]["cluster"]
    assert (cluster["replicas"], cluster["tls"]["enabled"], cluster["tls"]["merge"]["verify"]) == (3, True, True)
    assert values["config"]["merge"]["system_account"] == "SYS"
