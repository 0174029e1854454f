"""Alpha158 by Qlib itself: run by the interpreter of the benchmark's own environment.

``python qlib_job.py FOLDER WORKERS`` reads ``bars.parquet`` there and leaves ``alpha158.parquet``
and the seconds that Qlib took in ``seconds.txt``, those of the clock and those of the processor.
It imports nothing of Sieve.
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd


def store(bars, folder):
    """Write bars as Qlib keeps them: a calendar, a list of instruments, a float32 file a field."""
    days = bars["time"].drop_duplicates().sort_values()
    (folder / "calendars").mkdir(parents=True)
    (folder / "instruments").mkdir()
    (folder / "calendars" / "day.txt").write_text("\n".join(f"{day:%Y-%m-%d}" for day in days))
    lines = []
    for asset, table in bars.groupby("asset", sort=True):
        place = folder / "features" / asset.lower()
        place.mkdir(parents=True)
        lines.append(f"{asset}\t{table['time'].min():%Y-%m-%d}\t{table['time'].max():%Y-%m-%d}")
        first = np.searchsorted(days, table["time"].min())
        for field in ("open", "high", "low", "close", "volume", "vwap"):
            values = np.concatenate([[first], table[field]]).astype("<f4")
            values.tofile(place / f"{field}.day.bin")
    (folder / "instruments" / "all.txt").write_text("\n".join(lines))


def main(folder, workers):
    bars = pd.read_parquet(folder / "bars.parquet")
    store(bars, folder / "qlib")
    import qlib
    from qlib.contrib.data.loader import Alpha158DL
    from qlib.data import D

    qlib.init(
        provider_uri=str(folder / "qlib"),
        kernels=workers,
        expression_cache=None,
        dataset_cache=None,
        logging_level=30,
    )
    fields, names = Alpha158DL.get_feature_config()
    D.features(D.instruments("all"), ["$close"])  # what is read once is not timed
    start, used = time.perf_counter(), processor()
    table = D.features(D.instruments("all"), fields)
    seconds, used = time.perf_counter() - start, processor() - used
    table.columns = names
    table.astype("float32").reset_index().to_parquet(folder / "alpha158.parquet")
    (folder / "seconds.txt").write_text(f"{seconds} {used}")


def processor():
    """Processor seconds of this process and of those that it started and that have ended."""
    both = (resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


if __name__ == "__main__":  # Qlib starts processes that import this file again
    main(Path(sys.argv[1]), int(sys.argv[2]))
