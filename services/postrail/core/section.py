"""What every section of the configuration file is: `Section`. The sections are in `config` and `log_config`."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the file: unknown fields are errors, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)
