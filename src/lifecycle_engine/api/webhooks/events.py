"""What subscribers are told: the shape of each event, for OpenAPI's `webhooks` and for `/v1/webhooks/event-types`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Header, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.json_schema import models_json_schema

from lifecycle_engine.api.keys.authentication import requires
from lifecycle_engine.api.problems import responses
from lifecycle_engine.api.values import Instant, Kind
from lifecycle_engine.api.webhooks.examples import examples
from lifecycle_engine.lifecycle.definitions import closest
from lifecycle_engine.outbox.events import DISABLED, EXHAUSTED, FAILING, RECOVERED, TEST

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], responses=responses(401, 403, 422, 503))


def _one_name(schema: dict[str, Any]) -> None:
    for name in ("customer_id", "anonymous_id"):
        schema["properties"][name].pop("default", None)
    schema["oneOf"] = [{"required": ["customer_id"]}, {"required": ["anonymous_id"]}]


class EventCause(BaseModel):
    """Why a journey is in a stage."""

    kind: Literal["touchpoint", "timer", "condition", "override", "definition", "correction"] = Field(
        description="`correction`: a fact that came late changed what had been told already."
    )
    rule: int | None = Field(description="The rule's place in the definition, from 0.", examples=[0])
    touchpoint: str | None = Field(description="The id of the fact that brought it about.", examples=["order-1001"])
    source: str | None = Field(description="Whose id that is.", examples=["shop"])
    definition_version: int = Field(examples=[1])


class EventStay(BaseModel):
    """A stay in a stage, and the transition that opened it."""

    stage: str
    entered_at: Instant
    origin: str | None = Field(alias="from", description="The stage before; null at the start.")
    move: Literal["start", "advance", "skip", "back", "reenter"]
    skipped: list[str]
    cause: EventCause


class AboutCustomer(BaseModel):
    """Whom it is about: a `customer_id`, or an `anonymous_id` that nobody owns yet. One of them is there."""

    model_config = ConfigDict(json_schema_extra=_one_name)

    customer_id: str = Field(default="", examples=["ada"])
    anonymous_id: str = Field(default="", examples=["3f1c"])
    recorded_at: Instant = Field(description="When it was recorded.")


class AboutJourney(AboutCustomer):
    """Which journey it is about."""

    lifecycle: str = Field(examples=["retail"])
    subject: str | None = Field(description="Null where the lifecycle is kept once per customer.")


class StageChangedData(AboutJourney):
    """The journey's current stage is another one."""

    origin: str | None = Field(alias="from", description="The stage that was current; null at the start.")
    to: str = Field(description="The stage that is current now.")
    move: Literal["start", "advance", "skip", "back", "reenter"]
    skipped: list[str] = Field(description="The stages between, where it went up by more than one.")
    occurred_at: Instant = Field(description="When it happened, by the facts.")
    sequence: int = Field(
        ge=1,
        description="Numbers the journey's changes: 1, 2, 3 … without a gap. What is not higher than the last one seen "
        "is old.",
    )
    cause: EventCause


class StageExpiringData(AboutJourney):
    """A timer is going to move the journey unless something happens before."""

    stage: str = Field(description="The stage that it is in.")
    to: str = Field(description="The stage that it will be in.")
    due_at: Instant
    withdrawn: bool = Field(description="True: it was announced, and will not happen.")
    rule: int = Field(description="The timer's place among the rules, from 0.")
    definition_version: int


class HistoryCorrectedData(AboutJourney):
    """A fact that came late, or a merge, has shown that recorded stays were wrong."""

    replaced: list[EventStay] = Field(description="The stays that are superseded.")
    by: list[EventStay] = Field(
        description="The stays that stand in their place. Empty where the journey has turned out never to have been: "
        "what opened it was retracted, or is somebody else's. No `stage.changed` tells of that, as there is no stage."
    )


class EventName(BaseModel):
    """One name of somebody."""

    kind: Kind
    value: str


class CustomerMergedData(AboutCustomer):
    """Who had been a customer belongs to another one now, whose history goes on for both."""

    merged: EventName = Field(description="The name that belongs to the customer from now on.")


class EventMessage(BaseModel):
    """The message that showed how an endpoint does, and what came of its last attempt."""

    id: str = Field(description="Its `webhook-id`.")
    type: str
    attempts: int
    status_code: int | None = Field(description="Null: there was no answer.")
    failure: str | None = Field(description="Why there was none.", examples=["timeout"])


class EndpointData(BaseModel):
    """How an endpoint does."""

    endpoint_id: str
    message: EventMessage | None


class EndpointDisabledData(EndpointData):
    """An endpoint gets nothing any more, until it is enabled."""

    reason: Literal["gone", "asked_to_stop", "failing"] = Field(
        description="`gone`: it answered 410; `asked_to_stop`: it answered with `webhook-delivery: disable`; "
        "`failing`: for days nothing succeeded."
    )


class EndpointTestData(BaseModel):
    """Nothing has happened."""

    endpoint_id: str


class Event(BaseModel):
    """What every event looks like. The bytes are the same at each attempt."""

    type: str
    timestamp: Instant = Field(description="When it was recorded.")


class StageChanged(Event):
    type: Literal["stage.changed"]
    data: StageChangedData


class StageExpiring(Event):
    type: Literal["stage.expiring"]
    data: StageExpiringData


class HistoryCorrected(Event):
    type: Literal["history.corrected"]
    data: HistoryCorrectedData


class CustomerMerged(Event):
    type: Literal["customer.merged"]
    data: CustomerMergedData


class EndpointDisabled(Event):
    type: Literal["endpoint.disabled"]
    data: EndpointDisabledData


class EndpointFailing(Event):
    type: Literal["endpoint.failing"]
    data: EndpointData


class EndpointExhausted(Event):
    type: Literal["endpoint.exhausted"]
    data: EndpointData


class EndpointRecovered(Event):
    type: Literal["endpoint.recovered"]
    data: EndpointData


class EndpointTest(Event):
    type: Literal["endpoint.test"]
    data: EndpointTestData


MODELS: Mapping[str, tuple[type[Event], str, str]] = {
    "stage.changed": (
        StageChanged,
        "A journey's current stage has changed",
        "Sent whenever the current stage changes, for whatever reason: whoever needs to know where customers stand "
        "needs nothing else. Let `sequence` decide what is newer; what was sent again may come late.",
    ),
    "stage.expiring": (
        StageExpiring,
        "A timer is going to change the stage, or will not after all",
        "Sent when a timer's `warn` is reached, and once more with `withdrawn: true` if a touchpoint resets the timer.",
    ),
    "history.corrected": (
        HistoryCorrected,
        "Recorded history was wrong, and has been corrected",
        "For whoever keeps the history, not only the current stage. Where the current stage is now another, a "
        "`stage.changed` tells of that.",
    ),
    "customer.merged": (
        CustomerMerged,
        "Somebody has turned out to be another customer",
        "An anonymous id was linked, or two customers were merged. Later events come under the name that "
        "they belong to.",
    ),
    DISABLED: (
        EndpointDisabled,
        "An endpoint was disabled",
        "Sent to those other endpoints that name `endpoint.*`. Enable it with `POST …/enable`, and `recover` what it "
        "missed.",
    ),
    FAILING: (
        EndpointFailing,
        "An endpoint fails, and is parked",
        "Most of its recent attempts have failed. It is probed until it recovers; nothing is lost meanwhile.",
    ),
    EXHAUSTED: (
        EndpointExhausted,
        "A message was given up",
        "All attempts of the schedule have failed. It can be sent again: `POST /v1/webhooks/messages/{id}/resend`.",
    ),
    RECOVERED: (EndpointRecovered, "An endpoint that failed works again", "A probe has succeeded; deliveries go on."),
    TEST: (
        EndpointTest,
        "Somebody wants to see whether events arrive",
        "Sent to one endpoint when that is asked for (`POST …/test`), whatever its filter says. Answer 2xx and pass it "
        "over.",
    ),
}  # fmt: skip
"""Type -> its shape, what it says in a line, and when it is sent."""


def _known(type_: str) -> str:
    if type_ not in MODELS:
        hint = closest(type_, list(MODELS)) or f"there are {', '.join(MODELS)}"
        raise ValueError(f"{type_[:64]!r} is no type of event; {hint}")
    return type_


EventTypeName = Annotated[str, AfterValidator(_known), WithJsonSchema({"type": "string", "enum": list(MODELS)})]
"""The type of an event, in a question."""


class EventType(BaseModel):
    """One type of event."""

    type: str = Field(examples=["stage.changed"])
    summary: str
    description: str
    json_schema: dict[str, Any] = Field(serialization_alias="schema", description="A JSON Schema of the whole body.")
    examples: list[dict[str, Any]] = Field(description="Whole bodies, each made by the code that sends them.")


class EventTypes(BaseModel):
    """All types of events."""

    items: list[EventType]


@router.get(
    "/event-types",
    operation_id="list_event_types",
    summary="What can be told",
    dependencies=[Depends(requires("webhooks:read"))],
)
async def list_event_types() -> EventTypes:
    """Every type of event with a JSON Schema of its body and examples."""
    return EventTypes(
        items=[
            EventType(
                type=type_,
                summary=summary,
                description=description,
                json_schema=schema_of(type_),
                examples=list(examples()[type_].values()),
            )
            for type_, (_, summary, description) in MODELS.items()
        ]
    )


def schema_of(type_: str) -> dict[str, Any]:
    """The JSON Schema of the body of an event."""
    model = MODELS[type_][0]
    _, schema = models_json_schema([(model, "serialization")], ref_template="#/$defs/{model}")
    definitions: dict[str, Any] = schema["$defs"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **definitions.pop(model.__name__),
        "$defs": definitions,
    }


def describe_events(app: FastAPI) -> None:
    """Describes the events in the app's OpenAPI document, under `webhooks`."""
    for type_, (model, summary, description) in MODELS.items():
        app.webhooks.add_api_route(
            type_,
            _receiver(model),
            methods=["POST"],
            operation_id=type_.replace(".", "_"),
            summary=summary,
            description=description,
            tags=["webhooks"],
            status_code=204,
            response_class=Response,
            response_description="Taken. Any 2xx will do; all else is tried again, but for 410, which disables it",
        )


def _receiver(model: type[Event]) -> Any:
    def receive(
        body: Any,
        webhook_id: Annotated[
            str,
            Header(description="The same at each attempt and whenever it is sent again: tells duplicates."),
        ],
        webhook_timestamp: Annotated[int, Header(description="Of this attempt, in seconds since the epoch.")],
        webhook_signature: Annotated[
            str,
            Header(
                description="Standard Webhooks: `v1,…` for each secret that is valid, then `v1a,…`, separated by "
                "spaces. Any one that verifies will do."
            ),
        ],
    ) -> None: ...

    receive.__annotations__["body"] = model
    return receive
