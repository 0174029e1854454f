"""Mirror runs and roles to MLflow: the files of a root stay the truth, nothing is lost."""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import registry, tracking
from pipeline.cards import card, markdown
from pipeline.files import json_bytes, write_atomic
from pipeline.pointer import read_pointer

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient
    from omegaconf import DictConfig

log = logging.getLogger(__name__)
SENT = "mlflow.json"  # in the folder of a run: where it was sent, and as which
RUN_TAG, DIGEST_TAG = "sieve.run", "sieve.digest"
LONGEST = 500  # letters of a parameter that every store of MLflow takes
QUIET = {  # of its process: no usage reports, no pickles, and no minutes of waiting for the dead
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


@dataclass(frozen=True)
class Mirror:
    """Records a run as `pipeline.tracking.record_run` does, and sends it to MLflow.

    What could not be sent is sent with the next run, or by `send`; each run arrives once. Models
    with a role become versions of a registered model, whose aliases follow the pointer.

    Parameters
    ----------
    uri : str, optional
        Of a server or a store; default an SQLite file below the root.
    experiment : str, default='sieve'
        Also the name of the registered model.
    """

    uri: str | None = None
    experiment: str = "sieve"

    def __call__(  # noqa: PLR0913  what `record_run` takes
        self,
        folder: Path | str,
        cfg: "DictConfig",
        metrics: Mapping[str, Any],
        digest: str,
        data_digest: str,
        command: Sequence[str],
        trials: Mapping[str, str] | None = None,
    ) -> None:
        """Record the run in `folder`, then send what MLflow has not got."""
        tracking.record_run(folder, cfg, metrics, digest, data_digest, command, trials)
        self.send(cfg["root"])

    def send(self, root: Path | str) -> bool:
        """Send the runs of `root` that were not sent, and its roles; say whether all arrived."""
        try:
            from mlflow.exceptions import MlflowException
            from sqlalchemy.exc import SQLAlchemyError
        except ImportError:
            log.warning("mlflow is not installed, nothing was sent: pip install mlflow-skinny")
            return False
        with _environment(QUIET):
            try:
                self._send(Path(root))
            except (MlflowException, SQLAlchemyError, OSError) as error:
                said = str(error).splitlines()[0][:200]
                log.warning("MLflow did not answer, the next run sends this one too: %s", said)
                return False
        return True

    def _send(self, root: Path) -> None:
        from mlflow.tracking import MlflowClient

        root.mkdir(parents=True, exist_ok=True)
        uri = self.uri or f"sqlite:///{root.resolve()}/mlflow.db"
        client = MlflowClient(uri, uri)
        experiment = _experiment(client, self.experiment, root, local=self.uri is None)
        for record in sorted(root.glob(f"*/**/{tracking.RUN}")):
            if not _sent(record.parent, uri):
                run = _send_run(client, experiment, record.parent, root)
                write_atomic(record.parent / SENT, json_bytes({"uri": uri, "run": run}, indent=2))
        self._send_roles(client, root)

    def _send_roles(self, client: "MlflowClient", root: Path) -> None:
        pointer = read_pointer(root)
        if pointer is None:
            return
        if not client.search_registered_models(f"name = '{self.experiment}'"):
            client.create_registered_model(self.experiment)
        roles = dict(pointer.roles())
        for role in registry.ROLES:
            if role in roles:
                version = self._version(client, root, roles[role])
                client.set_registered_model_alias(self.experiment, role, version)
            elif role in client.get_registered_model(self.experiment).aliases:
                client.delete_registered_model_alias(self.experiment, role)

    def _version(self, client: "MlflowClient", root: Path, digest: str) -> str:
        """Version of the model with this digest, made if there is none."""
        for version in client.search_model_versions(f"name = '{self.experiment}'"):
            if version.tags.get(DIGEST_TAG) == digest:
                return str(version.version)
        folder, comes = registry.models(root).get(digest), registry.lineage(root, digest)
        tags = {
            DIGEST_TAG: digest,
            "sieve.data": ", ".join(comes.data),
            "sieve.code": comes.code,
            "sieve.config": comes.config,
            "sieve.update_of": ", ".join(comes.ancestors),
        }
        made = client.create_model_version(
            self.experiment,
            str(folder.resolve() if folder else root),
            tags=tags,
            description=markdown(*card(root, digest)),
        )
        return str(made.version)


def _experiment(client: "MlflowClient", name: str, root: Path, local: bool) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    place = (root.resolve() / "mlflow").as_uri() if local else None
    return str(client.create_experiment(name, artifact_location=place))


def _send_run(client: "MlflowClient", experiment: str, folder: Path, root: Path) -> str:
    """Send one run and return its name there; one that arrived half is sent again in its place."""
    from mlflow.entities import Metric, Param

    run = json.loads((folder / tracking.RUN).read_text(encoding="utf-8"))
    name = str(folder.relative_to(root))
    key = hashlib.sha256((name + json.dumps(run, sort_keys=True)).encode()).hexdigest()
    there = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{key}'", max_results=1)
    tags = {RUN_TAG: key, DIGEST_TAG: run["artifact"], "sieve.data": run["data"]}
    tags |= {"sieve.command": run["command"], "sieve.commit": run["commit"] or ""}
    made = there[0] if there else client.create_run(experiment, run_name=name, tags=tags)
    own = str(made.info.run_id)
    metrics, config = tracking.figures(folder), tracking.settings(folder)
    begun = int((folder / tracking.RUN).stat().st_mtime * 1000)
    client.log_batch(own, metrics=[Metric(k, v, begun, 0) for k, v in metrics.items()])
    if not there:  # a parameter cannot be sent twice
        params = [Param(k, str(v)[:LONGEST]) for k, v in config.items()]
        for first in range(0, len(params), 100):
            client.log_batch(own, params=params[first : first + 100])
    for file in (tracking.CONFIG, tracking.METRICS, tracking.COMMAND, tracking.RUN):
        client.log_artifact(own, str(folder / file))
    client.set_terminated(own)
    return own


def _sent(folder: Path, uri: str) -> bool:
    try:
        values = json.loads((folder / SENT).read_text(encoding="ascii"))
    except (OSError, ValueError):  # not sent, or not to the end
        return False
    return bool(values.get("uri") == uri)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set what the user has not set."""
    added = [name for name in values if name not in os.environ]
    os.environ.update({name: values[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
