"""The check of parameters against the table, and templates that do the same for remembered shapes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk.wire.arguments import ITEMS_MOST, Checked, InvalidArguments, Template, Value, check
from openk.wire.messages import RawValue, Text
from openk.wire.methods import ALGORITHMS, METHODS, Field, Kind, Method
from openk.wire.reader import Limits, Reader, Request
from tests.wire.frames import buffer, pack


def view(data: bytes) -> memoryview:
    return memoryview(bytearray(data))


def text(value: str) -> Text:
    return Text(view(value.encode()))


def read(method: str, params: dict[str, object]) -> Request:
    found = Reader(Limits()).read(*buffer(pack([0, 1, method, [params]])))
    assert isinstance(found, Request)
    return found


def checked(method: str, params: dict[str, object]) -> Checked:
    return check(METHODS[method], read(method, params).params)


def refused(method: str, params: dict[str, object]) -> InvalidArguments:
    with pytest.raises(InvalidArguments) as caught:
        checked(method, params)
    assert caught.value.message == str(caught.value)
    return caught.value


def plain(value: Value | dict[str, Value] | list[dict[str, Value]]) -> object:
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value


def test_fields_and_item_fields_are_parted() -> None:
    found = checked("key.encrypt", {"key": "v/k", "version": 3, "input": b"abc", "aad": b""})
    assert found.values == {"key": "v/k", "version": 3}
    assert plain(found.items) == [{"input": b"abc", "aad": b""}]
    assert (found.batch, found.plain_text) == (False, True)


def test_views_pass_through_as_the_same_objects() -> None:
    request = read("key.encrypt", {"key": "v/k", "input": b"abc"})
    found = check(METHODS["key.encrypt"], request.params)
    assert found.items[0]["input"] is request.params["input"] is request.holes[0]


def test_batch_form() -> None:
    found = checked("key.encrypt", {"key": "v/k", "items": [{"input": b"a"}, {"input": b"b", "aad": b"c"}]})
    assert found.values == {"key": "v/k"}
    assert plain(found.items) == [{"input": b"a"}, {"input": b"b", "aad": b"c"}]
    assert (found.batch, found.plain_text) == (True, True)


@pytest.mark.parametrize("method", ["key.encapsulate", "system.ping", "key.create"])
def test_without_item_fields_there_is_one_empty_item_and_no_batch(method: str) -> None:
    params: dict[str, object] = {"key": "v/k", "algorithm": "p-256"}
    given_ = {field.name: params[field.name] for field in METHODS[method].fields if field.required}
    found = checked(method, given_)
    assert (found.items, found.batch) == ([{}], False)
    assert "items is not a field" in refused(method, {**given_, "items": [{}]}).message


def test_items_and_an_item_field_beside_each_other() -> None:
    error = refused("key.encrypt", {"key": "v/k", "input": b"a", "items": [{"input": b"a"}]})
    assert error.field == "input"


@pytest.mark.parametrize("items", [[], [{"input": b""}] * (ITEMS_MOST + 1), {}, b"x", None, "text"])
def test_items_must_be_a_list_of_a_bounded_length(items: object) -> None:
    assert refused("key.encrypt", {"key": "v/k", "items": items}).field == "items"


def test_as_many_items_as_allowed() -> None:
    assert len(checked("key.encrypt", {"key": "v/k", "items": [{"input": b""}] * ITEMS_MOST}).items) == ITEMS_MOST


@pytest.mark.parametrize(
    ("items", "field", "sentence"),
    [
        ([{"input": b""}, 5], "items", "items[1] must be a map"),
        ([{"input": b""}, {}], "items[1].input", "items[1]: input is missing"),
        (
            [{"input": b"", "key": "v/k"}],
            "items[0].key",
            "items[0]: key is not a field of key.encrypt; it takes input, aad",
        ),
        ([{"inptu": b""}], "items[0].inptu", "did you mean input?"),
        ([{"input": 5}], "items[0].input", "items[0]: input must be bytes"),
    ],
)
def test_a_bad_item_is_named(items: list[object], field: str, sentence: str) -> None:
    error = refused("key.encrypt", {"key": "v/k", "items": items})
    assert error.field == field
    assert sentence in error.message


def test_unknown_fields_name_the_nearest() -> None:
    assert refused("key.encrypt", {"key": "v/k", "imput": b""}).message == (
        "imput is not a field of key.encrypt; did you mean input?"
    )
    assert "it takes none" in refused("system.health", {"zzz": 1}).message


def test_an_unknown_field_is_quoted_short_and_printable() -> None:
    error = refused("system.health", {"\n" * 500: 1})
    assert error.message.isprintable()
    assert len(error.field) <= 64


def test_missing_fields() -> None:
    assert refused("key.encrypt", {"input": b""}).field == "key"
    assert refused("key.encrypt", {"key": "v/k"}).field == "input"


@pytest.mark.parametrize(
    ("method", "params", "field"),
    [
        ("key.describe", {"key": b"v/k"}, "key"),
        ("key.describe", {"key": 5}, "key"),
        ("key.describe", {"key": None}, "key"),
        ("key.describe", {"key": "x" * 257}, "key"),
        ("key.describe", {"key": "ü" * 300}, "key"),
        ("key.encrypt", {"key": "v/k", "input": 5}, "input"),
        ("key.encrypt", {"key": "v/k", "input": None}, "input"),
        ("key.encrypt", {"key": "v/k", "input": [b"x"]}, "input"),
        ("key.wrap", {"key": "v/k", "input": bytes(8193)}, "input"),
        ("key.wrap", {"key": "v/k", "input": "x" * 8193}, "input"),
        ("key.encrypt", {"key": "v/k", "input": b"", "version": -1}, "version"),
        ("key.encrypt", {"key": "v/k", "input": b"", "version": (1 << 31) + 1}, "version"),
        ("key.encrypt", {"key": "v/k", "input": b"", "version": True}, "version"),
        ("key.encrypt", {"key": "v/k", "input": b"", "version": 1.0}, "version"),
        ("key.encrypt", {"key": "v/k", "input": b"", "version": "1"}, "version"),
        ("key.data_key", {"key": "v/k", "wrapped_only": 1}, "wrapped_only"),
        ("key.create", {"key": "v/k", "algorithm": "aes"}, "algorithm"),
        ("secret.put", {"secret": "v/s", "fields": [b"x"]}, "fields"),
        ("secret.put", {"secret": "v/s", "fields": {"a": 5}}, "fields"),
        ("secret.put", {"secret": "v/s", "fields": {"": b""}}, "fields"),
        ("secret.put", {"secret": "v/s", "fields": {"a" * 257: b""}}, "fields"),
        ("secret.put", {"secret": "v/s", "fields": {str(number): b"" for number in range(257)}}, "fields"),
    ],
)
def test_wrong_kinds_sizes_and_choices(method: str, params: dict[str, object], field: str) -> None:
    assert refused(method, params).field == field


def test_sizes_are_inclusive() -> None:
    assert checked("key.wrap", {"key": "v/k", "input": bytes(8192)})
    assert checked("key.describe", {"key": "ü" * 256}).values == {"key": "ü" * 256}
    assert checked("key.public", {"key": "v/k", "version": 1 << 31}).values["version"] == 1 << 31


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_choice_is_accepted(algorithm: str) -> None:
    assert checked("key.create", {"key": "v/k", "algorithm": algorithm}).values["algorithm"] == algorithm


def test_a_wrong_choice_names_the_nearest() -> None:
    assert "did you mean aes-256-gcm?" in refused("key.create", {"key": "v/k", "algorithm": "aes-256-gmc"}).message


def test_text_that_is_not_utf8() -> None:
    with pytest.raises(InvalidArguments, match="key is not UTF-8"):
        check(METHODS["key.describe"], {"key": Text(view(b"\xff"))})


def test_bytes_fields_take_text_and_say_so() -> None:
    found = checked("key.encrypt", {"key": "v/k", "input": "abc"})
    assert plain(found.items) == [{"input": b"abc"}]
    assert not found.plain_text
    assert not checked("key.encrypt", {"key": "v/k", "input": b"", "aad": "x"}).plain_text
    assert not checked("key.encrypt", {"key": "v/k", "items": [{"input": b""}, {"input": "x"}]}).plain_text
    assert not checked("secret.put", {"secret": "v/s", "value": "x"}).plain_text
    mixed = checked("secret.put", {"secret": "v/s", "fields": {"a": b"x", "b": "y"}})
    assert plain(mixed.values["fields"]) == {"a": b"x", "b": b"y"}
    assert not mixed.plain_text


def test_no_message_has_a_value_in_it() -> None:
    for method, params in (
        ("key.create", {"key": "v/k", "algorithm": "canary"}),
        ("key.wrap", {"key": "v/k", "input": b"canary" * 3000}),
        ("key.describe", {"key": "canary" * 100}),
        ("key.data_key", {"key": "v/k", "wrapped_only": "canary"}),
        ("secret.put", {"secret": "v/s", "fields": {"a": ["canary"]}}),
    ):
        assert "canary" not in refused(method, params).message


def test_a_method_that_is_not_in_the_table() -> None:
    names = Field("names", Kind.TEXTS, "Names.", most=3)
    method = Method("key.encrypt", "Not the one in the table.", "System", None, (names,))
    assert check(method, {"names": [text("a"), text("b")]}).values == {"names": ["a", "b"]}
    for wrong in ([text("long")], [5], text("a"), [text("a")] * 257):
        with pytest.raises(InvalidArguments, match="names"):
            check(method, {"names": wrong})


def test_a_kind_of_results_only_is_a_mistake_in_the_table() -> None:
    method = Method("x.y", "", "System", None, (Field("map", Kind.MAP, ""),))
    with pytest.raises(AssertionError, match="results only"):
        check(method, {})


raw_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5).map(text)
    | st.binary(max_size=5).map(view),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(sorted({f.name for m in METHODS.values() for f in (*m.fields, *m.item)} | {"items", "zzz"}))


@given(st.sampled_from(sorted(METHODS)), st.dictionaries(names, raw_values, max_size=4))
def test_nothing_but_invalid_arguments_comes_out(name: str, params: dict[str, RawValue]) -> None:
    method = METHODS[name]
    try:
        found = check(method, params)
    except InvalidArguments:
        return
    assert {field.name for field in method.fields if field.required} <= set(found.values)
    for item in found.items:
        assert {field.name for field in method.item if field.required} <= set(item)


payload = st.binary(max_size=6)
parameter_sets = st.one_of(
    st.tuples(
        st.just("key.encrypt"),
        st.fixed_dictionaries(
            {"key": st.just("v/k"), "input": payload}, optional={"aad": payload, "version": st.just(3)}
        ),
    ),
    st.tuples(
        st.just("key.encrypt"),
        st.fixed_dictionaries(
            {
                "key": st.just("v/k"),
                "items": st.lists(
                    st.fixed_dictionaries({"input": payload}, optional={"aad": payload}), min_size=1, max_size=4
                ),
            }
        ),
    ),
    st.tuples(
        st.just("secret.put"),
        st.fixed_dictionaries(
            {"secret": st.just("v/s")},
            optional={
                "value": payload,
                "fields": st.dictionaries(st.text("abc", min_size=1), payload, max_size=3),
                "expected": st.just(1),
            },
        ),
    ),
    st.tuples(st.just("system.ping"), st.fixed_dictionaries({"echo": payload})),
)


@given(parameter_sets, st.data())
def test_a_template_gives_what_the_check_gives(case: tuple[str, dict[str, object]], data: st.DataObject) -> None:
    name, params = case
    reader = Reader(Limits())
    first = reader.read(*buffer(pack([0, 1, name, [params]])))
    assert isinstance(first, Request)
    arguments = check(METHODS[name], first.params)
    if not reader.learn(first):
        return
    template = Template(arguments, first.holes)

    def other(value: object) -> object:
        if isinstance(value, bytes):
            return data.draw(payload)
        if isinstance(value, dict):
            return {key: other(part) for key, part in value.items()}
        return [other(part) for part in value] if isinstance(value, list) else value

    for _ in range(2):
        again = {key: other(value) for key, value in params.items()}
        request = reader.read(*buffer(pack([0, 2, name, [again]])))
        assert isinstance(request, Request)
        assert request.shape
        filled = template.fill(request.holes)
        expected = checked(name, again)
        assert (plain(filled.values), plain(filled.items)) == (plain(expected.values), plain(expected.items))
        assert (filled.batch, filled.plain_text) == (expected.batch, True)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("key.wrap", {"key": "v/k", "input": b""}),
        ("key.wrap", {"key": "v/k", "items": [{"input": b""}]}),
        ("system.ping", {"echo": b""}),
    ],
)
def test_a_template_refuses_a_payload_that_the_check_would_refuse(method: str, params: dict[str, object]) -> None:
    request = read(method, params)
    template = Template(check(METHODS[method], request.params), request.holes)
    name = "echo" if method == "system.ping" else "input"
    most = next(f.most for f in (*METHODS[method].fields, *METHODS[method].item) if f.name == name)
    assert template.fill((view(bytes(most)),))
    with pytest.raises(InvalidArguments) as caught:
        template.fill((view(bytes(most + 1)),))
    assert name in caught.value.field


def test_what_a_template_filled_does_not_change_with_the_next() -> None:
    request = read("secret.put", {"secret": "v/s", "value": b"1", "fields": {"a": b"2"}})
    template = Template(check(METHODS["secret.put"], request.params), request.holes)
    one = template.fill((view(b"x"), view(b"y")))
    template.fill((view(b"z"), view(b"z")))
    assert plain(one.values) == {"secret": "v/s", "value": b"x", "fields": {"a": b"y"}}


def test_a_template_refuses_holes_that_are_not_its_own_and_text() -> None:
    request = read("key.encrypt", {"key": "v/k", "input": b"a"})
    arguments = check(METHODS["key.encrypt"], request.params)
    for holes in ((), (view(b"a"),), (*request.holes, view(b"a"))):
        with pytest.raises(ValueError, match="holes"):
            Template(arguments, holes)
    with pytest.raises(ValueError, match="holes"):
        Template(checked("key.encrypt", {"key": "v/k", "input": "a"}), ())
