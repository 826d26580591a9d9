"""Base models, metadata, conditions and bounded field types that all kinds share.

People write the fields of a spec, so an unknown field is rejected. Objects from the API server are decoded leniently,
because a newer version of the CRD may have fields that this build does not know.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from ..checked import forms
from .keywords import cel

__all__ = [
    "GROUP",
    "PERCENT",
    "VERSION",
    "ApiModel",
    "Condition",
    "Count",
    "Duration",
    "Generation",
    "IntOrPercent",
    "LabelSelector",
    "LabelSelectorRequirement",
    "Metadata",
    "Name",
    "PciAddress",
    "Problem",
    "first_error",
    "seconds_of",
]

GROUP = "vmnic.dev"
VERSION = "v1alpha1"

Name = Annotated[str, StringConstraints(min_length=1, max_length=253)]
PciAddress = Annotated[str, StringConstraints(max_length=12, pattern=forms.PCI_ADDRESS)]
Generation = Annotated[int, Field(ge=0, le=forms.LARGEST_GENERATION)]
"""A `metadata.generation`."""
Count = Annotated[int, Field(ge=0, le=forms.LARGEST_COUNT)]
"""A count that the controller writes."""


Duration = Annotated[str, StringConstraints(max_length=6, pattern=r"^[1-9][0-9]{0,4}[smh]$")]
"""A duration such as 60s, 30m or 2h."""

_UNITS_S = {"s": 1, "m": 60, "h": 3600}


def seconds_of(duration: str) -> int:
    """Return the length of a duration in seconds."""
    return int(duration[:-1]) * _UNITS_S[duration[-1]]


# Without anchors: Python uses `fullmatch`, and the CEL rules add `^` and `$`, because `matches()` of CEL searches.
PERCENT = re.compile("([1-9][0-9]?|100)%")
_MOST = 10_000
_INT_OR_PERCENT = 'give a number of 1 or more, or a share from "1%" to "100%"'


def _check_int_or_percent(value: int | str) -> int | str:
    """Repeat the CEL rule, which is not evaluated offline."""
    if PERCENT.fullmatch(value) is None if isinstance(value, str) else not 1 <= value <= _MOST:
        raise ValueError(_INT_OR_PERCENT)
    return value


IntOrPercent = Annotated[
    # A lax int would take True as 1, which the API server refuses.
    StrictInt | str,
    AfterValidator(_check_int_or_percent),
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "x-kubernetes-validations": [
                cel(
                    f"type(self) == int ? self >= 1 && self <= {_MOST} : self.matches('^{PERCENT.pattern}$')",
                    _INT_OR_PERCENT,
                )
            ],
        }
    ),
]


def first_error(error: ValidationError) -> str:
    """Describe the first error of an object in one line, with the field and its allowed values."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg'].removeprefix('Value error, ')}"


class ApiModel(BaseModel):
    """Base of every struct, with camelCase names in JSON, immutable values and documented fields."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="forbid",
        # The docstring below a field becomes its description in the CRD, and so the text of `kubectl explain`.
        use_attribute_docstrings=True,
    )

    def dump(self) -> dict[str, Any]:
        """Return the JSON-compatible form, in which fields without a value are absent and not null."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Metadata(BaseModel):
    """The parts of ObjectMeta that vmnic uses."""

    # Not an ApiModel: ObjectMeta has fields that vmnic does not read, such as managedFields, and they must not be refused.
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    name: str
    namespace: str | None = None
    uid: str = ""
    generation: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: list[str] = Field(default_factory=list)


class LabelSelectorRequirement(ApiModel):
    """One requirement on a label."""

    # A prefix of 253 characters, a slash and a name of 63.
    key: Annotated[str, StringConstraints(min_length=1, max_length=317)]
    """Label key."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How `values` are compared with the label."""
    values: Annotated[list[Annotated[str, StringConstraints(max_length=63)]], Field(max_length=64)] = []
    """Values for In and NotIn."""


class LabelSelector(ApiModel):
    """A Kubernetes label selector. An empty one selects everything."""

    match_labels: Annotated[dict[str, Annotated[str, StringConstraints(max_length=63)]], Field(max_length=64)] = {}
    """Labels that must have exactly these values."""
    match_expressions: Annotated[list[LabelSelectorRequirement], Field(max_length=32)] = []
    """Requirements that must all hold."""


class Condition(ApiModel):
    """One observation of an object's state, as in every Kubernetes API."""

    type: Annotated[str, StringConstraints(max_length=64, pattern=forms.CONDITION)]
    """Type of the condition, for example Ready."""
    status: Literal["True", "False", "Unknown"]
    """Whether the condition holds."""
    reason: Annotated[str, StringConstraints(max_length=128, pattern=forms.REASON)]
    """Reason in CamelCase, for programs."""
    message: Annotated[str, StringConstraints(max_length=1024)] = ""
    """Message for people."""
    observed_generation: Generation = 0
    """The `metadata.generation` that the condition refers to."""
    last_transition_time: Annotated[str, StringConstraints(max_length=20, pattern=forms.TIME)] = ""
    """Time at which `status` last changed (RFC 3339)."""


class Problem(ApiModel):
    """One problem that may need action by a person."""

    reason: Annotated[str, StringConstraints(max_length=64)]
    """Reason in CamelCase, for programs."""
    message: Annotated[str, StringConstraints(max_length=512)]
    """What is wrong, and what to do."""
