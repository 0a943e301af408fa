"""Secrets: where they come from, and that they never show."""

import json
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import keyring
import keyring.backend
import keyring.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterplay import ConfigError
from counterplay.secrets import MASK, MaskingFilter, Secrets, reference

WHERE = "connections.contoso.client_secret"


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    """Secrets of a workspace in a temporary folder, with a vault that knows one thing."""
    return Secrets(
        tmp_path,
        lambda scheme, name: "vault-secret-1" if (scheme, name) == ("hashi", "kv/contoso") else None,
    )


class Ring(keyring.backend.KeyringBackend):
    """A keyring with one password, or none that can be read."""

    priority = 1
    locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise keyring.errors.KeyringLocked("locked by ring-secret-1")
        return "ring-secret-1" if (service, username) == ("counterplay/siem", "ada") else None

    def set_password(self, service: str, username: str, password: str) -> None:
        raise keyring.errors.PasswordSetError


@pytest.fixture
def ring() -> Iterator[Ring]:
    """The keyring in use during a test."""
    before = keyring.get_keyring()
    ring = Ring()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", None),
        ("", None),
        (7, None),
        (None, None),
        ("$HOME", None),
        ("${env:NAME}", ("env", "NAME")),
        ("${file:/run/secrets/a b}", ("file", "/run/secrets/a b")),
        ("${my-vault_2:x:y}", ("my-vault_2", "x:y")),
    ],
)
def test_a_reference_is_a_whole_value(value: object, expected: object) -> None:
    """`${scheme:name}` and nothing around it."""
    assert reference(value) == expected


@pytest.mark.parametrize("value", ["Bearer ${env:A}", "${env:A}${env:B}", "${env:A} "])
def test_a_reference_inside_a_text_is_refused(secrets: Secrets, value: str) -> None:
    """It would not be resolved, so it must not look as if it were."""
    with pytest.raises(ConfigError, match=rf"^{WHERE}: \$\{{env:A\}} is not a reference that stands alone; "):
        secrets.resolve(value, where=WHERE)


@pytest.mark.parametrize("value", ["abc${defghijk", "pa$${word1234}", "x${ENV:A}", "${env:a{b}"])
def test_a_secret_in_clear_that_looks_like_a_reference_is_not_shown(secrets: Secrets, value: str) -> None:
    """The message shows no piece of what may be a password."""
    with pytest.raises(ConfigError) as caught:
        secrets.resolve(value, where=WHERE)
    assert str(caught.value).startswith(f"{WHERE}: ${{… is not a reference")


def test_an_environment_variable(secrets: Secrets, monkeypatch) -> None:
    """Read at the moment of use; unset and empty are the same."""
    monkeypatch.setenv("CONTOSO_SECRET", "first-secret")
    assert secrets.resolve("${env:CONTOSO_SECRET}", where=WHERE) == "first-secret"
    monkeypatch.setenv("CONTOSO_SECRET", "second-secret")
    assert secrets.resolve("${env:CONTOSO_SECRET}", where=WHERE) == "second-secret"
    monkeypatch.setenv("CONTOSO_SECRET", "")
    with pytest.raises(
        ConfigError, match=rf"^{WHERE}: the environment variable CONTOSO_SECRET is not set; export CONTOSO"
    ):
        secrets.resolve("${env:CONTOSO_SECRET}", where=WHERE)


def test_a_file(secrets: Secrets, tmp_path: Path, monkeypatch) -> None:
    """Relative to the workspace, absolute, or in the home directory; line ends at its end do not count."""
    (tmp_path / "key").write_bytes(b" file-secret \r\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("key", str(tmp_path / "key"), "~/key"):
        assert secrets.resolve(f"${{file:{name}}}", where=WHERE) == " file-secret "


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, r"cannot read .*/key: No such file or directory"),
        (b"\n", r".*/key is empty"),
        (b"hidden-secret\xff", r"cannot read .*/key: it is not UTF-8 text"),
    ],
)
def test_a_file_that_holds_no_secret(
    secrets: Secrets, tmp_path: Path, content: bytes | None, problem: str
) -> None:
    """The message names setting and file, and shows nothing of its content, its causes included."""
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^{WHERE}: {problem}$") as caught:
        secrets.resolve("${file:key}", where=WHERE)
    assert "hidden-secret" not in repr(caught.value.__cause__)


@pytest.mark.parametrize("name", ["~nobody-of-this-name/key", "a\0b"])
def test_a_path_that_cannot_be_one(secrets: Secrets, name: str) -> None:
    """An unknown home and a NUL are one clear line too."""
    with pytest.raises(ConfigError, match=rf"^{WHERE}: cannot read "):
        secrets.resolve(f"${{file:{name}}}", where=WHERE)


def test_a_keyring(secrets: Secrets, ring: Ring) -> None:
    """The last slash parts service and user."""
    assert secrets.resolve("${keyring:counterplay/siem/ada}", where=WHERE) == "ring-secret-1"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("ada", r"\$\{keyring:ada\} names no user; "),
        ("siem/", r"\$\{keyring:siem/\} names no user; "),
        ("siem/bob", "the keyring has no password of 'bob' for 'siem'; keyring set siem bob"),
    ],
)
def test_a_keyring_without_that_password(secrets: Secrets, ring: Ring, name: str, problem: str) -> None:
    """The hint is the command that puts it there."""
    with pytest.raises(ConfigError, match=f"^{WHERE}: {problem}"):
        secrets.resolve(f"${{keyring:{name}}}", where=WHERE)


def test_a_keyring_that_is_locked(secrets: Secrets, ring: Ring) -> None:
    """Its own words are not repeated: nobody knows what they hold."""
    ring.locked = True
    with pytest.raises(ConfigError, match=f"^{WHERE}: the keyring cannot be read: KeyringLocked$"):
        secrets.resolve("${keyring:siem/ada}", where=WHERE)


def test_a_keyring_that_is_not_installed(secrets: Secrets, monkeypatch) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ConfigError, match=r"pip install 'counterplay\[keyring\]'"):
        secrets.resolve("${keyring:siem/ada}", where=WHERE)


def test_a_vault_of_a_plugin(secrets: Secrets) -> None:
    """Other schemes are asked of plugins; a scheme that none knows is refused."""
    assert secrets.resolve("${hashi:kv/contoso}", where=WHERE) == "vault-secret-1"
    with pytest.raises(ConfigError, match=rf"^{WHERE}: no plugin resolves \$\{{azure:…\}}; use env, file or"):
        secrets.resolve("${azure:kv}", where=WHERE)
    with pytest.raises(ConfigError, match="no plugin resolves"):
        Secrets(Path()).resolve("${hashi:kv/contoso}", where=WHERE)


@pytest.mark.parametrize("value", [None, ""])
def test_a_setting_that_is_missing(secrets: Secrets, value: str | None) -> None:
    """The message names it, and how to set it."""
    with pytest.raises(ConfigError, match=rf"^{WHERE} is missing; set it in counterplay\.yaml"):
        secrets.resolve(value, where=WHERE)


def test_a_short_secret_is_refused_without_being_shown(secrets: Secrets, monkeypatch) -> None:
    """Masking it would mask half of every text; 8 characters are enough."""
    monkeypatch.setenv("SHORT", "qwertzu")
    with pytest.raises(ConfigError, match=f"^{WHERE}: the secret has fewer than 8 characters") as caught:
        secrets.resolve("${env:SHORT}", where=WHERE)
    assert "qwertzu" not in str(caught.value)
    monkeypatch.setenv("SHORT", "qwertzui")
    assert secrets.resolve("${env:SHORT}", where=WHERE) == "qwertzui"


def test_a_plain_setting_may_be_short_and_is_not_masked(secrets: Secrets, monkeypatch) -> None:
    """A tenant id may come from the environment, and is no secret."""
    monkeypatch.setenv("CLOUD", "public")
    assert secrets.plain("${env:CLOUD}", where="connections.contoso.cloud") == "public"
    assert secrets.mask("public") == "public"


SECRET = 'p/ä "w\\o+r&d%1'


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"key={SECRET}.", "key=***."),
        (f"https://a/?key={quote(SECRET, safe='')}", "https://a/?key=***"),
        (f"https://a/{quote(SECRET)}", "https://a/***"),
        (f"https://a/?{urlencode({'key': SECRET})}", "https://a/?key=***"),
        (json.dumps({"key": SECRET}), '{"key": "***"}'),
        (json.dumps({"key": SECRET}, ensure_ascii=False), '{"key": "***"}'),
        (f"{SECRET}{SECRET}", "******"),
    ],
)
def test_a_secret_is_masked_in_every_spelling(secrets: Secrets, text: str, masked: str) -> None:
    """As it is, percent-encoded in a path, a query and a form, and escaped in JSON of both kinds."""
    assert secrets.mask(text) == text
    secrets.resolve(SECRET, where=WHERE)
    assert secrets.mask(text) == masked


def test_a_secret_inside_another_leaves_no_rest(secrets: Secrets) -> None:
    """The longer one is masked first."""
    secrets.remember("abcdefgh")
    secrets.remember("abcdefgh-and-more")
    assert secrets.mask("<abcdefgh-and-more> <abcdefgh>") == f"<{MASK}> <{MASK}>"


def test_json_is_masked_at_any_depth(secrets: Secrets) -> None:
    """Values and member names; what is no string stays what it is."""
    secrets.remember("very-secret")
    value = {"a": [1, None, True, {"very-secret": "x very-secret"}], "b": ("very-secret", 2.5)}
    assert secrets.mask_json(value) == {"a": [1, None, True, {MASK: f"x {MASK}"}], "b": [MASK, 2.5]}


@given(st.text(min_size=8), st.text(), st.text())
def test_what_is_masked_does_not_hold_the_secret(secret: str, before: str, after: str) -> None:
    """Whatever the secret is made of, and whatever stands around it."""
    secrets = Secrets(Path())
    secrets.remember(secret)
    if secret not in f"{before}{MASK}{after}" and secret not in MASK * 3:
        assert secret not in secrets.mask(f"{before}{secret}{after}").replace(MASK, "\0")


def test_masking_goes_on_while_other_threads_resolve(secrets: Secrets) -> None:
    """Workers mask while connections resolve; neither waits for or breaks the other."""
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for n in range(150):
                secret = f"secret-{number}-{n}-"
                secrets.remember(secret)
                assert secrets.mask(f"<{secret}>") == f"<{MASK}>"
        except BaseException as error:
            failures.append(error)

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(switch)
    assert failures == []


@pytest.fixture
def log(secrets: Secrets) -> Iterator[tuple[logging.Logger, list[str]]]:
    """A logger whose one handler masks, and the lines that it wrote."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert record.exc_info is None, "a handler could print it in clear"
            lines.append(self.format(record))

    logger = logging.getLogger("test_secrets")
    handler = Lines()
    handler.addFilter(MaskingFilter(secrets))
    logger.addHandler(handler)
    logger.propagate = False
    secrets.remember("very-secret")
    yield logger, lines
    logger.removeHandler(handler)
    logger.propagate = True


def test_a_log_line_is_masked_with_its_arguments(log) -> None:
    """Also where the secret only appears once message and arguments are put together."""
    logger, lines = log
    logger.warning("key %s-%s of %d", "very", "secret", 7)
    assert lines == [f"key {MASK} of 7"]


def test_a_logged_traceback_is_masked(log) -> None:
    """Exception, cause and stack."""
    logger, lines = log
    try:
        try:
            raise ValueError("no very-secret here")
        except ValueError as error:
            raise RuntimeError("very-secret again") from error
    except RuntimeError:
        logger.exception("failed", stack_info=True)
    assert "very-secret" not in lines[0]
    assert f"ValueError: no {MASK} here" in lines[0]
    assert f"RuntimeError: {MASK} again" in lines[0]
    assert lines[0].count("Stack (most recent call last)") == 1


def test_a_log_line_whose_arguments_do_not_fit_breaks_nothing(log) -> None:
    """A careless plugin loses neither its line nor the run."""
    logger, lines = log
    logger.warning("key %d", "very-secret")
    assert lines == [f"key %d ('{MASK}',)"]
