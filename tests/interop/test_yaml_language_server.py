"""The editor's side: a real YAML language server completes and checks playbooks by our schema.

Needs `yaml-language-server` on the PATH (npm install yaml-language-server); skipped without it.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

SERVER = shutil.which("yaml-language-server")
pytestmark = pytest.mark.skipif(
    SERVER is None, reason="no yaml-language-server on the PATH: `npm install yaml-language-server` has it"
)
PATIENCE = 60.0
MODELINE = "# yaml-language-server: $schema=../.counterplay/playbook.schema.json\n"


class Editor:
    """As much of an editor as it takes: it opens documents and asks what may stand at a place."""

    def __init__(self, folder: Path) -> None:
        assert SERVER is not None
        self._folder = folder
        self._process = subprocess.Popen(
            [SERVER, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._numbers = itertools.count(1)
        self._answers: dict[int, Queue[Any]] = {}
        self._diagnostics: dict[str, Queue[list[dict[str, Any]]]] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.ask(
            "initialize",
            {"processId": None, "rootUri": folder.as_uri(), "capabilities": {"textDocument": {}}},
        )
        self._send({"method": "initialized", "params": {}})
        settings = {
            "yaml": {
                "validate": True,
                "completion": True,
                "hover": True,
                "schemaStore": {"enable": False},
                "kubernetesCRDStore": {"enable": False},
            }
        }
        self._send({"method": "workspace/didChangeConfiguration", "params": {"settings": settings}})

    def open(self, name: str, text: str) -> list[dict[str, Any]]:
        """What is wrong with a document, by the server's first word on it."""
        uri = (self._folder / "playbooks" / name).as_uri()
        self._diagnostics[uri] = Queue()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self._send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        return self._diagnostics[uri].get(timeout=PATIENCE)

    def completions(self, name: str, text: str) -> dict[str, dict[str, Any]]:
        """What may stand at the mark `|` of a document, by label."""
        before = text[: text.index("|")]
        self.open(name, text.replace("|", "", 1))
        found = self.ask(
            "textDocument/completion",
            {
                "textDocument": {"uri": (self._folder / "playbooks" / name).as_uri()},
                "position": {"line": before.count("\n"), "character": len(before.rpartition("\n")[2])},
            },
        )
        return {item["label"]: item for item in found["items"]}

    def ask(self, method: str, params: dict[str, Any]) -> Any:
        number = next(self._numbers)
        self._answers[number] = Queue()
        self._send({"id": number, "method": method, "params": params})
        answer = self._answers[number].get(timeout=PATIENCE)
        assert "error" not in answer, answer
        return answer["result"]

    def close(self) -> None:
        self.ask("shutdown", {})
        self._send({"method": "exit"})
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._process.stdin.flush()

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        while line := stream.readline():
            length = int(line.split(b":")[1])
            while stream.readline().strip():
                pass
            message = json.loads(stream.read(length))
            if "method" not in message:
                self._answers[message["id"]].put(message)
            elif message["method"] == "textDocument/publishDiagnostics":
                params = message["params"]
                if params["uri"] in self._diagnostics:
                    self._diagnostics[params["uri"]].put(params["diagnostics"])
            elif "id" in message:  # the server asks for something: settings, to register; it gets nothing
                items = message.get("params", {}).get("items")
                self._send({"id": message["id"], "result": [None for _ in items] if items else None})


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    """An editor in a workspace, with the schema that `playbook schema --write` wrote there."""
    folder = tmp_path_factory.mktemp("workspace")
    subprocess.run(
        [_playbook(), "init"], cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    subprocess.run([_playbook(), "schema", "--write"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    opened = Editor(folder)
    yield opened
    opened.close()


def _playbook() -> str:
    import sys

    return str(Path(sys.executable).with_name("playbook"))


@pytest.fixture
def document(request: pytest.FixtureRequest) -> Callable[[str], tuple[str, str]]:
    """A name for the document of one test, and its text below the line that names the schema."""
    name = f"{request.node.name.replace('[', '-').replace(']', '')}.yaml"
    return lambda text: (name, MODELINE + text)


APPROVAL = "name: a\ntrigger: {uses: std.manual}\nsteps:\n  - uses: std.approval\n    with:\n      "
GOOD = """\
name: contain
trigger:
  uses: m365.alerts
  connection: contoso
  with: {severity: [high], poll_interval: 60s}
steps:
  - id: user
    uses: m365.get_user
    with: {user_id: "{{ event.user }}"}
  - parallel:
      - {uses: m365.block_sign_in, with: {user_id: "{{ steps.user.result.id }}"}}
  - uses: std.approval
    with: {question: Really?, people: "{{ inputs.people }}"}
sinks:
  - {uses: intake.forward, connection: siem}
"""


def test_a_good_playbook_has_nothing_wrong(editor: Editor, document: Any) -> None:
    """Expressions may stand wherever a value may, a number included."""
    assert editor.open(*document(GOOD)) == []


def test_every_shipped_playbook_has_nothing_wrong(editor: Editor) -> None:
    """What `check` passes, an editor passes."""
    from counterplay._data_files import shipped_playbooks

    for file in shipped_playbooks().iterdir():
        if file.name.endswith(".yaml"):
            body = file.read_text("utf-8").partition("\n")[2]
            assert editor.open(f"shipped-{file.name}", MODELINE + body) == [], file.name


@pytest.mark.parametrize(
    ("good", "bad", "line", "said"),
    [
        ("severity: [high]", "severty: [high]", 5, "severty"),
        ("severity: [high]", "severity: [hihg]", 5, ""),
        ("poll_interval: 60s", "poll_interval: sixty", 5, ""),
        ("uses: m365.get_user", "uses: m365.get_usr", 8, ""),
        ('with: {user_id: "{{ event.user }}"}', "with: {}", 9, "user_id"),
        ("uses: intake.forward", "uses: m365.alerts", 15, ""),
        ('people: "{{ inputs.people }}"', "people: some", 13, ""),
        ("id: user", "idd: user", 7, ""),
    ],
)
def test_a_mistake_is_marked_where_it_stands(
    editor: Editor, document: Any, good: str, bad: str, line: int, said: str
) -> None:
    """Arguments of the module that is used, names of modules, and the language itself."""
    found = editor.open(*document(GOOD.replace(good, bad, 1)))
    assert found
    assert {one["range"]["start"]["line"] for one in found} == {line}
    assert said in " ".join(one["message"] for one in found)


@pytest.mark.parametrize(
    ("text", "offered", "not_offered"),
    [
        (
            "name: a\ntrigger:\n  uses: |\n",
            {"m365.alerts", "std.manual"},
            {"m365.get_user", "intake.forward"},
        ),
        (
            "name: a\ntrigger: {uses: std.manual}\nsteps:\n  - uses: |\n",
            {"m365.get_user", "std.approval", "std.jsonl"},
            {"m365.alerts"},
        ),
        (
            "name: a\ntrigger:\n  uses: m365.alerts\n  with:\n    |\n",
            {"severity", "poll_interval"},
            {"user_id"},
        ),
        (
            f"{APPROVAL}|\n",
            {"question", "timeout", "on_timeout"},
            {"severity"},
        ),
        (
            f"{APPROVAL}on_timeout: |\n",
            {"deny", "approve", "fail"},
            set(),
        ),
        ("name: a\n|\n", {"trigger", "steps", "sinks", "once_per"}, {"name"}),
    ],
)
def test_what_may_stand_at_a_place_is_offered(
    editor: Editor, document: Any, text: str, offered: set[str], not_offered: set[str]
) -> None:
    """Modules by kind, the arguments of the module that is used, and their values."""
    found = editor.completions(*document(text))
    assert offered <= set(found)
    assert not not_offered & set(found)


def test_what_is_offered_says_what_it_is(editor: Editor, document: Any) -> None:
    """The description of an argument stands beside it."""
    text = "name: a\ntrigger: {uses: std.manual}\nsteps:\n  - uses: m365.get_user\n    with:\n      |\n"
    found = editor.completions(*document(text))
    assert "object id or userPrincipalName" in json.dumps(found["user_id"]["documentation"])
