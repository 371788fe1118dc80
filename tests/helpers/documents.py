"""Run the code blocks of a Markdown document in a folder that holds what they name; helpers of test_documents.py.

A block is bash, python, yaml or json. A ``tcam`` command runs in this process on tiny settings, after its exact flags
and settings were parsed. What needs a network, a camera, a cluster, pretrained weights, a data set or minutes is only
parsed: ``why_only_parsed`` says which. What this file does not know fails.
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import SkipTest

import typer
import yaml
from sybil import Sybil
from sybil.example import Example
from sybil.parsers.markdown import CodeBlockParser, SkipParser

from pipelines.cli.app import app
from pipelines.config.schema import load_config
from pipelines.synthetic.videos import write_synthetic_videos
from tests.helpers.tiny import SETTINGS, set_flags

REPO = Path(__file__).parents[2]
LANGUAGES = ("bash", "python", "yaml", "json")
TINY = (*SETTINGS, "localizer.batch=4")

OTHER_COMMANDS = frozenset(
    (
        ".",
        "cd",
        "curl",
        "docker",
        "export",
        "ffmpeg",
        "git",
        "head",
        "jq",
        "ls",
        "mkdir",
        "pre-commit",
        "ray",
        "your-program",
    )
)
"""Commands of the system. Of their arguments, those that look like a file of the repository must exist."""
LIVE = re.compile(r"\d+|-|(rtsp|rtmp|tcp|udp|https?)://.*")
ABSENT_DATA = frozenset({"yto_v1", "yto_v2.2", "runs/yto_v1-tcam-001"})
REAL_CLIPS = "../shared/"
"""Real clips lie beside the repository, on some machines only."""
SLOW = {"demo": "takes minutes", "bench": "compiles the network and measures"}
INPUTS = ("run", "runs", "config", "videos", "source", "calibrate", "background", "resume", "folder")
"""Parameters of commands that name something to be read."""

Call = Callable[[Sequence[str]], int]
"""Runs ``tcam`` with some arguments in the present folder; returns the exit code."""


class BlockError(AssertionError):
    """A block that does not work."""


def documents() -> list[Path]:
    """All documents whose blocks are run."""
    folders = [REPO / name / "README.md" for name in ("tcam", "colocam", "pipelines", "configs")]
    return [REPO / "README.md", REPO / "CONTRIBUTING.md", *folders, *sorted((REPO / "docs").rglob("*.md"))]


def broken_links(path: Path) -> list[str]:
    """Return the links of a document that lead to no file of the repository, or to no heading of a document."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text)
    return [link for pair in links for link in pair if link and not _leads_somewhere(link, path)]


def _leads_somewhere(link: str, document: Path) -> bool:
    if re.match(r"[a-z]+:", link):
        return True
    name, _, heading = link.partition("#")
    target = document.parent / name if name else document
    if not heading or not target.is_file():
        return target.exists()
    titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
    return heading in {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def make_workspace(folder: Path, call: Call) -> Path:
    """Create the folder that the documents refer to: tagged videos, finished runs, another video, the repository."""
    write_pets(folder / "videos")
    shutil.copy(folder / "videos/dog/rex.mp4", folder / "holiday.mp4")
    shutil.copytree(folder / "videos/cat", folder / "street-scenes")
    for name in ("archives", "clips", "youtube-objects", "wsol-lists"):
        (folder / name).mkdir()
    for video in (folder / "videos").glob("*/*.mp4"):
        shutil.copy(video, folder / "clips")
    tags = [f"{video.name} {video.parent.name}" for video in sorted((folder / "videos").glob("*/*.mp4"))]
    (folder / "clips/tags.txt").write_text("\n".join(tags))
    for name in ("configs", "docs", "tools", ".ci"):
        (folder / name).symlink_to(REPO / name)
    train = ("train", "--videos", str(folder / "videos"), "--runs", str(folder / "runs"), "--name", "pets", "--quiet")
    assert call([*train, *set_flags(TINY)]) == 0
    for name in ("cam-seed0-001", "tcam-seed0-001", "tcam-seed1-001"):
        shutil.copytree(folder / "runs/pets-001", folder / "runs" / name)
    return folder


def write_pets(folder: Path) -> None:
    """Write eight small videos of synthetic objects, called dogs and cats, with tables of splits and boxes."""
    write_synthetic_videos(folder, classes=2, videos_per_class=(2, 1, 1), frames=8, size=(64, 64), seed=0)

    def rename(text: str) -> str:
        return text.replace("fish", "dog").replace("beetle", "cat").replace("dog-03", "rex")

    for table in folder.glob("*.csv"):
        table.write_text(rename(table.read_text()))
    for video in sorted(folder.rglob("*.mp4")):
        target = folder / rename(video.relative_to(folder).as_posix())
        target.parent.mkdir(exist_ok=True)
        video.rename(target)
    for empty in ("fish", "beetle"):
        (folder / empty).rmdir()


def run_blocks(path: Path, call: Call) -> int:
    """Run the blocks of a document in order, in the present folder; return how many there are.

    Raises:
        BlockError: the first block that does not work, with its file and line.
    """
    runners = {"bash": BashRunner(call), "python": run_python, "yaml": run_yaml, "json": run_json}
    parsers = [CodeBlockParser(language, runner) for language, runner in runners.items()]
    count, shown = 0, path.relative_to(REPO) if path.is_relative_to(REPO) else path
    for example in Sybil([*parsers, SkipParser(), refuse_other_languages]).parse(path).examples():
        count += 1
        try:
            example.evaluate()
        except SkipTest as skipped:
            if not str(skipped):
                raise BlockError(f"{shown}:{example.line}: a block that is skipped must say why") from None
        except (Exception, SystemExit) as error:
            raise BlockError(f"{shown}:{example.line}: {type(error).__name__}: {error}") from error
    return count


def refuse_other_languages(document: Any) -> Iterator[Any]:
    """Refuse blocks that nobody would run: with another label, or with commands and no label (a parser for sybil)."""
    for fence in re.finditer(r"^```(\S*)\n(.*?)^```", document.text, re.MULTILINE | re.DOTALL):
        label, text = fence.groups()
        line = document.text.count("\n", 0, fence.start()) + 1
        if label not in (*LANGUAGES, "", "text", "bibtex"):
            raise BlockError(f"{document.path}:{line}: a block of {label!r}; known: {', '.join(LANGUAGES)}, text")
        if label not in LANGUAGES and re.search(r"^\s*(\$ |tcam |import |pip )", text, re.MULTILINE):
            raise BlockError(f"{document.path}:{line}: commands in a block without a label: write ```bash or ```python")
    return iter(())


def run_python(example: Example) -> None:
    """Run a block with the names of those before it."""
    code = compile("\n" * example.line + example.parsed, example.path, "exec", dont_inherit=True)
    exec(code, example.namespace)


def run_yaml(example: Example) -> None:
    """Read a block as settings of a run."""
    path = Path("block.yaml")
    path.write_text(example.parsed)
    load_config(path)
    path.unlink()


def run_json(example: Example) -> None:
    """Read a block as JSON, or as JSON Lines."""
    for text in example.parsed.splitlines() if example.parsed.count("\n{") else [example.parsed]:
        json.loads(text)


@dataclass(frozen=True)
class BashRunner:
    """Runs the commands of a bash block one by one."""

    call: Call

    def __call__(self, example: Example) -> None:
        for words in commands(example.parsed):
            self.run(words)

    def run(self, words: Sequence[str]) -> None:
        """Run or check one command."""
        name, *arguments = words
        name = name.removeprefix(".venv/bin/")
        if name == "torchrun":
            arguments = arguments[arguments.index("--no-python") + 1 :]
            return parse_tcam(arguments[1:])
        if name == "tcam":
            return self.run_tcam(arguments)
        if name == "pip" or words[:3] == ["uv", "pip", "install"]:
            return check_install(words)
        if name in ("python", "python3") and arguments[0] != "-m":
            return self.run_script(*arguments)
        if name == "python":
            return check_installed(arguments[1])
        if "/" in name:
            return check_tool(name)
        if name not in OTHER_COMMANDS:
            raise BlockError(f"unknown command {name!r}: teach tests/helpers/documents.py what to do with it")
        return check_paths(arguments)

    def run_script(self, script: str, *arguments: str) -> None:
        """Run an example, or one that adds a row to a table and then is ``tcam``; of others, check the flags."""
        path = REPO / script
        if not path.is_file():
            raise BlockError(f"no script {script}")
        if path.parent != REPO / "docs" / "examples":
            check_flags(path, arguments)
        elif "import main\n" in path.read_text():
            runpy.run_path(str(path))
            self.run_tcam(arguments)
        else:
            run_example(script, arguments)

    def run_tcam(self, arguments: Sequence[str]) -> None:
        """Parse the exact arguments, then run them on tiny settings, unless there is a reason not to."""
        command, values = parse_tcam(arguments)
        if why_only_parsed(command, values) is not None:
            return
        code = self.call([*in_this_process(command, arguments), *tiny_settings(command, values)])
        if code:
            raise BlockError(f"tcam {shlex.join(arguments)}: exit code {code}")


def commands(text: str) -> Iterator[list[str]]:
    """Split bash into simple commands: words without comments, variables set for the command and redirections."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;>")
        lexer.whitespace_split = True
        words: list[str] = []
        for token in [*lexer, ";"]:
            if set(token) <= set("|&;"):
                while words and re.match(r"[A-Z_]+=", words[0]):
                    words.pop(0)
                if words:
                    yield without_redirections(words)
                words = []
            else:
                words.append(token)


def without_redirections(words: Sequence[str]) -> list[str]:
    """Leave out ``> file`` and its like."""
    if ">" not in words:
        return list(words)
    position = words.index(">")
    return without_redirections([*words[:position], *words[position + 2 :]])


def parse_tcam(arguments: Sequence[str]) -> tuple[str, Mapping[str, Any]]:
    """Parse arguments as the command line does; return the command's name and the values of its parameters.

    Raises:
        BlockError: an unknown command or flag, a setting that is none, or an input that is not there.
    """
    command: Any = typer.main.get_command(app)
    context, names, rest = None, ["tcam"], list(arguments)
    try:
        while True:
            context = command.make_context(names[-1], rest, parent=context)
            if not hasattr(command, "commands") or context.params.get("version"):
                break
            name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            names.append(name)
    except Exception as error:
        raise BlockError(f"tcam {shlex.join(arguments)}: {getattr(error, 'message', error)}") from error
    values = context.params
    check_inputs(values)
    check_settings(values)
    return " ".join(names[1:]), values


def check_inputs(values: Mapping[str, Any]) -> None:
    """Check that what a command would read is there."""
    for name in INPUTS:
        given = values.get(name)
        for item in given if isinstance(given, list | tuple) else [given]:
            if item is None or str(item) in ABSENT_DATA or LIVE.fullmatch(str(item)):
                continue
            if str(item).startswith(REAL_CLIPS) or (name == "runs" and isinstance(given, Path)):
                continue
            if not any(Path().glob(str(item).removeprefix("./").rstrip("/"))):
                raise BlockError(f"{name}: {item} is not in the folder that documents speak of")


def check_settings(values: Mapping[str, Any]) -> None:
    """Check ``--set``, ``--config`` and the flags that are settings, as ``tcam train`` does before anything runs."""
    flags = {"method": "method", "backbone": "model.backbone", "background": "data.background"}
    overrides = [*(values.get("set_") or ())]
    overrides += [f"{key}={json.dumps(str(values[flag]))}" for flag, key in flags.items() if values.get(flag)]
    config = load_config(values.get("config") and Path(values["config"]), overrides)
    weights = values.get("weights") or config.model.weights
    ours = str(values.get("videos")).startswith(REAL_CLIPS)
    if values.get("config") and Path(weights).suffix and not ours and not Path(weights).is_file():
        raise BlockError(f"the config names weights that users do not have ({weights}): add --weights")


def why_only_parsed(command: str, values: Mapping[str, Any]) -> str | None:
    """Return why a command is parsed and not run, or None."""
    source = str(values.get("source") or values.get("videos") or "")
    reasons = {
        "needs a network": command == "data get" or values.get("weights") == "imagenet",
        "needs the real clips": source.startswith(REAL_CLIPS),
        "needs a data set": bool(ABSENT_DATA & {source, str(values.get("name"))}) or command == "data import-splits",
        "needs pretrained weights": bool(values.get("weights") or values.get("config") or values.get("backbone")),
        "needs a camera, an address or standard input": LIVE.fullmatch(source) is not None,
        "needs Ray": bool(values.get("ray") or values.get("ray_address") or values.get("num_workers", 1) > 1),
        "needs a browser": bool(values.get("show")),
        "needs pydensecrf": values.get("refine") == "crf",
        "needs a GPU": str(values.get("device", "")).startswith("cuda"),
        SLOW.get(command, ""): command in SLOW or bool(values.get("compile_")) or bool(values.get("int8")),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def in_this_process(command: str, arguments: Sequence[str]) -> list[str]:
    """Set the number of worker processes to none."""
    if "--workers" in arguments:
        before = ["", *arguments]
        return ["0" if flag == "--workers" else word for flag, word in zip(before, arguments, strict=False)]
    return [*arguments, *(("--workers", "0") if command in ("prepare", "cams", "predict", "evaluate") else ())]


def tiny_settings(command: str, values: Mapping[str, Any]) -> list[str]:
    """Return the flags that make a command quick."""
    if command in ("train", "prepare") and not values.get("resume"):
        return set_flags(TINY)
    return set_flags(("data.workers=0",)) if command == "data check" else []


def train_tiny(train: Callable[..., Path]) -> Callable[..., Path]:
    """Return ``tcam.train`` with tiny settings, after its own were checked."""

    def train_with_tiny_settings(videos: str, *, settings: Mapping[str, Any], **others: Any) -> Path:
        load_config(None, [f"{key}={json.dumps(value)}" for key, value in settings.items()])
        pairs = (setting.split("=", 1) for setting in TINY)
        tiny = {key: yaml.safe_load(value) for key, value in pairs}
        return train(videos, settings={**settings, **tiny}, **others)

    return train_with_tiny_settings


def check_flags(script: Path, arguments: Sequence[str]) -> None:
    """Check that a script has the flags that it is given."""
    flags = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    unknown = [flag for flag in flags if f'"{flag}"' not in source_of(script)]
    if unknown:
        raise BlockError(f"{script.name} has no {', '.join(unknown)}")


def run_example(script: str, arguments: Sequence[str]) -> None:
    """Run a script of the repository in this process, as if it had been started."""
    before = sys.argv
    try:
        sys.argv = [script, *arguments]
        runpy.run_path(str(REPO / script), run_name="__main__")
    finally:
        sys.argv = before


def source_of(script: Path) -> str:
    """Return the text of a script and of the modules beside it, as they share flags."""
    return "".join(file.read_text() for file in script.parent.glob("*.py"))


def check_install(words: Sequence[str]) -> None:
    """Check that the extras exist, as in ``pip install 'tcam[ray,export]'``."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        unknown = set(extras.split(",")) - set(project["optional-dependencies"])
        if unknown:
            raise BlockError(f"pip install: no such extra: {', '.join(sorted(unknown))}")


def check_installed(module: str) -> None:
    """Check the name in ``python -m NAME``."""
    if module not in ("venv", "pip", "pytest", "pipelines"):
        raise BlockError(f"python -m {module}: not known to tests/helpers/documents.py")


def check_tool(name: str) -> None:
    """Check that a script of the repository is there and can be run."""
    path = REPO / name
    if not path.is_file() or not path.stat().st_mode & 0o100:
        raise BlockError(f"no script that can be run at {name}")


def check_paths(words: Sequence[str]) -> None:
    """Check that files of the repository which a command of the system is given are there."""
    for word in words:
        if re.match(r"(tools|docs|configs|tests|runs)/", word) and not Path(word).exists():
            raise BlockError(f"no {word} in the folder that documents speak of")
