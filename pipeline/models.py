"""List the models of a root, or write a card: ``python -m pipeline.models card=card.html``."""

from typing import TYPE_CHECKING

from pipeline.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry("models")
def main(cfg: "DictConfig") -> None:
    """Roles, ages and parents of all models, with every change of the pointer."""
    from pathlib import Path

    from pipeline import registry
    from pipeline.pointer import history
    from pipeline.report import champions

    if cfg.card:
        champions.write_card(Path(cfg.card), cfg.root, registry.digest_at(cfg.root, str(cfg.model)))
        return
    champions.show_models(registry.entries(cfg.root), history(cfg.root), cfg.json)


if __name__ == "__main__":
    main()
