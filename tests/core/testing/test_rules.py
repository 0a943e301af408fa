"""The conformance kit under test: the good plugin keeps every rule, and each bad one breaks just its own.

A bad plugin is the example plugin with one deliberate fault.
"""

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest

from counterplay.plugins import PluginHost
from counterplay.testing import Bench
from counterplay.testing.case import Case
from counterplay.testing.rules import RULES, Broken, NotApplicable

PLUGIN = Path(__file__).resolve().parents[2] / "fixtures" / "acme_plugin"
PACKAGE = "acme_counterplay"


@dataclass(frozen=True)
class Fault:
    """What makes the plugin bad: each old text of a file becomes the new one."""

    rule: str
    module: str
    file: str
    edits: tuple[tuple[str, str], ...]
    says: str


def without_settled(text: str) -> str:
    """Cut `settled` out of close_ticket.py."""
    start = text.index("    def settled(")
    return text[start : text.index("    def verify(")]


CLOSE = (PLUGIN / "src" / PACKAGE / "close_ticket.py").read_text()
INVERSE = CLOSE[CLOSE.index("    def inverse(") : CLOSE.index("\n\ndef _result")]
SETTLED = without_settled(CLOSE)
RUN = '        return _result(Client(context).close_ticket(self.arguments["ticket_id"]))\n'

FAULTS = [
    Fault(
        "name-in-snake-case", "Tag", "tag.py", (('name = "tag"', 'name = "Tag"'),), "'Tag' is not snake_case"
    ),
    Fault(
        "summary-in-one-line",
        "tag",
        "tag.py",
        (("Add a member with a fixed text to each event, in place of one of that name.", "Tags."),),
        "'Tags.' is no sentence",
    ),
    Fault(
        "schema-is-closed",
        "tag",
        "schemas/tag.json",
        (('  "additionalProperties": false,\n', ""),),
        "the schema is open",
    ),
    Fault(
        "properties-are-described",
        "tag",
        "schemas/tag.json",
        (('"description": "Its text.",', ""),),
        "/value has no `description`",
    ),
    Fault(
        "defaults-fit",
        "tag",
        "schemas/tag.json",
        (('"default": "tag"', '"default": 7'),),
        "the default of member",
    ),
    Fault(
        "secrets-are-write-only",
        "account",
        "schemas/account.json",
        (('      "writeOnly": true,\n', ""),),
        "api_key is named like a secret",
    ),
    Fault(
        "result-is-declared",
        "tag",
        "schemas/tag.json",
        (
            (
                '  "required": [',
                '  "$defs": {"result": {"type": "object", "additionalProperties": false}},\n  "required": [',
            ),
        ),
        "a transform has no result",
    ),
    Fault(
        "methods-are-there",
        "hook",
        "hook.py",
        (("def receive(", "def take("),),
        "a PushTrigger needs receive",
    ),
    Fault(
        "settling-is-declared",
        "close_ticket",
        "close_ticket.py",
        (('settle = "read"', 'settle = "ask"'),),
        "`settled` is needed for settle = 'read', and for nothing else",
    ),
    Fault(
        "permissions-are-complete",
        "close_ticket",
        "schemas/close_ticket.json",
        (('"any": [', '"all": ["x"], "any": ['),),
        "give resource, any (at least one) and for",
    ),
    Fault(
        "roles-are-complete",
        "tag",
        "schemas/tag.json",
        (('  "required": [', '  "x-roles": [{"any": [], "for": "x", "always": true}],\n  "required": ['),),
        "give any (at least one), for and always",
    ),
    Fault(
        "connection-exists",
        "tag",
        "tag.py",
        (('    name = "tag"\n', '    name = "tag"\n    connection = "acme.office"\n'),),
        "no connection is called acme.office",
    ),
    Fault(
        "import-is-quick",
        "account",
        "__init__.py",
        (("\n@hookimpl", "\nTABLE = sum(n * n for n in range(4_000_000))\n\n\n@hookimpl"),),
        "ms at best",
    ),
    Fault(
        "import-is-offline",
        "account",
        "__init__.py",
        (("\n@hookimpl", '\nimport socket\n\nsocket.getaddrinfo("127.0.0.1", 9)\n\n\n@hookimpl'),),
        "reached for the network: socket.getaddrinfo",
    ),
    Fault("example-is-given", "tag", "", (), "`examples` of the bench gives no value for acme.tag"),
    Fault(
        "result-is-as-declared",
        "close_ticket",
        "close_ticket.py",
        (('"status": ticket.status}', '"status": ticket.status, "by": "me"}'),),
        "what it returned is not what its schema says: result.by: 'by' is not known here",
    ),
    Fault(
        "secrets-are-masked",
        "close_ticket",
        "close_ticket.py",
        (
            (
                RUN,
                "        import base64\n\n        key = context.connection.secret('api_key').encode()\n"
                "        context.log.info('signing in with %s', base64.b64encode(b'acme:' + key))\n" + RUN,
            ),
        ),
        "what it said holds the secret acme.account.api_key (in base64)",
    ),
    Fault(
        "plan-sends-no-write",
        "close_ticket",
        "client.py",
        (
            (
                'self._http.post(f"{self._ticket_url(ticket_id)}/close")',
                'self._http.request("POST", f"{self._ticket_url(ticket_id)}/close", reads=True)',
            ),
        ),
        "planning it changed the service",
    ),
    Fault(
        "undo-restores",
        "close_ticket",
        "close_ticket.py",
        (('Inverse("acme.open_ticket"', 'Inverse("acme.close_ticket"'),),
        "after taking it back, the service is not as it was before",
    ),
    Fault(
        "repeat-is-as-declared",
        "close_ticket",
        "close_ticket.py",
        (
            ('settle = "read"', 'settle = "repeat"'),
            (SETTLED, ""),
            (INVERSE, ""),
            (
                RUN,
                '        client, ticket = Client(context), self.arguments["ticket_id"]\n'
                '        if client.ticket(ticket).status == "closed":\n'
                "            client.open_ticket(ticket)\n"
                '            return {"ticket_id": ticket, "status": "closed"}\n'
                "        return _result(client.close_ticket(ticket))\n",
            ),
        ),
        "doing it twice is not the same as doing it once",
    ),
    Fault(
        "resume-after-kill",
        "close_ticket",
        "close_ticket.py",
        (
            ("\n\nclass CloseTicket", "\n\nCLOSED: dict[str, Ticket] = {}\n\n\nclass CloseTicket"),
            (
                RUN,
                '        ticket = Client(context).close_ticket(self.arguments["ticket_id"])\n'
                "        CLOSED[ticket.id] = ticket\n"
                "        return _result(ticket)\n",
            ),
            (
                '        ticket = Client(context).ticket(self.arguments["ticket_id"])\n'
                '        return _result(ticket) if ticket.status == "closed" else None\n',
                '        ticket = CLOSED.get(self.arguments["ticket_id"])\n'
                "        return _result(ticket) if ticket is not None else None\n",
            ),
        ),
        "was sent again by the next process",
    ),
    Fault(
        "cursor-is-honest-under-faults",
        "changes",
        "changes.py",
        (
            (
                '        start = {"since": rfc3339(since)} if cursor is None'
                ' else {"after": str(cursor["after"])}\n',
                '        first, self._begun = not getattr(self, "_begun", False), True\n'
                '        after = str(cursor["after"]) if cursor else "99999"\n'
                '        start = {"since": rfc3339(since)} if first else {"after": after}\n',
            ),
        ),
        "events were passed over",
    ),
    Fault(
        "no-session-of-its-own",
        "archive",
        "archive.py",
        (
            (
                "        ids = Client",
                "        import socket\n\n"
                "        host, _, port = context.connection.base_url.split('/')[2].partition(':')\n"
                "        socket.create_connection((host, int(port))).close()\n"
                "        ids = Client",
            ),
        ),
        "it reached for the network beside `context.http`",
    ),
    Fault(
        "errors-of-the-right-kind",
        "archive",
        "archive.py",
        (
            (
                "        ids = Client(context).archive([record.raw for record in records])\n",
                "        try:\n"
                "            ids = Client(context).archive([record.raw for record in records])\n"
                "        except RetryableError as error:\n"
                "            raise RuntimeError(str(error)) from error\n",
            ),
        ),
        "`deliver` met 503 and raised RuntimeError",
    ),
    Fault(
        "transform-invents-nothing",
        "tag",
        "tag.py",
        (("for event in events]", "for event in [*events, *events]]"),),
        "of the events ['k0', 'k1'] it made ['k0', 'k1', 'k0', 'k1']",
    ),
    Fault(
        "receipt-for-each-record",
        "archive",
        "archive.py",
        (("for remote_id in ids]", "for remote_id in ids[:1]]"),),
        "2 records were delivered, and 1 receipts came back",
    ),
    Fault(
        "encodes-early-as-promised",
        "archive",
        "archive.py",
        (
            ("RetryableError, Sink", "BulkSink, RetryableError"),
            (
                "(Sink):",
                "(BulkSink):",
            ),
            (
                "    def deliver(self, context: Context, records: Sequence[Event])",
                "    encodes_early = True\n\n"
                "    def encode(self, raw: bytes) -> bytes:\n"
                "        return bytes(raw)\n\n"
                "    def deliver(self, context: Context, records: Sequence[Event])",
            ),
        ),
        "`encode_all` takes what is not UTF-8",
    ),
]


@pytest.fixture(scope="module")
def give_bench() -> Iterator[Callable[[str, Path], Any]]:
    """The bench that the example plugin's own `conftest.py` gives."""
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("acme_conftest", PLUGIN / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module.pytest_counterplay_bench
    sys.path[:] = before
    forget("acme_")


def forget(prefix: str) -> None:
    """Let the next import of such modules begin anew."""
    for name in [name for name in sys.modules if name.startswith(prefix)]:
        del sys.modules[name]


@pytest.fixture
def judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, give_bench: Any
) -> Iterator[Callable[..., dict[str, str]]]:
    """Hold a module of a plugin against every rule: what is broken, by the rule's name."""
    monkeypatch.syspath_prepend(tmp_path)
    cases: list[Case] = []

    def _judge(package: str, module: str, *, bench: Any = give_bench, plugin_rules: bool) -> dict[str, str]:
        others = [one for one in entry_points(group="counterplay") if one.name != "acme"]
        host = PluginHost.load([*others, EntryPoint("acme", package, "counterplay")])
        assert host.plugins["acme"].problem is None
        case = Case(host, host.module(f"acme.{module}"), bench, tmp_path / f"bench-{module}")
        cases.append(case)
        found = {}
        for rule in RULES.values():
            if case.info.kind not in rule.kinds or (rule.scope == "plugin" and not plugin_rules):
                continue
            try:
                rule.check(case)
            except NotApplicable:
                pass
            except Broken as broken:
                found[rule.name] = str(broken)
        case.close()
        return found

    yield _judge
    forget("bad_")


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Fault], str]:
    """Write the bad plugin, and give its package's name."""

    def _copy(fault: Fault) -> str:
        name = "bad_" + fault.rule.replace("-", "_")
        folder = tmp_path / name
        shutil.copytree(PLUGIN / "src" / PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
        if fault.module != fault.module.lower():
            schema = folder / "schemas" / f"{fault.module.lower()}.json"
            schema.rename(schema.with_name(f"{fault.module}.json"))
        for old, new in fault.edits:
            text = (folder / fault.file).read_text()
            assert old in text, old
            (folder / fault.file).write_text(text.replace(old, new))
        for file in folder.glob("*.py"):
            file.write_text(file.read_text().replace(PACKAGE, name))
        return name

    return _copy


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.rule)
def test_a_bad_plugin_breaks_its_rule_and_no_other(
    fault: Fault, judge: Any, copy: Any, give_bench: Any
) -> None:
    """The rule sees its fault, says what it is, and the other rules have nothing against the module."""

    def bench(plugin: str, folder: Path) -> Iterator[Bench]:
        for one in give_bench(plugin, folder):
            examples = {name: each for name, each in one.examples.items() if name != "acme.tag"}
            tag = {f"acme.{fault.module}": one.examples["acme.tag"]} if fault.module in ("tag", "Tag") else {}
            if fault.rule == "example-is-given":
                tag = {}
            yield Bench(one.connections, {**examples, **tag}, one.state)

    found = judge(copy(fault), fault.module, bench=bench, plugin_rules=fault.rule.startswith("import-"))

    assert list(found) == [fault.rule], found
    assert fault.says in found[fault.rule]


def test_a_bench_that_shows_no_state_is_no_proof_that_undo_restores(
    judge: Any, copy: Any, give_bench: Any
) -> None:
    """Nothing equals nothing: without `state` an undo that restores nothing would pass."""

    def bench(plugin: str, folder: Path) -> Iterator[Bench]:
        for one in give_bench(plugin, folder):
            yield Bench(one.connections, one.examples)

    (fault,) = [one for one in FAULTS if one.rule == "undo-restores"]
    found = judge(copy(fault), fault.module, bench=bench, plugin_rules=False)

    assert "`state` of the bench does not show what it changes" in found["undo-restores"]


def test_events_of_one_delivery_key_are_events_passed_over(judge: Any, copy: Any) -> None:
    """The host would drop all but the first as duplicates."""
    fault = Fault(
        "cursor-is-honest-under-faults",
        "changes",
        "changes.py",
        (('str(event.data["seq"]) if "seq" in event.data else None', '"the same"'),),
        "",
    )
    found = judge(copy(fault), fault.module, plugin_rules=False)

    assert "have one delivery key, 'the same'" in found["cursor-is-honest-under-faults"]


def test_every_rule_has_a_bad_plugin() -> None:
    """A rule that nothing breaks would not be known to work."""
    assert sorted(fault.rule for fault in FAULTS) == sorted(RULES)


def test_every_rule_says_what_it_promises() -> None:
    """`--collect-only` and the documentation print it."""
    assert all(rule.text.endswith(".") and len(rule.text) > 30 for rule in RULES.values())


def test_the_good_plugin_passes_by_the_documented_command(tmp_path: Path) -> None:
    """`pytest --counterplay-plugin` collects a test for each rule and module, and all pass."""
    import subprocess

    command = [sys.executable, "-m", "pytest", "-q", "--counterplay-plugin", f"acme={PACKAGE}"]
    done = subprocess.run(
        [*command, "-c", "/dev/null", "--rootdir", ".", "-p", "no:cacheprovider", "-W", "error"],
        cwd=PLUGIN,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "failed" not in done.stdout
    assert json.dumps(done.stdout).count("FAILED") == 0


def test_a_plugin_that_is_not_installed_is_named(tmp_path: Path) -> None:
    """The message lists those that are."""
    import subprocess

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--counterplay-plugin", "nobody", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert "no plugin 'nobody' is installed; there are" in done.stdout + done.stderr
