"""What the documents say works: snippets, commands, quoted files, links, fault codes, notebooks."""

import contextlib
import io
import json
import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat
import pytest
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from nbclient import NotebookClient
from omegaconf import OmegaConf

from pipeline.recipe import check_targets

ROOT = Path(__file__).parents[1]
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
PAGES = [*TOP, *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FENCE = re.compile(r"(?P<before>[^\n]*)\n```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
QUOTED = re.compile(r"# (\w[\w/]*/\w+\.(?:py|yaml))\n")
OUTPUT = re.compile(r"^<!-- output: ([^\n]*) -->\n```text\n(.*?)^```\n([^\n]*)$", re.M | re.S)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
WITH_INTERVAL = re.compile(r"[+-]?\d[\d.]* ±[\d.]*\d%?")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    kind: str
    text: str
    line: int
    printed: bool

    @property
    def quotes(self) -> str | None:
        """The file of the repository that the block quotes, if its first line names one."""
        found = QUOTED.match(self.text)
        return found[1] if found else None


@cache
def blocks(page):
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            found["kind"],
            found["text"],
            text.count("\n", 0, found.start("text")) + 1,
            found["before"] == "<!-- printed -->",
        )
        for found in FENCE.finditer(text)
    ]


def commands(page):
    """The command lines of a page, and those its outputs came from."""
    shown = [b.text for b in blocks(page) if b.kind == "bash"]
    shown += [found[1] for found in OUTPUT.finditer(page.read_text(encoding="utf-8"))]
    lines = "\n".join(shown).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def named(page):
    return str(page.relative_to(ROOT))


def with_kind(*kinds):
    return [p for p in PAGES if any(b.kind in kinds and not b.quotes for b in blocks(p))]


@pytest.mark.parametrize("page", with_kind("python"), ids=named)
def test_every_snippet_runs_in_order_and_prints_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, printed = {"__name__": "snippet"}, ""
    for block in blocks(page):
        if block.kind == "python" and not block.quotes:
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(code, names)
            printed = out.getvalue()
        elif block.printed:
            assert plain(printed) == plain(block.text), f"{named(page)}:{block.line}"


def plain(text):
    return [line.rstrip() for line in text.strip().splitlines()]


@pytest.mark.parametrize("page", with_kind("bash"), ids=named)
def test_every_command_composes(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_own_configs(page, tmp_path)
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    for command in commands(page):
        words = shlex.split(command, comments=True)
        if words[0] == "make":
            assert set(words[1:]) <= set(targets), command
        elif words[:2] == ["python", "-m"]:
            compose_jobs(words[2], words[3:])
        else:
            assert words[0].startswith(".venv/bin/"), command
            assert all((ROOT / w).exists() for w in words[1:] if "/" in w), command


def write_own_configs(page, folder):
    """The yaml of a user's own that a page shows, where the page says it lies."""
    for block in blocks(page):
        if block.kind == "yaml" and block.quotes and not (ROOT / block.quotes).exists():
            path = folder / block.quotes
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text.split("\n", 1)[1], encoding="utf-8")


def compose_jobs(module, words):
    """Compose each job of a command, as ``--cfg job`` would, and resolve all of it."""
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    config = re.search(r'@entry\("(\w+)"\)', source)[1]
    own = [w.partition("=")[2] for w in words if w.startswith("--config-dir=")]
    search = [f"hydra.searchpath=[{','.join(f'file://{Path(d).resolve()}' for d in own)}]"]
    given = OverridesParser.create().parse_overrides([w for w in words if not w.startswith("-")])
    choices = [
        [f"{o.get_key_element()}={v}" for v in o.sweep_string_iterator()]
        if o.is_sweep_override()
        else [o.input_line]
        for o in given
    ]
    assert ("-m" in words) == (max(map(len, choices), default=1) > 1), words
    for job in range(max(map(len, choices), default=1)):
        overrides = [options[job % len(options)] for options in choices]
        with initialize_config_module("conf", version_base="1.3"):
            cfg = compose(config, [*overrides, *(search if own else [])])
        check_targets(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_quoted_line_stands_in_the_file_it_names(page):
    for block in blocks(page):
        if block.quotes and (ROOT / block.quotes).exists():
            there = (ROOT / block.quotes).read_text(encoding="utf-8").splitlines()
            for line in block.text.splitlines()[1:]:
                assert line in there, f"{block.quotes} does not hold {line!r}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        place, _, anchor = target.partition("#")
        found = (page.parent / place).resolve() if place else page
        assert found.exists(), f"{named(page)}: {target}"
        if anchor:
            assert anchor in anchors(found), f"{named(page)}: {target}"


def anchors(page):
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_an_output_stands_beside_the_command_it_came_from(page):
    text = page.read_text(encoding="utf-8")
    found = OUTPUT.findall(text)
    assert len(found) == text.count("<!-- output:") == text.count("<!-- end -->")
    for command, output, after in found:
        assert output.startswith(f"$ {command}\n")
        assert after == "<!-- end -->"


def test_figures_in_prose_are_those_of_an_output():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    outputs = "".join(b.text for b in blocks(ROOT / "README.md") if b.kind == "text")
    prose = FENCE.sub("", text).replace("\n", " ")
    known = {" ".join(figure.split()) for figure in WITH_INTERVAL.findall(outputs)}
    assert set(WITH_INTERVAL.findall(prose)) <= known


def test_every_fault_code_is_explained_and_none_is_invented():
    code = re.compile(r"SV-[FX]\d+")
    raised = {
        found
        for package in ("stages", "pipeline")
        for path in (ROOT / package).rglob("*.py")
        for found in code.findall(path.read_text(encoding="utf-8"))
    }
    assert set(code.findall((ROOT / "docs" / "errors.md").read_text(encoding="utf-8"))) == raised


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_a_notebook_runs_and_stores_no_output(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        assert not cell.get("outputs"), "clear the outputs before you commit"
    client = NotebookClient(
        notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    shown = json.dumps(notebook)
    assert any(asset in shown for asset in ("AAPL", "A0"))  # signals were shown
