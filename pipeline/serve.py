"""Signals over HTTP, and a page to watch them: ``python -m pipeline.serve``."""

from typing import TYPE_CHECKING

from pipeline.cli import entry

if TYPE_CHECKING:
    from socket import socket

    from omegaconf import DictConfig

    from pipeline.api.service import Parts


@entry("serve")
def main(cfg: "DictConfig") -> None:
    """Serve the champion and the store until told to end; or print a new token."""
    from stages.base import ConfigError

    if cfg.new_token is not None:
        _show_token(str(cfg.new_token))
        return
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the package {error.name} is not installed, and a service was asked for",
            code="SV-X710",
            cure="pip install 'sieve-signals[api]'",
        ) from error
    from pipeline.api.app import build
    from pipeline.report import terminal

    parts = _parts(cfg)
    settings = parts.settings
    settings.refuse_open(len(parts.tokens))
    listening = _listen(settings.host, settings.port)
    server = uvicorn.Server(
        uvicorn.Config(
            build(parts),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # an address that a client may write is no address
            h11_max_incomplete_event_size=1 << 15,
            timeout_keep_alive=30,  # longer than a busy client or a proxy pauses
            timeout_graceful_shutdown=10,
        )
    )
    host, port = listening.getsockname()[:2]
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    terminal.say(f"serving http://{place}, store {parts.store.database.name}")
    with parts.store, listening:
        server.run(sockets=[listening])


def _listen(host: str, port: int) -> "socket":
    """A socket that listens; ConfigError SV-F33 where another process does, or nobody may."""
    import socket

    from stages.base import ConfigError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=2048)
        # else a small answer waits 40 ms for an acknowledgement of its head
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {host} port {port}: {error.strerror or error}",
            code="SV-F33",
            where="keys service.host and service.port",
            why="another process listens there, or the address is not one of this machine",
            cure="end the other one, or service.port=0 takes a free port",
        ) from error


def _parts(cfg: "DictConfig") -> "Parts":
    """What the configuration and the environment say; a wrong one ends it before it listens."""
    import os
    from pathlib import Path

    from pipeline.api.reading import reader, settings_of
    from pipeline.api.service import Parts
    from pipeline.api.tokens import Tokens
    from pipeline.assemble import assemble
    from pipeline.report import terminal
    from pipeline.store.signal_store import SignalStore

    settings = assemble(cfg, "service")
    tokens = Tokens.of(os.environ)
    settings.refuse_open(len(tokens))
    return Parts(
        settings,
        tokens,
        SignalStore(cfg.store, wait=10),
        Path(cfg.root),
        reader(cfg.data),
        settings_of(cfg, terminal.config_digest),
        model=Path(cfg.model) if cfg.model else None,
        alerts=assemble(cfg, "alerts"),
        about=terminal.SURVIVORS if cfg.data.get("survivors") else "Estimates, not advice.",
    )


def _show_token(name: str) -> None:
    import sys

    from pipeline.api.tokens import VARIABLE, new_token

    text, line = new_token(name)
    sys.stdout.write(f"token, shown once: {text}\nfor the service:   {VARIABLE}={line}\n")


if __name__ == "__main__":
    main()
