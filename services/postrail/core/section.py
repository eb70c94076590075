"""What every section of the configuration file is: `Section`. The sections are in `config` and `log_config`.

The Kubernetes kinds (`kinds`) are made of the same models. A file has `snake_case` names; an object has `camelCase` ones, and is
read with `model_validate(…, by_alias=True, by_name=False)`.
"""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Section(BaseModel):
    """A part of the file: unknown fields are errors, values do not change after loading."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=False,
        loc_by_alias=False,
    )
