"""Which libraries a model was made with, and whether those at hand read it the same way."""

import logging
import sys
from collections.abc import Mapping
from importlib import metadata

from stages.base import ArtifactError

# import name -> distributions that may bring it
LIBRARIES = {
    "lightgbm": ("lightgbm",),
    "xgboost": ("xgboost-cpu", "xgboost"),
    "sklearn": ("scikit-learn",),
    "torch": ("torch",),
    "safetensors": ("safetensors",),
    "numpy": ("numpy",),
    "pandas": ("pandas",),
    "talib": ("TA-Lib",),
}

log = logging.getLogger(__name__)


def versions() -> dict[str, str]:
    """Versions of the libraries a model depends on, without the build (``+cpu``)."""
    return {name: _version(name) for name in LIBRARIES}


def check_versions(trained: Mapping[str, str], where: str) -> None:
    """Compare the versions a model was trained with to those here; a smaller step is logged.

    Raises
    ------
    ArtifactError
        SV-F35 for another major version, or an absent library.
    """
    here = versions()
    for name, version in trained.items():
        now = here.get(name, "absent")
        if now.partition(".")[0] != version.partition(".")[0]:
            raise ArtifactError(
                f"the model was trained with {name} {version}, here is {now}",
                code="SV-F35",
                where=where,
                why="another major version may read the same bytes as another model",
                cure=f"install {name} {version}, or train again",
            )
        if now != version:
            log.warning("trained with %s %s, here is %s", name, version, now)


def _version(name: str) -> str:
    # the module's own word first: two distributions may bring it and overwrite each other
    found = getattr(sys.modules.get(name), "__version__", None)
    for distribution in LIBRARIES[name] if found is None else ():
        try:
            found = metadata.version(distribution)
            break
        except metadata.PackageNotFoundError:
            continue
    return str(found or "absent").partition("+")[0]
