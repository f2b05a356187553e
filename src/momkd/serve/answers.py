"""What the API answers: shapes of its JSON, and refusals."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import HTTPException
from pydantic import BaseModel, Field

State = Literal["waiting", "running", "done", "failed"]


class Refusal(HTTPException):
    """A refusal with a status and a sentence that says why."""


def refuse(status: int, error: str) -> Refusal:
    """The refusal."""
    return Refusal(status, error)


class Error(BaseModel):
    """Why a request was refused."""

    error: str


class Health(BaseModel):
    """Whether the service lives."""

    status: Literal["ok", "degraded"]
    version: str
    waiting: int = Field(description="tasks in line")


class Model(BaseModel):
    """A student that is served, by the card it carries."""

    name: str
    label: str
    type: str
    classes: list[str]
    threshold: float | None = Field(description="on the probability of the last of two classes")
    networks: int
    features: dict[str, Any] = Field(description="width, encoder and patch size that it expects")
    cohort: dict[str, Any]
    validation: dict[str, Any]
    intended_use: str


class Choice(BaseModel):
    """A slide that the service has at hand."""

    slide_id: str
    features: bool
    slide: bool


class Received(BaseModel):
    """A file that was sent."""

    upload: str = Field(description="names it in a job")
    name: str
    slide_id: str
    size: int = Field(description="bytes")
    kind: Literal["features", "slide"]
    facts: dict[str, Any]


class Order(BaseModel):
    """What a job is to be made of: a slide at hand, or one or two files that were sent (features, slide)."""

    model: str
    slide_id: str | None = None
    uploads: list[str] = Field(default_factory=list, max_length=2)


class Job(BaseModel):
    """A job and how far it is; ``total`` 0 where nobody knows."""

    job: str
    model: str
    slide_id: str
    state: State
    stage: str
    done: int
    total: int
    error: str | None = None


class Prediction(BaseModel):
    """What a student says of a slide; ``lowest`` and ``highest`` are single networks, not a confidence interval."""

    slide_id: str
    label: str
    prediction: dict[str, float]
    lowest: dict[str, float]
    highest: dict[str, float]
    threshold: float | None
    predicted: str | None


class Result(Prediction):
    """What is said of an explained slide; ``files`` can be downloaded."""

    patches: int
    networks: int
    intended_use: str
    notes: list[str]
    files: list[str]
    map: bool = Field(description="whether there is a map to draw")
