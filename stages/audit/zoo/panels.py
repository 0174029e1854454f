"""Planted leaks in how a panel is made: statistics, universes and windows of the whole sample."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from stages.features.build import FeatureSet
from stages.panel import last_rows, named


@dataclass
class WholeSample(FeatureSet):
    """Features after a transform that is fitted on all rows there are.

    Parameters
    ----------
    how : {'scale', 'place', 'winsorise', 'impute', 'pca', 'select', 'encode'}
        z-score; empirical quantile; clipping at sample quantiles; the
        sample's median for what is missing; principal components; the columns that foretold the
        next return best; the mean return that followed, by asset.
    """

    how: str = "scale"

    def build(self, bars: pd.DataFrame, threads: int = 1) -> pd.DataFrame:
        """The panel, with its ``feature.*`` columns transformed."""
        panel = super().build(bars, threads)
        x = panel[named(panel, "feature")]
        changed = self._changed(x, bars).astype("float32")
        return panel.assign(**{str(name): changed[name] for name in changed})

    def _changed(self, x: pd.DataFrame, bars: pd.DataFrame) -> pd.DataFrame:
        """The columns after a transform that saw all rows."""
        x = x.astype("float64")
        if self.how == "scale":
            return (x - x.mean()) / x.std()
        if self.how == "place":
            return x.rank(pct=True)
        if self.how == "winsorise":
            return x.clip(x.quantile(0.05), x.quantile(0.95), axis=1)
        if self.how == "impute":
            return x.fillna(x.median())
        if self.how == "pca":
            known = x.dropna()
            found = PCA(1).fit(known).transform(known)[:, 0]
            return pd.DataFrame({"feature.pca": pd.Series(found, known.index).reindex(x.index)})
        after = _next_return(bars)
        if self.how == "select":
            best = x.corrwith(after).abs().sort_values().index[-1]
            return pd.DataFrame({"feature.best": x[best]})
        return pd.DataFrame({"feature.asset": after.groupby(level="asset").transform("mean")})


@dataclass
class AcrossAssets(FeatureSet):
    """A rolling mean along the rows of the panel, which runs from one asset into the next.

    Parameters
    ----------
    window : int, default=3
        Rows. In an asset-major panel those before an asset's first are another's last.
    """

    window: int = 3

    def build(self, bars: pd.DataFrame, threads: int = 1) -> pd.DataFrame:
        """The panel and ``feature.smooth``."""
        close = np.log(bars["close"])
        smooth = close - close.rolling(self.window).mean()
        return super().build(bars, threads).assign(**{"feature.smooth": smooth.astype("float32")})


@dataclass
class Hindsight(FeatureSet):
    """A universe, or a choice of rows, that only the end of the sample could tell.

    Parameters
    ----------
    keep : {'survivors', 'liquid', 'moderate'}
        Assets that still trade at the end; the half that trades most over the sample; rows whose
        next return is none of the extreme tenth, a filter meant for training.
    """

    keep: str = "survivors"

    def ready(self, bars: pd.DataFrame) -> np.ndarray:
        """Rows that hindsight leaves."""
        return super().ready(bars) & self._kept(bars)

    def _kept(self, bars: pd.DataFrame) -> np.ndarray:
        assets = bars.index.get_level_values("asset")
        if self.keep == "survivors":
            last = last_rows(bars).index
            ends = last.get_level_values("time")
            return np.asarray(assets.isin(last.get_level_values("asset")[ends == ends.max()]))
        if self.keep == "liquid":
            worth = (bars["close"] * bars["volume"]).groupby(level="asset").mean()
            return np.asarray(assets.isin(worth.index[worth >= worth.median()]))
        size = _next_return(bars).abs()
        return np.asarray(~(size > size.quantile(0.9)))


def _next_return(bars: pd.DataFrame) -> pd.Series:
    close = np.log(bars["close"])
    return close.groupby(level="asset").shift(-1) - close


def peeking(features: FeatureSet, family: str, function: Any) -> FeatureSet:
    """`features` with one more function in a family: ``columns``, ``rules`` or ``context``."""
    settings = {name: getattr(features, name) for name in ("columns", "context", "rules")}
    settings[family] = {**settings[family], "peek": function}
    return FeatureSet(**settings, min_coverage=features.min_coverage)


def of_kind(kind: type[FeatureSet], features: FeatureSet, **more: Any) -> FeatureSet:
    """`features` as a leaking kind of them."""
    names = ("columns", "context", "rules", "min_coverage")
    return kind(**{name: getattr(features, name) for name in names}, **more)
