"""deploy/kuberay.yaml, as far as it can be tried without Kubernetes: its form and commands."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from morphogen.cli import _parser

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "deploy" / "kuberay.yaml").read_text(encoding="utf-8")
CLUSTER, SERVICE, POLICY = yaml.safe_load_all(TEXT)
HEAD = CLUSTER["spec"]["headGroupSpec"]["template"]["spec"]
(WORKERS,) = CLUSTER["spec"]["workerGroupSpecs"]
SERVER, SHARD = HEAD["containers"][0], WORKERS["template"]["spec"]["containers"][0]
SCHEMA = json.loads(Path(__file__).with_name("kuberay.schema.json").read_text(encoding="utf-8"))
SECONDS = 60.0


def faults(text: str) -> list[str]:
    jsonschema_rs = pytest.importorskip("jsonschema_rs", reason="needs jsonschema-rs")
    validator = jsonschema_rs.validator_for(SCHEMA)
    return [str(fault) for one in yaml.safe_load_all(text) for fault in validator.iter_errors(one)]


def test_the_manifest_has_the_form_of_kuberay_s_schema() -> None:
    assert faults(TEXT) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("mode: token", "mode: tokens"),
        ("groupName: shards", "group: shards"),
        ("replicas: 4", 'replicas: "4"'),
        ('num-cpus: "0"', "num-cpus: 0"),
        ("readinessProbe:", "readyProbe:"),
        ("targetPort: https", "target: https"),
        ("topologyKey: kubernetes.io/hostname", "topology: kubernetes.io/hostname"),
        ("policyTypes: [Ingress]", "policyTypes: [Inbound]"),
    ],
)
def test_a_manifest_of_another_form_is_found(right: str, wrong: str) -> None:
    assert right in TEXT
    assert faults(TEXT.replace(right, wrong))


def served() -> list[str]:
    """The arguments of the server."""
    text = SERVER["args"][0].replace("\\\n", " ")
    (line,) = (line for line in text.splitlines() if line.startswith("morphogen "))
    return shlex.split(line.removesuffix("&"))[1:]


def test_the_server_takes_its_options_and_each_shard_has_a_host() -> None:
    args = _parser().parse_args(served())
    assert args.cluster == "ray"
    assert args.shards * args.replicas == WORKERS["replicas"]
    assert WORKERS["minReplicas"] == WORKERS["maxReplicas"] == WORKERS["replicas"]
    anti = WORKERS["template"]["spec"]["affinity"]["podAntiAffinity"]
    (apart,) = anti["requiredDuringSchedulingIgnoredDuringExecution"]
    assert apart["topologyKey"] == "kubernetes.io/hostname"
    for container, pod in ((SERVER, HEAD), (SHARD, WORKERS["template"]["spec"])):
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts["tables"] == str(args.pages)  # each shard maps the file that the server names
        assert mounts.keys() <= {volume["name"] for volume in pod["volumes"]}
        assert container["image"] == SERVER["image"]


def test_ray_has_a_token_and_tls_and_no_port_beyond_the_cluster() -> None:
    assert CLUSTER["spec"]["authOptions"] == {"mode": "token"}
    assert CLUSTER["spec"]["tlsOptions"] == {"enabled": True}
    named = {port["name"]: port["containerPort"] for port in SERVER["ports"]}
    (port,) = SERVICE["spec"]["ports"]
    assert named[port["targetPort"]] == 8000
    of_cluster = {"ray.io/cluster": CLUSTER["metadata"]["name"]}
    assert POLICY["spec"]["podSelector"]["matchLabels"] == of_cluster
    for rule in POLICY["spec"]["ingress"]:
        if "ports" in rule:
            assert {entry["port"] for entry in rule["ports"]} <= set(named.values())
        else:
            assert [entry["podSelector"]["matchLabels"] for entry in rule["from"]] == [of_cluster]


def test_nothing_runs_as_root_or_may_become_it() -> None:
    for pod in (HEAD, WORKERS["template"]["spec"]):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


# The server's container, with programs in place of Ray's and ours


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Any]:
    """Run the command with a morphogen that does what a test says."""
    running: list[subprocess.Popen[bytes]] = []

    def run(morphogen: str) -> subprocess.Popen[bytes]:
        programs = {
            "ray": "[ $1 = health-check ] || exec tail -f /dev/null",
            "morphogen": f'echo "$@" > {tmp_path}/started; {morphogen}',
        }
        for name, text in programs.items():
            (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
            (tmp_path / name).chmod(0o755)
        running.append(
            subprocess.Popen(
                [*SERVER["command"], SERVER["args"][0]],
                env={
                    "PATH": f"{tmp_path}:/usr/bin:/bin",
                    "KUBERAY_GEN_RAY_START_CMD": "ray start",
                    "POD_IP": "$POD_IP",  # so that words are those of the file
                },
                stdout=subprocess.PIPE,  # which is at its end when all processes are
                start_new_session=True,
            )
        )
        return running[-1]

    yield run
    for process in running:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # as a container's end does
        process.communicate(timeout=SECONDS)


def test_the_container_ends_with_its_server(container: Any, tmp_path: Path) -> None:
    process = container("exit 3")
    assert process.wait(SECONDS) == 3
    assert (tmp_path / "started").read_text().split() == served()


def test_the_container_ends_both_when_it_is_told_to(container: Any) -> None:
    process = container("echo ready; exec tail -f /dev/null")
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    process.wait(SECONDS)
    assert process.stdout.read() == b""
