"""One reader per file format; `READERS` holds them by name, in the order in which a path is tried."""

from __future__ import annotations

from predilect.data.readers.base import RawTables, Reader
from predilect.data.readers.goodreads import GOODREADS
from predilect.data.readers.kuairec import KUAIREC
from predilect.data.readers.lastfm import LASTFM
from predilect.data.readers.movielens import MOVIELENS_1M, MOVIELENS_100K
from predilect.data.readers.movietweetings import MOVIETWEETINGS
from predilect.data.readers.rc15_sample import RC15_SAMPLE
from predilect.data.readers.recbole import RECBOLE
from predilect.data.readers.retailrocket import RETAILROCKET
from predilect.data.readers.steam import STEAM
from predilect.data.readers.table import TABLE
from predilect.data.readers.yoochoose import YOOCHOOSE
from predilect.data.readers.zhihu import DREAMREC, ZHIHUREC

__all__ = ["READERS", "RawTables", "Reader"]

_ORDER = (
    MOVIELENS_100K,
    MOVIETWEETINGS,
    MOVIELENS_1M,
    LASTFM,
    STEAM,
    GOODREADS,
    YOOCHOOSE,
    KUAIREC,
    ZHIHUREC,
    DREAMREC,
    RC15_SAMPLE,
    RETAILROCKET,
    RECBOLE,
    TABLE,  # last: it takes any folder with a log of a usual name
)
READERS: dict[str, Reader] = {reader.name: reader for reader in _ORDER}
