"""The service that a team would write in a day: FastAPI, and one ORM transaction for each touchpoint.

What many have today: a stage column, rules in code, applied in the order of arrival before the answer goes out. Set
BENCH_DATABASE_URL, then `uvicorn bench.day_one:app`.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid4

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, Field
from sqlalchemy import JSON, DateTime, ForeignKey, String, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_async_engine(os.environ["BENCH_DATABASE_URL"], pool_size=20)
new_session = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customer"

    id: Mapped[str] = mapped_column(String(256), primary_key=True)
    stage: Mapped[str] = mapped_column(String(64), default="awareness")
    purchases: Mapped[int] = mapped_column(default=0)


class Touchpoint(Base):
    __tablename__ = "touchpoint"

    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    customer_id: Mapped[str] = mapped_column(String(256), index=True)
    type: Mapped[str] = mapped_column(String(128))
    occurred_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    properties: Mapped[dict[str, Any]] = mapped_column(JSON)


class StageChange(Base):
    __tablename__ = "stage_change"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customer.id"), index=True)
    stage: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Posted(BaseModel):
    id: str = Field(default_factory=lambda: str(uuid4()))
    customer_id: str
    type: str
    occurred_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    properties: dict[str, Any] = {}


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


async def session() -> AsyncIterator[AsyncSession]:
    async with new_session() as opened:
        yield opened


Session = Annotated[AsyncSession, Depends(session)]
app = FastAPI(lifespan=lifespan)


def next_stage(customer: Customer, posted: Posted) -> str:
    rating = posted.properties.get("rating", 3)
    match posted.type:
        case "signup" if customer.stage == "awareness":
            return "consideration"
        case "purchase":
            return "purchase" if customer.purchases < 2 else "retention"
        case "review" if rating >= 4:
            return "advocacy"
        case "review" if rating <= 2:
            return "consideration"
    return customer.stage


@app.post("/v1/touchpoints")
async def post(posted: Posted, db: Session) -> dict[str, str]:
    customer = await db.get(Customer, posted.customer_id, with_for_update=True)
    try:
        if customer is None:
            customer = Customer(id=posted.customer_id, stage="awareness", purchases=0)
            db.add(customer)
            await db.flush()
            db.add(StageChange(customer_id=customer.id, stage=customer.stage, at=posted.occurred_at))
        db.add(Touchpoint(**posted.model_dump()))
        if posted.type == "purchase":
            customer.purchases += 1
        if (stage := next_stage(customer, posted)) != customer.stage:
            customer.stage = stage
            db.add(StageChange(customer_id=customer.id, stage=stage, at=posted.occurred_at))
        await db.commit()
    except IntegrityError:
        await db.rollback()
        if await db.get(Touchpoint, posted.id) is None:
            raise HTTPException(503, "two requests met; send it again") from None
        return {"id": posted.id, "status": "duplicate"}
    return {"id": posted.id, "stage": customer.stage}


@app.get("/v1/customers/{customer_id}")
async def get(customer_id: str, db: Session) -> dict[str, Any]:
    customer = await db.get(Customer, customer_id)
    if customer is None:
        raise HTTPException(404)
    last = await db.scalar(select(func.max(Touchpoint.occurred_at)).where(Touchpoint.customer_id == customer_id))
    return {"stage": customer.stage, "last_touchpoint_at": last}
