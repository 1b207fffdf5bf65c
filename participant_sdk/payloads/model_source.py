"""The fields of Pydantic models. Imported when the first one is seen: whoever has none needs no Pydantic."""

import dataclasses
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from pydantic import VERSION, BaseModel, RootModel, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from participant_sdk.payloads.codecs import Codec, Scalar
from participant_sdk.payloads.dataclass_source import DataclassSource
from participant_sdk.payloads.fields import DeclaredField

_VERSION_MIN: Final = (2, 11)

if tuple(map(int, VERSION.split(".")[:2])) < _VERSION_MIN:
    raise ImportError(f"models as payloads need Pydantic 2.11 or newer, found {VERSION}: pip install 'saga-coordinator[pydantic]'")


class ModelSource:
    """Implements `RecordSource`."""

    def __init__(self, python_type: type) -> None:
        if not issubclass(python_type, BaseModel):
            raise TypeError(f"{python_type.__name__} is no model of Pydantic 2")
        self._type: Final = python_type

    def fields(self) -> list[DeclaredField]:
        """All of them; computed fields and private attributes are derived again."""
        model = self._type
        if issubclass(model, RootModel):
            raise TypeError(f"{model.__name__} has no fields, but a root: make a model with a field that holds it")
        if model.model_config.get("extra") == "allow":
            raise TypeError(f'{model.__name__} allows fields that it does not name, which would be lost: leave extra="allow" out')
        if not model.__pydantic_complete__:
            model.model_rebuild()
        return [
            DeclaredField(name=name, annotation=info.annotation, default=_default_of(info), markers=tuple(info.metadata))
            for name, info in model.model_fields.items()
        ]

    def make(self, values: dict[str, object]) -> object:
        return self._type.model_validate(values, by_alias=False, by_name=True)

    def leaf_codec(self, python_type: Any) -> Codec | None:
        return _text_codec(python_type)


class ModelDataclassSource(DataclassSource):
    """Implements `RecordSource` for Pydantic's own dataclasses, whose fields are declared in its words."""

    def default_of(self, field: "dataclasses.Field[Any]") -> Callable[[], object] | None:
        return _default_of(self._type.__pydantic_fields__[field.name])

    def leaf_codec(self, python_type: Any) -> Codec | None:
        return _text_codec(python_type)


def _text_codec(python_type: Any) -> Codec | None:
    """Types that Pydantic writes as text in JSON, as addresses of the web are: carried as that text."""
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(python_type)
        schema = adapter.json_schema(mode="serialization")
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError):
        return None
    if schema.get("type") != "string" or schema.get("writeOnly"):  # A secret is written as stars.
        return None
    return Scalar(
        kind="string",
        proto_type=FieldDescriptorProto.TYPE_STRING,
        encode=lambda value: adapter.dump_python(value, mode="json", warnings="error"),
        decode=adapter.validate_python,
    )


def _default_of(info: FieldInfo) -> Callable[[], object] | None:
    if info.default_factory is not None:
        # One that takes the other values cannot be asked without them.
        return None if info.default_factory_takes_validated_data else info.default_factory  # type: ignore[return-value]
    if info.default is PydanticUndefined:
        return None
    default = info.default
    return lambda: default
