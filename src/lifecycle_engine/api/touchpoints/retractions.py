"""`DELETE /v1/touchpoints/{id}`: what was accepted, and shall count as never accepted."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field

from lifecycle_engine.api.customers.entries import Actor, EntryAccepted, EntryId, Reason, append
from lifecycle_engine.api.door.paths import TouchpointId
from lifecycle_engine.api.keys.authentication import Key, requires
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.touchpoints.receipts import ReceiptQuestion, known_receipt
from lifecycle_engine.lifecycle.touchpoints import RETRACT

router = APIRouter(prefix="/v1/touchpoints", tags=["touchpoints"], responses=responses(401, 403, 404, 409, 422, 503))


class RetractionQuestion(ReceiptQuestion):
    """Whose touchpoint is retracted, why, and by whom."""

    reason: Reason
    actor: Actor
    retraction_id: EntryId | None = Field(
        None,
        description="The id of the retraction itself: the same one takes effect once. Absent: the server makes one.",
    )


@router.delete(
    "/{id}",
    operation_id="retract_touchpoint",
    summary="Let a touchpoint count as never accepted",
    status_code=202,
    response_description="Accepted",
)
async def retract_touchpoint(
    request: Request,
    id: TouchpointId,
    question: Annotated[RetractionQuestion, Query()],
    key: Annotated[Key, Depends(requires("customers:write"))],
) -> EntryAccepted:
    """Appends a `$retract`: whom it concerned is folded again without it. Its receipt stays readable.

    Any entry can be retracted by its id, such as an override, a link or a merge; but not a retraction. The id stays
    taken: post what is true under another one.
    """
    source = key.source if question.source is None else question.source
    receipt = await known_receipt(request.app.state.services, source, id)
    if receipt.type == RETRACT:
        detail = "a retraction cannot be retracted; post what it took away again, under another id"
        raise ProblemError(409, "is_a_retraction", detail)
    return await append(
        request,
        key,
        RETRACT,
        None,
        {"source": source, "id": id, "reason": question.reason, "actor": question.actor},
        id=question.retraction_id,
    )
