"""The omics of an experiment: one table, or several by name, each with settings of its own.

    omics: {table: rna.csv.gz, scale: standard}                 one table, named rna unless ``name`` says otherwise
    omics: {rna: {table: rna.csv.gz}, cnv: {table: cnv.csv}}    several

Within an experiment both are a mapping from name to settings, sorted by name: the order in the file changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from momkd.experiment.section import Count, Section

USUAL_NAME = "rna"


class SelectSettings(Section):
    """Which genes the RNA teacher sees; chosen on the training patients of each fold."""

    method: Literal["xgboost", "variance", "mad", "list", "none"] = "xgboost"
    n: Count = 768
    genes: tuple[str, ...] = Field((), description="for method: list")


class OmicsSettings(Section):
    """A privileged table: patients × genes or genes × patients, CSV, TSV or Parquet."""

    table: Path
    transform: Literal["none", "log2p1"] = "none"
    scale: Literal["none", "standard", "winsor"] = Field("standard", description="winsor: outer 1 % clipped, standard")
    select: SelectSettings = SelectSettings()
    share: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="of the patients in the table, how many are used: a random part, nested, the same in all folds"
    )


_KEYS = ("name", *OmicsSettings.model_fields)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# What a torch module calls its own: a part of a network cannot have such a name.
_TAKEN = """
T_destination add_module apply bfloat16 buffers call_super_init children clear compile cpu cuda double dump_patches eval
extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu items keys load_state_dict
modules mtia named_buffers named_children named_modules named_parameters parameters pop register_backward_hook
register_buffer register_forward_hook register_forward_pre_hook register_full_backward_hook
register_full_backward_pre_hook register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module
register_parameter register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state
set_submodule share_memory state_dict to to_empty train training type update values xpu zero_grad
"""


def _table_name(name: str) -> str:
    if name in _KEYS:
        raise ValueError(f"a setting, not a table; with several tables it belongs under one of them: omics.rna.{name}")
    if not _NAME.fullmatch(name):
        raise ValueError("a table's name is letters, digits and _, a letter first")
    if name in _TAKEN.split():
        raise ValueError(f"a part of a network cannot be named so; another name, for example {name}_table")
    return name


TableName = Annotated[str, AfterValidator(_table_name)]


def is_one_table(omics: Mapping[str, Any]) -> bool:
    """Whether an omics section, as it was written, is the settings of one table and no mapping of tables."""
    return "table" in omics or not any(isinstance(value, Mapping) for key, value in omics.items() if key not in _KEYS)


def tables_by_name(omics: object) -> object:
    """The omics section as a mapping of name to settings, sorted by name; a table that is null is left out.

    What is no mapping is returned as it is, for the validation to say so.
    """
    if isinstance(omics, OmicsSettings):
        return {USUAL_NAME: omics}
    if not isinstance(omics, Mapping):
        return omics
    if is_one_table(omics):
        return {str(omics.get("name") or USUAL_NAME): {key: omics[key] for key in omics if key != "name"}}
    return {name: omics[name] for name in sorted(omics, key=str) if omics[name] is not None}


def as_written(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The omics section of a file that says the same: one table with its name beside its settings, several by name."""
    if len(tables) != 1:
        return dict(tables)
    ((name, settings),) = tables.items()
    return {"name": name, **settings}


def disagreements(tables: Mapping[str, OmicsSettings], teachers: Sequence[str]) -> list[str]:
    """What the names of the tables and of those that teach soft labels have wrong, a sentence each."""
    found = []
    folded = [name.casefold() for name in tables]
    twice = [name for name in tables if folded.count(name.casefold()) > 1]
    if twice:
        found.append(f"omics tables {', '.join(twice)} differ in upper and lower case only; give them other names")
    unknown = [name for name in teachers if name not in tables]
    if unknown:
        found.append(f"model.teacher.tables names {', '.join(unknown)}; the omics tables are {', '.join(tables)}")
    return found
