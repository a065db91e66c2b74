"""Files that were checked are read again: their bytes must still be those that were checked."""

from pathlib import Path

from headstart.data.dataset import CheckedFile
from headstart.data.decoding import read_file
from headstart.errors import DataError
from headstart.store import digest

OTHER_BYTES = "it holds other bytes than when it was checked"


def read_checked(source: Path | CheckedFile) -> tuple[bytes, bytes]:
    """The bytes of a file and their digest; raises DataError if they are not those checked."""
    file = CheckedFile.of(source)
    data = read_file(file.path)
    name = digest(data)
    if file.digest and name.hex() != file.digest:
        raise DataError(OTHER_BYTES)
    return data, name


def changed_during_run(id: str, reason: object, others: int = 0) -> DataError:
    """The error for a file that is not, or no longer, what the checks of a run found."""
    more = f", and {others:,} more" if others else ""
    return DataError(
        f"Files must stay as they are during a run, but {id} changed after it was checked "
        f"({reason}){more}. Run it again."
    )
