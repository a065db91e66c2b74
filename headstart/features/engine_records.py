"""What was measured of engines, remembered in the store for the next run."""

from collections.abc import Sequence
from pathlib import Path

from headstart.base.atomic import write_json
from headstart.base.engine_choice import EngineChoice
from headstart.base.errors import SpecError
from headstart.base.processor import processor_flags, processor_name
from headstart.base.runtime import Runtime
from headstart.base.store import Store
from headstart.base.values import fingerprint, read_value
from headstart.features.engine_table import ENGINES


def record_path(identity: str, runtime: Runtime, store: Store | None) -> Path | None:
    """Return the file that holds the choice for a backbone on this machine; None without a store.

    identity: of the backbone. Other processors, numbers of threads, versions of engines and
    settings have other files.
    """
    if store is None:
        return None
    machine = (processor_name(), *sorted(processor_flags()), runtime.threads)
    engines = [(name, _version(kind.package)) for name, kind in ENGINES.items()]
    asked = (runtime.engine, runtime.compute_precision)
    key = fingerprint("engine", identity, machine, engines, asked)
    return store.folder / "engines" / f"{key}.json"


def recorded(path: Path | None, options: Sequence[EngineChoice]) -> EngineChoice | None:
    """Return the recorded choice; None if there is none, or none that can be read."""
    try:
        found = None if path is None else read_value(path, EngineChoice)
    except (OSError, SpecError):
        return None
    known = found is not None and found.name in [option.name for option in options]
    return found if known else None


def record(path: Path, choice: EngineChoice) -> None:
    """Write a choice; an error is ignored, since the features need the same disk and name it."""
    try:
        write_json(path, choice.to_plain())
    except OSError:
        return


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    try:
        return version(package)
    except PackageNotFoundError:
        return ""
