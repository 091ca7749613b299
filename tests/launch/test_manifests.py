"""The manifests and the Dockerfile: fields as JobSet v1alpha2, batch/v1 and v1 define them, and numbers that fit together."""

import argparse
import math
import pathlib
import re
import tomllib

import pytest
import yaml

from imagenet_jax import cli, processes

ROOT = pathlib.Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "launch" / "gke").glob("*.yaml"))

# A schema is a type, a set of allowed values, [schema of each item], or {field: schema}: "field?" may be absent, "*" is any.
# Fields and values: jobset_types.go of kubernetes-sigs/jobset, batch/v1 and core/v1 of Kubernetes; only what we use.
POD = {
    "restartPolicy": {"Never"},  # podFailurePolicy asks for it
    "terminationGracePeriodSeconds": int,
    "serviceAccountName": str,
    "nodeSelector": {"*": str},
    "containers": [
        {
            "name": str,
            "image": str,
            "args": [str],
            "resources": {"limits": {"*": int}},
            "volumeMounts": [{"name": str, "mountPath": str}],
        }
    ],
    "volumes": [
        {
            "name": str,
            "csi?": {"driver": str, "volumeAttributes": {"*": str}},
            "emptyDir?": {"medium": {"Memory"}},
        }
    ],
}
JOB = {
    "parallelism": int,
    "completions": int,
    "completionMode?": {"Indexed"},
    "backoffLimit": int,
    "podFailurePolicy": {
        "rules": [
            {
                "action": {"FailJob", "FailIndex", "Ignore", "Count"},
                "onExitCodes": {"containerName": str, "operator": {"In", "NotIn"}, "values": [int]},
            }
        ]
    },
    "template": {"metadata": {"annotations": {"*": str}}, "spec": POD},
}
JOBSET = {
    "apiVersion": {"jobset.x-k8s.io/v1alpha2"},
    "kind": {"JobSet"},
    "metadata": {"name": str, "annotations?": {"*": str}},
    "spec": {
        "failurePolicy": {
            "maxRestarts": int,
            "restartStrategy": {"Recreate", "BlockingRecreate"},
            "rules": [
                {
                    "name": str,
                    "action": {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"},
                    "onJobFailureReasons": [{"PodFailurePolicy", "BackoffLimitExceeded", "DeadlineExceeded"}],
                }
            ],
        },
        "replicatedJobs": [{"name": str, "replicas": int, "template": {"spec": JOB}}],
    },
}


def faults(value, schema, where="") -> list[str]:
    """What in `value` is not as `schema` says."""
    if isinstance(schema, list):
        if not isinstance(value, list) or not value:
            return [f"{where} is no list of anything"]
        return [f for i, item in enumerate(value) for f in faults(item, schema[0], f"{where}[{i}]")]
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return [f"{where} is no mapping"]
        if "*" in schema:
            return [f for key, item in value.items() for f in faults(item, schema["*"], f"{where}.{key}")]
        known = {key.rstrip("?"): item for key, item in schema.items()}
        found = [f"{where}.{key} is unknown" for key in value.keys() - known.keys()]
        found += [f"{where}.{key} is missing" for key in schema if not key.endswith("?") and key not in value]
        return found + [f for key in value.keys() & known.keys() for f in faults(value[key], known[key], f"{where}.{key}")]
    if isinstance(schema, set):
        return [] if value in schema else [f"{where}={value!r} is none of {sorted(schema)}"]
    return [] if type(value) is schema else [f"{where}={value!r} is no {schema.__name__}"]


@pytest.fixture(params=MANIFESTS, ids=lambda file: file.stem)
def manifest(request):
    return yaml.safe_load(request.param.read_text())


def test_both_are_there():
    assert [file.stem for file in MANIFESTS] == ["gpu", "tpu"]


def test_fields_are_those_of_the_api(manifest):
    assert faults(manifest, JOBSET) == []


def test_the_schema_finds_faults(manifest):
    manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["paralelism"] = 4
    manifest["spec"]["failurePolicy"]["maxRestarts"] = "100"
    manifest["spec"]["failurePolicy"]["rules"][0]["action"] = "Fail"
    assert len(faults(manifest, JOBSET)) == 3


def test_pods_volumes_and_rules_fit_together(manifest):
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert job["parallelism"] == job["completions"]
    assert job["backoffLimit"] == 0  # any lost pod restarts the whole set, since the others cannot go on
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert all(("csi" in v) != ("emptyDir" in v) for v in pod["volumes"])
    assert job["template"]["metadata"]["annotations"]["gke-gcsfuse/volumes"] == "true"
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [cli.USER_MISTAKE]}
    # The workdir is on the volume that outlives the pods.
    assert f"--workdir={container['volumeMounts'][0]['mountPath']}/runs/{manifest['metadata']['name']}" in container["args"]


def test_tpu_chips_are_those_of_the_slice():
    job = yaml.safe_load((ROOT / "launch/gke/tpu.yaml").read_text())["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    chips = math.prod(map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")))
    assert chips == job["parallelism"] * pod["containers"][0]["resources"]["limits"]["google.com/tpu"] == 16


def test_gpu_processes_find_the_first_pod():
    manifest = yaml.safe_load((ROOT / "launch/gke/gpu.yaml").read_text())
    (replicated,) = manifest["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    args = job["template"]["spec"]["containers"][0]["args"]
    assert job["completionMode"] == "Indexed"
    parser = argparse.ArgumentParser()
    processes.add_flags(parser)
    flags, _ = parser.parse_known_args([a.replace("$(JOB_COMPLETION_INDEX)", str(job["completions"] - 1)) for a in args])
    place = processes.given(flags, {})
    assert place == processes.Place(
        f"{manifest['metadata']['name']}-{replicated['name']}-0-0.{manifest['metadata']['name']}:{processes.PORT}",
        job["parallelism"],
        job["parallelism"] - 1,
    )


def test_the_image_copies_what_is_there_and_installs_extras_that_exist():
    text = (ROOT / "launch" / "Dockerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (.*) \S+$", text, re.M) for name in line.split()]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {project["project"]["readme"], "LICENSE", "configs", "imagenet_jax", "pyproject.toml"}
    assert set(copied) == needed
    assert all((ROOT / name).exists() for name in copied)
    assert {"cuda", "tpu", "gcs"} <= project["project"]["optional-dependencies"].keys()
