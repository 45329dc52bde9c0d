"""`/v1/customers/{customer_id}`: where a customer stands, where it stood on any day, and what led there."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema

from lifecycle_engine.api.authentication import requires
from lifecycle_engine.api.cursors import DEFAULT_LIMIT, Cursor, Limit, Page, decode_cursor, encode_cursor
from lifecycle_engine.api.paths import CustomerValue, LifecycleKey
from lifecycle_engine.api.problems import ProblemError, responses
from lifecycle_engine.api.stays import Cause, HistoryItem, cause_of, history_item
from lifecycle_engine.api.values import Instant, InstantParameter, Kind, Text
from lifecycle_engine.lifecycle.definitions import Definition
from lifecycle_engine.lifecycle.fold import fold
from lifecycle_engine.lifecycle.instants import format_instant
from lifecycle_engine.lifecycle.journeys import CustomerState, JourneyState
from lifecycle_engine.lifecycle.touchpoints import Place, Touchpoint
from lifecycle_engine.log.message import decode_body
