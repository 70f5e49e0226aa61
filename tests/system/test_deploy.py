"""deploy/: the image and the manifests, as far as they can be held without Docker or a cluster."""

from __future__ import annotations

import re
import shlex
from typing import Any

import kubernetes_validate
import pytest
import yaml

import tsclust_model
from tests.support import PROJECT
from tsclust_model.commands.main import tsclust
from tsclust_model.config import PipelineConfig
from tsclust_model.operations.settings import load_settings

DEPLOY = PROJECT / "deploy"
MANIFESTS = {
    f"{path.stem}-{found['kind']}-{found['metadata']['name']}": found
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for found in yaml.safe_load_all(path.read_text())
}
VERSIONS = ("1.28", kubernetes_validate.latest_version())
USER = 10001
IMAGE = f"tsclust-model:{tsclust_model.__version__}"


def pod_of(manifest: dict[str, Any]) -> dict[str, Any] | None:
    """The pod a manifest makes, or None."""
    spec = manifest.get("spec", {})
    if manifest["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec["template"]["spec"] if "template" in spec else None


PODS = {name: pod for name, found in MANIFESTS.items() if (pod := pod_of(found)) is not None}


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = [manifest for manifest in MANIFESTS.values() if manifest["kind"] == kind]
    return found


def container(kind: str) -> dict[str, Any]:
    (found,) = pod_of(of_kind(kind))["containers"]
    return found


def test_there_is_a_job_a_loop_an_endpoint_and_what_they_need():
    assert sorted(found["kind"] for found in MANIFESTS.values()) == [
        *("ConfigMap", "ConfigMap", "CronJob", "Deployment", "Job", "PersistentVolumeClaim"),
        "Service",
    ]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_holds_to_the_schema_of_kubernetes(name, version):
    assert kubernetes_validate.validate(MANIFESTS[name], version, strict=True)


def test_the_validator_sees_a_key_that_does_not_exist():
    wrong = yaml.safe_load(yaml.safe_dump(of_kind("CronJob")))
    wrong["spec"]["concurencyPolicy"] = wrong["spec"].pop("concurrencyPolicy")
    with pytest.raises(kubernetes_validate.ValidationError, match="concurencyPolicy"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("name", PODS)
def test_no_pod_runs_as_root_or_writes_outside_its_volumes(name):
    pod = PODS[name]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for found in pod["containers"]:
        assert found["image"] == IMAGE
        assert found["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize("name", PODS)
def test_every_pod_says_what_it_needs_and_may_use(name):
    for found in PODS[name]["containers"]:
        for bound in ("requests", "limits"):
            assert set(found["resources"][bound]) == {"cpu", "memory"}


@pytest.mark.parametrize("name", PODS)
def test_the_volumes_of_a_pod_exist_and_hold_what_must_be_writable(name):
    pod = PODS[name]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for found in pod["containers"]:
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in found["volumeMounts"]}
        assert set(volumes) == {mount["name"] for mount in found["volumeMounts"]}
        assert "emptyDir" in mounts["/tmp"]
        assert "emptyDir" in mounts[environment()["NUMBA_CACHE_DIR"]]  # the compiled kernels
        for source in found["envFrom"]:
            wanted = source.get("configMapRef") or source["secretRef"]
            assert wanted.get("optional") or wanted["name"] in names("ConfigMap")
    for volume in pod["volumes"]:
        if "configMap" in volume:
            assert volume["configMap"]["name"] in names("ConfigMap")
        if "persistentVolumeClaim" in volume:
            assert volume["persistentVolumeClaim"]["claimName"] in names("PersistentVolumeClaim")


def names(kind: str) -> set[str]:
    return {found["metadata"]["name"] for found in MANIFESTS.values() if found["kind"] == kind}


@pytest.mark.parametrize("kind", ["Job", "CronJob"])
def test_a_job_calls_a_command_with_options_it_has(kind):
    found = container(kind)
    program, name = found["command"]
    assert program == "tsclust"
    given = tsclust.commands[name].make_context(name, list(found["args"])).params
    assert given["config"].startswith("/etc/tsclust/")


def test_the_loop_never_runs_beside_itself_and_starts_on_a_schedule():
    spec = of_kind("CronJob")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert len(spec["schedule"].split()) == 5
    assert container("CronJob")["command"] == ["tsclust", "pipeline"]
    assert pod_of(of_kind("CronJob"))["restartPolicy"] == "Never"


def test_the_endpoint_is_asked_only_when_it_answers():
    found = container("Deployment")
    assert [*found["command"], *found["args"]] == [
        *("mlflow", "models", "serve", "--model-uri=models:/timeseries-clustering@champion"),
        *("--env-manager=local", "--host=0.0.0.0", "--port=8080"),
    ]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert found[probe]["httpGet"] == {"path": "/ping", "port": "http"}
    startup = found["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 120  # ready in 20 to 27 s


def test_the_service_finds_the_pods_of_the_deployment():
    deployment, service = of_kind("Deployment"), of_kind("Service")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels == deployment["spec"]["selector"]["matchLabels"]
    (port,) = service["spec"]["ports"]
    assert [port["targetPort"]] == [found["name"] for found in container("Deployment")["ports"]]


def test_the_settings_of_the_pods_are_settings(tmp_path):
    files = MANIFESTS["settings-ConfigMap-tsclust-settings"]["data"]
    used = re.findall(r"/etc/tsclust/([\w.]+)", str(PODS))
    assert set(used) == set(files)
    config = PipelineConfig.from_dict(yaml.safe_load(files["train.yaml"]))
    path = tmp_path / "pipeline.yaml"
    path.write_text(files["pipeline.yaml"])
    settings = load_settings(path)
    assert settings.pipeline == config
    assert settings.model_name == "timeseries-clustering"  # what the endpoint serves
    assert {config.history_dir, settings.data.versions_dir, settings.monitoring.dir} == {None}
    environment = MANIFESTS["settings-ConfigMap-tsclust-environment"]["data"]
    for folder in (environment["TSCLUST_STORAGE"], settings.data.path):
        assert folder.startswith("/var/lib/tsclust/")


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments), continuation lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def environment() -> dict[str, str]:
    words = [word for name, rest in instructions() if name == "ENV" for word in shlex.split(rest)]
    return dict(word.split("=", 1) for word in words)


def test_the_image_is_built_from_a_plain_python_and_never_runs_as_root():
    known = {"FROM", "ARG", "RUN", "WORKDIR", "COPY", "ENV", "USER", "CMD"}
    assert {name for name, _ in instructions()} == known
    assert instructions()[0] == ("FROM", "python:3.11-slim")
    assert [rest for name, rest in instructions() if name == "USER"] == [f"{USER}:{USER}"]
    order = [name for name, _ in instructions()]
    assert "RUN" not in order[order.index("USER") :]


def test_the_image_holds_what_the_project_installs_and_no_more():
    copied = [rest.split()[:-1] for name, rest in instructions() if name == "COPY"]
    sources = {word for words in copied for word in words}
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert "*" in ignored
    assert {word[1:] for word in ignored if word.startswith("!")} == sources
    for source in sources:
        assert (PROJECT / source).exists(), source
    install = " ".join(rest for name, rest in instructions() if name == "RUN")
    assert 'pip install --no-cache-dir --editable ".${EXTRAS}"' in install
