"""What one machine of a cluster has: packages, versions and the folders of a recipe.

Its functions run on machines that may lack this project and its packages, so Ray sends them by value: they use nothing
but Python's own modules, and Ray.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Modules that every verb imports sooner or later. Those without which a verb still works are left out.
MODULES = ("PIL", "av", "cv2", "einops", "mlflow", "numpy", "pyarrow", "pycocotools", "pydantic", "ray", "safetensors",
           "scipy", "timm", "torch", "torchvision", "tqdm", "tyro", "webdataset")
VERSIONS = ("ray", "torch")         # packages whose versions must agree
CODE = ("jobs", "model", "pipeline")

CANNOT_READ = "cannot be read there"
CANNOT_WRITE = "cannot be written there"

NETWORK_SECONDS = 3.0               # in which a file of another machine appears on a network file system


def probe(verb: str, folders: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What this machine has of what a verb needs. verb: its module. folders: those that `folder_fault` compares."""
    missing = missing_modules()
    return {"host": socket.gethostname(), "missing": missing, "import_error": "" if missing else import_error(verb),
            "versions": versions(), "for_gpus": is_torch_for_gpus(),
            "faults": {folder["setting"]: folder_fault(folder) for folder in folders}}


def missing_modules() -> list[str]:
    """The modules of `MODULES` that are not installed here."""
    specs = {name: importlib.util.find_spec(name) for name in MODULES}
    return [name for name, spec in specs.items() if spec is None or spec.origin is None]    # an empty folder has a spec


def import_error(verb: str) -> str:
    """Why the module of a verb cannot be imported here; "" where it can."""
    try:
        importlib.import_module(verb)
    except (Exception, SystemExit) as error:        # whatever a foreign machine brings
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def is_torch_for_gpus() -> bool:
    """Whether torch was built for GPUs. True where nothing has imported it, since such a verb needs none.

    Ray hides the GPUs of a machine from a task that asks for none, so nobody looks for them here.
    """
    torch = sys.modules.get("torch")
    return torch is None or torch.backends.cuda.is_built()


def versions() -> dict[str, str]:
    """The versions that must be those of the driver: of Python, of `VERSIONS`, and of the project as a digest."""
    found = {"Python": platform.python_version()}
    for package in VERSIONS:
        try:        # a build for GPUs and one for CPUs may work together: 2.13.0+cu130, 2.13.0+cpu
            found[package] = importlib.metadata.version(package).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found[package] = "none"
    return found | {"this project": code_digest()}


def code_digest() -> str:
    """The first characters of a digest of the project's sources; "none" where it cannot be imported."""
    digest = hashlib.sha256()
    for package in CODE:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            return "none"
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(root)}".encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def folder_fault(folder: Mapping[str, Any]) -> str:
    """What is wrong with a folder or file of the driver on this machine; "" where it is the same.

    folder: `path`; with `token`, the name of a file in it that holds its own name, beside which this machine must be
    able to write; with `store`, the name of such an object in an address, or "" for one that is only read; else the
    `names` that the folder holds, or the `size` in bytes of a file.
    """
    path = Path(folder["path"])
    try:
        if "store" in folder:
            return _store_fault(folder)
        if "token" in folder:
            return _token_fault(path, folder["token"])
        if not os.path.lexists(path):
            return "is not there"
        if "size" in folder:
            size = path.stat().st_size
            return "" if size == folder["size"] else f"has {size} bytes there, and {folder['size']} on the driver"
        lacking = [name for name in folder["names"] if not os.path.lexists(path / name)]
        return f"is there without {', '.join(lacking[:3])}" if lacking else ""
    except OSError as error:
        return f"{CANNOT_READ} ({error.strerror})"


def _store_fault(folder: Mapping[str, Any]) -> str:
    """Whether this machine can use a folder in a store. Missing packages are a problem of their own."""
    try:
        from pipeline.store import fault
    except ImportError:
        return ""
    return fault(folder["path"], folder["store"])


def _token_fault(path: Path, token: str) -> str:
    """Whether this machine sees the file that the driver wrote, and can write beside it."""
    ends = time.monotonic() + NETWORK_SECONDS
    while not (path / token).is_file():
        if time.monotonic() > ends:
            return "is another folder there than on the driver" if path.is_dir() else "is not there"
        time.sleep(0.1)
    if (path / token).read_text() != token:
        return "is another folder there than on the driver"
    answer = path / f"{token}-{socket.gethostname()}-{os.getpid()}"
    try:
        answer.write_text(token)
        answer.unlink()
    except OSError as error:
        return f"{CANNOT_WRITE} ({error.strerror})"
    return ""


def autoscaling_config(address: str) -> dict[str, Any] | None:
    """The node types of a cluster's autoscaler, asked on its head; None without an autoscaler. address: of the cluster.

    The file is that of `ray start --autoscaling-config`, which `ray up` writes; a cluster of KubeRay has its types in
    Kubernetes.
    """
    port = address.rpartition(":")[2]       # by which it differs from other clusters whose head is here
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:         # a process that has ended
            continue
        given = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
        file = given.get("--autoscaling-config")
        if file and given.get("--gcs-address", "").endswith(f":{port}"):
            return _read_config(Path(file).expanduser())
    if "KUBERNETES_SERVICE_HOST" in os.environ and os.environ.get("RAY_CLUSTER_NAME"):
        return _kuberay_config(os.environ["RAY_CLUSTER_NAME"])
    return None


def _read_config(path: Path) -> dict[str, Any] | None:
    import yaml  # of Ray

    try:
        return yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _kuberay_config(cluster: str) -> dict[str, Any] | None:
    """The node types of a RayCluster whose autoscaler is on; None where it is off or may not be asked."""
    from ray.autoscaler._private.kuberay import autoscaling_config as kuberay
    from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient

    try:
        namespace = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read_text().strip()
        resource = KubernetesHttpApiClient(namespace=namespace).get(f"rayclusters/{cluster}")
        if not resource["spec"].get("enableInTreeAutoscaling"):
            return None
        return json.loads(json.dumps(kuberay._derive_autoscaling_config_from_ray_cr(resource), default=str))
    except Exception:           # without rights, Kubernetes answers 403
        return None
