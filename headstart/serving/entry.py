"""Make a server, where the packages that it needs are installed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.base.errors import BundleError, MissingPackage
from headstart.base.listener import Listener
from headstart.base.runtime import installed
from headstart.serving.settings import ServeSpec

if TYPE_CHECKING:
    from headstart.serving.server import PredictionServer

PACKAGES = ("starlette", "uvicorn", "python_multipart", "prometheus_client")


def prediction_server(
    folders: Sequence[Path], names: Sequence[str], spec: ServeSpec, listener: Listener
) -> "PredictionServer":
    """Return a server of the models in folders, to `run`.

    Raises MissingPackage without the extra `serve`, BundleError if a folder does not exist, and
    what `PredictionServer` raises.
    """
    for package in PACKAGES:
        if not installed(package):
            raise MissingPackage(package, purpose="`headstart serve`", extra="serve")
    for folder in folders:
        if not folder.is_dir():
            raise BundleError(f"There is no folder {folder}. Check the path.")
    from headstart.serving.server import PredictionServer

    return PredictionServer(folders, names, spec, listener)
