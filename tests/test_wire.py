"""The front end's types are those of the schema."""

import pytest

from tests.wire import SCHEMA, WIRE, typescript


def test_the_types_of_the_front_end_are_up_to_date() -> None:
    made = typescript(SCHEMA.read_text(encoding="utf-8"))
    assert WIRE.read_text(encoding="utf-8") == made, 'Run "python -m tests.wire" and build the front end.'


def test_each_kind_of_type() -> None:
    made = typescript(
        '''
Never = Literal["never"]

class A(TypedDict):
    """A thing."""

    a: list[int | Never] | None
    """The ``a``."""
    b: dict[str, float]

class B(A, total=False):
    c: bool
'''
    )
    assert made.split("\n\n", 1)[1] == (
        "export type Never = 'never';\n\n"
        "/** A thing. */\nexport interface A {\n  /** The `a`. */\n"
        "  a: (number | Never)[] | null;\n  b: Record<string, number>;\n}\n\n"
        "export interface B extends A {\n  c?: boolean;\n}\n"
    )


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(ValueError, match="no TypeScript"):
        typescript("class A(TypedDict):\n    a: set[int]\n")
