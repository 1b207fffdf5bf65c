"""The fields of dataclasses."""

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Any, Final

from participant_sdk.payloads.codecs import Codec
from participant_sdk.payloads.fields import DeclaredField


class DataclassSource:
    """Implements `RecordSource`."""

    def __init__(self, python_type: type) -> None:
        self._type: Final[Any] = python_type

    def fields(self) -> list[DeclaredField]:
        """Those that its `__init__` takes; what it derives from them is derived again."""
        if getattr(self._type, "__parameters__", ()):
            raise TypeError(f"{self._type.__name__} is generic, and its fields are not known: make a class with the types filled in")
        try:
            hints = typing.get_type_hints(self._type, include_extras=True)
        except NameError as error:
            raise TypeError(
                f"{self._type.__name__}: the annotation {error.name!r} is not known; import it at the top of the module, outside of "
                "`if TYPE_CHECKING`"
            ) from error
        carried = [field for field in dataclasses.fields(self._type) if field.init]
        self._check_arguments({field.name for field in carried})
        return [DeclaredField(name=field.name, annotation=hints[field.name], default=self.default_of(field)) for field in carried]

    def default_of(self, field: "dataclasses.Field[Any]") -> Callable[[], object] | None:
        """What makes the default of a field; None if it has none."""
        if field.default_factory is not dataclasses.MISSING:
            return field.default_factory
        if field.default is dataclasses.MISSING:
            return None
        default = field.default
        return lambda: default

    def make(self, values: dict[str, object]) -> object:
        return self._type(**values)

    def leaf_codec(self, python_type: object) -> Codec | None:
        return None

    def _check_arguments(self, names: set[str]) -> None:
        """Whatever it must be given is to be a field, or it could not be made again."""
        for name, parameter in inspect.signature(self._type).parameters.items():
            is_needed = parameter.default is parameter.empty and parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
            if is_needed and name not in names:
                raise TypeError(f"{self._type.__name__} takes {name}, which is no field: it could not be made again from its fields")
