"""The common part of the hook protocols of agent tools: events, messages to hooks, and the reading
of answers. Pure.

Each tool has its own file, with its events and the meaning of answers. If a tool would continue
after a failure, anyspawn denies, unless the hook's ``on_failure`` says otherwise. An answer that
would ask a person denies, because nobody can be asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Protocol

from attrs import field, frozen

from anyspawn.hooks._json import is_array, is_object
from anyspawn.hooks._matchers import Style
from anyspawn.hooks._payloads import SNAKE_NAMES, ToolResponse, from_wire, to_wire
from anyspawn.hooks._wire import WireError, decode_object, kind_of

__all__ = [
    "REFERENCE_NAMES",
    "Agent",
    "Event",
    "Outcome",
    "Place",
    "Verdict",
    "closed",
    "denied",
    "get",
    "message_text",
    "one_of",
    "prompt_of",
    "response_of",
    "subject_of",
    "tool_of",
]

_LONGEST_NAME = 128
REFERENCE_NAMES = frozenset(SNAKE_NAMES)
"""Names in the reference's payloads that are not passed to an agent tool's hook unchanged."""
_RESPONSE = frozenset({"Name", "CallID", "Content", "Error", "LatencyMs"})


@frozen(kw_only=True)
class Event:
    """A moment at which an agent tool asks its hooks.

    Args:
        name: The tool's name for it.
        phase: anyspawn's phase: one of the reference's, or the name itself.
        subject: The field of the message that a matcher matches. Empty: no matcher. With ``=`` in
            front, the matcher must equal the value.
        guards: Whether its hooks can deny.
        context: Whether plain text on stdout is context for the model.
        specific: The keys of an answer's object for this event.
        top: Further keys of an answer, besides those of every event.
        timeout: The default timeout of its hooks, in seconds; ``None``: the tool's.
    """

    name: str
    phase: str
    subject: str = ""
    guards: bool = False
    context: bool = False
    specific: frozenset[str] = frozenset()
    top: frozenset[str] = frozenset()
    timeout: float | None = None


@frozen
class Place:
    """Where a hook runs, as the hook sees it.

    Args:
        folder: The project's folder.
        now: Seconds since 1970.
    """

    folder: str
    now: float = 0.0

    @property
    def time(self) -> str:
        """The time as ISO 8601 has it."""
        return datetime.fromtimestamp(self.now, UTC).isoformat().replace("+00:00", "Z")


@frozen(kw_only=True)
class Outcome:
    """The outcome of a hook that exited by itself."""

    status: int
    stdout: bytes = b""
    stderr: bytes = b""

    @property
    def complaint(self) -> str:
        """What it wrote to stderr."""
        return self.stderr.decode(errors="replace").strip()


@frozen(kw_only=True)
class Verdict:
    """What an answer means.

    Args:
        allow: Whether the action may go on.
        reason: Why not, if it denies.
        metadata: The answer.
        context: Texts for the model.
        enforced, replacement: As in `Decision`.
        changed: The part that the hook changed, and its new value: ``("payload", ...)`` all of it,
            ``("input", ...)`` the tool's arguments, ``("output", ...)`` its result, ``("request",
            ...)`` some fields of the model's request, ``("message", ...)`` the model's answer.
    """

    allow: bool
    reason: str = ""
    metadata: Mapping[str, Any] = field(factory=dict[str, Any])
    context: tuple[str, ...] = ()
    enforced: bool = False
    replacement: str | None = None
    changed: tuple[Literal["payload", "input", "output", "request", "message"], Any] | None = None


class Agent(Protocol):
    """The hook protocol of an agent tool."""

    name: ClassVar[str]
    title: ClassVar[str]
    events: ClassVar[Mapping[str, Event]]
    """By phase."""
    style: ClassVar[Style]
    timeout: ClassVar[float]
    """Seconds that the tool gives a hook by default."""
    variables: ClassVar[tuple[str, ...]]
    """Names of variables that hold the project's folder."""

    def message(self, event: Event, parts: dict[str, Any], place: Place) -> dict[str, Any]:
        """Return what the hook reads.

        Raises:
            WireError: The payload does not fit the event.
        """
        ...

    def judge(self, event: Event, message: dict[str, Any], outcome: Outcome) -> Verdict:
        """Return the verdict of an outcome.

        Raises:
            WireError: It cannot be read, or is a failure.
        """
        ...

    def fails_closed(self, event: Event, *, unreadable: bool) -> bool:
        """Whether the tool itself denies the action if a hook fails."""
        ...


# --- what a hook is told --------------------------------------------------------------------------


def subject_of(parts: dict[str, Any], title: str) -> dict[str, Any]:
    """Return the request or event as an object."""
    subject = to_wire(parts.get("event", parts.get("request")))
    if not is_object(subject):
        raise WireError(
            f"the payload is {_kind(subject)}, where the protocol of {title} needs an object"
        )
    return subject


def _kind(value: Any) -> str:
    plain = isinstance(value, (bool, int, float, str, list, dict)) or value is None
    kind: type[Any] = type(value)
    return kind_of(value) if plain else kind.__name__


def one_of(subject: dict[str, Any], names: tuple[str, ...], default: Any = None) -> Any:
    """Return the value of one of several names.

    Raises:
        WireError: Two of them have different values: the author of the payload could choose which
            one the hook checks.
    """
    found = [name for name in names if name in subject]
    for name in found[1:]:
        if subject[name] != subject[found[0]]:
            raise WireError(f"the payload has both {found[0]} and {name}, and they differ")
    return subject[found[0]] if found else default


def tool_of(subject: dict[str, Any]) -> tuple[str, dict[str, Any], str]:
    """Return a tool's name, its arguments and the call's id.

    Raises:
        WireError: The name is missing, or the arguments are neither an object nor the JSON text of
            one.
    """
    name = one_of(subject, ("Name", "tool_name", "toolName"))
    if not isinstance(name, str) or not name:
        raise WireError("the payload names no tool: it needs Name (or tool_name), a text")
    if len(name) > _LONGEST_NAME:
        raise WireError(f"the payload's tool has a name of more than {_LONGEST_NAME} characters")
    args = one_of(subject, ("Args", "tool_input", "toolArgs"))
    if isinstance(args, str):
        try:
            args = decode_object(args.encode())
        except (WireError, UnicodeEncodeError):
            raise WireError("the tool's arguments are a text that is not a JSON object") from None
    if args is None:
        args = {}
    if not is_object(args):
        raise WireError(f"the tool's arguments are {_kind(args)}, not an object")
    call = one_of(subject, ("CallID", "tool_use_id", "toolCallId"), "")
    if not isinstance(call, str):
        raise WireError("the call's id is not a text")
    return name, args, call


def response_of(parts: dict[str, Any]) -> tuple[Any, str]:
    """Return a tool's result and its error: from a `ToolResponse`, or its object on the wire, the
    content; anything else is the result itself.
    """
    value = to_wire(parts.get("response"))
    if is_object(value) and "Content" in value and value.keys() <= _RESPONSE:
        response: ToolResponse = from_wire(ToolResponse, {"Name": "", **value})
        return response.content, response.error
    return value, ""


def prompt_of(subject: dict[str, Any]) -> str:
    """Return the text of the user's last message: all its parts.

    Raises:
        WireError: There are messages, and none of them is the user's, or it has no text.
    """
    if "prompt" in subject:
        return _text(subject["prompt"])
    messages = one_of(subject, ("Messages", "messages"), [])
    if not is_array(messages):
        raise WireError("the payload's messages are not a list")
    for message in reversed(messages):
        if isinstance(message, str):
            return message
        if is_object(message) and one_of(message, ("role", "Role"), "user") == "user":
            return _text(
                one_of(message, ("content", "Content")) or one_of(message, ("parts", "Parts")) or ""
            )
    if messages:
        raise WireError("none of the payload's messages is the user's")
    return ""


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if is_object(content):
        content = [content]
    if not is_array(content):
        raise WireError(f"the user's message is {_kind(content)}, which has no text")
    texts = [part if isinstance(part, str) else _part(part) for part in content]
    if texts and not any(texts):
        raise WireError("the user's message has parts, and none of them has a text")
    return "\n".join(filter(None, texts))


def message_text(message: Any) -> str:
    """Return the text of a message; empty if it has none, like a tool call."""
    if is_object(message):
        message = one_of(message, ("content", "Content")) or one_of(message, ("parts", "Parts"))
    try:
        return _text(message or "")
    except WireError:
        return ""


def _part(part: Any) -> str:
    text = one_of(part, ("text", "Text"), "") if is_object(part) else ""
    return text if isinstance(text, str) else ""


# --- what a hook answers --------------------------------------------------------------------------


def closed(answer: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    """Refuse unknown keys.

    Raises:
        WireError: There is one: it could be a misspelled verdict.
    """
    for name in answer:
        if name not in known:
            raise WireError(f"its answer has {name[:64]!r}, which {where} does not know")


def get(answer: Mapping[str, Any], name: str, kind: type) -> Any:
    """Return a field of an answer; null counts as absent.

    Raises:
        WireError: It has another type.
    """
    value = answer.get(name)
    if value is not None and not isinstance(value, kind):
        raise WireError(f"{name!r} of its answer is {kind_of(value)}, not {kind_of(kind())}")
    return value


def denied(reason: str | None, answer: Mapping[str, Any], **fields: Any) -> Verdict:
    """Return a denial."""
    return Verdict(
        allow=False,
        reason=reason or "the hook denied it, and gave no reason",
        metadata=answer,
        **fields,
    )
