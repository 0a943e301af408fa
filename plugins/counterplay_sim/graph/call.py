"""One request on its way through the simulated Graph: who asks what of which tenant, and its answer."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import orjson

from counterplay_sim import odata
from counterplay_sim.clock import NANOSECONDS, Clock, from_ns, stamp, to_ns
from counterplay_sim.graph.contract import Contract
from counterplay_sim.graph.errors import GraphError, bad_request
from counterplay_sim.graph_rules import GraphRules
from counterplay_sim.http_server import Answer, Request
from counterplay_sim.licences import Licence
from counterplay_sim.objects import VISIBLE, Collection
from counterplay_sim.tenant import Tenant
from counterplay_sim.tokens import Claims

Doc = dict[str, Any]

JSON = "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8"
ALL_OPTIONS = frozenset({"$filter", "$top", "$skip", "$count", "$orderby", "$select", "$expand"})
_LISTED = frozenset({"$skiptoken", "$format"}) | ALL_OPTIONS


@dataclass(frozen=True, slots=True)
class Listing:
    """What a collection's query options may say.

    * `type`: the type of its members. `defaults`: the properties that are shown without `$select`.
    * `filters`: properties that `$filter` takes; None takes those that the contract documents for the
      route, else all. `orders`: those that `$orderby` takes.
    * `page`: members on a page without `$top`. `most`: the largest `$top`; `over` the text of the 400
      beyond it (`{top}` is what was asked for), or `cap` to give fewer.
    * `options`: the query options that it takes at all. `directory`: it is one of the directory's, which
      wants `ConsistencyLevel: eventual` and `$count=true` for advanced queries and compares text without
      regard to case. `links`: what `$expand` can show, by name.
    """

    type: str
    defaults: tuple[str, ...] = ()
    filters: frozenset[str] | None = None
    orders: frozenset[str] = frozenset()
    page: int = 100
    most: int = 999
    over: str = "Invalid page size specified: '{top}'. Must be between 1 and {most} inclusive."
    options: frozenset[str] = ALL_OPTIONS
    directory: bool = False
    links: Mapping[str, Link] = field(default_factory=dict)


Link = Callable[["Call", Doc], Any]


class Pending:
    """What reads still show of objects that have just been changed, by kind and id."""

    def __init__(self) -> None:
        self.before: dict[tuple[str, str, str], tuple[int, Doc | None]] = {}


@dataclass(slots=True)
class Call:
    """One request: who asks what of which tenant. `operation` is its route: `GET /users/{}`."""

    request: Request
    tenant: Tenant
    claims: Claims
    query: dict[str, str]
    request_id: str
    base: str
    version: str
    contract: Contract
    rules: GraphRules
    clock: Clock
    licence: Licence
    pending: Pending
    operation: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    # Who

    @property
    def app(self) -> str:
        """The application that asks, by its client id."""
        return str(self.claims["appid"])

    @property
    def principal(self) -> str:
        """Its service principal's object id."""
        return str(self.claims["oid"])

    @property
    def permissions(self) -> set[str]:
        """The application permissions of its token, or what it may do for the person who signed in."""
        return {*self.claims.get("roles", ()), *str(self.claims.get("scp", "")).split()}

    @property
    def person(self) -> str | None:
        """The userPrincipalName of the person for whom the application asks; None when there is none."""
        name = self.claims.get("upn")
        return str(name) if name else None

    def may(self, *alternatives: str) -> bool:
        """Whether the token has one of the permissions (`a+b` means both)."""
        return any(set(wanted.split("+")) <= self.permissions for wanted in alternatives)

    def prefers(self, wish: str) -> bool:
        """Whether the request carries `Prefer: wish`."""
        return wish in (part.strip() for part in self.request.headers.get("prefer", "").split(","))

    @property
    def now(self) -> str:
        """The time as Graph writes it."""
        return stamp(self.clock.now(), 7)

    def new_id(self) -> str:
        """The identifier of a new object."""
        return str(uuid.uuid4())

    # What was sent

    def body(self, type_name: str = "") -> Doc:
        """The request's JSON object; given its type, held to the contract and without annotations."""
        sent = self.request.headers.get("content-type", "")
        if sent and "json" not in sent.lower():
            raise bad_request(
                "Write requests (excluding DELETE) must contain the Content-Type header declaration.",
                "Request_BadRequest",
            )
        try:
            document = orjson.loads(self.request.body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise bad_request(
                "Unable to read JSON request payload. Please ensure Content-Type header is set and payload is"
                " of valid JSON format."
            )
        if not type_name:
            return document
        self.contract.check(document, type_name)
        return {name: value for name, value in document.items() if "@odata." not in name}

    def arguments(self, **kinds: type) -> Doc:
        """The parameters of an action: no others, each of its type; None for what was not sent."""
        document = self.body()
        for name, value in document.items():
            if name.startswith("@odata."):
                continue
            if name not in kinds:
                raise bad_request(f"The parameter '{name}' is not a parameter of the operation.")
            if value is not None and not isinstance(value, kinds[name]):
                raise bad_request(f"Cannot convert the value of the parameter '{name}'.")
        return {name: document.get(name) for name in kinds}

    # Objects, as reads see them

    def find(self, kind: str, key: str) -> Doc | None:
        """An object by id, None when there is none that can be seen."""
        found: Doc | None
        held = self.pending.before.get((self.tenant.id, kind, key)) if self.pending.before else None
        if held is not None and held[0] > self.clock.now_ns():
            found = held[1]
        else:
            found = self.tenant.objects[kind].get(key)
        return found if found is not None and self.sees(found) else None

    def where(self, kind: str, name: str, value: Any) -> list[Doc]:
        """The objects with that member, by an index."""
        return [
            seen
            for one in self.tenant.objects[kind].where(name, value)
            if (seen := self.find(kind, one["id"])) is not None
        ]

    def sees(self, document: Doc) -> bool:
        """Whether an object can be listed by now."""
        until = document.get(VISIBLE)
        return until is None or str(until).rstrip("Z") <= self.now.rstrip("Z")  # any number of digits

    def every(self, kind: str) -> Iterable[Doc]:
        """All objects of a kind that can be seen."""
        collection = self.tenant.objects[kind]
        keys = dict.fromkeys(collection)
        if self.pending.before:
            keys |= dict.fromkeys(
                key for owner, of, key in self.pending.before if (owner, of) == (self.tenant.id, kind)
            )
        return (one for key in keys if (one := self.find(kind, key)) is not None)

    def put(self, kind: str, document: Doc) -> None:
        """Write an object; reads may go on showing the old one for a while."""
        self._hold(kind, document["id"])
        self.tenant.objects[kind].put(document["id"], document)

    def remove(self, kind: str, key: str) -> None:
        """Forget an object."""
        self._hold(kind, key)
        self.tenant.objects[kind].remove(key)

    def _hold(self, kind: str, key: str) -> None:
        lag = to_ns(from_ns(0) + self.rules.settle)
        if lag:
            shown = self.find(kind, key)
            self.pending.before[(self.tenant.id, kind, key)] = (self.clock.now_ns() + lag, shown)

    # Answers

    def entity(
        self,
        context: str,
        document: Doc,
        type_name: str,
        *,
        status: int = 200,
        links: Mapping[str, Link] | None = None,
    ) -> Answer:
        """One object. `links` is what `$expand` can show, by name."""
        self._refuse_options(frozenset({"$select", "$expand"}))
        shown = self._shown(document, type_name, self._selected(type_name, ()))
        shown |= {name: make(self, document) for name, make in self._expanded(type_name, links or {}).items()}
        return self.json({"@odata.context": f"{self._context}{context}/$entity", **shown}, status)

    def user_entity(self, document: Doc, listing: Listing) -> Answer:
        """One object of which only default properties are shown unless `$select` says more."""
        names = self._selected(listing.type, listing.defaults)
        shown = self._shown(document, listing.type, names)
        return self.json({"@odata.context": f"{self._context}users/$entity", **shown})

    def collection(self, context: str, documents: Sequence[Doc] | Collection, listing: Listing) -> Answer:
        """A page of objects."""
        self._refuse_options(listing.options)
        documents = self._matching(documents, listing)
        if "$orderby" in self.query:
            documents = self._ordered(list(_documents(documents)), listing)
        answer: Doc = {"@odata.context": f"{self._context}{context}"}
        if self.query.get("$count", "").lower() == "true":
            answer["@odata.count"] = len(documents)
        page, link = self._page(documents, listing)
        if link:
            answer["@odata.nextLink"] = link
        names = self._selected(listing.type, listing.defaults)
        links = self._expanded(listing.type, listing.links)
        answer["value"] = [
            {
                **self._shown(one, listing.type, names),
                **{name: make(self, one) for name, make in links.items()},
            }
            for one in page
        ]
        return self.json(answer)

    def count(self, documents: Sequence[Doc] | Collection, listing: Listing) -> Answer:
        """How many there are, as text."""
        return Answer(200, str(len(self._matching(documents, listing))).encode(), "text/plain")

    def json(self, document: Any, status: int = 200) -> Answer:
        """Any JSON."""
        return Answer(status, orjson.dumps(document), JSON)

    def show(self, document: Doc, type_name: str) -> Doc:
        """An object as the wire carries it."""
        return self.contract.shown(
            document, type_name, everything=self.prefers("include-unknown-enum-members")
        )

    @property
    def _context(self) -> str:
        return f"https://graph.microsoft.com/{self.version}/$metadata#"

    def _shown(self, document: Doc, type_name: str, names: Sequence[str]) -> Doc:
        shown = self.show(document, type_name)
        if not names:
            return shown
        kinds = self._known(type_name)
        named = {name: shown[name] for name in ("@odata.type",) if name in shown}  # whatever is selected
        return named | {
            name: shown[name] if name in shown else _unset(name, kinds.get(name, "?")) for name in names
        }

    def _refuse_options(self, options: frozenset[str]) -> None:
        for name in self.query:
            if name.startswith("$") and name not in _LISTED:
                raise bad_request(f"The query parameter '{name}' is not supported.")
            if name in ALL_OPTIONS and name not in options:
                option = name[1:].capitalize().replace("Orderby", "OrderBy")
                raise bad_request(
                    f"Query option '{option}' is not allowed. To allow it, set the 'AllowedQueryOptions'"
                    " property on EnableQueryAttribute or QueryValidationSettings."
                )

    def _matching(
        self, documents: Sequence[Doc] | Collection, listing: Listing
    ) -> Sequence[Doc] | Collection:
        if self.pending.before and isinstance(documents, Collection):
            documents = list(self.every(documents.kind))
        if "$filter" not in self.query:
            return documents
        known = self.contract.properties(listing.type)
        allowed = listing.filters
        if allowed is None:
            documented = (
                self.contract.filterable(self.operation) if self.contract.has(self.operation) else None
            )
            allowed = frozenset(documented or known)
        test = odata.parse_filter(
            self.query["$filter"], allowed, listing.type, known=known, fold=listing.directory
        )
        if listing.directory and test.words & {"ne", "not", "endswith", "contains"}:
            self._need_advanced()
        if isinstance(documents, Collection):
            for name, value in test.equals.items():
                if "/" not in name:
                    documents = documents.where(name, value)
                    break
        return [one for one in _documents(documents) if test(one)]

    def _need_advanced(self) -> None:
        eventual = self.request.headers.get("consistencylevel", "").lower() == "eventual"
        if not eventual or self.query.get("$count", "").lower() != "true":
            raise bad_request("Unsupported Query.", "Request_UnsupportedQuery")

    def _ordered(self, documents: list[Doc], listing: Listing) -> list[Doc]:
        return odata.order(documents, self.query["$orderby"], listing.orders, listing.type)

    def _page(
        self, documents: Sequence[Doc] | Collection, listing: Listing
    ) -> tuple[Sequence[Doc], str | None]:
        """The page that was asked for, and the link to the next one."""
        size, first, number = self._size(listing), *self._place()
        every = self.rules.empty_page_every
        if every and number % every == 0:
            size = 0
        page: Sequence[Doc]
        if isinstance(documents, Collection):
            page = [documents[key] for key in list(documents)[first : first + size]]
        else:
            page = documents[first : first + size]
        if first + size >= len(documents):
            return page, None
        return page, self._link(first + size, number + 1)

    def _size(self, listing: Listing) -> int:
        if "$top" not in self.query:
            return listing.page
        text = self.query["$top"]
        top = odata.number(text, "$top", 2**31 - 1)
        if top > listing.most:
            if listing.over == "cap":
                return listing.most
            raise bad_request(listing.over.format(top=top, most=listing.most))
        return top

    def _place(self) -> tuple[int, int]:
        """How many objects come before this page, and its number."""
        token = self.query.get("$skiptoken")
        if token is None:
            skip = self.query.get("$skip")
            return (odata.number(skip, "$skip", 2**31 - 1, least=0) if skip is not None else 0), 1
        try:
            first, number, made = orjson.loads(base64.urlsafe_b64decode(token.encode()))
            if not (
                isinstance(first, int) and isinstance(number, int) and isinstance(made, int) and first >= 0
            ):
                raise ValueError(token)
        except (ValueError, TypeError):
            raise bad_request("Skip token is invalid.") from None
        if made + self.rules.link_life.total_seconds() <= self.clock.now_ns() // NANOSECONDS:
            raise GraphError(
                self.rules.expired_link_status,
                "Directory_ExpiredPageToken",
                "The specified page token value has expired and can no longer be included in your request.",
            )
        return first, number

    def _link(self, first: int, number: int) -> str:
        content = orjson.dumps([first, number, self.clock.now_ns() // NANOSECONDS])
        token = base64.urlsafe_b64encode(content).decode()
        rest = {name: value for name, value in self.query.items() if name not in ("$skiptoken", "$skip")}
        target = self.request.raw_path.partition(f"/{self.version}")[2]
        return f"{self.base}{target}?{urlencode({**rest, '$skiptoken': token}, safe='$')}"

    def _selected(self, type_name: str, defaults: tuple[str, ...]) -> tuple[str, ...]:
        text = self.query.get("$select", "")
        if not text:
            return defaults
        known = self._known(type_name)
        names = [name.strip().partition("/")[0] for name in text.split(",")]
        for name in names:
            if name not in known:
                raise odata.no_property(name, type_name)
        return tuple(dict.fromkeys(names if "id" in names or "id" not in known else ["id", *names]))

    def _known(self, type_name: str) -> Mapping[str, str]:
        """A type's properties; a directory object may be any of those that can be members."""
        if type_name != "microsoft.graph.directoryObject":
            return self.contract.properties(type_name)
        kinds = ("group", "user", "device", "servicePrincipal", "directoryRole")
        return {
            name: f"{kind.removesuffix('?')}?"
            for one in kinds
            for name, kind in self.contract.properties(f"microsoft.graph.{one}").items()
        }

    def _expanded(self, type_name: str, links: Mapping[str, Link]) -> dict[str, Link]:
        text = self.query.get("$expand", "")
        found = {}
        for name in (part.strip().partition("(")[0] for part in text.split(",") if part.strip()):
            if name not in links:
                raise odata.no_property(name, type_name)
            found[name] = links[name]
        return found


def _documents(documents: Sequence[Doc] | Collection) -> Iterable[Doc]:
    return documents.values() if isinstance(documents, Collection) else documents


_NEVER_NULL = {"birthday": "0001-01-01T00:00:00Z", "hireDate": "0001-01-01T00:00:00Z"}
_EMPTY: dict[str, Any] = {"string": "", "boolean": False, "integer": 0, "datetime": "0001-01-01T00:00:00Z"}


def _unset(name: str, kind: str) -> Any:
    """How a property looks that nobody has set."""
    if kind.rstrip("?").endswith("[]"):
        return []
    return None if kind.endswith("?") else _NEVER_NULL.get(name, _EMPTY.get(kind))
