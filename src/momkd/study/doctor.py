"""``momkd doctor``: what this machine has, whether it is enough, and what to do where it is not. No network."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import Literal

Verdict = Literal["PASS", "WARN", "FAIL"]
_OLDEST_PYTHON = (3, 11)
_ENOUGH_DISK, _LITTLE_DISK = 20 << 30, 1 << 30
_ENOUGH_MEMORY = 4 << 30
_ENOUGH_FILES = 1024
# What each extra is for, and a module of it.
_EXTRAS = {
    "wsi": ("lazyslide", "momkd extract: slides → features"),
    "serve": ("fastapi", "momkd serve: the web page"),
    "cluster": ("ray", "--on ray: many machines"),
    "search": ("optuna", "momkd sweep --search"),
    "remote": ("s3fs", "features behind s3://, gs://, az://"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``mend`` is what to do about a WARN or a FAIL."""

    name: str
    verdict: Verdict
    found: str
    mend: str = ""


def examine_machine(folder: Path, environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Look at Python, torch, devices, threads, memory, disk, open files, extras and access to gated encoders.

    ``folder`` is where runs will go. A look that fails is a WARN that says so, and the others are taken.
    """
    looks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", _python),
        ("torch", _torch),
        ("accelerator", _accelerator),
        ("threads", lambda: _threads(environment)),
        ("memory", _memory),
        ("disk", lambda: _disk(folder)),
        ("temporary folder", lambda: _temporary(Path(tempfile.gettempdir()))),
        ("open files", _open_files),
        *((f"extra {name}", partial(_extra, name)) for name in _EXTRAS if name in _provided()),
        ("gated encoders", lambda: _gated(environment)),
    ]
    return [_taken(name, look) for name, look in looks]


def _taken(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except (OSError, ImportError, RuntimeError, ValueError) as error:
        return Finding(name, "WARN", f"could not be looked at ({error})")


def _python() -> Finding:
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info < _OLDEST_PYTHON:
        return Finding("python", "FAIL", found, "install Python 3.11 or newer")
    return Finding("python", "PASS", found)


def _torch() -> Finding:
    try:
        found = version("torch")
    except PackageNotFoundError:
        return Finding("torch", "FAIL", "not installed", "pip install torch")
    import torch

    ok = bool((torch.ones(2, 2) @ torch.ones(2, 2) == 2).all())
    return Finding("torch", "PASS" if ok else "FAIL", found, "" if ok else "install torch again")


def _accelerator() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return Finding("accelerator", "PASS", ", ".join(names))
    built = torch.version.cuda
    if built is not None and shutil.which("nvidia-smi"):
        mend = f"the driver does not suit torch's CUDA {built}: update it, or install another build of torch"
        return Finding("accelerator", "WARN", "an NVIDIA driver, but torch sees no GPU", mend)
    return Finding("accelerator", "PASS", "none: training runs on the processor")


def _threads(environment: Mapping[str, str]) -> Finding:
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    found = f"{usable} of {cores} cores"
    limit = environment.get("OMP_NUM_THREADS")
    if limit is not None:
        found += f", OMP_NUM_THREADS {limit}"
        if limit.isdigit() and int(limit) > usable:
            return Finding(
                "threads", "WARN", found, f"more threads than cores: set OMP_NUM_THREADS to {usable} or less"
            )
    return Finding("threads", "PASS", found)


def _memory() -> Finding:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return Finding("memory", "PASS", "not known on this system")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _container_limit()
    found = f"{total / 2**30:.1f} GiB" + (f", limited to {limit / 2**30:.1f} GiB" if limit is not None else "")
    if min(total, limit or total) < _ENOUGH_MEMORY:
        return Finding("memory", "WARN", found, "large cohorts need more: use momkd pack, and fewer --workers")
    return Finding("memory", "PASS", found)


def _container_limit() -> int | None:
    """Bytes that the control group allows; None without a limit."""
    file = Path("/sys/fs/cgroup/memory.max")
    text = file.read_text().strip() if file.is_file() else "max"
    return int(text) if text.isdigit() else None


def _disk(folder: Path) -> Finding:
    place = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.is_dir())
    free = shutil.disk_usage(place).free
    found = f"{free / 2**30:.1f} GiB free at {place}"
    if not os.access(place, os.W_OK):
        return Finding("disk", "FAIL", f"{place} cannot be written", "give another folder for --out")
    if free < _LITTLE_DISK:
        return Finding("disk", "FAIL", found, "free some space, or give another folder for --out")
    if free < _ENOUGH_DISK:
        return Finding("disk", "WARN", found, "features of 1000 slides take 20 GB and more")
    return Finding("disk", "PASS", found)


def _temporary(place: Path) -> Finding:
    free = shutil.disk_usage(place).free
    found = f"{free / 2**30:.1f} GiB free at {place}"
    if free < _LITTLE_DISK:
        return Finding("temporary folder", "WARN", found, "set TMPDIR to a larger disk")
    return Finding("temporary folder", "PASS", found)


def _open_files() -> Finding:
    try:
        import resource
    except ImportError:
        return Finding("open files", "PASS", "no limit known on this system")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _ENOUGH_FILES:
        return Finding("open files", "WARN", f"{soft} (at most {hard})", f"ulimit -n {_ENOUGH_FILES}")
    return Finding("open files", "PASS", f"{soft}")


def _provided() -> list[str]:
    """The extras that this version has."""
    try:
        return metadata("momkd").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        return []


def _extra(name: str) -> Finding:
    module, purpose = _EXTRAS[name]
    if importlib.util.find_spec(module) is None:
        return Finding(
            f"extra {name}", "WARN", f"not installed ({purpose})", f"pip install 'momkd[{name}]' if you need it"
        )
    return Finding(f"extra {name}", "PASS", f"{module} {version(module)} ({purpose})")


def _gated(environment: Mapping[str, str]) -> Finding:
    home = Path(environment.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    if environment.get("HF_TOKEN") or (home / "token").is_file():
        return Finding("gated encoders", "PASS", "a Hugging Face token is there (not tried: no network is used here)")
    mend = "huggingface-cli login, or HF_TOKEN; or give encoders as local files (--checkpoint)"
    return Finding("gated encoders", "WARN", "no Hugging Face token: UNI, CONCH, Virchow and others ask for one", mend)
