"""`/v1/webhooks/endpoints/{id}/secrets` and `…/secret/rotate`: what an endpoint's events are signed with."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from lifecycle_engine.api.door.bodies import described, read_object
from lifecycle_engine.api.keys.authentication import requires
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.services import Services
from lifecycle_engine.api.values import Instant
from lifecycle_engine.api.webhooks.endpoints import READ, EndpointId, endpoint_not_found, existing, vault_closed
from lifecycle_engine.outbox.vault import VaultError
from lifecycle_engine.store.endpoints import lock_endpoint
from lifecycle_engine.webhook.secrets import MAX_OLD, TooManySecretsError, rotate_secret, stored_secrets
from lifecycle_engine.webhook.signing import Asymmetric, Kind, parse_secret

router = APIRouter(
    prefix="/v1/webhooks/endpoints/{id}", tags=["webhooks"], responses=responses(401, 403, 404, 422, 503)
)

MAX_BODY_BYTES = 4 * 1024
DAY = 86_400
SECOND = 1_000_000


class Rotation(BaseModel):
    """How a secret is replaced."""

    model_config = ConfigDict(extra="forbid", strict=True)

    grace_seconds: Annotated[int, Field(ge=0, le=7 * DAY)] = Field(
        DAY,
        description="For how long events are also signed with the old secrets, so that the receiver can change over; "
        "0, if they have leaked.",
    )
    kind: Kind = Field("v1", description="`v1`: the shared secret; `v1a`: the key pair.")


class RotatedSecret(BaseModel):
    """The new secret."""

    kind: Kind
    secret: str | None = Field(
        description="Shown this once: keep it. Null for a key pair, of which the receiver needs the public key only.",
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )
    public_key: str | None = Field(description="Null for a shared secret.", examples=[None])
    created_at: Instant
    old_until: Instant = Field(description="Until when events are also signed with the secrets before, at the longest.")


class SecretAnswer(BaseModel):
    """A secret, without itself."""

    kind: Kind
    public_key: str | None = Field(
        description="What events are verified with; null for a shared secret, which is shown when it is made only.",
        examples=["whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="],
    )
    created_at: Instant
    expires_at: Instant | None = Field(description="Null: it is the current one.")


class SecretList(BaseModel):
    """What events are signed with now."""

    items: list[SecretAnswer]


@router.get(
    "/secrets", operation_id="list_endpoint_secrets", summary="What events are signed with", dependencies=[READ]
)
async def list_secrets(request: Request, id: EndpointId) -> SecretList:
    """The secrets that have not expired, the newest first, without themselves; of key pairs the public key."""
    services: Services = request.app.state.services
    try:
        async with services.database.transaction() as connection:
            await existing(connection, id)
            now = await services.database.clock(connection)
            found = (await stored_secrets(connection, services.vault, [id], now)).get(id, [])
    except VaultError as error:
        raise vault_closed(error) from None
    return SecretList(
        items=[
            SecretAnswer(
                kind=one.secret.kind,
                public_key=one.secret.public if isinstance(one.secret, Asymmetric) else None,
                created_at=one.created_at,
                expires_at=one.expires_at,
            )
            for one in found
        ]
    )


@router.post(
    "/secret/rotate",
    operation_id="rotate_endpoint_secret",
    summary="Replace a secret",
    dependencies=[Depends(requires("webhooks:secrets"))],
    responses=responses(400, 409, 413, 415),
    openapi_extra=described(Rotation),
)
async def rotate(request: Request, id: EndpointId) -> RotatedSecret:
    """Makes a new secret, which is shown this once. For a while events are signed with both, the new one first."""
    services: Services = request.app.state.services
    body = await read_object(request, Rotation, MAX_BODY_BYTES, "a rotation")
    grace = body.grace_seconds * SECOND
    try:
        async with services.database.transaction() as connection:
            row = await lock_endpoint(connection, id)
            if row is None:
                raise endpoint_not_found(id)
            if body.kind not in row.signatures.split():
                detail = (
                    f"kind: the endpoint's events are not signed with {body.kind}; add it to its `signatures` first"
                )
                raise ProblemError(409, "kind_not_used", detail)
            now = await services.database.clock(connection)
            text = await rotate_secret(connection, services.vault, id, body.kind, now, grace)
    except VaultError as error:
        raise vault_closed(error) from None
    except TooManySecretsError:
        detail = (
            f"{MAX_OLD} old secrets are still accepted; wait until one has expired, or send a smaller grace_seconds, "
            "which ends them earlier"
        )
        raise ProblemError(409, "too_many_secrets", detail) from None
    secret = parse_secret(text)
    is_pair = isinstance(secret, Asymmetric)
    return RotatedSecret(
        kind=body.kind,
        secret=None if is_pair else text,
        public_key=secret.public if isinstance(secret, Asymmetric) else None,
        created_at=now,
        old_until=now + grace,
    )
