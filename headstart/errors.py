"""Every error that Headstart raises on purpose; `HeadstartError` is the base class of all.

>>> from headstart.errors import DataError, HeadstartError
>>> issubclass(DataError, HeadstartError) and issubclass(DataError, ValueError)
True
"""

from headstart.base.errors import BundleError as BundleError
from headstart.base.errors import DataError as DataError
from headstart.base.errors import Diverged as Diverged
from headstart.base.errors import HeadstartError as HeadstartError
from headstart.base.errors import LostRank as LostRank
from headstart.base.errors import Mismatch as Mismatch
from headstart.base.errors import MissingPackage as MissingPackage
from headstart.base.errors import PlaceError as PlaceError
from headstart.base.errors import SourceError as SourceError
from headstart.base.errors import SpecError as SpecError
from headstart.base.errors import StoreError as StoreError
from headstart.base.errors import UnknownName as UnknownName

__all__ = [name for name in dir() if not name.startswith("_")]
