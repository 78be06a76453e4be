//! Names of models, inputs and outputs as GraphQL names.
//!
//! The rule: every character that is no letter, digit or `_` becomes `_`; a digit in front gets `_`
//! before it; of several `_` in front one stays, since two are GraphQL's own. Where two names would
//! become one, the name that needed no change keeps it, and each other gets `_` and four hexadecimal
//! digits of its own spelling (FNV-1a) behind it.

use std::collections::BTreeSet;
use std::fmt::Write;

/// Returns a GraphQL name for each of these, in their order; no two are the same.
pub fn unique_names(names: &[&str]) -> Vec<String> {
    unique(names, field_name)
}

/// Returns a name in the form of types (`MyModel`) for each of these GraphQL names, in their order; no
/// two are the same.
pub(crate) fn unique_types(fields: &[&str]) -> Vec<String> {
    unique(fields, type_name)
}

fn unique(names: &[&str], rule: fn(&str) -> String) -> Vec<String> {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut given = vec![String::new(); names.len()];
    // Names that need no change come first, then the others by their spelling: the order in which
    // models are listed decides nothing.
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by_key(|&index| (rule(names[index]) != names[index], names[index]));
    for index in order {
        let mut name = rule(names[index]);
        let mut hash = fnv1a(names[index]);
        while !taken.insert(name.clone()) {
            name = rule(names[index]);
            let _ = write!(name, "_{:04x}", hash & 0xffff);
            hash = hash.rotate_right(16).wrapping_add(1);
        }
        given[index] = name;
    }
    given
}

fn field_name(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let mut field: String = name.chars().map(allowed).collect();
    let underscores = field.bytes().take_while(|&byte| byte == b'_').count();
    if underscores > 1 {
        field.drain(..underscores - 1);
    }
    if field.is_empty() || field.starts_with(|c: char| c.is_ascii_digit()) {
        field.insert(0, '_');
    }
    field
}

fn type_name(field: &str) -> String {
    let mut name = String::with_capacity(field.len());
    let mut upper = true;
    for character in field.chars() {
        match character {
            '_' => upper = true,
            _ if upper => {
                name.push(character.to_ascii_uppercase());
                upper = false;
            }
            _ => name.push(character),
        }
    }
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, 'M');
    }
    name
}

/// The hash of Fowler, Noll and Vo, 64 bits: the same in every build and on every machine.
fn fnv1a(text: &str) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, mix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_becomes_a_graphql_name() {
        for (name, field, base) in [
            ("iris", "iris", "Iris"),
            ("my-model.v2", "my_model_v2", "MyModelV2"),
            ("X:0", "X_0", "X0"),
            ("9lives", "_9lives", "M9lives"),
            ("__hidden", "_hidden", "Hidden"),
            ("serving_default_x:0", "serving_default_x_0", "ServingDefaultX0"),
            ("--", "_", "M"),
            ("", "_", "M"),
            ("höhe", "h_he", "HHe"),
        ] {
            assert_eq!(field_name(name), field, "{name}");
            assert_eq!(type_name(field), base, "{name}");
        }
    }

    #[test]
    fn names_that_would_meet_are_kept_apart_whatever_their_order() {
        let names = ["a-b", "a.b", "a_b", "c"];
        let unique = unique_names(&names);
        assert_eq!((&*unique[2], &*unique[3]), ("a_b", "c"), "these needed no change");
        assert!(unique[0].starts_with("a_b_") && unique[1].starts_with("a_b_"), "{unique:?}");
        assert_ne!(unique[0], unique[1]);
        let mut reversed = unique_names(&["c", "a_b", "a.b", "a-b"]);
        reversed.reverse();
        assert_eq!(reversed, unique);
        assert_eq!(unique_names(&["a-b"]), ["a_b"]);
        let types = unique_types(&["my_model", "my__model", "myModel"]);
        assert_eq!(types.iter().collect::<BTreeSet<_>>().len(), 3, "{types:?}");
    }
}
