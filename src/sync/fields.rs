//! Leaving fields away that a filter does not name (`event_fields` of [filters]).
//!
//! [filters]: https://spec.matrix.org/v1.19/client-server-api/#filtering

use serde_json::{Map, Value, value::RawValue};

/// The fields of an event that are named, such as `content.body`; dots of names are escaped by `\`.
pub(crate) fn only_fields(event: Box<RawValue>, fields: &[String]) -> Box<RawValue> {
    let Ok(Value::Object(whole)) = serde_json::from_str(event.get()) else {
        return event;
    };
    let mut kept = Map::new();
    for field in fields {
        keep(&whole, &mut kept, &path(field));
    }
    serde_json::value::to_raw_value(&Value::Object(kept)).unwrap_or(event)
}

fn keep(from: &Map<String, Value>, to: &mut Map<String, Value>, path: &[String]) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    let Some(value) = from.get(first) else { return };
    if rest.is_empty() {
        to.insert(first.clone(), value.clone());
        return;
    }
    let Value::Object(inner) = value else { return };
    let mut kept = match to.remove(first) {
        Some(Value::Object(kept)) => kept,
        _ => Map::new(),
    };
    keep(inner, &mut kept, rest);
    if !kept.is_empty() {
        to.insert(first.clone(), Value::Object(kept));
    }
}

/// The names on the way to a field.
fn path(field: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut letters = field.chars();
    while let Some(letter) = letters.next() {
        let letter = match letter {
            '.' => {
                names.push(String::new());
                continue;
            }
            '\\' => letters.next().unwrap_or('\\'),
            letter => letter,
        };
        if let Some(name) = names.last_mut() {
            name.push(letter);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{json, value::to_raw_value};

    use super::*;

    #[test]
    fn keeps_what_is_named() {
        let event = json!({"type": "a", "content": {"body": "b", "x.y": {"z": 1}, "c": 2}});
        for (fields, wanted) in [
            (vec!["type"], json!({"type": "a"})),
            (
                vec!["content.body", "content.c"],
                json!({"content": {"body": "b", "c": 2}}),
            ),
            (
                vec!["content.x\\.y.z"],
                json!({"content": {"x.y": {"z": 1}}}),
            ),
            (vec!["content.none", "type.none", ""], json!({})),
        ] {
            let fields: Vec<_> = fields.into_iter().map(str::to_owned).collect();
            let kept = only_fields(to_raw_value(&event).unwrap(), &fields);
            assert_eq!(serde_json::from_str::<Value>(kept.get()).unwrap(), wanted);
        }
    }
}
