//! Canonical JSON: the spec's examples, and properties.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::{
    MAX_NESTING, Numbers, Object, Value,
    float::python_repr,
    member,
    members::{elements, find, members, string},
};

fn canonical(text: &str, numbers: Numbers) -> String {
    String::from_utf8(
        Value::parse(text.as_bytes(), numbers)
            .unwrap()
            .to_canonical(),
    )
    .unwrap()
}

fn reason(text: &str, numbers: Numbers) -> &'static str {
    Value::parse(text.as_bytes(), numbers).unwrap_err().reason
}

/// The examples of the spec's appendix.
#[test]
fn examples_of_the_spec() {
    for (given, expected) in [
        ("{}", "{}"),
        (
            "{\n    \"one\": 1,\n    \"two\": \"Two\"\n}",
            r#"{"one":1,"two":"Two"}"#,
        ),
        (r#"{ "b": "2", "a": "1" }"#, r#"{"a":"1","b":"2"}"#),
        (r#"{"b":"2","a":"1"}"#, r#"{"a":"1","b":"2"}"#),
        (
            r#"{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {
                "display_name": "John Doe", "three_pids": [
                    {"medium": "email", "address": "john.doe@example.org"},
                    {"medium": "msisdn", "address": "123456789"}]}}}"#,
            r#"{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},"success":true}}"#,
        ),
        (r#"{"a": "日本語"}"#, r#"{"a":"日本語"}"#),
        (r#"{"本": 2, "日": 1}"#, r#"{"日":1,"本":2}"#),
        (r#"{"a": "\u65E5"}"#, r#"{"a":"日"}"#),
        (r#"{"a": null}"#, r#"{"a":null}"#),
    ] {
        assert_eq!(canonical(given, Numbers::Canonical), expected);
        assert_eq!(canonical(given, Numbers::Any), expected);
    }
}

/// The appendix's last example turns `-0` into 0 and `1e10` into 10000000000. That is how the number they
/// mean is written; events that spell them so are refused by every server since version 6, and hashed the
/// way of Python before.
#[test]
fn odd_spellings_of_integers() {
    assert_eq!(
        reason("-0", Numbers::Canonical),
        "negative zero is not allowed"
    );
    for text in ["1e10", "1.0", "0.0", "1E2", "-0.0"] {
        assert_eq!(
            reason(text, Numbers::Canonical),
            "numbers must be integers, without fraction or exponent",
            "{text}"
        );
    }
    assert_eq!(canonical("-0", Numbers::Any), "0");
    assert_eq!(canonical("1e10", Numbers::Any), "10000000000.0");
}

#[test]
fn integers_are_limited_since_version_6() {
    for text in ["9007199254740991", "-9007199254740991", "0", "17"] {
        assert_eq!(canonical(text, Numbers::Canonical), text);
    }
    let out_of_range = [
        "9007199254740992",
        "-9007199254740992",
        "9223372036854775807",
        "123456789012345678901234567890",
    ];
    for text in out_of_range {
        assert_eq!(
            reason(text, Numbers::Canonical),
            "integers must lie between -(2^53 - 1) and 2^53 - 1"
        );
        assert_eq!(canonical(text, Numbers::Any), text);
    }
    let digits = "9".repeat(4300);
    assert_eq!(canonical(&digits, Numbers::Any), digits);
    assert_eq!(
        reason(&format!("{digits}9"), Numbers::Any),
        "an integer has too many digits"
    );
}

/// What CPython 3.11's `json.dumps(json.loads(text))` answers.
#[test]
fn fractions_are_written_like_python_does() {
    for (given, expected) in [
        ("1.0", "1.0"),
        ("-1.50", "-1.5"),
        ("0.1", "0.1"),
        ("0.0001", "0.0001"),
        ("0.00001", "1e-05"),
        ("0.000012345", "1.2345e-05"),
        ("1e15", "1000000000000000.0"),
        ("1e16", "1e+16"),
        ("12345678901234567.0", "1.2345678901234568e+16"),
        ("123456789012345.678", "123456789012345.67"),
        ("1e22", "1e+22"),
        ("1.5E300", "1.5e+300"),
        ("5e-324", "5e-324"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ("-0.0", "-0.0"),
        ("1e-400", "0.0"),
        ("50.57", "50.57"),
        ("5.114698E4", "51146.98"),
        ("100e0", "100.0"),
    ] {
        assert_eq!(canonical(given, Numbers::Any), expected, "{given}");
    }
    assert_eq!(
        reason("1e400", Numbers::Any),
        "a number is larger than a double can hold"
    );
}

#[test]
fn of_repeated_keys_the_last_counts() {
    assert_eq!(
        canonical(r#"{"a":1,"b":2,"a":3}"#, Numbers::Canonical),
        r#"{"a":3,"b":2}"#
    );
    assert_eq!(
        canonical(r#"{"a":1,"a":2,"a":3}"#, Numbers::Canonical),
        r#"{"a":3}"#
    );
    assert_eq!(
        canonical(r#"{"\u0061":1,"a":2}"#, Numbers::Canonical),
        r#"{"a":2}"#
    );
}

#[test]
fn keys_are_sorted_by_code_point() {
    // UTF-16 would put the last before the one in the middle.
    assert_eq!(
        canonical(r#"{"𐀀":3,"\uffee":2,"é":1,"z":0}"#, Numbers::Canonical),
        "{\"z\":0,\"é\":1,\"\u{ffee}\":2,\"𐀀\":3}"
    );
    assert_eq!(
        canonical(r#"{"a\"":1,"a#":2,"a\n":3}"#, Numbers::Canonical),
        r#"{"a\n":3,"a\"":1,"a#":2}"#
    );
}

#[test]
fn strings_have_the_shortest_escapes() {
    assert_eq!(
        canonical(
            r#""\u0022\u005c\/\u0008\u000C\n\r\t\u0000\u001F\u007f\ud83d\ude00""#,
            Numbers::Canonical
        ),
        "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\u{7f}😀\""
    );
}

#[test]
fn nonsense_is_refused() {
    for text in [
        "",
        " ",
        "nul",
        "truee",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\":1,}",
        "{\"a\" 1}",
        "{a:1}",
        "{1:1}",
        "{\"a\":}",
        "[",
        "{",
        "{\"a\"",
        "\"",
        "\"\\",
        "\"\\u12",
        "\"\\x\"",
        "\"\n\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "01",
        "-",
        "-01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "+1",
        "NaN",
        "Infinity",
        "-Infinity",
        "1 2",
        "'a'",
        "[1]]",
        "\u{feff}1",
        "0x1",
        "{\"a\":1 \"b\":2}",
    ] {
        for numbers in [Numbers::Canonical, Numbers::Any] {
            assert!(Value::parse(text.as_bytes(), numbers).is_err(), "{text:?}");
        }
    }
    for bytes in [
        &b"\"\xff\""[..],
        b"\"\xed\xa0\x80\"",
        b"\"\xc0\x80\"",
        b"{\"\x80\":1}",
    ] {
        assert_eq!(
            Value::parse(bytes, Numbers::Any).unwrap_err().reason,
            "invalid UTF-8"
        );
    }
    let error = Value::parse(b"{\"a\": tru}", Numbers::Canonical).unwrap_err();
    assert_eq!(error.to_string(), "expected a JSON value at byte 6");
}

#[test]
fn nesting_is_limited() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(
        canonical(&nested(MAX_NESTING), Numbers::Any),
        nested(MAX_NESTING)
    );
    assert_eq!(
        reason(&nested(MAX_NESTING + 1), Numbers::Any),
        "JSON is nested too deep"
    );
    // Serde reads what we let in.
    assert!(serde_json::from_str::<serde_json::Value>(&nested(MAX_NESTING)).is_ok());
    let objects = format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200));
    assert_eq!(reason(&objects, Numbers::Any), "JSON is nested too deep");
    // What holds events may nest deeper than these, and needs not much of the stack for it.
    let deep = move || {
        let text = nested(1_100);
        let value = Value::parse_nested(text.as_bytes(), Numbers::Any, 1_100).unwrap();
        assert_eq!(value.to_canonical(), text.as_bytes());
        assert!(Value::parse_nested(text.as_bytes(), Numbers::Any, 1_099).is_err());
    };
    let small = std::thread::Builder::new().stack_size(1 << 20);
    small.spawn(deep).unwrap().join().unwrap();
    // Many one after the other are fine.
    let wide = format!("[{}1]", "[],".repeat(1000));
    assert_eq!(canonical(&wide, Numbers::Any), wide);
}

#[test]
fn objects_stay_sorted() {
    let mut object = Object::new();
    assert!(object.is_empty());
    for key in ["m", "a", "z", "k"] {
        assert_eq!(object.insert(key, Value::Integer(1)), None);
    }
    assert_eq!(
        object.insert("k", Value::Integer(2)),
        Some(Value::Integer(1))
    );
    assert_eq!(object.remove("m"), Some(Value::Integer(1)));
    assert_eq!(object.remove("m"), None);
    assert_eq!(object.get("k").and_then(Value::as_integer), Some(2));
    assert_eq!(object.len(), 3);
    assert_eq!(object.to_canonical(), br#"{"a":1,"k":2,"z":1}"#);
}

#[test]
fn members_are_found_in_place() {
    let text = br#"{"a":[1,{"b":"}]"},[]],"b\"c":{"x":"\\","y":{}},"d":"q\"\u0001","e":-5,"f":null,"g":true}"#;
    let keys: Vec<_> = members(text)
        .map(|m| m.key_text().unwrap().into_owned())
        .collect();
    assert_eq!(keys, ["a", "b\"c", "d", "e", "f", "g"]);
    for m in members(text) {
        assert_eq!(m.value, &text[m.span.clone()]);
        assert!(text[m.whole.clone()].starts_with(b"\""));
    }
    let a: Vec<_> = elements(find(text, "a").unwrap()).collect();
    assert_eq!(a, [&b"1"[..], br#"{"b":"}]"}"#, b"[]"]);
    assert_eq!(find(text, "b\"c"), Some(&br#"{"x":"\\","y":{}}"#[..]));
    assert_eq!(string(find(text, "d").unwrap()).unwrap(), "q\"\u{1}");
    assert_eq!(super::members::integer(find(text, "e").unwrap()), Some(-5));
    assert_eq!(member(text, "f"), Some(&b"null"[..]));
    assert_eq!(find(text, "h"), None);
    assert_eq!(members(b"{}").count(), 0);
    assert_eq!(elements(b"[]").count(), 0);
    assert_eq!(members(b"[1]").count(), 0);
    assert_eq!(elements(b"{}").count(), 0);
}

fn any_json(numbers: Numbers) -> impl Strategy<Value = Value<'static>> {
    let number = match numbers {
        Numbers::Canonical => (-super::MAX_INTEGER..=super::MAX_INTEGER)
            .prop_map(Value::Integer)
            .boxed(),
        Numbers::Any => prop_oneof![
            any::<i64>().prop_map(Value::Integer),
            any::<f64>()
                .prop_filter("finite", |f| f.is_finite())
                .prop_map(|f| Value::Number(python_repr(f).into())),
            "-?[1-9][0-9]{19,40}".prop_map(|digits| Value::Number(digits.into())),
        ]
        .boxed(),
    };
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        number,
        any::<String>().prop_map(|text| Value::String(text.into())),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            proptest::collection::vec((any::<String>(), inner), 0..8).prop_map(|pairs| {
                let mut object = Object::new();
                for (key, value) in pairs {
                    object.insert(key, value);
                }
                Value::Object(object)
            }),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(value in any_json(Numbers::Canonical)) {
        let text = value.to_canonical();
        prop_assert_eq!(&Value::parse(&text, Numbers::Canonical).unwrap(), &value);
        prop_assert_eq!(Value::parse(&text, Numbers::Any).unwrap().to_canonical(), text);
    }

    #[test]
    fn what_is_written_reads_back_with_any_numbers(value in any_json(Numbers::Any)) {
        let text = value.to_canonical();
        let again = Value::parse(&text, Numbers::Any).unwrap();
        prop_assert_eq!(&again, &value);
        prop_assert_eq!(again.to_canonical(), text);
    }

    /// Serde's pretty form, with its own escapes and white space, has the same canonical form.
    #[test]
    fn the_spelling_does_not_matter(value in any_json(Numbers::Canonical)) {
        let text = value.to_canonical();
        let serde: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let pretty = serde_json::to_vec_pretty(&serde).unwrap();
        prop_assert_eq!(Value::parse(&pretty, Numbers::Canonical).unwrap().to_canonical(), text);
    }

    /// Ruma's canonical JSON is the same.
    #[test]
    fn ruma_agrees(value in any_json(Numbers::Canonical)) {
        let text = value.to_canonical();
        let ruma: ruma::CanonicalJsonValue = serde_json::from_slice(&text).unwrap();
        prop_assert_eq!(ruma.to_string().into_bytes(), text);
    }

    #[test]
    fn fractions_read_back(number in any::<f64>().prop_filter("finite", |f| f.is_finite())) {
        let text = python_repr(number);
        prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), number.to_bits());
        prop_assert!(text.contains(['.', 'e']));
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in any::<Vec<u8>>()) {
        for numbers in [Numbers::Canonical, Numbers::Any] {
            if let Ok(value) = Value::parse(&bytes, numbers) {
                let text = value.to_canonical();
                prop_assert_eq!(&Value::parse(&text, numbers).unwrap(), &value);
            }
        }
        for member in members(&bytes) {
            let _ = (member.key_text(), string(member.value));
        }
        let _ = elements(&bytes).count();
    }

    /// Text that is nearly JSON: what a fuzzer would find.
    #[test]
    fn near_json_does_no_harm(text in r#"[\[\]{}",:\\0-9eE+.\-nultrfa\s]{0,64}"#) {
        for numbers in [Numbers::Canonical, Numbers::Any] {
            let ours = Value::parse(text.as_bytes(), numbers);
            let serde = serde_json::from_str::<serde::de::IgnoredAny>(&text);
            // Serde does not look at the size of numbers it ignores, nor at surrogates.
            prop_assert!(ours.is_err() || serde.is_ok(), "{text}");
        }
        let bytes = text.as_bytes();
        for member in members(bytes) {
            prop_assert_eq!(member.value, &bytes[member.span.clone()]);
        }
        for element in elements(bytes) {
            prop_assert!(!element.is_empty());
        }
    }

    /// Members in place are those of the tree.
    #[test]
    fn places_agree_with_the_tree(value in any_json(Numbers::Any)) {
        let text = value.to_canonical();
        if let Value::Object(object) = &value {
            let found: Vec<_> = members(&text)
                .map(|m| (m.key_text().unwrap().into_owned(), m.value.to_vec()))
                .collect();
            let expected: Vec<_> =
                object.iter().map(|(k, v)| (k.to_owned(), v.to_canonical())).collect();
            prop_assert_eq!(found, expected);
        }
        if let Value::Array(array) = &value {
            let found: Vec<_> = elements(&text).map(<[u8]>::to_vec).collect();
            let expected: Vec<_> = array.iter().map(Value::to_canonical).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
